//! Samples of Prometheus, read as the scrapes that they once were.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;

use super::{wanted::Wanted, words::said};
use crate::{
    ledger::{Ledger, Past},
    limits,
    measure::{Cells, Owner, in_mesh, outside},
    store::Store,
};

/// What answers are made of.
const METRICS: &str = "istio_requests_total|istio_request_duration_milliseconds_(bucket|sum)|\
    istio_tcp_connections_(opened|closed)_total|istio_tcp_(sent|received)_bytes_total|\
    heddle_rule_requests_total|heddle_rule_request_duration_milliseconds_(bucket|sum)|heddle_refusals_total|\
    heddle_faults_injected_total|heddle_retries_total|heddle_requests_in_flight|heddle_connections_open";

/// Seconds in which a sidecar is scraped at least once: by a Prometheus that does so once in a minute, too.
const SCRAPED_WITHIN: u64 = 120;

/// The query, for steps of so many seconds. The last value *within* a step is asked for, and not the one at its end:
/// a sidecar that has gone by then is told no more there. When one began is asked for only of sidecars, as every program
/// has that metric.
pub(super) fn query(step: u64) -> String {
    let range = step.max(SCRAPED_WITHIN);
    format!(
        "last_over_time({{__name__=~\"{METRICS}\"}}[{range}s]) or \
         (last_over_time({STARTED}[{range}s]) and on (job, instance) \
         last_over_time(heddle_connections_open[{range}s]))"
    )
}

const NAME: &str = "__name__";
const STARTED: &str = "process_start_time_seconds";

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// A series as a sidecar's line, and what is left of its values.
struct Told {
    line: String,
    values: std::iter::Peekable<std::vec::IntoIter<(f64, String)>>,
}

struct Sidecar {
    owner: Owner,
    series: Vec<Told>,
    has_start: bool,
    /// Since it was first met, with [`Store::elapsed`] of its newest sample.
    ledger: Option<(Ledger, f64)>,
}

/// A store with all that the answer holds.
///
/// # Errors
/// It is none of Prometheus, or too much.
pub(super) async fn replay(
    body: &[u8],
    wanted: Wanted,
    owner: impl Fn(&str) -> Option<Owner>,
) -> Result<Store, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        format!(
            "what answers is no Prometheus ({error}): it said `{}`; give the address under which \
             /api/v1/query_range is",
            said(body)
        )
    })?;
    if answer.data.result.len() > limits::ELSEWHERE_SERIES_MAX {
        return Err(format!(
            "it has {} series of sidecars for this time, and at most {} are read; ask about a shorter time",
            answer.data.result.len(),
            limits::ELSEWHERE_SERIES_MAX
        ));
    }
    let mut sidecars = sidecars(answer.data.result, owner);
    let mut store = Store::default();
    for (number, at) in wanted.times().enumerate() {
        // A sample tells of the time before it. The first ones are where counters stood at the beginning.
        let seconds = if number == 0 { 0.0 } else { wanted.step as f64 };
        store.begin_round(at.saturating_sub(1), seconds);
        for sidecar in sidecars.values_mut() {
            sidecar.scrape(&mut store, at, wanted.step, number == 0);
        }
        // Sidecars are still scraped beside this.
        tokio::task::yield_now().await;
    }
    Ok(store)
}

