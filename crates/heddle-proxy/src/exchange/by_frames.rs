//! The exchange that goes by frames on both sides: a request as values to an upstream of either version.

use std::{future::poll_fn, rc::Rc};

use h2::Reason;
use heddle_logic::Replayable;
use http::{HeaderValue, request};

use super::{
    course::{AnswerHead, Judged},
    framed::{Kept, Responder, Upload},
    over_http1, over_http2,
    seam::{Broke, Carrier, Exchange, Held, Sent},
};
use crate::{
    deadline::EXPECTED,
    frames::tunnel::Becomes,
    http1::Persistence,
    outgoing::ATTEMPT_COUNT,
    pool::{Connected, Tenancy, Tenant},
    record::RequestOutcome,
    refusal::{Cut, Failure},
    reply::REQUEST_ID,
    streams::HttpVersion,
    upstream::{Attempt, Upstream},
    worker::Worker,
};

/// A body that is there for every attempt. Where it is read anew for each, as of a client of HTTP/1, nobody
/// needs this.
pub(crate) trait Resent: Upload {
    /// It begins anew.
    fn rewind(&mut self);
}

/// A request of which the parts are there, and where its response goes.
pub(crate) struct FramesExchange<'a, U, R> {
    pub(crate) head: &'a mut request::Parts,
    pub(crate) upload: &'a mut U,
    pub(crate) responder: &'a mut R,
    pub(crate) replayable: Replayable,
    /// What the client speaks.
    pub(crate) version: HttpVersion,
    pub(crate) tenant: &'a Tenant,
    /// Is all that was sent of the body still at hand?
    pub(crate) kept: Kept,
    /// Was anything sent on the last attempt?
    pub(crate) sent: bool,
    /// A server of HTTP/2 does not offer what its connection is to become: it is asked in HTTP/1.
    pub(crate) declined: bool,
}

impl<U: Resent, R: Responder> Exchange for FramesExchange<'_, U, R> {
    fn replayable(&self) -> Replayable {
        self.replayable
    }

    fn version(&self, upstream: &Upstream) -> HttpVersion {
        if self.declined { HttpVersion::Http1 } else { upstream.version(self.version) }
    }

    fn sent(&self) -> Sent {
        Sent { bytes: u64::from(self.sent), kept: self.kept.get() }
    }

    fn client(&mut self) -> (&Tenant, impl Future<Output = ()>) {
        (self.tenant, poll_fn(|context| self.responder.poll_gone(context)))
    }

    /// What authenticates connections is not to be used with HTTP/2 (RFC 9113 leaves it no place).
    fn bound_to(&self) -> Option<&Rc<Upstream>> {
        None
    }

    fn rewind(&mut self, attempt: u32, left: Option<u64>) {
        self.upload.rewind();
        self.sent = false;
        if let Some(count) = self.head.headers.get_mut(ATTEMPT_COUNT) {
            *count = HeaderValue::from(attempt);
        }
        if let Some((left, told)) = left.zip(self.head.headers.get_mut(EXPECTED)) {
            *told = HeaderValue::from(left);
        }
    }

    fn id(&self) -> Option<&[u8]> {
        self.head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes)
    }

    /// Whoever asked may know somebody else to ask.
    fn unprocessed(&self) -> Failure {
        Failure::Cut(Cut::Stream(Reason::REFUSED_STREAM))
    }

    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        carrier: Carrier,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        self.sent = true;
        match carrier {
            Carrier::Stream(stream) => {
                let client = (&mut *self.upload, &mut *self.responder);
                let head = self.head.clone();
                let run = over_http2::run(&stream, head, client, attempt, again, outcome).await;
                if matches!(run, Err(Broke::WrongConnection)) && stream.speaks_http2() {
                    self.declined |= matches!(Becomes::by(self.head), Becomes::Protocol(_));
                }
                run?;
                outcome.ended();
            }
            Carrier::Connection(connected) => {
                let done = self.over_http1(worker, attempt, connected, again, outcome).await;
                if self.declined { done.map_err(Broke::of_declined) } else { done }?;
            }
        }
        Ok(Persistence::KeepAlive)
    }
}

impl<U: Resent, R: Responder> FramesExchange<'_, U, R> {
    async fn over_http1(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<(), Broke> {
        let mut held = Held(Some(connected.transport));
        let client = (&mut *self.upload, &mut *self.responder);
        let transport = held.transport()?;
        let done = over_http1::run(transport, self.head, client, attempt, again, outcome).await?;
        let transport = held.0.take().ok_or(Broke::Unanswered)?;
        let now = outcome.ended();
        attempt.upstream().pool.announced(done.announced_idle);
        if done.persists && done.uploaded {
            let tenancy = if done.bodiless { Tenancy::SameClient } else { Tenancy::Anybody };
            worker.keep(attempt.upstream(), transport, now, (tenancy, self.tenant));
        }
        Ok(())
    }
}
