//! Services and the workloads behind them, as the control plane knows them at one moment.
//!
//! The nouns speak for one machine and for Kubernetes alike: a workload may be in no service or in
//! several, and a service port leads to a target port of each workload. On one machine every workload
//! is in one service, whose ports are its workloads' own.

mod json;
mod lookup;
mod members;
mod outside;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

pub use self::{
    members::{AddressIndex, EndpointPort, EndpointState, Members},
    outside::{OutsideAddress, OutsideHost, OutsideService, Resolution},
};
use crate::{Addresses, Identity, Locality, Protocol, ServiceName, WorkloadId};

/// Are all of the labels `wanted` among these (`matchLabels`)?
#[must_use]
pub fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// All services and workloads of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// Services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Workloads by id.
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// Of those services that are ServiceEntries' what only they have.
    pub outside: BTreeMap<ServiceName, OutsideService>,
    /// Who is behind a service, where an engine says so port by port. One that is not here is served by
    /// the workloads that belong to it and have its target ports.
    pub members: BTreeMap<ServiceName, Members>,
    /// Whose an address is, where an engine keeps that: a large mesh is not looked through.
    pub addresses: Option<AddressIndex>,
}

/// A named service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "json::Service", into = "json::Service")]
pub struct Service {
    /// Name and namespace.
    pub name: ServiceName,
    /// Virtual addresses, stable as long as the name is known. None: a headless service, whose name
    /// stands for its endpoints' own addresses.
    pub vips: Vec<IpAddr>,
    /// Ports by number.
    pub ports: BTreeMap<u16, ServicePort>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "json::ServicePort", into = "json::ServicePort")]
pub struct ServicePort {
    /// Port number clients use.
    pub number: u16,
    /// Name, e.g. `http-web`; empty where none was given.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
    /// The port of each workload that it leads to.
    pub target: TargetPort,
}

/// Which port of a workload a service port leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// The one with this number.
    Number(u16),
    /// The one each workload gives this name to; it may be another number in each.
    Name(String),
}

/// One running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "json::Workload", into = "json::Workload")]
pub struct Workload {
    /// Unique id.
    pub id: WorkloadId,
    /// Workload name, e.g. `reviews-v1` (what Istio derives from the Deployment).
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Who it is to others, whatever it serves.
    pub identity: Identity,
    /// The services it belongs to. On one machine it is one, which clients without ports name too,
    /// for metrics.
    pub services: BTreeSet<ServiceName>,
    /// `version` label; empty where none was given.
    pub version: String,
    /// All labels, `app` and `version` included.
    pub labels: BTreeMap<String, String>,
    /// Addresses in the mesh.
    pub addresses: Addresses,
    /// Ports by number, each with its own readiness: those it declares and those that services lead to.
    pub ports: BTreeMap<u16, WorkloadPort>,
    /// Where it runs.
    pub locality: Locality,
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
    /// `Ready` once it takes requests: on one machine, once the port is in LISTEN.
    pub state: EndpointState,
}

impl Service {
    /// Its first virtual IPv4 address.
    #[must_use]
    pub fn vip_v4(&self) -> Option<Ipv4Addr> {
        self.vips.iter().find_map(|vip| match vip {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Its first virtual IPv6 address.
    #[must_use]
    pub fn vip_v6(&self) -> Option<Ipv6Addr> {
        self.vips.iter().find_map(|vip| match vip {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        })
    }
}

/// Of several services the one that stands for a workload.
pub(crate) fn first_of<'a>(
    services: &'a BTreeSet<ServiceName>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<&'a ServiceName> {
    let named = |service: &&ServiceName| {
        service.namespace == namespace && labels.get("app").is_some_and(|app| *app == service.name)
    };
    match services.len() {
        0 | 1 => services.first(),
        _ => services.iter().find(named).or_else(|| services.first()),
    }
}

impl Workload {
    /// The port that `target` means here, if it has one.
    #[must_use]
    pub fn port(&self, target: &TargetPort) -> Option<&WorkloadPort> {
        match target {
            TargetPort::Number(number) => self.ports.get(number),
            // An empty name is no name: it must not find the ports that have none.
            TargetPort::Name(name) => {
                self.ports.values().find(|port| port.name == *name && !name.is_empty())
            }
        }
    }

    /// The service that stands for it where only one can be told: the one that its label `app` names,
    /// else the first by name.
    #[must_use]
    pub fn first_service(&self) -> Option<&ServiceName> {
        first_of(&self.services, &self.namespace, &self.labels)
    }
}
