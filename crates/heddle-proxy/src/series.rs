//! How a worker finds the counters of a request without hashing: by edge, status and flags. Where rules change tags,
//! by the values of those too.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    limits::TAGGED_AT_HAND,
    metrics::{Bits, Edge, Grpc, HttpKey, HttpSeries, Metrics, Tagged, TcpSeries},
    refusal::Flags,
};

/// All series of one edge on one worker, found by status and flags.
#[derive(Debug)]
pub(crate) struct SeriesSet {
    edge: Edge,
    worker: usize,
    /// Of what was found: another one of the metrics' makes it void.
    epoch: Cell<u32>,
    http: RefCell<Vec<(u64, Arc<HttpSeries>)>>,
    tcp: RefCell<Vec<(u16, Arc<TcpSeries>)>>,
    http_tagged: RefCell<Tags<u64, HttpSeries>>,
    tcp_tagged: RefCell<Tags<u16, TcpSeries>>,
}

/// Series by what was answered, the place of their group, and the values of tags.
type Tags<K, S> = HashMap<(K, usize, Rc<Tagged>), Arc<S>>;

/// Where only messages are counted is another place: what is not counted there is not told.
fn key_of((status, grpc, flags): HttpKey, of: Bits) -> u64 {
    let only_messages = u64::from(!of.has(Bits::HTTP)) << 63;
    let answer = u64::from(grpc.code()) << 32 | u64::from(status) << 16;
    only_messages | answer | u64::from(flags.bits())
}

impl SeriesSet {
    pub(crate) fn new(edge: Edge, worker: usize) -> Self {
        Self {
            edge,
            worker,
            epoch: Cell::default(),
            http: RefCell::default(),
            tcp: RefCell::default(),
            http_tagged: RefCell::default(),
            tcp_tagged: RefCell::default(),
        }
    }

    /// Who calls whom.
    pub(crate) fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Gives up what was found in another epoch.
    #[inline]
    fn renew(&self, metrics: &Metrics) {
        if self.epoch.get() != metrics.epoch() {
            self.forget(metrics);
        }
    }

    #[cold]
    fn forget(&self, metrics: &Metrics) {
        self.epoch.set(metrics.epoch());
        self.http.borrow_mut().clear();
        self.tcp.borrow_mut().clear();
        self.http_tagged.borrow_mut().clear();
        self.tcp_tagged.borrow_mut().clear();
    }

    /// Runs `count` on the series of a status and flags.
    ///
    /// An edge sees a handful of statuses, so a short list is faster than any map.
    pub(crate) fn http(&self, metrics: &Metrics, key: HttpKey, count: impl FnOnce(&HttpSeries)) {
        self.http_of(metrics, (key, Bits::of_call(key.1 != Grpc::No)), count);
    }

    #[inline]
    fn http_of(
        &self,
        metrics: &Metrics,
        (key, of): (HttpKey, Bits),
        count: impl FnOnce(&HttpSeries),
    ) {
        self.renew(metrics);
        let code = key_of(key, of);
        let mut known = self.http.borrow_mut();
        if let Some((_, series)) = known.iter().find(|(one, _)| *one == code) {
            return count(series);
        }
        let series = metrics.http_series(self.worker, &self.edge, (key, of), None);
        count(&series);
        known.push((code, series));
    }

    /// The same where tags are changed: on one series for each group of metrics.
    pub(crate) fn http_tagged(
        &self,
        metrics: &Metrics,
        (key, tagged): (HttpKey, &Rc<Tagged>),
        count: impl Fn(&HttpSeries, Bits),
    ) {
        self.http_tagged_of(metrics, (key, Bits::of_call(key.1 != Grpc::No)), tagged, count);
    }

    fn http_tagged_of(
        &self,
        metrics: &Metrics,
        (key, of): (HttpKey, Bits),
        tagged: &Rc<Tagged>,
        count: impl Fn(&HttpSeries, Bits),
    ) {
        self.renew(metrics);
        let mut known = self.http_tagged.borrow_mut();
        for (place, group) in tagged.plan.http.iter().enumerate() {
            let counted = group.metrics.and(of);
            if counted.is_none() {
                continue;
            }
            let at = (key_of(key, of), place, Rc::clone(tagged));
            let (edge, with) = (&self.edge, Some((&**tagged, group)));
            let made = || metrics.http_series(self.worker, edge, (key, of), with);
            count(&find(&mut known, at, made), counted);
        }
    }

    /// Counts messages, from the client and to it, of a call of gRPC that goes on: nothing else of it is told yet.
    pub(crate) fn messages(
        &self,
        metrics: &Metrics,
        (key, tagged): (HttpKey, Option<&Rc<Tagged>>),
        told: (u64, u64),
    ) {
        let at = (key, Bits::GRPC);
        match tagged {
            None => self.http_of(metrics, at, |series| series.messages(Bits::GRPC, told)),
            Some(tagged) => {
                self.http_tagged_of(metrics, at, tagged, |series, of| series.messages(of, told));
            }
        }
    }

    /// The series of TCP connections with these flags.
    pub(crate) fn tcp(&self, metrics: &Metrics, flags: Flags) -> Arc<TcpSeries> {
        self.renew(metrics);
        let mut known = self.tcp.borrow_mut();
        if let Some((_, series)) = known.iter().find(|(one, _)| *one == flags.bits()) {
            return Arc::clone(series);
        }
        let series = metrics.tcp_series(self.worker, &self.edge, flags, None);
        known.push((flags.bits(), Arc::clone(&series)));
        series
    }

    /// The same where tags are changed.
    pub(crate) fn tcp_tagged(
        &self,
        metrics: &Metrics,
        (flags, tagged): (Flags, &Rc<Tagged>),
        count: impl Fn(&TcpSeries, Bits),
    ) {
        self.renew(metrics);
        let mut known = self.tcp_tagged.borrow_mut();
        for (place, group) in tagged.plan.tcp.iter().enumerate() {
            let at = (flags.bits(), place, Rc::clone(tagged));
            let made = || metrics.tcp_series(self.worker, &self.edge, flags, Some((tagged, group)));
            count(&find(&mut known, at, made), group.metrics);
        }
    }
}

fn find<K: Eq + std::hash::Hash, S>(
    known: &mut Tags<K, S>,
    at: (K, usize, Rc<Tagged>),
    made: impl FnOnce() -> Arc<S>,
) -> Arc<S> {
    if let Some(series) = known.get(&at) {
        return Arc::clone(series);
    }
    if known.len() >= TAGGED_AT_HAND {
        known.clear();
    }
    let series = made();
    known.insert(at, Arc::clone(&series));
    series
}
