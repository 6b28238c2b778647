//! Answers of the admin server: whole, or in pieces that are made as the peer takes them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use heddle_runtime::clock;
use http_body_util::{Either, Full};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame},
    header::{CONTENT_TYPE, HeaderValue},
};

use tokio::sync::mpsc;

use super::tapped::Lines;
use crate::metrics::exposition::Exposition;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// The body of an answer.
pub(super) type Page = Either<Full<Bytes>, Either<Pieces, Lines>>;

/// A scrape. One piece is made when the one before it has been written, so a peer that does
/// not read costs no more than two.
#[derive(Debug)]
pub(super) struct Pieces {
    scrape: Exposition,
    /// What the application has to say behind it.
    application: Option<mpsc::Receiver<Bytes>>,
    /// Whoever has not taken it all by then is reading a byte at a time.
    until: Instant,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if clock::now() >= self.until {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        if let Some(piece) = self.scrape.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.application {
            Some(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|one| Ok(Frame::data(one))))
            }
            None => Poll::Ready(None),
        }
    }
}

/// An answer that is there.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Page> {
    response(status, content_type, Either::Left(Full::new(body.into())))
}

/// A scrape and then what the application says, to be taken before `until`.
pub(super) fn pieces(
    content_type: &'static str,
    (scrape, application): (Exposition, Option<mpsc::Receiver<Bytes>>),
    until: Instant,
) -> Response<Page> {
    response(
        StatusCode::OK,
        content_type,
        Either::Right(Either::Left(Pieces { scrape, application, until })),
    )
}

/// Lines as they come.
pub(super) fn lines(content_type: &'static str, lines: Lines) -> Response<Page> {
    response(StatusCode::OK, content_type, Either::Right(Either::Right(lines)))
}

fn response(status: StatusCode, content_type: &'static str, page: Page) -> Response<Page> {
    let mut response = Response::new(page);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
