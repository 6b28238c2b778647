//! The mesh's own objects in a cluster: put there and taken away, for whoever installs it.
//!
//! What the objects are is said by the caller; here is how they get there. This is no part of a running control
//! plane, and works with the rights of the person who calls it.

use std::path::PathBuf;

use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde_json::Value;

mod asking;
mod difference;
mod found;
mod ready;
mod removal;
mod sidecars;

pub use asking::{Right, roots_end};
pub use difference::{Difference, FieldChange};
pub use found::{Found, installations, share_authority};
pub use ready::{wait_until_ready, what_is_missing, what_the_observer_lacks};
pub use removal::{Removal, Which, remove};
pub use sidecars::{Member, Redirection, Sidecar, members};

use crate::{causes::with_causes, revision::PART_OF};

/// Who owns the fields that installing sets; whatever others set beside them stays.
const FIELD_MANAGER: &str = "heddle";

/// Why the cluster could not be changed: what was being done, and what the cluster said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InstallationError(String);

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// File that says how to reach it; `None`: `$KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts; `None`: the current one.
    pub context: Option<String>,
}

/// Is the cluster changed, or asked only?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is changed.
    Change,
    /// It checks everything and changes nothing.
    DryRun,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is as it was to be.
    Done,
    /// It is somebody else's, and stays so.
    LeftAlone,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Where it is, for messages.
    url: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads how to reach it; nothing is asked yet.
    ///
    /// # Errors
    /// No such file or context, or credentials that cannot be used.
    pub async fn of(target: &Target) -> Result<Self, InstallationError> {
        let options = KubeConfigOptions { context: target.context.clone(), ..Default::default() };
        let config = match &target.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file);
                let read = read.map_err(|e| failed(&format!("read {}", file.display()), &e))?;
                Config::from_custom_kubeconfig(read, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.map_err(|e| failed("find the cluster in the kubeconfig", &e))?;
        let url = config.cluster_url.to_string();
        let client =
            Client::try_from(config).map_err(|e| failed(&format!("connect to {url}"), &e))?;
        Ok(Self { client, url })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Puts an object in force, server-side, whoever had its fields before.
    ///
    /// # Errors
    /// The object has no kind or name, or the cluster refused it.
    pub async fn apply(&self, object: &Value, mode: Mode) -> Result<(), InstallationError> {
        let place = Place::of(object)?;
        let mut parameters = PatchParams::apply(FIELD_MANAGER).force();
        parameters.dry_run = mode == Mode::DryRun;
        let applied = self.api(&place).patch(&place.name, &parameters, &Patch::Apply(object)).await;
        applied.map(drop).map_err(|e| failed(&format!("apply {place}"), &e))
    }

    /// The same for an object that others may have put there before us: then it is left alone.
    ///
    /// # Errors
    /// As [`Cluster::apply`].
    pub async fn apply_unless_foreign(
        &self,
        object: &Value,
        mode: Mode,
    ) -> Result<Applied, InstallationError> {
        if self.is_foreign(object).await? {
            return Ok(Applied::LeftAlone);
        }
        self.apply(object, mode).await.map(|()| Applied::Done)
    }

    /// Is there an object of this kind and name that is none of the mesh's, or that others have made theirs since?
    ///
    /// # Errors
    /// As [`Cluster::has`].
    pub async fn is_foreign(&self, object: &Value) -> Result<bool, InstallationError> {
        let found = self.found(&Place::of(object)?).await?;
        Ok(found.is_some_and(|object| !is_ours(&object) || is_taken_over(&object)))
    }

    /// Is there an object of this kind and name?
    ///
    /// # Errors
    /// The object has no kind or name, or the cluster did not say.
    pub async fn has(&self, object: &Value) -> Result<bool, InstallationError> {
        Ok(self.found(&Place::of(object)?).await?.is_some())
    }

    /// The object of this kind and name as it is; `None`: there is none.
    ///
    /// # Errors
    /// As [`Cluster::has`].
    pub async fn get(&self, object: &Value) -> Result<Option<Value>, InstallationError> {
        let place = Place::of(object)?;
        let found = self.found(&place).await?;
        let written = found.map(serde_json::to_value).transpose();
        written.map_err(|e| failed(&format!("read {place}"), &e))
    }

    async fn found(&self, place: &Place) -> Result<Option<DynamicObject>, InstallationError> {
        let found = self.api(place).get_opt(&place.name).await;
        found.map_err(|e| failed(&format!("look for {place}"), &e))
    }

    fn api(&self, place: &Place) -> Api<DynamicObject> {
        match &place.namespace {
            Some(namespace) => {
                Api::namespaced_with(self.client.clone(), namespace, &place.resource)
            }
            None => Api::all_with(self.client.clone(), &place.resource),
        }
    }
}

