//! How long traces usually take that begin alike, so that one that took unusually long is told from others.

use std::collections::BTreeMap;

use heddle_wire::trace::received::Received;

use crate::limits;

/// Traces that are remembered of each beginning.
const REMEMBERED: usize = 32;
/// So many are needed to say what is usual.
const NEEDED: usize = 12;
/// So many times the usual is slow.
const SLOW: u64 = 2;
/// What no person notices is not slow, microseconds.
const NOTICED: u64 = 1_000;

/// Lengths, microseconds, by service and name of the first span.
#[derive(Debug, Default)]
pub(super) struct Usual(BTreeMap<(String, String), Lengths>);

#[derive(Debug, Default)]
struct Lengths {
    last: Vec<u64>,
    /// Which is replaced next.
    next: usize,
}

impl Usual {
    /// Did one that began with `first` take unusually long? It is remembered.
    pub(super) fn is_slow(&mut self, first: &Received, micros: u64) -> bool {
        let key = (first.service.clone(), first.name.clone());
        if self.0.len() >= limits::TRACE_BEGINNINGS_MAX && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let lengths = self.0.entry(key).or_default();
        let slow = lengths.usual().is_some_and(|usual| {
            micros > usual.saturating_mul(SLOW) && micros > usual.saturating_add(NOTICED)
        });
        match lengths.last.get_mut(lengths.next) {
            Some(old) => *old = micros,
            None => lengths.last.push(micros),
        }
        lengths.next = (lengths.next + 1) % REMEMBERED;
        slow
    }
}

impl Lengths {
    /// The median.
    fn usual(&self) -> Option<u64> {
        let mut sorted = self.last.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= NEEDED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_usual_is_slow_once_the_usual_is_known() {
        let first = |name: &str| Received { name: name.to_owned(), ..Received::default() };
        let mut usual = Usual::default();
        assert!(!usual.is_slow(&first("a"), 1_000_000));
        for i in 0..40 {
            assert!(!usual.is_slow(&first("a"), 10_000 + i), "{i}");
        }
        assert!(usual.is_slow(&first("a"), 20_100));
        assert!(!usual.is_slow(&first("a"), 19_900));
        assert!(!usual.is_slow(&first("b"), 20_100));
        // What became usual is not slow.
        for _ in 0..32 {
            usual.is_slow(&first("a"), 50_000);
        }
        assert!(!usual.is_slow(&first("a"), 50_000));
    }

    #[test]
    fn beginnings_are_bounded() {
        let mut usual = Usual::default();
        for i in 0..limits::TRACE_BEGINNINGS_MAX * 3 {
            usual.is_slow(&Received { name: i.to_string(), ..Received::default() }, 1);
        }
        assert!(usual.0.len() <= limits::TRACE_BEGINNINGS_MAX);
    }
}
