//! Prometheus' protobuf exposition (`io.prometheus.client.MetricFamily`): what the text says, and native histograms.
//!
//! A message is made whole before its length is known. So that no scrape holds megabytes, a family of many metrics
//! comes in several messages of its name, one behind the other, which scrapers read as they come.

use super::{
    native::{BUCKETS, Native, SCHEMA},
    registry::LabelSet,
    render::Spread,
    scrape::{Said, Scrape},
    series::HttpSeries,
};
use crate::limits::SCRAPE_PIECE_BYTES;

/// Bytes of metrics in one message, more or less.
const MESSAGE_BYTES: usize = SCRAPE_PIECE_BYTES / 2;

/// Numbers of fields (`metrics.proto` of Prometheus' client model).
mod field {
    pub(super) const NAME: u32 = 1;
    pub(super) const HELP: u32 = 2;
    pub(super) const KIND: u32 = 3;
    pub(super) const METRIC: u32 = 4;
    pub(super) const LABEL: u32 = 1;
    pub(super) const GAUGE: u32 = 2;
    pub(super) const COUNTER: u32 = 3;
    pub(super) const SUMMARY: u32 = 4;
    pub(super) const HISTOGRAM: u32 = 7;
    pub(super) const COUNT: u32 = 1;
    pub(super) const SUM: u32 = 2;
    pub(super) const BUCKET: u32 = 3;
    pub(super) const SCHEMA: u32 = 5;
    pub(super) const ZERO_THRESHOLD: u32 = 6;
    pub(super) const ZERO_COUNT: u32 = 7;
    pub(super) const POSITIVE_SPAN: u32 = 12;
    pub(super) const POSITIVE_DELTA: u32 = 13;
}

/// A message under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// `sint32` and `sint64`.
    fn signed(&mut self, field: u32, value: i64) {
        self.number(field, zigzag(value));
    }

    fn double(&mut self, field: u32, value: f64) {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u32, value: &Self) {
        self.bytes(field, &value.0);
    }

    fn label(&mut self, name: &str, value: &str) {
        let mut pair = Self::default();
        pair.bytes(1, name.as_bytes());
        pair.bytes(2, value.as_bytes());
        self.message(field::LABEL, &pair);
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// What a family is, by the words of the text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    Counter = 0,
    #[default]
    Gauge = 1,
    Summary = 2,
    Histogram = 4,
}

/// A scrape as messages.
#[derive(Debug)]
pub(super) struct Families {
    scrape: Scrape,
    name: String,
    help: String,
    kind: Kind,
    /// Metrics of the family that are not in a message yet.
    metrics: Message,
    /// A histogram or summary of the text whose lines are not all read: its labels, and what is known of it.
    open: Option<(String, Message)>,
    out: Vec<u8>,
}

impl Families {
    pub(super) fn of(scrape: Scrape) -> Self {
        let (name, help) = (String::new(), String::new());
        let (metrics, open, out) = (Message::default(), None, Vec::new());
        Self { scrape, name, help, kind: Kind::default(), metrics, open, out }
    }

