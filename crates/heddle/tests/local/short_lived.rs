//! Callers that live shorter than the observer's interval, and the ends of others: all of it is counted, once.

use std::process::Command;

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, wait_until},
    tools::host_get,
};

as_both_users!(
    callers_that_live_shorter_than_an_interval_are_counted,
    the_end_of_a_caller_is_counted_once,
    an_observer_that_hangs_delays_no_end_for_long,
);

/// A mesh with a server that has been scraped.
fn served<'m>(machine: &'m Machine, name: &str) -> (Mesh<'m>, crate::host::Running) {
    let mesh = machine.up(name);
    let server = mesh.serve("web", &[]);
    let graph = || -> Value {
        let told = mesh.run("graph", &["-o", "json"]).stdout;
        serde_json::from_str(&told).unwrap_or_default()
    };
    wait_until("the server is looked at", || (graph()["coverage"]["scraped"] == 1).then_some(()));
    (mesh, server)
}

/// How often clients have called, as they themselves have counted since the mesh began.
fn counted(mesh: &Mesh<'_>) -> String {
    let dashboard = mesh.info()["dashboard"].as_str().unwrap_or_default().to_owned();
    let query = "round(sum(istio_requests_total{reporter=\"source\",source_workload=\"client\",destination_service_name=\"web\"}), 0.001)";
    let url = format!("http://{dashboard}/api/v1/query");
    let mut ask = Command::new("curl");
    ask.args(["-sG", "--max-time", "10", &url, "--data-urlencode", &format!("query={query}")]);
    let answer = ask.output().unwrap().stdout;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned()
}

/// Waits until that many calls are counted, and sees that further scrapes add nothing.
fn comes_to(mesh: &Mesh<'_>, calls: &str) {
    wait_until("all calls are counted", || {
        let counted = counted(mesh);
        let more = counted.parse::<f64>().unwrap() > calls.parse::<f64>().unwrap();
        assert!(!more, "{counted} calls are counted instead of {calls}");
        (counted == calls).then_some(())
    });
    let scrapes = || -> u64 {
        let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
        let page = host_get(&format!("http://{dashboard}/metrics"));
        let line = page.lines().find(|line| line.starts_with("heddle_observe_scrapes_total "));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_default()
    };
    let before = scrapes();
    wait_until("it is scraped on", || (scrapes() > before + 2).then_some(()));
    assert_eq!(counted(mesh), calls);
}

fn callers_that_live_shorter_than_an_interval_are_counted(machine: &Machine) {
    let (mesh, _server) = served(machine, "short");
    let words = ["run", "--mesh", "short", "--service", "client", "--"];
    let curl = ["curl", "-s", "-o", "/dev/null", "http://web/a", "-o", "/dev/null", "http://web/b"];
    for _ in 0..3 {
        assert_eq!(mesh.client(&curl).code, 0);
    }
    // And several that end at one time.
    let start = |_| machine.start(machine.heddle(&[&words[..], &curl[..]].concat()));
    let together: Vec<_> = (0..4).map(start).collect();
    for one in together {
        assert_eq!(one.finish().code, 0);
    }
    comes_to(&mesh, "14");
    let graph: Value =
        serde_json::from_str(&mesh.run("graph", &["-o", "json", "--window", "5m"]).stdout).unwrap();
    let edges = graph["edges"].as_array().unwrap();
    assert!(edges.iter().any(|edge| edge["source"].to_string().contains("client")), "{graph}");
}

fn the_end_of_a_caller_is_counted_once(machine: &Machine) {
    let (mesh, _server) = served(machine, "ending");
    // Scraped several times while it lives; the last calls are made right before its end.
    let script = "for i in 1 2 3 4 5 6; do curl -s http://web/ >/dev/null; sleep 0.5; done; \
        curl -s http://web/ >/dev/null; curl -s http://web/ >/dev/null";
    assert_eq!(mesh.client(&["sh", "-c", script]).code, 0);
    comes_to(&mesh, "8");
}

fn an_observer_that_hangs_delays_no_end_for_long(machine: &Machine) {
    let (mesh, _server) = served(machine, "hanging");
    let observer = mesh.pid("observe");
    Signal::STOP.send(observer).unwrap();
    let curl = ["curl", "-s", "-o", "/dev/null", "http://web/"];
    assert_eq!(mesh.client(&curl).code, 0);
    // A part that has not answered for 10 s is started again: it was not waited for that long.
    assert_eq!(mesh.pid("observe"), observer);
    wait_until("there is another observer", || {
        (![0, observer].contains(&mesh.pid("observe"))).then_some(())
    });
    let before = wait_until("it answers", || {
        let graph = mesh.run("graph", &["-o", "json"]).stdout;
        let graph: Value = serde_json::from_str(&graph).ok()?;
        (graph["coverage"]["scraped"] == 1).then(|| counted(&mesh))
    });
    assert_eq!(before, "0", "what nobody could scrape is lost");
    assert_eq!(mesh.client(&curl).code, 0);
    comes_to(&mesh, "1");
}
