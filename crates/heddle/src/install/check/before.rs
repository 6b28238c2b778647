//! Whether a cluster can take the mesh.

use heddle_control::installation::{Cluster, Right};
use serde_json::Value;

use super::report::{Answer, Report};
use crate::{
    failure::Failure,
    install::{kinds, read},
};

/// The oldest API server whose kubelets have native sidecars without being asked.
const VERSION_MIN: (u32, u32) = (1, 29);
/// The oldest kernel with redirection of both address families in one table of nftables.
const KERNEL_MIN: (u32, u32) = (5, 2);
/// What is done to objects that are installed: they are looked for, made and changed; `delete` is for `uninstall`.
const ALL: &[&str] = &["get", "create", "patch", "delete"];
/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// It is of no namespace, or done in all.
    All,
    /// In the mesh's namespace.
    Mesh,
    /// In the namespace `default`.
    Default,
}
/// What the commands about an installation do, by group and plural. Objects of all of them
/// are listed as well, wherever they are: by `uninstall`, which goes by labels, or by `check`.
const NEEDED: [(&str, &str, Within, &[&str]); 17] = [
    ("", "namespaces", Within::All, ALL),
    ("apiextensions.k8s.io", "customresourcedefinitions", Within::All, ALL),
    ("rbac.authorization.k8s.io", "clusterroles", Within::All, ALL),
    ("rbac.authorization.k8s.io", "clusterrolebindings", Within::All, ALL),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", Within::All, ALL),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", Within::All, ALL),
    ("rbac.authorization.k8s.io", "roles", Within::Mesh, ALL),
    ("rbac.authorization.k8s.io", "rolebindings", Within::Mesh, ALL),
    ("", "serviceaccounts", Within::Mesh, ALL),
    ("", "configmaps", Within::Mesh, ALL),
    ("", "services", Within::Mesh, ALL),
    ("", "secrets", Within::Mesh, ALL),
    ("apps", "deployments", Within::Mesh, ALL),
    ("coordination.k8s.io", "leases", Within::Mesh, &["delete"]),
    // As a dry run: it is asked whether a pod would get a sidecar.
    ("", "pods", Within::Default, &["create"]),
    ("", "nodes", Within::All, &[]),
    ("networking.k8s.io", "networkpolicies", Within::All, &[]),
];
const LIST: &str = "list";

/// Is it there, and new enough?
pub(super) async fn version(cluster: &Cluster, report: &mut Report) -> Result<(), Failure> {
    const WHAT: &str = "API server";
    let (text, number) = cluster.version().await.map_err(crate::install::refused)?;
    let at = cluster.url();
    let (major, minor) = VERSION_MIN;
    if number < VERSION_MIN {
        report.failed(WHAT, format!("{text} at {at}: it has to be {major}.{minor} or newer"));
    } else {
        report.ok(WHAT, format!("{text} at {at}"));
    }
    Ok(())
}

/// All the rest.
pub(super) async fn rest(cluster: &Cluster, namespace: &str, report: &mut Report) {
    rights(cluster, namespace, report).await;
    kinds(cluster, report).await;
    nodes(cluster, report).await;
    policies(cluster, namespace, report).await;
    injectors(cluster, report).await;
}

async fn rights(cluster: &Cluster, namespace: &str, report: &mut Report) {
    for (group, resource, within, verbs) in NEEDED {
        let what = match group {
            "" => format!("right to {resource}"),
            group => format!("right to {resource}.{group}"),
        };
        let namespace = match within {
            Within::All => None,
            Within::Mesh => Some(namespace),
            Within::Default => Some("default"),
        };
        let asked: Vec<_> =
            verbs.iter().map(|verb| (*verb, namespace)).chain([(LIST, None)]).collect();
        let mut missing = Vec::new();
        let mut unsaid = None;
        for &(verb, namespace) in &asked {
            match cluster.may(Right { verb, group, resource, namespace }).await {
                Ok(true) => {}
                Ok(false) => missing.push(verb),
                Err(error) => unsaid = Some(error),
            }
        }
        let all: Vec<_> = asked.iter().map(|(verb, _)| *verb).collect();
        match (unsaid, missing.is_empty()) {
            (Some(error), _) => report.failed(&what, error),
            (None, true) => report.ok(&what, all.join(", ")),
            (None, false) => report.failed(&what, lacking(&missing, within)),
        }
    }
}

/// Which verbs are missing; those of one namespace may be had for the asking.
fn lacking(missing: &[&str], within: Within) -> String {
    let place = |verb: &str| match (within, verb) {
        (Within::Mesh | Within::Default, LIST) => " (in all namespaces)",
        (Within::Default, _) => " (in the namespace default)",
        (Within::All | Within::Mesh, _) => "",
    };
    let told: Vec<_> = missing.iter().map(|verb| format!("{verb}{}", place(verb))).collect();
    format!("you may not {}: ask whoever administers the cluster", told.join(", "))
}

/// Of each group: which kinds others have defined, and whether in a version that is read here.
async fn kinds(cluster: &Cluster, report: &mut Report) {
    for owner in ["heddle", "istio", "gateway-api"] {
        kinds_of(cluster, owner, report).await;
    }
}

