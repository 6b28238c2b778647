//! Traces end to end: unmodified Python services that pass headers on, and a receiver that reads what arrives by
//! Zipkin's own rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, wait_until},
};

as_both_users!(
    three_services_that_pass_headers_on_are_one_trace,
    a_workload_that_drops_the_context_is_counted,
    a_receiver_that_is_not_there_costs_no_call,
    a_telemetry_says_what_is_traced_and_an_edit_holds_at_once,
    where_spans_go_is_told_by_a_clear_error,
);

/// Takes spans as Zipkin does, refuses what Zipkin would, and writes each as a line.
const RECEIVER: &str = r#"
import http.server, json, re, sys
ID, TRACE = re.compile('^[0-9a-f]{16}$'), re.compile('^([0-9a-f]{16}){1,2}$')
class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        try:
            assert self.path == '/api/v2/spans' and self.headers['content-type'] == 'application/json'
            for span in json.loads(body):
                assert TRACE.match(span['traceId']) and ID.match(span['id'])
                assert 'parentId' not in span or ID.match(span['parentId'])
                assert span['kind'] in ('CLIENT', 'SERVER') and span['name'] and span['duration'] > 0
                assert 1.6e15 < span['timestamp'] < 1e16 and span['localEndpoint']['serviceName']
                assert all(type(k) is str and type(v) is str for k, v in span['tags'].items())
                print(json.dumps(span), file=log, flush=True)
            status = 202
        except Exception as wrong:
            print(json.dumps({'wrong': repr(wrong), 'body': body.decode()}), file=log, flush=True)
            status = 400
        self.send_response(status)
        self.send_header('content-length', '0')
        self.end_headers()
log = open(sys.argv[1], 'a')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Calls the next service, if there is one, with the headers of a trace if it is told to, and says who was called.
const SERVICE: &str = r#"
import http.server, sys, urllib.request
name, next, forwards = sys.argv[1:4]
PASSED = ['x-request-id', 'traceparent', 'tracestate', 'x-b3-traceid', 'x-b3-spanid',
          'x-b3-parentspanid', 'x-b3-sampled', 'x-b3-flags', 'b3']
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_): pass
    def do_GET(self):
        said = name
        if next != '-':
            request = urllib.request.Request(f'http://{next}/from-{name}')
            for header in PASSED if forwards == 'yes' else []:
                if header in self.headers:
                    request.add_header(header, self.headers[header])
            said += ' ' + urllib.request.urlopen(request, timeout=20).read().decode()
        self.send_response(200)
        self.send_header('content-length', str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())
http.server.ThreadingHTTPServer(('', 80), Service).serve_forever()
"#;

struct Receiver {
    _running: Running,
    port: u16,
    log: PathBuf,
}

impl Receiver {
    fn start(machine: &Machine) -> Self {
        let (script, log) = (machine.dir.join("receiver.py"), machine.dir.join("spans"));
        fs::write(&script, RECEIVER).unwrap();
        let mut command = Command::new("python3");
        command.arg(&script).arg(&log);
        let running = machine.start(command);
        let port = wait_until("the receiver listens", || running.printed().trim().parse().ok());
        Self { _running: running, port, log }
    }

    /// What arrived so far.
    fn spans(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let spans: Vec<Value> =
            text.lines().filter_map(|one| serde_json::from_str(one).ok()).collect();
        assert!(spans.iter().all(|span| span["wrong"].is_null()), "{text}");
        spans
    }

    /// Waits until so many have arrived.
    fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until("the spans arrive", || Some(self.spans()).filter(|spans| spans.len() >= count))
    }
}

fn service(mesh: &Mesh<'_>, dir: &Path, (name, next): (&str, &str), forwards: &str) -> Running {
    let script = dir.join("service.py");
    fs::write(&script, SERVICE).unwrap();
    let program = ["--", "python3", script.to_str().unwrap(), name, next, forwards];
    mesh.start_ready(name, &[&["--port", "80"], &program[..]].concat())
}

fn traced_mesh<'m>(machine: &'m Machine, name: &str, port: u16, sampling: &str) -> Mesh<'m> {
    let to = format!("zipkin://127.0.0.1:{port}");
    machine.up_by(name, |mut command| {
        command.args(["--trace-to", &to, "--trace-sampling", sampling]);
        command
    })
}

fn text<'v>(span: &'v Value, field: &str) -> &'v str {
    span[field].as_str().unwrap_or_default()
}

