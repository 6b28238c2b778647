//! What a DestinationRule counts of a cluster, for the whole proxy: which endpoints are out for their
//! errors, and how much is under way against its limits.
//!
//! A [`Breaker`] is a rule and the counts it is about. Counts are found by the cluster's name when a
//! snapshot is built, so that an edit of the rules resets nothing and no request looks into a map;
//! they last as long as somebody counts there. When something is an error, `heddle_logic::eject` says.
//! Who waits for a connection waits here; opening one is `dial`'s.

mod told;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use heddle_logic::{
    eject::{self, Health, Reason, Seen},
    retry::IntervalBudget,
};
use heddle_model::{
    WorkloadId,
    discovery::{
        ClusterKey, ClusterPolicy, ConnectionPool, OutlierDetection, Provenance, RetryBudgetRule,
    },
};
use heddle_runtime::clock;
use tokio::sync::{Notify, futures::Notified};

/// The counts of all clusters that have a policy.
#[derive(Debug, Clone, Default)]
pub struct Breakers(Arc<All>);

#[derive(Debug, Default)]
struct All {
    clusters: Mutex<BTreeMap<ClusterKey, Weak<Counts>>>,
    room_wanted: Notify,
}

/// An endpoint within a cluster: workload, address and port.
pub(crate) type EndpointId = (WorkloadId, IpAddr, u16);

/// What is counted of one cluster.
#[derive(Debug)]
struct Counts {
    cluster: ClusterKey,
    all: Weak<All>,
    under_way: [AtomicU32; Limit::ALL.len()],
    /// Who waits for a connection.
    waiting: AtomicUsize,
    freed: Notify,
    /// Whose turn it is, of requests and of connections.
    turns: [AtomicU64; 2],
    /// What came within an interval, where a rule has retries counted by that.
    budget: Mutex<IntervalBudget>,
    /// When shares of failures are looked at next, in milliseconds since `begun`.
    next_look: AtomicU64,
    /// Are its endpoints known, so that whoever comes now is new?
    populated: AtomicBool,
    /// Endpoints that are out, those that are tried included; of how many; and when the next is due, in
    /// milliseconds since `begun`. Read without the lock by every request while somebody is out.
    out: AtomicUsize,
    all_members: AtomicUsize,
    due: AtomicU64,
    begun: Instant,
    members: Mutex<BTreeMap<EndpointId, Member>>,
    ejections: [AtomicU64; Reason::ALL.len()],
}

#[derive(Debug, Default)]
struct Member {
    health: Health,
    seen: Arc<Glance>,
    /// Since when and until when it is out, since 1970, and by which rule.
    out: Option<(Duration, Duration, Provenance)>,
}

/// What is read of an endpoint without the lock.
#[derive(Debug, Default)]
struct Glance {
    /// Would another success change nothing?
    clean: AtomicBool,
    out: AtomicBool,
    /// Since when a new one is there, in milliseconds since its cluster was counted first; 0: not new.
    new_since: AtomicU64,
    /// Requests of this interval and those among them that did not fail, where a rule asks for that.
    all: AtomicU32,
    well: AtomicU32,
}

impl Member {
    /// Its health may be another now.
    fn changed(&mut self) {
        let out = self.health.ejection().is_some();
        self.seen.clean.store(self.health.is_clean(), Ordering::Release);
        self.seen.out.store(out, Ordering::Release);
        if !out {
            self.out = None;
        }
    }
}

/// What a rule may limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections of TCP and HTTP/1.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// The field of a DestinationRule that sets it.
    const fn field(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending => "http1MaxPendingRequests",
            Self::Requests => "http2MaxRequests",
            Self::Retries => "maxRetries",
        }
    }

    const fn of(self, pool: &ConnectionPool) -> Option<u32> {
        match self {
            Self::Connections => pool.max_connections,
            Self::Pending => pool.max_pending,
            Self::Requests => pool.max_requests,
            Self::Retries => pool.max_retries,
        }
    }
}

/// A limit that is reached; displayed with the rule that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overflow {
    rule: String,
    field: &'static str,
    most: u32,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is {}", self.field, self.rule, self.most)
    }
}

/// One of what is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counts: Arc<Counts>,
    what: Limit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.under_way[self.what as usize].fetch_sub(1, Ordering::AcqRel);
        if self.what == Limit::Connections {
            self.counts.freed.notify_one();
        }
    }
}

