//! A response by its parts, written to a client of HTTP/1: a reply of the mesh's own, and whatever does
//! not arrive as bytes of HTTP/1.

use std::{future::poll_fn, io::Write as _, task::Poll};

use heddle_runtime::transport::WriteHalf;
use heddle_wire::http1::{CHUNK_END, Method, Version, chunk_head, reason};
use http::HeaderMap;

use super::{Frame, Frames, Head, Reset, clean_trailers};
use crate::{
    buffers::{Lent, Output},
    limits::COPY_BYTES,
    record::RequestOutcome,
    refusal::{Cut, Failure},
};

/// What a client of HTTP/1 can be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipient {
    /// Of its request; `None` if that could not be read.
    pub(crate) method: Option<Method>,
    pub(crate) version: Version,
    /// Does its connection stay open behind the response?
    pub(crate) persists: bool,
}

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delimited {
    /// There is none.
    Bodiless,
    /// By a length; so many bytes are left.
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Sends a response to a client of HTTP/1: head and what is at hand of the body in one write. The
/// caller ends the connection where it does not stay ([`stays`]), or where this fails.
///
/// # Errors
/// [`Failure::ClientGone`], or [`Failure::Cut`] if the body broke off: the client must notice.
pub(crate) async fn send_response(
    to: &mut WriteHalf<'_>,
    head: &Head,
    frames: &mut impl Frames,
    recipient: Recipient,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    let mut out = Lent::<Output>::take();
    let mut body = delimited(head, recipient);
    write_head(&mut out.0, head, recipient, body);
    if recipient.method == Some(Method::Head) || body == Delimited::Bodiless {
        return flush(to, &mut out.0, outcome).await;
    }
    loop {
        let frame = match next(frames).await {
            Next::Frame(frame) => frame,
            Next::Waiting => {
                flush(to, &mut out.0, outcome).await?;
                poll_fn(|context| frames.poll_frame(context)).await
            }
        };
        match frame {
            None => break write_end(&mut out.0, body, &HeaderMap::new())?,
            Some(Ok(Frame::Data(data))) => write_data(&mut out.0, &mut body, &data)?,
            Some(Ok(Frame::Trailers(mut fields))) => {
                clean_trailers(&mut fields);
                break write_end(&mut out.0, body, &fields)?;
            }
            Some(Err(Reset(_))) => {
                flush(to, &mut out.0, outcome).await?;
                return Err(broken_off(body));
            }
        }
        if out.0.len() > COPY_BYTES {
            flush(to, &mut out.0, outcome).await?;
        }
    }
    flush(to, &mut out.0, outcome).await
}

/// What is there of a body right now.
enum Next {
    Frame(Option<Result<Frame, Reset>>),
    Waiting,
}

async fn next(frames: &mut impl Frames) -> Next {
    poll_fn(|context| {
        Poll::Ready(match frames.poll_frame(context) {
            Poll::Ready(frame) => Next::Frame(frame),
            Poll::Pending => Next::Waiting,
        })
    })
    .await
}

fn delimited(head: &Head, recipient: Recipient) -> Delimited {
    match (head.status, head.length, recipient.version) {
        (100..=199 | 204 | 304, ..) => Delimited::Bodiless,
        (_, Some(length), _) => Delimited::Length(length),
        (_, None, Version::Http11) => Delimited::Chunked,
        (_, None, Version::Http10) => Delimited::Close,
    }
}

/// Does the client's connection stay open behind this response?
pub(crate) fn stays(head: &Head, recipient: Recipient) -> bool {
    recipient.persists && delimited(head, recipient) != Delimited::Close
}

fn write_head(out: &mut Vec<u8>, head: &Head, recipient: Recipient, body: Delimited) {
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", head.status, reason(head.status));
    write_fields(out, &head.fields);
    let _ = match body {
        Delimited::Bodiless | Delimited::Close => Ok(()),
        Delimited::Length(length) => write!(out, "content-length: {length}\r\n"),
        Delimited::Chunked => write!(out, "transfer-encoding: chunked\r\n"),
    };
    out.extend_from_slice(match (stays(head, recipient), recipient.version) {
        (true, Version::Http10) => b"connection: keep-alive\r\n\r\n",
        (true, Version::Http11) => b"\r\n",
        (false, _) => b"connection: close\r\n\r\n",
    });
}

/// Neither names nor values of the type can end a line.
pub(crate) fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

pub(crate) fn write_data(
    out: &mut Vec<u8>,
    body: &mut Delimited,
    data: &[u8],
) -> Result<(), Failure> {
    match body {
        Delimited::Bodiless => {}
        Delimited::Length(left) => match left.checked_sub(data.len() as u64) {
            Some(rest) => {
                *left = rest;
                out.extend_from_slice(data);
            }
            // More than its head announced: none of it could be told from the next response.
            None => return Err(Failure::Cut(Cut::Closed)),
        },
        Delimited::Chunked if data.is_empty() => {}
        Delimited::Chunked => {
            out.extend_from_slice(chunk_head(data.len(), &mut [0; 18]));
            out.extend_from_slice(data);
            out.extend_from_slice(CHUNK_END);
        }
        Delimited::Close => out.extend_from_slice(data),
    }
    Ok(())
}

/// The end of a whole body. Trailers go only where HTTP/1 has a place for them.
pub(crate) fn write_end(
    out: &mut Vec<u8>,
    body: Delimited,
    trailers: &HeaderMap,
) -> Result<(), Failure> {
    match body {
        Delimited::Bodiless | Delimited::Close | Delimited::Length(0) => Ok(()),
        Delimited::Length(_) => Err(Failure::Cut(Cut::Closed)),
        Delimited::Chunked => {
            out.extend_from_slice(b"0\r\n");
            write_fields(out, trailers);
            out.extend_from_slice(b"\r\n");
            Ok(())
        }
    }
}

/// Where the end of the connection is the end of the body, only a reset says that it is not.
fn broken_off(body: Delimited) -> Failure {
    Failure::Cut(if body == Delimited::Close { Cut::Reset } else { Cut::Closed })
}

async fn flush(
    to: &mut WriteHalf<'_>,
    out: &mut Vec<u8>,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    if out.is_empty() {
        return Ok(());
    }
    to.write_all(out).await.map_err(|_| Failure::ClientGone)?;
    outcome.sent(out.len() as u64);
    out.clear();
    Ok(())
}

/// Passes an interim head on; a client of HTTP/1.0 knows none.
///
/// # Errors
/// [`Failure::ClientGone`].
pub(crate) async fn send_interim(
    to: &mut WriteHalf<'_>,
    head: &Head,
    recipient: Recipient,
    outcome: &RequestOutcome,
) -> Result<(), Failure> {
    if recipient.version == Version::Http10 {
        return Ok(());
    }
    let mut out = Lent::<Output>::take();
    let _ = write!(out.0, "HTTP/1.1 {} {}\r\n", head.status, reason(head.status));
    write_fields(&mut out.0, &head.fields);
    out.0.extend_from_slice(b"\r\n");
    flush(to, &mut out.0, outcome).await
}

#[cfg(test)]
mod tests;
