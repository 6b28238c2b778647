//! One request as it came, whatever its version: what the connection's way needs of it ([`Call`]), and
//! how a client of HTTP/1 ([`Http1Call`]) or of HTTP/2 ([`Http2Call`]) gives it.

mod http2;

use std::{rc::Rc, time::Instant};

use heddle_logic::route::RequestView;
use heddle_wire::http1::{Method, Version};

pub(crate) use self::http2::Http2Call;
use crate::{
    compared::Mirrored,
    exchange::Http1Exchange,
    forward::{Terms, forward},
    frames::http1::request_head,
    http1::{Client, IncomingRequest, Persistence},
    mirror,
    outgoing::{OutgoingRequest, RequestEdits},
    record::RequestOutcome,
    refusal::{Failure, Refusal},
    reply::Reply,
    streams::HttpVersion,
    tee::Tee,
    upstream::Backend,
    worker::Worker,
};

/// A request, from its decoded head to its end.
pub(crate) trait Call {
    /// The head as rules and labels see it; only before [`Self::prepare`].
    fn seen(&self) -> impl RequestView;

    /// When its first byte came.
    fn begun(&self) -> Instant;

    /// Its version, as access logs have it; only before [`Self::prepare`].
    fn protocol(&self) -> &'static str;

    /// Makes it ready to be sent, perhaps more than once.
    fn prepare(&mut self, worker: &Worker, edits: &RequestEdits<'_>, outcome: &RequestOutcome);

    /// Takes what is there of its body.
    ///
    /// # Errors
    /// A body that breaks its coding.
    fn take_body(&mut self, outcome: &RequestOutcome) -> Result<(), Refusal>;

    /// Waits until its client is gone.
    async fn gone(&mut self);

    /// Answers it with what a rule says.
    async fn answer(&mut self, reply: Reply, outcome: &RequestOutcome) -> Persistence;

    /// Sends it to one of the backend's endpoints, and the response back.
    ///
    /// # Errors
    /// As `forward`.
    async fn forward(
        &mut self,
        worker: &Rc<Worker>,
        backend: &Backend,
        terms: Terms<'_>,
        outcome: &mut RequestOutcome,
    ) -> Result<Persistence, Failure>;

    /// Its one exit: replies if the mesh is to answer, says what becomes of the connection, and lets
    /// the outcome record.
    async fn conclude(
        self,
        worker: &Worker,
        result: Result<Persistence, Failure>,
        outcome: RequestOutcome,
    ) -> Persistence;
}

/// Begins copies for these mirrors. What follows an Upgrade or CONNECT is no request's body.
#[cold]
fn copied(worker: &Rc<Worker>, mirrors: &[Mirrored], outgoing: &OutgoingRequest) -> Option<Tee> {
    if outgoing.facts.upgrade || outgoing.facts.method == Method::Connect {
        return None;
    }
    let head = request_head(outgoing.head()).ok()?;
    mirror::begin(worker, mirrors, (&head, HttpVersion::Http1), !outgoing.has_body())
}

/// A request of HTTP/1: its connection is its own until it is over.
#[derive(Debug)]
pub(crate) struct Http1Call<'a> {
    client: &'a mut Client,
    state: State,
}

#[derive(Debug)]
enum State {
    Incoming(IncomingRequest),
    Outgoing(OutgoingRequest),
    /// On the way from one to the other.
    Between,
}

impl State {
    fn outgoing(&self) -> Option<&OutgoingRequest> {
        match self {
            Self::Outgoing(outgoing) => Some(outgoing),
            Self::Incoming(_) | Self::Between => None,
        }
    }
}

impl<'a> Http1Call<'a> {
    pub(crate) fn new(client: &'a mut Client, request: IncomingRequest) -> Self {
        Self { client, state: State::Incoming(request) }
    }

    fn incoming(&self) -> &IncomingRequest {
        match &self.state {
            State::Incoming(request) => request,
            _ => unreachable!("invariant: asked before it was prepared"),
        }
    }
}

impl Call for Http1Call<'_> {
    fn seen(&self) -> impl RequestView {
        self.incoming().seen(self.client)
    }

    fn begun(&self) -> Instant {
        self.incoming().begun
    }

    fn protocol(&self) -> &'static str {
        match self.incoming().version() {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }

    fn prepare(&mut self, worker: &Worker, edits: &RequestEdits<'_>, outcome: &RequestOutcome) {
        if let State::Incoming(request) = std::mem::replace(&mut self.state, State::Between) {
            self.state = State::Outgoing(self.client.prepare(worker, &request, edits, outcome));
        }
    }

    fn take_body(&mut self, outcome: &RequestOutcome) -> Result<(), Refusal> {
        match &mut self.state {
            State::Outgoing(outgoing) => self.client.take_body(outgoing, outcome),
            _ => Ok(()),
        }
    }

    async fn gone(&mut self) {
        self.client.transport.reset_by_peer().await;
    }

    async fn answer(&mut self, reply: Reply, outcome: &RequestOutcome) -> Persistence {
        self.client.respond(reply, self.state.outgoing(), outcome).await
    }

    async fn forward(
        &mut self,
        worker: &Rc<Worker>,
        backend: &Backend,
        terms: Terms<'_>,
        outcome: &mut RequestOutcome,
    ) -> Result<Persistence, Failure> {
        let State::Outgoing(outgoing) = &mut self.state else {
            unreachable!("invariant: prepared before it is sent")
        };
        let tee = match &terms.mirrors[..] {
            [] => None,
            mirrors => copied(worker, mirrors, outgoing),
        };
        let mut exchange = Http1Exchange { client: self.client, outgoing, tee, declined: false };
        forward(worker, &mut exchange, backend, terms, outcome).await
    }

    async fn conclude(
        self,
        worker: &Worker,
        result: Result<Persistence, Failure>,
        outcome: RequestOutcome,
    ) -> Persistence {
        self.client.conclude(worker, result, self.state.outgoing(), outcome).await
    }
}
