//! Numbers of states of the mesh, and which proxies each of them changed.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::WorkloadId;

use crate::limits::{GENERATION_RESERVE, GENERATIONS_REMEMBERED_MAX};

/// Counts generations and remembers the last ones' affected proxies.
#[derive(Debug)]
pub(crate) struct Generations {
    newest: u64,
    /// Numbers up to this one are marked as used in the store.
    reserved: u64,
    affected: BTreeMap<u64, BTreeSet<WorkloadId>>,
}

impl Generations {
    /// Goes on after `bound`, which no earlier process has passed.
    pub(crate) fn after(bound: u64) -> Self {
        Self { newest: bound, reserved: bound, affected: BTreeMap::new() }
    }

    /// The newest generation.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Begins a generation that changes something for `affected`.
    pub(crate) fn begin(&mut self, affected: BTreeSet<WorkloadId>) -> u64 {
        self.newest += 1;
        self.affected.insert(self.newest, affected);
        while self.affected.len() > GENERATIONS_REMEMBERED_MAX {
            self.affected.pop_first();
        }
        self.newest
    }

    /// Counts a proxy that comes back after our restart among those concerned by all generations
    /// remembered: they were made since, and it can have none of them.
    pub(crate) fn concern(&mut self, workload: &WorkloadId) {
        for affected in self.affected.values_mut() {
            affected.insert(workload.clone());
        }
    }

    /// The proxies a generation changed; `None` if that is forgotten or not yet.
    pub(crate) fn affected(&self, generation: u64) -> Option<&BTreeSet<WorkloadId>> {
        self.affected.get(&generation)
    }

    /// The bound to write to the store now, if the reserved numbers run short. Asked for again
    /// until [`Self::reserved`] says that it is written.
    pub(crate) fn to_reserve(&self) -> Option<u64> {
        let short = self.newest + GENERATION_RESERVE / 2 > self.reserved;
        short.then_some(self.newest + GENERATION_RESERVE)
    }

    /// Notes that the store has `bound`.
    pub(crate) fn reserved(&mut self, bound: u64) {
        self.reserved = self.reserved.max(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reserved_before_they_run_out() {
        let mut generations = Generations::after(41);
        assert_eq!(generations.to_reserve(), Some(41 + GENERATION_RESERVE));
        generations.reserved(41 + GENERATION_RESERVE);
        assert_eq!(generations.to_reserve(), None);
        assert_eq!(generations.begin(BTreeSet::new()), 42);
        for _ in 0..GENERATION_RESERVE {
            generations.begin(BTreeSet::new());
        }
        assert!(generations.to_reserve().is_some_and(|bound| bound > generations.newest()));
    }

    #[test]
    fn affected_proxies_are_remembered_for_a_while() {
        let mut generations = Generations::after(0);
        let me = WorkloadId("me".to_owned());
        let first = generations.begin(BTreeSet::from([me.clone()]));
        assert!(generations.affected(first).is_some_and(|affected| affected.contains(&me)));
        for _ in 0..GENERATIONS_REMEMBERED_MAX {
            generations.begin(BTreeSet::new());
        }
        assert_eq!(generations.affected(first), None);
    }
}
