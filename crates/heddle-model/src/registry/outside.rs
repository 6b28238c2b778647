//! What ServiceEntries add to the registry: services whose endpoints are mostly no workloads of the mesh.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{Protocol, ResourceKey, identity::Locality, wire::closed};

/// How endpoints outside the mesh are found (ServiceEntry `resolution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Resolution {
    /// They have addresses.
    #[default]
    Static,
    /// They have names: every address of each is an endpoint.
    Dns,
    /// The same, but a connection goes to the first address of the last answer, and to the next one only
    /// where that refuses.
    DnsRoundRobin,
    /// There are none: a connection goes to the address that the client asked for.
    None,
}

closed!(Resolution { 0 => Static, 1 => Dns, 2 => DnsRoundRobin, 3 => None });

/// Where an endpoint outside is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutsideAddress {
    /// There.
    Ip(IpAddr),
    /// Where this name, in lower case, leads; the proxy asks the resolvers of the outside.
    Host(String),
}

closed!(OutsideAddress { 1 => Ip(ip), 2 => Host(host) });

/// What a service has that an entry made. Its name, virtual addresses and ports are among the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideService {
    /// The entry.
    pub key: ResourceKey,
    /// Its place in the order of force; of two that name one host the first wins.
    pub position: usize,
    /// Namespaces that see it besides what `.` means; never empty.
    pub export_to: Vec<String>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// There are none: the host that each call names is looked up; `resolution` is `None`.
    pub dynamic: bool,
    /// Addresses that are its own: ranges, or single ones.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its endpoints, by host or address.
    pub endpoints: Vec<OutsideHost>,
    /// Labels of workloads of the mesh, in its entry's namespace, that serve it too.
    pub selector: Option<BTreeMap<String, String>>,
    /// Names of which a server's certificate has to hold one, where no rule says which; empty: nothing is said.
    pub subject_alt_names: Vec<String>,
}

/// One endpoint of an entry, with its ports resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideHost {
    /// Unique among the endpoints of the mesh.
    pub id: String,
    /// Where it is.
    pub at: OutsideAddress,
    /// The WorkloadEntry that describes it, by name; `None` for one that the entry has inline.
    pub described: Option<String>,
    /// Service account; empty where none is given.
    pub service_account: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// For each port of the service its own port, and what that speaks.
    pub ports: BTreeMap<u16, (u16, Protocol)>,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Where it runs.
    pub locality: Locality,
}
