//! What names outside the mesh lead to, for services whose endpoints have names (ServiceEntry
//! `resolution: DNS`): per proxy, shared by all rules that name one, and outliving every generation.
//!
//! Kept here, asked for elsewhere (`dns::refresh`). A good answer stays until a better one comes: an empty
//! answer, or none, takes nothing away.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::limits::{RESOLVED_ADDRESSES_MAX, RESOLVED_NAMES_MAX};

/// Names with what is known of them. Cloning is cheap: all clones are one.
#[derive(Debug, Clone, Default)]
pub struct ResolvedNames(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: Mutex<Names>,
    /// Other names are wanted than before.
    wanted: Notify,
    /// Some name leads elsewhere than before, or it is known for the first time what becomes of it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Names {
    /// Those that rules name.
    wanted: BTreeMap<Arc<str>, Use>,
    known: HashMap<Arc<str>, Known>,
}

/// What a name is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// All of its addresses.
    All,
    /// The first one, so that the order counts.
    First,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    failure: Option<Arc<str>>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// It is being asked about for the first time.
    Pending,
    /// Its addresses as of the last good answer, in its order; never empty.
    Addresses(Vec<IpAddr>),
    /// There was never a good answer; what was said last.
    Never(Arc<str>),
}

impl ResolvedNames {
    /// What is known of `host`.
    pub(crate) fn get(&self, host: &str) -> Resolved {
        let names = self.lock();
        let Some(known) = names.known.get(host) else {
            return match names.wanted.len() >= RESOLVED_NAMES_MAX
                && !names.wanted.contains_key(host)
            {
                true => Resolved::Never(too_many()),
                false => Resolved::Pending,
            };
        };
        match &known.failure {
            _ if !known.addresses.is_empty() => Resolved::Addresses(known.addresses.clone()),
            Some(said) => Resolved::Never(Arc::clone(said)),
            None => Resolved::Pending,
        }
    }

    /// From now on these are asked about, as many as may be, and others forgotten.
    pub(crate) fn want(&self, hosts: BTreeMap<Arc<str>, Use>) {
        let mut names = self.lock();
        let hosts: BTreeMap<_, _> = hosts.into_iter().take(RESOLVED_NAMES_MAX).collect();
        if hosts != names.wanted {
            names.wanted = hosts;
            let Names { wanted, known } = &mut *names;
            known.retain(|host, _| wanted.contains_key(host));
            drop(names);
            self.0.wanted.notify_one();
        }
    }

    /// Those that are to be asked about.
    pub(crate) fn wanted(&self) -> Vec<Arc<str>> {
        self.lock().wanted.keys().cloned().collect()
    }

    /// Is only the first of its addresses used, so that who is refused there may go on to the others?
    pub(crate) fn uses_first(&self, host: &str) -> bool {
        self.lock().wanted.get(host) == Some(&Use::First)
    }

    /// Waits until others are to be asked about.
    pub(crate) async fn wants_other(&self) {
        self.0.wanted.notified().await;
    }

    /// Waits until rules that name some host have to be looked at again. For one waiter.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// A good answer.
    pub(crate) fn answered(&self, host: &str, mut addresses: Vec<IpAddr>) {
        addresses.truncate(RESOLVED_ADDRESSES_MAX);
        let mut names = self.lock();
        let Some((host, used)) = names.wanted.get_key_value(host) else { return };
        let (host, used) = (Arc::clone(host), *used);
        let known = names.known.entry(host).or_default();
        let same = match used {
            Use::First => known.addresses.first() == addresses.first(),
            Use::All => same_set(&known.addresses, &addresses),
        };
        known.failure = None;
        // A resolver turns the order at each answer; where that does not matter, it changes nothing.
        if !same || known.addresses.len() != addresses.len() {
            known.addresses = addresses;
            drop(names);
            self.0.changed.notify_one();
        }
    }

    /// No good answer: whatever was known stays.
    pub(crate) fn failed(&self, host: &str, said: &str) {
        let mut names = self.lock();
        let Some((host, _)) = names.wanted.get_key_value(host) else { return };
        let host = Arc::clone(host);
        let known = names.known.entry(host).or_default();
        if known.failure.as_deref() != Some(said) {
            known.failure = Some(said.into());
            if known.addresses.is_empty() {
                drop(names);
                self.0.changed.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        // A panic while it was held can at worst have left a name without its newest answer.
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_set(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|ip| other.contains(ip))
}

fn too_many() -> Arc<str> {
    format!("this sidecar resolves {RESOLVED_NAMES_MAX} names already").into()
}
