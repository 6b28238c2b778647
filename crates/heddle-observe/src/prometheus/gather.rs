//! From slots to series: what one selector wants of what is stored, as [`Curve`]s.
//!
//! Places with equal labels are one series: pods of one workload are counted apart in the store.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use heddle_runtime::clock;
use heddle_wire::local::observe_api::Ejection;

use super::families::{EJECTED, FAMILIES, Family, What, label, labels};
use crate::{
    answers::View,
    limits,
    measure::{ANSWER, Answer, Cell, Dimension, Histogram, Protocol},
    promql::{
        QueryError,
        curve::{Curve, Measured, Stretch, awaited},
        evaluate::Loaded,
        labels::{Label, Labels, Matcher, NAME},
    },
    store::{Entry, Span},
};

/// First dimension that is no kind of answer any more.
const ANSWERS_END: Dimension = 0x8000;

/// Which series, and when.
pub(super) struct Wanted<'a> {
    pub(super) matchers: &'a [Matcher],
    /// Unix seconds: from the first moment that is looked at to the last.
    pub(super) from: f64,
    pub(super) to: f64,
    /// Seconds: how fine slots need to be.
    pub(super) resolution: f64,
    /// Only how much more it becomes matters, not the value itself.
    pub(super) is_relative: bool,
    pub(super) collect: Collect<'a>,
}

/// What of the series is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Collect<'a> {
    /// They themselves, with their numbers.
    Curves,
    /// Which there are.
    Series,
    /// The names of their labels.
    Names,
    /// The values of this label.
    Values(&'a str),
}

/// What all selectors of one question may load together.
#[derive(Debug)]
pub(super) struct Budget {
    series: usize,
    numbers: usize,
    deadline: Instant,
}

impl Budget {
    /// All that one question may have, until then.
    pub(super) fn until(deadline: Instant) -> Self {
        Self { series: limits::QUERY_SERIES_MAX, numbers: limits::QUERY_LOADED_MAX, deadline }
    }
}

/// What there was.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) loaded: Loaded,
    /// Names of labels or values of one, if these were wanted.
    pub(super) words: BTreeSet<String>,
}

/// Loads what is wanted.
///
/// # Errors
/// More series or numbers than are loaded for one query, or it takes too long.
pub(super) fn gather(
    view: &View,
    wanted: &Wanted<'_>,
    budget: &mut Budget,
) -> Result<Gathered, QueryError> {
    let spans = view.store.timeline(wanted.resolution);
    let stretch = |span: &Span| Stretch { from: span.from, to: span.to };
    let stretches: Vec<Stretch> = spans.iter().map(stretch).collect();
    let mut gatherer = Gatherer::new(wanted, view.store.answers.all(), budget);
    if gatherer.families.is_empty() && !gatherer.wants(EJECTED) {
        return Ok(Gathered::default());
    }
    // A series that counted before is still there, and its value has everything in it.
    let begins = if wanted.is_relative { wanted.from - limits::SERIES_IDLE_MAX } else { 0.0 };
    let first = spans.partition_point(|span| span.to <= begins);
    let settled = spans.partition_point(|span| span.to <= wanted.from);
    for (number, span) in spans.iter().enumerate().skip(first) {
        if span.from >= wanted.to {
            break;
        }
        if clock::now() >= gatherer.budget.deadline {
            return Err(QueryError::Timeout);
        }
        gatherer.is_settled = number < settled;
        for entry in view.store.entries(span) {
            gatherer.take(entry, number, span.rounds)?;
        }
    }
    if let Some(last) = stretches.len().checked_sub(1)
        && gatherer.wants(EJECTED)
    {
        // Who asks for now means the time since the newest scrape, and a little before where clocks differ.
        let since = stretches[last].to - awaited(view.interval as f64);
        let first = stretches.partition_point(|stretch| stretch.to <= since).min(last);
        for one in &view.ejections() {
            gatherer.present(ejected(one), first, last)?;
        }
    }
    let measured = Measured::new(stretches, view.interval as f64);
    let (curves, words) = (gatherer.curves, gatherer.words);
    Ok(Gathered { loaded: Loaded { measured, curves }, words })
}

