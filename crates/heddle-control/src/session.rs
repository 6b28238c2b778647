//! One proxy's discovery stream as a state machine: what it asked for, what it holds, what is on its
//! way. No socket and no clock: requests come in as values, responses go out as values.
//!
//! Nothing is queued per change. A session remembers what the proxy holds; what is to be sent is
//! always the difference to the newest state, so a slow proxy skips what it missed. All that one
//! call of [`Session::send`] returns is one group: the proxy puts it in force as a whole when its
//! last response has come, and that response's acknowledgement counts for all of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use heddle_model::WorkloadId;
use heddle_wire::discovery::{ResourceType as Kind, address_name, service_name};

use crate::{
    limits::{
        GROUPS_IN_FLIGHT_MAX, NACK_BYTES_MAX, RESOURCE_NAME_BYTES_MAX, RESOURCES_PER_RESPONSE_MAX,
        RESPONSE_BYTES_MAX, SUBSCRIPTIONS_MAX,
    },
    registry::Touched,
};

/// A resource ready to be sent. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Hash of the content.
    pub(crate) version: u128,
    /// The noun's wire form.
    pub(crate) bytes: Arc<[u8]>,
}

/// The newest state as this session's client sees it.
pub(crate) trait Current {
    /// A resource; `None` if there is no such thing.
    fn resource(&mut self, kind: Kind, name: &str) -> Option<Encoded>;
    /// Names of the endpoints a destination's rules need; empty if there is no such destination.
    fn backends(&mut self, destination: &str) -> Arc<[String]>;
}

/// What a proxy says in one message.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Names it wants from now on.
    pub(crate) subscribe: Vec<String>,
    /// Names it no longer wants.
    pub(crate) unsubscribe: Vec<String>,
    /// What it holds since before this stream, by name.
    pub(crate) held: Vec<(String, u128)>,
    /// The response this answers, if it answers one.
    pub(crate) nonce: Option<u64>,
    /// Why that response was not accepted.
    pub(crate) error: Option<String>,
}

/// One response of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Type of its resources.
    pub(crate) kind: Kind,
    /// Identifies it in acknowledgements.
    pub(crate) nonce: u64,
    /// Generation of the group.
    pub(crate) generation: u64,
    /// Is it the group's last?
    pub(crate) generation_end: bool,
    /// New and changed resources by name.
    pub(crate) resources: Vec<(String, Encoded)>,
    /// Names of what does not exist (any more).
    pub(crate) removed: Vec<String>,
}

/// The version of a resource that a proxy holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResourceVersion {
    Version(u128),
    Absent,
}

#[derive(Debug, Default)]
struct Names {
    subscribed: BTreeSet<String>,
    held: BTreeMap<String, ResourceVersion>,
}

/// What was sent under one nonce.
#[derive(Debug)]
struct Sent {
    nonce: u64,
    entries: Vec<Entry>,
}

/// One name that was sent: what it was before and what it became.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    name: String,
    before: Option<ResourceVersion>,
    held: ResourceVersion,
    /// Endpoints that the version before needs, where it is a destination.
    backends: Arc<[String]>,
}

#[derive(Debug)]
struct Group {
    generation: u64,
    sent: Vec<Sent>,
    refused: bool,
}

/// Whom a change of the state may concern.
#[derive(Debug)]
pub(crate) struct Concern<'a> {
    touched: &'a Touched,
    endpoints: HashSet<String>,
    addresses: Vec<String>,
}

impl<'a> Concern<'a> {
    /// Of what was touched.
    pub(crate) fn of(touched: &'a Touched) -> Self {
        Self {
            touched,
            endpoints: touched.endpoints.iter().map(service_name).collect(),
            addresses: touched.addresses.iter().map(|ip| address_name(*ip)).collect(),
        }
    }

    /// May the session of this workload have to hear of it?
    pub(crate) fn is_of(&self, workload: &WorkloadId, session: &Session) -> bool {
        self.touched.topology
            || !session.refused.is_empty()
            || self.touched.workloads.contains(workload)
            || session.endpoints_wanted().any(|name| self.endpoints.contains(name))
            || self.addresses.iter().any(|name| session.is_subscribed(Kind::Address, name))
    }
}

