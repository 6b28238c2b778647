//! `heddle inject`: the sidecar in manifests, as the cluster's webhook would add it to their pods.
//!
//! Offline: namespaces' labels are not known, so what is given is taken as chosen, but for what pods say
//! themselves. Documents that hold no pods keep their text.

use std::fs;

use heddle_control::injection::{self, Decision, InjectionSettings, Surroundings};
use heddle_model::yaml::{self, JsonDocument};
use serde_json::{Value, json};

use crate::{
    cli::pods::{InjectArgs, InjectOutput},
    failure::{Doing as _, Failure},
    output,
    rules::files,
};

/// What a file's documents became.
struct Injection<'a> {
    settings: InjectionSettings,
    namespace: &'a str,
    problems: Vec<String>,
}

/// `heddle inject`.
///
/// # Errors
/// A refusal with every problem found, each with its file, line and object; then nothing is printed.
pub(crate) fn inject(args: &InjectArgs) -> Result<(), Failure> {
    let settings = settings(args)?;
    let mut injection = Injection { settings, namespace: &args.namespace, problems: Vec::new() };
    let mut documents = Vec::new();
    for file in files::read(&args.filename)? {
        match yaml::documents(&file.file, &file.text) {
            Ok(read) => {
                let done =
                    read.into_iter().map(|document| injection.document(&file.file, document));
                documents.extend(done);
            }
            Err(errors) => injection.problems.extend(errors.iter().map(ToString::to_string)),
        }
    }
    if !injection.problems.is_empty() {
        return Err(Failure::refused(injection.problems.join("\n")));
    }
    match args.output {
        InjectOutput::Yaml => {
            let texts: Vec<&str> = documents.iter().map(|one| one.text.trim_end()).collect();
            output::line(texts.join("\n---\n"));
            Ok(())
        }
        InjectOutput::Json => {
            let mut values: Vec<Value> = documents.into_iter().map(|one| one.value).collect();
            if values.len() == 1 {
                return output::json(&values.remove(0));
            }
            output::json(&json!({"apiVersion": "v1", "kind": "List", "items": values}))
        }
    }
}

fn settings(args: &InjectArgs) -> Result<InjectionSettings, Failure> {
    let Some(path) = &args.settings else { return Ok(InjectionSettings::default()) };
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).doing(|| format!("read {shown}"))?;
    InjectionSettings::from_yaml(&shown, &text).map_err(|error| Failure::refused(error.to_string()))
}

impl Injection<'_> {
    fn document(&mut self, file: &str, mut document: JsonDocument) -> JsonDocument {
        let place = format!("{file}:{}", document.line);
        let changed = self.object(&place, &mut document.value);
        if changed {
            document.text = yaml::to_yaml(&document.value);
        }
        document
    }

    /// Injects an object, or those of a list; tells whether anything changed.
    fn object(&mut self, place: &str, object: &mut Value) -> bool {
        let kind = text(object, "kind").to_owned();
        if let Some(Value::Array(items)) =
            object.get_mut("items").filter(|_| kind.ends_with("List"))
        {
            return items.iter_mut().fold(false, |any, item| self.object(place, item) | any);
        }
        let Some(path) = path_of_pod(&kind) else { return false };
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let name = text(metadata, "name").to_owned();
        let namespace = match text(metadata, "namespace") {
            "" => self.namespace.to_owned(),
            namespace => namespace.to_owned(),
        };
        let workload = (!path.is_empty() && !name.is_empty()).then_some(name.as_str());
        let around = Surroundings { namespace: &namespace, namespace_labels: None, workload };
        let Some(pod) = object.pointer_mut(path) else { return false };
        let shown = format!("{place}: {kind} {namespace}/{name}");
        match injection::decide(around, pod, &self.settings) {
            Decision::Skip(reason) => {
                output::notice(format!("{shown} is not injected: {reason}"));
                return false;
            }
            Decision::Reject(reason) => {
                self.problems.push(format!("{shown}: {reason}"));
                return false;
            }
            Decision::Inject => {}
        }
        match injection::inject(around, pod, &self.settings) {
            Ok(injected) => {
                for warning in injected.warnings {
                    output::notice(format!("{shown}: {warning}"));
                }
                let changed = *pod != injected.pod;
                *pod = injected.pod;
                changed
            }
            Err(reason) => {
                self.problems.push(format!("{shown}: {reason}"));
                false
            }
        }
    }
}

/// Where in an object its pod is; `None` if it has none.
fn path_of_pod(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "DaemonSet"
        | "Deployment"
        | "Job"
        | "ReplicaSet"
        | "ReplicationController"
        | "StatefulSet" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
