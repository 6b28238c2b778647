//! An exchange by frames over a connection of HTTP/1: what a client of another version asks of a server
//! that speaks no other.

use std::{
    future::poll_fn,
    io::Write as _,
    task::{Context, Poll, ready},
};

use h2::Reason;
use heddle_runtime::transport::{ReadHalf, Transport, WriteHalf};
use heddle_wire::http1::{self, BodyEnd, Framing, Method, Progress, ResponseHead};
use http::{header, request};

use super::{
    course::{AnswerHead, Failed, Judged},
    framed::{
        Course, INTERIM_HEADS_MAX, Responder, Stopped, Unanswered, Upload, both, broke, judge,
        while_client_waits,
    },
    response::read_head,
    seam::Broke,
};
use crate::{
    buffers::{Buffer, Lent, Output, poll_input},
    frames::{
        Frame, Frames, Reset, clean_trailers,
        http1::{Parts, response_head},
        respond::{Delimited, write_data, write_end, write_fields},
        tunnel::{Becomes, Gate},
    },
    limits::COPY_BYTES,
    record::RequestOutcome,
    refusal::Refusal,
    upstream::Attempt,
};

/// What is left of the connection when the exchange is over.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "answers of which none bears on another")]
pub(super) struct Done {
    /// All of the request was sent.
    pub(super) uploaded: bool,
    /// Can it carry another request?
    pub(super) persists: bool,
    /// Was the response without a body by method or status, so that a server may send one all the same?
    pub(super) bodiless: bool,
    /// Seconds of idleness that the server announced.
    pub(super) announced_idle: Option<u32>,
    /// Does the server authenticate connections, not requests?
    pub(super) binds: bool,
}

