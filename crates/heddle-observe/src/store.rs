//! The memory of the dashboard: increases added up in time slots of four lengths, all in memory,
//! all bounded; what of it is kept on a disk too, and comes back from there, is in `keeping`.
//!
//! Every increase goes into each [`Tier`] at once, so a coarse slot is complete without a roll-up
//! job: into the open slot, or spread over the latest ones where scrapes were missed ([`spread`]). A
//! slot holds only what happened: a place ([`Cell`]) without traffic costs nothing. A reader asks
//! for a period and a step and gets every stored number with the index of the step it falls in
//! ([`Store::each`]).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    rc::Rc,
};

use crate::{
    ledger::Increase,
    limits,
    measure::{self, Answers, Cell, Cells, Dimension},
};

mod keeping;
pub(crate) mod kept;
mod spread;
mod timeline;

use kept::Numbers;
use spread::{Rounds, Share};
pub(crate) use timeline::Span;

/// Slot lengths.
const TIERS: usize = 4;
/// Over which slots of the store an increase is divided.
pub(crate) type Spread = spread::Spread<TIERS>;

/// Everything measured.
#[derive(Debug)]
pub(crate) struct Store {
    tiers: [Tier; TIERS],
    pub(crate) cells: Cells,
    pub(crate) answers: Answers,
    newest: Option<u64>,
    rounds: Rounds,
    bytes_max: usize,
    /// What places are called on the disk.
    numbers: Numbers,
}

/// Slots of one length.
#[derive(Debug)]
struct Tier {
    /// Seconds of a slot.
    step: u64,
    /// Slots kept.
    keep: usize,
    /// Oldest first; the last one is open.
    slots: VecDeque<Slot>,
    /// Bytes of the sealed slots.
    bytes: usize,
    /// Has an old slot been dropped? Until then the tier holds all there is.
    cut: bool,
    /// Unix time from which on it holds anything: it began then, and others go back further.
    began: u64,
    /// Slots that differ from what was last taken to be kept.
    changed: BTreeSet<u64>,
}

/// What was counted at one place, by ascending dimension.
pub(crate) type Entry = (Rc<Cell>, Vec<(Dimension, f32)>);

/// What happened in one slot's time.
#[derive(Debug, Default)]
struct Slot {
    /// Unix time of its start, divided by the tier's step.
    index: u64,
    /// Seconds that were measured.
    seconds: f64,
    /// Scrape rounds.
    rounds: u32,
    /// One entry per place, in no particular order.
    entries: Vec<Entry>,
    /// Where each place's entry is, while the slot is added to: with thousands of places looking for it takes long.
    places: HashMap<*const Cell, usize>,
    bytes: usize,
}

/// A period cut into steps, adjusted to what the store can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    /// Unix time of its start, seconds.
    pub(crate) from: u64,
    /// Unix time of its end, exclusive.
    pub(crate) to: u64,
    /// Seconds of a step; the last step may be shorter.
    pub(crate) step: u64,
    tier: usize,
}

impl Period {
    /// How many steps.
    pub(crate) fn steps(&self) -> usize {
        usize::try_from((self.to - self.from).div_ceil(self.step)).unwrap_or(0)
    }

    /// The period of the same length before this one.
    pub(crate) fn before(&self) -> Self {
        Self { from: self.from - (self.to - self.from).min(self.from), to: self.from, ..*self }
    }

    /// This period as one step.
    pub(crate) fn whole(&self) -> Self {
        Self { step: (self.to - self.from).max(1), ..*self }
    }
}

/// How much of a step was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Measured {
    /// Seconds between scrapes, added up.
    pub(crate) seconds: f64,
    /// Scrape rounds: what a gauge's sum is to be divided by.
    pub(crate) rounds: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(limits::STORE_BYTES_MAX)
    }
}

