//! Traces as the API answers them.

use std::collections::BTreeSet;

use heddle_wire::{
    local::traces_api::{SpanEvent, StoreState, Trace, TraceList, TraceSpan},
    trace::received::Received,
};

use super::{
    Body, Entry, Traces,
    asked::Asked,
    facts::{self, Status},
    kept, tree,
};
use crate::limits;

impl Traces {
    /// Those that are meant, without tags and events.
    pub(crate) fn list(&mut self, asked: &Asked) -> TraceList {
        let (found, mut more) = self.found(asked);
        let mut list = TraceList { store: self.state(), ..TraceList::default() };
        let mut spans = 0;
        for trace in found {
            let told = match asked.spans {
                true => self.told(trace, false),
                false => self.all.get(&trace).map(|entry| written(trace, entry, (&[], 0), false)),
            };
            let Some(told) = told else { continue };
            spans += told.spans.len();
            if spans > limits::SPANS_TOLD_MAX && !list.traces.is_empty() {
                more = true;
                break;
            }
            list.traces.push(told);
        }
        list.more = more;
        list
    }

    /// One with all that is known of it.
    pub(crate) fn one(&mut self, trace: u128) -> Option<Trace> {
        self.refresh();
        self.told(trace, true)
    }

    /// Those whose ids begin with these hexadecimal digits, two at most; ids of 64 bits are meant without their zeros too.
    pub(crate) fn called(&self, digits: &str) -> Vec<u128> {
        let Ok(number) = u128::from_str_radix(digits, 16) else { return Vec::new() };
        let missing = 4 * (32 - digits.len().min(32));
        if missing == 0 || self.all.contains_key(&number) {
            return vec![number];
        }
        let first = number << missing;
        let last = first | ((1 << missing) - 1);
        self.all.range(first..=last).take(2).map(|(trace, _)| *trace).collect()
    }

    fn told(&self, trace: u128, whole: bool) -> Option<Trace> {
        let entry = self.all.get(&trace)?;
        match &entry.body {
            Body::Open { spans, left_out, .. } => {
                Some(written(trace, entry, (spans, *left_out), whole))
            }
            Body::Sealed { bytes, left_out, .. } => {
                let kept = kept::decoded(trace, bytes)?;
                let left_out = kept.left_out.saturating_add(*left_out);
                Some(written(trace, entry, (&kept.spans, left_out), whole))
            }
        }
    }

    fn state(&self) -> StoreState {
        let mut services: Vec<String> =
            self.services.iter().map(|one| (**one).to_owned()).collect();
        services.sort_unstable();
        services.truncate(limits::SERVICES_TOLD_MAX);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        StoreState {
            endpoint: self.endpoint.clone(),
            elsewhere: self.elsewhere.clone(),
            traces: number(self.all.len()),
            bytes: number(self.bytes[0] + self.bytes[1]),
            bytes_max: number(self.room.bytes),
            spans: self.counts.spans,
            dropped: self
                .counts
                .dropped
                .iter()
                .map(|(why, n)| (why.word().to_owned(), *n))
                .collect(),
            evicted: self.counts.evicted,
            services,
        }
    }
}

fn written(
    trace: u128,
    entry: &Entry,
    (spans, left_out): (&[Received], u64),
    whole: bool,
) -> Trace {
    let begun = entry.summary.start;
    let placed = tree::ordered(spans);
    let told: Vec<_> =
        placed.iter().map(|one| span(&spans[one.span], *one, begun, whole)).collect();
    let facts = &entry.summary.facts;
    let first = facts.get(entry.summary.first);
    let services: BTreeSet<&str> = facts.iter().map(|fact| &*fact.service).collect();
    Trace {
        id: format!("{trace:032x}"),
        start: seconds(begun),
        duration_ms: milliseconds(entry.summary.duration),
        service: first.map(|fact| (*fact.service).to_owned()).unwrap_or_default(),
        name: (*entry.summary.about).to_owned(),
        status: first.map(|fact| fact.status.word()).unwrap_or_default(),
        errors: entry.summary.errors,
        kept: match entry {
            _ if entry.summary.errors > 0 => Some("error".to_owned()),
            Entry { slow: true, .. } => Some("slow".to_owned()),
            Entry { .. } => None,
        },
        complete: matches!(entry.body, Body::Sealed { .. }),
        span_count: facts.len() as u64,
        services: services.into_iter().map(ToOwned::to_owned).collect(),
        left_out,
        spans: told,
    }
}

fn span(span: &Received, placed: tree::Placed, begun: u64, whole: bool) -> TraceSpan {
    let status = Status::of(span);
    let moved = placed.start as f64 - span.start as f64;
    // Events are of the span's own clock.
    let event = |(at, text): &(u64, String)| SpanEvent {
        offset_ms: (*at as f64 + moved - begun as f64) / 1e3,
        text: text.clone(),
    };
    TraceSpan {
        id: format!("{:016x}", span.id),
        parent: span.parent.map(|parent| format!("{parent:016x}")),
        depth: placed.depth,
        service: span.service.clone(),
        workload: span.workload.clone(),
        name: span.name.clone(),
        kind: span.kind.word().to_owned(),
        start: seconds(span.start),
        offset_ms: milliseconds(placed.start.saturating_sub(begun)),
        moved_ms: moved / 1e3,
        duration_ms: milliseconds(span.duration),
        status: status.word(),
        error: status.failed,
        method: facts::method(span).to_owned(),
        path: facts::path(span).to_owned(),
        mesh: facts::is_of_the_mesh(span),
        tags: if whole { span.tags.iter().cloned().collect() } else { Default::default() },
        events: if whole { span.events.iter().map(event).collect() } else { Vec::new() },
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}
