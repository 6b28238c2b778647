//! The way of a response to its client: any number of interim heads, the final head with what is
//! there of its body in one write, then the rest as it comes.

use std::cell::Cell;

use heddle_runtime::{
    clock,
    splice::{Side, splice_all},
};
use heddle_wire::http1::{
    Body, BodyEnd, BodyRewrite, Connection, Framing, Method, Progress, ResponseHead,
    ResponseRewrite, Scan, Version, write_response,
};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{Cut, Failed};
use crate::{
    balancers::Attempt,
    http::Sending,
    limits::{COPY_BYTES, SPLICE_BODY_BYTES},
    outcome::RequestOutcome,
    refusal::Refusal,
    tcp::{write_all, write_both},
    worker::buffers::{Buffer, Lent, Output, read_input},
};

/// What a response must be seen with of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    method: Method,
    client_version: Version,
    client_persists: bool,
    upgrade: bool,
}

impl Asked {
    pub(super) fn of(sending: &Sending) -> Self {
        Self {
            method: sending.method,
            client_version: sending.client_version,
            client_persists: sending.persistent,
            upgrade: sending.upgrade,
        }
    }
}

/// A response that was passed on in full.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) answer: Answer,
    /// Was the client told that its connection stays open?
    pub(super) client_persists: bool,
    /// Seconds of idleness that the server announced.
    pub(super) announced_idle: Option<u32>,
}

#[derive(Debug)]
pub(super) enum Answer {
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
pub(super) async fn receive(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    (asked, request_done): (Asked, &Cell<bool>),
    attempt: &mut Attempt,
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
        if asked.client_version == Version::Http11 {
            let rewrite = ResponseRewrite { client: asked.client_version, ..Default::default() };
            write_response(head.view(buffer.filled()), &rewrite, &mut out.0);
            write_all(client, &out.0).await.map_err(|_| Failed::ClientGone)?;
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
    outcome.status(status);
    attempt.answered(clock::now(), status);
    let persists = asked.client_persists && request_done.get();
    let framed = match &mut input {
        Some(buffer) => frame(buffer, &head, asked, persists, &mut out.0)?,
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
    asked: Asked,
    mut client_persists: bool,
    out: &mut Vec<u8>,
) -> Result<Framed, Failed> {
    let response = head.view(buffer.filled());
    let tunnel = head.is_tunnel(asked.method);
    if head.status() == 101 && !asked.upgrade {
        let what = "it switches protocols (101) though nobody asked";
        return Err(Failed::BadResponse(Refusal::BadResponse(what.into())));
    }
    let framing = head.framing(asked.method);
    let old_client = asked.client_version == Version::Http10;
    let rewrite = match framing {
        Framing::Chunked if old_client => BodyRewrite::UntilClose,
        _ => BodyRewrite::AsIs,
    };
    if framing == Framing::UntilClose || rewrite == BodyRewrite::UntilClose {
        client_persists = false;
    }
    let connection = match client_persists || tunnel {
        true => Connection::KeepAlive,
        false => Connection::Close,
    };
    let edit =
        ResponseRewrite { edits: &[], connection, client: asked.client_version, body: rewrite };
    write_response(response, &edit, out);
    let received = Received {
        answer: match tunnel {
            true => Answer::Tunnel(None),
            false => Answer::Complete { upstream_persists: false },
        },
        client_persists,
        announced_idle: response.announced_idle_seconds(),
    };
    let upstream_persists = head.persistent(asked.method);
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
        write_all(client, &out.0).await.map_err(|_| Failed::ClientGone)?;
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
            write_all(client, &out.0).await.map_err(|_| Failed::ClientGone)?;
            outcome.sent(out.0.len() as u64);
            out.0.clear();
        }
        let nothing_held = input.as_ref().is_none_or(|buffer| buffer.is_empty());
        let ended =
            if nothing_held && rewrite == BodyRewrite::AsIs && body.unseen() >= SPLICE_BODY_BYTES {
                input = None;
                splice(upstream, client, &mut body, outcome).await?
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
        BodyRewrite::AsIs | BodyRewrite::Chunked => body.relay(buffer.filled()),
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
        write_all(client, out).await
    } else {
        write_both(client, out, piece).await
    };
    result.map_err(|_| Failed::ClientGone)?;
    outcome.sent(written as u64);
    out.clear();
    buffer.consume(run.consumed);
    Ok(run.progress)
}

/// Moves a large body past this process; true if the upstream ended.
async fn splice(
    upstream: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    body: &mut Body,
    outcome: &RequestOutcome,
) -> Result<bool, Failed> {
    let unseen = body.unseen();
    let limit = (unseen != u64::MAX).then_some(unseen);
    let mut progress = |n| outcome.sent(n);
    let splicing = splice_all(upstream.as_ref(), client.as_ref(), limit, &mut progress);
    match Box::pin(splicing).await {
        Ok(moved) => {
            body.advance(moved);
            Ok(moved < unseen)
        }
        Err(error) => Err(match error.side {
            Side::Read => Failed::Cut(Cut::Reset),
            Side::Write => Failed::ClientGone,
        }),
    }
}
