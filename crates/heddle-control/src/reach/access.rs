//! From files and flags to how a cluster is reached: which kubeconfig, which of its contexts.

use std::time::Duration;

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::error::ReachError;
use crate::{causes::with_causes, installation::Target};

/// Longest wait for a connection to the API server.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How a cluster is reached, by which context.
pub(super) struct Access {
    pub(super) config: Config,
    pub(super) context: String,
}

/// The current context of the kubeconfig that is used where none is named, if there is one.
#[must_use]
pub fn current_context() -> Option<String> {
    let kubeconfig = Kubeconfig::read().ok()?;
    let current = kubeconfig.current_context?;
    let exists = kubeconfig.contexts.iter().any(|context| context.name == current);
    exists.then_some(current)
}

/// Reads how to reach a cluster.
pub(super) async fn read(target: &Target) -> Result<Access, ReachError> {
    let (file, read) = match &target.kubeconfig {
        Some(file) => (file.display().to_string(), Kubeconfig::read_from(file)),
        None => (usual_place(), Kubeconfig::read()),
    };
    let kubeconfig = read.map_err(|error| {
        let reason = match &error {
            KubeconfigError::ReadConfig(source, _) => source.to_string(),
            other => with_causes(other),
        };
        ReachError::last(format!(
            "the kubeconfig {file} cannot be read ({reason}): name another with --kubeconfig FILE, or in $KUBECONFIG"
        ))
    })?;
    let context = chosen(&kubeconfig, target.context.as_deref(), &file)?;
    let options =
        KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
            ReachError::last(format!(
                "context `{context}` of the kubeconfig {file} cannot be used: {}",
                with_causes(&error)
            ))
        })?;
    config.connect_timeout = Some(CONNECT_WAIT);
    // What is forwarded, and what is waited for, is silent for as long as it likes.
    config.read_timeout = None;
    Ok(Access { config, context })
}

fn usual_place() -> String {
    match std::env::var("KUBECONFIG") {
        Ok(files) if !files.is_empty() => files,
        _ => "~/.kube/config".to_owned(),
    }
}

fn chosen(kubeconfig: &Kubeconfig, wanted: Option<&str>, file: &str) -> Result<String, ReachError> {
    let names: Vec<&str> = kubeconfig.contexts.iter().map(|one| one.name.as_str()).collect();
    let there_are = match names.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has {}", names.join(", ")),
    };
    let current = kubeconfig.current_context.as_deref().filter(|name| !name.is_empty());
    let Some(name) = wanted.or(current) else {
        return Err(ReachError::last(format!(
            "the kubeconfig {file} has no current context: name one with --context ({there_are})"
        )));
    };
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    let said = if wanted.is_some() { "has no context" } else { "has no such current context" };
    Err(ReachError::last(format!("the kubeconfig {file} {said} `{name}`: {there_are}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(current: Option<&str>, contexts: &[&str]) -> Kubeconfig {
        let contexts: Vec<_> = contexts
            .iter()
            .map(|name| serde_json::json!({"name": name, "context": {"cluster": "c", "user": "u"}}))
            .collect();
        let mut whole =
            serde_json::json!({"apiVersion": "v1", "kind": "Config", "contexts": contexts});
        if let Some(current) = current {
            whole["current-context"] = current.into();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_named_context_else_the_current_one_and_what_there_is_is_told() {
        let both = kubeconfig(Some("a"), &["a", "b"]);
        assert_eq!(chosen(&both, None, "f").unwrap(), "a");
        assert_eq!(chosen(&both, Some("b"), "f").unwrap(), "b");
        let error = chosen(&both, Some("c"), "f").unwrap_err();
        assert_eq!(error.text, "the kubeconfig f has no context `c`: it has a, b");
        let error = chosen(&kubeconfig(Some("gone"), &["a"]), None, "f").unwrap_err();
        assert_eq!(error.text, "the kubeconfig f has no such current context `gone`: it has a");
        let error = chosen(&kubeconfig(None, &["a"]), None, "f").unwrap_err();
        assert!(error.text.contains("no current context: name one with --context (it has a)"));
        let error = chosen(&kubeconfig(Some(""), &[]), None, "f").unwrap_err();
        assert!(error.text.contains("it has none"), "{error}");
    }
}
