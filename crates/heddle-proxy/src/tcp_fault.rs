//! Faults of a connection that shape what passes: no more than so many bytes a second, or a reset after so
//! many. The connection's bytes take a way of their own ([`shaped`]) to whoever serves it, who sees an ordinary
//! client and knows of the fault only what its records need. Which connection has a fault, sides decide.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use heddle_model::discovery::TcpFault;
use heddle_runtime::{
    clock,
    transport::{ReadHalf, Transport, WriteHalf},
};
use tokio::io::AsyncReadExt;

use crate::refusal::Flag;

/// Bytes that are taken up at once.
const PIECE_BYTES: usize = 16 * 1024;
/// A second's bytes go in so many pieces at least, as far as they are more bytes than that.
const PIECES_PER_SECOND: u64 = 20;

/// A connection that has such a fault, as its records see it.
#[derive(Debug)]
pub(crate) struct Shape {
    fault: TcpFault,
    /// It was reset for it.
    fired: Cell<bool>,
    /// Bytes of requests and of answers that whoever serves it has moved so far.
    moved: Cell<(u64, u64)>,
}

impl Shape {
    pub(crate) fn new(fault: TcpFault) -> Rc<Self> {
        Rc::new(Self { fault, fired: Cell::default(), moved: Cell::default() })
    }

    /// What records say of it, if anything was injected by now.
    pub(crate) fn flag(&self) -> Option<Flag> {
        match self.fault {
            TcpFault::BytesPerSecond(_) => Some(Flag::DI),
            _ => self.fired.get().then_some(Flag::FI),
        }
    }

    /// What the record of a request says of it that moved so many bytes. They may still be on their way to
    /// where the connection is cut.
    pub(crate) fn flag_of(&self, request_bytes: u64, response_bytes: u64) -> Option<Flag> {
        let (up, down) = self.moved.get();
        let moved = (up.saturating_add(request_bytes), down.saturating_add(response_bytes));
        self.moved.set(moved);
        match self.fault {
            TcpFault::ResetAfterBytes(most) if moved.0.max(moved.1) >= most => Some(Flag::FI),
            _ => self.flag(),
        }
    }
}

