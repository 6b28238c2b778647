//! HTTP/2 through two sidecars, and to and from HTTP/1: what goes in comes out, on both sides, and how
//! each of its ends looks from the other.

use std::{cell::Cell, future::poll_fn, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
    server::{self, SendResponse},
};
use heddle_model::Protocol;
use heddle_runtime::{clock, task::spawn_contained};
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::mesh::{End, GET, Mesh, OK, with_standing_clock};

/// A client's connection of HTTP/2.
pub(crate) async fn connect(end: End) -> SendRequest<Bytes> {
    let (send, connection) = client::handshake(end.transport).await.unwrap();
    drop(spawn_contained("client", async move {
        let _ended = connection.await;
    }));
    send
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://reviews{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://reviews{path}")).body(()).unwrap()
}

pub(crate) async fn send(
    to: &mut SendRequest<Bytes>,
    request: Request<()>,
    over: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    poll_fn(|context| to.poll_ready(context)).await.unwrap();
    to.send_request(request, over).unwrap()
}

/// A whole response: status, body, trailers.
pub(crate) async fn whole(
    response: ResponseFuture,
) -> Result<(Response<()>, String, HeaderMap), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let text = text(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((Response::from_parts(head, ()), text, trailers))
}

async fn text(body: &mut RecvStream) -> Result<String, h2::Error> {
    let mut text = String::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        text.push_str(str::from_utf8(&data).unwrap());
    }
    Ok(text)
}

/// Serves a connection of HTTP/2: `answer` has each request.
pub(crate) async fn serve<F: Future<Output = ()> + 'static>(
    end: End,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) {
    let mut connection = server::handshake(end.transport).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(spawn_contained("request", answer(request, respond)));
    }
}

/// Sends back what comes, piece by piece, with its trailers, then one of its own.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut response = Response::new(());
    response.headers_mut().insert("x-path", head.uri.path().parse().unwrap());
    response.headers_mut().insert("x-method", head.method.as_str().parse().unwrap());
    let mut to = respond.send_response(response, false).unwrap();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        body.flow_control().release_capacity(data.len()).unwrap();
        to.send_data(data, false).unwrap();
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("x-last", HeaderValue::from_static("yes"));
    to.send_trailers(trailers).unwrap();
}

fn mesh_of_http2() -> Mesh {
    Mesh::speaking(Protocol::Http2, &[20], |end| serve(end, echo))
}

#[test]
fn a_stream_goes_both_ways_at_once_with_its_trailers() {
    with_standing_clock(|| async {
        for declared in [Protocol::Http2, Protocol::Grpc, Protocol::Http, Protocol::Undeclared] {
            let mesh = Mesh::speaking(declared, &[20], |end| serve(end, echo));
            let mut client = connect(mesh.call()).await;
            let (response, mut to) = send(&mut client, post("/chat"), false).await;
            let (head, mut body) = response.await.unwrap().into_parts();
            assert_eq!(head.headers["x-path"], "/chat", "{declared:?}");
            for word in ["one", "two"] {
                to.send_data(word.into(), false).unwrap();
                assert_eq!(
                    body.data().await.unwrap().unwrap(),
                    word,
                    "each before the next is sent"
                );
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("2"));
            to.send_trailers(trailers).unwrap();
            assert_eq!(text(&mut body).await.unwrap(), "");
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(
                (&trailers["x-sum"], &trailers["x-last"]),
                (&"2".parse().unwrap(), &"yes".parse().unwrap())
            );
            drop((to, body));
            for sidecar in [&mesh.client, &mesh.servers[0]] {
                assert_eq!(
                    sidecar.requests(&["response_code=\"200\"", "response_flags=\"-\""]),
                    1.0
                );
            }
        }
    });
}

#[test]
fn each_request_of_one_connection_goes_to_the_endpoint_that_is_best_for_it() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Grpc, &[20, 21], |end| serve(end, echo));
        let mut client = connect(mesh.call()).await;
        for _ in 0..100 {
            let (response, _) = send(&mut client, get("/"), true).await;
            assert_eq!(whole(response).await.unwrap().0.status(), 200);
        }
        let of = |server: usize| mesh.servers[server].requests(&[]);
        assert_eq!(of(0) + of(1), 100.0);
        assert!((35.0..=65.0).contains(&of(0)), "{} and {}", of(0), of(1));
        assert_eq!(mesh.connects(), 2, "one connection to each");
    });
}

