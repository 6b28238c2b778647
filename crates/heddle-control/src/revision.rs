//! What several installations of one cluster are told apart by: each has a revision and a namespace of its own, and
//! what belongs to the cluster as a whole carries the revision in its name. The revision `default` has the plain
//! names. The chart's templates say the same of what is installed by them.

use std::time::Duration;

use serde_json::{Value, json};

/// The revision that labels mean which name none.
pub const DEFAULT: &str = "default";
/// The label all objects of the mesh carry, with its value.
pub(crate) const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "heddle");
/// The label that says of which revision an object is; kinds, which all share, have none.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The mesh's authority: a Secret of the installation's namespace, with these keys: the issuing certificate with
/// those behind it, its key, and the roots.
pub(crate) const AUTHORITY: (&str, [&str; 3]) = ("heddle-ca", ["ca.crt", "ca.key", "root.crt"]);
/// The ConfigMap with the settings of injection, in the installation's namespace, and its key.
pub(crate) const SETTINGS: (&str, &str) = ("heddle-injector", "settings.yaml");
/// How often the injector looks at it.
pub const SETTINGS_EVERY: Duration = Duration::from_secs(5);
/// The webhooks that send pods, and those that send rules.
pub(crate) const INJECTOR: &str = "heddle-injector";
pub(crate) const VALIDATOR: &str = "heddle-validator";
/// The ConfigMap with the roots, in every namespace.
pub(crate) const ROOTS: &str = "heddle-ca-root-cert";

/// What an object that several revisions have is called by one of them.
pub(crate) fn named(name: &str, revision: &str) -> String {
    if revision == DEFAULT { name.to_owned() } else { format!("{name}-{revision}") }
}

/// The labels of an object of a revision.
pub(crate) fn labels(revision: &str) -> Value {
    let (key, value) = PART_OF;
    json!({key: value, INSTANCE: revision})
}
