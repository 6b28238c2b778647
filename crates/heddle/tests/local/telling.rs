//! What the sidecars of a real mesh write down about calls: access logs as a MeshConfig and Telemetries ask for
//! them, in force without a restart, and out of a hostile client's reach.

use std::process::Command;

use serde_json::Value;

use crate::{
    as_both_users,
    host::{Machine, Mesh, skip, wait_until},
    http2::PYTHON,
};

as_both_users!(
    calls_are_logged_as_rules_say,
    a_collector_gets_what_was_called_and_the_clients_words_stay_in_their_place,
    a_mesh_that_is_started_with_an_access_log_has_one_and_shows_it_where_that_is_asked_for,
);

/// Takes records of logs by gRPC, and writes each as a line. What is no message of the protocol ends it.
const COLLECTOR: &str = r#"
import grpc, json, sys
from concurrent import futures
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
log = open(sys.argv[1], 'a')
def export(request, context):
    key = dict(context.invocation_metadata()).get('x-key')
    for of in request.resource_logs:
        own = {one.key: one.value.string_value for one in of.resource.attributes}
        for record in of.scope_logs[0].log_records:
            assert record.time_unix_nano > 1.6e18 and record.observed_time_unix_nano >= record.time_unix_nano
            told = {one.key: one.value.string_value for one in record.attributes}
            line = {'service': own['service.name'], 'log': own['log_name'], 'key': key, 'told': told,
                    'body': record.body.string_value, 'trace': record.trace_id.hex()}
            print(json.dumps(line), file=log, flush=True)
    return logs.ExportLogsServiceResponse()
handler = grpc.unary_unary_rpc_method_handler(
    export, logs.ExportLogsServiceRequest.FromString, logs.ExportLogsServiceResponse.SerializeToString)
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
    'opentelemetry.proto.collector.logs.v1.LogsService', {'Export': handler}),))
port = server.add_insecure_port('127.0.0.1:0')
server.start()
print(port, flush=True)
server.wait_for_termination()
"#;

/// Does the interpreter have OpenTelemetry's own messages, and gRPC?
pub(crate) fn has_otlp() -> bool {
    let script = "import grpc, opentelemetry.proto.collector.logs.v1.logs_service_pb2";
    let found = Command::new(PYTHON).args(["-c", script]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skip(
            "python3-grpcio or the Python package opentelemetry-proto (below 1.25) is not installed",
        );
    }
    found
}

fn a_collector_gets_what_was_called_and_the_clients_words_stay_in_their_place(machine: &Machine) {
    if !has_otlp() {
        return;
    }
    let (script, told) = (machine.dir.join("collector.py"), machine.dir.join("records"));
    std::fs::write(&script, COLLECTOR).unwrap();
    let mut command = Command::new(PYTHON);
    command.arg(&script).arg(&told);
    let collector = machine.start(command);
    let port: u16 = wait_until("the collector listens", || collector.printed().trim().parse().ok());
    let mesh = machine.up("collected");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let config = format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  defaultProviders: {{accessLogging: [als]}}\n  extensionProviders:\n  - name: als\n    envoyOtelAls:\n      service: 127.0.0.1\n      port: {port}\n      logName: calls\n      logFormat:\n        text: '%REQ(:METHOD)% \"%REQ(USER-AGENT)%\"'\n        labels: {{code: '%RESPONSE_CODE%', agent: '%REQ(USER-AGENT)%', trace: '%TRACE_ID%'}}\n"
    );
    apply(&mesh, &mesh.run_dir(), &config);
    mesh.client(&["curl", "-s", "-A", "a\" 200 \\forged", "http://web/x"]);
    let read: Vec<Value> =
        lines(&told, 2).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &read {
        assert_eq!(record["log"], "calls", "{record}");
        assert_eq!(record["body"], "GET \"a\\\" 200 \\\\forged\"", "{record}");
        assert_eq!(record["told"]["code"], "404", "{record}");
        assert_eq!(record["told"]["agent"], "a\" 200 \\forged", "{record}");
        assert_eq!(record["told"]["trace"], record["trace"], "{record}");
        assert_eq!(record["trace"].as_str().unwrap().len(), 32, "{record}");
    }
    let mut services: Vec<_> = read.iter().map(|one| one["service"].as_str().unwrap()).collect();
    services.sort_unstable();
    assert_eq!(services, ["client.default", "web.default"]);
}

