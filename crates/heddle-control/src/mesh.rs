//! The mesh at one moment: members, rules, connected proxies, generations. One lock around it; no
//! call here waits for anything.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    sync::Arc,
};

use heddle_compile::{RuleIndex, TelemetryDefault};
use heddle_model::{MeshSettings, Registry, ServiceName, Workload, WorkloadId, resource::Resource};
use heddle_runtime::clock;
use heddle_wire::{
    discovery::ResourceType as Kind,
    local::control_api::{Acknowledgement, ProxyStatus},
};
use tokio::sync::Notify;

use crate::{
    generations::Generations,
    limits::SESSIONS_MAX,
    population::Population,
    registry::{Redeclared, Touched},
    rules::Rules,
    session::{Concern, Heard, Response, Session},
    views::{ClientResources, MeshState, Views, parse_service},
};

/// Groups of resources that were sent to proxies, and answers that refused some of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pushes {
    pub(crate) sent: u64,
    pub(crate) refused: u64,
}

/// Everything the control plane knows.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// What every proxy is told alike.
    pub(crate) settings: MeshSettings,
    /// What is told of calls where no rule says that: where spans go, of how many traces, and the access log.
    pub(crate) telemetry: Option<TelemetryDefault>,
    /// Services and workloads.
    pub(crate) population: Population,
    /// Rules by source.
    pub(crate) rules: Rules,
    /// The same, indexed.
    pub(crate) index: RuleIndex,
    /// Numbers of states.
    pub(crate) generations: Generations,
    /// Virtual addresses given and taken since they were last taken note of.
    vips: Vec<(ServiceName, Option<u32>)>,
    views: Views,
    streams: u64,
    /// What was sent to proxies so far, and what they made of it.
    pub(crate) pushes: Pushes,
    connected: BTreeMap<WorkloadId, Connected>,
    /// Members from before this process's start whose sidecars have not connected again yet.
    returning: BTreeSet<WorkloadId>,
    /// What disconnected proxies had acknowledged last, for status.
    last_seen: BTreeMap<WorkloadId, u64>,
    /// When rules were put in force last, Unix time in seconds; 0 before the first time.
    pub(crate) rules_changed: u64,
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
        population: Population,
        rules: Rules,
        generations: Generations,
    ) -> Self {
        let index = RuleIndex::new(&rules.in_force().resources);
        // Which workloads of a cluster have sidecars is not known before they connect.
        let known = population.members().map(|members| &members.registry().workloads);
        let returning = known.into_iter().flat_map(BTreeMap::keys).cloned().collect();
        Self {
            settings,
            telemetry: None,
            population,
            rules,
            index,
            generations,
            vips: Vec::new(),
            views: Views::default(),
            streams: 0,
            pushes: Pushes::default(),
            connected: BTreeMap::new(),
            returning,
            last_seen: BTreeMap::new(),
            rules_changed: 0,
        }
    }

    /// Puts other rules in force as one generation.
    pub(crate) fn put_rules(&mut self, rules: Rules, index: RuleIndex) -> u64 {
        self.rules = rules;
        self.index = index;
        let now = clock::unix_now().as_secs();
        self.rules_changed = now;
        let Redeclared { mut touched, vips } = self.population.declare(self.index.resources(), now);
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
        self.population.registry()
    }

    /// The same as it would be with what these objects declare; entries are as they are now.
    pub(crate) fn registry_with(&self, resources: &[Arc<Resource>]) -> Cow<'_, Registry> {
        self.population.registry_with(resources)
    }

    /// What the store must remember of virtual addresses since the last call.
    pub(crate) fn take_vips(&mut self) -> Vec<(ServiceName, Option<u32>)> {
        mem::take(&mut self.vips)
    }

    /// Makes a generation of a change and wakes the proxies it concerns.
    pub(crate) fn commit(&mut self, touched: &Touched) -> u64 {
        let mut touched = touched.clone();
        let now = clock::unix_now().as_secs();
        let placed = self.population.put_entries(&self.index, &touched, now);
        touched.endpoints.extend(placed.touched);
        if self.index.looks_at_callers() {
            touched.concern_fellows(self.registry());
        }
        self.vips.extend(placed.vips);
        self.views.invalidate(&touched);
        let mut affected = BTreeSet::new();
        let concern = Concern::of(&touched);
        let state = MeshState::new(
            (&self.settings, self.telemetry.as_ref()),
            &self.population,
            &self.index,
        );
        for (id, proxy) in &mut self.connected {
            if !concern.is_of(id, &proxy.session) {
                continue;
            }
            let Some(client) = state.registry.workloads.get(id) else { continue };
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

    /// What `client` is told now, asked resource by resource.
    pub(crate) fn as_told<T>(
        &mut self,
        client: &Workload,
        ask: impl FnOnce(&mut ClientResources<'_>) -> T,
    ) -> T {
        let state = MeshState::new(
            (&self.settings, self.telemetry.as_ref()),
            &self.population,
            &self.index,
        );
        ask(&mut ClientResources::new(state, &mut self.views, client))
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
        let refused = heard.error.is_some();
        proxy.session.hear(kind, heard);
        if proxy.session.take_truncated() {
            tracing::warn!(workload = %stream.workload, ?kind, "proxy asked for too many or too long names; the rest is not served");
        }
        self.pushes.refused += u64::from(refused);
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
        let state = MeshState::new(
            (&self.settings, self.telemetry.as_ref()),
            &self.population,
            &self.index,
        );
        let Some(client) = state.registry.workloads.get(&stream.workload) else {
            return Next::Wait;
        };
        let mut resources = ClientResources::new(state, &mut self.views, client);
        let responses = proxy.session.send(newest, &mut resources);
        if responses.is_empty() {
            return Next::Wait;
        }
        self.pushes.sent += 1;
        Next::Send(responses)
    }

    /// Ends a stream.
    pub(crate) fn close(&mut self, stream: &StreamId) {
        let newest = self.generations.newest();
        let Some(proxy) = self.proxy(stream) else { return };
        let running = proxy.session.running(newest);
        self.connected.remove(&stream.workload);
        if self.registry().workloads.contains_key(&stream.workload) {
            self.last_seen.insert(stream.workload.clone(), running);
        }
        let sessions = self.connected.values().map(|proxy| &proxy.session);
        let wanted: HashSet<&str> = sessions.flat_map(Session::endpoints_wanted).collect();
        self.views.keep_endpoints(|name| wanted.contains(name));
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
            let known = self.registry().workloads.contains_key(id);
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

    /// The oldest generation that a connected proxy runs; the newest where none is connected.
    pub(crate) fn least_running(&self) -> u64 {
        let newest = self.generations.newest();
        let running = self.connected.values().map(|proxy| proxy.session.running(newest));
        running.min().unwrap_or(newest)
    }

    /// How many proxies are connected.
    pub(crate) fn connected(&self) -> usize {
        self.connected.len()
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
