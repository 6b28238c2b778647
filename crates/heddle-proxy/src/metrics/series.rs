//! What is counted per label set.

use std::time::Duration;

use heddle_model::discovery::Metric;

use super::{
    counter::Counter,
    histogram::{BYTES, Histogram, MILLISECONDS},
    tags::Bits,
};

/// One worker's share of the HTTP metrics of one label set.
#[derive(Debug)]
pub(crate) struct HttpSeries {
    pub(super) requests: Counter,
    pub(super) duration_ms: Histogram<{ MILLISECONDS.len() }>,
    pub(super) request_bytes: Histogram<{ BYTES.len() }>,
    pub(super) response_bytes: Histogram<{ BYTES.len() }>,
    /// Messages of gRPC from the client.
    pub(super) request_messages: Counter,
    /// The same to it.
    pub(super) response_messages: Counter,
}

impl Default for HttpSeries {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            duration_ms: Histogram::new(&MILLISECONDS),
            request_bytes: Histogram::new(&BYTES),
            response_bytes: Histogram::new(&BYTES),
            request_messages: Counter::default(),
            response_messages: Counter::default(),
        }
    }
}

impl HttpSeries {
    /// Counts one finished request. Called on the shard's own worker only.
    pub(crate) fn record(&self, duration: Duration, request_bytes: u64, response_bytes: u64) {
        self.requests.add(1);
        self.duration_ms.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.record(request_bytes.saturating_mul(1000));
        self.response_bytes.record(response_bytes.saturating_mul(1000));
    }

    /// The same of some metrics only.
    pub(crate) fn record_some(
        &self,
        metrics: Bits,
        duration: Duration,
        (request_bytes, response_bytes): (u64, u64),
    ) {
        if metrics.has(Bits::of(Metric::RequestCount)) {
            self.requests.add(1);
        }
        if metrics.has(Bits::of(Metric::RequestDuration)) {
            self.duration_ms.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        if metrics.has(Bits::of(Metric::RequestSize)) {
            self.request_bytes.record(request_bytes.saturating_mul(1000));
        }
        if metrics.has(Bits::of(Metric::ResponseSize)) {
            self.response_bytes.record(response_bytes.saturating_mul(1000));
        }
    }

    /// Counts messages of gRPC, from the client and to it, where these metrics have them.
    pub(crate) fn messages(&self, metrics: Bits, (received, sent): (u64, u64)) {
        if metrics.has(Bits::of(Metric::GrpcRequestMessages)) {
            self.request_messages.add(received);
        }
        if metrics.has(Bits::of(Metric::GrpcResponseMessages)) {
            self.response_messages.add(sent);
        }
    }

    /// A number that is another one when something was counted.
    pub(super) fn counted(&self) -> u64 {
        let messages = self.request_messages.get().wrapping_add(self.response_messages.get());
        let spreads =
            [self.duration_ms.count(), self.request_bytes.count(), self.response_bytes.count()];
        spreads
            .iter()
            .fold(self.requests.get().wrapping_add(messages), |all, one| all.wrapping_add(*one))
    }
}

/// One worker's share of the TCP metrics of one label set. Written on that worker only.
#[derive(Debug, Default)]
pub(crate) struct TcpSeries {
    /// Connections opened.
    pub(crate) opened: Counter,
    /// Connections closed.
    pub(crate) closed: Counter,
    /// Bytes to the client.
    pub(crate) sent: Counter,
    /// Bytes from the client.
    pub(crate) received: Counter,
    /// Connections opened here that are closed by now, whichever flags that has; not shown.
    pub(crate) ended: Counter,
}

impl TcpSeries {
    /// A number that is another one when something was counted.
    pub(super) fn counted(&self) -> u64 {
        let counters = [&self.opened, &self.closed, &self.sent, &self.received];
        counters.iter().fold(0, |all: u64, one| all.wrapping_add(one.get()))
    }
}
