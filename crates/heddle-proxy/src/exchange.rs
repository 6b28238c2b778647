//! One request and its response on one connection: the seam ([`Exchange`]), and HTTP/1 on both sides
//! behind it ([`Http1Exchange`]), heads edited, bodies passed on as the bytes they are. Both directions
//! run at once, because a server may answer before it has read all. Which upstream, and whether again,
//! is `forward`'s; what is made of parts, `frames` writes.
//!
//! [`Http1Exchange`] runs the way of the request (`exchange/request.rs`) and that of the response
//! (`exchange/response.rs`); what each must know of the other is in `exchange/course.rs`.

mod course;
mod request;
mod response;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use heddle_logic::Replayable;
use heddle_runtime::transport::Transport;

pub(crate) use self::course::AnswerHead;
use self::{
    course::{Answer, Course, Failed, Received, Stopped},
    request::send,
    response::receive,
};
use crate::{
    http1::{Client, Persistence},
    outgoing::OutgoingRequest,
    pool::{Connected, Tenancy, Tenant},
    record::RequestOutcome,
    refusal::{Cut, Failure, Flag},
    relay::{End, Preread, relay},
    upstream::{Attempt, Upstream},
    worker::Worker,
};

/// Why an exchange ended without a complete response.
#[derive(Debug)]
pub(crate) enum Broke {
    /// No byte of a response came.
    Unanswered,
    /// A response came that the caller does not want; the client saw nothing of it.
    Again,
    Failed(Failure),
}

/// One request on its way to a response, whatever either side speaks: what `forward` knows of it.
pub(crate) trait Exchange {
    /// May it be sent twice, by its method, its key and the length of its body?
    fn replayable(&self) -> Replayable;

    /// How far it was sent on the last attempt.
    fn sent(&self) -> Sent;

    /// For whom connections are used.
    fn tenant(&self) -> &Tenant;

    /// Where a connection waits that is authenticated as this client.
    fn bound_to(&self) -> Option<&Rc<Upstream>>;

    /// Starts over for another attempt.
    fn rewind(&mut self);

    /// Sends and receives on one connection; keeps the connection if it can be used again. `again` is
    /// asked once, about the final head, before anything of the response goes to the client.
    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(AnswerHead) -> bool,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke>;
}

/// How far a request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Bytes that the kernel took.
    pub(crate) bytes: u64,
    /// Is all of it still at hand?
    pub(crate) kept: bool,
}

/// HTTP/1 from a client to an upstream of HTTP/1.
#[derive(Debug)]
pub(crate) struct Http1Exchange<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) outgoing: &'a mut OutgoingRequest,
}

impl Exchange for Http1Exchange<'_> {
    fn replayable(&self) -> Replayable {
        self.outgoing.replayable
    }

    fn sent(&self) -> Sent {
        Sent { bytes: self.outgoing.bytes_sent(), kept: self.outgoing.is_kept() }
    }

    fn tenant(&self) -> &Tenant {
        &self.client.tenant
    }

    fn bound_to(&self) -> Option<&Rc<Upstream>> {
        self.client.bound_to.as_ref()
    }

    fn rewind(&mut self) {
        self.outgoing.rewind();
    }

    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(AnswerHead) -> bool,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let Self { client, outgoing } = self;
        let mut upstream = connected.transport;
        let request = outgoing.facts;
        let course = Course::default();
        let result = {
            let (mut client_read, mut client_write) = client.transport.split();
            let (mut up_read, mut up_write) = upstream.split();
            let input = &mut client.input;
            let mut send =
                pin!(send(&mut client_read, &mut up_write, input, outgoing, outcome, &course));
            let mut receive = pin!(receive(
                &mut up_read,
                &mut client_write,
                (request, &course),
                attempt,
                again,
                outcome,
            ));
            both(send.as_mut(), receive.as_mut(), &course).await
        };
        if matches!(result, Err(Failed::ClientGone)) {
            // The next hop must not take it for a client that waits for its answer after its own end.
            upstream.reset_on_close();
        }
        let received = result.map_err(|failed| broke(failed, &course))?;
        if let Answer::Tunnel(from_upstream) = received.answer {
            let preread = Preread { from_client: client.input.take(), from_upstream };
            // Rare and large: not worth room in every request.
            return Ok(Box::pin(tunnel(client, &mut upstream, preread, outcome)).await);
        }
        let now = outcome.ended();
        attempt.upstream().pool.announced(received.announced_idle);
        let whole = course.sent.get() && !course.half_closed.get();
        if let Some(tenancy) = tenancy(&received, outgoing, connected.bound).filter(|_| whole) {
            client.used(attempt.upstream(), tenancy);
            worker.keep(attempt.upstream(), upstream, now, (tenancy, &client.tenant));
        }
        Ok(match whole && received.client_persists {
            true => Persistence::KeepAlive,
            false => Persistence::Close,
        })
    }
}

