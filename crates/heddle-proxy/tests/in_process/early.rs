//! Answers before the end of the request, and what becomes of the connections then.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, with_standing_clock};

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n";
const UPLOAD: usize = 8 * 1024 * 1024;

/// The head of an upload of [`UPLOAD`] bytes.
fn upload() -> String {
    format!("POST /upload HTTP/1.1\r\nHost: reviews\r\nContent-Length: {UPLOAD}\r\n\r\n")
}

async fn send_body(end: &mut End) {
    let piece = "x".repeat(64 * 1024);
    for _ in 0..UPLOAD / piece.len() {
        end.send(&piece).await;
    }
}

#[test]
fn a_server_that_answers_first_and_reads_then_gets_all_of_the_upload() {
    with_standing_clock(|| async {
        let arrived = Rc::new(Cell::new(0));
        let count = Rc::clone(&arrived);
        let mesh = Mesh::new(move |mut end: End| {
            let count = Rc::clone(&count);
            async move {
                let head = end.head().await.expect("a request");
                end.send(OK).await;
                if head.starts_with("POST") {
                    clock::sleep(Duration::from_secs(1)).await;
                    count.set(end.body(UPLOAD).await);
                    end.head().await.expect("another request");
                    end.send(OK).await;
                }
            }
        });
        let mut end = mesh.call();
        end.send(&upload()).await;
        let (head, _) = end.message().await.expect("the answer, before the upload");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
        send_body(&mut end).await;
        let (head, _) = end.ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "the connection goes on: {head}");
        assert_eq!(arrived.get(), UPLOAD);
        assert_eq!(mesh.client.requests(&["response_code=\"200\"", "response_flags=\"-\""]), 2.0);
    });
}

#[test]
fn a_server_that_closes_behind_its_early_answer_is_sent_no_more() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.head().await.expect("a request");
            end.send(OK).await;
        });
        let mut end = mesh.call();
        end.send(&upload()).await;
        end.message().await.expect("the answer");
        let (_, ended) = end.ended().await;
        ended.expect("an orderly end");
    });
}

#[test]
fn a_refusal_of_an_upload_reaches_a_client_that_sends_all_before_it_reads() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.head().await.expect("a request");
            end.send("HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
                .await;
        });
        let mut end = mesh.call();
        end.send(&upload()).await;
        clock::sleep(Duration::from_secs(4)).await;
        send_body(&mut end).await;
        let (head, body) = end.message().await.expect("the answer");
        assert!(head.starts_with("HTTP/1.1 413 ") && body == "no", "{head}");
        end.ended().await.1.expect("an orderly end");
    });
}

#[test]
fn an_answer_that_ends_its_connection_is_whole_though_something_unread_is_behind_the_request() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
    const CLOSED: &str = "HTTP/1.1 200 OK\r\n\r\nbody";
    for (request, answer) in [(CLOSE, LENGTH), (CLOSE, CLOSED), (GET, CLOSED)] {
        for behind in ["\r\n", GET] {
            with_standing_clock(|| async {
                let mesh = Mesh::new(move |mut end: End| async move {
                    end.message().await.expect("a request");
                    end.send(answer).await;
                });
                let mut end = mesh.call();
                end.send(&format!("{request}{behind}")).await;
                clock::sleep(Duration::from_secs(1)).await;
                end.head().await.expect("a head");
                assert!(end.ended().await.1.is_ok(), "no reset");
                assert_eq!(end.rest(), "body");
            });
        }
    }
}

#[test]
fn a_client_that_stays_silent_behind_an_end_is_let_go() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        });
        let mut end = mesh.call();
        end.ask(CLOSE).await;
        assert_eq!(mesh.client.shared.state.connections.count(), 1);
        clock::sleep(heddle_proxy::limits::LINGER_SILENCE + Duration::from_secs(1)).await;
        assert_eq!(mesh.client.shared.state.connections.count(), 0);
    });
}
