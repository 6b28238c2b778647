//! Prometheus' text format 0.0.4.

use std::fmt::Write as _;

use super::{
    histogram::{BOUNDS_THOUSANDTHS, Histogram, HistogramTotal},
    registry::{LabelSet, Sets},
    series::{HttpSeries, TcpSeries},
};
use crate::direction::Direction;

/// Picks one counter of a shard.
type Pick<S> = fn(&S) -> u64;

pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A gauge per direction, in the order of [`Direction::ALL`].
pub(super) fn by_direction(text: &mut String, (name, help): (&str, &str), values: [u64; 2]) {
    family(text, name, "gauge", help);
    for (direction, value) in Direction::ALL.into_iter().zip(values) {
        let _ = writeln!(text, "{name}{{direction=\"{}\"}} {value}", direction.as_str());
    }
}

/// All series with Istio's names.
pub(super) fn series(text: &mut String, sets: &Sets) {
    let requests = ("istio_requests_total", "Finished HTTP requests.");
    counters(text, requests, &sets.http, |shard: &HttpSeries| shard.requests.get());
    for (name, help, pick) in HISTOGRAMS {
        family(text, name, "histogram", help);
        for set in &sets.http {
            histogram(text, name, set, pick);
        }
    }
    for (name, help, pick) in TCP_COUNTERS {
        counters(text, (name, help), &sets.tcp, pick);
    }
}

/// Name, help and place of a histogram.
type HistogramRow = (&'static str, &'static str, fn(&HttpSeries) -> &Histogram);

/// Each histogram.
const HISTOGRAMS: [HistogramRow; 3] = [
    (
        "istio_request_duration_milliseconds",
        "From a request's first byte to its response's last, ms.",
        |shard| &shard.duration_ms,
    ),
    ("istio_request_bytes", "Bytes of a request as the client sent it.", |shard| {
        &shard.request_bytes
    }),
    ("istio_response_bytes", "Bytes of a response as the client got it.", |shard| {
        &shard.response_bytes
    }),
];

const TCP_COUNTERS: [(&str, &str, Pick<TcpSeries>); 4] = [
    ("istio_tcp_connections_opened_total", "Connections opened.", |shard| shard.opened.get()),
    ("istio_tcp_connections_closed_total", "Connections closed.", |shard| shard.closed.get()),
    ("istio_tcp_sent_bytes_total", "Bytes sent to clients.", |shard| shard.sent.get()),
    ("istio_tcp_received_bytes_total", "Bytes received from clients.", |shard| {
        shard.received.get()
    }),
];

fn counters<S>(text: &mut String, (name, help): (&str, &str), sets: &[LabelSet<S>], pick: Pick<S>) {
    family(text, name, "counter", help);
    for set in sets {
        let count: u64 = set.shards.iter().map(|shard| pick(shard)).sum();
        let _ = writeln!(text, "{name}{{{}}} {count}", set.labels);
    }
}

fn histogram(
    text: &mut String,
    name: &str,
    set: &LabelSet<HttpSeries>,
    pick: fn(&HttpSeries) -> &Histogram,
) {
    let mut total = HistogramTotal::default();
    for shard in &set.shards {
        pick(shard).add_to(&mut total);
    }
    let labels = &set.labels;
    let mut count = 0;
    for (bucket, bound) in total.buckets.iter().zip(BOUNDS_THOUSANDTHS) {
        count += bucket;
        let _ = write!(text, "{name}_bucket{{{labels},le=\"");
        decimal(text, bound);
        let _ = writeln!(text, "\"}} {count}");
    }
    count += total.buckets[BOUNDS_THOUSANDTHS.len()];
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = write!(text, "{name}_sum{{{labels}}} ");
    decimal(text, total.sum_thousandths);
    let _ = writeln!(text, "\n{name}_count{{{labels}}} {count}");
}

/// Thousandths as a decimal number without trailing zeros.
fn decimal(text: &mut String, thousandths: u64) {
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let _ = write!(text, "{whole}");
    if rest > 0 {
        let _ = write!(text, ".{rest:03}");
        while text.ends_with('0') {
            text.pop();
        }
    }
}
