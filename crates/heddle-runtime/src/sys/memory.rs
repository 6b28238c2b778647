//! Memory: what the kernel may take back.

use std::{io, ptr};

use super::check;

/// A mapping of a program's file that nobody ever writes, so that every page of it is the file's: code, or what
/// the file begins with (tables for the start and for panics, constants). What is only readable further back may have been
/// relocated before it was made so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileMapping {
    start: usize,
    end: usize,
}

impl FileMapping {
    /// Reads a line of /proc/self/maps; `None` for a mapping of another kind.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (access, offset) = (fields.next()?, fields.next()?);
        let is_beginning = access == "r--p" && offset.bytes().all(|digit| digit == b'0');
        let inode = fields.nth(1)?;
        let path = fields.next()?;
        if !(access == "r-xp" || is_beginning) || inode == "0" || !path.starts_with('/') {
            return None;
        }
        let address = |text| usize::from_str_radix(text, 16).ok();
        let mapping = Self { start: address(start)?, end: address(end)? };
        (mapping.start < mapping.end).then_some(mapping)
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Takes the mapping's pages out of this process's page table; the next access maps them again.
pub(crate) fn forget(mapping: &FileMapping) -> io::Result<()> {
    let start = ptr::without_provenance_mut(mapping.start);
    // SAFETY: the pages are a file's and were never written (the mapping is not writable and the
    // program has no text relocations), so what is mapped again is what was there.
    check(unsafe { libc::madvise(start, mapping.len(), libc::MADV_DONTNEED) }).map(drop)
}

/// Has the allocator give free memory back to the kernel.
#[cfg(target_env = "gnu")]
pub(crate) fn trim() {
    // SAFETY: touches only memory that is free.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries' allocators give it back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_given_back() {
        let line = "55e83391f000-55e8344ca000 r-xp 003a6000 fe:00 9978066        /usr/bin/heddle";
        let mapping = FileMapping::parse(line).expect("code");
        assert_eq!(mapping.len(), 0x55e8_344c_a000 - 0x55e8_3391_f000);
        let beginning = "55e833578000-55e83391f000 r--p 00000000 fe:00 9978066 /usr/bin/heddle";
        assert!(FileMapping::parse(beginning).is_some());
        for other in [
            "55e8344cb000-55e834592000 r--p 00f51000 fe:00 9978066 /usr/bin/heddle",
            "55e856b77000-55e856bf8000 rw-p 00000000 00:00 0 [heap]",
            "7fff8a5f2000-7fff8a5f4000 r-xp 00000000 00:00 0 [vdso]",
            "7fff8a5f2000-7fff8a5f4000 r-xs 00000000 fe:00 12 /usr/lib/x",
            "7fff8a5f2000-7fff8a5f4000 rwxp 00000000 fe:00 12 /usr/lib/x",
            "garbage",
            "",
        ] {
            assert_eq!(FileMapping::parse(other), None, "{other}");
        }
    }
}
