//! Who waits for a server to take up its connection, and whether connections kept at hand are what the
//! server is busy with.
//!
//! A server with few threads may read one connection to its end before it takes up the next. Without
//! a mesh that end comes when the client leaves; a connection that is kept for others has no such end, and
//! those who opened another wait behind it. So requests on connections that never had an answer are kept
//! account of, for all workers together: while some wait and nobody's turn comes, the server counts as
//! held up, and whoever keeps idle connections to it closes them. Servers take up connections in the order
//! in which they were opened, so an answer on one is the turn of all that were opened before it.
//!
//! A server that is merely slow is taken for held up at times. That costs it a connection opened anew, and
//! less than [`BACKLOG_ROOM`] of that: wherever turns come, nothing is closed.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use heddle_runtime::clock;
use tokio::sync::{Notify, futures::Notified};

use crate::limits::{BACKLOG_CONNECTS, BACKLOG_PATIENCE, BACKLOG_ROOM};

/// A server that knows nothing of the mesh. Another hop of the mesh reads all connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Server {
    /// The workload's own application, by its port.
    Application(u16),
    Outside(SocketAddr),
}

/// The backlogs of all servers, shared by all workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlogs(Arc<All>);

#[derive(Debug, Default)]
struct All {
    by_server: Mutex<HashMap<Server, Weak<Backlog>>>,
    held_up: Notify,
}

impl Backlogs {
    /// That of one server, as long as somebody uses it.
    pub(crate) fn of(&self, server: Server) -> Arc<Backlog> {
        let mut known = lock(&self.0.by_server);
        if let Some(backlog) = known.get(&server).and_then(Weak::upgrade) {
            return backlog;
        }
        known.retain(|_, backlog| backlog.strong_count() > 0);
        let backlog = Arc::new(Backlog::new(self.clone()));
        known.insert(server, Arc::downgrade(&backlog));
        backlog
    }

    /// Ready when a server is found to be held up from now on.
    pub(crate) fn held_up(&self) -> Notified<'_> {
        self.0.held_up.notified()
    }
}

/// Who waits at one server.
#[derive(Debug)]
pub(crate) struct Backlog {
    all: Backlogs,
    held_up: AtomicBool,
    /// Moved on by every connection that is opened.
    opened: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Connections without an answer so far, by when they were open.
    waiting: BTreeSet<u64>,
    /// How often somebody began to wait where nobody did.
    stretch: u64,
    /// When it was somebody's turn, or the first began to wait.
    turn: Instant,
    /// How long it may be nobody's turn.
    patience: Duration,
    held_up_since: Option<Instant>,
}

/// A point in the order in which connections to a server are opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Opening(u64);

impl Backlog {
    fn new(all: Backlogs) -> Self {
        let queue = Queue {
            waiting: BTreeSet::new(),
            stretch: 0,
            turn: clock::now(),
            patience: BACKLOG_PATIENCE,
            held_up_since: None,
        };
        let (held_up, opened) = (AtomicBool::new(false), AtomicU64::new(1));
        Self { all, held_up, opened, queue: Mutex::new(queue) }
    }

    /// To be asked for before a connection is opened.
    pub(crate) fn opening(&self) -> Opening {
        Opening(self.opened.load(Ordering::Relaxed))
    }

    /// Do others wait while connections to it are idle?
    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up.load(Ordering::Relaxed)
    }

    /// A request goes out on a connection that had no answer yet and `took` so long to open. Gives a watch
    /// to run beside it if nobody waited before.
    pub(crate) fn wait(
        self: &Arc<Self>,
        opening: Opening,
        took: Duration,
    ) -> (Waiting, Option<Watch>) {
        let open = self.opened.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        let first = queue.waiting.is_empty();
        queue.waiting.insert(open);
        let watch = first.then(|| {
            queue.turn = clock::now();
            queue.patience = BACKLOG_PATIENCE;
            queue.stretch += 1;
            Watch { backlog: Arc::clone(self), stretch: queue.stretch }
        });
        // Who is far away answers no sooner.
        queue.patience = queue.patience.max(took * BACKLOG_CONNECTS);
        (Waiting { backlog: Arc::clone(self), opening, open }, watch)
    }

    /// What is to be thought of it now, and after which pause it is to be thought of again.
    fn look(&self, stretch: u64, now: Instant) -> Option<Duration> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() || queue.stretch != stretch {
            return None;
        }
        let left = |of: Duration, since| of.saturating_sub(now.saturating_duration_since(since));
        if let Some(since) = queue.held_up_since {
            let left = left(BACKLOG_ROOM, since);
            if !left.is_zero() {
                return Some(left);
            }
            // Perhaps something else is the matter.
            self.release(&mut queue);
            queue.turn = now;
        }
        let left = left(queue.patience, queue.turn);
        if !left.is_zero() {
            return Some(left);
        }
        queue.held_up_since = Some(now);
        self.held_up.store(true, Ordering::Relaxed);
        self.all.0.held_up.notify_waiters();
        Some(BACKLOG_ROOM)
    }

    fn release(&self, queue: &mut Queue) {
        queue.held_up_since = None;
        self.held_up.store(false, Ordering::Relaxed);
    }

    fn leave(&self, open: u64, queue: &mut Queue) {
        queue.waiting.remove(&open);
        if queue.waiting.is_empty() {
            self.release(queue);
        }
    }
}