#[test]
fn requests_of_one_connection_do_not_wait_for_each_other() {
    with_standing_clock(|| async {
        let mesh = mesh_of_http2();
        let mut client = connect(mesh.call()).await;
        let (first, mut open) = send(&mut client, post("/first"), false).await;
        let (second, _) = send(&mut client, get("/second"), true).await;
        assert_eq!(whole(second).await.unwrap().0.headers()["x-path"], "/second");
        open.send_data("late".into(), true).unwrap();
        assert_eq!(whole(first).await.unwrap().1, "late");
        assert_eq!(mesh.connects(), 1);
    });
}

/// An application that speaks HTTP/1 only, and says so to whoever asks otherwise, as most servers do.
async fn http1_only(mut end: End) {
    while let Some((head, body)) = end.message().await {
        if head.starts_with("PRI ") {
            end.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            return;
        }
        let body = if head.contains("chunked") { String::from("chunks") } else { body };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Asked: {}\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\nX-Last: yes\r\n\r\n",
            head.lines().next().unwrap(),
            body.len(),
        );
        end.send(&answer).await;
    }
}

#[test]
fn a_client_of_http_2_is_served_by_a_server_that_speaks_http_1_only() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(http1_only);
        let mut client = connect(mesh.call()).await;
        for path in ["/a", "/b"] {
            let (response, mut to) = send(&mut client, post(path), false).await;
            let mut request_head = HeaderMap::new();
            request_head.insert("x-none", HeaderValue::from_static("1"));
            to.send_data("hello".into(), true).unwrap();
            let (head, body, trailers) = whole(response).await.unwrap();
            assert_eq!(head.headers()["x-asked"], format!("POST {path} HTTP/1.1"));
            assert_eq!((body.as_str(), &trailers["x-last"]), ("chunks", &"yes".parse().unwrap()));
        }
        assert_eq!(mesh.servers[0].requests(&["response_code=\"200\""]), 2.0);
    });
}

#[test]
fn a_server_that_answers_what_it_cannot_read_without_a_head_is_asked_in_http_1() {
    with_standing_clock(|| async {
        // As Python's http.server does.
        let mesh = Mesh::new(|mut end: End| async move {
            while let Some((head, _)) = end.message().await {
                if head.starts_with("PRI ") {
                    return end.send("<!DOCTYPE HTML><p>Invalid HTTP version (2.0)").await;
                }
                end.send(OK).await;
            }
        });
        let mut client = connect(mesh.call()).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        assert_eq!(whole(response).await.unwrap().1, "ok");
    });
}

