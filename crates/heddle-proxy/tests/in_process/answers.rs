//! Responses that break the grammar: what has one reading only passes, and of the rest both sides say the
//! same reason.

use heddle_model::Protocol;
use heddle_testkit::resources;

use crate::mesh::{End, GET, Mesh, answers, with_standing_clock};

/// What the client gets for this answer of the server's, up to the end.
async fn answered_by(answer: &'static str, request: &str) -> (Mesh, String, String) {
    let mesh = Mesh::new(move |mut end: End| async move {
        if end.message().await.is_some() {
            end.send(answer).await;
        }
    });
    let mut end = mesh.call();
    end.send(request).await;
    let head = end.head().await.unwrap_or_default();
    if head.to_ascii_lowercase().contains("content-length: ") {
        end.transport.shutdown_write();
    }
    let _how = end.ended().await;
    let rest = end.rest();
    (mesh, head, rest)
}

#[test]
fn a_response_with_one_reading_only_is_put_in_order() {
    with_standing_clock(|| async {
        let passes = [
            ("HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok", "x-a: "),
            ("HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", "x-a: b   c"),
            ("HTTP/1.1  200  OK\r\nContent-Length: 2\r\n\r\nok", "http/1.1 200 "),
            ("HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok", "x-a: b\r\n"),
            ("HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\r\nok", "x-a: b\r\n"),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                "chunked",
            ),
        ];
        for (answer, expected) in passes {
            let (_, head, body) = answered_by(answer, GET).await;
            let head = head.to_ascii_lowercase();
            assert!(
                head.starts_with("http/1.1 200 ") && head.contains(expected),
                "{answer:?}: {head}"
            );
            assert!(!head.contains(" :") && !head.contains("\r\n "), "{head}");
            assert!(body.contains("ok"), "{body}");
        }
    });
}

#[test]
fn a_server_of_http10_that_sends_chunks_is_not_asked_again_on_that_connection() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
                .await;
            assert!(end.message().await.is_none(), "nothing more comes here");
        });
        let mut end = mesh.call();
        for _ in 0..2 {
            end.send(GET).await;
            assert!(end.head().await.expect("a head").starts_with("HTTP/1.1 200 "));
            assert_eq!(end.body("2\r\nok\r\n0\r\n\r\n".len()).await, 12);
        }
    });
}

#[test]
fn an_unreadable_response_is_told_by_its_byte_and_by_the_way_out() {
    with_standing_clock(|| async {
        let (mesh, head, body) =
            answered_by("HTTP/1.1 200 OK\r\nX-A: b\r\nno field\r\n\r\n", GET).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(body.contains("at byte 25 of its head: \"no field\""), "{body}");
        assert!(body.contains("--protocol tcp"), "{body}");
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&["response_code=\"502\""]), 1.0);
        }
    });
}

#[test]
fn a_body_that_breaks_before_its_head_went_out_is_a_refusal_with_its_cause_on_both_sides() {
    with_standing_clock(|| async {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        let (mesh, head, body) = answered_by(answer, GET).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(head.contains("bad-response; hop=inbound@reviews-20"), "{head}");
        assert!(body.contains("the chunk size is no hexadecimal number"), "{body}");
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&["response_code=\"502\""]), 1.0);
            assert_eq!(sidecar.requests(&["response_code=\"200\""]), 0.0);
        }
    });
}

#[test]
fn a_malformed_chunk_behind_a_100_is_answered() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            end.head().await.expect("a head");
            end.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            let _ended = end.ended().await;
        });
        let mut end = mesh.call();
        end.send("POST / HTTP/1.1\r\nHost: reviews\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        assert!(end.head().await.expect("an interim head").starts_with("HTTP/1.1 100 "));
        end.send("zz\r\n").await;
        let (head, _) = end.message().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    });
}

#[test]
fn a_request_at_its_limits_is_not_refused_for_what_the_mesh_adds() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let fields: String = (0..199).map(|n| format!("X-{n}: y\r\n")).collect();
        let (head, _) =
            mesh.call().ask(&format!("GET / HTTP/1.1\r\nHost: reviews\r\n{fields}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let begin = "GET / HTTP/1.1\r\nHost: reviews\r\nX: ";
        let long = "y".repeat(64 * 1024 - begin.len() - 4);
        let (head, _) = mesh.call().ask(&format!("{begin}{long}\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let (head, _) = mesh.call().ask(&format!("{begin}{long}y\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    });
}

#[test]
fn a_stream_of_any_number_of_chunks_with_leading_zeros_passes() {
    with_standing_clock(|| async {
        const CHUNKS: usize = 20_000;
        let mesh = Mesh::new(|mut end: End| async move {
            end.message().await.expect("a request");
            end.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for _ in 0..CHUNKS {
                end.send("0001\r\nx\r\n").await;
            }
            end.send("0\r\n\r\n").await;
        });
        let mut end = mesh.call();
        end.send(GET).await;
        end.head().await.expect("a head");
        assert_eq!(end.body(CHUNKS * 9 + 5).await, CHUNKS * 9 + 5);
    });
}

#[test]
fn a_call_of_grpc_over_http1_is_refused_in_grpcs_own_terms() {
    with_standing_clock(|| async {
        let nowhere = vec![resources::dangling("there is no such service")];
        let mut destination = resources::destination("reviews", nowhere);
        destination.ports[0].protocol = Protocol::Http;
        let rule = &mut destination.ports[0].http[0];
        rule.traffic.absent_status = Some(500);
        let mesh = Mesh::told(destination, &[20], answers);
        let mut end = mesh.call();
        let call = |kind: &str| {
            format!(
                "POST /a.B/C HTTP/1.1\r\nhost: reviews\r\ncontent-type: {kind}\r\ncontent-length: 0\r\n\r\n"
            )
        };
        for kind in ["application/grpc", "application/grpc+proto"] {
            let (head, body) = end.ask(&call(kind)).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let small = head.to_ascii_lowercase();
            assert!(small.contains("grpc-status: 14\r\n"), "UNAVAILABLE: {head}");
            assert!(small.contains("grpc-message: heddle: "), "{head}");
            assert!(small.contains("x-heddle-refusal: dangling-target"), "{head}");
            assert_eq!(body, "");
        }
        let (head, body) = end.ask(&call("application/grpc-web")).await;
        assert!(head.starts_with("HTTP/1.1 500 ") && body.contains("no such service"), "{head}");
        let counted = ["response_code=\"200\"", "grpc_response_status=\"14\""];
        assert_eq!(mesh.client.requests(&counted), 2.0);
    });
}
