//! What is counted per label set, and how a worker finds it without hashing.

use std::{cell::RefCell, sync::Arc, time::Duration};

use super::{
    Edge, Metrics,
    histogram::{Counter, Histogram},
};
use crate::refusal::Flags;

/// One worker's share of the HTTP metrics of one label set.
#[derive(Debug, Default)]
pub(crate) struct HttpSeries {
    pub(super) requests: Counter,
    pub(super) duration_ms: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
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

/// All series of one edge on one worker, found by status and flags.
#[derive(Debug)]
pub(crate) struct SeriesSet {
    edge: Edge,
    worker: usize,
    http: RefCell<Vec<(u32, Arc<HttpSeries>)>>,
    tcp: RefCell<Vec<(u16, Arc<TcpSeries>)>>,
}

impl SeriesSet {
    pub(crate) fn new(edge: Edge, worker: usize) -> Self {
        Self { edge, worker, http: RefCell::default(), tcp: RefCell::default() }
    }

    /// Runs `count` on the series of a status and flags.
    ///
    /// An edge sees a handful of statuses, so a short list is faster than any map.
    pub(crate) fn http(
        &self,
        metrics: &Metrics,
        (status, flags): (u16, Flags),
        count: impl FnOnce(&HttpSeries),
    ) {
        let key = u32::from(status) << 16 | u32::from(flags.bits());
        let mut known = self.http.borrow_mut();
        if let Some((_, series)) = known.iter().find(|(one, _)| *one == key) {
            return count(series);
        }
        let series = metrics.http_series(self.worker, &self.edge, status, flags);
        count(&series);
        known.push((key, series));
    }

    /// The series of TCP connections with these flags.
    pub(crate) fn tcp(&self, metrics: &Metrics, flags: Flags) -> Arc<TcpSeries> {
        let mut known = self.tcp.borrow_mut();
        if let Some((_, series)) = known.iter().find(|(one, _)| *one == flags.bits()) {
            return Arc::clone(series);
        }
        let series = metrics.tcp_series(self.worker, &self.edge, flags);
        known.push((flags.bits(), Arc::clone(&series)));
        series
    }
}
