//! What a change of the registry concerns. Knows nothing of how it came about.

use std::{collections::BTreeSet, net::IpAddr};

use heddle_model::{Registry, ServiceName, WorkloadId};

/// What a change touched, so that only that is looked at again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Services came, went or changed their ports, or workloads came or went: anything may be stale.
    pub(crate) topology: bool,
    /// Services whose endpoints changed.
    pub(crate) endpoints: BTreeSet<ServiceName>,
    /// Addresses whose owner changed, or what is known of it. Told where `topology` is not.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Workloads of which their own sidecars are told something else. Told where `topology` is not.
    pub(crate) workloads: BTreeSet<WorkloadId>,
}

impl Touched {
    /// Everything may be stale.
    pub(crate) fn all() -> Self {
        Self { topology: true, ..Self::default() }
    }

    /// Did anything change?
    pub(crate) fn anything(&self) -> bool {
        *self != Self::default()
    }

    /// Adds the workloads of the services that were touched: where rules go by how many callers there are in a
    /// zone, who joins, leaves or moves concerns all of them.
    pub(crate) fn concern_fellows(&mut self, registry: &Registry) {
        if self.topology || self.workloads.is_empty() {
            return;
        }
        let all = registry.workloads.values();
        let fellows = all.filter(|one| !one.services.is_disjoint(&self.endpoints));
        self.workloads.extend(fellows.map(|one| one.id.clone()));
    }

    /// Adds what another change touched.
    pub(crate) fn merge(&mut self, other: Self) {
        self.topology |= other.topology;
        self.endpoints.extend(other.endpoints);
        self.addresses.extend(other.addresses);
        self.workloads.extend(other.workloads);
    }
}
