//! Bytes both ways until both sides are done: TCP connections, and what follows a 101.
//!
//! Small messages are read and written; a direction that proves bulky is spliced. A direction that
//! waits holds no buffer. Each side sees what the other did: an end as an end, a reset as a reset.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::Poll,
};

use heddle_runtime::{
    net::{reset_on_close, shutdown_write},
    splice::{Side, splice_all},
};
use tokio::{
    io::AsyncWrite,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::{
    limits::SPLICE_AFTER_FULL_READS,
    protocol::Reason,
    worker::buffers::{Buffer, Lent, read_input},
};

/// Told of every piece that was delivered, in bytes.
pub(crate) type Count<'a> = &'a dyn Fn(u64);

/// What was read from one side before the relay began.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) from_client: Option<Lent<Buffer>>,
    pub(crate) from_upstream: Option<Lent<Buffer>>,
}

impl Held {
    /// Did the client close without a byte of its own?
    pub(crate) fn is_silent(&self, reason: Reason) -> bool {
        let said = |held: &Lent<Buffer>| !held.filled().is_empty();
        reason == Reason::ClientClosed && !self.from_client.as_ref().is_some_and(said)
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
}

/// Relays until both directions have ended. `received` counts bytes from the client, `sent` to it.
pub(crate) async fn relay(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    held: Held,
    received: Count<'_>,
    sent: Count<'_>,
) -> End {
    let end = {
        let (mut client_read, mut client_write) = client.split();
        let (mut upstream_read, mut upstream_write) = upstream.split();
        let mut up = pin!(pump(&mut client_read, &mut upstream_write, held.from_client, received));
        let mut down = pin!(pump(&mut upstream_read, &mut client_write, held.from_upstream, sent));
        both(up.as_mut(), down.as_mut()).await
    };
    if end != End::Closed {
        // A socket that is gone already cannot be told; closing it is all the same.
        let _gone = reset_on_close(client);
        let _gone = reset_on_close(upstream);
    }
    end
}

/// Closes a connection so that its peer sees a failure and not an end.
pub(crate) fn reset(client: TcpStream) {
    let _gone = reset_on_close(&client);
    drop(client);
}

/// Runs both directions. A side that cannot be read any more is gone, and with it both directions;
/// one that cannot be written may still have sent something, so the way back runs to its end.
async fn both(
    mut up: Pin<&mut impl Future<Output = Result<(), Side>>>,
    mut down: Pin<&mut impl Future<Output = Result<(), Side>>>,
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
            (Some(Err(Side::Read)), _) => Poll::Ready(End::ClientReset),
            (_, Some(Err(Side::Read))) => Poll::Ready(End::UpstreamReset),
            (Some(Ok(())), Some(Ok(()))) => Poll::Ready(End::Closed),
            (Some(_), Some(Err(Side::Write))) => Poll::Ready(End::ClientReset),
            (Some(Err(Side::Write)), Some(_)) => Poll::Ready(End::UpstreamReset),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One direction, to its end, which is passed on.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    held: Option<Lent<Buffer>>,
    count: Count<'_>,
) -> Result<(), Side> {
    if let Some(held) = held {
        write_all(to, held.filled()).await.map_err(|_| Side::Write)?;
        count(held.filled().len() as u64);
    }
    let (mut full_reads, mut input) = (0, None);
    while full_reads < SPLICE_AFTER_FULL_READS {
        let n = read_input(from, &mut input).await.map_err(|_| Side::Read)?;
        let Some(buffer) = input.take() else {
            // If that fails, the target is gone, and reading from it says so.
            let _gone = shutdown_write(to.as_ref());
            return Ok(());
        };
        full_reads = if buffer.is_full() { full_reads + 1 } else { 0 };
        write_all(to, buffer.filled()).await.map_err(|_| Side::Write)?;
        count(n as u64);
    }
    let mut progress = count;
    splice_all(from.as_ref(), to.as_ref(), None, &mut progress)
        .await
        .map_err(|error| error.side)?;
    let _gone = shutdown_write(to.as_ref());
    Ok(())
}

/// Writes all of `bytes`.
pub(crate) async fn write_all(to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    write_from(to, bytes, &mut written).await
}

/// Writes `bytes` from `written` on, telling there how far it came, also when it fails.
pub(crate) async fn write_from(
    to: &mut WriteHalf<'_>,
    bytes: &[u8],
    written: &mut usize,
) -> io::Result<()> {
    poll_fn(|context| {
        while *written < bytes.len() {
            match Pin::new(&mut *to).poll_write(context, &bytes[*written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => *written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Writes a head and what follows it, in one system call if the socket takes it.
pub(crate) async fn write_both(to: &mut WriteHalf<'_>, head: &[u8], rest: &[u8]) -> io::Result<()> {
    let mut written = 0;
    let total = head.len() + rest.len();
    poll_fn(|context| {
        while written < head.len() {
            let slices = [IoSlice::new(&head[written..]), IoSlice::new(rest)];
            match Pin::new(&mut *to).poll_write_vectored(context, &slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if written < total { write_all(to, &rest[written - head.len()..]).await } else { Ok(()) }
}
