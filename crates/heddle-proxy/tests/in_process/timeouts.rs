//! A rule's limit on a request's time: from the end of the request to the end of its answer.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_model::discovery::{Fault, FaultDelay, HttpRule};
use heddle_runtime::clock;

use crate::mesh::{End, GET, Mesh, OK, seconds_since, with_standing_clock};

fn limited(seconds: u64) -> impl FnOnce(&mut HttpRule) {
    move |rule| rule.traffic.timeout = Some(Duration::from_secs(seconds))
}

#[test]
fn a_server_that_does_not_answer_in_time_is_a_504_and_is_told_that_nobody_waits() {
    with_standing_clock(|| async {
        let ended = Rc::new(Cell::new(None));
        let told = Rc::clone(&ended);
        let mesh = Mesh::ruled(&[20], limited(2), move |mut end: End| {
            let told = Rc::clone(&told);
            async move {
                end.message().await.expect("a request");
                told.set(Some(end.ended().await.0.as_secs()));
            }
        });
        let begun = clock::now();
        let mut end = mesh.call();
        let (head, body) = end.ask(GET).await;
        assert_eq!(seconds_since(begun), 2);
        assert!(head.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{head}");
        assert!(
            head.contains("timeout; hop=outbound@client-1; rule=VirtualService/default/reviews#0")
        );
        assert!(body.contains("within the rule's limit of 2s"), "{body}");
        clock::sleep(Duration::from_millis(5)).await;
        assert_eq!(ended.get(), Some(2), "the server's work is ended");
        let labels = ["response_code=\"504\"", "response_flags=\"UT\""];
        assert_eq!(mesh.client.requests(&labels), 1.0);
        // The client's connection is as good as before.
        end.send(GET).await;
        assert!(end.message().await.expect("an answer").0.starts_with("HTTP/1.1 504 "));
        assert_eq!(seconds_since(begun), 4);
    });
}

#[test]
fn an_answer_that_does_not_end_in_time_is_cut() {
    with_standing_clock(|| async {
        let mesh = Mesh::ruled(&[20], limited(2), |mut end: End| async move {
            end.message().await.expect("a request");
            end.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
            let _ended = end.ended().await;
        });
        let begun = clock::now();
        let mut end = mesh.call();
        end.send(GET).await;
        assert!(end.head().await.expect("a head").starts_with("HTTP/1.1 200 "));
        let (_, how) = end.ended().await;
        assert!(how.is_err(), "a reset says that it is not whole");
        assert_eq!(seconds_since(begun), 2);
        clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(mesh.client.requests(&["response_code=\"200\"", "response_flags=\"UT\""]), 1.0);
    });
}

#[test]
fn the_time_an_upload_takes_is_not_counted() {
    with_standing_clock(|| async {
        let mesh = Mesh::ruled(&[20], limited(2), |mut end: End| async move {
            end.message().await.expect("a request");
            clock::sleep(Duration::from_secs(1)).await;
            end.send(OK).await;
        });
        let mut end = mesh.call();
        end.send("POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 4\r\n\r\nha").await;
        clock::sleep(Duration::from_secs(30)).await;
        let (head, _) = end.ask("lf").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}

#[test]
fn an_injected_delay_counts() {
    with_standing_clock(|| async {
        let delayed = |rule: &mut HttpRule| {
            limited(2)(rule);
            let delay = FaultDelay { duration: Duration::from_secs(5), percent: 100.0 };
            rule.fault = Some(Fault { delay: Some(delay), ..Fault::default() });
        };
        let mesh = Mesh::ruled(&[20], delayed, crate::mesh::answers);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert_eq!(seconds_since(begun), 2);
    });
}

#[test]
fn a_tunnel_has_no_limit() {
    with_standing_clock(|| async {
        let mesh = Mesh::ruled(&[20], limited(2), |mut end: End| async move {
            end.head().await.expect("a head");
            end.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
            )
            .await;
            clock::sleep(Duration::from_secs(60)).await;
            end.send("hello\r\n\r\n").await;
        });
        let mut end = mesh.call();
        end.send("GET / HTTP/1.1\r\nHost: reviews\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
            .await;
        assert!(end.head().await.expect("a head").starts_with("HTTP/1.1 101 "));
        assert_eq!(end.head().await.as_deref(), Some("hello\r\n\r\n"));
    });
}
