//! One request and its response on one connection: the seam ([`Exchange`]), and HTTP/1 on both sides
//! behind it ([`Http1Exchange`]), heads edited, bodies passed on as the bytes they are. Both directions
//! run at once, because a server may answer before it has read all. Which upstream, and whether again,
//! is `forward`'s.
//!
//! HTTP/1 to HTTP/1 runs the way of the request (`exchange/request.rs`) and that of the response
//! (`exchange/response.rs`); what each must know of the other is in `exchange/course.rs`. Every other pair
//! goes by frames (`exchange/framed.rs`): between a client (`http1_client.rs`, `http2_client.rs`) and what
//! carries its request (`over_http1.rs`, `over_http2.rs`).

mod by_frames;
mod course;
mod framed;
mod http1_client;
mod http2_client;
mod over_http1;
mod over_http2;
mod request;
mod response;
mod seam;
mod upgrade;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use heddle_logic::Replayable;
use heddle_runtime::transport::Transport;
use heddle_wire::http1::Method;

pub(crate) use self::{
    by_frames::{FramesExchange, Resent},
    course::{AnswerHead, Judged},
    framed::{Kept, Responder, Upload},
    http2_client::{Http2Responder, Http2Upload},
    seam::{Broke, Carrier, Exchange, Sent},
};
use self::{
    course::{Answer, Course, Failed, Received, Stopped},
    http1_client::{Http1Responder, Http1Upload},
    request::send,
    response::receive,
    seam::Held,
    upgrade::{Upgrade, UpgradeResponder, UpgradeUpload},
};
use crate::{
    frames::{http1::request_head, respond::Recipient},
    http1::{Client, Persistence},
    outgoing::OutgoingRequest,
    pool::{Connected, Tenancy, Tenant},
    record::RequestOutcome,
    refusal::{Cut, Failure, Flag, Refusal},
    relay::{End, Preread, relay},
    reply::raw_id,
    streams::{HttpVersion, Stream},
    tee::Tee,
    upstream::{Attempt, Upstream},
    worker::Worker,
};

/// A request of HTTP/1 to an upstream of either version.
#[derive(Debug)]
pub(crate) struct Http1Exchange<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) outgoing: &'a mut OutgoingRequest,
    /// Who gets a copy: then it goes by frames whatever the upstream speaks.
    pub(crate) tee: Option<Tee>,
    /// A server of HTTP/2 does not offer what its connection is to become.
    pub(crate) declined: bool,
}

impl Exchange for Http1Exchange<'_> {
    fn replayable(&self) -> Replayable {
        self.outgoing.replayable
    }

    fn version(&self, upstream: &Upstream) -> HttpVersion {
        let facts = &self.outgoing.facts;
        match (facts.method, facts.upgrade) {
            // What follows is no HTTP: only a connection of its own can carry it.
            (Method::Connect, _) => HttpVersion::Http1,
            (_, true) if self.declined => HttpVersion::Http1,
            (_, true) if upgrade::asked(self.outgoing.head()).is_none() => HttpVersion::Http1,
            _ => upstream.version(HttpVersion::Http1),
        }
    }

    fn sent(&self) -> Sent {
        Sent { bytes: self.outgoing.bytes_sent(), kept: self.outgoing.is_kept() }
    }

    /// One that only ended its side may still wait for its answer.
    fn client(&mut self) -> (&Tenant, impl Future<Output = ()>) {
        (&self.client.tenant, self.client.transport.reset_by_peer())
    }

    fn bound_to(&self) -> Option<&Rc<Upstream>> {
        self.client.bound_to.as_ref()
    }

    fn rewind(&mut self, attempt: u32, left: Option<u64>) {
        self.outgoing.rewind(attempt, left);
    }

    fn id(&self) -> Option<&[u8]> {
        raw_id(self.outgoing.head())
    }

    fn unprocessed(&self) -> Failure {
        Refusal::UpstreamReset.into()
    }

    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        carrier: Carrier,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        match carrier {
            Carrier::Connection(connected) if self.tee.is_none() => {
                let passed = self.pass_bytes(worker, attempt, connected, again, outcome).await;
                if self.declined { passed.map_err(Broke::of_declined) } else { passed }
            }
            Carrier::Connection(connected) => {
                let copied = self.frames_over_http1(worker, attempt, connected, again, outcome);
                Box::pin(copied).await
            }
            Carrier::Stream(stream) if self.outgoing.facts.upgrade => {
                Box::pin(self.by_upgrade(&stream, attempt, again, outcome)).await
            }
            // Another version, and larger: not worth room in every request.
            Carrier::Stream(stream) => {
                Box::pin(self.by_frames(&stream, attempt, again, outcome)).await
            }
        }
    }
}

