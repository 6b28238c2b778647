//! The seam between what sends requests and what carries them: an [`Exchange`] is one request on its way,
//! whatever either side speaks. Nothing is read or written here.

use std::rc::Rc;

use heddle_logic::Replayable;
use heddle_runtime::transport::Transport;

use super::course::{AnswerHead, Judged};
use crate::{
    http1::Persistence,
    pool::{Connected, Tenant},
    record::RequestOutcome,
    refusal::{Failure, Refusal},
    streams::{HttpVersion, Stream},
    upstream::{Attempt, Upstream},
    worker::Worker,
};

/// Why an exchange ended without a complete response.
#[derive(Debug)]
pub(crate) enum Broke {
    /// No byte of a response came.
    Unanswered,
    /// The same, and no server has processed the request, whatever was sent of it.
    Unprocessed,
    /// The same, and it was the connection's fault: it takes no more requests, or it was one of HTTP/2 to
    /// a server that speaks less.
    WrongConnection,
    /// A response came that the caller does not want; the client saw nothing of it.
    Again,
    Failed(Failure),
}

impl Broke {
    /// What it means of a server that speaks HTTP/2, offers no way to what the connection is to become, and was
    /// asked in HTTP/1 then.
    pub(super) fn of_declined(self) -> Self {
        let is_no_http1 = match &self {
            Self::Unanswered => true,
            Self::Failed(Failure::Refused(by)) => matches!(by.refusal, Refusal::BadResponse(_)),
            _ => false,
        };
        if is_no_http1 { Self::Failed(Refusal::CannotUpgrade.into()) } else { self }
    }
}

/// One request on its way to a response, whatever either side speaks: what `forward` knows of it.
pub(crate) trait Exchange {
    /// May it be sent twice, by its method, its key and the length of its body?
    fn replayable(&self) -> Replayable;

    /// In which version `upstream` is to be asked.
    fn version(&self, upstream: &Upstream) -> HttpVersion;

    /// How far it was sent on the last attempt.
    fn sent(&self) -> Sent;

    /// For whom connections are used, and what ends when that client is gone: nobody wants one then.
    fn client(&mut self) -> (&Tenant, impl Future<Output = ()>);

    /// Where a connection waits that is authenticated as this client.
    fn bound_to(&self) -> Option<&Rc<Upstream>>;

    /// Starts over for attempt so and so, which has so many milliseconds left where that is told.
    fn rewind(&mut self, attempt: u32, left: Option<u64>);

    /// Its `x-request-id`, as it goes on.
    fn id(&self) -> Option<&[u8]>;

    /// What becomes of it if no server wanted to process it, and none is asked any more.
    fn unprocessed(&self) -> Failure;

    /// Sends and receives on one connection; keeps the connection if it can be used again. `again` is
    /// asked once, about the final head, before anything of the response goes to the client.
    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        carrier: Carrier,
        again: impl Fn(AnswerHead<'_>) -> Judged,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke>;
}

/// What carries one request to an upstream.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// A connection of HTTP/1, all of it.
    Connection(Connected),
    /// A stream of HTTP/2.
    Stream(Stream),
}

impl Carrier {
    /// Did the connection carry a request before? Only then may a reset be the keep-alive race.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Connection(connected) => connected.reused,
            Self::Stream(stream) => stream.reused,
        }
    }
}

/// How far a request was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Bytes that the kernel took.
    pub(crate) bytes: u64,
    /// Is all of it still at hand?
    pub(crate) kept: bool,
}

/// An upstream's connection while a request is on it: if the request is given up, nobody waits for its
/// answer there, and the next hop must not take that for a client that still does.
pub(super) struct Held(pub(super) Option<Transport>);

impl Held {
    pub(super) fn transport(&mut self) -> Result<&mut Transport, Broke> {
        self.0.as_mut().ok_or(Broke::Unanswered)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.reset_on_close();
        }
    }
}
