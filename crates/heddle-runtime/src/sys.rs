//! System calls that std, tokio and socket2 do not have: the crate's only unsafe code, nothing else.
//!
//! Each function is a thin, safe or documented face of one system call; decisions live in the
//! modules that call them. Functions marked *after fork* allocate nothing and take no lock, so a
//! forked child may call them.

#![expect(unsafe_code, reason = "system calls; every block says why it is sound")]

use std::io;

pub(crate) mod capability;
pub(crate) mod fd;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod netlink;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod tcp;
pub(crate) mod terminal;

/// The result of a system call as libc reports it: `-1` means errno. *After fork.*
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for calls that return a length or a wide number. *After fork.*
pub(crate) fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
