//! What becomes of a pod: whether the mesh adds its two containers, and the pod with them.
//!
//! Pure functions over JSON, so that a field nobody here knows survives. The webhook and `heddle inject` call
//! the same two: [`decide`] and [`inject`]. Istio's labels and annotations mean what they mean there, and
//! each has an equivalent under `heddle.dev/`. Nothing is guessed: what is malformed or contradicts itself
//! is refused, naming the annotation.
//!
//! | question | module |
//! |---|---|
//! | where it is to run, why it cannot | `asked` |
//! | what a pod holds, as far as it matters here | `pod` |
//! | is it to be injected | `selection` |
//! | what its annotations ask for | `options`, `capture`, `names` |
//! | the containers and volumes that are added | `containers`, `merge` |
//! | what its probes become | `probes` |
//! | what was added, and how it is taken out again | `record` |

mod asked;
mod capture;
mod containers;
mod identity;
mod merge;
mod names;
mod options;
mod pod;
mod probes;
mod record;
mod selection;
mod settings;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use self::{
    asked::{Rejected, Surroundings},
    settings::{InjectionSettings, SettingsError},
};
use self::{containers::Added, options::Options, pod::Pod, record::Record, selection::Choice};

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The mesh's containers are added.
    Inject,
    /// It stays as it is, for this reason.
    Skip(String),
    /// It is refused: it asks for what cannot be, and this is what.
    Reject(String),
}

/// A pod with the mesh's containers.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// What its author should know: one sentence each.
    pub warnings: Vec<String>,
}

/// Is this pod to be injected?
#[must_use]
pub fn decide(around: Surroundings<'_>, pod: &Value, settings: &InjectionSettings) -> Decision {
    let decided = Pod::read(pod.clone()).and_then(|pod| {
        let choice = selection::choose(around, &pod, settings)?;
        if choice == Choice::Yes {
            Record::of(&pod)?;
            Options::read(&pod, settings)?;
        }
        Ok(choice)
    });
    match decided {
        Ok(Choice::Yes) => Decision::Inject,
        Ok(Choice::No(reason)) => Decision::Skip(reason),
        Err(refused) => Decision::Reject(refused.to_string()),
    }
}

/// What became of a pod that is to be created.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It has the mesh's containers.
    Injected(Injected),
    /// It stays as it is, for this reason.
    Unchanged(String),
}

/// [`decide`] and [`inject`] in one, at half the cost.
///
/// # Errors
/// [`Rejected`]: the pod asks for what cannot be.
pub fn admit(
    around: Surroundings<'_>,
    pod: &Value,
    settings: &InjectionSettings,
) -> Result<Admission, Rejected> {
    let pod = Pod::read(pod.clone())?;
    match selection::choose(around, &pod, settings)? {
        Choice::Yes => injected(around, pod, settings).map(Admission::Injected),
        Choice::No(reason) => Ok(Admission::Unchanged(reason)),
    }
}

/// Has this pod a sidecar of the mesh? One that [`decide`] would have injected and that has none was created while
/// nobody injected.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    let lists = ["initContainers", "containers"].map(|list| pod.get("spec")?.get(list)?.as_array());
    lists.into_iter().flatten().flatten().any(|container| pod::name(container) == names::PROXY)
}

/// The pod with the mesh's containers, whether or not [`decide`] would have them. A pod that has them of this
/// revision and version stays as it is, but for probes that were added since; one that has others gets these instead.
///
/// # Errors
/// [`Rejected`]: the pod is none, or an annotation is malformed or contradicts another.
pub fn inject(
    around: Surroundings<'_>,
    pod: &Value,
    settings: &InjectionSettings,
) -> Result<Injected, Rejected> {
    injected(around, Pod::read(pod.clone())?, settings)
}

fn injected(
    around: Surroundings<'_>,
    mut pod: Pod,
    settings: &InjectionSettings,
) -> Result<Injected, Rejected> {
    match Record::of(&pod)? {
        Some(record) if record.is_current(&pod, settings) => {
            let options = Options::read(&pod, settings)?;
            let mut warnings = Vec::new();
            if options.rewrite_probes {
                let added = probes::rewrite(&mut pod, &mut warnings);
                probes::give(&mut pod, &added)?;
            }
            return Ok(Injected { pod: pod.into_value(), warnings });
        }
        Some(record) => record.undo(&mut pod)?,
        None => {}
    }
    let options = Options::read(&pod, settings)?;
    let mut warnings = options.warnings.clone();
    warnings.extend(selection::warnings(&pod, settings));
    let probes = if options.rewrite_probes {
        probes::rewrite(&mut pod, &mut warnings)
    } else {
        BTreeMap::default()
    };
    let mut record = Record::new(settings);
    record.labels = identity::label(&mut pod, around);
    record.annotations = annotate(&mut pod, &options);
    Added { around, options: &options, settings, probes: &probes }
        .put_into(&mut pod, &mut record)?;
    pod.annotations.insert(names::STATUS.to_owned(), record.to_text().into());
    Ok(Injected { pod: pod.into_value(), warnings })
}

/// Adds annotations that the pod does not have; returns their names.
fn annotate(pod: &mut Pod, options: &Options) -> Vec<String> {
    let mut wanted = Vec::new();
    // Where a pod is scraped already, its own metrics must go on being what is scraped.
    if options.scrape && !pod.annotations.keys().any(|key| key.starts_with("prometheus.io/")) {
        wanted.extend([
            ("prometheus.io/scrape", json!("true")),
            ("prometheus.io/port", json!("15020")),
            ("prometheus.io/path", json!("/stats/prometheus")),
        ]);
    }
    if let Some(first) = pod.containers.iter().map(pod::name).find(|name| *name != names::PROXY) {
        // What `kubectl logs` and `kubectl exec` mean without `-c`: the application.
        wanted.push(("kubectl.kubernetes.io/default-container", json!(first)));
    }
    let mut added = Vec::new();
    for (key, value) in wanted {
        if !pod.annotations.contains_key(key) {
            pod.annotations.insert(key.to_owned(), value);
            added.push(key.to_owned());
        }
    }
    added
}

#[cfg(test)]
mod tests;
