//! One scrape: all metrics, as text that is made in pieces while it is taken.
//!
//! A proxy at its limit of label sets has tens of megabytes to say. Whole, they would be the
//! process's memory several times over for each peer that reads slowly; so there is never more of
//! the text than a piece, and its maker goes on where it stopped. The format wants all samples of a
//! metric together, so the label sets are gone through once per metric.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use heddle_model::discovery::ClusterKey;
use heddle_runtime::tls::TlsFault;

use super::{
    AppScrape, Metrics, MirrorResult, RetryReason, hidden,
    registry::{LabelSet, Sets},
    render::{
        Count, HTTP_COUNTERS, HTTP_HISTOGRAMS, Row, Spread, TCP_COUNTERS, by_direction, counter,
        family, histogram,
    },
    rules::{self, RuleCounts},
    series::{HttpSeries, TcpSeries},
    tags::Bits,
};
use crate::{
    breaker::{Breakers, Ejected},
    direction::Direction,
    limits::SCRAPE_PIECE_BYTES,
    refusal::RefusalCode,
    verdict::{Reason, Verdict},
};

/// A scrape under way: an iterator over pieces of Prometheus' text format 0.0.4, each of about
/// [`SCRAPE_PIECE_BYTES`] and at most one sample's lines more.
#[derive(Debug)]
pub struct Scrape {
    metrics: Arc<Metrics>,
    /// Label sets there were when it began: every metric shows the same ones.
    http: Sets<HttpSeries>,
    tcp: Sets<TcpSeries>,
    /// Metrics that are not told, likewise.
    hidden: u32,
    part: usize,
    /// Samples of the part that are said.
    said: usize,
    /// Is it said when this process began?
    process: bool,
}

/// What was said next.
pub(super) enum Said {
    /// Lines.
    Text(String),
    /// A histogram of a label set, if it is told; behind the lines that head all of its name.
    Histogram(String, Option<Arc<LabelSet<HttpSeries>>>, Spread<HttpSeries>),
}

/// What is said in turn.
enum Part {
    Own,
    Verdicts,
    RuleRequests,
    RuleDurations,
    PathRequests,
    PathDurations,
    HttpCounter(Row<Count<HttpSeries>>),
    Histogram(Row<Spread<HttpSeries>>),
    TcpCounter(Row<Count<TcpSeries>>),
}

impl Part {
    fn of(index: usize) -> Option<Self> {
        // In flight first: a scrape that shows 0 shows every request that was begun before it.
        let own = [Self::Own, Self::Verdicts, Self::RuleRequests, Self::RuleDurations];
        let own = own.into_iter().chain([Self::PathRequests, Self::PathDurations]);
        own.chain(HTTP_COUNTERS.map(Self::HttpCounter))
            .chain(HTTP_HISTOGRAMS.map(Self::Histogram))
            .chain(TCP_COUNTERS.map(Self::TcpCounter))
            .nth(index)
    }
}

