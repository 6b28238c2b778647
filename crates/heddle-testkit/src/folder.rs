//! Folders for tests: new, open to any user of the machine, and gone with the test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A folder of its own, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one whose path begins with `name`, short enough for sockets in it.
    ///
    /// # Panics
    /// If the machine's folder for temporary files cannot be written.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heddle-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Of an earlier process with the same number.
        let _absent = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for a test");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its owner may");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}
