//! A workload that calls itself, through its own service: inside the process, past no rule.

use std::net::SocketAddr;

use heddle_testkit::resources::{self, PORT};

use crate::mesh::{End, GET, Mesh, REVIEWS, answers, with_standing_clock};

#[test]
fn a_call_to_oneself_passes_both_of_ones_sides_and_no_network() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let server = &mesh.servers[0];
        for _ in 0..3 {
            let mut end = server.call(SocketAddr::new(resources::vip(REVIEWS), PORT));
            let (head, _) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        assert_eq!(mesh.connects(), 0);
        let from_itself = "source_workload=\"reviews-v1\"";
        for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
            assert_eq!(server.requests(&[reporter, from_itself]), 3.0, "{reporter}");
        }
    });
}

#[test]
fn large_bodies_of_a_call_to_oneself_end_and_the_connection_goes_on() {
    const BYTES: usize = 200_000;
    with_standing_clock(|| async {
        let large = "x".repeat(BYTES);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n{large}");
        let mesh = Mesh::new(move |mut end: End| {
            let answer = answer.clone();
            async move {
                while let Some((_, body)) = end.message().await {
                    assert!(body.is_empty() || body.len() == BYTES, "{}", body.len());
                    end.send(&answer).await;
                }
            }
        });
        let server = &mesh.servers[0];
        let mut end = server.call(SocketAddr::new(resources::vip(REVIEWS), PORT));
        let post = format!(
            "POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: {BYTES}\r\n\r\n{}",
            "y".repeat(BYTES)
        );
        for request in [GET, &post, GET] {
            let (head, body) = end.ask(request).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
            assert_eq!(body.len(), BYTES);
        }
        assert_eq!(server.shared.metrics.requests_in_flight(), 0, "all of it is recorded");
    });
}
