//! A client's stream of HTTP/2 as the frames of an exchange.

use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use heddle_logic::{HeaderEdit, retry};
use http::{HeaderValue, header};

use super::{
    by_frames::Resent,
    framed::{Kept, Responder, Upload},
};
use crate::{
    compared::{Watch, Watched},
    frames::{Frame, Frames, Head, Reset, apply, bytes_of},
    http2::{Stopped, poll_received, pump},
    messages::CallMessages,
    record::RequestOutcome,
    refusal::{Cut, Failure, Refusal},
    tee::Tee,
};

/// A request's body, of which the beginning is kept in case it has to be sent again.
#[derive(Debug)]
pub(crate) struct Http2Upload {
    stream: RecvStream,
    trailed: bool,
    ended: bool,
    kept: Vec<Frame>,
    kept_bytes: usize,
    /// Of `kept`, so many were given on this attempt.
    given: usize,
    is_kept: Kept,
    /// Bytes that came.
    pub(crate) received: u64,
    /// Who gets a copy.
    pub(crate) tee: Option<Tee>,
    /// Where messages are counted, of a call of gRPC.
    pub(crate) messages: Option<Rc<CallMessages>>,
}

impl Http2Upload {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        let (kept, given) = (Vec::new(), 0);
        Self {
            stream,
            trailed: false,
            ended,
            kept,
            kept_bytes: 0,
            given,
            is_kept: Rc::new(Cell::new(true)),
            received: 0,
            tee: None,
            messages: None,
        }
    }

    /// Is all of it there?
    pub(crate) fn is_complete(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn copy(&mut self, frame: Option<&Frame>) {
        if let Some(tee) = &mut self.tee {
            tee.pass(frame);
        }
    }

    fn keep(&mut self, frame: &Frame) {
        self.kept_bytes += frame.weight();
        if self.kept_bytes > retry::REPLAY_BODY_BYTES_MAX {
            self.is_kept.set(false);
        }
        if !self.is_kept.get() {
            (self.kept, self.given) = (Vec::new(), 0);
        } else {
            self.kept.push(frame.clone());
            self.given += 1;
        }
    }
}

impl Frames for Http2Upload {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        if let Some(frame) = self.kept.get(self.given) {
            self.given += 1;
            return Poll::Ready(Some(Ok(frame.clone())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(poll_received(&mut self.stream, &mut self.trailed, context));
        match &frame {
            Some(Ok(frame)) => {
                self.received += match frame {
                    Frame::Data(data) => data.len() as u64,
                    Frame::Trailers(fields) => bytes_of(fields),
                };
                self.ended = matches!(frame, Frame::Trailers(_)) || self.stream.is_end_stream();
                if let (Some(messages), Frame::Data(data)) = (&self.messages, frame) {
                    messages.received.pass(data);
                }
                self.keep(frame);
                self.copy(Some(frame));
            }
            Some(Err(_)) => {}
            None => self.ended = true,
        }
        if self.ended {
            self.copy(None);
        }
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.given == self.kept.len() && self.is_complete()
    }
}

impl Upload for Http2Upload {
    /// The codec resets streams that are malformed; none of them comes here.
    fn refusal(&mut self) -> Option<Refusal> {
        None
    }

    fn kept(&mut self) -> Kept {
        Rc::clone(&self.is_kept)
    }
}

impl Resent for Http2Upload {
    fn rewind(&mut self) {
        self.given = 0;
    }
}

/// Where the response goes.
pub(crate) struct Http2Responder {
    respond: SendResponse<Bytes>,
    /// Behind the head.
    body: Option<SendStream<Bytes>>,
    /// What a rule changes about the fields of whatever answers.
    pub(crate) edits: Vec<HeaderEdit>,
    /// Who sees the answer, where those of copies are compared with it.
    pub(crate) watch: Option<Rc<Watch>>,
}

impl Http2Responder {
    pub(crate) fn new(respond: SendResponse<Bytes>) -> Self {
        Self { respond, body: None, edits: Vec::new(), watch: None }
    }

    /// Ends the stream where nothing can be said any more.
    pub(crate) fn reset(&mut self, reason: Reason) {
        match &mut self.body {
            Some(body) => body.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl Responder for Http2Responder {
    async fn interim(&mut self, head: &Head, _: &RequestOutcome) -> Result<(), Failure> {
        let mut response = http::Response::new(());
        *response.status_mut() = status_of(head.status);
        *response.headers_mut() = head.fields.clone();
        // 101 has no place in HTTP/2 and was refused before; the stream may be over by now.
        let _over = self.respond.send_informational(response);
        Ok(())
    }

    async fn respond(
        &mut self,
        (mut head, _): (Head, bool),
        body: &mut impl Frames,
        outcome: &RequestOutcome,
    ) -> Result<(), Failure> {
        apply(&mut head.fields, &self.edits);
        let mut response = http::Response::new(());
        outcome.status(head.status);
        outcome.sent(bytes_of(&head.fields));
        outcome.grpc_fields(&head.fields);
        *response.status_mut() = status_of(head.status);
        *response.headers_mut() = head.fields;
        if let Some(length) = head.length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let over = body.is_over();
        if let Some(watch) = &self.watch {
            watch.head(head.status, over);
        }
        let sent = self.respond.send_response(response, over);
        let to = self.body.insert(sent.map_err(|_| Failure::ClientGone)?);
        if over {
            return Ok(());
        }
        let mut body = Watched { frames: body, watch: self.watch.as_deref() };
        let mut body = Noted { frames: &mut body, outcome };
        match pump(&mut body, to, |bytes| outcome.sent(bytes)).await {
            Ok(()) => Ok(()),
            Err(Stopped::Source(Reset(reason))) => Err(Failure::Cut(Cut::Stream(reason))),
            Err(Stopped::Sink) => Err(Failure::ClientGone),
        }
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(context).map(drop),
            None => self.respond.poll_reset(context).map(drop),
        }
    }
}

/// Frames that are looked at on their way, for what gRPC says in them.
struct Noted<'a, F> {
    frames: &'a mut F,
    outcome: &'a RequestOutcome,
}

impl<F: Frames> Frames for Noted<'_, F> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        let frame = ready!(self.frames.poll_frame(context));
        match &frame {
            Some(Ok(Frame::Data(data))) => self.outcome.passes(data),
            Some(Ok(Frame::Trailers(fields))) => {
                self.outcome.grpc_fields(fields);
                self.outcome.sent(bytes_of(fields));
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.frames.is_over()
    }
}

/// A status that no server may send is as bad as none.
fn status_of(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY)
}