impl Http1Exchange<'_> {
    /// To a server of HTTP/1: the bytes as they are.
    async fn pass_bytes(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let Self { client, outgoing, .. } = self;
        let mut held = Held(Some(connected.transport));
        let (request, edits) = (outgoing.facts, outgoing.answer_edits.clone());
        let course = Course::default();
        let result = {
            let (mut client_read, mut client_write) = client.transport.split();
            let (mut up_read, mut up_write) = held.transport()?.split();
            let input = &mut client.input;
            let mut send =
                pin!(send(&mut client_read, &mut up_write, input, outgoing, outcome, &course));
            let mut receive = pin!(receive(
                &mut up_read,
                &mut client_write,
                (request, &course, edits.as_deref().unwrap_or_default()),
                attempt,
                again,
                outcome,
            ));
            both(send.as_mut(), receive.as_mut(), &course).await
        };
        let mut upstream = held.0.take().ok_or(Broke::Unanswered)?;
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

impl Http1Exchange<'_> {
    /// To a server of HTTP/2.
    async fn by_frames(
        &mut self,
        stream: &Stream,
        attempt: &mut Attempt,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let head = self.head()?;
        let (mut upload, mut responder) = self.parts(outcome);
        let parts = (&mut upload, &mut responder);
        let uploaded = over_http2::run(stream, head, parts, attempt, again, outcome).await;
        let stays = responder.recipient.persists;
        let uploaded = uploaded.map_err(in_words(outcome))?;
        outcome.ended();
        Ok(persistence(uploaded && stays))
    }

    /// An Upgrade, to a server of HTTP/2.
    async fn by_upgrade(
        &mut self,
        stream: &Stream,
        attempt: &mut Attempt,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let mut head = self.head()?;
        let protocol = upgrade::asked(self.outgoing.head()).ok_or(Broke::WrongConnection)?;
        let upgrade = Upgrade::by(protocol, &mut head);
        let recipient = self.recipient(outcome);
        let edits = self.outgoing.answer_edits.clone();
        let (read, client) = self.client.transport.split();
        let mut upload = UpgradeUpload::new(read, &mut self.client.input, &upgrade, outcome);
        let plain = Http1Responder { client, recipient, edits, watch: None };
        let mut responder = UpgradeResponder { plain, upgrade: &upgrade, switched: false };
        let parts = (&mut upload, &mut responder);
        let ran = over_http2::run(stream, head, parts, attempt, again, outcome).await;
        self.declined |= matches!(ran, Err(Broke::WrongConnection)) && stream.speaks_http2();
        ran.map_err(in_words(outcome))?;
        outcome.ended();
        Ok(match responder.switched {
            true => Persistence::Ended,
            false => persistence(responder.plain.recipient.persists),
        })
    }

    /// To a server of HTTP/1, where what passes is copied.
    async fn frames_over_http1(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let head = self.head()?;
        let mut held = Held(Some(connected.transport));
        let (done, stays) = {
            let (mut upload, mut responder) = self.parts(outcome);
            let parts = (&mut upload, &mut responder);
            let transport = held.transport()?;
            let done = over_http1::run(transport, &head, parts, attempt, again, outcome).await?;
            (done, responder.recipient.persists)
        };
        let transport = held.0.take().ok_or(Broke::Unanswered)?;
        let now = outcome.ended();
        attempt.upstream().pool.announced(done.announced_idle);
        if done.persists && done.uploaded && !self.outgoing.closes {
            let bound = connected.bound || done.binds || self.outgoing.facts.binds;
            let tenancy = match (bound, done.bodiless) {
                (true, _) => Tenancy::Bound,
                (false, true) => Tenancy::SameClient,
                (false, false) => Tenancy::Anybody,
            };
            self.client.used(attempt.upstream(), tenancy);
            worker.keep(attempt.upstream(), transport, now, (tenancy, &self.client.tenant));
        }
        Ok(persistence(done.uploaded && stays))
    }

    fn head(&self) -> Result<http::request::Parts, Broke> {
        request_head(self.outgoing.head()).map_err(|refusal| Broke::Failed(refusal.into()))
    }

    fn recipient(&self, outcome: &RequestOutcome) -> Recipient {
        let facts = &self.outgoing.facts;
        Recipient {
            method: Some(facts.method),
            version: facts.client_version,
            persists: facts.persistent && !outcome.is_draining(),
        }
    }

    /// The client as frames.
    fn parts<'e>(
        &'e mut self,
        outcome: &'e RequestOutcome,
    ) -> (Http1Upload<'e, 'e>, Http1Responder<'e>) {
        let recipient = self.recipient(outcome);
        let Self { client, outgoing, tee, .. } = self;
        let (read, write) = client.transport.split();
        let edits = outgoing.answer_edits.clone();
        let watch = tee.as_ref().and_then(Tee::watch);
        let responder = Http1Responder { client: write, recipient, edits, watch };
        (Http1Upload::new(read, &mut client.input, outgoing, (tee.as_mut(), outcome)), responder)
    }
}

/// A client of HTTP/1 is told in words, as long as it can be.
fn in_words(outcome: &RequestOutcome) -> impl Fn(Broke) -> Broke {
    move |broke| match broke {
        Broke::Failed(Failure::Cut(Cut::Stream(_))) if !outcome.has_sent() => {
            Broke::Failed(Refusal::UpstreamReset.into())
        }
        broke => broke,
    }
}

fn persistence(stays: bool) -> Persistence {
    if stays { Persistence::KeepAlive } else { Persistence::Close }
}

/// Who may use the connection next; `None` if nobody.
fn tenancy(received: &Received, outgoing: &OutgoingRequest, bound: bool) -> Option<Tenancy> {
    let Answer::Complete { upstream_persists, bodiless } = received.answer else { return None };
    if !upstream_persists || outgoing.closes {
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
        // No limit holds for it.
        End::Closed | End::Idle | End::TooOld => {}
        End::ClientReset => outcome.flag(Flag::DC),
        End::UpstreamReset => outcome.flag(Flag::UC),
    }
    Persistence::Ended
}
