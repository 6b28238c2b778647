//! YAML documents into resources, every error with file, line, field and what would be right.
//!
//! All errors of a file are told together and nothing of a faulty file is accepted. Istio's
//! `VirtualService` and `DestinationRule` are read with every field they have; what is valid but
//! without effect yet is noted in [`Resource::not_enforced`]. JSON is YAML here, a `kind: List` is
//! its items, and several documents are separated by `---`.
//!
//! Not here: whether what a rule names exists. That changes without the rule and is said by
//! `heddle-compile`.

use std::collections::BTreeMap;

use crate::{
    ResourceKey,
    resource::{Origin, Resource, Spec},
};

mod base64;
mod destination_rule;
mod emit;
mod node;
mod report;
mod schema;
mod value;
mod virtual_service;

use node::{Document, Node};
pub use report::ParseError;
use report::{Report, suggest};
use schema::{Kind, LABELS, Object, join, optional, required};

/// API versions under which Istio serves its networking kinds.
const API_VERSIONS: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// Kinds that can be read.
const KINDS: &[&str] = &["VirtualService", "DestinationRule"];
/// Kinds of Istio, Gateway API and Heddle that are known and not read yet.
const KINDS_TO_COME: &[&str] = &[
    "Gateway",
    "ServiceEntry",
    "WorkloadEntry",
    "WorkloadGroup",
    "Sidecar",
    "ProxyConfig",
    "EnvoyFilter",
    "PeerAuthentication",
    "RequestAuthentication",
    "AuthorizationPolicy",
    "Telemetry",
    "WasmPlugin",
    "TrafficExtension",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "ReferenceGrant",
    "ErrorBudget",
    "Fault",
];
/// Our annotations.
const ANNOTATIONS: &[&str] = &[
    "heddle.dev/fault-expires",
    "heddle.dev/mirror-compare",
    "heddle.dev/retry-unsafe",
    "heddle.dev/istio-fault-semantics",
];
/// Those of them that have no effect yet.
const ANNOTATIONS_TO_COME: &[&str] =
    &["heddle.dev/fault-expires", "heddle.dev/mirror-compare", "heddle.dev/istio-fault-semantics"];

static VIRTUAL_SERVICE: Object = envelope(&[
    required("apiVersion", Kind::Choice(API_VERSIONS)),
    required("kind", Kind::Choice(KINDS)),
    required("metadata", Kind::Object(&METADATA)),
    required("spec", Kind::Object(&virtual_service::SPEC)),
    optional("status", Kind::Any),
]);

static DESTINATION_RULE: Object = envelope(&[
    required("apiVersion", Kind::Choice(API_VERSIONS)),
    required("kind", Kind::Choice(KINDS)),
    required("metadata", Kind::Object(&METADATA)),
    required("spec", Kind::Object(&destination_rule::SPEC)),
    optional("status", Kind::Any),
]);

const fn envelope(fields: &'static [schema::Field]) -> Object {
    Object { fields, rules: &[] }
}

/// What a user writes, and what an API server adds and `kubectl get -o yaml` prints.
static METADATA: Object = Object {
    fields: &[
        required("name", Kind::Text(value::object_name)),
        optional("namespace", Kind::Text(value::dns_label)),
        optional("labels", LABELS),
        optional("annotations", Kind::Map { key: value::not_empty, of: &schema::TEXT }),
        optional("creationTimestamp", Kind::Any),
        optional("deletionGracePeriodSeconds", Kind::Any),
        optional("deletionTimestamp", Kind::Any),
        optional("finalizers", Kind::Any),
        optional("generateName", Kind::Any),
        optional("generation", Kind::Any),
        optional("managedFields", Kind::Any),
        optional("ownerReferences", Kind::Any),
        optional("resourceVersion", Kind::Any),
        optional("selfLink", Kind::Any),
        optional("uid", Kind::Any),
    ],
    rules: &[own_annotations],
};

