//! Recent traces. Spans come by [`intake`], from sidecars and from instrumented applications alike; here they are put
//! together by the id of their trace, and kept while there is room. [`asked`] says what may be asked for, and [`told`]
//! how a trace is answered; [`mod@file`] is what survives this process.
//!
//! A trace is open, as spans, while some are expected, and then sealed, as bytes. One that comes late opens it
//! again. Everything is bounded: a trace, all open ones, and all together. What makes room is the oldest ordinary
//! trace; those with errors and those that took unusually long go only when they fill most of the room themselves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    time::{Duration, Instant},
};

use heddle_wire::trace::received::Received;

use self::{
    facts::Status,
    kept::{Batch, Rows, Whole},
    usual::Usual,
};
use crate::limits;

pub(crate) mod asked;
mod facts;
pub(crate) mod file;
pub(crate) mod intake;
mod kept;
mod told;
mod tree;
mod usual;

#[cfg(test)]
mod tests;

/// About what an entry takes besides its content, bytes.
const ENTRY_BYTES: usize = 256;

/// Why spans that came are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dropped {
    /// They say not what a span has to say, or something that cannot be.
    Malformed,
    /// Their trace has as many as one may have.
    TooMany,
    /// More came than can be taken in.
    TooFast,
    /// They are about the sending of spans.
    Delivery,
}

impl Dropped {
    fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooMany => "too-many",
            Self::TooFast => "too-fast",
            Self::Delivery => "delivery",
        }
    }
}

/// What may be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes of all traces.
    pub(crate) bytes: usize,
    /// Bytes of those that are open.
    pub(crate) open: usize,
    /// Spans of one trace.
    pub(crate) spans: usize,
    /// Bytes of one trace.
    pub(crate) trace: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            bytes: limits::TRACES_BYTES_MAX,
            open: limits::TRACES_OPEN_BYTES_MAX,
            spans: limits::SPANS_PER_TRACE_MAX,
            trace: limits::TRACE_BYTES_MAX,
        }
    }
}

/// All traces.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    room: Room,
    all: BTreeMap<u128, Entry>,
    /// In which order they came, of ordinary ones, and of those that are worth more.
    turns: [BTreeMap<u64, u128>; 2],
    /// Bytes of either.
    bytes: [usize; 2],
    open: BTreeMap<u64, u128>,
    open_bytes: usize,
    next: u64,
    /// Have spans that are not summed up yet.
    stale: BTreeSet<u128>,
    /// There is a file, which tells from time to time that it has written these.
    is_kept: bool,
    /// To be written.
    changed: BTreeSet<u128>,
    gone: BTreeSet<u128>,
    /// Most that open ones have taken, bytes.
    #[cfg(test)]
    open_most: usize,
    usual: Usual,
    services: HashSet<Rc<str>>,
    counts: Counts,
    /// Where applications may send spans, and where the mesh's own go if not here.
    pub(crate) endpoint: String,
    pub(crate) elsewhere: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    spans: u64,
    evicted: u64,
    dropped: BTreeMap<Dropped, u64>,
}

#[derive(Debug)]
struct Entry {
    turn: u64,
    body: Body,
    summary: Summary,
    /// Longer than others that begin alike.
    slow: bool,
    /// As counted in [`Traces::bytes`].
    bytes: usize,
}

#[derive(Debug)]
enum Body {
    Open {
        spans: Vec<Received>,
        weight: usize,
        left_out: u64,
        heard: Instant,
    },
    Sealed {
        bytes: Vec<u8>,
        /// Of its spans while it was open.
        weight: usize,
        /// Spans that have come since and were too many. Not in the file before it opens again.
        left_out: u64,
    },
}

/// What is asked about a trace.
#[derive(Debug, Default)]
struct Summary {
    /// Microseconds since 1970.
    start: u64,
    /// Microseconds.
    duration: u64,
    errors: u64,
    /// What the first span is about.
    about: Box<str>,
    facts: Vec<Fact>,
    /// Which of them is of the first span.
    first: usize,
}

/// What is asked about a span.
#[derive(Debug)]
struct Fact {
    service: Rc<str>,
    path: Box<str>,
    status: Status,
    /// Microseconds.
    duration: u64,
}

