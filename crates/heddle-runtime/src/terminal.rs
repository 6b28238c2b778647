//! The terminal a command draws on, and the keys that are pressed there.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

use crate::sys;

/// Most bytes of keys that are read at one time.
const KEYS_MAX: usize = 256;

/// How many rows it has now; `None` where the descriptor is no terminal or one of unknown size.
pub fn rows(terminal: &impl AsFd) -> Option<usize> {
    size(terminal).map(|(rows, _)| rows).filter(|rows| *rows > 0)
}

/// How many columns it has now; `None` likewise.
pub fn columns(terminal: &impl AsFd) -> Option<usize> {
    size(terminal).map(|(_, columns)| columns).filter(|columns| *columns > 0)
}

fn size(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let (rows, columns) = sys::terminal::window_size(terminal.as_fd()).ok()?;
    Some((usize::from(rows), usize::from(columns)))
}

/// Keys as they are pressed. Dropped, it leaves the terminal as it was.
#[derive(Debug)]
pub struct Keys {
    terminal: File,
    readable: AsyncFd<OwnedFd>,
    before: sys::terminal::Settings,
}

impl Keys {
    /// Takes the keys of a terminal.
    ///
    /// # Errors
    /// It is none, or cannot be waited for.
    pub fn of(terminal: &impl AsFd) -> io::Result<Self> {
        let terminal = File::from(terminal.as_fd().try_clone_to_owned()?);
        let before = sys::terminal::settings(terminal.as_fd())?;
        // Not made non-blocking: that would be so for everybody who shares the terminal. A read of what is not there
        // returns at once by these settings.
        let readable = sys::fd::watch_readable(terminal.as_fd().try_clone_to_owned()?)?;
        sys::terminal::set(terminal.as_fd(), &before.key_by_key())?;
        Ok(Self { terminal, readable, before })
    }

    /// The next keys, as the terminal sends them; at least one. Dropping the future loses none.
    ///
    /// # Errors
    /// The terminal has gone.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.readable.readable().await?;
            let mut keys = vec![0; KEYS_MAX];
            let count = self.terminal.read(&mut keys)?;
            ready.clear_ready();
            if count > 0 {
                keys.truncate(count);
                return Ok(keys);
            }
            // Nothing was there after all; a terminal that has gone says so each time.
            if ready.ready().is_read_closed() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // It may have gone; there is nobody to tell.
        drop(sys::terminal::set(self.terminal.as_fd(), &self.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_terminal_has_no_rows_and_no_keys() {
        let null = File::open("/dev/null").expect("opens");
        assert_eq!((rows(&null), columns(&null)), (None, None));
        assert!(Keys::of(&null).is_err());
    }
}
