//! What became of the requests that each HTTP rule decided about, and how long they took.
//!
//! A rule finds its counters once and keeps them, so that a request costs a few additions and no lock. Counters go by
//! what the rule is called and whom it is about, not by generation: a rule that is put in force again goes on where it
//! was. Rules that decided nothing yet are absent.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    edge::Escaped,
    histogram::{MILLISECONDS, decimal},
};
use crate::{
    limits::RULES_COUNTED,
    refusal::{Flag, Flags},
};

/// Its requests, by what came of them.
pub(super) const REQUESTS: (&str, &str) =
    ("heddle_rule_requests_total", "HTTP requests that a rule decided about.");
/// How long they took, but for aborts.
pub(super) const DURATION: (&str, &str) = (
    "heddle_rule_request_duration_milliseconds",
    "Requests that a rule decided about and did not abort, first byte to last, ms.",
);

/// Code and flags of each outcome: no answer, the classes of status, and an injected abort.
const OUTCOMES: [(&str, &str); 7] = [
    ("0", "-"),
    ("1xx", "-"),
    ("2xx", "-"),
    ("3xx", "-"),
    ("4xx", "-"),
    ("5xx", "-"),
    ("aborted", "FI"),
];
const ABORTED: usize = OUTCOMES.len() - 1;

/// What a call of gRPC came to, as a class of HTTP's status by `google.rpc.Code`: its own status is 200 in any case.
const GRPC_CLASSES: [usize; 17] = [2, 4, 5, 4, 5, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 4];

/// One rule's requests.
#[derive(Debug, Default)]
pub(crate) struct RuleCounts {
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// Not cumulative; the last is above all bounds.
    buckets: [AtomicU64; MILLISECONDS.len() + 1],
    sum_us: AtomicU64,
}

impl RuleCounts {
    /// Counts a finished request; `grpc` is its status of gRPC, if it has one.
    pub(crate) fn record(&self, status: u16, grpc: Option<u32>, flags: Flags, duration: Duration) {
        if flags.has(Flag::FI) {
            self.outcomes[ABORTED].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let class = match grpc {
            Some(grpc) => *GRPC_CLASSES.get(grpc as usize).unwrap_or(&5),
            None => usize::from(status / 100).min(5),
        };
        self.outcomes[class].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = MILLISECONDS.iter().position(|bound| us <= *bound);
        self.buckets[bucket.unwrap_or(MILLISECONDS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// The counters of all rules that decided about a request, by their labels.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<(Box<str>, Arc<RuleCounts>)>);

impl Rules {
    /// Those of a rule about calls to `service`; beyond [`RULES_COUNTED`] rules share theirs.
    pub(super) fn of(&mut self, service: &str, rule: &str) -> Arc<RuleCounts> {
        let labels = labels(service, rule);
        if let Some(known) = self.find(&labels) {
            return known;
        }
        let labels = match self.0.len() < RULES_COUNTED {
            true => labels,
            false => labels_of_others(),
        };
        self.find(&labels).unwrap_or_else(|| {
            let counts = Arc::<RuleCounts>::default();
            self.0.push((labels, Arc::clone(&counts)));
            counts
        })
    }

    fn find(&self, labels: &str) -> Option<Arc<RuleCounts>> {
        let found = self.0.iter().find(|(known, _)| **known == *labels);
        found.map(|(_, counts)| Arc::clone(counts))
    }

    /// The rule at this place; rules are only ever added.
    pub(super) fn at(&self, index: usize) -> Option<(Box<str>, Arc<RuleCounts>)> {
        self.0.get(index).cloned()
    }
}

fn labels(service: &str, rule: &str) -> Box<str> {
    format!("destination_service=\"{}\",rule=\"{}\"", Escaped(service), Escaped(rule)).into()
}

fn labels_of_others() -> Box<str> {
    labels("overflow", "overflow")
}

/// Writes a rule's requests.
pub(super) fn requests(text: &mut String, (labels, counts): &(Box<str>, Arc<RuleCounts>)) {
    let name = REQUESTS.0;
    for ((code, flags), count) in OUTCOMES.iter().zip(&counts.outcomes) {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(
                text,
                "{name}{{{labels},response_code=\"{code}\",response_flags=\"{flags}\"}} {count}"
            );
        }
    }
}

/// Writes how long they took.
pub(super) fn durations(text: &mut String, (labels, counts): &(Box<str>, Arc<RuleCounts>)) {
    let name = DURATION.0;
    let mut total = 0;
    for (index, count) in counts.buckets.iter().enumerate() {
        total += count.load(Ordering::Relaxed);
        let _ = write!(text, "{name}_bucket{{{labels},le=\"");
        match MILLISECONDS.get(index) {
            Some(bound) => decimal(text, *bound),
            None => text.push_str("+Inf"),
        }
        let _ = writeln!(text, "\"}} {total}");
    }
    let _ = write!(text, "{name}_sum{{{labels}}} ");
    decimal(text, counts.sum_us.load(Ordering::Relaxed));
    let _ = writeln!(text, "\n{name}_count{{{labels}}} {total}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(flag: Option<Flag>) -> Flags {
        let mut flags = Flags::default();
        if let Some(flag) = flag {
            flags.set(flag);
        }
        flags
    }

    #[test]
    fn a_rule_keeps_its_counters_and_an_abort_has_no_duration() {
        let mut rules = Rules::default();
        let rule = "VirtualService/default/ratings#http[0]";
        let first = rules.of("ratings.default.svc.cluster.local", rule);
        let again = rules.of("ratings.default.svc.cluster.local", rule);
        assert!(Arc::ptr_eq(&first, &again));
        first.record(200, None, flags(None), Duration::from_millis(3));
        first.record(200, Some(14), flags(None), Duration::from_millis(3));
        first.record(503, None, flags(Some(Flag::FI)), Duration::ZERO);
        let (mut text, row) = (String::new(), rules.at(0).unwrap());
        requests(&mut text, &row);
        durations(&mut text, &row);
        for line in [
            "response_code=\"2xx\",response_flags=\"-\"} 1",
            "response_code=\"5xx\",response_flags=\"-\"} 1",
            "response_code=\"aborted\",response_flags=\"FI\"} 1",
            "le=\"1\"} 0",
            "le=\"5\"} 2",
            "le=\"+Inf\"} 2",
        ] {
            assert!(text.contains(line), "{line} is in\n{text}");
        }
        assert!(text.contains("_sum{destination_service=\"ratings.default.svc.cluster.local\""));
    }

    #[test]
    fn names_of_rules_are_escaped_and_beyond_the_limit_shared() {
        let mut rules = Rules::default();
        for number in 0..RULES_COUNTED + 9 {
            rules.of("a", &format!("a\"}} 1\n#{number}"));
        }
        assert!(rules.at(0).unwrap().0.ends_with("rule=\"a\\\"} 1\\n#0\""));
        assert!(rules.at(RULES_COUNTED).unwrap().0.contains("rule=\"overflow\""));
        assert!(rules.at(RULES_COUNTED + 1).is_none());
    }
}
