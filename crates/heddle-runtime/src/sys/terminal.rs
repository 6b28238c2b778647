//! What a terminal says of itself, and how it takes keys.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::check;

/// Rows and columns of the terminal behind a descriptor; ENOTTY where there is none.
pub(crate) fn window_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one `winsize` to where the pointer says.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// The settings of a terminal, to give them back.
#[derive(Clone, Copy)]
pub(crate) struct Settings(libc::termios);

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settings")
    }
}

/// The settings of the terminal behind a descriptor; ENOTTY where there is none.
pub(crate) fn settings(fd: BorrowedFd<'_>) -> io::Result<Settings> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the kernel writes one `termios` to where the pointer says, or fails.
    check(unsafe { libc::tcgetattr(fd.as_raw_fd(), settings.as_mut_ptr()) })?;
    // SAFETY: it has not failed.
    Ok(Settings(unsafe { settings.assume_init() }))
}

/// Sets them.
pub(crate) fn set(fd: BorrowedFd<'_>, settings: &Settings) -> io::Result<()> {
    // SAFETY: the pointer leads to a whole `termios`, which is read.
    check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &raw const settings.0) })
        .map(drop)
}

impl Settings {
    /// The same, but each key comes as it is pressed, is not shown, and a read takes what there is without waiting.
    /// Ctrl-C and Ctrl-Z stay signals.
    pub(crate) fn key_by_key(mut self) -> Self {
        self.0.c_lflag &= !(libc::ICANON | libc::ECHO);
        self.0.c_cc[libc::VMIN] = 0;
        self.0.c_cc[libc::VTIME] = 0;
        self
    }
}
