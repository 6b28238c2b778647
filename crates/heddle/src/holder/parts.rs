//! The control plane and the dashboard as processes: what they are started with.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    rc::Rc,
    time::Duration,
};

use heddle_runtime::{pulse::Pulse, signal::Signal, spawn::SpawnOptions, task};
use tokio::{process::Child, sync::watch, task::JoinHandle};

use super::{elsewhere, membership::Membership, part, state::Holder};
use crate::cli::HolderArgs;

/// What this machine is called in the mesh.
const HOST_NAME: &str = "host.heddle.internal";
/// Time each has to end by itself.
const END_GRACE: Duration = Duration::from_secs(3);

/// Sockets of this machine on which the dashboard's process serves: they outlive it.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) dashboard: TcpListener,
    /// Where spans come in.
    pub(crate) spans: TcpListener,
}

impl Listeners {
    /// Where they listen, in this order.
    pub(crate) fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.dashboard.local_addr()?, self.spans.local_addr()?))
    }
}

/// What the dashboard's process keeps and tells.
struct Kept {
    history: PathBuf,
    traces: PathBuf,
    /// Whom spans go to instead.
    elsewhere: Option<String>,
    /// Who is asked for figures, as words of a command line.
    figures: Vec<String>,
}

/// An address to connect to, of one that is listened on.
fn on_this_machine(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// The tasks that keep both running.
#[derive(Debug)]
pub(crate) struct Parts {
    observe_ending: watch::Sender<bool>,
    control_ending: watch::Sender<bool>,
    observe: JoinHandle<()>,
    control: JoinHandle<()>,
}

impl Parts {
    /// Ends both, the dashboard first, so that it never shows a control plane that has gone.
    pub(crate) async fn end(self) {
        for (ending, task) in
            [(self.observe_ending, self.observe), (self.control_ending, self.control)]
        {
            ending.send_replace(true);
            // The task is contained: it ends, and never by a panic that matters here.
            drop(task.await);
        }
    }
}

/// Starts both and keeps them running; one that cannot be started is tried again.
pub(crate) fn start(holder: &Rc<Holder>, args: &HolderArgs, listeners: Listeners) -> Parts {
    let (control_ending, control_end) = watch::channel(false);
    let (observe_ending, observe_end) = watch::channel(false);
    let control =
        task::spawn_contained("control", run_control(Rc::clone(holder), args, control_end));
    let kept = Kept {
        history: args.state_dir.join("history.redb"),
        traces: args.state_dir.join("traces.redb"),
        elsewhere: args.tracing.elsewhere(),
        figures: figures(holder, args),
    };
    let observing = run_observe(Rc::clone(holder), listeners, kept, observe_end);
    let observe = task::spawn_contained("observe", observing);
    Parts { observe_ending, control_ending, observe, control }
}

/// Who is asked for figures, and the way there.
fn figures(holder: &Holder, args: &HolderArgs) -> Vec<String> {
    let mut words = args.figures.words();
    if let Some(url) = &args.figures.prometheus {
        let socket = holder.book.paths.run_dir().join("prometheus.sock");
        match elsewhere::pass_on(socket.clone(), url.clone()) {
            Ok(()) => words.push(format!("--prometheus-through={}", socket.display())),
            Err(error) => {
                tracing::error!(%error, socket = %socket.display(), "there is no way to Prometheus");
            }
        }
    }
    words
}

fn run_control(
    holder: Rc<Holder>,
    args: &HolderArgs,
    ending: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let run_dir = holder.book.paths.run_dir();
    let state_dir = args.state_dir.clone();
    let config = args.config.clone();
    let mut tracing = args.tracing.words();
    // As sidecars reach it, through us.
    if let Some(spans) = holder.describe().spans {
        tracing.extend(["--trace-store".to_owned(), on_this_machine(spans).to_string()]);
    }
    async move {
        let part = Rc::clone(&holder.control);
        let record = run_dir.join("control.pid");
        let start = || {
            let mut command = part::own_binary();
            command.args(["control", "--mesh", holder.book.paths.name()]);
            command.arg("--run-dir").arg(&run_dir).arg("--state-dir").arg(&state_dir);
            command.args(&tracing);
            if let Some(config) = &config {
                command.arg("--config").arg(config);
            }
            part::log_to(&mut command, &run_dir.join("control.log"))?;
            spawn(SpawnOptions::new(), command)
        };
        let started = async || {
            let members = || holder.book.members.borrow().values().cloned().collect();
            // Dropped when this control plane ends: nobody may join until the next one knows all.
            let _adopted = Adopted(&holder.book.membership);
            holder.book.membership.adopt(members, || holder.workloads.withdrawn()).await;
            std::future::pending().await
        };
        part.run(ending, END_GRACE, &record, start, started).await;
    }
}

struct Adopted<'a>(&'a Membership);

impl Drop for Adopted<'_> {
    fn drop(&mut self) {
        self.0.lost();
    }
}

async fn run_observe(
    holder: Rc<Holder>,
    listeners: Listeners,
    kept: Kept,
    ending: watch::Receiver<bool>,
) {
    let part = Rc::clone(&holder.observe);
    let run_dir = holder.book.paths.run_dir();
    let record = run_dir.join("observe.pid");
    let start = || {
        let mut options = SpawnOptions::new();
        // In the hub, from where it reaches every sidecar's metrics port.
        options.namespaces(holder.book.hub.namespaces())?;
        let listener = options.inherit(listeners.dashboard.try_clone()?.into());
        let spans = options.inherit(listeners.spans.try_clone()?.into());
        let mut command = part::own_binary();
        command.args(["observe", "--mesh", holder.book.paths.name()]);
        command.arg("--run-dir").arg(&run_dir).args(["--dashboard-fd", &listener.to_string()]);
        command.arg("--history").arg(&kept.history).arg("--traces").arg(&kept.traces);
        let port = listeners.spans.local_addr()?.port();
        command.args(["--spans-fd", &spans.to_string()]);
        command.args(["--spans-endpoint", &format!("http://{HOST_NAME}:{port}")]);
        if let Some(elsewhere) = &kept.elsewhere {
            command.args(["--spans-elsewhere", elsewhere]);
        }
        command.args(&kept.figures);
        part::log_to(&mut command, &run_dir.join("observe.log"))?;
        spawn(options, command)
    };
    part.run(ending, END_GRACE, &record, start, async || {}).await;
}

fn spawn(mut options: SpawnOptions, mut command: Command) -> io::Result<(Child, Pulse)> {
    // Terminal signals are for the foreground; the holder ends its children in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    options.die_with_parent(Signal::KILL);
    let pulse = Pulse::of(&mut options, &mut command)?;
    Ok((options.spawn_tokio(command, true).map_err(io::Error::other)?, pulse))
}
