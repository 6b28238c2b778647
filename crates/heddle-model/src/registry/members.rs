//! Who is behind a service and whose an address is, as an engine that knows it tells: a cluster has a list of
//! endpoints per service. On one machine both follow from the workloads themselves.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{ServiceName, WorkloadId, wire::closed};

/// The workloads behind one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// A client is led to those of its own node only (`internalTrafficPolicy: Local`).
    pub node_local: bool,
    /// For each workload what each port of the service leads to.
    pub workloads: BTreeMap<WorkloadId, BTreeMap<u16, EndpointPort>>,
}

/// Owners by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressIndex {
    /// Workloads. An address that several have at once (those in a node's own network) is nobody's.
    pub workloads: HashMap<IpAddr, WorkloadId>,
    /// Services by their virtual addresses.
    pub services: HashMap<IpAddr, ServiceName>,
}

/// The state of a workload's port: EndpointSlice's conditions `serving` and `terminating`, of which
/// `ready` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Known, not serving yet (on one machine: not in LISTEN): never picked.
    Pending,
    /// Serves and stays: takes new requests.
    Ready,
    /// Ends, and serves until then: takes new requests only where nothing is ready.
    ServingTerminating,
    /// Takes no new requests; those in flight end.
    Terminating,
}

closed!(EndpointState { 1 => Pending, 2 => Ready, 3 => Terminating, 4 => ServingTerminating });

/// What a service port leads to on one endpoint.
#[derive(Debug, Clone, Copy, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct EndpointPort {
    /// Port it listens on: the service port's target, resolved.
    #[n(1)]
    pub number: u16,
    /// Its state there.
    #[n(2)]
    pub state: EndpointState,
}

impl EndpointState {
    /// Of an endpoint's conditions, as EndpointSlices have them.
    #[must_use]
    pub const fn of(serving: bool, terminating: bool) -> Self {
        match (serving, terminating) {
            (true, false) => Self::Ready,
            (true, true) => Self::ServingTerminating,
            (false, true) => Self::Terminating,
            (false, false) => Self::Pending,
        }
    }
}
