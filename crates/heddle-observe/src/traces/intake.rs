//! Where spans come in: a listener of its own, on which `POST /v1/traces` is OTLP over HTTP (protobuf, or its JSON),
//! `POST /api/v2/spans` is Zipkin's JSON, and HTTP/2 brings OTLP by gRPC as well ([`grpc`]). Senders are programs that
//! nobody here wrote: bodies, their number at a time, connections, times and spans per second are bounded, and who sends
//! too much is told to come again.

mod grpc;

use std::{
    cell::RefCell,
    convert::Infallible,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_runtime::{clock, task};
use heddle_wire::{
    gzip::{self, GzipError},
    trace::{otlp, read_otlp, read_zipkin, received::Batch, zipkin},
};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{self, HeaderValue},
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use self::grpc::Answer;
use super::{Dropped, Traces};
use crate::{lifetime::within_its_lifetime, limits};

/// Pause after a failed accept (out of descriptors): nothing else would slow the loop down.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first bytes of HTTP/2 that no request of HTTP/1 has.
const PREFACE: &[u8; 4] = b"PRI ";
/// Pause before the first bytes of a connection are looked at again.
const PEEK_PAUSE: Duration = Duration::from_millis(10);
/// What JSON is sent as.
const JSON: &str = "application/json";

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Intake {
    traces: Rc<RefCell<Traces>>,
    bodies: Semaphore,
    pace: RefCell<Pace>,
}

/// How many spans may come in at once: refilled with time, up to what a second gives.
#[derive(Debug)]
struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    fn is_open(&mut self, now: Instant) -> bool {
        let most = f64::from(limits::SPANS_PER_SECOND_MAX);
        let more = now.saturating_duration_since(self.at).as_secs_f64() * most;
        (self.left, self.at) = ((self.left + more).min(most), now);
        self.left > 0.0
    }
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    OtlpJson,
    Zipkin,
    Grpc,
}

/// An answer other than thanks.
struct Refused(StatusCode, String);

impl Intake {
    /// One that gives what comes to `traces`.
    pub(crate) fn new(traces: Rc<RefCell<Traces>>) -> Self {
        let pace = Pace { left: f64::from(limits::SPANS_PER_SECOND_MAX), at: clock::now() };
        let bodies = Semaphore::new(limits::SPANS_BODIES_MAX);
        Self { traces, bodies, pace: RefCell::new(pace) }
    }

