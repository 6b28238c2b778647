//! A trace as bytes: what is held in memory once nothing more is expected of it, and what is in the file. Texts are
//! there once, since the spans of a trace say much the same.

use std::collections::HashMap;

use heddle_wire::trace::received::{Received, ReceivedKind};
use minicbor::{Decode, Encode};

/// A trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Whole {
    /// Which came first: ascending.
    pub(super) turn: u64,
    /// Longer than others that begin alike.
    pub(super) slow: bool,
    /// Spans that were too many.
    pub(super) left_out: u64,
    pub(super) spans: Vec<Received>,
}

/// What is to be written, all of it or nothing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// Does this say everything? What is there besides goes then.
    pub(crate) whole: bool,
    pub(crate) put: Vec<(u128, Vec<u8>)>,
    pub(crate) gone: Vec<u128>,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) traces: Vec<(u128, Vec<u8>)>,
}

#[derive(Debug, Decode, Encode)]
#[cbor(map)]
struct Kept {
    #[n(1)]
    turn: u64,
    #[cbor(n(2), default)]
    slow: bool,
    #[cbor(n(3), default)]
    left_out: u64,
    #[n(4)]
    texts: Vec<String>,
    #[n(5)]
    spans: Vec<KeptSpan>,
}

/// Texts by their place among all.
#[derive(Debug, Decode, Encode)]
#[cbor(array)]
struct KeptSpan {
    #[n(0)]
    id: u64,
    #[n(1)]
    parent: u64,
    #[n(2)]
    kind: ReceivedKind,
    #[n(3)]
    start: u64,
    #[n(4)]
    duration: u64,
    #[n(5)]
    failed: bool,
    #[n(6)]
    service: u32,
    #[n(7)]
    workload: u32,
    #[n(8)]
    name: u32,
    #[n(9)]
    tags: Vec<(u32, u32)>,
    #[n(10)]
    events: Vec<(u64, u32)>,
}

#[derive(Default)]
struct Texts<'a> {
    of: HashMap<&'a str, u32>,
    all: Vec<String>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> u32 {
        *self.of.entry(text).or_insert_with(|| {
            self.all.push(text.to_owned());
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

/// Its bytes.
pub(super) fn encoded(whole: &Whole) -> Vec<u8> {
    let mut texts = Texts::default();
    let spans = whole.spans.iter();
    let spans = spans.map(|span| KeptSpan {
        id: span.id,
        parent: span.parent.unwrap_or(0),
        kind: span.kind,
        start: span.start,
        duration: span.duration,
        failed: span.failed,
        service: texts.number(&span.service),
        workload: texts.number(&span.workload),
        name: texts.number(&span.name),
        tags: span
            .tags
            .iter()
            .map(|(key, value)| (texts.number(key), texts.number(value)))
            .collect(),
        events: span.events.iter().map(|(at, what)| (*at, texts.number(what))).collect(),
    });
    let spans = spans.collect();
    let Whole { turn, slow, left_out, .. } = *whole;
    let kept = Kept { turn, slow, left_out, texts: texts.all, spans };
    // Neither our own forms nor writing to memory can fail.
    let mut bytes = minicbor::to_vec(&kept).unwrap_or_default();
    // They stay for long, and are counted by their length.
    bytes.shrink_to_fit();
    bytes
}

/// The trace that they are of, if they make sense.
pub(super) fn decoded(trace: u128, bytes: &[u8]) -> Option<Whole> {
    let Kept { turn, slow, left_out, texts, spans } = minicbor::decode(bytes).ok()?;
    let text = |number: u32| texts.get(usize::try_from(number).ok()?).cloned();
    let span = |span: KeptSpan| {
        let tag = |(key, value)| Some((text(key)?, text(value)?));
        let event = |(at, what)| Some((at, text(what)?));
        Some(Received {
            trace,
            id: span.id,
            parent: Some(span.parent).filter(|parent| *parent != 0),
            service: text(span.service)?,
            workload: text(span.workload)?,
            name: text(span.name)?,
            kind: span.kind,
            start: span.start,
            duration: span.duration,
            failed: span.failed,
            tags: span.tags.into_iter().filter_map(tag).collect(),
            events: span.events.into_iter().filter_map(event).collect(),
        })
    };
    let spans: Vec<_> = spans.into_iter().filter_map(span).collect();
    (!spans.is_empty()).then_some(Whole { turn, slow, left_out, spans })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_trace_comes_back_as_it_was_and_takes_less() {
        let text = |text: &str| text.to_owned();
        let span = |id| Received {
            trace: 7,
            id,
            parent: (id > 1).then_some(1),
            service: text("reviews.default"),
            name: text("ratings.default.svc.cluster.local:9080/*"),
            kind: ReceivedKind::Client,
            start: 5,
            tags: (0..20).map(|i| (format!("a.tag.of.istio.{i}"), text("value"))).collect(),
            events: vec![(6, text("attempt 2"))],
            ..Received::default()
        };
        let whole = Whole { turn: 3, slow: true, left_out: 1, spans: (1..9).map(span).collect() };
        let bytes = encoded(&whole);
        assert!(bytes.len() * 3 < whole.spans.iter().map(Received::weight).sum::<usize>());
        assert_eq!(decoded(7, &bytes), Some(whole));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..100, byte: u8) {
            let _nothing = decoded(1, &bytes);
            let span = Received { id: 1, tags: vec![("a".into(), "b".into())], ..Received::default() };
            let mut good = encoded(&Whole { spans: vec![span], ..Whole::default() });
            let at = at % good.len();
            good[at] = byte;
            let _perhaps = decoded(1, &good);
        }
    }
}
