//! The rules in force: one immutable set that a request takes at its start and keeps to its end.
//!
//! A [`Snapshot`] is built on thread 0 ([`SnapshotBuilder`]) from a [`ResourceSet`] and swapped in
//! whole; workers only read. Parts whose content did not change keep their `Arc`, so that what a
//! worker keeps about them (pools, load estimates, metric series) outlives the generation.
//! It does no I/O and knows nothing of how the resources came here: that is `discovery`.

mod build;
mod plan;
mod resources;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hashbrown::HashMap;
use heddle_model::{
    InboundPort, MeshSettings, NameAnswer, ServiceName, discovery::Inbound, discovery::WorkloadInfo,
};

pub use heddle_model::discovery::ClusterKey;

pub use self::{
    build::{Built, SnapshotBuilder},
    plan::{
        ActionPlan, Cluster, CompiledDestination, CompiledRule, DestinationPlan, EndpointSlot,
        HttpRulePlan, LbEndpoint, Picked, PlanError, PortPlan, TargetPlan,
    },
    resources::ResourceSet,
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

    /// The answer to a host name, asked as `NAMESPACE/HOST` (lower case, no trailing dot).
    #[must_use]
    pub fn name(&self, key: &str) -> Option<&Arc<NameAnswer>> {
        self.names.get(key).map(Used::get)
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
}

impl InboundPlan {
    /// Indexes the ports.
    #[must_use]
    pub fn new(inbound: Arc<Inbound>) -> Self {
        let ports = inbound.ports.iter().map(|port| (port.number, port.clone())).collect();
        Self { inbound, ports }
    }

    /// A declared port; `None` for one that was not declared.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&InboundPort> {
        self.ports.get(&number)
    }
}

/// "Was used since the last sweep": set by readers without a clock, taken by thread 0's sweep.
///
/// It survives rebuilds, so an entry's idleness does not depend on how often its rules change.
#[derive(Debug, Clone, Default)]
pub struct UseMark(Arc<AtomicBool>);

impl UseMark {
    /// Notes a use. Writes only if needed, so that workers do not share a dirty cache line.
    #[inline]
    pub fn touch(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Was it used since the last call?
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A value with its use mark.
#[derive(Debug)]
struct Used<T> {
    value: T,
    mark: UseMark,
}

impl<T> Used<T> {
    #[inline]
    fn get(&self) -> &T {
        self.mark.touch();
        &self.value
    }
}

#[cfg(test)]
mod tests;
