//! A connection to a receiver, and one batch after the other on it: HTTP/1.1 for Zipkin and OTLP/HTTP, HTTP/2 for
//! OTLP/gRPC. It neither connects nor tries again.

use std::{env, time::Duration};

use bytes::Bytes;
use heddle_model::discovery::{Collector, SentField};
use heddle_runtime::task::spawn_contained;
use heddle_wire::trace::{
    B3, NOT_RECORDED,
    otlp::{ExportClient, ExportResponse},
    span::Origin,
};
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Endpoint;

use super::sink::{Post, Sink};
use crate::{discovery::channel, metrics::ExportResult};

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
    pub(super) fn result(&self) -> ExportResult {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => ExportResult::Unreachable,
            Self::Refused(_) | Self::Busy(_) => ExportResult::Refused,
            Self::Late(_) => ExportResult::Timeout,
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
    pub(super) async fn begin<S, C>(sink: &S, stream: C) -> Result<Self, SendError>
    where
        S: Sink,
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if sink.is_grpc() {
            let authority = authority(sink.collector());
            let broken = |error: tonic::transport::Error| SendError::Broken(error.to_string());
            // The TLS below is none of tonic's; what is told of it is.
            let scheme = if sink.collector().tls.is_some() { "https" } else { "http" };
            let origin = format!("{scheme}://{authority}").parse::<Uri>();
            let origin = origin.map_err(|error| SendError::Broken(error.to_string()))?;
            let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(broken)?;
            let endpoint = endpoint.origin(origin);
            let channel = channel(endpoint, stream).await.map_err(broken)?;
            return Ok(Self::Grpc(Box::new(ExportClient::new(channel))));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::Broken(error.to_string()))?;
        let connection = async {
            // Whoever sends is told so.
            let _ended = connection.await;
        };
        drop(spawn_contained("connection to a receiver", connection));
        Ok(Self::Http(sender))
    }

    /// Can it still be used, as far as is known?
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Http(sender) => !sender.is_closed(),
            Self::Grpc(_) => true,
        }
    }

    /// Sends one batch; how many of its items were not wanted.
    pub(super) async fn send<S: Sink>(
        &mut self,
        sink: &S,
        origin: &Origin,
        batch: &[S::Item],
    ) -> Result<usize, SendError> {
        let fields = fields(&sink.collector().headers);
        let client = match self {
            Self::Http(sender) => {
                let post = sink.post(origin, batch);
                let post = post.ok_or_else(|| SendError::Refused("by HTTP".to_owned()))?;
                return send_post(sender, &authority(sink.collector()), post, &fields).await;
            }
            Self::Grpc(client) => client,
        };
        let called = client.export(S::GRPC_PATH, sink.batch(origin, batch), &fields).await;
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

/// Fields that go with a batch, by name and value; one of a variable that is not set is left out.
fn fields(of: &[SentField]) -> Vec<(String, String)> {
    let value = |one: &SentField| match one.from_environment {
        true => env::var(&one.value).ok(),
        false => Some(one.value.clone()),
    };
    of.iter().filter_map(|one| Some((one.name.clone(), value(one)?))).collect()
}

/// Says which fields do not go with any batch, because of what their variable holds now.
pub(super) fn warn_of_lost(to: &Collector) {
    for one in to.headers.iter().filter(|one| one.from_environment) {
        let holds = env::var(&one.value);
        if holds.is_ok_and(|value| value.parse::<HeaderValue>().is_err()) {
            let (host, variable) = (&to.host, &one.value);
            tracing::warn!(%host, %variable, "what the variable holds is no header's value: `{}` is not sent", one.name);
        }
    }
}

async fn send_post(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    authority: &str,
    post: Post<'_>,
    fields: &[(String, String)],
) -> Result<usize, SendError> {
    let mut request = Request::post(post.path)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, post.media_type)
        .header(header::USER_AGENT, concat!("heddle/", env!("CARGO_PKG_VERSION")))
        // Spans about the sending of spans would have no end, where the receiver has a sidecar.
        .header(B3, NOT_RECORDED)
        .body(Full::new(Bytes::from(post.body)))
        .map_err(|error| SendError::Refused(error.to_string()))?;
    for (name, value) in fields {
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
        let said = ExportResponse::decode(&body[..]).ok().filter(|_| post.is_otlp);
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

fn authority(to: &Collector) -> String {
    let Collector { host, port, .. } = to;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
