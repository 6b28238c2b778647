//! What sidecars of a real mesh count, as rules change it: tags of metrics, messages of gRPC while a stream goes on,
//! and the metrics of a program behind those of its sidecar.

use crate::{
    as_both_users,
    host::{Machine, Mesh, wait_until},
    http2::{PYTHON, SERVER, has_grpcio},
    tools::host_get,
};

as_both_users!(
    tags_are_those_that_a_telemetry_gives,
    messages_of_grpc_are_counted_on_both_sides,
    paths_are_told_by_their_templates,
    a_programs_own_metrics_stand_behind_its_sidecars,
);

fn apply(mesh: &Mesh<'_>, text: &str) {
    let file = mesh.run_dir().join("counting.yaml");
    std::fs::write(&file, text).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(!applied.stdout.contains("not enforced"), "{}", applied.stdout);
}

/// Metrics of a service's first sidecar, as a scraper on the host reads them.
fn scraped(mesh: &Mesh<'_>, service: &str) -> String {
    let workload = mesh.workloads(service).remove(0);
    let id = workload["workload"]["id"].as_str().unwrap().to_owned();
    let dashboard = mesh.info()["dashboard"].as_str().unwrap().to_owned();
    host_get(&format!("http://{dashboard}/sidecars/{id}/stats/prometheus"))
}

/// The sum of a metric's samples whose labels contain all of these.
fn sum(text: &str, metric: &str, labels: &[&str]) -> f64 {
    let start = format!("{metric}{{");
    let lines = text.lines().filter(|line| line.starts_with(&start));
    let meant = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    meant.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn tags_are_those_that_a_telemetry_gives(machine: &Machine) {
    let mesh = machine.up("tags");
    let _web = mesh.serve("web", &["--version", "v1"]);
    apply(
        &mesh,
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: all, namespace: istio-system}\nspec:\n  metrics:\n  - reportingInterval: 5s\n    overrides:\n    - match: {metric: REQUEST_COUNT, mode: SERVER}\n      tagOverrides:\n        path: {value: request.url_path}\n        port: {value: string(destination.port)}\n        caller: {value: filter_state.downstream_peer.workload}\n        source_principal: {operation: REMOVE}\n    - match: {customMetric: request_bytes, mode: SERVER}\n      tagOverrides: {response_flags: {operation: REMOVE}}\n---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: web, namespace: default}\nspec:\n  selector: {matchLabels: {app: web}}\n  metrics:\n  - overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {port: {value: \"'near'\"}}}]\n",
    );
    let own = "curl -s http://127.0.0.1:15090/stats/prometheus";
    let script = format!("curl -s http://web/a; curl -s http://web/a; curl -s http://web/b; {own}");
    let client = mesh.client(&["sh", "-c", &script]).stdout;
    assert_eq!(
        sum(&client, "istio_requests_total", &["source_principal", "reporter=\"source\""]),
        3.0
    );
    assert!(
        !client
            .lines()
            .any(|line| line.starts_with("istio_requests_total{") && line.contains("path="))
    );
    let requests = |text: &str, path: &str| {
        let labels = [path, "port=\"near\"", "caller=\"", "reporter=\"destination\""];
        sum(text, "istio_requests_total", &labels)
    };
    let server = wait_until("all calls are counted", || {
        let text = scraped(&mesh, "web");
        let both = (requests(&text, "path=\"/a\""), requests(&text, "path=\"/b\""));
        (both == (2.0, 1.0)).then_some(text)
    });
    assert_eq!(sum(&server, "istio_requests_total", &["source_principal"]), 0.0);
    assert_eq!(sum(&server, "istio_requests_total", &["caller=\"unknown\""]), 0.0);
    assert_eq!(sum(&server, "istio_request_bytes_count", &["response_flags"]), 0.0);
    assert_eq!(sum(&server, "istio_request_bytes_count", &["source_principal"]), 3.0);
    assert_eq!(sum(&server, "istio_response_bytes_count", &["response_flags"]), 3.0);
}

/// Answers everything but `/missing…`.
const ANSWERS: &str = "
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path.startswith('/missing') else 200)
        self.send_header('content-length', '0')
        self.end_headers()
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(('', 80), Handler).serve_forever()
";