type Difference = (Kind, String, Option<Encoded>);

/// State of one stream.
#[derive(Debug, Default)]
pub(crate) struct Session {
    names: BTreeMap<Kind, Names>,
    /// Endpoints that come with a destination, unasked, as of the last group sent and not refused.
    implied: BTreeMap<String, Arc<[String]>>,
    /// Destinations just asked for: their endpoints come with them, whatever was sent before,
    /// because the proxy may have let go of them in between.
    fresh: BTreeSet<String>,
    groups: VecDeque<Group>,
    /// Versions the proxy refused; not sent again until something else changes for it.
    refused: BTreeMap<(Kind, String), ResourceVersion>,
    nack: Option<String>,
    nonces: u64,
    acknowledged: u64,
    dirty: bool,
    introduced: bool,
    truncated: bool,
}

impl Session {
    /// Takes in a message about `kind`. Returns whether an acknowledgement or refusal was in it.
    pub(crate) fn hear(&mut self, kind: Kind, heard: Heard) -> bool {
        let answered = heard.nonce.is_some_and(|nonce| self.answered(nonce, heard.error));
        let room = SUBSCRIPTIONS_MAX.saturating_sub(self.subscriptions());
        let mut released = Vec::new();
        let names = self.names.entry(kind).or_default();
        for (name, version) in heard.held.into_iter().take(SUBSCRIPTIONS_MAX) {
            // What was sent in this stream is newer than what it says it had before.
            names.held.entry(name).or_insert(ResourceVersion::Version(version));
        }
        for name in heard.unsubscribe {
            names.subscribed.remove(&name);
            names.held.remove(&name);
            if kind == Kind::Destination {
                released.extend(self.implied.remove(&name));
            }
            self.refused.remove(&(kind, name));
            self.dirty = true;
        }
        let asked = heard.subscribe.len();
        let fitting = heard.subscribe.into_iter().filter(|n| n.len() <= RESOURCE_NAME_BYTES_MAX);
        let mut taken = 0;
        for name in fitting.take(room) {
            taken += 1;
            if kind == Kind::Destination && !names.held.contains_key(&name) {
                self.fresh.insert(name.clone());
            }
            if !names.subscribed.insert(name.clone()) {
                // Asked again: it has lost it.
                names.held.remove(&name);
                if kind == Kind::Destination {
                    self.fresh.insert(name.clone());
                }
                self.refused.remove(&(kind, name));
            }
            self.dirty = true;
        }
        self.truncated |= taken < asked;
        self.introduced |= kind == Kind::Inbound && !names.subscribed.is_empty();
        self.release_endpoints(&released);
        answered
    }

    /// Notes that the state has changed. Returns whether this proxy has to hear of it; what it
    /// refused before is then tried again, since it may fit together now.
    pub(crate) fn notice(&mut self, current: &mut dyn Current) -> bool {
        let overtaken = self
            .refused
            .iter()
            .any(|((kind, name), held)| version(current.resource(*kind, name).as_ref()) != *held);
        if overtaken {
            self.refused.clear();
            self.nack = None;
        }
        if self.difference(current).is_empty() {
            return false;
        }
        self.refused.clear();
        self.dirty = true;
        true
    }

    /// Is there possibly something to send, and room for it?
    pub(crate) fn wants_to_send(&self) -> bool {
        self.dirty && self.groups.len() < GROUPS_IN_FLIGHT_MAX
    }

    /// The difference to the newest state as one group of responses; empty if there is none.
    pub(crate) fn send(&mut self, generation: u64, current: &mut dyn Current) -> Vec<Response> {
        if !self.wants_to_send() {
            return Vec::new();
        }
        self.dirty = false;
        let difference = self.difference(current);
        let before = self.known_backends();
        self.implied = self.implied_now(current);
        self.fresh.clear();
        let mut responses = self.responses(generation, difference);
        if let Some(last) = responses.last_mut() {
            last.generation_end = true;
            let sent = responses.iter().map(|response| self.record(response, &before)).collect();
            self.groups.push_back(Group { generation, sent, refused: false });
        }
        self.let_go();
        responses
    }

