//! The members of this mesh's life, in the run-time folder: a control plane that restarts knows
//! its workloads and their readiness before anybody tells it, so no proxy is told "gone" meanwhile,
//! and which addresses were freed a moment ago, so that no newcomer gets one that callers still hold.
//!
//! It is no store: it belongs to one holder process, as the workloads' network does, and is ignored
//! under another. Losing it costs that the members must be adopted first, and that freed addresses
//! no longer rest.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use heddle_model::{ServiceName, Workload, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::limits::JOURNAL_BYTES_MAX;

const JOURNAL_FILE: &str = "members.json";
const FORMAT: u32 = 1;

/// Where the members are noted.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: PathBuf,
    life: String,
}

/// What is noted of the members.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Noted {
    /// They themselves.
    pub(crate) workloads: Vec<Workload>,
    /// Address indices of their services: the store may have been unable to take them.
    pub(crate) vips: Vec<(ServiceName, u32)>,
    /// Address indices that rest, whose they were, and since when (Unix seconds).
    pub(crate) freed: Vec<(WorkloadId, u32, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Page {
    format: u32,
    life: String,
    workloads: Vec<Workload>,
    #[serde(default)]
    vips: Vec<(ServiceName, u32)>,
    #[serde(default)]
    freed: Vec<(WorkloadId, u32, u64)>,
}

impl Journal {
    /// The journal in `folder` of the mesh whose holder is `life`: process id and start time.
    pub(crate) fn new(folder: &Path, life: String) -> Self {
        Self { path: folder.join(JOURNAL_FILE), life }
    }

    /// The members noted last; empty if there are none, or another holder's.
    pub(crate) fn read(&self) -> Noted {
        let page = match self.page() {
            Ok(page) => page,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Noted::default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "member journal not readable; members must be adopted");
                return Noted::default();
            }
        };
        if page.format != FORMAT || page.life != self.life {
            tracing::info!(path = %self.path.display(), "member journal of another life ignored");
            return Noted::default();
        }
        Noted { workloads: page.workloads, vips: page.vips, freed: page.freed }
    }

    /// Notes the members, replacing the file by rename.
    ///
    /// # Errors
    /// The system's error; the previous journal is still there.
    pub(crate) fn write(&self, noted: Noted) -> io::Result<()> {
        let Noted { workloads, vips, freed } = noted;
        let page = Page { format: FORMAT, life: self.life.clone(), workloads, vips, freed };
        let text = serde_json::to_vec(&page)?;
        let fresh = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        io::Write::write_all(&mut file, &text)?;
        fs::rename(&fresh, &self.path)
    }

    fn page(&self) -> io::Result<Page> {
        let mut text = Vec::new();
        fs::File::open(&self.path)?.take(JOURNAL_BYTES_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// The life of the process that started us: its id and start time, so that a journal left behind by
/// a killed mesh is told from one of the running mesh.
pub(crate) fn parent_life() -> String {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Field 22; the name before it may hold spaces and is closed by the last parenthesis.
    let start = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19));
    format!("{parent}@{}", start.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use heddle_model::{
        Addresses, EndpointState, Identity, Locality, Protocol, ServiceName, WorkloadPort,
    };
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn the_journal_is_read_back_in_the_same_life_only() {
        let folder = Folder::new("journal");
        let port = WorkloadPort {
            number: 80,
            name: String::new(),
            protocol: Protocol::Http,
            state: EndpointState::Ready,
        };
        let workload = Workload {
            id: WorkloadId("a-1".to_owned()),
            name: "a".to_owned(),
            namespace: "default".to_owned(),
            identity: Identity::local("default", "a"),
            services: BTreeSet::from([ServiceName::new("a", "default").unwrap()]),
            version: String::new(),
            labels: BTreeMap::new(),
            addresses: Addresses::Both([240, 241, 0, 10].into(), std::net::Ipv6Addr::LOCALHOST),
            ports: BTreeMap::from([(80, port)]),
            locality: Locality::default(),
        };
        let journal = Journal::new(folder.path(), parent_life());
        assert_eq!(journal.read(), Noted::default());
        let vips = vec![(ServiceName::new("a", "default").unwrap(), 10)];
        let freed = vec![(WorkloadId("b-2".to_owned()), 11, 1_700_000_000)];
        let noted = Noted { workloads: vec![workload], vips, freed };
        journal.write(noted.clone()).unwrap();
        assert_eq!(journal.read(), noted);
        let other = Journal::new(folder.path(), "1@2".to_owned());
        assert_eq!(other.read(), Noted::default());
        fs::write(folder.join(JOURNAL_FILE), b"{").unwrap();
        assert_eq!(journal.read(), Noted::default());
        assert!(!parent_life().ends_with("unknown"));
    }
}
