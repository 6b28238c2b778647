//! The rules in force: one immutable set that a request takes at its start and keeps to its end.
//!
//! A [`Snapshot`] is built on thread 0 ([`SnapshotBuilder`]) from a [`ResourceSet`] and swapped in
//! whole; workers only read. Parts whose content did not change keep their `Arc`, so that what a
//! worker keeps about them (pools, load estimates, metric series) outlives the generation.
//! It does no I/O and knows nothing of how the resources came here: that is `discovery`.

mod balancer;
mod build;
mod endpoint;
mod plan;
mod resources;
mod telemetry;
mod tracing;
mod used;

use std::{net::IpAddr, sync::Arc};

use hashbrown::HashMap;
use heddle_logic::{PortFaults, RouteError};
use heddle_model::{
    InboundPort, MeshSettings, NameAnswer, ServiceName,
    discovery::{Inbound, OutboundPolicy, WorkloadInfo},
};

use self::used::Used;
use crate::direction::Direction;

pub(crate) use self::{
    plan::{ABSENT_STATUS, now},
    tracing::TagPlan,
};
pub use heddle_model::discovery::ClusterKey;

pub use self::{
    balancer::{Balancer, Group},
    build::{Built, SnapshotBuilder},
    endpoint::{EndpointOutside, EndpointSlot, LbEndpoint},
    plan::{
        ActionPlan, Cluster, ClusterOutside, CompiledDestination, CompiledRule, DestinationPlan,
        HttpRulePlan, MirrorPlan, Picked, PlanError, PortPlan, SniPlan, TargetPlan,
    },
    resources::ResourceSet,
    telemetry::{LinePlan, LogCollector, LogPlan, LogTo, SidePlan, TelemetryPlan, Wants},
    tracing::TracePlan,
    used::UseMark,
};

/// One consistent set of everything this proxy was told.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The newest generation whose resources are all in here; 0 before the first.
    pub generation: u64,
    addresses: HashMap<IpAddr, Used<AddressOwner>>,
    destinations: HashMap<ServiceName, Arc<DestinationPlan>>,
    names: HashMap<String, Used<Arc<NameAnswer>>>,
    /// This workload's own ports; `None` until the control plane (or the saved set) told them.
    pub inbound: Option<Arc<InboundPlan>>,
    /// Mesh-wide settings; `None` until told.
    pub mesh: Option<Arc<MeshSettings>>,
}

impl Snapshot {
    /// Whose address is this? `None`: not asked yet, so ask `Lookup::address`.
    #[must_use]
    #[inline]
    pub fn address(&self, ip: IpAddr) -> Option<&AddressOwner> {
        self.addresses.get(&ip).map(Used::get)
    }

    /// A service's rules and endpoints. `None`: not asked yet, so ask `Lookup::destination`.
    #[must_use]
    #[inline]
    pub fn destination(&self, service: &ServiceName) -> Option<&Arc<DestinationPlan>> {
        let plan = self.destinations.get(service)?;
        plan.use_mark.touch();
        Some(plan)
    }

    /// What is to be told about calls in this direction; `None` for nothing.
    #[must_use]
    #[inline]
    pub(crate) fn telemetry(&self, direction: Direction) -> Option<&Arc<SidePlan>> {
        self.inbound.as_ref()?.telemetry.as_ref()?.side(direction)
    }

    /// The answer to a host name, asked as `NAMESPACE/HOST` (lower case, no trailing dot).
    #[must_use]
    pub fn name(&self, key: &str) -> Option<&Arc<NameAnswer>> {
        self.names.get(key).map(Used::get)
    }

    /// What this workload is told of its calls of the outside, where that is anything.
    #[must_use]
    pub(crate) fn outbound(&self) -> Option<Arc<Inbound>> {
        let plan = self.inbound.as_ref().filter(|plan| plan.restricts_outside)?;
        Some(Arc::clone(&plan.inbound))
    }

    /// Every answer to a host name, in no order; does not count as use.
    pub fn names(&self) -> impl Iterator<Item = &Arc<NameAnswer>> {
        self.names.values().map(|name| &name.value)
    }

    /// Every destination in force, in no order; does not count as use.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<DestinationPlan>> {
        self.destinations.values()
    }

    /// Every known address, in no order; does not count as use.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &AddressOwner)> {
        self.addresses.iter().map(|(ip, owner)| (*ip, &owner.value))
    }
}

/// Whose an address is. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressOwner {
    /// A service's virtual address.
    Service(Arc<ServiceName>),
    /// A workload's own address.
    Workload(Arc<WorkloadInfo>),
    /// Nobody in this mesh: outside, or never given out.
    NotKnown,
}

/// This workload's own ports.
#[derive(Debug)]
pub struct InboundPlan {
    /// As told.
    pub inbound: Arc<Inbound>,
    ports: HashMap<u16, InboundPort>,
    /// Does it say anything of calls of the outside?
    restricts_outside: bool,
    /// What is to be told about its calls; `None` for nothing.
    telemetry: Option<Arc<TelemetryPlan>>,
    /// Of the ports that have some.
    faults: HashMap<u16, Arc<PortFaults>>,
}

impl InboundPlan {
    /// Indexes the ports.
    #[must_use]
    pub fn new(inbound: Arc<Inbound>) -> Self {
        let ports = inbound.ports.iter().map(|port| (port.number, port.clone())).collect();
        let restricts_outside = inbound.outbound != OutboundPolicy::default();
        let faulty = inbound.ports.iter().filter(|port| !port.faults.is_empty());
        // Those that do not build were refused where they came in.
        let built = faulty.filter_map(|port| Some((port.number, faults_of(port).ok()?.into())));
        let faults = built.collect();
        let telemetry = inbound.telemetry.as_deref().map(|told| Arc::new(TelemetryPlan::of(told)));
        Self { inbound, ports, restricts_outside, telemetry, faults }
    }

    /// What this sidecar injects into calls of a port.
    #[must_use]
    #[inline]
    pub(crate) fn faults(&self, number: u16) -> Option<&Arc<PortFaults>> {
        if self.faults.is_empty() { None } else { self.faults.get(&number) }
    }

    /// A declared port; `None` for one that was not declared.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&InboundPort> {
        self.ports.get(&number)
    }
}

/// The faults of a port of this workload's.
///
/// # Errors
/// [`RouteError`] naming the fault whose pattern does not compile.
pub(crate) fn faults_of(port: &InboundPort) -> Result<PortFaults, RouteError> {
    PortFaults::build(&port.faults, now())
}

#[cfg(test)]
mod tests;
