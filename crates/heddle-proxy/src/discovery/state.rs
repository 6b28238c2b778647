//! The discovery client without its socket: what is subscribed, what is held, what is staged.
//!
//! Every method takes the time and returns; [`super::client`] moves the messages. Responses of one
//! generation are staged and take force together at its end, in one snapshot; a generation with a
//! resource that does not decode or build is refused as a whole and the rules before stay.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use heddle_model::{Endpoints, ServiceName};
use heddle_wire::discovery::{
    MESH_NAME, ResourceType, address_name, inbound_name,
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    service_name,
};

use super::{
    decode::{Decoded, decode},
    staging::{Staged, ack, nack},
    subscriptions::{StoredResource, Subscriptions},
    waiters::{Answer, Told, Waiters},
};
use crate::{
    Shared,
    lookup::{LookupError, Question},
    ranges::AddressKind,
    saved::SavedResource,
    snapshot::{AddressOwner, ResourceSet, Snapshot, SnapshotBuilder},
};

/// The peer broke the protocol: the stream is of no use any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProtocolError {
    #[error("generation {next} began before the end of generation {staged}")]
    TornGeneration { staged: u64, next: u64 },
}

/// The stream to the control plane, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// The attempt to connect that is under way is the first, or follows a stream that was well: who asks may wait
    /// for it.
    Untried,
    Up,
    Down,
}

/// Everything the client knows.
#[derive(Debug)]
pub(super) struct State {
    shared: Arc<Shared>,
    builder: SnapshotBuilder,
    set: ResourceSet,
    generation: u64,
    subscriptions: Subscriptions,
    staged: Option<Staged>,
    waiters: Waiters,
    replies: VecDeque<DeltaDiscoveryRequest>,
    /// Accepted generations whose rules still wait for endpoints: acknowledged when in force.
    unacknowledged: Vec<(ResourceType, String)>,
    stream: Stream,
    node_sent: bool,
    dirty: bool,
    accepted: u64,
}

impl State {
    pub(super) fn new(shared: Arc<Shared>, now: Instant) -> Self {
        let workload = &shared.config.workload;
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(ResourceType::Inbound, inbound_name(workload), now);
        subscriptions.add(ResourceType::Mesh, MESH_NAME.into(), now);
        Self {
            builder: SnapshotBuilder::new(workload.clone())
                .with_addresses(shared.config.addresses)
                .with_retries(shared.state.retries.clone())
                .with_breakers(shared.state.breakers.clone())
                .with_resolved(shared.state.resolved.clone()),
            shared,
            set: ResourceSet::default(),
            generation: 0,
            subscriptions,
            staged: None,
            waiters: Waiters::default(),
            replies: VecDeque::new(),
            unacknowledged: Vec::new(),
            stream: Stream::Untried,
            node_sent: false,
            dirty: false,
            accepted: 0,
        }
    }

    /// The stream is up: everything is subscribed anew, with the versions held, so that only what
    /// differs is sent.
    pub(super) fn connected(&mut self) {
        self.stream = Stream::Up;
        self.node_sent = false;
        self.subscriptions.resume();
    }

    /// The stream was ended here, and another follows at once: what was staged is void.
    pub(super) fn reconnecting(&mut self) {
        self.stream = Stream::Untried;
        self.staged = None;
        self.replies.clear();
        self.unacknowledged.clear();
    }

    /// The stream is down: what was staged is void, and who asked about something that can pass
    /// without an answer is let go.
    pub(super) fn disconnected(&mut self) {
        self.reconnecting();
        self.stream = Stream::Down;
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.tell(|one| (!self.needs_answer(one)).then_some(Err(LookupError::Unreachable)));
        self.waiters = waiters;
    }

    /// Must its asker wait even if the control plane is known to be unreachable? It may come back in
    /// time; all others have a way to go on without an answer.
    fn needs_answer(&self, question: &Question) -> bool {
        match question {
            Question::Address(ip) => self.shared.ranges.kind(*ip) == AddressKind::Vip,
            Question::Destination(_) => true,
            Question::Name(_) => false,
        }
    }

