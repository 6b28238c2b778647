//! Taking the mesh out of a cluster: everything that carries its label, in an order that never leaves the cluster
//! waiting for something that is gone.

use std::time::{Duration, Instant};

use heddle_runtime::clock;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
};
use serde_json::Value;

use super::{Cluster, InstallationError, Mode, PART_OF, failed, is_taken_over, resource};
use crate::revision::INSTANCE;

/// Kinds by their API versions: what sends pods to the control plane, then the control plane, which would make
/// again what comes after it.
const FIRST: [(&str, &str); 3] = [
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("apps/v1", "Deployment"),
];
/// The rest; a namespace takes along what is in it.
const REST: [(&str, &str); 9] = [
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("coordination.k8s.io/v1", "Lease"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "ServiceAccount"),
];
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Of which installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Of all that there are, and what others have left behind.
    All,
    /// Of this revision, in this namespace where it is known. Others go on, and need the kinds.
    Revision(String, Option<String>),
}

impl Which {
    /// Does an object of the mesh go? One without a revision belongs to whom its namespace belongs.
    fn is_of(&self, object: &DynamicObject) -> bool {
        let Self::Revision(revision, own) = self else { return true };
        let labels = object.metadata.labels.as_ref();
        match labels.and_then(|labels| labels.get(INSTANCE)) {
            Some(named) => named == revision,
            None => own.is_some() && object.metadata.namespace == *own,
        }
    }
}

/// What is removed.
#[derive(Debug, Clone)]
pub struct Removal {
    /// Whose.
    pub which: Which,
    /// Kinds of which there are objects go too, and the objects with them.
    pub purge: bool,
    /// Is the cluster changed?
    pub mode: Mode,
    /// How long to wait until all of it is gone.
    pub limit: Duration,
}

/// Removes the mesh; `tell` hears of every object. Returns the kinds that stay because there are objects of them.
///
/// # Errors
/// What the cluster refused, or what is not gone after the limit.
pub async fn remove(
    cluster: &Cluster,
    removal: &Removal,
    tell: &mut dyn FnMut(String),
) -> Result<Vec<String>, InstallationError> {
    let deadline = clock::now() + removal.limit;
    for (api_version, kind) in FIRST {
        delete_all(cluster, &resource(api_version, kind), removal, tell).await?;
    }
    if removal.mode == Mode::Change {
        wait_until_gone(cluster, ("v1", "Pod"), &removal.which, deadline).await?;
    }
    for (api_version, kind) in REST {
        delete_all(cluster, &resource(api_version, kind), removal, tell).await?;
    }
    let kept = match &removal.which {
        Which::All => delete_kinds(cluster, removal, tell).await?,
        Which::Revision(..) => Vec::new(),
    };
    delete_all(cluster, &resource("v1", "Namespace"), removal, tell).await?;
    if removal.mode == Mode::Change {
        wait_until_gone(cluster, ("v1", "Namespace"), &removal.which, deadline).await?;
    }
    Ok(kept)
}

/// The definitions of kinds, but for those of which somebody has objects.
async fn delete_kinds(
    cluster: &Cluster,
    removal: &Removal,
    tell: &mut dyn FnMut(String),
) -> Result<Vec<String>, InstallationError> {
    let definitions = resource("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let mut kept = Vec::new();
    for definition in ours(cluster, &definitions, &Which::All).await? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        if is_taken_over(&definition) {
            continue;
        }
        if !removal.purge && has_objects(cluster, &definition.data).await? {
            kept.push(name);
            continue;
        }
        delete(cluster, &definitions, &definition, removal.mode, tell).await?;
    }
    Ok(kept)
}

/// Are there objects of the kind that is defined so, but for those that were installed with it?
async fn has_objects(cluster: &Cluster, definition: &Value) -> Result<bool, InstallationError> {
    let Some(kind) = defined(definition) else { return Ok(false) };
    let objects: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
    let (key, value) = PART_OF;
    let others = ListParams::default().labels(&format!("{key}!={value}")).limit(1);
    let found = objects.list(&others).await;
    let found = found
        .map_err(|e| failed(&format!("look for objects of {}.{}", kind.plural, kind.group), &e))?;
    Ok(!found.items.is_empty())
}

