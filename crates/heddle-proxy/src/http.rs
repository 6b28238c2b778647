//! The client's side of an HTTP/1 connection: reading requests in order, making them ready to be
//! sent on, and replies of the mesh's own. What happens between is `forward`'s.

mod reply;

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use heddle_logic::{Replayable, retry};
use heddle_runtime::{clock, net::shutdown_write};
use heddle_wire::http1::{
    Body, Connection, Edit, Framing, KnownHeader, Method, Progress, Request as RequestView,
    RequestHead, RequestRewrite, Scan, Version, write_request,
};
use tokio::{net::TcpStream, time::Sleep};

use crate::{
    forward::{Cut, Failure},
    limits::{HEAD_READ_TIMEOUT, LINGER_BYTES, LINGER_TIME},
    outcome::RequestOutcome,
    protocol::Beginning,
    refusal::{Flag, Refusal},
    worker::{
        Worker,
        buffers::{Buffer, Lent, Output, poll_input},
    },
};

/// A connection on which a client sends requests.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Bytes read and not consumed: of this request, or already of the next.
    pub(crate) input: Option<Lent<Buffer>>,
    /// When the first byte of `input` came, if that was before it was known to be HTTP.
    begun: Option<Instant>,
    idle: Idle,
}

/// What becomes of a client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next request.
    Next,
    /// It is closed.
    Close,
    /// It is closed, but what the client still sends is read for a while: a reset would destroy the
    /// response on its way.
    Linger,
    /// It is reset: the response was cut, and nothing else says so.
    Reset,
}

/// A complete request head.
#[derive(Debug)]
pub(crate) struct Request {
    head: Lent<RequestHead>,
    /// When its first byte came.
    pub(crate) begun: Instant,
}

impl Request {
    /// The head as rules see it.
    pub(crate) fn view<'a>(&'a self, client: &'a Client) -> RequestView<'a> {
        self.head.view(client.input.as_ref().map_or(&[], |input| input.filled()))
    }
}

impl Client {
    /// A connection of which `held` was read already; closed after `idle` without a request.
    pub(crate) fn new(stream: TcpStream, held: Option<Beginning>, idle: Duration) -> Self {
        let (input, begun) = held.map(|held| (held.bytes, held.since)).unzip();
        Self { stream, input, begun, idle: Idle::new(idle) }
    }

    /// The next request's head; `None` when the client is done.
    ///
    /// # Errors
    /// The refusal to answer with; the connection cannot be used after it.
    pub(crate) async fn read_request(&mut self) -> Result<Option<Request>, Refusal> {
        loop {
            if self.input.is_none() && !self.first_bytes().await {
                return Ok(None);
            }
            let begun = self.begun.take().unwrap_or_else(clock::now);
            let mut head = Lent::<RequestHead>::take();
            match self.read_head(&mut head, begun).await? {
                Read::Head => return Ok(Some(Request { head, begun })),
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
            match clock::within(left, input.read(&mut self.stream)).await {
                Some(Ok(0) | Err(_)) => return Ok(Read::Closed),
                Some(Ok(_)) => {}
                None => return Err(Refusal::HeadTimeout),
            }
        }
    }

    /// Waits without a buffer, then reads once; false when the client closed or was idle too long.
    async fn first_bytes(&mut self) -> bool {
        self.idle.restart();
        let Self { stream, input, idle, .. } = self;
        poll_fn(|context| match poll_input(context, stream, input) {
            Poll::Ready(read) => Poll::Ready(matches!(read, Ok(1..))),
            Poll::Pending => idle.poll(context).map(|()| false),
        })
        .await
    }

    /// The one exit of a request: replies if it was refused, says what becomes of the connection,
    /// and lets the outcome record.
    pub(crate) async fn conclude(
        &mut self,
        worker: &Worker,
        result: Result<After, Failure>,
        sending: Option<&Sending>,
        outcome: RequestOutcome,
    ) -> After {
        let after = match result {
            Ok(after) => after,
            Err(Failure::Refused(refused)) => {
                self.refuse(worker, &refused, sending, &outcome).await
            }
            Err(Failure::Cut(cut)) => {
                outcome.flag(Flag::UC);
                if cut == Cut::Reset { After::Reset } else { After::Close }
            }
            // Dropped unfinished, the outcome says so itself.
            Err(Failure::ClientGone) => return After::Close,
        };
        outcome.finish();
        after
    }

    /// Ends the connection as `after` says.
    pub(crate) async fn end(mut self, after: After) {
        match after {
            After::Next | After::Close => {}
            After::Linger => {
                let _closing = shutdown_write(&self.stream);
                let _too_long = clock::within(LINGER_TIME, self.drain()).await;
            }
            After::Reset => {
                let _gone = heddle_runtime::net::reset_on_close(&self.stream);
            }
        }
    }

    async fn drain(&mut self) {
        let mut drained = 0;
        let mut buffer = Lent::<Buffer>::take();
        while let Ok(n @ 1..) = buffer.read(&mut self.stream).await {
            buffer.consume(n);
            drained += n;
            if drained > LINGER_BYTES {
                return;
            }
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
struct Idle {
    limit: Duration,
    used: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, used: true, timer: None }
    }

    fn restart(&mut self) {
        self.used = true;
    }

    /// Ready when the limit has passed without a restart.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        while timer.as_mut().poll(context).is_ready() {
            if !std::mem::take(&mut self.used) {
                return Poll::Ready(());
            }
            timer.as_mut().reset((clock::now() + limit).into());
        }
        Poll::Pending
    }
}

