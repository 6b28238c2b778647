//! Streams of HTTP/2 that become no HTTP (CONNECT, WebSocket by RFC 8441), connections of HTTP/1 that
//! become HTTP/2, and the end of a sidecar with both.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, ext::Protocol as Becomes};
use heddle_model::Protocol;
use heddle_runtime::clock;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    http2::{connect, post, send, whole},
    mesh::{End, Mesh, OK, with_standing_clock},
};

fn websocket() -> Request<()> {
    let mut request = Request::connect("http://reviews/chat?room=1").body(()).unwrap();
    request.extensions_mut().insert(Becomes::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request
}

/// Opens a connection whose SETTINGS have come.
async fn ready(mesh: &Mesh) -> SendRequest<Bytes> {
    let to = connect(mesh.call()).await;
    clock::sleep(Duration::from_millis(1)).await;
    assert!(to.is_extended_connect_protocol_enabled());
    to
}

async fn piece(body: &mut RecvStream) -> Option<Bytes> {
    loop {
        let data = body.data().await?.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        if !data.is_empty() {
            return Some(data);
        }
    }
}

fn say(to: &mut SendStream<Bytes>, text: &'static str, last: bool) {
    to.send_data(Bytes::from_static(text.as_bytes()), last).unwrap();
}

/// Consents to an Upgrade, greets, sends back what it gets, and ends with its client.
async fn echoes(mut end: End) {
    let Some(head) = end.head().await else { return };
    if !head.starts_with("GET /chat?room=1 HTTP/1.1\r\n") {
        return end.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    }
    let lower = head.to_ascii_lowercase();
    let asked = ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-version: 13"];
    assert!(asked.iter().all(|field| lower.contains(field)), "{head}");
    let key = lower.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    assert_eq!(key.len(), 24, "{head}");
    let accepts = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    end.send(&format!("HTTP/1.1 101 Switching Protocols\r\n{accepts}hello")).await;
    let mut buffer = [0; 64];
    while let Ok(n @ 1..) = end.transport.read(&mut buffer).await {
        end.transport.write_all(&buffer[..n]).await.unwrap();
    }
}

#[test]
fn a_websocket_of_http_2_reaches_a_server_of_http_1_and_bytes_go_both_ways() {
    for protocol in [Protocol::Http, Protocol::Undeclared, Protocol::Http2] {
        with_standing_clock(|| async {
            let mesh = Mesh::speaking(protocol, &[20], echoes);
            let mut client = ready(&mesh).await;
            let (response, mut to) = send(&mut client, websocket(), false).await;
            let (head, mut body) = response.await.unwrap().into_parts();
            assert_eq!(
                (head.status.as_u16(), head.headers.get("upgrade")),
                (200, None),
                "{protocol:?}"
            );
            assert!(!head.headers.contains_key("sec-websocket-accept"));
            assert_eq!(piece(&mut body).await.unwrap(), "hello");
            for text in ["one", "two"] {
                say(&mut to, text, false);
                assert_eq!(piece(&mut body).await.unwrap(), text);
            }
            clock::sleep(Duration::from_secs(600)).await;
            say(&mut to, "last", true);
            assert_eq!(piece(&mut body).await.unwrap(), "last");
            assert!(piece(&mut body).await.is_none(), "the server's end is the stream's");
            assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 1.0);
        });
    }
}

#[test]
fn a_server_that_does_not_switch_is_not_taken_for_one_that_did() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            let head = end.head().await.unwrap();
            let forbids = head.contains("room=2");
            let status = if forbids { "403 Forbidden" } else { "200 OK" };
            end.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")).await;
            let _end = end.ended().await;
        });
        let mut client = ready(&mesh).await;
        let (response, _to) = send(&mut client, websocket(), false).await;
        assert_eq!(response.await.unwrap().status(), 502);
        let mut request = websocket();
        *request.uri_mut() = "http://reviews/chat?room=2".parse().unwrap();
        let (response, _to) = send(&mut client, request, false).await;
        let (head, text, _) = whole(response).await.unwrap();
        assert_eq!((head.status().as_u16(), text.as_str()), (403, "no"));
    });
}

