//! What a killed mesh left behind, found and removed by the next start under the same name.
//!
//! The caller holds the mesh's lock, so nothing of that name is alive on purpose. Namespaces went
//! with the last process and descriptor; what can be left are processes, recorded with their start
//! times or by their network namespace, and files. A process is killed only if the record and
//! what is seen of it now agree, so another mesh, or a later process of the same number, is safe.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_runtime::{
    clock,
    ns::NsId,
    process::{self, Pidfd},
    signal::Signal,
};
use serde::{Deserialize, Serialize};
use tokio::process::Child;

use super::{MeshPaths, ProcessRecord};
use crate::failure::{Doing as _, Failure};

/// Extension of files with a [`ProcessRecord`].
pub(crate) const PROCESS_RECORD: &str = "pid";
/// Name of the file with a [`NamespaceRecord`] in a workload's folder.
pub(crate) const NAMESPACE_RECORD: &str = "namespace.json";
/// Longest wait for one killed process.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for a holder that says it cannot start.
const HOLDER_WAIT: Duration = Duration::from_secs(10);

/// Where a workload's processes are found after everything that knew them was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceRecord {
    /// Device of its network namespace.
    pub device: u64,
    /// Inode of its network namespace.
    pub inode: u64,
}

impl NamespaceRecord {
    /// The record of a namespace.
    pub(crate) fn of(id: NsId) -> Self {
        Self { device: id.device, inode: id.inode }
    }

    fn id(self) -> NsId {
        NsId { device: self.device, inode: self.inode }
    }
}

/// Ends the processes and removes the files of a mesh that was killed. `progress` is told if there
/// were any.
///
/// # Errors
/// A refusal where a file cannot be removed.
pub(crate) fn clear(paths: &MeshPaths, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let run_dir = paths.run_dir();
    if run_dir.exists() {
        let killed = kill_recorded(&run_dir) + kill_in_namespaces(&run_dir);
        let processes = if killed == 0 { String::new() } else { format!(" ({killed} processes)") };
        progress(&format!("clearing what a killed mesh `{}` left{processes}", paths.name()));
        fs::remove_dir_all(&run_dir).doing(|| format!("remove {}", run_dir.display()))?;
    }
    let socket = paths.socket();
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove {}", socket.display()))
        }
        _ => Ok(()),
    }
}

/// Waits for a holder that did not start to be gone, and clears what it left if it was killed.
pub(crate) async fn after_failed_start(mut holder: Child, paths: &MeshPaths) {
    if clock::within(HOLDER_WAIT, holder.wait()).await.is_none() {
        // It hangs: its children die with it.
        drop(holder.kill().await);
    }
    // If somebody else has the lock by now, the rest is theirs to clear.
    let Ok(_lock) = paths.take_lock().await else { return };
    if let Err(failure) = clear(paths, &mut |_| {}) {
        tracing::warn!(%failure, "not all is cleared");
    }
}

/// Kills the processes recorded in the run-time folder and its workloads'.
fn kill_recorded(run_dir: &Path) -> usize {
    let workloads = run_dir.join("workloads");
    let folders = entries(&workloads).into_iter().chain([run_dir.to_owned()]);
    folders
        .flat_map(|folder| entries(&folder))
        .filter(|file| file.extension().is_some_and(|extension| extension == PROCESS_RECORD))
        .filter_map(|file| ProcessRecord::read(&file))
        .filter(|record| kill(*record))
        .count()
}

fn kill(record: ProcessRecord) -> bool {
    // Opened before it is compared: from here on the number cannot become another process's.
    let Ok(process) = Pidfd::open(record.pid) else { return false };
    if !record.is_alive() || process.signal(Signal::KILL).is_err() {
        return false;
    }
    drop(process.wait_ended(KILL_WAIT));
    true
}

fn kill_in_namespaces(run_dir: &Path) -> usize {
    let mut killed = 0;
    for folder in entries(&run_dir.join("workloads")) {
        let record = fs::read(folder.join(NAMESPACE_RECORD)).ok();
        let record = record.and_then(|text| serde_json::from_slice::<NamespaceRecord>(&text).ok());
        let Some(record) = record else { continue };
        if is_still_the_workloads(record, &folder) {
            match process::end_netns_blocking(record.id(), &[]) {
                Ok(count) => killed += count,
                Err(error) => tracing::warn!(%error, folder = %folder.display(), "not all ended"),
            }
        }
    }
    killed
}

/// Does the inode still mean this workload's namespace? It may have been given to another one since.
/// What tells is that a process in it sees the workload's own resolv.conf.
fn is_still_the_workloads(record: NamespaceRecord, folder: &Path) -> bool {
    let mesh = folder.parent().and_then(Path::parent).and_then(Path::file_name);
    let (Some(mesh), Some(workload)) = (mesh, folder.file_name()) else { return false };
    let mark = format!(
        "/{}/workloads/{}/etc/resolv.conf",
        mesh.to_string_lossy(),
        workload.to_string_lossy()
    );
    let members = process::in_netns(record.id(), &[]).unwrap_or_default();
    members.iter().any(|pid| {
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(&mark))
    })
}

/// Paths in a folder; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(folder).ok();
    listing.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}
