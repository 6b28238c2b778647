//! Which endpoint takes the next request: one of two drawn at random, where no rule says otherwise ([`hash`]:
//! by a key, [`share`]: in turn or little by little, [`locality`]: the near ones first,
//! [`zones`]: as far as they can take it).
//!
//! An endpoint's cost is its latency estimate × (requests in flight + 1) × a penalty for recent
//! failures. Requests in flight are a fact, the rest is an estimate, and one of equal copies always
//! seems the fastest by chance. So where two estimates are alike, requests in flight decide and chance
//! after them; else the costlier one gets the request the more seldom the costlier it is, and is soon
//! known better. Equal copies get equal shares so, and a slow one little: so little that the slowest
//! hundredth of all answers is not made of its own, since one that has been slow for several answers is
//! told from one that was slow once. Where one of the two is no choice, a third takes its place, so that
//! requests in flight decide all the same.
//!
//! One slow answer raises an estimate half the way, in orders of magnitude: from 2 ms by one of 200 ms
//! to 20 ms. It falls with every faster answer, and with a decay of 10 s where none comes, so a slow
//! endpoint is avoided after one answer and tried again after a while. A failure never lowers an
//! estimate, however fast it came, and raises the penalty; so an endpoint that fails fast attracts no
//! traffic. Low, evenly spread failure rates hardly move the penalty (5 % costs a sixth), so noise
//! does not herd traffic onto whoever failed last longest ago.
//!
//! Not here: which endpoints are candidates (readiness, subset, ejection) – the caller's list.

pub mod hash;
pub mod locality;
pub mod share;
pub mod zones;

use std::time::{Duration, Instant};

/// Time constant with which a latency estimate falls.
pub const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// Time constant with which an idle endpoint's failures are forgotten.
pub const FAILURE_DECAY: Duration = Duration::from_secs(30);
/// The estimate where nothing is known about any endpoint.
pub const LATENCY_UNKNOWN: Duration = Duration::from_millis(30);
/// Estimates below count as this: smaller differences are noise, in-flight requests decide.
pub const LATENCY_FLOOR: Duration = Duration::from_millis(1);
/// What a faster answer takes at least off the difference between it and the estimate, however soon it
/// came after the last.
const FALL_WEIGHT: f64 = 0.3;
/// Two estimates are alike where neither is this many times the other, …
const ALIKE: f64 = 2.0;
/// … with this much added to either latency: smaller differences are the machine's, not the endpoint's.
const LATENCY_NOISE: Duration = Duration::from_millis(5);
/// The least an endpoint that fails counts as, if it was ever believed to be so slow: it must not
/// seem fast for having answered nothing. Not more: what was once slow may be a minute ago.
const FAILURE_FLOOR: Duration = LATENCY_UNKNOWN;
/// How much a slower answer raises, at most, what an endpoint's best answers are believed to take.
const BEST_RISE: f64 = 1.3;
/// What is added to either where best answers are compared.
const BEST_NOISE: Duration = Duration::from_millis(1);
/// Weight of one request in the failure rate: ten failures in a row make it 0.9.
const FAILURE_WEIGHT: f64 = 0.2;
/// Keeps the penalty finite: at most a million-fold.
const SUCCESS_MIN: f64 = 0.01;

/// How a request ended, as the balancer sees it. Latency runs until the response head, or until the
/// end where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// A response that is no sign of trouble.
    Success(Duration),
    /// No response, a 5xx, or 429: never makes the endpoint look better.
    Failure(Duration),
    /// The client went away: says only that it took at least so long.
    Cancelled(Duration),
}

/// What one worker knows about one endpoint's load.
#[derive(Debug, Clone)]
pub struct LoadEstimate {
    /// Seconds, as of `updated`.
    latency: f64,
    /// What the best of its last few answers took, seconds; infinite before the first.
    best: f64,
    /// Share of recent requests that failed, 0 to 1, as of `updated`.
    failures: f64,
    updated: Instant,
    in_flight: u32,
}

impl LoadEstimate {
    /// A new endpoint among `others`: it starts at their median, neither shunned nor flooded.
    #[must_use]
    pub fn neutral<'a>(now: Instant, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut known: Vec<f64> = others.into_iter().map(|other| other.latency_at(now)).collect();
        known.sort_by(f64::total_cmp);
        let latency = known.get(known.len() / 2).copied();
        let latency = latency.unwrap_or(LATENCY_UNKNOWN.as_secs_f64());
        Self { latency, best: f64::INFINITY, failures: 0.0, updated: now, in_flight: 0 }
    }

    /// A request was given to this endpoint. Every `begin` is followed by exactly one `finish`.
    pub fn begin(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// It ended.
    pub fn finish(&mut self, now: Instant, completion: Completion) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let failures = self.failures_at(now);
        match completion {
            Completion::Success(latency) => {
                self.latency = self.after_success(now, latency.as_secs_f64());
                let most = self.best.max(LATENCY_FLOOR.as_secs_f64()) * BEST_RISE;
                self.best = latency.as_secs_f64().min(most);
                self.failures = failures * (1.0 - FAILURE_WEIGHT);
            }
            Completion::Failure(latency) => {
                let floor = self.latency.min(FAILURE_FLOOR.as_secs_f64());
                self.latency = self.latency_at(now).max(floor).max(latency.as_secs_f64());
                self.failures = failures + FAILURE_WEIGHT * (1.0 - failures);
            }
            Completion::Cancelled(latency) if latency.as_secs_f64() <= self.latency_at(now) => {
                return; // Says nothing new; the estimates keep falling as they did.
            }
            Completion::Cancelled(latency) => {
                self.latency = latency.as_secs_f64();
                self.failures = failures;
            }
        }
        self.updated = self.updated.max(now);
    }

    /// The endpoint is as fast as this, whatever was believed before; requests in flight stay.
    pub fn measured(&mut self, now: Instant, latency: Duration) {
        self.failures = self.failures_at(now);
        self.latency = latency.as_secs_f64();
        self.best = self.latency;
        self.updated = self.updated.max(now);
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What one more request here is expected to cost.
    #[must_use]
    pub fn cost(&self, now: Instant) -> Cost {
        let success = (1.0 - self.failures_at(now)).max(SUCCESS_MIN);
        Cost {
            latency: self.latency_at(now).max(LATENCY_FLOOR.as_secs_f64()),
            best: self.best,
            penalty: success.powi(3).recip(),
            load: f64::from(self.in_flight) + 1.0,
        }
    }

    fn after_success(&self, now: Instant, latency: f64) -> f64 {
        if latency > self.latency {
            return (self.latency.max(LATENCY_FLOOR.as_secs_f64()) * latency).sqrt();
        }
        let elapsed = now.saturating_duration_since(self.updated);
        let kept = decay(elapsed, LATENCY_DECAY).min(1.0 - FALL_WEIGHT);
        self.latency * kept + latency * (1.0 - kept)
    }

    /// An idle endpoint's estimate falls towards 0, so that it is tried again.
    fn latency_at(&self, now: Instant) -> f64 {
        self.latency * decay(now.saturating_duration_since(self.updated), LATENCY_DECAY)
    }

    fn failures_at(&self, now: Instant) -> f64 {
        // The usual case, and an exponential saved.
        if self.failures == 0.0 {
            return 0.0;
        }
        self.failures * decay(now.saturating_duration_since(self.updated), FAILURE_DECAY)
    }
}

