//! A workload's sidecar: started in its network namespace, and again whenever it dies. It starts
//! from its last good set and with the sockets of the one before, so the application sees only its
//! open connections cut.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use heddle_control::AddressRanges;
use heddle_model::Workload;
use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    clock, kept,
    ns::Namespaces,
    pulse::Pulse,
    signal::Signal,
    spawn::SpawnOptions,
    task,
};
use heddle_wire::local::{
    app_probes::AppProbes,
    holder_api::{JoinSpec, Restarts},
    proxy_config::{ESCAPE_MARK, Local, ProxyConfig, Surroundings, VirtualRanges, admin_socket},
};
use tokio::{
    io::AsyncReadExt as _, net::unix::pipe, process::Child, sync::watch, task::JoinHandle,
};

use super::{
    book::Book,
    part::{self, Part},
};
use crate::up::log_tail;

/// Longest wait for a sidecar to be ready.
const READY_WAIT: Duration = Duration::from_secs(15);
/// Time a sidecar has to let relayed connections end.
const DRAIN_GRACE: Duration = Duration::from_secs(6);
/// Worker threads of a sidecar: a workload that needs more is no longer local development, and
/// every worker costs memory in every sidecar.
const WORKERS_MAX: usize = 2;

/// A supervised sidecar.
#[derive(Debug)]
pub(crate) struct Sidecar {
    part: Rc<Part>,
    state: watch::Receiver<State>,
    ending: watch::Sender<bool>,
    task: RefCell<Option<JoinHandle<()>>>,
    log: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
}

/// What every start of one sidecar shares.
struct Launch {
    config: ProxyConfig,
    config_file: PathBuf,
    log: PathBuf,
    namespaces: Namespaces,
    /// Kept here so that a new sidecar inherits them.
    published: Vec<(TcpListener, u16)>,
    /// What the first sidecar listened on, kept likewise; empty until it has said so.
    kept: RefCell<Vec<OwnedFd>>,
}

/// The holder's ends of what a sidecar was started with.
struct Begun {
    ready: OwnedFd,
    /// Where it hands over its sockets, unless it was given them.
    sockets: Option<UnixStream>,
}

impl Sidecar {
    /// Starts a sidecar in `namespaces` and keeps it running.
    pub(crate) fn start(
        book: &Book,
        workload: &Workload,
        dir: &Path,
        namespaces: Namespaces,
        published: Vec<(TcpListener, u16)>,
        spec: &JoinSpec,
    ) -> Self {
        let log = dir.join("proxy.log");
        let launch = Launch {
            config: config(book, workload, dir, spec),
            config_file: dir.join("proxy.json"),
            log: log.clone(),
            namespaces,
            published,
            kept: RefCell::default(),
        };
        let part = Rc::new(Part::new(format!("sidecar of {}", workload.id)));
        let (ending, end) = watch::channel(false);
        let (ready, state) = watch::channel(State::Starting);
        let record = dir.join("proxy.pid");
        let supervised = Rc::clone(&part);
        let task = task::spawn_contained("sidecar", async move {
            let last = Cell::new(None);
            let start = || {
                let (child, pulse, begun) = launch.start()?;
                last.set(Some(begun));
                Ok((child, pulse))
            };
            let started = async || {
                let Some(begun) = last.take() else { return };
                launch.keep(begun.sockets).await;
                if is_ready(begun.ready).await {
                    ready.send_replace(State::Ready);
                }
            };
            supervised.run(end, DRAIN_GRACE, &record, start, started).await;
        });
        Self { part, state, ending, task: RefCell::new(Some(task)), log }
    }

    /// Its process id; 0 while it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.part.pid()
    }

    /// How often it was started again; `None` if never.
    pub(crate) fn restarts(&self) -> Option<Restarts> {
        self.part.restarts()
    }

    /// Waits until it has said that it is ready.
    ///
    /// # Errors
    /// Where it keeps ending, or takes too long: one line with the end of its log.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        let ready = async { state.wait_for(|state| *state == State::Ready).await.is_ok() };
        let failed = tokio::select! {
            ready = clock::within(READY_WAIT, ready) => match ready {
                Some(true) => return Ok(()),
                _ => format!("is not ready after {} s", READY_WAIT.as_secs()),
            },
            () = self.part.keeps_ending() => "keeps ending".to_owned(),
        };
        Err(format!("the sidecar {failed}; the end of its log:\n{}", log_tail(&self.log)))
    }

    /// Ends it: it stops accepting, lets relayed connections end for a while, and is gone.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        let task = self.task.take();
        if let Some(task) = task {
            // The task is contained: it ends, and never by a panic that matters here.
            drop(task.await);
        }
    }
}