fn paths_are_told_by_their_templates(machine: &Machine) {
    let mesh = machine.up("paths");
    let _web = mesh.start_ready("web", &["--port", "http:80", "--", "python3", "-c", ANSWERS]);
    let paths = ["/users/1/orders", "/users/2/orders?page=3", "/", "/missing/a", "/missing/b"];
    let calls = paths.map(|path| format!("curl -s -o /dev/null 'http://web{path}'")).join("; ");
    let hostile = "curl -s -o /dev/null 'http://web/%3Cscript%3E;a=b/%22%7D%20x'";
    assert_eq!(mesh.client(&["sh", "-c", &format!("{calls}; {hostile}")]).code, 0);
    let of = |text: &str, path: &str| {
        sum(text, "heddle_path_requests_total", &[&format!("path=\"{path}\""), "web.default"])
    };
    let text = wait_until("all calls are counted", || {
        let text = scraped(&mesh, "web");
        (sum(&text, "heddle_path_requests_total", &[]) == 6.0).then_some(text)
    });
    assert_eq!(
        (of(&text, "/users/{id}/orders"), of(&text, "/"), of(&text, "unknown")),
        (2.0, 1.0, 2.0)
    );
    assert_eq!(of(&text, "/{id}/{id}"), 1.0, "{text}");
    let mut lines = text.lines().filter(|line| line.starts_with("heddle_path_"));
    assert!(!lines.any(|line| ["missing", "script", "%"].iter().any(|part| line.contains(part))));
    let known =
        sum(&text, "heddle_path_request_duration_milliseconds_count", &["/users/{id}/orders"]);
    assert_eq!(known, 2.0);
    let told = wait_until("the observer tells the same", || {
        let told = mesh.run("describe", &["web", "-o", "json"]).stdout;
        let told: serde_json::Value = serde_json::from_str(&told).ok()?;
        let rows = told["measured"]["templates"].as_array()?.clone();
        rows.iter().any(|row| row["path"] == "/users/{id}/orders").then_some(rows)
    });
    assert!(told.iter().any(|row| row["path"] == "unknown"), "{told:?}");
    assert!(mesh.run("describe", &["web"]).stdout.contains("/users/{id}/orders"));
}

/// Calls of every kind; in the middle of a stream, and at the end, messages as the own sidecar counts them.
const CLIENT: &str = "
import grpc, queue, time, urllib.request
def counted():
    with urllib.request.urlopen('http://127.0.0.1:15090/stats/prometheus') as answer:
        lines = answer.read().decode().splitlines()
    of = lambda name: sum(int(line.rsplit(' ', 1)[1]) for line in lines if line.startswith(name + '{'))
    return of('istio_request_messages_total'), of('istio_response_messages_total')
channel = grpc.insecure_channel('greeter:50051')
channel.unary_unary('/shop.Greeter/Hello')(b'x' * 100000, timeout=20)
list(channel.unary_stream('/shop.Greeter/Count')(b'1000', timeout=20))
channel.stream_unary('/shop.Greeter/Total')(iter([b'1'] * 100), timeout=20)
before = counted()
asked = queue.Queue()
chat = channel.stream_stream('/shop.Greeter/Chat')(iter(asked.get, None), timeout=60)
while counted()[1] <= before[1]:
    asked.put(b'one')
    next(chat)
    time.sleep(0.3)
print('while it goes on', flush=True)
asked.put(None)
list(chat)
said = 0
while counted() != said:
    said = counted()
    time.sleep(0.3)
requests, responses = said[0] - before[0], said[1] - before[1]
print(before, requests == responses, requests > 1)
";

fn messages_of_grpc_are_counted_on_both_sides(machine: &Machine) {
    if !has_grpcio() {
        return;
    }
    let mesh = machine.up("messages");
    let _server =
        mesh.start_ready("greeter", &["--port", "grpc:50051", "--", PYTHON, "-c", SERVER, "v1"]);
    apply(
        &mesh,
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: all, namespace: istio-system}\nspec:\n  metrics: [{reportingInterval: 1s}]\n",
    );
    let called = mesh.client(&[PYTHON, "-c", CLIENT]);
    assert_eq!(called.stdout, "while it goes on\n(102, 1002) True True\n", "{}", called.stderr);
    let text = scraped(&mesh, "greeter");
    let of = |metric: &str| {
        sum(&text, metric, &["reporter=\"destination\"", "request_protocol=\"grpc\""])
    };
    let (received, sent) =
        (of("istio_request_messages_total"), of("istio_response_messages_total"));
    assert!(received > 102.0 && sent - received == 900.0, "{received} {sent}");
}

/// A program with metrics of its own beside what it serves.
const WITH_METRICS: &str = r"
import http.server, threading
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = b'# TYPE own_jobs counter\nown_jobs 7\n' if self.path == '/own?all=1' else b'page'
        self.send_response(200)
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_):
        pass
threading.Thread(target=http.server.HTTPServer(('127.0.0.1', 9100), Pages).serve_forever).start()
http.server.HTTPServer(('', 80), Pages).serve_forever()
";

fn a_programs_own_metrics_stand_behind_its_sidecars(machine: &Machine) {
    let mesh = machine.up("ownmetrics");
    let words = [
        "--port",
        "http:80",
        "--app-metrics",
        "9100/own?all=1",
        "--",
        "python3",
        "-c",
        WITH_METRICS,
    ];
    let _web = mesh.start_ready("web", &words);
    mesh.get("http://web/");
    // The dashboard knows of it a moment after it has begun.
    let text = wait_until("its own metrics are there", || {
        let text = scraped(&mesh, "web");
        text.ends_with("own_jobs 7\n").then_some(text)
    });
    assert!(text.contains("istio_requests_total"), "{text}");
    let wrong = mesh.run("run", &["--service", "x", "--app-metrics", "/metrics", "--", "true"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("9100/path"), "{}", wrong.stderr);
}