/// An endpoint that is out, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    /// Of which cluster.
    pub cluster: ClusterKey,
    /// Who.
    pub workload: WorkloadId,
    /// Where.
    pub address: SocketAddr,
    /// Why, as [`Reason::as_str`] says it.
    pub reason: &'static str,
    /// The DestinationRule that asks for it.
    pub rule: String,
    /// Since when, since 1970.
    pub since: Duration,
    /// When it is tried again, since 1970.
    pub until: Duration,
}

impl Breakers {
    /// The breaker of a cluster under `policy`, with what was counted there so far.
    pub(crate) fn of(&self, policy: Arc<ClusterPolicy>) -> Arc<Breaker> {
        let mut clusters = lock(&self.0.clusters);
        let known = clusters.get(&policy.cluster).and_then(Weak::upgrade);
        let counts = known.unwrap_or_else(|| {
            clusters.retain(|_, counts| counts.strong_count() > 0);
            let counts = Arc::new(Counts::new(policy.cluster.clone(), Arc::downgrade(&self.0)));
            clusters.insert(policy.cluster.clone(), Arc::downgrade(&counts));
            counts
        });
        Arc::new(Breaker { policy, counts })
    }

    /// Only these clusters have a policy from now on: nobody is out of any other. What is under way there
    /// stays counted, should it have limits again before that is over.
    pub(crate) fn only(&self, in_force: impl Fn(&ClusterKey) -> bool) {
        for counts in self.all().iter().filter(|counts| !in_force(&counts.cluster)) {
            let mut members = lock(&counts.members);
            members.clear();
            counts.populated.store(false, Ordering::Release);
            counts.recount(&members);
        }
    }

    /// Ready when somebody wants a connection from now on where none may be opened.
    pub(crate) fn room_wanted(&self) -> Notified<'_> {
        self.0.room_wanted.notified()
    }

    /// Every endpoint that is out now.
    #[must_use]
    pub fn ejected(&self) -> Vec<Ejected> {
        self.all().iter().flat_map(|counts| counts.ejected()).collect()
    }

    /// How often endpoints of each cluster were taken out, by reason.
    pub(crate) fn ejections(&self) -> Vec<(ClusterKey, Reason, u64)> {
        let all = self.all();
        let of = |counts: &Arc<Counts>, reason: Reason| {
            let count = counts.ejections[reason as usize].load(Ordering::Relaxed);
            (counts.cluster.clone(), reason, count)
        };
        let each = |counts| Reason::ALL.map(|reason| of(counts, reason));
        all.iter().flat_map(each).filter(|(_, _, count)| *count > 0).collect()
    }

    fn all(&self) -> Vec<Arc<Counts>> {
        lock(&self.0.clusters).values().filter_map(Weak::upgrade).collect()
    }
}

impl Counts {
    fn new(cluster: ClusterKey, all: Weak<All>) -> Self {
        Self {
            cluster,
            all,
            under_way: Default::default(),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            // Anywhere, so that callers of one request each do not all begin with the same endpoint.
            turns: [(); 2].map(|()| AtomicU64::new(fastrand::u32(..).into())),
            budget: Mutex::new(IntervalBudget::new(clock::now())),
            next_look: AtomicU64::new(0),
            populated: AtomicBool::new(false),
            out: AtomicUsize::new(0),
            all_members: AtomicUsize::new(0),
            due: AtomicU64::new(u64::MAX),
            begun: clock::now(),
            members: Mutex::default(),
            ejections: Default::default(),
        }
    }

    /// Somebody came or left, went out or came back.
    fn recount(&self, members: &BTreeMap<EndpointId, Member>) {
        let out = members.values().filter_map(|member| Some((member, member.health.ejection()?)));
        let due = out.clone().filter(|(member, _)| !member.health.is_tried());
        let due = due.map(|(_, ejection)| self.since_begun(ejection.until)).min();
        self.all_members.store(members.len(), Ordering::Release);
        self.due.store(due.unwrap_or(u64::MAX), Ordering::Release);
        self.out.store(out.count(), Ordering::Release);
    }

    fn since_begun(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn ejected(&self) -> Vec<Ejected> {
        let members = lock(&self.members);
        let out = members.iter().filter_map(|((workload, ip, port), member)| {
            let (since, until, rule) = member.out.as_ref()?;
            Some(Ejected {
                cluster: self.cluster.clone(),
                workload: workload.clone(),
                address: SocketAddr::new(*ip, *port),
                reason: member.health.ejection()?.reason.as_str(),
                rule: rule.0.clone(),
                since: *since,
                until: *until,
            })
        });
        out.collect()
    }
}

/// A cluster's policy with what it counts.
#[derive(Debug)]
pub struct Breaker {
    policy: Arc<ClusterPolicy>,
    counts: Arc<Counts>,
}

impl PartialEq for Breaker {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy && Arc::ptr_eq(&self.counts, &other.counts)
    }
}

