//! Objects that are rules, as the API server has them, read as rules are read everywhere: as text, so that
//! what is wrong with one is told in the same words. What is needed to write its status is kept beside.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use heddle_model::{ResourceKey, timestamp};
use heddle_wire::local::control_api::Problem;
use serde_json::{Value, json};

use super::{client::Kind, objects::ObjectName, watch::Change};
use crate::{control::RuleChange, documents::parse, revision};

/// The annotation by which `kubectl apply` keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object whose status is ours to write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    /// Its kind.
    pub(crate) kind: Kind,
    /// `metadata.generation` of the version that is in force or refused.
    pub(crate) generation: i64,
    /// `metadata.resourceVersion`, so that nobody's change is overwritten.
    pub(crate) version: String,
    /// Its status as it was read last.
    pub(crate) status: Value,
    /// The generation of the mesh that carries it.
    pub(crate) carried: u64,
}

/// Labels of a rule that is one revision's only, ours and Istio's.
const REVISION_LABELS: [&str; 2] = ["heddle.dev/rev", "istio.io/rev"];

/// What is known of every rule of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct RuleBook {
    /// Rules that name another are none of ours.
    revision: Arc<str>,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    written: BTreeMap<ResourceKey, Written>,
    /// Versions of those that are another revision's.
    others: BTreeMap<ResourceKey, String>,
    /// The generation of the mesh without what went last.
    gone: u64,
}

impl Default for RuleBook {
    fn default() -> Self {
        Self::of_revision(revision::DEFAULT)
    }
}

impl RuleBook {
    /// Rules of this revision, and of none.
    pub(crate) fn of_revision(revision: &str) -> Self {
        Self { revision: revision.into(), book: Arc::default() }
    }

    /// Takes in a change of an object of `kind`. `None`: nothing but its status has changed.
    pub(crate) fn take(&self, kind: &Kind, change: Change<Value>) -> Option<RuleChange> {
        let object = match change {
            Change::Gone(name) => {
                let key = key(kind, name);
                let mut book = self.book();
                book.written.remove(&key);
                book.others.remove(&key);
                return Some(RuleChange { key, created: 0, said: None });
            }
            Change::Put(object) => object,
        };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = key(kind, (text("namespace"), text("name")));
        let written = Written {
            kind: kind.clone(),
            generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
            version: text("resourceVersion"),
            status: object["status"].clone(),
            carried: self.of(&key).map_or(0, |before| before.carried),
        };
        // Annotations count, and are no part of the generation.
        let created = timestamp::parse(&text("creationTimestamp")).unwrap_or_default();
        let labels = &object["metadata"]["labels"];
        let mut named = REVISION_LABELS.iter().filter_map(|label| labels[label].as_str());
        if named.any(|revision| *revision != *self.revision) {
            let mut book = self.book();
            book.written.remove(&key);
            book.others.insert(key.clone(), written.version);
            return Some(RuleChange { key, created, said: None });
        }
        self.book().put(key.clone(), written);
        let said = read(kind, &key, object).transpose();
        Some(RuleChange { key, created, said })
    }

    /// What is to be known to write the status of an object.
    pub(crate) fn of(&self, key: &ResourceKey) -> Option<Written> {
        self.book().written.get(key).cloned()
    }

    /// Has this version of an object been taken in, or a later one? `None`: is it gone?
    pub(crate) fn has_seen(&self, key: &ResourceKey, version: Option<&str>) -> bool {
        let book = self.book();
        let known = book.written.get(key).map(|known| &known.version);
        match (known.or_else(|| book.others.get(key)), version) {
            (None, wanted) => wanted.is_none(),
            (Some(_), None) => false,
            (Some(known), Some(wanted)) => is_as_new(known, wanted),
        }
    }

    /// Notes that this generation of the mesh holds what was taken in of these.
    pub(crate) fn carry(&self, keys: &[ResourceKey], generation: u64) {
        let mut book = self.book();
        for key in keys {
            match book.written.get_mut(key) {
                Some(written) => written.carried = generation,
                None => book.gone = generation,
            }
        }
    }

    /// The generation that holds what was taken in of this one.
    pub(crate) fn carried(&self, key: &ResourceKey) -> u64 {
        let book = self.book();
        book.written.get(key).map_or(book.gone, |written| written.carried)
    }

    /// Every rule with the version of it that was taken in (`metadata.generation`), and the generation that holds it.
    pub(crate) fn all_carried(&self) -> Vec<(ResourceKey, i64, u64)> {
        let book = self.book();
        let all = book.written.iter();
        all.map(|(key, one)| (key.clone(), one.generation, one.carried)).collect()
    }

