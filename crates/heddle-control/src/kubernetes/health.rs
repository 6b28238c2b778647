//! How well the cluster is known: which kinds have been read, and what is wrong with the others. Ready is
//! a control plane that has read everything once; what it loses sight of later, it goes on serving from memory.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::client::ApiError;

/// What is known of each kind, by its name.
#[derive(Debug)]
pub(crate) struct Health {
    kinds: Mutex<BTreeMap<String, State>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    trouble: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self { kinds: Mutex::default(), changed: watch::channel(()).0 }
    }
}

impl Health {
    /// Something is to be read.
    pub(crate) fn expect(&self, what: &str) {
        self.kinds().entry(what.to_owned()).or_default();
        self.changed.send_replace(());
    }

    /// It is there no more.
    pub(crate) fn forget(&self, what: &str) {
        self.kinds().remove(what);
        self.changed.send_replace(());
    }

    /// All of it has been read.
    pub(crate) fn synced(&self, what: &str) {
        let mut kinds = self.kinds();
        let state = kinds.entry(what.to_owned()).or_default();
        if state.trouble.take().is_some() {
            tracing::info!(what, "the API server answers again");
        }
        state.synced = true;
        drop(kinds);
        self.changed.send_replace(());
    }

    /// It cannot be read, or written. Logged once per reason.
    pub(crate) fn trouble(&self, what: &str, error: &ApiError) {
        let reason = error.to_string();
        let mut kinds = self.kinds();
        // What is only written holds up nobody who asks.
        let written = State { synced: true, trouble: None };
        let state = kinds.entry(what.to_owned()).or_insert(written);
        if state.trouble.as_ref() != Some(&reason) {
            tracing::warn!(what, reason, "trouble with the API server; tried again");
            state.trouble = Some(reason);
        }
        drop(kinds);
        self.changed.send_replace(());
    }

    /// What is not read yet, with the reason where there is one; nothing if ready.
    pub(crate) fn missing(&self) -> Vec<String> {
        let kinds = self.kinds();
        let missing = kinds.iter().filter(|(_, state)| !state.synced);
        let told = missing.map(|(what, state)| match &state.trouble {
            Some(reason) => format!("{what}: {reason}"),
            None => format!("{what}: being read"),
        });
        told.collect()
    }

    /// Everything that is wrong now.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let kinds = self.kinds();
        let told = kinds.iter().filter_map(|(what, state)| {
            state.trouble.as_ref().map(|reason| format!("{what}: {reason}"))
        });
        told.collect()
    }

    /// Ticks with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_has_read_everything_once() {
        let health = Health::default();
        health.expect("pods");
        health.expect("services");
        health.synced("services");
        let forbidden = ApiError::Forbidden { verb: "list", what: "pods".to_owned() };
        health.trouble("pods", &forbidden);
        assert_eq!(health.missing().len(), 1);
        assert!(health.missing()[0].contains("may not list pods"));
        health.synced("pods");
        assert!(health.missing().is_empty() && health.troubles().is_empty());
        health.trouble("pods", &ApiError::Gone);
        assert!(health.missing().is_empty(), "it goes on from memory");
        assert_eq!(health.troubles().len(), 1);
        health.trouble("configmaps", &ApiError::Gone);
        assert!(health.missing().is_empty(), "it is written, and not read");
    }
}
