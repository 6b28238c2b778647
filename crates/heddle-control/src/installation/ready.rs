//! Waiting for the control plane and the observer, and why they do not come.

use std::time::Duration;

use heddle_runtime::clock;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use serde_json::Value;

use super::{Cluster, InstallationError, failed, resource};
use crate::revision::{INJECTOR, named};

/// The Deployment whose pods are the control plane.
const CONTROL: &str = "heddle-control";
/// The one whose pod is the observer.
const OBSERVE: &str = "heddle-observe";
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Waits until all replicas of the control plane and the observer are of the newest version and ready, and pods can be
/// injected.
///
/// # Errors
/// It does not come to that within `limit`: what is missing.
pub async fn wait_until_ready(
    cluster: &Cluster,
    (namespace, revision): (&str, &str),
    limit: Duration,
) -> Result<(), InstallationError> {
    let deadline = clock::now() + limit;
    loop {
        let missing = match what_is_missing(cluster, namespace, revision).await? {
            None => what_the_observer_lacks(cluster, namespace).await?,
            missing => missing,
        };
        let Some(missing) = missing else { return Ok(()) };
        if clock::now() >= deadline {
            let seconds = limit.as_secs();
            return Err(InstallationError(format!("not ready within {seconds} s: {missing}")));
        }
        clock::sleep(LOOK_EVERY).await;
    }
}

/// What is not as it is to be of the observer; `None`: nothing.
///
/// # Errors
/// The cluster did not say, or has none.
pub async fn what_the_observer_lacks(
    cluster: &Cluster,
    namespace: &str,
) -> Result<Option<String>, InstallationError> {
    what_is_not_ready(cluster, namespace, OBSERVE).await
}

/// What is not as it is to be of the control plane and its injection; `None`: nothing.
///
/// # Errors
/// The cluster did not say.
pub async fn what_is_missing(
    cluster: &Cluster,
    namespace: &str,
    revision: &str,
) -> Result<Option<String>, InstallationError> {
    if let Some(missing) = what_is_not_ready(cluster, namespace, CONTROL).await? {
        return Ok(Some(missing));
    }
    let kind = resource("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
    let webhooks: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
    // They have to know whom to believe before a pod can be injected.
    let name = named(INJECTOR, revision);
    let found = webhooks.get(&name).await;
    let injector = found.map_err(|e| failed(&format!("look at the webhooks {name}"), &e))?;
    Ok(unbelieved(&injector.data))
}

async fn what_is_not_ready(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, InstallationError> {
    let deployments: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), namespace, &resource("apps/v1", "Deployment"));
    let found = deployments.get(name).await;
    let deployment =
        found.map_err(|e| failed(&format!("look at Deployment {namespace}/{name}"), &e))?;
    let generation = deployment.metadata.generation.unwrap_or_default();
    let Some(reason) = replicas(name, generation, &deployment.data) else { return Ok(None) };
    let pods = pods(cluster, namespace, name).await?;
    Ok(Some(format!("{reason}{pods}")))
}

/// Which replicas of a Deployment are missing.
fn replicas(name: &str, generation: i64, deployment: &Value) -> Option<String> {
    let number = |path: &str| deployment.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let wanted = number("/spec/replicas");
    if number("/status/observedGeneration") < generation {
        return Some(format!("the Deployment controller has not seen the change of {name}"));
    }
    let ready = number("/status/updatedReplicas").min(number("/status/availableReplicas"));
    let all = number("/status/replicas");
    if ready < wanted {
        return Some(format!("{ready} of {wanted} replicas of {name} are ready"));
    }
    (all > wanted)
        .then(|| format!("{} replicas of the former version of {name} still run", all - wanted))
}

/// Is there a webhook that the control plane has not filled in?
fn unbelieved(injector: &Value) -> Option<String> {
    let webhooks = injector.get("webhooks").and_then(Value::as_array)?;
    let filled = |webhook: &&Value| {
        let bundle = webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str);
        bundle.is_some_and(|bundle| !bundle.is_empty())
    };
    let without = webhooks.len() - webhooks.iter().filter(filled).count();
    (without > 0).then(|| format!("{without} webhooks for pods do not know whom to believe yet"))
}

/// Why containers of a Deployment do not run, if the cluster says so.
async fn pods(
    cluster: &Cluster,
    namespace: &str,
    deployment: &str,
) -> Result<String, InstallationError> {
    let pods: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), namespace, &resource("v1", "Pod"));
    let label = format!("app.kubernetes.io/name={deployment}");
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|e| failed(&format!("list the pods of {deployment}"), &e))?;
    let told = found.items.iter().filter_map(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        waiting(&pod.data).map(|reason| format!("\n  pod {name}: {reason}"))
    });
    Ok(told.collect())
}

fn waiting(pod: &Value) -> Option<String> {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array)?;
    statuses.iter().find_map(|status| {
        let waiting = status.pointer("/state/waiting")?;
        let text = |key: &str| waiting.get(key).and_then(Value::as_str).unwrap_or_default();
        Some(format!("{} {}", text("reason"), text("message")).trim_end().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_means_all_replicas_of_the_newest_version_and_no_other() {
        let with = |status: Value| json!({"spec": {"replicas": 2}, "status": status});
        let ready = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(replicas("m", 3, &with(ready.clone())), None);
        assert!(replicas("m", 4, &with(ready)).is_some());
        let one = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
        assert!(replicas("m", 3, &with(one)).is_some_and(|reason| reason.starts_with("1 of 2")));
        let old = json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3});
        assert!(
            replicas("m", 3, &with(old)).is_some_and(|reason| reason.starts_with("1 replicas"))
        );
        assert!(replicas("m", 1, &json!({"spec": {"replicas": 1}})).is_some());
    }

    #[test]
    fn webhooks_without_an_authority_are_counted() {
        let injector = |bundle: Value| json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}, {"clientConfig": {"caBundle": "eA=="}}]});
        assert_eq!(unbelieved(&injector(json!("eA=="))), None);
        assert!(unbelieved(&injector(json!(""))).is_some_and(|reason| reason.starts_with('1')));
        assert!(unbelieved(&injector(Value::Null)).is_some());
    }

    #[test]
    fn a_container_that_waits_says_why() {
        let pod = json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}}]}});
        assert_eq!(waiting(&pod).as_deref(), Some("ErrImageNeverPull no image"));
        assert_eq!(
            waiting(&json!({"status": {"containerStatuses": [{"state": {"running": {}}}]}})),
            None
        );
    }
}
