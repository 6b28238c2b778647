//! Where meshes live on this machine, which of them run, and what a dead one left behind.
//!
//! A mesh is known by its lock file: the holder keeps it locked (flock) and writes its process id
//! and start time into it. A name, a socket or a folder alone proves nothing, so cleaning up after
//! `kill -9` cannot hit a neighbour's mesh. Nothing here talks to a mesh; see [`crate::holder_client`].

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_runtime::{
    clock,
    process::{self, Pidfd},
    signal::Signal,
};
use serde::{Deserialize, Serialize};

use crate::failure::{Doing as _, Failure};

pub(crate) mod leftovers;

/// Overrides the folder of all meshes; for tests and for machines where the default will not do.
pub(crate) const RUNTIME_DIR_VARIABLE: &str = "HEDDLE_RUNTIME_DIR";
/// Longest path of a socket, bytes: `sun_path` without its final zero.
const SOCKET_PATH_MAX: usize = 107;
/// Longest file name below a mesh's run-time folder that is a socket.
const LONGEST_SOCKET_NAME: &str = "discovery.sock";
/// Largest lock file read, bytes.
const LOCK_MAX: usize = 4096;

/// Time the programs of a workload have between SIGTERM and SIGKILL, whoever ends them.
pub(crate) const END_GRACE: Duration = Duration::from_secs(5);
/// How long a lock that is held may be that of a mesh just killed or ending.
const ENDING_WAIT: Duration = Duration::from_secs(1);
/// Pause between two looks at it.
const ENDING_PAUSE: Duration = Duration::from_millis(10);

/// The folder of all meshes of this user: private, and really theirs.
#[derive(Debug, Clone)]
pub(crate) struct RunRoot(PathBuf);

impl RunRoot {
    /// Opens, and where needed makes, the folder: `/run/heddle` for root, else
    /// `$XDG_RUNTIME_DIR/heddle`, else `/tmp/heddle-UID`.
    ///
    /// # Errors
    /// A refusal where the folder cannot be made, belongs to somebody else or is open to others.
    pub(crate) fn open() -> Result<Self, Failure> {
        let uid = process::effective_ids().0;
        let root = match std::env::var_os(RUNTIME_DIR_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => {
                let path = PathBuf::from(path);
                std::path::absolute(&path).doing(|| format!("find {}", path.display()))?
            }
            None => Self::default_path(uid),
        };
        Self::open_at(&root, uid)
    }

    fn default_path(uid: u32) -> PathBuf {
        if uid == 0 {
            return PathBuf::from("/run/heddle");
        }
        // After `su` the variable may still name another user's folder, which would refuse us.
        let usable = |path: &PathBuf| {
            path.is_absolute() && fs::metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == uid)
        };
        match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(usable) {
            Some(path) => path.join("heddle"),
            None => PathBuf::from(format!("/tmp/heddle-{uid}")),
        }
    }

    fn open_at(root: &Path, uid: u32) -> Result<Self, Failure> {
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("make the folder {}", root.display()));
            }
            _ => {}
        }
        // A link or somebody else's folder under /tmp could hand our sockets to another user.
        let found = fs::symlink_metadata(root).doing(|| format!("look at {}", root.display()))?;
        if !found.is_dir() || found.uid() != uid {
            return Err(Failure::refused(format!(
                "{} must be a folder owned by uid {uid}, but is {} of uid {}: remove it, or name another folder in {RUNTIME_DIR_VARIABLE}",
                root.display(),
                if found.is_dir() { "one" } else { "no folder, and" },
                found.uid(),
            )));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(root, fs::Permissions::from_mode(0o700))
                .doing(|| format!("close {} to other users", root.display()))?;
        }
        Ok(Self(root.to_owned()))
    }

    /// A folder as it is, for tests.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The paths of a mesh.
    ///
    /// # Errors
    /// A refusal where its sockets' paths would be longer than the kernel takes.
    pub(crate) fn mesh(&self, name: &str) -> Result<MeshPaths, Failure> {
        let paths = MeshPaths { root: self.0.clone(), name: name.to_owned() };
        paths.check_socket(Path::new(LONGEST_SOCKET_NAME))?;
        Ok(paths)
    }

    /// The meshes whose holders are alive, by name.
    ///
    /// # Errors
    /// A refusal where the folder cannot be read.
    pub(crate) fn running(&self) -> Result<Vec<RunningMesh>, Failure> {
        let listing =
            fs::read_dir(&self.0).doing(|| format!("read the folder {}", self.0.display()))?;
        let mut running: Vec<RunningMesh> = listing
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                RunningMesh::find(self.mesh(file.strip_suffix(".lock")?).ok()?)
            })
            .collect();
        running.sort_by(|a, b| a.paths.name.cmp(&b.paths.name));
        Ok(running)
    }
}

