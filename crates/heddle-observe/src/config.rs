//! What the process is told at its start.

use std::{net::SocketAddr, os::fd::RawFd, path::PathBuf, time::Duration};

/// Settings of `heddle observe`.
#[derive(Debug, Clone)]
pub struct ObserveConfig {
    /// Mesh name, shown on every page.
    pub mesh: String,
    /// The control plane's `control.sock`.
    pub control_socket: PathBuf,
    /// Where the dashboard listens.
    pub dashboard: DashboardListener,
    /// Time between two scrapes of a sidecar.
    pub scrape_interval: Duration,
    /// Names the dashboard may be called by, besides `localhost` and any IP address: a page of
    /// another site that points its own name at this address is refused by its Host header.
    pub allowed_hosts: Vec<String>,
    /// The file in which what was measured is kept; without one it is in memory only.
    pub history: Option<PathBuf>,
}

/// Where the dashboard listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DashboardListener {
    /// A bound, listening TCP socket inherited from the parent, by number. It may belong to another
    /// network namespace than this process.
    Inherited(RawFd),
    /// An address to bind; port 0 takes any.
    Bind(SocketAddr),
}

impl ObserveConfig {
    /// The default time between scrapes.
    pub const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

    /// Settings with defaults for all that is not named.
    #[must_use]
    pub fn new(mesh: &str, control_socket: PathBuf, dashboard: DashboardListener) -> Self {
        Self {
            mesh: mesh.to_owned(),
            control_socket,
            dashboard,
            scrape_interval: Self::SCRAPE_INTERVAL,
            allowed_hosts: Vec::new(),
            history: None,
        }
    }
}
