//! What the kernel knows of a connection of TCP.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use super::check;

/// The part of `struct tcp_info` that is of use here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpInfo {
    /// Segments that were sent and not acknowledged.
    pub(crate) unacknowledged: u32,
    /// Probes (of a closed window, or of an idle connection) in a row without an answer.
    pub(crate) probes: u8,
    /// Time since the peer acknowledged anything.
    pub(crate) since_acknowledgement: Duration,
}

/// Asks for it (`TCP_INFO`).
pub(crate) fn info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the buffer's size.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    // SAFETY: all of its fields are numbers, for which zero is a value, should the kernel know fewer of them.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo {
        unacknowledged: info.tcpi_unacked,
        probes: info.tcpi_probes,
        since_acknowledgement: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}