impl Store {
    /// An empty store with a cap on the bytes of its slots.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let tier = |step, keep| Tier {
            step,
            keep,
            slots: VecDeque::new(),
            bytes: 0,
            cut: false,
            began: 0,
            changed: BTreeSet::new(),
        };
        Self {
            tiers: [
                tier(1, limits::LIVE_SLOTS),
                tier(10, limits::TEN_SECOND_SLOTS),
                tier(60, limits::MINUTE_SLOTS),
                tier(600, limits::TEN_MINUTE_SLOTS),
            ],
            cells: Cells::default(),
            answers: Answers::default(),
            newest: None,
            rounds: Rounds::default(),
            bytes_max,
            numbers: Numbers::default(),
        }
    }

    /// Unix time of the newest scrape round, seconds.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Seconds measured so far: the time by which a sidecar remembers its last scrape.
    pub(crate) fn elapsed(&self) -> f64 {
        self.rounds.elapsed()
    }

    /// Begins a scrape round at Unix second `at` that covers the last `seconds`. What is newer was
    /// stored under a clock that has been set back since; it is dropped, so that time goes on.
    pub(crate) fn begin_round(&mut self, at: u64, seconds: f64) {
        self.newest = Some(at);
        self.rounds.begin(at, seconds);
        let mut moved = false;
        for tier in &mut self.tiers {
            moved |= tier.open(at, seconds);
        }
        if moved {
            self.shrink();
        }
    }

    /// The slots for what was counted since `since` (an earlier [`Store::elapsed`]).
    pub(crate) fn spread(&self, since: f64) -> Spread {
        self.rounds.spread(since, self.tiers.each_ref().map(|tier| tier.step))
    }

    /// Adds what happened at a place.
    pub(crate) fn add(&mut self, cell: &Rc<Cell>, increase: &Increase, spread: &Spread) {
        for (tier, shares) in self.tiers.iter_mut().zip(spread.tiers()) {
            for share in shares {
                tier.add(cell, increase, *share);
            }
        }
    }

    /// The last `window` seconds before `end` (default: now), in steps of at least `step`, from the
    /// finest slots that still hold all of it (and as much again, where `twice`). Seconds that are
    /// still to come are taken off the window: a period in the future is empty.
    pub(crate) fn period(&self, window: u64, end: Option<u64>, step: u64, twice: bool) -> Period {
        let newest = self.newest.unwrap_or(0);
        let asked = end.unwrap_or(newest);
        let end = asked.min(newest);
        let window = window.clamp(1, limits::WINDOW_MAX).saturating_sub(asked - end);
        let tier = self.tier(end + 1, window, twice);
        let slot = self.tiers[tier].step;
        // The slot that holds `end` is the last one; periods of whole slots never share one.
        let to = (end / slot + 1) * slot;
        let step = step.max(1).div_ceil(slot) * slot;
        let window = window.div_ceil(step) * step;
        Period { from: to.saturating_sub(window), to, step, tier }
    }

    /// The finest tier that holds `window` seconds before `end`, twice that if asked and possible; the
    /// one that reaches back furthest if none does. The cap on bytes may have cut any of them.
    fn tier(&self, end: u64, window: u64, twice: bool) -> usize {
        let holding = |back: u64| {
            let oldest = end.saturating_sub(back);
            self.tiers.iter().position(|tier| tier.whole_from() <= oldest)
        };
        let furthest = || (0..TIERS).min_by_key(|&tier| self.tiers[tier].whole_from());
        holding(if twice { 2 * window } else { window })
            .or_else(|| holding(window))
            .or_else(furthest)
            .unwrap_or(0)
    }

    /// How much of each step was measured.
    pub(crate) fn measured(&self, period: &Period) -> Vec<Measured> {
        let mut measured = vec![Measured::default(); period.steps()];
        for (step, slot) in self.slots(period) {
            if let Some(entry) = measured.get_mut(step) {
                entry.seconds += slot.seconds;
                entry.rounds += slot.rounds;
            }
        }
        measured
    }

    /// Calls `read` with each step, place and numbers stored in the period, oldest first.
    pub(crate) fn each<'a>(
        &'a self,
        period: &Period,
        mut read: impl FnMut(usize, &'a Cell, &'a [(Dimension, f32)]),
    ) {
        for (step, slot) in self.slots(period) {
            for (cell, counts) in &slot.entries {
                read(step, cell, counts);
            }
        }
    }

    /// Bytes of all sealed slots.
    pub(crate) fn bytes(&self) -> usize {
        self.tiers.iter().map(|tier| tier.bytes).sum()
    }

    fn slots<'a>(&'a self, period: &Period) -> impl Iterator<Item = (usize, &'a Slot)> + use<'a> {
        let Period { from, to, step, tier } = *period;
        let tier = &self.tiers[tier];
        let first = tier.slots.partition_point(|slot| slot.index * tier.step < from);
        tier.slots.range(first..).take_while(move |slot| slot.index * tier.step < to).map(
            move |slot| {
                let index = (slot.index * tier.step - from) / step;
                (usize::try_from(index).unwrap_or(usize::MAX), slot)
            },
        )
    }

    /// Drops the oldest slots of whichever tier holds most, until the cap holds.
    fn shrink(&mut self) {
        while self.bytes() > self.bytes_max {
            let Some(largest) = self.tiers.iter_mut().max_by_key(|tier| tier.bytes) else { return };
            if !largest.drop_oldest() {
                return;
            }
        }
    }
}

