//! What the process is told at its start.

use std::{net::SocketAddr, os::fd::RawFd, path::PathBuf, time::Duration};

use crate::{control::ControlSource, source_url::SourceUrl};

/// Settings of `heddle observe`.
#[derive(Debug)]
pub struct ObserveConfig {
    /// Mesh name, shown on every page.
    pub mesh: String,
    /// Who says whom to scrape.
    pub control: ControlSource,
    /// Where the dashboard listens.
    pub dashboard: DashboardListener,
    /// Where `/healthz/ready` is answered, to a kubelet; nothing else is.
    pub health: Option<SocketAddr>,
    /// Time between two scrapes of a sidecar.
    pub scrape_interval: Duration,
    /// Names the dashboard may be called by, besides `localhost` and any IP address: a page of
    /// another site that points its own name at this address is refused by its Host header.
    pub allowed_hosts: Vec<String>,
    /// The run-time folder of a mesh of this machine, where its sidecars' sockets are: by them live calls are looked
    /// at. Without one there is no way to them.
    pub run_dir: Option<PathBuf>,
    /// The file in which what was measured is kept; without one it is in memory only.
    pub history: Option<PathBuf>,
    /// Who is asked for what was measured, instead of our own store.
    pub prometheus: Option<PrometheusSource>,
    /// Where spans are taken in; without it there are no traces.
    pub spans: Option<DashboardListener>,
    /// What is told of that.
    pub told: SpansTold,
    /// The file in which traces are kept; without one they are in memory only.
    pub traces: Option<PathBuf>,
}

/// A Prometheus that scrapes the sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusSource {
    /// Where it answers, as the observer reaches it, or who is behind `through`.
    pub url: SourceUrl,
    /// A file with the token that it is shown (RFC 6750), read again for every question.
    pub token: Option<PathBuf>,
    /// The path socket that leads there, where there is no other way: it says a line first, which is empty, or why it
    /// does not.
    pub through: Option<PathBuf>,
}

/// What readers are told of where spans go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpansTold {
    /// Where applications may send theirs to us: a URL without a path, as they reach it. Empty: it is that of the
    /// listener.
    pub endpoint: String,
    /// Whom the mesh's own go to instead.
    pub elsewhere: Option<String>,
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
    pub fn new(mesh: &str, control: ControlSource, dashboard: DashboardListener) -> Self {
        Self {
            mesh: mesh.to_owned(),
            control,
            dashboard,
            health: None,
            scrape_interval: Self::SCRAPE_INTERVAL,
            allowed_hosts: Vec::new(),
            run_dir: None,
            history: None,
            prometheus: None,
            spans: None,
            told: SpansTold::default(),
            traces: None,
        }
    }
}
