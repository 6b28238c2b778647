//! Relays bytes between two plaintext sockets without copying them through this process: splice(2)
//! through a pipe. Meant for a direction that has proved bulky; small messages are cheaper with
//! read and write.
//!
//! An idle relay holds no pipe: pipes wait in a small pool of the thread and are taken only while
//! bytes are on their way. Where no pipe can be opened, for want of descriptors, bytes are copied.

use std::{cell::RefCell, io, os::fd::AsFd};

use tokio::{io::Interest, net::TcpStream};

use crate::sys;

/// Bytes a pipe holds; also the most that moves per system call.
pub const PIPE_BYTES: usize = 256 * 1024;
/// Empty pipes a thread keeps (two descriptors each).
const POOL_MAX: usize = 16;
/// Bytes copied at once where there is no pipe.
const COPY_BYTES: usize = 16 * 1024;
/// Round trips through the pipe before other tasks of the thread get a turn.
const ROUNDS_PER_TURN: u32 = 16;

thread_local! {
    static POOL: RefCell<Vec<sys::pipe::Pipe>> = const { RefCell::new(Vec::new()) };
}

/// Which socket a relay failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokenEnd {
    /// Reading from the source.
    Read,
    /// Writing to the target.
    Write,
}

/// A relay that broke.
#[derive(Debug, thiserror::Error)]
#[error("relaying failed to {}: {source}", match side { BrokenEnd::Read => "read", BrokenEnd::Write => "write" })]
pub struct SpliceError {
    /// Which socket.
    pub side: BrokenEnd,
    /// Bytes delivered to the target before.
    pub moved: u64,
    /// What the kernel said.
    pub source: io::Error,
}

/// A pipe on loan from the thread's pool. It goes back when empty; with bytes in it, it is closed.
#[derive(Debug)]
struct Pipe {
    /// `None` only within `drop`.
    pipe: Option<sys::pipe::Pipe>,
    /// Bytes inside.
    held: usize,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        let pipe = match pooled {
            Some(pipe) => pipe,
            None => sys::pipe::Pipe::new(PIPE_BYTES)?,
        };
        Ok(Self { pipe: Some(pipe), held: 0 })
    }

    fn inner(&self) -> &sys::pipe::Pipe {
        self.pipe.as_ref().expect("invariant: the pipe is there until drop")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take().filter(|_| self.held == 0) else { return };
        // A thread that is ending has no pool any more; the pipe is closed then.
        let _closed = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOL_MAX {
                pool.push(pipe);
            }
        });
    }
}

/// Moves bytes from one socket to the other until the source ends or `limit` bytes have moved, and
/// returns their number (less than `limit` only if the source ended). `progress` is told of each
/// delivered piece. Does not pass on the end of the source: shutting the target down is the
/// caller's business.
///
/// A dropped future may lose what was in the pipe; close both sockets then.
///
/// # Errors
/// [`SpliceError`] says on which side, and how much had been delivered.
pub async fn splice_all(
    from: &TcpStream,
    to: &TcpStream,
    limit: Option<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SpliceError> {
    let mut moved = 0;
    let mut rounds = 0;
    loop {
        let room = limit.map_or(u64::MAX, |limit| limit - moved).min(PIPE_BYTES as u64) as usize;
        if room == 0 {
            return Ok(moved);
        }
        let read = |source| SpliceError { side: BrokenEnd::Read, moved, source };
        from.readable().await.map_err(read)?;
        // Fill and drain until the source has nothing more right now; then the pipe goes back.
        let filled = match Pipe::take() {
            Ok(mut pipe) => match fill(from, &mut pipe, room).map_err(read)? {
                Filled::Bytes => {
                    drain((from, to), &mut pipe, &mut moved, progress).await?;
                    Filled::Bytes
                }
                other => other,
            },
            Err(_no_descriptor) => copy(from, to, room, &mut moved, progress).await?,
        };
        match filled {
            Filled::Bytes => {}
            Filled::Nothing => continue,
            Filled::End => return Ok(moved),
        }
        rounds += 1;
        if rounds % ROUNDS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

enum Filled {
    Bytes,
    Nothing,
    End,
}

fn fill(from: &TcpStream, pipe: &mut Pipe, room: usize) -> io::Result<Filled> {
    let result = from.try_io(Interest::READABLE, || pipe.inner().fill_from(from.as_fd(), room));
    match result {
        Ok(0) => Ok(Filled::End),
        Ok(count) => {
            pipe.held += count;
            Ok(Filled::Bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Filled::Nothing),
        Err(error) => Err(error),
    }
}

/// One piece without a pipe.
async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    room: usize,
    moved: &mut u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Filled, SpliceError> {
    let mut buffer = vec![0; room.min(COPY_BYTES)];
    let length = match from.try_read(&mut buffer) {
        Ok(0) => return Ok(Filled::End),
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Nothing),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Filled::Nothing),
        Err(source) => return Err(SpliceError { side: BrokenEnd::Read, moved: *moved, source }),
    };
    let write = |left| to.try_write(&buffer[length - left..length]);
    deliver((from, to), &mut { length }, write, moved, progress).await?;
    Ok(Filled::Bytes)
}

async fn drain(
    (from, to): (&TcpStream, &TcpStream),
    pipe: &mut Pipe,
    moved: &mut u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SpliceError> {
    let Pipe { pipe, held } = pipe;
    let pipe = pipe.as_ref().expect("invariant: the pipe is there until drop");
    let write = |left| to.try_io(Interest::WRITABLE, || pipe.drain_to(to.as_fd(), left));
    deliver((from, to), held, write, moved, progress).await
}

/// Delivers until none of the bytes is `left`; `write` is told how many are, writes some of them and
/// says how many.
async fn deliver(
    (from, to): (&TcpStream, &TcpStream),
    left: &mut usize,
    write: impl Fn(usize) -> io::Result<usize>,
    moved: &mut u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), SpliceError> {
    while *left > 0 {
        let so_far = *moved;
        let failed = |side| move |source| SpliceError { side, moved: so_far, source };
        match write(*left) {
            Ok(count) => {
                *left -= count;
                *moved += count as u64;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                biased;
                ready = to.writable() => ready.map_err(failed(BrokenEnd::Write))?,
                // Whose peer is gone has nobody left to wait for.
                _ = from.ready(Interest::ERROR) => {
                    return Err(failed(BrokenEnd::Read)(io::ErrorKind::ConnectionReset.into()));
                }
            },
            Err(source) => return Err(failed(BrokenEnd::Write)(source)),
        }
    }
    Ok(())
}
