//! HTTP/1 message by message: what goes through must come out as it was meant.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
};

use heddle_model::Protocol;

use crate::support::{Backend, PATIENCE, Peer, Sidecar, TestService, field, get, wait_until};

/// A sidecar before one backend; a client connected through it.
fn through(serve: impl Fn(Peer) + Send + Sync + 'static) -> (Sidecar, Backend, Peer) {
    let backend = Backend::start(serve);
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::http(backend.address));
    let client = Peer::connect(address);
    (sidecar, backend, client)
}

#[test]
fn heads_go_through_untouched_but_for_what_belongs_to_one_hop() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        let (head, _) = peer.request().unwrap();
        peer.write(&format!(
            "HTTP/1.1 200 Fine\r\nX-ODD-Case:  two blanks\r\nKeep-Alive: timeout=5\r\n\
             Connection: keep-alive, x-private\r\nX-Private: 1\r\nContent-Length: {}\r\n\r\n{head}",
            head.len()
        ));
    });
    let (head, seen) = client.ask(
        "GET /a?b=%20 HTTP/1.1\r\nhOsT: whatever.example\r\nx-B: 2\r\nX-a: 1\r\n\
         Connection: x-drop\r\nX-Drop: 1\r\nTE: trailers, gzip\r\nProxy-Connection: keep-alive\r\n\
         X-Request-Id: mine\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 200 Fine\r\nX-ODD-Case:  two blanks\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("x-private"), "{head}");
    assert!(!head.to_lowercase().contains("keep-alive"), "{head}");
    assert!(
        seen.starts_with("GET /a?b=%20 HTTP/1.1\r\nhOsT: whatever.example\r\nx-B: 2\r\nX-a: 1\r\n"),
        "{seen}"
    );
    assert!(!seen.to_lowercase().contains("x-drop"), "{seen}");
    assert!(!seen.to_lowercase().contains("proxy-connection"), "{seen}");
    assert_eq!(field(&seen, "x-request-id"), Some("mine"));
}

#[test]
fn a_request_without_an_id_gets_one() {
    let (_sidecar, _backend, mut client) = through(crate::support::http_server(|head, _| {
        field(head, "x-request-id").unwrap_or_default().to_owned()
    }));
    let (_, first) = client.ask(&get("/"));
    let (_, second) = client.ask(&get("/"));
    assert_eq!(first.len(), 36, "{first}");
    assert_ne!(first, second);
}

#[test]
fn requests_on_one_connection_share_one_upstream_connection() {
    let (_sidecar, backend, mut client) =
        through(crate::support::http_server(|_, _| "hello".into()));
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/")).1, "hello");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn the_servers_close_does_not_close_the_clients_connection_nor_the_other_way() {
    let (_sidecar, backend, mut client) = through(|mut peer| {
        while let Some((head, _)) = peer.request() {
            let close = if head.contains("/close") { "Connection: close\r\n" } else { "" };
            peer.write(&format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\n\r\nok"));
            if !close.is_empty() {
                return;
            }
        }
    });
    let (head, _) = client.ask(&get("/close"));
    assert!(!head.to_lowercase().contains("close"), "{head}");
    client.ask(&get("/"));
    assert_eq!(backend.connections(), 2, "the closed one is not used again");
    client.write("GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n");
    let answer = client.rest().unwrap();
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(backend.connections(), 2, "the client's close is not the server's");
}

#[test]
fn any_number_of_interim_responses_is_passed_on_and_expect_is_the_servers_to_answer() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        let head = peer.head().unwrap();
        assert_eq!(field(&head, "expect"), Some("100-continue"));
        peer.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        peer.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        let body = peer.exactly(5).unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        peer.write_bytes(&body).unwrap();
    });
    client.write("POST / HTTP/1.1\r\nHost: r\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 100 "));
    client.write("12345");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 102 "));
    assert_eq!(client.response().unwrap().1, "12345");
}

