//! What the holder holds, and how its end is asked for and answered.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use heddle_runtime::netns_op::Hub;
use heddle_wire::local::holder_api::{FRAME_MAX, HolderReply, Info, Pids, Restarts};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{book::Book, part::Part, starter::Starter, workload::Workloads};
use crate::{mesh::MeshPaths, status::VERSION};

/// Sidecars told of that had to be started again.
const RESTARTS_MAX: usize = 200;
/// Bytes of an [`Info`] answer around the information itself.
const INFO_ENVELOPE: usize = 64;

/// Everything the holder holds. Lives on one thread.
#[derive(Debug)]
pub(crate) struct Holder {
    /// What workloads and sidecars need of it.
    pub book: Book,
    /// Workloads that have a namespace.
    pub workloads: Workloads,
    /// The control plane's process.
    pub control: Rc<Part>,
    /// The dashboard's process.
    pub observe: Rc<Part>,
    /// Where the dashboard is, and where spans come in.
    listening: (SocketAddr, SocketAddr),
    starter_present: Cell<bool>,
    /// Joins under way; the end waits for them to be undone.
    joining: Cell<usize>,
    /// Connections now.
    pub sessions: Cell<usize>,
    /// Set once: the mesh is ending.
    ending: watch::Sender<bool>,
    /// Set once: everything is gone but this process.
    pub ended: watch::Sender<bool>,
    /// Peers that asked for the end and have no answer yet.
    asked_to_end: Cell<usize>,
    answered: Notify,
    /// Why the mesh ends, once that is known.
    reason: RefCell<Option<String>>,
}

impl Holder {
    /// A holder of nothing yet.
    pub(super) fn new(paths: &MeshPaths, hub: Hub, listening: (SocketAddr, SocketAddr)) -> Self {
        Self {
            book: Book::new(paths, hub),
            workloads: Workloads::default(),
            control: Rc::new(Part::new("control")),
            observe: Rc::new(Part::new("observe")),
            listening,
            starter_present: Cell::new(true),
            joining: Cell::new(0),
            sessions: Cell::new(0),
            ending: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            asked_to_end: Cell::new(0),
            answered: Notify::new(),
            reason: RefCell::new(None),
        }
    }

    /// What runs here, with as many workloads as one frame takes; the control plane lists them all.
    pub(crate) fn info(&self) -> HolderReply {
        let mut info = self.describe();
        loop {
            let length = serde_json::to_vec(&info).map_or(0, |text| text.len());
            if length + INFO_ENVELOPE <= FRAME_MAX || info.workloads.is_empty() {
                return HolderReply::Info(Box::new(info));
            }
            info.workloads.truncate(info.workloads.len() * 3 / 4);
        }
    }

    /// Does a join, which the mesh's end waits for.
    pub(crate) async fn during_join<T>(&self, join: impl Future<Output = T>) -> T {
        self.joining.set(self.joining.get() + 1);
        let joined = join.await;
        self.joining.set(self.joining.get().saturating_sub(1));
        self.book.changed.notify_one();
        joined
    }

    /// What runs here.
    pub(super) fn describe(&self) -> Info {
        Info {
            mesh: self.book.paths.name().to_owned(),
            version: VERSION.to_owned(),
            run_dir: self.book.paths.run_dir().display().to_string(),
            dashboard: Some(self.listening.0),
            spans: Some(self.listening.1),
            pids: Pids {
                holder: std::process::id(),
                control: self.control.pid(),
                observe: self.observe.pid(),
            },
            workloads: self.workloads.all().iter().map(|w| w.joined().clone()).collect(),
            restarts: self.restarts(),
        }
    }

    fn restarts(&self) -> Vec<Restarts> {
        let workloads = self.workloads.all();
        let sidecars = workloads.iter().filter_map(|workload| workload.restarts());
        let mut sidecars: Vec<Restarts> = sidecars.collect();
        sidecars.sort_by_key(|restarts| std::cmp::Reverse(restarts.count));
        sidecars.truncate(RESTARTS_MAX);
        let parts = [&self.control, &self.observe];
        parts.into_iter().filter_map(|part| part.restarts()).chain(sidecars).collect()
    }

    /// A part by name.
    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        match name {
            "control" => Some(&self.control),
            "observe" => Some(&self.observe),
            _ => None,
        }
    }

    /// Returns once the mesh is ending.
    pub(crate) async fn until_ending(&self) {
        // The sender is ours, so waiting cannot fail.
        drop(self.ending.subscribe().wait_for(|ending| *ending).await);
    }

    /// Ends the mesh; returns when everything but this process is gone.
    pub(crate) async fn shut_down(&self, reason: String) {
        self.ends_because(reason);
        let mut ended = self.ended.subscribe();
        self.asked_to_end.set(self.asked_to_end.get() + 1);
        self.ending.send_replace(true);
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Notes why the mesh ends; the first reason counts.
    pub(crate) fn ends_because(&self, reason: impl Into<String>) {
        self.reason.borrow_mut().get_or_insert_with(|| reason.into());
    }

    /// Why it ends.
    pub(crate) fn reason(&self) -> String {
        self.reason.borrow().clone().unwrap_or_else(|| "nobody said why".to_owned())
    }

    /// A peer that asked for the end has its answer.
    pub(crate) fn said_goodbye(&self) {
        self.asked_to_end.set(self.asked_to_end.get().saturating_sub(1));
        self.answered.notify_one();
    }

    /// Returns when every peer that asked for the end has its answer.
    pub(super) async fn farewells(&self) {
        while self.asked_to_end.get() > 0 {
            self.answered.notified().await;
        }
    }

    /// Returns when the mesh is to end: somebody asked, or nobody is left.
    pub(super) async fn wait_for_end(&self, starter: &Starter) {
        loop {
            tokio::select! {
                () = self.until_ending() => return,
                () = self.book.changed.notified() => {}
                () = starter.gone(), if self.starter_present.get() => {
                    self.starter_present.set(false);
                }
            }
            let nobody = self.book.members.borrow().is_empty() && self.joining.get() == 0;
            if nobody && !self.starter_present.get() {
                tracing::info!("nobody is left: ending");
                self.ends_because("whoever started it has gone, and so has its last program");
                return;
            }
        }
    }

    /// Ends all workloads, also those that are joining right now.
    pub(super) async fn end_workloads(self: &Rc<Self>) {
        self.ending.send_replace(true);
        self.book.membership.close();
        loop {
            let mut all = JoinSet::new();
            for workload in self.workloads.all() {
                let holder = Rc::clone(self);
                all.spawn_local(async move { workload.end(&holder.book, &holder.workloads).await });
            }
            all.join_all().await;
            if self.book.members.borrow().is_empty() && self.joining.get() == 0 {
                return;
            }
            // The task that began a join undoes it.
            self.book.changed.notified().await;
        }
    }
}
