//! All label sets of the process, bounded; taken under a lock, but only when a set is new.
//!
//! A set under which nothing was counted for a while makes room. Workers keep handles of sets, which they give up when
//! the registry's epoch changes; one that wrote all the same in the meantime is heard: what a set counted after it was
//! taken out is shown again.

use std::sync::{
    Arc,
    atomic::{AtomicU16, AtomicU64, Ordering},
};

use hashbrown::HashMap;

use super::{
    edge::{Edge, Reporter},
    render::Shares,
    rules::{BY_PATH, BY_RULE, Rules},
    series::{HttpSeries, TcpSeries},
    tags::Bits,
};
use crate::{
    limits::{
        LABEL_SETS, LABEL_SETS_OUTSIDE, OVERFLOW_LABEL_SETS, SERIES_IDLE_SWEEPS, VERDICT_PORTS,
        VERDICT_PORTS_PER_DESTINATION,
    },
    verdict::{Reason, Verdict},
};

/// One label set with its shards by worker.
#[derive(Debug)]
pub(super) struct LabelSet<S> {
    pub(super) labels: Arc<str>,
    pub(super) reporter: Reporter,
    pub(super) shards: Vec<Arc<S>>,
    /// Metrics that have these labels.
    shown: AtomicU16,
    outside: bool,
    overflow: bool,
}

impl<S> LabelSet<S> {
    /// As it is written down.
    pub(super) fn shares(&self) -> Shares<'_, S> {
        (&self.labels, &self.shards)
    }

    /// Has this metric these labels?
    pub(super) fn shows(&self, metric: Bits) -> bool {
        Bits(self.shown.load(Ordering::Relaxed)).has(metric)
    }

    /// What all workers have counted of this.
    fn total(&self, count: fn(&S) -> u64) -> u64 {
        self.shards.iter().fold(0, |sum: u64, shard| sum.wrapping_add(count(shard)))
    }

    fn show(&self, metrics: Bits) {
        self.shown.fetch_or(metrics.0, Ordering::Relaxed);
    }
}

/// Label sets of one kind at one time.
pub(super) type Sets<S> = Vec<Arc<LabelSet<S>>>;

/// Who asks for a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Whose shard.
    pub(super) worker: usize,
    /// Is it of a host outside?
    pub(super) outside: bool,
    pub(super) reporter: Reporter,
    /// The metrics that are to be counted there.
    pub(super) metrics: Bits,
}

impl Asked {
    pub(super) fn new(worker: usize, edge: &Edge, metrics: Bits) -> Self {
        Self { worker, outside: edge.service.is_host_outside(), reporter: edge.reporter, metrics }
    }
}

#[derive(Debug)]
pub(super) struct Registry {
    workers: usize,
    http: Family<HttpSeries>,
    tcp: Family<TcpSeries>,
    overflow: u64,
    verdicts: Vec<VerdictPort>,
    pub(super) rules: Rules,
    pub(super) paths: Rules,
}

/// A destination service, its port, and what connections to it were taken for.
type VerdictPort = (String, u16, Arc<VerdictCounters>);

#[derive(Debug)]
struct Family<S> {
    index: HashMap<Arc<str>, Arc<LabelSet<S>>>,
    /// In the order in which they came.
    sets: Sets<S>,
    overflow_sets: usize,
    outside_sets: usize,
    /// What each set had counted at the last look, and for how many looks that was so; in the order of `sets`.
    looks: Vec<(u64, u32)>,
    /// Taken out at the last look, with what they had counted.
    leaving: Vec<(Arc<LabelSet<S>>, u64)>,
}

impl<S: Default> Family<S> {
    fn new(index: HashMap<Arc<str>, Arc<LabelSet<S>>>) -> Self {
        let (sets, looks, leaving) = (Vec::new(), Vec::new(), Vec::new());
        Self { index, sets, overflow_sets: 0, outside_sets: 0, looks, leaving }
    }

    fn find(&self, labels: &str, asked: Asked) -> Option<Arc<S>> {
        let set = self.index.get(labels)?;
        set.show(asked.metrics);
        set.shards.get(asked.worker).cloned()
    }

    fn insert(
        &mut self,
        labels: String,
        workers: usize,
        (asked, overflow): (Asked, bool),
    ) -> Arc<S> {
        let shards: Vec<Arc<S>> = (0..workers).map(|_| Arc::default()).collect();
        let shard = Arc::clone(&shards[asked.worker]);
        self.put(LabelSet {
            labels: labels.into(),
            reporter: asked.reporter,
            shards,
            shown: AtomicU16::new(asked.metrics.0),
            outside: asked.outside && !overflow,
            overflow,
        });
        shard
    }

    fn put(&mut self, set: LabelSet<S>) {
        self.overflow_sets += usize::from(set.overflow);
        self.outside_sets += usize::from(set.outside);
        let set = Arc::new(set);
        self.index.insert(Arc::clone(&set.labels), Arc::clone(&set));
        self.sets.push(set);
        self.looks.push((0, 0));
    }

    /// Takes out what is idle; true if that was any.
    fn sweep(&mut self, counted: fn(&S) -> u64, may_leave: impl Fn(&LabelSet<S>) -> bool) -> bool {
        for (set, before) in std::mem::take(&mut self.leaving) {
            if set.total(counted) != before {
                self.take_back(&set);
            }
        }
        for (set, look) in self.sets.iter().zip(&mut self.looks) {
            let now = set.total(counted);
            *look = if now == look.0 { (now, look.1 + 1) } else { (now, 0) };
        }
        let mut looks = std::mem::take(&mut self.looks).into_iter();
        for set in std::mem::take(&mut self.sets) {
            let look = looks.next().unwrap_or_default();
            let hidden = set.shown.load(Ordering::Relaxed) == 0;
            if may_leave(&set) && (look.1 >= SERIES_IDLE_SWEEPS || hidden && look.1 > 0) {
                self.index.remove(&set.labels);
                self.overflow_sets -= usize::from(set.overflow);
                self.outside_sets -= usize::from(set.outside);
                self.leaving.push((set, look.0));
            } else {
                self.sets.push(set);
                self.looks.push(look);
            }
        }
        !self.leaving.is_empty()
    }

