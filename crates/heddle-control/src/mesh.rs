//! The mesh at one moment: members, rules, connected proxies, generations. One lock around it; no
//! call here waits for anything.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use heddle_compile::{RuleIndex, addresses_differ};
use heddle_model::{MeshSettings, Registry, ServiceName, WorkloadId, resource::Resource};
use heddle_runtime::clock;
use heddle_wire::{
    discovery::ResourceType as Kind,
    local::control_api::{Acknowledgement, ProxyStatus},
};
use tokio::sync::Notify;

use crate::{
    generations::Generations,
    limits::SESSIONS_MAX,
    registry::{Members, Redeclared, Touched, declared::declared},
    rules::Rules,
    session::{Heard, Response, Session},
    views::{ClientResources, MeshState, Views, parse_service},
};

/// Everything the control plane knows.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// What every proxy is told alike.
    pub(crate) settings: MeshSettings,
    /// Services and workloads.
    pub(crate) members: Members,
    /// Rules by source.
    pub(crate) rules: Rules,
    /// The same, indexed.
    pub(crate) index: RuleIndex,
    /// Numbers of states.
    pub(crate) generations: Generations,
    /// Services and workloads with those of entries, where there are entries.
    merged: Option<Registry>,
    /// Virtual addresses given and taken since they were last taken note of.
    vips: Vec<(ServiceName, Option<u32>)>,
    views: Views,
    streams: u64,
    connected: BTreeMap<WorkloadId, Connected>,
    /// Members from before this process's start whose sidecars have not connected again yet.
    returning: BTreeSet<WorkloadId>,
    /// What disconnected proxies had acknowledged last, for status.
    last_seen: BTreeMap<WorkloadId, u64>,
}

/// A proxy's newest stream.
#[derive(Debug)]
struct Connected {
    stream: u64,
    session: Session,
    wake: Arc<Notify>,
}

/// A stream's identity: a workload's newer stream takes the place of its older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamId {
    /// Whose sidecar.
    pub(crate) workload: WorkloadId,
    number: u64,
}

/// What a stream is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send these, all at once.
    Send(Vec<Response>),
    /// Nothing for now.
    Wait,
    /// A newer stream of the same workload has taken over, or the mesh is full.
    End,
}

/// How far a generation has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// As told to callers.
    pub(crate) acknowledgement: Acknowledgement,
    /// Could waiting change it? Not for proxies that have refused it.
    pub(crate) undecided: bool,
}

impl Mesh {
    /// A mesh without proxies.
    pub(crate) fn new(
        settings: MeshSettings,
        members: Members,
        rules: Rules,
        generations: Generations,
    ) -> Self {
        let index = RuleIndex::new(&rules.in_force().resources);
        let returning = members.registry().workloads.keys().cloned().collect();
        Self {
            settings,
            members,
            rules,
            index,
            generations,
            merged: None,
            vips: Vec::new(),
            views: Views::default(),
            streams: 0,
            connected: BTreeMap::new(),
            returning,
            last_seen: BTreeMap::new(),
        }
    }

    /// Puts other rules in force as one generation.
    pub(crate) fn put_rules(&mut self, rules: Rules, index: RuleIndex) -> u64 {
        self.rules = rules;
        self.index = index;
        let now = clock::unix_now().as_secs();
        let Redeclared { mut touched, vips } =
            self.members.declare(declared(self.index.resources()), now);
        self.vips.extend(vips);
        touched.topology = true;
        self.commit(&touched)
    }

    /// Takes over rules that say the same as those in force, for their places.
    pub(crate) fn replace_rules(&mut self, rules: Rules, index: RuleIndex) {
        self.rules = rules;
        self.index = index;
    }

    /// Services and workloads, those of entries among them.
    pub(crate) fn registry(&self) -> &Registry {
        self.merged.as_ref().unwrap_or_else(|| self.members.registry())
    }