/// Series of one place.
struct Plan {
    labels: Vec<Label>,
    parts: Vec<Part>,
}

/// One metric of a place.
struct Part {
    family: &'static Family,
    /// Its series by what they are made of, once they have been met.
    series: HashMap<Made, Option<usize>>,
}

/// What a series is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Made {
    One(Dimension),
    All,
    Bucket(Histogram, usize),
    Sum(Histogram),
    Count(Histogram),
}

struct Gatherer<'a> {
    matchers: &'a [Matcher],
    collect: Collect<'a>,
    budget: &'a mut Budget,
    answers: &'a [Answer],
    families: Vec<&'static Family>,
    plans: HashMap<*const Cell, Plan>,
    curves: Vec<Curve>,
    known: HashMap<Labels, usize>,
    words: BTreeSet<String>,
    /// What is taken now lies before everything that is asked about.
    is_settled: bool,
}

impl<'a> Gatherer<'a> {
    fn new(wanted: &Wanted<'a>, answers: &'a [Answer], budget: &'a mut Budget) -> Self {
        let mut gatherer = Self {
            matchers: wanted.matchers,
            collect: wanted.collect,
            budget,
            answers,
            families: Vec::new(),
            plans: HashMap::new(),
            curves: Vec::new(),
            known: HashMap::new(),
            words: BTreeSet::new(),
            is_settled: false,
        };
        let families = FAMILIES.iter();
        let asked =
            families.filter(|family| family.series().iter().any(|name| gatherer.wants(name)));
        gatherer.families = asked.collect();
        gatherer
    }

    /// May a metric of this name be wanted?
    fn wants(&self, name: &str) -> bool {
        self.matchers.iter().all(|matcher| matcher.name != NAME || matcher.matches(name))
    }

    fn take(&mut self, (cell, counts): &Entry, span: usize, rounds: u32) -> Result<(), QueryError> {
        let key = std::rc::Rc::as_ptr(cell);
        let mut plan = match self.plans.remove(&key) {
            Some(plan) => plan,
            None => self.plan(cell),
        };
        for part in &mut plan.parts {
            self.take_part(&plan.labels, part, counts, (span, rounds))?;
        }
        self.plans.insert(key, plan);
        Ok(())
    }

    /// What is wanted of a place. Most is decided here, once per place.
    fn plan(&self, cell: &Cell) -> Plan {
        let parts: Vec<Part> = self
            .families
            .iter()
            .filter(|family| family.is_of(cell))
            .map(|family| Part { family, series: HashMap::new() })
            .collect();
        let labels = if parts.is_empty() { Vec::new() } else { labels(cell) };
        let is_answer = cell.protocol.is_of_answers();
        // Labels that a series may have besides are decided about series by series.
        let own = ["le", "direction", NAME];
        let of_answers = ["response_code", "response_flags", "grpc_response_status"];
        let unmatched = self.matchers.iter().any(|matcher| {
            let name = matcher.name.as_str();
            let is_later = own.contains(&name) || (is_answer && of_answers.contains(&name));
            let value = labels.iter().find(|(known, _)| known == name);
            !is_later && !matcher.matches(value.map_or("", |(_, value)| value))
        });
        Plan { labels, parts: if unmatched { Vec::new() } else { parts } }
    }

