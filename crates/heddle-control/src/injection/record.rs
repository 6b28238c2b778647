//! What was added to a pod, in its annotation `heddle.dev/status`: so that a second time changes nothing, and
//! another version can take it out again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    InjectionSettings, Rejected,
    names::{PROXY, STATUS},
    pod::{Pod, name},
    probes,
};

/// The annotation's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    revision: String,
    version: String,
    pub(super) init_containers: Vec<String>,
    pub(super) containers: Vec<String>,
    pub(super) volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) image_pull_secrets: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) annotations: Vec<String>,
    /// The user's annotations that ours replace, as they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) replaced_annotations: BTreeMap<String, Option<String>>,
    /// The user's containers that were merged into ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) overrides: Vec<Override>,
}

/// A user's container as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Override {
    pub(super) is_init: bool,
    pub(super) container: Value,
}

/// The revision and the version that an annotation's text names; empty where it names none.
pub(super) fn said(text: &str) -> (String, String) {
    let record: Value = serde_json::from_str(text).unwrap_or_default();
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    (text("revision"), text("version"))
}

impl Record {
    pub(super) fn new(settings: &InjectionSettings) -> Self {
        Self {
            revision: settings.revision.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            init_containers: Vec::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            image_pull_secrets: Vec::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
            replaced_annotations: BTreeMap::new(),
            overrides: Vec::new(),
        }
    }

    /// What the pod says was added to it.
    pub(super) fn of(pod: &Pod) -> Result<Option<Self>, Rejected> {
        let Some(text) = pod.annotations.get(STATUS).and_then(Value::as_str) else {
            return Ok(None);
        };
        serde_json::from_str(text).map(Some).map_err(|error| {
            Rejected::new(format!(
                "annotation {STATUS} was not written by the injector ({error}): remove it"
            ))
        })
    }

    /// Is it what would be added now?
    pub(super) fn is_current(&self, pod: &Pod, settings: &InjectionSettings) -> bool {
        let all = pod.containers.iter().chain(&pod.init_containers);
        self.revision == settings.revision
            && self.version == env!("CARGO_PKG_VERSION")
            && all.map(name).any(|name| name == PROXY)
    }

    /// Takes out of the pod what was added to it.
    pub(super) fn undo(self, pod: &mut Pod) -> Result<(), Rejected> {
        let asked = probes::given(pod);
        pod.init_containers
            .retain(|there| !self.init_containers.iter().any(|own| own == name(there)));
        pod.containers.retain(|there| !self.containers.iter().any(|own| own == name(there)));
        pod.volumes.retain(|there| !self.volumes.iter().any(|own| own == name(there)));
        pod.pull_secrets
            .retain(|there| !self.image_pull_secrets.iter().any(|own| own == name(there)));
        pod.labels.retain(|key, _| !self.labels.contains(key));
        pod.annotations.retain(|key, _| key != STATUS && !self.annotations.contains(key));
        for (key, before) in self.replaced_annotations {
            match before {
                Some(text) => drop(pod.annotations.insert(key, text.into())),
                None => drop(pod.annotations.remove(&key)),
            }
        }
        for Override { is_init, container } in self.overrides {
            if name(&container).is_empty() {
                return Err(Rejected::new(format!(
                    "annotation {STATUS} was not written by the injector (a container has no name): remove it"
                )));
            }
            let list = if is_init { &mut pod.init_containers } else { &mut pod.containers };
            list.push(container);
        }
        if pod.containers.is_empty() {
            return Err(Rejected::new("the pod has no container of its own"));
        }
        probes::restore(pod, &asked);
        Ok(())
    }

    /// As the annotation's text.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
