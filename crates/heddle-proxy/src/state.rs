//! What counts per proxy, never per worker, and outlives every generation of rules.
//!
//! Keyed by what is counted, never by a position in some list, so that an edit of the rules resets
//! nothing. Open connections and their sources are here; the gauge of one direction, which is also its
//! limit, is in `metrics`, since it is shown there. What is counted per destination is found by its key
//! when a snapshot is built and carried beside the cluster, so that no request looks into a map: what may
//! be sent again is here, connections, requests, retries under way and ejections are in `breaker`. What a
//! worker merely estimates for itself (latency, warmth, which port
//! speaks what) is beside its pools, in `upstream` and `ports`.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use hashbrown::HashMap;
use heddle_logic::retry::RetryBudget;
use heddle_model::ServiceName;
use heddle_runtime::clock;
use tokio::sync::watch;

use crate::{
    backlog::Backlogs,
    breaker::Breakers,
    direction::Direction,
    limits::{CONNECTIONS_PER_SOURCE, CONNECTIONS_TOTAL},
    one_hop::SpentIds,
    recent::RecentRefusals,
    resolved::ResolvedNames,
};

/// Everything that is counted for the whole proxy.
#[derive(Debug)]
pub struct ProxyState {
    /// Most connections of one direction: [`CONNECTIONS_TOTAL`], or what the limit of open files allows.
    pub connections_max: usize,
    /// Connections being served, so that the end can wait for them.
    pub connections: OpenConnections,
    /// Told when the proxy is about to end.
    pub draining: Draining,
    /// Open inbound connections by source address, against [`CONNECTIONS_PER_SOURCE`].
    pub(crate) sources: Sources,
    /// Who waits at which server.
    pub(crate) backlogs: Backlogs,
    /// What may be sent again, by destination.
    pub retries: RetryAccounts,
    /// What DestinationRules count.
    pub breakers: Breakers,
    /// What names outside lead to.
    pub resolved: ResolvedNames,
    /// Requests that were tried in vain.
    pub(crate) spent: SpentIds,
    /// What was refused lately.
    pub recent: RecentRefusals,
}

impl Default for ProxyState {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_TOTAL,
            connections: OpenConnections::default(),
            draining: Draining::default(),
            sources: Sources::default(),
            backlogs: Backlogs::default(),
            retries: RetryAccounts::default(),
            breakers: Breakers::default(),
            resolved: ResolvedNames::default(),
            spent: SpentIds::default(),
            recent: RecentRefusals::default(),
        }
    }
}

/// Whether the proxy is about to end: clients of connections that carry many requests are told to ask
/// elsewhere. Those who call the workload may have to hear of it earlier than the workload itself.
#[derive(Debug)]
pub struct Draining(watch::Sender<Drained>);

/// Whose clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Drained {
    Nobody,
    /// Those who call the workload.
    Inbound,
    Everybody,
}

impl Drained {
    fn covers(self, direction: Direction) -> bool {
        match direction {
            Direction::Inbound => self >= Self::Inbound,
            Direction::Outbound => self == Self::Everybody,
        }
    }
}

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(Drained::Nobody))
    }
}

impl Draining {
    /// From now on everybody is told.
    pub fn begin(&self) {
        self.0.send_replace(Drained::Everybody);
    }

    /// From now on those are told who call the workload.
    pub fn begin_inbound(&self) {
        self.0.send_modify(|drained| *drained = (*drained).max(Drained::Inbound));
    }

    /// Are clients of this direction told?
    #[must_use]
    pub fn is_begun(&self, direction: Direction) -> bool {
        self.0.borrow().covers(direction)
    }

    /// Waits until they are.
    pub(crate) async fn begun(&self, direction: Direction) {
        let mut told = self.0.subscribe();
        // Its sender is here.
        let _never_closed = told.wait_for(|drained| drained.covers(direction)).await;
    }
}

/// What of each destination's requests may be sent again.
#[derive(Debug, Clone, Default)]
pub struct RetryAccounts(Arc<Mutex<HashMap<ServiceName, Weak<RetryAccount>>>>);

impl RetryAccounts {
    /// The account of a destination, as long as somebody holds it. Asked when a snapshot is built.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> Arc<RetryAccount> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = all.get(service).and_then(Weak::upgrade) {
            return account;
        }
        all.retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(RetryAccount::new());
        all.insert(service.clone(), Arc::downgrade(&account));
        account
    }
}