fn three_services_that_pass_headers_on_are_one_trace(machine: &Machine) {
    let receiver = Receiver::start(machine);
    let mesh = traced_mesh(machine, "traces", receiver.port, "100");
    let dir = &machine.dir;
    let _c = service(&mesh, dir, ("c", "-"), "yes");
    let _b = service(&mesh, dir, ("b", "c"), "yes");
    let _a = service(&mesh, dir, ("a", "b"), "yes");
    let got = mesh.get("http://a/page?q=1");
    assert_eq!((got.code, got.stdout.as_str()), (0, "a b c"), "{}", got.stderr);
    let spans = receiver.wait_for(6);
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let traces: BTreeSet<_> = spans.iter().map(|span| text(span, "traceId")).collect();
    assert_eq!(traces.len(), 1, "{spans:#?}");
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (text(span, "id"), span)).collect();
    assert_eq!(by_id.len(), 6, "{spans:#?}");
    // From the innermost to the one that nobody called.
    let of_c =
        |span: &&&Value| text(span, "kind") == "SERVER" && text(span, "name").starts_with("c.");
    let mut span = *spans.iter().collect::<Vec<_>>().iter().find(of_c).unwrap();
    let mut way = vec![];
    loop {
        way.push((text(span, "kind"), text(&span["localEndpoint"], "serviceName")));
        let Some(parent) = by_id.get(text(span, "parentId")) else { break };
        span = *parent;
    }
    assert_eq!(
        way,
        [
            ("SERVER", "c.default"),
            ("CLIENT", "b.default"),
            ("SERVER", "b.default"),
            ("CLIENT", "a.default"),
            ("SERVER", "a.default"),
            ("CLIENT", "client.default"),
        ]
    );
    assert_eq!(text(span, "name"), "a.default.svc.cluster.local:80/*");
    let tags = &span["tags"];
    assert_eq!(
        (text(tags, "http.url"), text(tags, "http.status_code")),
        ("http://a/page?q=1", "200")
    );
    assert_eq!(text(tags, "upstream_cluster"), "outbound|80||a.default.svc.cluster.local");
}

fn a_workload_that_drops_the_context_is_counted(machine: &Machine) {
    let receiver = Receiver::start(machine);
    let mesh = traced_mesh(machine, "dropped", receiver.port, "100");
    let _b = service(&mesh, &machine.dir, ("b", "-"), "no");
    let _a = service(&mesh, &machine.dir, ("a", "b"), "no");
    assert_eq!(mesh.get("http://a/").stdout, "a b");
    let spans = receiver.wait_for(4);
    let traces: BTreeSet<_> = spans.iter().map(|span| text(span, "traceId")).collect();
    assert_eq!(traces.len(), 2, "{spans:#?}");
    let lost = |service: &str| {
        let ip = mesh.workloads(service)[0]["workload"]["ipv4"].as_str().unwrap().to_owned();
        let metrics = mesh.get(&format!("http://{ip}:15090/stats/prometheus")).stdout;
        let line =
            |line: &str| line.strip_prefix("heddle_trace_context_lost_total ").map(str::to_owned);
        metrics.lines().find_map(line)
    };
    assert_eq!((lost("a").as_deref(), lost("b").as_deref()), (Some("1"), Some("0")));
}

fn a_receiver_that_is_not_there_costs_no_call(machine: &Machine) {
    // Nobody listens at port 1.
    let mesh = traced_mesh(machine, "nobody", 1, "100");
    let _a = service(&mesh, &machine.dir, ("a", "-"), "yes");
    for _ in 0..3 {
        let got = mesh.get("http://a/");
        assert_eq!((got.code, got.stdout.as_str()), (0, "a"), "{}", got.stderr);
    }
}

fn where_spans_go_is_told_by_a_clear_error(machine: &Machine) {
    for (words, says) in [
        (&["--trace-to", "jaeger://127.0.0.1:1"][..], "use zipkin://HOST:PORT"),
        (&["--trace-to", "zipkin://127.0.0.1"], "has no port"),
        (&["--trace-to", "zipkin://a:1", "--trace-sampling", "101"], "from 0 to 100"),
        (&["--trace-sampling", "much"], "no share in percent"),
    ] {
        let ended = machine.run(&[&["up", "--mesh", "wrong"], words].concat());
        assert!(ended.code != 0 && ended.stderr.contains(says), "{words:?}: {}", ended.stderr);
    }
}

fn a_telemetry_says_what_is_traced_and_an_edit_holds_at_once(machine: &Machine) {
    let receiver = Receiver::start(machine);
    let mesh = machine.up("telemetry");
    let _a = service(&mesh, &machine.dir, ("a", "-"), "yes");
    let apply = |name: &str, text: &str| {
        let file = machine.dir.join(name);
        fs::write(&file, text).unwrap();
        let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
        assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
    };
    let call = || assert_eq!(mesh.get("http://a/").stdout, "a");
    let port = receiver.port;
    apply(
        "mesh.yaml",
        &format!(
            "apiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\n\
             metadata: {{name: mesh, namespace: istio-system}}\n\
             spec:\n  extensionProviders:\n  - name: z\n    \
             zipkin: {{service: host.heddle.internal, port: {port}}}\n  \
             defaultProviders: {{tracing: [z]}}\n"
        ),
    );
    let telemetry = |rule: &str| {
        let head = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\n\
                    metadata: {name: all, namespace: istio-system}\nspec:\n  tracing:\n  - ";
        apply("telemetry.yaml", &format!("{head}{rule}\n"));
    };
    telemetry("{randomSamplingPercentage: 100, customTags: {stage: {literal: {value: test}}}}");
    call();
    let spans = receiver.wait_for(2);
    assert!(spans.iter().all(|span| text(&span["tags"], "stage") == "test"), "{spans:#?}");
    telemetry("{randomSamplingPercentage: 100, disableSpanReporting: true}");
    call();
    telemetry("{randomSamplingPercentage: 100, match: {mode: CLIENT}}");
    call();
    let spans = receiver.wait_for(4);
    let of = |kind: &str| spans.iter().filter(|span| text(span, "kind") == kind).count();
    assert_eq!((of("CLIENT"), of("SERVER")), (2, 2), "{spans:#?}");
}
