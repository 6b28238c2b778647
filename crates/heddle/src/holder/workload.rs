//! A workload from join to end: its addresses, its namespace, its files, its sidecar.
//!
//! Joining is a list of steps; what a step has made is undone if a later one fails or whoever asked
//! has gone. Ending is the same list backwards, and happens once however many ask for it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use heddle_model::WorkloadId;
use heddle_runtime::{
    clock,
    ns::{Namespaces, NsId},
    process,
    signal::Signal,
};
use heddle_wire::local::{
    control_api::{JoinedWorkload, Member},
    holder_api::{HolderReply, JoinSpec, Joined, Restarts},
    proxy_config::workload_dir,
};
use tokio::sync::watch;

use super::{
    book::Book, membership::NotJoined, names, network, outbox::Outbox, publish, sidecar::Sidecar,
};
use crate::{
    failure::{Doing as _, Failure},
    mesh::{
        END_GRACE,
        leftovers::{NAMESPACE_RECORD, NamespaceRecord},
    },
};

/// Most declared ports, and most host ports, of one workload.
const PORTS_MAX: usize = 64;
/// Pause between two looks at what is left.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A workload that has joined.
#[derive(Debug)]
pub(crate) struct Workload {
    id: WorkloadId,
    joined: Joined,
    dir: PathBuf,
    namespaces: Namespaces,
    network: NsId,
    sidecar: Sidecar,
    withdrawn: Cell<bool>,
    /// `None` until somebody ends it; then whether that is done.
    ended: RefCell<Option<watch::Receiver<bool>>>,
}

/// The workloads that have a namespace.
#[derive(Debug, Default)]
pub(crate) struct Workloads(RefCell<BTreeMap<WorkloadId, Rc<Workload>>>);

impl Workloads {
    /// All of them, in order of id.
    pub(crate) fn all(&self) -> Vec<Rc<Workload>> {
        self.0.borrow().values().cloned().collect()
    }

    /// Workloads that nobody should be sent to any more, though they still run.
    pub(crate) fn withdrawn(&self) -> Vec<WorkloadId> {
        let workloads = self.0.borrow();
        workloads.iter().filter(|(_, w)| w.is_withdrawn()).map(|(id, _)| id.clone()).collect()
    }
}

impl Workload {
    /// Lets a workload in and answers on `outbox`; `None` if it was refused or given up.
    pub(crate) async fn join(
        book: &Book,
        workloads: &Workloads,
        spec: JoinSpec,
        cancelled: watch::Receiver<bool>,
        outbox: &Outbox,
    ) -> Option<Rc<Self>> {
        match Self::enter(book, workloads, spec, cancelled, outbox).await {
            Ok(workload) => {
                workload.tell_joined(outbox).await;
                Some(workload)
            }
            Err(NotJoined::Refused(reason)) => {
                outbox.refuse(reason).await;
                None
            }
            Err(NotJoined::Cancelled) => None,
        }
    }

    async fn enter(
        book: &Book,
        workloads: &Workloads,
        spec: JoinSpec,
        cancelled: watch::Receiver<bool>,
        outbox: &Outbox,
    ) -> Result<Rc<Self>, NotJoined> {
        check(&spec).map_err(NotJoined::Refused)?;
        let listeners = publish::bind(&publish::all(&spec)).map_err(NotJoined::Refused)?;
        let joined = book.membership.join(&spec.request, cancelled.clone(), outbox).await?;
        let id = joined.workload.id.clone();
        // From here on a restarted control plane must hear of it.
        let member = Member { request: spec.request.clone(), joined: joined.clone() };
        book.members.borrow_mut().insert(id.clone(), member);
        let dir = workload_dir(&book.paths.run_dir(), &id);
        let made = Self::make(book, &spec, joined, listeners, &dir).await;
        let workload = match made {
            Ok(workload) => Rc::new(workload),
            Err(failure) => {
                book.forget(&id).await;
                remove_dir(&dir);
                return Err(NotJoined::Refused(failure.message));
            }
        };
        workloads.0.borrow_mut().insert(id, Rc::clone(&workload));
        let mut cancelled = cancelled;
        let ready = tokio::select! {
            ready = workload.sidecar.ready() => ready.map_err(NotJoined::Refused),
            _ = cancelled.wait_for(|cancelled| *cancelled) => Err(NotJoined::Cancelled),
        };
        if let Err(not_joined) = ready {
            workload.end(book, workloads).await;
            return Err(not_joined);
        }
        Ok(workload)
    }

