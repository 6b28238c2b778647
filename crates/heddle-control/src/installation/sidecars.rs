//! The pods of a cluster as an installation sees them: which have its sidecar, of which version, in which state, and
//! which should have one.

use std::collections::BTreeMap;

use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use serde_json::Value;

use super::{Cluster, Found, InstallationError, failed, resource};
use crate::injection::{self, Added, Admission, Surroundings};

/// Pods asked for at one time.
const PAGE: u32 = 500;

/// A pod that is in the mesh, or should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// What made it, as in `deployment/web`; the pod itself where nobody did.
    pub workload: String,
    /// Its sidecar; `None`: it should have one.
    pub sidecar: Option<Sidecar>,
}

/// A pod's sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// Whose it is.
    pub revision: String,
    /// Version of what added it; empty: not said.
    pub version: String,
    /// Its image.
    pub image: String,
    /// Does the kubelet find it ready?
    pub ready: bool,
    /// What became of the container that writes the redirection and proves it.
    pub redirection: Redirection,
}

/// What became of the redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirection {
    /// Written and proven.
    Proven,
    /// Not yet said.
    Unknown,
    /// It failed: what the container said last.
    Failed(String),
}

/// All pods that have a sidecar of the mesh, and those that one of the installations would give one if they were
/// made now; without pods that have ended, or end.
///
/// # Errors
/// What the cluster did not say.
pub async fn members(
    cluster: &Cluster,
    installations: &[Found],
) -> Result<Vec<Member>, InstallationError> {
    let namespaces: Api<DynamicObject> =
        Api::all_with(cluster.client.clone(), &resource("v1", "Namespace"));
    let listed = namespaces.list(&ListParams::default()).await;
    let listed = listed.map_err(|e| failed("list namespaces", &e))?;
    let labels: BTreeMap<String, BTreeMap<String, String>> = listed
        .items
        .into_iter()
        .filter_map(|one| Some((one.metadata.name?, one.metadata.labels.unwrap_or_default())))
        .collect();
    let pods: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource("v1", "Pod"));
    let mut parameters = ListParams::default().limit(PAGE);
    let mut members = Vec::new();
    loop {
        let page = pods.list(&parameters).await.map_err(|e| failed("list pods", &e))?;
        for pod in page.items {
            let pod = serde_json::to_value(pod).map_err(|e| failed("read a pod", &e))?;
            members.extend(member(&pod, &labels, installations));
        }
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(members),
        }
    }
}

fn member(
    pod: &Value,
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    installations: &[Found],
) -> Option<Member> {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let has_ended = ["Succeeded", "Failed"].contains(&text("/status/phase"));
    if has_ended || !text("/metadata/deletionTimestamp").is_empty() {
        return None;
    }
    let namespace = text("/metadata/namespace");
    let sidecar = sidecar(pod);
    if sidecar.is_none() {
        let around =
            Surroundings { namespace, namespace_labels: namespaces.get(namespace), workload: None };
        let wanted = |one: &Found| {
            matches!(injection::admit(around, pod, &one.settings), Ok(Admission::Injected(_)))
        };
        if !installations.iter().any(wanted) {
            return None;
        }
    }
    Some(Member {
        namespace: namespace.to_owned(),
        pod: text("/metadata/name").to_owned(),
        workload: workload(pod),
        sidecar,
    })
}

fn sidecar(pod: &Value) -> Option<Sidecar> {
    let Added { proxy, init, revision, version } = injection::added(pod)?;
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let status = |name: &str| {
        let all = statuses.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
        all.into_iter().find(|status| status["name"] == name)
    };
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let ready = status(&name(proxy)).is_some_and(|status| status["ready"] == true);
    let redirection =
        init.and_then(|init| status(&name(init))).map_or(Redirection::Unknown, |status| {
            let ended =
                ["state", "lastState"].iter().find_map(|which| status[which].get("terminated"));
            match ended {
                Some(ended) if ended["exitCode"] == 0 => Redirection::Proven,
                Some(ended) => Redirection::Failed(format!(
                    "it ended with {} {}",
                    ended["exitCode"],
                    ended["message"].as_str().unwrap_or_default()
                )),
                None => Redirection::Unknown,
            }
        });
    let image = proxy["image"].as_str().unwrap_or_default().to_owned();
    Some(Sidecar { revision, version, image, ready, redirection })
}

