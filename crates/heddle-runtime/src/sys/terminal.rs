//! What a terminal says of itself.

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
