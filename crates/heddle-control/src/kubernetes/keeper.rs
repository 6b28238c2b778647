//! What the control plane keeps in the cluster for others: the mesh's roots in a ConfigMap of every namespace, and
//! in the webhooks' configurations, so that the API server believes us. Only the leader writes, and again now and
//! then, because others may have changed it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_runtime::clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    client::{Api, ApiError, Kind, Patch},
    health::Health,
};
use crate::{
    control::Control,
    revision::{INJECTOR, ROOTS, VALIDATOR, labels, named},
};

/// The key of the ConfigMap with the roots: sidecars mount it.
const ROOTS_KEY: &str = "root-cert.pem";
/// Webhook configurations whose `caBundle` is ours.
const WEBHOOKS: [(&str, &str, &str); 2] = [
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", INJECTOR),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", VALIDATOR),
];
/// Namespaces of the cluster itself: no pod of them is in a mesh.
const EXCLUDED: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// How often namespaces are looked through for new ones.
const INTERVAL: Duration = Duration::from_secs(1);
/// After this time everything is written again.
const AGAIN: Duration = Duration::from_secs(600);
/// How often webhooks are looked at: an upgrade writes them anew.
const WEBHOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps.
pub(crate) struct Keeper {
    /// Where.
    pub(crate) api: Api,
    /// Whose.
    pub(crate) revision: String,
    /// Who knows the namespaces.
    pub(crate) control: Arc<Control>,
    /// How it goes.
    pub(crate) health: Arc<Health>,
    /// Is it ours to write?
    pub(crate) leads: watch::Receiver<bool>,
    /// The roots now, PEM.
    pub(crate) roots: Arc<dyn Fn() -> String>,
}

impl Keeper {
    /// Keeps for ever.
    pub(crate) async fn run(self) {
        let mut done: BTreeMap<String, (String, Instant)> = BTreeMap::new();
        let mut looked: Option<Instant> = None;
        loop {
            if *self.leads.borrow() {
                let roots = (self.roots)();
                self.spread(&roots, &mut done).await;
                if looked.is_none_or(|at| clock::now().duration_since(at) > WEBHOOK_INTERVAL) {
                    looked = Some(clock::now());
                    self.vouch(&roots).await;
                }
            } else {
                done.clear();
            }
            clock::sleep(INTERVAL).await;
        }
    }

    async fn spread(&self, roots: &str, done: &mut BTreeMap<String, (String, Instant)>) {
        let names: Vec<String> = self
            .control
            .with_cluster(|cluster| cluster.namespaces().keys().cloned().collect())
            .unwrap_or_default();
        done.retain(|name, _| names.contains(name));
        for name in names.into_iter().filter(|name| !EXCLUDED.contains(&name.as_str())) {
            let known = done.get(&name);
            if known.is_some_and(|(written, at)| {
                written == roots && clock::now().duration_since(*at) < AGAIN
            }) {
                continue;
            }
            match self.put_roots(&name, roots).await {
                Ok(()) => {
                    self.health.synced("configmaps");
                    done.insert(name, (roots.to_owned(), clock::now()));
                }
                // Gone, or on its way out: its watcher says so.
                Err(ApiError::NotFound(_) | ApiError::Conflict) => {}
                Err(error) => {
                    self.health.trouble("configmaps", &error);
                    return;
                }
            }
        }
    }

    async fn put_roots(&self, namespace: &str, roots: &str) -> Result<(), ApiError> {
        let name = named(ROOTS, &self.revision);
        let kind = Kind::new("", "v1", "ConfigMap", "configmaps");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": labels(&self.revision),
            },
            "data": {ROOTS_KEY: roots},
        });
        let path = kind.path(namespace, &name);
        match self.api.patch("configmaps", &path, (Patch::Apply, &object)).await {
            // A namespace that ends takes nothing new.
            Err(ApiError::Forbidden { .. }) if self.ends(namespace).await => Ok(()),
            other => other.map(drop),
        }
    }

    async fn ends(&self, namespace: &str) -> bool {
        let kind = Kind::new("", "v1", "Namespace", "namespaces");
        let found = self.api.get("namespaces", &kind.path("", namespace)).await;
        found.is_ok_and(|one| !one["metadata"]["deletionTimestamp"].is_null())
    }

    async fn vouch(&self, roots: &str) {
        let bundle = serde_json::to_value(k8s_openapi::ByteString(roots.as_bytes().to_vec()));
        let Ok(bundle) = bundle else { return };
        for (kind, plural, name) in WEBHOOKS {
            let kind = Kind::new("admissionregistration.k8s.io", "v1", kind, plural);
            match self.vouch_in(&kind, &named(name, &self.revision), &bundle).await {
                Ok(()) => self.health.synced(plural),
                Err(ApiError::NotFound(_)) => self.health.forget(plural),
                Err(ApiError::Conflict) => {}
                Err(error) => self.health.trouble(plural, &error),
            }
        }
    }

    async fn vouch_in(&self, kind: &Kind, name: &str, bundle: &Value) -> Result<(), ApiError> {
        let path = kind.path("", name);
        let found = self.api.get(&kind.plural, &path).await?;
        let changes = bundle_changes(&found, bundle);
        if changes.is_empty() {
            return Ok(());
        }
        tracing::info!(webhooks = name, "the webhooks' bundle of roots is written");
        let change = Value::Array(changes);
        self.api.patch(&kind.plural, &path, (Patch::Json, &change)).await.map(drop)
    }
}

/// What is to change so that every webhook of a configuration has the bundle. Each is tested by its name first:
/// they may have been written anew meanwhile, in another order.
fn bundle_changes(configuration: &Value, bundle: &Value) -> Vec<Value> {
    let webhooks = configuration["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
    let mut changes = Vec::new();
    for (i, webhook) in webhooks.iter().enumerate() {
        if webhook["clientConfig"]["caBundle"] != *bundle {
            let at = format!("/webhooks/{i}");
            changes.push(
                json!({"op": "test", "path": format!("{at}/name"), "value": webhook["name"]}),
            );
            changes.push(json!({"op": "add", "path": format!("{at}/clientConfig/caBundle"), "value": bundle}));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_without_the_bundle_are_changed() {
        let bundle = json!("Zm9v");
        let webhook =
            |name: &str, bundle: Value| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        let all = json!({"webhooks": [webhook("a", bundle.clone()), webhook("b", json!("")), {"name": "c", "clientConfig": {}}]});
        let changes = bundle_changes(&all, &bundle);
        let paths: Vec<_> = changes.iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/webhooks/1/name",
                "/webhooks/1/clientConfig/caBundle",
                "/webhooks/2/name",
                "/webhooks/2/clientConfig/caBundle",
            ]
        );
        assert!(bundle_changes(&Value::Null, &bundle).is_empty());
    }
}