/// A request as it goes to an upstream: its edited head with what is there of its body, and how to
/// go on.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The head, and behind it the body so far: all of it while [`Self::is_kept`], else what is not
    /// yet sent. The head stays, so that a refusal can name the id that went out with it.
    pub(crate) out: Lent<Output>,
    /// Bytes of the head in `out`.
    head_bytes: usize,
    /// Bytes of `out` that the kernel took.
    pub(crate) written: usize,
    /// Bytes of the request that the kernel took on this attempt.
    pub(crate) sent: u64,
    pub(crate) body: Body,
    pub(crate) replayable: Replayable,
    pub(crate) method: Method,
    pub(crate) client_version: Version,
    /// Does the client want its connection to stay open?
    pub(crate) persistent: bool,
    /// Is an Upgrade passed on, so that 101 is an answer?
    pub(crate) upgrade: bool,
    /// Did the client end in the middle of the body?
    pub(crate) truncated: bool,
}

impl Sending {
    /// Takes the head from the client's input; the body is still to be taken. `path` goes on in place
    /// of the one that came.
    pub(crate) fn prepare(
        worker: &Worker,
        client: &mut Client,
        request: &Request,
        default_host: impl FnOnce() -> String,
        path: Option<&str>,
        outcome: &RequestOutcome,
    ) -> Self {
        let view = request.view(client);
        let mut sending = Self::of_head(view, &request.head);
        let id = match view.fields().known(KnownHeader::XRequestId) {
            Some(_) => None,
            None => Some(RequestId::new(worker)),
        };
        // HTTP/1.0 goes on as HTTP/1.1, which must name a host.
        let nameless = sending.client_version == Version::Http10
            && view.fields().known(KnownHeader::Host).is_none();
        let default_host = if nameless { default_host() } else { String::new() };
        let edit = id.as_ref().map(|id| [Edit::Default("x-request-id", id.as_str())]);
        let rewrite = RequestRewrite {
            edits: edit.as_ref().map_or(&[], |edit| edit.as_slice()),
            connection: Connection::KeepAlive,
            default_host: &default_host,
            path,
        };
        write_request(view, &rewrite, &mut sending.out.0);
        sending.head_bytes = sending.out.0.len();
        let head_bytes = request.head.len();
        if let Some(input) = &mut client.input {
            input.consume(head_bytes);
            outcome.received(head_bytes as u64);
        }
        sending
    }

    /// Takes what is there of the body; the client's buffer is free again if that was all of it.
    ///
    /// # Errors
    /// A body that breaks the chunked coding.
    pub(crate) fn take_body(
        &mut self,
        client: &mut Client,
        outcome: &RequestOutcome,
    ) -> Result<(), Refusal> {
        if let Some(input) = &mut client.input {
            self.absorb(input, outcome)?;
        }
        client.input.take_if(|input| input.is_empty());
        Ok(())
    }

