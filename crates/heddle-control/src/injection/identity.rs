//! What a pod is called: its workload, and the canonical service and revision that metrics group by, derived as
//! Istio does.

use serde_json::Value;

use super::{
    Surroundings,
    pod::{Pod, text},
};

/// Longest value of a label.
const LABEL_BYTES_MAX: usize = 63;
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// The workload's name: that of what made the pod, and of what made that where the name tells it.
pub(super) fn workload_name(pod: &Pod, around: Surroundings<'_>) -> String {
    if let Some(name) = around.workload {
        return name.to_owned();
    }
    let owners = pod.metadata.get("ownerReferences").and_then(Value::as_array);
    let owner = owners.into_iter().flatten().find(|owner| {
        owner.get("controller").and_then(Value::as_bool) == Some(true)
            && text(owner, "name").is_some_and(|name| !name.is_empty())
    });
    if let Some(owner) = owner {
        return of_owner(pod, text(owner, "kind"), text(owner, "name").unwrap_or_default());
    }
    let of_pod = |key| pod.metadata.get(key).and_then(Value::as_str);
    match (of_pod("name"), of_pod("generateName")) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) => prefix.trim_end_matches('-').to_owned(),
        _ => String::new(),
    }
}

fn of_owner(pod: &Pod, kind: Option<&str>, name: &str) -> String {
    let (stem, suffix) = name.rsplit_once('-').unwrap_or((name, ""));
    let of_another = match kind {
        // A ReplicaSet of a Deployment is named for it, with the hash that its pods are labelled with.
        Some("ReplicaSet") => pod.label("pod-template-hash") == Some(suffix),
        // A Job of a CronJob is named for it, with the minute it was due, counted from 1970.
        Some("Job") => {
            (8..=10).contains(&suffix.len()) && suffix.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    };
    if of_another { stem.to_owned() } else { name.to_owned() }
}

/// Labels the pod where it is not labelled; returns the labels' names.
pub(super) fn label(pod: &mut Pod, around: Surroundings<'_>) -> Vec<String> {
    let first = |keys: &[&str]| {
        let values = keys.iter().filter_map(|key| pod.label(key));
        values.map(str::to_owned).find(|value| !value.is_empty())
    };
    let name = first(&["app.kubernetes.io/name", "app"])
        .unwrap_or_else(|| as_label(&workload_name(pod, around)));
    let revision =
        first(&["app.kubernetes.io/version", "version"]).unwrap_or_else(|| "latest".to_owned());
    let mut added = Vec::new();
    for (key, value) in [(CANONICAL_NAME, name), (CANONICAL_REVISION, revision)] {
        if !value.is_empty() && !pod.labels.contains_key(key) {
            pod.labels.insert(key.to_owned(), value.into());
            added.push(key.to_owned());
        }
    }
    added
}

/// As much of a name as a label takes.
fn as_label(name: &str) -> String {
    let fits = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LABEL_BYTES_MAX);
    let short: String = fits.map(|(_, c)| c).collect();
    short.trim_end_matches(['-', '.', '_']).to_owned()
}
