//! What a pod's workload is called: as Istio derives it, so that metrics of both have the same labels.

use crate::kubernetes::objects::Meta;

/// A label by which a pod says it itself.
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Labels with the hash that a ReplicaSet's name ends with: of a Deployment, and of an Argo Rollout.
const TEMPLATE_HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// The label with the name of OpenShift's DeploymentConfig.
const DEPLOYMENT_CONFIG: &str = "deploymentconfig";
/// A CronJob's Jobs are named for their time, in minutes or seconds.
const TIME_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

/// The name of a pod's workload: its Deployment's, CronJob's, or whoever else made it; else its own.
pub(super) fn workload_name(pod: &Meta) -> String {
    if let Some(said) = pod.labels.get(WORKLOAD_NAME).filter(|name| !name.is_empty()) {
        return said.clone();
    }
    let mut owners = pod.owner_references.iter();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return pod.name.clone();
    };
    let name = owner.name.as_str();
    let derived = match owner.kind.as_str() {
        "ReplicaSet" => TEMPLATE_HASHES.iter().find_map(|label| {
            let hash = pod.labels.get(*label)?;
            name.strip_suffix(hash.as_str())?.strip_suffix('-')
        }),
        "ReplicationController" => pod.labels.get(DEPLOYMENT_CONFIG).map(String::as_str),
        "Job" => name.rsplit_once('-').and_then(|(stem, time)| {
            let digits = time.bytes().all(|b| b.is_ascii_digit());
            (digits && TIME_DIGITS.contains(&time.len())).then_some(stem)
        }),
        _ => None,
    };
    derived.filter(|stem| !stem.is_empty()).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::OwnerReference;

    fn named(owner: (&str, &str), labels: &[(&str, &str)]) -> String {
        let (kind, name) = owner;
        let owner =
            OwnerReference { kind: kind.to_owned(), name: name.to_owned(), controller: Some(true) };
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        workload_name(&Meta {
            name: "pod-1".to_owned(),
            labels,
            owner_references: vec![owner],
            ..Meta::default()
        })
    }

    #[test]
    fn a_workload_is_named_as_istio_names_it() {
        let hash = [("pod-template-hash", "5d4f")];
        assert_eq!(named(("ReplicaSet", "web-v1-5d4f"), &hash), "web-v1");
        assert_eq!(named(("ReplicaSet", "web-v1-5d4f"), &[]), "web-v1-5d4f");
        let rollout = [("rollouts-pod-template-hash", "77")];
        assert_eq!(named(("ReplicaSet", "web-77"), &rollout), "web");
        assert_eq!(named(("Job", "backup-28512345"), &[]), "backup");
        assert_eq!(named(("Job", "backup-7"), &[]), "backup-7");
        assert_eq!(named(("Job", "migrate"), &[]), "migrate");
        assert_eq!(named(("StatefulSet", "db"), &[]), "db");
        let config = [("deploymentconfig", "old")];
        assert_eq!(named(("ReplicationController", "old-3"), &config), "old");
        let said = [("service.istio.io/workload-name", "mine")];
        assert_eq!(named(("StatefulSet", "db"), &said), "mine");
        let bare = Meta { name: "pod-1".to_owned(), ..Meta::default() };
        assert_eq!(workload_name(&bare), "pod-1");
    }
}