impl Eq for Breaker {}

impl Breaker {
    /// What is asked of the cluster.
    #[must_use]
    pub fn policy(&self) -> &ClusterPolicy {
        &self.policy
    }

    /// These are the cluster's endpoints from now on.
    pub(crate) fn is_of(&self, endpoints: impl Iterator<Item = EndpointId>) {
        let mut members = lock(&self.counts.members);
        let mut before = std::mem::take(&mut *members);
        for id in endpoints {
            let mut member = before.remove(&id).unwrap_or_default();
            member.changed();
            members.insert(id, member);
        }
        self.counts.populated.store(!members.is_empty(), Ordering::Release);
        self.counts.recount(&members);
    }

    /// Whose turn it is among endpoints that take turns, of requests or of connections: a number that is
    /// one more each time, for all workers together.
    pub(crate) fn turn(&self, of_connections: bool) -> u64 {
        self.counts.turns[usize::from(of_connections)].fetch_add(1, Ordering::Relaxed)
    }

    /// Does a rule of its own say how many retries may be under way?
    pub(crate) fn has_retry_budget(&self) -> bool {
        self.policy.retry_budget.is_some()
    }

    /// The place of one of its endpoints.
    pub(crate) fn place(self: &Arc<Self>, id: EndpointId) -> Place {
        let mut members = lock(&self.counts.members);
        let member = members.entry(id.clone()).or_insert_with(|| {
            let member = Member::default();
            if self.counts.populated.load(Ordering::Acquire) {
                let since = self.counts.since_begun(clock::now()).max(1);
                member.seen.new_since.store(since, Ordering::Relaxed);
            }
            member
        });
        let seen = Arc::clone(&member.seen);
        Place { breaker: Arc::clone(self), id, seen }
    }

    /// Is anybody out?
    #[inline]
    pub(crate) fn has_ejected(&self) -> bool {
        self.policy.outlier.is_some() && self.counts.out.load(Ordering::Acquire) > 0
    }

    /// Which of these endpoints may take a request. One whose time is over is tried with it as `tries` says.
    pub(crate) fn admitted(&self, endpoints: &[&Place], tries: Tries, now: Instant) -> Admitted {
        let Some(rule) = &self.policy.outlier else { return Admitted::All };
        let counts = &self.counts;
        let out = counts.out.load(Ordering::Acquire);
        if eject::panics(rule, out, counts.all_members.load(Ordering::Acquire)) {
            return Admitted::All;
        }
        let is_in = |place: &&Place| !place.seen.out.load(Ordering::Acquire);
        let due = counts.since_begun(now) >= counts.due.load(Ordering::Acquire);
        let may = match tries {
            Tries::AtOnce => true,
            Tries::IfNobodyIsIn => !endpoints.iter().any(is_in),
            Tries::Never => false,
        };
        if due && may {
            let mut members = lock(&counts.members);
            let mut tried = |place: &&Place| {
                members.get_mut(&place.id).is_some_and(|member| member.health.try_out(now))
            };
            if let Some(at) = endpoints.iter().position(&mut tried) {
                counts.recount(&members);
                return Admitted::Probe(at);
            }
        }
        let admitted = endpoints.iter().enumerate().filter(|(_, place)| is_in(place));
        Admitted::Some(admitted.map(|(at, _)| at).collect())
    }

    /// An endpoint was taken out.
    fn ejected(&self, id: &EndpointId, member: &mut Member, now: Instant) {
        let Some(ejection) = member.health.ejection() else { return };
        self.counts.ejections[ejection.reason as usize].fetch_add(1, Ordering::Relaxed);
        let wall = clock::unix_now();
        let since = wall.saturating_sub(now.saturating_duration_since(ejection.since));
        let lasts = ejection.until.saturating_duration_since(now);
        let rule = &self.policy.provenance;
        member.out = Some((since, wall + lasts, rule.clone()));
        let reason = ejection.reason.as_str();
        let endpoint = self.name_of(id);
        tracing::warn!(endpoint, reason, rule = %rule.0, ?lasts, "takes no requests for a while");
    }

    /// An endpoint in words.
    fn name_of(&self, (workload, ip, port): &EndpointId) -> String {
        let service = &self.policy.cluster.service;
        format!("{workload} of {service} at {}", SocketAddr::new(*ip, *port))
    }

