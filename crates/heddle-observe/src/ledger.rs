//! One sidecar's counters: from the values of two scrapes to what happened in between.
//!
//! A scrape is staged line by line and takes effect only when it was read to its end. Three cases
//! need care: a *restart* (any counter fell, or the start time changed) sets every series back to 0,
//! also those that are not in that scrape; a *new series* of a known sidecar began at 0, and so did one that comes
//! back lower than it was when it was last told (a sidecar gives up series that are idle); the *first
//! scrape* of a sidecar that ran before we watched it only sets the baseline.

use std::{
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    hash::BuildHasher,
    rc::Rc,
};

use crate::{
    ejected::Ejected,
    exposition::{self, LineError},
    grown, limits,
    measure::{self, Answers, BUCKETS_MAX, Cell, Cells, Dimension, Histogram, Meaning, Owner},
    names::FailedNames,
};

/// Follows the counters of one sidecar.
#[derive(Debug)]
pub(crate) struct Ledger {
    owner: Owner,
    /// By two independent hashes of name and labels as written: a collision is not to be expected in
    /// the life of the universe, and the text, about 800 bytes each, need not be kept.
    series: HashMap<(u64, u64), Series>,
    hashers: [RandomState; 2],
    past: Past,
    /// No scrape has been read to its end yet.
    first: bool,
    /// The first one only told what had been counted before.
    pub(crate) had_past: bool,
    /// Scrapes that were.
    rounds: u64,
    overflow: Overflow,
    staged: Vec<((u64, u64), f64)>,
    /// Who is out, as this scrape says.
    pub(crate) ejected: Ejected,
    /// Names without an address, likewise.
    pub(crate) names: FailedNames,
    /// Connections on which no TLS came about, as the scrape that is read tells.
    pub(crate) tls: grown::Counts,
    /// Calls that lost their trace, likewise.
    pub(crate) lost: grown::Counts,
}

/// More series than are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    None,
    Unsaid,
    Said,
}

#[derive(Debug)]
struct Series {
    last: f64,
    /// The last scrape that had it, by number.
    seen: u64,
    meaning: Meaning,
}

impl Series {
    /// Was it in none of the last scrape's lines, the `rounds`th?
    fn was_absent(&self, rounds: u64) -> bool {
        self.seen < rounds
    }
}

/// What a sidecar may have counted before its ledger began; none of that is ours to book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Past {
    /// It is known to have been running before it was first seen here.
    pub(crate) ran_before: bool,
    /// Unix time, seconds: a sidecar that says it began earlier has a past as well.
    pub(crate) watched_from: u64,
}

/// What happened between two scrapes at one place.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Increase {
    pub(crate) counts: BTreeMap<Dimension, f64>,
    cumulative: BTreeMap<Histogram, [f64; BUCKETS_MAX]>,
}

impl Ledger {
    /// A ledger for a sidecar with this past.
    pub(crate) fn new(owner: Owner, past: Past) -> Self {
        Self {
            owner,
            series: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            past,
            first: true,
            had_past: false,
            rounds: 0,
            overflow: Overflow::None,
            staged: Vec::new(),
            ejected: Ejected::default(),
            names: FailedNames::default(),
            tls: grown::Counts::new(),
            lost: grown::Counts::new(),
        }
    }

    /// Forgets what an unfinished scrape has staged.
    pub(crate) fn begin(&mut self) {
        self.staged.clear();
        self.ejected.clear();
        self.names.clear();
        self.tls.clear();
        self.lost.clear();
    }

