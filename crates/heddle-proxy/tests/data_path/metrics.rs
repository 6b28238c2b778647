//! Every request and connection is counted once, on the right edge, on both sides.

use std::net::IpAddr;

use heddle_model::{Address, Owner, Protocol};

use crate::support::{Backend, Peer, Sidecar, TestService, get, nobody, wait_until, workload};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn caller_is_known(sidecar: &Sidecar) {
    sidecar.told(|set| {
        let frontend = workload("frontend-1", "frontend", "v7", 80);
        set.insert_address(Address { ip: LOCAL, owner: Owner::Workload(Box::new(frontend)) });
    });
}

#[test]
fn what_was_sent_is_what_both_sides_count() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    // Two sidecars in a row, as between two workloads.
    let server = Sidecar::start();
    server.own_port(port, Protocol::Http, &["reviews"]);
    caller_is_known(&server);
    let inbound = server.inbound(port);
    let client = Sidecar::start();
    let outbound = client.service(&TestService::http(inbound));
    #[expect(clippy::needless_collect, reason = "all are started before the first is waited for")]
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut peer = Peer::connect(outbound);
                for _ in 0..250 {
                    assert_eq!(peer.ask(&get("/")).1, "ok");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    client.settled();
    server.settled();
    let seen_by_client =
        ["reporter=\"source\"", "destination_workload=\"reviews\"", "response_code=\"200\""];
    assert_eq!(client.sum("istio_requests_total", &seen_by_client), 2000.0);
    let seen_by_server = [
        "reporter=\"destination\"",
        "source_workload=\"frontend\"",
        "source_version=\"v7\"",
        "destination_service=\"reviews.default.svc.cluster.local\"",
        "response_code=\"200\"",
    ];
    assert_eq!(server.sum("istio_requests_total", &seen_by_server), 2000.0);
    let count = "istio_request_duration_milliseconds_count";
    assert_eq!(server.sum(count, &[]), 2000.0);
    assert_eq!(client.sum(count, &[]), 2000.0);
}

#[test]
fn bytes_are_those_of_the_client_with_heads() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.write(answer);
        }
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    let request = "POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\nabc";
    client.ask(request);
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_request_bytes_sum", &[]), request.len() as f64);
    assert_eq!(sidecar.sum("istio_response_bytes_sum", &[]), answer.len() as f64);
}

#[test]
fn a_request_waits_for_its_callers_name_only_after_it_has_ended() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    let mut sidecar = Sidecar::that_asks_about_callers();
    sidecar.own_port(port, Protocol::Http, &["reviews"]);
    let mut ends = sidecar.ends.take().unwrap();
    let mut client = Peer::connect(sidecar.inbound(port));
    assert_eq!(client.ask(&get("/")).1, "ok", "answered before the caller is known");
    let ask = ends.asks.blocking_recv().unwrap();
    assert_eq!(sidecar.sum("istio_requests_total", &[]), 0.0);
    assert_eq!(sidecar.shared.metrics.requests_in_flight(), 1, "not recorded, so not over");
    caller_is_known(&sidecar);
    ask.answer.send(Ok(sidecar.shared.snapshot.load_full())).unwrap();
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["source_workload=\"frontend\""]), 1.0);
    client.ask(&get("/"));
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["source_workload=\"frontend\""]), 2.0);
}

#[test]
fn bytes_of_a_silent_connection_are_written_as_soon_as_its_caller_has_a_name() {
    let backend = Backend::echo(4);
    let port = backend.address.port();
    for (told, name) in [(true, "frontend"), (false, "unknown")] {
        let mut sidecar = Sidecar::that_asks_about_callers();
        sidecar.own_port(port, Protocol::Tcp, &["store"]);
        let mut ends = sidecar.ends.take().unwrap();
        let mut client = Peer::connect(sidecar.inbound(port));
        for _ in 0..3 {
            client.write("ping");
            assert_eq!(client.exactly(4).unwrap(), b"ping", "not delayed");
        }
        let ask = ends.asks.blocking_recv().unwrap();
        assert_eq!(sidecar.sum("istio_tcp_received_bytes_total", &[]), 0.0);
        if told {
            caller_is_known(&sidecar);
            ask.answer.send(Ok(sidecar.shared.snapshot.load_full())).unwrap();
        } else {
            drop(ask);
        }
        let label = format!("source_workload=\"{name}\"");
        let sum = |counter: &str| sidecar.sum(&format!("istio_tcp_{counter}_total"), &[&label]);
        // Not another byte, nor a close.
        wait_until("the bytes are written", || {
            (sum("received_bytes"), sum("sent_bytes")) == (12.0, 12.0)
        });
        assert_eq!(sum("connections_opened"), 1.0);
        client.write("ping");
        client.exactly(4).unwrap();
        drop(client);
        wait_until("the close is written", || sum("connections_closed") == 1.0);
        assert_eq!((sum("received_bytes"), sum("sent_bytes")), (16.0, 16.0));
        assert_eq!(sidecar.sum("istio_tcp_connections_opened_total", &[]), 1.0);
    }
}

