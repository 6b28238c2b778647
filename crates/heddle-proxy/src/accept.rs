//! What arrives at a worker: accepted, checked against the limits, asked for its original destination,
//! and given to the side that serves it. From there on it is `connection`'s.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use heddle_runtime::{
    clock,
    net::{lacks_descriptors, original_dst},
    task,
    transport::Transport,
};
use heddle_wire::local::proxy_config::{PORT_INBOUND, PORT_OUTBOUND, is_private_port};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    Shared,
    connection::serve,
    dial::{OwnCall, tune},
    direction::Direction,
    facts::Ends,
    inbound::Inbound,
    limits::{ACCEPT_PAUSE, CONNECTIONS_TOTAL},
    memory::Pressure,
    outbound::Outbound,
    refusal::Refusal,
    state::{ConnectionGuard, SourceGuard},
    worker::{Worker, WorkerOptions},
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
        let worker = start_worker(shared, index, WorkerOptions::default());
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

/// A worker on the current runtime (see `heddle_runtime::task::run_local`) that serves its calls to
/// itself; what else arrives is given to [`serve_outbound`] and [`serve_inbound`].
#[must_use]
pub fn start_worker(shared: Arc<Shared>, index: usize, options: WorkerOptions) -> Rc<Worker> {
    let (worker, own_calls) = Worker::new(shared, index, options);
    drop(task::spawn_contained("own calls", serve_own_calls(Rc::clone(&worker), own_calls)));
    worker
}

/// Serves one connection of the workload to `original_dst`, to its end.
pub async fn serve_outbound(worker: Rc<Worker>, client: Transport, original_dst: SocketAddr) {
    // The original destination decides the service; nothing the client says later does.
    let remote = worker.is_watched(Direction::Outbound).then(|| client.ends().1).flatten();
    let side = Outbound::of(&worker, original_dst).await.by(remote);
    serve(client, &side).await;
    side.client_left();
}

/// Serves one connection from `peer` to this workload, meant for the port of `original_dst`.
pub async fn serve_inbound(
    worker: Rc<Worker>,
    client: Transport,
    peer: IpAddr,
    original_dst: SocketAddr,
) {
    // Starts a look-up at most; requests never wait for it.
    let caller = worker.callers.at(peer);
    let remote = worker.is_watched(Direction::Inbound).then(|| client.ends().1).flatten();
    let remote = Some(remote.unwrap_or_else(|| SocketAddr::new(peer, 0)));
    let ends = Ends { remote, called: original_dst };
    let side = Inbound::of(&worker, original_dst.port(), caller).between(ends);
    serve(client, &side).await;
    side.client_left();
}

async fn serve_own_calls(worker: Rc<Worker>, mut own_calls: mpsc::UnboundedReceiver<OwnCall>) {
    while let Some((client, to)) = own_calls.recv().await {
        let worker = Rc::clone(&worker);
        drop(task::spawn_contained("own call", async move {
            let _open = worker.shared.state.connections.enter();
            let side = Inbound::of(&worker, to.port(), worker.callers.own());
            serve(client, &side).await;
            side.client_left();
        }));
    }
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

async fn accept(worker: Rc<Worker>, listener: TcpListener, arrival: Arrival) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => arrived(&worker, stream, peer, arrival),
            Err(error) => {
                accept_failed(&worker, &error);
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Out of descriptors or memory: those open may still end, and the client waits in the queue until then.
/// Anything else concerns one connection only.
fn accept_failed(worker: &Worker, error: &io::Error) {
    let out = lacks_descriptors(error);
    if out {
        worker.give_up_idle();
    }
    if !worker.may_warn() {
        return;
    }
    if out {
        tracing::warn!(%error, "connections wait: raise the limit of open files (`ulimit -n`)");
    } else {
        tracing::warn!(%error, "a connection could not be accepted");
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
    let client = Transport::from(stream);
    let (open, to) = match admitted {
        Ok(Some(admitted)) => admitted,
        Ok(None) => return,
        Err(refusal) => {
            let row = refusal.row();
            worker.shared.metrics.refused(&row, direction);
            tracing::debug!(code = %row.code, %peer, "a connection was reset at accept");
            return client.reset();
        }
    };
    tune(&client, None);
    let worker = Rc::clone(worker);
    drop(match direction {
        Direction::Outbound => task::spawn_contained("outbound", async move {
            let _open = open;
            serve_outbound(worker, client, to).await;
        }),
        Direction::Inbound => task::spawn_contained("inbound", async move {
            let _open = open;
            serve_inbound(worker, client, peer.ip(), to).await;
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
    // Admin and DNS are on the loopback, which is where others are let in to.
    if arrival.direction() == Direction::Inbound && is_private_port(to.port()) {
        return Err(Refusal::OwnListener);
    }
    Ok(to)
}

/// Counts one open connection as long as it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    direction: Direction,
    _of_source: Option<SourceGuard>,
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
        let state = &worker.shared.state;
        let too_many = || Refusal::ConnectionLimit("those of one source address");
        let of_source =
            source.map(|ip| state.sources.enter(ip).ok_or_else(too_many)).transpose()?;
        // Counted first, so that workers that admit at once cannot exceed it together.
        if metrics.connection_opened(direction) >= state.connections_max as u64 {
            metrics.connection_closed(direction);
            let which = match state.connections_max {
                CONNECTIONS_TOTAL => "all of this sidecar's",
                _ => "all that its limit of open files (`ulimit -n`) allows",
            };
            return Err(Refusal::ConnectionLimit(which));
        }
        let all = state.connections.enter();
        Ok(Self { worker: Rc::clone(worker), direction, _of_source: of_source, _all: all })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.metrics.connection_closed(self.direction);
    }
}

#[cfg(test)]
mod tests;