    fn take_part(
        &mut self,
        labels: &[Label],
        part: &mut Part,
        counts: &[(Dimension, f32)],
        (span, rounds): (usize, u32),
    ) -> Result<(), QueryError> {
        let count = |wanted: Dimension| {
            let found = counts.binary_search_by_key(&wanted, |(dimension, _)| *dimension);
            found.map_or(0.0, |at| f64::from(counts[at].1))
        };
        match part.family.what {
            What::Answers => {
                for (dimension, count) in counts {
                    if (ANSWER..ANSWERS_END).contains(dimension) {
                        let made = Made::One(*dimension);
                        self.add(labels, part, made, span, f64::from(*count))?;
                    }
                }
            }
            What::Counter(dimensions) => {
                let sum: f64 = dimensions.iter().map(|dimension| count(*dimension)).sum();
                if dimensions.iter().any(|dimension| count(*dimension) > 0.0) {
                    self.add(labels, part, Made::All, span, sum)?;
                }
            }
            What::Gauge(dimensions) => {
                for dimension in dimensions {
                    let value = count(dimension) / f64::from(rounds.max(1));
                    self.add(labels, part, Made::One(dimension), span, value)?;
                }
            }
            What::Histogram(usual, injected) => {
                for histogram in [Some(usual), injected].into_iter().flatten() {
                    self.take_histogram(labels, part, histogram, (counts, span))?;
                }
            }
        }
        Ok(())
    }

    fn take_histogram(
        &mut self,
        labels: &[Label],
        part: &mut Part,
        histogram: Histogram,
        (counts, span): (&[(Dimension, f32)], usize),
    ) -> Result<(), QueryError> {
        let has_all = part.series.contains_key(&Made::Count(histogram));
        if has_all && !matches!(self.collect, Collect::Curves) {
            return Ok(());
        }
        let (first, length) = (histogram.first(), histogram.bounds().len());
        let mut buckets = [0.0; crate::measure::BUCKETS_MAX];
        let mut sum = 0.0;
        for (dimension, count) in counts {
            let at = dimension.checked_sub(first).map(usize::from).filter(|at| *at < length);
            match at {
                Some(at) => buckets[at] = f64::from(*count),
                None if *dimension == histogram.sum() => sum = f64::from(*count),
                None => {}
            }
        }
        let total: f64 = buckets.iter().sum();
        if total == 0.0 && sum == 0.0 {
            return Ok(());
        }
        let mut below = 0.0;
        for (bucket, count) in buckets[..length].iter().enumerate() {
            below += count;
            self.add(labels, part, Made::Bucket(histogram, bucket), span, below)?;
        }
        self.add(labels, part, Made::Sum(histogram), span, sum)?;
        self.add(labels, part, Made::Count(histogram), span, total)
    }

