//! What is sent again, and above all what is not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use heddle_logic::retry::FRESH_ENOUGH;
use heddle_model::Protocol;
use heddle_proxy::limits::POOL_TRUST;

use heddle_runtime::clock;

use crate::support::{
    Backend, Peer, Sidecar, TestService, field, get, http_server, nobody, wait_until,
};

const POST: &str = "POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn an_endpoint_that_does_not_accept_is_passed_over() {
    let good = Backend::http(|_, _| "ok".into());
    let port = good.address.port();
    let dead = SocketAddr::from(([127, 0, 0, 2], port));
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::speaking(Protocol::Http, &[good.address, dead]));
    for _ in 0..40 {
        // POST too: no byte of it has gone anywhere.
        let mut client = Peer::connect(address);
        assert_eq!(client.ask(POST).1, "ok");
        assert_eq!(client.ask(&get("/")).1, "ok");
    }
    let retried = sidecar.sum("heddle_retries_total", &["reason=\"connect-failure\""]);
    assert!(retried >= 1.0, "the dead one was tried");
}

#[test]
fn when_nobody_accepts_the_refusal_says_so_after_three_attempts() {
    let dead = nobody();
    let port = dead.port();
    let others: Vec<_> = (1..=5).map(|n| SocketAddr::from(([127, 0, 0, n], port))).collect();
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::speaking(Protocol::Http, &others));
    let (head, body) = Peer::connect(address).ask(&get("/"));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("connect-failed;"), "{head}");
    assert!(body.contains(&port.to_string()), "{body}");
    sidecar.settled();
    assert_eq!(sidecar.sum("heddle_retries_total", &["connect-failure"]), 2.0);
    assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"UF,URX\""]), 1.0);
}

/// A server whose first connection serves one request and then closes as the second arrives: the
/// keep-alive race, forced. Later connections are good. Counts the requests that reached it.
fn racing(requests: &Arc<AtomicUsize>) -> Backend {
    let count = Arc::clone(requests);
    Backend::start(move |mut peer| {
        let mut served = 0;
        while let Some((head, body)) = peer.request() {
            count.fetch_add(1, Ordering::SeqCst);
            served += 1;
            if peer.number == 0 && served == 2 {
                peer.reset();
                return;
            }
            let text = format!("{} {}", head.split(' ').next().unwrap(), body.len());
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

#[test]
fn a_replayable_request_survives_the_keep_alive_race() {
    for request in [
        get("/"),
        "PUT / HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\n12345".to_owned(),
        "POST / HTTP/1.1\r\nHost: r\r\nIdempotency-Key: 1\r\nContent-Length: 5\r\n\r\n12345"
            .to_owned(),
    ] {
        let requests = Arc::default();
        let backend = racing(&requests);
        let sidecar = Sidecar::start();
        let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
        client.ask(&get("/"));
        let (head, body) = client.ask(&request);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = if request.contains("12345") { 5 } else { 0 };
        assert_eq!(body, format!("{} {length}", request.split(' ').next().unwrap()));
        assert_eq!(backend.connections(), 2);
        sidecar.settled();
        assert_eq!(sidecar.sum("heddle_retries_total", &["reuse-race"]), 1.0);
        assert_eq!(sidecar.sum("istio_requests_total", &[]), 2.0, "counted once each");
    }
}

#[test]
fn a_connection_that_waited_for_its_first_request_may_lose_the_race_too() {
    let backend = Backend::start(|mut peer| {
        let Some(_) = peer.request() else { return };
        if peer.number == 0 {
            // As one whose idle limit ends this very moment.
            return peer.reset();
        }
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Undeclared, &[backend.address]);
    let mut client = Peer::connect(sidecar.service(&service));
    wait_until("it was dialled early", || backend.connections() == 1);
    // Longer than a connection counts as new, however late the worker saw it connected.
    let dialled = clock::now();
    wait_until("it has waited", || clock::now() - dialled > 10 * POOL_TRUST);
    assert_eq!(client.ask(&get("/")).1, "ok");
    assert_eq!(backend.connections(), 2);
    assert_eq!(sidecar.sum("heddle_retries_total", &["reuse-race"]), 1.0);
}

#[test]
fn a_post_is_never_sent_twice() {
    let requests: Arc<AtomicUsize> = Arc::default();
    let backend = racing(&requests);
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.ask(POST);
    let (head, _) = client.ask(POST);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("upstream-reset;"), "{head}");
    assert_eq!(requests.load(Ordering::SeqCst), 2, "sent once each");
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"UC\""]), 1.0);
}

#[test]
fn a_refusal_names_the_id_under_which_the_request_went_on() {
    let many: String = (0..198).map(|n| format!("X-{n}: 1\r\n")).collect();
    for own_fields in ["", "X-Request-Id: mine\r\n", &many] {
        for (framing, begun, rest, refusal) in [
            ("Content-Length: 10", "abc", "", "upstream-reset;"),
            ("Transfer-Encoding: chunked", "2\r\nhi\r\n", "no chunk\r\n", "bad-request;"),
        ] {
            let (saw, seen) = mpsc::channel();
            let saw = Mutex::new(saw);
            let backend = Backend::start(move |mut peer| {
                let head = peer.head().unwrap();
                peer.exactly(begun.len()).unwrap();
                let id = field(&head, "x-request-id").unwrap().to_owned();
                saw.lock().unwrap().send(id).unwrap();
                if rest.is_empty() {
                    peer.reset();
                } else {
                    let _end = peer.rest();
                }
            });
            let sidecar = Sidecar::start();
            let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
            let head = format!("POST / HTTP/1.1\r\nHost: r\r\n{framing}\r\n{own_fields}\r\n");
            client.write(&format!("{head}{begun}"));
            let id = seen.recv_timeout(crate::support::PATIENCE).unwrap();
            client.write(rest);
            let (head, _) = client.response().unwrap();
            assert_eq!(field(&head, "x-request-id"), Some(&*id), "{head}");
            let said = field(&head, "x-heddle-refusal").unwrap();
            assert!(said.starts_with(refusal) && said.ends_with(&format!("; id={id}")), "{said}");
        }
    }
}

#[test]
fn a_refusal_names_the_clients_id_even_if_nothing_went_on() {
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(nobody())));
    let head =
        "POST / HTTP/1.1\r\nHost: r\r\nX-Request-Id: mine\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write(&format!("{head}no chunk\r\n"));
    let (head, _) = client.response().unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(field(&head, "x-request-id"), Some("mine"), "{head}");
}

