//! From stored counts to rates per second, shares and quantiles: the one place where they are defined.

use std::collections::BTreeMap;

use heddle_wire::local::observe_api::Rates;

use crate::{
    measure::{
        ANSWER, Answers, BYTES_TO_CALLEE, BYTES_TO_CALLER, CLOSED, CONNECTIONS_OPEN, Dimension,
        LATENCY_SUM, OPENED, REFUSED, REQUESTS_IN_FLIGHT, UNREACHED,
    },
    quantile::{quantile, quantile_with_sum},
    store::Measured,
};

/// Counts of one reporter over one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sums {
    pub(crate) requests: f64,
    pub(crate) client_errors: f64,
    pub(crate) failed: f64,
    pub(crate) injected: f64,
    pub(crate) delayed: f64,
    latency: [f64; 20],
    latency_sum: f64,
    pub(crate) bytes_to_callee: f64,
    pub(crate) bytes_to_caller: f64,
    pub(crate) requests_in_flight: f64,
    pub(crate) connections_open: f64,
    /// By number of the kind of answer.
    pub(crate) answers: BTreeMap<Dimension, f64>,
}

impl Sums {
    /// Adds the numbers of one place in one slot.
    pub(crate) fn add(&mut self, counts: &[(Dimension, f32)], answers: &Answers) {
        for &(dimension, count) in counts {
            let count = f64::from(count);
            match dimension {
                bucket if usize::from(bucket) < self.latency.len() => {
                    self.latency[usize::from(bucket)] += count;
                }
                LATENCY_SUM => self.latency_sum += count,
                OPENED | REFUSED => self.requests += count,
                // A connection that was refused before it was counted as opened is a request too.
                UNREACHED => self.failed += count,
                BYTES_TO_CALLEE => self.bytes_to_callee += count,
                BYTES_TO_CALLER => self.bytes_to_caller += count,
                REQUESTS_IN_FLIGHT => self.requests_in_flight += count,
                CONNECTIONS_OPEN => self.connections_open += count,
                CLOSED => {}
                number if number >= ANSWER => self.add_answer(number, count, answers),
                _ => {}
            }
        }
    }

    fn add_answer(&mut self, number: Dimension, count: f64, answers: &Answers) {
        let Some(answer) = answers.get(number) else { return };
        self.requests += count;
        *self.answers.entry(number).or_default() += count;
        if answer.injected() {
            self.injected += count;
        } else if answer.failed() {
            self.failed += count;
        } else if answer.client_error() {
            self.client_errors += count;
        }
        if answer.delayed() {
            self.delayed += count;
        }
    }

    /// Adds another step or place.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.latency_sum += other.latency_sum;
        self.client_errors += other.client_errors;
        self.failed += other.failed;
        self.injected += other.injected;
        self.delayed += other.delayed;
        self.bytes_to_callee += other.bytes_to_callee;
        self.bytes_to_caller += other.bytes_to_caller;
        self.requests_in_flight += other.requests_in_flight;
        self.connections_open += other.connections_open;
        for (mine, theirs) in self.latency.iter_mut().zip(other.latency) {
            *mine += theirs;
        }
        for (&number, &count) in &other.answers {
            *self.answers.entry(number).or_default() += count;
        }
    }

    /// Is there anything to show?
    pub(crate) fn any(&self) -> bool {
        self.requests > 0.0
            || self.failed > 0.0
            || self.bytes_to_callee > 0.0
            || self.bytes_to_caller > 0.0
    }

    /// Share of the calls that failed, injected aborts left out of both numbers; 0 where nothing was asked.
    pub(crate) fn failed_share(&self) -> f64 {
        // On TCP a refused connection may never have been counted as opened.
        let asked = (self.requests - self.injected).max(self.failed);
        if asked > 0.0 { (self.failed / asked).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The golden signals over the seconds that were measured.
    pub(crate) fn rates(&self, measured: Measured) -> Rates {
        let per_second = |count: f64| per(count, measured.seconds);
        Rates {
            per_second: per_second(self.requests),
            success: 1.0 - self.failed_share(),
            client_errors_per_second: per_second(self.client_errors),
            server_errors_per_second: per_second(self.failed),
            injected_per_second: per_second(self.injected),
            delayed_per_second: per_second(self.delayed),
            p50_ms: self.quantile(0.5),
            p90_ms: self.quantile(0.9),
            p99_ms: self.quantile(0.99),
        }
    }

    /// Milliseconds; where a sidecar sends no sum, by its buckets alone.
    fn quantile(&self, q: f64) -> Option<f64> {
        if self.latency_sum > 0.0 {
            quantile_with_sum(&self.latency, self.latency_sum, q)
        } else {
            quantile(&self.latency, q)
        }
    }

    /// A service's saturation: what it has in flight on average; connections where it speaks TCP.
    pub(crate) fn in_flight(&self, measured: Measured, tcp: bool) -> f64 {
        let sum = if tcp { self.connections_open } else { self.requests_in_flight };
        per(sum, f64::from(measured.rounds))
    }
}

/// A count over seconds (or rounds); 0 where nothing was measured.
pub(crate) fn per(count: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

/// Both sides of the same calls.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sides {
    pub(crate) client: Sums,
    pub(crate) server: Sums,
}

impl Sides {
    pub(crate) fn side(&mut self, reporter: crate::measure::Reporter) -> &mut Sums {
        match reporter {
            crate::measure::Reporter::Client => &mut self.client,
            crate::measure::Reporter::Server => &mut self.server,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.client.merge(&other.client);
        self.server.merge(&other.server);
    }

    /// The server's own numbers; its callers' where it has measured nothing.
    pub(crate) fn own(&self) -> &Sums {
        if self.server.any() { &self.server } else { &self.client }
    }

    /// Bytes per second to the callee and back: each as counted by the side that counted more, because
    /// the two sides write them at different moments.
    pub(crate) fn bytes(&self, measured: Measured) -> (f64, f64) {
        let larger = |a: f64, b: f64| per(a.max(b), measured.seconds);
        (
            larger(self.client.bytes_to_callee, self.server.bytes_to_callee),
            larger(self.client.bytes_to_caller, self.server.bytes_to_caller),
        )
    }
}
