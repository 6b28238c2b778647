//! The mesh's namespaces: how they are made, held and told apart.
//!
//! A mesh has one hub network namespace and, for who is not root, one user namespace that owns it
//! and maps the caller's uid and gid to themselves. Both live as long as a descriptor of them; no
//! process stays inside. [`crate::spawn`] starts programs in them, [`crate::netns_op`] makes the
//! workloads' namespaces.

use std::{
    ffi::{CStr, CString},
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use crate::{mount::MountPlan, sys};

mod step;

pub use step::Step;

/// What a process may listen on without privilege, in a fresh network namespace: everything.
pub(crate) const LOW_PORTS_FILE: &CStr = c"/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Making or opening a namespace failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {}: {source}", step.text())]
pub struct NsError {
    /// At which step.
    pub step: Step,
    /// What the kernel said.
    pub source: io::Error,
}

/// A namespace's identity, the same from every process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NsId {
    /// Device number of the namespace file system.
    pub device: u64,
    /// Inode number: what `readlink /proc/PID/ns/net` shows.
    pub inode: u64,
}

/// A network namespace and, if it is not the host's, the user namespace that owns it, as descriptors.
#[derive(Debug)]
pub struct Namespaces {
    user: Option<OwnedFd>,
    net: OwnedFd,
}

/// Does the mesh get a user namespace of its own?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The caller is root and needs none.
    Root,
    /// The caller's uid and gid, mapped to themselves.
    Rootless,
}

impl Mode {
    /// By the caller's effective uid.
    pub fn of_caller() -> Self {
        if sys::process::effective_ids().0 == 0 { Self::Root } else { Self::Rootless }
    }
}

impl NsId {
    /// The identity of the namespace behind a descriptor.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?);
        file.metadata().map(|metadata| Self::of_metadata(&metadata))
    }

    pub(crate) fn of_metadata(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The calling thread's network namespace.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn current_net() -> io::Result<Self> {
        std::fs::metadata("/proc/thread-self/ns/net").map(|metadata| Self::of_metadata(&metadata))
    }
}

impl Namespaces {
    /// From descriptors, e.g. those that came with the holder's answer.
    pub fn new(user: Option<OwnedFd>, net: OwnedFd) -> Self {
        Self { user, net }
    }

    /// Makes a fresh network namespace, `lo` up and all ports free to bind; [`Mode::Rootless`] inside
    /// a fresh user namespace. A short-lived child does it: the caller stays where it is and may
    /// have threads. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// Names the step that failed; [`crate::preflight::Missing`] says what would help.
    pub fn create(mode: Mode) -> Result<Self, NsError> {
        let birth = Birth::prepare(mode);
        in_child(|parent| birth.run(parent), |pid| Self::of_child(pid, mode))
    }

    /// Finds out, in a short-lived child, whether a program could be started in these namespaces with
    /// a mount namespace changed as planned.
    ///
    /// # Errors
    /// Names the step that failed.
    pub fn try_enter(&self, mounts: &MountPlan) -> Result<(), NsError> {
        let target = self.to_enter().map_err(|source| NsError { step: Step::Hold, source })?;
        let enter = |_parent| {
            target.enter_after_fork()?;
            mounts.apply_after_fork()
        };
        in_child(enter, |_pid| Ok(()))
    }

    fn of_child(pid: libc::pid_t, mode: Mode) -> Result<Self, NsError> {
        let open = |kind: &str| {
            File::open(format!("/proc/{pid}/ns/{kind}"))
                .map(OwnedFd::from)
                .map_err(|source| NsError { step: Step::Hold, source })
        };
        let user = match mode {
            Mode::Root => None,
            Mode::Rootless => Some(open("user")?),
        };
        Ok(Self { user, net: open("net")? })
    }

    /// The network namespace.
    pub fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// The user namespace, if it is not the host's.
    pub fn user(&self) -> Option<BorrowedFd<'_>> {
        self.user.as_ref().map(AsFd::as_fd)
    }

    /// `[net]` or `[user, net]`: the order in which the holder passes them on.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.user().into_iter().chain([self.net()]).collect()
    }

    /// The reverse of [`Self::fds`].
    ///
    /// # Errors
    /// `InvalidData` for another number of descriptors than one or two.
    pub fn from_fds(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next(), fds.next()) {
            (Some(net), None, None) => Ok(Self::new(None, net)),
            (Some(user), Some(net), None) => Ok(Self::new(Some(user), net)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{count} namespace descriptors came, expected one or two"),
            )),
        }
    }

    /// Another network namespace of the same user namespace.
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn with_net(&self, net: OwnedFd) -> io::Result<Self> {
        Ok(Self { user: self.user.as_ref().map(OwnedFd::try_clone).transpose()?, net })
    }

    /// The same namespaces behind descriptors of their own.
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.with_net(self.net.try_clone()?)
    }

    /// The network namespace's identity, as [`crate::process::in_netns`] takes it.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn net_id(&self) -> io::Result<NsId> {
        NsId::of(self.net())
    }

    /// The same, but without the user namespace if the caller is in it already (entering it again
    /// is an error, EINVAL).
    pub(crate) fn to_enter(&self) -> io::Result<Self> {
        let mut copy = self.try_clone()?;
        if let Some(user) = copy.user() {
            let own = std::fs::metadata("/proc/thread-self/ns/user")?;
            if NsId::of(user)? == NsId::of_metadata(&own) {
                copy.user = None;
            }
        }
        Ok(copy)
    }

    /// Enters both. *After fork* and single-threaded.
    pub(crate) fn enter_after_fork(&self) -> Result<(), (Step, io::Error)> {
        if let Some(user) = self.user() {
            sys::namespace::setns(user, libc::CLONE_NEWUSER)
                .map_err(|error| (Step::EnterUser, error))?;
        }
        sys::namespace::setns(self.net(), libc::CLONE_NEWNET)
            .map_err(|error| (Step::EnterNet, error))
    }
}