/// One request that waits for its connection's turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    backlog: Arc<Backlog>,
    opening: Opening,
    open: u64,
}

impl Waiting {
    /// It was its turn.
    pub(crate) fn served(self) {
        let mut queue = lock(&self.backlog.queue);
        queue.turn = clock::now();
        queue.waiting = queue.waiting.split_off(&self.opening.0);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.leave(self.open, &mut lock(&self.backlog.queue));
    }
}

/// Sees to it that what waits at a server does not wait for idle connections.
#[derive(Debug)]
pub(crate) struct Watch {
    backlog: Arc<Backlog>,
    stretch: u64,
}

impl Watch {
    /// Runs while somebody waits.
    pub(crate) async fn run(self) {
        while let Some(pause) = self.backlog.look(self.stretch, clock::now()) {
            clock::sleep(pause).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held can at worst have left one waiting for good, which the next turn
    // ends.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn backlog() -> Arc<Backlog> {
        Backlogs::default().of(Server::Application(80))
    }

    fn wait(backlog: &Arc<Backlog>) -> Waiting {
        backlog.wait(backlog.opening(), Duration::ZERO).0
    }

    #[test]
    fn a_server_is_held_up_when_nobodys_turn_comes_and_as_long_as_somebody_waits() {
        let backlog = backlog();
        let (one, two) = (wait(&backlog), wait(&backlog));
        let begun = clock::now();
        assert!(backlog.look(1, begun).is_some_and(|pause| pause <= BACKLOG_PATIENCE));
        assert!(!backlog.is_held_up());
        assert_eq!(backlog.look(1, begun + BACKLOG_PATIENCE), Some(BACKLOG_ROOM));
        assert!(backlog.is_held_up());
        one.served();
        assert!(backlog.is_held_up(), "the next waits for the same reason");
        two.served();
        assert!(!backlog.is_held_up());
        assert_eq!(backlog.look(1, begun + BACKLOG_PATIENCE), None);
    }

    #[test]
    fn a_server_whose_turns_come_is_not_held_up_however_slow_it_is() {
        let backlog = backlog();
        let mut waiting = std::collections::VecDeque::from([wait(&backlog), wait(&backlog)]);
        for _ in 0..100 {
            let now = clock::now();
            backlog.look(1, now + BACKLOG_PATIENCE - 2 * MS);
            assert!(!backlog.is_held_up());
            waiting.push_back(wait(&backlog));
            waiting.pop_front().expect("somebody").served();
        }
    }

    #[test]
    fn one_that_was_served_was_behind_all_that_were_open_before_it_was_opened() {
        let backlog = backlog();
        let long = wait(&backlog);
        let together = backlog.opening();
        let beside = wait(&backlog);
        let (later, _) = backlog.wait(together, Duration::ZERO);
        later.served();
        let waiting = lock(&backlog.queue).waiting.clone();
        assert_eq!(waiting, BTreeSet::from([beside.open]), "`long` had its turn");
        drop(long);
    }

    #[test]
    fn what_is_thought_of_a_server_is_forgotten_for_a_new_look() {
        let backlog = backlog();
        let _one = wait(&backlog);
        let held_up = clock::now() + BACKLOG_PATIENCE;
        backlog.look(1, held_up);
        backlog.look(1, held_up + BACKLOG_ROOM);
        assert!(!backlog.is_held_up());
        backlog.look(1, held_up + BACKLOG_ROOM + BACKLOG_PATIENCE);
        assert!(backlog.is_held_up());
    }

    #[test]
    fn a_server_far_away_is_given_the_time_of_a_few_connects() {
        let backlog = backlog();
        let (_one, _) = backlog.wait(backlog.opening(), 100 * MS);
        let begun = clock::now();
        assert!(backlog.look(1, begun + BACKLOG_PATIENCE).is_some_and(|pause| pause > 300 * MS));
        assert!(!backlog.is_held_up());
        backlog.look(1, begun + 400 * MS);
        assert!(backlog.is_held_up());
    }

    #[test]
    fn a_watch_ends_when_another_has_begun() {
        let backlog = backlog();
        let (one, watch) = backlog.wait(Opening::default(), Duration::ZERO);
        assert_eq!(watch.map(|watch| watch.stretch), Some(1));
        drop(one);
        let (_two, watch) = backlog.wait(Opening::default(), Duration::ZERO);
        assert_eq!(watch.map(|watch| watch.stretch), Some(2));
        assert_eq!(backlog.look(1, clock::now()), None);
    }
}
