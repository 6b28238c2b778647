//! How many requests may be sent again by a rule that says of which time: a share of those that came within an
//! interval, whether they are over or not.

use std::time::{Duration, Instant};

/// Parts of an interval: what is older than it is forgotten so exactly.
const PARTS: usize = 10;

/// What came within an interval, of requests and of further attempts.
#[derive(Debug)]
pub struct IntervalBudget {
    begun: Instant,
    parts: [Part; PARTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Which part of all time it is.
    number: u64,
    requests: u64,
    again: u64,
}

impl IntervalBudget {
    /// A budget that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { begun: now, parts: [Part::default(); PARTS] }
    }

    /// A request came.
    pub fn request(&mut self, now: Instant, interval: Duration) {
        let number = self.number(now, interval);
        self.part(number).requests += 1;
    }

    /// Takes one further attempt out of it, of `percent` of the requests of the interval, or of `least`; false
    /// if there is none left.
    pub fn withdraw(&mut self, now: Instant, interval: Duration, percent: f64, least: u32) -> bool {
        let number = self.number(now, interval);
        let recent =
            |part: &&Part| number.checked_sub(part.number).is_some_and(|n| n < PARTS as u64);
        let (requests, again) =
            self.parts.iter().filter(recent).fold((0, 0), |(requests, again), part| {
                (requests + part.requests, again + part.again)
            });
        let share = (requests as f64 * percent / 100.0) as u64;
        if again >= share.max(least.into()) {
            return false;
        }
        self.part(number).again += 1;
        true
    }

    /// Which part of all time it is.
    fn number(&self, now: Instant, interval: Duration) -> u64 {
        let length = (interval.as_nanos() / PARTS as u128).max(1);
        let number = now.saturating_duration_since(self.begun).as_nanos() / length;
        u64::try_from(number).unwrap_or(u64::MAX)
    }

    fn part(&mut self, number: u64) -> &mut Part {
        let part = &mut self.parts[(number % PARTS as u64) as usize];
        if part.number != number {
            *part = Part { number, ..Part::default() };
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[expect(clippy::disallowed_methods, reason = "a beginning like any other; no time passes")]
    fn now() -> Instant {
        Instant::now()
    }

    fn given(budget: &mut IntervalBudget, now: Instant) -> usize {
        (0..1_000).filter(|_| budget.withdraw(now, INTERVAL, 20.0, 3)).count()
    }

    #[test]
    fn a_share_of_the_intervals_requests_and_so_many_in_any_case_may_be_sent_again() {
        let begun = now();
        let mut budget = IntervalBudget::new(begun);
        assert_eq!(given(&mut budget, begun), 3);
        for _ in 0..100 {
            budget.request(begun, INTERVAL);
        }
        assert_eq!(given(&mut budget, begun), 17, "a fifth of them, with those before");
        let later = begun + INTERVAL;
        assert_eq!(given(&mut budget, later), 3, "both are forgotten");
    }

    #[test]
    fn an_interval_that_an_edit_makes_another_begins_anew() {
        let begun = now();
        let mut budget = IntervalBudget::new(begun);
        let at = begun + Duration::from_secs(95);
        for _ in 0..100 {
            budget.request(at, INTERVAL);
        }
        assert!(!(0..4).all(|_| budget.withdraw(at, Duration::from_secs(100), 20.0, 3)));
    }
}
