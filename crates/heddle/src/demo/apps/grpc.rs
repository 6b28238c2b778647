//! Just enough gRPC for the demo: calls of one message each way, over HTTP/2 as it comes. A thread per
//! connection, and a client that keeps its connection and makes one call at a time.

use std::{
    io,
    net::{self, TcpListener},
    thread,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{net::TcpStream, runtime::Runtime};

/// How long a call may take, as over HTTP/1.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest message accepted, bytes.
const MESSAGE_MAX: usize = 1 << 16;
/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A status that is not OK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Status {
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    const INTERNAL: u32 = 13;
    const UNAVAILABLE: u32 = 14;

    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self::new(Self::UNAVAILABLE, error.to_string())
    }

    /// Does it tell of a server, and not of what was asked for?
    pub(super) fn is_failure(&self) -> bool {
        self.code != Self::NOT_FOUND
    }
}

type Answer = Result<Vec<u8>, Status>;

/// A message of one number: field 1, an unsigned one.
pub(super) fn number(mut value: u64) -> Vec<u8> {
    let mut message = vec![1 << 3];
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            message.push(low);
            return message;
        }
        message.push(low | 0x80);
    }
}

/// The number in such a message; 0 where it has none, as protobuf has it.
pub(super) fn read_number(message: &[u8]) -> Option<u64> {
    let Some((first, rest)) = message.split_first() else { return Some(0) };
    let mut value = 0_u64;
    for (at, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
        if byte & 0x80 == 0 {
            return (*first == 1 << 3).then_some(value);
        }
    }
    None
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn unframed(mut bytes: Bytes) -> Option<Bytes> {
    if bytes.len() < PREFIX || bytes.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(bytes.get_u32()).ok()?;
    (bytes.len() == length).then_some(bytes)
}

async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        if all.len() + part.len() <= MESSAGE_MAX {
            all.extend_from_slice(&part);
        }
    }
    Ok(all.freeze())
}

fn one_thread() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves `handler`, which is given the method's path, metadata and message, on `port` for ever.
pub(super) fn serve(
    port: u16,
    handler: impl Fn(&str, &HeaderMap, &[u8]) -> Answer + Clone + Send + 'static,
) -> io::Result<()> {
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    for stream in listener.incoming().flatten() {
        let handler = handler.clone();
        // Ends with the connection; an error means only that the client went away.
        thread::spawn(move || serve_connection(stream, &handler));
    }
    Ok(())
}

fn serve_connection(
    stream: net::TcpStream,
    handler: &(impl Fn(&str, &HeaderMap, &[u8]) -> Answer + Clone + Send + 'static),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    one_thread()?.block_on(async {
        let stream = TcpStream::from_std(stream)?;
        let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted.map_err(io::Error::other)?;
            let handler = handler.clone();
            // A call that its client gave up is no trouble of the others.
            tokio::spawn(async move { answer(request, respond, handler).await.ok() });
        }
        Ok(())
    })
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: impl Fn(&str, &HeaderMap, &[u8]) -> Answer,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let message = unframed(read(&mut body).await?);
    let answer = match message {
        Some(message) => handler(head.uri.path(), &head.headers, &message),
        None => Err(Status::new(Status::INTERNAL, "not one message")),
    };
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    match answer {
        Ok(message) => {
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(framed(&message), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers)
        }
        // A head that is all there is.
        Err(status) => {
            let fields = response.headers_mut();
            fields.insert("grpc-status", HeaderValue::from(status.code));
            let text = HeaderValue::from_str(&status.message);
            fields.insert("grpc-message", text.unwrap_or(HeaderValue::from_static("?")));
            respond.send_response(response, true).map(drop)
        }
    }
}

/// A client of one service that keeps its connection.
#[derive(Debug)]
pub(super) struct Client {
    host: &'static str,
    port: u16,
    runtime: Runtime,
    connection: Option<SendRequest<Bytes>>,
}

impl Client {
    pub(super) fn new(host: &'static str, port: u16) -> io::Result<Self> {
        Ok(Self { host, port, runtime: one_thread()?, connection: None })
    }