#[test]
fn a_caller_that_becomes_known_is_named_on_the_connection_it_has() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    let sidecar = Sidecar::start();
    sidecar.own_port(port, Protocol::Http, &["reviews"]);
    sidecar.told(|set| set.insert_address(Address { ip: LOCAL, owner: Owner::NotKnown }));
    let mut client = Peer::connect(sidecar.inbound(port));
    let named = |name: &str| {
        let label = format!("source_workload=\"{name}\"");
        sidecar.sum("istio_requests_total", &[&label])
    };
    for _ in 0..2 {
        client.ask(&get("/"));
        sidecar.settled();
    }
    assert_eq!((named("unknown"), named("frontend")), (2.0, 0.0));
    caller_is_known(&sidecar);
    for _ in 0..2 {
        client.ask(&get("/"));
        sidecar.settled();
    }
    assert_eq!((named("unknown"), named("frontend")), (2.0, 2.0));
}

#[test]
fn an_unanswered_question_about_a_caller_is_asked_again_on_the_connection_it_has() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    let mut sidecar = Sidecar::that_asks_about_callers();
    sidecar.own_port(port, Protocol::Http, &["reviews"]);
    let mut ends = sidecar.ends.take().unwrap();
    let mut client = Peer::connect(sidecar.inbound(port));
    drop(ends.asks.blocking_recv().unwrap());
    let mut asked = None;
    wait_until("it is asked again", || {
        client.ask(&get("/"));
        asked = ends.asks.try_recv().ok();
        asked.is_some()
    });
    caller_is_known(&sidecar);
    let _answered = asked.unwrap().answer.send(Ok(sidecar.shared.snapshot.load_full()));
    sidecar.settled();
    let named = || sidecar.sum("istio_requests_total", &["source_workload=\"frontend\""]);
    let before = named();
    client.ask(&get("/"));
    sidecar.settled();
    assert_eq!(named(), before + 1.0);
    assert!(ends.asks.try_recv().is_err(), "and not asked any more");
}

#[test]
fn a_caller_nobody_knows_is_unknown_and_counted_all_the_same() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    let sidecar = Sidecar::start().without_control();
    sidecar.own_port(port, Protocol::Http, &["reviews"]);
    Peer::connect(sidecar.inbound(port)).ask(&get("/"));
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["source_workload=\"unknown\""]), 1.0);
}

#[test]
fn host_chooses_between_the_services_that_own_a_port() {
    let backend = Backend::http(|_, _| "ok".into());
    let port = backend.address.port();
    let sidecar = Sidecar::start().without_control();
    sidecar.own_port(port, Protocol::Http, &["alpha", "beta"]);
    let mut client = Peer::connect(sidecar.inbound(port));
    for host in ["beta", "beta.default:80", "elsewhere.example", "alpha"] {
        client.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    sidecar.settled();
    let named = |service| {
        let label = format!("destination_service_name=\"{service}\"");
        sidecar.sum("istio_requests_total", &[&label])
    };
    assert_eq!((named("alpha"), named("beta")), (2.0, 2.0));
}

#[test]
fn an_undeclared_port_of_the_workload_is_served_and_named_passthrough() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start().without_control();
    sidecar.own_port(1, Protocol::Http, &["client"]);
    let mut client = Peer::connect(sidecar.inbound(backend.address.port()));
    assert_eq!(client.ask(&get("/")).1, "ok");
    sidecar.settled();
    let labels = ["destination_service_name=\"InboundPassthroughCluster\""];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0);
}

#[test]
fn an_application_that_does_not_listen_is_named() {
    let port = nobody().port();
    let sidecar = Sidecar::start().without_control();
    sidecar.own_port(port, Protocol::Http, &["client"]);
    let (head, body) = Peer::connect(sidecar.inbound(port)).ask(&get("/"));
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("application-unreachable"),
        "{head}"
    );
    assert!(body.contains(&port.to_string()), "{body}");
}

#[test]
fn outside_destinations_are_measured_by_host() {
    let sidecar = Sidecar::start().without_control();
    let address = sidecar.outbound("192.0.2.1:80".parse().unwrap());
    let (head, _) = Peer::connect(address).ask("GET / HTTP/1.1\r\nHost: Example.com:80\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("outside-unreachable"), "{head}");
    sidecar.settled();
    let labels = [
        "destination_service_name=\"PassthroughCluster\"",
        "destination_service=\"example.com\"",
        "response_flags=\"UF\"",
    ];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0);
}

#[test]
fn a_tcp_connection_is_opened_once_and_closed_once_on_both_sides() {
    let backend = Backend::echo(4);
    let port = backend.address.port();
    let server = Sidecar::start();
    server.own_port(port, Protocol::Tcp, &["store"]);
    caller_is_known(&server);
    let inbound = server.inbound(port);
    let client = Sidecar::start();
    let outbound = client.service(&TestService::speaking(Protocol::Tcp, &[inbound]));
    for _ in 0..10 {
        let mut peer = Peer::connect(outbound);
        peer.write("ping");
        assert_eq!(peer.exactly(4).unwrap(), b"ping");
    }
    for (sidecar, edge) in
        [(&client, "destination_workload=\"reviews\""), (&server, "source_workload=\"frontend\"")]
    {
        for counter in ["opened", "closed"] {
            let name = format!("istio_tcp_connections_{counter}_total");
            wait_until(&name, || sidecar.sum(&name, &[edge]) == 10.0);
        }
        assert_eq!(sidecar.sum("istio_tcp_received_bytes_total", &[edge]), 40.0);
        assert_eq!(sidecar.sum("istio_tcp_sent_bytes_total", &[edge]), 40.0);
    }
}