    async fn make(
        book: &Book,
        spec: &JoinSpec,
        joined: JoinedWorkload,
        listeners: Vec<TcpListener>,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let workload = &joined.workload;
        let id = workload.id.clone();
        make_dirs(dir).doing(|| format!("make the folder {}", dir.display()))?;
        let etc = dir.join("etc");
        names::write(&etc, workload, IpAddr::V4(network::hub_addresses().0))
            .doing(|| format!("write {}", etc.display()))?;
        let namespaces = network::make_workload(&book.hub, workload)
            .await
            .doing(|| format!("make a network namespace for {id}"))?;
        let network = namespaces.net_id().doing(|| "look at the namespace".to_owned())?;
        let record = serde_json::to_vec(&NamespaceRecord::of(network))
            .doing(|| "write the namespace's record".to_owned())?;
        fs::write(dir.join(NAMESPACE_RECORD), record)
            .doing(|| format!("write {}", dir.join(NAMESPACE_RECORD).display()))?;
        let mut published: Vec<SocketAddr> =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        // The last one is for whoever asks whether the program is ready.
        let ready_at = published.split_off(spec.publish.len().min(published.len())).pop();
        let targets = spec.publish.iter().map(|publish| publish.port).chain(spec.ready_port);
        let open = listeners.into_iter().zip(targets).collect();
        let own = namespaces.try_clone().doing(|| "keep the namespace".to_owned())?;
        let sidecar = Sidecar::start(book, workload, dir, own, open, spec);
        let joined = Joined {
            joined,
            published,
            ready_at,
            user_namespace: namespaces.user().is_some(),
            etc_dir: etc.display().to_string(),
        };
        Ok(Self {
            id,
            joined,
            dir: dir.to_owned(),
            namespaces,
            network,
            sidecar,
            withdrawn: Cell::new(false),
            ended: RefCell::new(None),
        })
    }

    async fn tell_joined(&self, outbox: &Outbox) {
        let reply = HolderReply::Joined(Box::new(self.joined.clone()));
        outbox.send(&reply, &self.namespaces.fds()).await;
    }

    /// What it was given.
    pub(crate) fn joined(&self) -> &Joined {
        &self.joined
    }

    /// How often its sidecar was started again; `None` if never.
    pub(crate) fn restarts(&self) -> Option<Restarts> {
        self.sidecar.restarts()
    }

    /// Was it asked to?
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.get()
    }

    /// Takes its endpoints out of every proxy; returns when they know, at most after about a second.
    pub(crate) async fn withdraw(&self, book: &Book) {
        if !self.withdrawn.replace(true) {
            book.membership.withdraw(&self.id).await;
        }
    }

    /// Ends what is left of its processes, its sidecar and its namespace. Returns when all is gone.
    pub(crate) async fn end(&self, book: &Book, workloads: &Workloads) {
        let running = self.ended.borrow().clone();
        if let Some(mut done) = running {
            // The sender is with whoever ends it, and lives until that is done.
            drop(done.wait_for(|done| *done).await);
            return;
        }
        let (done, ended) = watch::channel(false);
        self.ended.replace(Some(ended));
        // Nobody should be sent here any more while the processes end; if they have ended by
        // themselves, the control plane's answer to `forget` is as quick.
        if !self.left_processes().is_empty() {
            self.withdraw(book).await;
        }
        self.end_processes().await;
        workloads.0.borrow_mut().remove(&self.id);
        book.forget(&self.id).await;
        self.sidecar.end().await;
        if let Err(error) = network::remove_workload(&book.hub, &self.joined.joined.workload).await
        {
            tracing::warn!(workload = %self.id, %error, "its link goes later");
        }
        remove_dir(&self.dir);
        done.send_replace(true);
        book.changed.notify_one();
        tracing::info!(workload = %self.id, "ended");
    }

    /// Processes in its network namespace other than the sidecar.
    fn left_processes(&self) -> Vec<u32> {
        process::in_netns(self.network, &[self.sidecar.pid()]).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot look for processes");
            Vec::new()
        })
    }

    async fn end_processes(&self) {
        let sidecar = [self.sidecar.pid()];
        let told = process::kill_netns(self.network, Signal::TERMINATE, &sidecar);
        if told.is_ok_and(|told| !told.is_empty()) {
            let deadline = clock::now() + END_GRACE;
            while !self.left_processes().is_empty() && clock::now() < deadline {
                clock::sleep(LOOK_PAUSE).await;
            }
        }
        if let Err(error) = process::end_netns(self.network, &[self.sidecar.pid()]).await {
            tracing::error!(workload = %self.id, %error, "some of its processes do not end");
        }
    }
}

/// What the command line checks too; a holder does not rely on it.
fn check(spec: &JoinSpec) -> Result<(), String> {
    let counts = [("declared", spec.request.ports.len()), ("host", spec.host_ports.len())];
    for (what, count) in counts {
        if count > PORTS_MAX {
            return Err(format!("{count} {what} ports are more than {PORTS_MAX}"));
        }
    }
    Ok(())
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    let mut private = fs::DirBuilder::new();
    private.mode(0o700).recursive(true);
    private.create(dir.join("state"))?;
    private.create(dir.join("etc"))
}

fn remove_dir(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove the folder");
    }
}