    fn limit(&self, what: Limit) -> Option<u32> {
        let of_pool = self.policy.pool.as_ref().and_then(|pool| what.of(pool));
        match (what, self.policy.retry_budget) {
            (Limit::Retries, Some(budget)) => {
                let requests = &self.counts.under_way[Limit::Requests as usize];
                let share = f64::from(requests.load(Ordering::Acquire)) * budget.percent / 100.0;
                Some(budget.min_concurrency.max(share as u32))
            }
            // Counted, since the budget is a share of them.
            (Limit::Requests, Some(_)) => of_pool.or(Some(u32::MAX)),
            _ => of_pool,
        }
    }

    /// Counts one more of `what`, where that is limited.
    ///
    /// # Errors
    /// There are as many as may be.
    pub(crate) fn enter(&self, what: Limit) -> Result<Option<Counted>, Overflow> {
        if let Some((budget, interval)) = self.interval() {
            match what {
                Limit::Requests => lock(&self.counts.budget).request(clock::now(), interval),
                Limit::Retries => return self.retry_within(budget, interval).map(|()| None),
                Limit::Connections | Limit::Pending => {}
            }
        }
        let Some(most) = self.limit(what) else { return Ok(None) };
        let count = &self.counts.under_way[what as usize];
        let more = |count: u32| (count < most).then(|| count + 1);
        match count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Some(Counted { counts: Arc::clone(&self.counts), what })),
            Err(_) => Err(self.overflow(what, most)),
        }
    }

    fn overflow(&self, what: Limit, most: u32) -> Overflow {
        Overflow { rule: self.policy.provenance.0.clone(), field: what.field(), most }
    }

    /// The budget for retries, where it is one of what comes within an interval.
    fn interval(&self) -> Option<(RetryBudgetRule, Duration)> {
        let budget = self.policy.retry_budget?;
        Some((budget, budget.interval?))
    }

    /// Takes a retry out of that.
    fn retry_within(&self, budget: RetryBudgetRule, interval: Duration) -> Result<(), Overflow> {
        let RetryBudgetRule { percent, min_concurrency, .. } = budget;
        let mut within = lock(&self.counts.budget);
        match within.withdraw(clock::now(), interval, percent, min_concurrency) {
            true => Ok(()),
            false => Err(self.overflow(Limit::Retries, min_concurrency)),
        }
    }

    fn has_room(&self) -> bool {
        let under_way = self.counts.under_way[Limit::Connections as usize].load(Ordering::Acquire);
        self.limit(Limit::Connections).is_none_or(|most| under_way < most)
    }

    /// Does somebody wait for a connection?
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting() > 0
    }

    /// How many wait for a connection, on all workers.
    pub(crate) fn waiting(&self) -> usize {
        self.counts.waiting.load(Ordering::Acquire)
    }

    /// Room for a connection, when there is some. Those who came before go first.
    pub(crate) async fn connection(&self, make_room: impl Fn()) -> Option<Counted> {
        if !self.is_waited_for()
            && let Ok(counted) = self.enter(Limit::Connections)
        {
            return counted;
        }
        let mut freed = pin!(self.counts.freed.notified());
        freed.as_mut().enable();
        let (_waiting, mut is_next) = Waiting::begin(&self.counts);
        loop {
            if is_next && let Ok(counted) = self.enter(Limit::Connections) {
                if self.has_room() {
                    // Who came while this one was first may have some too.
                    self.counts.freed.notify_one();
                }
                return counted;
            }
            make_room();
            if let Some(all) = self.counts.all.upgrade() {
                all.room_wanted.notify_waiters();
            }
            freed.as_mut().await;
            is_next = true;
            freed.set(self.counts.freed.notified());
            freed.as_mut().enable();
        }
    }
}

/// Somebody who waits for a connection.
struct Waiting<'a>(&'a Counts);

impl<'a> Waiting<'a> {
    /// One more; and is nobody before it?
    fn begin(counts: &'a Counts) -> (Self, bool) {
        let before = counts.waiting.fetch_add(1, Ordering::AcqRel);
        (Self(counts), before == 0)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Room that it was told of and did not take goes to the next one: that is `Notified`'s to see to.
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Is an endpoint whose time out is over tried with a request?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tries {
    /// Yes.
    AtOnce,
    /// Only where no other is in.
    IfNobodyIsIn,
    /// No: nobody would hear what came of it.
    Never,
}

/// Which endpoints may take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// All: so few are in that nobody counts as out.
    All,
    /// This one, to see whether it is well again. It is tried from now on.
    Probe(usize),
    /// These.
    Some(Vec<usize>),
}

/// An endpoint of a cluster that has a policy.
#[derive(Debug)]
pub struct Place {
    breaker: Arc<Breaker>,
    id: EndpointId,
    seen: Arc<Glance>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.breaker == other.breaker
    }
}

