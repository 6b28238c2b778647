//! A pod taken apart: what injection looks at, in its place, and everything else untouched.

use serde_json::{Map, Value, map::Entry};

use super::{Rejected, names::Name};

/// A pod. What is not a field here is in `root`, `metadata` or `spec`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    root: Map<String, Value>,
    pub(super) metadata: Map<String, Value>,
    pub(super) labels: Map<String, Value>,
    pub(super) annotations: Map<String, Value>,
    pub(super) spec: Map<String, Value>,
    pub(super) containers: Vec<Value>,
    pub(super) init_containers: Vec<Value>,
    pub(super) volumes: Vec<Value>,
    pub(super) pull_secrets: Vec<Value>,
}

impl Pod {
    /// Takes a pod apart. An absent or null part is an empty one.
    pub(super) fn read(whole: Value) -> Result<Self, Rejected> {
        let Value::Object(mut root) = whole else {
            return Err(Rejected::new("the pod is no object"));
        };
        let mut metadata = object(&mut root, "metadata", "metadata")?;
        let labels = texts(&mut metadata, "labels")?;
        let annotations = texts(&mut metadata, "annotations")?;
        let mut spec = object(&mut root, "spec", "spec")?;
        let containers = named(&mut spec, "containers")?;
        if containers.is_empty() {
            return Err(Rejected::new(
                "spec.containers is empty: a pod has at least one container",
            ));
        }
        let init_containers = named(&mut spec, "initContainers")?;
        let volumes = named(&mut spec, "volumes")?;
        let pull_secrets = list(&mut spec, "imagePullSecrets")?;
        Ok(Self {
            root,
            metadata,
            labels,
            annotations,
            spec,
            containers,
            init_containers,
            volumes,
            pull_secrets,
        })
    }

    /// Puts it together again; a part stands where it stood.
    pub(super) fn into_value(mut self) -> Value {
        put_map(&mut self.metadata, "labels", self.labels);
        put_map(&mut self.metadata, "annotations", self.annotations);
        put_list(&mut self.spec, "initContainers", self.init_containers);
        put_list(&mut self.spec, "containers", self.containers);
        put_list(&mut self.spec, "volumes", self.volumes);
        put_list(&mut self.spec, "imagePullSecrets", self.pull_secrets);
        put_map(&mut self.root, "metadata", self.metadata);
        put_map(&mut self.root, "spec", self.spec);
        Value::Object(self.root)
    }

    /// A label's value.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).and_then(Value::as_str)
    }

    /// What an annotation says, by either of its names, and the one it has here.
    pub(super) fn annotation(&self, name: Name) -> Result<Option<(&'static str, &str)>, Rejected> {
        one_of("annotation", name, |key| self.annotations.get(key).and_then(Value::as_str))
    }

    /// All containers that run for as long as the pod: its own, and the native sidecars.
    pub(super) fn lasting_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        let sidecars = self
            .init_containers
            .iter_mut()
            .filter(|container| text(container, "restartPolicy") == Some("Always"));
        sidecars.chain(&mut self.containers)
    }
}

/// What is said under one of two names; if under both, it must be the same.
pub(super) fn one_of<'v>(
    what: &str,
    name: Name,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<Option<(&'static str, &'v str)>, Rejected> {
    let ours = value(name.ours).map(str::trim);
    let istio = value(name.istio).map(str::trim);
    match (ours, istio) {
        (Some(one), Some(other)) if one != other => Err(Rejected::new(format!(
            "the {what}s `{}: {one}` and `{}: {other}` contradict each other: keep one",
            name.ours, name.istio
        ))),
        (Some(text), _) => Ok(Some((name.ours, text))),
        (None, Some(text)) => Ok(Some((name.istio, text))),
        (None, None) => Ok(None),
    }
}

/// The name of a container or volume.
pub(super) fn name(value: &Value) -> &str {
    text(value, "name").unwrap_or_default()
}

/// A text of an object.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

/// Takes a part out and leaves its place; an absent one is left absent.
fn take(of: &mut Map<String, Value>, key: &str) -> Value {
    of.get_mut(key).map(Value::take).unwrap_or_default()
}

fn object(
    of: &mut Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Map<String, Value>, Rejected> {
    match take(of, key) {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err(Rejected::new(format!("{path} is no object"))),
    }
}

fn texts(metadata: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, Rejected> {
    let path = format!("metadata.{key}");
    let map = object(metadata, key, &path)?;
    match map.iter().find(|(_, value)| !value.is_string()) {
        Some((key, value)) => Err(Rejected::new(format!(
            "{path}: `{key}` is {value}, which is no text: put it in quotes"
        ))),
        None => Ok(map),
    }
}

fn list(spec: &mut Map<String, Value>, key: &str) -> Result<Vec<Value>, Rejected> {
    match take(spec, key) {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items),
        _ => Err(Rejected::new(format!("spec.{key} is no list"))),
    }
}

fn named(spec: &mut Map<String, Value>, key: &str) -> Result<Vec<Value>, Rejected> {
    let items = list(spec, key)?;
    match items.iter().position(|item| name(item).is_empty()) {
        Some(at) => Err(Rejected::new(format!("spec.{key}[{at}] is no object with a name"))),
        None => Ok(items),
    }
}

fn put_map(of: &mut Map<String, Value>, key: &str, map: Map<String, Value>) {
    put(of, key, map.is_empty(), Value::Object(map));
}

fn put_list(of: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    put(of, key, list.is_empty(), Value::Array(list));
}

fn put(of: &mut Map<String, Value>, key: &str, is_empty: bool, value: Value) {
    match of.entry(key) {
        Entry::Occupied(mut place) => {
            place.insert(value);
        }
        Entry::Vacant(_) if is_empty => {}
        Entry::Vacant(place) => {
            place.insert(value);
        }
    }
}
