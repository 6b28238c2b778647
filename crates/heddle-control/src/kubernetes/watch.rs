//! All objects of one kind, followed for ever: read page by page, then watched from there. A watch that ends
//! goes on where it ended; where the server does not remember that any more, or after what made no sense, all
//! is read again, and what is not there any more is told as gone.

use std::{collections::BTreeSet, mem, pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use heddle_runtime::clock;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    client::{Api, ApiError, Kind, Watched},
    health::Health,
    objects::ObjectName,
};

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// A watch of which nothing is heard for so long is dead: bookmarks come every minute.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// A watch that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// What has become of an object.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// It is this now.
    Put(T),
    /// It is gone.
    Gone(ObjectName),
}

/// Follows the objects of one kind.
pub(crate) struct Follower<T, E> {
    /// Where they are.
    pub(crate) api: Api,
    /// What they are.
    pub(crate) kind: Kind,
    /// Where changes go.
    pub(crate) events: mpsc::Sender<E>,
    /// What a change is there.
    pub(crate) event: Box<dyn Fn(Change<T>) -> E>,
    /// Where troubles go.
    pub(crate) health: Arc<Health>,
}

/// Pauses that grow.
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE.0)
    }
}

impl Pauses {
    /// Waits, longer each time, and not as long as others that failed at the same moment.
    pub(crate) async fn wait(&mut self) {
        clock::sleep(self.0.mul_f64(0.5 + fastrand::f64())).await;
        self.0 = (self.0 * 2).min(PAUSE.1);
    }
}

impl<T: DeserializeOwned, E> Follower<T, E> {
    /// Follows until nobody listens, or there is no such kind any more: its objects are gone then.
    pub(crate) async fn run(self) {
        let name = self.kind.to_string();
        self.health.expect(&name);
        let mut known = BTreeSet::new();
        let mut pauses = Pauses::default();
        loop {
            match self.list(&mut known).await {
                Ok(Some(version)) => {
                    self.health.synced(&name);
                    pauses = Pauses::default();
                    if self.follow(version, &mut known).await.is_none() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(ApiError::NotFound(_)) => {
                    for gone in mem::take(&mut known) {
                        self.tell(Change::Gone(gone)).await;
                    }
                    self.health.forget(&name);
                    return;
                }
                Err(error) => {
                    self.health.trouble(&name, &error);
                    pauses.wait().await;
                }
            }
        }
    }

    /// Reads all; the version from which on to watch, or `None` if nobody listens.
    async fn list(&self, known: &mut BTreeSet<ObjectName>) -> Result<Option<String>, ApiError> {
        let (mut seen, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = self.api.list(&self.kind, &after).await?;
            for object in page.items.unwrap_or_default() {
                let name = name_of(&object);
                match self.read(object) {
                    Some(object) => {
                        seen.insert(name);
                        if !self.tell(Change::Put(object)).await {
                            return Ok(None);
                        }
                    }
                    None if known.contains(&name) => drop(seen.insert(name)),
                    None => {}
                }
            }
            after = page.metadata.r#continue;
            if after.is_empty() {
                for gone in mem::replace(known, seen).difference(known) {
                    self.tell(Change::Gone(gone.clone())).await;
                }
                return Ok(Some(page.metadata.resource_version));
            }
        }
    }

    /// Watches until all is to be read again; `None` if nobody listens.
    async fn follow(&self, mut version: String, known: &mut BTreeSet<ObjectName>) -> Option<()> {
        let mut pauses = Pauses::default();
        loop {
            let begun = clock::now();
            let error = match self.watch(&mut version, known).await {
                Ok(true) => None,
                Ok(false) => return None,
                // The list says whether the kind itself is gone.
                Err(ApiError::Gone | ApiError::NotFound(_)) => return Some(()),
                Err(error) => Some(error),
            };
            let lasted = clock::now().duration_since(begun);
            if lasted > GOOD {
                pauses = Pauses::default();
            }
            if let Some(error) = error {
                self.health.trouble(&self.kind.to_string(), &error);
                pauses.wait().await;
            } else if lasted < GOOD {
                pauses.wait().await;
            }
        }
    }

    /// One watch, from `version` on, to its end. `false`: nobody listens.
    async fn watch(
        &self,
        version: &mut String,
        known: &mut BTreeSet<ObjectName>,
    ) -> Result<bool, ApiError> {
        let events = self.api.watch(&self.kind, version).await?;
        self.health.synced(&self.kind.to_string());
        let mut events = pin!(events);
        loop {
            let next = clock::within(SILENCE_MAX, events.try_next()).await;
            let Some(event) = next.transpose()?.flatten() else { return Ok(true) };
            let (object, is) = match event {
                Watched::Bookmark(mark) => {
                    *version = mark;
                    continue;
                }
                Watched::Is(object) => (object, true),
                Watched::Was(object) => (object, false),
            };
            let name = name_of(&object);
            if let Some(newest) = object["metadata"]["resourceVersion"].as_str() {
                newest.clone_into(version);
            }
            let change = if is {
                let Some(object) = self.read(object) else { continue };
                known.insert(name);
                Change::Put(object)
            } else {
                known.remove(&name);
                Change::Gone(name)
            };
            if !self.tell(change).await {
                return Ok(false);
            }
        }
    }

    /// An object that is not of its kind's form is left as it was, and told.
    fn read(&self, object: Value) -> Option<T> {
        let (namespace, name) = name_of(&object);
        match serde_json::from_value(object) {
            Ok(object) => Some(object),
            Err(error) => {
                let kind = &self.kind.kind;
                tracing::warn!(kind, namespace, name, %error, "an object is not understood; what it was before stays in force");
                None
            }
        }
    }

    async fn tell(&self, change: Change<T>) -> bool {
        self.events.send((self.event)(change)).await.is_ok()
    }
}

fn name_of(object: &Value) -> ObjectName {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
