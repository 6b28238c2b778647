//! What killed meshes left behind, found and removed by the next start, whatever its name.
//!
//! Whoever clears holds the mesh's lock, so nothing of that name is alive on purpose. Namespaces went
//! with the last process and descriptor; what can be left are processes, recorded with their start
//! times or by their network namespace, and files. A process is killed only if the record and
//! what is seen of it now agree, so another mesh, or a later process of the same number, is safe.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_model::name::check_label;
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

/// Clears the mesh of these paths, whose lock the caller holds, and every other one of the same
/// folder whose lock nobody holds. `progress` is told of those that left something.
///
/// # Errors
/// A refusal where a file of the caller's own mesh cannot be removed.
pub(crate) fn clear_all(paths: &MeshPaths, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    for file in entries(&paths.root) {
        let Some(name) = file.file_name().and_then(OsStr::to_str) else { continue };
        // Not every name is a mesh's: `..lock` would mean the folder of all meshes itself.
        let Some(name) = name.strip_suffix(".lock").filter(|name| check_label(name).is_ok()) else {
            continue;
        };
        let other = MeshPaths { root: paths.root.clone(), name: name.to_owned() };
        // A mesh that runs, starts or ends has its lock; the caller's own has too.
        let Ok(Some(lock)) = other.try_lock() else { continue };
        if let Err(failure) = clear(&other, progress) {
            progress(&format!("mesh `{name}` is not cleared: {failure}"));
            // The lock file stays, so that the next start tries again.
            drop(lock.hand_on());
        }
    }
    clear(paths, progress)
}

/// Ends the processes and removes the files of a mesh that was killed. `progress` is told if there
/// were any.
///
/// # Errors
/// A refusal where a file cannot be removed.
fn clear(paths: &MeshPaths, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;
    use crate::mesh::RunRoot;

    fn leave_files(paths: &MeshPaths) {
        fs::create_dir_all(paths.run_dir().join("workloads")).unwrap();
        for file in [paths.socket(), paths.lock()] {
            fs::write(file, "").unwrap();
        }
    }

    #[test]
    fn a_start_clears_dead_meshes_of_other_names_and_no_living_one() {
        let folder = Folder::new("leftovers");
        let root = RunRoot::at(folder.path());
        let [own, dead, living] = ["own", "dead", "living"].map(|name| root.mesh(name).unwrap());
        leave_files(&dead);
        leave_files(&living);
        fs::write(folder.join("..lock"), "").unwrap();
        let _runs = living.try_lock().unwrap().unwrap();
        let _starts = own.try_lock().unwrap().unwrap();
        let mut said = Vec::new();
        clear_all(&own, &mut |text: &str| said.push(text.to_owned())).unwrap();
        for gone in [dead.run_dir(), dead.socket(), dead.lock()] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        for kept in [living.run_dir(), living.socket(), living.lock(), own.lock()] {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert_eq!(said, ["clearing what a killed mesh `dead` left"]);
    }
}
