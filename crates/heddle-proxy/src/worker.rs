//! One worker: a thread with its own runtime, listeners, pools, balancers and counters. Workers
//! share nothing but [`Shared`].
//!
//! This file accepts: it checks the limits, asks for the original destination and hands the
//! connection to `outbound` or `inbound`. How connections are opened is in `worker/dial.rs`.

pub(crate) mod buffers;
pub(crate) mod dial;
pub(crate) mod http_seen;
pub(crate) mod ports;

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use fastrand::Rng;
use hashbrown::HashMap;
use heddle_model::discovery::WorkloadInfo;
use heddle_runtime::{
    clock,
    net::{Keepalive, original_dst, set_keepalive, set_nodelay},
    task,
};
use heddle_wire::local::proxy_config::{PORT_INBOUND, PORT_OUTBOUND};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use self::{http_seen::HttpSeen, ports::Ports};
use crate::{
    Shared,
    balancers::{Upstream, Upstreams},
    inbound::serve_inbound,
    limits::{
        ACCEPT_PAUSE, CONNECTIONS_PER_SOURCE, CONNECTIONS_TOTAL, MEMORY_LOOK, POOL_SWEEP,
        TCP_KEEPALIVE, WARNINGS_APART,
    },
    memory::Pressure,
    metrics::Direction,
    outbound::serve_outbound,
    outcome::Callers,
    protocol::Early,
    refusal::Refusal,
    shared::ConnectionGuard,
    tcp,
};

/// The listening sockets of one worker, non-blocking, not yet registered with a runtime.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where redirected outbound connections arrive (15001, v4 and v6).
    pub outbound: Vec<std::net::TcpListener>,
    /// Where redirected inbound connections arrive (15006, v4 and v6).
    pub inbound: Vec<std::net::TcpListener>,
    /// Published host sockets with the workload port each stands for.
    pub published: Vec<(std::net::TcpListener, u16)>,
}

/// Runs worker `index` on this thread. Returns only if it could not start.
///
/// # Errors
/// The runtime could not be made, or a listener not registered with it.
pub fn run_worker(shared: Arc<Shared>, index: usize, listeners: Listeners) -> io::Result<()> {
    task::run_local(async move {
        let worker = Worker::new(shared, index);
        let outbound = listeners.outbound.into_iter().map(|one| (one, Arrival::Outbound));
        let inbound = listeners.inbound.into_iter().map(|one| (one, Arrival::Inbound));
        let published =
            listeners.published.into_iter().map(|(one, port)| (one, Arrival::Published(port)));
        for (listener, arrival) in outbound.chain(inbound).chain(published) {
            let listener = TcpListener::from_std(listener)?;
            let accepting = accept(Rc::clone(&worker), listener, arrival);
            drop(task::spawn_contained("accept", accepting));
        }
        std::future::pending().await
    })?
}

/// How a connection came to this sidecar.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Outbound,
    Inbound,
    Published(u16),
}

impl Arrival {
    fn direction(self) -> Direction {
        match self {
            Self::Outbound => Direction::Outbound,
            Self::Inbound | Self::Published(_) => Direction::Inbound,
        }
    }
}

/// State of one worker.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    /// This workload, as its peers see it.
    pub(crate) own: Arc<WorkloadInfo>,
    pub(crate) upstreams: Upstreams,
    pub(crate) callers: Callers,
    pub(crate) ports: Ports,
    pub(crate) http_seen: HttpSeen,
    random: RefCell<Rng>,
    with_idle: RefCell<Vec<Rc<Upstream>>>,
    idle_added: Notify,
    sources: RefCell<HashMap<IpAddr, usize>>,
    warned: Cell<Option<Instant>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker on the current runtime (see `heddle_runtime::task::run_local`).
    #[must_use]
    pub fn new(shared: Arc<Shared>, index: usize) -> Rc<Self> {
        Self::with_random(shared, index, Rng::new())
    }

    /// As [`Self::new`], with randomness that can be repeated.
    #[must_use]
    pub fn with_random(shared: Arc<Shared>, index: usize, random: Rng) -> Rc<Self> {
        let own = Arc::new(shared.metrics.own().clone());
        let worker = Rc::new(Self {
            shared,
            index,
            own,
            upstreams: Upstreams::default(),
            callers: Callers::default(),
            ports: Ports::default(),
            http_seen: HttpSeen::default(),
            random: RefCell::new(random),
            with_idle: RefCell::default(),
            idle_added: Notify::new(),
            sources: RefCell::default(),
            warned: Cell::default(),
        });
        drop(task::spawn_contained("pool sweep", sweep(Rc::clone(&worker))));
        drop(task::spawn_contained("shrink", shrink(Rc::clone(&worker))));
        worker
    }

    /// 64 random bits.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// A random number in `[0, 1)`.
    pub(crate) fn random_share(&self) -> f64 {
        self.random.borrow_mut().f64()
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

    /// Keeps a connection for the next request to the same upstream.
    pub(crate) fn keep(&self, upstream: &Rc<Upstream>, stream: TcpStream, now: Instant) {
        upstream.pool.put(stream, now);
        self.list(upstream);
    }

    /// The same for one that was opened early and not needed.
    pub(crate) fn keep_unused(&self, Early { attempt, stream }: Early) {
        let upstream = Rc::clone(attempt.upstream());
        upstream.pool.put_unused(stream, attempt.unused());
        self.list(&upstream);
    }

    fn list(&self, upstream: &Rc<Upstream>) {
        if !upstream.listed.replace(true) {
            self.with_idle.borrow_mut().push(Rc::clone(upstream));
            self.idle_added.notify_one();
        }
    }
}

