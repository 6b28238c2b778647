//! Traces: one of several hops is connected, what came is what goes on, and a span says what became of its
//! request.

use std::{cell::RefCell, rc::Rc, time::Duration};

use heddle_model::{
    Protocol,
    discovery::{
        CustomTag, Fault, FaultDelay, HttpRule, Mirror, MirrorCompare, Provenance, Retries,
        RuleAction, TagSource, Tracing, Traffic, WorkloadTelemetry,
    },
};
use heddle_runtime::clock;
use heddle_testkit::resources;
use heddle_wire::trace::{
    TraceId,
    span::{Kind, Span},
};
use http::Request;

use crate::{
    http2::{connect, send, whole},
    mesh::{End, GET, Mesh, OK, chain::Chain, with_standing_clock},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// What the application was sent: heads in small letters.
type Seen = Rc<RefCell<Vec<String>>>;

/// A mesh under this rule, all of which is traced, and whose application answers one request after the other with
/// these, and with the last one from then on.
fn traced(
    percent: f64,
    change: impl FnOnce(&mut HttpRule),
    answers: &'static [&'static str],
) -> (Mesh, Seen) {
    let seen = Seen::default();
    let told = Rc::clone(&seen);
    let mesh = Mesh::ruled(&[20], change, move |mut end: End| {
        let seen = Rc::clone(&told);
        async move {
            while let Some((head, _)) = end.message().await {
                let number = seen.borrow().len().min(answers.len() - 1);
                seen.borrow_mut().push(head.to_ascii_lowercase());
                end.send(answers[number]).await;
            }
        }
    });
    mesh.trace(percent);
    (mesh, seen)
}

/// A request with these fields.
fn get(fields: &str) -> String {
    format!("GET /7?x=1 HTTP/1.1\r\nHost: reviews\r\nUser-Agent: test/1\r\n{fields}\r\n")
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// All is recorded, and calls of the client are traced as changed.
fn client_with(change: impl FnOnce(&mut Tracing)) -> WorkloadTelemetry {
    let mut all = resources::tracing(100.0);
    change(all.client.tracing.as_mut().unwrap());
    all
}

/// The only span of a sidecar.
fn only(mut spans: Vec<Span>) -> Span {
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.remove(0)
}

fn trace_of(span: &Span) -> TraceId {
    span.context.trace
}

fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|(_, what)| what.as_str()).collect()
}

#[test]
fn a_call_through_services_that_pass_its_context_on_is_one_trace() {
    with_standing_clock(|| async {
        let chain = Chain::under(&Traffic::default());
        chain.counts.forwards.set(true);
        chain.trace(100.0);
        chain.ask("").await;
        let spans: Vec<_> = chain.spans().into_iter().flatten().collect();
        // A server's span ends after that of the call it made meanwhile.
        let of = |kind, name: &str| {
            let wanted = |span: &&Span| span.kind == kind && span.name.starts_with(name);
            spans.iter().find(wanted).unwrap_or_else(|| panic!("{kind:?} {name}: {spans:?}"))
        };
        let hops: Vec<_> = ["a.", "b.", "c."]
            .into_iter()
            .flat_map(|name| [of(Kind::Client, name), of(Kind::Server, name)])
            .collect();
        assert_eq!(spans.len(), 6, "{spans:?}");
        assert_eq!(hops[0].context.parent, None);
        for two in hops.windows(2) {
            assert_eq!(two[1].context.parent, Some(two[0].context.span), "{two:?}");
            assert_eq!(trace_of(two[0]), trace_of(two[1]));
        }
        assert_eq!(hops[1].name, "a.default.svc.cluster.local:9080/*");
        assert!(hops.iter().all(|span| span.failed && span.tag("http.status_code") == Some("503")));
        assert_eq!(chain.counted(0, "heddle_trace_context_lost_total"), 0.0);
    });
}

#[test]
fn a_workload_that_drops_the_context_is_counted_at_its_own_sidecar() {
    with_standing_clock(|| async {
        let chain = Chain::under(&Traffic::default());
        chain.trace(100.0);
        chain.ask("").await;
        let spans = chain.spans();
        assert_ne!(trace_of(&spans[0][0]), trace_of(&spans[2][0]), "nothing connects them");
        let lost = |at| chain.counted(at, "heddle_trace_context_lost_total");
        assert_eq!((lost(0), lost(1), lost(2)), (1.0, 1.0, 0.0));
    });
}

