//! One request and its response on one connection: the seam ([`Exchange`]), and HTTP/1 on both sides
//! behind it ([`Http1Exchange`]), heads edited, bodies passed on as the bytes they are. Both directions
//! run at once, because a server may answer before it has read all. Which upstream, and whether again,
//! is `forward`'s; what is made of parts, `frames` writes.
//!
//! [`Http1Exchange`] first, then the way of the request ([`send`]), then that of the response
//! ([`receive`]).

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use heddle_logic::Replayable;
use heddle_runtime::{
    clock,
    splice::BrokenEnd,
    transport::{ReadHalf, Transport, WriteHalf, move_bytes},
};
use heddle_wire::http1::{
    Body, BodyEnd, BodyRewrite, Connection, Framing, Method, Progress, ResponseHead,
    ResponseRewrite, Scan, Version, write_response,
};

use crate::{
    buffers::{Buffer, Lent, Output, read_input},
    http1::{Client, Persistence},
    limits::{COPY_BYTES, SPLICE_BODY_BYTES},
    outgoing::OutgoingRequest,
    pool::Connected,
    record::RequestOutcome,
    refusal::{Cut, Failure, Flag, Refusal},
    relay::{End, Preread, relay},
    upstream::Attempt,
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

    /// Starts over for another attempt.
    fn rewind(&mut self);

    /// Sends and receives on one connection; keeps the connection if it can be used again. `again` is
    /// asked once, about the final status, before anything of the response goes to the client.
    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(u16) -> bool,
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

    fn rewind(&mut self) {
        self.outgoing.rewind();
    }

    async fn run(
        &mut self,
        worker: &Rc<Worker>,
        attempt: &mut Attempt,
        connected: Connected,
        again: impl Fn(u16) -> bool,
        outcome: &RequestOutcome,
    ) -> Result<Persistence, Broke> {
        let Self { client, outgoing } = self;
        let mut upstream = connected.transport;
        let request = RequestFacts::of(outgoing);
        let request_done = Cell::new(false);
        let half_closed = Cell::new(false);
        let result = {
            let (mut client_read, mut client_write) = client.transport.split();
            let (mut up_read, mut up_write) = upstream.split();
            let mut send = pin!(send(
                &mut client_read,
                &mut up_write,
                &mut client.input,
                outgoing,
                outcome,
                (&request_done, &half_closed),
            ));
            let mut receive = pin!(receive(
                &mut up_read,
                &mut client_write,
                (request, &request_done),
                attempt,
                again,
                outcome,
            ));
            both(send.as_mut(), receive.as_mut()).await
        };
        if matches!(result, Err(Failed::ClientGone)) {
            // The next hop must not take it for a client that waits for its answer after its own end.
            upstream.reset_on_close();
        }
        let received = result.map_err(|failed| broke(failed, outcome))?;
        let whole = request_done.get() && !half_closed.get() && !outgoing.truncated;
        match received.answer {
            Answer::Tunnel(from_upstream) => {
                let preread = Preread { from_client: client.input.take(), from_upstream };
                // Rare and large: not worth room in every request.
                Ok(Box::pin(tunnel(client, &mut upstream, preread, outcome)).await)
            }
            Answer::Complete { upstream_persists } => {
                let now = outcome.ended();
                attempt.upstream().pool.announced(received.announced_idle);
                if whole && upstream_persists {
                    worker.keep(attempt.upstream(), upstream, now);
                }
                Ok(match (whole, received.client_persists) {
                    (true, true) => Persistence::KeepAlive,
                    (true, false) => Persistence::Close,
                    // The client may still be sending; half-closed, it waits for nothing but the end.
                    (false, _) if half_closed.get() => Persistence::Close,
                    (false, _) => Persistence::LingeringClose,
                })
            }
        }
    }
}