    /// Stages one line.
    ///
    /// # Errors
    /// What is wrong with the line; the scrape is to be given up.
    pub(crate) fn line(
        &mut self,
        line: &[u8],
        cells: &mut Cells,
        answers: &mut Answers,
    ) -> Result<(), LineError> {
        if line.len() > limits::LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_| LineError::NotText)?;
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (name, _) = exposition::metric_name(line)?;
        if Ejected::reads(name) {
            return self.ejected.line(&self.owner.id, line);
        }
        if FailedNames::reads(name) {
            return self.names.line(line);
        }
        match name {
            grown::TLS_FAILURES => return grown::line(&mut self.tls, line),
            grown::LOST_CONTEXTS => return grown::line(&mut self.lost, line),
            _ => {}
        }
        if !measure::is_read(name) {
            return Ok(());
        }
        let (series, value) = exposition::split_series(line)?;
        let key = (self.hashers[0].hash_one(series), self.hashers[1].hash_one(series));
        if !self.series.contains_key(&key) {
            if self.series.len() >= limits::SERIES_PER_SIDECAR_MAX {
                if self.overflow == Overflow::None {
                    self.overflow = Overflow::Unsaid;
                }
                return Ok(());
            }
            let Some(sample) = exposition::parse_line(line)? else { return Ok(()) };
            let meaning = measure::meaning(&sample, &self.owner, cells, answers);
            self.series.insert(key, Series { last: 0.0, seen: self.rounds, meaning });
        }
        self.staged.push((key, value));
        Ok(())
    }

    /// Ends a scrape that was read completely: what happened since the last one, per place.
    pub(crate) fn commit(&mut self) -> Vec<(Rc<Cell>, Increase)> {
        if self.restarted() {
            self.begin_at_zero();
        }
        let baseline = std::mem::take(&mut self.first) && self.has_past();
        self.had_past |= baseline;
        let mut places = Places::default();
        for (key, value) in std::mem::take(&mut self.staged) {
            let Some(series) = self.series.get_mut(&key) else { continue };
            if !value.is_finite() || value < 0.0 {
                continue;
            }
            let anew = series.was_absent(self.rounds) && value < series.last;
            let before = if anew { 0.0 } else { series.last };
            let delta = if baseline { 0.0 } else { (value - before).max(0.0) };
            (series.last, series.seen) = (value, self.rounds + 1);
            match &series.meaning {
                Meaning::Counter(cell, dimension) => {
                    places.of(cell).add(*dimension, delta);
                }
                Meaning::Bucket(cell, histogram, bucket) => {
                    let cumulative = &mut places.of(cell).cumulative;
                    cumulative.entry(*histogram).or_default()[*bucket] += delta;
                }
                Meaning::Gauge(cell, dimension) => places.of(cell).add(*dimension, value),
                Meaning::None | Meaning::Started => {}
            }
        }
        self.rounds += 1;
        if self.series.len() >= limits::SERIES_PER_SIDECAR_MAX {
            let rounds = self.rounds;
            self.series.retain(|_, series| series.seen == rounds);
        }
        places.finish()
    }

    /// Were there series that could not be followed because there were too many? Tells it once.
    pub(crate) fn take_overflow(&mut self) -> bool {
        let first = self.overflow == Overflow::Unsaid;
        if first {
            self.overflow = Overflow::Said;
        }
        first
    }

    fn restarted(&self) -> bool {
        self.staged.iter().any(|(key, value)| {
            self.series.get(key).is_some_and(|series| match series.meaning {
                Meaning::Counter(..) | Meaning::Bucket(..) => {
                    *value < series.last && !series.was_absent(self.rounds)
                }
                Meaning::Started => series.last > 0.0 && *value != series.last,
                Meaning::None | Meaning::Gauge(..) => false,
            })
        })
    }

    /// A series that is not in the first scrape after a restart begins at 0 as well: with its old
    /// value it would look like one more restart when it is used again.
    fn begin_at_zero(&mut self) {
        // The order in which they are set back is of no consequence.
        self.series.values_mut().for_each(|series| series.last = 0.0);
    }

    /// Was the sidecar of the staged scrape at work before we watched it?
    fn has_past(&self) -> bool {
        let began_earlier = |(key, value): &((u64, u64), f64)| {
            let series = self.series.get(key);
            series.is_some_and(|series| matches!(series.meaning, Meaning::Started))
                && *value < self.past.watched_from as f64
        };
        self.past.ran_before || self.staged.iter().any(began_earlier)
    }
}

/// Increases in the order in which their places were first met.
#[derive(Default)]
struct Places {
    order: Vec<(Rc<Cell>, Increase)>,
    index: HashMap<*const Cell, usize>,
}

impl Places {
    fn of(&mut self, cell: &Rc<Cell>) -> &mut Increase {
        let index = *self.index.entry(Rc::as_ptr(cell)).or_insert_with(|| {
            self.order.push((Rc::clone(cell), Increase::default()));
            self.order.len() - 1
        });
        &mut self.order[index].1
    }

    fn finish(self) -> Vec<(Rc<Cell>, Increase)> {
        let mut order = self.order;
        for (_, increase) in &mut order {
            increase.spread_buckets();
        }
        order.retain(|(_, increase)| !increase.counts.is_empty());
        order
    }
}

impl Increase {
    fn add(&mut self, dimension: Dimension, value: f64) {
        if value > 0.0 {
            *self.counts.entry(dimension).or_default() += value;
        }
    }

    /// Cumulative buckets to counts per bucket; a bound the sidecar does not have adds nothing.
    fn spread_buckets(&mut self) {
        for (histogram, cumulative) in std::mem::take(&mut self.cumulative) {
            let mut below = 0.0;
            for (dimension, cumulative) in (histogram.first()..).zip(cumulative) {
                self.add(dimension, cumulative - below);
                below = cumulative.max(below);
            }
        }
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