#[test]
fn a_client_of_http_1_is_served_by_a_server_that_speaks_http_2_only() {
    with_standing_clock(|| async {
        let mesh = mesh_of_http2();
        let mut client = mesh.call();
        for _ in 0..2 {
            client
                .send("POST /x?y=1 HTTP/1.1\r\nHost: reviews\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            client.send("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").await;
            let head = client.head().await.unwrap();
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            assert!(head.contains("x-path: /x\r\n"), "{head}");
            let trailers = client.head().await.unwrap();
            assert!(trailers.starts_with("5\r\nhello\r\n0\r\n"), "{trailers}");
            assert!(
                trailers.contains("x-sum: 1\r\n") && trailers.contains("x-last: yes"),
                "{trailers}"
            );
        }
        let (head, _) = client.ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    });
}

#[test]
fn a_stream_that_its_client_resets_is_reset_at_the_server() {
    with_standing_clock(|| async {
        let told = Rc::new(Cell::new(None));
        let seen = Rc::clone(&told);
        let mesh = Mesh::speaking(Protocol::Http2, &[20], move |end| {
            let seen = Rc::clone(&seen);
            serve(end, move |_request, mut respond| {
                let seen = Rc::clone(&seen);
                async move {
                    let reason = poll_fn(|context| respond.poll_reset(context)).await;
                    seen.set(reason.ok());
                }
            })
        });
        let mut client = connect(mesh.call()).await;
        let (response, mut to) = send(&mut client, post("/"), false).await;
        clock::sleep(Duration::from_secs(1)).await;
        to.send_reset(Reason::CANCEL);
        drop(response);
        clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(told.get(), Some(Reason::CANCEL));
        for sidecar in [&mesh.client, &mesh.servers[0]] {
            assert_eq!(sidecar.requests(&["response_flags=\"DC\""]), 1.0);
        }
    });
}

#[test]
fn a_stream_that_its_server_resets_is_reset_at_the_client_with_the_same_code() {
    with_standing_clock(|| async {
        for after_head in [false, true] {
            let mesh = Mesh::speaking(Protocol::Http2, &[20], move |end| {
                serve(end, move |_request, mut respond| async move {
                    if after_head {
                        let mut to = respond.send_response(Response::new(()), false).unwrap();
                        to.send_data("half".into(), false).unwrap();
                        clock::sleep(Duration::from_secs(1)).await;
                        to.send_reset(Reason::ENHANCE_YOUR_CALM);
                    } else {
                        respond.send_reset(Reason::ENHANCE_YOUR_CALM);
                    }
                })
            });
            let mut client = connect(mesh.call()).await;
            let (response, _to) = send(&mut client, post("/"), true).await;
            let error = whole(response).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{after_head}");
            assert_eq!(mesh.client.requests(&["response_flags=\"UC\""]), 1.0);
        }
    });
}

#[test]
fn what_a_server_refused_unprocessed_is_sent_again_whatever_the_method() {
    with_standing_clock(|| async {
        let asked = Rc::new(Cell::new(0));
        let times = Rc::clone(&asked);
        let mesh = Mesh::speaking(Protocol::Http2, &[20], move |end| {
            let times = Rc::clone(&times);
            serve(end, move |request, mut respond| {
                let first = times.replace(times.get() + 1) == 0;
                async move {
                    match first {
                        true => respond.send_reset(Reason::REFUSED_STREAM),
                        false => echo(request, respond).await,
                    }
                }
            })
        });
        let mut client = connect(mesh.call()).await;
        let (response, mut to) = send(&mut client, post("/"), false).await;
        to.send_data("once".into(), true).unwrap();
        assert_eq!(whole(response).await.unwrap().1, "once");
        assert_eq!(asked.get(), 2);
    });
}

#[test]
fn a_server_that_says_goodbye_after_each_request_loses_none() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| async move {
            let mut connection = server::handshake(end.transport).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                drop(spawn_contained("request", echo(request, respond)));
                connection.graceful_shutdown();
            }
        });
        let mut client = connect(mesh.call()).await;
        for _ in 0..10 {
            let mut responses = Vec::new();
            for _ in 0..2 {
                let (response, mut to) = send(&mut client, post("/"), false).await;
                to.send_data("once".into(), true).unwrap();
                responses.push(response);
            }
            for response in responses {
                assert_eq!(whole(response).await.unwrap().1, "once");
            }
        }
        assert_eq!(mesh.client.requests(&["response_flags=\"-\""]), 20.0);
    });
}

#[test]
fn a_call_of_grpc_is_refused_in_its_own_terms() {
    with_standing_clock(|| async {
        let mesh = mesh_of_http2();
        mesh.desert(20);
        let mut client = connect(mesh.call()).await;
        let mut request = post("/shop.Reviews/Get");
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let (response, _) = send(&mut client, request, true).await;
        let (head, body, _) = whole(response).await.unwrap();
        assert_eq!((head.status().as_u16(), body.as_str()), (200, ""));
        assert_eq!(head.headers()["grpc-status"], "14");
        assert!(head.headers()["grpc-message"].to_str().unwrap().contains("no endpoint accepted"));
        let (response, _) = send(&mut client, get("/"), true).await;
        let (head, body, _) = whole(response).await.unwrap();
        assert_eq!(head.status(), 503);
        assert!(body.contains("connect-failed"), "{body}");
        let grpc = ["request_protocol=\"grpc\"", "grpc_response_status=\"14\""];
        assert_eq!(mesh.client.requests(&grpc), 1.0);
    });
}

