//! What a person asks of a mesh: what would become of a call, why a request was refused, and all about a service. One
//! mesh carries all of it, since it is dear to start.

use std::fs;

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Finished, Machine, Mesh, wait_until},
};

as_both_users!(a_call_is_explained_a_refusal_found_by_its_id_and_a_service_described);

const RULES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 300s, maxEjectionPercent: 100}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: web, subset: v2}}]
  - match: [{uri: {prefix: /shared}}]
    timeout: 3s
    route:
    - {destination: {host: web, subset: v1}, weight: 80}
    - {destination: {host: web, subset: v2}, weight: 20}
"#;

/// Version 2 fails.
const FAILING: &str = "import http.server\n\
    class Handler(http.server.BaseHTTPRequestHandler):\n\
    \x20def do_GET(self):\n\
    \x20 self.send_response(503)\n\
    \x20 self.send_header('content-length', '0')\n\
    \x20 self.end_headers()\n\
    \x20def log_message(self, *words): pass\n\
    http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()\n";

/// Meets every rule, then goes on calling, so that its sidecar can be asked and is measured.
const CALLER: &str = "curl -s -D - -o /dev/null -H 'x-request-id: asked-for-1' -H 'cookie: hunter2' 'http://web/none?token=hunter2'\n\
    until curl -s http://127.0.0.1:15090/stats/prometheus | grep -q '^heddle_endpoint_ejected{'; do\n\
    \x20 curl -s -o /dev/null -H 'end-user: jason' http://web/\n\
    done\n\
    curl -s -o /dev/null -H 'end-user: jason' http://web/\n\
    echo ejected\n\
    while sleep 0.5; do curl -s -o /dev/null http://web/shared; done\n";

