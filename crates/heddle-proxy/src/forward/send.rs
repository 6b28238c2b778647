//! The way of a request to its upstream: what was prepared, then the rest of its body as it comes.

use std::cell::Cell;

use heddle_logic::Replayable;
use heddle_runtime::{
    net::shutdown_write,
    splice::{Side, splice_all},
};
use heddle_wire::http1::BodyEnd;
use tokio::{
    io::Interest,
    net::tcp::{ReadHalf, WriteHalf},
};

use crate::{
    http::Sending,
    limits::{COPY_BYTES, SPLICE_BODY_BYTES},
    outcome::RequestOutcome,
    refusal::Refusal,
    tcp::write_from,
    worker::buffers::{Buffer, Lent, read_input},
};

/// Why sending ended before the response did. A request that was sent in full goes on watching.
#[derive(Debug)]
pub(super) enum Stopped {
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
pub(super) async fn send(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    sending: &mut Sending,
    outcome: &RequestOutcome,
    (done, half_closed): (&Cell<bool>, &Cell<bool>),
) -> Stopped {
    if let Err(stopped) = send_all(client, upstream, input, sending, outcome).await {
        return stopped;
    }
    if sending.truncated {
        half_closed.set(true);
        return reset(client).await;
    }
    done.set(true);
    // Pipelined bytes wait their turn, in the buffer or in the kernel.
    if input.is_none() {
        match client.peek(&mut [0]).await {
            Ok(0) => {
                half_closed.set(true);
                let _gone = shutdown_write(upstream.as_ref());
            }
            Ok(_) => {}
            Err(_) => return Stopped::ClientGone,
        }
    }
    reset(client).await
}

/// Waits until the client's connection is reset: nobody is there any more for the answer. A client
/// that only closed is found out by keepalive.
async fn reset(client: &ReadHalf<'_>) -> Stopped {
    // An error of the wait itself says the same.
    let _reset = client.ready(Interest::ERROR).await;
    Stopped::ClientGone
}

async fn send_all(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    sending: &mut Sending,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    flush(upstream, sending).await?;
    while !sending.body.is_done() {
        let unseen = sending.body.unseen();
        let nothing_held = input.as_ref().is_none_or(|input| input.is_empty());
        if nothing_held && unseen >= SPLICE_BODY_BYTES && sending.replayable == Replayable::No {
            splice(client, upstream, sending, outcome).await?;
        } else {
            read_more(client, input, sending, outcome).await?;
        }
        flush(upstream, sending).await?;
        if sending.truncated {
            let _gone = shutdown_write(upstream.as_ref());
            return Ok(());
        }
    }
    Ok(())
}

/// Writes what is prepared. It stays if the request may have to be sent again.
async fn flush(upstream: &mut WriteHalf<'_>, sending: &mut Sending) -> Result<(), Stopped> {
    let before = sending.written;
    let result = write_from(upstream, &sending.out.0, &mut sending.written).await;
    sending.sent += (sending.written - before) as u64;
    result.map_err(|_| Stopped::UpstreamGone)?;
    if sending.replayable == Replayable::No && !sending.body.is_done() {
        sending.forget_sent_body();
    }
    Ok(())
}

/// Reads from the client, waiting without a buffer, and prepares what belongs to the body.
async fn read_more(
    client: &mut ReadHalf<'_>,
    input: &mut Option<Lent<Buffer>>,
    sending: &mut Sending,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    match read_input(client, input).await {
        Ok(0) => sending.truncated = sending.body.eof() == BodyEnd::Truncated,
        Ok(_) => {}
        Err(_) => return Err(Stopped::ClientGone),
    }
    if let Some(buffer) = input {
        sending.absorb(buffer, outcome).map_err(Stopped::BadBody)?;
    }
    input.take_if(|input| input.is_empty());
    Ok(())
}

/// Moves a large body, or a large rest of one, past this process.
async fn splice(
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
    sending: &mut Sending,
    outcome: &RequestOutcome,
) -> Result<(), Stopped> {
    let unseen = sending.body.unseen();
    let mut progress = |n| outcome.received(n);
    let moved =
        Box::pin(splice_all(client.as_ref(), upstream.as_ref(), Some(unseen), &mut progress)).await;
    let moved = match moved {
        Ok(moved) => moved,
        Err(error) => {
            return Err(match error.side {
                Side::Read => Stopped::ClientGone,
                Side::Write => Stopped::UpstreamGone,
            });
        }
    };
    sending.sent += moved;
    sending.body.advance(moved);
    if moved < unseen {
        sending.truncated = sending.body.eof() == BodyEnd::Truncated;
    }
    Ok(())
}

const _: () = assert!(SPLICE_BODY_BYTES > COPY_BYTES as u64, "splicing is for what is not copied");