/// Runs `serve` with a client whose bytes are those of `client`, shaped; to the end of both. What was written
/// goes out before the connection ends.
pub(crate) async fn shaped<F: Future<Output = ()>>(
    mut client: Transport,
    shape: &Shape,
    serve: impl FnOnce(Transport) -> F,
) {
    let (mut near, far) = Transport::pair();
    let is_served = Cell::new(false);
    let mut served = pin!(serve(far));
    let mut passing = pin!(async {
        let end = pass_both(&mut client, &mut near, (shape, &is_served)).await;
        if end == End::Reset {
            client.reset_on_close();
            near.reset_on_close();
        }
        drop((client, near));
    });
    let mut passes = true;
    poll_fn(|context| {
        if !is_served.get() && served.as_mut().poll(context).is_ready() {
            is_served.set(true);
        }
        if passes && passing.as_mut().poll(context).is_ready() {
            passes = false;
        }
        if is_served.get() && !passes { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// In order.
    Ended,
    /// Whoever reads takes nothing more; the other direction may still have something.
    Unread,
    /// Whoever writes is gone, or the fault says so.
    Reset,
}

async fn pass_both(
    client: &mut Transport,
    near: &mut Transport,
    (shape, is_served): (&Shape, &Cell<bool>),
) -> End {
    let (mut client_read, mut client_write) = client.split();
    let (mut near_read, mut near_write) = near.split();
    let mut up = pin!(pass(&mut client_read, &mut near_write, shape));
    let mut down = pin!(pass(&mut near_read, &mut client_write, shape));
    let (mut up_end, mut down_end) = (None, None);
    poll_fn(|context| {
        if up_end.is_none()
            && let Poll::Ready(end) = up.as_mut().poll(context)
        {
            up_end = Some(end);
        }
        if down_end.is_none()
            && let Poll::Ready(end) = down.as_mut().poll(context)
        {
            down_end = Some(end);
        }
        match (up_end, down_end) {
            (Some(Passed::Reset), _) | (_, Some(Passed::Reset)) => Poll::Ready(End::Reset),
            (Some(Passed::Unread), Some(Passed::Unread)) => Poll::Ready(End::Reset),
            (Some(_), Some(_)) => Poll::Ready(End::Closed),
            // Nobody reads any more: a client that does not close is not waited for.
            (None, Some(_)) if is_served.get() => Poll::Ready(End::Closed),
            _ => Poll::Pending,
        }
    })
    .await
}

async fn pass(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, shape: &Shape) -> Passed {
    let mut left = match shape.fault {
        TcpFault::ResetAfterBytes(bytes) => bytes,
        _ => u64::MAX,
    };
    let rate = match shape.fault {
        TcpFault::BytesPerSecond(bytes) => Some(bytes.max(1)),
        _ => None,
    };
    let piece = rate.map_or(PIECE_BYTES as u64, |rate| (rate / PIECES_PER_SECOND).max(1));
    let mut buffer = vec![0; usize::try_from(piece).unwrap_or(usize::MAX).min(PIECE_BYTES)];
    let mut due: Option<Instant> = None;
    loop {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match from.read(&mut buffer[..most]).await {
            Ok(0) => {
                to.shutdown();
                return Passed::Ended;
            }
            Ok(count) => count,
            Err(_) => return Passed::Reset,
        };
        if let (Some(rate), now) = (rate, clock::now()) {
            // What was not sent in time past gives no credit.
            let at = due.filter(|due| *due > now).unwrap_or(now);
            clock::sleep_until(at).await;
            due = Some(at + Duration::from_secs_f64(count as f64 / rate as f64));
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return Passed::Unread;
        }
        left -= count as u64;
        if left == 0 {
            shape.fired.set(true);
            return Passed::Reset;
        }
    }
}

/// Holds a connection of which nothing passes, until its client ends it.
pub(crate) async fn swallow(client: &mut Transport) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(1..) = client.read(&mut buffer).await {}
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Runs an application that answers with `answer` behind a fault; gives what the client read, how long
    /// that took in milliseconds, and whether it ended in order.
    async fn answered(fault: TcpFault, answer: usize) -> (usize, u128, bool, Option<Flag>) {
        let (mut client, far) = Transport::pair();
        let shape = Shape::new(fault);
        let begun = clock::now();
        let serving = shaped(far, &shape, |mut client| async move {
            client.read_exact(&mut [0; 4]).await.unwrap();
            let _cut = client.write_all(&vec![b'x'; answer]).await;
        });
        let asking = async {
            client.write_all(b"ask\n").await.unwrap();
            let mut read = Vec::new();
            let ended = client.read_to_end(&mut read).await.is_ok();
            (read.len(), (clock::now() - begun).as_millis(), ended)
        };
        let ((), (read, took, ended)) = tokio::join!(serving, asking);
        (read, took, ended, shape.flag())
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_in_the_long_run_and_everything_arrives() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (read, took, ended, flag) =
                    answered(TcpFault::BytesPerSecond(1_000), 5_000).await;
                assert_eq!((read, ended, flag), (5_000, true, Some(Flag::DI)));
                assert!((4_900..=5_200).contains(&took), "{took} ms");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_reset_comes_after_its_bytes_and_not_before() {
        let (read, _, ended, flag) = answered(TcpFault::ResetAfterBytes(100), 5_000).await;
        assert_eq!((read, ended, flag), (100, false, Some(Flag::FI)));
        let (read, _, ended, flag) = answered(TcpFault::ResetAfterBytes(100), 99).await;
        assert_eq!((read, ended, flag), (99, true, None));
    }
}
