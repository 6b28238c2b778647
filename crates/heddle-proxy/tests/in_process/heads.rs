//! How long a request head may take.

use std::time::Duration;

use heddle_proxy::limits::HEAD_READ_TIMEOUT;
use heddle_runtime::clock;

use crate::mesh::{GET, Mesh, answers, seconds_since, with_standing_clock};

#[test]
fn a_head_that_does_not_end_is_refused_after_its_time_and_the_connection_ends() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let mut end = mesh.call();
        end.ask(GET).await;
        // The time begins with a head's first byte, not with the connection.
        clock::sleep(Duration::from_secs(100)).await;
        let begun = clock::now();
        end.send("GET / HTTP/1.1\r\nHo").await;
        clock::sleep(HEAD_READ_TIMEOUT - Duration::from_secs(1)).await;
        end.send("st: ").await;
        let (head, body) = end.message().await.expect("an answer");
        assert_eq!(seconds_since(begun), HEAD_READ_TIMEOUT.as_secs());
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        assert!(head.contains("hop=outbound@client-1"), "{head}");
        assert!(body.contains("head-timeout"), "{body}");
        end.ended().await.1.expect("an orderly end");
        assert_eq!(mesh.client.requests(&["response_code=\"408\"", "response_flags=\"SI\""]), 1.0);
        assert_eq!(mesh.connects(), 1, "nothing of it went on");
    });
}

#[test]
fn a_slow_head_that_ends_in_time_is_served() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let mut end = mesh.call();
        for piece in ["GET / HT", "TP/1.1\r\n", "Host: reviews\r\n"] {
            end.send(piece).await;
            clock::sleep(Duration::from_secs(3)).await;
        }
        let (head, _) = end.ask("\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    });
}