    /// A look-up asks. Answered at once where possible, else when the control plane has told, or by
    /// the asker's own time limit.
    pub(super) fn ask(&mut self, question: Question, answer: Answer, now: Instant) {
        let current = self.shared.snapshot.load_full();
        if let Some(result) = self.known(&question, &current) {
            let _asker_may_be_gone = answer.send(result);
            return;
        }
        if self.stream == Stream::Down && !self.needs_answer(&question) {
            let _asker_may_be_gone = answer.send(Err(LookupError::Unreachable));
            return;
        }
        if self.waiters.is_full() || !self.subscribe(&question, now) {
            let _asker_may_be_gone = answer.send(Err(LookupError::Timeout));
            return;
        }
        self.waiters.add(question, answer);
    }

    /// What can be said about `question` now.
    fn known(&self, question: &Question, snapshot: &Arc<Snapshot>) -> Option<Told> {
        let present = match question {
            Question::Address(ip) => snapshot.address(*ip).is_some(),
            Question::Name(key) => snapshot.name(key).is_some(),
            Question::Destination(service) => snapshot.destination(service).is_some(),
        };
        let (kind, name) = resource_of(question);
        if present {
            Some(Ok(Arc::clone(snapshot)))
        } else if self.subscriptions.known_absent(kind, &name) {
            Some(Err(LookupError::NotKnown))
        } else {
            None
        }
    }

    fn subscribe(&mut self, question: &Question, now: Instant) -> bool {
        let (kind, name) = resource_of(question);
        self.add(kind, name, now)
    }

    /// Subscribes; `false` if there is no room and none may be made.
    fn add(&mut self, kind: ResourceType, name: String, now: Instant) -> bool {
        if self.subscriptions.contains(kind, &name) {
            return true;
        }
        if self.subscriptions.is_full(kind) {
            if self.stream != Stream::Up {
                return false;
            }
            self.collect_use(now);
            for evicted in self.subscriptions.evict_oldest(kind) {
                self.forget(kind, &evicted);
            }
        }
        self.subscriptions.add(kind, name, now);
        true
    }

    /// Would [`Self::ask`] answer at once?
    pub(super) fn can_answer(&self, question: &Question) -> bool {
        self.known(question, &self.shared.snapshot.load_full()).is_some()
    }

    /// Is there a message for the control plane?
    pub(super) fn has_request(&self) -> bool {
        self.stream == Stream::Up && (!self.replies.is_empty() || self.subscriptions.has_request())
    }