    /// Somebody wrote to a set after it was taken out.
    fn take_back(&mut self, set: &LabelSet<S>) {
        let shown = set.shown.load(Ordering::Relaxed);
        let (mut shards, mut all) = (set.shards.clone(), shown);
        // There may be one of its name by now: that goes first, since workers have handles of its shards.
        if let Some(known) = self.index.remove(&set.labels) {
            let at = self.sets.iter().position(|one| Arc::ptr_eq(one, &known));
            if let Some(at) = at {
                self.sets.remove(at);
                self.looks.remove(at);
                self.overflow_sets -= usize::from(known.overflow);
                self.outside_sets -= usize::from(known.outside);
            }
            all |= known.shown.load(Ordering::Relaxed);
            shards = known.shards.iter().cloned().chain(shards).collect();
        }
        let LabelSet { labels, reporter, outside, overflow, .. } = set;
        self.put(LabelSet {
            labels: Arc::clone(labels),
            reporter: *reporter,
            shards,
            shown: AtomicU16::new(all),
            outside: *outside,
            overflow: *overflow,
        });
    }
}

impl Registry {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            http: Family::new(HashMap::new()),
            tcp: Family::new(HashMap::new()),
            overflow: 0,
            verdicts: Vec::new(),
            rules: Rules::new(workers, BY_RULE),
            paths: Rules::new(workers, BY_PATH),
        }
    }

    pub(super) fn http(
        &mut self,
        asked: Asked,
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<HttpSeries> {
        let room = self.room(asked.outside);
        let (series, folded) =
            resolve(&mut self.http, (self.workers, asked), room, labels, overflow);
        self.overflow += u64::from(folded);
        series
    }

    pub(super) fn tcp(
        &mut self,
        asked: Asked,
        labels: impl FnOnce() -> String,
        overflow: impl FnOnce() -> [String; 2],
    ) -> Arc<TcpSeries> {
        let room = self.room(asked.outside);
        let (series, folded) =
            resolve(&mut self.tcp, (self.workers, asked), room, labels, overflow);
        self.overflow += u64::from(folded);
        series
    }

    /// All label sets of now.
    pub(super) fn sets(&self) -> (Sets<HttpSeries>, Sets<TcpSeries>) {
        (self.http.sets.clone(), self.tcp.sets.clone())
    }

    /// The tags of some metrics of one side are others from now on: what has the old ones is not shown any more,
    /// unless something is counted there again.
    pub(super) fn hide(&self, reporter: Reporter, metrics: Bits) {
        let hide = |shown: &AtomicU16| {
            shown.fetch_and(!metrics.0, Ordering::Relaxed);
        };
        let of = |one: Reporter| one == reporter;
        self.http.sets.iter().filter(|set| of(set.reporter)).for_each(|set| hide(&set.shown));
        self.tcp.sets.iter().filter(|set| of(set.reporter)).for_each(|set| hide(&set.shown));
    }

    /// Takes out label sets under which nothing was counted for long; `open`: has this side any connection open? Its
    /// end is counted where its beginning was. True: workers are to look up anew what they have handles of.
    pub(super) fn sweep(&mut self, open: impl Fn(Reporter) -> bool) -> bool {
        let all_closed = |set: &LabelSet<TcpSeries>| {
            set.total(|shard| shard.opened.get()) <= set.total(|shard| shard.ended.get())
        };
        let http = self.http.sweep(HttpSeries::counted, |_| true);
        let may_leave = |set: &LabelSet<TcpSeries>| all_closed(set) || !open(set.reporter);
        let tcp = self.tcp.sweep(TcpSeries::counted, may_leave);
        http || tcp
    }

    /// How often a worker looked for a label set and was given an overflow series.
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
        let overflow_sets = self.http.overflow_sets + self.tcp.overflow_sets;
        let outside_sets = self.http.outside_sets + self.tcp.outside_sets;
        let sets = self.http.sets.len() + self.tcp.sets.len() - overflow_sets;
        let set = sets < LABEL_SETS && (!outside || outside_sets < LABEL_SETS_OUTSIDE);
        Room { set, overflow: overflow_sets < OVERFLOW_LABEL_SETS }
    }
}

#[derive(Debug, Clone, Copy)]
struct Room {
    set: bool,
    overflow: bool,
}

/// The series, and whether there was no room for one of its own.
fn resolve<S: Default>(
    family: &mut Family<S>,
    (workers, asked): (usize, Asked),
    room: Room,
    labels: impl FnOnce() -> String,
    overflow: impl FnOnce() -> [String; 2],
) -> (Arc<S>, bool) {
    let labels = labels();
    if let Some(series) = family.find(&labels, asked) {
        return (series, false);
    }
    if room.set {
        return (family.insert(labels, workers, (asked, false)), false);
    }
    let [with_service, nameless] = overflow();
    if let Some(series) = family.find(&with_service, asked) {
        return (series, true);
    }
    if room.overflow {
        return (family.insert(with_service, workers, (asked, true)), true);
    }
    // At most two per reporter, status class and group of metrics, the second for injected aborts: bounded without a
    // further limit.
    match family.find(&nameless, asked) {
        Some(series) => (series, true),
        None => (family.insert(nameless, workers, (asked, true)), true),
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
