//! What a change of the registry concerns. Knows nothing of how it came about.

use std::collections::BTreeSet;

use heddle_model::ServiceName;

/// What a change touched, so that only that is looked at again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Services came, went or changed their ports, or workloads came or went.
    pub(crate) topology: bool,
    /// Services whose endpoints changed.
    pub(crate) endpoints: BTreeSet<ServiceName>,
}

impl Touched {
    /// Did anything change?
    pub(crate) fn anything(&self) -> bool {
        self.topology || !self.endpoints.is_empty()
    }

    /// Adds what another change touched.
    pub(crate) fn merge(&mut self, other: Self) {
        self.topology |= other.topology;
        self.endpoints.extend(other.endpoints);
    }
}
