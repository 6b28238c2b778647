//! The process: binds everything, starts the workers, serves thread 0 and ends in order.
//!
//! Order matters twice. All ports are bound before anything is served, so that a port in use is an
//! error with its name and not half a sidecar; and the saved set is in force before the first
//! connection is accepted, so that a restarted sidecar serves at once.

mod ending;
mod error;
mod last_scrape;
mod listeners;
mod ready;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread};

use heddle_runtime::{
    clock,
    net::may_call_for_others,
    process, pulse,
    signal::{Signal, Signals},
    task::{self, spawn_contained},
};
use heddle_wire::local::proxy_config::{Outside, ProxyConfig};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::listeners::Listeners;
pub use self::{
    ending::{DRAIN_MAX, drained, ended},
    error::ProxyError,
};
use crate::{
    Shared, accept,
    admin::{self, AdminListener, AdminSocket},
    broker,
    discovery::{Discovery, Reporter},
    export,
    limits::{CONNECTIONS_TOTAL, SPANS_LAST, connections_within},
    listening, memory,
    metrics::Metrics,
    shared::Receivers,
};

/// Worker threads at most: more than any machine's cores is a mistake in the configuration.
pub const WORKERS_MAX: usize = 256;
/// Stack of a thread; a worker's deepest use is a request's future, which lives on the heap.
const THREAD_STACK_BYTES: usize = 512 * 1024;

/// Runs a sidecar until SIGTERM or SIGINT. Call it while the process has one thread.
///
/// # Errors
/// [`ProxyError`] if it cannot start, or if a worker ends.
pub fn run(config: ProxyConfig) -> Result<(), ProxyError> {
    if config.workers == 0 || config.workers > WORKERS_MAX {
        return Err(ProxyError::Config(format!(
            "`workers` is {}, it must be 1 to {WORKERS_MAX}",
            config.workers
        )));
    }
    if config.keeps_callers() {
        may_call_for_others().map_err(ProxyError::CallersAddresses)?;
    }
    task::run_local(thread_zero(config, connections_max()))?
}

/// Connections per direction, as many as this process may have descriptors for.
fn connections_max() -> usize {
    let open_files = match process::raise_open_files() {
        Ok(open_files) => open_files,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            return CONNECTIONS_TOTAL;
        }
    };
    let max = connections_within(open_files);
    if max < CONNECTIONS_TOTAL {
        tracing::warn!(
            open_files,
            "{max} connections per direction instead of {CONNECTIONS_TOTAL}: raise the limit of open files (`ulimit -Hn`)"
        );
    }
    max
}

async fn thread_zero(config: ProxyConfig, connections_max: usize) -> Result<(), ProxyError> {
    // Before any thread exists: a thread started earlier would take the signals the old way.
    let mut signals = Signals::redirect(&[Signal::TERMINATE, Signal::INTERRUPT])?;
    let metrics = Arc::new(Metrics::new(&config));
    let (mut shared, receivers) = Shared::new(config, metrics);
    shared.state.connections_max = connections_max;
    let shared = Arc::new(shared);
    let all = Arc::clone(&shared);
    pulse::answer_when(async move || all.heartbeat.all().await);
    let Listeners { workers, dns, host_ports, admin, admin_socket } = Listeners::bind(&shared)?;
    let ready_pipe = ready::pipe(&shared)?;
    let Tasks { save, last_told, mut discovery, mut certifier, mut broker } =
        start_tasks(&shared, receivers);
    dns.serve(&shared);
    host_ports.serve(&shared);
    let admin_ended = start_admin(&shared, admin, admin_socket)?;
    let mut ended = start_workers(&shared, workers)?;
    spawn_contained("readiness", ready::become_ready(Arc::clone(&shared), ready_pipe));
    tokio::select! {
        signal = signals.next() => {
            let signal = signal?;
            tracing::info!(signal = signal.signal.number(), "ending: open connections may go on for a while");
        }
        index = ended.recv() => return Err(ProxyError::WorkerEnded(index.unwrap_or_default())),
        _ = admin_ended => return Err(ProxyError::TaskEnded("server of metrics")),
        _ = &mut discovery => return Err(ProxyError::TaskEnded("discovery client")),
        _ = &mut certifier => return Err(ProxyError::TaskEnded("keeper of the certificate")),
        _ = &mut broker => return Err(ProxyError::TaskEnded("connection to the holder")),
    }
    tokio::select! {
        () = ending::ended(&shared) => {}
        // A second signal means now.
        _ = signals.next() => {}
    }
    if let Some(folder) = shared.config.left_refusals()
        && let Err(error) = shared.state.recent.leave(&folder, &shared.config.workload)
    {
        tracing::warn!(%error, "what was refused is not left for `heddle why`");
    }
    shared.observers.finish().await;
    ending::told(&shared).await;
    // Both at once. Each has `SPANS_LAST` for it; one that takes much longer is not waited for.
    let [spans, records] = &last_told;
    let both = async { tokio::join!(done(spans), done(records)) };
    let told = clock::within(2 * SPANS_LAST, both);
    let _in_time = tokio::join!(told, last_scrape::ask(&shared));
    done(&save).await;
    Ok(())
}

