//! Only the hop next to a failure tries again. What one sidecar tells the sidecar that asked it, in a field of
//! its answer which that one takes out again ([`MARK`]); and which requests this sidecar has tried in vain
//! ([`SpentIds`]): they are known by `x-request-id`, as far as the workload between its callers and those it
//! calls passes that on. Who retries, `heddle_logic::retry` decides.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use hashbrown::HashSet;

use crate::limits::{SPENT_IDS, SPENT_TIME};

/// The field of an answer by which a sidecar tells the one that asked it why it is not to ask again. Of no
/// meaning to anybody else.
pub(crate) const MARK: &str = "x-heddle-mark";

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A fault made the answer: it is no failure of whoever was asked.
    Injected,
    /// Behind it there were attempts enough.
    Spent,
}

impl Mark {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Spent => "retries-spent",
        }
    }

    /// What a value says; `None` for what no sidecar of this version writes.
    pub(crate) fn read(value: &str) -> Option<Self> {
        [Self::Injected, Self::Spent].into_iter().find(|mark| mark.as_str() == value.trim())
    }
}

/// Requests that were tried in vain, by their ids: the newest, for a while.
#[derive(Debug, Default)]
pub(crate) struct SpentIds {
    /// May there be any? Then ids of requests are looked at, which costs them something.
    watching: AtomicBool,
    hasher: RandomState,
    noted: Mutex<Noted>,
}

/// Two generations: the older one goes when the newer one is full or old.
#[derive(Debug, Default)]
struct Noted {
    newer: HashSet<u64>,
    older: HashSet<u64>,
    since: Option<Instant>,
}

impl SpentIds {
    /// Requests may be tried again here, so that some may be in vain.
    #[inline]
    pub(crate) fn watch(&self) {
        if !self.is_watching() {
            self.watching.store(true, Ordering::Relaxed);
        }
    }

    /// Is it worth to know the ids of requests?
    #[inline]
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// An id as it is kept.
    pub(crate) fn key(&self, id: &[u8]) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The request of this id was tried in vain.
    pub(crate) fn note(&self, id: u64, now: Instant) {
        self.watch();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *noted.since.get_or_insert(now);
        let old = now.saturating_duration_since(since) >= SPENT_TIME;
        if old || noted.newer.len() >= SPENT_IDS {
            noted.older = std::mem::take(&mut noted.newer);
            noted.since = Some(now);
        }
        noted.newer.insert(id);
    }

    /// Was it?
    pub(crate) fn contains(&self, id: u64, now: Instant) -> bool {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let age = noted.since.map(|since| now.saturating_duration_since(since));
        let fresh = age.is_some_and(|age| age < SPENT_TIME * 2);
        fresh && (noted.newer.contains(&id) || noted.older.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use heddle_runtime::clock;

    use super::*;

    #[test]
    fn what_was_in_vain_is_known_for_a_while_and_within_bounds() {
        let spent = SpentIds::default();
        let begun = clock::now();
        assert!(!spent.is_watching());
        let key = spent.key(b"7d5a-1");
        assert!(!spent.contains(key, begun));
        spent.note(key, begun);
        assert!(spent.is_watching() && spent.contains(key, begun));
        assert!(!spent.contains(spent.key(b"7d5a-2"), begun));
        assert!(!spent.contains(key, begun + SPENT_TIME * 3));
        (0..3 * SPENT_IDS as u64).for_each(|id| spent.note(id, begun));
        assert!(!spent.contains(key, begun), "others came since");
        let noted = spent.noted.lock().unwrap();
        assert!(noted.newer.len() + noted.older.len() <= 2 * SPENT_IDS);
    }

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        for mark in [Mark::Injected, Mark::Spent] {
            assert_eq!(Mark::read(mark.as_str()), Some(mark));
        }
        assert_eq!(Mark::read("newer"), None);
    }
}
