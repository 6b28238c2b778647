//! All label sets of the process, bounded; taken under a lock, but only when a set is new.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hashbrown::HashMap;

use super::series::{HttpSeries, TcpSeries};
use crate::{
    limits::{LABEL_SETS, OVERFLOW_LABEL_SETS, VERDICT_PORTS},
    verdict::{Reason, Verdict},
};

/// One label set with its shards by worker.
#[derive(Debug)]
pub(super) struct LabelSet<S> {
    pub(super) labels: Arc<str>,
    pub(super) shards: Vec<Arc<S>>,
}

impl<S> Clone for LabelSet<S> {
    fn clone(&self) -> Self {
        Self { labels: Arc::clone(&self.labels), shards: self.shards.clone() }
    }
}

/// Everything there is to render.
#[derive(Debug)]
pub(super) struct Sets {
    pub(super) http: Vec<LabelSet<HttpSeries>>,
    pub(super) tcp: Vec<LabelSet<TcpSeries>>,
}

#[derive(Debug)]
pub(super) struct Registry {
    workers: usize,
    http: Family<HttpSeries>,
    tcp: Family<TcpSeries>,
    overflow_sets: usize,
    overflow: u64,
    verdicts: Vec<(String, u16, Arc<VerdictCounters>)>,
}

#[derive(Debug)]
struct Family<S> {
    index: HashMap<Arc<str>, usize>,
    sets: Vec<LabelSet<S>>,
}

impl<S: Default> Family<S> {
    fn find(&self, labels: &str, worker: usize) -> Option<Arc<S>> {
        let index = *self.index.get(labels)?;
        self.sets[index].shards.get(worker).cloned()
    }

    fn insert(&mut self, labels: String, workers: usize, worker: usize) -> Arc<S> {
        let labels: Arc<str> = labels.into();
        let shards: Vec<Arc<S>> = (0..workers).map(|_| Arc::default()).collect();
        let shard = Arc::clone(&shards[worker]);
        self.index.insert(Arc::clone(&labels), self.sets.len());
        self.sets.push(LabelSet { labels, shards });
        shard
    }
}

impl Registry {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            http: Family { index: HashMap::new(), sets: Vec::new() },
            tcp: Family { index: HashMap::new(), sets: Vec::new() },
            overflow_sets: 0,
            overflow: 0,
            verdicts: Vec::new(),
        }
    }

    pub(super) fn http(
        &mut self,
        worker: usize,
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<HttpSeries> {
        let room = self.room();
        let (series, spilled) =
            resolve(&mut self.http, (self.workers, worker), room, labels, overflow);
        self.count_overflow(spilled);
        series
    }

    pub(super) fn tcp(
        &mut self,
        worker: usize,
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<TcpSeries> {
        let room = self.room();
        let (series, spilled) =
            resolve(&mut self.tcp, (self.workers, worker), room, labels, overflow);
        self.count_overflow(spilled);
        series
    }

    pub(super) fn sets(&self) -> Sets {
        Sets { http: self.http.sets.clone(), tcp: self.tcp.sets.clone() }
    }

    /// Label sets that found no room so far.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    pub(super) fn verdicts(&mut self, service: &str, port: u16) -> Arc<VerdictCounters> {
        let full = self.verdicts.len() >= VERDICT_PORTS;
        let find = |verdicts: &[(String, u16, Arc<VerdictCounters>)], service: &str, port: u16| {
            let found = verdicts.iter().find(|(one, number, _)| one == service && *number == port);
            found.map(|(.., counters)| Arc::clone(counters))
        };
        if let Some(counters) = find(&self.verdicts, service, port) {
            return counters;
        }
        let (service, port) = if full { ("overflow", 0) } else { (service, port) };
        find(&self.verdicts, service, port).unwrap_or_else(|| {
            let counters = Arc::<VerdictCounters>::default();
            self.verdicts.push((service.to_owned(), port, Arc::clone(&counters)));
            counters
        })
    }

    pub(super) fn verdict_ports(&self) -> Vec<(String, u16, Arc<VerdictCounters>)> {
        self.verdicts.clone()
    }

    fn room(&self) -> Room {
        let sets = self.http.sets.len() + self.tcp.sets.len() - self.overflow_sets;
        Room { set: sets < LABEL_SETS, overflow: self.overflow_sets < OVERFLOW_LABEL_SETS }
    }

    fn count_overflow(&mut self, spilled: Spilled) {
        self.overflow += u64::from(spilled != Spilled::No);
        self.overflow_sets += usize::from(spilled == Spilled::NewSet);
    }
}

#[derive(Debug, Clone, Copy)]
struct Room {
    set: bool,
    overflow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spilled {
    No,
    KnownSet,
    NewSet,
}

fn resolve<S: Default>(
    family: &mut Family<S>,
    (workers, worker): (usize, usize),
    room: Room,
    labels: impl FnOnce() -> String,
    overflow: impl FnOnce() -> [String; 2],
) -> (Arc<S>, Spilled) {
    let labels = labels();
    if let Some(series) = family.find(&labels, worker) {
        return (series, Spilled::No);
    }
    if room.set {
        return (family.insert(labels, workers, worker), Spilled::No);
    }
    let [with_service, nameless] = overflow();
    if let Some(series) = family.find(&with_service, worker) {
        return (series, Spilled::KnownSet);
    }
    if room.overflow {
        return (family.insert(with_service, workers, worker), Spilled::NewSet);
    }
    // At most two per reporter and status class, the second for injected aborts: bounded without a
    // further limit.
    match family.find(&nameless, worker) {
        Some(series) => (series, Spilled::KnownSet),
        None => (family.insert(nameless, workers, worker), Spilled::NewSet),
    }
}

/// How often one destination port was taken for what, and why. Shared by the workers: counted once
/// per connection.
#[derive(Debug, Default)]
pub(crate) struct VerdictCounters([[AtomicU64; Reason::ALL.len()]; Verdict::ALL.len()]);

impl VerdictCounters {
    pub(crate) fn count(&self, verdict: Verdict, reason: Reason) {
        self.0[verdict as usize][reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, verdict: Verdict, reason: Reason) -> u64 {
        self.0[verdict as usize][reason as usize].load(Ordering::Relaxed)
    }
}