/// Reads a file. `file` is its name for messages (`-` for standard input); documents that name no
/// namespace get `default_namespace`.
///
/// # Errors
/// Every error of the file, in the order of lines; at least one.
pub fn parse(
    file: &str,
    text: &str,
    default_namespace: &str,
) -> Result<Vec<Resource>, Vec<ParseError>> {
    let (documents, flaws) = node::read(text);
    let mut report = Report::new(file);
    for flaw in flaws {
        report.error(flaw.line, "", flaw.reason);
    }
    let mut resources = Vec::new();
    for Document { root, text } in documents {
        if is_list(&root) {
            for (i, item) in root.items_of("items").iter().enumerate() {
                let one = One { root: item, text: emit::yaml(item), path: format!("items[{i}]") };
                resources.extend(one.read(file, default_namespace, &mut report));
            }
        } else {
            let one = One { root: &root, text, path: String::new() };
            resources.extend(one.read(file, default_namespace, &mut report));
        }
    }
    refuse_twins(&resources, &mut report);
    let errors = report.into_errors();
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}

/// One object of a file.
struct One<'n> {
    root: &'n Node,
    text: String,
    path: String,
}

impl One<'_> {
    fn read(self, file: &str, namespace: &str, report: &mut Report<'_>) -> Option<Resource> {
        let before = report.count();
        let object = self.object(report)?;
        schema::check(self.root, &Kind::Object(object), &self.path, report);
        let not_enforced = report.take_notes();
        if report.count() > before {
            return None;
        }
        let (metadata, spec) = (self.root.get("metadata")?, self.root.get("spec")?);
        let kind = self.root.text_of("kind");
        Some(Resource {
            key: ResourceKey {
                kind: kind.to_owned(),
                namespace: metadata.get("namespace").map_or(namespace, Node::text).to_owned(),
                name: metadata.text_of("name").to_owned(),
            },
            spec: match kind {
                "VirtualService" => Spec::VirtualService(virtual_service::read(spec)),
                _ => Spec::DestinationRule(destination_rule::read(spec)),
            },
            annotations: metadata.labels_of("annotations"),
            origin: Origin { file: file.to_owned(), line: self.root.line },
            not_enforced,
            text: self.text,
        })
    }

    /// The schema of the document's kind. What a kind nobody knows holds cannot be checked.
    fn object(&self, report: &mut Report<'_>) -> Option<&'static Object> {
        let place = join(&self.path, "kind");
        if self.root.entries().is_empty() {
            let reason = format!(
                "{} where a resource belongs: a mapping with `apiVersion`, `kind`, `metadata` and `spec`",
                self.root.describe()
            );
            report.at(self.root, &self.path, reason);
            return None;
        }
        let Some(kind) = self.root.get("kind") else {
            report.at(self.root, &place, "this field is required, e.g. `VirtualService`");
            return None;
        };
        match kind.text() {
            "VirtualService" => Some(&VIRTUAL_SERVICE),
            "DestinationRule" => Some(&DESTINATION_RULE),
            known if KINDS_TO_COME.contains(&known) => {
                let reason = format!(
                    "`{known}` is not supported yet; supported are {}",
                    schema::listed(KINDS)
                );
                report.at(kind, &place, reason);
                None
            }
            other => {
                report.at(kind, &place, suggest("kind", other, KINDS));
                None
            }
        }
    }
}

fn is_list(root: &Node) -> bool {
    root.text_of("kind").strip_suffix("List").is_some_and(|of| of.is_empty() || KINDS.contains(&of))
}

/// Two documents for one object: one of them would be lost.
fn refuse_twins(resources: &[Resource], report: &mut Report<'_>) {
    let mut seen: BTreeMap<&ResourceKey, usize> = BTreeMap::new();
    for resource in resources {
        if let Some(first) = seen.insert(&resource.key, resource.origin.line) {
            let reason = format!("{} is also defined at line {first}: keep one", resource.key);
            report.error(resource.origin.line, "metadata.name", reason);
        }
    }
}

fn own_annotations(metadata: &Node, path: &str, report: &mut Report<'_>) {
    let place = join(path, "annotations");
    for entry in metadata.get("annotations").map_or(&[][..], Node::entries) {
        if ANNOTATIONS_TO_COME.contains(&entry.key.as_str()) {
            report.not_enforced(entry.line, &join(&place, &entry.key));
        } else if entry.key.starts_with("heddle.dev/") && !ANNOTATIONS.contains(&entry.key.as_str())
        {
            let reason = suggest("annotation", &entry.key, ANNOTATIONS);
            report.error(entry.line, &join(&place, &entry.key), reason);
        }
    }
}

#[cfg(test)]
mod tests;
