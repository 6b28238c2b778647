//! A connection between two tasks of one thread, with the manners of TCP: bounded both ways, half
//! closed by either side, reset by one that closes without having read all, and bytes that came
//! before a reset are still there to be read.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::io::ReadBuf;

use crate::net::Liveness;

/// Bytes on their way in one direction.
const CAPACITY: usize = 64 * 1024;
/// Room that a direction keeps while nothing is on its way.
const KEPT: usize = 4 * 1024;

/// Both ends of a new connection.
pub(super) fn pair() -> (End, End) {
    let (one, other) = (Rc::<RefCell<Pipe>>::default(), Rc::<RefCell<Pipe>>::default());
    (End::new(Rc::clone(&one), Rc::clone(&other)), End::new(other, one))
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
    resets: Cell<bool>,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// How it ended, if it has.
    ending: Option<Ending>,
    /// The reading end is closed.
    unread: bool,
    waiting: Vec<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

impl Pipe {
    fn finish(&mut self, ending: Ending) {
        // Nothing comes after a reset.
        if self.ending != Some(Ending::Reset) {
            self.ending = Some(ending);
        }
        self.wake();
    }

    /// Something changed: whoever waits looks again.
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.waiting.iter().any(|one| one.will_wake(context.waker())) {
            self.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl End {
    fn new(incoming: Rc<RefCell<Pipe>>, outgoing: Rc<RefCell<Pipe>>) -> Self {
        Self { incoming, outgoing, resets: Cell::new(false) }
    }

    pub(super) fn poll_read(
        &self,
        context: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.incoming.borrow_mut();
        if !pipe.bytes.is_empty() {
            let count = pipe.bytes.len().min(buffer.remaining());
            let (first, second) = pipe.bytes.as_slices();
            let of_first = count.min(first.len());
            buffer.put_slice(&first[..of_first]);
            buffer.put_slice(&second[..count - of_first]);
            pipe.bytes.drain(..count);
            if pipe.bytes.is_empty() && pipe.bytes.capacity() > KEPT {
                pipe.bytes = VecDeque::new();
            }
            pipe.wake();
            return Poll::Ready(Ok(()));
        }
        match pipe.ending {
            None => pipe.wait(context),
            Some(Ending::Closed) => Poll::Ready(Ok(())),
            Some(Ending::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    pub(super) fn poll_write(
        &self,
        context: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.incoming.borrow().ending == Some(Ending::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.ending.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.unread {
            // As on a network: it goes out, and what comes back is a reset.
            drop(pipe);
            self.incoming.borrow_mut().finish(Ending::Reset);
            return Poll::Ready(Ok(bytes.len()));
        }
        let room = CAPACITY - pipe.bytes.len();
        if room == 0 {
            return pipe.wait(context);
        }
        let count = room.min(bytes.len());
        pipe.bytes.extend(&bytes[..count]);
        pipe.wake();
        Poll::Ready(Ok(count))
    }

    /// Ready with 1 when there are bytes and with 0 at the end; takes nothing.
    pub(super) fn poll_peek(&self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_peek_at(context, &mut [0])
    }

    /// Ready with the first bytes that are there, and how many, or with 0 at the end; takes nothing.
    pub(super) fn poll_peek_at(
        &self,
        context: &Context<'_>,
        first: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.incoming.borrow_mut();
        match pipe.ending {
            _ if !pipe.bytes.is_empty() => {
                let both = first.iter_mut().zip(&pipe.bytes);
                Poll::Ready(Ok(both.map(|(to, byte)| *to = *byte).count()))
            }
            None => pipe.wait(context),
            Some(Ending::Closed) => Poll::Ready(Ok(0)),
            Some(Ending::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    pub(super) fn poll_reset(&self, context: &Context<'_>) -> Poll<()> {
        let mut pipe = self.incoming.borrow_mut();
        if pipe.ending == Some(Ending::Reset) { Poll::Ready(()) } else { pipe.wait(context) }
    }

    pub(super) fn liveness(&self) -> Liveness {
        let pipe = self.incoming.borrow();
        match pipe.ending {
            Some(Ending::Reset) => Liveness::Closed,
            _ if !pipe.bytes.is_empty() => Liveness::Readable,
            Some(Ending::Closed) => Liveness::Closed,
            None => Liveness::Idle,
        }
    }

    pub(super) fn shutdown_write(&self) {
        self.outgoing.borrow_mut().finish(Ending::Closed);
    }

    pub(super) fn reset_on_close(&self) {
        self.resets.set(true);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let unread = {
            let mut incoming = self.incoming.borrow_mut();
            incoming.unread = true;
            let unread = !incoming.bytes.is_empty();
            incoming.bytes.clear();
            incoming.wake();
            unread
        };
        let ending = if unread || self.resets.get() { Ending::Reset } else { Ending::Closed };
        self.outgoing.borrow_mut().finish(ending);
    }
}
