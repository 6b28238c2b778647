//! A small HTTP/1 client for the local JSON APIs: one connection per call, over a path socket or to
//! a TCP address on this machine. Never used on the data path.
//!
//! Calls over a path socket have no time limit of their own (some wait on purpose): wrap them in
//! [`crate::clock::within`].

use std::{io, net::SocketAddr, path::Path, pin::pin, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

pub use hyper::Method;

use crate::{net, task};

/// Largest answer that is read, bytes.
pub const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Time limit of a whole [`get_tcp`].
pub const GET_TIME_MAX: Duration = Duration::from_secs(5);

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, if sent and readable.
    pub content_type: Option<String>,
    /// Body.
    pub body: Bytes,
}

/// An answer whose head has come; its body is still to be read.
pub type Opened = Response<Incoming>;

/// Why a call gave no value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("nothing answers at {peer}: {source}")]
    NotRunning {
        /// The path or address.
        peer: String,
        /// What connecting said.
        source: io::Error,
    },
    /// It answered no (a status of 400 or more).
    #[error("{peer} refused with HTTP {status}: {}", String::from_utf8_lossy(body))]
    Refused {
        /// The path or address.
        peer: String,
        /// HTTP status.
        status: u16,
        /// Body, as sent.
        body: Vec<u8>,
    },
    /// The conversation broke off.
    #[error("the conversation with {peer} broke off: {reason}")]
    Broken {
        /// The path or address.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// The answer is not the JSON expected.
    #[error("{peer} answered something else than expected: {source}")]
    Unexpected {
        /// The path or address.
        peer: String,
        /// Where the JSON differs.
        source: serde_json::Error,
    },
    /// No answer in time.
    #[error("{peer} did not answer within {} s", limit.as_secs())]
    Late {
        /// The path or address.
        peer: String,
        /// The limit.
        limit: Duration,
    },
    /// The request itself cannot be sent: a path that is no URI, or a body that is no JSON.
    #[error("the request for {path} cannot be written: {reason}")]
    Request {
        /// The request's path.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Calls `method path` on the path socket, with `body` as JSON, and reads the answer as JSON. An
/// empty 2xx answer reads as `null`.
///
/// # Errors
/// [`CallError::NotRunning`] if nobody listens on `socket`, [`CallError::Refused`] for a status of
/// 400 or more, else as the variants say.
pub async fn call<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<T, CallError> {
    let peer = socket.display().to_string();
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| CallError::NotRunning { peer: peer.clone(), source })?;
    // Callers' own futures stay small.
    Box::pin(call_on(&peer, stream, Ask::new(&method, path), body)).await
}

/// A call on a connection that is there.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    method: &'a Method,
    path: &'a str,
    host: &'a str,
    bearer: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// `method path`, of `localhost`, by nobody in particular.
    #[must_use]
    pub fn new(method: &'a Method, path: &'a str) -> Self {
        Self { method, path, host: "localhost", bearer: None }
    }

    /// The same of this host, by the holder of this token (RFC 6750).
    #[must_use]
    pub fn by(self, host: &'a str, token: &'a str) -> Self {
        Self { host, bearer: Some(token), ..self }
    }
}

/// As [`call`], on a connection that is there already, which ends with it. `peer` is its name in errors.
///
/// # Errors
/// As for [`call`], but for [`CallError::NotRunning`].
pub async fn call_on<T: DeserializeOwned>(
    peer: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    ask: Ask<'_>,
    body: Option<&impl Serialize>,
) -> Result<T, CallError> {
    let mut request = request(ask.method.clone(), ask.host, ask.path, body)?;
    if let Some(token) = ask.bearer {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let value = value.map_err(|error| CallError::Request {
            path: ask.path.to_owned(),
            reason: error.to_string(),
        })?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let peer = peer.to_owned();
    let answer = exchange(&peer, stream, request).await?;
    if answer.status >= 400 {
        return Err(CallError::Refused { peer, status: answer.status, body: answer.body.to_vec() });
    }
    let text: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
    serde_json::from_slice(text).map_err(|source| CallError::Unexpected { peer, source })
}

/// `GET path` from a TCP address, any status, within [`GET_TIME_MAX`].
///
/// # Errors
/// As the variants of [`CallError`] say; a status is no error.
pub async fn get_tcp(address: SocketAddr, path: &str) -> Result<Answer, CallError> {
    let peer = address.to_string();
    let request = request(Method::GET, &peer, path, None::<&()>)?;
    let whole = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| CallError::NotRunning { peer: peer.clone(), source })?;
        exchange(&peer, stream, request).await
    };
    crate::clock::within(GET_TIME_MAX, whole)
        .await
        .unwrap_or_else(|| Err(CallError::Late { peer: peer.clone(), limit: GET_TIME_MAX }))
}

/// Sends `GET path` to a TCP address and returns the answer's head, any status; its body is still to
/// be read. Without a time limit of its own.
///
/// Panics outside of [`crate::task::run_local`].
///
/// # Errors
/// As the variants of [`CallError`] say.
pub async fn open_tcp(
    address: SocketAddr,
    path: &str,
    accept: &str,
) -> Result<Response<Incoming>, CallError> {
    let peer = address.to_string();
    let stream = net::connect_tcp(address, None)
        .await
        .map_err(|source| CallError::NotRunning { peer: peer.clone(), source })?;
    open_on(&peer, stream, path, ("accept", accept)).await
}

