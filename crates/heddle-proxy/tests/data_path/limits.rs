//! Attacks and accidents: each ends in a clear refusal, and nobody else notices.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use heddle_model::Protocol;
use heddle_proxy::{
    accept::{Listeners, run_worker},
    memory::Pressure,
};

use crate::support::{Backend, Peer, Sidecar, TestService, field, get, wait_until};

fn refused(request: &str) -> String {
    let backend = Backend::http(|_, _| "reached".into());
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.write(request);
    let answer = client.rest().expect("an answer and an orderly end");
    assert!(!answer.contains("reached"), "{answer}");
    sidecar.settled();
    let labels = ["response_flags=\"DPE\""];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0, "{request:.60}");
    assert_eq!(backend.connections(), 0);
    answer
}

#[test]
fn what_two_parsers_could_read_differently_is_refused_and_the_connection_closed() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        let answer = refused(&format!("{request}{}", get("/smuggled")));
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}: {answer}");
        let refusal = field(&answer, "x-heddle-refusal").unwrap();
        assert!(
            refusal.starts_with("bad-request; hop=outbound@client-1; rule=-; id="),
            "{refusal}"
        );
        let answers = answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
        assert_eq!(answers, 1, "{answer}");
    }
}

#[test]
fn a_head_beyond_its_limits_is_431_and_says_which() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1024 * 1024));
    let answer = refused(&long);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains("65536 bytes"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(201));
    let answer = refused(&many);
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("200 fields"), "{answer}");
}

#[test]
fn a_head_just_within_its_limits_passes() {
    let backend = Backend::http(|head, _| head.len().to_string());
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    let value = "x".repeat(64_000);
    let (head, length) = client.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(length.parse::<usize>().unwrap() > 64_000);
    assert!(client.ask(&get("/")).0.starts_with("HTTP/1.1 200 "), "and the next one too");
}

#[test]
fn an_answer_that_could_be_read_in_two_ways_is_502_and_its_connection_discarded() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
    ] {
        let backend = Backend::start(move |mut peer| {
            peer.request();
            peer.write(answer);
        });
        let sidecar = Sidecar::start();
        let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
        let (head, _) = client.ask(&get("/"));
        assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}: {head}");
        assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("bad-response;"), "{head}");
        client.ask(&get("/"));
        assert_eq!(backend.connections(), 2);
        sidecar.settled();
        assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"UPE\""]), 2.0);
    }
}

#[test]
fn an_answer_whose_head_is_beyond_the_limits_is_502_and_one_just_within_passes() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let long = |bytes: usize| head(&format!("X: {}\r\n", "x".repeat(bytes)));
    let many = |fields: usize| head(&"X: 1\r\n".repeat(fields));
    for (answer, beyond) in [
        (long(64_000), None),
        (long(1024 * 1024), Some("65536 bytes")),
        (many(199), None),
        (many(200), Some("200 fields")),
    ] {
        let backend = Backend::start(move |mut peer| {
            while peer.request().is_some() {
                peer.write(&answer);
            }
        });
        let sidecar = Sidecar::start();
        let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
        for number in 1..=2 {
            let (head, body) = client.ask(&get("/"));
            let Some(limit) = beyond else {
                assert!(head.starts_with("HTTP/1.1 200 ") && body == "ok", "{head}");
                continue;
            };
            assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
            assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("bad-response;"));
            assert!(body.contains(limit), "{body}");
            assert_eq!(backend.connections(), number, "its connection is not used again");
        }
    }
}

#[test]
fn bytes_behind_a_response_make_its_connection_unfit() {
    let backend = Backend::start(|mut peer| {
        while peer.request().is_some() {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n");
        }
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    assert_eq!(client.ask(&get("/")).1, "ok");
    assert_eq!(client.ask(&get("/")).1, "ok");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_malformed_chunk_within_a_response_cuts_the_clients_connection() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
        peer.write("zz\r\n");
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.write(&get("/"));
    let end = client.rest();
    assert!(end.is_err() || !end.unwrap().ends_with("0\r\n\r\n"));
}

#[test]
fn a_client_that_vanishes_in_its_head_is_no_request() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::http(backend.address));
    let mut client = Peer::connect(address);
    client.write("GET / HTTP/1.1\r\nHos");
    client.reset();
    assert_eq!(Peer::connect(address).ask(&get("/")).1, "ok");
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &[]), 1.0);
}

