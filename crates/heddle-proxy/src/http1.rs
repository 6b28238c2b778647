//! The client's side of an HTTP/1 connection: reading requests in order, writing replies of the mesh's
//! own, and ending the connection as its last response demands. What happens between is `forward`'s.

use std::{
    borrow::Cow,
    cell::OnceCell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use heddle_logic::route::RequestView;
use heddle_runtime::{clock, transport::Transport};
use heddle_wire::http1::{Request, RequestHead, Scan, Version};

use crate::{
    buffers::{Buffer, Lent, poll_input, read_input},
    direction::Direction,
    frames::{
        self,
        respond::{Recipient, send_response},
    },
    http2::upgrade::{self, Joined},
    limits::{HEAD_READ_TIMEOUT, LINGER_BYTES, LINGER_SILENCE, LINGER_TIME},
    outgoing::{OutgoingRequest, RequestEdits},
    pool::{Tenancy, Tenant},
    protocol::Beginning,
    record::RequestOutcome,
    refusal::{AfterRefusal, Cut, Failure, Flag, Refusal},
    reply::{AskedFor, Reply},
    upstream::Upstream,
    worker::Worker,
};

/// A connection on which a client sends requests.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    /// Bytes read and not consumed: of this request, or already of the next.
    pub(crate) input: Option<Lent<Buffer>>,
    /// When the first byte of `input` came, if that was before it was known to be HTTP.
    begun: Option<Instant>,
    idle: Idle,
    /// Which way its requests go: to this workload they come through another hop of the mesh.
    direction: Direction,
    /// As whom it uses upstream connections.
    pub(crate) tenant: Tenant,
    /// Where a connection waits that is authenticated as this client.
    pub(crate) bound_to: Option<Rc<Upstream>>,
}

/// What becomes of a client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It waits for the next request.
    KeepAlive,
    /// It is closed in stages: what the client still sends is read for a while, since a reset would
    /// destroy the response on its way.
    Close,
    /// Nothing is on its way any more.
    Ended,
    /// It is reset: the response was cut, and nothing else says so.
    Reset,
}

/// A request whose head is complete.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    head: Lent<RequestHead>,
    /// When its first byte came.
    pub(crate) begun: Instant,
}

impl IncomingRequest {
    /// The head as rules and labels see it.
    pub(crate) fn seen<'a>(&'a self, client: &'a Client) -> Seen<'a> {
        Seen { request: self.view(client), target: OnceCell::new() }
    }

    /// The client's version.
    pub(crate) fn version(&self) -> Version {
        self.head.version()
    }

    fn view<'a>(&'a self, client: &'a Client) -> Request<'a> {
        self.head.view(client.input.as_ref().map_or(&[], |input| input.filled()))
    }
}

/// A connection that speaks HTTP/2 from now on.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) transport: Transport,
    /// What was read of it.
    pub(crate) held: Option<Lent<Buffer>>,
    /// The request that asked for it.
    pub(crate) joined: Joined,
}

/// A request of HTTP/1 without its version.
pub(crate) struct Seen<'a> {
    request: Request<'a>,
    target: OnceCell<Cow<'a, str>>,
}

impl RequestView for Seen<'_> {
    fn method(&self) -> &str {
        self.request.method()
    }

    fn target(&self) -> &str {
        self.target.get_or_init(|| self.request.target())
    }

    fn path(&self) -> &[u8] {
        self.request.path()
    }

    fn authority(&self) -> &str {
        self.request.authority()
    }

    fn scheme(&self) -> &str {
        self.request.scheme()
    }

    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        let mut values = self.request.fields().values(name);
        values.any(|value| test(&String::from_utf8_lossy(value)))
    }
}

impl Client {
    /// A connection of which `held` was read already; closed after `idle` without a request.
    pub(crate) fn new(
        transport: Transport,
        held: Option<Beginning>,
        idle: Duration,
        direction: Direction,
    ) -> Self {
        let (input, begun) = held.map(|held| (held.bytes, held.since)).unzip();
        let (tenant, bound_to) = (Tenant::default(), None);
        Self { transport, input, begun, idle: Idle::new(idle), direction, tenant, bound_to }
    }

    /// The next request's head; `None` when the client is done.
    ///
    /// # Errors
    /// The refusal to answer with; the connection cannot be used after it.
    pub(crate) async fn read_request(&mut self) -> Result<Option<IncomingRequest>, Refusal> {
        loop {
            if self.input.is_none() && !self.first_bytes().await {
                return Ok(None);
            }
            let begun = self.begun.take().unwrap_or_else(clock::now);
            let mut head = Lent::<RequestHead>::take();
            if self.direction == Direction::Inbound {
                head.allow_additions();
            }
            match self.read_head(&mut head, begun).await? {
                Read::Head => return Ok(Some(IncomingRequest { head, begun })),
                Read::Closed => return Ok(None),
                // Empty lines behind the request before are no beginning of the next.
                Read::Nothing => self.input = None,
            }
        }
    }