    /// Generations accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The next message for the control plane, if there is one and the stream is up.
    pub(super) fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        if self.stream != Stream::Up {
            return None;
        }
        let mut request = match self.replies.pop_front() {
            Some(reply) => reply,
            None => self.subscriptions.next_request()?,
        };
        if !self.node_sent {
            self.node_sent = true;
            request.node = Some(Node {
                id: self.shared.config.workload.to_string(),
                cluster: self.shared.config.service.clone(),
            });
        }
        Some(request)
    }

    /// Takes a response; with the last one of its generation a new snapshot is in force.
    pub(super) fn response(
        &mut self,
        response: DeltaDiscoveryResponse,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let nonce = response.nonce.clone();
        let type_url = response.type_url.clone();
        let ends = response.generation_end;
        match self.stage(response)? {
            Err(reason) => {
                tracing::error!(%type_url, %reason, "an update is refused; the rules before stay in force");
                self.replies.push_back(nack(&type_url, nonce, &reason));
                self.shared.last_refusal.store(Some(Arc::new(reason)));
                if ends {
                    self.staged = None;
                } else if let Some(staged) = &mut self.staged {
                    staged.refused = true;
                }
            }
            Ok(kind) if ends => self.end_generation(kind, nonce, now),
            Ok(_) => self.replies.push_back(ack(&type_url, nonce)),
        }
        Ok(())
    }

    /// Decodes a response into the staged generation. The inner error is a reason to refuse it.
    fn stage(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<Result<ResourceType, String>, ProtocolError> {
        let Ok(generation) = response.system_version_info.parse::<u64>() else {
            return Ok(Err(format!("`{}` is no generation", response.system_version_info)));
        };
        let mut staged = match self.staged.take() {
            Some(Staged { generation: staged, .. }) if staged != generation => {
                return Err(ProtocolError::TornGeneration { staged, next: generation });
            }
            Some(staged) => staged,
            None => Staged::new(generation, self.set.clone()),
        };
        let result = staged.take(response, &self.subscriptions);
        self.staged = Some(staged);
        Ok(result)
    }

    /// Installs the staged generation in one snapshot.
    fn end_generation(&mut self, kind: ResourceType, nonce: String, now: Instant) {
        let Some(staged) = self.staged.take() else { return };
        if staged.refused {
            // This response was sound; the refusal of another one says that the generation is not
            // in force, and the control plane sends the sound part again.
            self.replies.push_back(ack(kind.type_url(), nonce));
            return;
        }
        self.generation = staged.generation;
        self.set = staged.set;
        let mut told: Vec<(ResourceType, String)> = Vec::new();
        for (kind, name, held) in staged.changes {
            if held.is_some() {
                told.push((kind, name.clone()));
            }
            self.subscriptions.answered(kind, name, held);
        }
        self.accepted += 1;
        self.shared.last_refusal.store(None);
        self.unacknowledged.push((kind, nonce));
        self.install();
        for (kind, name) in told {
            self.prefetch(kind, &name, now);
        }
    }

    /// Builds a snapshot of what is held, puts it in force and answers who waited for it.
    fn install(&mut self) {
        let needed = self.builder.backends(&self.set);
        self.set.endpoints.retain(|service, _| needed.contains(service));
        self.subscriptions.retain_endpoints(|name| {
            ServiceName::from_unique(name).is_some_and(|service| needed.contains(&service))
        });
        self.shared.state.resolved.want(SnapshotBuilder::names_outside(&self.set));
        self.dirty = true;
        self.rebuild();
    }

    /// The same where only what names outside lead to may be new.
    pub(super) fn rebuild(&mut self) {
        let built = self.builder.build(&self.set, self.generation);
        let snapshot = Arc::new(built.snapshot);
        self.shared.snapshot.store(Arc::clone(&snapshot));
        let told = snapshot.inbound.as_ref().and_then(|plan| plan.inbound.telemetry.as_deref());
        self.shared.metrics.tell_only(told);
        if built.held_back.is_empty() {
            for (kind, nonce) in self.unacknowledged.drain(..) {
                self.replies.push_back(ack(kind.type_url(), nonce));
            }
        }
        for (service, missing) in &built.held_back {
            let (told, missing): (Vec<_>, Vec<_>) =
                missing.iter().partition(|name| self.set.endpoints.contains_key(*name));
            match missing.is_empty() {
                true => tracing::debug!(%service, ?told, "new rules wait for names to be resolved"),
                false => {
                    tracing::warn!(%service, ?missing, "new rules wait for endpoints of their backends")
                }
            }
        }
        self.answer_waiters(&snapshot);
    }

    fn answer_waiters(&mut self, snapshot: &Arc<Snapshot>) {
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.tell(|question| self.known(question, snapshot));
        self.waiters = waiters;
    }

    /// What will be asked next is asked now: a name's addresses and destination, a virtual
    /// address's destination.
    fn prefetch(&mut self, kind: ResourceType, name: &str, now: Instant) {
        let service = match kind {
            ResourceType::Name => {
                match self.set.names.get(name).and_then(|answer| answer.service.clone()) {
                    Some(service) => {
                        for vip in service.vips {
                            self.add(ResourceType::Address, vip.to_string(), now);
                        }
                        service.name
                    }
                    None => return,
                }
            }
            ResourceType::Address => {
                match name.parse().ok().and_then(|ip| self.set.addresses.get(&ip)) {
                    Some(AddressOwner::Service(service)) => (**service).clone(),
                    _ => return,
                }
            }
            _ => return,
        };
        self.add(ResourceType::Destination, service_name(&service), now);
    }

    /// Puts saved resources in force beside what is held; what is held is newer.
    pub(super) fn merge_saved(
        &mut self,
        resources: impl IntoIterator<Item = SavedResource>,
        generation: u64,
        now: Instant,
    ) {
        for saved in resources {
            let Some(kind) = ResourceType::from_type_url(&saved.type_url) else { continue };
            if self.subscriptions.holds(kind, &saved.name) {
                continue;
            }
            let decoded = match decode(kind, &saved.name, &saved.body) {
                Ok(decoded) => decoded,
                Err(reason) => {
                    tracing::warn!(%reason, "a saved resource is not used");
                    continue;
                }
            };
            let is_explicit = kind != ResourceType::Endpoints;
            if is_explicit && !self.subscriptions.contains(kind, &saved.name) {
                if self.subscriptions.is_full(kind) {
                    continue;
                }
                self.subscriptions.add(kind, saved.name.clone(), now);
            }
            decoded.insert_into(&mut self.set);
            let stored = StoredResource { version: saved.version, body: saved.body.into() };
            self.subscriptions.answered(kind, saved.name, Some(stored));
        }
        // Endpoints of a service that did not exist were not saved, and nobody can send them now.
        for service in self.builder.backends(&self.set) {
            if !self.set.endpoints.contains_key(&service) {
                self.set.insert_endpoints(Endpoints::inside(service, Vec::new()));
            }
        }
        self.generation = self.generation.max(generation);
        self.install();
        self.dirty = false;
    }

    /// Everything held, for the saved set.
    pub(super) fn saving(&mut self, now: Instant, unix_now: u64) -> (u64, Vec<SavedResource>) {
        self.collect_use(now);
        self.dirty = false;
        (self.generation, self.subscriptions.to_save(now, unix_now))
    }

    /// Has anything changed since the last [`Self::saving`]?
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Unsubscribes what was idle for long. Not while the control plane is unreachable: then nothing
    /// could be fetched again.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.waiters.prune();
        self.collect_use(now);
        if self.stream != Stream::Up || self.staged.is_some() {
            return;
        }
        let idle = self.subscriptions.evict_idle(now);
        if idle.is_empty() {
            return;
        }
        for (kind, name) in &idle {
            self.forget(*kind, name);
        }
        tracing::debug!(count = idle.len(), "unused resources are given back");
        self.install();
    }

    fn forget(&mut self, kind: ResourceType, name: &str) {
        Decoded::remove_from(kind, name, &mut self.set);
        if let Some(staged) = &mut self.staged {
            Decoded::remove_from(kind, name, &mut staged.set);
        }
    }

    /// Takes the workers' use marks.
    fn collect_use(&mut self, now: Instant) {
        let mut services = BTreeSet::new();
        for (service, mark) in self.builder.destination_marks() {
            if mark.take() {
                self.subscriptions.touch(ResourceType::Destination, &service_name(service), now);
                services.insert(service.clone());
            }
        }
        for (ip, mark) in self.builder.address_marks() {
            // A service called over one long connection is in use, and so is its address.
            let serves = match self.set.addresses.get(ip) {
                Some(AddressOwner::Service(service)) => services.contains(&**service),
                _ => false,
            };
            if mark.take() || serves {
                self.subscriptions.touch(ResourceType::Address, &ip.to_string(), now);
            }
        }
        for (name, mark) in self.builder.name_marks() {
            if mark.take() {
                self.subscriptions.touch(ResourceType::Name, name, now);
            }
        }
    }
}

fn resource_of(question: &Question) -> (ResourceType, String) {
    match question {
        Question::Address(ip) => (ResourceType::Address, address_name(*ip)),
        Question::Destination(service) => (ResourceType::Destination, service_name(service)),
        Question::Name(key) => (ResourceType::Name, key.clone()),
    }
}