#[test]
fn a_server_that_vanishes_in_its_answer_is_a_cut_and_others_go_on() {
    let backend = Backend::start(|mut peer| {
        let Some((head, _)) = peer.request() else { return };
        if head.contains("/cut") {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
            peer.reset();
        } else {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::http(backend.address));
    let mut cut = Peer::connect(address);
    cut.write(&get("/cut"));
    let end = cut.rest();
    assert!(end.is_err() || !end.unwrap().ends_with(&"x".repeat(100)));
    assert_eq!(Peer::connect(address).ask(&get("/")).1, "ok");
}

#[test]
fn the_same_holds_inbound() {
    let backend = Backend::http(|_, _| "reached".into());
    let sidecar = Sidecar::start().without_control();
    let port = backend.address.port();
    sidecar.own_port(port, Protocol::Http, &["client"]);
    let address = sidecar.inbound(port);
    let mut client = Peer::connect(address);
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
    let answer = client.rest().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("hop=inbound@client-1"),
        "{answer}"
    );
    assert_eq!(Peer::connect(address).ask(&get("/")).1, "reached");
}

#[test]
fn a_head_that_does_not_end_is_408_or_relayed_where_nothing_is_declared() {
    let beginning = "GET / HT";
    let backend = Backend::start(move |mut peer| {
        if let Some(text) = peer.until(beginning) {
            peer.write(&text);
        }
    });
    let sidecar = Sidecar::start();
    let declared = TestService::http(backend.address);
    let open = TestService {
        name: "open",
        number: 1,
        ..TestService::speaking(Protocol::Undeclared, &[backend.address])
    };
    let mut slow = Peer::connect(sidecar.service(&declared));
    let mut opaque = Peer::connect(sidecar.service(&open));
    slow.write("GET / HTTP/1.1\r\nHost: r\r\nX: ");
    opaque.write(beginning);
    let (head, _) = slow.response().expect("an answer after the limit");
    assert!(head.starts_with("HTTP/1.1 408 ") && head.contains("head-timeout"), "{head}");
    assert_eq!(opaque.rest().unwrap(), beginning, "as it would have been without a mesh");
    let verdict = ["verdict=\"undecided\"", "reason=\"head-limit\""];
    assert_eq!(sidecar.sum("heddle_protocol_verdicts_total", &verdict), 1.0);
}

#[test]
fn near_the_memory_limit_requests_are_refused_and_their_connections_stay_open() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    assert_eq!(client.ask(&get("/")).1, "ok");
    sidecar.shared.memory.set(Pressure::RefuseRequests);
    let (head, _) = client.ask(&get("/"));
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("memory-limit;"), "{head}");
    sidecar.shared.memory.set(Pressure::None);
    assert_eq!(client.ask(&get("/")).1, "ok");
    sidecar.settled();
    let refused = ["response_code=\"503\"", "response_flags=\"OM\""];
    assert_eq!(sidecar.sum("istio_requests_total", &refused), 1.0);
}

#[test]
fn short_of_memory_idle_connections_are_given_up_and_requests_go_on() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    sidecar.shared.memory.set(Pressure::Shrink);
    wait_until("a connection was given up and another one opened", || {
        assert_eq!(client.ask(&get("/")).1, "ok");
        backend.connections() > 1
    });
}

#[test]
fn a_connection_to_the_sidecars_own_listener_is_closed_and_counted() {
    let sidecar = Sidecar::start();
    let listener = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let (outbound, inbound) = (listener(), listener());
    let addresses = [outbound.local_addr().unwrap(), inbound.local_addr().unwrap()];
    let shared = Arc::clone(&sidecar.shared);
    thread::spawn(move || {
        let listeners =
            Listeners { outbound: vec![outbound], inbound: vec![inbound], published: Vec::new() };
        run_worker(shared, 0, listeners).unwrap();
    });
    for address in addresses {
        // The reset may come before the connection was used, or even seen.
        let _reset = TcpStream::connect(address).map(|mut stream| stream.read(&mut [0]));
    }
    let own = ["code=\"own-listener\""];
    wait_until("both are counted", || sidecar.sum("heddle_refusals_total", &own) == 2.0);
}

#[test]
fn ports_of_the_sidecar_itself_are_called_by_nobody_but_for_metrics_and_health() {
    let sidecar = Sidecar::start();
    let own = ["code=\"own-listener\""];
    let private = [15000, 15001, 15006, 15053, 15089];
    for port in private {
        // Even where somebody declares it.
        sidecar.own_port(port, Protocol::Tcp, &["client"]);
        // The reset may come before the connect has returned.
        let refused = Peer::reach(sidecar.inbound(port)).and_then(|mut peer| peer.rest());
        assert!(refused.is_err(), "{port}");
    }
    assert_eq!(sidecar.sum("heddle_refusals_total", &own), private.len() as f64);
    for port in [15020, 15021, 15090] {
        drop(Peer::reach(sidecar.inbound(port)).and_then(|mut peer| peer.rest()));
    }
    assert_eq!(sidecar.sum("heddle_refusals_total", &own), private.len() as f64);
}