#[test]
fn a_receiver_that_does_not_read_makes_its_sender_wait() {
    with_standing_clock(|| async {
        let sent = Rc::new(Cell::new(0_usize));
        let counted = Rc::clone(&sent);
        let mesh = Mesh::speaking(Protocol::Http2, &[20], move |end| {
            let sent = Rc::clone(&counted);
            serve(end, move |_, mut respond| {
                let sent = Rc::clone(&sent);
                async move {
                    let mut to = respond.send_response(Response::new(()), false).unwrap();
                    for _ in 0..1_000 {
                        to.reserve_capacity(16_384);
                        while to.capacity() < 16_384 {
                            if poll_fn(|context| to.poll_capacity(context)).await.is_none() {
                                return;
                            }
                        }
                        to.send_data(vec![b'x'; 16_384].into(), false).unwrap();
                        sent.set(sent.get() + 16_384);
                    }
                }
            })
        });
        let mut client = connect(mesh.call()).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        let mut body = response.await.unwrap().into_body();
        clock::sleep(Duration::from_secs(5)).await;
        let windows = 3 * (256 << 10) + 3 * (64 << 10) + (256 << 10);
        assert!(sent.get() < windows, "{} bytes are on their way", sent.get());
        let mut got = 0;
        while got < 8 << 20 {
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            got += data.len();
        }
    });
}

#[test]
fn a_server_that_speaks_first_in_http_2_is_no_server_of_tcp() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Undeclared, &[20], |end| serve(end, echo));
        let end = mesh.call();
        // The server's SETTINGS are there long before the client says anything.
        clock::sleep(Duration::from_secs(1)).await;
        let mut client = connect(end).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        assert_eq!(whole(response).await.unwrap().0.status(), 200);
        assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 1.0);
    });
}

#[test]
fn a_connection_of_http_2_that_carries_nothing_is_closed_and_opened_again_when_needed() {
    with_standing_clock(|| async {
        let mesh = mesh_of_http2();
        let mut client = connect(mesh.call()).await;
        for expected in [1, 1, 2] {
            let (response, _) = send(&mut client, get("/"), true).await;
            assert_eq!(whole(response).await.unwrap().0.status(), 200);
            assert_eq!(mesh.connects(), expected);
            clock::sleep(Duration::from_secs(if expected == 1 { 2 } else { 0 })).await;
            if expected == 1 && mesh.client.requests(&[]) == 2.0 {
                clock::sleep(Duration::from_secs(10)).await;
            }
        }
    });
}

#[test]
fn http_1_on_a_port_that_speaks_it_is_still_passed_on_as_the_bytes_it_is() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(|mut end: End| async move {
            while let Some((head, _)) = end.message().await {
                assert!(head.contains("\r\nHost: reviews\r\n"), "its case is its own: {head}");
                end.send(OK).await;
            }
        });
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.contains("Content-Length: 2\r\n") && body == "ok", "{head}");
    });
}

#[test]
fn a_stream_that_is_reset_while_its_connection_is_opened_is_recorded_at_once() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| serve(end, echo));
        mesh.silence(20);
        let mut client = connect(mesh.call()).await;
        let (_response, mut body) = send(&mut client, post("/"), false).await;
        clock::sleep(Duration::from_millis(100)).await;
        assert_eq!(mesh.client.requests(&[]), 0.0);
        body.send_reset(Reason::CANCEL);
        clock::sleep(Duration::from_millis(100)).await;
        assert_eq!(mesh.client.requests(&["response_flags=\"DC\""]), 1.0);
        clock::sleep(Duration::from_secs(60)).await;
        assert_eq!(mesh.client.requests(&[]), 1.0);
    });
}

#[test]
fn small_messages_wait_for_a_slow_receiver_however_many_they_are() {
    const COUNT: usize = 60_000;
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Grpc, &[20], |end| {
            serve(end, |_request, mut respond: SendResponse<Bytes>| async move {
                let mut to = respond.send_response(Response::new(()), false).unwrap();
                for _ in 0..COUNT {
                    to.send_data(Bytes::from_static(b"123456"), false).unwrap();
                }
                to.send_data(Bytes::new(), true).unwrap();
            })
        });
        let mut builder = client::Builder::new();
        let builder = builder.data_frame_budget(usize::MAX);
        let (mut to, connection) = builder.handshake(mesh.call().transport).await.unwrap();
        drop(spawn_contained("client", async move {
            let _ended = connection.await;
        }));
        let (response, _) = send(&mut to, get("/"), true).await;
        let mut body = response.await.unwrap().into_body();
        clock::sleep(Duration::from_secs(60)).await;
        assert_eq!(text(&mut body).await.unwrap().len(), 6 * COUNT);
    });
}
