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
//! | who scrapes its own metrics | `scraping` |
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
mod scraping;
mod selection;
mod settings;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use self::{
    asked::{Rejected, Surroundings},
    settings::{IMAGE, InjectionSettings, InterceptionMode, SettingsError},
};
use self::{containers::Additions, options::Options, pod::Pod, record::Record, selection::Choice};

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

/// What the mesh has added to a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Added<'p> {
    /// The sidecar.
    pub proxy: &'p Value,
    /// The container that writes the redirection, if there is one.
    pub init: Option<&'p Value>,
    /// Whose it is; empty: not said.
    pub revision: String,
    /// Version of what added it; empty: not said.
    pub version: String,
}

/// What was added to this pod; `None`: it has no sidecar of the mesh.
#[must_use]
pub fn added(pod: &Value) -> Option<Added<'_>> {
    let named = |wanted: &str| {
        let lists = ["initContainers", "containers"];
        let all = lists.iter().filter_map(|list| pod["spec"][list].as_array()).flatten();
        all.into_iter().find(|container| pod::name(container) == wanted)
    };
    let proxy = named(names::PROXY)?;
    let status = pod["metadata"]["annotations"][names::STATUS].as_str().unwrap_or_default();
    let (revision, version) = record::said(status);
    Some(Added { proxy, init: named(names::INIT), revision, version })
}

/// The name of the workload that a pod belongs to, as metrics have it.
#[must_use]
pub fn workload_name(pod: &Value) -> String {
    let around = Surroundings { namespace: "", namespace_labels: None, workload: None };
    Pod::read(pod.clone()).map(|pod| identity::workload_name(&pod, around)).unwrap_or_default()
}

/// Has this pod a sidecar of the mesh? One that [`decide`] would have injected and that has none was created while
/// nobody injected.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    added(pod).is_some()
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
    warnings.extend(selection::refused_rights(around, &options, settings));
    let probes = if options.rewrite_probes {
        probes::rewrite(&mut pod, &mut warnings)
    } else {
        BTreeMap::default()
    };
    let mut record = Record::new(settings);
    let app_metrics = if options.scrape {
        scraping::take_over(&mut pod, &mut record.replaced_annotations, &mut warnings)
    } else {
        None
    };
    record.labels = identity::label(&mut pod, around);
    record.annotations = annotate(&mut pod, &options);
    Additions { around, options: &options, settings, probes: &probes, app_metrics }
        .put_into(&mut pod, &mut record)?;
    pod.annotations.insert(names::STATUS.to_owned(), record.to_text().into());
    Ok(Injected { pod: pod.into_value(), warnings })
}

/// Adds annotations that the pod does not have; returns their names.
fn annotate(pod: &mut Pod, options: &Options) -> Vec<String> {
    let mut wanted = Vec::new();
    // Where a pod is scraped already, and its metrics are not merged, they must go on being what is scraped.
    if options.scrape && !scraping::is_asked(pod) {
        wanted.extend(scraping::OURS);
    }
    let first = pod.containers.iter().map(pod::name).find(|name| *name != names::PROXY);
    let first = first.map(str::to_owned);
    if let Some(first) = &first {
        // What `kubectl logs` and `kubectl exec` mean without `-c`: the application.
        wanted.push(("kubectl.kubernetes.io/default-container", first));
    }
    let mut added = Vec::new();
    for (key, value) in wanted {
        if !pod.annotations.contains_key(key) {
            pod.annotations.insert(key.to_owned(), json!(value));
            added.push(key.to_owned());
        }
    }
    added
}

#[cfg(test)]
mod tests;