/// Runs both directions until the response is complete, or nothing more can come of it. Takes them
/// pinned: moved in, each would have room twice in every connection's task.
async fn both(
    mut send: Pin<&mut impl Future<Output = Stopped>>,
    mut receive: Pin<&mut impl Future<Output = Result<Received, Failed>>>,
) -> Result<Received, Failed> {
    let (mut begun, mut sending) = (false, true);
    poll_fn(|context| {
        // First the request must go out; from then on nearly every wake-up is the response's.
        if begun && let Poll::Ready(result) = receive.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        if sending && let Poll::Ready(why) = send.as_mut().poll(context) {
            match why {
                // What was sent so far may yet be answered.
                Stopped::UpstreamGone => sending = false,
                Stopped::ClientGone => return Poll::Ready(Err(Failed::ClientGone)),
                Stopped::BadBody(refusal) => return Poll::Ready(Err(Failed::BadBody(refusal))),
            }
        }
        if begun {
            return Poll::Pending;
        }
        begun = true;
        receive.as_mut().poll(context)
    })
    .await
}

/// What ended an exchange.
enum Failed {
    /// The upstream ended without a byte of a response.
    Unanswered,
    /// The upstream's response is unusable; nothing of it was passed on.
    BadResponse(Refusal),
    /// The upstream ended within the response.
    Cut(Cut),
    /// The answer is not the one to pass on: nothing of it was.
    Again,
    ClientGone,
    /// The client's body is malformed.
    BadBody(Refusal),
}