#[test]
fn a_thousand_interim_responses_are_passed_on_and_the_answer_behind_them() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        peer.request();
        peer.write(&"HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000));
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    client.write(&get("/"));
    for _ in 0..1_000 {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 102 "));
    }
    assert_eq!(client.response().unwrap().1, "ok");
}

#[test]
fn interim_responses_without_end_take_nothing_from_others_and_end_with_their_client() {
    // A client of HTTP/1.0 gets none of them, so no write to it says that it is gone.
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let (ended, told) = mpsc::channel();
        let (sidecar, _backend, mut client) = through(move |mut peer| {
            loop {
                let Some((head, _)) = peer.request() else { return };
                if !head.starts_with("GET /other ") {
                    break;
                }
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000);
            while peer.write_bytes(many.as_bytes()).is_ok() {}
            ended.send(()).unwrap();
        });
        let mut other = Peer::connect(client.stream.peer_addr().unwrap());
        client.write(&format!("GET / {version}\r\nHost: r\r\n\r\n"));
        for _ in 0..10 {
            assert_eq!(other.ask(&get("/other")).1, "ok", "{version}");
        }
        client.reset();
        told.recv_timeout(PATIENCE).expect("the server is told by the end of its connection");
        sidecar.settled();
        assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"DC\""]), 1.0);
    }
}

#[test]
fn head_204_and_304_have_no_body_whatever_their_length_says() {
    let (_sidecar, backend, mut client) = through(|mut peer| {
        while let Some((head, _)) = peer.request() {
            let status = match head.split(' ').nth(1).unwrap() {
                "/204" => "204 No Content",
                "/304" => "304 Not Modified",
                _ => "200 OK",
            };
            let body = if head.starts_with("GET /200") { "ok" } else { "" };
            peer.write(&format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{body}"));
        }
    });
    for request in [
        "HEAD / HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(),
        get("/204"),
        get("/304"),
        "HEAD / HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(),
    ] {
        client.write(&request);
        assert!(client.head().is_some(), "{request}");
    }
    assert_eq!(client.ask(&get("/200")).1, "ok", "nothing was left over");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_response_delimited_by_close_ends_with_a_close() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        peer.request().unwrap();
        peer.write("HTTP/1.1 200 OK\r\n\r\nuntil ");
        peer.write("the end");
    });
    client.write(&get("/"));
    let answer = client.rest().unwrap();
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nuntil the end"), "{answer}");
}