/// Who may use the connection next; `None` if nobody.
fn tenancy(received: &Received, outgoing: &OutgoingRequest, bound: bool) -> Option<Tenancy> {
    let Answer::Complete { upstream_persists, bodiless } = received.answer else { return None };
    if !upstream_persists || !outgoing.facts.persistent {
        return None;
    }
    Some(match () {
        () if bound || received.binds || outgoing.facts.binds => Tenancy::Bound,
        () if bodiless => Tenancy::SameClient,
        () => Tenancy::Anybody,
    })
}

/// Runs both directions until the exchange is complete, or nothing more can come of it. Takes them
/// pinned: moved in, each would have room twice in every connection's task.
async fn both(
    mut send: Pin<&mut impl Future<Output = Stopped>>,
    mut receive: Pin<&mut impl Future<Output = Result<Received, Failed>>>,
    course: &Course,
) -> Result<Received, Failed> {
    let (mut begun, mut sending) = (false, true);
    poll_fn(|context| {
        // First the request must go out; from then on nearly every wake-up is the response's.
        if begun && let Poll::Ready(result) = receive.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        let ended = course.upload_ended();
        if sending && let Poll::Ready(why) = send.as_mut().poll(context) {
            sending = false;
            course.stopped.set(true);
            match why {
                // What was sent so far may yet be answered, and who has the whole answer failed in
                // nothing.
                Stopped::UpstreamGone => {}
                _ if course.answered.get() => {}
                Stopped::ClientGone => return Poll::Ready(Err(Failed::ClientGone)),
                Stopped::BadBody(refusal) => return Poll::Ready(Err(Failed::BadBody(refusal))),
            }
        }
        if begun && ended == course.upload_ended() {
            return Poll::Pending;
        }
        // An answer that waits for the end of the upload hears of it now.
        begun = true;
        receive.as_mut().poll(context)
    })
    .await
}

fn broke(failed: Failed, course: &Course) -> Broke {
    // A server that closes because its client did fails nobody, and nobody waits for another try.
    let client_left = course.half_closed.get();
    Broke::Failed(match failed {
        Failed::Unanswered if client_left => Failure::ClientGone,
        Failed::Unanswered => return Broke::Unanswered,
        Failed::Again => return Broke::Again,
        Failed::BadResponse(refusal) => refusal.into(),
        Failed::Cut(cut) => Failure::Cut(cut),
        Failed::ClientGone => Failure::ClientGone,
        // Once a response has begun, nothing can be said any more.
        Failed::BadBody(_) if course.answering.get() => Failure::Cut(Cut::Reset),
        Failed::BadBody(refusal) => refusal.into(),
    })
}

/// What follows a 101, or a 2xx to CONNECT: bytes, until both sides are done.
async fn tunnel(
    client: &mut Client,
    upstream: &mut Transport,
    preread: Preread,
    outcome: &RequestOutcome,
) -> Persistence {
    outcome.ended();
    let (received, sent) = (|n| outcome.received(n), |n| outcome.sent(n));
    match relay(&mut client.transport, upstream, preread, &received, &sent).await {
        End::Closed => {}
        End::ClientReset => outcome.flag(Flag::DC),
        End::UpstreamReset => outcome.flag(Flag::UC),
    }
    Persistence::Ended
}
