//! Over which rounds an increase is divided.
//!
//! A sidecar that missed scrapes shows all that happened since in the next one. Booked there at once,
//! ten quiet minutes would look like a burst. So the increase is spread evenly over the rounds since
//! the sidecar's last scrape. Time is the store's own count of measured seconds and not the wall
//! clock, which may be set.

use std::collections::VecDeque;

use crate::limits;

/// The latest rounds, back to [`limits::CATCH_UP_MAX`] seconds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Oldest first.
    latest: VecDeque<Round>,
    /// Seconds measured by all rounds so far.
    elapsed: f64,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    /// Unix time, seconds.
    at: u64,
    /// Seconds it covers.
    seconds: f64,
    /// [`Rounds::elapsed`] at its end.
    end: f64,
}

/// An increase's shares, one list per tier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread<const TIERS: usize>([Vec<Share>; TIERS]);

/// What falls into one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// The slot's index in its tier.
    pub(super) slot: u64,
    /// Share of the increase, 0 to 1.
    pub(super) part: f64,
    /// Rounds: how often a gauge's value counts here.
    pub(super) rounds: f64,
}

impl Rounds {
    pub(super) fn elapsed(&self) -> f64 {
        self.elapsed
    }

    /// Adds a round. Later ones than `at` belong to a clock that was wrong and are forgotten.
    pub(super) fn begin(&mut self, at: u64, seconds: f64) {
        self.elapsed += seconds;
        self.latest.retain(|round| round.at <= at);
        self.latest.push_back(Round { at, seconds, end: self.elapsed });
        let oldest = self.elapsed - limits::CATCH_UP_MAX;
        while self.latest.len() > 1 && self.latest.front().is_some_and(|round| round.end <= oldest)
        {
            self.latest.pop_front();
        }
    }

    /// Divides what was counted since `since` (an earlier [`Rounds::elapsed`]) among the slots of
    /// tiers with these steps. What lies further back than the rounds known here is left out.
    pub(super) fn spread<const TIERS: usize>(
        &self,
        since: f64,
        steps: [u64; TIERS],
    ) -> Spread<TIERS> {
        let missed = self.latest.iter().filter(|round| round.end > since).count();
        // The round under way always counts, also where no time has passed in it.
        let first = self.latest.len().saturating_sub(missed.max(1));
        let rounds: Vec<Round> = self.latest.range(first..).copied().collect();
        let total = self.elapsed - since;
        let part = |round: &Round| if total > 0.0 { round.seconds / total } else { 1.0 };
        Spread(steps.map(|step| {
            let slots = rounds.chunk_by(|a, b| a.at / step == b.at / step);
            slots
                .map(|rounds| Share {
                    slot: rounds[0].at / step,
                    part: rounds.iter().map(part).sum::<f64>().min(1.0),
                    rounds: rounds.len() as f64,
                })
                .collect()
        }))
    }
}

impl<const TIERS: usize> Spread<TIERS> {
    /// The shares of each tier.
    pub(super) fn tiers(&self) -> impl Iterator<Item = &[Share]> {
        self.0.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(spread: &Spread<1>) -> Vec<(u64, f64)> {
        spread.0[0].iter().map(|share| (share.slot, share.part)).collect()
    }

    #[test]
    fn an_increase_is_divided_evenly_over_the_rounds_since() {
        let mut rounds = Rounds::default();
        rounds.begin(100, 0.0);
        for at in 101..=104 {
            rounds.begin(at, 1.0);
        }
        assert_eq!(parts(&rounds.spread(3.0, [1])), [(104, 1.0)], "nothing was missed");
        let missed = rounds.spread(0.0, [1]);
        assert_eq!(parts(&missed), [(101, 0.25), (102, 0.25), (103, 0.25), (104, 0.25)]);
        assert_eq!(parts(&rounds.spread(2.0, [10])), [(10, 1.0)], "one slot of ten seconds");
    }

    #[test]
    fn the_first_round_takes_all_although_no_time_has_passed() {
        let mut rounds = Rounds::default();
        rounds.begin(100, 0.0);
        assert_eq!(parts(&rounds.spread(0.0, [1])), [(100, 1.0)]);
    }

    #[test]
    fn what_lies_too_far_back_is_left_out_and_not_squeezed_in() {
        let mut rounds = Rounds::default();
        let long = 2 * limits::CATCH_UP_MAX as u64;
        for at in 1..=long {
            rounds.begin(at, 1.0);
        }
        assert!(rounds.latest.len() as f64 <= limits::CATCH_UP_MAX);
        let spread = rounds.spread(0.0, [1]);
        let booked: f64 = spread.0[0].iter().map(|share| share.part).sum();
        assert!((booked - 0.5).abs() < 1e-9, "{booked}");
    }
}
