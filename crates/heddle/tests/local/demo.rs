//! The demo: what one command promises, and what it leaves behind.

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Finished, Machine, processes_with, wait_until},
};

as_both_users!(
    every_call_of_the_demo_is_captured_on_both_sides,
    two_demos_run_side_by_side,
    an_injected_abort_is_told_apart_from_a_failure,
    a_killed_demo_is_cleaned_up_by_the_next,
    an_interrupted_demo_leaves_nothing,
    a_start_that_is_interrupted_leaves_nothing,
    no_program_of_a_demo_outlives_its_holder,
);

/// Where the examples are.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

fn report(ended: &Finished) -> Value {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn edge<'r>(report: &'r Value, source: &str, destination: &str) -> &'r Value {
    let edges = report["edges"].as_array().unwrap();
    let found = edges.iter().find(|e| e["source"] == source && e["destination"] == destination);
    found.unwrap_or_else(|| panic!("no edge {source} to {destination}: {report}"))
}

fn every_call_of_the_demo_is_captured_on_both_sides(machine: &Machine) {
    let report = report(&machine.run(&["demo", "--for", "4s", "--output", "json"]));
    assert_eq!((&report["failed"], &report["captured_both_sides"]), (&0.into(), &true.into()));
    for (source, destination, protocol) in [
        ("loadgen", "frontend", "http"),
        ("frontend", "restaurants", "http"),
        ("frontend", "reviews", "http"),
        ("frontend", "photos", "http"),
        ("reviews", "ratings", "http"),
        ("restaurants", "store", "tcp"),
        ("frontend", "tables", "grpc"),
        ("frontend", "specials", "http"),
    ] {
        let edge = edge(&report, source, destination);
        assert_eq!(edge["protocol"], protocol, "{edge}");
        assert_eq!(edge["client_requests"], edge["app_sent"], "{edge}");
        assert_eq!(edge["client_requests"], edge["server_requests"], "{edge}");
        assert!(edge["sent_bytes"].as_u64() > Some(0), "{edge}");
    }
    // How much each version of `reviews` gets is the balancer's choice by latency.
    let services = report["services"].as_array().unwrap();
    let asked = |name: &str| services.iter().any(|s| s["name"] == name && s["success_rate"] == 1.0);
    for name in
        ["frontend", "restaurants", "reviews", "photos", "ratings", "store", "tables", "specials"]
    {
        assert!(asked(name), "{name}: {report}");
    }
    assert!(report["startup_seconds"].as_f64().is_some(), "{report}");
    let tables = &edge(&report, "frontend", "tables")["grpc_statuses"];
    assert!(tables["0"].as_u64() > Some(0), "{report}");
    // Three errors in a row, some calls that were under way, and then it is left alone.
    let specials = edge(&report, "frontend", "specials");
    let count = |key: &str| specials[key].as_u64().unwrap();
    let (broken, all) = (count("failed_on_purpose"), count("client_requests"));
    assert!(broken >= 3 && broken * 3 < all, "{report}");
    let out = &report["taken_out"][0];
    assert!(out["endpoint"].as_str().unwrap().starts_with("specials-v2-"), "{report}");
    assert_eq!(
        (&out["by"], &out["reason"]),
        (&"frontend-v1".into(), &"consecutive5xxErrors".into())
    );
    assert_eq!(out["rule"], "DestinationRule/default/specials");
}

fn two_demos_run_side_by_side(machine: &Machine) {
    // At the same moment: neither may take the name or the port that the other is about to take.
    let words = ["demo", "--for", "6s", "--output", "json"];
    let [first, second] = [(); 2].map(|()| machine.start(machine.heddle(&words)));
    let [first, second] = [first.finish(), second.finish()].map(|ended| report(&ended));
    assert_ne!(first["mesh"], second["mesh"]);
    for report in [first, second] {
        assert_eq!(report["captured_both_sides"], true, "{report}");
    }
}

fn an_injected_abort_is_told_apart_from_a_failure(machine: &Machine) {
    let demo = machine.start(machine.heddle(&["demo", "--for", "6s", "--output", "json"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let file = format!("{EXAMPLES}/abort-ratings-80-percent.yaml");
    let applied = machine.run(&["apply", "-f", &file]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let report = report(&demo.finish());
    let edge = edge(&report, "reviews", "ratings");
    assert!(edge["injected_aborts"].as_u64() > Some(0), "{edge}");
    assert_eq!(edge["failed"], 0, "{edge}");
    assert_eq!(report["captured_both_sides"], true, "{report}");
}

fn a_killed_demo_is_cleaned_up_by_the_next(machine: &Machine) {
    let demo = machine.start(machine.heddle(&["demo", "--mesh", "killed"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let run = machine.dir.join("run/killed");
    let run = run.to_str().unwrap().to_owned();
    // Everything that belongs to it, its holder included, dies at once.
    demo.signal(Signal::KILL);
    for pid in processes_with(&run) {
        // It may have gone by itself meanwhile.
        drop(Signal::KILL.send(pid));
    }
    drop(demo);
    let words = ["demo", "--mesh", "killed", "--for", "3s", "--output", "json"];
    assert_eq!(report(&machine.run(&words))["captured_both_sides"], true);
    assert_eq!(processes_with(&run), Vec::<u32>::new());
}

fn an_interrupted_demo_leaves_nothing(machine: &Machine) {
    let demo = machine.start(machine.heddle(&["demo", "--mesh", "short"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let ended = demo.end(Signal::INTERRUPT);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    nothing_is_left(machine);
}

/// No process and no file of any mesh, at this very moment.
fn nothing_is_left(machine: &Machine) {
    let run = machine.dir.join("run");
    assert_eq!(processes_with(run.to_str().unwrap()), Vec::<u32>::new());
    let left: Vec<_> = std::fs::read_dir(&run).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_start_that_is_interrupted_leaves_nothing(machine: &Machine) {
    for (command, when) in [
        ("up", "starting the control plane"),
        ("demo", "starting the control plane"),
        ("demo", "starting 12 workloads"),
    ] {
        let starting = machine.start(machine.heddle(&[command, "--mesh", "early"]));
        wait_until("it has begun", || starting.said().contains(when).then_some(()));
        let ended = starting.end(Signal::INTERRUPT);
        assert_eq!(ended.code, 130, "{command} at `{when}`: {}", ended.stderr);
        nothing_is_left(machine);
    }
}

fn no_program_of_a_demo_outlives_its_holder(machine: &Machine) {
    let demo = machine.start(machine.heddle(&["demo", "--mesh", "headless"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let status = machine.run(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let holder = u32::try_from(status["info"]["pids"]["holder"].as_u64().unwrap()).unwrap();
    let run = machine.dir.join("run/headless").to_str().unwrap().to_owned();
    assert!(processes_with(&run).len() > 12, "the test is about something");
    Signal::KILL.send(holder).unwrap();
    let ended = demo.finish();
    assert!(ended.code == 1 && ended.stderr.contains("has ended"), "{}", ended.stderr);
    assert_eq!(processes_with(&run), Vec::<u32>::new());
}
