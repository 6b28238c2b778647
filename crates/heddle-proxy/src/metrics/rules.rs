//! What became of the requests that each HTTP rule decided about, and how long they took; and the same of each path that
//! the workload serves, by its template.
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
    limits::{PATHS_COUNTED, RULES_COUNTED},
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

/// Requests of a path, by what came of them.
pub(super) const PATH_REQUESTS: (&str, &str) =
    ("heddle_path_requests_total", "HTTP requests to the workload by the template of their path.");
/// How long they took, but for aborts.
pub(super) const PATH_DURATION: (&str, &str) = (
    "heddle_path_request_duration_milliseconds",
    "Requests to the workload that were not aborted, by the template of their path, first byte to last, ms.",
);
/// What a path counts under that has never been answered but with 4xx: whoever tries paths makes no label.
pub(crate) const UNKNOWN_PATH: &str = "unknown";
/// What all share that found no room.
const OVERFLOW: &str = "overflow";

/// What requests are counted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sort {
    label: &'static str,
    /// Most with counters of their own.
    max: usize,
    /// Do those beyond it share the counters of their service?
    by_service: bool,
}

/// By the rule that decided.
pub(super) const BY_RULE: Sort = Sort { label: "rule", max: RULES_COUNTED, by_service: false };
/// By path, behind which the service is always ours.
pub(super) const BY_PATH: Sort = Sort { label: "path", max: PATHS_COUNTED, by_service: true };

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

/// The counters of all rules that decided about a request, or of all paths, by their labels.
#[derive(Debug)]
pub(super) struct Rules {
    workers: usize,
    sort: Sort,
    all: Vec<Arc<RuleCounts>>,
}

impl Rules {
    pub(super) fn new(workers: usize, sort: Sort) -> Self {
        Self { workers, sort, all: Vec::new() }
    }

    /// Those of a rule about calls to `service`; beyond their limit rules share theirs.
    pub(super) fn of(&mut self, service: &str, rule: &str) -> Arc<RuleCounts> {
        let Sort { label, max, by_service } = self.sort;
        let mut labels = labels(service, (label, rule));
        if let Some(known) = self.find(&labels) {
            return known;
        }
        if self.all.len() >= max && rule != UNKNOWN_PATH {
            // A workload is of few services; but whoever knows how to be of many makes no more.
            let of = if by_service && self.all.len() < 2 * max { service } else { OVERFLOW };
            labels = self::labels(of, (label, OVERFLOW));
        }
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

fn labels(service: &str, (label, rule): (&str, &str)) -> String {
    format!("destination_service=\"{}\",{label}=\"{}\"", Escaped(service), Escaped(rule))
}

/// Writes a rule's requests as a metric of that name.
pub(super) fn requests(text: &mut String, name: &str, counts: &RuleCounts) {
    let labels = &counts.labels;
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

/// Writes how long they took, likewise.
pub(super) fn durations(text: &mut String, name: &str, counts: &RuleCounts) {
    histogram(text, name, (&counts.labels, &counts.shards), |shard| shard.duration_ms.shard());
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
        let mut rules = Rules::new(2, BY_RULE);
        let rule = "VirtualService/default/ratings#http[0]";
        let first = rules.of("ratings.default.svc.cluster.local", rule);
        let again = rules.of("ratings.default.svc.cluster.local", rule);
        assert!(Arc::ptr_eq(&first, &again));
        first.record(0, (200, None), flags(None), Duration::from_millis(3));
        first.record(1, (200, Some(14)), flags(None), Duration::from_millis(3));
        first.record(1, (200, None), flags(None), Duration::from_millis(3));
        first.record(0, (503, None), flags(Some(Flag::FI)), Duration::ZERO);
        let (mut text, row) = (String::new(), rules.at(0).unwrap());
        requests(&mut text, REQUESTS.0, &row);
        durations(&mut text, DURATION.0, &row);
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
        let mut rules = Rules::new(2, BY_RULE);
        for number in 0..RULES_COUNTED + 9 {
            rules.of("a", &format!("a\"}} 1\n#{number}"));
        }
        assert!(rules.at(0).unwrap().labels.ends_with("rule=\"a\\\"} 1\\n#0\""));
        assert!(rules.at(RULES_COUNTED).unwrap().labels.contains("rule=\"overflow\""));
        assert!(rules.at(RULES_COUNTED + 1).is_none());
    }

    #[test]
    fn paths_beyond_the_limit_share_the_counters_of_their_service() {
        let mut paths = Rules::new(1, BY_PATH);
        for number in 0..PATHS_COUNTED + 9 {
            paths.of("a", &format!("/{number}"));
        }
        assert!(paths.at(PATHS_COUNTED).unwrap().labels.ends_with("=\"a\",path=\"overflow\""));
        assert!(paths.at(PATHS_COUNTED + 1).is_none());
        assert!(paths.of("a", UNKNOWN_PATH).labels.ends_with("path=\"unknown\""));
        assert!(paths.of("a", "/0").labels.ends_with("path=\"/0\""));
        for number in 0..PATHS_COUNTED * 3 {
            paths.of(&number.to_string(), "/more");
        }
        assert!(paths.all.len() <= 2 * PATHS_COUNTED + 1, "{}", paths.all.len());
    }
}