/// Sends a request and passes its response on.
pub(super) async fn run(
    transport: &mut Transport,
    head: &request::Parts,
    (upload, responder): (&mut impl Upload, &mut impl Responder),
    attempt: &mut Attempt,
    again: impl Fn(AnswerHead<'_>) -> Judged,
    outcome: &RequestOutcome,
) -> Result<Done, Broke> {
    let course = Course::default();
    let kept = upload.kept();
    let expects = head.headers.contains_key(header::EXPECT);
    let becomes = Becomes::by(head);
    let gate = Gate::default();
    let method = Method::of(becomes.method(head).as_bytes());
    let mut done = Done::default();
    let result = {
        let (mut read, mut write) = transport.split();
        let sending = send((head, becomes, &gate), &mut *upload, &mut write, (&course, outcome));
        let receiving = async {
            let (raw, input) = receive_head(&mut read, responder, &course, outcome).await?;
            let buffer = input.as_ref().map_or(&[][..], |input| input.filled());
            let response = raw.view(buffer);
            if let Some(what) = becomes.misleads(&raw) {
                return Err(Unanswered::Bad(Refusal::BadResponse(what.into())));
            }
            let mut head = response_head(response).map_err(Unanswered::Bad)?;
            let consents = becomes.is_done(&raw);
            if consents {
                head.length = None;
                becomes.consent(&mut head.status, &mut head.fields);
            }
            judge(&mut head, kept.get(), attempt, again, outcome)?;
            done.bodiless = raw.is_bodiless(method);
            done.announced_idle = response.announced_idle_seconds();
            done.binds = response.binds_connection();
            let persists = raw.persistent(method) && becomes == Becomes::Http;
            let framing = if consents { Framing::UntilClose } else { raw.framing(method) };
            let body = http1::Body::new(framing);
            let mut body = Body { read: &mut read, input, parts: Parts::new(body), failed: false };
            if let Some(input) = &mut body.input {
                input.consume(raw.len());
            }
            let reads_on = course.answers(persists || consents, expects, &kept);
            if consents {
                // No limit holds for what follows.
                outcome.ended();
                gate.open();
            }
            let responded = responder.respond((head, reads_on), &mut body, outcome).await;
            done.persists = persists && body.leaves_nothing();
            responded.map_err(Unanswered::Failed)
        };
        both(sending, receiving, &course).await
    };
    broke(result, upload, &course)?;
    done.uploaded = course.uploaded.get();
    Ok(done)
}

/// Sends head and body, then watches the client.
async fn send(
    (head, becomes, gate): (&request::Parts, Becomes<'_>, &Gate),
    upload: &mut impl Upload,
    to: &mut WriteHalf<'_>,
    (course, outcome): (&Course, &RequestOutcome),
) -> Stopped {
    let mut out = Lent::<Output>::take();
    let mut body = write_head(&mut out.0, head, becomes, upload.is_over());
    if becomes != Becomes::Http {
        // What follows is sent to nobody who might take it for a request.
        if let Err(stopped) = flush(&mut out.0, to, upload).await {
            return stopped;
        }
        outcome.arrived();
        tokio::select! {
            () = gate.opened() => {}
            () = upload.gone() => return Stopped::Client(Reset(Reason::CANCEL)),
        }
    }
    loop {
        if upload.is_over() && body == Delimited::Bodiless {
            break;
        }
        let frame = match next(upload, &mut out.0, to).await {
            Ok(frame) => frame,
            Err(stopped) => return stopped,
        };
        let written = match frame {
            Some(Frame::Data(data)) => write_data(&mut out.0, &mut body, &data).map(|()| false),
            Some(Frame::Trailers(mut fields)) => {
                clean_trailers(&mut fields);
                write_end(&mut out.0, body, &fields).map(|()| true)
            }
            None => write_end(&mut out.0, body, &http::HeaderMap::new()).map(|()| true),
        };
        match written {
            Ok(true) => break,
            Ok(false) if out.0.len() <= COPY_BYTES => {}
            Ok(false) => {
                if let Err(stopped) = flush(&mut out.0, to, upload).await {
                    return stopped;
                }
            }
            // More or less than its head announced.
            Err(_) => return Stopped::Client(Reset(Reason::PROTOCOL_ERROR)),
        }
    }
    if let Err(stopped) = flush(&mut out.0, to, upload).await {
        return stopped;
    }
    if body == Delimited::Close {
        to.shutdown();
    }
    course.uploaded.set(true);
    outcome.arrived();
    upload.gone().await;
    Stopped::Client(Reset(Reason::CANCEL))
}

/// The next frame; what waits is written while there is none.
async fn next(
    upload: &mut impl Upload,
    out: &mut Vec<u8>,
    to: &mut WriteHalf<'_>,
) -> Result<Option<Frame>, Stopped> {
    let at_once = poll_fn(|context| Poll::Ready(upload.poll_frame(context))).await;
    let frame = match at_once {
        Poll::Ready(frame) => frame,
        Poll::Pending => {
            flush(out, to, upload).await?;
            poll_fn(|context| upload.poll_frame(context)).await
        }
    };
    frame.transpose().map_err(Stopped::Client)
}

/// Writes what waits; not for the sake of a client that is gone.
async fn flush(
    out: &mut Vec<u8>,
    to: &mut WriteHalf<'_>,
    upload: &mut impl Upload,
) -> Result<(), Stopped> {
    let bytes = std::mem::take(out);
    tokio::select! {
        biased;
        written = to.write_all(&bytes) => written.map_err(|_| Stopped::UpstreamGone),
        () = upload.gone() => Err(Stopped::Client(Reset(Reason::CANCEL))),
    }
}

/// Writes a request's head as HTTP/1 has it. `over`: there is no body.
fn write_head(
    out: &mut Vec<u8>,
    head: &request::Parts,
    becomes: Becomes<'_>,
    over: bool,
) -> Delimited {
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let target = match head.uri.path_and_query() {
        Some(target) => target.as_str(),
        None => authority.unwrap_or("/"),
    };
    let _ = write!(out, "{} {target} HTTP/1.1\r\n", becomes.method(head));
    let host = head.headers.get(header::HOST).map(|host| host.as_bytes());
    if let Some(host) = authority.map(str::as_bytes).or(host) {
        write_field(out, "host", host);
    }
    let mut fields = head.headers.clone();
    fields.remove(header::HOST);
    write_cookies(out, &mut fields);
    let asked = becomes.fields(&fields);
    match (fields.contains_key(header::TE), asked.is_empty()) {
        (false, true) => {}
        (true, true) => write_field(out, "connection", b"te"),
        (false, false) => write_field(out, "connection", b"upgrade"),
        (true, false) => write_field(out, "connection", b"te, upgrade"),
    }
    for (name, value) in asked {
        write_field(out, name, value.as_bytes());
    }
    let length = fields.remove(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    write_fields(out, &fields);
    let body = match length {
        _ if becomes != Becomes::Http => Delimited::Close,
        Some(length) => Delimited::Length(length),
        None if over => Delimited::Bodiless,
        None => Delimited::Chunked,
    };
    let _ = match body {
        Delimited::Length(length) => write!(out, "content-length: {length}\r\n\r\n"),
        Delimited::Chunked => write!(out, "transfer-encoding: chunked\r\n\r\n"),
        Delimited::Bodiless | Delimited::Close => write!(out, "\r\n"),
    };
    body
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let _ = write!(out, "{name}: ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// HTTP/2 may take a cookie apart; HTTP/1 has one field for all (RFC 9113 §8.2.3).
fn write_cookies(out: &mut Vec<u8>, fields: &mut http::HeaderMap) {
    let crumbs: Vec<&[u8]> = fields.get_all(header::COOKIE).iter().map(|c| c.as_bytes()).collect();
    if !crumbs.is_empty() {
        write_field(out, "cookie", &crumbs.join(&b"; "[..]));
        fields.remove(header::COOKIE);
    }
}

/// Waits for the final head, and passes interim ones on.
async fn receive_head(
    read: &mut ReadHalf<'_>,
    responder: &mut impl Responder,
    course: &Course,
    outcome: &RequestOutcome,
) -> Result<(Lent<ResponseHead>, Option<Lent<Buffer>>), Unanswered> {
    let mut head = Lent::<ResponseHead>::take();
    let mut input = None;
    let mut interims = 0;
    loop {
        let read_one = read_head(read, &mut head, &mut input);
        match while_client_waits(responder, read_one).await? {
            Ok(()) => {}
            Err(Failed::BadResponse(refusal)) => {
                return Err(Unanswered::Bad(refusal));
            }
            // The upstream has seen the request: it may not be sent again.
            Err(_) if interims > 0 => return Err(Unanswered::Bad(Refusal::UpstreamReset)),
            Err(_) => return Err(Unanswered::Lost),
        }
        let Some(buffer) = input.as_mut() else { return Err(Unanswered::Lost) };
        if !head.is_interim() {
            return Ok((head, input));
        }
        interims += 1;
        if interims > INTERIM_HEADS_MAX {
            return Err(Unanswered::Bad(Refusal::BadResponse("too many heads of 1xx".into())));
        }
        course.continued.set(course.continued.get() || head.status() == 100);
        let passed = response_head(head.view(buffer.filled())).map_err(Unanswered::Bad)?;
        responder.interim(&passed, outcome).await.map_err(Unanswered::Failed)?;
        buffer.consume(head.len());
        head.clear();
        tokio::task::yield_now().await;
    }
}

/// The body of a response as it is read.
struct Body<'a, 't> {
    read: &'a mut ReadHalf<'t>,
    input: Option<Lent<Buffer>>,
    parts: Parts,
    failed: bool,
}

impl Body<'_, '_> {
    /// Is all of it read, and nothing behind it?
    fn leaves_nothing(&self) -> bool {
        let surplus = self.input.as_ref().is_some_and(|input| !input.is_empty());
        !self.failed && self.parts.is_done() && !surplus
    }
}

impl Frames for Body<'_, '_> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        let frame = ready!(self.poll_next(context));
        self.failed |= matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_over(&self) -> bool {
        self.parts.is_over()
    }
}

impl Body<'_, '_> {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        loop {
            if let Some(input) = &mut self.input {
                let found = match self.parts.next(input.filled()) {
                    Ok(found) => found,
                    Err(reset) => return Poll::Ready(Some(Err(reset))),
                };
                input.consume(found.consumed);
                if let Some(frame) = found.frame {
                    return Poll::Ready(Some(Ok(frame)));
                }
                if found.progress == Progress::More {
                    continue;
                }
                self.input.take_if(|input| input.is_empty());
            }
            if self.parts.is_done() {
                return Poll::Ready(self.parts.end().map(Ok));
            }
            match ready!(poll_input(context, self.read, &mut self.input)) {
                Ok(0) if self.parts.eof() == BodyEnd::Complete => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(Reset(Reason::INTERNAL_ERROR)))),
            }
        }
    }
}