#[test]
fn a_reset_on_a_new_connection_is_the_servers_answer() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.reset();
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    assert!(client.ask(&get("/")).0.starts_with("HTTP/1.1 503 "));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_connection_the_server_has_closed_meanwhile_is_not_used() {
    let (closed, is_closed) = mpsc::channel();
    let backend = Backend::start(move |mut peer| {
        let Some(_) = peer.request() else { return };
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        drop(peer);
        closed.send(()).unwrap();
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    for n in 1..=5 {
        assert_eq!(client.ask(POST).1, "ok");
        is_closed.recv().unwrap();
        assert_eq!(backend.connections(), n);
    }
    assert_eq!(sidecar.sum("heddle_retries_total", &[]), 0.0, "seen before, not after");
}

#[test]
fn a_slow_head_does_not_make_a_pooled_connection_look_fresh() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::http(backend.address));
    let (beginning, rest) = POST.split_at(10);
    let mut slow = Peer::connect(address);
    slow.write(beginning);
    // While its head is on its way, a connection comes into the pool and idles there.
    assert_eq!(Peer::connect(address).ask(POST).1, "ok");
    sidecar.settled();
    let pooled = clock::now();
    wait_until("it has idled", || clock::now() - pooled > FRESH_ENOUGH);
    assert_eq!(slow.ask(rest).1, "ok");
    assert_eq!(backend.connections(), 2, "too old for a request that may not be replayed");
}

#[test]
fn a_body_larger_than_what_is_kept_is_never_replayed() {
    let requests: Arc<AtomicUsize> = Arc::default();
    let backend = racing(&requests);
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.ask(&get("/"));
    let large = "x".repeat(70_000);
    let (head, _) =
        client.ask(&format!("PUT / HTTP/1.1\r\nHost: r\r\nContent-Length: 70000\r\n\r\n{large}"));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_body_that_is_kept_may_come_late() {
    let requests: Arc<AtomicUsize> = Arc::default();
    let backend = racing(&requests);
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.ask(&get("/"));
    client.write("PUT / HTTP/1.1\r\nHost: r\r\nContent-Length: 40000\r\n\r\n");
    client.write(&"x".repeat(20_000));
    client.write(&"y".repeat(20_000));
    assert_eq!(client.response().unwrap().1, "PUT 40000");
}

#[test]
fn interim_responses_count_as_an_answer_begun() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        if peer.number == 0 {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            peer.request();
            peer.write("HTTP/1.1 103 Early Hints\r\n\r\n");
        } else {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.ask(&get("/"));
    client.write(&get("/"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 103 "));
    assert!(client.response().unwrap().0.starts_with("HTTP/1.1 503 "));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn idle_connections_are_closed_in_time() {
    let (ended, told) = mpsc::channel();
    let backend = Backend::start(move |mut peer| {
        peer.request().unwrap();
        peer.write("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n");
        ended.send(peer.request().is_none()).unwrap();
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.ask(&get("/"));
    // The server announced 1 s; nobody else closes.
    assert!(told.recv_timeout(crate::support::PATIENCE).unwrap());
    client.ask(&get("/"));
    wait_until("a new connection was made", || backend.connections() == 2);
}

#[test]
fn clients_that_leave_cost_the_hop_to_the_next_sidecar_no_connection_each() {
    let backend = Backend::start(http_server(|_, _| "ok".into()));
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::http(backend.address));
    for _ in 0..5 {
        let mut client = Peer::connect(address);
        client.write("GET / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n");
        assert!(client.rest().unwrap().ends_with("ok"));
    }
    assert_eq!(backend.connections(), 1, "the hop behind it closes the application's");
}