#[test]
fn a_websocket_goes_as_it_is_to_a_server_of_http_2_that_offers_it() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| async move {
            let mut builder = h2::server::Builder::new();
            let mut connection = builder
                .enable_connect_protocol()
                .handshake::<_, Bytes>(end.transport)
                .await
                .unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let protocol = request.extensions().get::<Becomes>().map(Becomes::as_str);
                assert_eq!((request.method().as_str(), protocol), ("CONNECT", Some("websocket")));
                assert_eq!(request.uri().path(), "/chat");
                let mut to = respond.send_response(Response::new(()), false).unwrap();
                to.send_data(Bytes::from_static(b"hello"), true).unwrap();
            }
        });
        let mut client = ready(&mesh).await;
        let (response, _to) = send(&mut client, websocket(), false).await;
        let mut body = response.await.unwrap().into_body();
        assert_eq!(piece(&mut body).await.unwrap(), "hello");
        assert!(piece(&mut body).await.is_none());
    });
}

#[test]
fn connect_of_http_2_is_asked_of_a_server_of_http_1_and_nothing_is_sent_before_it_consents() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            let head = end.head().await.unwrap();
            if head.starts_with("PRI ") {
                return end.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            }
            assert!(head.starts_with("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n"), "{head}");
            clock::sleep(Duration::from_secs(1)).await;
            assert_eq!(end.rest(), "", "whoever refuses would take it for a request");
            end.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").await;
            let mut buffer = [0; 64];
            let n = end.transport.read(&mut buffer).await.unwrap();
            end.transport.write_all(&buffer[..n]).await.unwrap();
        });
        let mut client = connect(mesh.call()).await;
        let request = Request::connect("db:5432").body(()).unwrap();
        let (response, mut to) = send(&mut client, request, false).await;
        say(&mut to, "early", true);
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!((head.status.as_u16(), head.headers.get("content-length")), (200, None));
        assert_eq!(piece(&mut body).await.unwrap(), "early");
        assert!(piece(&mut body).await.is_none());
    });
}

/// What a client of RFC 7540 asks with, and then begins with.
const OFFER: &str = "GET /first HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                     Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";

#[test]
fn a_client_of_http_1_that_asks_for_http_2_gets_it_where_the_port_is_declared_so() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| async move {
            let mut connection = h2::server::handshake(end.transport).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert!(!request.headers().contains_key("http2-settings"));
                let text = format!("{} {}", request.method(), request.uri());
                let mut to = respond.send_response(Response::new(()), false).unwrap();
                to.send_data(text.into(), true).unwrap();
            }
        });
        let mut client = mesh.call();
        client.send(OFFER).await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        // Preface, SETTINGS, and GET /second on stream 3.
        let second = b"\x82\x86\x01\x07reviews\x04\x07/second";
        let length = u8::try_from(second.len()).unwrap();
        let frames: [&[u8]; 3] = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            &[0, 0, length, 1, 5, 0, 0, 0, 3],
            second,
        ];
        client.transport.write_all(&frames.concat()).await.unwrap();
        clock::sleep(Duration::from_secs(1)).await;
        let mut read = vec![0; 4096];
        let n = client.transport.read(&mut read).await.unwrap();
        let text = String::from_utf8_lossy(&read[..n]).into_owned();
        for wanted in ["GET http://reviews/first", "GET http://reviews/second"] {
            assert!(text.contains(wanted), "{text:?}");
        }
        assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 2.0);
    });
}

#[test]
fn a_client_of_http_1_that_asks_for_http_2_elsewhere_is_answered_in_http_1() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(crate::mesh::answers);
        let (head, body) = mesh.call().ask(OFFER).await;
        assert_eq!((head.lines().next(), body.as_str()), (OK.lines().next(), "ok"));
    });
}

#[test]
fn a_sidecar_that_ends_says_goodbye_and_finishes_what_it_has_begun() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            while end.message().await.is_some() {
                clock::sleep(Duration::from_secs(2)).await;
                end.send(OK).await;
            }
        });
        let mut client = connect(mesh.call()).await;
        let (response, _) = send(&mut client, post("/"), true).await;
        clock::sleep(Duration::from_secs(1)).await;
        mesh.client.shared.state.draining.begin();
        clock::sleep(Duration::from_millis(500)).await;
        let refused = std::future::poll_fn(|context| client.poll_ready(context)).await;
        assert!(refused.is_err(), "it was told to ask elsewhere");
        let (head, text, _) = whole(response).await.unwrap();
        assert_eq!((head.status().as_u16(), text.as_str()), (200, "ok"));
    });
}

