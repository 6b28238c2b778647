//! Which slots answer which period, and that memory stays bounded.

use super::*;
use crate::measure::{OPENED, Protocol, REQUESTS_IN_FLIGHT, Reporter, Said, outside};

pub(super) const START: u64 = 1_700_000_000;

fn cell(store: &mut Store, destination: &str) -> Rc<Cell> {
    store.cells.intern(Cell {
        reporter: Reporter::Client,
        source: outside("a"),
        destination: outside(destination),
        version: String::new(),
        workload: String::new(),
        protocol: Protocol::Tcp,
        said: Said::default(),
    })
}

fn one(dimension: Dimension, count: f64) -> Increase {
    let mut increase = Increase::default();
    increase.counts.insert(dimension, count);
    increase
}

/// Adds one count to the latest round.
fn count(store: &mut Store, cell: &Rc<Cell>, count: f64) {
    let spread = store.spread(store.elapsed() - 1.0);
    store.add(cell, &one(OPENED, count), &spread);
}

/// A store that counted one connection in each of `seconds`.
pub(super) fn filled(seconds: u64, bytes_max: usize) -> Store {
    let mut store = Store::new(bytes_max);
    let cell = cell(&mut store, "b");
    for second in 0..seconds {
        store.begin_round(START + second, 1.0);
        count(&mut store, &cell, 1.0);
    }
    store
}

fn counts(store: &Store, period: &Period) -> Vec<f32> {
    let mut sums = vec![0.0; period.steps()];
    store.each(period, |step, _, counts| sums[step] += counts[0].1);
    sums
}

#[test]
fn a_live_window_holds_exactly_its_seconds() {
    let store = filled(60, usize::MAX);
    let period = store.period(10, None, 1, false);
    assert_eq!(counts(&store, &period), [1.0; 10]);
    assert_eq!(counts(&store, &period.whole()), [10.0]);
    assert_eq!(store.measured(&period.whole()), [Measured { seconds: 10.0, rounds: 10 }]);
    assert_eq!(counts(&store, &period.before().whole()), [10.0]);
}

#[test]
fn a_window_in_the_past_ends_where_asked() {
    let store = filled(300, usize::MAX);
    let period = store.period(20, Some(START + 99), 5, false);
    assert_eq!((period.from, period.to), (START + 80, START + 100));
    assert_eq!(counts(&store, &period), [5.0; 4]);
}

#[test]
fn long_windows_are_answered_from_coarser_slots() {
    let store = filled(3 * 3_600, usize::MAX);
    let hour = store.period(3_600, None, 30, true);
    assert_eq!(hour.step, 30);
    assert_eq!(counts(&store, &hour.whole()), [3_600.0]);
    let day = store.period(86_400, None, 720, true);
    assert_eq!(day.step, 720);
    assert_eq!(counts(&store, &day.whole()), [3.0 * 3_600.0]);
    assert!(store.measured(&day.whole())[0].seconds < 11_000.0, "only what was measured counts");
}

#[test]
fn slots_older_than_a_tier_keeps_are_dropped() {
    let store = filled(2_000, usize::MAX);
    assert_eq!(store.tiers[0].slots.len(), limits::LIVE_SLOTS);
    assert_eq!(store.tiers[1].slots.len(), 200);
}

