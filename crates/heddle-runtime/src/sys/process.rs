//! Processes: fork, what a child does before exec, pidfds, and a process's own limits.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use super::check;

/// The value that switches a prctl on; the kernel reads it as wide as this.
const ON: libc::c_ulong = 1;

/// Effective user and group id.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: cannot fail and touches no memory.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    (uid, gid)
}

/// Forks. The child runs `child` and ends with the code it returns; the parent gets its id and must
/// [`reap`] it.
///
/// `child` must be *after fork*: no allocation, no lock, no panic, since other threads' locks are
/// frozen in the child.
pub(crate) fn fork(child: impl FnOnce() -> libc::c_int) -> io::Result<libc::pid_t> {
    // SAFETY: the child calls nothing but `child`, which keeps to async-signal-safe calls, and `_exit`.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        let code = child();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    Ok(pid)
}

/// Waits for a child of [`fork`] to end.
pub(crate) fn reap(pid: libc::pid_t) -> io::Result<()> {
    loop {
        let mut status = 0;
        // SAFETY: `status` has room for the status.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Collects a child that has ended, if it has.
pub(crate) fn reap_if_ended(pid: libc::pid_t) -> io::Result<bool> {
    let mut status = 0;
    // SAFETY: `status` has room for the status.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) }).map(|reaped| reaped == pid)
}

/// Has the child of `command` run `action` right before exec. `action` must be *after fork*; an
/// `io::Error` made of an errno is.
pub(crate) fn before_exec(
    command: &mut Command,
    action: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the actions of this crate keep to async-signal-safe calls.
    unsafe { command.pre_exec(action) };
}

/// The signal this process gets when the thread that made it ends. *After fork.*
///
/// ESRCH if that parent, `expected`, has ended already.
pub(crate) fn die_with_parent(signal: libc::c_int, expected: u32) -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) })?;
    // SAFETY: cannot fail and touches no memory.
    let parent = unsafe { libc::getppid() };
    if parent as u32 == expected { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Lets /proc/self belong to this process's user again after its ids have changed. *After fork.*
pub(crate) fn make_dumpable() -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, ON) }).map(drop)
}

/// Orphaned descendants become this process's children.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, ON) }).map(drop)
}

/// Blocks until a byte or the end comes. *After fork.*
pub(crate) fn read_byte(fd: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let mut byte = 0_u8;
    loop {
        // SAFETY: the buffer is one byte.
        let count = unsafe { libc::read(fd.as_raw_fd(), (&raw mut byte).cast(), 1) };
        match super::check_len(count) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte)),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Closes this process's copy of a descriptor that the other side of a fork keeps. *After fork.*
pub(crate) fn close_copy(fd: BorrowedFd<'_>) {
    // SAFETY: only a forked child calls this; the owner in its copied memory is never dropped,
    // since the child ends by `_exit`.
    let _closed = unsafe { libc::close(fd.as_raw_fd()) };
}

/// A descriptor that stands for a process, whoever gets its number later.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let number = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Signals the process behind a pidfd; ESRCH once it has ended and been reaped.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo means the kernel fills one in.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    check(result as libc::c_int).map(drop)
}

/// Signals a process by number; signal 0 only asks whether it may be.
pub(crate) fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Waits until the descriptor is readable or the time is over; says which.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, milliseconds: libc::c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd is given.
    match check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) }) {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Raises the limit of open files to what the process may have, and returns it.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: reads `limit`.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}
