//! Where HTTP/1 and HTTP/2 mean different things by the same: hosts, ends of connections, leave to send a
//! body, trailers; and connections that take no requests.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use heddle_model::Protocol;
use heddle_runtime::{clock, task::spawn_contained};
use http::{Request, Response};
use tokio::io::AsyncWriteExt;

use crate::mesh::{End, Mesh, with_standing_clock};

/// Serves a connection of HTTP/2, of which each request is answered by `answer`.
async fn serve<F: Future<Output = ()> + 'static>(
    end: End,
    goodbye: bool,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) {
    let mut connection = h2::server::handshake(end.transport).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(spawn_contained("request", answer(request, respond)));
        if goodbye {
            connection.graceful_shutdown();
        }
    }
}

/// Answers with what came of the body, and tells in the head whom it was for.
async fn tells(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let mut body = request.into_body();
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let names: Vec<_> = trailers.keys().map(ToString::to_string).collect();
    let mut response = Response::new(());
    response.headers_mut().insert("x-host", host.parse().unwrap());
    response.headers_mut().insert("x-trailers", names.join(",").parse().unwrap());
    let mut to = respond.send_response(response, false).unwrap();
    to.send_data(text.into(), true).unwrap();
}

fn mesh(goodbye: bool) -> Mesh {
    Mesh::speaking(Protocol::Http2, &[20], move |end| serve(end, goodbye, tells))
}

#[test]
fn a_host_that_is_only_a_field_becomes_the_authority_and_the_request_goes_on_once() {
    with_standing_clock(|| async {
        let mesh = mesh(false);
        let mut end = mesh.call();
        // GET, /, http by HPACK's static table, then `host` by name 38.
        let head = b"\x82\x84\x86\x0f\x17\x07reviews";
        let length = u8::try_from(head.len()).unwrap();
        let frames: [&[u8]; 3] = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            &[0, 0, length, 1, 5, 0, 0, 0, 1],
            head,
        ];
        end.transport.write_all(&frames.concat()).await.unwrap();
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 1.0);
        assert_eq!(mesh.connects(), 1);
    });
}

#[test]
fn a_server_whose_connections_take_no_request_is_not_asked_for_ever() {
    with_standing_clock(|| async {
        let connections = Rc::<Cell<u32>>::default();
        let counted = Rc::clone(&connections);
        let mesh = Mesh::speaking(Protocol::Http2, &[20], move |mut end| {
            let counted = Rc::clone(&counted);
            async move {
                counted.set(counted.get() + 1);
                // SETTINGS, then GOAWAY that names no stream as processed.
                let goodbye = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
                let _gone = end.transport.write_all(goodbye).await;
                let _end = end.ended().await;
            }
        });
        let (head, _) = mesh.call().ask("GET / HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(connections.get() < 40, "{}", connections.get());
    });
}

#[test]
fn a_post_of_http_1_loses_nothing_to_a_server_that_says_goodbye() {
    with_standing_clock(|| async {
        let mesh = mesh(true);
        let mut client = mesh.call();
        for _ in 0..10 {
            client.send("POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 2\r\n\r\nhi").await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let body = client.head().await.unwrap();
            assert_eq!(body, "2\r\nhi\r\n0\r\n\r\n");
        }
    });
}

#[test]
fn a_body_that_only_the_end_of_the_connection_ends_ends_it() {
    with_standing_clock(|| async {
        let mesh = mesh(false);
        let mut client = mesh.call();
        client.send("GET / HTTP/1.0\r\nHost: reviews\r\nConnection: keep-alive\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert!(head.contains("connection: close\r\n"), "{head}");
        let (took, end) = client.ended().await;
        assert!(end.is_ok() && took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_client_that_waits_in_vain_for_leave_to_send_its_body_is_not_kept() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| {
            serve(end, false, |_request, mut respond| async move {
                let response = Response::builder().status(401).header("content-length", "0");
                respond.send_response(response.body(()).unwrap(), true).unwrap();
                clock::sleep(Duration::from_secs(60)).await;
            })
        });
        let mut client = mesh.call();
        client
            .send("POST / HTTP/1.1\r\nHost: reviews\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        assert!(head.contains("connection: close\r\n"), "what follows might be taken for the body");
    });
}

#[test]
fn trailers_carry_nothing_that_frames_or_routes_a_message() {
    with_standing_clock(|| async {
        let mesh = mesh(false);
        let mut client = mesh.call();
        client.send("POST / HTTP/1.1\r\nHost: reviews\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send("2\r\nhi\r\n0\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert!(
            head.contains("x-trailers: x-b\r\n") || head.contains("x-trailers: x-a,x-b\r\n"),
            "{head}"
        );
    });
}