/// The kind that a definition defines, in the version that is stored.
fn defined(definition: &Value) -> Option<ApiResource> {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array)?;
    let stored =
        versions.iter().find(|v| v.get("storage").and_then(Value::as_bool) == Some(true))?;
    let version = stored.get("name").and_then(Value::as_str)?;
    let (group, kind) = (text("/spec/group")?, text("/spec/names/kind")?);
    let mut resource = resource(&format!("{group}/{version}"), &kind);
    resource.plural = text("/spec/names/plural")?;
    Some(resource)
}

async fn delete_all(
    cluster: &Cluster,
    kind: &ApiResource,
    removal: &Removal,
    tell: &mut dyn FnMut(String),
) -> Result<(), InstallationError> {
    for object in ours(cluster, kind, &removal.which).await? {
        delete(cluster, kind, &object, removal.mode, tell).await?;
    }
    Ok(())
}

/// All objects of a kind that carry the mesh's label and go, in any namespace.
async fn ours(
    cluster: &Cluster,
    kind: &ApiResource,
    which: &Which,
) -> Result<Vec<DynamicObject>, InstallationError> {
    let (key, value) = PART_OF;
    let all: Api<DynamicObject> = Api::all_with(cluster.client.clone(), kind);
    let found = all.list(&ListParams::default().labels(&format!("{key}={value}"))).await;
    let found = found.map_err(|e| failed(&format!("list {}", kind.plural), &e))?;
    Ok(found.items.into_iter().filter(|object| which.is_of(object)).collect())
}

async fn delete(
    cluster: &Cluster,
    kind: &ApiResource,
    object: &DynamicObject,
    mode: Mode,
    tell: &mut dyn FnMut(String),
) -> Result<(), InstallationError> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let (api, shown): (Api<DynamicObject>, _) = match &object.metadata.namespace {
        Some(namespace) => (
            Api::namespaced_with(cluster.client.clone(), namespace, kind),
            format!("{} {namespace}/{name}", kind.kind),
        ),
        None => (Api::all_with(cluster.client.clone(), kind), format!("{} {name}", kind.kind)),
    };
    let parameters = DeleteParams { dry_run: mode == Mode::DryRun, ..DeleteParams::background() };
    match api.delete(name, &parameters).await {
        Ok(_) => tell(shown),
        // Somebody was faster, e.g. what it belonged to.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(failed(&format!("delete {shown}"), &error)),
    }
    Ok(())
}

/// Waits until no object of a kind that is to go is there.
async fn wait_until_gone(
    cluster: &Cluster,
    (api_version, kind): (&str, &str),
    which: &Which,
    deadline: Instant,
) -> Result<(), InstallationError> {
    let kind = resource(api_version, kind);
    loop {
        let left = ours(cluster, &kind, which).await?;
        let Some(first) = left.first() else { return Ok(()) };
        if clock::now() >= deadline {
            let name = first.metadata.name.as_deref().unwrap_or_default();
            return Err(InstallationError(format!("{} {name} is not gone yet", kind.kind)));
        }
        clock::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{DynamicObject, Which, defined};

    #[test]
    fn an_object_goes_with_its_revision_or_else_with_its_namespace() {
        let object = |metadata: serde_json::Value| -> DynamicObject {
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let named = object(
            json!({"namespace": "shop", "labels": {"app.kubernetes.io/instance": "canary"}}),
        );
        let within = object(json!({"namespace": "heddle-canary"}));
        let cluster_wide = object(json!({"name": "x"}));
        let of = |revision: &str, namespace: Option<&str>| {
            let which = Which::Revision(revision.to_owned(), namespace.map(str::to_owned));
            [&named, &within, &cluster_wide].map(|object| which.is_of(object))
        };
        assert_eq!(of("canary", Some("heddle-canary")), [true, true, false]);
        assert_eq!(of("canary", None), [true, false, false]);
        assert_eq!(of("default", Some("heddle-system")), [false, false, false]);
        assert!([&named, &within, &cluster_wide].iter().all(|object| Which::All.is_of(object)));
    }

    #[test]
    fn a_definition_tells_where_its_objects_are() {
        let definition = json!({"spec": {
            "group": "networking.istio.io",
            "names": {"kind": "ServiceEntry", "plural": "serviceentries"},
            "versions": [{"name": "v1beta1", "storage": false}, {"name": "v1", "storage": true}],
        }});
        let kind = defined(&definition).unwrap();
        assert_eq!((kind.plural.as_str(), kind.version.as_str()), ("serviceentries", "v1"));
        assert!(defined(&json!({"spec": {}})).is_none());
    }
}