#[test]
fn a_span_has_the_tags_that_envoys_has() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(100.0, |_| {}, &[OK]);
        let id = "8a1c5d7e-0000-4000-8000-000000000000";
        mesh.call().ask(&get(&format!("X-Request-Id: {id}\r\n"))).await;
        let (client, server) = (only(mesh.client.spans()), only(mesh.servers[0].spans()));
        for (span, peer, cluster) in [
            (&client, "240.241.0.10", "outbound|9080||reviews.default.svc.cluster.local"),
            (&server, "240.241.0.10", "inbound|9080||"),
        ] {
            for (name, value) in [
                ("component", "proxy"),
                ("http.method", "GET"),
                ("http.url", "http://reviews/7?x=1"),
                ("http.protocol", "HTTP/1.1"),
                ("http.status_code", "200"),
                ("user_agent", "test/1"),
                ("guid:x-request-id", id),
                ("response_flags", "-"),
                ("response_size", "40"),
                ("peer.address", peer),
                ("upstream_cluster", cluster),
                ("istio.namespace", "default"),
                ("istio.canonical_revision", "latest"),
            ] {
                assert_eq!(span.tag(name), Some(value), "{name}: {span:?}");
            }
            assert_eq!(span.name, "reviews.default.svc.cluster.local:9080/*");
            assert!(!span.failed && span.events.is_empty(), "{span:?}");
        }
        assert_eq!((client.kind, server.kind), (Kind::Client, Kind::Server));
        assert_eq!(client.tag("upstream_address"), Some("240.241.0.20:9080"));
        assert_eq!(client.tag("istio.canonical_service"), Some("client"));
        let head = &seen.borrow()[0];
        let begun = format!("00-{}-{}-01", trace_of(&server), server.context.span);
        assert_eq!(field(head, "traceparent"), Some(&*begun));
        assert_eq!(field(head, "x-b3-traceid"), Some(&*trace_of(&server).to_string()));
        assert_eq!(field(head, "x-b3-spanid"), Some(&*server.context.span.to_string()));
        assert_eq!(field(head, "x-b3-sampled"), Some("1"));
    });
}

#[test]
fn a_context_that_came_goes_on_in_its_forms_and_no_other() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(0.0, |_| {}, &[OK]);
        let forms = [
            (
                format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: a=1,b=2\r\n"),
                "traceparent",
            ),
            (format!("b3: {TRACE}-{SPAN}-1\r\n"), "b3"),
            (format!("b3: {}-{SPAN}-d\r\n", &TRACE[16..]), "b3"),
            (
                format!("X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {SPAN}\r\nX-B3-Flags: 1\r\n"),
                "x-b3-spanid",
            ),
        ];
        for (fields, carrier) in &forms {
            mesh.call().ask(&get(fields)).await;
            let (client, server) = (only(mesh.client.spans()), only(mesh.servers[0].spans()));
            assert_eq!(client.context.parent.unwrap().to_string(), SPAN, "{fields}");
            assert_eq!(server.context.parent, Some(client.context.span), "{fields}");
            let trace = trace_of(&server).to_string();
            assert!(TRACE.ends_with(&trace), "{trace}");
            let id = client.tag("guid:x-request-id");
            assert!(id.is_some_and(|id| id.len() == 36) && id == server.tag("guid:x-request-id"));
            let head = seen.borrow_mut().pop().unwrap();
            assert!(field(&head, carrier).unwrap().contains(&server.context.span.to_string()));
            for other in ["traceparent", "b3", "x-b3-spanid"] {
                assert_eq!(field(&head, other).is_some(), other == *carrier, "{head}");
            }
            let state = fields.contains("tracestate").then_some("a=1,b=2");
            assert_eq!(field(&head, "tracestate"), state);
            assert_eq!(field(&head, "x-b3-flags").is_some(), *carrier == "x-b3-spanid");
        }
    });
}

