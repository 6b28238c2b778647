//! How a worker finds the counters of a request without hashing: by edge, status and flags.

use std::{cell::RefCell, sync::Arc};

use crate::{
    metrics::{Edge, Grpc, HttpSeries, Metrics, TcpSeries},
    refusal::Flags,
};

/// All series of one edge on one worker, found by status and flags.
#[derive(Debug)]
pub(crate) struct SeriesSet {
    edge: Edge,
    worker: usize,
    http: RefCell<Vec<(u64, Arc<HttpSeries>)>>,
    tcp: RefCell<Vec<(u16, Arc<TcpSeries>)>>,
}

impl SeriesSet {
    pub(crate) fn new(edge: Edge, worker: usize) -> Self {
        Self { edge, worker, http: RefCell::default(), tcp: RefCell::default() }
    }

    /// Who calls whom.
    pub(crate) fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Runs `count` on the series of a status and flags.
    ///
    /// An edge sees a handful of statuses, so a short list is faster than any map.
    pub(crate) fn http(
        &self,
        metrics: &Metrics,
        (status, grpc, flags): (u16, Grpc, Flags),
        count: impl FnOnce(&HttpSeries),
    ) {
        let key = u64::from(grpc.code()) << 32 | u64::from(status) << 16 | u64::from(flags.bits());
        let mut known = self.http.borrow_mut();
        if let Some((_, series)) = known.iter().find(|(one, _)| *one == key) {
            return count(series);
        }
        let series = metrics.http_series(self.worker, &self.edge, (status, grpc), flags);
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
