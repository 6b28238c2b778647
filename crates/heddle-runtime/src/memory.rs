//! This process's own memory.

use std::{fs, io};

use crate::sys::memory::{CodeMapping, forget};

/// Gives back the pages of program code that only start-up needed, and says how many bytes of code
/// are mapped. They count towards the resident set until then, and the kernel maps code in pieces
/// of 64 KiB whatever was asked for. What is needed again is mapped again from the page cache, at
/// a fraction of a microsecond per page.
///
/// # Errors
/// If /proc is not mounted, or the kernel refuses.
pub fn forget_startup_code() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    maps.lines().filter_map(CodeMapping::parse).try_fold(0, |bytes, mapping| {
        forget(&mapping)?;
        Ok(bytes + mapping.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_was_given_back_still_runs() {
        let bytes = forget_startup_code().expect("the kernel gives it back");
        assert!(bytes > 0, "at least this program's own code");
        let again = forget_startup_code().expect("twice is as good");
        assert!(again >= bytes);
    }
}