async fn kinds_of(cluster: &Cluster, owner: &str, report: &mut Report) {
    let what = format!("kinds of {owner}");
    let (mut foreign, mut ours, mut unread) = (Vec::new(), 0, Vec::new());
    for definition in kinds::definitions().into_iter().filter(|one| one.owner == owner) {
        let Ok(wanted) = read(&definition.text) else { continue };
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let there = match cluster.get(&wanted).await {
            Ok(there) => there,
            Err(error) => return report.failed(&what, error),
        };
        let Some(there) = there else { continue };
        if there["metadata"]["labels"]["app.kubernetes.io/part-of"] == "heddle" {
            ours += 1;
            continue;
        }
        let (served, read) = (versions(&there), versions(&wanted));
        if !served.iter().any(|one| read.contains(one)) {
            unread.push(format!(
                "{name} is served as {}, and read as {}: its rules are not seen",
                served.join(", "),
                read.join(", ")
            ));
        }
        foreign.push(format!("{name} ({})", served.join(", ")));
    }
    let right = match (foreign.len(), ours) {
        (0, 0) => "none is defined; `heddle install` defines them".to_owned(),
        (0, ours) => format!("{ours} are defined by an earlier `heddle install`"),
        (_, _) => format!("defined by others, and left alone: {}", foreign.join(", ")),
    };
    report.judged(&what, Answer::Warning, &unread, right);
}

/// Versions that a definition has served.
fn versions(definition: &Value) -> Vec<String> {
    let all = definition.pointer("/spec/versions").and_then(Value::as_array);
    let served = all.into_iter().flatten().filter(|version| version["served"] == true);
    served.filter_map(|version| version["name"].as_str().map(str::to_owned)).collect()
}

async fn nodes(cluster: &Cluster, report: &mut Report) {
    const WHAT: &str = "nodes";
    let nodes = match cluster.list("v1", "Node").await {
        Ok(nodes) => nodes,
        Err(error) => return report.failed(WHAT, error),
    };
    let (mut wrong, mut kernels) = (Vec::new(), Vec::new());
    for node in &nodes {
        let text = |path: &str| node.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let name = text("/metadata/name");
        let kernel = text("/status/nodeInfo/kernelVersion");
        let kubelet = text("/status/nodeInfo/kubeletVersion");
        if text("/status/nodeInfo/operatingSystem") == "windows" {
            continue;
        }
        if version_of(kernel).is_some_and(|version| version < KERNEL_MIN) {
            let (major, minor) = KERNEL_MIN;
            wrong.push(format!(
                "{name} has the kernel {kernel}, older than {major}.{minor}: the init container needs an image with iptables there"
            ));
        }
        if version_of(kubelet.trim_start_matches('v')).is_some_and(|version| version < VERSION_MIN)
        {
            wrong.push(format!(
                "{name} has the kubelet {kubelet}, which knows no native sidecars: set `nativeSidecars: false`"
            ));
        }
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    let right = format!("{}, kernels {}", nodes.len(), kernels.join(", "));
    report.judged(WHAT, Answer::Warning, &wrong, right);
}

/// Another mesh whose injector is asked for pods by the same labels.
async fn injectors(cluster: &Cluster, report: &mut Report) {
    const WHAT: &str = "other injectors";
    let all =
        match cluster.list("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration").await
        {
            Ok(all) => all,
            Err(error) => return report.failed(WHAT, error),
        };
    let names = all.iter().filter_map(|one| one["metadata"]["name"].as_str());
    let istio: Vec<&str> =
        names.filter(|name| name.starts_with("istio-sidecar-injector")).collect();
    let wrong = if istio.is_empty() {
        Vec::new()
    } else {
        vec![format!(
            "{} is there: a pod of a namespace with `istio-injection` would get both sidecars; install with \
             `--revision heddle`, and label namespaces `heddle.dev/rev=heddle`",
            istio.join(", ")
        )]
    };
    report.judged(WHAT, Answer::Warning, &wrong, "none is asked by the same labels");
}

/// The first two numbers of a version.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The API server has to reach the webhook, and pods the control plane.
async fn policies(cluster: &Cluster, namespace: &str, report: &mut Report) {
    const WHAT: &str = "network policies";
    let policies = match cluster.list("networking.k8s.io/v1", "NetworkPolicy").await {
        Ok(policies) => policies,
        Err(error) => return report.failed(WHAT, error),
    };
    let own = policies.iter().filter(|policy| policy["metadata"]["namespace"] == namespace);
    let names: Vec<&str> = own.filter_map(|policy| policy["metadata"]["name"].as_str()).collect();
    let wrong = if names.is_empty() {
        Vec::new()
    } else {
        vec![format!(
            "{namespace} has {}: let the API server reach port 15017 there, and pods port 15012",
            names.join(", ")
        )]
    };
    let right = format!("none in {namespace} keeps the API server or pods from the control plane");
    report.judged(WHAT, Answer::Warning, &wrong, right);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_read_of_kernels_and_kubelets() {
        for (text, expected) in [
            ("6.18.0-1-amd64", Some((6, 18))),
            ("5.2", Some((5, 2))),
            ("4.18.0-553.el8", Some((4, 18))),
            ("1.37.2", Some((1, 37))),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(version_of(text), expected, "{text}");
        }
    }

    #[test]
    fn only_served_versions_of_a_definition_count() {
        let definition = json!({"spec": {"versions": [
            {"name": "v1", "served": true}, {"name": "v1beta1", "served": false},
        ]}});
        assert_eq!(versions(&definition), ["v1"]);
    }
}
