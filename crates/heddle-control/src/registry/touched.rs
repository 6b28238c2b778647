//! What a change of the registry concerns. Knows nothing of how it came about.

use std::{collections::BTreeSet, net::IpAddr};

use heddle_model::{ServiceName, WorkloadId};

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

    /// Adds what another change touched.
    pub(crate) fn merge(&mut self, other: Self) {
        self.topology |= other.topology;
        self.endpoints.extend(other.endpoints);
        self.addresses.extend(other.addresses);
        self.workloads.extend(other.workloads);
    }
}
