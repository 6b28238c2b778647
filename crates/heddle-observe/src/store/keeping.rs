//! What of the store is kept, and how it comes back: slots of ten seconds and longer, each written whole whenever
//! it has changed, so that nothing is ever to be put together.

use std::{collections::HashMap, rc::Rc};

use super::{
    Slot, Store,
    kept::{Batch, Kept, KeptSlot, Numbers, answer, encoded, kept_answer, place},
};
use crate::measure::{ANSWER, Cell, Dimension};

/// The first tier that is kept: what the ones before hold is over in a quarter of an hour.
const FIRST: usize = 1;

impl Store {
    /// What has changed since the last call, or everything.
    pub(crate) fn changes(&mut self, whole: bool) -> Batch {
        let mut batch = Batch { whole, ..Batch::default() };
        if whole {
            self.numbers = Numbers::default();
        }
        for (number, tier) in (0_u8..).zip(&mut self.tiers).skip(FIRST) {
            let changed = std::mem::take(&mut tier.changed);
            let (first, last) = (tier.slots.front(), tier.slots.back());
            if let (Some(first), Some(last)) = (first, last) {
                batch.tiers.push((number, first.index..=last.index));
            }
            for slot in tier.slots.iter().filter(|slot| whole || changed.contains(&slot.index)) {
                let (numbers, places) = (&mut self.numbers, &mut batch.places);
                let entries = slot.entries.iter();
                let entries =
                    entries.map(|(cell, counts)| (numbers.number(cell, places), counts.clone()));
                let Slot { seconds, rounds, .. } = *slot;
                let kept = KeptSlot { seconds, rounds, entries: entries.collect() };
                batch.slots.push(((number, slot.index), encoded(&kept)));
            }
        }
        let all = self.answers.all();
        for (i, answer) in all.iter().enumerate().skip(self.numbers.answers) {
            let number = u16::try_from(i).unwrap_or(u16::MAX);
            batch.answers.push((number, kept_answer(answer)));
        }
        self.numbers.answers = all.len();
        self.numbers.forget_unused(&mut batch.forgotten);
        batch
    }

    /// Takes over what was kept. The store is new, and goes on from there; what makes no sense is left out.
    pub(crate) fn restore(&mut self, kept: Kept) {
        for (number, bytes) in kept.answers {
            let Some(answer) = answer(&bytes) else { break };
            if self.answers.number_of(answer) != number.saturating_add(ANSWER) {
                break;
            }
        }
        self.numbers.answers = self.answers.all().len();
        let mut places = HashMap::new();
        for (number, bytes) in kept.places {
            let Some(cell) = minicbor::decode(&bytes).ok().and_then(place) else { continue };
            let cell = self.cells.intern(cell);
            self.numbers.was(number, &cell);
            places.insert(number, cell);
        }
        for ((tier, index), bytes) in kept.slots {
            let tier = self.tiers.get_mut(usize::from(tier));
            let (Some(tier), Ok(slot)) = (tier, minicbor::decode(&bytes)) else { continue };
            if tier.slots.back().is_none_or(|last| last.index < index) {
                tier.bytes += tier.slots.back().map_or(0, |last| last.bytes);
                tier.slots.push_back(restored(index, slot, &places));
            }
        }
        let until = self.tiers.iter().filter_map(|tier| {
            let last = tier.slots.back()?;
            Some((last.index + 1) * tier.step)
        });
        let until = until.min().unwrap_or(0);
        for tier in &mut self.tiers[..FIRST] {
            tier.began = until;
        }
        self.shrink();
    }
}

fn restored(index: u64, kept: KeptSlot, places: &HashMap<u32, Rc<Cell>>) -> Slot {
    let known = |(number, mut counts): (u32, Vec<(Dimension, f32)>)| {
        counts.sort_unstable_by_key(|(dimension, _)| *dimension);
        counts.dedup_by_key(|(dimension, _)| *dimension);
        counts.retain(|(_, count)| count.is_finite() && *count >= 0.0);
        Some((Rc::clone(places.get(&number)?), counts))
    };
    let mut slot = Slot {
        index,
        seconds: if kept.seconds.is_finite() { kept.seconds.max(0.0) } else { 0.0 },
        rounds: kept.rounds,
        entries: kept.entries.into_iter().filter_map(known).collect(),
        places: HashMap::new(),
        bytes: 0,
    };
    slot.seal();
    slot
}

#[cfg(test)]
mod tests;
