//! An exchange by frames over a stream of HTTP/2.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use heddle_runtime::clock;
use http::{header, request, response};

use super::{
    course::AnswerHead,
    framed::{
        Course, Responder, Stopped, Unanswered, Upload, both, broke, judge, while_client_waits,
    },
    seam::Broke,
};
use crate::{
    frames::{Frame, Frames, Head, Reset, strip_hop_by_hop},
    http2::{self, poll_received, pump, reason_of},
    record::RequestOutcome,
    streams::Stream,
    upstream::Attempt,
};

/// Sends a request and passes its response on. True if all of the request was sent.
pub(super) async fn run(
    stream: &Stream,
    head: request::Parts,
    (upload, responder): (&mut impl Upload, &mut impl Responder),
    attempt: &mut Attempt,
    again: impl Fn(AnswerHead<'_>) -> bool,
    outcome: &RequestOutcome,
) -> Result<bool, Broke> {
    let over = upload.is_over();
    let Ok((response, mut send)) = stream.send(head, over).await else {
        stream.end();
        return Err(unsent(stream, attempt));
    };
    let course = Course::default();
    let keeps = upload.keeps();
    let result = {
        let sending = send_body((&mut *upload, over), &mut send, (&course, outcome));
        let receiving = async {
            let (head, mut body) = receive_head((stream, response), responder, outcome)
                .await
                .map_err(|unanswered| match stream.speaks_http1() {
                    true => Unanswered::Unprocessed,
                    false => unanswered,
                })?;
            judge(&head, course.sent.get() <= keeps, attempt, again, outcome)?;
            course.answering.set(true);
            responder.respond(head, &mut body, outcome).await.map_err(Unanswered::Failed)
        };
        both(sending, receiving, &course).await
    };
    let result = broke(result, upload, &course).map(|()| course.uploaded.get());
    match &result {
        Ok(_) => attempt.ended(clock::now(), outcome.grpc().flatten()),
        Err(Broke::Unprocessed) => return Err(unsent(stream, attempt)),
        Err(_) => {}
    }
    result
}

/// Sends the body, then watches the client.
async fn send_body(
    (upload, over): (&mut impl Upload, bool),
    send: &mut SendStream<Bytes>,
    (course, outcome): (&Course, &RequestOutcome),
) -> Stopped {
    let end = match over {
        true => Ok(()),
        false => pump(upload, send, |bytes| course.moved(bytes)).await,
    };
    match end {
        Ok(()) => {
            course.uploaded.set(true);
            outcome.arrived();
            poll_fn(|context| upload.poll_gone(context)).await;
            Stopped::Client(Reset(Reason::CANCEL))
        }
        Err(http2::Stopped::Source(reset)) => {
            send.send_reset(Reason::CANCEL);
            Stopped::Client(reset)
        }
        Err(http2::Stopped::Sink) => Stopped::UpstreamGone,
    }
}

/// Nothing was processed; and if it was for want of HTTP/2, that is remembered.
fn unsent(stream: &Stream, attempt: &Attempt) -> Broke {
    if stream.speaks_http1() {
        attempt.upstream().learn_http1();
        return Broke::WrongConnection;
    }
    if stream.has_ended() { Broke::WrongConnection } else { Broke::Unprocessed }
}

/// Waits for the final head, and passes interim ones on.
async fn receive_head(
    (stream, mut response): (&Stream, ResponseFuture),
    responder: &mut impl Responder,
    outcome: &RequestOutcome,
) -> Result<(Head, Body), Unanswered> {
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(interim)) = response.poll_informational(context) {
                return Poll::Ready(interim.map(Next::Interim));
            }
            Pin::new(&mut response).poll(context).map(|result| result.map(Next::Final))
        });
        let next = while_client_waits(responder, next).await?;
        match next.map_err(|error| unanswered(&error, stream))? {
            Next::Interim(response) => {
                let (parts, ()) = response.into_parts();
                let passed = responder.interim(&head_of(parts), outcome).await;
                passed.map_err(Unanswered::Failed)?;
            }
            Next::Final(response) => {
                let (parts, body) = response.into_parts();
                return Ok((head_of(parts), Body { body, trailed: false }));
            }
        }
    }
}

enum Next {
    Interim(http::Response<()>),
    Final(http::Response<RecvStream>),
}

fn head_of(mut parts: response::Parts) -> Head {
    strip_hop_by_hop(&mut parts.headers);
    let length = parts.headers.remove(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    Head { status: parts.status.as_u16(), fields: parts.headers, length }
}

/// What the end of a stream without a response says about its request.
fn unanswered(error: &h2::Error, stream: &Stream) -> Unanswered {
    if error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED) {
        stream.wants_http1();
    }
    if error.is_remote() && error.is_go_away() {
        stream.end();
    }
    let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    match () {
        // Those that a GOAWAY names as processed end otherwise.
        () if refused || error.is_go_away() && error.is_remote() => Unanswered::Unprocessed,
        () if error.is_io() || error.is_go_away() => Unanswered::Lost,
        () => Unanswered::Reset(reason_of(error)),
    }
}

/// The body of a response.
struct Body {
    body: RecvStream,
    trailed: bool,
}

impl Frames for Body {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        poll_received(&mut self.body, &mut self.trailed, context)
    }

    fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }
}
