//! An exchange by frames over a stream of HTTP/2.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use heddle_runtime::clock;
use http::{Uri, header, request, response, uri::Scheme};

use super::{
    course::{AnswerHead, Judged},
    framed::{
        Course, INTERIM_HEADS_MAX, Responder, Stopped, Unanswered, Upload, both, broke, judge,
        while_client_waits,
    },
    seam::Broke,
};
use crate::{
    frames::{Frame, Frames, Head, Reset, strip_hop_by_hop, tunnel::Becomes},
    http2::{self, poll_received, pump, reason_of},
    record::RequestOutcome,
    refusal::{Failure, Refusal},
    streams::Stream,
    upstream::Attempt,
};

/// Sends a request and passes its response on. True if all of the request was sent.
pub(super) async fn run(
    stream: &Stream,
    mut head: request::Parts,
    (upload, responder): (&mut impl Upload, &mut impl Responder),
    attempt: &mut Attempt,
    again: impl Fn(AnswerHead<'_>) -> Judged,
    outcome: &RequestOutcome,
) -> Result<bool, Broke> {
    if stream.speaks_http1() {
        return Err(unsent(stream, attempt));
    }
    if attempt.upstream().tls.is_some() {
        by_https(&mut head.uri);
    }
    let over = upload.is_over();
    let expects = head.headers.contains_key(header::EXPECT);
    let becomes = Becomes::by(&head);
    let tunnels = becomes != Becomes::Http;
    if let Becomes::Protocol(_) = becomes {
        offered(stream, attempt, (&mut *upload, &mut *responder)).await?;
    }
    if tunnels {
        outcome.arrived();
    }
    let sending = stream.send(head, over);
    let (response, mut send) = match unless_left((&mut *upload, &mut *responder), sending).await? {
        Ok(sent) => sent,
        // Neither the server nor the connection says so: it cannot be put into frames.
        Err(error) if !(error.is_io() || error.is_go_away() || error.is_reset()) => {
            return Err(Broke::Failed(Refusal::BadRequest(error.to_string().into()).into()));
        }
        Err(_) => {
            stream.end();
            return Err(unsent(stream, attempt));
        }
    };
    let course = Course::default();
    let kept = upload.kept();
    let result = {
        let sending = send_body((&mut *upload, over), &mut send, (&course, outcome));
        let receiving = async {
            let from = (stream, response);
            let (mut head, mut body) = receive_head(from, responder, &course, outcome).await?;
            judge(&mut head, kept.get(), attempt, again, outcome)?;
            let consents = (200..300).contains(&head.status);
            // What waited for the server's consent is for nobody else.
            let reads_on = course.answers(!tunnels || consents, expects, &kept);
            if tunnels && consents {
                // No limit holds for what follows.
                outcome.ended();
            }
            let responding = responder.respond((head, reads_on), &mut body, outcome);
            responding.await.map_err(Unanswered::Failed)
        };
        both(sending, receiving, &course).await
    };
    let result = broke(result, upload, &course).map(|()| course.uploaded.get());
    match &result {
        Ok(_) => attempt.ended(clock::now(), outcome.grpc().flatten()),
        Err(Broke::Unprocessed) => return Err(unsent(stream, attempt)),
        Err(Broke::WrongConnection) => attempt.upstream().learn_http1(),
        Err(_) => {}
    }
    result
}

/// Waits until the server has said that it takes other protocols by CONNECT (RFC 8441).
///
/// # Errors
/// [`Broke::WrongConnection`] where it has said that it does not.
async fn offered(
    stream: &Stream,
    attempt: &mut Attempt,
    client: (&mut impl Upload, &mut impl Responder),
) -> Result<(), Broke> {
    if unless_left(client, stream.takes_protocols()).await? {
        return Ok(());
    }
    Err(match stream.speaks_http1() {
        true => unsent(stream, attempt),
        false => Broke::WrongConnection,
    })
}

/// Waits for a place on the connection, or for the end of the client that would have it, by what either of its
/// sides tells.
///
/// # Errors
/// [`Failure::ClientGone`].
async fn unless_left<T>(
    (upload, responder): (&mut impl Upload, &mut impl Responder),
    place: impl Future<Output = T>,
) -> Result<T, Broke> {
    let (mut place, mut gone) = (pin!(place), pin!(upload.gone()));
    poll_fn(|context| match place.as_mut().poll(context) {
        Poll::Ready(place) => Poll::Ready(Ok(place)),
        Poll::Pending if gone.as_mut().poll(context).is_ready() => Poll::Ready(Err(())),
        Poll::Pending => responder.poll_gone(context).map(|()| Err(())),
    })
    .await
    .map_err(|()| Broke::Failed(Failure::ClientGone))
}

/// Says by what the request comes (RFC 9113 §8.3.1), which some servers look at.
fn by_https(uri: &mut Uri) {
    let mut parts = std::mem::take(uri).into_parts();
    if parts.scheme.is_some() {
        parts.scheme = Some(Scheme::HTTPS);
    }
    // Its parts are those of one that was whole.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Sends the body, then watches the client.
async fn send_body(
    (upload, over): (&mut impl Upload, bool),
    send: &mut SendStream<Bytes>,
    (course, outcome): (&Course, &RequestOutcome),
) -> Stopped {
    let end = match over {
        true => Ok(()),
        false => pump(upload, send, |_| {}).await,
    };
    match end {
        Ok(()) => {
            course.uploaded.set(true);
            outcome.arrived();
            upload.gone().await;
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
    course: &Course,
    outcome: &RequestOutcome,
) -> Result<(Head, Body), Unanswered> {
    let mut interims = 0;
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(interim)) = response.poll_informational(context) {
                return Poll::Ready(interim.map(Next::Interim));
            }
            Pin::new(&mut response).poll(context).map(|result| result.map(Next::Final))
        });
        let next = while_client_waits(responder, next).await?;
        match next.map_err(|error| unanswered(&error, stream, interims > 0))? {
            Next::Interim(response) => {
                interims += 1;
                if interims > INTERIM_HEADS_MAX {
                    return Err(Unanswered::Bad(Refusal::BadResponse(
                        "too many heads of 1xx".into(),
                    )));
                }
                let (parts, ()) = response.into_parts();
                course.continued.set(course.continued.get() || parts.status.as_u16() == 100);
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

/// What the end of a stream without a response says about its request; `begun`: an interim head came.
fn unanswered(error: &h2::Error, stream: &Stream, begun: bool) -> Unanswered {
    let said = error.reason().filter(|_| error.is_remote());
    if error.is_remote() && error.is_go_away() {
        stream.end();
    }
    match () {
        // Nothing of what was sent on it was understood.
        () if stream.speaks_http1() => Unanswered::Unprocessed,
        () if said == Some(Reason::HTTP_1_1_REQUIRED) && error.is_reset() => Unanswered::WantsHttp1,
        // Those that a GOAWAY names as processed end otherwise.
        () if said == Some(Reason::REFUSED_STREAM) || said.is_some() && error.is_go_away() => {
            Unanswered::Unprocessed
        }
        // The server has seen the request: it may not be sent again.
        () if begun => Unanswered::Bad(Refusal::UpstreamReset),
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