const UPGRADE: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Takes a CONNECT with a protocol as `status` says, and then sends back what comes.
async fn takes_protocols(end: End, status: u16) {
    let mut builder = h2::server::Builder::new();
    let builder = builder.enable_connect_protocol();
    let mut connection = builder.handshake::<_, Bytes>(end.transport).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let protocol = head.extensions.get::<Becomes>().map(Becomes::as_str);
        assert_eq!((head.method.as_str(), protocol), ("CONNECT", Some("websocket")));
        assert_eq!(head.uri.path_and_query().unwrap(), "/chat?room=1");
        assert_eq!(head.headers["sec-websocket-version"], "13");
        assert!(!head.headers.contains_key("sec-websocket-key"));
        let response = Response::builder().status(status).header("x-said", "yes");
        let response = match status {
            200 => response,
            _ => response.header("content-length", "0"),
        };
        let response = response.body(()).unwrap();
        let mut to = respond.send_response(response, status != 200).unwrap();
        drop(heddle_runtime::task::spawn_contained("websocket", async move {
            while let Some(data) = piece(&mut body).await {
                to.send_data(data, false).unwrap();
            }
            let _reset = to.send_data(Bytes::new(), true);
        }));
    }
}

#[test]
fn an_upgrade_of_http_1_goes_to_a_server_of_http_2_as_what_that_has_for_it() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| takes_protocols(end, 200));
        let mut client = mesh.call();
        // Some do not wait.
        client.send(&format!("{UPGRADE}early ")).await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let fields =
            ["Connection: Upgrade\r\n", "Upgrade: websocket\r\n", accept, "x-said: yes\r\n"];
        assert!(fields.iter().all(|field| head.contains(field)), "{head}");
        clock::sleep(Duration::from_secs(600)).await;
        client.send("late").await;
        clock::sleep(Duration::from_millis(1)).await;
        client.transport.shutdown_write();
        let (_, ended) = client.ended().await;
        assert_eq!((client.rest().as_str(), ended.is_ok()), ("early late", true));
        clock::sleep(Duration::from_millis(1)).await;
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&[]), 1.0);
        }
        assert_eq!(mesh.client.requests(&["response_code=\"101\"", "response_flags=\"-\""]), 1.0);
    });
}

#[test]
fn a_server_of_http_2_that_says_no_to_an_upgrade_is_heard_and_the_connection_stays() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| takes_protocols(end, 403));
        let mut client = mesh.call();
        for _ in 0..2 {
            let (head, _) = client.ask(UPGRADE).await;
            assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        }
    });
}

#[test]
fn an_upgrade_of_http_1_reaches_a_server_of_both_versions_in_http_1() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], echoes);
        let mut client = mesh.call();
        client.send(UPGRADE).await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        client.send("hi").await;
        assert_eq!(client.body(7).await, 7, "its greeting and what it sends back");
    });
}

#[test]
fn a_server_of_http_2_only_that_offers_no_protocols_is_told_of_in_words() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| async move {
            // Not one of HTTP/1: it speaks first, and closes where no preface follows.
            let Ok(mut connection) = h2::server::handshake(end.transport).await else { return };
            while connection.accept().await.is_some() {}
        });
        let (head, text) = mesh.call().ask(UPGRADE).await;
        assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
        assert!(
            head.contains("x-heddle-refusal: cannot-upgrade; hop=inbound@reviews-20"),
            "{head}"
        );
        assert!(text.contains("RFC 8441"), "{text}");
        let mut client = ready(&mesh).await;
        let (response, _to) = send(&mut client, websocket(), false).await;
        assert_eq!(response.await.unwrap().status(), 502);
    });
}

#[test]
fn a_client_that_leaves_before_the_consent_ends_what_it_asked_for() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| async move {
            let mut builder = h2::server::Builder::new();
            let builder = builder.enable_connect_protocol();
            let mut connection = builder.handshake::<_, Bytes>(end.transport).await.unwrap();
            let mut asked = Vec::new();
            while let Some(Ok(request)) = connection.accept().await {
                asked.push(request);
            }
        });
        let mut client = mesh.call();
        client.send(UPGRADE).await;
        clock::sleep(Duration::from_millis(10)).await;
        client.transport.reset();
        clock::sleep(Duration::from_millis(10)).await;
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&["response_flags=\"DC\""]), 1.0);
        }
    });
}
