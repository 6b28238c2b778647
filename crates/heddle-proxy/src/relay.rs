//! Bytes both ways until both sides are done: TCP connections, and what follows a 101.
//!
//! Small messages are read and written; a direction that proves bulky is spliced. A direction that
//! waits holds no buffer. Each side sees what the other did: an end as an end, a reset as a reset.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use heddle_runtime::{
    clock,
    splice::BrokenEnd,
    transport::{ReadHalf, Transport, WriteHalf, move_bytes},
};

use crate::{
    buffers::{Buffer, Lent, read_input},
    deadline::until,
    limits::SPLICE_AFTER_FULL_READS,
    verdict::Reason,
};

/// Told of every piece that was delivered, in bytes.
pub(crate) type Count<'a> = &'a dyn Fn(u64);

/// What was read from one side before the relay began.
#[derive(Debug, Default)]
pub(crate) struct Preread {
    pub(crate) from_client: Option<Lent<Buffer>>,
    pub(crate) from_upstream: Option<Lent<Buffer>>,
}

impl Preread {
    /// Did the client close without a byte of its own?
    pub(crate) fn is_silent(&self, reason: Reason) -> bool {
        let said = |held: &Lent<Buffer>| !held.filled().is_empty();
        reason == Reason::ClientClosed && !self.from_client.as_ref().is_some_and(said)
    }
}

/// How long a relay may go on, where a rule says so.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RelayLimits {
    /// Without a byte in either direction.
    pub(crate) idle: Option<Duration>,
    /// In all.
    pub(crate) lasts: Option<Duration>,
}

impl RelayLimits {
    /// Relays as [`relay`], and no longer than this.
    pub(crate) async fn relay(
        self,
        client: &mut Transport,
        upstream: &mut Transport,
        preread: Preread,
        received: Count<'_>,
        sent: Count<'_>,
    ) -> End {
        let begun = clock::now();
        let moved = Cell::new(begun);
        let moves = |count: Count<'_>, bytes| {
            moved.set(clock::now());
            count(bytes);
        };
        let (received, sent) = (|n| moves(received, n), |n| moves(sent, n));
        let idles = || self.idle.and_then(|limit| moved.get().checked_add(limit));
        let ends = self.lasts.and_then(|limit| begun.checked_add(limit));
        let relaying = relay(client, upstream, preread, &received, &sent);
        let ended = until(|| idles().into_iter().chain(ends).min(), relaying).await;
        ended.unwrap_or_else(|| match ends {
            Some(at) if clock::now() >= at => End::TooOld,
            _ => End::Idle,
        })
    }

    /// Does a rule say anything?
    pub(crate) fn is_any(&self) -> bool {
        self.idle.is_some() || self.lasts.is_some()
    }
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed in order.
    Closed,
    /// The client reset its connection; so was the upstream's.
    ClientReset,
    /// The upstream reset its connection; so was the client's.
    UpstreamReset,
    /// Nothing was said for as long as a rule allows.
    Idle,
    /// It had all the time that a rule gives it.
    TooOld,
}

/// Relays until both directions have ended. `received` counts bytes from the client, `sent` to it.
pub(crate) async fn relay(
    client: &mut Transport,
    upstream: &mut Transport,
    preread: Preread,
    received: Count<'_>,
    sent: Count<'_>,
) -> End {
    let end = {
        let (mut client_read, mut client_write) = client.split();
        let (mut upstream_read, mut upstream_write) = upstream.split();
        let (client_broke, upstream_broke) = (Cell::new(false), Cell::new(false));
        let up = async {
            let held = preread.from_client;
            let pumped = pump(&mut client_read, &mut upstream_write, held, received).await;
            pass_on(pumped, &client_broke, &upstream_broke, &upstream_write)
        };
        let down = async {
            let held = preread.from_upstream;
            let pumped = pump(&mut upstream_read, &mut client_write, held, sent).await;
            pass_on(pumped, &upstream_broke, &client_broke, &client_write)
        };
        both(pin!(up), pin!(down)).await
    };
    if end != End::Closed {
        client.reset_on_close();
        upstream.reset_on_close();
    }
    end
}

/// Runs both directions. A side that cannot be read any more is gone, and with it both directions;
/// one that cannot be written may still have sent something, so the way back runs to its end.
async fn both(
    mut up: Pin<&mut impl Future<Output = Result<(), BrokenEnd>>>,
    mut down: Pin<&mut impl Future<Output = Result<(), BrokenEnd>>>,
) -> End {
    let (mut up_result, mut down_result) = (None, None);
    poll_fn(|context| {
        if up_result.is_none()
            && let Poll::Ready(result) = up.as_mut().poll(context)
        {
            up_result = Some(result);
        }
        if down_result.is_none()
            && let Poll::Ready(result) = down.as_mut().poll(context)
        {
            down_result = Some(result);
        }
        match (up_result, down_result) {
            (Some(Err(BrokenEnd::Read)), _) => Poll::Ready(End::ClientReset),
            (_, Some(Err(BrokenEnd::Read))) => Poll::Ready(End::UpstreamReset),
            (Some(Ok(())), Some(Ok(()))) => Poll::Ready(End::Closed),
            (Some(_), Some(Err(BrokenEnd::Write))) => Poll::Ready(End::ClientReset),
            (Some(Err(BrokenEnd::Write)), Some(_)) => Poll::Ready(End::UpstreamReset),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Passes the end of one direction on, and notes which side broke. After a reset the kernel tells the
/// first who asks, and if that was a write, a read is told of an end: it is none.
fn pass_on(
    pumped: Result<(), BrokenEnd>,
    from_broke: &Cell<bool>,
    to_broke: &Cell<bool>,
    to: &WriteHalf<'_>,
) -> Result<(), BrokenEnd> {
    match pumped {
        Ok(()) if from_broke.get() => Err(BrokenEnd::Read),
        Ok(()) => {
            to.shutdown();
            Ok(())
        }
        Err(BrokenEnd::Write) => {
            to_broke.set(true);
            pumped
        }
        Err(BrokenEnd::Read) => pumped,
    }
}

/// One direction, to its end.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    held: Option<Lent<Buffer>>,
    count: Count<'_>,
) -> Result<(), BrokenEnd> {
    if let Some(held) = held {
        to.write_for(from, held.filled(), &mut 0).await.map_err(|(side, _)| side)?;
        count(held.filled().len() as u64);
    }
    let (mut full_reads, mut input) = (0, None);
    while full_reads < SPLICE_AFTER_FULL_READS {
        let n = read_input(from, &mut input).await.map_err(|_| BrokenEnd::Read)?;
        let Some(buffer) = input.take() else { return Ok(()) };
        full_reads = if buffer.is_full() { full_reads + 1 } else { 0 };
        to.write_for(from, buffer.filled(), &mut 0).await.map_err(|(side, _)| side)?;
        count(n as u64);
    }
    let mut progress = count;
    move_bytes(from, to, None, &mut progress).await.map(drop).map_err(|error| error.side)
}
