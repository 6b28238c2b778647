//! Faults on purpose: at the caller's sidecar and at the called one's, of requests and of connections, and
//! their end.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_model::{
    Destination, Protocol,
    discovery::{
        AbortWith, ClusterKey, ClusterPolicy, Fault, FaultAbort, FaultDelay, HttpMatch, Injection,
        OutlierDetection, PortFault, Provenance, Retries, StringMatch, TcpFault,
    },
};
use heddle_runtime::clock;
use heddle_testkit::resources::{self, PORT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mesh::{End, GET, Mesh, POST, answers, seconds_since, since, with_standing_clock};

const RULE: &str = "Fault/default/f";

fn fault(does: Injection) -> PortFault {
    let provenance = Provenance(RULE.to_owned());
    PortFault { provenance, matches: Vec::new(), percent: 100.0, does, expires: None }
}

fn abort(status: u16) -> PortFault {
    fault(Injection::Abort(AbortWith { status, grpc: None }))
}

fn tcp(fault_of: TcpFault) -> PortFault {
    fault(Injection::Tcp(fault_of))
}

fn client(faults: Vec<PortFault>) -> Mesh {
    Mesh::faulty(Protocol::Http, (faults, Vec::new()), |_| {}, answers)
}

/// Everything is sent again three times on any 5xx, and an endpoint is out after two of them.
fn repeated(destination: &mut Destination) {
    let mut ruled = resources::destination("reviews", vec![resources::target("reviews", None)]);
    let mut rule = ruled.ports[0].http.remove(0);
    rule.traffic.retries =
        Some(Retries { attempts: 3, conditions: vec!["5xx".to_owned()], ..Retries::default() });
    destination.ports[0].http = vec![rule];
    destination.policies = vec![ClusterPolicy {
        cluster: ClusterKey { service: resources::service("reviews"), subset: None, port: PORT },
        provenance: Provenance("DestinationRule/default/reviews".to_owned()),
        outlier: Some(OutlierDetection {
            consecutive_5xx: 2,
            max_ejection_percent: 100,
            ..OutlierDetection::default()
        }),
        pool: None,
        tls: None,
        balancing: None,
        retry_budget: None,
    }];
}

#[test]
fn an_abort_names_its_rule_and_is_counted_apart() {
    with_standing_clock(|| async {
        let mesh = client(vec![abort(418)]);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 418"), "{head}");
        assert!(
            head.contains(&format!("fault-abort; hop=outbound@client-1; rule={RULE}")),
            "{head}"
        );
        assert!(!head.contains("x-heddle-mark"), "{head}");
        let counted = ["reporter=\"source\"", "response_flags=\"FI\"", "response_code=\"418\""];
        assert_eq!(mesh.client.requests(&counted), 1.0);
        let faults = ["fault=\"abort\"", "direction=\"outbound\""];
        assert_eq!(mesh.client.sum("heddle_faults_injected_total", &faults), 1.0);
        assert_eq!(mesh.servers[0].requests(&[]), 0.0);
    });
}

#[test]
fn a_fault_of_the_called_one_is_neither_repeated_nor_an_error_of_its() {
    with_standing_clock(|| async {
        let faults = (Vec::new(), vec![abort(503)]);
        let mesh = Mesh::faulty(Protocol::Http, faults, repeated, answers);
        for _ in 0..5 {
            let (head, _) = mesh.call().ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            assert!(head.contains("hop=inbound@reviews-20"), "not refused for an ejection: {head}");
            assert!(head.contains(&format!("rule={RULE}")), "{head}");
            assert!(!head.contains("x-heddle-mark"), "it is for the sidecar only: {head}");
        }
        clock::sleep(Duration::from_secs(3)).await;
        let server = ["reporter=\"destination\"", "response_flags=\"FI\""];
        assert_eq!(mesh.servers[0].requests(&server), 5.0, "each was asked once");
        assert_eq!(mesh.client.requests(&["response_flags=\"FI\""]), 5.0);
        assert_eq!(mesh.client.sum("heddle_retries_total", &[]), 0.0);
        assert_eq!(mesh.client.sum("heddle_endpoint_ejections_total", &[]), 0.0);
    });
}

#[test]
fn what_an_application_answers_itself_is_repeated_as_ever() {
    with_standing_clock(|| async {
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let failing = move |mut end: End| {
            let asked = Rc::clone(&counted);
            async move {
                while end.message().await.is_some() {
                    asked.set(asked.get() + 1);
                    end.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
                }
            }
        };
        let none = (Vec::new(), Vec::new());
        let mesh = Mesh::faulty(
            Protocol::Http,
            none,
            |to| {
                repeated(to);
                to.policies.clear();
            },
            failing,
        );
        mesh.call().ask(GET).await;
        assert_eq!(asked.get(), 4);
    });
}

#[test]
fn a_delay_of_the_called_one_holds_its_application_off() {
    with_standing_clock(|| async {
        let delay = fault(Injection::Delay(Duration::from_secs(5)));
        let faults = (Vec::new(), vec![delay]);
        let mesh = Mesh::faulty(Protocol::Http, faults, |_| {}, answers);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200") && seconds_since(begun) == 5, "{head}");
        clock::sleep(Duration::from_secs(3)).await;
        assert_eq!(mesh.servers[0].requests(&["response_flags=\"DI\""]), 1.0);
    });
}

#[test]
fn a_fault_is_for_the_requests_that_it_matches() {
    with_standing_clock(|| async {
        let uri = Some(StringMatch::Prefix("/admin".to_owned()));
        let matches = vec![HttpMatch { uri, ..HttpMatch::default() }];
        for on_server in [false, true] {
            let faults = vec![PortFault { matches: matches.clone(), ..abort(500) }];
            let sides = if on_server { (Vec::new(), faults) } else { (faults, Vec::new()) };
            let mesh = Mesh::faulty(Protocol::Http, sides, |_| {}, answers);
            let mut call = mesh.call();
            let (head, _) = call.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let admin = GET.replace("/ ", "/x/%2e%2e/admin ");
            let (head, _) = call.ask(&admin).await;
            assert!(head.starts_with("HTTP/1.1 500"), "{head}");
        }
    });
}

#[test]
fn a_fault_ends_at_its_time_though_nobody_removes_it() {
    with_standing_clock(|| async {
        let expires = Some(clock::unix_now().as_secs() + 600);
        let mesh = client(vec![PortFault { expires, ..abort(500) }]);
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 500"), "{head}");
        clock::sleep(Duration::from_secs(590)).await;
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 500"), "{head}");
        clock::sleep(Duration::from_secs(11)).await;
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    });
}

/// A rule with a fault of a VirtualService's.
fn with_rule_fault(of: Fault, timeout: Option<Duration>) -> Mesh {
    Mesh::ruled(
        &[20],
        |rule| {
            rule.fault = Some(of);
            rule.traffic.timeout = timeout;
        },
        answers,
    )
}

#[test]
fn faults_of_a_virtual_service_end_too() {
    with_standing_clock(|| async {
        let abort = Some(FaultAbort { status: 500, percent: 100.0, grpc: None });
        let expires = Some(clock::unix_now().as_secs() + 60);
        let mesh = with_rule_fault(Fault { abort, expires, ..Fault::default() }, None);
        assert!(mesh.call().ask(GET).await.0.starts_with("HTTP/1.1 500"));
        clock::sleep(Duration::from_secs(61)).await;
        assert!(mesh.call().ask(GET).await.0.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_delay_counts_against_the_limit_but_not_with_istios_semantics() {
    with_standing_clock(|| async {
        let limit = Some(Duration::from_secs(2));
        let delay = Some(FaultDelay { duration: Duration::from_secs(5), percent: 100.0 });
        for (before_limits, status, seconds) in [(false, "504", 2), (true, "200", 5)] {
            let of = Fault { delay: delay.clone(), before_limits, ..Fault::default() };
            let mesh = with_rule_fault(of, limit);
            let begun = clock::now();
            let (head, _) = mesh.call().ask(POST).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert_eq!(seconds_since(begun), seconds);
        }
    });
}

#[test]
fn the_limit_holds_behind_a_delay_with_istios_semantics() {
    with_standing_clock(|| async {
        let silent = |mut end: End| async move {
            end.message().await;
            std::future::pending::<()>().await;
        };
        let delay = Some(FaultDelay { duration: Duration::from_secs(5), percent: 100.0 });
        let mesh = Mesh::ruled(
            &[20],
            |rule| {
                rule.fault = Some(Fault { delay, before_limits: true, ..Fault::default() });
                rule.traffic.timeout = Some(Duration::from_secs(2));
            },
            silent,
        );
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
        assert_eq!(seconds_since(begun), 7);
    });
}

/// An application that repeats what it is told, on a port of no declared protocol.
async fn echo(mut end: End) {
    let mut read = [0; 4096];
    while let Ok(count @ 1..) = end.transport.read(&mut read).await {
        if end.transport.write_all(&read[..count]).await.is_err() {
            return;
        }
    }
}

fn relayed(fault_of: TcpFault, on_server: bool) -> Mesh {
    let faults = vec![tcp(fault_of)];
    let sides = if on_server { (Vec::new(), faults) } else { (faults, Vec::new()) };
    Mesh::faulty(Protocol::Tcp, sides, |_| {}, echo)
}

#[test]
fn a_refused_connection_is_reset_before_anything_passes() {
    with_standing_clock(|| async {
        for on_server in [false, true] {
            let mesh = relayed(TcpFault::Refuse, on_server);
            let mut call = mesh.call();
            let (took, ended) = call.ended().await;
            assert!(
                ended.is_err() && took < Duration::from_secs(1),
                "{on_server}: {ended:?} {took:?}"
            );
            let side = if on_server { &mesh.servers[0] } else { &mesh.client };
            assert_eq!(side.sum("heddle_faults_injected_total", &["fault=\"refuse\""]), 1.0);
            // Whoever asks why finds it, though nobody was told its id.
            let told = side.shared.state.recent.told(&side.shared.config.workload).refusals;
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].is_connection() && told[0].id.len() == 36, "{told:?}");
            assert_eq!((told[0].code.as_str(), told[0].flag.as_str()), ("fault-connection", "FI"));
        }
        let mesh = relayed(TcpFault::Refuse, false);
        mesh.call().ended().await.1.unwrap_err();
        let closed = "istio_tcp_connections_closed_total";
        assert_eq!(mesh.client.sum(closed, &["response_flags=\"FI\""]), 1.0);
        assert_eq!(mesh.connects(), 0);
    });
}

#[test]
fn nothing_comes_out_of_a_black_hole() {
    with_standing_clock(|| async {
        for on_server in [false, true] {
            let mesh = relayed(TcpFault::Blackhole, on_server);
            let mut call = mesh.call();
            call.send("hello").await;
            let answer = clock::within(Duration::from_secs(600), call.body(1)).await;
            assert_eq!(answer, None, "{on_server}");
            drop(call);
            clock::sleep(Duration::from_secs(3)).await;
            let side = if on_server { &mesh.servers[0] } else { &mesh.client };
            assert_eq!(side.sum("heddle_faults_injected_total", &["fault=\"blackhole\""]), 1.0);
            assert_eq!(side.shared.state.connections.count(), 0, "it is let go of with its client");
        }
    });
}

#[test]
fn a_connection_is_reset_after_so_many_bytes() {
    with_standing_clock(|| async {
        for on_server in [false, true] {
            let mesh = relayed(TcpFault::ResetAfterBytes(100), on_server);
            let mut call = mesh.call();
            call.send(&"x".repeat(60)).await;
            assert_eq!(call.body(60).await, 60, "{on_server}");
            call.send(&"x".repeat(60)).await;
            let (_, ended) = call.ended().await;
            assert!(ended.is_err(), "{on_server}");
            clock::sleep(Duration::from_secs(3)).await;
            let side = if on_server { &mesh.servers[0] } else { &mesh.client };
            let closed = side.sum("istio_tcp_connections_closed_total", &["response_flags=\"FI"]);
            assert_eq!(closed, 1.0, "{on_server}");
        }
    });
}

#[test]
fn no_more_bytes_pass_in_a_second_than_are_allowed() {
    with_standing_clock(|| async {
        for on_server in [false, true] {
            let mesh = relayed(TcpFault::BytesPerSecond(1_000), on_server);
            let mut call = mesh.call();
            let begun = clock::now();
            let sent = "x".repeat(3_000);
            call.send(&sent).await;
            assert_eq!(call.body(3_000).await, 3_000);
            let took = since(begun).as_millis();
            assert!((2_900..=3_300).contains(&took), "{on_server}: {took} ms");
            drop(call);
            clock::sleep(Duration::from_secs(3)).await;
            let side = if on_server { &mesh.servers[0] } else { &mesh.client };
            let closed = side.sum("istio_tcp_connections_closed_total", &["response_flags=\"DI"]);
            assert_eq!(closed, 1.0, "{on_server}");
        }
    });
}

#[test]
fn a_fault_of_connections_holds_for_those_of_http_too() {
    with_standing_clock(|| async {
        let long = "x".repeat(2_000);
        let application = move |mut end: End| {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{long}");
            async move {
                while end.message().await.is_some() {
                    end.send(&answer).await;
                }
            }
        };
        let cut = vec![tcp(TcpFault::ResetAfterBytes(500))];
        let mesh = Mesh::faulty(Protocol::Http, (cut, Vec::new()), |_| {}, application);
        let mut call = mesh.call();
        call.send(GET).await;
        assert!(call.message().await.is_none(), "cut within its answer");
        drop(call);
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(mesh.client.requests(&["response_flags=\"FI"]), 1.0);
        let slow = vec![tcp(TcpFault::BytesPerSecond(1_000))];
        let mesh = Mesh::faulty(Protocol::Http, (slow, Vec::new()), |_| {}, answers);
        let mut call = mesh.call();
        for _ in 0..3 {
            let (head, body) = call.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
        }
        assert_eq!(mesh.client.requests(&["response_flags=\"DI\""]), 3.0);
    });
}

#[test]
fn of_two_faults_the_first_that_is_hit_wins_and_the_rules_own_comes_last() {
    with_standing_clock(|| async {
        let rule_fault = |destination: &mut Destination| {
            repeated(destination);
            let abort = Some(FaultAbort { status: 500, percent: 100.0, grpc: None });
            destination.ports[0].http[0].fault = Some(Fault { abort, ..Fault::default() });
        };
        let status = |faults: Vec<PortFault>| async {
            let mesh = Mesh::faulty(Protocol::Http, (faults, Vec::new()), rule_fault, answers);
            mesh.call().ask(GET).await.0[9..12].to_owned()
        };
        assert_eq!(status(vec![abort(501), abort(502)]).await, "501");
        let never = PortFault { percent: 0.0, ..abort(501) };
        assert_eq!(status(vec![never.clone(), abort(502)]).await, "502");
        assert_eq!(status(vec![never]).await, "500");
    });
}