/// Where one mesh keeps what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshPaths {
    root: PathBuf,
    name: String,
}

impl MeshPaths {
    /// The mesh's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder of all meshes it is in.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The holder's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join(format!("{}.sock", self.name))
    }

    /// The lock file.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(format!("{}.lock", self.name))
    }

    /// The run-time folder: sockets, logs, one folder per workload.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Can a socket be `below` the run-time folder?
    ///
    /// # Errors
    /// A refusal where its path would be longer than the kernel takes.
    pub(crate) fn check_socket(&self, below: &Path) -> Result<(), Failure> {
        let socket = self.run_dir().join(below);
        if socket.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "the path {} is longer than the {SOCKET_PATH_MAX} bytes a socket may have: use a shorter --mesh name, or a shorter folder in {RUNTIME_DIR_VARIABLE}",
            socket.display()
        )))
    }

    /// Takes the mesh's lock, also that of a mesh which is ending this moment.
    ///
    /// # Errors
    /// A refusal where the mesh runs, or the file cannot be made.
    pub(crate) async fn take_lock(&self) -> Result<MeshLock, Failure> {
        let give_up = clock::now() + ENDING_WAIT;
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if clock::now() > give_up {
                return Err(self.runs_already());
            }
            clock::sleep(ENDING_PAUSE).await;
        }
    }

    /// Takes the mesh's lock; `None` where a mesh of this name runs or is about to.
    ///
    /// # Errors
    /// A refusal where the file cannot be made.
    pub(crate) fn try_lock(&self) -> Result<Option<MeshLock>, Failure> {
        let path = self.lock();
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).doing(|| format!("open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).doing(|| format!("lock {}", path.display()));
                }
            }
            // A mesh that ended just now removed the file we opened: lock the one others will find.
            if self.is_lock(&file) {
                return Ok(Some(MeshLock { file: Some(file), path }));
            }
        }
    }

    /// Is this open file the mesh's lock file?
    pub(crate) fn is_lock(&self, file: &File) -> bool {
        let named = fs::metadata(self.lock());
        let open = file.metadata();
        matches!((named, open), (Ok(named), Ok(open))
            if (named.dev(), named.ino()) == (open.dev(), open.ino()))
    }

    fn runs_already(&self) -> Failure {
        let holder = match ProcessRecord::read(&self.lock()) {
            Some(record) => format!(" (process {})", record.pid),
            None => String::new(),
        };
        Failure::refused(format!(
            "a mesh named `{0}` is running already{holder}: join it with `heddle run --mesh {0} …`, end it with `heddle down --mesh {0}`, or choose another --mesh NAME",
            self.name
        ))
    }
}

/// The right to be the mesh of a name. Dropped, it gives the name back and leaves no file.
#[derive(Debug)]
pub(crate) struct MeshLock {
    file: Option<File>,
    path: PathBuf,
}

impl MeshLock {
    /// The locked file, for the holder, which keeps the lock by keeping it open.
    pub(crate) fn hand_on(mut self) -> Option<File> {
        self.file.take()
    }
}

