//! OTLP by gRPC, as far as the intake needs it: one message in its frame, and statuses in trailers (gRPC over HTTP/2).
//! What is in the message is `intake`'s.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};

/// What calls are sent as; behind it may stand how messages are written.
pub(super) const MEDIA_TYPE: &str = "application/grpc";
/// How a message may be compressed.
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Before a message stand a flag and its length.
const PREFIX: usize = 5;
/// Longest text of a status, bytes.
const MESSAGE_MAX: usize = 512;

/// A body that is there as a whole, and what follows it.
#[derive(Debug)]
pub(super) struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl From<Bytes> for Answer {
    fn from(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let next = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// The one message of a call, and whether it is compressed.
///
/// # Errors
/// What is wrong with the body.
pub(super) fn message(body: &Bytes) -> Result<(Bytes, bool), String> {
    let Some((prefix, rest)) = body.split_at_checked(PREFIX) else {
        return Err(format!("the body is no message of gRPC: it has {} bytes", body.len()));
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] > 1 || rest.len() as u64 != u64::from(length) {
        let (flag, rest) = (prefix[0], rest.len());
        return Err(format!(
            "the body is not one message of gRPC: flag {flag}, {length} bytes told, {rest} there"
        ));
    }
    Ok((body.slice(PREFIX..), prefix[0] == 1))
}

/// Thanks: an empty message, and the status.
pub(super) fn thanks() -> Response<Answer> {
    let data = Some(Bytes::from_static(&[0; PREFIX]));
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    answered(Answer { data, trailers: Some(trailers) })
}

/// A call that is refused, as gRPC says it. Senders try those again that are told to be unavailable.
pub(super) fn refused(status: StatusCode, reason: &str) -> Response<Answer> {
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS => "14",
        StatusCode::REQUEST_TIMEOUT => "4",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::PAYLOAD_TOO_LARGE => "8",
        _ => "3",
    };
    let mut response = answered(Answer { data: None, trailers: None });
    let headers = response.headers_mut();
    headers.insert(STATUS, HeaderValue::from_static(code));
    let text: String = reason.chars().filter(|one| (' '..='~').contains(one)).collect();
    let text = text.replace('%', "%25");
    if let Ok(value) = HeaderValue::from_str(&text[..text.len().min(MESSAGE_MAX)]) {
        headers.insert(MESSAGE, value);
    }
    response
}

fn answered(body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}
