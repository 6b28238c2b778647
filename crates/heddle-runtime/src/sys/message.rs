//! sendmsg and recvmsg with SCM_RIGHTS.

use std::{
    io::{self, IoSlice},
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use super::check_len;

/// Most descriptors in one message.
pub const FDS_MAX: usize = 16;

/// Room for the control message of [`FDS_MAX`] descriptors, aligned for its header.
type Control = [u64; 16];

/// CMSG_SPACE as a number.
fn control_space(fds: usize) -> usize {
    let bytes = (fds * size_of::<RawFd>()) as libc::c_uint;
    // SAFETY: pure arithmetic.
    unsafe { libc::CMSG_SPACE(bytes) as usize }
}

/// CMSG_LEN as a number.
fn control_len(fds: usize) -> usize {
    let bytes = (fds * size_of::<RawFd>()) as libc::c_uint;
    // SAFETY: pure arithmetic.
    unsafe { libc::CMSG_LEN(bytes) as usize }
}

/// Sends bytes with descriptors beside the first one; never raises SIGPIPE.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    assert!(fds.len() <= FDS_MAX, "invariant: the caller bounds the descriptors of a frame");
    let mut control: Control = [0; 16];
    // SAFETY: msghdr is plain data for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    // `IoSlice` has the layout of iovec, and sendmsg does not write through it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    if !fds.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control_space(fds.len());
        fill_rights(&message, fds);
    }
    // SAFETY: `message` points at `parts` and `control`, which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check_len(sent)
}

fn fill_rights(message: &libc::msghdr, fds: &[BorrowedFd<'_>]) {
    // SAFETY: the message's control buffer is set and large enough for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the control buffer is exclusive to this message, zeroed and aligned (u64).
    let header = unsafe { &mut *header };
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    header.cmsg_len = control_len(fds.len());
    // SAFETY: the data follows the header within the same buffer.
    let mut data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    for fd in fds {
        // SAFETY: `control_space(fds.len())` bytes were reserved.
        unsafe { data.write_unaligned(fd.as_raw_fd()) };
        // SAFETY: at most one past the last descriptor of the same buffer.
        data = unsafe { data.add(1) };
    }
}

/// Receives bytes into `buffer` and appends descriptors, close-on-exec, to `fds`, which holds at
/// most `most` afterwards.
///
/// Fails when descriptors were cut off, with `InvalidData` for more than `most` or [`FDS_MAX`] and with
/// EMFILE where no more can be opened; those that arrived with them are closed, the kernel closes the rest.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    most: usize,
) -> io::Result<usize> {
    let room = most.saturating_sub(fds.len()).min(FDS_MAX);
    let mut control: Control = [0; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if room > 0 {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control_space(room);
    }
    // SAFETY: `message` points at `buffer` and `control`, which outlive the call.
    let received = check_len(unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
    })?;
    let mut arrived = Vec::new();
    take_rights(&message, &mut arrived);
    let truncated = message.msg_flags & libc::MSG_CTRUNC != 0;
    if truncated && arrived.len() < room {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    // The room is rounded up to the header's alignment, so one more than asked for may fit.
    if truncated || arrived.len() > room {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more descriptors arrived than are taken (at most {most})"),
        ));
    }
    fds.append(&mut arrived);
    Ok(received)
}

fn take_rights(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the kernel filled the control buffer and its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null or a header within the control buffer, per CMSG_FIRSTHDR and CMSG_NXTHDR.
    while let Some(current) = unsafe { header.as_ref() } {
        if current.cmsg_level == libc::SOL_SOCKET && current.cmsg_type == libc::SCM_RIGHTS {
            let count = (current.cmsg_len - control_len(0)) / size_of::<RawFd>();
            // SAFETY: the data follows the header within the same buffer.
            let data = unsafe { libc::CMSG_DATA(current) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: `cmsg_len` covers `count` descriptors.
                let slot = unsafe { data.add(index) };
                // SAFETY: as above; the data may be unaligned.
                let number = unsafe { ptr::read_unaligned(slot) };
                // SAFETY: the kernel has just opened it for us and nobody else knows the number.
                fds.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `header` is within the message's control buffer.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}