impl Tier {
    /// Unix time from which nothing is missing.
    fn whole_from(&self) -> u64 {
        let oldest = self.slots.front().map_or(0, |slot| slot.index * self.step);
        if self.cut { oldest } else { self.began }
    }

    /// Opens the slot of this second; true if it is a new one.
    fn open(&mut self, at: u64, seconds: f64) -> bool {
        let index = at / self.step;
        self.drop_newer(index);
        let fresh = self.slots.back().is_none_or(|slot| slot.index < index);
        if fresh {
            if let Some(sealed) = self.slots.back_mut() {
                sealed.seal();
                self.bytes += sealed.bytes;
            }
            self.slots.push_back(Slot { index, ..Slot::default() });
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.seconds += seconds;
            slot.rounds += 1;
        }
        self.changed.insert(index);
        let oldest = index.saturating_sub(self.keep as u64 - 1);
        while self.slots.front().is_some_and(|slot| slot.index < oldest) {
            self.drop_oldest();
        }
        fresh
    }

    /// Drops slots newer than `index`; the one before them is open again.
    fn drop_newer(&mut self, index: u64) {
        while self.slots.back().is_some_and(|slot| slot.index > index) {
            if let Some(newer) = self.slots.pop_back() {
                self.changed.remove(&newer.index);
            }
            if let Some(slot) = self.slots.back() {
                self.bytes -= slot.bytes;
            }
        }
    }

    /// Adds a share of an increase to the slot it belongs to, if that is still kept.
    fn add(&mut self, cell: &Rc<Cell>, increase: &Increase, share: Share) {
        let found = self.slots.binary_search_by_key(&share.slot, |slot| slot.index);
        let open = self.slots.len().saturating_sub(1);
        let Ok(at) = found else { return };
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.add(cell, increase, share);
        self.changed.insert(share.slot);
        if at != open {
            self.bytes -= slot.bytes;
            slot.seal();
            self.bytes += slot.bytes;
        }
    }

    /// Drops the oldest sealed slot; false if there is none.
    fn drop_oldest(&mut self) -> bool {
        if self.slots.len() < 2 {
            return false;
        }
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.bytes;
            self.changed.remove(&slot.index);
        }
        self.cut = true;
        true
    }
}

impl Slot {
    fn add(&mut self, cell: &Rc<Cell>, increase: &Increase, share: Share) {
        if self.places.len() != self.entries.len() {
            let known = self.entries.iter().enumerate();
            self.places = known.map(|(index, (cell, _))| (Rc::as_ptr(cell), index)).collect();
        }
        let index = *self.places.entry(Rc::as_ptr(cell)).or_insert_with(|| {
            self.entries.push((Rc::clone(cell), Vec::new()));
            self.entries.len() - 1
        });
        let counts = &mut self.entries[index].1;
        for (&dimension, &count) in &increase.counts {
            // A gauge had its value in every round; there is nothing to divide.
            let count =
                count * if measure::is_gauge(dimension) { share.rounds } else { share.part };
            match counts.binary_search_by_key(&dimension, |&(known, _)| known) {
                Ok(at) => counts[at].1 += count as f32,
                Err(at) => counts.insert(at, (dimension, count as f32)),
            }
        }
    }

    /// Gives back spare room and counts what is left.
    fn seal(&mut self) {
        self.places = HashMap::new();
        self.entries.shrink_to_fit();
        self.bytes = size_of::<Self>();
        for (_, counts) in &mut self.entries {
            counts.shrink_to_fit();
            self.bytes += size_of::<Entry>() + counts.len() * size_of::<(Dimension, f32)>();
        }
    }
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
