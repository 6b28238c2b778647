//! What a connection speaks is told by bytes, from whichever side they come first.

use std::{
    net::SocketAddr,
    sync::{Mutex, mpsc},
};

use heddle_model::{
    EndpointState, Protocol,
    discovery::{HttpMatch, StringMatch},
};

use crate::support::{Backend, Peer, Sidecar, TestService, get, nobody};

fn undeclared(serve: impl Fn(Peer) + Send + Sync + 'static) -> (Sidecar, Backend, Peer) {
    let backend = Backend::start(serve);
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Undeclared, &[backend.address]);
    let address = sidecar.service(&service);
    (sidecar, backend, Peer::connect(address))
}

fn verdicts(sidecar: &Sidecar, verdict: &str, reason: &str) -> f64 {
    let labels = [format!("verdict=\"{verdict}\""), format!("reason=\"{reason}\"")];
    sidecar.sum("heddle_protocol_verdicts_total", &[&labels[0], &labels[1]])
}

#[test]
fn a_server_that_speaks_first_is_tcp() {
    let (sidecar, _backend, mut client) = undeclared(|mut peer| {
        peer.write("220 ready\r\n");
        let line = peer.until("\r\n").unwrap();
        peer.write(&format!("250 {line}"));
    });
    assert_eq!(client.until("\r\n").unwrap(), "220 ready\r\n");
    // Even what looks like HTTP: the server has spoken.
    client.write("GET / HTTP/1.1\r\n");
    assert_eq!(client.until("\r\n").unwrap(), "250 GET / HTTP/1.1\r\n");
    assert_eq!(verdicts(&sidecar, "tcp", "server-first"), 1.0);
}

#[test]
fn a_client_that_speaks_redis_is_tcp() {
    let (sidecar, _backend, mut client) = undeclared(|mut peer| {
        while peer.until("PING\r\n").is_some() {
            peer.write("+PONG\r\n");
        }
    });
    for _ in 0..3 {
        client.write("*1\r\n$4\r\nPING\r\n");
        assert_eq!(client.until("\r\n").unwrap(), "+PONG\r\n");
    }
    assert_eq!(verdicts(&sidecar, "tcp", "client-bytes"), 1.0);
}

#[test]
fn tls_is_relayed_as_it_is_on_declared_http_too() {
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    for protocol in [Protocol::Undeclared, Protocol::Http, Protocol::Http2, Protocol::Grpc] {
        let backend = Backend::start(move |mut peer| {
            if let Some(got) = peer.exactly(hello.len()) {
                peer.write_bytes(&got).unwrap();
            }
        });
        let sidecar = Sidecar::start();
        let service = TestService::speaking(protocol, &[backend.address]);
        let mut client = Peer::connect(sidecar.service(&service));
        client.write_bytes(&hello).unwrap();
        assert_eq!(client.exactly(hello.len()).unwrap(), hello);
        assert_eq!(verdicts(&sidecar, "tls", "client-bytes"), 1.0);
    }
}

#[test]
fn http2_is_spoken_with_whoever_begins_it_declared_or_not() {
    for (protocol, reason) in [
        (Protocol::Undeclared, "client-bytes"),
        (Protocol::Http, "client-bytes"),
        (Protocol::Http2, "declared"),
        (Protocol::Grpc, "declared"),
    ] {
        let backend = Backend::start(|mut peer| drop(peer.exactly(1)));
        let sidecar = Sidecar::start();
        let service = TestService::speaking(protocol, &[backend.address]);
        let mut client = Peer::connect(sidecar.service(&service));
        client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert_eq!(client.exactly(9).unwrap()[3], 4, "SETTINGS");
        assert_eq!(verdicts(&sidecar, "http2", reason), 1.0);
    }
}

#[test]
fn words_that_begin_no_request_are_passed_on_while_their_client_waits_for_an_answer() {
    for word in ["HZC", "PING", "A", "HELLO WORLD", "STATUS"] {
        let (sidecar, _backend, mut client) = undeclared(move |mut peer| {
            if peer.exactly(word.len()).is_some() {
                peer.write("answer");
            }
        });
        client.write(word);
        assert_eq!(client.exactly(6).unwrap(), b"answer", "{word}");
        assert_eq!(
            verdicts(&sidecar, "tcp", "client-bytes"),
            1.0,
            "no limit on time ended it: {word}"
        );
    }
}

/// What is no HTTP/1 that a rule could read.
const UNREADABLE: [&str; 8] = [
    "get /x\r\n",
    "GET /x HTTP/1.2\r\nHost: r\r\n\r\n",
    "GET  /x HTTP/1.1\r\nHost: r\r\n\r\n",
    "GET /x  HTTP/1.1\r\nHost: r\r\n\r\n",
    "GET /x\r\n",
    "*1\r\n$4\r\nPING\r\n",
    "\r\n\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "GET /x HTTP/1.1\nHost: r\n\n",
];