#[test]
fn what_is_not_recorded_goes_on_as_it_came_and_makes_no_span() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(100.0, |_| {}, &[OK]);
        for fields in [
            format!("traceparent: 00-{TRACE}-{SPAN}-00\r\ntracestate: a=1\r\n"),
            format!("b3: {TRACE}-{SPAN}-0\r\n"),
            "b3: 0\r\n".to_owned(),
            format!("x-b3-traceid: {TRACE}\r\nx-b3-spanid: {SPAN}\r\nx-b3-sampled: 0\r\n"),
            "x-b3-sampled: 0\r\n".to_owned(),
        ] {
            mesh.call().ask(&get(&fields)).await;
            assert!(mesh.client.spans().is_empty() && mesh.servers[0].spans().is_empty());
            let head = seen.borrow_mut().pop().unwrap();
            assert!(head.contains(&fields), "{fields} in {head}");
            let said =
                |line: &&str| ["b3:", "x-b3-", "trace"].iter().any(|name| line.starts_with(name));
            assert_eq!(head.lines().filter(said).count(), fields.lines().count(), "{head}");
        }
    });
}

#[test]
fn who_is_not_picked_says_so_to_those_behind() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(0.0, |_| {}, &[OK]);
        mesh.call().ask(&get("tracestate: of-no-trace=1\r\n")).await;
        assert!(mesh.client.spans().is_empty() && mesh.servers[0].spans().is_empty());
        let head = seen.borrow_mut().pop().unwrap();
        assert!(field(&head, "traceparent").unwrap().ends_with("-00"), "{head}");
        assert_eq!(field(&head, "x-b3-sampled"), Some("0"));
        assert_eq!(field(&head, "tracestate"), None, "it is of no trace");
        for wanted in ["x-envoy-force-trace: true\r\n", "x-client-trace-id: 7\r\n"] {
            mesh.call().ask(&get(wanted)).await;
            assert_eq!((mesh.client.spans().len(), mesh.servers[0].spans().len()), (1, 1));
            let head = seen.borrow_mut().pop().unwrap();
            let id = field(&head, "x-request-id").unwrap();
            assert_eq!(&id[14..15], "9", "Envoys read there that it is recorded: {id}");
        }
    });
}

#[test]
fn as_many_are_recorded_as_are_to_be() {
    with_standing_clock(|| async {
        let (mesh, _) = traced(10.0, |_| {}, &[OK]);
        let mut call = mesh.call();
        let (mut clients, mut servers) = (0, 0);
        for _ in 0..2_000 {
            call.ask(&get("")).await;
            clients += mesh.client.spans().len();
            servers += mesh.servers[0].spans().len();
        }
        assert_eq!(clients, servers, "both ends of a call or none");
        // Six times the standard deviation (13.4).
        assert!((120..=280).contains(&clients), "{clients}");
    });
}

#[test]
fn a_malformed_context_counts_as_none_and_is_counted() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(100.0, |_| {}, &[OK]);
        let fields =
            "traceparent: 00-short-01\r\nb3: what\r\nx-b3-traceid: 1\r\ntracestate: a=1\r\n";
        mesh.call().ask(&get(fields)).await;
        let server = only(mesh.servers[0].spans());
        assert_eq!(only(mesh.client.spans()).context.parent, None);
        let head = seen.borrow_mut().pop().unwrap();
        assert!(field(&head, "traceparent").unwrap().contains(&trace_of(&server).to_string()));
        assert_eq!(field(&head, "tracestate"), None);
        for format in ["w3c", "b3", "b3-multi"] {
            let label = format!("format=\"{format}\"");
            let malformed = "heddle_trace_context_malformed_total";
            assert_eq!(mesh.client.sum(malformed, &[&label]), 1.0, "{format}");
        }
    });
}

