//! Signal masks and signalfd.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::OnceLock,
};

use super::{check, check_len};

/// The mask this process had before it blocked anything: what its children get.
static ORIGINAL_MASK: OnceLock<Mask> = OnceLock::new();

#[derive(Clone, Copy)]
struct Mask(libc::sigset_t);

/// One signal as signalfd tells it.
pub(crate) struct SignalInfo {
    pub(crate) number: libc::c_int,
    pub(crate) code: libc::c_int,
    pub(crate) sender: u32,
}

/// Blocks the signals for this thread and those it makes from now on, and returns a non-blocking
/// descriptor that tells them.
pub(crate) fn redirect(numbers: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = set_of(numbers)?;
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for the call.
    let result =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    // SAFETY: pthread_sigmask filled it.
    let before = unsafe { before.assume_init() };
    let _first = ORIGINAL_MASK.set(Mask(before));
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: -1 asks for a new descriptor; the set is valid.
    let number = check(unsafe { libc::signalfd(-1, &raw const set, flags) })?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives a forked child the mask this process had at its start. *After fork.*
pub(crate) fn restore_mask() -> io::Result<()> {
    let Some(Mask(mask)) = ORIGINAL_MASK.get() else { return Ok(()) };
    // SAFETY: the set is valid; the old one is not asked for.
    let result =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(mask), ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// The next signal told, or `WouldBlock`.
pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<SignalInfo> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size given.
    let count = check_len(unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) })?;
    if count != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel filled the whole struct.
    let info = unsafe { info.assume_init() };
    Ok(SignalInfo {
        number: info.ssi_signo as libc::c_int,
        code: info.ssi_code,
        sender: info.ssi_pid,
    })
}

fn set_of(numbers: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: filled above.
    let mut set = unsafe { set.assume_init() };
    for number in numbers {
        // SAFETY: the set is valid; a wrong number gives EINVAL.
        check(unsafe { libc::sigaddset(&raw mut set, *number) })?;
    }
    Ok(set)
}
