//! Programs people have: nginx, Node and Redis as members, Prometheus and Chromium as onlookers.
//! One that is missing skips its test by name.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, skip, wait_until},
    promql,
};

as_both_users!(
    nginx_and_node_answer_through_the_mesh,
    redis_is_recognised_and_relayed,
    prometheus_on_the_host_scrapes_the_mesh,
    figures_come_from_the_prometheus_that_is_named,
    a_browser_shows_who_calls_whom,
);

/// Is the program installed? Says so loudly if not.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    let found = found.into_iter().any(|folder| folder.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Writes a configuration of nginx on port 80 in the foreground, with these directives of `http` and of
/// `location /`, and says where it is.
pub(crate) fn nginx_conf(machine: &Machine, http: &str, location: &str) -> String {
    let dir = machine.dir.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;\n\
         events {{}} http {{ access_log off; {paths} {http}\n\
         server {{ listen 80; location / {{ {location} }} }} }}\n"
    );
    let conf = format!("{dir}/nginx.conf");
    fs::write(&conf, text).unwrap();
    conf
}

fn nginx_and_node_answer_through_the_mesh(machine: &Machine) {
    if !installed("nginx") || !installed("node") {
        return;
    }
    let mesh = machine.up("servers");
    let conf = nginx_conf(machine, "", "return 200 'nginx\\n';");
    let nginx = ["--port", "80", "--", "/usr/sbin/nginx", "-c", &conf];
    let script = "require('http').createServer((q,s)=>s.end('node\\n')).listen(80,'127.0.0.1')";
    let _nginx = mesh.start("front", &nginx);
    let _node = mesh.start("back", &["--port", "80", "--", "node", "-e", script]);
    for (service, answer) in [("front", "nginx\n"), ("back", "node\n")] {
        let url = format!("http://{service}/");
        wait_until("it answers", || (mesh.get(&url).stdout == answer).then_some(()));
    }
}

fn redis_is_recognised_and_relayed(machine: &Machine) {
    if !installed("redis-server") || !installed("redis-cli") {
        return;
    }
    let mesh = machine.up("store");
    let dir = machine.dir.to_str().unwrap();
    // Without a password Redis refuses whoever is not 127.0.0.1, and callers are not.
    let open = ["--protected-mode", "no", "--save", "", "--dir", dir];
    let server =
        [&["--port", "6379", "--", "redis-server", "--bind", "127.0.0.1"][..], &open].concat();
    let _server = mesh.start("store", &server);
    let ask = |words: &[&str]| {
        let command = [&["redis-cli", "-h", "store"], words].concat();
        mesh.client(&command).stdout
    };
    wait_until("it answers", || (ask(&["ping"]) == "PONG\n").then_some(()));
    assert_eq!(ask(&["set", "colour", "indigo"]), "OK\n");
    assert_eq!(ask(&["get", "colour"]), "indigo\n");
    // What it was taken for, and why, is told by the server's sidecar.
    let workload = mesh.workloads("store").remove(0);
    let id = workload["workload"]["id"].as_str().unwrap().to_owned();
    let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
    let url = format!("http://{dashboard}/sidecars/{id}/stats/prometheus");
    let verdict = wait_until("the sidecar's metrics are passed through", || {
        let metrics = host_get(&url);
        let mut lines = metrics.lines();
        lines.find(|line| line.starts_with("heddle_protocol_verdicts_total")).map(str::to_owned)
    });
    assert!(verdict.contains("verdict=\"tcp\"") && verdict.contains("client-bytes"), "{verdict}");
}

fn prometheus_on_the_host_scrapes_the_mesh(machine: &Machine) {
    if !installed("prometheus") {
        return;
    }
    // Until the test ends: how long it takes depends on the machine.
    let demo = machine.start(machine.heddle(&["demo", "--output", "json"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let dashboard = dashboard(machine);
    let config = machine.dir.join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n  - job_name: heddle\n    scrape_interval: 1s\n    http_sd_configs:\n      \
         - url: http://{dashboard}/api/v1/prometheus/targets\n        refresh_interval: 1s\n"
    );
    fs::write(&config, text).unwrap();
    let listen = free_address();
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", config.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", machine.dir.join("tsdb").display()));
    prometheus.arg(format!("--web.listen-address={listen}"));
    let _prometheus = machine.start(prometheus);
    let query =
        "sum(istio_requests_total{reporter=\"destination\",destination_service_name=\"ratings\"})";
    let found = wait_until("Prometheus has the mesh's counters", || {
        let answer = asked(&listen, query)?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    });
    assert!(found.parse::<f64>().unwrap() >= 1.0, "{found}");
    panels_have_what_they_show(&listen);
    promql::both_say_the_same(&listen, &dashboard, &promql::panels("30s"));
}