fn document(told: &Finished) -> Value {
    serde_json::from_str(&told.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", told.stdout, told.stderr))
}

fn a_call_is_explained_a_refusal_found_by_its_id_and_a_service_described(machine: &Machine) {
    let mesh = machine.up("asking");
    let _v1 = mesh.serve("web", &["--version", "v1"]);
    let failing = ["--port", "http:80", "--version", "v2", "--", "python3", "-c", FAILING];
    let _v2 = mesh.start("web", &failing);
    wait_until("both serve", || {
        let all = mesh.workloads("web");
        let ready = |view: &Value| view["workload"]["ports"]["80"]["state"] == "ready";
        (all.len() == 2 && all.iter().all(ready)).then_some(())
    });
    let rules = machine.dir.join("rules.yaml");
    fs::write(&rules, RULES).unwrap();
    let applied = mesh.run("apply", &["-f", rules.to_str().unwrap()]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{}", applied.stdout);
    let caller = mesh.start("caller", &["--", "sh", "-c", CALLER]);
    wait_until("it has met every rule", || caller.printed().contains("ejected").then_some(()));

    calls_are_explained(&mesh);
    a_refusal_is_found(&mesh, &caller.printed());
    the_service_is_described(&mesh);
    what_cannot_be_meant_is_refused(&mesh);
}

fn explained(mesh: &Mesh<'_>, words: &[&str]) -> Value {
    let words = [&["--from", "caller", "-o", "json"], words].concat();
    document(&mesh.run("explain", &words))
}

fn calls_are_explained(mesh: &Mesh<'_>) {
    // By a header, to one whose only endpoint is out for its errors.
    let by_header = explained(mesh, &["--to", "web:80", "--header", "end-user: jason"]);
    assert_eq!(by_header["rule"]["rule"], "VirtualService/default/web#http[0]", "{by_header}");
    assert_eq!(by_header["refusal"]["code"], "all-ejected", "{by_header}");
    let endpoint = &by_header["targets"][0]["endpoints"][0];
    assert_eq!(endpoint["state"], "ejected", "{by_header}");
    assert_eq!(endpoint["ejected"]["reason"], "consecutive5xxErrors", "{by_header}");

    // By a path, with shares, and why the rule before does not match.
    let shared =
        explained(mesh, &["--to", "web", "--path", "/shared", "--header", "cookie: hunter2"]);
    assert_eq!(shared["rule"]["rule"], "VirtualService/default/web#http[1]", "{shared}");
    assert_eq!(shared["timeout_ms"], 3_000.0, "{shared}");
    assert_eq!(
        (&shared["targets"][0]["share"], &shared["targets"][1]["share"]),
        (&80.0.into(), &20.0.into())
    );
    assert_eq!(shared["targets"][0]["endpoints"][0]["state"], "in use", "{shared}");
    let because = shared["tried"][0]["because"][0].as_str().unwrap();
    assert!(because.contains("header end-user is not there"), "{because}");
    assert!(!shared.to_string().contains("hunter2"), "{shared}");

    // Refused: no rule matches. And outside nobody is known.
    let none = explained(mesh, &["--to", "web:80", "--path", "/none"]);
    assert_eq!((&none["outcome"], &none["refusal"]["status"]), (&"refused".into(), &404.into()));
    let outside = explained(mesh, &["--to", "example.com:80"]);
    assert_eq!(
        (&outside["callee"]["kind"], &outside["outcome"]),
        (&"outside".into(), &"forwarded".into())
    );

    let text = mesh.run("explain", &["--from", "caller", "--to", "web:80", "--path", "/shared"]);
    for part in ["VirtualService/default/web#http[1]", "80 % web.default", "subset v2", "3000 ms"] {
        assert!(text.stdout.contains(part), "{part}: {}{}", text.stdout, text.stderr);
    }
}

fn a_refusal_is_found(mesh: &Mesh<'_>, answer: &str) {
    // The refusal itself names the id, in a field and in its text.
    assert!(answer.contains("x-request-id: asked-for-1"), "{answer}");
    let found = document(&mesh.run("why", &["asked-for-1", "-o", "json"]));
    let refusal = &found["refusals"][0];
    assert_eq!(
        (&refusal["code"], &refusal["status"]),
        (&"no-route".into(), &404.into()),
        "{found}"
    );
    assert_eq!(refusal["path"], "/none?token=(hidden)", "{found}");
    assert_eq!(found["refusals"].as_array().unwrap().len(), 1, "{found}");
    assert!(!found.to_string().contains("hunter2"), "{found}");
    let text = mesh.run("why", &["asked-for-1"]).stdout;
    assert!(text.contains("which called, refused") && text.contains("what to do:"), "{text}");
    // Also of a program that has ended, and its sidecar with it.
    let short = mesh.client(&[
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-H",
        "x-request-id: short-lived",
        "http://web/none",
    ]);
    assert_eq!(short.code, 0, "{}", short.stderr);
    let found = document(&mesh.run("why", &["short-lived", "-o", "json"]));
    assert_eq!(found["refusals"][0]["code"], "no-route", "{found}");
    let listed = mesh.run("why", &[]).stdout;
    assert!(listed.contains("asked-for-1") && listed.contains("all-ejected"), "{listed}");
    let unknown = mesh.run("why", &["never-asked"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(unknown.stderr.contains("id never-asked"), "{}", unknown.stderr);
}

fn the_service_is_described(mesh: &Mesh<'_>) {
    wait_until("the dashboard has heard of its caller", || {
        let told = document(&mesh.run("describe", &["web", "-o", "json"]));
        let measured = &told["measured"];
        let known = measured["callers"].as_array().is_some_and(|all| !all.is_empty())
            && measured["ejections"].as_array().is_some_and(|all| !all.is_empty());
        known.then_some(())
    });
    let text = mesh.run("describe", &["web"]).stdout;
    for part in [
        "web.default",
        "look at first",
        "out: web-v2",
        "VirtualService/default/web#http[0]",
        "header end-user is \"jason\"",
        "80 % to web.default:80, subset v1",
        "DestinationRule/default/web",
        "who calls it",
        "heddle explain --from caller",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn what_cannot_be_meant_is_refused(mesh: &Mesh<'_>) {
    for (command, words, says) in [
        ("explain", &["--from", "caler", "--to", "web"][..], "--from: there is no"),
        ("explain", &["--from", "caller", "--to", "wep"], "did you mean `web`?"),
        (
            "explain",
            &["--from", "caller", "--to", "web:81"],
            "web.default has no port 81; it has 80",
        ),
        ("explain", &["--from", "caller", "--to", "example.com"], "its port has to be said"),
        ("describe", &["wep"], "did you mean `web`?"),
        ("describe", &["web", "-n", "shop"], "did you mean `web.default`?"),
        ("why", &["-n", "nowhere"], "--namespace"),
    ] {
        let refused = mesh.run(command, words);
        assert_ne!(refused.code, 0, "{command} {words:?}");
        assert!(refused.stderr.contains(says), "{words:?}: {}", refused.stderr);
    }
}
