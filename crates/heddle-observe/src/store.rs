//! The memory of the dashboard: increases added up in time slots of three lengths, all in memory,
//! all bounded.
//!
//! Every increase goes into the open slot of each [`Tier`] at once, so a coarse slot is complete
//! without a roll-up job. A slot holds only what happened: a place ([`Cell`]) without traffic costs
//! nothing. A reader asks for a period and a step and gets every stored number with the index of the
//! step it falls in ([`Store::each`]).

use std::{collections::VecDeque, rc::Rc};

use crate::{
    ledger::Increase,
    limits,
    measure::{Answers, Cell, Cells, Dimension},
};

/// Everything measured.
#[derive(Debug)]
pub(crate) struct Store {
    tiers: [Tier; 3],
    pub(crate) cells: Cells,
    pub(crate) answers: Answers,
    newest: Option<u64>,
    bytes_max: usize,
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
}

/// What was counted at one place, by ascending dimension.
type Entry = (Rc<Cell>, Vec<(Dimension, f32)>);

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
        let tier = |step, keep| Tier { step, keep, slots: VecDeque::new(), bytes: 0 };
        Self {
            tiers: [
                tier(1, limits::LIVE_SLOTS),
                tier(10, limits::TEN_SECOND_SLOTS),
                tier(60, limits::MINUTE_SLOTS),
            ],
            cells: Cells::default(),
            answers: Answers::default(),
            newest: None,
            bytes_max,
        }
    }

    /// Unix time of the newest scrape round, seconds.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Begins a scrape round at Unix second `at` that covers the last `seconds`. A clock that was set
    /// back goes on in the newest slot until it has caught up.
    pub(crate) fn begin_round(&mut self, at: u64, seconds: f64) {
        let at = self.newest.map_or(at, |newest| newest.max(at));
        self.newest = Some(at);
        let mut moved = false;
        for tier in &mut self.tiers {
            moved |= tier.open(at, seconds);
        }
        if moved {
            self.shrink();
        }
    }

    /// Adds what happened at a place to the round begun last.
    pub(crate) fn add(&mut self, cell: &Rc<Cell>, increase: &Increase) {
        for tier in &mut self.tiers {
            if let Some(slot) = tier.slots.back_mut() {
                slot.add(cell, increase);
            }
        }
    }

    /// The last `window` seconds before `end` (default: now), in steps of at least `step`, from the
    /// finest slots that still reach back that far (and as far again, where `twice`).
    pub(crate) fn period(&self, window: u64, end: Option<u64>, step: u64, twice: bool) -> Period {
        let newest = self.newest.unwrap_or(0);
        let end = end.unwrap_or(newest).min(newest);
        let window = window.clamp(1, limits::WINDOW_MAX);
        let reach = window.saturating_mul(if twice { 2 } else { 1 });
        let oldest = end.saturating_sub(reach);
        let tier = self
            .tiers
            .iter()
            .position(|tier| newest.saturating_sub(tier.reach()) <= oldest)
            .unwrap_or(self.tiers.len() - 1);
        let slot = self.tiers[tier].step;
        // The slot that holds `end` is the last one; periods of whole slots never share one.
        let to = (end / slot + 1) * slot;
        let step = step.max(1).div_ceil(slot) * slot;
        let window = window.div_ceil(step) * step;
        Period { from: to.saturating_sub(window), to, step, tier }
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
        while self.tiers.iter().map(|tier| tier.bytes).sum::<usize>() > self.bytes_max {
            let Some(largest) = self.tiers.iter_mut().max_by_key(|tier| tier.bytes) else { return };
            if !largest.drop_oldest() {
                return;
            }
        }
    }
}

impl Tier {
    /// Seconds it reaches back.
    fn reach(&self) -> u64 {
        self.step * (self.keep as u64 - 1)
    }

    /// Opens the slot of this second; true if it is a new one.
    fn open(&mut self, at: u64, seconds: f64) -> bool {
        let index = at / self.step;
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
        let oldest = index.saturating_sub(self.keep as u64 - 1);
        while self.slots.front().is_some_and(|slot| slot.index < oldest) {
            self.drop_oldest();
        }
        fresh
    }

    /// Drops the oldest sealed slot; false if there is none.
    fn drop_oldest(&mut self) -> bool {
        if self.slots.len() < 2 {
            return false;
        }
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.bytes;
        }
        true
    }
}

impl Slot {
    fn add(&mut self, cell: &Rc<Cell>, increase: &Increase) {
        let index = match self.entries.iter().position(|(known, _)| Rc::ptr_eq(known, cell)) {
            Some(index) => index,
            None => {
                self.entries.push((Rc::clone(cell), Vec::new()));
                self.entries.len() - 1
            }
        };
        let counts = &mut self.entries[index].1;
        for (&dimension, &count) in &increase.counts {
            match counts.binary_search_by_key(&dimension, |&(known, _)| known) {
                Ok(at) => counts[at].1 += count as f32,
                Err(at) => counts.insert(at, (dimension, count as f32)),
            }
        }
    }

    /// Gives back spare room and counts what is left.
    fn seal(&mut self) {
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
