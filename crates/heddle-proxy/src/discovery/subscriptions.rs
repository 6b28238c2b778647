//! Which resources are subscribed, which are held and with which version, and since when each is
//! idle. Knows nothing of what resources mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_wire::discovery::{ResourceType, proto::DeltaDiscoveryRequest};

use crate::saved::SavedResource;

/// Addresses subscribed, "not known" ones included.
pub const ADDRESSES_MAX: usize = 4096;
/// Host names subscribed, those that name no service included.
pub const NAMES_MAX: usize = 4096;
/// Destinations subscribed, absent ones included.
pub const DESTINATIONS_MAX: usize = 1024;
/// A resource not used for this long is given back.
pub const IDLE_MAX: Duration = Duration::from_secs(600);
/// Share of a full kind that is given back at once, so that a full one does not evict per look-up.
const EVICTED_SHARE: usize = 16;

/// The order in which kinds are subscribed: versions of endpoints are told before the destinations
/// that bring them, and what this proxy is comes before what it calls.
const ORDER: [ResourceType; 6] = [
    ResourceType::Endpoints,
    ResourceType::Inbound,
    ResourceType::Mesh,
    ResourceType::Address,
    ResourceType::Name,
    ResourceType::Destination,
];

/// A resource as it came.
#[derive(Debug, Clone)]
pub(super) struct StoredResource {
    pub(super) version: String,
    pub(super) body: Arc<[u8]>,
}

#[derive(Debug)]
struct Subscription {
    last_used: Instant,
    /// The control plane has answered, be it that there is no such resource.
    answered: bool,
}

#[derive(Debug, Default)]
struct OfKind {
    subscribed: BTreeMap<String, Subscription>,
    held: BTreeMap<String, StoredResource>,
    to_subscribe: BTreeSet<String>,
    to_unsubscribe: BTreeSet<String>,
    /// The first request of this stream is still to be sent, with the versions held.
    resumes: bool,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    kinds: BTreeMap<ResourceType, OfKind>,
}

impl Subscriptions {
    /// A new stream: all is to be subscribed again, nothing is left to unsubscribe.
    pub(super) fn resume(&mut self) {
        for of_kind in self.kinds.values_mut() {
            of_kind.to_subscribe = of_kind.subscribed.keys().cloned().collect();
            of_kind.to_unsubscribe.clear();
            of_kind.resumes = true;
        }
    }

    /// Is it subscribed, answered or not?
    pub(super) fn contains(&self, kind: ResourceType, name: &str) -> bool {
        self.kinds.get(&kind).is_some_and(|of_kind| of_kind.subscribed.contains_key(name))
    }

    /// Is a resource of this name held?
    pub(super) fn holds(&self, kind: ResourceType, name: &str) -> bool {
        self.kinds.get(&kind).is_some_and(|of_kind| of_kind.held.contains_key(name))
    }

    /// Did the control plane say that there is no such resource?
    pub(super) fn known_absent(&self, kind: ResourceType, name: &str) -> bool {
        self.kinds.get(&kind).is_some_and(|of_kind| {
            of_kind.subscribed.get(name).is_some_and(|subscription| subscription.answered)
                && !of_kind.held.contains_key(name)
        })
    }

    /// Is there no room for another?
    pub(super) fn is_full(&self, kind: ResourceType) -> bool {
        self.kinds.get(&kind).is_some_and(|of_kind| of_kind.subscribed.len() >= limit(kind))
    }

    /// Subscribes.
    pub(super) fn add(&mut self, kind: ResourceType, name: String, now: Instant) {
        let of_kind = self.kinds.entry(kind).or_default();
        of_kind.to_unsubscribe.remove(&name);
        of_kind.to_subscribe.insert(name.clone());
        of_kind.subscribed.insert(name, Subscription { last_used: now, answered: false });
    }

    /// Notes what the control plane said: a resource, or that there is none.
    pub(super) fn answered(
        &mut self,
        kind: ResourceType,
        name: String,
        held: Option<StoredResource>,
    ) {
        let of_kind = self.kinds.entry(kind).or_default();
        match of_kind.subscribed.get_mut(&name) {
            Some(subscription) => subscription.answered = true,
            None if kind == ResourceType::Endpoints => {}
            // Given back while the answer was on its way.
            None => return,
        }
        match held {
            Some(held) => of_kind.held.insert(name, held),
            None => of_kind.held.remove(&name),
        };
    }