    /// The generation whose rules this proxy runs: the newest if it holds all of it, else the last
    /// one it acknowledged.
    pub(crate) fn running(&self, newest: u64) -> u64 {
        let settled = self.introduced && !self.dirty && self.groups.is_empty();
        if settled && self.refused.is_empty() { newest } else { self.acknowledged }
    }

    /// Has it refused what is newest for it, so that waiting is in vain?
    pub(crate) fn is_refusing(&self) -> bool {
        !self.refused.is_empty() && !self.dirty && self.groups.is_empty()
    }

    /// Its last refusal, if it has accepted nothing since.
    pub(crate) fn nack(&self) -> Option<&str> {
        self.nack.as_deref()
    }

    /// Names it is subscribed to.
    pub(crate) fn subscribed(&self, kind: Kind) -> impl Iterator<Item = &String> {
        self.names.get(&kind).into_iter().flat_map(|names| &names.subscribed)
    }

    /// Names of the endpoints it is to be told of, asked for or not; some twice.
    pub(crate) fn endpoints_wanted(&self) -> impl Iterator<Item = &str> {
        let unasked = self.implied.values().flat_map(|names| names.iter());
        self.subscribed(Kind::Endpoints).chain(unasked).map(String::as_str)
    }

    fn is_subscribed(&self, kind: Kind, name: &str) -> bool {
        self.names.get(&kind).is_some_and(|names| names.subscribed.contains(name))
    }

    /// Did it ask for more than a session may hold, or for names too long? Told once.
    pub(crate) fn take_truncated(&mut self) -> bool {
        std::mem::take(&mut self.truncated)
    }

    fn subscriptions(&self) -> usize {
        self.names.values().map(|names| names.subscribed.len()).sum()
    }

    /// Endpoints by the destination that needs them. A destination that was refused still needs
    /// those of its version before, and not those that only the refused one names.
    fn implied_now(&self, current: &mut dyn Current) -> BTreeMap<String, Arc<[String]>> {
        let mut implied = BTreeMap::new();
        for destination in self.subscribed(Kind::Destination) {
            let should = version(current.resource(Kind::Destination, destination).as_ref());
            let backends = match self.is_refused(Kind::Destination, destination, should) {
                true => self.implied.get(destination).cloned().unwrap_or_default(),
                false => current.backends(destination),
            };
            implied.insert(destination.clone(), backends);
        }
        implied
    }

    /// Backends of the destinations the proxy holds. Of those it held before this stream they are
    /// not known by name: all endpoints it claims may be theirs.
    fn known_backends(&self) -> BTreeMap<String, Arc<[String]>> {
        let mut known = self.implied.clone();
        let Some(destinations) = self.names.get(&Kind::Destination) else { return known };
        let endpoints = self.names.get(&Kind::Endpoints).into_iter().flat_map(|n| n.held.keys());
        let mut claimed: Option<Arc<[String]>> = None;
        for (name, held) in &destinations.held {
            if matches!(held, ResourceVersion::Version(_)) && !known.contains_key(name) {
                let all = claimed.get_or_insert_with(|| endpoints.clone().cloned().collect());
                known.insert(name.clone(), all.clone());
            }
        }
        known
    }

    /// Forgets endpoints that nothing needs any more: the proxy drops them by itself, so a rule
    /// that names them again must bring them. What a resumed proxy claims is kept until it has
    /// said which destinations it is for.
    fn let_go(&mut self) {
        if self.subscribed(Kind::Destination).next().is_none() {
            return;
        }
        let implied = all(self.implied.values());
        let Some(names) = self.names.get_mut(&Kind::Endpoints) else { return };
        let Names { subscribed, held } = names;
        held.retain(|name, _| subscribed.contains(name) || implied.contains(name));
    }

    fn is_refused(&self, kind: Kind, name: &str, held: ResourceVersion) -> bool {
        !self.refused.is_empty() && self.refused.get(&(kind, name.to_owned())) == Some(&held)
    }

