//! The difference of two JSON values as the operations of a JSON patch (RFC 6902).
//!
//! Objects are gone into, lists are replaced whole: what is put into a pod shifts most of a list anyway.

use serde_json::{Map, Value, json};

/// Operations that make `to` of `from`.
pub(super) fn between(from: &Value, to: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    compare("", from, to, &mut operations);
    operations
}

fn compare(path: &str, from: &Value, to: &Value, operations: &mut Vec<Value>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => entries(path, from, to, operations),
        _ if from == to => {}
        _ => operations.push(json!({"op": "replace", "path": path, "value": to})),
    }
}

fn entries(
    path: &str,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    operations: &mut Vec<Value>,
) {
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        operations.push(json!({"op": "remove", "path": below(path, key)}));
    }
    for (key, value) in to {
        let path = below(path, key);
        match from.get(key) {
            Some(before) => compare(&path, before, value, operations),
            None => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}

fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_gone_into_and_lists_replaced() {
        let from = json!({"a": {"x/y": 1, "gone": 2}, "l": [1, 2], "same": [1]});
        let to = json!({"a": {"x/y": 3, "~": 4}, "l": [1], "same": [1]});
        let expected = vec![
            json!({"op": "remove", "path": "/a/gone"}),
            json!({"op": "replace", "path": "/a/x~1y", "value": 3}),
            json!({"op": "add", "path": "/a/~0", "value": 4}),
            json!({"op": "replace", "path": "/l", "value": [1]}),
        ];
        assert_eq!(between(&from, &to), expected);
        assert_eq!(between(&from, &from), Vec::<Value>::new());
    }
}