/// A service with a rule for `/only`, and what reached it.
fn ruled(protocol: Protocol) -> (Sidecar, Backend, SocketAddr) {
    let backend = Backend::start(|mut peer| {
        if peer.exactly(1).is_some() {
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached");
        }
    });
    let mut service = TestService::speaking(protocol, &[backend.address]);
    let mut only = service.rule(vec![service.target(None, 1)]);
    only.matches =
        vec![HttpMatch { uri: Some(StringMatch::Exact("/only".into())), ..HttpMatch::default() }];
    service.http = vec![only];
    let sidecar = Sidecar::start();
    let address = sidecar.service(&service);
    (sidecar, backend, address)
}

#[test]
fn nothing_that_a_rule_for_http_cannot_read_goes_past_it() {
    for protocol in [Protocol::Undeclared, Protocol::Http] {
        let (sidecar, _backend, address) = ruled(protocol);
        for text in UNREADABLE {
            let mut client = Peer::connect(address);
            client.write(text);
            let answer = client.rest().unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 "));
            assert!(answer.contains("bad-request") || answer.contains("bad-version"), "{answer}");
        }
        // What can be read is judged, however it is written.
        for text in ["\r\nGET /x HTTP/1.1\r\nHost: r\r\n\r\n", "get /x HTTP/1.1\r\nHost: r\r\n\r\n"]
        {
            let mut client = Peer::connect(address);
            client.write(text);
            let (head, _) = client.response().unwrap();
            assert!(head.contains("no-route;"), "{text:?}: {head}");
        }
        // Not all of it, and an end: neither a call nor anything to relay.
        let mut client = Peer::connect(address);
        client.write("get /x");
        client.finish();
        assert!(!client.rest().is_ok_and(|text| text.contains("reached")));
        let (head, body) = Peer::connect(address).ask(&get("/only"));
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "reached", "{head}");
        sidecar.settled();
        assert_eq!(sidecar.sum("istio_tcp_sent_bytes_total", &[]), 0.0, "nothing was relayed");
    }
}

