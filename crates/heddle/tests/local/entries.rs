//! Services that are not in the mesh: a program on the host, named by ServiceEntries, called by curl under
//! rules; and a namespace that may call only what is known.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
};

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh},
};

as_both_users!(hosts_outside_are_services_with_rules);

/// A program on the host that says which Host it was asked for.
fn host_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut request) else { continue };
            let head = String::from_utf8_lossy(&request[..length]).into_owned();
            let host =
                head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or("nobody");
            let body = format!("the host was asked for {host}");
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            drop(stream.write_all((head + &body).as_bytes()));
        }
    });
    address
}

fn rules(port: u16) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: static, namespace: default}}
spec:
  hosts: [api.example.com, "*.wild.example.com"]
  exportTo: ["*"]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}, labels: {{version: v1}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: dns, namespace: default}}
spec:
  hosts: [db.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 5432, name: tcp, protocol: TCP}}]
  resolution: DNS
  endpoints: [{{address: host.heddle.internal, ports: {{http: {port}, tcp: {port}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: never, namespace: default}}
spec:
  hosts: [never.example.invalid]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: asked, namespace: strict}}
spec:
  hosts: [asked.example.com]
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api, namespace: default}}
spec:
  hosts: [api.example.com]
  http:
  - match: [{{uri: {{prefix: /broken}}}}]
    fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}
    route: [{{destination: {{host: api.example.com}}}}]
  - match: [{{uri: {{prefix: /db}}}}]
    rewrite: {{authority: rewritten.example.com}}
    route: [{{destination: {{host: db.example.com, port: {{number: 80}}}}}}]
  - route: [{{destination: {{host: api.example.com, subset: v1}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api, namespace: default}}
spec: {{host: api.example.com, subsets: [{{name: v1, labels: {{version: v1}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: strict}}
spec: {{outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}}}
"#
    )
}

/// What is known by the host that a call names.
fn rules_by_name(port: u16) -> String {
    format!(
        r#"---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: dynamic, namespace: default}}
spec:
  hosts: ["*.heddle.internal"]
  addresses: [240.240.77.77]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: ruled, namespace: default}}
spec:
  hosts: [ruled.example.org, "*.ruled.example.org"]
  http:
  - match: [{{uri: {{prefix: /old}}}}]
    redirect: {{uri: /new}}
  - match: [{{port: 8080}}]
    directResponse: {{status: 418}}
  - route: [{{destination: {{host: api.example.com}}}}]
"#
    )
}

fn hosts_outside_are_services_with_rules(machine: &Machine) {
    let mesh = machine.up("entries");
    let server = host_server();
    let file = mesh.run_dir().join("entries.yaml");
    fs::write(&file, rules(server.port()) + &rules_by_name(server.port())).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    let said = format!("{}{}", applied.stdout, applied.stderr);
    assert!(applied.code == 0 && !said.contains("not enforced"), "{said}");
    in_their_own_namespace(&mesh);
    by_host_where_nobody_knows_the_address(&mesh);
    looked_up_for_each_call(&mesh);
    where_only_what_is_known_may_be_called(&mesh, server.port());
    they_are_shown(&mesh);
}

/// What a client gets from each of these commands.
fn told<const N: usize>(mesh: &Mesh<'_>, namespace: &str, commands: [&str; N]) -> [String; N] {
    const MARK: &str = "\n=====\n";
    let script = commands.map(|command| format!("{command}; printf '{MARK}'")).join("\n");
    let words = ["--service", "client", "--namespace", namespace, "--", "sh", "-c", &script];
    let ended = mesh.run("run", &words);
    let mut answers: Vec<String> = ended.stdout.split(MARK).map(str::to_owned).collect();
    assert_eq!(answers.len(), N + 1, "{}{}", ended.stdout, ended.stderr);
    answers.truncate(N);
    answers.try_into().unwrap()
}

fn in_their_own_namespace(mesh: &Mesh<'_>) {
    let curl = |url: &str| format!("curl -si --max-time 20 {url}");
    let urls = [
        "http://api.example.com/",
        "http://a.wild.example.com/",
        "http://db.example.com/",
        "http://db.example.com:5432/",
        "http://api.example.com/broken",
        "http://api.example.com/db",
        "http://never.example.invalid/",
    ]
    .map(curl);
    let metrics = "curl -s http://127.0.0.1:15090/stats/prometheus";
    let [api, wild, db, tcp, broken, rewritten, never, metrics] = told(
        mesh,
        "default",
        [&urls[0], &urls[1], &urls[2], &urls[3], &urls[4], &urls[5], &urls[6], metrics],
    );
    for (answer, host) in [
        (api, "api.example.com"),
        (wild, "a.wild.example.com"),
        (db, "db.example.com"),
        (tcp, "db.example.com:5432"),
        (rewritten, "rewritten.example.com"),
    ] {
        assert!(answer.ends_with(&format!("the host was asked for {host}")), "{host}: {answer}");
    }
    assert!(broken.starts_with("HTTP/1.1 418 "), "{broken}");
    assert!(broken.contains("x-heddle-refusal: fault-abort"), "{broken}");
    assert!(never.starts_with("HTTP/1.1 503 "), "{never}");
    assert!(never.contains("not-resolved") && never.contains("never.example.invalid: "), "{never}");
    let counted = |parts: &[&str]| {
        let lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
        lines.filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };
    let api = [
        "destination_service=\"api.example.com\"",
        "destination_service_name=\"api.example.com\"",
        "destination_service_namespace=\"default\"",
        "destination_workload=\"unknown\"",
    ];
    assert!(counted(&api) > 0, "{metrics}");
    assert!(counted(&["destination_service=\"*.wild.example.com\""]) > 0, "{metrics}");
}

/// Where the address says nothing, the sidecar looks up the host that the request names.
fn looked_up_for_each_call(mesh: &Mesh<'_>) {
    let at = |address: &str, host: &str| {
        format!("curl -si --max-time 20 --connect-to ::{address}:80 http://{host}/")
    };
    let commands = [
        at("192.0.2.77", "host.heddle.internal"),
        at("240.240.77.77", "host.heddle.internal"),
        at("192.0.2.77", "never.heddle.internal"),
    ];
    let [unknown, own, never] = told(mesh, "default", commands.each_ref().map(|one| &**one));
    for answer in [unknown, own] {
        assert!(answer.ends_with("the host was asked for host.heddle.internal"), "{answer}");
    }
    assert!(never.starts_with("HTTP/1.1 503 ") && never.contains("not-resolved"), "{never}");
}

/// A host that rules name and no service has: they hold at addresses that nobody knows, and at no other.
fn by_host_where_nobody_knows_the_address(mesh: &Mesh<'_>) {
    let curl = |words: &str| format!("curl -si --max-time 20 {words}");
    let at = |port: u16, url: &str| curl(&format!("--connect-to ::192.0.2.77:{port} {url}"));
    let commands = [
        at(80, "http://ruled.example.org/"),
        at(80, "http://x.ruled.example.org/old"),
        at(8080, "http://ruled.example.org:8080/"),
        curl("-H 'Host: ruled.example.org' http://db.example.com/old"),
    ];
    let [led, old, by_port, known] = told(mesh, "default", commands.each_ref().map(|one| &**one));
    assert!(led.ends_with("the host was asked for ruled.example.org"), "{led}");
    assert!(old.starts_with("HTTP/1.1 301 ") && old.contains("/new"), "{old}");
    assert!(by_port.starts_with("HTTP/1.1 418 "), "{by_port}");
    assert!(known.ends_with("the host was asked for ruled.example.org"), "of its address: {known}");
    let shown = mesh.run("get", &["virtualservice", "ruled"]).stdout;
    assert!(shown.contains("Programmed"), "{shown}");
}

fn where_only_what_is_known_may_be_called(mesh: &Mesh<'_>, port: u16) {
    let known = "curl -si --max-time 20 http://api.example.com/";
    let asked = format!(
        "curl -si --max-time 20 -H 'Host: asked.example.com' http://host.heddle.internal:{port}/"
    );
    let unknown = format!("curl -si --max-time 20 http://host.heddle.internal:{port}/");
    let address = "curl -si --max-time 20 http://192.0.2.77/";
    let elsewhere = "curl -si --max-time 20 http://db.example.com/";
    let [known, asked, unknown, address, elsewhere] =
        told(mesh, "strict", [known, &asked, &unknown, address, elsewhere]);
    assert!(known.ends_with("the host was asked for api.example.com"), "{known}");
    assert!(asked.ends_with("the host was asked for asked.example.com"), "{asked}");
    for (answer, what) in [(unknown, "host.heddle.internal"), (address, "192.0.2.77")] {
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("x-heddle-refusal: not-in-registry"), "{answer}");
        assert!(answer.contains(what) && answer.contains("Sidecar/strict/default"), "{answer}");
    }
    assert_eq!(elsewhere, "", "a name that this namespace does not see resolves as outside");
}

fn they_are_shown(mesh: &Mesh<'_>) {
    let services = mesh.run("get", &["services", "-o", "json"]);
    let services: Vec<Value> = serde_json::from_str(&services.stdout).unwrap();
    let vip = |host: &str| {
        let found = services.iter().find(|view| view["service"]["name"]["name"] == host);
        found.unwrap_or_else(|| panic!("{host}: {services:?}"))["service"]["vip_v4"].clone()
    };
    assert!(vip("db.example.com").as_str().unwrap().starts_with("240.240."));
    assert_ne!(vip("api.example.com"), vip("*.wild.example.com"));
    assert_eq!(vip("asked.example.com"), Value::Null);
    let shown = mesh.run("get", &["serviceentries"]);
    assert_eq!(shown.stdout.matches("Programmed").count(), 5, "{}", shown.stdout);
    let deleted = mesh.run("delete", &["serviceentry", "static", "-n", "default"]);
    assert!(deleted.code != 0 && deleted.stderr.contains("--force"), "{}", deleted.stderr);
}
