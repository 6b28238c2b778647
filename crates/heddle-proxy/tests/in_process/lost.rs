//! Peers that go away in the middle of a request.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_proxy::limits::CONNECT_TIMEOUT;
use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, POST, answers, seconds_since, with_standing_clock};

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
fn an_endpoint_that_never_answers_costs_one_connect_timeout_and_the_call_succeeds_elsewhere() {
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
                    assert_eq!(waited, CONNECT_TIMEOUT.as_secs());
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