    fn add(
        &mut self,
        labels: &[Label],
        part: &mut Part,
        made: Made,
        span: usize,
        count: f64,
    ) -> Result<(), QueryError> {
        let known = part.series.get(&made).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let index = self.series(labels, part.family, made, span)?;
                part.series.insert(made, index);
                index
            }
        };
        let Some(curve) = index.map(|index| &mut self.curves[index]) else { return Ok(()) };
        if !matches!(self.collect, Collect::Curves) {
            return Ok(());
        }
        let number = u32::try_from(span).unwrap_or(u32::MAX);
        let is_empty = curve.points.is_empty();
        let before = curve.points.last().filter(|_| !curve.is_gauge).map_or(0.0, |last| last.1);
        match curve.points.last_mut() {
            Some(last) if last.0 == number => last.1 += count,
            _ if count == 0.0 && !curve.is_gauge && !is_empty => {}
            // Of what lies before, only what it has come to matters.
            Some(last) if self.is_settled => *last = (number, before + count),
            _ => {
                let left = self.budget.numbers.checked_sub(1);
                self.budget.numbers = left.ok_or_else(QueryError::too_many_samples)?;
                curve.points.push((number, before + count));
            }
        }
        Ok(())
    }

    /// The series that is made so, if it is wanted.
    fn series(
        &mut self,
        labels: &[Label],
        family: &'static Family,
        made: Made,
        span: usize,
    ) -> Result<Option<usize>, QueryError> {
        let mut all = labels.to_vec();
        all.extend(self.own_labels(family, made));
        self.wanted_series(all, matches!(family.what, What::Gauge(_)), span)
    }

    fn wanted_series(
        &mut self,
        labels: Vec<Label>,
        is_gauge: bool,
        span: usize,
    ) -> Result<Option<usize>, QueryError> {
        let labels = Labels::new(labels);
        if !self.matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name))) {
            return Ok(None);
        }
        let mut word = |word: &str| {
            if !word.is_empty() && !self.words.contains(word) {
                self.words.insert(word.to_owned());
            }
        };
        match self.collect {
            Collect::Curves | Collect::Series => {}
            Collect::Names => {
                labels.iter().for_each(|(name, _)| word(name));
                return Ok(None);
            }
            Collect::Values(name) => {
                word(labels.get(name));
                return Ok(None);
            }
        }
        if let Some(index) = self.known.get(&labels) {
            return Ok(Some(*index));
        }
        let Some(left) = self.budget.series.checked_sub(1) else {
            let limit = limits::QUERY_SERIES_MAX;
            let reason = format!("the query selects more than {limit} series; narrow its matchers");
            return Err(QueryError::Execution(reason));
        };
        self.budget.series = left;
        self.known.insert(labels.clone(), self.curves.len());
        self.curves.push(Curve { labels, is_gauge, first: span, points: Vec::new() });
        Ok(Some(self.curves.len() - 1))
    }

    /// A gauge that is known of the present only.
    fn present(&mut self, labels: Vec<Label>, first: usize, last: usize) -> Result<(), QueryError> {
        if let Some(index) = self.wanted_series(labels, true, first)? {
            let number = |span: usize| u32::try_from(span).unwrap_or(u32::MAX);
            self.curves[index].points = (first..=last).map(|span| (number(span), 1.0)).collect();
        }
        Ok(())
    }

    /// Labels by which one place has several series.
    fn own_labels(&self, family: &Family, made: Made) -> Vec<Label> {
        let part = match made {
            Made::Bucket(..) => "_bucket",
            Made::Sum(_) => "_sum",
            Made::Count(_) => "_count",
            Made::One(_) | Made::All => "",
        };
        let mut own = vec![label(NAME, &format!("{}{part}", family.name))];
        match made {
            Made::Bucket(histogram, bucket) => {
                let bound = histogram.bounds()[bucket];
                let text = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                own.push(label("le", &text));
            }
            Made::One(dimension) => match family.what {
                What::Gauge([inbound, _]) => {
                    let direction = if dimension == inbound { "inbound" } else { "outbound" };
                    own.push(label("direction", direction));
                }
                _ => own.extend(self.answer_labels(family, dimension)),
            },
            Made::Sum(_) | Made::Count(_) | Made::All => {}
        }
        if let Made::Bucket(histogram, _) | Made::Sum(histogram) | Made::Count(histogram) = made
            && histogram == Histogram::InjectedLatency
        {
            own.push(label("response_flags", "FI"));
        }
        own
    }

    fn answer_labels(&self, family: &Family, dimension: Dimension) -> Vec<Label> {
        let answer = self.answers.get(usize::from(dimension - ANSWER));
        let Some(answer) = answer else { return Vec::new() };
        let code = match family.of {
            // A rule's and a path's are counted by class.
            [Protocol::Rule | Protocol::Path] if answer.injected() && answer.code == 0 => {
                "aborted".to_owned()
            }
            [Protocol::Rule | Protocol::Path] if answer.http >= 100 => {
                format!("{}xx", answer.http / 100)
            }
            _ => answer.http.to_string(),
        };
        let mut own = vec![label("response_code", &code), label("response_flags", &answer.flags)];
        if let Some(status) = answer.grpc {
            own.push(label("grpc_response_status", &status.to_string()));
        }
        own
    }
}

fn ejected(one: &Ejection) -> Vec<Label> {
    vec![
        label(NAME, EJECTED),
        label("address", &one.address),
        label("destination_port", &one.port.to_string()),
        label("destination_service", &one.service.fqdn()),
        label("endpoint", &one.endpoint.0),
        label("instance", &one.by.0),
        label("reason", &one.reason),
        label("rule", &one.rule),
        label("subset", &one.subset),
    ]
}
