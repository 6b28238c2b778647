//! Lines of Prometheus' text format 0.0.4.

use std::{fmt::Write as _, sync::Arc};

use super::{
    histogram::{HistogramShard, decimal},
    series::{HttpSeries, TcpSeries},
};
use crate::direction::Direction;

/// A metric of every label set: its name, what it says, and its place in a worker's share.
pub(super) type Row<F> = (&'static str, &'static str, F);

/// Picks one counter of a shard.
pub(super) type Count<S> = fn(&S) -> u64;

/// Picks one histogram of a shard.
pub(super) type Spread<S> = for<'a> fn(&'a S) -> HistogramShard<'a>;

pub(super) const HTTP_COUNTERS: [Row<Count<HttpSeries>>; 3] = [
    ("istio_requests_total", "Finished HTTP requests.", |shard| shard.requests.get()),
    ("istio_request_messages_total", "Messages of gRPC from clients.", |shard| {
        shard.request_messages.get()
    }),
    ("istio_response_messages_total", "Messages of gRPC to clients.", |shard| {
        shard.response_messages.get()
    }),
];

pub(super) const HTTP_HISTOGRAMS: [Row<Spread<HttpSeries>>; 3] = [
    (
        "istio_request_duration_milliseconds",
        "From a request's first byte to its response's last, ms.",
        |shard| shard.duration_ms.shard(),
    ),
    ("istio_request_bytes", "Bytes of a request as the client sent it.", |shard| {
        shard.request_bytes.shard()
    }),
    ("istio_response_bytes", "Bytes of a response as the client got it.", |shard| {
        shard.response_bytes.shard()
    }),
];

pub(super) const TCP_COUNTERS: [Row<Count<TcpSeries>>; 4] = [
    ("istio_tcp_connections_opened_total", "Connections opened.", |shard| shard.opened.get()),
    ("istio_tcp_connections_closed_total", "Connections closed.", |shard| shard.closed.get()),
    ("istio_tcp_sent_bytes_total", "Bytes sent to clients.", |shard| shard.sent.get()),
    ("istio_tcp_received_bytes_total", "Bytes received from clients.", |shard| {
        shard.received.get()
    }),
];

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

/// One label set, and the share of each worker.
pub(super) type Shares<'a, S> = (&'a str, &'a [Arc<S>]);

pub(super) fn counter<S>(
    text: &mut String,
    name: &str,
    (labels, shards): Shares<'_, S>,
    count: Count<S>,
) {
    let total: u64 = shards.iter().map(|shard| count(shard)).sum();
    let _ = writeln!(text, "{name}{{{labels}}} {total}");
}

pub(super) fn histogram<S>(
    text: &mut String,
    name: &str,
    (labels, shards): Shares<'_, S>,
    spread: Spread<S>,
) {
    // A rule may have taken all of them away.
    let comma = if labels.is_empty() { "" } else { "," };
    let shards = || shards.iter().map(|shard| spread(shard));
    let bounds = shards().next().map_or(&[][..], |shard| shard.bounds);
    let mut count = 0;
    for (index, bound) in bounds.iter().enumerate() {
        count += shards().map(|shard| shard.buckets[index].get()).sum::<u64>();
        // The bulk of a scrape: copied, not formatted.
        for part in [name, "_bucket{", labels, comma, "le=\""] {
            text.push_str(part);
        }
        decimal(text, *bound);
        let _ = writeln!(text, "\"}} {count}");
    }
    count += shards().map(|shard| shard.above.get()).sum::<u64>();
    let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = write!(text, "{name}_sum{{{labels}}} ");
    decimal(text, shards().map(|shard| shard.sum_thousandths.get()).sum());
    let _ = writeln!(text, "\n{name}_count{{{labels}}} {count}");
}