    /// Serves for ever.
    pub(crate) async fn serve(self: Rc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(limits::SPAN_CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = Rc::clone(&self).connection(stream, permit);
                    drop(task::spawn_contained("spans connection", served));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection with spans");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let intake = Rc::clone(&self);
            async move { Ok::<_, Infallible>(intake.answer(request).await) }
        });
        // What a sender does wrong is its own to learn: it is answered, or cut off.
        if speaks_http2(&stream).await {
            let served = http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .keep_alive_interval(limits::SPANS_PING)
                .max_concurrent_streams(limits::SPANS_BODIES_MAX as u32)
                .max_header_list_size(limits::REQUEST_HEAD_BYTES_MAX as u32)
                .serve_connection(TokioIo::new(stream), service);
            within_its_lifetime(served, |one| one.graceful_shutdown()).await;
            drop(permit);
            return;
        }
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::REQUEST_HEAD_TIMEOUT)
            .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        within_its_lifetime(served, |one| one.graceful_shutdown()).await;
        drop(permit);
    }

    /// Answers one request.
    async fn answer<B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
        &self,
        request: Request<B>,
    ) -> Response<Answer> {
        let is_grpc = is_grpc(&request);
        match self.taken(request).await {
            Ok(form) => thanks(form),
            Err(Refused(status, reason)) if is_grpc => grpc::refused(status, &reason),
            Err(Refused(status, reason)) => {
                let body = serde_json::json!({ "error": reason, "message": reason }).to_string();
                let mut response = Response::new(Answer::from(Bytes::from(body)));
                *response.status_mut() = status;
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
                if status == StatusCode::TOO_MANY_REQUESTS {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
        }
    }

    async fn taken<B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>>(
        &self,
        request: Request<B>,
    ) -> Result<Form, Refused> {
        let (form, compressed) = form(&request)?;
        let busy = || {
            self.traces.borrow_mut().dropped(Dropped::TooFast, 1);
            let reason = "more spans come than are taken in; come again in a second";
            Refused(StatusCode::TOO_MANY_REQUESTS, reason.to_owned())
        };
        let Ok(_place) = self.bodies.try_acquire() else { return Err(busy()) };
        if !self.pace.borrow_mut().is_open(clock::now()) {
            return Err(busy());
        }
        let most = match form {
            Form::Protobuf | Form::Grpc => limits::SPANS_BODY_MAX,
            Form::OtlpJson | Form::Zipkin => limits::SPANS_JSON_BODY_MAX,
        };
        let read = Limited::new(request.into_body(), most).collect();
        let body = match clock::within(limits::SPANS_BODY_TIMEOUT, read).await {
            Some(Ok(body)) => body.to_bytes(),
            Some(Err(error)) => {
                self.traces.borrow_mut().dropped(Dropped::Malformed, 1);
                let reason = format!("the body cannot be read, of which {most} bytes are: {error}");
                return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            None => {
                let reason = "the body did not come in time".to_owned();
                return Err(Refused(StatusCode::REQUEST_TIMEOUT, reason));
            }
        };
        let (body, compressed) = match form {
            Form::Grpc => {
                let (message, flagged) = grpc::message(&body).map_err(|why| self.malformed(why))?;
                (message, compressed && flagged)
            }
            Form::Protobuf | Form::OtlpJson | Form::Zipkin => (body, compressed),
        };
        let body = if compressed { self.decompressed(&body, most)? } else { body };
        let read = match form {
            Form::Protobuf | Form::Grpc => read_otlp::read(&body, limits::SPANS_BODY_COUNT_MAX),
            Form::OtlpJson => read_otlp::read_json(&body, limits::SPANS_BODY_COUNT_MAX),
            Form::Zipkin => read_zipkin::read(&body, limits::SPANS_BODY_COUNT_MAX),
        };
        let Batch { spans, rejected } = read.map_err(|error| self.unreadable(error))?;
        self.pace.borrow_mut().left -= (spans.len() + rejected) as f64;
        let traces = &mut *self.traces.borrow_mut();
        traces.dropped(Dropped::Malformed, rejected);
        traces.take(spans, clock::now(), clock::unix_now());
        Ok(form)
    }

    fn decompressed(&self, body: &[u8], most: usize) -> Result<Bytes, Refused> {
        let whole = gzip::decompress(body, most).map_err(|error| match error {
            GzipError::TooLarge => Refused(StatusCode::PAYLOAD_TOO_LARGE, self.unreadable(error).1),
            GzipError::Malformed | GzipError::Checksum => self.unreadable(error),
        });
        whole.map(Bytes::from)
    }

    /// The body is nothing that holds spans.
    fn unreadable(&self, error: impl std::error::Error) -> Refused {
        self.malformed(error.to_string())
    }

    fn malformed(&self, why: String) -> Refused {
        self.traces.borrow_mut().dropped(Dropped::Malformed, 1);
        Refused(StatusCode::BAD_REQUEST, why)
    }
}

/// What a request brings, and whether that is compressed.
fn form<B>(request: &Request<B>) -> Result<(Form, bool), Refused> {
    let path = request.uri().path();
    if is_grpc(request) && path != otlp::GRPC_PATH {
        let reason = format!("of gRPC only {} is taken", otlp::GRPC_PATH);
        return Err(Refused(StatusCode::NOT_FOUND, reason));
    }
    let by_grpc = path == otlp::GRPC_PATH;
    if !by_grpc && path != otlp::PATH && path != zipkin::PATH {
        let reason = format!("spans are taken at {} and {}", otlp::PATH, zipkin::PATH);
        return Err(Refused(StatusCode::NOT_FOUND, reason));
    }
    if request.method() != Method::POST {
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "spans are sent by POST".to_owned()));
    }
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let coding = if by_grpc { grpc::ENCODING } else { header::CONTENT_ENCODING };
    let coding = field(coding).unwrap_or("identity").to_ascii_lowercase();
    let compressed = match coding.as_str() {
        "identity" => false,
        "gzip" | "x-gzip" => true,
        _ => {
            let reason = format!("spans are taken as they are or as gzip, not as {coding}");
            return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
    };
    let kind = field(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (path, kind.as_str()) {
        (otlp::GRPC_PATH, _) if is_grpc(request) => Ok((Form::Grpc, compressed)),
        (otlp::PATH, otlp::MEDIA_TYPE) => Ok((Form::Protobuf, compressed)),
        (otlp::PATH, JSON) => Ok((Form::OtlpJson, compressed)),
        // Any page may send texts to any address, and not this.
        (zipkin::PATH, JSON) => Ok((Form::Zipkin, compressed)),
        _ => {
            let reason = format!("`{kind}` is not taken at {path}");
            Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
        }
    }
}

/// By what it is sent as: `application/grpc`, `application/grpc+proto`.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.and_then(|kind| kind.strip_prefix(grpc::MEDIA_TYPE))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Does a connection begin as one of HTTP/2 (RFC 9113 §3.4)? It is waited for its first bytes.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    let looked = async {
        loop {
            let Ok(read @ 1..) = stream.peek(&mut first).await else { return false };
            if read >= PREFACE.len() || !PREFACE.starts_with(&first[..read]) {
                return first == *PREFACE;
            }
            // What is there is looked at again: nothing says when more is.
            clock::sleep(PEEK_PAUSE).await;
        }
    };
    clock::within(limits::REQUEST_HEAD_TIMEOUT, looked).await.unwrap_or(false)
}

/// Runs what a connection of HTTP/2 has going on on this thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(task::spawn_contained("spans stream", future));
    }
}

/// Each protocol has its own.
fn thanks(form: Form) -> Response<Answer> {
    let (status, kind, body) = match form {
        Form::Grpc => return grpc::thanks(),
        Form::Protobuf => (StatusCode::OK, otlp::MEDIA_TYPE, ""),
        Form::OtlpJson => (StatusCode::OK, JSON, "{}"),
        Form::Zipkin => (StatusCode::ACCEPTED, JSON, ""),
    };
    let mut response = Response::new(Answer::from(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
