//! What names outside the mesh lead to, for services whose endpoints have names (ServiceEntry
//! `resolution: DNS`) and for calls that name a host themselves (`DYNAMIC_DNS`): per proxy, shared by all rules that name one, and outliving every generation.
//!
//! Kept here, asked for elsewhere (`dns::refresh`). A good answer stays until a better one comes: an empty
//! answer, or none, takes nothing away.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hashbrown::HashMap;
use heddle_runtime::clock;
use tokio::sync::Notify;

use crate::limits::{LOOKED_UP_KEPT, RESOLVED_ADDRESSES_MAX, RESOLVED_NAMES_MAX};

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
    /// Something was said of a name that a call has named.
    told: Notify,
}

#[derive(Debug, Default)]
struct Names {
    /// Those that rules name.
    wanted: BTreeMap<Arc<str>, Use>,
    /// Those that calls name, each with the moment of the last one.
    called: HashMap<Arc<str>, Instant>,
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

    /// What a host that a call names leads to; waits for the first answer. As long as calls name it, it is kept
    /// up to date. Does not end where nobody asks the resolvers.
    pub(crate) async fn look_up(&self, host: &str) -> Resolved {
        if !self.note_call(host) {
            return Resolved::Never(too_many());
        }
        loop {
            let mut told = pin!(self.0.told.notified());
            told.as_mut().enable();
            match self.get(host) {
                Resolved::Pending => told.await,
                known => return known,
            }
        }
    }

    /// `false`: there are too many.
    fn note_call(&self, host: &str) -> bool {
        let now = clock::now();
        let mut names = self.lock();
        if let Some(last) = names.called.get_mut(host) {
            *last = now;
            return true;
        }
        if names.wanted.contains_key(host) {
            return true;
        }
        names.forget_calls(now);
        if names.wanted.len() + names.called.len() >= RESOLVED_NAMES_MAX {
            return false;
        }
        names.called.insert(host.into(), now);
        drop(names);
        self.0.wanted.notify_one();
        true
    }

    /// Is it to be asked about still?
    pub(crate) fn is_wanted(&self, host: &str) -> bool {
        let mut names = self.lock();
        names.forget_calls(clock::now());
        names.used(host).is_some()
    }

    /// From now on these are asked about, as many as may be, and others forgotten.
    pub(crate) fn want(&self, hosts: BTreeMap<Arc<str>, Use>) {
        let mut names = self.lock();
        let hosts: BTreeMap<_, _> = hosts.into_iter().take(RESOLVED_NAMES_MAX).collect();
        if hosts != names.wanted {
            names.wanted = hosts;
            names.forget_unused();
            drop(names);
            self.0.wanted.notify_one();
        }
    }

    /// Those that are to be asked about.
    pub(crate) fn wanted(&self) -> Vec<Arc<str>> {
        let names = self.lock();
        let called = names.called.keys().filter(|host| !names.wanted.contains_key(*host));
        names.wanted.keys().chain(called).cloned().collect()
    }

    /// Is only the first of its addresses used, so that who is refused there may go on to the others?
    pub(crate) fn uses_first(&self, host: &str) -> bool {
        self.lock().used(host).is_some_and(|(_, used)| used == Use::First)
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
        let Some((host, used)) = names.used(host) else { return };
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
            self.0.told.notify_waiters();
        }
    }

    /// No good answer: whatever was known stays.
    pub(crate) fn failed(&self, host: &str, said: &str) {
        let mut names = self.lock();
        let Some((host, _)) = names.used(host) else { return };
        let known = names.known.entry(host).or_default();
        if known.failure.as_deref() != Some(said) {
            known.failure = Some(said.into());
            if known.addresses.is_empty() {
                drop(names);
                self.0.changed.notify_one();
                self.0.told.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        // A panic while it was held can at worst have left a name without its newest answer.
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// What a name is asked about for, by rules or, its first address, by calls.
    fn used(&self, host: &str) -> Option<(Arc<str>, Use)> {
        let by_rules =
            self.wanted.get_key_value(host).map(|(host, used)| (Arc::clone(host), *used));
        let called = || self.called.get_key_value(host);
        by_rules.or_else(|| called().map(|(host, _)| (Arc::clone(host), Use::First)))
    }

    /// Those that no call has named for long are asked about no more.
    fn forget_calls(&mut self, now: Instant) {
        let before = self.called.len();
        self.called.retain(|_, last| now.saturating_duration_since(*last) < LOOKED_UP_KEPT);
        if self.called.len() < before {
            self.forget_unused();
        }
    }

    fn forget_unused(&mut self) {
        let Self { wanted, called, known } = self;
        known.retain(|host, _| wanted.contains_key(host) || called.contains_key(host));
    }
}

fn same_set(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|ip| other.contains(ip))
}

fn too_many() -> Arc<str> {
    format!("this sidecar resolves {RESOLVED_NAMES_MAX} names already").into()
}
