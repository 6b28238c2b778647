//! What applying an object would change in the cluster, by the cluster's own word: a dry run beside what is there.

use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Cluster, FIELD_MANAGER, InstallationError, Place, failed};

/// What every change of an object changes, or what nobody applies.
const OF_THE_SERVER: [&str; 4] = ["managedFields", "resourceVersion", "generation", "uid"];

/// What applying an object would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", content = "fields", rename_all = "camelCase")]
pub enum Difference {
    /// It is not there.
    New,
    /// Nothing.
    None,
    /// These fields.
    Fields(Vec<FieldChange>),
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Where, as in `spec.replicas`; a line of a longer text is at the text's place.
    pub field: String,
    /// What is there; `None`: nothing.
    pub now: Option<Value>,
    /// What would be; `None`: nothing.
    pub then: Option<Value>,
}

impl Cluster {
    /// What [`Cluster::apply`] of this object would change.
    ///
    /// # Errors
    /// As there.
    pub async fn difference(&self, object: &Value) -> Result<Difference, InstallationError> {
        let place = Place::of(object)?;
        let Some(now) = self.get(object).await? else { return Ok(Difference::New) };
        let mut parameters = PatchParams::apply(FIELD_MANAGER).force();
        parameters.dry_run = true;
        let then = self.api(&place).patch(&place.name, &parameters, &Patch::Apply(object)).await;
        let then = then.map_err(|e| failed(&format!("apply {place}"), &e))?;
        let then = serde_json::to_value(then).map_err(|e| failed(&format!("read {place}"), &e))?;
        let mut fields = Vec::new();
        compare("", Some(&bare(now)), Some(&bare(then)), &mut fields);
        Ok(if fields.is_empty() { Difference::None } else { Difference::Fields(fields) })
    }
}

fn bare(mut object: Value) -> Value {
    if let Some(whole) = object.as_object_mut() {
        whole.remove("status");
        if let Some(Value::Object(metadata)) = whole.get_mut("metadata") {
            metadata.retain(|key, _| !OF_THE_SERVER.contains(&key.as_str()));
        }
    }
    object
}

fn compare(at: &str, now: Option<&Value>, then: Option<&Value>, found: &mut Vec<FieldChange>) {
    if now == then {
        return;
    }
    match (now, then) {
        (Some(Value::Object(now)), Some(Value::Object(then))) => {
            let below =
                |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
            for key in keys(now, then) {
                compare(&below(key), now.get(key), then.get(key), found);
            }
        }
        (Some(Value::Array(now)), Some(Value::Array(then))) => {
            for i in 0..now.len().max(then.len()) {
                compare(&format!("{at}[{i}]"), now.get(i), then.get(i), found);
            }
        }
        (Some(Value::String(now)), Some(Value::String(then))) if now.contains('\n') => {
            let lines = |of: &str, other: &str| -> Vec<Value> {
                let differ = of.lines().filter(|line| !other.lines().any(|there| there == *line));
                differ.map(Value::from).collect()
            };
            let (gone, come) = (lines(now, then), lines(then, now));
            for i in 0..gone.len().max(come.len()) {
                let (now, then) = (gone.get(i).cloned(), come.get(i).cloned());
                found.push(FieldChange { field: at.to_owned(), now, then });
            }
        }
        _ => {
            found.push(FieldChange { field: at.to_owned(), now: now.cloned(), then: then.cloned() })
        }
    }
}

fn keys<'v>(now: &'v Map<String, Value>, then: &'v Map<String, Value>) -> Vec<&'v str> {
    let all = now.keys().chain(then.keys().filter(|key| !now.contains_key(*key)));
    all.map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ_are_told_by_their_place() {
        let now = json!({
            "metadata": {"name": "x", "generation": 1, "labels": {"a": "1"}},
            "spec": {"containers": [{"image": "a"}], "gone": true},
            "data": {"settings.yaml": "image: a\nrevision: x\n"},
            "status": {"ready": true},
        });
        let then = json!({
            "metadata": {"name": "x", "generation": 2, "labels": {"a": "1", "b": "2"}},
            "spec": {"containers": [{"image": "b"}, {"image": "c"}]},
            "data": {"settings.yaml": "image: b\nrevision: x\n"},
        });
        let mut found = Vec::new();
        compare("", Some(&bare(now.clone())), Some(&bare(then)), &mut found);
        let mut told: Vec<_> = found
            .iter()
            .map(|one| {
                let shown = |value: &Option<Value>| {
                    value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string)
                };
                format!("{}: {} {}", one.field, shown(&one.now), shown(&one.then))
            })
            .collect();
        told.sort_unstable();
        assert_eq!(
            told,
            [
                "data.settings.yaml: \"image: a\" \"image: b\"",
                "metadata.labels.b: - \"2\"",
                "spec.containers[0].image: \"a\" \"b\"",
                "spec.containers[1]: - {\"image\":\"c\"}",
                "spec.gone: true -",
            ]
        );
        let mut none = Vec::new();
        compare("", Some(&now), Some(&now), &mut none);
        assert!(none.is_empty());
    }
}
