//! Descriptors: inherited ones, duplicates, flags.

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::check;

/// Inherited numbers that have been given out.
static TAKEN: Mutex<Option<HashSet<RawFd>>> = Mutex::new(None);

/// See `net::inherited_fd`.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {number} is a standard stream, not an inherited one"),
        ));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    if taken.contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("descriptor {number} was taken before"),
        ));
    }
    // SAFETY: F_SETFD on any number is sound; a closed one gives EBADF.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    taken.insert(number);
    // SAFETY: the number is open, and `TAKEN` makes this its only owner here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the descriptor survive exec. *After fork.*
pub(crate) fn keep_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a plain fcntl on an open descriptor.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
}

/// Has the port of a socket that is bound to an address chosen when it connects, when it is known which
/// ports are free towards that peer. Both address families.
pub(crate) fn choose_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Lets a socket of `family` have an address that is not this machine's.
pub(crate) fn take_any_address(socket: BorrowedFd<'_>, family: IpAddr) -> io::Result<()> {
    let (level, option) = match family {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// A descriptor whose number stays the same and open for as long as the value lives.
pub(crate) trait StableFd: AsRawFd {}

impl StableFd for OwnedFd {}
impl StableFd for BorrowedFd<'_> {}

/// Waits for readability through the current runtime.
pub(crate) fn watch_readable<T: StableFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `StableFd` is what is asked: the number does not change or close before the value goes.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
