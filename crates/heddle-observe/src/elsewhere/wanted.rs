//! Which time is asked about, in which steps.

use crate::limits;

/// Lengths of steps, seconds: multiples of the slots of whichever tier holds that many of them.
const STEPS: [u64; 9] = [60, 120, 300, 600, 1_200, 3_600, 7_200, 21_600, 86_400];

/// What a question needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Seconds to look back from the end.
    pub(super) back: u64,
    /// Unix time of the end, exclusive, seconds.
    pub(super) end: u64,
    /// Seconds.
    pub(super) step: u64,
}

impl Wanted {
    /// For the `window` seconds before `end` at Unix time `now`, and as much again before them.
    pub(super) fn new(window: u64, end: u64, now: u64) -> Self {
        let back = 2 * window.clamp(STEPS[0], limits::WINDOW_MAX);
        let enough = |step: &&u64| back / **step <= limits::ELSEWHERE_STEPS_MAX;
        let step = STEPS.iter().find(enough).copied().unwrap_or(STEPS[STEPS.len() - 1]);
        let back = back.next_multiple_of(step);
        // Slots of a second may begin at any time, longer ones may not be shared by two steps.
        let grid =
            if back + step < limits::LIVE_SLOTS as u64 { limits::ELSEWHERE_GRID } else { step };
        Self { back, end: end.min(now) / grid * grid, step }
    }

    pub(super) fn times(self) -> impl Iterator<Item = u64> {
        // One more before: what counters were when it began.
        let first = self.end.saturating_sub(self.back);
        (0..=self.back / self.step).map(move |number| first + number * self.step)
    }
}