#[test]
fn where_nobody_takes_spans_nothing_is_touched() {
    with_standing_clock(|| async {
        let seen = Seen::default();
        let told = Rc::clone(&seen);
        let mesh = Mesh::new(move |mut end: End| {
            let seen = Rc::clone(&told);
            async move {
                while let Some((head, _)) = end.message().await {
                    seen.borrow_mut().push(head);
                    end.send(OK).await;
                }
            }
        });
        let fields = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\nb3: what\r\n");
        mesh.call().ask(&get(&fields)).await;
        mesh.call().ask(&get("")).await;
        let seen = seen.borrow();
        assert!(seen[0].contains(&fields), "{seen:?}");
        assert!(!seen[1].to_ascii_lowercase().contains("trace"), "{seen:?}");
        assert!(mesh.client.spans().is_empty());
    });
}

#[test]
fn a_span_says_how_often_and_why_its_request_was_sent_again() {
    with_standing_clock(|| async {
        let retries =
            Retries { attempts: 3, conditions: vec!["5xx".to_owned()], ..Retries::default() };
        let by = |rule: &mut HttpRule| {
            rule.provenance = Provenance("VirtualService/default/reviews#http[0]".to_owned());
            rule.traffic.retries = Some(retries);
        };
        let (mesh, _) = traced(100.0, by, &[BUSY, BUSY, OK]);
        mesh.call().ask(GET).await;
        let span = only(mesh.client.spans());
        assert_eq!(span.tag("heddle.attempts"), Some("3"));
        assert_eq!(span.tag("heddle.rule"), Some("VirtualService/default/reviews#http[0]"));
        assert_eq!(
            events(&span),
            [
                "sent again: status",
                "attempt 2 at 240.241.0.20:9080",
                "sent again: status",
                "attempt 3 at 240.241.0.20:9080",
            ]
        );
        let servers = mesh.servers[0].spans();
        assert_eq!(servers.len(), 3, "each attempt is one call for who is called");
        assert!(servers.iter().all(|server| server.context.parent == Some(span.context.span)));
    });
}

#[test]
fn a_span_says_which_fault_its_request_had() {
    with_standing_clock(|| async {
        let by = |rule: &mut HttpRule| {
            rule.provenance = Provenance("VirtualService/default/slow#http[0]".to_owned());
            let delay = FaultDelay { percent: 100.0, duration: Duration::from_secs(5) };
            rule.fault = Some(Fault { delay: Some(delay), ..Fault::default() });
        };
        let (mesh, _) = traced(100.0, by, &[OK]);
        mesh.call().ask(GET).await;
        let span = only(mesh.client.spans());
        assert!(events(&span)[0].starts_with("fault injected: delay, by "), "{span:?}");
        assert_eq!(span.tag("response_flags"), Some("DI"));
        assert!(span.duration >= Duration::from_secs(5), "{span:?}");
        assert!(only(mesh.servers[0].spans()).duration < Duration::from_secs(5));
    });
}

#[test]
fn a_refused_request_has_a_span_that_says_why() {
    with_standing_clock(|| async {
        let by = |rule: &mut HttpRule| {
            rule.provenance = Provenance("VirtualService/default/no#http[0]".to_owned());
            rule.action = RuleAction::Refuse("it is not carried out".to_owned());
        };
        let (mesh, _) = traced(100.0, by, &[OK]);
        let (head, _) = mesh.call().ask(GET).await;
        let span = only(mesh.client.spans());
        let code = span.tag("heddle.refusal").unwrap();
        assert!(head.contains(&format!("x-heddle-refusal: {code};")), "{head} {span:?}");
        assert_eq!(span.tag("heddle.rule"), Some("VirtualService/default/no#http[0]"));
        assert!(span.failed && events(&span)[0].starts_with("refused: "), "{span:?}");
    });
}

#[test]
fn a_copy_for_a_mirror_is_in_the_trace_of_its_request_and_told_apart() {
    with_standing_clock(|| async {
        let by = |rule: &mut HttpRule| {
            let to = resources::target("reviews", None).to;
            let compare = MirrorCompare::default();
            rule.traffic.mirrors = vec![Mirror { to, percent: 100.0, compare }];
        };
        let (mesh, _) = traced(100.0, by, &[OK]);
        mesh.call().ask(GET).await;
        clock::sleep(Duration::from_secs(1)).await;
        let span = only(mesh.client.spans());
        let to = "mirrored to outbound|9080||reviews.default.svc.cluster.local";
        assert_eq!(events(&span), [to]);
        let servers = mesh.servers[0].spans();
        assert!(servers.iter().all(|server| server.context.parent == Some(span.context.span)));
        let copies = servers.iter().filter(|one| one.tag("heddle.mirror") == Some("true"));
        assert_eq!((servers.len(), copies.count()), (2, 1), "{servers:?}");
    });
}