    /// Puts what there is of the family into a message.
    fn flush(&mut self) {
        self.close();
        if self.metrics.0.is_empty() {
            return;
        }
        let mut family = Message::default();
        family.bytes(field::NAME, self.name.as_bytes());
        family.bytes(field::HELP, self.help.as_bytes());
        family.number(field::KIND, self.kind as u64);
        family.0.append(&mut self.metrics.0);
        let mut length = Message::default();
        length.varint(family.0.len() as u64);
        self.out.append(&mut length.0);
        self.out.append(&mut family.0);
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                self.flush();
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                (self.name, self.help) = (name.to_owned(), help.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                self.kind = match rest.rsplit_once(' ').map_or("", |(_, kind)| kind) {
                    "counter" => Kind::Counter,
                    "summary" => Kind::Summary,
                    "histogram" => Kind::Histogram,
                    _ => Kind::Gauge,
                };
            } else {
                self.sample(line);
            }
        }
    }

    /// A line of the text, which this process wrote itself.
    fn sample(&mut self, line: &str) {
        let Some((series, value)) = line.rsplit_once(' ') else { return };
        let Ok(value) = value.parse::<f64>() else { return };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or(labels)),
            None => (series, ""),
        };
        let field = match self.kind {
            Kind::Counter => field::COUNTER,
            Kind::Gauge => field::GAUGE,
            Kind::Summary | Kind::Histogram => return self.part(name, labels, value),
        };
        let mut inner = Message::default();
        inner.double(1, value);
        self.metric(labels, (field, &inner));
    }

    /// A line of a histogram or summary.
    fn part(&mut self, name: &str, labels: &str, value: f64) {
        let mut of: Vec<(&str, String)> = pairs(labels).collect();
        let bound = of.iter().position(|(name, _)| *name == "le").map(|at| of.remove(at).1);
        let own = match labels.rfind("le=\"").filter(|_| bound.is_some()) {
            Some(at) => labels[..at].trim_end_matches(','),
            None => labels,
        };
        if self.open.as_ref().is_none_or(|(open, _)| open != own) {
            self.close();
            self.open = Some((own.to_owned(), Message::default()));
        }
        let Some((_, message)) = &mut self.open else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = value as u64;
        match (name.rsplit_once('_').map_or("", |(_, part)| part), bound) {
            ("bucket", Some(bound)) => {
                if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                    message.message(field::BUCKET, &bucket(count, bound));
                }
            }
            ("sum", _) => message.double(field::SUM, value),
            ("count", _) => message.number(field::COUNT, count),
            _ => {}
        }
    }

    /// The histogram or summary whose lines came last is whole.
    fn close(&mut self) {
        let Some((labels, message)) = self.open.take() else { return };
        let field = if self.kind == Kind::Summary { field::SUMMARY } else { field::HISTOGRAM };
        self.metric(&labels, (field, &message));
    }

    fn metric(&mut self, labels: &str, (field, value): (u32, &Message)) {
        let mut metric = Message::default();
        pairs(labels).for_each(|(name, value)| metric.label(name, &value));
        metric.message(field, value);
        self.metrics.message(field::METRIC, &metric);
        if self.metrics.0.len() >= MESSAGE_BYTES {
            self.flush();
        }
    }

    fn histogram(&mut self, set: &LabelSet<HttpSeries>, spread: Spread<HttpSeries>) {
        let shards: Vec<_> = set.shards.iter().map(|shard| spread(shard)).collect();
        let mut message = Message::default();
        let (mut classic, mut sum, mut below) = (Vec::new(), 0_u64, 0_u64);
        for (index, bound) in shards.first().map_or(&[][..], |one| one.bounds).iter().enumerate() {
            below += shards.iter().map(|shard| shard.buckets[index].get()).sum::<u64>();
            classic.push((below, *bound as f64 / 1e3));
        }
        let (mut buckets, mut zero, mut about) = ([0_u64; BUCKETS], 0_u64, None);
        for shard in &shards {
            about = Some(shard.read_native(|native: &Native| {
                zero += native.below.get();
                for (all, one) in buckets.iter_mut().zip(&native.buckets) {
                    *all += one.get();
                }
                (native.threshold(), native.lowest)
            }));
            sum = sum.wrapping_add(shard.sum_thousandths.get());
        }
        let Some((threshold, lowest)) = about else { return };
        // What is counted meanwhile may be in one sort of buckets and not yet in the other.
        let count = zero + buckets.iter().sum::<u64>();
        message.number(field::COUNT, count);
        message.double(field::SUM, sum as f64 / 1e3);
        for (below, bound) in classic {
            message.message(field::BUCKET, &bucket(below.min(count), bound));
        }
        message.signed(field::SCHEMA, i64::from(SCHEMA));
        message.double(field::ZERO_THRESHOLD, threshold);
        message.number(field::ZERO_COUNT, zero);
        spans(&mut message, lowest + 1, &buckets);
        self.metric(&set.labels, (field::HISTOGRAM, &message));
    }
}

