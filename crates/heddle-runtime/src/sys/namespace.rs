//! Making and entering namespaces, and what a fresh one needs. Everything here is *after fork*.

use std::{
    ffi::CStr,
    io,
    mem::zeroed,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{check, check_len};

/// Leaves the namespaces named by `flags` (CLONE_NEW…) for fresh ones.
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the callers name namespaces only, which changes what later calls see, no memory.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Enters the namespace behind a descriptor, which must be of the kind `flags` names.
pub(crate) fn setns(namespace: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: as for `unshare`.
    check(unsafe { libc::setns(namespace.as_raw_fd(), flags) }).map(drop)
}

/// Opens `path` with `flags` and close-on-exec.
pub(crate) fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path ends with NUL.
    let number = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Writes `bytes` to an existing file in one call, as files under /proc want it.
pub(crate) fn write_file(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    let file = open(path, libc::O_WRONLY)?;
    write_once(file.as_raw_fd(), bytes)
}

/// Writes `bytes` in one call.
pub(crate) fn write_once(fd: libc::c_int, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is `bytes.len()` long.
    check_len(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: opens a descriptor.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let number = check(socket)?;
    // SAFETY: just opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result).map(drop)
}