impl Scrape {
    /// One that shows the label sets of now.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (http, tcp) = metrics.lock().sets();
        let hidden = metrics.hidden.load(std::sync::atomic::Ordering::Relaxed);
        Self { metrics, http, tcp, hidden, part: 0, said: 0, process: true }
    }

    /// The same without what any process has, for a page on which another's stands.
    #[must_use]
    pub fn without_process(self) -> Self {
        Self { process: false, ..self }
    }

    /// Says the next sample; a histogram as it is, not as lines.
    pub(super) fn next_said(&mut self) -> Option<Said> {
        loop {
            let part = Part::of(self.part)?;
            let mut text = String::new();
            let said = self.said;
            let Part::Histogram((name, help, spread)) = part else {
                self.advance(self.say(&part, &mut text));
                match text.is_empty() {
                    true => continue,
                    false => return Some(Said::Text(text)),
                }
            };
            let Some(set) = self.http.get(said).map(Arc::clone) else {
                self.advance(false);
                continue;
            };
            if said == 0 {
                family(&mut text, name, "histogram", help);
            }
            self.advance(true);
            let told = self.tells(Bits::of_name(name), &set).then_some(set);
            return Some(Said::Histogram(text, told, spread));
        }
    }

    fn advance(&mut self, was_said: bool) {
        (self.part, self.said) = match was_said {
            true => (self.part, self.said + 1),
            false => (self.part + 1, 0),
        };
    }

    fn tells<S>(&self, metric: Bits, set: &LabelSet<S>) -> bool {
        set.shows(metric) && !hidden::hides(self.hidden, metric, set.reporter)
    }

    /// Says the next sample of a part, and before its first what it is about; false: there is none.
    fn say(&self, part: &Part, text: &mut String) -> bool {
        let index = self.said;
        match part {
            Part::Own if index > 0 => return false,
            Part::Own => own(text, &self.metrics, self.process),
            Part::Verdicts => return verdicts(text, &self.metrics, index),
            Part::RuleRequests => {
                return self.say_rule(text, (rules::REQUESTS, "counter"), false, rules::requests);
            }
            Part::RuleDurations => {
                return self.say_rule(
                    text,
                    (rules::DURATION, "histogram"),
                    false,
                    rules::durations,
                );
            }
            Part::PathRequests => {
                let metric = (rules::PATH_REQUESTS, "counter");
                return self.say_rule(text, metric, true, rules::requests);
            }
            Part::PathDurations => {
                let metric = (rules::PATH_DURATION, "histogram");
                return self.say_rule(text, metric, true, rules::durations);
            }
            Part::HttpCounter((name, help, count)) => {
                return self.say_set(text, (name, "counter", help), &self.http, |text, set| {
                    counter(text, name, set.shares(), *count);
                });
            }
            Part::Histogram((name, help, spread)) => {
                return self.say_set(text, (name, "histogram", help), &self.http, |text, set| {
                    histogram(text, name, set.shares(), *spread);
                });
            }
            Part::TcpCounter((name, help, count)) => {
                return self.say_set(text, (name, "counter", help), &self.tcp, |text, set| {
                    counter(text, name, set.shares(), *count);
                });
            }
        }
        true
    }

    /// Says the next label set, if it has the metric and that is told.
    fn say_set<S>(
        &self,
        text: &mut String,
        (name, kind, help): (&str, &str, &str),
        sets: &[Arc<LabelSet<S>>],
        write: impl FnOnce(&mut String, &LabelSet<S>),
    ) -> bool {
        if self.said == 0 {
            family(text, name, kind, help);
        }
        let Some(set) = sets.get(self.said) else { return false };
        if self.tells(Bits::of_name(name), set) {
            write(text, set);
        }
        true
    }

    /// Says the next rule, or path.
    fn say_rule(
        &self,
        text: &mut String,
        ((name, help), kind): ((&str, &str), &str),
        is_path: bool,
        write: fn(&mut String, &str, &RuleCounts),
    ) -> bool {
        if self.said == 0 {
            family(text, name, kind, help);
        }
        let registry = self.metrics.lock();
        let all = if is_path { &registry.paths } else { &registry.rules };
        let Some(counts) = all.at(self.said) else { return false };
        drop(registry);
        write(text, name, &counts);
        true
    }
}

