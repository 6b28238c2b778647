//! The holder: one small process per mesh that keeps what must not end while the mesh lives.
//!
//! It holds the mesh's namespaces and the host-side sockets, starts control plane, dashboard and
//! sidecars and starts them again, and opens sockets on the host for sidecars. It knows no rule:
//! who may join under which name and address is the control plane's decision. Its own death ends
//! everything: its children die with it, and every `heddle run` notices its connection closing.
//!
//! [`session`] serves one connection, [`workload`] is one workload from join to end, [`part`] keeps
//! a process running, [`network`] is all that touches namespaces.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    rc::Rc,
    time::Duration,
};

use heddle_model::WorkloadId;
use heddle_runtime::{clock, fdpass::FdStream, netns_op::Hub, process, task};
use heddle_wire::local::{
    control_api::Member,
    holder_api::{FRAME_MAX, Info, Pids, Reply},
};
use tokio::{
    net::UnixListener,
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    cli::HolderArgs,
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    mesh::{MeshPaths, ProcessRecord, RunRoot},
    parts::name_process,
    status::VERSION,
    termination::Termination,
};

pub(crate) mod broker;
pub(crate) mod membership;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod outbox;
pub(crate) mod part;
pub(crate) mod parts;
pub(crate) mod publish;
pub(crate) mod session;
pub(crate) mod sidecar;
pub(crate) mod starter;
pub(crate) mod workload;

use membership::Membership;
use part::Part;
use starter::Starter;
use workload::Workload;

/// Most connections at once; every workload has two, one of `run` and one of its sidecar.
const SESSIONS_MAX: usize = 4096;
/// Longest wait for the control plane when the mesh starts.
const CONTROL_WAIT: Duration = Duration::from_secs(20);
/// Longest wait for the last answer to be read.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// Bytes of an [`Info`] answer around the information itself.
const INFO_ENVELOPE: usize = 64;
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything the holder holds. Lives on one thread.
#[derive(Debug)]
pub(crate) struct Holder {
    /// Where the mesh keeps what.
    pub paths: MeshPaths,
    /// The mesh's namespaces and the operations in them.
    pub hub: Hub,
    /// Who is in, for the control plane.
    pub membership: Membership,
    /// What each member asked for and was given.
    pub members: RefCell<BTreeMap<WorkloadId, Member>>,
    /// Workloads that have a namespace.
    pub workloads: RefCell<BTreeMap<WorkloadId, Rc<Workload>>>,
    /// Told when a workload or the starter has gone.
    pub changed: Notify,
    control: Rc<Part>,
    observe: Rc<Part>,
    dashboard: SocketAddr,
    starter_present: Cell<bool>,
    /// Joins under way; the end waits for them to be undone.
    joining: Cell<usize>,
    sessions: Cell<usize>,
    /// Set once: the mesh is ending.
    ending: watch::Sender<bool>,
    /// Set once: everything is gone but this process.
    ended: watch::Sender<bool>,
    /// Peers that asked for the end and have no answer yet.
    asked_to_end: Cell<usize>,
    answered: Notify,
}

/// `heddle holder`. Its starter hands it the locked lock file as standard input and a socket as
/// standard output, so that neither is free for a moment.
///
/// # Errors
/// Where it could not start; the starter has been told.
pub(crate) fn run(args: HolderArgs) -> Result<(), Failure> {
    name_process("heddle-holder");
    starter::close_stray_descriptors();
    let lock = starter::inherited_lock()?;
    let starter = starter::inherited_socket()?;
    let paths = RunRoot::open()?.mesh(&args.mesh)?;
    if !paths.is_lock(&lock) {
        return Err(Failure::refused("the holder is started by `heddle up`, not by hand"));
    }
    // More sidecars than the usual 1024 descriptors allow are a mesh too; if not, so be it.
    drop(process::raise_open_files());
    let done = task::run_local(async {
        let starter = Starter::new(starter)?;
        let result = hold(&args, &paths, &lock, &starter).await;
        remove_files(&paths, &lock);
        if let Err(failure) = &result {
            starter.failed(&failure.message).await;
        }
        result
    });
    done.doing(|| "start the holder".to_owned())?
}

