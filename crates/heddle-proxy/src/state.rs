//! What counts per proxy, never per worker, and outlives every generation of rules.
//!
//! Keyed by what is counted, never by a position in some list, so that an edit of the rules resets
//! nothing. Open connections and their sources are here; the gauge of one direction, which is also its
//! limit, is in `metrics`, since it is shown there. What will be counted per cluster (requests, retries,
//! ejections) is to be found by its key when a snapshot is built and carried beside the cluster: no
//! request may look into a map. What a worker merely estimates for itself (latency, warmth, which port
//! speaks what) is beside its pools, in `upstream` and `ports`.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use hashbrown::HashMap;

use crate::{
    backlog::Backlogs,
    limits::{CONNECTIONS_PER_SOURCE, CONNECTIONS_TOTAL},
};

/// Everything that is counted for the whole proxy.
#[derive(Debug)]
pub struct ProxyState {
    /// Most connections of one direction: [`CONNECTIONS_TOTAL`], or what the limit of open files allows.
    pub connections_max: usize,
    /// Connections being served, so that the end can wait for them.
    pub connections: OpenConnections,
    /// Open inbound connections by source address, against [`CONNECTIONS_PER_SOURCE`].
    pub(crate) sources: Sources,
    /// Who waits at which server.
    pub(crate) backlogs: Backlogs,
}

impl Default for ProxyState {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_TOTAL,
            connections: OpenConnections::default(),
            sources: Sources::default(),
            backlogs: Backlogs::default(),
        }
    }
}

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