fn is_ours(object: &DynamicObject) -> bool {
    let (key, value) = PART_OF;
    object.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|v| v == value)
}

/// Has another manager written its `spec`? Whoever puts the Gateway API's own definitions over ours leaves our
/// label on them, and the definitions are theirs all the same.
fn is_taken_over(object: &DynamicObject) -> bool {
    let managers = object.metadata.managed_fields.as_deref().unwrap_or_default();
    managers.iter().any(|one| {
        let writes_spec =
            one.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some());
        writes_spec && one.subresource.is_none() && one.manager.as_deref() != Some(FIELD_MANAGER)
    })
}

/// Where an object is.
#[derive(Debug, Clone)]
struct Place {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
}

impl Place {
    fn of(object: &Value) -> Result<Self, InstallationError> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let missing = |field: &str| InstallationError(format!("an object has no `{field}`"));
        let api_version = text("/apiVersion").ok_or_else(|| missing("apiVersion"))?;
        let kind = text("/kind").ok_or_else(|| missing("kind"))?;
        let name = text("/metadata/name").ok_or_else(|| missing("metadata.name"))?;
        Ok(Self {
            resource: resource(api_version, kind),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.resource.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, " {namespace}/{}", self.name)
        } else {
            write!(f, " {}", self.name)
        }
    }
}

/// A kind of Kubernetes' own; their plurals follow rules.
fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// An error with what was being done. What the API server refuses it says in one sentence.
fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> InstallationError {
    let said = match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => status.message.clone(),
        _ => with_causes(error),
    };
    InstallationError(format!("cannot {what}: {said}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_where_its_kind_and_name_say() {
        for (api_version, kind, plural) in [
            ("v1", "ConfigMap", "configmaps"),
            ("apps/v1", "Deployment", "deployments"),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
            (
                "admissionregistration.k8s.io/v1",
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
            ),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
            ("coordination.k8s.io/v1", "Lease", "leases"),
        ] {
            let object =
                json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
            let place = Place::of(&object).unwrap();
            assert_eq!(place.resource.plural, plural);
            assert_eq!(place.to_string(), format!("{kind} x"));
        }
        let error = Place::of(&json!({"apiVersion": "v1", "kind": "Pod"})).unwrap_err();
        assert_eq!(error.to_string(), "an object has no `metadata.name`");
    }

    #[test]
    fn a_definition_whose_spec_another_has_written_is_theirs() {
        let managed = |managers: Value| -> DynamicObject {
            let metadata = json!({"name": "x", "managedFields": managers});
            let kind = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata});
            serde_json::from_value(kind).unwrap()
        };
        let ours = json!({"manager": "heddle", "operation": "Apply", "fieldsV1": {"f:spec": {"f:versions": {}}}});
        let status = json!({"manager": "kube-apiserver", "subresource": "status", "fieldsV1": {"f:status": {}}});
        let labels = json!({"manager": "kubectl-label", "fieldsV1": {"f:metadata": {}}});
        let over = json!({"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {"f:versions": {}}}});
        assert!(!is_taken_over(&managed(json!([ours, status, labels]))));
        assert!(is_taken_over(&managed(json!([ours, status, over]))));
        assert!(!is_taken_over(&managed(json!([]))));
    }
}