/// What the child of [`Namespaces::create`] does, prepared before the fork.
struct Birth {
    mode: Mode,
    uid_map: CString,
    gid_map: CString,
}

impl Birth {
    fn prepare(mode: Mode) -> Self {
        let (uid, gid) = sys::process::effective_ids();
        let identity =
            |id| CString::new(format!("{id} {id} 1")).expect("invariant: digits hold no NUL");
        Self { mode, uid_map: identity(uid), gid_map: identity(gid) }
    }

    /// *After fork.*
    fn run(&self, parent: u32) -> Result<(), (Step, io::Error)> {
        let at = |step| move |error: io::Error| (step, error);
        sys::process::die_with_parent(libc::SIGKILL, parent).map_err(at(Step::DieWithParent))?;
        if self.mode == Mode::Rootless {
            sys::process::make_dumpable().map_err(at(Step::MakeUser))?;
            sys::namespace::unshare(libc::CLONE_NEWUSER).map_err(at(Step::MakeUser))?;
            sys::namespace::write_file(c"/proc/self/setgroups", b"deny")
                .map_err(at(Step::DenySetgroups))?;
            sys::namespace::write_file(c"/proc/self/gid_map", self.gid_map.as_bytes())
                .map_err(at(Step::MapGid))?;
            sys::namespace::write_file(c"/proc/self/uid_map", self.uid_map.as_bytes())
                .map_err(at(Step::MapUid))?;
        }
        sys::namespace::unshare(libc::CLONE_NEWNET).map_err(at(Step::MakeNet))?;
        sys::namespace::loopback_up().map_err(at(Step::Loopback))?;
        allow_low_ports().map_err(at(Step::LowPorts))
    }
}

/// Runs `action` in a forked child and, if it succeeds, `then` here while the child still lives. The
/// child gets this process's id; `action` must be *after fork*.
fn in_child<T>(
    action: impl FnOnce(u32) -> Result<(), (Step, io::Error)>,
    then: impl FnOnce(libc::pid_t) -> Result<T, NsError>,
) -> Result<T, NsError> {
    let fail = |source| NsError { step: Step::Fork, source };
    let (report_reader, report_writer) = sys::pipe::pipe(0).map_err(fail)?;
    let (hold_reader, hold_writer) = sys::pipe::pipe(0).map_err(fail)?;
    let parent = std::process::id();
    let pid = sys::process::fork(|| {
        sys::process::close_copy(hold_writer.as_fd());
        let (number, errno) = match action(parent) {
            Ok(()) => (u8::MAX, 0),
            Err((step, error)) => (step as u8, error.raw_os_error().unwrap_or(0)),
        };
        let [a, b, c, d] = errno.to_ne_bytes();
        let told = sys::namespace::write_once(report_writer.as_raw_fd(), &[number, a, b, c, d]);
        // Lives until the parent closes its end.
        let _held = sys::process::read_byte(hold_reader.as_fd());
        libc::c_int::from(told.is_err())
    })
    .map_err(fail)?;
    drop((report_writer, hold_reader));
    let result = read_report(report_reader).and_then(|()| then(pid));
    drop(hold_writer);
    sys::process::reap(pid).map_err(fail)?;
    result
}

/// Lets everybody bind any port in the current network namespace. Where /proc/sys is read-only (in
/// some containers) ports below 1024 stay root's; that is no reason to refuse a mesh. *After fork.*
pub(crate) fn allow_low_ports() -> io::Result<()> {
    match sys::namespace::write_file(LOW_PORTS_FILE, b"0") {
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        result => result,
    }
}

/// Waits for the child's word: five bytes, or the end if it died.
fn read_report(reader: OwnedFd) -> Result<(), NsError> {
    let mut bytes = [0; 5];
    File::from(reader)
        .read_exact(&mut bytes)
        .map_err(|source| NsError { step: Step::Fork, source })?;
    let [number, errno @ ..] = bytes;
    match Step::of_number(number) {
        None => Ok(()),
        Some(step) => {
            let source = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
            Err(NsError { step, source })
        }
    }
}
