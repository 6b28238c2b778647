//! Idle connections to one upstream, on one worker.
//!
//! A pool never hands out a connection that is known to be closed, nor one old enough that the
//! server may be closing it this moment: how old, [`heddle_logic::retry`] says. It opens nothing.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use heddle_logic::{
    Replayable,
    retry::{may_take_pooled, pool_idle_limit},
};
use heddle_runtime::{net::Liveness, transport::Transport};

use crate::limits::{POOL_PER_ENDPOINT, POOL_TRUST};

/// Idle times below this are no idle timeout of the server's: it restarted or crashed.
const OBSERVED_IDLE_MIN: Duration = Duration::from_secs(1);

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) transport: Transport,
    /// Did it carry a request before, or wait for one? Only then may a reset be the keep-alive race.
    pub(crate) reused: bool,
}

/// Idle connections, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    /// The shortest idle time after which the server was told or seen to close.
    server_closes_after: Cell<Option<Duration>>,
}

#[derive(Debug)]
struct Idle {
    transport: Transport,
    since: Instant,
    reused: bool,
}

impl Pool {
    /// A connection fit for this request, if there is one.
    pub(crate) fn take(&self, now: Instant, replayable: Replayable) -> Option<Connected> {
        let limit = pool_idle_limit(self.server_closes_after.get());
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.last() {
            let age = now.saturating_duration_since(last.since);
            if !may_take_pooled(replayable, age, limit) {
                // The others are older still.
                return None;
            }
            let Idle { transport, reused, .. } = idle.pop()?;
            let trusted = replayable == Replayable::Yes && age < POOL_TRUST;
            if transport.is_quiet() && (trusted || transport.liveness() == Liveness::Idle) {
                // Waiting unused, it meets a server that tires of it like any other. One that is
                // taken as it comes has not waited: there a reset is the server's answer.
                return Some(Connected { transport, reused: reused || age >= POOL_TRUST });
            }
            self.observe_close(age);
        }
        None
    }

    /// Keeps a connection whose last response is complete.
    pub(crate) fn put(&self, transport: Transport, now: Instant) {
        self.keep(Idle { transport, since: now, reused: true });
    }

    /// Keeps a connection that was opened early and not needed: idle since it was `opened`.
    pub(crate) fn put_unused(&self, transport: Transport, opened: Instant) {
        self.keep(Idle { transport, since: opened, reused: false });
    }

    /// The server said `keep-alive: timeout=SECONDS`, or nothing.
    pub(crate) fn announced(&self, seconds: Option<u32>) {
        if let Some(seconds) = seconds {
            self.server_closes_after.set(Some(Duration::from_secs(u64::from(seconds))));
        }
    }

    /// Closes what was idle for too long or was closed by the server; true while some are left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let limit = pool_idle_limit(self.server_closes_after.get());
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| {
            let age = now.saturating_duration_since(one.since);
            let open = one.transport.is_quiet();
            if !open {
                self.observe_close(age);
            }
            open && age < limit
        });
        if idle.is_empty() {
            *idle = Vec::new();
        }
        !idle.is_empty()
    }

    /// Closes them all.
    pub(crate) fn clear(&self) {
        self.idle.take();
    }

    /// How many are idle.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    fn keep(&self, one: Idle) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < POOL_PER_ENDPOINT {
            // One opened early may have idled for longer than those used since.
            let older = idle.iter().rposition(|other| other.since <= one.since);
            idle.insert(older.map_or(0, |at| at + 1), one);
        }
    }

    fn observe_close(&self, age: Duration) {
        let shorter = self.server_closes_after.get().is_none_or(|known| age < known);
        if age >= OBSERVED_IDLE_MIN && shorter {
            self.server_closes_after.set(Some(age));
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_runtime::{clock, net::connect_tcp, net::listen_tcp};
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    use super::*;

    /// A pooled end and its server, on TCP: there the runtime's idea of readiness can be stale.
    async fn tcp_pair() -> (Transport, TcpStream) {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), None, false).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(connect_tcp(address, None), listener.accept());
        (client.unwrap().into(), server.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_is_never_handed_out() {
        let pool = Pool::default();
        let (client, server) = tcp_pair().await;
        pool.put(client, clock::now());
        drop(server);
        // Older than what readiness alone is trusted for, so the kernel is asked.
        let later = clock::now() + POOL_TRUST;
        assert!(pool.take(later, Replayable::Yes).is_none());
        assert_eq!(pool.len(), 0);
    }

    #[tokio::test]
    async fn a_connection_with_bytes_nobody_asked_for_is_never_handed_out() {
        let pool = Pool::default();
        let (client, mut server) = tcp_pair().await;
        server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        client.peek().await.unwrap();
        pool.put(client, clock::now());
        assert!(pool.take(clock::now(), Replayable::Yes).is_none());
    }

    #[tokio::test]
    async fn a_request_that_may_not_be_replayed_takes_only_a_fresh_connection() {
        let pool = Pool::default();
        let (client, _server) = Transport::pair();
        let now = clock::now();
        pool.put(client, now);
        let later = now + Duration::from_secs(1);
        assert!(pool.take(later, Replayable::No).is_none());
        assert!(pool.take(later, Replayable::Yes).is_some_and(|connected| connected.reused));
    }

    #[tokio::test]
    async fn a_connection_opened_early_is_new_only_until_it_has_waited() {
        let pool = Pool::default();
        let now = clock::now();
        let (client, _server) = Transport::pair();
        pool.put_unused(client, now);
        let taken = pool.take(now, Replayable::Yes).expect("it is there");
        assert!(!taken.reused, "taken as it came");
        pool.put_unused(taken.transport, now);
        let later = now + Duration::from_secs(2);
        assert!(pool.take(later, Replayable::Yes).is_some_and(|connected| connected.reused));
    }

    #[tokio::test]
    async fn a_connection_that_waited_for_long_hides_no_fresh_one() {
        let pool = Pool::default();
        let (used, _server) = Transport::pair();
        let (unused, _server) = Transport::pair();
        let now = clock::now();
        let later = now + Duration::from_secs(3);
        pool.put(used, later);
        pool.put_unused(unused, now);
        assert!(pool.take(later, Replayable::No).is_some());
        assert!(pool.take(later, Replayable::No).is_none(), "the other has idled for 3 s");
    }

    #[tokio::test]
    async fn the_announced_idle_time_is_kept_with_a_margin() {
        let pool = Pool::default();
        let (client, _server) = Transport::pair();
        let now = clock::now();
        pool.announced(Some(2));
        pool.put(client, now);
        assert!(pool.sweep(now + Duration::from_millis(1_500)));
        assert!(!pool.sweep(now + Duration::from_millis(1_600)), "80 % of 2 s");
        assert_eq!(pool.len(), 0);
    }

    #[tokio::test]
    async fn an_idle_time_the_server_was_seen_to_close_after_is_learned() {
        let pool = Pool::default();
        let (client, server) = Transport::pair();
        let (other, _server) = Transport::pair();
        let now = clock::now();
        pool.put(client, now);
        drop(server);
        assert!(pool.take(now + Duration::from_secs(2), Replayable::Yes).is_none());
        pool.put(other, now);
        assert!(pool.take(now + Duration::from_millis(1_700), Replayable::Yes).is_none());
        assert!(pool.take(now + Duration::from_millis(1_500), Replayable::Yes).is_some());
    }
}
