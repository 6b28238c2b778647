//! The state of one worker: a thread with its own runtime, pools, balancers and counters. Workers
//! share nothing but [`Shared`]. What arrives on its listeners is `accept`'s business.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use fastrand::Rng;
use heddle_runtime::{clock, task, tls::Asks, transport::Transport};
use tokio::sync::{Notify, mpsc};

use crate::{
    Shared,
    backlog::Opening,
    breaker::{Limit, Overflow},
    buffers,
    caller::Callers,
    dial::{Dialer, Early, Network, OwnCall},
    direction::Direction,
    facts::Wanted,
    http_seen::HttpSeen,
    limits::{LEFT_IN_A_ROW, MEMORY_LOOK, POOL_SWEEP, TCP_ATTEMPTS, WARNINGS_APART},
    paths::Paths,
    pool::{Connected, Limited, Tenancy, Tenant},
    ports::Ports,
    refusal::{Refusal, Refused},
    request_id::RequestId,
    snapshot::SidePlan,
    upstream::{Ask, Attempt, Backend, Upstream, Upstreams},
};

/// State of one worker.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) upstreams: Upstreams,
    pub(crate) mirrors: Mirrors,
    pub(crate) dialer: Dialer,
    pub(crate) callers: Rc<Callers>,
    pub(crate) ports: Ports,
    pub(crate) http_seen: HttpSeen,
    pub(crate) paths: Paths,
    random: RefCell<Rng>,
    with_idle: RefCell<Vec<Rc<Upstream>>>,
    idle_added: Notify,
    warned: Cell<Option<Instant>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What copies of requests use: nothing of it is the live ones'.
#[derive(Debug)]
pub(crate) struct Mirrors {
    pub(crate) upstreams: Upstreams,
    /// Copies on their way.
    pub(crate) open: Cell<usize>,
}

/// What a worker is made with, apart from what all of them share.
#[derive(Debug)]
pub struct WorkerOptions {
    /// What its connections run over.
    pub network: Network,
    /// Its randomness; seeded, a run can be repeated.
    pub random: Rng,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { network: Network::Kernel, random: Rng::new() }
    }
}