/// As [`open_tcp`], on a connection that is there already, with this field. `peer` is its name in errors.
///
/// Panics outside of [`crate::task::run_local`].
///
/// # Errors
/// As for [`open_tcp`], but for [`CallError::NotRunning`].
pub async fn open_on<S>(
    peer: &str,
    stream: S,
    path: &str,
    (name, value): (&'static str, &str),
) -> Result<Response<Incoming>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut request = request(Method::GET, peer, path, None::<&()>)?;
    let headers = request.headers_mut();
    let value = HeaderValue::from_str(value);
    let value = value.map_err(|error| broken(peer, format!("`{name}`: {error}")))?;
    headers.insert(HeaderName::from_static(name), value);
    let (mut sender, connection) = handshake(peer, stream).await?;
    drop(task::spawn_contained("http connection", async {
        // Its end is the body's end; an error shows there too.
        let _ended = connection.await;
    }));
    sender.send_request(request).await.map_err(|error| broken(peer, error.to_string()))
}

async fn handshake<S>(
    peer: &str,
    stream: S,
) -> Result<(http1::SendRequest<Full<Bytes>>, http1::Connection<TokioIo<S>, Full<Bytes>>), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    shaken.map_err(|error| broken(peer, error.to_string()))
}

fn broken(peer: &str, reason: String) -> CallError {
    CallError::Broken { peer: peer.to_owned(), reason }
}

fn request(
    method: Method,
    host: &str,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, CallError> {
    let unwritable = |reason: String| CallError::Request { path: path.to_owned(), reason };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    let bytes = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(serde_json::to_vec(body).map_err(|error| unwritable(error.to_string()))?)
        }
        None => Bytes::new(),
    };
    request.body(Full::new(bytes)).map_err(|error| unwritable(error.to_string()))
}

async fn exchange<S>(
    peer: &str,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = handshake(peer, stream).await?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        read(response).await
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    // The connection must be driven beside the answer; when it ends first, what it has already
    // received is still to be taken.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    };
    answer.map_err(|reason| broken(peer, reason))
}

async fn read(response: Response<Incoming>) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
    let content_type = head.headers.get(header::CONTENT_TYPE);
    Ok(Answer {
        status: head.status.as_u16(),
        content_type: content_type.and_then(|value| value.to_str().ok()).map(str::to_owned),
        body: body.to_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixListener},
    };

    use super::*;

    /// Answers one connection with `text` once the request's head and body have come.
    async fn answer_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let count = stream.read(&mut buffer).await.expect("reads");
            request.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |value| value.parse().expect("a number"));
            if body.len() >= length {
                break;
            }
        }
        stream.write_all(text.as_bytes()).await.expect("writes");
        String::from_utf8(request).expect("text")
    }

    fn socket_path(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("heddle-{name}-{}.sock", std::process::id()));
        let _absent = std::fs::remove_file(&path);
        path
    }

    async fn called(name: &str, answer: &str) -> (Result<BTreeMap<String, u8>, CallError>, String) {
        let path = socket_path(name);
        let listener = UnixListener::bind(&path).expect("binds");
        let body = BTreeMap::from([("n", 1)]);
        let (result, request) =
            tokio::join!(call(&path, Method::POST, "/v1/x", Some(&body)), async {
                let (stream, _) = listener.accept().await.expect("accepts");
                answer_once(stream, answer).await
            });
        std::fs::remove_file(&path).expect("removes");
        (result, request)
    }

    #[tokio::test]
    async fn json_goes_and_comes() {
        let (result, request) =
            called("json", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").await;
        assert_eq!(result.expect("answered"), BTreeMap::from([("a".to_owned(), 1)]));
        assert!(request.starts_with("POST /v1/x HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("{\"n\":1}"), "{request}");
    }

    #[tokio::test]
    async fn a_refusal_carries_its_status_and_body() {
        let (result, _) =
            called("refused", "HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno").await;
        match result.expect_err("refused") {
            CallError::Refused { status: 409, body, .. } => assert_eq!(body, b"no"),
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_a_broken_answer() {
        let nobody: Result<(), _> =
            call(&socket_path("nobody"), Method::GET, "/", None::<&()>).await;
        assert!(matches!(nobody, Err(CallError::NotRunning { .. })));
        let (result, _) = called("torn", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
        assert!(matches!(result, Err(CallError::Broken { .. })), "{result:?}");
        let (result, _) = called("other", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7").await;
        assert!(matches!(result, Err(CallError::Unexpected { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_tcp_answer_delimited_by_close_is_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (answer, request) = tokio::join!(get_tcp(address, "/stats/prometheus"), async {
            let (stream, _) = listener.accept().await.expect("accepts");
            answer_once(stream, "HTTP/1.1 503 Busy\r\ncontent-type: text/plain\r\n\r\nup 1\n").await
        });
        let answer = answer.expect("answered");
        assert_eq!((answer.status, &*answer.body), (503, &b"up 1\n"[..]));
        assert_eq!(answer.content_type.as_deref(), Some("text/plain"));
        assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
    }
}
