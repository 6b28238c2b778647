//! The way of a request: from a client of HTTP/1 to its upstream, and the client watched until the
//! exchange is over. What comes back is `response`'s.

use heddle_logic::Replayable;
use heddle_runtime::{
    splice::BrokenEnd,
    transport::{ReadHalf, WriteHalf, move_bytes},
};
use heddle_wire::http1::BodyEnd;

use super::course::{Course, Stopped};
use crate::{
    buffers::{Buffer, Lent, read_input},
    limits::{COPY_BYTES, SPLICE_BODY_BYTES},
    outgoing::OutgoingRequest,
    record::RequestOutcome,
};

/// Sends the request, then watches the client until the exchange is over: its end is passed on as
/// an end, since a client that half-closes still gets its answer, and one that is gone must not
/// keep a server busy.
pub(super) async fn send(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    outgoing: &mut OutgoingRequest,
    outcome: &RequestOutcome,
    course: &Course,
) -> Stopped {
    if let Err(stopped) = send_all(client, upstream, input, outgoing, outcome, course).await {
        return stopped;
    }
    if outgoing.truncated {
        course.half_closed.set(true);
        return left(client).await;
    }
    course.sent.set(true);
    // Pipelined bytes wait their turn, in the buffer or in the kernel.
    if input.is_none() {
        match client.peek().await {
            Ok(0) => {
                course.half_closed.set(true);
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
    course: &Course,
) -> Result<(), Stopped> {
    flush(client, upstream, outgoing, course).await?;
    while !outgoing.body.is_done() {
        let unseen = outgoing.body.unseen();
        let nothing_held = input.as_ref().is_none_or(|input| input.is_empty());
        if nothing_held && unseen >= SPLICE_BODY_BYTES && outgoing.replayable == Replayable::No {
            course.forgot.set(true);
            move_request_body(client, upstream, outgoing, outcome).await?;
        } else {
            read_more(client, input, outgoing, outcome).await?;
        }
        flush(client, upstream, outgoing, course).await?;
        if outgoing.truncated {
            upstream.shutdown();
            return Ok(());
        }
    }
    Ok(())
}

/// Writes what is prepared. It stays if the request may have to be sent again.
async fn flush(
    client: &ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    outgoing: &mut OutgoingRequest,
    course: &Course,
) -> Result<(), Stopped> {
    let before = outgoing.written;
    let result = upstream.write_for(client, &outgoing.out.0, &mut outgoing.written).await;
    outgoing.sent += (outgoing.written - before) as u64;
    result.map_err(|(side, _)| stopped(side))?;
    if outgoing.replayable == Replayable::No && !outgoing.body.is_done() {
        course.forgot.set(true);
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
    let moved = moved.map_err(|error| stopped(error.side))?;
    outgoing.sent += moved;
    outgoing.body.advance(moved);
    if moved < unseen {
        outgoing.truncated = outgoing.body.eof() == BodyEnd::Truncated;
    }
    if outgoing.body.is_done() {
        outcome.arrived();
    }
    Ok(())
}

fn stopped(by: BrokenEnd) -> Stopped {
    match by {
        BrokenEnd::Read => Stopped::ClientGone,
        BrokenEnd::Write => Stopped::UpstreamGone,
    }
}

const _: () = assert!(SPLICE_BODY_BYTES > COPY_BYTES as u64, "splicing is for what is not copied");