fn decay(elapsed: Duration, constant: Duration) -> f64 {
    (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp()
}

/// What one more request is expected to cost at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Estimate, seconds; at least [`LATENCY_FLOOR`].
    latency: f64,
    /// Of the best of its last few answers, seconds.
    best: f64,
    /// For failures, from 1.
    penalty: f64,
    /// Requests in flight with this one, per weight.
    load: f64,
}

impl Cost {
    /// The same with so many requests in flight.
    #[must_use]
    pub fn with_in_flight(self, in_flight: u32) -> Self {
        Self { load: f64::from(in_flight) + 1.0, ..self }
    }

    /// The same for an endpoint that is to get `weight` times the requests; at least 1.
    #[must_use]
    pub fn weighted(self, weight: u32) -> Self {
        Self { load: self.load / f64::from(weight.max(1)), ..self }
    }

    /// The same for an endpoint that is to get this part of its share, above 0.
    #[must_use]
    pub fn slowed(self, part: f64) -> Self {
        Self { load: self.load / part, ..self }
    }

    /// All of it; comparable between endpoints, seconds per unit of weight.
    #[must_use]
    pub fn total(self) -> f64 {
        self.latency * self.penalty * self.load
    }

    fn is_alike(self, other: Self) -> bool {
        let estimate = |one: Self| (one.latency + LATENCY_NOISE.as_secs_f64()) * one.penalty;
        let ratio = estimate(self) / estimate(other);
        (ALIKE.recip()..=ALIKE).contains(&ratio)
    }

    /// Does the request go here and not to `other`, which is not alike, for a random `chance` in `[0, 1)`?
    fn wins(self, other: Self, chance: f64) -> bool {
        let best = |one: Self| one.best + BEST_NOISE.as_secs_f64();
        let ratio = self.total() / other.total();
        // Who is dearer and has been slow for several answers loses by that too.
        let both = self.best.is_finite() && other.best.is_finite();
        let slower = if both { best(self) / best(other) } else { 1.0 };
        let odds = match ratio < 1.0 {
            true => ratio * slower.min(1.0),
            false => ratio * slower.max(1.0),
        };
        // 1 : 12 at four times the cost by one late answer, 1 : 1,000 at ten times by many.
        chance * (1.0 + odds * odds.sqrt()) < 1.0
    }
}

/// Picks one of `count` candidates, of two different ones drawn by `random`; all bits of it are used. A
/// third is drawn in place of one that is much dearer. `None` if there are none. Calls `cost` at most
/// three times.
#[inline]
pub fn pick(count: usize, random: u64, mut cost: impl FnMut(usize) -> Cost) -> Option<usize> {
    if count < 2 {
        return count.checked_sub(1);
    }
    let first = scale(random as u32, count);
    let other = scale((random >> 32) as u32, count - 1);
    let second = if other >= first { other + 1 } else { other };
    let costs = (cost(first), cost(second));
    if costs.1.is_alike(costs.0) {
        return Some(if costs.1.load < costs.0.load { second } else { first });
    }
    let second_wins = costs.1.wins(costs.0, chance(random));
    let (winner, of_winner, of_loser) = match second_wins {
        true => (second, costs.1, costs.0),
        false => (first, costs.0, costs.1),
    };
    if count == 2 || of_winner.total() > of_loser.total() {
        return Some(winner);
    }
    let again = (random ^ (random >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mut third = scale((again >> 32) as u32, count - 2);
    for taken in [first.min(second), first.max(second)] {
        third += usize::from(third >= taken);
    }
    let of_third = cost(third);
    let third_wins = match of_third.is_alike(of_winner) {
        true => of_third.load < of_winner.load,
        false => of_third.wins(of_winner, chance(again)),
    };
    Some(if third_wins { third } else { winner })
}

/// A number in `[0, 1)` that tells nothing about which two [`pick`] draws.
#[must_use]
pub fn chance(random: u64) -> f64 {
    let mixed = (random ^ (random >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// Maps 32 random bits evenly onto `0..count`.
#[must_use]
pub fn scale(random: u32, count: usize) -> usize {
    ((u64::from(random) * count as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;