    async fn read_head(&mut self, head: &mut RequestHead, begun: Instant) -> Result<Read, Refusal> {
        let input = self.input.get_or_insert_with(Lent::take);
        loop {
            if head.scan(input.filled())? == Scan::Complete {
                return Ok(Read::Head);
            }
            if !head.has_begun(input.filled()) {
                return Ok(Read::Nothing);
            }
            let left = (begun + HEAD_READ_TIMEOUT).saturating_duration_since(clock::now());
            match clock::within(left, input.read(&mut self.transport)).await {
                Some(Ok(0) | Err(_)) => return Ok(Read::Closed),
                Some(Ok(_)) => {}
                None => return Err(Refusal::HeadTimeout),
            }
        }
    }

    /// Waits without a buffer, then reads once; false when the client closed or was idle too long.
    async fn first_bytes(&mut self) -> bool {
        self.idle.restart();
        let Self { transport, input, idle, .. } = self;
        poll_fn(|context| match poll_input(context, transport, input) {
            Poll::Ready(read) => Poll::Ready(matches!(read, Ok(1..))),
            Poll::Pending => idle.poll(context).map(|()| false),
        })
        .await
    }

    /// If the request asks for HTTP/2, tells the client that it is so from now on; what is left of the
    /// connection then, and the request.
    pub(crate) async fn upgrade(self, request: &IncomingRequest) -> Result<Upgraded, Self> {
        let Some(joined) = upgrade::offered(&request.view(&self)) else { return Err(self) };
        let Self { mut transport, mut input, .. } = self;
        if let Some(input) = &mut input {
            input.consume(request.head.len());
        }
        // A client that is gone is found out by whoever reads.
        let _gone = transport.split().1.write_all(upgrade::SWITCHING).await;
        Ok(Upgraded { transport, held: input.filter(|input| !input.is_empty()), joined })
    }

    /// Makes a request ready to be sent, and takes its head from the input; the body is still to be
    /// taken.
    pub(crate) fn prepare(
        &mut self,
        worker: &Worker,
        request: &IncomingRequest,
        edits: &RequestEdits<'_>,
        outcome: &RequestOutcome,
    ) -> OutgoingRequest {
        let view = request.view(self);
        let new_id = || edits.new_id(worker);
        let outgoing = OutgoingRequest::prepare(&request.head, view, edits, new_id);
        let head_bytes = request.head.len();
        if let Some(input) = &mut self.input {
            input.consume(head_bytes);
            outcome.received(head_bytes as u64);
        }
        outgoing
    }

    /// Takes what is there of the body; the buffer is free again if that was all of it.
    ///
    /// # Errors
    /// A body that breaks the chunked coding.
    pub(crate) fn take_body(
        &mut self,
        outgoing: &mut OutgoingRequest,
        outcome: &RequestOutcome,
    ) -> Result<(), Refusal> {
        if let Some(input) = &mut self.input {
            outgoing.absorb(input, outcome)?;
        }
        self.input.take_if(|input| input.is_empty());
        Ok(())
    }

    /// The one exit of a request: replies if the mesh is to answer, says what becomes of the
    /// connection, and lets the outcome record. `outgoing` is `None` if there was no readable head.
    pub(crate) async fn conclude(
        &mut self,
        worker: &Worker,
        result: Result<Persistence, Failure>,
        outgoing: Option<&OutgoingRequest>,
        outcome: RequestOutcome,
    ) -> Persistence {
        let persistence = match result {
            Ok(persistence) => persistence,
            Err(Failure::Refused(refused)) => {
                let asked = outgoing.map(|outgoing| AskedFor::of_head(outgoing.head()));
                let asked = asked.unwrap_or_default();
                let grpc = asked.grpc;
                if grpc {
                    outcome.is_grpc();
                }
                let mut reply = Reply::refusing(worker, &refused, asked, &outcome);
                if grpc {
                    reply = reply.for_grpc();
                    reply.head.length = Some(0);
                }
                self.respond(reply, outgoing, &outcome).await
            }
            Err(Failure::Cut(cut)) => {
                outcome.flag(if cut == Cut::Late { Flag::UT } else { Flag::UC });
                if cut == Cut::Closed { Persistence::Close } else { Persistence::Reset }
            }
            // Dropped unfinished, the outcome says so itself.
            Err(Failure::ClientGone) => return Persistence::Ended,
        };
        outcome.finish();
        persistence
    }

