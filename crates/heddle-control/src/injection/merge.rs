//! A user's container over ours, as `kubectl patch` merges by default: fields replace fields, objects merge,
//! lists whose entries have a key merge by it, other lists are replaced, null removes.

use serde_json::{Map, Value};

/// Stands for our image in a user's container, which Kubernetes wants to have one.
const IMAGE_OURS: &str = "auto";
/// Probes and hooks: of what they do there can be one only.
const HANDLERS: [&str; 5] = ["exec", "grpc", "httpGet", "sleep", "tcpSocket"];

/// `ours` with what `theirs` says.
pub(super) fn container(ours: Value, theirs: &Value) -> Value {
    let (Value::Object(mut merged), Value::Object(theirs)) = (ours, theirs) else {
        return theirs.clone();
    };
    for (key, value) in theirs {
        match (key.as_str(), value) {
            ("name", _) => {}
            ("image", Value::String(image)) if image == IMAGE_OURS || image.is_empty() => {}
            _ => set(&mut merged, key, value),
        }
    }
    Value::Object(merged)
}

fn set(into: &mut Map<String, Value>, key: &str, value: &Value) {
    if value.is_null() {
        into.shift_remove(key);
        return;
    }
    let merged = match (into.get_mut(key), value) {
        (Some(Value::Object(ours)), Value::Object(theirs)) => {
            merge(ours, theirs);
            return;
        }
        (Some(Value::Array(ours)), Value::Array(theirs)) if key_of(key).is_some() => {
            merge_list(ours, theirs, key_of(key).unwrap_or_default());
            return;
        }
        _ => value.clone(),
    };
    into.insert(key.to_owned(), merged);
}

fn merge(ours: &mut Map<String, Value>, theirs: &Map<String, Value>) {
    if HANDLERS.iter().any(|handler| theirs.contains_key(*handler)) {
        ours.retain(|key, _| !HANDLERS.contains(&key.as_str()) || theirs.contains_key(key));
    }
    for (key, value) in theirs {
        set(ours, key, value);
    }
}

/// The field that tells the entries of a container's list apart.
fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "env" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        _ => None,
    }
}

/// An entry of the same key is replaced where it stands; variables that others use come before these.
fn merge_list(ours: &mut Vec<Value>, theirs: &[Value], key: &str) {
    for entry in theirs {
        let same = |own: &&mut Value| own.get(key).is_some() && own.get(key) == entry.get(key);
        match ours.iter_mut().find(same) {
            Some(own) => *own = entry.clone(),
            None => ours.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_objects_and_keyed_lists_merge() {
        let ours = json!({
            "name": "heddle-proxy", "image": "ours", "args": ["proxy"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}],
            "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}},
            "startupProbe": {"httpGet": {"port": 1}, "periodSeconds": 1},
            "volumeMounts": [{"name": "x", "mountPath": "/x"}],
        });
        let theirs = json!({
            "name": "istio-proxy", "image": "auto", "args": ["other"],
            "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
            "resources": {"limits": {"memory": null, "cpu": "2"}},
            "startupProbe": {"exec": {"command": ["x"]}},
            "volumeMounts": [{"name": "y", "mountPath": "/y"}],
            "tty": true,
        });
        let expected = json!({
            "name": "heddle-proxy", "image": "ours", "args": ["other"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
            "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}},
            "startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "x", "mountPath": "/x"}, {"name": "y", "mountPath": "/y"}],
            "tty": true,
        });
        assert_eq!(container(ours, &theirs), expected);
    }
}
