//! Peers that go away in the middle of a request.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_proxy::limits::{CONNECT_ELSEWHERE, CONNECT_TIMEOUT};
use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, POST, answers, seconds_since, with_standing_clock};

#[test]
fn a_client_that_resets_ends_the_work_of_the_server_at_once() {
    with_standing_clock(|| async {
        let ended = Rc::new(Cell::new(None));
        let told = Rc::clone(&ended);
        let mesh = Mesh::new(move |mut end: End| {
            let told = Rc::clone(&told);
            async move {
                end.message().await.expect("a request");
                told.set(Some(end.ended().await.0.as_secs()));
            }
        });
        let mut end = mesh.call();
        end.send(GET).await;
        clock::sleep(Duration::from_secs(7)).await;
        assert_eq!(ended.get(), None, "the server is at work");
        end.transport.reset();
        clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(ended.get(), Some(7));
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&["response_code=\"0\"", "response_flags=\"DC\""]), 1.0);
            assert_eq!(sidecar.requests(&["response_flags=\"UC\""]), 0.0);
            assert_eq!(sidecar.shared.metrics.requests_in_flight(), 0);
        }
    });
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            clock::sleep(Duration::from_secs(30)).await;
            end.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
        });
        let mut end = mesh.call();
        end.send(GET).await;
        end.transport.shutdown_write();
        let (_, body) = end.message().await.expect("the answer");
        assert_eq!(body, "late");
    });
}

#[test]
fn a_client_that_left_by_an_orderly_end_is_no_failure_of_the_servers_and_nothing_is_sent_again() {
    for request in [GET, POST] {
        with_standing_clock(|| async {
            let seen = Rc::new(Cell::new(0));
            let count = Rc::clone(&seen);
            let mesh = Mesh::new(move |mut end: End| {
                let count = Rc::clone(&count);
                async move {
                    end.message().await.expect("a request");
                    end.send(OK).await;
                    while end.message().await.is_some() {
                        count.set(count.get() + 1);
                    }
                }
            });
            let mut end = mesh.call();
            end.ask(request).await;
            // On the connection that was used before.
            end.send(request).await;
            clock::sleep(Duration::from_millis(10)).await;
            drop(end);
            clock::sleep(Duration::from_secs(1)).await;
            assert_eq!(seen.get(), 1, "sent once");
            for sidecar in [&mesh.client, &mesh.servers[0]] {
                assert_eq!(sidecar.requests(&["response_flags=\"DC\""]), 1.0);
                assert_eq!(sidecar.requests(&["response_flags=\"UC\""]), 0.0);
                assert_eq!(sidecar.sum("heddle_retries_total", &[]), 0.0);
            }
        });
    }
}

#[test]
fn a_client_that_ends_within_its_body_is_no_failure_of_the_servers() {
    let sent = [
        "POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 9\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: reviews\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ];
    for sent in sent {
        with_standing_clock(|| async {
            let mesh = Mesh::new(|mut end: End| async move {
                end.head().await.expect("a head");
                let _client_closed = end.ended().await;
            });
            let mut end = mesh.call();
            end.send(sent).await;
            drop(end);
            clock::sleep(Duration::from_secs(1)).await;
            for sidecar in [&mesh.client, &mesh.servers[0]] {
                assert_eq!(sidecar.requests(&["response_flags=\"DC\""]), 1.0);
                assert_eq!(sidecar.requests(&["response_flags=\"UC\""]), 0.0);
            }
        });
    }
}

#[test]
fn a_client_whose_body_is_malformed_is_the_one_that_failed_on_both_sides() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.head().await.expect("a head");
            let _ended = end.ended().await;
        });
        let mut end = mesh.call();
        end.send(
            "POST / HTTP/1.1\r\nHost: reviews\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        )
        .await;
        clock::sleep(Duration::from_millis(10)).await;
        end.send("zz\r\n").await;
        let (head, _) = end.message().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        drop(end);
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(mesh.client.requests(&["response_code=\"400\"", "response_flags=\"DPE\""]), 1.0);
        assert_eq!(mesh.servers[0].requests(&["response_flags=\"DC\""]), 1.0);
        assert_eq!(mesh.servers[0].requests(&["response_flags=\"UC\""]), 0.0);
    });
}

#[test]
fn a_client_that_dies_while_nobody_takes_its_upload_is_noticed() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.head().await.expect("a head");
            std::future::pending::<()>().await;
        });
        let mut end = mesh.call();
        end.send("POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 9000000\r\n\r\n").await;
        let piece = "x".repeat(64 * 1024);
        while clock::within(Duration::from_secs(1), end.send(&piece)).await.is_some() {}
        assert_eq!(mesh.client.shared.metrics.requests_in_flight(), 1);
        end.transport.reset();
        clock::sleep(Duration::from_secs(1)).await;
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.shared.metrics.requests_in_flight(), 0);
            assert_eq!(sidecar.requests(&["response_flags=\"DC\""]), 1.0);
        }
    });
}

#[test]
fn a_server_that_dies_within_its_answer_cuts_it_and_nothing_completes_it() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
            clock::sleep(Duration::from_secs(3)).await;
            end.transport.reset();
        });
        let mut end = mesh.call();
        end.send(GET).await;
        let head = end.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let begun = clock::now();
        assert!(end.message().await.is_none(), "the body never ends");
        assert_eq!(seconds_since(begun), 3, "and the client learns it when it happens");
        assert_eq!(mesh.client.requests(&["response_flags=\"UC\""]), 1.0);
    });
}

#[test]
fn a_server_that_dies_before_it_answers_is_named_to_the_client() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.transport.reset();
        });
        let (head, _) = mesh.call().ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("upstream-reset; hop=inbound@reviews-20"), "{head}");
    });
}

#[test]
fn an_endpoint_that_never_answers_costs_a_second_and_the_call_succeeds_elsewhere() {
    with_standing_clock(|| async {
        let mesh = Mesh::with_servers(&[20, 21], answers);
        mesh.silence(21);
        let mut waits = 0;
        for _ in 0..8 {
            let begun = clock::now();
            let (head, _) = mesh.call().ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            match seconds_since(begun) {
                0 => {}
                waited => {
                    assert_eq!(waited, CONNECT_ELSEWHERE.as_secs());
                    waits += 1;
                }
            }
        }
        assert!(waits > 0, "it was never picked");
        let retried = ["reason=\"connect-failure\""];
        assert_eq!(mesh.client.sum("heddle_retries_total", &retried), f64::from(waits));
    });
}

#[test]
fn a_service_whose_only_endpoint_is_silent_is_refused_by_name() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        mesh.silence(20);
        let begun = clock::now();
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("connect-failed; hop=outbound@client-1"), "{head}");
        assert!(body.contains("240.241.0.20"), "{body}");
        assert_eq!(
            seconds_since(begun),
            3 * CONNECT_TIMEOUT.as_secs(),
            "the first attempt and two more"
        );
    });
}

#[test]
fn an_application_that_is_gone_behind_its_sidecar_costs_nothing_where_another_answers() {
    with_standing_clock(|| async {
        let mesh = Mesh::with_servers(&[20, 21], answers);
        mesh.stop_application(21);
        for _ in 0..20 {
            for request in [GET, POST] {
                let (head, _) = mesh.call().ask(request).await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            }
        }
        assert!(mesh.client.sum("heddle_retries_total", &["reason=\"connect-failure\""]) > 0.0);
        mesh.stop_application(20);
        let (head, _) = mesh.call().ask(POST).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("application-unreachable; hop=inbound@reviews-2"), "{head}");
    });
}