fn figures_come_from_the_prometheus_that_is_named(machine: &Machine) {
    if !installed("prometheus") {
        return;
    }
    let listen = free_address();
    let source = format!("http://{listen}");
    let mesh = machine.up_by("read", |mut command| {
        command.args(["--prometheus", &source]);
        command
    });
    let script = "python3 -m http.server 80 --bind 127.0.0.1";
    let _server = mesh.start("pages", &["--port", "80", "--", "sh", "-c", script]);
    wait_until("it answers", || mesh.get("http://pages/").stdout.contains("<html").then_some(()));
    // Nobody is there yet: that is told, and is no mesh without traffic.
    let refused = machine.run(&["--mesh", "read", "graph"]);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains(&format!("--prometheus {source}: cannot connect to")), "{told}");

    let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
    let config = machine.dir.join("read.yml");
    let text = format!(
        "scrape_configs:\n  - job_name: heddle\n    scrape_interval: 1s\n    http_sd_configs:\n      \
         - url: http://{dashboard}/api/v1/prometheus/targets\n        refresh_interval: 1s\n"
    );
    fs::write(&config, text).unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", config.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", machine.dir.join("read-tsdb").display()));
    prometheus.arg(format!("--web.listen-address={listen}"));
    let _prometheus = machine.start(prometheus);
    wait_until("the graph has what Prometheus has", || {
        mesh.get("http://pages/");
        let text = host_get(&format!("http://{dashboard}/api/v1/graph?window=300"));
        let graph: Value = serde_json::from_str(&text).ok()?;
        let mut edges = graph["edges"].as_array()?.iter();
        let calls = |edge: &&Value| {
            edge["destination"]["name"] == "pages"
                && edge["server"]["per_second"].as_f64().is_some_and(|calls| calls > 0.0)
        };
        edges.find(calls).map(drop)
    });
    let top = machine.run(&["--mesh", "read", "top", "--once"]);
    assert!(top.stdout.contains("pages"), "{}{}", top.stdout, top.stderr);
}

/// What Prometheus answers to a query, if it answers.
fn asked(listen: &str, query: &str) -> Option<Value> {
    let url = format!("http://{listen}/api/v1/query");
    let mut ask = Command::new("curl");
    ask.args(["-s", "-G", &url, "--data-urlencode"]).arg(format!("query={query}"));
    serde_json::from_slice(&ask.output().ok()?.stdout).ok()
}

/// Panels of Grafana's dashboard that may be empty where nothing goes wrong.
const EMPTY_AT_BEST: [&str; 2] = ["Refusals and retries", "Why the mesh answered in its place"];

/// Every query of the dashboard for Grafana is one that Prometheus understands and answers, as Grafana would ask it.
fn panels_have_what_they_show(listen: &str) {
    for (title, query) in &promql::panels("20s") {
        wait_until(&format!("`{title}` has data: {query}"), || {
            let answer = asked(listen, query)?;
            assert_eq!(answer["status"], "success", "{title}: {query}: {answer}");
            let some = answer["data"]["result"].as_array().is_some_and(|all| !all.is_empty());
            (some || EMPTY_AT_BEST.contains(&title.as_str())).then_some(())
        });
    }
}

fn a_browser_shows_who_calls_whom(machine: &Machine) {
    if !installed("chromium") {
        return;
    }
    let demo = machine.start(machine.heddle(&["demo", "--for", "50s", "--output", "json"]));
    wait_until("the demo runs", || demo.said().contains("the demo runs").then_some(()));
    let url = format!("http://{}/", dashboard(machine));
    let profile = format!("--user-data-dir={}", machine.dir.join("chromium").display());
    let page = wait_until("the page names the services", || {
        let mut chromium = Command::new("chromium");
        chromium.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ]);
        chromium.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        chromium.args([&profile, "--virtual-time-budget=5000", "--dump-dom", &url]);
        let shown = chromium.output().ok()?;
        let page = String::from_utf8_lossy(&shown.stdout).into_owned();
        ["frontend", "restaurants", "reviews", "ratings", "photos", "store"]
            .iter()
            .all(|service| page.contains(service))
            .then_some(page)
    });
    assert!(page.contains("<svg"), "the graph is drawn");
}

/// The only mesh's dashboard.
fn dashboard(machine: &Machine) -> String {
    let told = machine.run(&["dashboard"]);
    let text = told.stdout.trim().trim_start_matches("http://").trim_end_matches('/');
    assert!(!text.is_empty(), "{}", told.stderr);
    text.to_owned()
}

pub(crate) fn host_get(url: &str) -> String {
    let got = Command::new("curl").args(["-sS", "--max-time", "20", url]).output().unwrap();
    String::from_utf8_lossy(&got.stdout).into_owned()
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What curl is asked, and what must and must not be in what it prints with `-i`, whatever the case of letters.
pub(crate) type CurlCase = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Asks all of it from within a mesh, in one go.
pub(crate) fn by_curl(mesh: &Mesh<'_>, cases: &[CurlCase]) {
    const MARK: &str = "\n=====\n";
    let asked =
        cases.iter().map(|(words, ..)| format!("curl -si --max-time 15 {words}; printf '{MARK}'"));
    let ended = mesh.client(&["sh", "-c", &asked.collect::<Vec<_>>().join("\n")]);
    let answers: Vec<_> = ended.stdout.split(MARK).collect();
    assert_eq!(answers.len(), cases.len() + 1, "{}{}", ended.stdout, ended.stderr);
    for ((words, has, has_not), answer) in cases.iter().zip(answers) {
        let small = answer.to_ascii_lowercase();
        for part in *has {
            assert!(small.contains(&part.to_ascii_lowercase()), "{words}: no `{part}` in {answer}");
        }
        for part in *has_not {
            assert!(!small.contains(&part.to_ascii_lowercase()), "{words}: `{part}` in {answer}");
        }
    }
}
