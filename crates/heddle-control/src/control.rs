//! What the two sockets ask for, done: locks the mesh for a moment, writes the store off the main
//! thread, waits for acknowledgements. Changes of rules are in `rule_changes`, answers
//! for people in `status` and `viewed`.

mod of_cluster;
mod rule_changes;
mod status;
mod viewed;

pub(crate) use of_cluster::{RuleChange, RuleState};
pub(crate) use status::ResourceQuery;
pub(crate) use viewed::ViewQuery;

use std::{
    collections::BTreeSet,
    future::Future,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use heddle_model::WorkloadId;
use heddle_runtime::clock;
use heddle_wire::{
    discovery::ResourceType as Kind,
    local::control_api::{Acknowledgement, JoinRequest, JoinedWorkload, Member, Problem},
};
use tokio::sync::{Notify, watch};

use crate::{
    error::Refused,
    journal::{Journal, Noted},
    limits::{
        GENERATION_RESERVE, JOURNAL_INTERVAL, JOURNAL_WAIT, RETURN_WAIT, STORE_RETRY, WAIT_MAX,
        WITHDRAW_WAIT,
    },
    mesh::{Mesh, Next, StreamId},
    registry::Touched,
    session::Heard,
    store::{Change, Store, StoreError},
};

/// The control plane's shared state.
#[derive(Debug)]
pub(crate) struct Control {
    mesh: Mutex<Mesh>,
    /// None in a cluster, which keeps everything itself.
    store: Option<Arc<Mutex<Store>>>,
    troubles: Mutex<Troubles>,
    /// What the store still owes: written when it can be written again.
    owed: Mutex<Vec<Change>>,
    /// Held from planning a change of rules to its being in force: changes are made one by one.
    turn: tokio::sync::Mutex<()>,
    /// Ticks whenever a proxy's progress may have changed.
    progress: watch::Sender<()>,
    /// Ticks whenever a cluster's rules have changed, or what is wrong with them.
    rules_changed: watch::Sender<()>,
    /// Likewise.
    journal: Option<Journal>,
    journal_stale: Notify,
    /// Somebody waits for the journal.
    journal_wanted: Notify,
    /// Writes of the journal that have begun.
    journal_begun: AtomicU64,
    /// Which of them was over last, well or not.
    journal_over: watch::Sender<u64>,
}

/// What is wrong outside of rules, for status.
#[derive(Debug, Default)]
struct Troubles {
    store: Option<String>,
    journal: Option<String>,
    folder: Vec<Problem>,
    members: Vec<Problem>,
    /// What the cluster's API refuses, and pods that lack their sidecar.
    cluster: Vec<Problem>,
}

impl Control {
    /// Takes over a mesh as it was put together at start, and what the store did not take then.
    pub(crate) fn new(
        mesh: Mesh,
        store: Store,
        journal: Journal,
        unwritten: Option<(StoreError, Vec<Change>)>,
    ) -> Self {
        let (store_trouble, owed) = match unwritten {
            Some((error, changes)) => (Some(error.to_string()), changes),
            None => (None, Vec::new()),
        };
        Self {
            store: Some(Arc::new(Mutex::new(store))),
            troubles: Mutex::new(Troubles { store: store_trouble, ..Troubles::default() }),
            owed: Mutex::new(owed),
            journal: Some(journal),
            ..Self::without_store(mesh)
        }
    }

    /// Takes over a mesh of which nothing is kept here.
    pub(crate) fn without_store(mesh: Mesh) -> Self {
        Self {
            mesh: Mutex::new(mesh),
            store: None,
            troubles: Mutex::default(),
            owed: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            progress: watch::channel(()).0,
            rules_changed: watch::channel(()).0,
            journal: None,
            journal_stale: Notify::new(),
            journal_wanted: Notify::new(),
            journal_begun: AtomicU64::new(0),
            journal_over: watch::channel(0).0,
        }
    }

    /// Lets a workload in. Its address is in the journal and its service's in the store before they
    /// are told: a control plane killed after that must not give them to another.
    pub(crate) async fn join(
        self: &Arc<Self>,
        request: JoinRequest,
    ) -> Result<JoinedWorkload, Refused> {
        let control = self.clone();
        uncancelled(async move {
            let joined = {
                let mut mesh = control.mesh();
                let members = mesh.population.members_mut().ok_or_else(of_cluster)?;
                let joined = members
                    .join(&request, clock::unix_now().as_secs(), || fastrand::u32(..))
                    .map_err(|problems| Refused::of(StatusCode::CONFLICT, problems))?;
                control.commit(&mut mesh, &joined.touched);
                joined
            };
            let workload = &joined.workload.workload;
            let address = workload.addresses.first();
            let service = workload.first_service().map(tracing::field::display);
            tracing::info!(workload = %workload.id, %address, service, "workload joined");
            let vip = joined.vip.map(|(name, index)| Change::Vip(name, Some(index)));
            let evicted = joined.evicted.map(|name| Change::Vip(name, None));
            let vips = evicted.into_iter().chain(vip).chain(control.entries_vips());
            tokio::join!(control.note(vips), control.journalled());
            Ok(joined.workload)
        })
        .await
    }

    /// Takes running members back after a restart.
    pub(crate) async fn adopt(self: &Arc<Self>, members: Vec<Member>) -> Result<(), Refused> {
        let control = self.clone();
        uncancelled(async move {
            let members: Vec<JoinedWorkload> = members.into_iter().map(|m| m.joined).collect();
            let adopted = {
                let mut mesh = control.mesh();
                let own = mesh.population.members_mut().ok_or_else(of_cluster)?;
                let adopted = own.adopt(&members, clock::unix_now().as_secs());
                if adopted.touched.anything() {
                    control.commit(&mut mesh, &adopted.touched);
                }
                adopted
            };
            tracing::info!(
                members = members.len(),
                refused = adopted.problems.len(),
                "members adopted"
            );
            let vips = adopted.vips.into_iter().map(|(name, index)| Change::Vip(name, Some(index)));
            control.note(vips.chain(control.entries_vips())).await;
            // The others are in: a member that cannot be is for a person to look at.
            for problem in &adopted.problems {
                tracing::error!(reason = problem.reason, "member not adopted");
            }
            control.troubles().members = adopted.problems;
            Ok(())
        })
        .await
    }

    /// Withdraws a workload from all proxies and waits until they know, for a second at most.
    pub(crate) async fn withdraw(&self, id: WorkloadId) -> Result<Acknowledgement, Refused> {
        let generation = {
            let mut mesh = self.mesh();
            let members = mesh.population.members_mut().ok_or_else(of_cluster)?;
            let touched = members.withdraw(&id).ok_or_else(|| unknown(&id))?;
            if touched.anything() {
                self.commit(&mut mesh, &touched)
            } else {
                mesh.generations.newest()
            }
        };
        tracing::info!(workload = %id, generation, "workload withdrawn");
        Ok(self.acknowledged(generation, WITHDRAW_WAIT).await)
    }

    /// Forgets a workload.
    pub(crate) fn remove(&self, id: &WorkloadId) -> Result<(), Refused> {
        let mut mesh = self.mesh();
        let now = clock::unix_now().as_secs();
        let members = mesh.population.members_mut().ok_or_else(of_cluster)?;
        let touched = members.delete(id, now).ok_or_else(|| unknown(id))?;
        mesh.forget(id);
        self.commit(&mut mesh, &touched);
        tracing::info!(workload = %id, "workload left");
        Ok(())
    }

    /// Takes over where a workload's application listens. `false`: no such workload.
    pub(crate) fn report(&self, id: &WorkloadId, listening: &[(IpAddr, u16)]) -> bool {
        let mut mesh = self.mesh();
        let Some(workload) = mesh.registry().workloads.get(id) else { return false };
        let own = workload.addresses;
        let reachable: BTreeSet<u16> = listening
            .iter()
            .filter(|(ip, _)| ip.is_unspecified() || is_local(*ip) || own.contains(*ip))
            .map(|(_, port)| *port)
            .collect();
        // In a cluster the kubelet's probes say what is ready.
        let Some(members) = mesh.population.members_mut() else { return true };
        let Some(touched) = members.report(id, &reachable) else { return false };
        if touched.anything() {
            let generation = self.commit(&mut mesh, &touched);
            tracing::debug!(workload = %id, ?reachable, generation, "listening ports reported");
        }
        true
    }

    /// Waits until a generation is made, if it is still to come, and acknowledged by all connected
    /// proxies it concerns.
    pub(crate) async fn wait(
        &self,
        generation: u64,
        timeout_ms: u64,
    ) -> Result<Acknowledgement, Refused> {
        let limit = Duration::from_millis(timeout_ms).min(WAIT_MAX);
        let deadline = clock::now() + limit;
        let mut ticks = self.progress.subscribe();
        loop {
            let newest = self.mesh().generations.newest();
            let left = deadline.saturating_duration_since(clock::now());
            if generation <= newest {
                return Ok(self.acknowledged(generation, left).await);
            }
            if left.is_zero() {
                let reason = format!(
                    "generation {generation} does not exist: after {} s the newest is still {newest}",
                    limit.as_secs_f64()
                );
                return Err(Refused::new(StatusCode::NOT_FOUND, reason));
            }
            // Either way the newest is looked at again.
            clock::within(left, ticks.changed()).await;
        }
    }

    /// How far a generation has come, at the latest after `limit`. Proxies that have refused it are
    /// not waited for.
    async fn acknowledged(&self, generation: u64, limit: Duration) -> Acknowledgement {
        let deadline = clock::now() + limit.min(WAIT_MAX);
        let mut ticks = self.progress.subscribe();
        loop {
            let progress = self.mesh().progress(generation);
            let left = deadline.saturating_duration_since(clock::now());
            if !progress.undecided || left.is_zero() {
                return progress.acknowledgement;
            }
            // Either way the progress is looked at again.
            clock::within(left, ticks.changed()).await;
        }
    }

    /// Begins a proxy's stream.
    pub(crate) fn open(&self, workload: WorkloadId) -> Option<(StreamId, Arc<Notify>)> {
        let opened = self.mesh().open(workload);
        self.progress.send_replace(());
        opened
    }

    /// Takes in a proxy's message. `false`: the stream is over.
    pub(crate) fn hear(&self, stream: &StreamId, kind: Kind, heard: Heard) -> bool {
        let alive = self.mesh().hear(stream, kind, heard);
        self.progress.send_replace(());
        alive
    }

    /// What a proxy is to be sent.
    pub(crate) fn next(&self, stream: &StreamId) -> Next {
        let next = self.mesh().next(stream);
        self.progress.send_replace(());
        next
    }

    /// Ends a proxy's stream.
    pub(crate) fn close(&self, stream: &StreamId) {
        self.mesh().close(stream);
        self.progress.send_replace(());
    }

    /// Expects the sidecars of before the start back for a while.
    pub(crate) async fn expect_sidecars(self: Arc<Self>) {
        clock::sleep(RETURN_WAIT).await;
        self.mesh().stop_expecting();
        self.progress.send_replace(());
    }

    /// Keeps the member journal up to date, for ever.
    pub(crate) async fn keep_journal(self: Arc<Self>) {
        let Some(journal) = &self.journal else { return };
        loop {
            self.journal_stale.notified().await;
            let turn = self.journal_begun.fetch_add(1, Ordering::Relaxed) + 1;
            let noted = self.noted();
            let journal = journal.clone();
            let written = tokio::task::spawn_blocking(move || journal.write(noted)).await;
            let trouble = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!(
                    "the member journal cannot be written: {error}; a restarted control plane will know its members only when they are adopted"
                )),
                Err(_) => Some("writing the member journal failed".to_owned()),
            };
            if let Some(reason) = &trouble {
                tracing::warn!(reason, "member journal not written");
            }
            self.troubles().journal = trouble;
            self.journal_over.send_replace(turn);
            // Whoever waits ends the pause; either way the next change is waited for.
            clock::within(JOURNAL_INTERVAL, self.journal_wanted.notified()).await;
        }
    }

    /// Waits until what was committed last is in the journal, or could not be written: what
    /// happened has happened, and the trouble is in status.
    async fn journalled(&self) {
        // What is being written now may have been put together before.
        let next = self.journal_begun.load(Ordering::Relaxed) + 1;
        let mut over = self.journal_over.subscribe();
        self.journal_wanted.notify_one();
        clock::within(JOURNAL_WAIT, over.wait_for(|turn| *turn >= next)).await;
    }

    fn noted(&self) -> Noted {
        let now = clock::unix_now().as_secs();
        self.mesh().population.members().map(|members| members.noted(now)).unwrap_or_default()
    }

    /// Writes the journal for the last time.
    pub(crate) fn end(&self) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.write(self.noted()) {
            tracing::warn!(%error, "member journal not written");
        }
    }

    /// Makes a generation and sees to everything that follows from it.
    fn commit(&self, mesh: &mut Mesh, touched: &Touched) -> u64 {
        let generation = mesh.commit(touched);
        self.journal_stale.notify_one();
        self.after_commit();
        generation
    }

    /// Lets those look who wait for acknowledgements, and the keeper of the generation bound.
    fn after_commit(&self) {
        self.progress.send_replace(());
    }

    /// What the store must remember of the virtual addresses of entries.
    fn entries_vips(&self) -> impl Iterator<Item = Change> + use<> {
        let vips = self.mesh().take_vips();
        vips.into_iter().map(|(name, index)| Change::Vip(name, index))
    }

    /// Writes changes, now or as soon as the store can be written: what happened has happened.
    async fn note(&self, changes: impl Iterator<Item = Change>) {
        {
            let mut owed = lock(&self.owed);
            for change in changes {
                owed.retain(|older| !older.is_replaced_by(&change));
                owed.push(change);
            }
        }
        // A failure is in status, and the change stays owed.
        self.persist(Vec::new()).await.ok();
    }

    /// Writes changes, with what is owed and the generation bound, off the main thread.
    ///
    /// # Errors
    /// [`StoreError`], also noted for status: nothing was written.
    async fn persist(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let bound = self.mesh().generations.to_reserve();
        let Some(store) = self.store.clone() else {
            bound.into_iter().for_each(|bound| self.mesh().generations.reserved(bound));
            return Ok(());
        };
        let owed = std::mem::take(&mut *lock(&self.owed));
        let mut all = owed.clone();
        all.extend(changes);
        all.extend(bound.map(Change::Generation));
        if all.is_empty() {
            return Ok(());
        }
        let written = tokio::task::spawn_blocking(move || lock(&store).write(all)).await;
        let result = written.unwrap_or_else(|_| {
            let path = crate::store::STORE_FILE.into();
            Err(StoreError::Damaged { path, reason: "writing it failed half-way".to_owned() })
        });
        match &result {
            Ok(()) => {
                self.troubles().store = None;
                if let Some(bound) = bound {
                    self.mesh().generations.reserved(bound);
                }
            }
            Err(error) => {
                tracing::error!(%error, "store not written");
                self.troubles().store = Some(error.to_string());
                let mut now = lock(&self.owed);
                let newer = std::mem::take(&mut *now);
                let kept =
                    |older: &Change| !newer.iter().any(|change| older.is_replaced_by(change));
                now.extend(owed.into_iter().filter(kept));
                now.extend(newer);
            }
        }
        result
    }

    /// Writes the generation bound ahead of need, and what is owed once that is possible, for ever.
    pub(crate) async fn keep_store(self: Arc<Self>) {
        let mut ticks = self.progress.subscribe();
        loop {
            let troubled = self.troubles().store.is_some();
            if troubled {
                clock::sleep(STORE_RETRY).await;
                // Something to write, so that success is seen.
                let bound = self.mesh().generations.newest() + GENERATION_RESERVE;
                self.persist(vec![Change::Generation(bound)]).await.ok();
            } else if ticks.changed().await.is_err() {
                return;
            } else if self.mesh().generations.to_reserve().is_some() {
                self.persist(Vec::new()).await.ok();
            }
        }
    }

    fn mesh(&self) -> MutexGuard<'_, Mesh> {
        lock(&self.mesh)
    }

    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        lock(&self.troubles)
    }
}

/// A contained panic of another task must not take the control plane with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a change to its end even if the caller hangs up: it is never left half-made.
async fn uncancelled<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(change).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call failed inside");
        Err(Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the call failed inside the control plane; control.log says more",
        ))
    })
}

fn is_local(ip: IpAddr) -> bool {
    ip == IpAddr::from([127, 0, 0, 1]) || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}

/// Why members cannot join here.
fn of_cluster() -> Refused {
    Refused::new(
        StatusCode::CONFLICT,
        "this mesh is a cluster's: its pods are its members; give a namespace the label `istio-injection=enabled`, or a pod `sidecar.istio.io/inject=true`",
    )
}

fn unknown(id: &WorkloadId) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, format!("no workload {id} is in the mesh"))
}

#[cfg(test)]
mod tests;
