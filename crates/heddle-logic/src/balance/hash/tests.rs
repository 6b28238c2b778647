//! Where keys go, how evenly, and how few of them move.

use proptest::prelude::*;

use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("240.241.0.{at}:80")).collect()
}

fn table(kind: HashTable, names: &[String], weights: &[u32]) -> Table {
    let weight = |at: usize| weights.get(at).copied().unwrap_or(1);
    let member = |(at, name): (usize, &'_ String)| (name.clone(), weight(at));
    let named: Vec<_> = names.iter().enumerate().map(member).collect();
    let members: Vec<_> = named
        .iter()
        .map(|(name, weight)| Member { name: name.as_bytes(), weight: *weight })
        .collect();
    Table::build(kind, &members)
}

fn owner(table: &Table, key: u32) -> usize {
    table.pick(hash(format!("user-{key}").as_bytes()), |_| true).unwrap()
}

const KINDS: [HashTable; 2] = [HashTable::Ring(1024), HashTable::Maglev(65_537)];
const KEYS: u32 = 20_000;

#[test]
fn keys_are_spread_by_weight() {
    for kind in KINDS {
        let table = table(kind, &names(5), &[1, 1, 1, 1, 4]);
        let mut counts = [0u32; 5];
        (0..KEYS).for_each(|key| counts[owner(&table, key)] += 1);
        // Points of a ring spread like 1,024 draws each: 4 standard deviations are 12.5 %.
        for (count, weight) in counts.iter().zip([1, 1, 1, 1, 4]) {
            let wanted = KEYS / 8 * weight;
            assert!(count.abs_diff(wanted) < wanted / 7, "{kind:?}: {counts:?}");
        }
    }
}

/// Of 20,000 keys, who loses or gets some when the last of `before` endpoints become `after`.
fn moved(kind: HashTable, before: usize, after: usize) -> (u32, u32) {
    let (one, other) = (table(kind, &names(before), &[]), table(kind, &names(after), &[]));
    let few = before.min(after);
    let (mut needed, mut more) = (0, 0);
    for key in 0..KEYS {
        match (owner(&one, key), owner(&other, key)) {
            (one, other) if one == other => {}
            (one, other) if one >= few || other >= few => needed += 1,
            _ => more += 1,
        }
    }
    (needed, more)
}

#[test]
fn of_a_ring_only_those_keys_move_that_must() {
    for (before, after) in [(10, 9), (9, 10), (3, 2), (2, 3), (1, 2), (64, 63), (64, 32)] {
        let (needed, more) = moved(KINDS[0], before, after);
        let share = KEYS * before.abs_diff(after) as u32 / before.max(after) as u32;
        assert_eq!(more, 0, "{before} to {after}");
        assert!(needed.abs_diff(share) < share / 5, "{before} to {after}: {needed} of {share}");
    }
}

#[test]
fn of_maglev_few_keys_move_besides() {
    for (before, after) in [(10, 9), (9, 10), (3, 2), (50, 49)] {
        let (needed, more) = moved(KINDS[1], before, after);
        let share = KEYS * before.abs_diff(after) as u32 / before.max(after) as u32;
        assert!(needed.abs_diff(share) < share / 5, "{before} to {after}: {needed} of {share}");
        assert!(more < KEYS / 20, "{before} to {after}: {more} moved for nothing");
    }
}

#[test]
fn keys_of_who_takes_no_requests_go_to_others_and_nobody_elses_move() {
    for kind in KINDS {
        let table = table(kind, &names(4), &[]);
        let mut taken_over = [0u32; 4];
        for key in 0..KEYS {
            let hash = hash(format!("user-{key}").as_bytes());
            let owner = table.pick(hash, |_| true).unwrap();
            let without = table.pick(hash, |one| one != 2).unwrap();
            match owner {
                2 => taken_over[without] += 1,
                _ => assert_eq!(owner, without),
            }
        }
        assert_eq!(taken_over[2], 0);
        let all: u32 = taken_over.iter().sum();
        for other in [0, 1, 3] {
            assert!(taken_over[other].abs_diff(all / 3) < all / 6, "{kind:?}: {taken_over:?}");
        }
        assert_eq!(table.pick(7, |_| false), None);
    }
}

#[test]
fn a_ring_has_at_least_the_points_that_are_asked_for_and_is_bounded() {
    for (least, count) in [(0, 1), (1, 1), (1024, 1), (1024, 3), (100_000, 2), (1024, 300)] {
        let ring = table(HashTable::Ring(least), &names(count), &[]);
        assert!(ring.len() >= least as usize, "{least} for {count}: {}", ring.len());
        assert!(ring.len() <= RING_POINTS.max(4 * least as usize).max(count), "{}", ring.len());
    }
    assert!(table(HashTable::Ring(8 << 20), &names(3), &[]).len() <= RING_POINTS_MAX);
    assert!(table(HashTable::Ring(1024), &names(2), &[u32::MAX, 1]).len() <= RING_POINTS + 2);
    assert!(table(KINDS[0], &[], &[]).pick(1, |_| true).is_none());
    assert!(table(KINDS[1], &[], &[]).pick(1, |_| true).is_none());
}

#[test]
fn a_key_has_the_same_hash_everywhere() {
    assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
    assert_ne!(hash(b"a"), hash(b"b"));
}

proptest! {
    #[test]
    fn every_key_belongs_to_somebody_who_is_fit(
        key: u64, count in 1usize..20, weights in prop::collection::vec(0u32..9, 20),
        size in prop::sample::select(vec![1u32, 2, 3, 7, 101, 65_537]), fit: u32, ring: bool,
    ) {
        let kind = if ring { HashTable::Ring(size) } else { HashTable::Maglev(size) };
        let table = table(kind, &names(count), &weights);
        let is_fit = |one: usize| fit & (1 << one) != 0;
        match table.pick(key, is_fit) {
            Some(owner) => prop_assert!(owner < count && is_fit(owner)),
            // A table of fewer entries than endpoints leaves some out.
            None => prop_assert!(!ring && (size as usize) < 16 * count || !(0..count).any(is_fit)),
        }
    }
}