impl Entry {
    /// Is it worth more than others?
    fn class(&self) -> usize {
        usize::from(self.slow || self.summary.errors > 0)
    }

    fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Open { weight, .. } => *weight,
            Body::Sealed { bytes, .. } => bytes.len(),
        };
        let facts = self.summary.facts.iter();
        ENTRY_BYTES
            + body
            + self.summary.about.len()
            + facts.map(|fact| size_of::<Fact>() + fact.path.len()).sum::<usize>()
    }
}

impl Traces {
    /// Takes spans in, at `now`, which is `unix` since 1970.
    pub(crate) fn take(&mut self, spans: Vec<Received>, now: Instant, unix: Duration) {
        let latest = u64::try_from((unix + limits::SPAN_AHEAD_MAX).as_micros()).unwrap_or(u64::MAX);
        // By their trace, in the order in which the traces come: none is opened twice.
        let mut places: HashMap<u128, usize> = HashMap::new();
        let mut by_trace: Vec<Vec<Received>> = Vec::new();
        for mut span in spans {
            self.counts.spans += 1;
            span.duration = span.duration.min(limits::SPAN_MICROS_MAX);
            if span.start > latest {
                self.dropped(Dropped::Malformed, 1);
            } else if facts::is_delivery(&span) {
                self.dropped(Dropped::Delivery, 1);
            } else {
                let place = *places.entry(span.trace).or_insert(by_trace.len());
                match by_trace.get_mut(place) {
                    Some(others) => others.push(span),
                    None => by_trace.push(vec![span]),
                }
            }
        }
        for spans in by_trace {
            self.add_all(spans, now);
            while self.open_bytes > self.room.open
                && let Some((_, trace)) = self.open.pop_first()
            {
                self.seal(trace);
            }
        }
        self.make_room();
    }

    /// Adds spans of one trace.
    fn add_all(&mut self, spans: Vec<Received>, now: Instant) {
        let least = spans.iter().map(Received::weight).min().unwrap_or(0);
        let Some(trace) = spans.first().map(|span| span.trace) else { return };
        if let Some(entry) = self.all.get_mut(&trace)
            && let Body::Sealed { weight, left_out, .. } = &mut entry.body
            && (entry.summary.facts.len() >= self.room.spans || *weight + least > self.room.trace)
        {
            // None of them would have room in it: it is not opened for that.
            *left_out = left_out.saturating_add(spans.len() as u64);
            return self.dropped(Dropped::TooMany, spans.len());
        }
        spans.into_iter().for_each(|span| self.add(span, now));
        #[cfg(test)]
        {
            self.open_most = self.open_most.max(self.open_bytes);
        }
    }

    /// The trace is to be written.
    fn has_changed(&mut self, trace: u128) {
        if self.is_kept {
            self.changed.insert(trace);
        }
    }

    /// The trace is to leave the file.
    fn has_gone(&mut self, trace: u128) {
        self.changed.remove(&trace);
        if self.is_kept {
            self.gone.insert(trace);
        }
    }

