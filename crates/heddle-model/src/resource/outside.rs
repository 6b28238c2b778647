//! What is outside the mesh, as users write it: services that are not in it, workloads that it did not
//! start, and what its workloads may see of both.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    Locality, Protocol,
    discovery::{DefaultEndpoint, Resolution},
};

/// Istio `ServiceEntry`: services that are known by their hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceEntry {
    /// Each of them is a service of its own.
    pub hosts: Vec<EntryHost>,
    /// Addresses that are theirs: address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Ports in order.
    pub ports: Vec<EntryPort>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// There are none: the host that each call names is looked up (`DYNAMIC_DNS`; `resolution` is `None`).
    pub dynamic: bool,
    /// Its endpoints, where they are given with it.
    pub endpoints: Vec<EntryEndpoint>,
    /// Labels of the workloads and WorkloadEntries of its namespace that are its endpoints.
    pub selector: Option<BTreeMap<String, String>>,
    /// Namespaces whose clients see it: names, `.`, `*` or `~`; empty means its own.
    pub export_to: Vec<String>,
    /// Names of which its servers' certificates hold one; empty: nothing is said.
    pub subject_alt_names: Vec<String>,
}

/// One host of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryHost {
    /// In lower case, without a trailing dot.
    pub host: String,
    /// 1-based line in the file.
    pub line: usize,
}

/// One port of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryPort {
    /// Number that clients use.
    pub number: u16,
    /// Name.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port of its endpoints, where that is another.
    pub target: Option<u16>,
}

/// Istio `WorkloadEntry`: a workload that the mesh did not start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkloadEntry {
    /// What it says.
    pub endpoint: EntryEndpoint,
}

/// An endpoint as a WorkloadEntry, or a ServiceEntry's list, describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryEndpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Its port for each port of the service, by that one's name.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where it runs.
    pub locality: Locality,
    /// Load-balancing weight; 0 where none is given.
    pub weight: u32,
    /// Service account; empty where none is given.
    pub service_account: String,
    /// 1-based line in the file.
    pub line: usize,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EndpointAddress {
    /// There.
    Ip(IpAddr),
    /// Where this name leads; in lower case, without a trailing dot.
    Host(String),
    /// Nowhere that this version can reach: a socket in the file system, or another network.
    #[default]
    Elsewhere,
}

/// Istio `Sidecar`: what workloads may see and call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sidecar {
    /// Labels of the workloads it is for; `None` for all of its namespace.
    pub selector: Option<BTreeMap<String, String>>,
    /// Which services they see; `None` for all.
    pub egress: Option<Vec<EgressHost>>,
    /// What becomes of calls of what nobody knows; `None`: what the mesh says, which is to let them pass.
    pub outbound: Option<OutboundMode>,
    /// Ports at which they are called, each given once.
    pub ingress: Vec<IngressListener>,
}

/// A port at which workloads are called, as a Sidecar has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressListener {
    /// The port that callers use.
    pub port: u16,
    /// What is spoken there; undeclared: what else is known of the port.
    pub protocol: Protocol,
    /// Where the program takes calls; `None`: at that port.
    pub endpoint: Option<DefaultEndpoint>,
}

/// What becomes of calls of what nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundMode {
    /// They pass.
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// One item of `egress[].hosts`, `NAMESPACE/HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressHost {
    /// Whose services.
    pub namespace: EgressNamespace,
    /// Which of them: a host, `*` or `*.suffix`; in lower case.
    pub host: String,
    /// It takes them away from those that the others name (`~NAMESPACE/HOST`).
    pub excluded: bool,
    /// On this port alone; `None` for every port that no other item of `egress` has.
    pub port: Option<u16>,
}

/// Whose services are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressNamespace {
    /// Everybody's.
    All,
    /// Those of the Sidecar's own namespace.
    Own,
    /// Nobody's.
    None,
    /// Those of this one.
    Named(String),
}
