//! Is a pod to be injected? Istio's precedence: a namespace that says no is final, a pod may leave one that
//! says yes, and where the namespace says nothing the pod's own label decides.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    InjectionSettings, InterceptionMode, Rejected, Surroundings,
    names::{INJECT, ISTIO_STATUS, MIRROR_POD, Name, PROXY, REVISION},
    options::Options,
    pod::{Pod, name, one_of, text},
};
use crate::revision::DEFAULT as DEFAULT_REVISION;

/// The namespace's own label, ours and Istio's.
const NAMESPACE_INJECTION: Name = Name { ours: "heddle.dev/inject", istio: "istio-injection" };

/// Kubernetes' label of what a namespace's pods may do.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Yes,
    /// Why not.
    No(String),
}

pub(super) fn choose(
    around: Surroundings<'_>,
    pod: &Pod,
    settings: &InjectionSettings,
) -> Result<Choice, Rejected> {
    if let Some(reason) = cannot_be(around, pod, settings) {
        return Ok(Choice::No(reason));
    }
    let own_word = word_of_pod(pod)?;
    let Some(labels) = around.namespace_labels else {
        return Ok(match own_word {
            Some((name, false)) => Choice::No(format!("the pod says so: `{name}`")),
            _ => Choice::Yes,
        });
    };
    let Some(chosen) = by_namespace(labels, settings)? else {
        return by_pod(pod, own_word, settings);
    };
    Ok(match (chosen, own_word) {
        (Choice::Yes, Some((name, false))) => Choice::No(format!("the pod says so: `{name}`")),
        (chosen, _) => chosen,
    })
}

/// What is never injected, whatever labels say.
fn cannot_be(around: Surroundings<'_>, pod: &Pod, settings: &InjectionSettings) -> Option<String> {
    let namespace = around.namespace;
    if pod.spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some("it uses its node's network, whose traffic is not its own".to_owned());
    }
    if pod.spec.get("os").and_then(|os| text(os, "name")) == Some("windows") {
        return Some("it runs on Windows".to_owned());
    }
    if settings.is_excluded(namespace) {
        return Some(format!("nothing is injected in the namespace {namespace}"));
    }
    if pod.annotations.contains_key(MIRROR_POD) {
        return Some("it stands for a file on its node".to_owned());
    }
    if pod.annotations.contains_key(ISTIO_STATUS) {
        return Some("it has a sidecar of Istio already".to_owned());
    }
    None
}

/// What the pod says itself: a label beats an annotation.
fn word_of_pod(pod: &Pod) -> Result<Option<(&'static str, bool)>, Rejected> {
    let label = one_of("label", INJECT, |key| pod.label(key))?;
    let said = match label {
        Some(said) => Some(("label", said)),
        None => pod.annotation(INJECT)?.map(|said| ("annotation", said)),
    };
    let Some((what, (name, text))) = said else { return Ok(None) };
    match text {
        "true" | "yes" | "y" | "on" => Ok(Some((name, true))),
        "false" | "no" | "n" | "off" => Ok(Some((name, false))),
        _ => {
            Err(Rejected::new(format!("{what} {name}: `{text}` is neither \"true\" nor \"false\"")))
        }
    }
}

/// What the namespace's labels say; `None`: nothing.
fn by_namespace(
    labels: &BTreeMap<String, String>,
    settings: &InjectionSettings,
) -> Result<Option<Choice>, Rejected> {
    let value = |key: &str| labels.get(key).map(String::as_str);
    let said = one_of("namespace's label", NAMESPACE_INJECTION, value);
    let said = match (value(NAMESPACE_INJECTION.ours), value(NAMESPACE_INJECTION.istio)) {
        // `true` is ours, `enabled` Istio's: they do not contradict each other.
        (Some(ours), Some(istio)) if enables(ours) == enables(istio) => {
            Some((NAMESPACE_INJECTION.ours, ours))
        }
        _ => said?,
    };
    if let Some((name, text)) = said {
        return match enables(text) {
            Some(true) => Ok(Some(serves(settings, DEFAULT_REVISION, name))),
            Some(false) => Ok(Some(Choice::No(format!("its namespace says so: `{name}`")))),
            // As in Istio: an unknown word is no wish.
            None => Ok(None),
        };
    }
    let revision = one_of("namespace's label", REVISION, value)?;
    Ok(revision.map(|(name, revision)| serves(settings, revision, name)))
}

fn enables(text: &str) -> Option<bool> {
    match text.trim() {
        "enabled" | "true" => Some(true),
        "disabled" | "false" => Some(false),
        _ => None,
    }
}

/// Where the namespace says nothing.
fn by_pod(
    pod: &Pod,
    own_word: Option<(&'static str, bool)>,
    settings: &InjectionSettings,
) -> Result<Choice, Rejected> {
    let revision = one_of("label", REVISION, |key| pod.label(key))?;
    Ok(match (own_word, revision) {
        (Some((name, false)), _) => Choice::No(format!("the pod says so: `{name}`")),
        (_, Some((name, revision))) => serves(settings, revision, name),
        (Some((name, true)), None) => serves(settings, DEFAULT_REVISION, name),
        (None, None) if settings.enable_namespaces_by_default => {
            serves(settings, DEFAULT_REVISION, "enableNamespacesByDefault")
        }
        (None, None) => Choice::No(
            "neither its namespace nor the pod asks for it: label one of them `heddle.dev/inject: \"true\"`"
                .to_owned(),
        ),
    })
}

/// Is it this control plane that the label means?
fn serves(settings: &InjectionSettings, revision: &str, name: &str) -> Choice {
    if settings.revision == revision || settings.tags.iter().any(|tag| tag == revision) {
        return Choice::Yes;
    }
    Choice::No(format!(
        "`{name}` asks for the revision {revision}, and this is {}",
        settings.revision
    ))
}

/// Whether the namespace's PodSecurity refuses what the sidecar needs where the application sees its callers' addresses.
pub(super) fn refused_rights(
    around: Surroundings<'_>,
    options: &Options,
    settings: &InjectionSettings,
) -> Option<String> {
    let level = around.namespace_labels?.get(POD_SECURITY)?.as_str();
    let refuses =
        options.mode == InterceptionMode::Tproxy && matches!(level, "baseline" | "restricted");
    refuses.then(|| {
        format!(
            "interception mode {}: container {PROXY} runs as root with {}, which the namespace's label \
             {POD_SECURITY}={level} refuses: set it to `privileged`, or leave the mode out",
            options.mode.name(),
            settings.tproxy_capabilities.join(", "),
        )
    })
}

/// What works, and is most likely not meant.
pub(super) fn warnings(pod: &Pod, settings: &InjectionSettings) -> Vec<String> {
    let user = |value: &Value| {
        let context = value.get("securityContext");
        context.and_then(|context| context.get("runAsUser")).and_then(Value::as_u64)
    };
    let of_pod = user(&Value::Object(pod.spec.clone()));
    let same =
        |container: &&Value| user(container).or(of_pod) == Some(u64::from(settings.proxy_uid));
    let containers = pod.containers.iter().filter(same).map(|container| {
        format!(
            "container {} runs as user {}, which is the sidecar's: its calls pass the mesh by",
            name(container),
            settings.proxy_uid
        )
    });
    containers.collect()
}