    fn of_head(view: RequestView<'_>, head: &RequestHead) -> Self {
        let length = match head.framing() {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let kept = retry::Body::of_length(length);
        Self {
            out: Lent::take(),
            head_bytes: 0,
            written: 0,
            sent: 0,
            body: Body::new(head.framing()),
            replayable: Replayable::of(view.method(), view.has_idempotency_key(), kept),
            method: head.method(),
            client_version: head.version(),
            persistent: head.persistent(),
            upgrade: view.upgrade().is_some(),
            truncated: false,
        }
    }

    /// Moves what `input` holds of the body behind `out`.
    ///
    /// # Errors
    /// As [`Self::take_body`].
    pub(crate) fn absorb(
        &mut self,
        input: &mut Buffer,
        outcome: &RequestOutcome,
    ) -> Result<(), Refusal> {
        loop {
            let run = self
                .body
                .relay(input.filled())
                .map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
            self.out.0.extend_from_slice(&input.filled()[run.forward]);
            input.consume(run.consumed);
            outcome.received(run.consumed as u64);
            if run.progress != Progress::More {
                return Ok(());
            }
        }
    }

    /// Has all of the request been taken from the client?
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// Is everything that was sent still in `out`?
    pub(crate) fn is_kept(&self) -> bool {
        self.replayable == Replayable::Yes || self.bytes_sent() == 0
    }

    /// Bytes of the request that the kernel took on this attempt, those of a write that was given up
    /// half-way among them.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.max(self.written as u64)
    }

    /// The head as it goes, or went, to the upstream.
    fn head(&self) -> &[u8] {
        &self.out.0[..self.head_bytes]
    }

    /// Everything in `out` was sent and will not be sent again: makes room for more of the body.
    pub(crate) fn forget_sent_body(&mut self) {
        self.out.0.truncate(self.head_bytes);
        self.written = self.head_bytes;
    }

    /// Starts over for another attempt.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
        self.sent = 0;
    }
}

/// A generated `x-request-id`: a random UUID.
struct RequestId([u8; 36]);

impl RequestId {
    fn new(worker: &Worker) -> Self {
        // Version 4, variant 1.
        let high = (worker.random() & !0xf000) | 0x4000;
        let low = (worker.random() >> 2) | 1 << 63;
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex(high));
        digits[16..].copy_from_slice(&hex(low));
        let mut text = [b'-'; 36];
        for (to, from) in
            [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)]
        {
            text[to].copy_from_slice(&digits[from]);
        }
        Self(text)
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Sixteen hexadecimal digits: all at once, a nibble per byte.
fn hex(bits: u64) -> [u8; 16] {
    const LOW_NIBBLES: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
    let mut spread = u128::from(bits);
    spread = (spread | spread << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & LOW_NIBBLES;
    spread.to_be_bytes().map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble })
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use heddle_model::Protocol;
    use heddle_runtime::net::{connect_tcp, listen_tcp};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::protocol::{Decided, Dial, Known, decide};

    /// A client that sends each piece after its time.
    async fn sends(mut stream: TcpStream, pieces: &[(u64, &str)]) -> TcpStream {
        for (seconds, piece) in pieces {
            clock::sleep(Duration::from_secs(*seconds)).await;
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_head_runs_from_the_first_byte_that_was_ever_read() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), None, false).unwrap();
        let address = listener.local_addr().unwrap();
        for declared in [Protocol::Http, Protocol::Undeclared] {
            let (near, far) = tokio::join!(connect_tcp(address, None), listener.accept());
            let (near, mut far) = (near.unwrap(), far.unwrap().0);
            let served = async {
                let known = Known { declared, dial: Dial::Never, http_rules: false };
                let decided = decide(&mut far, known, pin!(pending())).await;
                let Decided::Http { held, .. } = decided else { panic!("{decided:?}") };
                let mut client = Client::new(far, held, Duration::from_secs(3600));
                (client.read_request().await.map(drop), clock::now())
            };
            let begun = clock::now();
            let slow = [(0, "GET / HT"), (9, "TP/1.1\r\n"), (2, "Host: r\r\n\r\n")];
            let (_near, (read, ended)) = tokio::join!(sends(near, &slow), served);
            assert!(matches!(read, Err(Refusal::HeadTimeout)), "{read:?}");
            assert_eq!((ended - begun).as_secs(), HEAD_READ_TIMEOUT.as_secs());
        }
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_number() {
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0xf0e1_d2c3_b4a5_9687] {
            assert_eq!(hex(bits).as_slice(), format!("{bits:016x}").as_bytes());
        }
    }
}