    /// Notes a status that was written.
    pub(crate) fn note(&self, key: &ResourceKey, answer: &Value) {
        let mut book = self.book();
        let Some(written) = book.written.get_mut(key) else { return };
        written.status = answer["status"].clone();
        if let Some(version) = answer["metadata"]["resourceVersion"].as_str() {
            version.clone_into(&mut written.version);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn put(&mut self, key: ResourceKey, written: Written) {
        self.others.remove(&key);
        self.written.insert(key, written);
    }
}

/// Versions are numbers of one sequence (KEP-5504); of a server whose are none, only the same one is known.
fn is_as_new(known: &str, wanted: &str) -> bool {
    match (known.parse::<u128>(), wanted.parse::<u128>()) {
        (Ok(known), Ok(wanted)) => known >= wanted,
        _ => known == wanted,
    }
}

fn key(kind: &Kind, (namespace, name): ObjectName) -> ResourceKey {
    ResourceKey { kind: kind.kind.clone(), namespace, name }
}

/// Reads an object as a rule; `None` if it is none of this mesh's (a route of gateways only).
fn read(
    kind: &Kind,
    key: &ResourceKey,
    object: Value,
) -> Result<Option<Arc<heddle_model::resource::Resource>>, Vec<Problem>> {
    let Value::Object(mut fields) = object else {
        let reason = format!("{key} is no object");
        return Err(vec![Problem { reason, ..Problem::default() }]);
    };
    fields.remove("status");
    // Lists of some kinds leave these out of their items.
    fields.insert("apiVersion".to_owned(), json!(kind.api_version()));
    fields.insert("kind".to_owned(), json!(kind.kind));
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.remove("managedFields");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    // Indented, so that a line says a place.
    let text = serde_json::to_string_pretty(&Value::Object(fields)).unwrap_or_default();
    let parsed = parse(&key.to_string(), &text, &key.namespace)?;
    Ok(parsed.resources.into_iter().next().map(Arc::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind::new("networking.istio.io", "v1", "VirtualService", "virtualservices")
    }

    fn object(http: Value) -> Value {
        json!({
            "metadata": {
                "name": "reviews", "namespace": "shop", "generation": 3, "resourceVersion": "17",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED: "{}", "heddle.dev/retry-unsafe": "true"},
            },
            "spec": {"hosts": ["reviews"], "http": http},
            "status": {"conditions": []},
        })
    }

    #[test]
    fn an_object_is_a_rule_named_by_kind_namespace_and_name() {
        let book = RuleBook::default();
        let route = json!([{"route": [{"destination": {"host": "reviews"}}]}]);
        let change = book.take(&kind(), Change::Put(object(route))).unwrap();
        let resource = change.said.unwrap().unwrap();
        assert_eq!(resource.key.to_string(), "VirtualService/shop/reviews");
        assert_eq!(resource.origin.file, "VirtualService/shop/reviews");
        assert_eq!(resource.annotations.len(), 1);
        assert!(!resource.text.contains("managedFields") && !resource.text.contains("status"));
        assert_eq!(timestamp::format(change.created), "2026-01-02T03:04:05Z");
        assert_eq!(book.of(&change.key).unwrap().generation, 3);
        let gone =
            book.take(&kind(), Change::Gone(("shop".to_owned(), "reviews".to_owned()))).unwrap();
        assert!(gone.said.is_none() && book.of(&gone.key).is_none());
    }

    #[test]
    fn a_rule_that_names_another_revision_is_none_of_ours_and_is_taken_back() {
        let book = RuleBook::of_revision("canary");
        let route = || json!([{"route": [{"destination": {"host": "reviews"}}]}]);
        let said = |revision: Option<&str>| {
            let mut rule = object(route());
            if let Some(revision) = revision {
                rule["metadata"]["labels"] = json!({"istio.io/rev": revision});
            }
            let change = book.take(&kind(), Change::Put(rule)).unwrap();
            (change.said.is_some(), book.of(&change.key).is_some())
        };
        for ours in [None, Some("canary")] {
            assert_eq!(said(ours), (true, true), "{ours:?}");
            assert_eq!(said(Some("default")), (false, false));
        }
    }

    #[test]
    fn a_version_has_been_seen_when_it_or_a_later_one_was_taken_in() {
        let book = RuleBook::default();
        let route = json!([{"route": [{"destination": {"host": "reviews"}}]}]);
        let key = book.take(&kind(), Change::Put(object(route))).unwrap().key;
        for (version, seen) in
            [(Some("9"), true), (Some("17"), true), (Some("18"), false), (None, false)]
        {
            assert_eq!(book.has_seen(&key, version), seen, "{version:?}");
        }
        book.carry(std::slice::from_ref(&key), 7);
        let route = json!([{"route": [{"destination": {"host": "ratings"}}]}]);
        book.take(&kind(), Change::Put(object(route)));
        assert_eq!(book.carried(&key), 7);
        book.take(&kind(), Change::Gone(("shop".to_owned(), "reviews".to_owned())));
        book.carry(std::slice::from_ref(&key), 8);
        assert_eq!(book.carried(&key), 8);
        assert!(book.has_seen(&key, None) && !book.has_seen(&key, Some("17")));
        assert!(is_as_new("abc", "abc") && !is_as_new("abd", "abc"));
    }

    #[test]
    fn what_is_wrong_with_one_is_told_with_its_field() {
        let book = RuleBook::default();
        let route = json!([{"route": [{"destination": {"host": "reviews"}, "weight": -1}]}]);
        let change = book.take(&kind(), Change::Put(object(route))).unwrap();
        let problems = change.said.unwrap().unwrap_err();
        assert_eq!(problems[0].field.as_deref(), Some("spec.http[0].route[0].weight"));
        assert!(problems[0].line.unwrap() > 1, "{problems:?}");
    }

    #[test]
    fn a_route_of_gateways_is_none_of_the_meshs() {
        let kind = Kind::new("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
        let route = json!({
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "gw"}], "rules": []},
        });
        let change = RuleBook::default().take(&kind, Change::Put(route)).unwrap();
        assert!(matches!(change.said, None | Some(Ok(_))));
    }
}