    /// One call; `metadata` goes with it.
    pub(super) fn call(
        &mut self,
        method: &str,
        metadata: &[(&'static str, &str)],
        message: &[u8],
    ) -> Answer {
        let Self { host, port, runtime, connection } = self;
        let call = async {
            let kept = match connection.take() {
                // It may have ended meanwhile.
                Some(kept) => kept.ready().await.ok(),
                None => None,
            };
            let mut ready = match kept {
                Some(ready) => ready,
                None => connect(host, *port).await.map_err(Status::unavailable)?,
            };
            let target = format!("http://{host}:{port}{method}");
            let answer = ask(&mut ready, &target, metadata, message).await;
            *connection = Some(ready);
            answer
        };
        runtime.block_on(in_time(call))
    }
}

#[expect(clippy::disallowed_methods, reason = "an application knows nothing of the mesh")]
async fn in_time(call: impl Future<Output = Answer>) -> Answer {
    let late = || Status::new(4, "no answer in time");
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

async fn connect(host: &str, port: u16) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.ready().await.map_err(io::Error::other)
}

async fn ask(
    sender: &mut SendRequest<Bytes>,
    target: &str,
    metadata: &[(&'static str, &str)],
    message: &[u8],
) -> Answer {
    let mut request =
        Request::post(target).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(Status::unavailable)?;
    let sent = sender.send_request(request, false);
    let (response, mut body) = sent.map_err(Status::unavailable)?;
    body.send_data(framed(message), true).map_err(Status::unavailable)?;
    let (head, mut body) = response.await.map_err(Status::unavailable)?.into_parts();
    let bytes = read(&mut body).await.map_err(Status::unavailable)?;
    let trailers = body.trailers().await.map_err(Status::unavailable)?;
    let fields = trailers.unwrap_or(head.headers);
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => {
            let message = unframed(bytes).map(Vec::from);
            message.ok_or_else(|| Status::new(Status::INTERNAL, "not one message"))
        }
        Some(code) => Err(Status::new(code, text("grpc-message").unwrap_or_default())),
        None => Err(Status::unavailable(format!("HTTP {} without a status", head.status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_its_message() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(read_number(&number(value)), Some(value), "{value}");
        }
        assert_eq!(number(300), [0x08, 0xac, 0x02], "as protobuf has it");
        assert_eq!(read_number(&[]), Some(0));
        assert_eq!(read_number(&[0x12, 1, b'a']), None, "another field");
        assert_eq!(read_number(&[0x08, 0x80]), None, "it ends within");
    }

    #[test]
    fn a_message_is_framed_by_its_length() {
        assert_eq!(&framed(b"ab")[..], [0, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(unframed(framed(b"ab")).as_deref(), Some(&b"ab"[..]));
        assert_eq!(unframed(Bytes::from_static(&[0, 0, 0, 0, 3, 1])), None);
        assert_eq!(unframed(Bytes::from_static(&[1, 0, 0, 0, 0])), None, "compressed");
    }

    #[test]
    fn a_client_gets_what_a_server_answers_and_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            serve_connection(stream, &|path: &str, fields: &HeaderMap, message: &[u8]| {
                let caller = fields.get("x-demo-caller").and_then(|one| one.to_str().ok());
                match (path, caller) {
                    ("/a.B/Twice", Some("test")) => {
                        Ok(number(2 * read_number(message).unwrap_or_default()))
                    }
                    _ => Err(Status::new(Status::NOT_FOUND, "no such thing")),
                }
            })
        });
        let mut client = Client::new("127.0.0.1", port).unwrap();
        for value in [1, 21] {
            let answer = client.call("/a.B/Twice", &[("x-demo-caller", "test")], &number(value));
            assert_eq!(read_number(&answer.unwrap()), Some(2 * value));
        }
        let refused = client.call("/a.B/Other", &[], &[]).unwrap_err();
        assert_eq!(refused, Status::new(5, "no such thing"));
        assert!(!refused.is_failure());
    }
}