impl Launch {
    fn start(&self) -> io::Result<(Child, Pulse, Begun)> {
        let (reader, writer) = io::pipe()?;
        let mut options = SpawnOptions::new();
        let mut config = self.config.clone();
        config.ready_fd = Some(options.inherit(writer.into()));
        let Surroundings::Local(local) = &mut config.surroundings else {
            return Err(io::Error::other("a holder starts sidecars of its own machine only"));
        };
        for (listener, port) in &self.published {
            local.published.insert(options.inherit_copy(listener.as_fd())?, *port);
        }
        for socket in &*self.kept.borrow() {
            local.kept.push(options.inherit_copy(socket.as_fd())?);
        }
        let mut sockets = None;
        if local.kept.is_empty() {
            let (ours, theirs) = UnixStream::pair()?;
            local.keeper_fd = Some(options.inherit(theirs.into()));
            sockets = Some(ours);
        }
        fs::write(&self.config_file, serde_json::to_vec_pretty(&config)?)?;
        let mut command = part::own_binary();
        command.arg("proxy").arg("--config").arg(&self.config_file);
        part::log_to(&mut command, &self.log)?;
        // Terminal signals are for the foreground; the holder ends its children in order.
        command.process_group(0);
        options.namespaces(&self.namespaces)?.die_with_parent(Signal::KILL);
        if self.namespaces.user().is_some() {
            // The escape mark is all it needs beyond what an ordinary user may do.
            let mark = CapabilitySet::of(&[Capability::NetAdmin]);
            options.privileges(Privileges::Only(mark));
        }
        let pulse = Pulse::of(&mut options, &mut command)?;
        let child = options.spawn_tokio(command, true).map_err(io::Error::other)?;
        Ok((child, pulse, Begun { ready: reader.into(), sockets }))
    }

    /// Takes over the sockets that redirected connections arrive on, so that they wait there while
    /// the sidecar is started again.
    async fn keep(&self, sockets: Option<UnixStream>) {
        let Some(sockets) = sockets else { return };
        match kept::take_over(sockets).await {
            Ok(sockets) => drop(self.kept.replace(sockets)),
            Err(error) => tracing::warn!(%error, "the sidecar's sockets are not kept"),
        }
    }
}

/// Waits for the one byte; the end of the pipe without it means the sidecar ended.
async fn is_ready(pipe: OwnedFd) -> bool {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return false };
    let mut byte = [0];
    matches!(pipe.read(&mut byte).await, Ok(1))
}

fn config(book: &Book, workload: &Workload, dir: &Path, spec: &JoinSpec) -> ProxyConfig {
    let service = workload.first_service();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ProxyConfig {
        mesh: book.paths.name().to_owned(),
        workload: workload.id.clone(),
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service: service.map(|service| service.name.clone()).unwrap_or_default(),
        version: workload.version.clone(),
        labels: workload.labels.clone(),
        addresses: workload.addresses,
        ports: workload.ports.values().map(|port| (port.number, port.protocol)).collect(),
        workers: (cores / 2).clamp(1, WORKERS_MAX),
        state_dir: dir.join("state"),
        memory_limit: spec.memory_limit,
        app_probes: AppProbes::new(),
        app_metrics: spec.app_metrics.clone(),
        ready_fd: None,
        surroundings: Surroundings::Local(surroundings(book, workload, spec)),
    }
}

fn surroundings(book: &Book, workload: &Workload, spec: &JoinSpec) -> Local {
    let ranges = AddressRanges::default();
    Local {
        discovery_socket: book.paths.run_dir().join("discovery.sock"),
        holder_socket: Some(book.paths.socket()),
        mark: Some(ESCAPE_MARK),
        published: BTreeMap::new(),
        kept: Vec::new(),
        keeper_fd: None,
        host_ports: spec.host_ports.clone(),
        admin_socket: Some(admin_socket(&book.paths.run_dir(), &workload.id)),
        ranges: VirtualRanges {
            v4: ranges.vip_v4,
            v6: ranges.vip_v6,
            host_gateway: ranges.host_gateway(),
        },
    }
}