impl Worker {
    /// A worker on the current runtime (see `heddle_runtime::task::run_local`), and its calls to
    /// itself, which must be served.
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        options: WorkerOptions,
    ) -> (Rc<Self>, mpsc::UnboundedReceiver<OwnCall>) {
        let (dialer, own_calls) = Dialer::new(Arc::clone(&shared), options.network);
        let worker = Rc::new(Self {
            upstreams: Upstreams::new(shared.state.backlogs.clone()),
            mirrors: Mirrors { upstreams: Upstreams::of_copies(), open: Cell::new(0) },
            dialer,
            callers: Callers::new(Arc::clone(&shared), index),
            ports: Ports::new(Arc::clone(&shared.metrics), index),
            http_seen: HttpSeen::default(),
            paths: Paths::default(),
            random: RefCell::new(options.random),
            with_idle: RefCell::default(),
            idle_added: Notify::new(),
            warned: Cell::default(),
            shared,
            index,
        });
        drop(task::spawn_contained("heartbeat", heartbeat(Rc::clone(&worker))));
        drop(task::spawn_contained("pool sweep", sweep(Rc::clone(&worker))));
        drop(task::spawn_contained("make room", make_room(Rc::clone(&worker))));
        drop(task::spawn_contained("make room by rule", make_room_by_rule(Rc::clone(&worker))));
        drop(task::spawn_contained("shrink", shrink(Rc::clone(&worker))));
        drop(task::spawn_contained("free buffers", free_buffers(Arc::clone(&worker.shared))));
        (worker, own_calls)
    }

    /// 64 random bits.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// A random number in `[0, 1)`.
    pub(crate) fn random_share(&self) -> f64 {
        self.random.borrow_mut().f64()
    }

    /// An id for a request that came without one.
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::of([self.random(), self.random()])
    }

    /// Does anybody want to know what is known of calls in this direction?
    pub(crate) fn is_watched(&self, direction: Direction) -> bool {
        self.watched(direction).is_some()
    }

    /// The same with who wants it; `None`: nobody. One look at the snapshot.
    pub(crate) fn watched(&self, direction: Direction) -> Option<Wanted> {
        self.watches(direction, self.shared.snapshot.load().telemetry(direction))
    }

    /// The same, where rules tell this about calls in this direction; where nobody wants it nothing is gathered.
    #[inline]
    pub(crate) fn watches(
        &self,
        direction: Direction,
        told: Option<&Arc<SidePlan>>,
    ) -> Option<Wanted> {
        let plan = told.filter(|plan| plan.gathers()).map(Arc::clone);
        let taps = self.shared.taps.of(direction);
        (plan.is_some() || taps.is_some()).then_some(Wanted { plan, taps })
    }

    /// May a warning about one request be logged? Not more often than [`WARNINGS_APART`].
    pub(crate) fn may_warn(&self) -> bool {
        let now = clock::now();
        let due = self.warned.get().is_none_or(|last| now >= last + WARNINGS_APART);
        if due {
            self.warned.set(Some(now));
        }
        due
    }

    /// Connects to one of a backend's endpoints, another after each failure. Nobody behind it means a
    /// reset, as without a mesh, so all of them are tried, [`TCP_ATTEMPTS`] at most.
    ///
    /// # Errors
    /// The last failure.
    pub(crate) async fn dial_any(
        &self,
        backend: &Backend,
        hash: Option<u64>,
    ) -> Result<Early, Refused> {
        let mut tried = Vec::new();
        loop {
            let now = clock::now();
            let ask = Ask { hash, connection: true, ..Ask::new(now, self.random()) };
            let upstream = self.upstreams.pick(backend, &tried, ask)?;
            let mut attempt = upstream.begin(now);
            let others = !Upstreams::exhausted(backend, &tried, &upstream);
            let refusal = match Box::pin(self.open_now(&upstream, others)).await {
                Ok(transport) => {
                    attempt.connected(clock::now());
                    return Ok(Early { attempt, transport });
                }
                Err(refusal) => refusal,
            };
            attempt.refused(clock::now(), &refusal);
            tried.push(upstream);
            if matches!(refusal, Refusal::Overflow(_)) || !others || tried.len() >= TCP_ATTEMPTS {
                return Err(refusal.into());
            }
        }
    }

    /// Opens a connection to an upstream. Out of descriptors, what is only kept at hand is given up first.
    ///
    /// # Errors
    /// The refusal to answer with, if no other upstream is left to try.
    pub(crate) async fn dial(
        &self,
        upstream: &Upstream,
        asks: Asks,
        others: bool,
    ) -> Result<Transport, Refusal> {
        match self.dialer.dial_before(upstream, asks, others).await {
            Err(Refusal::DescriptorLimit(_)) if self.give_up_idle() => {
                self.dialer.dial_before(upstream, asks, others).await
            }
            result => result,
        }
    }

    /// A connection for a request of HTTP/1: a new one, as [`Self::dial`] opens it. Where a rule allows no
    /// other, and allows another request to wait, it waits for room, or until one is `idle` that it may use.
    ///
    /// # Errors
    /// As [`Self::dial`], and [`Refusal::Overflow`].
    pub(crate) async fn open(
        &self,
        upstream: &Upstream,
        others: bool,
        idle: impl Fn() -> Option<Connected>,
    ) -> Result<Connected, Refusal> {
        let Some(place) = upstream.place().filter(|place| place.pool().is_some()) else {
            let opening = upstream.opening();
            let transport = self.dial(upstream, Asks::Nothing, others).await?;
            return Ok(Connected::new(transport, opening));
        };
        let _pending = place.breaker().enter(Limit::Pending).map_err(overflow)?;
        let counted = {
            let _waiting = Waiting::at(upstream);
            let mut room = pin!(place.breaker().connection(|| self.make_room()));
            loop {
                tokio::select! {
                    counted = &mut room => break counted,
                    () = upstream.left.notified() => match idle() {
                        Some(connected) => return Ok(connected),
                        // It is not for this one, and may not stand in others' way.
                        None => self.make_room(),
                    },
                }
            }
        };
        let opening = upstream.opening();
        let mut transport = self.dial(upstream, Asks::Nothing, others).await?;
        transport.keep(Limited::new(counted));
        Ok(Connected::new(transport, opening))
    }

    /// The same for bytes, which do not wait.
    async fn open_now(&self, upstream: &Upstream, others: bool) -> Result<Transport, Refusal> {
        let Some(place) = upstream.place().filter(|place| place.pool().is_some()) else {
            return self.dial(upstream, Asks::Nothing, others).await;
        };
        let counted = place.breaker().enter(Limit::Connections).map_err(overflow)?;
        let mut transport = self.dial(upstream, Asks::Nothing, others).await?;
        transport.keep(Limited::new(counted));
        Ok(transport)
    }

    /// Closes idle connections where others wait for one to end.
    fn make_room(&self) {
        self.go_through_idle(|upstream| match upstream.is_waited_for() {
            true => upstream.clear(),
            false => upstream.kept() > 0,
        });
    }

    /// Closes every connection that is only kept at hand; false if there was none.
    pub(crate) fn give_up_idle(&self) -> bool {
        let closed = Cell::new(false);
        self.go_through_idle(|upstream| {
            let before = upstream.kept();
            let keeps_some = upstream.clear();
            closed.set(closed.get() || upstream.kept() < before);
            keeps_some
        });
        closed.get()
    }

    /// Has every upstream with idle connections close some; those that keep none leave the list.
    fn go_through_idle(&self, keeps_some: impl Fn(&Upstream) -> bool) {
        self.with_idle.borrow_mut().retain(|upstream| {
            let kept = keeps_some(upstream);
            upstream.listed.set(kept);
            kept
        });
    }

    /// Keeps a connection for the next request to the same upstream.
    pub(crate) fn keep(
        &self,
        upstream: &Rc<Upstream>,
        transport: Transport,
        now: Instant,
        by: (Tenancy, &Tenant),
    ) {
        if used_up(&transport, upstream) || upstream.pool.is_too_old(&transport, now) {
            return;
        }
        let waited_for = by.0 != Tenancy::Bound && upstream.is_waited_for();
        if waited_for && !is_for_this_worker(&transport, upstream) {
            // Closed, so that who waits on another worker opens one.
            return;
        }
        upstream.pool.put(transport, now, by);
        self.list(upstream);
        if waited_for {
            upstream.left.notify_one();
        }
        if upstream.is_held_up() {
            upstream.make_room();
        }
    }

    /// The request of `attempt` goes out on a connection that never had an answer. Until it has one,
    /// idle connections are not to stand in its way.
    pub(crate) fn queue(&self, attempt: &mut Attempt, opening: Opening) {
        let Some(backlog) = &attempt.upstream().backlog else { return };
        let (waiting, watch) = backlog.wait(opening, attempt.latency(clock::now()));
        if let Some(watch) = watch {
            drop(task::spawn_contained("backlog", watch.run()));
        }
        attempt.waits(waiting);
    }

    /// The same for one that was opened early and not needed.
    pub(crate) fn keep_unused(&self, Early { attempt, transport }: Early) {
        let upstream = Rc::clone(attempt.upstream());
        if upstream.is_waited_for() {
            attempt.unused();
            return;
        }
        upstream.pool.put_unused(transport, attempt.unused());
        self.list(&upstream);
    }

    /// Notes that the upstream has connections that may become idle.
    pub(crate) fn list(&self, upstream: &Rc<Upstream>) {
        if !upstream.listed.replace(true) {
            self.with_idle.borrow_mut().push(Rc::clone(upstream));
            self.idle_added.notify_one();
        }
    }
}