impl Iterator for Families {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while self.out.len() < SCRAPE_PIECE_BYTES {
            match self.scrape.next_said() {
                Some(Said::Text(text)) => self.text(&text),
                Some(Said::Histogram(head, set, spread)) => {
                    self.text(&head);
                    if let Some(set) = set {
                        self.histogram(&set, spread);
                    }
                }
                None => {
                    self.flush();
                    break;
                }
            }
        }
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out))
    }
}

fn bucket(cumulative: u64, bound: f64) -> Message {
    let mut bucket = Message::default();
    bucket.number(1, cumulative);
    bucket.double(2, bound);
    bucket
}

/// Runs of buckets that hold something, each by how far behind the last it begins; and their counts, each as the
/// difference from the one before.
fn spans(message: &mut Message, first: i32, buckets: &[u64]) {
    let (mut deltas, mut last, mut end) = (Message::default(), 0, None);
    let mut at = 0;
    while at < buckets.len() {
        if buckets[at] == 0 {
            at += 1;
            continue;
        }
        let run = buckets[at..].iter().take_while(|count| **count > 0).count();
        let begin = first + i32::try_from(at).unwrap_or(i32::MAX);
        let mut span = Message::default();
        span.signed(1, i64::from(end.map_or(begin, |end: i32| begin - end)));
        span.number(2, run as u64);
        message.message(field::POSITIVE_SPAN, &span);
        for count in &buckets[at..at + run] {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            deltas.varint(zigzag(count - last));
            last = count;
        }
        end = Some(begin + i32::try_from(run).unwrap_or(i32::MAX));
        at += run;
    }
    if end.is_none() {
        // A span of nothing is what tells a native histogram without a value from a classic one.
        let mut span = Message::default();
        span.signed(1, 0);
        span.number(2, 0);
        message.message(field::POSITIVE_SPAN, &span);
    }
    message.bytes(field::POSITIVE_DELTA, &deltas.0);
}

/// The labels of a text that this process wrote.
fn pairs(labels: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let (name, behind) = rest.trim_start_matches(',').split_once("=\"")?;
        let (mut value, mut end, mut escaped) = (String::new(), behind.len(), false);
        for (at, one) in behind.char_indices() {
            match (escaped, one) {
                (true, 'n') => value.push('\n'),
                (true, other) => value.push(other),
                (false, '\\') => {}
                (false, '"') => {
                    end = at + 1;
                    break;
                }
                (false, other) => value.push(other),
            }
            escaped = !escaped && one == '\\';
        }
        rest = &behind[end..];
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_were_meant() {
        let read: Vec<_> = pairs(r#"a="x\"y\\z\nw",b="",c="}, d=\"e""#).collect();
        let expected = [("a", "x\"y\\z\nw"), ("b", ""), ("c", "}, d=\"e")];
        assert_eq!(read, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(pairs("").count(), 0);
    }

    #[test]
    fn runs_of_buckets_are_spans_and_counts_are_differences() {
        let mut message = Message::default();
        spans(&mut message, -3, &[0, 2, 5, 0, 0, 1, 0]);
        let mut expected = Message::default();
        for (offset, length) in [(-2, 2), (2, 1)] {
            let mut span = Message::default();
            span.signed(1, offset);
            span.number(2, length);
            expected.message(field::POSITIVE_SPAN, &span);
        }
        let deltas: Vec<u8> = [2, 3, -4].map(|delta| zigzag(delta) as u8).into();
        expected.bytes(field::POSITIVE_DELTA, &deltas);
        assert_eq!(message.0, expected.0);
    }
}
