//! What comes back is what was there.

use std::ops::RangeInclusive;

use heddle_model::ServiceName;

use super::*;
use crate::{
    ledger::Increase,
    measure::{Answer, OPENED, Protocol, Reporter, Said},
    store::Period,
};

const START: u64 = 1_700_000_000;

fn cell(store: &mut Store, destination: &str) -> Rc<Cell> {
    store.cells.intern(Cell {
        reporter: Reporter::Client,
        source: ServiceName { namespace: "shop".to_owned(), name: "a".to_owned() },
        destination: ServiceName { namespace: String::new(), name: destination.to_owned() },
        version: "v1".to_owned(),
        workload: "w".to_owned(),
        protocol: Protocol::Tcp,
        said: Said::from_pairs([("response_flags", "-"), ("source_app", "a")].into_iter()),
    })
}

/// Counts one connection, and one failed request, in each of these seconds.
fn count(store: &mut Store, cell: &Rc<Cell>, seconds: RangeInclusive<u64>) {
    for second in seconds {
        store.begin_round(START + second, 1.0);
        let mut increase = Increase::default();
        increase.counts.insert(OPENED, 1.0);
        increase.counts.insert(store.answers.number(503, "UF"), 1.0);
        let grpc = Answer { code: 503, flags: "-".to_owned(), http: 200, grpc: Some(14) };
        increase.counts.insert(store.answers.number_of(grpc), 1.0);
        let spread = store.spread(store.elapsed() - 1.0);
        store.add(cell, &increase, &spread);
    }
}

/// As a file would keep it.
fn written(disk: &mut Kept, batch: Batch) {
    if batch.whole {
        *disk = Kept::default();
    }
    fn put<K: Ord + Copy>(into: &mut Vec<(K, Vec<u8>)>, new: Vec<(K, Vec<u8>)>) {
        for (key, bytes) in new {
            into.retain(|(known, _)| *known != key);
            into.push((key, bytes));
        }
        into.sort_by_key(|(key, _)| *key);
    }
    put(&mut disk.slots, batch.slots);
    put(&mut disk.places, batch.places);
    put(&mut disk.answers, batch.answers);
    disk.places.retain(|(number, _)| !batch.forgotten.contains(number));
    disk.slots.retain(|((tier, index), _)| {
        batch.tiers.iter().any(|(one, range)| one == tier && range.contains(index))
    });
}

fn again(disk: Kept) -> Store {
    let mut store = Store::new(usize::MAX);
    store.restore(disk);
    store
}

/// All there is of a period, in words.
fn told(store: &Store, period: &Period) -> Vec<String> {
    let mut all = Vec::new();
    store.each(period, |step, cell, counts| {
        let named = counts.iter().map(|(dimension, count)| match store.answers.get(*dimension) {
            Some(answer) => format!("{answer:?} {count}"),
            None => format!("{dimension} {count}"),
        });
        all.push(format!("{step} {cell:?} {:?}", named.collect::<Vec<_>>()));
    });
    all
}

#[test]
fn a_store_that_was_kept_answers_as_before() {
    let (mut store, mut disk) = (Store::new(usize::MAX), Kept::default());
    let [one, two] = ["one", "two"].map(|name| cell(&mut store, name));
    for (first, cell) in [(0, &one), (100, &two), (200, &one)] {
        count(&mut store, cell, first..=first + 99);
        written(&mut disk, store.changes(false));
    }
    let before = store.period(250, Some(START + 299), 10, false);
    // The live slots are not kept: a period that they answered is answered by those of ten seconds.
    let before = Period { tier: 1, ..before };
    let mut back = again(disk);
    count(&mut back, &one, 310..=310);
    let after = back.period(250, Some(START + 299), 10, false);
    assert_eq!((after.from / 10, after.tier), (before.from / 10, 1));
    assert_eq!(told(&back, &before), told(&store, &before));
    assert_eq!(back.measured(&before), store.measured(&before));
}

#[test]
fn only_what_has_changed_is_written_again() {
    let mut store = Store::new(usize::MAX);
    let one = cell(&mut store, "one");
    count(&mut store, &one, 0..=99);
    let first = store.changes(false);
    assert_eq!((first.places.len(), first.answers.len()), (1, 2));
    assert!(store.changes(false).slots.is_empty());
    count(&mut store, &one, 100..=104);
    let second = store.changes(false);
    assert_eq!(second.slots.len(), 3, "the open slot of each tier");
    assert!(second.places.is_empty() && second.answers.is_empty());
    let whole = store.changes(true);
    // A minute has begun with them, and ten seconds.
    assert_eq!(whole.slots.len(), first.slots.len() + 2);
    assert_eq!((whole.places.len(), whole.answers.len()), (1, 2));
}

#[test]
fn what_memory_drops_goes_from_the_disk_too() {
    let mut store = Store::new(20_000);
    let mut disk = Kept::default();
    for hour in 0..24 {
        let one = cell(&mut store, &format!("one-{hour}"));
        count(&mut store, &one, hour * 3600..=hour * 3600 + 599);
        drop(one);
        store.cells.forget_unused();
        written(&mut disk, store.changes(false));
    }
    let bytes: usize = disk.slots.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 40_000, "{bytes}");
    let of_slots = store.tiers[FIRST..].iter().flat_map(|tier| &tier.slots);
    let named: std::collections::BTreeSet<_> =
        of_slots.flat_map(|slot| &slot.entries).map(|(cell, _)| Rc::as_ptr(cell)).collect();
    assert!(disk.places.len() <= named.len() + 1, "{} of {}", disk.places.len(), named.len());
    assert!(again(disk).numbers.len() <= named.len() + 1);
}

#[test]
fn what_is_damaged_is_left_out_and_panics_nobody() {
    let mut store = Store::new(usize::MAX);
    let one = cell(&mut store, "one");
    count(&mut store, &one, 0..=99);
    let mut disk = Kept::default();
    written(&mut disk, store.changes(false));
    disk.slots[0].1 = b"nonsense".to_vec();
    disk.slots.push(((200, 1), Vec::new()));
    disk.slots.push(((1, 1), disk.slots[1].1.clone()));
    disk.places.push((7, vec![0xff]));
    let mut back = again(disk);
    count(&mut back, &one, 110..=110);
    let period = back.period(100, None, 10, false);
    let mut sum = 0.0;
    back.each(&period, |_, _, counts| sum += counts.last().unwrap().1);
    assert!((80.0..=91.0).contains(&sum), "{sum}");
}