    /// The same as it would be with what these objects declare; entries are as they are now.
    pub(crate) fn registry_with(&self, resources: &[Arc<Resource>]) -> Cow<'_, Registry> {
        match self.members.registry_with(&declared(resources)) {
            Cow::Borrowed(_) => Cow::Borrowed(self.registry()),
            other => other,
        }
    }

    /// What the store must remember of virtual addresses since the last call.
    pub(crate) fn take_vips(&mut self) -> Vec<(ServiceName, Option<u32>)> {
        mem::take(&mut self.vips)
    }

    /// Puts the services of entries beside those of the mesh as it is now; told are all there are and were,
    /// since any of them may have a member of the mesh among its endpoints.
    fn merge_entries(&mut self) -> BTreeSet<ServiceName> {
        let before = self.merged.take().map(|merged| merged.outside).unwrap_or_default();
        let needy = RefCell::new(BTreeSet::new());
        let vip = |name: &ServiceName| {
            needy.borrow_mut().insert(name.clone());
            self.members.claimed_vips(name)
        };
        let mut merged = self.index.with_entries(self.members.registry(), &vip).into_owned();
        let needy = needy.into_inner();
        self.vips.extend(self.members.claim(&needy, clock::unix_now().as_secs()));
        for name in &needy {
            if let Some(service) = merged.services.get_mut(name) {
                service.vips = self.members.claimed_vips(name);
            }
        }
        let names = merged.outside.keys().chain(before.keys()).cloned().collect();
        self.merged = (!merged.outside.is_empty()).then_some(merged);
        names
    }

    /// Makes a generation of a change and wakes the proxies it concerns.
    pub(crate) fn commit(&mut self, touched: &Touched) -> u64 {
        let mut touched = touched.clone();
        if self.merged.is_some() || self.index.has_entries() {
            touched.endpoints.extend(self.merge_entries());
        }
        self.views.invalidate(&touched);
        let mut affected = BTreeSet::new();
        let (members, index) = (&self.members, &self.index);
        let registry = self.merged.as_ref().unwrap_or_else(|| members.registry());
        let addresses_differ = addresses_differ(registry);
        let state =
            MeshState { settings: &self.settings, members, registry, index, addresses_differ };
        for (id, proxy) in &mut self.connected {
            let Some(client) = self.members.registry().workloads.get(id) else { continue };
            let mut resources = ClientResources::new(state, &mut self.views, client);
            if proxy.session.notice(&mut resources) {
                affected.insert(id.clone());
            }
            // Also without news: a workload that was not known may be known now.
            if proxy.session.wants_to_send() {
                proxy.wake.notify_one();
            }
        }
        let (affected_count, touched_services) = (affected.len(), touched.endpoints.len());
        let generation = self.generations.begin(affected);
        tracing::debug!(
            generation,
            affected = affected_count,
            topology = touched.topology,
            services = touched_services,
            "generation begun"
        );
        generation
    }

    /// Begins a stream; an older one of the same workload ends. `None`: there are too many.
    pub(crate) fn open(&mut self, workload: WorkloadId) -> Option<(StreamId, Arc<Notify>)> {
        let known = self.connected.contains_key(&workload);
        if !known && self.connected.len() >= SESSIONS_MAX {
            return None;
        }
        if self.returning.remove(&workload) {
            self.generations.concern(&workload);
        }
        self.streams += 1;
        let wake = Arc::new(Notify::new());
        let proxy =
            Connected { stream: self.streams, session: Session::default(), wake: wake.clone() };
        if let Some(older) = self.connected.insert(workload.clone(), proxy) {
            older.wake.notify_one();
        }
        Some((StreamId { workload, number: self.streams }, wake))
    }

    /// Takes in a message of a stream. `false`: the stream is over.
    pub(crate) fn hear(&mut self, stream: &StreamId, kind: Kind, heard: Heard) -> bool {
        let Some(proxy) = self.proxy(stream) else { return false };
        if let Some(reason) = &heard.error {
            tracing::warn!(workload = %stream.workload, ?kind, reason, "proxy refused a resource");
        }
        proxy.session.hear(kind, heard);
        if proxy.session.take_truncated() {
            tracing::warn!(workload = %stream.workload, ?kind, "proxy asked for too many or too long names; the rest is not served");
        }
        true
    }

    /// What a stream is to do next. A workload that is not known is told nothing: its sidecar was
    /// here before its holder told of it, or is on its way out.
    pub(crate) fn next(&mut self, stream: &StreamId) -> Next {
        let newest = self.generations.newest();
        let Some(proxy) = self.connected.get_mut(&stream.workload) else { return Next::End };
        if proxy.stream != stream.number {
            return Next::End;
        }
        let Some(client) = self.members.registry().workloads.get(&stream.workload) else {
            return Next::Wait;
        };
        let (members, index) = (&self.members, &self.index);
        let registry = self.merged.as_ref().unwrap_or_else(|| members.registry());
        let addresses_differ = addresses_differ(registry);
        let state =
            MeshState { settings: &self.settings, members, registry, index, addresses_differ };
        let mut resources = ClientResources::new(state, &mut self.views, client);
        let responses = proxy.session.send(newest, &mut resources);
        if responses.is_empty() { Next::Wait } else { Next::Send(responses) }
    }

    /// Ends a stream.
    pub(crate) fn close(&mut self, stream: &StreamId) {
        let newest = self.generations.newest();
        let Some(proxy) = self.proxy(stream) else { return };
        let running = proxy.session.running(newest);
        self.connected.remove(&stream.workload);
        if self.members.registry().workloads.contains_key(&stream.workload) {
            self.last_seen.insert(stream.workload.clone(), running);
        }
        let connected = &self.connected;
        self.views.keep_endpoints(|name| {
            connected.values().any(|proxy| proxy.session.wants(Kind::Endpoints, name))
        });
    }

    /// Forgets what is only kept for status of a workload that has left.
    pub(crate) fn forget(&mut self, workload: &WorkloadId) {
        self.last_seen.remove(workload);
        self.returning.remove(workload);
    }

    /// Expects nobody back any more.
    pub(crate) fn stop_expecting(&mut self) {
        self.returning.clear();
    }

    /// How far a generation has come among the connected proxies it changed something for (all, if
    /// that is no longer remembered), and among those about to connect again: nobody knows yet what
    /// it changes for them.
    pub(crate) fn progress(&self, generation: u64) -> Progress {
        let newest = self.generations.newest();
        let affected = self.generations.affected(generation);
        let mut progress = Progress::default();
        progress.acknowledgement.generation = generation;
        progress.acknowledgement.pending.extend(self.returning.iter().cloned());
        progress.undecided = !self.returning.is_empty();
        for (id, proxy) in &self.connected {
            let known = self.members.registry().workloads.contains_key(id);
            if !known || affected.is_some_and(|affected| !affected.contains(id)) {
                continue;
            }
            if proxy.session.running(newest) >= generation {
                progress.acknowledgement.acknowledged += 1;
            } else {
                progress.undecided |= !proxy.session.is_refusing();
                progress.acknowledgement.pending.push(id.clone());
            }
        }
        progress
    }

    /// Is a workload's sidecar connected, and what does it run?
    pub(crate) fn running(&self, workload: &WorkloadId) -> (bool, u64) {
        match self.connected.get(workload) {
            Some(proxy) => (true, proxy.session.running(self.generations.newest())),
            None => (false, self.last_seen.get(workload).copied().unwrap_or(0)),
        }
    }

    /// A proxy's state for status.
    pub(crate) fn proxy_status(&self, workload: &WorkloadId) -> ProxyStatus {
        let (connected, generation) = self.running(workload);
        let session = self.connected.get(workload).map(|proxy| &proxy.session);
        let destinations: Vec<ServiceName> = session
            .into_iter()
            .flat_map(|session| session.subscribed(Kind::Destination))
            .filter_map(|name| parse_service(name))
            .collect();
        let nack = session.and_then(Session::nack).map(str::to_owned);
        ProxyStatus { workload: workload.clone(), connected, generation, nack, destinations }
    }

    fn proxy(&mut self, stream: &StreamId) -> Option<&mut Connected> {
        self.connected.get_mut(&stream.workload).filter(|proxy| proxy.stream == stream.number)
    }
}