    /// There is a file that asks for [`Self::changes`], or there is none any more.
    pub(crate) fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
        if !is_kept {
            self.changed.clear();
            self.gone.clear();
        }
    }

    /// So many were not kept.
    pub(crate) fn dropped(&mut self, why: Dropped, count: usize) {
        if count > 0 {
            *self.counts.dropped.entry(why).or_default() += u64::try_from(count).unwrap_or(0);
        }
    }

    fn add(&mut self, span: Received, now: Instant) {
        let trace = span.trace;
        self.reopen(trace, now);
        let Some(Entry {
            body: Body::Open { spans, weight, left_out, heard },
            bytes,
            summary,
            slow,
            ..
        }) = self.all.get_mut(&trace)
        else {
            return;
        };
        // A sender that heard no answer sends again.
        if spans.iter().any(|one| (one.id, one.kind) == (span.id, span.kind)) {
            return;
        }
        let more = span.weight();
        if spans.len() >= self.room.spans || *weight + more > self.room.trace {
            *left_out = left_out.saturating_add(1);
            self.has_changed(trace);
            return self.dropped(Dropped::TooMany, 1);
        }
        *heard = now;
        *weight += more;
        *bytes += more;
        self.open_bytes += more;
        self.bytes[usize::from(*slow || summary.errors > 0)] += more;
        spans.push(span);
        self.stale.insert(trace);
        self.has_changed(trace);
    }

    /// The trace is there and takes spans after this.
    fn reopen(&mut self, trace: u128, now: Instant) {
        let Some(entry) = self.all.get_mut(&trace) else {
            let turn = self.next;
            self.next += 1;
            let open = Body::Open { spans: Vec::new(), weight: 0, left_out: 0, heard: now };
            let entry =
                Entry { turn, body: open, summary: Summary::default(), slow: false, bytes: 0 };
            self.open.insert(turn, trace);
            self.put(trace, entry);
            return;
        };
        let Body::Sealed { bytes, left_out: since, .. } = &entry.body else { return };
        let whole = kept::decoded(trace, bytes).unwrap_or_default();
        let weight = weight_of(&whole.spans);
        let left_out = whole.left_out.saturating_add(*since);
        let spans = whole.spans;
        entry.body = Body::Open { spans, weight, left_out, heard: now };
        self.open.insert(entry.turn, trace);
        self.open_bytes += weight;
        self.stale.insert(trace);
    }

    /// Puts an entry in, with what is counted of it.
    fn put(&mut self, trace: u128, mut entry: Entry) {
        entry.bytes = entry.weight();
        self.bytes[entry.class()] += entry.bytes;
        self.turns[entry.class()].insert(entry.turn, trace);
        self.gone.remove(&trace);
        self.all.insert(trace, entry);
    }

    /// Takes an entry out, with what is counted of it.
    fn pull(&mut self, trace: u128) -> Option<Entry> {
        let entry = self.all.remove(&trace)?;
        let class = entry.class();
        self.bytes[class] = self.bytes[class].saturating_sub(entry.bytes);
        self.turns[class].remove(&entry.turn);
        Some(entry)
    }

    /// Sums up what has come since the last time.
    pub(crate) fn refresh(&mut self) {
        while let Some(trace) = self.stale.pop_first() {
            let Some(mut entry) = self.pull(trace) else { continue };
            if let Body::Open { spans, .. } = &entry.body {
                entry.summary = summed(spans, &mut self.services);
            }
            self.put(trace, entry);
        }
    }

    /// Nothing more is expected of this trace, which is taken out of the open ones already.
    fn seal(&mut self, trace: u128) {
        self.stale.remove(&trace);
        let Some(mut entry) = self.pull(trace) else { return };
        if let Body::Open { spans, weight, left_out, .. } = &mut entry.body {
            self.open_bytes = self.open_bytes.saturating_sub(*weight);
            entry.summary = summed(spans, &mut self.services);
            let first = tree::ordered(spans).first().map(|first| &spans[first.span]);
            let Some(first) = first else { return };
            // One that opened again has been compared.
            if !entry.slow && self.usual.is_slow(first, entry.summary.duration) {
                entry.slow = true;
                self.has_changed(trace);
            }
            let (turn, slow, left_out, weight) = (entry.turn, entry.slow, *left_out, *weight);
            let whole = Whole { turn, slow, left_out, spans: std::mem::take(spans) };
            entry.body = Body::Sealed { bytes: kept::encoded(&whole), weight, left_out: 0 };
        }
        self.put(trace, entry);
    }

    /// Seals those that nobody has heard of for a while.
    pub(crate) fn settle(&mut self, now: Instant) {
        let quiet = |trace: &u128| match self.all.get(trace).map(|entry| &entry.body) {
            Some(Body::Open { heard, .. }) => now >= *heard + limits::TRACE_QUIET,
            _ => true,
        };
        let open = self.open.iter().filter(|(_, trace)| quiet(trace));
        let quiet: Vec<_> = open.map(|(turn, trace)| (*turn, *trace)).collect();
        for (turn, trace) in quiet {
            self.open.remove(&turn);
            self.seal(trace);
        }
        self.refresh();
        self.make_room();
    }

    /// The oldest go until the rest fits.
    fn make_room(&mut self) {
        while self.bytes[0] + self.bytes[1] > self.room.bytes {
            let share =
                self.room.bytes / limits::TRACES_WORTH_SHARE.1 * limits::TRACES_WORTH_SHARE.0;
            let worth = self.bytes[1] > share || self.turns[0].is_empty();
            let Some((_, trace)) = self.turns[usize::from(worth)].first_key_value() else { return };
            let trace = *trace;
            self.counts.evicted += 1;
            self.stale.remove(&trace);
            self.has_gone(trace);
            let Some(entry) = self.pull(trace) else { return };
            if let Body::Open { weight, .. } = entry.body {
                self.open.remove(&entry.turn);
                self.open_bytes = self.open_bytes.saturating_sub(weight);
            }
        }
        self.services.retain(|service| Rc::strong_count(service) > 1);
    }

    /// What has changed since the last call, or everything; `None`: nothing.
    pub(crate) fn changes(&mut self, whole: bool) -> Option<Batch> {
        self.refresh();
        let changed = std::mem::take(&mut self.changed);
        let gone = std::mem::take(&mut self.gone);
        let bytes = |(trace, entry): (&u128, &Entry)| {
            let bytes = match &entry.body {
                Body::Sealed { bytes, .. } => bytes.clone(),
                Body::Open { spans, left_out, .. } => {
                    let (turn, slow, left_out) = (entry.turn, entry.slow, *left_out);
                    kept::encoded(&Whole { turn, slow, left_out, spans: spans.clone() })
                }
            };
            (*trace, bytes)
        };
        if whole {
            let put = self.all.iter().map(bytes).collect();
            return Some(Batch { whole, put, gone: Vec::new() });
        }
        let put = changed.iter().filter_map(|trace| self.all.get_key_value(trace)).map(bytes);
        let (put, gone): (Vec<_>, Vec<_>) = (put.collect(), gone.into_iter().collect());
        (!put.is_empty() || !gone.is_empty()).then_some(Batch { whole, put, gone })
    }

    /// Takes over what was kept; what makes no sense is left out.
    pub(crate) fn restore(&mut self, kept: Rows) {
        for (trace, bytes) in kept.traces {
            let Some(whole) = kept::decoded(trace, &bytes) else {
                self.has_gone(trace);
                continue;
            };
            // Two with one turn would hide each other.
            let taken = self.turns.iter().any(|turns| turns.contains_key(&whole.turn));
            let turn = if taken || whole.turn > u64::MAX / 2 { self.next } else { whole.turn };
            self.next = self.next.max(turn + 1);
            let summary = summed(&whole.spans, &mut self.services);
            let body = Body::Sealed { bytes, weight: weight_of(&whole.spans), left_out: 0 };
            self.put(trace, Entry { turn, body, summary, slow: whole.slow, bytes: 0 });
        }
        self.make_room();
    }
}

/// About how much memory these take, bytes.
fn weight_of(spans: &[Received]) -> usize {
    spans.iter().map(Received::weight).sum()
}

/// What is asked about these spans.
fn summed(spans: &[Received], services: &mut HashSet<Rc<str>>) -> Summary {
    let placed = tree::ordered(spans);
    let start = placed.iter().map(|one| one.start).min().unwrap_or(0);
    let ends = placed.iter().map(|one| one.start.saturating_add(spans[one.span].duration));
    let first = placed.first().map_or(0, |first| first.span);
    let mut summary = Summary {
        first,
        about: spans.get(first).map(facts::about).unwrap_or_default().into(),
        start,
        duration: ends.max().unwrap_or(0).saturating_sub(start),
        ..Summary::default()
    };
    for span in spans {
        let service = match services.get(span.service.as_str()) {
            Some(known) => Rc::clone(known),
            None => {
                let service: Rc<str> = span.service.as_str().into();
                services.insert(Rc::clone(&service));
                service
            }
        };
        let status = Status::of(span);
        summary.errors += u64::from(status.failed);
        let (path, duration) = (facts::path(span).into(), span.duration);
        summary.facts.push(Fact { service, path, status, duration });
    }
    summary
}