/// As `kubectl rollout restart` takes it, where it can.
fn workload(pod: &Value) -> String {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let kind = owner.and_then(|owner| owner["kind"].as_str()).unwrap_or("Pod");
    let name = injection::workload_name(pod);
    match kind {
        // Its name is told by that of the ReplicaSet.
        "ReplicaSet" if owner.is_some_and(|owner| owner["name"] != name.as_str()) => {
            format!("deployment/{name}")
        }
        "Job" if owner.is_some_and(|owner| owner["name"] != name.as_str()) => {
            format!("cronjob/{name}")
        }
        kind => format!("{}/{name}", kind.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::injection::InjectionSettings;

    fn found(revision: &str) -> Found {
        let settings =
            InjectionSettings { revision: revision.to_owned(), ..InjectionSettings::default() };
        Found { namespace: "heddle-system".to_owned(), settings, written: Value::Null }
    }

    fn injected() -> Value {
        let pod = json!({
            "metadata": {
                "name": "web-66-x", "namespace": "shop", "labels": {"pod-template-hash": "66"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-66", "controller": true}],
            },
            "spec": {"containers": [{"name": "app", "image": "a"}]},
        });
        let around = Surroundings { namespace: "shop", namespace_labels: None, workload: None };
        injection::inject(around, &pod, &found("canary").settings).unwrap().pod
    }

    #[test]
    fn a_sidecar_tells_its_revision_version_image_and_state() {
        let mut pod = injected();
        pod["status"] = json!({"initContainerStatuses": [
            {"name": "heddle-init", "state": {"terminated": {"exitCode": 0}}},
            {"name": "heddle-proxy", "ready": true},
        ]});
        let told = member(&pod, &BTreeMap::new(), &[]).unwrap();
        assert_eq!(told.workload, "deployment/web");
        let sidecar = told.sidecar.unwrap();
        assert_eq!((sidecar.revision.as_str(), sidecar.ready), ("canary", true));
        assert_eq!(sidecar.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(sidecar.redirection, Redirection::Proven);
        pod["status"]["initContainerStatuses"][0]["state"] =
            json!({"terminated": {"exitCode": 1, "message": "no"}});
        let sidecar = member(&pod, &BTreeMap::new(), &[]).unwrap().sidecar.unwrap();
        assert!(matches!(sidecar.redirection, Redirection::Failed(why) if why.ends_with("1 no")));
        pod["status"]["phase"] = json!("Succeeded");
        assert_eq!(member(&pod, &BTreeMap::new(), &[]), None);
    }

    #[test]
    fn a_pod_that_should_have_a_sidecar_is_told_for_the_revision_that_it_asks_for() {
        let pod = json!({
            "metadata": {"name": "bare", "namespace": "shop"},
            "spec": {"containers": [{"name": "app", "image": "a"}]},
        });
        let label = |key: &str, value: &str| {
            BTreeMap::from([(
                "shop".to_owned(),
                BTreeMap::from([(key.to_owned(), value.to_owned())]),
            )])
        };
        let all = [found("default")];
        let told = |labels| member(&pod, &labels, &all).map(|one| one.workload);
        assert_eq!(told(label("heddle.dev/inject", "true")).as_deref(), Some("pod/bare"));
        assert_eq!(told(label("heddle.dev/rev", "default")).as_deref(), Some("pod/bare"));
        assert_eq!(told(label("heddle.dev/rev", "canary")), None);
        assert_eq!(told(label("team", "a")), None);
    }
}
