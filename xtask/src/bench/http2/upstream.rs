//! The application behind the measured proxy: HTTP/2 with prior knowledge; answers with 1 KB, calls of
//! gRPC with a message and trailers. Started by `http2` in a namespace of its own.

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

/// Body of every answer.
const BODY: &[u8] = &[b'x'; 1024];
/// A message of 64 bytes, as gRPC frames it.
const MESSAGE: &[u8] = &{
    let mut message = [b'm'; 5 + 64];
    (message[0], message[1], message[2], message[3], message[4]) = (0, 0, 0, 0, 64);
    message
};

/// Serves `ADDR:PORT` (one argument) until it is killed.
pub(in crate::bench) fn run(words: &[&str]) -> Result<(), String> {
    let address = words.first().ok_or("usage: bench upstream-http2 ADDR:PORT")?.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(&address).await.map_err(|e| format!("{address}: {e}"))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
            // Ends when the proxy closes.
            tokio::task::spawn_local(serve(stream));
        }
    })
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let _slower = stream.set_nodelay(true);
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1_000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        // A request that was reset is nobody's business here.
        let _reset = answer(&request, respond);
    }
    Ok(())
}

fn answer(
    request: &Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| kind.as_bytes() == b"application/grpc");
    let mut response = Response::new(());
    let kind = if grpc { "application/grpc" } else { "text/plain" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if !grpc {
        response.headers_mut().insert(header::SERVER, HeaderValue::from_static("upstream"));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(BODY.len()));
        return respond.send_response(response, false)?.send_data(Bytes::from_static(BODY), true);
    }
    let mut body = respond.send_response(response, false)?;
    body.send_data(Bytes::from_static(MESSAGE), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    body.send_trailers(trailers)
}