async fn hold(
    args: &HolderArgs,
    paths: &MeshPaths,
    lock: &fs::File,
    starter: &Starter,
) -> Result<(), Failure> {
    let mut signals = Termination::watch().doing(|| "watch for signals".to_owned())?;
    let dashboard = publish::bind_one(args.dashboard, "--dashboard").map_err(Failure::refused)?;
    let hub = network::make_mesh().await?;
    let socket = paths.socket();
    let listener =
        UnixListener::bind(&socket).doing(|| format!("listen on {}", socket.display()))?;
    // Its folder is private already; this is for whoever looks at the file.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
        .doing(|| format!("close {} to others", socket.display()))?;
    let holder = Rc::new(Holder::new(paths, hub, &dashboard)?);
    let parts = parts::start(&holder, args, dashboard);
    let began = tokio::select! {
        began = begin(&holder, lock, starter) => began,
        () = starter.gone() => Err(Failure::refused("whoever started the mesh has gone")),
    };
    if began.is_ok() {
        let accepting = task::spawn_contained("accept", accept(Rc::clone(&holder), listener));
        tokio::select! {
            () = holder.wait_for_end(starter) => {}
            () = signals.next() => {}
        }
        holder.end_workloads().await;
        accepting.abort();
    }
    parts.end().await;
    remove_files(paths, lock);
    holder.ended.send_replace(true);
    let _all_read = clock::within(GOODBYE_WAIT, holder.farewells()).await;
    began
}

/// Waits for the control plane, then makes the mesh known.
async fn begin(holder: &Holder, lock: &fs::File, starter: &Starter) -> Result<(), Failure> {
    starter.progress("starting the control plane").await;
    let ready = tokio::select! {
        ready = clock::within(CONTROL_WAIT, holder.membership.ready()) => ready.is_some(),
        () = holder.control.keeps_ending() => false,
    };
    if !ready {
        let log = holder.paths.run_dir().join("control.log");
        return Err(Failure::refused(format!(
            "the control plane does not start:\n{}",
            crate::up::log_tail(&log)
        )));
    }
    let record = ProcessRecord::own().doing(|| "read /proc/self/stat".to_owned())?;
    record.write(lock).doing(|| format!("write {}", holder.paths.lock().display()))?;
    starter.ready(holder.describe()).await;
    Ok(())
}

async fn accept(holder: Rc<Holder>, listener: UnixListener) {
    let (own, _) = process::effective_ids();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => FdStream::new(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let allowed = stream.peer_credentials().is_ok_and(|peer| peer.uid == own || peer.uid == 0);
        if !allowed || holder.sessions.get() >= SESSIONS_MAX {
            tracing::warn!(allowed, sessions = holder.sessions.get(), "a connection is refused");
            continue;
        }
        let (reader, writer) = stream.into_split();
        holder.sessions.set(holder.sessions.get() + 1);
        let counted = Rc::clone(&holder);
        task::spawn_contained("session", async move {
            session::serve(Rc::clone(&counted), reader, outbox::Outbox::new(writer)).await;
            counted.sessions.set(counted.sessions.get().saturating_sub(1));
        });
    }
}

/// Removes the mesh's files, once: with the lock file gone, another mesh may have taken the name.
fn remove_files(paths: &MeshPaths, lock: &fs::File) {
    if !paths.is_lock(lock) {
        return;
    }
    let gone = |result: io::Result<()>, what: &std::path::Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %what.display(), %error, "cannot be removed");
        }
        _ => {}
    };
    gone(fs::remove_file(paths.socket()), &paths.socket());
    gone(fs::remove_dir_all(paths.run_dir()), &paths.run_dir());
    gone(fs::remove_file(paths.lock()), &paths.lock());
}

impl Holder {
    fn new(paths: &MeshPaths, hub: Hub, dashboard: &TcpListener) -> Result<Self, Failure> {
        Ok(Self {
            paths: paths.clone(),
            hub,
            membership: Membership::new(ControlClient::new(paths)),
            members: RefCell::default(),
            workloads: RefCell::default(),
            changed: Notify::new(),
            control: Rc::new(Part::new("control")),
            observe: Rc::new(Part::new("observe")),
            dashboard: dashboard.local_addr().doing(|| "read the dashboard's port".to_owned())?,
            starter_present: Cell::new(true),
            joining: Cell::new(0),
            sessions: Cell::new(0),
            ending: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            asked_to_end: Cell::new(0),
            answered: Notify::new(),
        })
    }