fn broke(failed: Failed, outcome: &RequestOutcome) -> Broke {
    Broke::Failed(match failed {
        Failed::Unanswered => return Broke::Unanswered,
        Failed::Again => return Broke::Again,
        Failed::BadResponse(refusal) => refusal.into(),
        Failed::Cut(cut) => Failure::Cut(cut),
        Failed::ClientGone => Failure::ClientGone,
        // Once a response has begun, nothing can be said any more.
        Failed::BadBody(_) if outcome.has_sent() => Failure::Cut(Cut::Reset),
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
    Persistence::Close
}

/// Why sending ended before the response did. A request that was sent in full goes on watching.
#[derive(Debug)]
enum Stopped {
    /// The upstream takes nothing more; it may have answered before.
    UpstreamGone,
    /// The client reset its connection.
    ClientGone,
    /// The client's body breaks the chunked coding.
    BadBody(Refusal),
}

/// Sends the request, then watches the client until the exchange is over: its end is passed on as
/// an end, since a client that half-closes still gets its answer, and one that is gone must not
/// keep a server busy.
async fn send(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    outgoing: &mut OutgoingRequest,
    outcome: &RequestOutcome,
    (done, half_closed): (&Cell<bool>, &Cell<bool>),
) -> Stopped {
    if let Err(stopped) = send_all(client, upstream, input, outgoing, outcome).await {
        return stopped;
    }
    if outgoing.truncated {
        half_closed.set(true);
        return left(client).await;
    }
    done.set(true);
    // Pipelined bytes wait their turn, in the buffer or in the kernel.
    if input.is_none() {
        match client.peek().await {
            Ok(0) => {
                half_closed.set(true);
                upstream.shutdown();
            }
            Ok(_) => {}
            Err(_) => return Stopped::ClientGone,
        }
    }
    left(client).await
}

/// Waits until the client's connection is reset: nobody is there any more for the answer. A client
/// that only closed is found out by keepalive.
async fn left(client: &ReadHalf<'_>) -> Stopped {
    client.reset_by_peer().await;
    Stopped::ClientGone
}

async fn send_all(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    outgoing: &mut OutgoingRequest,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    flush(upstream, outgoing).await?;
    while !outgoing.body.is_done() {
        let unseen = outgoing.body.unseen();
        let nothing_held = input.as_ref().is_none_or(|input| input.is_empty());
        if nothing_held && unseen >= SPLICE_BODY_BYTES && outgoing.replayable == Replayable::No {
            move_request_body(client, upstream, outgoing, outcome).await?;
        } else {
            read_more(client, input, outgoing, outcome).await?;
        }
        flush(upstream, outgoing).await?;
        if outgoing.truncated {
            upstream.shutdown();
            return Ok(());
        }
    }
    Ok(())
}

/// Writes what is prepared. It stays if the request may have to be sent again.
async fn flush(
    upstream: &mut WriteHalf<'_>,
    outgoing: &mut OutgoingRequest,
) -> Result<(), Stopped> {
    let before = outgoing.written;
    let result = upstream.write_from(&outgoing.out.0, &mut outgoing.written).await;
    outgoing.sent += (outgoing.written - before) as u64;
    result.map_err(|_| Stopped::UpstreamGone)?;
    if outgoing.replayable == Replayable::No && !outgoing.body.is_done() {
        outgoing.forget_sent_body();
    }
    Ok(())
}

/// Reads from the client, waiting without a buffer, and prepares what belongs to the body.
async fn read_more(
    client: &mut ReadHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    outgoing: &mut OutgoingRequest,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    match read_input(client, input).await {
        Ok(0) => outgoing.truncated = outgoing.body.eof() == BodyEnd::Truncated,
        Ok(_) => {}
        Err(_) => return Err(Stopped::ClientGone),
    }
    if let Some(buffer) = input {
        outgoing.absorb(buffer, outcome).map_err(Stopped::BadBody)?;
    }
    input.take_if(|input| input.is_empty());
    Ok(())
}

/// Moves a large body, or a large rest of one, past this process.
async fn move_request_body(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    outgoing: &mut OutgoingRequest,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    let unseen = outgoing.body.unseen();
    let mut progress = |n| outcome.received(n);
    let moved = Box::pin(move_bytes(client, upstream, Some(unseen), &mut progress)).await;
    let moved = match moved {
        Ok(moved) => moved,
        Err(error) => {
            return Err(match error.side {
                BrokenEnd::Read => Stopped::ClientGone,
                BrokenEnd::Write => Stopped::UpstreamGone,
            });
        }
    };
    outgoing.sent += moved;
    outgoing.body.advance(moved);
    if moved < unseen {
        outgoing.truncated = outgoing.body.eof() == BodyEnd::Truncated;
    }
    Ok(())
}

const _: () = assert!(SPLICE_BODY_BYTES > COPY_BYTES as u64, "splicing is for what is not copied");

/// What a response must be seen with of its request.
#[derive(Debug, Clone, Copy)]
struct RequestFacts {
    method: Method,
    client_version: Version,
    client_persists: bool,
    upgrade: bool,
}

impl RequestFacts {
    fn of(outgoing: &OutgoingRequest) -> Self {
        Self {
            method: outgoing.method,
            client_version: outgoing.client_version,
            client_persists: outgoing.persistent,
            upgrade: outgoing.upgrade,
        }
    }
}

/// A response that was passed on in full.
#[derive(Debug)]
struct Received {
    answer: Answer,
    /// Was the client told that its connection stays open?
    client_persists: bool,
    /// Seconds of idleness that the server announced.
    announced_idle: Option<u32>,
}

#[derive(Debug)]
enum Answer {
    /// The body has ended.
    Complete { upstream_persists: bool },
    /// What follows is no HTTP; what was read of it already.
    Tunnel(Option<Lent<Buffer>>),
}

/// How the final head goes on.
struct Framed {
    body: Body,
    rewrite: BodyRewrite,
    received: Received,
    upstream_persists: bool,
}

/// Receives one response and passes it on.
async fn receive(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    (request, request_done): (RequestFacts, &Cell<bool>),
    attempt: &mut Attempt,
    again: impl Fn(u16) -> bool,
    outcome: &RequestOutcome,
) -> Result<Received, Failed> {
    let mut head = Lent::<ResponseHead>::take();
    let mut input = None;
    let mut out = Lent::<Output>::take();
    let mut interim = false;
    loop {
        match read_head(upstream, &mut head, &mut input).await {
            // The upstream has seen the request: it may not be sent again.
            Err(Failed::Unanswered) if interim => {
                return Err(Failed::BadResponse(Refusal::UpstreamReset));
            }
            result => result?,
        }
        let Some(buffer) = input.as_mut() else { return Err(Failed::Unanswered) };
        if !head.is_interim() {
            break;
        }
        interim = true;
        if request.client_version == Version::Http11 {
            let rewrite = ResponseRewrite { client: request.client_version, ..Default::default() };
            write_response(head.view(buffer.filled()), &rewrite, &mut out.0);
            client.write_all(&out.0).await.map_err(|_| Failed::ClientGone)?;
            outcome.sent(out.0.len() as u64);
            out.0.clear();
        }
        buffer.consume(head.len());
        head.clear();
        // A server may send them without end: it gets no more of this worker than others do, and
        // the client is watched all the while.
        tokio::task::yield_now().await;
    }
    let status = head.status();
    attempt.answered(clock::now(), status);
    if !outcome.has_sent() && again(status) {
        return Err(Failed::Again);
    }
    outcome.status(status);
    let persists = request.client_persists && request_done.get();
    let framed = match &mut input {
        Some(buffer) => frame(buffer, &head, request, persists, &mut out.0)?,
        None => return Err(Failed::Unanswered),
    };
    drop(head);
    relay_body(upstream, client, input, out, framed, outcome).await
}

/// Reads until a head is complete.
async fn read_head(
    upstream: &mut ReadHalf<'_>,
    head: &mut ResponseHead,
    input: &mut Option<Lent<Buffer>>,
) -> Result<(), Failed> {
    let bad = |error: heddle_wire::http1::HeadError| {
        Failed::BadResponse(Refusal::BadResponse(error.to_string().into()))
    };
    // An interim head may have brought the next one with it.
    if let Some(buffer) = input.as_ref()
        && !buffer.is_empty()
        && head.scan(buffer.filled()).map_err(bad)? == Scan::Complete
    {
        return Ok(());
    }
    loop {
        let before = input.as_ref().is_some_and(|buffer| !buffer.is_empty());
        match read_input(upstream, input).await {
            Ok(0) if before => {
                let what = "it ended within its head";
                return Err(Failed::BadResponse(Refusal::BadResponse(what.into())));
            }
            Ok(0) => return Err(Failed::Unanswered),
            Ok(_) => {}
            Err(_) if before => {
                let what = "the connection was reset within its head";
                return Err(Failed::BadResponse(Refusal::BadResponse(what.into())));
            }
            Err(_) => return Err(Failed::Unanswered),
        }
        let filled = input.as_ref().map_or(&[][..], |buffer| buffer.filled());
        if head.scan(filled).map_err(bad)? == Scan::Complete {
            return Ok(());
        }
    }
}

/// Decides how the final head goes on, and writes it to `out`.
fn frame(
    buffer: &mut Buffer,
    head: &ResponseHead,
    request: RequestFacts,
    mut client_persists: bool,
    out: &mut Vec<u8>,
) -> Result<Framed, Failed> {
    let response = head.view(buffer.filled());
    let tunnel = head.is_tunnel(request.method);
    if head.status() == 101 && !request.upgrade {
        let what = "it switches protocols (101) though nobody asked";
        return Err(Failed::BadResponse(Refusal::BadResponse(what.into())));
    }
    let framing = head.framing(request.method);
    let rewrite = head.body_rewrite(request.method, request.client_version);
    if framing == Framing::UntilClose || rewrite == BodyRewrite::UntilClose {
        client_persists = false;
    }
    let connection = match client_persists || tunnel {
        true => Connection::KeepAlive,
        false => Connection::Close,
    };
    let edit =
        ResponseRewrite { edits: &[], connection, client: request.client_version, body: rewrite };
    write_response(response, &edit, out);
    let received = Received {
        answer: match tunnel {
            true => Answer::Tunnel(None),
            false => Answer::Complete { upstream_persists: false },
        },
        client_persists,
        announced_idle: response.announced_idle_seconds(),
    };
    let upstream_persists = head.persistent(request.method);
    buffer.consume(head.len());
    Ok(Framed { body: Body::new(framing), rewrite, received, upstream_persists })
}

/// Writes the head in `out` with what is there of the body, then the rest.
async fn relay_body(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    mut input: Option<Lent<Buffer>>,
    mut out: Lent<Output>,
    framed: Framed,
    outcome: &RequestOutcome,
) -> Result<Received, Failed> {
    let Framed { mut body, rewrite, mut received, upstream_persists } = framed;
    if let Answer::Tunnel(held) = &mut received.answer {
        client.write_all(&out.0).await.map_err(|_| Failed::ClientGone)?;
        outcome.sent(out.0.len() as u64);
        *held = input.filter(|buffer| !buffer.is_empty());
        return Ok(received);
    }
    loop {
        let progress = match input.as_mut() {
            Some(buffer) => pass(client, buffer, &mut out.0, (&mut body, rewrite), outcome).await?,
            None => Progress::NeedInput,
        };
        match progress {
            Progress::More => continue,
            Progress::Done => break,
            Progress::NeedInput if body.is_done() => break,
            Progress::NeedInput => {}
        }
        // A head without any of its body yet must not wait for it.
        if !out.0.is_empty() {
            client.write_all(&out.0).await.map_err(|_| Failed::ClientGone)?;
            outcome.sent(out.0.len() as u64);
            out.0.clear();
        }
        let nothing_held = input.as_ref().is_none_or(|buffer| buffer.is_empty());
        let ended =
            if nothing_held && rewrite == BodyRewrite::AsIs && body.unseen() >= SPLICE_BODY_BYTES {
                input = None;
                move_response_body(upstream, client, &mut body, outcome).await?
            } else {
                match read_input(upstream, &mut input).await {
                    Ok(0) => true,
                    Ok(_) => false,
                    Err(_) => return Err(Failed::Cut(Cut::Reset)),
                }
            };
        if ended && body.eof() == BodyEnd::Truncated {
            // Where the end of the connection is the end of the body, only a reset says that it is not.
            let whole_looking = rewrite == BodyRewrite::UntilClose;
            return Err(Failed::Cut(if whole_looking { Cut::Reset } else { Cut::Closed }));
        }
        if body.is_done() && input.is_none() {
            break;
        }
    }
    let surplus = input.is_some_and(|buffer| !buffer.is_empty());
    received.answer = Answer::Complete { upstream_persists: upstream_persists && !surplus };
    Ok(received)
}

/// Passes on one run of the body, behind the head if that is still to be written.
async fn pass(
    client: &mut WriteHalf<'_>,
    buffer: &mut Buffer,
    out: &mut Vec<u8>,
    (body, rewrite): (&mut Body, BodyRewrite),
    outcome: &RequestOutcome,
) -> Result<Progress, Failed> {
    let run = match rewrite {
        BodyRewrite::UntilClose => body.payload(buffer.filled()),
        BodyRewrite::AsIs => body.relay(buffer.filled()),
    };
    // Nothing after the last good byte may go on.
    let run = run.map_err(|_| Failed::Cut(Cut::Reset))?;
    let piece = &buffer.filled()[run.forward.clone()];
    let waits = run.progress == Progress::More && out.len() + piece.len() <= COPY_BYTES;
    let written = out.len() + piece.len();
    let result = if waits || piece.is_empty() && run.progress == Progress::NeedInput {
        // More of it is at hand, or the caller writes the head alone.
        out.extend_from_slice(piece);
        buffer.consume(run.consumed);
        return Ok(run.progress);
    } else if piece.len() <= COPY_BYTES {
        out.extend_from_slice(piece);
        client.write_all(out).await
    } else {
        client.write_both(out, piece).await
    };
    result.map_err(|_| Failed::ClientGone)?;
    outcome.sent(written as u64);
    out.clear();
    buffer.consume(run.consumed);
    Ok(run.progress)
}

/// Moves a large body past this process; true if the upstream ended.
async fn move_response_body(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    body: &mut Body,
    outcome: &RequestOutcome,
) -> Result<bool, Failed> {
    let unseen = body.unseen();
    let limit = (unseen != u64::MAX).then_some(unseen);
    let mut progress = |n| outcome.sent(n);
    match Box::pin(move_bytes(upstream, client, limit, &mut progress)).await {
        Ok(moved) => {
            body.advance(moved);
            Ok(moved < unseen)
        }
        Err(error) => Err(match error.side {
            BrokenEnd::Read => Failed::Cut(Cut::Reset),
            BrokenEnd::Write => Failed::ClientGone,
        }),
    }
}
