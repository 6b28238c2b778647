//! The terminal a command draws on.

use std::os::fd::AsFd;

use crate::sys;

/// How many rows it has now; `None` where the descriptor is no terminal or one of unknown size.
pub fn rows(terminal: &impl AsFd) -> Option<usize> {
    let (rows, _) = sys::terminal::window_size(terminal.as_fd()).ok()?;
    (rows > 0).then_some(usize::from(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_has_no_rows() {
        let null = std::fs::File::open("/dev/null").expect("opens");
        assert_eq!(rows(&null), None);
    }
}
