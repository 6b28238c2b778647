//! Idle connections to one upstream, on one worker, and who may use them.
//!
//! What a server remembers of a connection, or still sends on it, is the business of the client that
//! used it: [`Tenancy`] says when a stranger may. A pool never hands out a connection that is known to be closed, nor one old enough that the
//! server may be closing it this moment: how old, [`heddle_logic::retry`] says. It opens nothing.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use heddle_logic::{
    Replayable,
    retry::{may_take_pooled, pool_idle_limit},
};
use heddle_runtime::{clock, net::Liveness, transport::Transport};

use crate::{
    backlog::Opening,
    breaker::Counted,
    limits::{POOL_PER_ENDPOINT, POOL_TRUST},
};

/// Idle times below this are no idle timeout of the server's: it restarted or crashed.
const OBSERVED_IDLE_MIN: Duration = Duration::from_secs(1);

/// Whoever uses connections one after the other: one connection of a client's.
#[derive(Debug, Default)]
pub(crate) struct Tenant(Rc<Cell<bool>>);

impl Tenant {
    /// A connection that only this one may use waits somewhere.
    fn bind(&self) {
        self.0.set(true);
    }

    fn is(&self, other: &Weak<Cell<bool>>) -> bool {
        std::ptr::eq(Rc::as_ptr(&self.0), other.as_ptr())
    }
}

/// Who may have a connection that is idle now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenancy {
    /// Anybody, with a request that may be replayed; with another only who had it last.
    Anybody,
    /// Who had it last: what its server sends may not be over.
    SameClient,
    /// Who had it last, for as long as that one stays: the connection is authenticated as it.
    Bound,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) transport: Transport,
    /// Did it carry a request before, or wait for one? Only then may a reset be the keep-alive race.
    pub(crate) reused: bool,
    /// Is it authenticated as the client that uses it?
    pub(crate) bound: bool,
    /// When its opening began, if it never had an answer.
    pub(crate) unanswered: Option<Opening>,
}

impl Connected {
    /// A connection just opened.
    pub(crate) fn new(transport: Transport, opening: Opening) -> Self {
        Self { transport, reused: false, bound: false, unanswered: Some(opening) }
    }
}

/// Idle connections, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    /// The shortest idle time after which the server was told or seen to close.
    server_closes_after: Cell<Option<Duration>>,
    /// How long a rule lets connections idle, in place of our own limit; zero: any time.
    idle_by_rule: Cell<Option<Duration>>,
    /// How old a rule lets them get.
    lasts_by_rule: Cell<Option<Duration>>,
}

/// What is kept with a connection where a rule limits connections.
#[derive(Debug)]
pub(crate) struct Limited {
    opened: Instant,
    /// Requests so far.
    pub(crate) carried: Cell<u32>,
    /// How often in a row it was left to another request of its worker while others wait elsewhere.
    pub(crate) left: Cell<u32>,
    _counted: Option<Counted>,
}

impl Limited {
    /// A connection opened now.
    pub(crate) fn new(counted: Option<Counted>) -> Self {
        let opened = clock::now();
        Self { opened, carried: Cell::default(), left: Cell::default(), _counted: counted }
    }
}

#[derive(Debug)]
struct Idle {
    transport: Transport,
    since: Instant,
    reused: bool,
    tenancy: Tenancy,
    /// Who had it last; nobody if it was never used.
    tenant: Weak<Cell<bool>>,
}

impl Idle {
    fn is_for(&self, tenant: &Tenant, replayable: Replayable) -> bool {
        match (self.tenancy, replayable) {
            (Tenancy::Anybody, Replayable::Yes) => true,
            // What may not be sent twice meets no server that closes behind a stranger's answer.
            (Tenancy::Anybody, Replayable::No) => !self.reused || tenant.is(&self.tenant),
            (Tenancy::SameClient | Tenancy::Bound, _) => tenant.is(&self.tenant),
        }
    }

    fn is_bound_to(&self, tenant: &Tenant) -> bool {
        self.tenancy == Tenancy::Bound && tenant.is(&self.tenant)
    }

