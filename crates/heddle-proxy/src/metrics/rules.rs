//! What became of the requests that each HTTP rule decided about, and how long they took.
//!
//! A rule finds its counters once and keeps them, and each worker has a share of its own, so that a request costs a few
//! additions, no lock and no locked instruction. Counters go by
//! what the rule is called and whom it is about, not by generation: a rule that is put in force again goes on where it
//! was. Rules that decided nothing yet are absent.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::{
    counter::Counter,
    edge::Escaped,
    histogram::{Histogram, MILLISECONDS},
    render::histogram,
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
#[derive(Debug)]
pub(crate) struct RuleCounts {
    labels: String,
    shards: Vec<Arc<RuleSeries>>,
}

/// One worker's share of them. Written on that worker only.
#[derive(Debug)]
struct RuleSeries {
    outcomes: [Counter; OUTCOMES.len()],
    duration_ms: Histogram<{ MILLISECONDS.len() }>,
}

impl Default for RuleSeries {
    fn default() -> Self {
        Self { outcomes: Default::default(), duration_ms: Histogram::new(&MILLISECONDS) }
    }
}

impl RuleCounts {
    fn new(labels: String, workers: usize) -> Self {
        let shards = (0..workers).map(|_| Arc::default()).collect();
        Self { labels, shards }
    }

    /// Counts a finished request on `worker`, which is the one that runs; `grpc` is its status of gRPC, if it
    /// has one.
    pub(crate) fn record(
        &self,
        worker: usize,
        (status, grpc): (u16, Option<u32>),
        flags: Flags,
        duration: Duration,
    ) {
        let Some(shard) = self.shards.get(worker) else { return };
        if flags.has(Flag::FI) {
            shard.outcomes[ABORTED].add(1);
            return;
        }
        let class = match grpc {
            Some(grpc) => *GRPC_CLASSES.get(grpc as usize).unwrap_or(&5),
            None => usize::from(status / 100).min(5),
        };
        shard.outcomes[class].add(1);
        shard.duration_ms.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The counters of all rules that decided about a request, by their labels.
#[derive(Debug)]
pub(super) struct Rules {
    workers: usize,
    all: Vec<Arc<RuleCounts>>,
}

impl Rules {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, all: Vec::new() }
    }

    /// Those of a rule about calls to `service`; beyond [`RULES_COUNTED`] rules share theirs.
    pub(super) fn of(&mut self, service: &str, rule: &str) -> Arc<RuleCounts> {
        let labels = labels(service, rule);
        if let Some(known) = self.find(&labels) {
            return known;
        }
        let labels = match self.all.len() < RULES_COUNTED {
            true => labels,
            false => labels_of_others(),
        };
        self.find(&labels).unwrap_or_else(|| {
            let counts = Arc::new(RuleCounts::new(labels, self.workers));
            self.all.push(Arc::clone(&counts));
            counts
        })
    }

    fn find(&self, labels: &str) -> Option<Arc<RuleCounts>> {
        self.all.iter().find(|known| *known.labels == *labels).map(Arc::clone)
    }

    /// The rule at this place; rules are only ever added.
    pub(super) fn at(&self, index: usize) -> Option<Arc<RuleCounts>> {
        self.all.get(index).cloned()
    }
}

fn labels(service: &str, rule: &str) -> String {
    format!("destination_service=\"{}\",rule=\"{}\"", Escaped(service), Escaped(rule))
}

fn labels_of_others() -> String {
    labels("overflow", "overflow")
}

/// Writes a rule's requests.
pub(super) fn requests(text: &mut String, counts: &RuleCounts) {
    let (name, labels) = (REQUESTS.0, &counts.labels);
    for (outcome, (code, flags)) in OUTCOMES.iter().enumerate() {
        let count: u64 = counts.shards.iter().map(|shard| shard.outcomes[outcome].get()).sum();
        if count > 0 {
            let _ = writeln!(
                text,
                "{name}{{{labels},response_code=\"{code}\",response_flags=\"{flags}\"}} {count}"
            );
        }
    }
}

/// Writes how long they took.
pub(super) fn durations(text: &mut String, counts: &RuleCounts) {
    histogram(text, DURATION.0, (&counts.labels, &counts.shards), |shard| {
        shard.duration_ms.shard()
    });
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
        let mut rules = Rules::new(2);
        let rule = "VirtualService/default/ratings#http[0]";
        let first = rules.of("ratings.default.svc.cluster.local", rule);
        let again = rules.of("ratings.default.svc.cluster.local", rule);
        assert!(Arc::ptr_eq(&first, &again));
        first.record(0, (200, None), flags(None), Duration::from_millis(3));
        first.record(1, (200, Some(14)), flags(None), Duration::from_millis(3));
        first.record(1, (200, None), flags(None), Duration::from_millis(3));
        first.record(0, (503, None), flags(Some(Flag::FI)), Duration::ZERO);
        let (mut text, row) = (String::new(), rules.at(0).unwrap());
        requests(&mut text, &row);
        durations(&mut text, &row);
        for line in [
            "response_code=\"2xx\",response_flags=\"-\"} 2",
            "response_code=\"5xx\",response_flags=\"-\"} 1",
            "response_code=\"aborted\",response_flags=\"FI\"} 1",
            "le=\"1\"} 0",
            "le=\"5\"} 3",
            "le=\"+Inf\"} 3",
        ] {
            assert!(text.contains(line), "{line} is in\n{text}");
        }
        assert!(text.contains("_sum{destination_service=\"ratings.default.svc.cluster.local\""));
    }

    #[test]
    fn names_of_rules_are_escaped_and_beyond_the_limit_shared() {
        let mut rules = Rules::new(2);
        for number in 0..RULES_COUNTED + 9 {
            rules.of("a", &format!("a\"}} 1\n#{number}"));
        }
        assert!(rules.at(0).unwrap().labels.ends_with("rule=\"a\\\"} 1\\n#0\""));
        assert!(rules.at(RULES_COUNTED).unwrap().labels.contains("rule=\"overflow\""));
        assert!(rules.at(RULES_COUNTED + 1).is_none());
    }
}
