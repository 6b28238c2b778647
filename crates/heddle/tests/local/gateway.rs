//! Routes of the Gateway API and Services of files, seen by curl and grpcio.

use std::fs;

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, wait_until},
    http2::{PYTHON, SERVER, has_grpcio},
    tools::{CurlCase, by_curl},
};

as_both_users!(routes_and_services_of_files_do_what_they_say_to_real_clients);

/// Answers with its name and what it was asked; `/slow` takes long.
const SHOP: &str = "
import http.server, sys, time
class App(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/slow':
            time.sleep(20)
        body = f'{sys.argv[1]} {self.requestline}\\n{self.headers}'.encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('', 8080), App).serve_forever()
";

const SERVICES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-v1}
spec: {selector: {app: shop, version: v1}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-v2}
spec: {selector: {app: shop, version: v2}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: shop, version: v2}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: greeter-v2}
spec: {selector: {app: greeter, version: v2}, ports: [{name: grpc, port: 50051}]}
";

const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{kind: Service, group: "", name: shop, port: 80}]
  hostnames: [nobody.example]
  rules:
  - backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {value: /v2}}, {headers: [{name: X-Version, value: two}]}]
    backendRefs: [{name: shop-v2, port: 80}]
  - matches: [{path: {value: /strip}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: ""}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: "100%"}], remove: [user-agent]}}
    backendRefs: [{name: shop-v1, port: 80}]
  - matches: [{path: {value: /old}}]
    filters:
    - {type: RequestRedirect, requestRedirect: {hostname: new.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
  - matches: [{path: {value: /nowhere}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {value: /nothing}}]
  - matches: [{path: {type: Exact, value: /slow}}]
    backendRefs: [{name: shop-v1, port: 80}]
    timeouts: {request: 1s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mine, namespace: other}
spec:
  parentRefs: [{kind: Service, group: "", name: shop, namespace: default}]
  rules: [{backendRefs: [{name: shop-v2, namespace: default, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: greeter}
spec:
  parentRefs: [{kind: Service, group: "", name: greeter}]
  rules:
  - matches: [{method: {service: shop.Greeter, method: Hello}}]
    backendRefs: [{name: greeter-v2, port: 50051}]
  - matches: [{method: {method: Total}}]
    backendRefs: [{name: nobody, port: 50051}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: loses}
spec:
  parentRefs: [{kind: Service, group: "", name: greeter}]
  rules: [{backendRefs: [{name: shop-v1, port: 80}]}]
"#;

const CASES: &[CurlCase] = &[
    ("http://shop/", &["200 OK", "v1 GET / HTTP"], &[]),
    ("-H 'Host: any.example' http://shop/v2", &["v2 GET /v2 HTTP"], &[]),
    ("http://shop/v2/x?q=1", &["v2 GET /v2/x?q=1 HTTP"], &[]),
    ("http://shop/v2example", &["v1 GET /v2example HTTP"], &[]),
    ("-H 'x-version: two' http://shop/", &["v2 GET / HTTP"], &[]),
    (
        "http://shop/strip/a?q",
        &["v1 GET /a?q HTTP", "Host: inner.example", "x-set: 100%"],
        &["user-agent"],
    ),
    ("http://shop/strip", &["v1 GET / HTTP"], &[]),
    ("http://shop/old/a?q=1", &["302 Found", "location: http://new.example/new/a?q=1"], &["GET "]),
    (
        "http://shop/nowhere",
        &[
            "500 Internal",
            "x-heddle-refusal: dangling-target",
            "`nobody.default.svc.cluster.local`",
        ],
        &[],
    ),
    ("http://shop/nothing", &["500 Internal", "names no backend"], &[]),
    ("http://shop/slow", &["504 Gateway Timeout"], &[]),
    ("http://shop-v2/", &["v2 GET / HTTP", "Host: shop-v2"], &[]),
    ("http://peers:8080/v9", &["v2 GET /v9 HTTP", "Host: peers:8080"], &[]),
];

const GRPC: &str = "
import grpc
channel = grpc.insecure_channel('greeter:50051')
_, call = channel.unary_unary('/shop.Greeter/Hello').with_call(b'you', timeout=20)
print(dict(call.trailing_metadata())['x-by'])
for method in ['Total', 'Count']:
    try:
        channel.unary_unary('/shop.Greeter/' + method)(b'', timeout=20)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
";

fn shop(mesh: &Mesh<'_>, version: &str) -> Running {
    // No port is declared: the Service in the file leads to it.
    let words = ["--version", version, "--", "python3", "-c", SHOP, version];
    let running = mesh.start("shop", &words);
    ready(mesh, "shop", version);
    running
}

/// Waits until a version is ready on all of its ports.
fn ready(mesh: &Mesh<'_>, service: &str, version: &str) {
    wait_until("this version is ready", || {
        let all = mesh.workloads(service);
        let one = all.iter().find(|view| view["workload"]["version"] == version)?;
        let ports = one["workload"]["ports"].as_object()?;
        let is_ready = |port: &Value| port["state"] == "ready";
        (!ports.is_empty() && ports.values().all(is_ready)).then_some(())
    });
}

fn routes_and_services_of_files_do_what_they_say_to_real_clients(machine: &Machine) {
    let mesh = machine.up("gateway");
    apply(&mesh, "services.yaml", SERVICES);
    let told = mesh.run("get", &["services", "-o", "json"]).stdout;
    assert!(told.contains("shop-v2"), "it is there before any program: {told}");
    let early = mesh.client(&["curl", "-si", "--max-time", "5", "http://shop-v2/"]);
    assert!(early.stdout.starts_with("HTTP/1.1 503 "), "{}{}", early.stdout, early.stderr);
    let _one = shop(&mesh, "v1");
    let _two = shop(&mesh, "v2");
    let _greeter = has_grpcio().then(|| {
        let one = ["--port", "grpc:50051", "--", PYTHON, "-c", SERVER, "v1"];
        let two = ["--version", "v2", "--port", "grpc:50051", "--", PYTHON, "-c", SERVER, "v2"];
        let both = (mesh.start_ready("greeter", &one), mesh.start("greeter", &two));
        ready(&mesh, "greeter", "v2");
        both
    });
    apply(&mesh, "routes.yaml", ROUTES);
    by_curl(&mesh, CASES);
    others(&mesh);
    if has_grpcio() {
        let called = mesh.client(&[PYTHON, "-c", GRPC]).stdout;
        let lines: Vec<_> = called.lines().collect();
        assert_eq!(lines[0], "v2", "{called}");
        assert!(lines[1].starts_with("UNAVAILABLE ") && lines[1].contains("nobody"), "{called}");
        assert!(lines[2].starts_with("UNIMPLEMENTED "), "{called}");
        says(&mesh, "loses", "Conflicted", "Accepted False Conflicted");
    }
    says(&mesh, "shop", "Dangling", "Accepted True Accepted");
    says(&mesh, "shop", "Dangling", "ResolvedRefs False BackendNotFound");
    let yaml = mesh.run("get", &["httproute", "shop", "-o", "yaml"]).stdout;
    assert!(yaml.contains("\nstatus:\n  parents:\n") && yaml.contains("BackendNotFound"), "{yaml}");
    let refused = mesh.run("delete", &["service", "shop-v2"]);
    assert_ne!(refused.code, 0, "a rule names it: {}", refused.stdout);
}

fn apply(mesh: &Mesh<'_>, name: &str, text: &str) {
    let file = mesh.run_dir().join(name);
    fs::write(&file, text).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
}

/// Routes of the caller's namespace, and calls that no route is for.
fn others(mesh: &Mesh<'_>) {
    let words = ["--namespace", "other", "--service", "caller", "--"];
    let consumer = [&words[..], &["curl", "-s", "--max-time", "15", "http://shop.default/strip"]];
    let ended = mesh.run("run", &consumer.concat());
    assert!(ended.stdout.starts_with("v2 GET /strip HTTP"), "{}{}", ended.stdout, ended.stderr);
    let told = mesh.run("get", &["workloads", "-o", "json"]).stdout;
    let all: Vec<Value> = serde_json::from_str(&told).unwrap();
    let one = all.iter().find(|view| view["workload"]["name"] == "shop-v1").unwrap();
    let address = one["workload"]["ipv4"].as_str().unwrap_or_else(|| panic!("{one}"));
    let direct = mesh.get(&format!("http://{address}:8080/v2"));
    assert!(direct.stdout.starts_with("v1 GET /v2 HTTP"), "{}{}", direct.stdout, direct.stderr);
}

/// The state of a route, and one of its conditions.
fn says(mesh: &Mesh<'_>, route: &str, state: &str, condition: &str) {
    let told = mesh.run("get", &["httproute", route, "-o", "json"]).stdout;
    let views: Vec<Value> = serde_json::from_str(&told).unwrap();
    assert_eq!(views[0]["state"], state, "{told}");
    let all = views[0]["status"]["parents"][0]["conditions"].as_array().unwrap();
    let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let show =
        |one: &Value| [word(one, "type"), word(one, "status"), word(one, "reason")].join(" ");
    assert!(all.iter().any(|one| show(one) == condition), "{told}");
}