    /// Writes a reply of the mesh's own, with what the request's rule changes about answers.
    pub(crate) async fn respond(
        &mut self,
        mut reply: Reply,
        outgoing: Option<&OutgoingRequest>,
        outcome: &RequestOutcome,
    ) -> Persistence {
        let goes_on = reply.connection == AfterRefusal::Stays
            && !outcome.is_draining()
            && outgoing.is_some_and(|request| request.is_complete() && request.facts.persistent);
        let recipient = Recipient {
            method: outgoing.map(|request| request.facts.method),
            version: outgoing.map(|request| request.facts.client_version).unwrap_or_default(),
            persists: goes_on,
        };
        let (_, mut to) = self.transport.split();
        let mut head = std::mem::take(&mut reply.head);
        outcome.status(head.status);
        if let Some(edits) = outgoing.and_then(|request| request.answer_edits.as_deref()) {
            frames::apply(&mut head.fields, edits);
        }
        match send_response(&mut to, &head, &mut reply, recipient, outcome).await {
            Ok(()) if goes_on => Persistence::KeepAlive,
            Ok(()) | Err(Failure::Cut(Cut::Closed)) => Persistence::Close,
            Err(Failure::Cut(Cut::Reset | Cut::Late | Cut::Stream(_))) => Persistence::Reset,
            Err(_) => Persistence::Ended,
        }
    }

    /// Ends the connection as `persistence` says.
    pub(crate) async fn end(mut self, persistence: Persistence) {
        match persistence {
            Persistence::KeepAlive | Persistence::Ended => {}
            Persistence::Close => {
                self.transport.shutdown_write();
                // Of its connections upstream it needs none any more.
                (self.tenant, self.bound_to) = Default::default();
                let _too_long = clock::within(LINGER_TIME, self.drain()).await;
            }
            Persistence::Reset => self.transport.reset_on_close(),
        }
    }

    /// Ends a connection that carries something else with `last` words, or none.
    pub(crate) async fn dismiss(mut self, last: &[u8]) {
        let told = !last.is_empty() && self.transport.split().1.write_all(last).await.is_ok();
        self.end(if told { Persistence::Close } else { Persistence::Reset }).await;
    }

    async fn drain(&mut self) {
        let mut drained = 0;
        while drained <= LINGER_BYTES {
            // Waits without a buffer.
            let read = read_input(&mut self.transport, &mut self.input);
            let Some(Ok(n @ 1..)) = clock::within(LINGER_SILENCE, read).await else { return };
            self.input = None;
            drained += n as u64;
        }
    }

    /// Its request was carried by this upstream, whose connection is kept.
    pub(crate) fn used(&mut self, upstream: &Rc<Upstream>, tenancy: Tenancy) {
        if tenancy == Tenancy::Bound {
            self.bound_to = Some(Rc::clone(upstream));
        }
    }
}

enum Read {
    Head,
    Closed,
    Nothing,
}

/// A limit on idleness that costs one timer per connection and nothing per request: the limit ends
/// a connection that was idle all through it, so after one to two times its length.
#[derive(Debug)]
pub(crate) struct Idle {
    limit: Duration,
    used: bool,
    timer: Option<clock::Timer>,
}

impl Idle {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, used: true, timer: None }
    }

    pub(crate) fn restart(&mut self) {
        self.used = true;
    }

    /// Ready when the limit has passed without a restart.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| clock::Timer::after(limit));
        while timer.poll_ended(context).is_ready() {
            if !std::mem::take(&mut self.used) {
                return Poll::Ready(());
            }
            timer.restart(limit);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use heddle_model::Protocol;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::protocol::{Decided, EarlyDial, PortHints, decide};

    /// A client that sends each piece after its time.
    async fn sends(mut transport: Transport, pieces: &[(u64, &str)]) -> Transport {
        for (seconds, piece) in pieces {
            clock::sleep(Duration::from_secs(*seconds)).await;
            transport.write_all(piece.as_bytes()).await.unwrap();
        }
        transport
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_head_runs_from_the_first_byte_that_was_ever_read() {
        for declared in [Protocol::Http, Protocol::Undeclared] {
            let (near, mut far) = Transport::pair();
            let served = async {
                let hints = PortHints::of(declared, true, false);
                let hints = PortHints { dial: EarlyDial::Never, ..hints };
                let decided = decide(&mut far, hints, pin!(pending())).await;
                let Decided::Http { held, .. } = decided else { panic!("{decided:?}") };
                let mut client =
                    Client::new(far, held, Duration::from_secs(3600), Direction::Inbound);
                (client.read_request().await.map(drop), clock::now())
            };
            let begun = clock::now();
            let slow = [(0, "GET / HT"), (9, "TP/1.1\r\n"), (2, "Host: r\r\n\r\n")];
            let (_near, (read, ended)) = tokio::join!(sends(near, &slow), served);
            assert!(matches!(read, Err(Refusal::HeadTimeout)), "{read:?}");
            assert_eq!((ended - begun).as_secs(), HEAD_READ_TIMEOUT.as_secs());
        }
    }
}