    /// Is the client gone that used it? Without a mesh its server would have seen it close.
    fn is_left(&self) -> bool {
        self.tenant.strong_count() == 0
    }
}

impl Pool {
    /// A connection fit for this request, if there is one.
    pub(crate) fn take(
        &self,
        now: Instant,
        replayable: Replayable,
        tenant: &Tenant,
    ) -> Option<Connected> {
        let limit = self.idle_limit();
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = choose(&idle, tenant, replayable) {
            if self.is_too_old(&idle[at].transport, now) {
                drop(idle.remove(at));
                continue;
            }
            let age = now.saturating_duration_since(idle[at].since);
            let bound = idle[at].tenancy == Tenancy::Bound;
            if !bound && !may_take_pooled(replayable, age, limit) {
                // The others are older still.
                break;
            }
            let Idle { transport, reused, .. } = idle.remove(at);
            let trusted = replayable == Replayable::Yes && age < POOL_TRUST;
            if transport.is_quiet() && (trusted || transport.liveness() == Liveness::Idle) {
                // Waiting unused, it meets a server that tires of it like any other. One that is
                // taken as it comes has not waited: there a reset is the server's answer.
                let unanswered = (!reused).then(Opening::default);
                let reused = reused || age >= POOL_TRUST;
                return Some(Connected { transport, reused, bound, unanswered });
            }
            self.observe_close(age);
        }
        if replayable == Replayable::No
            && let Some(at) = idle.iter().rposition(Idle::is_left)
        {
            // A server of one thread reads from that one until it ends, and never meets the new one.
            drop(idle.remove(at));
        }
        None
    }

    /// Keeps a connection whose last response is complete, for whom `tenancy` says.
    pub(crate) fn put(
        &self,
        transport: Transport,
        now: Instant,
        (tenancy, tenant): (Tenancy, &Tenant),
    ) {
        if tenancy == Tenancy::Bound {
            tenant.bind();
        }
        let tenant = Rc::downgrade(&tenant.0);
        self.keep(Idle { transport, since: now, reused: true, tenancy, tenant });
    }

    /// Keeps a connection that was opened early and not needed: idle since it was `opened`.
    pub(crate) fn put_unused(&self, transport: Transport, opened: Instant) {
        let (tenancy, tenant) = (Tenancy::Anybody, Weak::new());
        self.keep(Idle { transport, since: opened, reused: false, tenancy, tenant });
    }

    /// One that was opened early and never used, while it is good for whatever is to be spoken on it.
    pub(crate) fn take_unused(&self, now: Instant) -> Option<Transport> {
        let limit = self.idle_limit();
        let mut idle = self.idle.borrow_mut();
        let fit = |one: &Idle| {
            !one.reused
                && now.saturating_duration_since(one.since) < limit
                && !self.is_too_old(&one.transport, now)
        };
        let at = idle.iter().rposition(fit)?;
        let Idle { transport, .. } = idle.remove(at);
        (transport.liveness() != Liveness::Closed).then_some(transport)
    }

    /// A rule says how long connections may idle, and how old they may get.
    pub(crate) fn by_rule(&self, idle: Option<Duration>, lasts: Option<Duration>) {
        self.idle_by_rule.set(idle);
        self.lasts_by_rule.set(lasts);
    }

    /// Has it had all the time that a rule gives it?
    pub(crate) fn is_too_old(&self, transport: &Transport, now: Instant) -> bool {
        let Some(lasts) = self.lasts_by_rule.get() else { return false };
        let opened = transport.kept::<Limited>().map(|limited| limited.opened);
        opened.is_some_and(|opened| now.saturating_duration_since(opened) >= lasts)
    }

    fn idle_limit(&self) -> Duration {
        let closes_after = self.server_closes_after.get();
        match self.idle_by_rule.get() {
            None => pool_idle_limit(closes_after),
            // What the server is known to do binds whatever a rule says.
            Some(limit) => {
                let limit = if limit.is_zero() { Duration::MAX } else { limit };
                closes_after.map_or(limit, |after| limit.min(pool_idle_limit(Some(after))))
            }
        }
    }

