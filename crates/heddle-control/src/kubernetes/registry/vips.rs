//! Virtual addresses of hosts that have none of their own. They follow from the names, so that every replica
//! of the control plane gives the same ones without asking the others; only two names that fall on one
//! place may be told apart by which of them a replica met first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::ServiceName;

use crate::config::AddressRanges;

/// FNV-1a, 64 bits: the same in every process and version.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Addresses given.
#[derive(Debug, Default)]
pub(super) struct NamedVips {
    given: BTreeMap<ServiceName, u32>,
    taken: BTreeSet<u32>,
}

impl NamedVips {
    /// The addresses of a host; none if no address is left.
    pub(super) fn of(&mut self, name: &ServiceName, ranges: &AddressRanges) -> Vec<IpAddr> {
        let Some(index) = self.index(name, ranges.vip_indices()) else {
            tracing::warn!(service = name.unique(), "no virtual address is left for this host");
            return Vec::new();
        };
        let (v4, v6) = ranges.vip(index);
        vec![v4.into(), v6.into()]
    }

    /// Takes back the addresses of hosts that are gone.
    pub(super) fn keep(&mut self, wanted: impl Fn(&ServiceName) -> bool) {
        self.given.retain(|name, index| {
            let kept = wanted(name);
            if !kept {
                self.taken.remove(index);
            }
            kept
        });
    }

    fn index(&mut self, name: &ServiceName, (first, last): (u32, u32)) -> Option<u32> {
        if let Some(index) = self.given.get(name) {
            return Some(*index);
        }
        let size = last.checked_sub(first)?.checked_add(1)?;
        let hash = name
            .unique()
            .bytes()
            .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        let start = u32::try_from(hash % u64::from(size)).unwrap_or_default();
        let mut places = (start..size).chain(0..start).map(|place| first + place);
        let index = places.find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        self.given.insert(name.clone(), index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_follows_from_the_name_and_is_nobody_elses() {
        let ranges = AddressRanges::default();
        let name = |n: u32| ServiceName::of_host(&format!("h{n}.example.com"), "shop").unwrap();
        let (mut one, mut other) = (NamedVips::default(), NamedVips::default());
        let forth: Vec<_> = (0..50).map(|n| one.of(&name(n), &ranges)).collect();
        let mut back: Vec<_> = (0..50).rev().map(|n| other.of(&name(n), &ranges)).collect();
        back.reverse();
        assert_eq!(forth, back, "whatever the order");
        let distinct: BTreeSet<_> = forth.iter().flatten().collect();
        assert_eq!(distinct.len(), 100);
        one.keep(|kept| *kept == name(1));
        assert_eq!(one.taken.len(), 1);
        assert_eq!(one.of(&name(0), &ranges), forth[0], "it comes back to where it was");
    }

    #[test]
    fn a_full_range_gives_nothing_twice() {
        let mut vips = NamedVips::default();
        let name = |n: u32| ServiceName::of_host(&format!("h{n}.example.com"), "shop").unwrap();
        let given: Vec<_> = (0..5).map(|n| vips.index(&name(n), (10, 12))).collect();
        assert_eq!(given.iter().flatten().count(), 3);
        assert!(given[3..].iter().all(Option::is_none));
    }
}
