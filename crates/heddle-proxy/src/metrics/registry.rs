//! All label sets of the process, bounded; taken under a lock, but only when a set is new.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hashbrown::HashMap;

use super::{
    rules::Rules,
    series::{HttpSeries, LabelSet, TcpSeries},
};
use crate::{
    limits::{
        LABEL_SETS, LABEL_SETS_OUTSIDE, OVERFLOW_LABEL_SETS, VERDICT_PORTS,
        VERDICT_PORTS_PER_DESTINATION,
    },
    verdict::{Reason, Verdict},
};

/// How many label sets there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetCounts {
    http: usize,
    tcp: usize,
}

#[derive(Debug)]
pub(super) struct Registry {
    workers: usize,
    http: Family<HttpSeries>,
    tcp: Family<TcpSeries>,
    overflow_sets: usize,
    outside_sets: usize,
    overflow: u64,
    verdicts: Vec<VerdictPort>,
    pub(super) rules: Rules,
}

/// A destination service, its port, and what connections to it were taken for.
type VerdictPort = (String, u16, Arc<VerdictCounters>);

#[derive(Debug)]
struct Family<S> {
    index: HashMap<Arc<str>, usize>,
    /// Only ever added to, so that a scrape goes on where it stopped.
    sets: Vec<Arc<LabelSet<S>>>,
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
        self.sets.push(Arc::new(LabelSet { labels, shards }));
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
            outside_sets: 0,
            overflow: 0,
            verdicts: Vec::new(),
            rules: Rules::new(workers),
        }
    }

    pub(super) fn http(
        &mut self,
        (worker, outside): (usize, bool),
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<HttpSeries> {
        let room = self.room(outside);
        let place = (self.workers, worker);
        let (series, found) = resolve(&mut self.http, place, room, labels, overflow);
        self.count(found, outside);
        series
    }

    pub(super) fn tcp(
        &mut self,
        (worker, outside): (usize, bool),
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<TcpSeries> {
        let room = self.room(outside);
        let place = (self.workers, worker);
        let (series, found) = resolve(&mut self.tcp, place, room, labels, overflow);
        self.count(found, outside);
        series
    }

    pub(super) fn set_counts(&self) -> SetCounts {
        SetCounts { http: self.http.sets.len(), tcp: self.tcp.sets.len() }
    }

    /// One label set of those that are counted.
    pub(super) fn http_set(
        &self,
        index: usize,
        counts: SetCounts,
    ) -> Option<Arc<LabelSet<HttpSeries>>> {
        self.http.sets[..counts.http].get(index).cloned()
    }

    /// The same for TCP.
    pub(super) fn tcp_set(
        &self,
        index: usize,
        counts: SetCounts,
    ) -> Option<Arc<LabelSet<TcpSeries>>> {
        self.tcp.sets[..counts.tcp].get(index).cloned()
    }

    /// Label sets that found no room so far.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Ports that find no room share one of their destination, then one of all.
    pub(super) fn verdicts(&mut self, service: &str, port: u16) -> Arc<VerdictCounters> {
        let find = |verdicts: &[VerdictPort], service: &str, port: u16| {
            let found = verdicts.iter().find(|(one, number, _)| one == service && *number == port);
            found.map(|(.., counters)| Arc::clone(counters))
        };
        if let Some(counters) = find(&self.verdicts, service, port) {
            return counters;
        }
        let ports = self.verdicts.iter().filter(|(one, ..)| one == service).count();
        let (service, port) = if self.verdicts.len() >= VERDICT_PORTS {
            ("overflow", 0)
        } else if ports >= VERDICT_PORTS_PER_DESTINATION {
            (service, 0)
        } else {
            (service, port)
        };
        find(&self.verdicts, service, port).unwrap_or_else(|| {
            let counters = Arc::<VerdictCounters>::default();
            self.verdicts.push((service.to_owned(), port, Arc::clone(&counters)));
            counters
        })
    }

    pub(super) fn verdict_port(&self, index: usize) -> Option<VerdictPort> {
        self.verdicts.get(index).cloned()
    }

    /// Hosts outside have a limit of their own within that of all: whoever calls ever new ones takes
    /// no label set from services.
    fn room(&self, outside: bool) -> Room {
        let sets = self.http.sets.len() + self.tcp.sets.len() - self.overflow_sets;
        let set = sets < LABEL_SETS && (!outside || self.outside_sets < LABEL_SETS_OUTSIDE);
        Room { set, overflow: self.overflow_sets < OVERFLOW_LABEL_SETS }
    }

    fn count(&mut self, found: Found, outside: bool) {
        self.outside_sets += usize::from(outside && found == Found::New);
        self.overflow += u64::from(matches!(found, Found::Overflow | Found::NewOverflow));
        self.overflow_sets += usize::from(found == Found::NewOverflow);
    }
}

#[derive(Debug, Clone, Copy)]
struct Room {
    set: bool,
    overflow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Known,
    New,
    /// No room: a set for many, which there is.
    Overflow,
    /// The same, and there was none yet.
    NewOverflow,
}

fn resolve<S: Default>(
    family: &mut Family<S>,
    (workers, worker): (usize, usize),
    room: Room,
    labels: impl FnOnce() -> String,
    overflow: impl FnOnce() -> [String; 2],
) -> (Arc<S>, Found) {
    let labels = labels();
    if let Some(series) = family.find(&labels, worker) {
        return (series, Found::Known);
    }
    if room.set {
        return (family.insert(labels, workers, worker), Found::New);
    }
    let [with_service, nameless] = overflow();
    if let Some(series) = family.find(&with_service, worker) {
        return (series, Found::Overflow);
    }
    if room.overflow {
        return (family.insert(with_service, workers, worker), Found::NewOverflow);
    }
    // At most two per reporter and status class, the second for injected aborts: bounded without a
    // further limit.
    match family.find(&nameless, worker) {
        Some(series) => (series, Found::Overflow),
        None => (family.insert(nameless, workers, worker), Found::NewOverflow),
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
