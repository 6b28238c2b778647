//! Services and the workloads behind them, as the control plane knows them at one moment.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::{EndpointState, Protocol, ServiceName, WorkloadId};

/// All services and workloads of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// Services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Workloads by id.
    pub workloads: BTreeMap<WorkloadId, Workload>,
}

/// A named service with its stable virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name and namespace.
    pub name: ServiceName,
    /// Virtual IPv4 address, stable as long as the name is known.
    pub vip_v4: Ipv4Addr,
    /// Virtual IPv6 address.
    pub vip_v6: Ipv6Addr,
    /// Ports by number: the union of what its workloads declared.
    pub ports: BTreeMap<u16, ServicePort>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Port number clients use; in local mode also the workload's.
    pub number: u16,
    /// Name, e.g. `http-web`; empty where none was given.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
}

/// One running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Unique id.
    pub id: WorkloadId,
    /// Workload name, e.g. `reviews-v1` (what Istio derives from the Deployment).
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// The service it belongs to. Clients without ports name one too, for metrics.
    pub service: ServiceName,
    /// `version` label; empty where none was given.
    pub version: String,
    /// All labels, `app` and `version` included.
    pub labels: BTreeMap<String, String>,
    /// IPv4 address in the mesh.
    pub ipv4: Ipv4Addr,
    /// IPv6 address in the mesh.
    pub ipv6: Ipv6Addr,
    /// Ports by number, each with its own readiness.
    pub ports: BTreeMap<u16, WorkloadPort>,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPort {
    /// Number the application listens on.
    pub number: u16,
    /// Name; empty where none was given.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
    /// `Ready` once the port is in LISTEN.
    pub state: EndpointState,
}

impl Workload {
    /// Both addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }
}