    /// What runs here, with as many workloads as one frame takes; the control plane lists them all.
    pub(crate) fn info(&self) -> Reply {
        let mut info = self.describe();
        loop {
            let length = serde_json::to_vec(&info).map_or(0, |text| text.len());
            if length + INFO_ENVELOPE <= FRAME_MAX || info.workloads.is_empty() {
                return Reply::Info(Box::new(info));
            }
            info.workloads.truncate(info.workloads.len() * 3 / 4);
        }
    }

    /// Does a join, which the mesh's end waits for.
    pub(crate) async fn during_join<T>(&self, join: impl Future<Output = T>) -> T {
        self.joining.set(self.joining.get() + 1);
        let joined = join.await;
        self.joining.set(self.joining.get().saturating_sub(1));
        self.changed.notify_one();
        joined
    }

    fn describe(&self) -> Info {
        Info {
            mesh: self.paths.name().to_owned(),
            version: VERSION.to_owned(),
            run_dir: self.paths.run_dir().display().to_string(),
            dashboard: Some(self.dashboard),
            pids: Pids {
                holder: std::process::id(),
                control: self.control.pid(),
                observe: self.observe.pid(),
            },
            workloads: self.workloads.borrow().values().map(|w| w.joined().clone()).collect(),
        }
    }

    /// A part by name.
    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        match name {
            "control" => Some(&self.control),
            "observe" => Some(&self.observe),
            _ => None,
        }
    }

    /// Takes a workload off the book and tells the control plane.
    pub(crate) async fn forget(&self, id: &WorkloadId) {
        self.members.borrow_mut().remove(id);
        self.membership.leave(id).await;
        self.changed.notify_one();
    }

    /// Workloads that nobody should be sent to any more, though they still run.
    pub(crate) fn withdrawn(&self) -> Vec<WorkloadId> {
        let workloads = self.workloads.borrow();
        workloads.iter().filter(|(_, w)| w.is_withdrawn()).map(|(id, _)| id.clone()).collect()
    }

    /// Returns once the mesh is ending.
    pub(crate) async fn until_ending(&self) {
        // The sender is ours, so waiting cannot fail.
        drop(self.ending.subscribe().wait_for(|ending| *ending).await);
    }

    /// Ends the mesh; returns when everything but this process is gone.
    pub(crate) async fn shut_down(&self) {
        let mut ended = self.ended.subscribe();
        self.asked_to_end.set(self.asked_to_end.get() + 1);
        self.ending.send_replace(true);
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// A peer that asked for the end has its answer.
    pub(crate) fn said_goodbye(&self) {
        self.asked_to_end.set(self.asked_to_end.get().saturating_sub(1));
        self.answered.notify_one();
    }

    async fn farewells(&self) {
        while self.asked_to_end.get() > 0 {
            self.answered.notified().await;
        }
    }

    async fn wait_for_end(&self, starter: &Starter) {
        loop {
            tokio::select! {
                () = self.until_ending() => return,
                () = self.changed.notified() => {}
                () = starter.gone(), if self.starter_present.get() => {
                    self.starter_present.set(false);
                }
            }
            let nobody = self.members.borrow().is_empty() && self.joining.get() == 0;
            if nobody && !self.starter_present.get() {
                tracing::info!("nobody is left: ending");
                return;
            }
        }
    }

    /// Ends all workloads, also those that are joining right now.
    async fn end_workloads(self: &Rc<Self>) {
        self.ending.send_replace(true);
        self.membership.close();
        loop {
            let left: Vec<Rc<Workload>> = self.workloads.borrow().values().cloned().collect();
            let mut all = JoinSet::new();
            for workload in left {
                let holder = Rc::clone(self);
                all.spawn_local(async move { workload.end(&holder).await });
            }
            all.join_all().await;
            if self.members.borrow().is_empty() && self.joining.get() == 0 {
                return;
            }
            // The task that began a join undoes it.
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;

    #[test]
    fn a_later_mesh_of_the_name_keeps_its_files() {
        let folder = Folder::new("holder");
        let paths = RunRoot::at(folder.path()).mesh("m").unwrap();
        let lock = paths.try_lock().unwrap().and_then(|lock| lock.hand_on()).unwrap();
        fs::create_dir(paths.run_dir()).unwrap();
        remove_files(&paths, &lock);
        assert!(!paths.run_dir().exists() && !paths.lock().exists());
        let later = paths.try_lock().unwrap().and_then(|lock| lock.hand_on()).unwrap();
        fs::create_dir(paths.run_dir()).unwrap();
        remove_files(&paths, &lock);
        assert!(paths.run_dir().exists() && paths.is_lock(&later));
    }
}
