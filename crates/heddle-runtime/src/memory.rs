//! This process's own memory.

use std::{fs, io};

use crate::sys::memory::{self, FileMapping, forget};

/// Gives back the pages of program code, and of tables that loading it needed, and says how many bytes of
/// both are mapped. They count towards the resident set until then, and the kernel maps code in pieces
/// of 64 KiB whatever was asked for. What is needed again is mapped again from the page cache, at
/// a fraction of a microsecond per page.
///
/// # Errors
/// If /proc is not mounted, or the kernel refuses.
pub fn forget_startup_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    maps.lines().filter_map(FileMapping::parse).try_fold(0, |bytes, mapping| {
        forget(&mapping)?;
        Ok(bytes + mapping.len())
    })
}

/// Bytes of memory that are this process's own: resident, and not a file's.
///
/// # Errors
/// If /proc is not mounted, or does not say.
pub fn anonymous_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "no `RssAnon` in /proc/self/status")
    })
}

/// Gives memory that was freed, and that the allocator keeps at hand, back to the kernel.
pub fn give_back_freed() {
    memory::trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_grows_with_use_and_shrinks_when_what_was_freed_is_given_back() {
        const PIECES: usize = 4096;
        const PIECE: usize = 8 * 1024;
        let before = anonymous_bytes().expect("says");
        let held: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; PIECE]).collect();
        let between = anonymous_bytes().expect("says");
        // Other tests of this process take and free some of their own meanwhile.
        let half = (PIECES * PIECE / 2) as u64;
        assert!(between > before + half, "{before} to {between}");
        drop(held);
        give_back_freed();
        let after = anonymous_bytes().expect("says");
        assert!(between > after + half, "{between} to {after}");
    }

    #[test]
    fn code_that_was_given_back_still_runs() {
        let bytes = forget_startup_code().expect("the kernel gives it back");
        assert!(bytes > 0, "at least this program's own code");
        let again = forget_startup_code().expect("twice is as good");
        assert!(again >= bytes);
    }
}
