//! One endpoint of a cluster, as a snapshot has it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use heddle_model::{Locality, Protocol, WorkloadId, discovery::WorkloadInfo};
use heddle_runtime::tls::Origin;

use crate::breaker::Place;

/// One workload's port behind a service.
#[derive(Debug, PartialEq, Eq)]
pub struct LbEndpoint {
    /// Who it is.
    pub workload: Arc<WorkloadInfo>,
    /// Where it is: of its addresses the first in a family that this sidecar's workload has too, else
    /// the first.
    pub ip: IpAddr,
    /// Port it listens on: what the cluster's service port leads to there.
    pub port: u16,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Where it runs.
    pub locality: Locality,
    /// Is it the workload this sidecar belongs to? Then the call stays inside the process.
    pub is_self: bool,
    /// What is different about one outside the mesh.
    pub outside: Option<EndpointOutside>,
    /// Where a worker keeps what it knows about it.
    pub slot: EndpointSlot,
    /// Its place in what is counted of the cluster.
    pub place: Option<Arc<Place>>,
    /// The TLS that connections to it are of.
    pub tls: Option<Arc<Origin>>,
}

/// What is different about an endpoint outside the mesh: it is reached through the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointOutside {
    /// Is it known who it is? Else its workload is only a name for what is counted.
    pub described: bool,
}

impl LbEndpoint {
    /// Workload id.
    #[must_use]
    pub fn id(&self) -> &WorkloadId {
        &self.workload.id
    }

    /// Who it is, where that is known.
    #[must_use]
    pub(crate) fn who(&self) -> Option<&Arc<WorkloadInfo>> {
        Some(&self.workload).filter(|_| self.outside.is_none_or(|outside| outside.described))
    }

    /// What its port is declared to speak.
    #[must_use]
    pub(crate) fn declared(&self) -> Protocol {
        self.workload.ports.get(&self.port).copied().unwrap_or_default()
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// A small index for per-worker state about an endpoint (workload, address and port; where a rule
/// counts something, its cluster; and the TLS of its connections).
///
/// Indexes are dense and used again; `stamp` never is. State found at `index` with another stamp
/// belongs to an endpoint that is gone and is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointSlot {
    /// Index into a worker's table.
    pub index: u32,
    /// Unique in this process, never 0.
    pub stamp: u64,
}