    /// Endpoints that come along whatever was sent before: those of a destination just asked for,
    /// and those that a destination about to be sent names and its version before did not.
    fn named_anew<'a>(
        &self,
        implied: &'a BTreeMap<String, Arc<[String]>>,
        current: &mut dyn Current,
    ) -> BTreeSet<&'a String> {
        let held = self.names.get(&Kind::Destination).map(|names| &names.held);
        let mut anew = BTreeSet::new();
        for (destination, backends) in implied {
            if self.fresh.contains(destination) {
                anew.extend(backends.iter());
                continue;
            }
            let should = version(current.resource(Kind::Destination, destination).as_ref());
            let same = held.and_then(|held| held.get(destination)) == Some(&should);
            if same || self.is_refused(Kind::Destination, destination, should) {
                continue;
            }
            let before = self.implied.get(destination).map_or(&[][..], |before| before);
            anew.extend(backends.iter().filter(|name| !before.contains(name)));
        }
        anew
    }

    /// A proxy lets go of endpoints itself when it gives their destination back. Those that another
    /// destination needs are sent again: whether it still had them is not known here.
    fn release_endpoints(&mut self, released: &[Arc<[String]>]) {
        let Some(names) = self.names.get_mut(&Kind::Endpoints) else { return };
        for name in released.iter().flat_map(|backends| backends.iter()) {
            if !names.subscribed.contains(name) {
                names.held.remove(name);
            }
        }
    }

    /// Everything the proxy should hold and does not, in sending order.
    fn difference(&self, current: &mut dyn Current) -> Vec<Difference> {
        let implied = self.implied_now(current);
        let anew = self.named_anew(&implied, current);
        let (implied, before) = (all(implied.values()), all(self.implied.values()));
        let none = Names::default();
        let mut difference = Vec::new();
        for kind in Kind::ALL {
            let names = self.names.get(&kind).unwrap_or(&none);
            let mut compare = |name: &String| {
                let resource = current.resource(kind, name);
                let should = version(resource.as_ref());
                let refused = self.is_refused(kind, name, should);
                let anew = kind == Kind::Endpoints && anew.contains(name);
                if (anew || names.held.get(name) != Some(&should)) && !refused {
                    difference.push((kind, name.clone(), resource));
                }
            };
            names.subscribed.iter().for_each(&mut compare);
            if kind != Kind::Endpoints {
                continue;
            }
            let unasked = |name: &&String| !names.subscribed.contains(*name);
            implied.iter().copied().filter(unasked).for_each(&mut compare);
            // No rule names them any more: the proxy may let go of them with the rule.
            for name in before.difference(&implied).copied().filter(unasked) {
                if matches!(names.held.get(name), Some(ResourceVersion::Version(_))) {
                    difference.push((kind, name.clone(), None));
                }
            }
        }
        difference
    }

    fn responses(&mut self, generation: u64, difference: Vec<Difference>) -> Vec<Response> {
        let mut responses: Vec<Response> = Vec::new();
        let mut bytes = 0;
        for (kind, name, resource) in difference {
            let full = |last: &Response| {
                last.kind != kind
                    || last.resources.len() + last.removed.len() >= RESOURCES_PER_RESPONSE_MAX
                    || bytes >= RESPONSE_BYTES_MAX
            };
            if responses.last().is_none_or(full) {
                self.nonces += 1;
                bytes = 0;
                responses.push(Response {
                    kind,
                    nonce: self.nonces,
                    generation,
                    generation_end: false,
                    resources: Vec::new(),
                    removed: Vec::new(),
                });
            }
            let Some(last) = responses.last_mut() else { continue };
            match resource {
                Some(resource) => {
                    bytes += resource.bytes.len();
                    last.resources.push((name, resource));
                }
                None => last.removed.push(name),
            }
        }
        responses
    }

    /// Notes what the proxy will hold once it accepts `response`.
    fn record(
        &mut self,
        response: &Response,
        known_backends: &BTreeMap<String, Arc<[String]>>,
    ) -> Sent {
        let kind = response.kind;
        let implied = all(self.implied.values());
        let names = self.names.entry(kind).or_default();
        let mut entries = Vec::with_capacity(response.resources.len() + response.removed.len());
        let changed =
            response.resources.iter().map(|(name, r)| (name, ResourceVersion::Version(r.version)));
        let removed = response.removed.iter().map(|name| (name, ResourceVersion::Absent));
        for (name, held) in changed.chain(removed) {
            let wanted = names.subscribed.contains(name) || implied.contains(name);
            let before = if wanted {
                names.held.insert(name.clone(), held)
            } else {
                names.held.remove(name)
            };
            let backends = match kind {
                Kind::Destination => known_backends.get(name).cloned().unwrap_or_default(),
                _ => Arc::default(),
            };
            entries.push(Entry { kind, name: name.clone(), before, held, backends });
        }
        Sent { nonce: response.nonce, entries }
    }

    fn answered(&mut self, nonce: u64, error: Option<String>) -> bool {
        let position =
            self.groups.iter().position(|group| group.sent.iter().any(|sent| sent.nonce == nonce));
        let Some(position) = position else { return false };
        let group = &mut self.groups[position];
        if let Some(mut text) = error {
            let cut =
                (0..=NACK_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(cut.unwrap_or(0));
            self.nack = Some(text);
            group.refused = true;
            let refused = group.sent.iter_mut().filter(|sent| sent.nonce == nonce);
            let refused: Vec<Entry> =
                refused.flat_map(|sent| std::mem::take(&mut sent.entries)).collect();
            refused.into_iter().for_each(|entry| self.take_back(position, entry));
        }
        let is_last = self.groups[position].sent.last().is_some_and(|sent| sent.nonce == nonce);
        if is_last {
            self.settle(position);
        }
        true
    }

    /// A refused version was never held. If a newer one has been sent since, that one decides what
    /// the proxy runs: the refusal of this one is no news then.
    fn take_back(&mut self, position: usize, refused: Entry) {
        let Entry { kind, name, before, held, backends } = refused;
        let names = self.names.entry(kind).or_default();
        if names.held.get(&name) == Some(&held) {
            match before {
                Some(before) => drop(names.held.insert(name.clone(), before)),
                None => drop(names.held.remove(&name)),
            }
            if kind == Kind::Destination {
                self.implied.insert(name.clone(), backends);
            }
            self.refused.insert((kind, name), held);
            return;
        }
        let later = self.groups.iter_mut().skip(position + 1).flat_map(|group| &mut group.sent);
        let mut later = later.flat_map(|sent| &mut sent.entries);
        let newer = later.find(|one| one.kind == kind && one.name == name);
        if let Some(newer) = newer.filter(|newer| newer.before == Some(held)) {
            (newer.before, newer.backends) = (before, backends);
        }
    }

    /// The group at `position` and those before it are decided.
    fn settle(&mut self, position: usize) {
        for group in self.groups.drain(..=position) {
            let entries = group.sent.into_iter().flat_map(|sent| sent.entries);
            if !group.refused {
                for entry in entries {
                    self.refused.remove(&(entry.kind, entry.name));
                }
                if self.refused.is_empty() {
                    self.acknowledged = self.acknowledged.max(group.generation);
                    self.nack = None;
                }
                continue;
            }
            // Whether the rest of a refused group is in force cannot be known: send it again.
            for Entry { kind, name, held, .. } in entries {
                let names = self.names.entry(kind).or_default();
                let is_newest = names.held.get(&name) == Some(&held);
                if is_newest {
                    names.held.remove(&name);
                }
                // Endpoints taken away with the refused version may be needed by the one before.
                self.dirty |= is_newest || kind == Kind::Endpoints;
            }
        }
    }
}

/// What a proxy that holds this resource holds.
fn version(resource: Option<&Encoded>) -> ResourceVersion {
    resource.map_or(ResourceVersion::Absent, |resource| ResourceVersion::Version(resource.version))
}

/// All names of several lists.
fn all<'a>(lists: impl Iterator<Item = &'a Arc<[String]>>) -> BTreeSet<&'a String> {
    lists.flat_map(|names| names.iter()).collect()
}

#[cfg(test)]
mod tests;