/// Asks for a last piece of work, and waits until it is done.
async fn done(asks: &mpsc::Sender<oneshot::Sender<()>>) {
    let (told, done) = oneshot::channel();
    if asks.send(told).await.is_ok() {
        let _ended_already = done.await;
    }
}

/// What thread 0 runs besides its servers.
struct Tasks {
    /// Asks for a last saving.
    save: mpsc::Sender<oneshot::Sender<()>>,
    /// Ask for the spans and the records that wait to be sent.
    last_told: [mpsc::Sender<oneshot::Sender<()>>; 2],
    discovery: JoinHandle<()>,
    certifier: JoinHandle<()>,
    broker: JoinHandle<()>,
}

fn start_tasks(shared: &Arc<Shared>, receivers: Receivers) -> Tasks {
    let (save, saves) = mpsc::channel(1);
    let (channel, connections) = watch::channel(None);
    let (report, listening) = watch::channel(Vec::<SocketAddr>::new());
    // Loads the saved set.
    let (discovery, certifier) = Discovery::new(Arc::clone(shared), receivers.asks, channel, saves);
    if shared.config.reports_listening() {
        let workload = shared.config.workload.to_string();
        let reporter = Reporter { workload, listening, channel: connections };
        spawn_contained("report", reporter.run());
    }
    spawn_contained(
        "memory",
        memory::watch(Arc::clone(&shared.memory), shared.config.memory_limit),
    );
    spawn_contained("memory", memory::give_back(Arc::clone(&shared.memory)));
    spawn_contained("series", Arc::clone(&shared.metrics).keep_swept());
    spawn_contained("listening", listening::scan::run(Arc::clone(shared), report));
    let (last_spans, asked) = mpsc::channel(1);
    let (last_records, asked_records) = mpsc::channel(1);
    let told = || {
        let origin = export::origin(&shared.config, shared.metrics.own());
        (origin, Arc::clone(&shared.metrics))
    };
    let ways = || export::Ways(Arc::clone(shared));
    spawn_contained("spans", export::run(ways(), told(), receivers.spans, asked));
    spawn_contained("logs", export::run(ways(), told(), receivers.records, asked_records));
    let broker = match shared.config.outside() {
        Outside::ThroughHolder(socket) => {
            spawn_contained("broker", broker::holder::serve(socket.to_owned(), receivers.broker))
        }
        Outside::Direct { .. } | Outside::None => spawn_contained("broker", std::future::pending()),
    };
    let certifier = match certifier {
        Some(certifier) => spawn_contained("certificate", certifier.run()),
        None => spawn_contained("certificate", std::future::pending()),
    };
    Tasks {
        save,
        last_told: [last_spans, last_records],
        discovery: spawn_contained("discovery", discovery.run()),
        certifier,
        broker,
    }
}

/// One thread for metrics and the admin page. The receiver is told when it has ended.
fn start_admin(
    shared: &Arc<Shared>,
    listeners: Vec<AdminListener>,
    socket: Option<AdminSocket>,
) -> io::Result<oneshot::Receiver<Infallible>> {
    let (alive, ended) = oneshot::channel();
    let shared = Arc::clone(shared);
    thread::Builder::new().name("admin".to_owned()).stack_size(THREAD_STACK_BYTES).spawn(
        move || {
            // Dropped with the thread, also by a panic.
            let _alive = alive;
            if let Err(error) = admin::run(&shared, listeners, socket) {
                tracing::error!(%error, "metrics cannot be served");
            }
        },
    )?;
    Ok(ended)
}

/// One thread each. The receiver is told the index of a worker that ended.
fn start_workers(
    shared: &Arc<Shared>,
    workers: Vec<accept::Listeners>,
) -> io::Result<mpsc::Receiver<usize>> {
    let (ended, receiver) = mpsc::channel(workers.len().max(1));
    for (index, listeners) in workers.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        let ended = ended.clone();
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || {
                let _end = WorkerEnd { index, ended };
                if let Err(error) = accept::run_worker(shared, index, listeners) {
                    tracing::error!(worker = index, %error, "a worker could not start");
                }
            })?;
    }
    Ok(receiver)
}

/// Tells thread 0 that a worker ended, also by a panic.
struct WorkerEnd {
    index: usize,
    ended: mpsc::Sender<usize>,
}

impl Drop for WorkerEnd {
    fn drop(&mut self) {
        let _thread_zero_may_be_gone = self.ended.try_send(self.index);
    }
}
