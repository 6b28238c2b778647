//! A lock file: held by one process, readable by all, free as soon as its holder is gone, however it
//! went.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Most bytes read from a lock file.
const CONTENT_MAX: u64 = 64 * 1024;

/// A held lock. Dropping it frees the lock and leaves the file, so that a waiting process cannot lock
/// a file that is about to vanish; [`LockFile::remove`] takes both.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock and writes `content` (who holds it), or returns `None` if another process has
    /// it. The file is made with mode 0600 if it is not there.
    ///
    /// # Errors
    /// If the file can be neither opened nor made, or written.
    pub fn acquire(path: &Path, content: &[u8]) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Its last holder may have removed the file between the two calls.
            if !is_still_at(&file, path) {
                continue;
            }
            let mut lock = Self { file, path: path.to_owned() };
            lock.write(content)?;
            return Ok(Some(lock));
        }
    }

    /// Replaces what the file says.
    ///
    /// # Errors
    /// As write(2), e.g. a full disk.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(content)
    }

    /// Frees the lock and removes the file.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// What the holder wrote, if some process holds the lock; `None` if nobody does or there is no file.
///
/// # Errors
/// If the file is there but cannot be opened or read.
pub fn held_by(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            let mut content = Vec::new();
            file.take(CONTENT_MAX).read_to_end(&mut content)?;
            Ok(Some(content))
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    let Ok((ours, there)) = file.metadata().and_then(|ours| Ok((ours, path.metadata()?))) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_all_can_read_it_and_it_is_free_again() {
        let path = std::env::temp_dir().join(format!("heddle-lock-{}", std::process::id()));
        assert_eq!(held_by(&path).expect("no file"), None);
        let mut first = LockFile::acquire(&path, b"a longer text").expect("opens").expect("free");
        assert!(LockFile::acquire(&path, b"second").expect("opens").is_none());
        first.write(b"first").expect("writes");
        assert_eq!(held_by(&path).expect("reads").as_deref(), Some(&b"first"[..]));
        drop(first);
        assert_eq!(held_by(&path).expect("reads"), None);
        let third = LockFile::acquire(&path, b"third").expect("opens").expect("free again");
        third.remove().expect("removes");
        assert!(!path.exists());
    }
}