impl Iterator for Scrape {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::with_capacity(SCRAPE_PIECE_BYTES);
        while text.len() < SCRAPE_PIECE_BYTES {
            let Some(part) = Part::of(self.part) else { break };
            self.advance(self.say(&part, &mut text));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// What the proxy counts once.
fn own(text: &mut String, metrics: &Metrics, process: bool) {
    let in_flight = Direction::ALL.map(|direction| metrics.in_flight(direction));
    family(text, "istio_build", "gauge", "Version of this proxy.");
    let tag = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, "istio_build{{component=\"proxy\",tag=\"{tag}\"}} 1");
    if process {
        let help = "When this process began, seconds since 1970.";
        family(text, "process_start_time_seconds", "gauge", help);
        let _ = writeln!(text, "process_start_time_seconds {}", metrics.started);
    }
    let help = "HTTP requests begun and not yet recorded.";
    by_direction(text, ("heddle_requests_in_flight", help), in_flight);
    let open = Direction::ALL.map(|direction| metrics.connections_open(direction));
    let help = "Open downstream connections.";
    by_direction(text, ("heddle_connections_open", help), open);
    refusals(text, metrics);
    ejections(text, &metrics.breakers);
    family(text, "heddle_retries_total", "counter", "Requests sent again, by reason.");
    for reason in RetryReason::ALL {
        let count = metrics.retries(reason);
        let reason = reason.as_str();
        let _ = writeln!(text, "heddle_retries_total{{reason=\"{reason}\"}} {count}");
    }
    let help = "Requests not sent again, because sidecars behind have tried enough.";
    family(text, "heddle_retries_left_to_others_total", "counter", help);
    let left = metrics.left_to_others.load(std::sync::atomic::Ordering::Relaxed);
    let _ = writeln!(text, "heddle_retries_left_to_others_total {left}");
    app_scrapes(text, metrics);
    let help = "Lines of access logs that were dropped: too many waited, a file could not be written, or a collector did not take them.";
    family(text, "heddle_access_log_dropped_total", "counter", help);
    let dropped = metrics.log_lines_dropped.load(std::sync::atomic::Ordering::Relaxed);
    let _ = writeln!(text, "heddle_access_log_dropped_total {dropped}");
    let help = "Records of access logs for collectors, by what became of them.";
    metrics.log_records.write(text, "heddle_log_records_total", help);
    let help = "Copies of requests for mirrors, by what became of them.";
    family(text, "heddle_mirrored_requests_total", "counter", help);
    for result in MirrorResult::ALL {
        let count = metrics.mirrors(result);
        let result = result.as_str();
        let _ = writeln!(text, "heddle_mirrored_requests_total{{result=\"{result}\"}} {count}");
    }
    let help = "Upstream connections on which no TLS came about, by reason.";
    family(text, "heddle_tls_failures_total", "counter", help);
    for fault in TlsFault::ALL {
        let (reason, count) = (fault.as_str(), metrics.tls_failures(fault));
        let _ = writeln!(text, "heddle_tls_failures_total{{reason=\"{reason}\"}} {count}");
    }
    metrics.comparisons().write(text);
    metrics.traces.write(text);
    metrics.failed_names.write(text);
    let help = "Faults that a rule had injected, by sort; of connections one for each.";
    family(text, "heddle_faults_injected_total", "counter", help);
    for direction in Direction::ALL {
        for (fault, count) in metrics.faults(direction).filter(|(_, count)| *count > 0) {
            let direction = direction.as_str();
            let _ = writeln!(
                text,
                "heddle_faults_injected_total{{direction=\"{direction}\",fault=\"{fault}\"}} {count}"
            );
        }
    }
    let help = "Look-ups of label sets that found no room and were given an overflow series; workers look up again when label sets left or tags changed.";
    family(text, "heddle_label_sets_overflow_total", "counter", help);
    let overflow = metrics.lock().overflow();
    let _ = writeln!(text, "heddle_label_sets_overflow_total {overflow}");
    let help = "Panics caught in a task; each ended one connection.";
    family(text, "heddle_task_panics_total", "counter", help);
    let panics = heddle_runtime::task::panics();
    let _ = writeln!(text, "heddle_task_panics_total {panics}");
}

/// Only where there is something to scrape: elsewhere they would be zeros that mean nothing.
fn app_scrapes(text: &mut String, metrics: &Metrics) {
    if AppScrape::ALL.iter().all(|result| metrics.app_scrapes(*result) == 0) {
        return;
    }
    let help = "Scrapes of the application's own metrics, by what became of them.";
    family(text, "heddle_app_scrapes_total", "counter", help);
    for result in AppScrape::ALL {
        let count = metrics.app_scrapes(result);
        let result = result.as_str();
        let _ = writeln!(text, "heddle_app_scrapes_total{{result=\"{result}\"}} {count}");
    }
}

fn refusals(text: &mut String, metrics: &Metrics) {
    let help = "Requests and connections refused by the mesh itself, by reason.";
    family(text, "heddle_refusals_total", "counter", help);
    for direction in Direction::ALL {
        for code in RefusalCode::ALL {
            let count = metrics.refusals(code, direction);
            if count > 0 {
                let direction = direction.as_str();
                let _ = writeln!(
                    text,
                    "heddle_refusals_total{{code=\"{code}\",direction=\"{direction}\"}} {count}"
                );
            }
        }
    }
}

/// Endpoints that are out for their errors, and how often some were.
fn ejections(text: &mut String, breakers: &Breakers) {
    let ejected = breakers.ejected();
    let at = |time: Duration| time.as_millis() as f64 / 1e3;
    type Value<'a> = &'a dyn Fn(&Ejected) -> f64;
    let rows: [(&str, &str, Value<'_>); 3] = [
        ("heddle_endpoint_ejected", "Endpoints that take no requests for their errors.", &|_| 1.0),
        (
            "heddle_endpoint_ejected_since_seconds",
            "Since when an endpoint takes none, seconds since 1970.",
            &|one| at(one.since),
        ),
        (
            "heddle_endpoint_ejected_until_seconds",
            "When it is tried again, seconds since 1970.",
            &|one| at(one.until),
        ),
    ];
    for (name, help, value) in rows {
        family(text, name, "gauge", help);
        for one in &ejected {
            let Ejected { workload, address, reason, rule, .. } = one;
            let (cluster, value) = (cluster_labels(&one.cluster), value(one));
            let _ = writeln!(
                text,
                "{name}{{{cluster},endpoint=\"{workload}\",address=\"{address}\",\
                 reason=\"{reason}\",rule=\"{rule}\"}} {value}"
            );
        }
    }
    let (name, help) = ("heddle_endpoint_ejections_total", "Endpoints taken out, by reason.");
    family(text, name, "counter", help);
    for (cluster, reason, count) in breakers.ejections() {
        let (cluster, reason) = (cluster_labels(&cluster), reason.as_str());
        let _ = writeln!(text, "{name}{{{cluster},reason=\"{reason}\"}} {count}");
    }
}

fn cluster_labels(cluster: &ClusterKey) -> String {
    let service = cluster.service.fqdn();
    let subset = cluster.subset.as_ref().map_or("", |subset| &subset.name);
    let port = cluster.port;
    format!("destination_service=\"{service}\",destination_port=\"{port}\",subset=\"{subset}\"")
}

/// The verdicts of one port; false: there is none with this index.
fn verdicts(text: &mut String, metrics: &Metrics, index: usize) -> bool {
    if index == 0 {
        let help = "What connections to a destination port were taken for, and why.";
        family(text, "heddle_protocol_verdicts_total", "counter", help);
    }
    let Some((service, port, counters)) = metrics.lock().verdict_port(index) else { return false };
    for (verdict, reason) in Verdict::ALL
        .into_iter()
        .flat_map(|verdict| Reason::ALL.into_iter().map(move |reason| (verdict, reason)))
    {
        let count = counters.get(verdict, reason);
        if count > 0 {
            let _ = writeln!(
                text,
                "heddle_protocol_verdicts_total{{destination_service=\"{service}\",\
                 port=\"{port}\",verdict=\"{}\",reason=\"{}\"}} {count}",
                verdict.as_str(),
                reason.as_str(),
            );
        }
    }
    true
}
