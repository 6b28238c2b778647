//! Faults and splits as a hand at the keyboard makes them, with curl and Redis as those who are disturbed.

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Finished, Machine, Mesh, wait_until},
    tools::installed,
};

as_both_users!(
    faults_are_made_listed_and_taken_away_by_hand,
    calls_are_divided_by_hand,
    a_connection_of_redis_is_disturbed,
);

/// Says its argument.
const SAYS: &str = "
import http.server, sys
class Says(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '2')
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('', 80), Says).serve_forever()
";

/// What a command prints that must succeed.
fn done(ended: Finished) -> String {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// What a command says that must be refused.
fn refused(ended: &Finished) -> &str {
    assert_ne!(ended.code, 0, "{}", ended.stdout);
    &ended.stderr
}

/// Status and refusal of one call.
fn ask(mesh: &Mesh<'_>, words: &str) -> String {
    mesh.client(&["sh", "-c", &format!("curl -si --max-time 20 {words} http://web/")]).stdout
}

fn faults_are_made_listed_and_taken_away_by_hand(machine: &Machine) {
    let mesh = machine.up("faults");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let fault = |words: &[&str]| mesh.run("fault", words);

    assert!(refused(&fault(&["wep", "--abort", "503"])).contains("did you mean `web`?"));
    assert!(
        refused(&fault(&["web", "--abort", "UNAVAILBLE"])).contains("did you mean UNAVAILABLE?")
    );
    assert!(
        refused(&fault(&["web", "--delay", "1s", "--abort", "500"]))
            .contains("cannot be used with")
    );
    assert!(refused(&fault(&["web", "--tcp", "refuse", "--path", "/"])).contains("no path"));

    let dry = done(fault(&["web", "--abort", "503", "--dry-run"]));
    assert!(dry.contains("httpStatus: 503") && dry.contains("nothing was changed"), "{dry}");
    assert!(ask(&mesh, "").starts_with("HTTP/1.1 200"));

    let made = done(fault(&["web", "--abort", "503", "--header", "x-user=test", "--for", "10m"]));
    assert!(made.contains("kind: Fault") && made.contains("expires: \"20"), "{made}");
    assert!(made.contains("heddle-fault-web-abort created"), "{made}");
    assert!(ask(&mesh, "").starts_with("HTTP/1.1 200"), "the header is not there");
    let hit = ask(&mesh, "-H 'X-User: test'");
    assert!(hit.starts_with("HTTP/1.1 503"), "{hit}");
    assert!(hit.contains("fault-abort; hop=outbound@"), "{hit}");
    assert!(hit.contains("rule=Fault/default/heddle-fault-web-abort;"), "{hit}");

    done(fault(&["web", "--delay", "1s", "--side", "server"]));
    let timed =
        mesh.client(&["curl", "-s", "-o", "/dev/null", "-w", "%{time_total}", "http://web/"]);
    assert!(timed.stdout.parse::<f64>().unwrap() >= 1.0, "{}", timed.stdout);

    let listed = done(fault(&[]));
    for words in ["heddle-fault-web-abort", "abort 503", "delay 1s", "server", "100 %"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let listed: Value = serde_json::from_str(&done(fault(&["web", "-o", "json"]))).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert!(done(mesh.run("get", &["faults"])).contains("heddle-fault-web-delay"));

    done(fault(&["--clear", "web"]));
    assert!(done(fault(&[])).contains("no faults"));
    assert!(ask(&mesh, "-H 'X-User: test'").starts_with("HTTP/1.1 200"));
    assert!(refused(&fault(&["--clear"])).contains("nothing to clear"));
}

fn calls_are_divided_by_hand(machine: &Machine) {
    let mesh = machine.up("splits");
    let server = |version: &'static str| {
        let words = ["--port", "80", "--version", version, "--", "python3", "-c", SAYS, version];
        mesh.start("web", &words)
    };
    let _both = [server("v1"), server("v2")];
    wait_until("both serve", || {
        let all = mesh.workloads("web");
        let ready = |view: &Value| view["workload"]["ports"]["80"]["state"] == "ready";
        (all.len() == 2 && all.iter().all(ready)).then_some(())
    });
    let answers = || {
        let asked = "for i in 1 2 3 4 5 6 7 8; do curl -s http://web/; done";
        mesh.client(&["sh", "-c", asked]).stdout
    };
    let split = |words: &[&str]| mesh.run("split", words);

    assert!(refused(&split(&["web", "v1=99", "v2=2"])).contains("come to 101"));
    assert!(refused(&split(&["web", "v1=99", "v3=1"])).contains("version `v3` of `web`"));
    let made = done(split(&["web", "v1=0", "v2=100"]));
    assert!(made.contains("kind: DestinationRule") && made.contains("weight: 100"), "{made}");
    assert_eq!(answers(), "v2".repeat(8));
    // Again with other shares: the rules are the same objects.
    assert!(done(split(&["web", "v1=100", "v2=0"])).contains("configured"));
    assert_eq!(answers(), "v1".repeat(8));
    done(split(&["web", "--clear"]));
    assert!(refused(&split(&["web", "--clear"])).contains("nothing to clear"));

    let own = machine.dir.join("own.yaml");
    std::fs::write(
        &own,
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: mine}\nspec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}}]\n",
    )
    .unwrap();
    done(mesh.run("apply", &["-f", own.to_str().unwrap()]));
    let held = split(&["web", "v1=50", "v2=50"]);
    assert!(
        refused(&held).contains("VirtualService/default/mine holds the routes"),
        "{}",
        held.stderr
    );
}

fn a_connection_of_redis_is_disturbed(machine: &Machine) {
    if !installed("redis-server") || !installed("redis-cli") {
        return;
    }
    let mesh = machine.up("redis-faults");
    let server = "redis-server --save '' --appendonly no --protected-mode no --bind 0.0.0.0";
    let words = ["--port", "6379", "--protocol", "tcp", "--", "sh", "-c", server];
    let _store = mesh.start_ready("store", &words);
    let redis = |script: &str| {
        let ended = mesh.client(&["sh", "-c", script]);
        format!("{}{}", ended.stdout, ended.stderr)
    };
    let well = redis(
        "redis-cli -h store SET k $(printf 'x%.0s' $(seq 3000)) && redis-cli -h store STRLEN k",
    );
    assert!(well.contains("OK") && well.contains("3000"), "{well}");

    done(mesh.run("fault", &["store", "--tcp", "resetAfterBytes=1000"]));
    assert!(redis("redis-cli -h store STRLEN k").contains("3000"), "few bytes pass");
    let cut = redis("redis-cli -h store GET k");
    assert!(cut.contains("reset") || cut.contains("closed"), "{cut}");

    done(mesh.run("fault", &["store", "--tcp", "refuse"]));
    let refused = redis("redis-cli -h store PING");
    assert!(!refused.contains("PONG"), "{refused}");

    done(mesh.run("fault", &["store", "--tcp", "blackhole", "--side", "server"]));
    let lost = redis("timeout 2 redis-cli -h store PING; echo ended $?");
    assert!(lost.contains("ended 124"), "{lost}");

    done(mesh.run("fault", &["--clear", "store"]));
    assert!(redis("redis-cli -h store PING").contains("PONG"));
}