impl Drop for MeshLock {
    fn drop(&mut self) {
        // Removed while it is locked: nobody else can have begun to use it.
        if let Some(_locked) = &self.file {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// In the run-time folder: the process that has programs of a file in the mesh.
pub(crate) const UP_RECORD: &str = "up.json";

/// What `heddle up` writes there.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct UpRecord {
    /// Itself.
    pub process: ProcessRecord,
    /// Its programs and the mesh have ended so long after it was asked, seconds.
    pub ends_within: u64,
}

impl UpRecord {
    /// What is written at `path`; `None` if that is no record.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok().filter(|text| text.len() <= LOCK_MAX)?;
        serde_json::from_slice(&text).ok()
    }
}

/// What the holder writes into the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    /// The holder's process id.
    pub pid: u32,
    /// Its start time, clock ticks since boot: tells it from a later process of the same id.
    pub start_time: u64,
}

impl ProcessRecord {
    /// The record of the calling process.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub(crate) fn own() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, start_time: process::start_time(pid)? })
    }

    /// Writes the record; readers see the old content or the whole new one of this one short write.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn write(self, mut file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.write_all(serde_json::to_string(&self)?.as_bytes())
    }

    /// What is written at `path`; `None` if that is no record.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok().filter(|text| text.len() <= LOCK_MAX)?;
        serde_json::from_slice(&text).ok()
    }

    /// Sends it the signal that asks a process to end. False where it is not there any more, or cannot be asked.
    pub(crate) fn ask_to_end(self) -> bool {
        let Ok(process) = Pidfd::open(self.pid) else { return false };
        // Compared now that the number cannot go to another process unnoticed.
        // One that is stopped, as by Ctrl-Z, would not see it before it goes on.
        self.is_alive()
            && process.signal(Signal::TERMINATE).is_ok()
            && process.signal(Signal::CONTINUE).is_ok()
    }

    /// Is the process that wrote it still there?
    pub(crate) fn is_alive(self) -> bool {
        process::start_time(self.pid).is_ok_and(|start| start == self.start_time)
    }
}

/// A mesh whose holder is alive.
#[derive(Debug, Clone)]
pub(crate) struct RunningMesh {
    /// Where it keeps what.
    pub paths: MeshPaths,
}

impl RunningMesh {
    fn find(paths: MeshPaths) -> Option<Self> {
        let holder = ProcessRecord::read(&paths.lock());
        holder.is_some_and(ProcessRecord::is_alive).then_some(Self { paths })
    }

    /// Returns once the holder's process has ended.
    pub(crate) async fn holder_gone(&self) {
        let Some(record) = ProcessRecord::read(&self.paths.lock()) else { return };
        let Ok(process) = Pidfd::open(record.pid) else { return };
        // Compared now that the number cannot go to another process unnoticed.
        if record.is_alive()
            && let Err(error) = process.ended().await
        {
            tracing::warn!(%error, "cannot watch the holder");
        }
    }

    /// The mesh a command means: the named one, or the only one running.
    ///
    /// # Errors
    /// A refusal that lists the running meshes, or says how to start one.
    pub(crate) fn select(name: Option<&str>) -> Result<Self, Failure> {
        let root = RunRoot::open()?;
        let mut running = root.running()?;
        if let Some(name) = name {
            return match running.iter().position(|mesh| mesh.paths.name() == name) {
                Some(index) => Ok(running.swap_remove(index)),
                None => Err(not_running(name, &running)),
            };
        }
        match running.len() {
            0 => Err(Failure::refused(
                "no mesh is running: start one with `heddle up`, or try `heddle demo`",
            )),
            1 => Ok(running.swap_remove(0)),
            _ => Err(Failure::refused(format!(
                "several meshes are running: say which one with --mesh NAME ({})",
                Names(&running)
            ))),
        }
    }
}

fn not_running(name: &str, running: &[RunningMesh]) -> Failure {
    let others = if running.is_empty() {
        String::new()
    } else {
        format!("; running are: {}", Names(running))
    };
    Failure::refused(format!(
        "no mesh named `{name}` is running: start it with `heddle up --mesh {name}`{others}"
    ))
}

struct Names<'a>(&'a [RunningMesh]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|mesh| mesh.paths.name()).collect();
        f.write_str(&names.join(", "))
    }
}