#[test]
fn tls_is_refused_in_its_own_language_where_a_rule_for_http_holds() {
    for protocol in [Protocol::Undeclared, Protocol::Http] {
        let (sidecar, _backend, address) = ruled(protocol);
        let mut tls = Peer::connect(address);
        tls.write_bytes(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
        assert_eq!(tls.exactly(7).unwrap(), [0x15, 3, 1, 0, 2, 2, 49], "access_denied");
        assert_eq!(sidecar.sum("heddle_refusals_total", &["code=\"bad-request\""]), 1.0);
        assert_eq!(verdicts(&sidecar, "tls", "client-bytes"), 1.0);
        assert_eq!(sidecar.sum("istio_tcp_sent_bytes_total", &[]), 0.0);
    }
}

#[test]
fn a_server_that_speaks_first_is_refused_where_a_rule_for_http_holds_unless_one_for_tcp_does() {
    let backend = Backend::start(|mut peer| peer.write("220 ready\r\n"));
    let mut service = TestService::speaking(Protocol::Undeclared, &[backend.address]);
    service.http = vec![service.rule(vec![service.target(None, 1)])];
    let sidecar = Sidecar::start();
    let address = sidecar.service(&service);
    assert!(Peer::reach(address).and_then(|mut peer| peer.rest()).is_err(), "reset");
    assert_eq!(sidecar.sum("heddle_refusals_total", &["code=\"bad-request\""]), 1.0);
    service.tcp = vec![service.target(None, 1)];
    sidecar.told(|set| service.tell(set));
    assert_eq!(Peer::connect(address).rest().unwrap(), "220 ready\r\n");
}

#[test]
fn bytes_that_trickle_in_decide_only_when_they_can() {
    let (sidecar, _backend, mut client) =
        undeclared(crate::support::http_server(|_, _| "ok".into()));
    for byte in get("/").chars() {
        client.write(&byte.to_string());
    }
    assert_eq!(client.response().unwrap().1, "ok");
    assert_eq!(verdicts(&sidecar, "http", "client-bytes"), 1.0);
}

#[test]
fn a_beginning_of_http_that_a_server_interrupts_is_tcp() {
    let (sent, sees) = mpsc::channel::<()>();
    let sees = Mutex::new(sees);
    let (sidecar, _backend, mut client) = undeclared(move |mut peer| {
        sees.lock().unwrap().recv().unwrap();
        peer.write("hello ");
        let rest = peer.exactly(5).unwrap();
        peer.write_bytes(&rest).unwrap();
    });
    client.write("GET /");
    sent.send(()).unwrap();
    assert_eq!(client.exactly(11).unwrap(), b"hello GET /");
    assert_eq!(verdicts(&sidecar, "tcp", "server-first"), 1.0);
}

#[test]
fn a_port_that_has_answered_http_is_not_dialled_before_the_client_speaks() {
    let (sidecar, backend, mut client) = undeclared(|mut peer| {
        // Closes after each response, so that nothing is pooled.
        if peer.request().is_some() {
            peer.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    client.ask(&get("/"));
    let address = client.stream.peer_addr().unwrap();
    let before = backend.connections();
    let mut second = Peer::connect(address);
    second.ask(&get("/"));
    assert_eq!(backend.connections(), before + 1);
    // Silence makes it dial after all: this server might speak first to somebody else.
    let _silent = Peer::connect(address);
    crate::support::wait_until("silence made it dial", || backend.connections() == before + 2);
    assert_eq!(verdicts(&sidecar, "http", "client-bytes"), 2.0);
}

#[test]
fn what_one_address_outside_speaks_says_nothing_about_another_on_the_same_port() {
    let http = Backend::http(|_, _| "ok".into());
    let mail = Backend::at(SocketAddr::from(([127, 0, 0, 2], http.address.port())), |mut peer| {
        peer.write("220 ready\r\n");
        peer.until("\r\n");
    });
    let sidecar = Sidecar::start().without_control();
    assert_eq!(Peer::connect(sidecar.outbound(http.address)).ask(&get("/")).1, "ok");
    let mut client = Peer::connect(sidecar.outbound(mail.address));
    // Not silent and not decided: only a server that was dialled at once can end this.
    client.write("G");
    assert_eq!(client.until("\r\n").unwrap(), "220 ready\r\n");
    assert_eq!(verdicts(&sidecar, "tcp", "server-first"), 1.0);
}

#[test]
fn an_early_connection_that_fails_matters_only_to_tcp() {
    let mut service = TestService::speaking(Protocol::Undeclared, &[nobody()]);
    let sidecar = Sidecar::start();
    let address = sidecar.service(&service);
    let (head, _) = Peer::connect(address).ask(&get("/"));
    assert!(head.contains("connect-failed"), "{head}");
    let mut binary = Peer::connect(address);
    binary.write("\x01\x02\x03");
    assert!(binary.rest().is_err(), "reset");
    let mut silent = Peer::connect(address);
    assert!(silent.rest().is_err(), "reset");
    service.endpoints[0].2 = EndpointState::Pending;
    sidecar.told(|set| service.tell(set));
    assert!(Peer::reach(address).and_then(|mut peer| peer.rest()).is_err());
}

#[test]
fn a_declared_protocol_is_believed() {
    let backend = Backend::start(|mut peer| {
        let text = peer.until("\r\n\r\n").unwrap();
        peer.write(&text);
    });
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Tcp, &[backend.address]);
    let mut client = Peer::connect(sidecar.service(&service));
    client.write(&get("/"));
    assert_eq!(client.head().unwrap(), get("/"), "not even an id was added");
    assert_eq!(verdicts(&sidecar, "tcp", "declared"), 1.0);
}

#[test]
fn inbound_decides_by_the_same_rules() {
    let (held, release) = mpsc::channel::<()>();
    let release = Mutex::new(release);
    let backend = Backend::start(move |mut peer| {
        peer.write("+OK pop ready\r\n");
        release.lock().unwrap().recv().unwrap();
    });
    let sidecar = Sidecar::start().without_control();
    let port = backend.address.port();
    sidecar.own_port(port, Protocol::Undeclared, &["client"]);
    let address = sidecar.inbound(port);
    let mut client = Peer::connect(address);
    assert_eq!(client.until("\r\n").unwrap(), "+OK pop ready\r\n");
    held.send(()).unwrap();
    assert_eq!(verdicts(&sidecar, "tcp", "server-first"), 1.0);
}

#[test]
fn garbage_on_every_kind_of_port_harms_nobody() {
    let garbage: [&[u8]; 6] = [
        b"\0\0\0\0",
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\x16\x03\x01",
        &[b'A'; 70_000],
    ];
    for protocol in [Protocol::Undeclared, Protocol::Http, Protocol::Tcp, Protocol::Tls] {
        let backend = Backend::http(|_, _| "ok".into());
        let sidecar = Sidecar::start().without_control();
        let service = TestService::speaking(protocol, &[backend.address]);
        let outbound = sidecar.service(&service);
        let port = backend.address.port();
        sidecar.own_port(port, protocol, &["client"]);
        for address in [outbound, sidecar.inbound(port)] {
            for bytes in garbage {
                let mut client = Peer::connect(address);
                let _may_be_refused = client.write_bytes(bytes);
                let _gone = client.stream.shutdown(std::net::Shutdown::Write);
                let _whatever = client.rest();
            }
        }
        sidecar.settled();
        assert_eq!(heddle_runtime::task::panics(), 0);
    }
}