    /// The server said `keep-alive: timeout=SECONDS`, or nothing.
    pub(crate) fn announced(&self, seconds: Option<u32>) {
        if let Some(seconds) = seconds {
            self.server_closes_after.set(Some(Duration::from_secs(u64::from(seconds))));
        }
    }

    /// Closes what was idle for too long or was closed by the server; true while some are left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let limit = self.idle_limit();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| {
            let age = now.saturating_duration_since(one.since);
            let open = one.transport.is_quiet();
            let lasts = !self.is_too_old(&one.transport, now);
            if !open {
                self.observe_close(age);
            }
            let in_time = match one.tenancy {
                Tenancy::Bound => !one.is_left(),
                Tenancy::SameClient => !one.is_left() && age < limit,
                Tenancy::Anybody => age < limit,
            };
            open && lasts && in_time
        });
        if idle.is_empty() {
            *idle = Vec::new();
        }
        !idle.is_empty()
    }

    /// Closes all that are only kept at hand; true while some are left.
    pub(crate) fn clear(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| one.tenancy == Tenancy::Bound && !one.is_left());
        idle.shrink_to_fit();
        !idle.is_empty()
    }

    /// Closes those that were used last by clients that have left since; true while some are left.
    pub(crate) fn close_left(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| !(one.reused && one.is_left()));
        !idle.is_empty()
    }

    /// How many are idle.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    fn keep(&self, one: Idle) {
        let mut idle = self.idle.borrow_mut();
        // One that is bound counts as its client's, of which there is a limit.
        if idle.len() < POOL_PER_ENDPOINT || one.tenancy == Tenancy::Bound {
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

/// Where a connection for this request is.
fn choose(idle: &[Idle], tenant: &Tenant, replayable: Replayable) -> Option<usize> {
    let bound = match tenant.0.get() {
        true => idle.iter().rposition(|one| one.is_bound_to(tenant)),
        false => None,
    };
    bound.or_else(|| idle.iter().rposition(|one| one.is_for(tenant, replayable)))
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
        let (pool, me) = (Pool::default(), Tenant::default());
        let (client, server) = tcp_pair().await;
        pool.put(client, clock::now(), (Tenancy::Anybody, &me));
        drop(server);
        // Older than what readiness alone is trusted for, so the kernel is asked.
        let later = clock::now() + POOL_TRUST;
        assert!(pool.take(later, Replayable::Yes, &me).is_none());
        assert_eq!(pool.len(), 0);
    }

    #[tokio::test]
    async fn a_connection_with_bytes_nobody_asked_for_is_never_handed_out() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let (client, mut server) = tcp_pair().await;
        server.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        client.peek().await.unwrap();
        pool.put(client, clock::now(), (Tenancy::Anybody, &me));
        assert!(pool.take(clock::now(), Replayable::Yes, &me).is_none());
    }

    #[tokio::test]
    async fn a_request_that_may_not_be_replayed_takes_only_a_fresh_connection() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let (client, _server) = Transport::pair();
        let now = clock::now();
        pool.put(client, now, (Tenancy::Anybody, &me));
        let later = now + Duration::from_secs(1);
        assert!(pool.take(later, Replayable::No, &me).is_none());
        assert!(pool.take(later, Replayable::Yes, &me).is_some_and(|connected| connected.reused));
    }

    #[tokio::test]
    async fn a_connection_opened_early_is_new_only_until_it_has_waited() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let now = clock::now();
        let (client, _server) = Transport::pair();
        pool.put_unused(client, now);
        let taken = pool.take(now, Replayable::Yes, &me).expect("it is there");
        assert!(!taken.reused, "taken as it came");
        pool.put_unused(taken.transport, now);
        let later = now + Duration::from_secs(2);
        assert!(pool.take(later, Replayable::Yes, &me).is_some_and(|connected| connected.reused));
    }

    #[tokio::test]
    async fn a_connection_that_waited_for_long_hides_no_fresh_one() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let (used, _server) = Transport::pair();
        let (unused, _server) = Transport::pair();
        let now = clock::now();
        let later = now + Duration::from_secs(3);
        pool.put(used, later, (Tenancy::Anybody, &me));
        pool.put_unused(unused, now);
        assert!(pool.take(later, Replayable::No, &me).is_some());
        assert!(pool.take(later, Replayable::No, &me).is_none(), "the other has idled for 3 s");
    }

    #[tokio::test]
    async fn the_announced_idle_time_is_kept_with_a_margin() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let (client, _server) = Transport::pair();
        let now = clock::now();
        pool.announced(Some(2));
        pool.put(client, now, (Tenancy::Anybody, &me));
        assert!(pool.sweep(now + Duration::from_millis(1_500)));
        assert!(!pool.sweep(now + Duration::from_millis(1_600)), "80 % of 2 s");
        assert_eq!(pool.len(), 0);
    }

    #[tokio::test]
    async fn an_idle_time_the_server_was_seen_to_close_after_is_learned() {
        let (pool, me) = (Pool::default(), Tenant::default());
        let (client, server) = Transport::pair();
        let (other, _server) = Transport::pair();
        let now = clock::now();
        pool.put(client, now, (Tenancy::Anybody, &me));
        drop(server);
        assert!(pool.take(now + Duration::from_secs(2), Replayable::Yes, &me).is_none());
        pool.put(other, now, (Tenancy::Anybody, &me));
        assert!(pool.take(now + Duration::from_millis(1_700), Replayable::Yes, &me).is_none());
        assert!(pool.take(now + Duration::from_millis(1_500), Replayable::Yes, &me).is_some());
    }

    #[tokio::test]
    async fn what_may_not_be_replayed_takes_no_connection_that_a_stranger_used() {
        let (pool, me, stranger) = (Pool::default(), Tenant::default(), Tenant::default());
        let (theirs, _server) = Transport::pair();
        let now = clock::now();
        pool.put(theirs, now, (Tenancy::Anybody, &stranger));
        assert!(pool.take(now, Replayable::No, &me).is_none());
        assert_eq!(pool.len(), 1, "it is there for whoever may have it");
        assert!(pool.take(now, Replayable::No, &stranger).is_some(), "who used it may go on");
    }

    #[tokio::test]
    async fn a_connection_that_a_client_left_makes_room_for_one_that_is_opened() {
        let (pool, me, stranger) = (Pool::default(), Tenant::default(), Tenant::default());
        let (theirs, mut server) = Transport::pair();
        let now = clock::now();
        pool.put(theirs, now, (Tenancy::Anybody, &stranger));
        drop(stranger);
        assert!(pool.take(now, Replayable::No, &me).is_none());
        assert_eq!(pool.len(), 0);
        assert_eq!(tokio::io::AsyncReadExt::read(&mut server, &mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_behind_an_answer_without_a_body_is_for_its_client_only() {
        let (pool, me, stranger) = (Pool::default(), Tenant::default(), Tenant::default());
        let (client, _server) = Transport::pair();
        let now = clock::now();
        pool.put(client, now, (Tenancy::SameClient, &me));
        assert!(pool.take(now, Replayable::Yes, &stranger).is_none());
        assert!(pool.take(now, Replayable::Yes, &me).is_some());
    }

    #[tokio::test]
    async fn a_bound_connection_is_its_clients_first_choice_and_stays_as_long_as_that_does() {
        let (pool, me, stranger) = (Pool::default(), Tenant::default(), Tenant::default());
        let (bound, _server) = Transport::pair();
        let (other, _server) = Transport::pair();
        let now = clock::now();
        let later = now + Duration::from_secs(3_000);
        pool.put(bound, now, (Tenancy::Bound, &me));
        pool.put(other, now, (Tenancy::Anybody, &stranger));
        assert!(pool.sweep(later), "no idle time ends it");
        assert_eq!(pool.len(), 1);
        assert!(pool.take(later, Replayable::Yes, &stranger).is_none());
        let taken = pool.take(later, Replayable::No, &me).expect("it is there");
        assert!(taken.bound);
        pool.put(taken.transport, later, (Tenancy::Bound, &me));
        assert!(pool.clear(), "nor does a want of memory");
        drop(me);
        assert!(!pool.sweep(later));
    }
}