/// Series by the sidecar that they were scraped from.
fn sidecars(
    all: Vec<Series>,
    owner: impl Fn(&str) -> Option<Owner>,
) -> BTreeMap<(String, String), Sidecar> {
    let mut sidecars: BTreeMap<(String, String), Sidecar> = BTreeMap::new();
    let mut guesses: BTreeMap<(String, String), Owner> = BTreeMap::new();
    for series in all {
        let label = |name: &str| series.metric.get(name).map_or("", String::as_str);
        let (job, instance) = (label("job").to_owned(), label("instance").to_owned());
        let key = (job, instance);
        if !guesses.contains_key(&key)
            && let Some(guess) = named(&key.1, label)
        {
            guesses.insert(key.clone(), guess);
        }
        let has_start = label(NAME) == STARTED;
        let sidecar = sidecars.entry(key).or_insert_with_key(|(_, instance)| Sidecar {
            owner: owner(instance).unwrap_or_else(|| Owner {
                id: instance.clone(),
                service: outside(crate::measure::UNKNOWN),
                version: String::new(),
            }),
            series: Vec::new(),
            has_start: false,
            ledger: None,
        });
        sidecar.has_start |= has_start;
        let line = line(&series.metric);
        sidecar.series.push(Told { line, values: series.values.into_iter().peekable() });
    }
    for (key, sidecar) in &mut sidecars {
        // Its labels know its workload also when nobody else does any more.
        if sidecar.owner.id == key.1
            && let Some(guess) = guesses.remove(key)
        {
            sidecar.owner = guess;
        }
    }
    sidecars
}

/// Whose sidecar says this, as far as its labels tell.
fn named<'a>(instance: &str, label: impl Fn(&'static str) -> &'a str) -> Option<Owner> {
    let (service, version) = match label("reporter") {
        "source" => {
            let suffix = heddle_model::name::service_suffix();
            let (name, namespace) =
                (label("source_canonical_service"), label("source_workload_namespace"));
            if name == crate::measure::UNKNOWN {
                return None;
            }
            (in_mesh(&format!("{name}.{namespace}.{suffix}"))?, label("source_version"))
        }
        "destination" => (in_mesh(label("destination_service"))?, label("destination_version")),
        _ => return None,
    };
    Some(Owner { id: instance.to_owned(), service, version: version.to_owned() })
}

/// A series as text, without a value.
fn line(metric: &BTreeMap<String, String>) -> String {
    let mut line = metric.get(NAME).cloned().unwrap_or_default();
    let labels = metric.iter().filter(|(name, _)| *name != NAME);
    for (number, (name, value)) in labels.enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let before = if number == 0 { '{' } else { ',' };
        // Writing to a text never fails.
        let _written = write!(line, "{before}{name}=\"{value}\"");
    }
    if line.contains('{') {
        line.push('}');
    }
    line
}

impl Sidecar {
    /// Books what it said at this time, if it did.
    fn scrape(&mut self, store: &mut Store, at: u64, step: u64, is_first: bool) {
        let mut lines = Vec::new();
        for told in &mut self.series {
            while told.values.next_if(|(time, _)| *time < at as f64 - 0.5).is_some() {}
            if let Some((_, value)) = told.values.next_if(|(time, _)| *time < at as f64 + 0.5) {
                lines.push(format!("{} {value}", told.line));
            }
        }
        if lines.is_empty() {
            return;
        }
        let elapsed = store.elapsed();
        let (ledger, since) = self.ledger.get_or_insert_with(|| {
            // One that is met later began later, if it says so; what it counted until then is of this time.
            let past = Past {
                ran_before: is_first || !self.has_start,
                watched_from: at.saturating_sub(step + limits::FOUND_WITHIN.as_secs()),
            };
            let before = if is_first { elapsed } else { elapsed - step as f64 };
            (Ledger::new(self.owner.clone(), past), before)
        });
        ledger.begin();
        for line in lines {
            let Store { cells, answers, .. } = store;
            // A line that cannot be read is of somebody else.
            let _read = read(ledger, &line, cells, answers);
        }
        let spread = store.spread(*since);
        for (cell, increase) in ledger.commit() {
            store.add(&cell, &increase, &spread);
        }
        *since = elapsed;
    }
}

fn read(
    ledger: &mut Ledger,
    line: &str,
    cells: &mut Cells,
    answers: &mut crate::measure::Answers,
) -> Result<(), crate::exposition::LineError> {
    ledger.line(line.as_bytes(), cells, answers)
}
