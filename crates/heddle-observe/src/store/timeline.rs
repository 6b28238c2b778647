//! The slots of all tiers as one line of time, without a gap or an overlap: the finest that are kept, and further back
//! coarser ones. Every increase is in each tier, so what is added up along the line is the same wherever it
//! changes tiers.

use super::{Entry, Store};

/// One slot on the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    /// Unix time, seconds, of the time that was measured.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Scrape rounds.
    pub(crate) rounds: u32,
    tier: usize,
    slot: usize,
}

impl Store {
    /// All that is kept, oldest first, in slots that are not needlessly finer than `resolution`, seconds.
    pub(crate) fn timeline(&self, resolution: f64) -> Vec<Span> {
        /// A period is told by at least so many slots where they are kept.
        const SLOTS_PER_PERIOD: f64 = 30.0;
        let newest = (self.newest.unwrap_or(0) + 1) as f64;
        let coarse = |tier: &super::Tier| tier.step as f64 * SLOTS_PER_PERIOD <= resolution;
        let finest = self.tiers.iter().rposition(coarse).unwrap_or(0);
        let mut spans = Vec::new();
        // Where the finer tier takes over, from the newest back.
        let mut until = u64::MAX;
        for (number, tier) in self.tiers.iter().enumerate().skip(finest) {
            // A slot of the next tier ends where the first of this one begins.
            let coarser = self.tiers.get(number + 1).map_or(1, |next| next.step);
            let begins = tier.whole_from().div_ceil(coarser) * coarser;
            let mut own: Vec<Span> = Vec::new();
            for (slot, kept) in tier.slots.iter().enumerate() {
                let start = kept.index * tier.step;
                let is_last = number + 1 == self.tiers.len();
                if start >= until || (start < begins && !is_last) {
                    continue;
                }
                let to = ((start + tier.step) as f64).min(newest);
                // A scrape tells of the time since the one before.
                let from = (start as f64).min(to - kept.seconds.min(to));
                let from = own.last().map_or(from, |last| from.max(last.to));
                own.push(Span { from, to, rounds: kept.rounds, tier: number, slot });
            }
            until = until.min(begins);
            own.reverse();
            spans.extend(own);
        }
        spans.reverse();
        // Between two tiers the finer one's first scrape tells of time that the coarser one has told of.
        for at in 1..spans.len() {
            spans[at].from = spans[at].from.max(spans[at - 1].to);
        }
        spans
    }

    /// What was counted in a slot of a line that was drawn since the last change.
    pub(crate) fn entries(&self, span: &Span) -> &[Entry] {
        self.tiers[span.tier].slots.get(span.slot).map_or(&[], |slot| &slot.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{START, filled};

    fn total(store: &Store, spans: &[Span]) -> f64 {
        let entries = spans.iter().flat_map(|span| store.entries(span));
        entries.flat_map(|(_, counts)| counts).map(|(_, count)| f64::from(*count)).sum()
    }

    #[test]
    fn the_line_has_everything_once_whatever_its_tiers() {
        let store = filled(8 * 3_600, usize::MAX);
        let line = store.timeline(0.0);
        assert_eq!(total(&store, &line), 8.0 * 3_600.0);
        assert!(line.windows(2).all(|two| two[0].to <= two[1].from), "in order");
        assert!(line.windows(2).all(|two| two[1].from - two[0].to < 1.0), "without a gap");
        assert_eq!(line.last().unwrap().to, (START + 8 * 3_600) as f64);
        let steps: std::collections::BTreeSet<_> = line.iter().map(|span| span.tier).collect();
        assert_eq!(steps.len(), 3, "seconds, tens of them, minutes");
    }

    #[test]
    fn a_long_period_is_not_told_by_seconds() {
        let store = filled(3_600, usize::MAX);
        let line = store.timeline(600.0);
        assert_eq!(total(&store, &line), 3_600.0);
        assert!(line.len() <= 361, "{}", line.len());
    }

    #[test]
    fn the_line_goes_as_far_back_as_any_tier_that_the_cap_has_left() {
        let store = filled(4 * 3_600, 100_000);
        let line = store.timeline(0.0);
        let oldest = store.tiers.iter().filter_map(|tier| tier.slots.front());
        let counted = total(&store, &line);
        assert!(line.windows(2).all(|two| two[0].to <= two[1].from), "in order");
        assert!(counted >= 3.0 * 3_600.0, "{counted}, {} slots", oldest.count());
    }
}
