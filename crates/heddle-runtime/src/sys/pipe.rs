//! Pipes and splice(2).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use super::{check, check_len};

/// A pipe whose ends are close-on-exec and non-blocking.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Both ends of a pipe: `(reader, writer)`.
pub(crate) fn pipe(flags: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for both numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | flags) })?;
    // SAFETY: just opened, owned by nobody else.
    let reader = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: just opened, owned by nobody else.
    let writer = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    Ok((reader, writer))
}

impl Pipe {
    /// A pipe of `bytes` where the user's allowance permits, else of the kernel's default size.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let (reader, writer) = pipe(libc::O_NONBLOCK)?;
        let size = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: a plain fcntl on an open descriptor. Refusal (EPERM) leaves the default size.
        let _granted = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
        Ok(Self { reader, writer })
    }

    /// Moves at most `room` bytes from a socket into the pipe; 0 is the socket's end.
    #[inline]
    pub(crate) fn fill_from(&self, socket: BorrowedFd<'_>, room: usize) -> io::Result<usize> {
        splice(socket.as_raw_fd(), self.writer.as_raw_fd(), room)
    }

    /// Moves at most `held` bytes from the pipe into a socket.
    #[inline]
    pub(crate) fn drain_to(&self, socket: BorrowedFd<'_>, held: usize) -> io::Result<usize> {
        splice(self.reader.as_raw_fd(), socket.as_raw_fd(), held)
    }
}

#[inline]
fn splice(from: libc::c_int, to: libc::c_int, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both numbers are open descriptors; null offsets mean "none".
    check_len(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), bytes, flags) })
}