#[test]
fn tags_of_a_rule_are_on_every_span_of_its_direction() {
    with_standing_clock(|| async {
        let (mesh, _) = traced(100.0, |_| {}, &[OK]);
        let header = |default: &str| {
            let source = TagSource { name: "X-Tenant".to_owned(), default: default.to_owned() };
            CustomTag::Header(source)
        };
        let tags = [
            ("stage", CustomTag::Literal("test".to_owned())),
            ("tenant", header("nobody")),
            ("absent", header("")),
        ];
        let tags = tags.map(|(name, value)| (name.to_owned(), value)).into();
        mesh.client.trace(client_with(|tracing| tracing.custom_tags = tags));
        mesh.call().ask(&get("x-tenant: acme\r\n")).await;
        let span = only(mesh.client.spans());
        assert_eq!((span.tag("stage"), span.tag("tenant")), (Some("test"), Some("acme")));
        mesh.call().ask(&get("")).await;
        let span = only(mesh.client.spans());
        assert_eq!((span.tag("tenant"), span.tag("absent")), (Some("nobody"), None));
        assert!(mesh.servers[0].spans().iter().all(|span| span.tag("stage").is_none()));
    });
}

#[test]
fn a_silent_workload_passes_on_what_came_and_has_no_spans() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(100.0, |_| {}, &[OK]);
        mesh.client.trace(client_with(|tracing| tracing.reports_nothing = true));
        mesh.call().ask(&get(&format!("b3: {TRACE}-{SPAN}-1\r\n"))).await;
        assert!(mesh.client.spans().is_empty());
        let server = only(mesh.servers[0].spans());
        assert_eq!(server.context.parent.unwrap().to_string(), SPAN, "there is nobody between");
        assert!(field(&seen.borrow()[0], "b3").unwrap().starts_with(TRACE));
    });
}

#[test]
fn requests_of_http2_are_traced_alike() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end: End| async move {
            let mut connection = h2::server::handshake(end.transport).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let parent = request.headers()["traceparent"].clone();
                let answer = http::Response::builder().header("seen", parent).body(()).unwrap();
                drop(respond.send_response(answer, true));
            }
        });
        mesh.trace(100.0);
        let mut client = connect(mesh.call()).await;
        let request = Request::get("http://reviews/7")
            .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
            .body(())
            .unwrap();
        let (response, _) = send(&mut client, request, true).await;
        let (answer, ..) = whole(response).await.unwrap();
        let (client, server) = (only(mesh.client.spans()), only(mesh.servers[0].spans()));
        assert_eq!(client.tag("http.protocol"), Some("HTTP/2"));
        assert_eq!(client.context.parent.unwrap().to_string(), SPAN);
        assert_eq!(server.context.parent, Some(client.context.span));
        let seen = format!("00-{TRACE}-{}-01", server.context.span);
        assert_eq!(answer.headers()["seen"], seen.as_str());
    });
}

#[test]
fn a_workload_may_keep_the_context_to_itself() {
    with_standing_clock(|| async {
        let (mesh, seen) = traced(100.0, |_| {}, &[OK]);
        mesh.client.trace(client_with(|tracing| tracing.keeps_context = true));
        let came = format!("b3: {TRACE}-{SPAN}-1\r\n");
        mesh.call().ask(&get(&came)).await;
        let client = only(mesh.client.spans());
        assert_eq!(client.context.parent.unwrap().to_string(), SPAN);
        assert_eq!(only(mesh.servers[0].spans()).context.parent, client.context.parent);
        mesh.call().ask(&get("")).await;
        let (client, server) = (only(mesh.client.spans()), only(mesh.servers[0].spans()));
        assert_ne!(trace_of(&client), trace_of(&server));
        assert_eq!(seen.borrow().len(), 2);
    });
}
