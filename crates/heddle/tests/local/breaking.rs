//! Circuit breaking with a real server that fails: it is taken out, people are told where they look, and it
//! comes back when it is well.

use std::fs;

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, wait_until},
};

as_both_users!(
    a_server_with_too_many_errors_in_a_row_is_taken_out_and_comes_back,
    a_request_beyond_the_limit_is_refused_by_name,
);

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy:\n";

/// Fails while the file of its first argument is there.
const FAILING: &str = "import http.server, os, sys\n\
    class Handler(http.server.BaseHTTPRequestHandler):\n\
    \x20def do_GET(self):\n\
    \x20 failing = os.path.exists(sys.argv[1])\n\
    \x20 body = b'broken' if failing else b'well'\n\
    \x20 self.send_response(503 if failing else 200)\n\
    \x20 self.send_header('content-length', str(len(body)))\n\
    \x20 self.end_headers()\n\
    \x20 self.wfile.write(body)\n\
    \x20def log_message(self, *words): pass\n\
    http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()\n";

/// Asks until its sidecar has taken somebody out, then some more, then until that one answers again.
const CALLER: &str = "ask() { curl -s --max-time 20 -w ' %{http_code}\\n' http://web/; }\n\
    out() { curl -s http://127.0.0.1:15090/stats/prometheus | grep -q '^heddle_endpoint_ejected{'; }\n\
    failed=0\n\
    until out; do ask | grep -q ' 200' || failed=$((failed + 1)); done\n\
    echo failed $failed\n\
    for i in 1 2 3 4 5 6 7 8 9 10; do ask; done | sort | uniq -c | sed 's/^ */then /'\n\
    until ask | grep -q well; do sleep 0.1; done\n\
    echo back\n";

fn a_server_with_too_many_errors_in_a_row_is_taken_out_and_comes_back(machine: &Machine) {
    let mesh = machine.up("breaking");
    let _well = mesh.serve("web", &["--version", "v1"]);
    let trouble = machine.dir.join("trouble");
    fs::write(&trouble, "").unwrap();
    let failing = [
        "--port",
        "80",
        "--version",
        "v2",
        "--",
        "python3",
        "-c",
        FAILING,
        trouble.to_str().unwrap(),
    ];
    let _failing = mesh.start("web", &failing);
    wait_until("both serve", || {
        let all = mesh.workloads("web");
        let ready = |view: &Value| view["workload"]["ports"]["80"]["state"] == "ready";
        (all.len() == 2 && all.iter().all(ready)).then_some(())
    });
    let rule = machine.dir.join("rule.yaml");
    let policy = "    outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 10s, maxEjectionPercent: 50}\n";
    fs::write(&rule, format!("{RULE}{policy}")).unwrap();
    let applied = mesh.run("apply", &["-f", rule.to_str().unwrap()]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{}", applied.stdout);

    let caller = mesh.start("caller", &["--", "sh", "-c", CALLER]);
    wait_until("it has taken somebody out", || caller.printed().contains("then").then_some(()));
    let printed = caller.printed();
    assert!(printed.contains("failed 2\n") && printed.contains("then 10 web 200\n"), "{printed}");
    let told = wait_until("the dashboard has heard of it", || {
        let told = mesh.run("get", &["dr", "web"]).stdout;
        told.contains("out: web-v2").then_some(told)
    });
    assert!(told.contains("consecutive5xxErrors"), "{told}");
    let graph = mesh.run("graph", &["-o", "json"]).stdout;
    let graph: Value = serde_json::from_str(&graph).unwrap();
    assert_eq!(graph["ejections"][0]["rule"], "DestinationRule/default/web", "{graph}");
    assert!(mesh.run("top", &["--once"]).stdout.contains("out: web-v2"));

    fs::remove_file(&trouble).unwrap();
    let ended = caller.finish();
    assert!(ended.stdout.ends_with("back\n"), "{}", ended.stdout);
}

fn a_request_beyond_the_limit_is_refused_by_name(machine: &Machine) {
    let mesh = machine.up("limits");
    let slow = "import http.server, time\n\
        class Handler(http.server.BaseHTTPRequestHandler):\n\
        \x20def do_GET(self):\n\
        \x20 time.sleep(2)\n\
        \x20 self.send_response(200)\n\
        \x20 self.send_header('content-length', '0')\n\
        \x20 self.end_headers()\n\
        \x20def log_message(self, *words): pass\n\
        http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()\n";
    let _server = mesh.start_ready("web", &["--port", "80", "--", "python3", "-c", slow]);
    let rule = machine.dir.join("rule.yaml");
    fs::write(&rule, format!("{RULE}    connectionPool: {{http: {{http2MaxRequests: 2}}}}\n"))
        .unwrap();
    assert_eq!(mesh.run("apply", &["-f", rule.to_str().unwrap()]).code, 0);
    // All at once, whichever workers of the one sidecar they meet.
    let script = "for i in 1 2 3 4 5 6; do curl -s -w ' %{http_code}\\n' http://web/ & done; wait";
    let answers = mesh.client(&["sh", "-c", script]).stdout;
    let count = |word: &str| answers.lines().filter(|line| line.contains(word)).count();
    assert_eq!((count(" 200"), count(" 503")), (2, 4), "{answers}");
    assert_eq!(count("http2MaxRequests of DestinationRule/default/web is 2"), 4, "{answers}");
}
