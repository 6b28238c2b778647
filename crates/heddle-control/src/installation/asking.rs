//! Questions to a cluster that change nothing: its version, lists, reviews, and whether a pod would be injected.

use k8s_openapi::ByteString;
use kube::{
    Api,
    api::{DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{Cluster, InstallationError, Mode, Place, failed, resource};
use crate::{
    ca, injection,
    revision::{DEFAULT, INJECTOR, ROOTS, VALIDATOR, named},
};

/// The sandbox's own image; a dry run pulls none.
const ANY_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// What one may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'r> {
    /// As RBAC has it.
    pub verb: &'r str,
    /// API group; empty for Kubernetes' first.
    pub group: &'r str,
    /// Plural.
    pub resource: &'r str,
    /// `None`: of the cluster.
    pub namespace: Option<&'r str>,
}

impl Cluster {
    /// The API server's version: its text, and major and minor number.
    ///
    /// # Errors
    /// It cannot be reached, or says what is no version.
    pub async fn version(&self) -> Result<(String, (u32, u32)), InstallationError> {
        let info = self.client.apiserver_version().await;
        let info = info.map_err(|e| failed(&format!("reach the API server {}", self.url), &e))?;
        // Some providers write `29+`.
        let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
        match (number(&info.major), number(&info.minor)) {
            (Some(major), Some(minor)) => Ok((info.git_version, (major, minor))),
            _ => Err(InstallationError(format!(
                "the API server's version is `{}.{}`, which is none",
                info.major, info.minor
            ))),
        }
    }

    /// All objects of one of Kubernetes' own kinds, in all namespaces.
    ///
    /// # Errors
    /// What the cluster refused.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<Vec<Value>, InstallationError> {
        let kind = resource(api_version, kind);
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let found = all.list(&ListParams::default()).await;
        let found = found.map_err(|e| failed(&format!("list {}", kind.plural), &e))?;
        let values = found.items.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        values.map_err(|e| failed(&format!("read {}", kind.plural), &e))
    }

    /// May the person who asks do this?
    ///
    /// # Errors
    /// The cluster does not say.
    pub async fn may(&self, right: Right<'_>) -> Result<bool, InstallationError> {
        let Right { verb, group, resource, namespace } = right;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": {
                "verb": verb, "group": group, "resource": resource,
                "namespace": namespace.unwrap_or_default(),
            }},
        });
        let answer = self.create(&review, Mode::Change).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// Would a pod made now that calls a revision by this name, its own or a tag, get a sidecar of it? `None`: it would.
    /// The API server asks the webhook as for any pod, and makes none.
    ///
    /// # Errors
    /// What the API server said, e.g. that it cannot reach the webhook.
    pub async fn injects(
        &self,
        revision: &str,
        called: &str,
    ) -> Result<Option<String>, InstallationError> {
        let (label, value) = match called {
            DEFAULT => ("heddle.dev/inject", "true"),
            called => ("heddle.dev/rev", called),
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "heddle-check-", "namespace": "default", "labels": {label: value}},
            "spec": {"containers": [{"name": "check", "image": ANY_IMAGE}]},
        });
        let made = self.create(&pod, Mode::DryRun).await?;
        let added = injection::added(&made);
        Ok(match added {
            Some(added) if added.revision == revision => None,
            Some(added) => Some(format!("the sidecar would be of the revision {}", added.revision)),
            None => Some("the pod would have no sidecar".to_owned()),
        })
    }

    /// The roots that an installation's sidecars believe, as they are in its namespace; `None`: there are none yet.
    ///
    /// # Errors
    /// The cluster did not say.
    pub async fn roots(
        &self,
        namespace: &str,
        revision: &str,
    ) -> Result<Option<String>, InstallationError> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": named(ROOTS, revision), "namespace": namespace},
        });
        let found = self.get(&map).await?;
        let text = found.as_ref().and_then(|map| map["data"]["root-cert.pem"].as_str());
        Ok(text.map(str::to_owned))
    }

    /// Whom each webhook of an installation believes, by the webhook's name.
    ///
    /// # Errors
    /// The cluster did not say, or there are no webhooks.
    pub async fn webhook_bundles(
        &self,
        revision: &str,
    ) -> Result<Vec<(String, String)>, InstallationError> {
        let mut all = Vec::new();
        for (kind, name) in [
            ("MutatingWebhookConfiguration", INJECTOR),
            ("ValidatingWebhookConfiguration", VALIDATOR),
        ] {
            let name = named(name, revision);
            let configuration = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": name},
            });
            let found = self.get(&configuration).await?;
            let found =
                found.ok_or_else(|| InstallationError(format!("there is no {kind} {name}")))?;
            for webhook in found["webhooks"].as_array().into_iter().flatten() {
                let bundle = webhook["clientConfig"]["caBundle"].clone();
                let bytes = serde_json::from_value::<ByteString>(bundle).unwrap_or_default().0;
                let name = webhook["name"].as_str().unwrap_or_default().to_owned();
                all.push((name, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(all)
    }

    async fn create(&self, object: &Value, mode: Mode) -> Result<Value, InstallationError> {
        let mut named = object.clone();
        named["metadata"]["name"] = json!("new");
        let place = Place::of(&named)?;
        let parameters = PostParams { dry_run: mode == Mode::DryRun, ..PostParams::default() };
        let unreadable =
            |e: serde_json::Error| failed(&format!("write {}", place.resource.kind), &e);
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(unreadable)?;
        let made = self.api(&place).create(&parameters, &object).await;
        let made = made.map_err(|e| failed(&format!("ask for a {}", place.resource.kind), &e))?;
        serde_json::to_value(made).map_err(unreadable)
    }
}

/// Until when the last of these roots holds, seconds of Unix time.
///
/// # Errors
/// It is no PEM, or no certificate.
pub fn roots_end(pem: &str) -> Result<u64, InstallationError> {
    ca::end_of(pem).map_err(|error| InstallationError(error.to_string()))
}
