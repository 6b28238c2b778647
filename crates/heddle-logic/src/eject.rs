//! When an endpoint is taken out for its errors in a row, for how long, and how it comes back.
//!
//! A [`Health`] is what one proxy knows of one endpoint of one cluster. It counts as Envoy does: an
//! error moves every count on that it belongs to, and an answer that is none begins it anew. When its
//! time is over an endpoint is not trusted at once: one request is let through, and what comes of that
//! decides, so that an endpoint that is still broken costs one request per period and not as many as
//! took it out.
//!
//! Not here: who is a candidate besides (readiness, subset), and what shares a [`Health`] among threads.

use std::time::{Duration, Instant};

use heddle_model::discovery::OutlierDetection;

/// Longest ejection, unless the first is longer already.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);

/// What was seen of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It answered with this status, be it HTTP's own or what a status of gRPC stands for.
    Answer(u16),
    /// A connection was made, which is all there is to judge by.
    Connected,
    /// No connection was made, or it broke before there was an answer.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
}

/// Why an endpoint is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Answers of 5xx in a row.
    Consecutive5xx,
    /// Answers of 502, 503 or 504 in a row.
    ConsecutiveGateway,
    /// Failures to connect or resets in a row.
    ConsecutiveLocalOrigin,
    /// It failed the one request it was tried with.
    Probe,
    /// It succeeds much more seldom than the others.
    SuccessRate,
    /// Too many of its answers are errors.
    FailurePercentage,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGateway,
        Self::ConsecutiveLocalOrigin,
        Self::Probe,
        Self::SuccessRate,
        Self::FailurePercentage,
    ];

    /// Its name, as Istio calls the field that asks for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive5xxErrors",
            Self::ConsecutiveGateway => "consecutiveGatewayErrors",
            Self::ConsecutiveLocalOrigin => "consecutiveLocalOriginFailures",
            Self::Probe => "probe",
            Self::SuccessRate => "successRate",
            Self::FailurePercentage => "failurePercentage",
        }
    }
}

/// An endpoint's time out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub reason: Reason,
    /// Since when without a break: a failed probe does not begin it anew.
    pub since: Instant,
    /// When it is tried again.
    pub until: Instant,
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes requests.
    In,
    /// It takes none.
    Out,
    /// Its time is over: it takes one, to see.
    Due,
    /// That one is under way.
    Tried,
}

/// Errors in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    server_errors: u32,
    gateway_errors: u32,
    local_origin: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    In { counts: Counts, since: Option<Instant> },
    Out { ejection: Ejection, tried: bool },
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    state: State,
    /// How many times the base its last ejection lasted.
    steps: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::In { counts: Counts::default(), since: None }, steps: 0 }
    }
}

impl Health {
    /// Is there nothing to remember, so that another success would change nothing?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        matches!(
            self.state,
            State::In {
                counts: Counts { server_errors: 0, gateway_errors: 0, local_origin: 0 },
                ..
            }
        )
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::In { .. } => Standing::In,
            State::Out { tried: true, .. } => Standing::Tried,
            State::Out { ejection, .. } if ejection.until <= now => Standing::Due,
            State::Out { .. } => Standing::Out,
        }
    }

    /// Its time out, also while it is tried.
    #[must_use]
    pub fn ejection(&self) -> Option<Ejection> {
        match self.state {
            State::In { .. } => None,
            State::Out { ejection, .. } => Some(ejection),
        }
    }

    /// Is the one request under way that it is tried with?
    #[must_use]
    pub fn is_tried(&self) -> bool {
        matches!(self.state, State::Out { tried: true, .. })
    }

    /// Counts what was seen of a request that is no probe; tells why it is to be taken out, if it is.
    /// The count that says so begins anew, whether it is taken out or may not be.
    pub fn saw(&mut self, rule: &OutlierDetection, seen: Seen) -> Option<Reason> {
        // What was under way when it was taken out says nothing new.
        let State::In { counts, .. } = &mut self.state else { return None };
        if rule.splits_local_origin && !matches!(seen, Seen::Answer(_)) {
            return counts.local(rule, seen);
        }
        let status = match seen {
            Seen::Answer(status) => {
                counts.local_origin = 0;
                status
            }
            Seen::Connected => 200,
            Seen::Unreachable => 503,
            Seen::TimedOut => 504,
        };
        counts.answer(rule, status)
    }

    /// Takes it out.
    pub fn eject(&mut self, rule: &OutlierDetection, reason: Reason, now: Instant) {
        let since = match self.state {
            State::Out { ejection, .. } => ejection.since,
            State::In { since, .. } => {
                // Time in which it behaved counts for it.
                let interval = rule.interval.as_nanos().max(1);
                let behaved = since.map(|since| now.saturating_duration_since(since).as_nanos());
                let forgiven = behaved.unwrap_or(0) / interval;
                self.steps = self.steps.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
                now
            }
        };
        let longest = EJECTION_MAX.max(rule.base_ejection_time);
        // What is longest already is not made to take longer to forgive.
        if rule.base_ejection_time.saturating_mul(self.steps) < longest {
            self.steps = self.steps.saturating_add(1);
        }
        let lasts = rule.base_ejection_time.saturating_mul(self.steps).min(longest);
        let until = now.checked_add(lasts).unwrap_or(now);
        self.state = State::Out { ejection: Ejection { reason, since, until }, tried: false };
    }

    /// Takes it for one request, to see; false if it is not due.
    pub fn try_out(&mut self, now: Instant) -> bool {
        let due = self.standing(now) == Standing::Due;
        if let State::Out { tried, .. } = &mut self.state {
            *tried |= due;
        }
        due
    }

    /// That request ended: well or not, or, by nobody's fault but its client's, without a word on it.
    /// Returns true where it is out for another time.
    pub fn tried(&mut self, rule: &OutlierDetection, seen: Option<Seen>, now: Instant) -> bool {
        let State::Out { tried, .. } = &mut self.state else { return false };
        match seen {
            None => *tried = false,
            Some(seen) if fails(rule, seen) => {
                self.eject(rule, Reason::Probe, now);
                return true;
            }
            Some(_) => self.state = State::In { counts: Counts::default(), since: Some(now) },
        }
        false
    }
}

