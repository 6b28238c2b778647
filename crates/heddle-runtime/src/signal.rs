//! Signals: sending them, and receiving them with their origin.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// A signal by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// SIGHUP.
    pub const HANGUP: Self = Self(libc::SIGHUP);
    /// SIGINT.
    pub const INTERRUPT: Self = Self(libc::SIGINT);
    /// SIGQUIT.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// SIGUSR1.
    pub const USER_1: Self = Self(libc::SIGUSR1);
    /// SIGUSR2.
    pub const USER_2: Self = Self(libc::SIGUSR2);
    /// SIGTERM.
    pub const TERMINATE: Self = Self(libc::SIGTERM);
    /// SIGWINCH.
    pub const WINDOW: Self = Self(libc::SIGWINCH);
    /// SIGSTOP.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// SIGCONT.
    pub const CONTINUE: Self = Self(libc::SIGCONT);

    /// The signal's number on this machine.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Sends the signal to a process of this user. Prefer [`crate::process::Pidfd`] for a process
    /// that is not our child: its number may be another's by now.
    ///
    /// # Errors
    /// ESRCH if there is no such process, EPERM if it is another user's.
    pub fn send(self, pid: u32) -> io::Result<()> {
        let pid =
            i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
        sys::process::kill(pid, self.0)
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Did the kernel send it, e.g. for Ctrl-C on the terminal? Then the whole foreground process
    /// group has got it, children included.
    pub from_terminal: bool,
    /// Process id of the sender; 0 if the kernel sent it.
    pub sender: u32,
}

/// Signals turned into something to wait for. They stay blocked until the process ends; children
/// started through [`crate::spawn`] get the mask from before.
#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<OwnedFd>,
}

impl Signals {
    /// Takes these signals over. Call it once, inside the runtime, before the process has a second
    /// thread: another thread would still get them the old way.
    ///
    /// # Errors
    /// If no more descriptors can be opened; EINVAL for a signal that cannot be blocked is not
    /// reported by the kernel (SIGKILL and SIGSTOP are ignored).
    pub fn redirect(signals: &[Signal]) -> io::Result<Self> {
        let numbers: Vec<_> = signals.iter().map(|signal| signal.0).collect();
        let fd = sys::fd::watch_readable(sys::signal::redirect(&numbers)?)?;
        Ok(Self { fd })
    }

    /// The next signal. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Only if the runtime is ending.
    pub async fn next(&mut self) -> io::Result<Received> {
        let told = self.fd.async_io(Interest::READABLE, |fd| sys::signal::read(fd.as_fd())).await?;
        Ok(Received {
            signal: Signal(told.number),
            from_terminal: told.code == libc::SI_KERNEL,
            sender: told.sender,
        })
    }
}
