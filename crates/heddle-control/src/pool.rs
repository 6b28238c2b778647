//! Indices of an address range by name: stable while the name is held, and not given to another
//! name for a while after it was freed. Knows nothing of services, workloads or the store.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::ADDRESS_QUARANTINE_SECONDS;

/// Gives out indices of `first..=last`. Times are Unix seconds.
#[derive(Debug)]
pub(crate) struct IndexPool<K> {
    first: u32,
    last: u32,
    next: u32,
    held: BTreeMap<K, u32>,
    freed: BTreeMap<K, Freed>,
    taken: BTreeSet<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Freed {
    index: u32,
    at: u64,
}

/// A given index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given<K> {
    /// The index.
    pub(crate) index: u32,
    /// A name that was freed long ago and lost its index to this one.
    pub(crate) evicted: Option<K>,
}

impl<K: Ord + Clone> IndexPool<K> {
    /// A pool of `first..=last`.
    pub(crate) fn new((first, last): (u32, u32)) -> Self {
        Self {
            first,
            last,
            next: first,
            held: BTreeMap::new(),
            freed: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// The index of `key`: the one it holds, the one it held, a fresh one, or that of the name freed
    /// longest ago, in this order. `None`: everything is held or was freed too recently.
    pub(crate) fn take(&mut self, key: &K, now: u64) -> Option<Given<K>> {
        if let Some(&index) = self.held.get(key) {
            return Some(Given { index, evicted: None });
        }
        let (index, evicted) = match self.freed.remove(key) {
            Some(freed) => (freed.index, None),
            None => self.fresh().map(|index| (index, None)).or_else(|| self.recycled(now))?,
        };
        self.hold(key, index);
        Some(Given { index, evicted })
    }

    /// Gives `key` this very index, as it had it before. `false`: out of range, or another name
    /// holds it; a name that merely held it once loses it.
    pub(crate) fn assign(&mut self, key: &K, index: u32) -> bool {
        if self.held.get(key) == Some(&index) {
            return true;
        }
        let other = self.held.iter().any(|(name, held)| *held == index && name != key);
        if other || !(self.first..=self.last).contains(&index) {
            return false;
        }
        self.release(key);
        self.freed.retain(|name, freed| {
            let keep = name != key && freed.index != index;
            if !keep {
                self.taken.remove(&freed.index);
            }
            keep
        });
        self.hold(key, index);
        true
    }

    /// Remembers that `key` had this index, as told by the store or the journal at start; freed
    /// `at` that time.
    pub(crate) fn remember(&mut self, key: K, index: u32, at: u64) -> bool {
        let fits = (self.first..=self.last).contains(&index) && self.taken.insert(index);
        if fits {
            self.freed.insert(key, Freed { index, at });
        }
        fits
    }

    /// The index that a name holds.
    pub(crate) fn index(&self, key: &K) -> Option<u32> {
        self.held.get(key).copied()
    }

    /// All names that hold an index.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&K, u32)> {
        self.held.iter().map(|(name, index)| (name, *index))
    }

    /// All names whose index is kept from others at `now` because it was freed a short while ago,
    /// and when that was.
    pub(crate) fn resting(&self, now: u64) -> impl Iterator<Item = (&K, u32, u64)> {
        let rests = move |freed: &Freed| now.saturating_sub(freed.at) < ADDRESS_QUARANTINE_SECONDS;
        let freed = self.freed.iter().filter(move |(_, freed)| rests(freed));
        freed.map(|(name, freed)| (name, freed.index, freed.at))
    }

    /// Frees the index of `key`; it stays remembered.
    pub(crate) fn free(&mut self, key: &K, now: u64) {
        if let Some(index) = self.held.remove(key) {
            self.freed.insert(key.clone(), Freed { index, at: now });
        }
    }

    fn release(&mut self, key: &K) {
        if let Some(index) = self.held.remove(key) {
            self.taken.remove(&index);
        }
    }

    fn hold(&mut self, key: &K, index: u32) {
        self.taken.insert(index);
        self.held.insert(key.clone(), index);
    }

    fn fresh(&mut self) -> Option<u32> {
        while self.next <= self.last && self.taken.contains(&self.next) {
            self.next += 1;
        }
        (self.next <= self.last).then_some(self.next)
    }

    fn recycled(&mut self, now: u64) -> Option<(u32, Option<K>)> {
        let oldest = self.freed.iter().min_by_key(|(_, freed)| freed.at)?;
        if now.saturating_sub(oldest.1.at) < ADDRESS_QUARANTINE_SECONDS {
            return None;
        }
        let (name, index) = (oldest.0.clone(), oldest.1.index);
        self.freed.remove(&name);
        Some((index, Some(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(index: u32) -> Option<Given<&'static str>> {
        Some(Given { index, evicted: None })
    }

    #[test]
    fn a_name_keeps_its_index_and_gets_it_back() {
        let mut pool = IndexPool::new((10, 20));
        assert_eq!(pool.take(&"a", 0), given(10));
        assert_eq!(pool.take(&"b", 0), given(11));
        assert_eq!(pool.take(&"a", 0), given(10));
        pool.free(&"a", 5);
        assert_eq!(pool.take(&"c", 6), given(12), "a freed index is not the next choice");
        assert_eq!(pool.take(&"a", 7), given(10));
    }

    #[test]
    fn a_freed_index_is_given_to_another_name_after_ten_minutes_only() {
        let mut pool = IndexPool::new((10, 11));
        pool.take(&"a", 0);
        pool.take(&"b", 0);
        pool.free(&"a", 100);
        pool.free(&"b", 200);
        assert_eq!(pool.take(&"c", 699), None);
        assert_eq!(pool.take(&"c", 700), Some(Given { index: 10, evicted: Some("a") }));
        assert_eq!(pool.take(&"a", 799), None);
        assert_eq!(pool.take(&"a", 800), Some(Given { index: 11, evicted: Some("b") }));
    }

    #[test]
    fn what_the_store_remembers_is_reserved_for_its_name() {
        let mut pool = IndexPool::new((10, 20));
        assert!(pool.remember("a", 10, 0));
        assert!(!pool.remember("b", 10, 0), "two names of one index");
        assert!(!pool.remember("b", 21, 0), "outside the range");
        assert_eq!(pool.take(&"b", 0), given(11));
        assert_eq!(pool.take(&"a", 0), given(10));
    }

    #[test]
    fn what_was_freed_a_moment_ago_rests_in_the_next_process_too() {
        let mut before = IndexPool::new((10, 20));
        for name in ["a", "b", "c"] {
            before.take(&name, 0);
        }
        before.free(&"a", 100);
        before.free(&"b", 700);
        let resting: Vec<_> = before.resting(750).map(|(name, i, at)| (*name, i, at)).collect();
        assert_eq!(resting, [("b", 11, 700)], "who holds one is no news, ten minutes are over");
        let mut after = IndexPool::new((10, 11));
        for (name, index, at) in resting {
            assert!(after.remember(name, index, at));
        }
        assert_eq!(after.take(&"d", 800), given(10));
        assert_eq!(after.take(&"e", 1299), None);
        assert_eq!(after.take(&"e", 1300), Some(Given { index: 11, evicted: Some("b") }));
    }

    #[test]
    fn an_index_is_assigned_unless_another_name_holds_it() {
        let mut pool = IndexPool::new((10, 20));
        assert!(pool.remember("old", 12, 0));
        assert!(pool.assign(&"a", 12), "a name without workloads loses it to a running one");
        assert!(!pool.assign(&"b", 12));
        assert!(!pool.assign(&"b", 9));
        assert_eq!(pool.take(&"old", 0), given(10));
        assert!(pool.assign(&"a", 13), "a name may move");
        assert_eq!(pool.take(&"b", 0), given(11));
        assert_eq!(pool.take(&"c", 0), given(12));
        assert_eq!(pool.take(&"d", 0), given(14));
    }
}
