//! What a sidecar that ends asks the observer: to scrape it once more. It answers when it has done so.
//!
//! On one machine the observer listens on a path socket that only the mesh's own user reaches, and believes what is said
//! of the workload: the control plane may know it no more. In a cluster anybody reaches its port, so that nothing is
//! believed but which workload is meant: where it is, and of which service, is the control plane's to say.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use heddle_model::WorkloadId;
use serde::{Deserialize, Serialize};

/// Where this is sent, with POST.
pub const LAST_SCRAPE: &str = "/v1/last-scrape";
/// Most bytes of it.
pub const LAST_SCRAPE_BYTES_MAX: usize = 4 << 10;

/// The path socket of the observer, below a mesh's run-time folder.
#[must_use]
pub fn observer_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("observe.sock")
}

/// The workload whose sidecar ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastScrape {
    /// Its id.
    pub workload: WorkloadId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Short name of the service that its calls are booked under.
    pub service: String,
    /// Its version; may be empty.
    pub version: String,
    /// Where its metrics are.
    pub address: IpAddr,
}
