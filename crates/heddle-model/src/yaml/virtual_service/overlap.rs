//! Which hosts of a list mean the same: found by look-up, since a file decides how many there are.

use std::collections::{BTreeMap, HashMap, HashSet};

/// Hosts seen so far: names, and wildcards as `*` and a suffix.
#[derive(Default)]
pub(super) struct Hosts<'a> {
    names: HashSet<&'a str>,
    wildcards: HashMap<&'a str, &'a str>,
    /// Without their `*` and turned round, so that those of one suffix lie together.
    turned: BTreeMap<String, &'a str>,
}

impl<'a> Hosts<'a> {
    /// Adds a host. Returns one seen before that means some of the same.
    pub(super) fn add(&mut self, host: &'a str) -> Option<&'a str> {
        let bare = host.trim_start_matches('*');
        let turned: String = bare.chars().rev().collect();
        let other = self.covering(host).or_else(|| {
            let suffix: String = host.strip_prefix('*')?.chars().rev().collect();
            let (next, other) = self.turned.range(suffix.clone()..).next()?;
            next.starts_with(&suffix).then_some(*other)
        });
        match host.strip_prefix('*') {
            Some(suffix) => drop(self.wildcards.insert(suffix, host)),
            None => drop(self.names.insert(host)),
        }
        self.turned.insert(turned, host);
        other
    }

    /// The host that means all of `narrow`, if there is one.
    pub(super) fn covering<'b>(&self, narrow: &'b str) -> Option<&'a str> {
        if let Some(same) = self.names.get(narrow) {
            return Some(same);
        }
        let bare: &'b str = narrow.trim_start_matches('*');
        let starts = bare.char_indices().map(|(at, _)| at).chain([bare.len()]);
        let mut suffixes = starts.map(|at| &bare[at..]);
        suffixes.find_map(|suffix| self.wildcards.get(suffix).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn covers(wide: &str, narrow: &str) -> bool {
        match wide.strip_prefix('*') {
            Some(suffix) => narrow.trim_start_matches('*').ends_with(suffix),
            None => wide == narrow,
        }
    }

    proptest! {
        #[test]
        fn overlaps_are_those_that_comparing_every_pair_finds(
            hosts in prop::collection::vec("[*]?[.ab]{0,3}", 0..8),
            sni in "[*]?[.ab]{0,3}",
        ) {
            let mut seen = Hosts::default();
            for (i, host) in hosts.iter().enumerate() {
                let overlaps =
                    |other: &&String| covers(other, host) || covers(host, other);
                prop_assert_eq!(seen.add(host).is_some(), hosts[..i].iter().any(|o| overlaps(&o)));
            }
            prop_assert_eq!(seen.covering(&sni).is_some(), hosts.iter().any(|o| covers(o, &sni)));
        }
    }
}