impl Eq for Place {}

impl Place {
    /// The cluster's.
    pub(crate) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// The limits that hold here.
    pub(crate) fn pool(&self) -> Option<&ConnectionPool> {
        self.breaker.policy.pool.as_ref()
    }

    /// How long it has been there, if it came after others.
    pub(crate) fn new_for(&self, now: Instant) -> Option<Duration> {
        let since = self.seen.new_since.load(Ordering::Relaxed);
        let passed = || self.breaker.counts.since_begun(now).saturating_sub(since);
        (since > 0).then(|| Duration::from_millis(passed()))
    }

    /// Is it watched for errors?
    pub(crate) fn is_watched(&self) -> bool {
        self.breaker.policy.outlier.is_some()
    }

    /// Counts what was seen of a request that is no probe.
    pub(crate) fn saw(&self, seen: Seen, now: Instant) {
        let Some(rule) = &self.breaker.policy.outlier else { return };
        let seen = eject::as_counted(rule, seen);
        let success = !eject::is_failure(seen);
        if rule.counts_rates() {
            self.seen.all.fetch_add(1, Ordering::Relaxed);
            self.seen.well.fetch_add(u32::from(success), Ordering::Relaxed);
            self.look_at_rates(rule, now);
        }
        if success && self.seen.clean.load(Ordering::Acquire) {
            return;
        }
        let counts = &self.breaker.counts;
        let mut members = lock(&counts.members);
        let all = members.len();
        let Some(member) = members.get_mut(&self.id) else { return };
        let reason = member.health.saw(rule, seen);
        // All that change it hold the lock.
        let out = counts.out.load(Ordering::Acquire);
        let reason = reason.filter(|_| eject::may_eject(rule, out, all));
        if let Some(reason) = reason {
            member.health.eject(rule, reason, now);
            self.breaker.ejected(&self.id, member, now);
        }
        member.changed();
        if reason.is_some() {
            counts.recount(&members);
        }
    }

    /// At the end of an interval takes out who fails too often. Whoever sees something then looks, so that
    /// an interval without requests costs nothing and lasts until there are some.
    fn look_at_rates(&self, rule: &OutlierDetection, now: Instant) {
        let counts = &self.breaker.counts;
        let due = counts.next_look.load(Ordering::Acquire);
        let at = counts.since_begun(now);
        if at < due {
            return;
        }
        let interval = u64::try_from(rule.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let next = at.saturating_add(interval);
        let taken =
            counts.next_look.compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed);
        // The first one begins the first interval.
        if taken.is_err() || due == 0 {
            return;
        }
        let mut members = lock(&counts.members);
        let all = members.len();
        let mut looked_at: Vec<_> =
            members.iter_mut().filter(|(_, member)| member.health.ejection().is_none()).collect();
        let tally = |(_, member): &(&EndpointId, &mut Member)| eject::Tally {
            all: member.seen.all.swap(0, Ordering::Relaxed),
            well: member.seen.well.swap(0, Ordering::Relaxed),
        };
        let tallies: Vec<_> = looked_at.iter().map(tally).collect();
        let mut out = all - looked_at.len();
        for (found, reason) in eject::outliers(rule, &tallies) {
            if eject::may_eject(rule, out, all)
                && let Some((id, member)) = looked_at.get_mut(found)
            {
                member.health.eject(rule, reason, now);
                self.breaker.ejected(id, member, now);
                member.changed();
                out += 1;
            }
        }
        counts.recount(&members);
    }

    /// The request ended that it was tried with.
    pub(crate) fn tried(&self, seen: Option<Seen>, now: Instant) {
        let Some(rule) = &self.breaker.policy.outlier else { return };
        let seen = seen.map(|seen| eject::as_counted(rule, seen));
        let mut members = lock(&self.breaker.counts.members);
        let Some(member) = members.get_mut(&self.id) else { return };
        if member.health.tried(rule, seen, now) {
            self.breaker.ejected(&self.id, member, now);
        }
        if member.health.ejection().is_none() && member.out.is_some() {
            tracing::info!(endpoint = %self, "takes requests again");
        }
        member.changed();
        self.breaker.counts.recount(&members);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.breaker.name_of(&self.id))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held can at worst have left one count behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
