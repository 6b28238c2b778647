//! What is counted per label set.

use std::{sync::Arc, time::Duration};

use super::histogram::{BYTES, Counter, Histogram, MILLISECONDS};

/// One worker's share of the HTTP metrics of one label set.
#[derive(Debug)]
pub(crate) struct HttpSeries {
    pub(super) requests: Counter,
    pub(super) duration_ms: Histogram<{ MILLISECONDS.len() }>,
    pub(super) request_bytes: Histogram<{ BYTES.len() }>,
    pub(super) response_bytes: Histogram<{ BYTES.len() }>,
}

impl Default for HttpSeries {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            duration_ms: Histogram::new(&MILLISECONDS),
            request_bytes: Histogram::new(&BYTES),
            response_bytes: Histogram::new(&BYTES),
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
}

/// One label set with its shards by worker.
#[derive(Debug)]
pub(super) struct LabelSet<S> {
    pub(super) labels: Arc<str>,
    pub(super) shards: Vec<Arc<S>>,
}
