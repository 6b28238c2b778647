//! A connection to a receiver of spans, and one batch after the other on it: HTTP/1.1 for Zipkin and OTLP/HTTP,
//! HTTP/2 for OTLP/gRPC. It neither connects nor tries again.

use std::time::Duration;

use bytes::Bytes;
use heddle_model::discovery::{CollectorAddress, SpanSink};
use heddle_runtime::task::spawn_contained;
use heddle_wire::trace::{
    B3, NOT_RECORDED,
    otlp::{self, ExportClient, ExportResponse},
    span::{Origin, Span},
    zipkin,
};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use crate::{discovery::channel, limits::SPANS_TIME, metrics::SpanResult};

/// Largest answer that is read.
const ANSWER_BYTES: usize = 64 << 10;
/// Of an answer that says no, so much is repeated.
const REASON_BYTES: usize = 200;

/// Why a batch was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended, or carries something else.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It says no, and would again.
    #[error("the receiver refuses them: {0}")]
    Refused(String),
    /// It says no, and may not the next time.
    #[error("the receiver cannot take them now: {0}")]
    Busy(String),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl SendError {
    /// May the same batch be taken the next time? One without an answer may have been taken already.
    pub(super) fn is_worth_another(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy(_))
    }

    /// As it is counted.
    pub(super) fn result(&self) -> SpanResult {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => SpanResult::Unreachable,
            Self::Refused(_) | Self::Busy(_) => SpanResult::Refused,
            Self::Late(_) => SpanResult::Timeout,
        }
    }
}

/// The connection.
pub(super) enum Link {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(Box<ExportClient>),
}

impl Link {
    /// Begins what is spoken on a connection.
    pub(super) async fn begin(sink: &SpanSink, stream: TcpStream) -> Result<Self, SendError> {
        match sink {
            SpanSink::Zipkin(_) | SpanSink::OtlpHttp(_) => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| SendError::Broken(error.to_string()))?;
                let connection = async {
                    // Whoever sends is told so.
                    let _ended = connection.await;
                };
                drop(spawn_contained("connection to a receiver of spans", connection));
                Ok(Self::Http(sender))
            }
            SpanSink::OtlpGrpc(_) => {
                let authority = authority(sink);
                let broken = |error: tonic::transport::Error| SendError::Broken(error.to_string());
                let endpoint =
                    Endpoint::from_shared(format!("http://{authority}")).map_err(broken)?;
                let channel = channel(endpoint, stream).await.map_err(broken)?;
                Ok(Self::Grpc(Box::new(ExportClient::new(channel))))
            }
        }
    }

    /// Can it still be used, as far as is known?
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Http(sender) => !sender.is_closed(),
            Self::Grpc(_) => true,
        }
    }

    /// Sends one batch; how many of its spans were not wanted.
    pub(super) async fn send(
        &mut self,
        sink: &SpanSink,
        origin: &Origin,
        batch: &[Span],
    ) -> Result<usize, SendError> {
        match self {
            Self::Http(sender) => post(sender, sink, origin, batch).await,
            Self::Grpc(client) => {
                let called = client.export(otlp::request(origin, batch)).await;
                called.map(|answer| rejected(&answer)).map_err(|status| match status.code() {
                    tonic::Code::Unavailable | tonic::Code::ResourceExhausted => {
                        SendError::Busy(status.message().to_owned())
                    }
                    // What a connection that has ended is told as.
                    tonic::Code::Unknown | tonic::Code::Cancelled => {
                        SendError::Broken(status.message().to_owned())
                    }
                    code => SendError::Refused(format!("{code:?}: {}", status.message())),
                })
            }
        }
    }
}

async fn post(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    sink: &SpanSink,
    origin: &Origin,
    batch: &[Span],
) -> Result<usize, SendError> {
    let (media_type, path, body) = match sink {
        SpanSink::Zipkin(to) => {
            (zipkin::MEDIA_TYPE, to.path.as_str(), zipkin::encode(origin, batch))
        }
        SpanSink::OtlpHttp(to) => (otlp::MEDIA_TYPE, to.path.as_str(), otlp::encode(origin, batch)),
        SpanSink::OtlpGrpc(_) => (otlp::MEDIA_TYPE, otlp::PATH, otlp::encode(origin, batch)),
    };
    let mut request = Request::post(path)
        .header(header::HOST, authority(sink))
        .header(header::CONTENT_TYPE, media_type)
        .header(header::USER_AGENT, concat!("heddle/", env!("CARGO_PKG_VERSION")))
        // Spans about the sending of spans would have no end, where the receiver has a sidecar.
        .header(B3, NOT_RECORDED)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| SendError::Refused(error.to_string()))?;
    let headers = match sink {
        SpanSink::OtlpHttp(to) => &to.headers[..],
        SpanSink::Zipkin(_) | SpanSink::OtlpGrpc(_) => &[],
    };
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            request.headers_mut().insert(name, value);
        }
    }
    let broken = |error: hyper::Error| SendError::Broken(error.to_string());
    sender.ready().await.map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| SendError::Broken(error.to_string()))?.to_bytes();
    if status.is_success() {
        let is_otlp = !matches!(sink, SpanSink::Zipkin(_));
        let said = ExportResponse::decode(&body[..]).ok().filter(|_| is_otlp);
        return Ok(said.map_or(0, |said| rejected(&said)));
    }
    let said = String::from_utf8_lossy(&body[..body.len().min(REASON_BYTES)]);
    let said = format!("HTTP {status}: {}", said.trim());
    let again = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    Err(if again.contains(&status) { SendError::Busy(said) } else { SendError::Refused(said) })
}

fn rejected(answer: &ExportResponse) -> usize {
    let said = answer.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
    usize::try_from(said).unwrap_or_default()
}

fn authority(sink: &SpanSink) -> String {
    let CollectorAddress { host, port } = address(sink);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Where it is.
pub(super) fn address(sink: &SpanSink) -> &CollectorAddress {
    match sink {
        SpanSink::Zipkin(zipkin) => &zipkin.to,
        SpanSink::OtlpGrpc(to) => to,
        SpanSink::OtlpHttp(otlp) => &otlp.to,
    }
}

/// Most time for one batch.
pub(super) fn time(sink: &SpanSink) -> Duration {
    match sink {
        SpanSink::OtlpHttp(otlp) => otlp.timeout.unwrap_or(SPANS_TIME),
        SpanSink::Zipkin(_) | SpanSink::OtlpGrpc(_) => SPANS_TIME,
    }
}
