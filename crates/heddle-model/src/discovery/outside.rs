//! Endpoints that are no workloads of the mesh, and what holds for calls to the outside: what
//! ServiceEntries and Sidecars come to for a proxy.

use std::{collections::BTreeMap, net::IpAddr};

use minicbor::{Decode, Encode};

use super::{Provenance, WorkloadInfo};
use crate::{Locality, wire::closed};

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

/// One endpoint outside the mesh.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct OutsideEndpoint {
    /// Who it is: its id is unique among the endpoints of its service, and of `ports` those it serves.
    #[n(1)]
    pub workload: WorkloadInfo,
    /// Is that a workload somebody described (a WorkloadEntry)? Else nothing is known of it but where it
    /// is, and metrics call it `unknown`.
    #[cbor(n(2), default)]
    pub described: bool,
    /// Where it is.
    #[n(3)]
    pub at: OutsideAddress,
    /// Its port for each port of the service.
    #[cbor(n(4), default)]
    pub ports: BTreeMap<u16, u16>,
    /// Load-balancing weight; 0 counts as 1.
    #[cbor(n(5), default)]
    pub weight: u32,
    /// Where it runs.
    #[cbor(n(6), default)]
    pub locality: Locality,
}

/// Where an endpoint outside is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutsideAddress {
    /// There.
    Ip(IpAddr),
    /// Where this name, in lower case, leads; the proxy asks the resolvers of the outside.
    Host(String),
}

closed!(OutsideAddress { 1 => Ip(ip), 2 => Host(host) });

/// What holds for a workload's calls of what is no service of the mesh.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct OutboundPolicy {
    /// May a name outside the mesh's own domain be a service that this workload sees? Then it is asked
    /// about; else names and hosts outside cost nothing.
    #[cbor(n(1), default)]
    pub names_outside: bool,
    /// Only what is known may be called, by this Sidecar (`outboundTrafficPolicy.mode: REGISTRY_ONLY`).
    #[n(2)]
    pub registry_only: Option<Provenance>,
}
