//! Which pods are the mesh's own, and what is to be said of one that does not serve.

use heddle_model::WorkloadId;
use heddle_runtime::clock;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{
    cluster::Reach,
    error::{ANSWER_WAIT, ReachError},
    explain,
};

/// Where the mesh is looked for by those who may not look everywhere.
const USUAL_NAMESPACE: &str = "heddle-system";
/// How an argument of the control plane names the installation, …
const REVISION: &str = "--revision=";
/// … and below what its cluster has its names.
const CLUSTER_DOMAIN: &str = "--cluster-domain=";

/// A part of the mesh in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The control plane.
    Control,
    /// The observer with the dashboard.
    Observe,
}

impl Part {
    /// What its Deployment and pods are called, in `app.kubernetes.io/name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "heddle-control",
            Self::Observe => "heddle-observe",
        }
    }

    /// Where a pod of it answers, on its loopback address.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Control => 15000,
            Self::Observe => 15040,
        }
    }
}

/// A pod of the mesh's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAt {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What labels call its installation by; empty where it does not say.
    pub revision: String,
    /// Below what its cluster has its names; empty where it does not say.
    pub cluster_domain: String,
    /// Does it serve?
    pub ready: bool,
    /// When it started, RFC 3339; empty if it has not.
    pub started: String,
    /// Why it does not serve, as far as the cluster says.
    pub why: String,
}

impl PodAt {
    /// The pod of a workload, whose id is `NAMESPACE.POD`; it is taken to serve.
    #[must_use]
    pub fn of(workload: &WorkloadId) -> Self {
        let (namespace, name) = workload.0.split_once('.').unwrap_or(("default", &workload.0));
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            revision: String::new(),
            cluster_domain: String::new(),
            ready: true,
            started: String::new(),
            why: String::new(),
        }
    }
}

impl Reach {
    /// The pods of a part, wherever they are: those that serve first, and of those the oldest.
    ///
    /// # Errors
    /// The person may not list pods, or nobody answers.
    pub async fn pods(&self, part: Part) -> Result<Vec<PodAt>, ReachError> {
        let everywhere = self.listed(part, None).await;
        let found = match everywhere {
            Err(Listing::Forbidden(_)) => self.listed(part, Some(USUAL_NAMESPACE)).await,
            other => other,
        };
        let mut pods = found.map_err(|listing| match listing {
            Listing::Forbidden(error) | Listing::Other(error) => error,
        })?;
        pods.sort_by(|a, b| (!a.ready, &a.started, &a.name).cmp(&(!b.ready, &b.started, &b.name)));
        Ok(pods)
    }

    async fn listed(&self, part: Part, namespace: Option<&str>) -> Result<Vec<PodAt>, Listing> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let pods: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let labels =
            format!("app.kubernetes.io/part-of=heddle,app.kubernetes.io/name={}", part.name());
        let what = format!("look for pods of {}", part.name());
        let parameters = ListParams::default().labels(&labels);
        match clock::within(ANSWER_WAIT, pods.list(&parameters)).await {
            Some(Ok(found)) => Ok(found.items.iter().filter_map(pod).collect()),
            Some(Err(error)) => {
                let right = explain::Right { verb: "list", what: "pods", namespace };
                let told = explain::error(self.place(), &what, right, &error);
                Err(match explain::status(&error) {
                    Some((403, _)) => Listing::Forbidden(told),
                    _ => Listing::Other(told),
                })
            }
            None => Err(Listing::Other(explain::late(self.place(), &what))),
        }
    }
}

enum Listing {
    Forbidden(ReachError),
    Other(ReachError),
}

/// A pod; `None` if it goes, or has ended.
fn pod(object: &DynamicObject) -> Option<PodAt> {
    let data = &object.data;
    let phase = text(data, "/status/phase");
    if object.metadata.deletion_timestamp.is_some() || ["Succeeded", "Failed"].contains(&&*phase) {
        return None;
    }
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
    let ready = conditions.is_some_and(|all| all.iter().any(is_ready));
    Some(PodAt {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone()?,
        revision: argument(data, REVISION),
        cluster_domain: argument(data, CLUSTER_DOMAIN),
        ready,
        started: text(data, "/status/startTime"),
        why: if ready { String::new() } else { why(data, &phase) },
    })
}

fn text(data: &Value, path: &str) -> String {
    data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The value of the first argument that begins so.
fn argument(data: &Value, name: &str) -> String {
    let containers = data.pointer("/spec/containers").and_then(Value::as_array);
    let arguments = containers.into_iter().flatten().filter_map(|one| one["args"].as_array());
    let mut values = arguments.flatten().filter_map(Value::as_str);
    values.find_map(|one| one.strip_prefix(name)).unwrap_or_default().to_owned()
}

/// What keeps a pod from serving.
fn why(data: &Value, phase: &str) -> String {
    let statuses = data.pointer("/status/containerStatuses").and_then(Value::as_array);
    let waiting = statuses.into_iter().flatten().find_map(|one| one.pointer("/state/waiting"));
    if let Some(waiting) = waiting {
        let (reason, message) = (text(waiting, "/reason"), text(waiting, "/message"));
        return format!("{reason} {message}").trim().to_owned();
    }
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array);
    let unscheduled = conditions
        .into_iter()
        .flatten()
        .find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    match unscheduled {
        Some(one) => text(one, "/message"),
        None if phase == "Running" => "it runs, and is not ready yet".to_owned(),
        None => phase.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: Value) -> Option<PodAt> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "heddle-control-1", "namespace": "heddle-system"},
            "spec": {"containers": [{"args": ["control", "--revision=canary"]}]},
            "status": status,
        });
        pod(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_pod_serves_or_says_why_not() {
        let ready = json!({"phase": "Running", "startTime": "2026-01-02T03:04:05Z",
            "conditions": [{"type": "Ready", "status": "True"}]});
        let pod = read(ready).unwrap();
        assert!(pod.ready && pod.why.is_empty());
        assert_eq!((&*pod.revision, &*pod.started), ("canary", "2026-01-02T03:04:05Z"));
        for (status, why) in [
            (
                json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]}),
                "ErrImagePull no such image",
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "no node fits"}]}),
                "no node fits",
            ),
            (json!({"phase": "Running"}), "it runs, and is not ready yet"),
        ] {
            let pod = read(status).unwrap();
            assert!(!pod.ready);
            assert_eq!(pod.why, why);
        }
        assert_eq!(read(json!({"phase": "Failed"})), None);
    }
}