/// Tells whoever asks that this thread runs.
async fn heartbeat(worker: Rc<Worker>) {
    worker.shared.heartbeat.answer(worker.index).await;
}

/// Closes idle connections in time; sleeps while there are none.
async fn sweep(worker: Rc<Worker>) {
    loop {
        if worker.with_idle.borrow().is_empty() {
            worker.idle_added.notified().await;
        }
        clock::sleep(POOL_SWEEP).await;
        let now = clock::now();
        worker.go_through_idle(|upstream| upstream.sweep(now));
    }
}

/// Closes idle connections to servers that others wait at.
async fn make_room(worker: Rc<Worker>) {
    loop {
        let held_up = worker.shared.state.backlogs.held_up();
        worker.go_through_idle(|upstream| !upstream.is_held_up() || upstream.make_room());
        held_up.await;
    }
}

/// The same for connections that a rule allows no more of.
async fn make_room_by_rule(worker: Rc<Worker>) {
    loop {
        let wanted = worker.shared.state.breakers.room_wanted();
        worker.make_room();
        wanted.await;
    }
}

/// A request of this worker that waits for a connection to an upstream.
struct Waiting<'a>(&'a Upstream);

impl<'a> Waiting<'a> {
    fn at(upstream: &'a Upstream) -> Self {
        upstream.waiting.set(upstream.waiting.get() + 1);
        Self(upstream)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Is a connection that others wait for left to a request of this worker? Not for ever, where some wait
/// elsewhere.
fn is_for_this_worker(transport: &Transport, upstream: &Upstream) -> bool {
    let here = upstream.waiting.get();
    let all = upstream.place().map_or(0, |place| place.breaker().waiting());
    let Some(limited) = transport.kept::<Limited>().filter(|_| here > 0) else { return false };
    let left = if all > here { limited.left.get() + 1 } else { 0 };
    limited.left.set(left);
    left <= LEFT_IN_A_ROW
}

/// Has the connection carried as many requests as a rule allows, with the one that just ended?
fn used_up(transport: &Transport, upstream: &Upstream) -> bool {
    let Some(limited) = transport.kept::<Limited>() else { return false };
    limited.carried.set(limited.carried.get().saturating_add(1));
    let place = upstream.place();
    let most = place.and_then(|place| place.pool()?.max_requests_per_connection);
    most.is_some_and(|most| limited.carried.get() >= most)
}

fn overflow(what: Overflow) -> Refusal {
    Refusal::Overflow(what.to_string())
}

/// Gives up what is only kept at hand, as long as memory is short.
async fn shrink(worker: Rc<Worker>) {
    loop {
        worker.shared.memory.pressed().await;
        worker.give_up_idle();
        buffers::free_all();
        // No sooner than the next look can tell another story.
        clock::sleep(MEMORY_LOOK).await;
    }
}

/// Frees what is only kept at hand when memory goes back to the kernel.
async fn free_buffers(shared: Arc<Shared>) {
    loop {
        shared.memory.returned().await;
        buffers::free_all();
    }
}

#[cfg(test)]
mod tests {
    use heddle_runtime::task::run_local;
    use heddle_wire::local::tap_api::TapFilter;

    use crate::{direction::Direction, testing};

    #[test]
    fn of_calls_that_nobody_looks_at_nothing_is_gathered() {
        run_local(async {
            let worker = testing::worker();
            let watched =
                || [Direction::Inbound, Direction::Outbound].map(|way| worker.is_watched(way));
            assert_eq!(watched(), [false, false]);
            let filter = TapFilter::parse("side=server").unwrap();
            let reader = worker.shared.taps.attach(filter).unwrap();
            assert_eq!(watched(), [true, false]);
            drop(reader);
            assert_eq!(watched(), [false, false]);
        })
        .unwrap();
    }
}
