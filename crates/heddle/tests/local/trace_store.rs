//! The mesh's own store of traces, end to end: calls of unmodified programs, spans that an application adds by
//! itself, and the end of whoever keeps them.

use std::fs;

use heddle_runtime::signal::Signal;
use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, wait_until},
    http2::PYTHON,
    telling::has_otlp,
};

as_both_users!(
    a_call_is_one_trace_with_the_spans_that_applications_add,
    traces_survive_the_end_of_whoever_keeps_them,
    a_mesh_may_be_told_to_record_nothing,
    spans_of_applications_come_in_by_grpc_too,
    spans_go_to_the_own_store_and_to_another_at_once,
);

/// Calls the next service with the headers of its trace, or tells the store of two spans of its own: one as
/// OpenTelemetry does in JSON, one as Zipkin does.
const SERVICE: &str = r#"
import http.server, json, sys, time, urllib.request
name, next, store = sys.argv[1:4]
def post(path, body):
    request = urllib.request.Request(store + path, json.dumps(body).encode(), {'content-type': 'application/json'})
    return urllib.request.urlopen(request, timeout=20).status
def tell(parent):
    _, trace, span, _ = parent.split('-')
    now = time.time_ns()
    status = [post('/v1/traces', {'resourceSpans': [{
        'resource': {'attributes': [{'key': 'service.name', 'value': {'stringValue': 'shelf'}}]},
        'scopeSpans': [{'spans': [{'traceId': trace, 'spanId': '00000000000000aa', 'parentSpanId': span,
            'name': 'SELECT \x1b[2J<b>', 'kind': 1, 'startTimeUnixNano': str(now - 2000000), 'endTimeUnixNano': str(now)}]}]}]})]
    status.append(post('/api/v2/spans', [{'traceId': trace, 'id': '00000000000000ab', 'parentId': '00000000000000aa',
        'name': 'disk', 'timestamp': now // 1000 - 1000, 'duration': 500, 'localEndpoint': {'serviceName': 'disk'}}]))
    return status
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_GET(self):
        parent = self.headers['traceparent']
        if next == '-':
            said = f'{name} {tell(parent)}'
        else:
            request = urllib.request.Request(f'http://{next}{self.path}', headers={'traceparent': parent})
            said = name + ' ' + urllib.request.urlopen(request, timeout=20).read().decode()
        self.send_response(200)
        self.send_header('content-length', str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())
http.server.ThreadingHTTPServer(('', 80), Service).serve_forever()
"#;

fn service(mesh: &Mesh<'_>, machine: &Machine, name: &str, next: &str) -> Running {
    let script = machine.dir.join("telling.py");
    fs::write(&script, SERVICE).unwrap();
    let port = mesh.info()["spans"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let store = format!("http://host.heddle.internal:{port}");
    let program = ["--", "python3", script.to_str().unwrap(), name, next, &store];
    mesh.start_ready(name, &[&["--port", "80"], &program[..]].concat())
}

/// What `heddle traces` says with these words.
fn traces(mesh: &Mesh<'_>, words: &[&str]) -> Vec<Value> {
    let told = mesh.run("traces", &[words, &["--output", "json"]].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    told["traces"].as_array().unwrap().clone()
}

fn spans(trace: &Value) -> &Vec<Value> {
    trace["spans"].as_array().unwrap()
}

/// Waits for the one trace about this path to have so many spans.
fn wait_for(mesh: &Mesh<'_>, path: &str, count: usize) -> Value {
    wait_until("the trace is whole", || {
        let found = traces(mesh, &["--path", path]);
        assert!(found.len() < 2, "{found:#?}");
        found.into_iter().find(|trace| spans(trace).len() >= count)
    })
}

fn a_call_is_one_trace_with_the_spans_that_applications_add(machine: &Machine) {
    let mesh = machine.up("store");
    let _b = service(&mesh, machine, "b", "-");
    let _a = service(&mesh, machine, "a", "b");
    assert_eq!(mesh.get("http://a/page?q=1").stdout, "a b [200, 202]");
    let trace = wait_for(&mesh, "/page", 6);
    let told: Vec<_> = spans(&trace)
        .iter()
        .map(|span| {
            let field = |name: &str| span[name].as_str().unwrap().to_owned();
            (span["depth"].as_u64().unwrap(), field("service"), field("kind"), field("status"))
        })
        .collect();
    let wanted = [
        (0, "client.default", "client", "200"),
        (1, "a.default", "server", "200"),
        (2, "a.default", "client", "200"),
        (3, "b.default", "server", "200"),
        (4, "shelf", "internal", "ok"),
        (5, "disk", "internal", "ok"),
    ];
    let wanted = wanted.map(|(depth, service, kind, status)| {
        (depth, service.to_owned(), kind.to_owned(), status.to_owned())
    });
    // What b called to tell its spans is no part of it.
    assert_eq!(told, wanted, "{trace:#}");
    for field in ["start", "duration_ms"] {
        assert!(trace[field].as_f64().unwrap() > 0.0, "{trace:#}");
        assert!(spans(&trace).iter().all(|span| span[field].is_f64()), "{trace:#}");
    }
    assert_eq!(spans(&trace)[1]["workload"], "a");
    assert!(spans(&trace)[1]["name"].as_str().unwrap().starts_with("a.default.svc"));
    let id = trace["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(traces(&mesh, &["b", "--status", "2xx"]).len(), 1);
    assert_eq!(traces(&mesh, &["b", "--status", "error"]).len(), 0);
    assert_eq!(traces(&mesh, &["b", "--slower-than", "10m"]).len(), 0);
    assert_eq!(traces(&mesh, &["--since", "1h", "--limit", "1"]).len(), 1);
    let drawn = mesh.run("traces", &[&id[..12]]);
    assert!(
        drawn.stdout.contains("client -> GET /page") && drawn.stdout.contains('='),
        "{}",
        drawn.stdout
    );
    assert!(!drawn.stdout.contains('\u{1b}'), "{}", drawn.stdout);
    assert!(drawn.stdout.lines().all(|line| line.chars().count() <= 80), "{}", drawn.stdout);
    for (words, says) in
        [(&["--status", "9xx"][..], "error, ok, a code"), (&["00000000deadbeef"], "no trace")]
    {
        let refused = mesh.run("traces", words);
        assert!(refused.code != 0 && refused.stderr.contains(says), "{}", refused.stderr);
    }
}

fn traces_survive_the_end_of_whoever_keeps_them(machine: &Machine) {
    let mesh = machine.up("keeping");
    let web = mesh.serve("web", &[]);
    let state = machine.state_of("keeping").join("traces.redb");
    // A trace that is in the file as it is in memory: one that began later is there.
    let made = |path: &str, later: &str| {
        mesh.get(&format!("http://web{path}"));
        wait_for(&mesh, path, 2);
        mesh.get(&format!("http://web{later}"));
        wait_until("it is written", || {
            let bytes = fs::read(&state).unwrap();
            bytes.windows(later.len()).any(|part| part == later.as_bytes()).then_some(())
        });
    };
    made("/index.html", "/first");
    let observe = mesh.pid("observe");
    Signal::KILL.send(observe).unwrap();
    wait_until("it is started again", || {
        Some(mesh.pid("observe")).filter(|pid| ![0, observe].contains(pid))
    });
    let found = wait_until("the dashboard answers", || {
        let told = mesh.run("traces", &["web", "--output", "json"]);
        (told.code == 0).then_some(told.stdout)
    });
    assert!(found.contains("/index.html"), "{found}");
    // The one that runs now takes spans too.
    made("/absent", "/second");
    drop(web);
    assert_eq!(mesh.run("down", &[]).code, 0);
    drop(mesh);
    let again = machine.up("keeping");
    for (path, status) in [("/index.html", "200"), ("/absent", "404")] {
        let found = traces(&again, &["web", "--path", path, "--status", status]);
        assert_eq!(found.iter().map(|one| spans(one).len()).collect::<Vec<_>>(), [2], "{path}");
    }
}

fn a_mesh_may_be_told_to_record_nothing(machine: &Machine) {
    let mesh = machine.up_by("silent", |mut command| {
        command.args(["--trace-to", "none"]);
        command
    });
    let _web = mesh.serve("web", &[]);
    assert_eq!(mesh.get("http://web/").stdout, "web");
    assert!(traces(&mesh, &[]).is_empty());
    let told = mesh.run("traces", &[]);
    assert!(told.stdout.contains("--trace-to none"), "{}", told.stdout);
}

/// Sends two spans as an SDK of OpenTelemetry does by gRPC, the second time compressed, and says what was answered.
const BY_GRPC: &str = r#"
import grpc, sys, time
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary('/opentelemetry.proto.collector.trace.v1.TraceService/Export',
    traces.ExportTraceServiceRequest.SerializeToString, traces.ExportTraceServiceResponse.FromString)
for number, compression in ((1, grpc.Compression.NoCompression), (2, grpc.Compression.Gzip)):
    request = traces.ExportTraceServiceRequest()
    of = request.resource_spans.add()
    of.resource.attributes.add(key='service.name').value.string_value = 'shelf'
    now = time.time_ns()
    of.scope_spans.add().spans.add(trace_id=bytes(15) + b'\x07', span_id=bytes(7) + bytes([number]),
        name='GET /by-grpc', kind=2, start_time_unix_nano=now - 1000000, end_time_unix_nano=now)
    answer = call(request, timeout=20, compression=compression)
    print(answer.partial_success.rejected_spans)
refused = channel.unary_unary('/a.B/C')
try:
    refused(b'', timeout=20)
except grpc.RpcError as error:
    print(error.code().name)
"#;

fn spans_of_applications_come_in_by_grpc_too(machine: &Machine) {
    if !has_otlp() {
        return;
    }
    let mesh = machine.up("bygrpc");
    let script = machine.dir.join("by-grpc.py");
    fs::write(&script, BY_GRPC).unwrap();
    let mut command = std::process::Command::new(PYTHON);
    command.arg(&script).arg(mesh.info()["spans"].as_str().unwrap());
    let sent = machine.start(command).finish();
    assert_eq!(sent.stdout, "0\n0\nUNIMPLEMENTED\n", "{}", sent.stderr);
    wait_until("both spans are one trace", || {
        let found = traces(&mesh, &["shelf"]);
        found.first().filter(|trace| spans(trace).len() == 2).map(drop)
    });
}

fn spans_go_to_the_own_store_and_to_another_at_once(machine: &Machine) {
    let other = machine.up("other");
    let at = other.info()["spans"].as_str().unwrap().to_owned();
    let mesh = machine.up_by("both", |mut command| {
        command.args(["--trace-to", "store", "--trace-to", &format!("otlp-grpc://{at}")]);
        command
    });
    let _web = mesh.serve("web", &[]);
    mesh.get("http://web/both");
    for mesh in [&mesh, &other] {
        let trace = wait_for(mesh, "/both", 2);
        assert_eq!(spans(&trace)[1]["service"], "web.default", "{trace:#}");
    }
}
