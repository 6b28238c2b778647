//! What access logs say of requests and connections, whatever becomes of them: one line for each, on each
//! side; and nothing at all where nobody asks.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use heddle_model::{
    Protocol,
    discovery::{
        AbortWith, AccessLog, Injection, LogLayout, LogSink, Mirror, MirrorCompare, PortFault,
        Provenance, SideTelemetry, WorkloadTelemetry,
    },
};
use heddle_testkit::{folder::Folder, resources, wait::wait_until};
use serde_json::Value;

use crate::mesh::{End, GET, Mesh, OK, POST, answers, with_standing_clock};

/// What lines of the tests say.
const FIELDS: &[(&str, &str)] = &[
    ("path", "%REQ(:PATH)%"),
    ("method", "%REQ(:METHOD)%"),
    ("protocol", "%PROTOCOL%"),
    ("code", "%RESPONSE_CODE%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("details", "%RESPONSE_CODE_DETAILS%"),
    ("cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream", "%UPSTREAM_HOST%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("rule", "%ROUTE_NAME%"),
    ("id", "%REQ(X-REQUEST-ID)%"),
    ("user", "%REQ(X-USER)%"),
    ("kind", "%RESP(CONTENT-TYPE)%"),
    ("received", "%BYTES_RECEIVED%"),
    ("sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("called", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("trace", "%TRACE_ID%"),
];

/// The logs of both sides, each in a file.
struct Logs {
    folder: Folder,
    telemetry: WorkloadTelemetry,
}

impl Logs {
    fn new() -> Self {
        Self::meeting(None)
    }

    fn meeting(filter: Option<&str>) -> Self {
        let folder = Folder::new("telling");
        let side = |name: &str| SideTelemetry {
            access_logs: vec![AccessLog {
                provenance: Provenance::default(),
                provider: "test".to_owned(),
                to: LogSink::File(folder.join(name).to_str().unwrap().to_owned()),
                layout: LogLayout::Json(
                    FIELDS
                        .iter()
                        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                        .collect::<BTreeMap<_, _>>(),
                ),
                filter: filter.map(str::to_owned),
                log_name: String::new(),
                attributes: BTreeMap::new(),
            }],
            ..SideTelemetry::default()
        };
        let telemetry = WorkloadTelemetry { client: side("client"), server: side("server") };
        Self { folder, telemetry }
    }

    /// The first `count` lines of a side, once they are written.
    fn of(&self, side: &str, count: usize) -> Vec<Value> {
        let path = self.folder.join(side);
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        wait_until("the lines are written", || read().lines().count() >= count);
        let lines: Vec<Value> =
            read().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

fn fault(does: Injection) -> PortFault {
    let provenance = Provenance("Fault/default/f".to_owned());
    PortFault { provenance, matches: Vec::new(), percent: 100.0, does, expires: None }
}

#[test]
fn an_answered_request_is_a_line_on_each_side() {
    with_standing_clock(|| async {
        let logs = Logs::new();
        let mut mesh = Mesh::new(answers);
        mesh.telling(&logs.telemetry);
        let request = "GET /a?b=c HTTP/1.1\r\nHost: reviews\r\nX-User: me\r\nX-User: too\r\n\r\n";
        mesh.call().ask(request).await;
        let (client, server) = (&logs.of("client", 1)[0], &logs.of("server", 1)[0]);
        for line in [client, server] {
            assert_eq!(line["path"], "/a?b=c");
            assert_eq!(line["method"], "GET");
            assert_eq!(line["protocol"], "HTTP/1.1");
            assert_eq!(line["code"], 200);
            assert_eq!(line["flags"], "-");
            assert_eq!(line["details"], "via_upstream");
            assert_eq!(line["user"], "me,too");
            assert_eq!(line["attempts"], 1);
        }
        assert_eq!(client["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
        assert_eq!(server["cluster"], "inbound|9080||");
        assert_eq!(server["upstream"], "127.0.0.1:9080");
        assert!(client["id"].is_string() && client["id"] == server["id"], "{client} {server}");
    });
}

#[test]
fn a_line_has_the_id_of_the_trace_in_which_its_call_is_recorded() {
    with_standing_clock(|| async {
        let mut logs = Logs::new();
        let mut mesh = Mesh::new(answers);
        mesh.telling(&logs.telemetry);
        mesh.call().ask(GET).await;
        assert_eq!(logs.of("client", 1)[0]["trace"], Value::Null, "nobody traces");
        let traced = resources::tracing(100.0);
        logs.telemetry.client.tracing = traced.client.tracing;
        logs.telemetry.server.tracing = traced.server.tracing;
        mesh.telling(&logs.telemetry);
        mesh.call().ask(GET).await;
        let (client, server) = (&logs.of("client", 2)[1], &logs.of("server", 2)[1]);
        assert_eq!(client["trace"].as_str().map(str::len), Some(32), "{client}");
        assert_eq!(client["trace"], server["trace"]);
    });
}

#[test]
fn without_a_log_nothing_is_written_and_with_a_filter_what_meets_it() {
    with_standing_clock(|| async {
        let logs = Logs::meeting(Some("request.url_path.startsWith('/logged')"));
        let mut mesh = Mesh::new(answers);
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: reviews\r\n\r\n");
        mesh.call().ask(&ask("/before")).await;
        mesh.telling(&logs.telemetry);
        for path in ["/not", "/logged", "/logged/too?x"] {
            mesh.call().ask(&ask(path)).await;
        }
        let paths: Vec<_> = logs.of("client", 2).iter().map(|line| line["path"].clone()).collect();
        assert_eq!(paths, ["/logged", "/logged/too?x"]);
        mesh.telling(&WorkloadTelemetry::default());
        mesh.call().ask(&ask("/logged/later")).await;
        assert_eq!(logs.of("server", 2).len(), 2);
    });
}

#[test]
fn a_fault_is_told_with_its_rule_where_it_was_injected() {
    with_standing_clock(|| async {
        let logs = Logs::new();
        let abort = fault(Injection::Abort(AbortWith { status: 418, grpc: None }));
        let faults = (vec![abort], Vec::new());
        let mut mesh = Mesh::faulty(Protocol::Http, faults, |_| {}, answers);
        mesh.telling(&logs.telemetry);
        mesh.call().ask(GET).await;
        let line = &logs.of("client", 1)[0];
        assert_eq!(line["code"], 418);
        assert_eq!(line["flags"], "FI");
        assert_eq!(line["details"], "fault-abort");
        assert_eq!(line["rule"], "Fault/default/f");
        assert_eq!(line["attempts"], 0);
        assert!(line["upstream"].is_null() && line["id"].is_string(), "{line}");
    });
}

#[test]
fn a_refusal_says_its_code_and_a_delay_its_time() {
    with_standing_clock(|| async {
        let logs = Logs::new();
        let delay = fault(Injection::Delay(Duration::from_secs(2)));
        let mut mesh = Mesh::faulty(Protocol::Http, (Vec::new(), vec![delay]), |_| {}, answers);
        mesh.telling(&logs.telemetry);
        mesh.call().ask(GET).await;
        let server = &logs.of("server", 1)[0];
        assert_eq!(server["flags"], "DI");
        assert!(server["duration"].as_u64() >= Some(2_000), "{server}");

        let logs = Logs::new();
        let mut mesh = Mesh::new(answers);
        mesh.telling(&logs.telemetry);
        mesh.stop_application(20);
        mesh.call().ask(GET).await;
        let server = &logs.of("server", 1)[0];
        assert_eq!(server["code"], 503);
        assert_eq!(server["details"], "application-unreachable");
        assert_eq!(server["flags"], "UF");
    });
}

#[test]
fn attempts_are_one_line_and_copies_none() {
    with_standing_clock(|| async {
        let logs = Logs::new();
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let failing_first = move |mut end: End| {
            let asked = Rc::clone(&counted);
            async move {
                while end.message().await.is_some() {
                    asked.set(asked.get() + 1);
                    match asked.get() {
                        1 => end.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await,
                        _ => end.send(OK).await,
                    }
                }
            }
        };
        let mut mesh = Mesh::ruled(
            &[20],
            |rule| {
                rule.provenance = Provenance("VirtualService/default/r#http[0]".to_owned());
                rule.traffic.retries = Some(heddle_model::discovery::Retries {
                    attempts: 2,
                    conditions: vec!["5xx".to_owned()],
                    ..Default::default()
                });
            },
            failing_first,
        );
        mesh.telling(&logs.telemetry);
        mesh.call().ask(GET).await;
        let client = &logs.of("client", 1)[0];
        assert_eq!((&client["code"], &client["attempts"]), (&200.into(), &2.into()));
        assert_eq!(client["rule"], "VirtualService/default/r#http[0]");
        assert_eq!(logs.of("server", 2)[0]["code"], 503);

        let logs = Logs::new();
        let to = resources::target("reviews", None).to;
        let mirror = Mirror { to, percent: 100.0, compare: MirrorCompare::default() };
        let mut mesh = Mesh::ruled(&[20], |rule| rule.traffic.mirrors = vec![mirror], answers);
        mesh.telling(&logs.telemetry);
        mesh.call().ask(POST).await;
        // The copy is a call to whom it reaches, and nobody's where it was made.
        assert_eq!(logs.of("server", 2).len(), 2);
        assert_eq!(logs.of("client", 1).len(), 1);
    });
}

#[test]
fn a_connection_without_requests_is_a_line_at_its_end() {
    with_standing_clock(|| async {
        let logs = Logs::new();
        let mut mesh = Mesh::speaking(Protocol::Tcp, &[20], |mut end: End| async move {
            while end.body(5).await > 0 {
                end.send("world!").await;
            }
        });
        mesh.telling(&logs.telemetry);
        let mut call = mesh.call();
        call.send("hello").await;
        assert_eq!(call.body(6).await, 6);
        drop(call);
        heddle_runtime::clock::sleep(Duration::from_secs(1)).await;
        for side in ["client", "server"] {
            let line = &logs.of(side, 1)[0];
            assert_eq!((&line["received"], &line["sent"]), (&5.into(), &6.into()), "{side}");
            assert_eq!(line["code"], 0);
            assert!(line["method"].is_null() && line["protocol"].is_null(), "{line}");
        }
        let client = &logs.of("client", 1)[0];
        assert_eq!(client["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
    });
}
