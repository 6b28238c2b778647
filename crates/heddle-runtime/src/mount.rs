//! A workload's own mount namespace: private, with its own resolver files, and without the sockets
//! through which libc would resolve names past the mesh.
//!
//! A plan is made in the parent, where it may allocate, and carried out in the forked child.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

use crate::{ns::Step, sys};

/// Files of a workload's `etc` folder and what they stand for.
const ETC_FILES: [(&str, &str); 3] = [
    ("resolv.conf", "/etc/resolv.conf"),
    ("nsswitch.conf", "/etc/nsswitch.conf"),
    ("hosts", "/etc/hosts"),
];

/// nscd's folders: libc asks its socket before it reads nsswitch.conf. The folder is covered, not the
/// socket, since a restarted nscd makes a new one.
const NSCD_FOLDERS: [&str; 2] = ["/run/nscd", "/var/run/nscd"];

/// systemd-resolved's socket. Its folder stays: resolv.conf may be a link into it.
const RESOLVED_SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// What to change in a fresh, private mount namespace, in this order.
#[derive(Debug, Clone, Default)]
pub struct MountPlan {
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    /// `source` appears at `target`, read-only; `target` may be a symbolic link, even a dangling
    /// one: the link itself is covered.
    Bind { source: CString, target: CString },
    /// The folder appears empty.
    Empty { target: CString },
}

impl MountPlan {
    /// Changes nothing, but makes the namespace private.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan for a workload: `resolv.conf`, `nsswitch.conf` and `hosts` of `etc` over those of
    /// /etc, nscd's and resolved's sockets masked. Second, the files of /etc that do not exist on
    /// this machine and so cannot be covered.
    ///
    /// # Errors
    /// `InvalidInput` if a path holds a NUL byte.
    pub fn for_workload(etc: &Path) -> io::Result<(Self, Vec<PathBuf>)> {
        let mut plan = Self::new();
        let mut missing = Vec::new();
        for (name, target) in ETC_FILES {
            if exists(Path::new(target)) {
                plan.bind(&etc.join(name), Path::new(target))?;
            } else {
                missing.push(PathBuf::from(target));
            }
        }
        for folder in NSCD_FOLDERS {
            plan.mask(Path::new(folder))?;
        }
        plan.mask(Path::new(RESOLVED_SOCKET))?;
        Ok((plan, missing))
    }

    /// `source` (a file or folder) appears read-only at `target`, which must exist and be of the
    /// same kind; a symbolic link counts as a file.
    ///
    /// # Errors
    /// `InvalidInput` if a path holds a NUL byte.
    pub fn bind(&mut self, source: &Path, target: &Path) -> io::Result<&mut Self> {
        let (source, target) = (c_path(source)?, c_path(target)?);
        self.changes.push(Change::Bind { source, target });
        Ok(self)
    }

    /// Hides `target` if it exists now: a folder becomes empty, a socket or file refuses to be used.
    /// A symbolic link to a folder is left alone (what it names is masked under its own name).
    ///
    /// # Errors
    /// `InvalidInput` if the path holds a NUL byte.
    pub fn mask(&mut self, target: &Path) -> io::Result<&mut Self> {
        let Ok(metadata) = target.symlink_metadata() else { return Ok(self) };
        // A path below a link (/var/run) is the same folder as its real one, masked already.
        let real = target.canonicalize().is_ok_and(|path| path == target);
        if !real {
            return Ok(self);
        }
        if metadata.is_dir() {
            self.changes.push(Change::Empty { target: c_path(target)? });
        } else if metadata.is_file() || metadata.file_type().is_socket() {
            // Connecting to what is no socket gives ECONNREFUSED; reading it gives nothing.
            self.bind(Path::new("/dev/null"), target)?;
        }
        Ok(self)
    }

    /// Makes the namespace and carries the plan out. *After fork.*
    pub(crate) fn apply_after_fork(&self) -> Result<(), (Step, io::Error)> {
        sys::namespace::unshare(libc::CLONE_NEWNS).map_err(|error| (Step::MakeMount, error))?;
        sys::mount::make_all_private().map_err(|error| (Step::PrivateMounts, error))?;
        for change in &self.changes {
            let result = match change {
                Change::Bind { source, target } => bind_read_only(source, target),
                Change::Empty { target } => sys::mount::cover_with_nothing(target),
            };
            result.map_err(|error| (Step::Mount, error))?;
        }
        Ok(())
    }
}

/// *After fork.*
fn bind_read_only(source: &CStr, target: &CStr) -> io::Result<()> {
    let tree = sys::mount::clone_tree(source)?;
    let read_only = sys::mount::set_read_only(tree.as_fd());
    let place = sys::namespace::open(target, libc::O_PATH | libc::O_NOFOLLOW)?;
    sys::mount::attach(tree.as_fd(), place.as_fd())?;
    match read_only {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            sys::mount::remount_read_only(target)
        }
        result => result,
    }
}

/// Also true for a dangling link.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
