//! How endpoints are chosen under a rule, with real servers and clients: in turn, by a cookie that the mesh
//! sets, and the near ones first.

use std::fs;

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Finished, Machine, Mesh, Running, wait_until},
};

as_both_users!(endpoints_are_chosen_as_a_rule_says);

/// Answers with its argument.
const NAMED: &str = "import http.server, sys\n\
    class Handler(http.server.BaseHTTPRequestHandler):\n\
    \x20def do_GET(self):\n\
    \x20 body = sys.argv[1].encode()\n\
    \x20 self.send_response(200)\n\
    \x20 self.send_header('content-length', str(len(body)))\n\
    \x20 self.end_headers()\n\
    \x20 self.wfile.write(body)\n\
    \x20def log_message(self, *words): pass\n\
    http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()\n";

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy:\n";

fn serve(mesh: &Mesh<'_>, version: &str, locality: &str) -> Running {
    let words =
        ["--port", "http:80", "--version", version, "--locality", locality, "--", "python3", "-c"];
    mesh.start("web", &[&words[..], &[NAMED, version]].concat())
}

fn apply(machine: &Machine, mesh: &Mesh<'_>, policy: &str) {
    let rule = machine.dir.join("rule.yaml");
    fs::write(&rule, format!("{RULE}    {policy}\n")).unwrap();
    let applied = mesh.run("apply", &["-f", rule.to_str().unwrap()]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{}", applied.stdout);
}

/// What a client at a place prints: each answer on a line of its own.
fn ask(mesh: &Mesh<'_>, count: usize, curl: &str) -> Finished {
    let script = format!("for i in $(seq {count}); do curl -s {curl} -w '\\n' http://web/; done");
    mesh.start("caller", &["--locality", "eu/a/1", "--", "sh", "-c", &script]).finish()
}

fn counts(answers: &str) -> (usize, usize) {
    let of = |version: &str| answers.lines().filter(|line| *line == version).count();
    (of("v1"), of("v2"))
}

/// Each zone of a region keeps its own calls as far as it can take them: that depends on who else calls.
fn share_zones(machine: &Machine, mesh: &Mesh<'_>) {
    let near = serve(mesh, "v3", "eu/b");
    apply(machine, mesh, "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 2}}");
    let ask = |count: usize| {
        let script = format!("for i in $(seq {count}); do curl -s -w '\\n' http://web/; done");
        mesh.start("zoned", &["--locality", "eu/a", "--", "sh", "-c", &script]).finish().stdout
    };
    let of = |answers: &str, version: &str| answers.lines().filter(|line| *line == version).count();
    let alone = ask(40);
    assert_eq!(of(&alone, "v2"), 0, "another region waits: {alone}");
    assert!(of(&alone, "v1") > 0 && of(&alone, "v3") > 0, "all callers are in one zone: {alone}");
    let other = mesh.start("zoned", &["--locality", "eu/b", "--", "sleep", "60"]);
    wait_until("a second caller is there", || (mesh.workloads("zoned").len() == 1).then_some(()));
    assert_eq!(of(&ask(20), "v1"), 20, "half of the callers, and half of the endpoints");
    other.end(Signal::TERMINATE);
    near.end(Signal::TERMINATE);
}

fn endpoints_are_chosen_as_a_rule_says(machine: &Machine) {
    let mesh = machine.up("balancing");
    let near = serve(&mesh, "v1", "eu/a");
    let _far = serve(&mesh, "v2", "us/b");
    wait_until("both serve", || {
        let all = mesh.workloads("web");
        let ready = |view: &Value| view["workload"]["ports"]["80"]["state"] == "ready";
        (all.len() == 2 && all.iter().all(ready)).then_some(())
    });
    assert!(mesh.workloads("web").iter().any(|one| one["workload"]["locality"]["zone"] == "b"));

    apply(machine, &mesh, "loadBalancer: {simple: ROUND_ROBIN}");
    assert_eq!(counts(&ask(&mesh, 20, "").stdout), (10, 10));

    apply(
        machine,
        &mesh,
        "loadBalancer: {consistentHash: {httpCookie: {name: who, path: /, ttl: 60s}}}",
    );
    for attempt in 0..3 {
        let jar = machine.dir.join(format!("jar-{attempt}"));
        let jar = jar.to_str().unwrap();
        let told = counts(&ask(&mesh, 10, &format!("-b {jar} -c {jar}")).stdout);
        assert!(told == (10, 0) || told == (0, 10), "{told:?}");
    }
    let head = ask(&mesh, 1, "-i").stdout.to_ascii_lowercase();
    assert!(head.contains("set-cookie: who=") && head.contains("max-age=60; path=/"), "{head}");

    share_zones(machine, &mesh);

    apply(machine, &mesh, "outlierDetection: {}");
    assert_eq!(counts(&ask(&mesh, 20, "").stdout), (20, 0), "who is near takes all");
    near.end(Signal::TERMINATE);
    assert_eq!(counts(&ask(&mesh, 20, "").stdout), (0, 20));
}
