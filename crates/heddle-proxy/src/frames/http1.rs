//! HTTP/1 taken apart: heads as values, and what is read of a body as frames. It reads from no
//! connection.

use bytes::Bytes;
use h2::Reason;
use heddle_wire::http1::{
    self, Fields, HeadError, KnownHeader, Method, Part, Progress, RequestHead, Response, Scan,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request, uri};

use super::{Frame, Head, Reset, clean_trailers, strip_hop_by_hop};
use crate::refusal::Refusal;

/// The head of a request of HTTP/1 that was made ready to go on, as it goes to a server of HTTP/2.
///
/// # Errors
/// A refusal, where a method, target or field has no place in HTTP/2.
pub(crate) fn request_head(raw: &[u8]) -> Result<request::Parts, Refusal> {
    let mut head = RequestHead::new();
    head.allow_additions();
    if head.scan(raw)? != Scan::Complete {
        return Err(HeadError::TooLarge.into());
    }
    let view = head.view(raw);
    let unfit =
        |what: &str| Refusal::BadRequest(format!("its {what} has no place in HTTP/2").into());
    let mut headers = fields_of(view.fields()).ok_or_else(|| unfit("fields"))?;
    strip_hop_by_hop(&mut headers);
    headers.remove(http::header::HOST);
    let mut target = uri::Parts::default();
    // HTTP/2 has no request without one (RFC 9113 §8.3.1 leaves it to the client; h2 does not).
    target.authority = Some(view.authority().parse().map_err(|_| unfit("host"))?);
    if head.method() != Method::Connect {
        target.scheme = Some(uri::Scheme::HTTP);
        target.path_and_query = Some(view.target().parse().map_err(|_| unfit("target"))?);
    }
    let uri = Uri::from_parts(target).map_err(|_| unfit("target"))?;
    let built = http::Request::builder().method(view.method()).uri(uri).body(());
    let (mut parts, ()) = built.map_err(|_| unfit("method"))?.into_parts();
    parts.headers = headers;
    parts.version = http::Version::HTTP_2;
    Ok(parts)
}

/// A response's head of HTTP/1 without its version.
///
/// # Errors
/// A refusal, where a field cannot be passed on.
pub(crate) fn response_head(response: Response<'_>) -> Result<Head, Refusal> {
    let unfit = || Refusal::BadResponse("a field of its head has no place in HTTP/2".into());
    let mut fields = fields_of(response.fields()).ok_or_else(unfit)?;
    strip_hop_by_hop(&mut fields);
    fields.remove(http::header::CONTENT_LENGTH);
    let length = response.fields().known(KnownHeader::ContentLength);
    let length = length.and_then(|text| str::from_utf8(text).ok()?.trim().parse().ok());
    Ok(Head { status: response.head().status(), fields, length })
}

fn fields_of(fields: Fields<'_>) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.count());
    for (name, value) in fields.iter() {
        append(&mut map, name, value)?;
    }
    Some(map)
}

fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    map.append(name, HeaderValue::from_bytes(value.trim_ascii()).ok()?);
    Some(())
}

/// A body of HTTP/1 on its way to frames.
#[derive(Debug)]
pub(crate) struct Parts {
    body: http1::Body,
    trailers: HeaderMap,
}

/// What was found in the bytes given.
#[derive(Debug)]
pub(crate) struct Found {
    /// Bytes that are done with.
    pub(crate) consumed: usize,
    pub(crate) frame: Option<Frame>,
    pub(crate) progress: Progress,
}

impl Parts {
    pub(crate) fn new(body: http1::Body) -> Self {
        Self { body, trailers: HeaderMap::new() }
    }

    /// The next piece of data in `input`; trailers are kept for [`Self::end`].
    ///
    /// # Errors
    /// A reset, where the coding is broken.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Found, Reset> {
        let mut consumed = 0;
        loop {
            let broken = |_| Reset(Reason::PROTOCOL_ERROR);
            let (run, part) = self.body.part(&input[consumed..]).map_err(broken)?;
            let piece = &input[consumed..][run.forward];
            consumed += run.consumed;
            let progress = run.progress;
            match part {
                Part::Data if !piece.is_empty() => {
                    let frame = Some(Frame::Data(Bytes::copy_from_slice(piece)));
                    return Ok(Found { consumed, frame, progress });
                }
                Part::Data => {}
                Part::Trailer => self.trailer(piece)?,
            }
            if progress != Progress::More {
                return Ok(Found { consumed, frame: None, progress });
            }
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Reset> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or_default();
        append(&mut self.trailers, name, value).ok_or(Reset(Reason::PROTOCOL_ERROR))
    }

    /// What is left when the body is complete: its trailers, once.
    pub(crate) fn end(&mut self) -> Option<Frame> {
        clean_trailers(&mut self.trailers);
        if self.trailers.is_empty() {
            return None;
        }
        Some(Frame::Trailers(std::mem::take(&mut self.trailers)))
    }

    /// Is all of it seen and given?
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_done() && self.trailers.is_empty()
    }

    /// Is all of it seen?
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// The sender's side of the connection has ended.
    pub(crate) fn eof(&mut self) -> http1::BodyEnd {
        self.body.eof()
    }
}
