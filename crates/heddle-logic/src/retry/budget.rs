//! How many requests may be sent again: a share of those there are, and a few a second besides. Without
//! it retries multiply the load of a service that fails of load.
//!
//! A budget is asked only where something failed. Requests are counted elsewhere, as one number that
//! grows; since when they came is known only as well as the budget is asked, and what came between two
//! questions is taken as spread evenly over the time between them.

mod interval;

use std::time::{Duration, Instant};

pub use self::interval::IntervalBudget;

/// Share of requests that may be sent again.
const SHARE: f64 = 0.2;
/// Further attempts a second that are free.
const FREE_PER_SECOND: u64 = 10;
/// Seconds after which a request gives no more credit, and a further attempt weighs no more.
const WINDOW: usize = 10;

/// The budget of one destination.
#[derive(Debug)]
pub struct RetryBudget {
    begun: Instant,
    /// Requests seen so far, of all time.
    seen: u64,
    /// The second in which it was last asked.
    second: u64,
    /// By second, modulo the window.
    slots: [Slot; WINDOW],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    requests: f64,
    again: u64,
}

impl RetryBudget {
    /// A budget that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { begun: now, seen: 0, second: 0, slots: [Slot::default(); WINDOW] }
    }

    /// Takes one further attempt out of it; false if there is none left. `requests` is how many there
    /// were of all time.
    pub fn withdraw(&mut self, now: Instant, requests: u64) -> bool {
        self.advance(now.saturating_duration_since(self.begun), requests);
        let requests: f64 = self.slots.iter().map(|slot| slot.requests).sum();
        let again: u64 = self.slots.iter().map(|slot| slot.again).sum();
        let credit = requests * SHARE + (FREE_PER_SECOND * WINDOW as u64) as f64;
        if again as f64 + 1.0 > credit {
            return false;
        }
        self.slot(self.second).again += 1;
        true
    }

    fn slot(&mut self, second: u64) -> &mut Slot {
        &mut self.slots[second as usize % WINDOW]
    }

    /// Forgets what is too old, and spreads the requests that came since over the seconds since.
    fn advance(&mut self, since_begun: Duration, requests: u64) {
        let second = since_begun.as_secs().max(self.second);
        let came = requests.saturating_sub(self.seen);
        self.seen = self.seen.max(requests);
        let passed = second - self.second;
        for back in 0..passed.min(WINDOW as u64) {
            *self.slot(second - back) = Slot::default();
        }
        let share = came as f64 / (passed + 1) as f64;
        for back in 0..(passed + 1).min(WINDOW as u64) {
            self.slot(second - back).requests += share;
        }
        self.second = second;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a beginning like any other; no time passes")]
    fn now() -> Instant {
        Instant::now()
    }

    /// How many of `wanted` a budget gives at once.
    fn given(budget: &mut RetryBudget, now: Instant, requests: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| budget.withdraw(now, requests)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second_may_be_sent_again() {
        let begun = now();
        let mut budget = RetryBudget::new(begun);
        assert_eq!(given(&mut budget, begun, 0, 1_000), 100, "what is free in ten seconds");
        assert_eq!(given(&mut budget, begun, 500, 1_000), 100, "and a fifth of 500");
        let later = begun + Duration::from_secs(10);
        assert_eq!(given(&mut budget, later, 500, 1_000), 100, "old requests give no credit");
    }

    #[test]
    fn under_steady_failure_the_load_grows_by_a_fifth_and_what_is_free() {
        let begun = now();
        let mut budget = RetryBudget::new(begun);
        let (mut requests, mut again) = (0, 0);
        for millisecond in (0..60_000).step_by(2) {
            let now = begun + Duration::from_millis(millisecond);
            requests += 1;
            again += given(&mut budget, now, requests, 3);
        }
        let most = requests as f64 * SHARE + 60.0 * 10.0 + 110.0;
        assert!((again as f64) < most, "{again} of {requests}");
        assert!(again as f64 > requests as f64 * SHARE, "{again} of {requests}");
    }

    proptest! {
        #[test]
        fn no_window_gives_more_than_its_share(
            steps in vec((0u64..3_000, 0u64..200, 0usize..100), 1..60),
        ) {
            let begun = now();
            let mut budget = RetryBudget::new(begun);
            let (mut now, mut requests) = (begun, 0);
            let mut all: Vec<(Instant, usize)> = Vec::new();
            for (millis, more, wanted) in steps {
                now += Duration::from_millis(millis);
                requests += more;
                all.push((now, given(&mut budget, now, requests, wanted)));
                let window = Duration::from_secs(WINDOW as u64 - 1);
                let recent = all.iter().filter(|(at, _)| *at + window > now).map(|(_, n)| n);
                let given: usize = recent.sum();
                // All requests ever are at least those of the window.
                prop_assert!(given as f64 <= requests as f64 * SHARE + 100.0);
            }
        }
    }
}