/// Closes idle connections in time; sleeps while there are none.
async fn sweep(worker: Rc<Worker>) {
    loop {
        if worker.with_idle.borrow().is_empty() {
            worker.idle_added.notified().await;
        }
        clock::sleep(POOL_SWEEP).await;
        let now = clock::now();
        worker.with_idle.borrow_mut().retain(|upstream| {
            let kept = upstream.pool.sweep(now);
            upstream.listed.set(kept);
            kept
        });
    }
}

/// Gives up what is only kept at hand, as long as memory is short.
async fn shrink(worker: Rc<Worker>) {
    loop {
        worker.shared.memory.pressed().await;
        for upstream in worker.with_idle.take() {
            upstream.pool.clear();
            upstream.listed.set(false);
        }
        buffers::free_all();
        // No sooner than the next look can tell another story.
        clock::sleep(MEMORY_LOOK).await;
    }
}

/// Counts one open connection as long as it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    direction: Direction,
    source: Option<IpAddr>,
    _all: ConnectionGuard,
}

impl Open {
    /// Admits a connection, or says which limit forbids it.
    fn admit(
        worker: &Rc<Worker>,
        direction: Direction,
        source: Option<IpAddr>,
    ) -> Result<Self, Refusal> {
        if worker.shared.memory.pressure() >= Pressure::RefuseConnections {
            return Err(Refusal::MemoryLimit);
        }
        let metrics = &worker.shared.metrics;
        if metrics.connections_open(direction) >= CONNECTIONS_TOTAL as u64 {
            return Err(Refusal::ConnectionLimit("all of this sidecar's"));
        }
        if let Some(ip) = source {
            let mut sources = worker.sources.borrow_mut();
            let open = sources.entry(ip).or_insert(0);
            // Each worker admits its share: a source's connections spread over all of them.
            if *open >= CONNECTIONS_PER_SOURCE / worker.shared.config.workers.max(1) {
                return Err(Refusal::ConnectionLimit("those of one source address"));
            }
            *open += 1;
        }
        metrics.connection_opened(direction);
        let all = worker.shared.connections.enter();
        Ok(Self { worker: Rc::clone(worker), direction, source, _all: all })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.metrics.connection_closed(self.direction);
        let Some(ip) = self.source else { return };
        let mut sources = self.worker.sources.borrow_mut();
        match sources.get_mut(&ip) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(sources.remove(&ip)),
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, arrival: Arrival) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => arrived(&worker, stream, peer, arrival),
            Err(error) => {
                // Out of descriptors or memory: those open may still end. Anything else concerns
                // one connection only.
                tracing::warn!(%error, "a connection could not be accepted");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands an accepted connection to its task.
fn arrived(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, arrival: Arrival) {
    let direction = arrival.direction();
    let source = (direction == Direction::Inbound).then(|| peer.ip());
    let admitted = destination(worker, &stream, arrival).and_then(|to| {
        let probing = direction == Direction::Outbound && worker.shared.probe.take(to, peer);
        if probing { Ok(None) } else { Ok(Some((Open::admit(worker, direction, source)?, to))) }
    });
    let (open, to) = match admitted {
        Ok(Some(admitted)) => admitted,
        Ok(None) => return,
        Err(refusal) => {
            let row = refusal.row();
            worker.shared.metrics.refused(&row, direction);
            tracing::debug!(code = row.code, %peer, "a connection was reset at accept");
            return tcp::reset(stream);
        }
    };
    prepare(&stream);
    let worker = Rc::clone(worker);
    drop(match direction {
        Direction::Outbound => task::spawn_contained("outbound", async move {
            let _open = open;
            serve_outbound(worker, stream, to).await;
        }),
        Direction::Inbound => task::spawn_contained("inbound", async move {
            let _open = open;
            serve_inbound(worker, stream, to).await;
        }),
    });
}

/// Where the client meant to go.
fn destination(
    worker: &Worker,
    stream: &TcpStream,
    arrival: Arrival,
) -> Result<SocketAddr, Refusal> {
    let own = worker.shared.config.addresses;
    let to = match arrival {
        Arrival::Published(port) => return Ok(SocketAddr::new(own.first(), port)),
        // Not tracked by the kernel means not redirected: somebody called the listener itself.
        _ => original_dst(stream).map_err(|_| Refusal::OwnListener)?,
    };
    // Nor is a destination that is this very socket; serving it would call itself for ever.
    if stream.local_addr().is_ok_and(|local| local == to) {
        return Err(Refusal::OwnListener);
    }
    let ip = to.ip().to_canonical();
    let here = ip.is_loopback() || own.contains(ip);
    if here && matches!(to.port(), PORT_OUTBOUND | PORT_INBOUND) {
        return Err(Refusal::OwnListener);
    }
    Ok(to)
}

/// Options every connection of the data path has. A socket that refuses them is closing already.
pub(crate) fn prepare(stream: &TcpStream) {
    let keepalive = Keepalive { idle: TCP_KEEPALIVE, interval: TCP_KEEPALIVE / 4, probes: 4 };
    let _closing = set_nodelay(stream);
    let _closing = set_keepalive(stream, keepalive);
}

#[cfg(test)]
mod tests;