    /// Keeps the endpoints that are needed. They have no subscription of their own.
    pub(super) fn retain_endpoints(&mut self, mut needed: impl FnMut(&str) -> bool) {
        if let Some(of_kind) = self.kinds.get_mut(&ResourceType::Endpoints) {
            of_kind.held.retain(|name, _| needed(name));
        }
    }

    /// Notes a use.
    pub(super) fn touch(&mut self, kind: ResourceType, name: &str, now: Instant) {
        let subscription = self.kinds.get_mut(&kind).and_then(|one| one.subscribed.get_mut(name));
        if let Some(subscription) = subscription {
            subscription.last_used = now;
        }
    }

    /// Unsubscribes what was not used for [`IDLE_MAX`].
    pub(super) fn evict_idle(&mut self, now: Instant) -> Vec<(ResourceType, String)> {
        let mut evicted = Vec::new();
        for kind in [ResourceType::Address, ResourceType::Name, ResourceType::Destination] {
            let Some(of_kind) = self.kinds.get_mut(&kind) else { continue };
            let idle: Vec<String> = of_kind
                .subscribed
                .iter()
                .filter(|(_, one)| now.saturating_duration_since(one.last_used) >= IDLE_MAX)
                .map(|(name, _)| name.clone())
                .collect();
            for name in idle {
                of_kind.evict(&name);
                evicted.push((kind, name));
            }
        }
        evicted
    }

    /// Unsubscribes the least recently used part of a kind.
    pub(super) fn evict_oldest(&mut self, kind: ResourceType) -> Vec<String> {
        let Some(of_kind) = self.kinds.get_mut(&kind) else { return Vec::new() };
        let mut by_age: Vec<(Instant, String)> =
            of_kind.subscribed.iter().map(|(name, one)| (one.last_used, name.clone())).collect();
        by_age.sort();
        by_age.truncate((limit(kind) / EVICTED_SHARE).max(1));
        let names: Vec<String> = by_age.into_iter().map(|(_, name)| name).collect();
        for name in &names {
            of_kind.evict(name);
        }
        names
    }

    /// Is a request due?
    pub(super) fn has_request(&self) -> bool {
        self.kinds.values().any(OfKind::is_due)
    }

    /// The next request, if one is due.
    pub(super) fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        ORDER.iter().find_map(|kind| self.kinds.get_mut(kind)?.request(*kind))
    }

    /// Everything held, with the time of its last use.
    pub(super) fn to_save(&self, now: Instant, unix_now: u64) -> Vec<SavedResource> {
        let mut saved = Vec::new();
        for (kind, of_kind) in &self.kinds {
            for (name, held) in &of_kind.held {
                let idle = of_kind.subscribed.get(name).map_or(0, |subscription| {
                    now.saturating_duration_since(subscription.last_used).as_secs()
                });
                saved.push(SavedResource {
                    type_url: kind.type_url().into(),
                    name: name.clone(),
                    version: held.version.clone(),
                    body: held.body.to_vec(),
                    last_used: unix_now.saturating_sub(idle),
                    active: true,
                });
            }
        }
        saved
    }
}

impl OfKind {
    fn evict(&mut self, name: &str) {
        self.subscribed.remove(name);
        self.held.remove(name);
        if !self.to_subscribe.remove(name) {
            self.to_unsubscribe.insert(name.to_owned());
        }
    }

    fn is_due(&self) -> bool {
        (self.resumes && !self.held.is_empty())
            || !self.to_subscribe.is_empty()
            || !self.to_unsubscribe.is_empty()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        self.held.iter().map(|(name, held)| (name.clone(), held.version.clone())).collect()
    }

    fn request(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryRequest> {
        if !self.is_due() {
            return None;
        }
        let versions = std::mem::take(&mut self.resumes).then(|| self.versions());
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: std::mem::take(&mut self.to_subscribe).into_iter().collect(),
            resource_names_unsubscribe: std::mem::take(&mut self.to_unsubscribe)
                .into_iter()
                .collect(),
            initial_resource_versions: versions.unwrap_or_default(),
            ..DeltaDiscoveryRequest::default()
        })
    }
}

/// Subscriptions of a kind.
fn limit(kind: ResourceType) -> usize {
    match kind {
        ResourceType::Address => ADDRESSES_MAX,
        ResourceType::Name => NAMES_MAX,
        ResourceType::Destination => DESTINATIONS_MAX,
        ResourceType::Endpoints | ResourceType::Inbound | ResourceType::Mesh => usize::MAX,
    }
}