/// Requests to one destination, and what of them may be sent again.
#[derive(Debug)]
pub struct RetryAccount {
    /// By worker, so that counting one costs no other worker a look.
    requests: [Shard; SHARDS],
    budget: Mutex<RetryBudget>,
}

/// Workers that count apart; more of them share.
const SHARDS: usize = 8;

/// As large as what two processors fight for.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

impl RetryAccount {
    fn new() -> Self {
        Self { requests: Default::default(), budget: Mutex::new(RetryBudget::new(clock::now())) }
    }

    /// There is one more request.
    #[inline]
    pub(crate) fn request(&self, worker: usize) {
        self.requests[worker % SHARDS].0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one further attempt out of the budget; false if there is none left.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let requests = self.requests.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum();
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.withdraw(now, requests)
    }
}

/// One account is another only if it is the same.
impl PartialEq for RetryAccount {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for RetryAccount {}

/// Open connections by the address they come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Sources {
    /// Counts one more of `ip` until the guard is dropped; `None` where it has too many.
    pub(crate) fn enter(&self, ip: IpAddr) -> Option<SourceGuard> {
        let mut sources = self.lock();
        let open = sources.entry(ip).or_insert(0);
        if *open >= CONNECTIONS_PER_SOURCE {
            return None;
        }
        *open += 1;
        Some(SourceGuard { sources: self.clone(), ip })
    }

    /// How many addresses have connections open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A panic while the lock was held can at worst have left one connection counted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection of a source.
#[derive(Debug)]
pub(crate) struct SourceGuard {
    sources: Sources,
    ip: IpAddr,
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        match sources.get_mut(&self.ip) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(sources.remove(&self.ip)),
        }
    }
}

/// How many connections are open, and how many of them carry HTTP: those are busy only while a
/// request is in flight, which the metrics know without a shared counter per request.
#[derive(Debug, Clone, Default)]
pub struct OpenConnections(Arc<OpenCounts>);

#[derive(Debug, Default)]
struct OpenCounts {
    open: AtomicUsize,
    by_request: AtomicUsize,
}

impl OpenConnections {
    /// Counts one until the guard is dropped. Taken at accept.
    #[must_use]
    pub fn enter(&self) -> ConnectionGuard {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.clone())
    }

    /// Notes that an entered connection carries requests, until the guard is dropped: the end of
    /// the sidecar waits for them and not for the connection.
    #[must_use]
    pub fn by_request(&self) -> ByRequestGuard {
        self.0.by_request.fetch_add(1, Ordering::Relaxed);
        ByRequestGuard(self.clone())
    }

    /// How many are open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many are open now of those that do not carry requests.
    #[must_use]
    pub fn relayed(&self) -> usize {
        self.count().saturating_sub(self.0.by_request.load(Ordering::Relaxed))
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGuard(OpenConnections);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open connection that carries requests.
#[derive(Debug)]
pub struct ByRequestGuard(OpenConnections);

impl Drop for ByRequestGuard {
    fn drop(&mut self) {
        self.0.0.by_request.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_account_whoever_asks() {
        let accounts = RetryAccounts::default();
        let service = |name: &str| ServiceName::new(name, "default").unwrap();
        let account = accounts.of(&service("reviews"));
        assert!(Arc::ptr_eq(&account, &accounts.of(&service("reviews"))));
        assert!(!Arc::ptr_eq(&account, &accounts.of(&service("ratings"))));
        (0..500).for_each(|request| account.request(request));
        let now = clock::now();
        let given = (0..1_000).filter(|_| account.withdraw(now)).count();
        assert_eq!(given, 200, "a fifth of 500 requests, and what is free");
    }

    #[test]
    fn an_open_connection_counts_until_its_guard_is_dropped() {
        let connections = OpenConnections::default();
        let guard = connections.enter();
        assert_eq!((connections.count(), connections.relayed()), (1, 1));
        let requests = connections.by_request();
        assert_eq!((connections.count(), connections.relayed()), (1, 0));
        drop((requests, guard));
        assert_eq!((connections.count(), connections.relayed()), (0, 0));
    }
}