impl Counts {
    fn answer(&mut self, rule: &OutlierDetection, status: u16) -> Option<Reason> {
        let gateway = matches!(status, 502..=504);
        let server = (500..600).contains(&status);
        let gateway = reached(&mut self.gateway_errors, gateway, rule.consecutive_gateway);
        let server = reached(&mut self.server_errors, server, rule.consecutive_5xx);
        match () {
            () if gateway => Some(Reason::ConsecutiveGateway),
            () if server => Some(Reason::Consecutive5xx),
            () => None,
        }
    }

    fn local(&mut self, rule: &OutlierDetection, seen: Seen) -> Option<Reason> {
        let failed = matches!(seen, Seen::Unreachable | Seen::TimedOut);
        let reached = reached(&mut self.local_origin, failed, rule.consecutive_local_origin);
        reached.then_some(Reason::ConsecutiveLocalOrigin)
    }
}

/// Counts one more in a row, or begins anew; true where that makes as many as are asked for.
fn reached(count: &mut u32, failed: bool, asked: u32) -> bool {
    *count = if failed { count.saturating_add(1) } else { 0 };
    let reached = asked > 0 && *count >= asked;
    if reached {
        *count = 0;
    }
    reached
}

/// Does this count as a failure by any count that the rule asks for?
fn fails(rule: &OutlierDetection, seen: Seen) -> bool {
    match seen {
        Seen::Connected => false,
        Seen::Unreachable | Seen::TimedOut => true,
        Seen::Answer(status @ 500..600) => {
            rule.consecutive_5xx > 0
                || rule.counts_rates()
                || matches!(status, 502..=504) && rule.consecutive_gateway > 0
        }
        Seen::Answer(_) => false,
    }
}

/// What came of an endpoint's requests within an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests.
    pub all: u32,
    /// Of them, those that did not fail.
    pub well: u32,
}

impl Tally {
    fn success_percent(self) -> f64 {
        100.0 * f64::from(self.well) / f64::from(self.all.max(1))
    }
}

/// Is this a failure where shares are counted?
#[must_use]
pub fn is_failure(seen: Seen) -> bool {
    match seen {
        Seen::Answer(status) => (500..600).contains(&status),
        Seen::Connected => false,
        Seen::Unreachable | Seen::TimedOut => true,
    }
}

/// What was seen, as `rule` has it counted: where that names the statuses that are errors, an answer of one of
/// them is an error of the server (500) and any other is none, as Envoy does with an `error_matcher`.
#[must_use]
pub fn as_counted(rule: &OutlierDetection, seen: Seen) -> Seen {
    match seen {
        Seen::Answer(status) if !rule.error_codes.is_empty() => {
            Seen::Answer(if rule.error_codes.contains(&status) { 500 } else { 200 })
        }
        seen => seen,
    }
}

/// Which endpoints are outliers by the shares of their requests that fail, with why, in order; as Envoy
/// computes it at the end of each interval.
#[must_use]
pub fn outliers(rule: &OutlierDetection, tallies: &[Tally]) -> Vec<(usize, Reason)> {
    let with = |volume: u32, hosts: u32| -> Vec<(usize, f64)> {
        let enough = tallies.iter().enumerate().filter(|(_, one)| one.all >= volume.max(1));
        let rates: Vec<_> = enough.map(|(at, one)| (at, one.success_percent())).collect();
        if rates.len() < hosts as usize { Vec::new() } else { rates }
    };
    let mut found = std::collections::BTreeMap::new();
    if let Some(one) = rule.failure_percentage {
        for (at, rate) in with(one.request_volume, one.minimum_hosts) {
            if 100.0 - rate >= f64::from(one.threshold) {
                found.insert(at, Reason::FailurePercentage);
            }
        }
    }
    if let Some(one) = rule.success_rate {
        let rates = with(one.request_volume, one.minimum_hosts);
        let count = rates.len().max(1) as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - f64::from(one.stdev_factor) / 1_000.0 * variance.sqrt();
        let low = rates.into_iter().filter(|(_, rate)| *rate < least);
        found.extend(low.map(|(at, _)| (at, Reason::SuccessRate)));
    }
    found.into_iter().collect()
}

/// May one more of `all` be taken out, where `out` are?
#[must_use]
pub fn may_eject(rule: &OutlierDetection, out: usize, all: usize) -> bool {
    // One may be, however few there are.
    out == 0 || share(out, all) < f64::from(rule.max_ejection_percent)
}

/// Are so few in that all are used, as if none were out?
#[must_use]
pub fn panics(rule: &OutlierDetection, out: usize, all: usize) -> bool {
    share(all.saturating_sub(out), all) < f64::from(rule.min_health_percent)
}

fn share(of: usize, all: usize) -> f64 {
    100.0 * of as f64 / all.max(1) as f64
}

/// The HTTP status that a status of gRPC stands for, where one is counted with answers of HTTP.
#[must_use]
pub fn http_of_grpc(status: u32) -> u16 {
    u8::try_from(status).map_or(500, heddle_model::discovery::http_of_grpc)
}

#[cfg(test)]
mod tests;