#[test]
fn a_gap_is_not_measured() {
    let mut store = filled(10, usize::MAX);
    store.begin_round(START + 29, 1.0);
    let period = store.period(30, None, 5, false);
    let seconds: Vec<_> = store.measured(&period).iter().map(|step| step.seconds).collect();
    assert_eq!(seconds, [5.0, 5.0, 0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn a_clock_set_back_does_not_stop_time() {
    let mut store = filled(100, usize::MAX);
    let place = cell(&mut store, "b");
    store.begin_round(START + 39, 1.0);
    count(&mut store, &place, 3.0);
    assert_eq!(store.newest(), Some(START + 39));
    assert_eq!(store.tiers[0].slots.len(), 40, "what was stored under the wrong time is gone");
    store.begin_round(START + 40, 1.0);
    count(&mut store, &place, 5.0);
    assert_eq!(counts(&store, &store.period(3, None, 1, false)), [1.0, 4.0, 5.0]);
    let tier = &store.tiers[1];
    assert!(tier.slots.iter().is_sorted_by(|a, b| a.index < b.index));
    let sealed: usize = tier.slots.iter().rev().skip(1).map(|slot| slot.bytes).sum();
    assert_eq!(tier.bytes, sealed);
}

#[test]
fn a_clock_set_far_back_leaves_an_empty_past() {
    let mut store = filled(100, usize::MAX);
    store.begin_round(START - 86_400, 1.0);
    assert!(store.tiers.iter().all(|tier| tier.slots.len() == 1 && tier.bytes == 0));
    assert_eq!(counts(&store, &store.period(2, None, 1, false)), [0.0, 0.0]);
}

#[test]
fn a_period_that_ends_in_the_future_is_shortened_and_not_moved() {
    let store = filled(600, usize::MAX);
    let period = store.period(300, Some(START + 599 + 200), 1, false);
    assert_eq!((period.from, period.to), (START + 500, START + 600));
    let to_come = store.period(300, Some(START + 5_000), 1, false);
    assert_eq!((to_come.steps(), to_come.whole().steps()), (0, 0));
    assert_eq!(to_come.before().steps(), 0);
}

#[test]
fn a_tier_that_the_cap_has_cut_gives_way_to_one_that_holds_the_period() {
    let mut store = filled(800, usize::MAX);
    assert_eq!(store.period(300, None, 1, true).step, 1);
    while store.tiers[0].slots.len() > 400 {
        store.tiers[0].drop_oldest();
    }
    let period = store.period(300, None, 1, true);
    assert_eq!(period.step, 10, "600 s are wanted and the live tier has 400");
    assert_eq!(store.period(300, None, 1, false).step, 1);
    for tier in &mut store.tiers[1..] {
        while tier.drop_oldest() {}
    }
    assert_eq!(store.period(300, None, 1, true).step, 1, "nothing holds twice as much");
}

#[test]
fn a_young_store_answers_long_windows_from_its_finest_slots() {
    let store = filled(100, usize::MAX);
    let period = store.period(21_600, None, 1, true);
    assert_eq!((period.step, counts(&store, &period.whole())), (1, vec![100.0]));
}

#[test]
fn ninety_days_are_kept_in_slots_of_ten_minutes() {
    let mut store = Store::default();
    let place = cell(&mut store, "b");
    for hour in 0..100 * 24 {
        store.begin_round(START + hour * 3_600, 1.0);
        count(&mut store, &place, 1.0);
    }
    let period = store.period(limits::WINDOW_MAX, None, 86_400, false);
    assert_eq!(period.step, 86_400);
    let days = counts(&store, &period);
    assert_eq!(days.len(), 90);
    assert!(days[1..89].iter().all(|count| *count == 24.0), "{days:?}");
    assert!(store.tiers[3].slots.len() <= limits::TEN_MINUTE_SLOTS);
}

#[test]
fn a_gauge_has_its_value_in_every_round_that_was_missed() {
    let mut store = Store::default();
    let place = cell(&mut store, "b");
    for second in 0..10 {
        store.begin_round(START + second, 1.0);
    }
    let spread = store.spread(store.elapsed() - 5.0);
    store.add(&place, &one(REQUESTS_IN_FLIGHT, 8.0), &spread);
    let period = store.period(10, None, 1, false);
    assert_eq!(counts(&store, &period), [0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 8.0, 8.0, 8.0, 8.0]);
    let sealed: usize = store.tiers[0].slots.iter().rev().skip(1).map(|slot| slot.bytes).sum();
    assert_eq!(store.tiers[0].bytes, sealed, "catching up is part of what the cap counts");
}

#[test]
fn the_cap_on_bytes_drops_the_oldest_slots_first() {
    let mut store = filled(400, 20_000);
    let held: usize = store.tiers.iter().map(|tier| tier.bytes).sum();
    assert!(held <= 20_000, "{held}");
    assert_eq!(counts(&store, &store.period(10, None, 1, false)), [1.0; 10]);
    // A cap that nothing fits under leaves the open slots.
    store.bytes_max = 0;
    store.begin_round(START + 1_000, 1.0);
    assert!(store.tiers.iter().all(|tier| tier.slots.len() == 1));
}

#[test]
fn an_empty_store_answers_an_empty_period() {
    let store = Store::default();
    let period = store.period(u64::MAX, None, 7, true);
    assert_eq!(store.measured(&period.whole())[0].rounds, 0);
}

#[test]
fn places_beyond_the_limit_share_one_per_destination() {
    let mut store = Store::default();
    let kept: Vec<_> = (0..limits::CELLS_MAX).map(|n| cell(&mut store, &n.to_string())).collect();
    let folded = cell(&mut store, "late");
    assert_eq!(folded.source, outside("unknown"));
    assert!(Rc::ptr_eq(&folded, &cell(&mut store, "late")));
    drop(kept);
    assert_eq!(cell(&mut store, "later").source, outside("a"), "unused places are forgotten");
}