/// A mesh with an access log. What it says is JSON, so that lines go to standard error.
fn logging<'m>(machine: &'m Machine, name: &str, file: &str) -> Mesh<'m> {
    machine.up_by(name, |mut command| {
        command.args(["--access-log", file]);
        command
    })
}

fn a_mesh_that_is_started_with_an_access_log_has_one_and_shows_it_where_that_is_asked_for(
    machine: &Machine,
) {
    let file = machine.dir.join("calls.log");
    let mesh = logging(machine, "logged", file.to_str().unwrap());
    let _web = mesh.serve("web", &[]);
    mesh.get("http://web/one");
    let both = lines(&file, 2);
    assert!(both.iter().all(|line| line.contains("\"GET /one HTTP/1.1\" 404")), "{both:?}");
    drop((_web, mesh));

    let mesh = logging(machine, "shown", "-");
    let _web = mesh.serve("web", &[]);
    mesh.get("http://web/two");
    wait_until("both lines are shown", || {
        (mesh.up.said().matches("\"GET /two HTTP/1.1\" 404").count() == 2).then_some(())
    });
    drop((_web, mesh));

    let refused = machine.run(&["up", "--mesh", "nowhere", "--access-log", "/nowhere/at/all"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("--access-log: /nowhere/at/all: "), "{}", refused.stderr);
}

/// Lines of a file, once there are so many.
fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    wait_until("the lines are written", || (read().lines().count() >= count).then_some(()));
    let lines: Vec<String> = read().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn apply(mesh: &Mesh<'_>, folder: &std::path::Path, text: &str) {
    let file = folder.join("telling.yaml");
    std::fs::write(&file, text).unwrap();
    let applied = mesh.run("apply", &["-f", file.to_str().unwrap()]);
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
}

fn calls_are_logged_as_rules_say(machine: &Machine) {
    let mesh = machine.up("telling");
    let _web = mesh.serve("web", &["--version", "v1"]);
    let folder = mesh.run_dir();
    let log = folder.join("access.log");
    mesh.get("http://web/before");

    let config = format!(
        "apiVersion: heddle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  accessLogFile: {}\n",
        log.display()
    );
    apply(&mesh, &folder, &config);
    mesh.client(&["curl", "-s", "-A", "a\" 200 \\forged", "http://web/logged?x=1"]);
    let both = lines(&log, 2);
    let outbound = "outbound|80||web.default.svc.cluster.local";
    assert!(both.iter().any(|line| line.contains(outbound)), "{both:?}");
    assert!(both.iter().any(|line| line.contains(" inbound|80|| ")), "{both:?}");
    for line in &both {
        assert!(line.contains("\"GET /logged?x=1 HTTP/1.1\" 404 - via_upstream"), "{line}");
        assert!(line.contains("\"a\\\" 200 \\\\forged\""), "{line}");
    }

    let json = folder.join("errors.json");
    let errors = format!(
        "{config}  accessLogEncoding: JSON\n  extensionProviders:\n  - name: errors\n    envoyFileAccessLog:\n      path: {}\n      logFormat: {{labels: {{code: \"%RESPONSE_CODE%\", path: \"%REQ(:PATH)%\", flags: \"%RESPONSE_FLAGS%\", rule: \"%ROUTE_NAME%\"}}}}\n---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: errors, namespace: istio-system}}\nspec:\n  accessLogging:\n  - match: {{mode: CLIENT}}\n    providers: [{{name: errors}}]\n    filter: {{expression: \"response.code >= 500\"}}\n  - match: {{mode: SERVER}}\n    disabled: true\n",
        json.display()
    );
    apply(&mesh, &folder, &errors);
    let made = mesh.run("fault", &["web", "--abort", "503", "--path", "/broken"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    mesh.get("http://web/fine");
    mesh.get("http://web/broken");
    let line: Value = serde_json::from_str(&lines(&json, 1)[0]).unwrap();
    assert_eq!(line["code"], 503);
    assert_eq!(line["path"], "/broken");
    assert_eq!(line["flags"], "FI");
    assert_eq!(line["rule"], "Fault/default/heddle-fault-web-abort");
    assert_eq!(lines(&log, 2).len(), 2, "nothing goes there any more");
}