#[test]
fn a_response_delimited_by_close_and_ended_by_a_reset_is_seen_as_cut() {
    let (read, was_read) = mpsc::channel::<()>();
    let was_read = Mutex::new(was_read);
    let (_sidecar, _backend, mut client) = through(move |mut peer| {
        peer.request().unwrap();
        peer.write("HTTP/1.1 200 OK\r\n\r\nhalf");
        // Once the client has read it, the reset cannot overtake it.
        was_read.lock().unwrap().recv().unwrap();
        peer.reset();
    });
    client.write(&get("/"));
    assert!(client.until("half").is_some());
    read.send(()).unwrap();
    let error = client.rest().expect_err("an end would say that this was all");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn http_1_0_clients_are_served_with_and_without_keep_alive() {
    let (_sidecar, backend, mut client) = through(|mut peer| {
        while let Some((head, _)) = peer.request() {
            assert!(head.contains(" HTTP/1.1\r\n") && field(&head, "host").is_some(), "{head}");
            if head.contains("/chunked") {
                peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                peer.write("3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n");
            } else {
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let (head, _) = client.ask(keep);
    assert!(head.to_lowercase().contains("connection: keep-alive"), "{head}");
    assert_eq!(client.ask(keep).1, "ok");
    client.write("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.rest().unwrap();
    assert!(answer.ends_with("\r\n\r\nabcde"), "no chunks for HTTP/1.0: {answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn an_http_1_0_client_without_keep_alive_sees_the_end() {
    let (_sidecar, _backend, mut client) = through(crate::support::http_server(|_, _| "ok".into()));
    client.write("GET / HTTP/1.0\r\n\r\n");
    assert!(client.rest().unwrap().ends_with("\r\n\r\nok"));
}

#[test]
fn an_http_1_0_server_is_understood() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        peer.request().unwrap();
        peer.write("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    assert_eq!(client.ask(&get("/")).1, "ok");
    assert_eq!(client.ask(&get("/")).1, "ok", "its close is not the client's");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_sidecar, _backend, mut client) = through(crate::support::http_server(|head, body| {
        format!("{} {}", head.split(' ').nth(1).unwrap(), String::from_utf8_lossy(body))
    }));
    let post = |n| format!("POST /{n} HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nb{n}");
    let all: String =
        (0..5).map(|n| if n % 2 == 0 { get(&format!("/{n}")) } else { post(n) }).collect();
    client.write(&format!("\r\n{all}"));
    for n in 0..5 {
        let expected = if n % 2 == 0 { format!("/{n} ") } else { format!("/{n} b{n}") };
        assert_eq!(client.response().unwrap().1, expected);
    }
}

#[test]
fn chunk_extensions_are_dropped_and_trailers_forwarded_both_ways() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        let (_, body) = peer.request().unwrap();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.write_bytes(&body).unwrap();
    });
    client.write("POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write("3;name=\"v\"\r\nabc\r\n");
    client.write("1\r\nd\r\n0\r\nX-Sum: 7\r\n\r\n");
    let (_, body) = client.response().unwrap();
    assert_eq!(body, "3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 7\r\n\r\n");
}

#[test]
fn a_client_that_half_closes_after_its_request_still_gets_its_answer() {
    let (sent, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let (_sidecar, _backend, mut client) = through(move |mut peer| {
        peer.request().unwrap();
        // The client's end is passed on, as it would have come without a mesh.
        assert!(peer.head().is_none());
        goes_on.lock().unwrap().recv().unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    client.write(&get("/"));
    client.finish();
    sent.send(()).unwrap();
    assert_eq!(client.response().unwrap().1, "late");
    assert_eq!(client.rest().unwrap(), "");
}

#[test]
fn a_final_response_before_the_request_has_ended_is_delivered_at_once() {
    let (_sidecar, backend, mut client) = through(|mut peer| {
        while let Some(head) = peer.head() {
            if head.starts_with("POST") {
                peer.exactly(3).unwrap();
                peer.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
            } else {
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    client.write("POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 1000000\r\n\r\nabc");
    let (head, body) = client.response().unwrap();
    assert!(head.starts_with("HTTP/1.1 413 ") && body == "big", "{head}");
    // The server goes on reading, and so the client may go on sending.
    assert!(!head.to_lowercase().contains("connection: close"), "{head}");
    let mut other = Peer::connect(client.stream.peer_addr().unwrap());
    other.ask(&get("/"));
    assert_eq!(backend.connections(), 2, "the upstream connection is still in use");
}

#[test]
fn after_101_both_sides_are_relayed_and_nothing_goes_before_it() {
    let (held, check) = mpsc::channel();
    let held = Mutex::new(held);
    let (sidecar, _backend, mut client) = through(move |mut peer| {
        let (head, _) = peer.request().unwrap();
        assert_eq!(field(&head, "upgrade"), Some("chat"));
        assert!(field(&head, "connection").unwrap().eq_ignore_ascii_case("upgrade"), "{head}");
        peer.stream.set_nonblocking(true).unwrap();
        let early = peer.exactly(1);
        peer.stream.set_nonblocking(false).unwrap();
        held.lock().unwrap().send(early.is_none()).unwrap();
        peer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nhi ",
        );
        let echo = peer.exactly(8).unwrap();
        peer.write_bytes(&echo).unwrap();
        assert!(peer.exactly(1).is_none(), "the client's end came through");
        peer.write("bye");
    });
    client.write("GET / HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nearly");
    assert!(check.recv().unwrap(), "bytes behind the request were held");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && field(&head, "upgrade") == Some("chat"), "{head}");
    client.write("+++");
    assert_eq!(client.exactly(11).unwrap(), b"hi early+++");
    client.finish();
    assert_eq!(client.rest().unwrap(), "bye");
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_code=\"101\""]), 1.0);
}

#[test]
fn a_refused_upgrade_leaves_http() {
    let (_sidecar, _backend, mut client) =
        through(crate::support::http_server(|head, _| head.split(' ').nth(1).unwrap().into()));
    client.write(&format!(
        "GET /one HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n{}",
        get("/two")
    ));
    assert_eq!(client.response().unwrap().1, "/one");
    assert_eq!(client.response().unwrap().1, "/two");
}

#[test]
fn connect_becomes_a_tunnel_only_when_it_is_accepted() {
    let (_sidecar, _backend, mut client) = through(|mut peer| {
        let (head, _) = peer.request().unwrap();
        assert!(head.starts_with("CONNECT db:5432 HTTP/1.1\r\n"), "{head}");
        peer.write("HTTP/1.1 200 Established\r\n\r\n");
        let ping = peer.exactly(4).unwrap();
        peer.write_bytes(&ping).unwrap();
    });
    client.write("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nping");
    client.head().unwrap();
    assert_eq!(client.rest().unwrap(), "ping");
}

#[test]
fn a_truncated_response_is_passed_on_as_truncated() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let body = if head.contains("chunked") { "5\r\nhello\r\n" } else { "hello" };
        let (sidecar, _backend, mut client) = through(move |mut peer| {
            peer.request().unwrap();
            peer.write(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
        });
        client.write(&get("/"));
        let answer = client.rest().unwrap();
        assert!(answer.ends_with(body), "{answer}");
        sidecar.settled();
        let flags = ["response_code=\"200\"", "response_flags=\"UC\""];
        assert_eq!(sidecar.sum("istio_requests_total", &flags), 1.0);
    }
}

#[test]
fn a_truncated_chunked_response_is_no_whole_one_for_an_http_1_0_client() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.write("GET / HTTP/1.0\r\nHost: reviews\r\n\r\n");
    client.until("hello");
    assert!(client.rest().is_err(), "an orderly end would say that the body is complete");
}

#[test]
fn a_client_that_resets_with_a_pipelined_request_frees_the_server() {
    let (told, gone) = mpsc::channel();
    let (asked, waits) = mpsc::channel();
    let backend = Backend::start(move |mut peer| {
        peer.request();
        asked.send(()).unwrap();
        // Ends only when the sidecar gives up.
        while peer.exactly(1).is_some() {}
        told.send(()).unwrap();
    });
    let sidecar = Sidecar::start();
    let mut client = Peer::connect(sidecar.service(&TestService::http(backend.address)));
    client.write(&format!("{}{}", get("/"), get("/next")));
    waits.recv_timeout(PATIENCE).unwrap();
    client.reset();
    gone.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_truncated_request_is_passed_on_as_truncated() {
    let (seen, result) = mpsc::channel();
    let seen = Mutex::new(seen);
    let (_sidecar, _backend, mut client) = through(move |mut peer| {
        peer.head().unwrap();
        seen.lock().unwrap().send(peer.rest().unwrap()).unwrap();
        peer.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    client.write("POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\nhello");
    client.finish();
    assert_eq!(result.recv().unwrap(), "hello", "neither more nor completed");
    assert!(client.rest().unwrap().starts_with("HTTP/1.1 400 "));
}

#[test]
fn large_bodies_go_through_whole_both_ways() {
    const SIZE: usize = 3 * 1024 * 1024 + 17;
    let pattern: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let expected = Arc::new(pattern);
    for chunked in [false, true] {
        let copy = Arc::clone(&expected);
        let (sidecar, _backend, mut client) = through(move |mut peer| {
            let head = peer.head().unwrap();
            let body =
                peer.exactly(if head.contains("chunked") { SIZE + 15 } else { SIZE }).unwrap();
            assert!(find(&body, &copy), "the request's body is whole");
            let framing = field(&head, "transfer-encoding").map_or_else(
                || format!("Content-Length: {SIZE}"),
                |_| "Transfer-Encoding: chunked".into(),
            );
            peer.write(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
            peer.write_bytes(&body).unwrap();
        });
        let mut writer = client.stream.try_clone().unwrap();
        let body = Arc::clone(&expected);
        let sender = std::thread::spawn(move || -> io::Result<()> {
            use std::io::Write;
            if chunked {
                writer.write_all(
                    b"POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n",
                )?;
                writer.write_all(format!("{SIZE:x}\r\n").as_bytes())?;
                writer.write_all(&body)?;
                writer.write_all(b"\r\n0\r\n\r\n")
            } else {
                writer.write_all(
                    format!("POST / HTTP/1.1\r\nHost: r\r\nContent-Length: {SIZE}\r\n\r\n")
                        .as_bytes(),
                )?;
                writer.write_all(&body)
            }
        });
        client.head().unwrap();
        let got = client.exactly(if chunked { SIZE + 15 } else { SIZE }).unwrap();
        assert!(find(&got, &expected), "the response's body is whole");
        sender.join().unwrap().unwrap();
        drop(client);
        sidecar.settled();
        assert!(sidecar.sum("istio_request_bytes_sum", &[]) > SIZE as f64);
        assert!(sidecar.sum("istio_response_bytes_sum", &[]) > SIZE as f64);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    (0..=bytes.len() - wanted.len()).take(64).any(|at| &bytes[at..at + wanted.len()] == wanted)
}

#[test]
fn a_stream_of_small_chunks_is_delivered_as_it_comes() {
    let (step, steps) = mpsc::channel::<()>();
    let steps = Mutex::new(steps);
    let (_sidecar, _backend, mut client) = through(move |mut peer| {
        peer.request().unwrap();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for n in 0..5 {
            steps.lock().unwrap().recv().unwrap();
            peer.write(&format!("2\r\ne{n}\r\n"));
        }
        peer.write("0\r\n\r\n");
    });
    client.write(&get("/events"));
    client.head().unwrap();
    for n in 0..5 {
        step.send(()).unwrap();
        assert_eq!(client.until("\r\n").unwrap(), "2\r\n");
        assert_eq!(client.until("\r\n").unwrap(), format!("e{n}\r\n"));
    }
}

#[test]
fn a_client_that_resets_frees_the_server() {
    let (gone, told) = mpsc::channel();
    let gone = Mutex::new(gone);
    let (sidecar, _backend, mut client) = through(move |mut peer| {
        peer.request().unwrap();
        gone.lock().unwrap().send(peer.rest().is_ok()).unwrap();
    });
    client.write(&get("/never"));
    wait_until("the request is in flight", || sidecar.shared.metrics.requests_in_flight() == 1);
    client.reset();
    told.recv_timeout(PATIENCE).unwrap();
    sidecar.settled();
    let labels = ["response_code=\"0\"", "response_flags=\"DC\""];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 1.0);
}

#[test]
fn an_absolute_target_and_any_host_reach_the_address_that_was_dialled() {
    let (_sidecar, _backend, mut client) =
        through(crate::support::http_server(|head, _| head.lines().next().unwrap().into()));
    let (_, line) =
        client.ask("GET http://elsewhere.example/x HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
    assert_eq!(line, "GET http://elsewhere.example/x HTTP/1.1");
    assert_eq!(client.ask("GET /y HTTP/1.1\r\nHost:\r\n\r\n").1, "GET /y HTTP/1.1");
}

#[test]
fn an_undeclared_port_serves_http_just_as_well() {
    let backend = Backend::http(|_, _| "found".into());
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Undeclared, &[backend.address]);
    let address = sidecar.service(&service);
    for _ in 0..3 {
        assert_eq!(Peer::connect(address).ask(&get("/")).1, "found");
    }
    let verdict = ["verdict=\"http\"", "reason=\"client-bytes\""];
    assert_eq!(sidecar.sum("heddle_protocol_verdicts_total", &verdict), 3.0);
    assert!(backend.connections() <= 2, "the early connection served the first request");
}
