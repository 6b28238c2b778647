//! YAML documents into resources, every error with file, line, field and what would be right.
//!
//! All errors of a file are told together and nothing of a faulty file is accepted. Istio's
//! networking kinds that are served, the Gateway API's routes, and Kubernetes' `Service` and
//! `Namespace` are read with every field they have; what is valid but without effect yet is noted in
//! [`Resource::not_enforced`]. Other kinds of the mesh are kept as they
//! are, and objects that are none of the mesh's are counted ([`Skipped`]). JSON is YAML here, a `List`
//! is its items, and several documents are separated by `---`.
//!
//! Not here: whether what a rule names exists. That changes without the rule and is said by
//! `heddle-compile`.

use std::collections::BTreeMap;

use crate::{
    ResourceKey,
    resource::{
        FAULT_EXPIRES, FieldNote, ISTIO_FAULT_SEMANTICS, MIRROR_COMPARE, Origin, Resource, Spec,
        Telemetry,
    },
};

mod base64;
mod catalog;
mod destination_rule;
mod emit;
pub mod expression;
mod fault;
mod gateway_route;
mod hint;
mod json;
pub mod log_format;
mod mesh_config;
mod node;
pub mod programs;
mod report;
mod schema;
mod service;
mod service_entry;
mod sidecar;
mod status;
mod telemetry;
mod value;
mod virtual_service;
mod word;

use catalog::{API_VERSIONS, OWN_API_VERSIONS, OWN_SERVED, Place, SERVED};
pub use catalog::{group_of, is_served, kinds};
use destination_rule::rates;
pub use json::{JsonDocument, documents, to_yaml};
use node::{Document, Node, Value};
pub use report::ParseError;
use report::{Report, suggest};
use schema::{Kind, Object, join, optional, required};
pub use status::with_status;

/// The known word nearest to what was written, if it is near enough to be meant.
#[must_use]
pub fn did_you_mean<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    report::closest(written, known)
}

/// Largest object in bytes, as in Kubernetes.
const OBJECT_BYTES_MAX: usize = 3 << 19;
/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Objects of the mesh.
    pub resources: Vec<Resource>,
    /// Objects that are none of the mesh's.
    pub skipped: Skipped,
}

/// How many objects of a kind were not read, by kind: `Deployment`, or `VirtualService.appmesh.k8s.aws`
/// where the kind is the mesh's in another group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skipped(pub BTreeMap<String, usize>);

impl Skipped {
    /// Adds what another file holds.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += count;
        }
    }

    /// How many objects that is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// All of them in one line; `None` if there are none.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let kinds = self.0.iter().map(|(kind, count)| format!("{count} {kind}"));
        let kinds: Vec<_> = kinds.collect();
        let objects = if count == 1 { "object" } else { "objects" };
        Some(format!("{count} {objects} skipped, no rules: {}", kinds.join(", ")))
    }
}

/// Our annotations.
const ANNOTATIONS: &[&str] = &[
    FAULT_EXPIRES,
    MIRROR_COMPARE,
    RETRY_UNSAFE,
    ISTIO_FAULT_SEMANTICS,
    rates::SUCCESS_RATE,
    rates::FAILURE_PERCENTAGE,
];
/// Those of them that say something on a VirtualService only.
const OF_VIRTUAL_SERVICES: &[&str] =
    &[FAULT_EXPIRES, MIRROR_COMPARE, RETRY_UNSAFE, ISTIO_FAULT_SEMANTICS];
/// The rule's author says that requests may be repeated whatever their method.
const RETRY_UNSAFE: &str = "heddle.dev/retry-unsafe";
/// What answers of mirrors may be compared by.
const COMPARABLE: &[&str] = &["status", "latency", "body"];

/// The object of a kind that is served, by what its `spec` holds.
macro_rules! served {
    ($($object:ident: $spec:expr;)+) => {
        $(static $object: Object = envelope(&[
            required("apiVersion", Kind::Choice(API_VERSIONS)),
            required("kind", Kind::Choice(SERVED)),
            required("metadata", Kind::Object(&METADATA)),
            required("spec", Kind::Object($spec)),
            optional("status", Kind::Any),
        ]);)+
    };
}

served! {
    VIRTUAL_SERVICE: &virtual_service::SPEC;
    DESTINATION_RULE: &destination_rule::SPEC;
    SERVICE_ENTRY: &service_entry::SPEC;
    WORKLOAD_ENTRY: &service_entry::ENDPOINT;
    SIDECAR: &sidecar::SPEC;
}

macro_rules! route {
    ($spec:expr) => {
        envelope(&[
            required("apiVersion", Kind::Choice(gateway_route::API_VERSIONS)),
            required("kind", Kind::Choice(catalog::ROUTES)),
            required("metadata", Kind::Object(&METADATA)),
            required("spec", Kind::Object($spec)),
            optional("status", Kind::Any),
        ])
    };
}

static GRPC_ROUTE: Object = route!(&gateway_route::GRPC);
static HTTP_ROUTE: Object = route!(&gateway_route::HTTP);
static TLS_ROUTE: Object = route!(&gateway_route::TLS);
static TCP_ROUTE: Object = route!(&gateway_route::TCP);

static SERVICE: Object = Object {
    fields: &[
        required("apiVersion", Kind::Choice(&["v1"])),
        required("kind", Kind::Choice(catalog::CORE)),
        required("metadata", Kind::Object(&METADATA)),
        required("spec", Kind::Object(&service::SPEC)),
        optional("status", Kind::Any),
    ],
    rules: &[service::name_is_a_label],
};

static NAMESPACE: Object = Object {
    fields: &[
        required("apiVersion", Kind::Choice(&["v1"])),
        required("kind", Kind::Choice(catalog::CORE)),
        required("metadata", Kind::Object(&METADATA)),
        optional("spec", Kind::Any),
        optional("status", Kind::Any),
    ],
    rules: &[service::name_is_a_label],
};

static TELEMETRY: Object = envelope(&[
    required("apiVersion", Kind::Choice(telemetry::API_VERSIONS)),
    required("kind", Kind::Choice(catalog::TELEMETRY)),
    required("metadata", Kind::Object(&METADATA)),
    optional("spec", Kind::Object(&telemetry::SPEC)),
    optional("status", Kind::Any),
]);

/// The schema of a kind that is served.
fn object_of(kind: &str) -> &'static Object {
    match kind {
        "VirtualService" => &VIRTUAL_SERVICE,
        "DestinationRule" => &DESTINATION_RULE,
        "ServiceEntry" => &SERVICE_ENTRY,
        "WorkloadEntry" => &WORKLOAD_ENTRY,
        "Sidecar" => &SIDECAR,
        "GRPCRoute" => &GRPC_ROUTE,
        "HTTPRoute" => &HTTP_ROUTE,
        "TLSRoute" => &TLS_ROUTE,
        "TCPRoute" => &TCP_ROUTE,
        "Service" => &SERVICE,
        "Fault" => &FAULT,
        "MeshConfig" => &MESH_CONFIG,
        "Telemetry" => &TELEMETRY,
        "Namespace" => &NAMESPACE,
        _ => &NOT_SERVED,
    }
}

/// What a checked object of a served kind says; `None` where it is to be kept without effect.
fn spec_of(kind: &str, root: &Node, path: &str) -> Option<Spec> {
    if kind == "Namespace" {
        return Some(Spec::Namespace);
    }
    if kind == "Telemetry" && !root.has("spec") {
        return Some(Spec::Telemetry(Telemetry::default()));
    }
    let spec = root.get("spec")?;
    if let Some(route) = gateway_route::kind(kind) {
        let of_mesh = gateway_route::is_of_mesh(spec);
        return of_mesh.then(|| Spec::Route(gateway_route::read(route, spec, &join(path, "spec"))));
    }
    match kind {
        "VirtualService" => Some(Spec::VirtualService(virtual_service::read(spec))),
        "DestinationRule" => {
            let mut rule = destination_rule::read(spec);
            let rates = root.get("metadata").map(rates::read);
            rates.unwrap_or_default().put_into(&mut rule);
            Some(Spec::DestinationRule(rule))
        }
        "ServiceEntry" => Some(Spec::ServiceEntry(service_entry::read(spec))),
        "WorkloadEntry" => Some(Spec::WorkloadEntry(service_entry::read_workload(spec))),
        "Sidecar" => Some(Spec::Sidecar(sidecar::read(spec))),
        "Service" => Some(Spec::Service(service::read(spec))),
        "Fault" => fault::read(spec).map(Spec::Fault),
        "Telemetry" => Some(Spec::Telemetry(telemetry::read(spec))),
        "MeshConfig" => {
            let read = mesh_config::read(spec, &join(path, "spec"));
            Some(Spec::MeshConfig(Box::new(read)))
        }
        _ => None,
    }
}

/// The object of a kind of our own.
macro_rules! own {
    ($spec:expr) => {
        envelope(&[
            required("apiVersion", Kind::Choice(OWN_API_VERSIONS)),
            required("kind", Kind::Choice(OWN_SERVED)),
            required("metadata", Kind::Object(&METADATA)),
            required("spec", Kind::Object($spec)),
            optional("status", Kind::Any),
        ])
    };
}

static FAULT: Object = own!(&fault::SPEC);
static MESH_CONFIG: Object = own!(&mesh_config::SPEC);

/// An object of a kind that is not served: only what names it is read.
static NOT_SERVED: Object = envelope(&[
    required("apiVersion", Kind::Text(value::not_empty)),
    required("kind", Kind::Text(value::not_empty)),
    required("metadata", Kind::Object(&METADATA)),
    optional("spec", Kind::Any),
    optional("status", Kind::Any),
]);

const fn envelope(fields: &'static [schema::Field]) -> Object {
    Object { fields, rules: &[] }
}

/// What a user writes, and what an API server adds and `kubectl get -o yaml` prints.
static METADATA: Object = Object {
    fields: &[
        required("name", Kind::Text(value::object_name)),
        optional("namespace", Kind::Text(value::namespace)),
        optional(
            "labels",
            Kind::Map { key: value::label_key, of: &Kind::Text(value::label_value) },
        ),
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
    rules: &[own_annotations, rates::check],
};

/// Reads a file. `file` is its name for messages (`-` for standard input); documents that name no
/// namespace get `default_namespace`.
///
/// # Errors
/// Every error of the file, in the order of lines; at least one.
pub fn parse(file: &str, text: &str, default_namespace: &str) -> Result<Parsed, Vec<ParseError>> {
    let (documents, flaws) = node::read(text);
    let mut reader = Reader {
        file,
        namespace: default_namespace,
        report: Report::new(file),
        parsed: Parsed::default(),
    };
    for flaw in flaws {
        reader.report.error(flaw.line, "", flaw.reason);
    }
    for Document { root, text } in documents {
        if is_list(&root) {
            for (i, item) in into_items(root).into_iter().enumerate() {
                let text = emit::yaml(&item);
                reader.read(item, text, &format!("items[{i}]"));
            }
        } else {
            reader.read(root, text, "");
        }
    }
    let Reader { mut report, mut parsed, .. } = reader;
    keep_one_of_twins(&mut parsed.resources, &mut report);
    let errors = report.into_errors();
    if errors.is_empty() { Ok(parsed) } else { Err(errors) }
}

/// Reads one object after another.
struct Reader<'a> {
    file: &'a str,
    namespace: &'a str,
    report: Report<'a>,
    parsed: Parsed,
}

impl Reader<'_> {
    /// Reads the object at `path` of its document.
    fn read(&mut self, mut root: Node, text: String, path: &str) {
        let before = self.report.count();
        let Some(place) = self.place(&root, path) else { return };
        let (object, kind) = match place {
            Place::Served(kind) => (object_of(kind), kind),
            Place::Kept(kind) => (&NOT_SERVED, kind),
            Place::Foreign => return self.skip(&root),
        };
        let schema = Kind::Object(object);
        schema::settle(&mut root, &schema);
        let key = self.key(&root, kind);
        if text.len() > OBJECT_BYTES_MAX {
            let reason = format!(
                "{key} has {} bytes, more than the {OBJECT_BYTES_MAX} an object may have: divide it",
                text.len()
            );
            return self.report.at(&root, path, reason);
        }
        self.report.begin(&key.namespace);
        schema::check(&root, &schema, path, &mut self.report);
        let mut not_enforced = self.report.take_notes();
        if self.report.count() > before {
            return;
        }
        let served = match place {
            Place::Served(kind) => spec_of(kind, &root, path),
            _ => None,
        };
        let spec = served.unwrap_or_else(|| {
            let line = root.get("spec").map_or(root.line, |spec| spec.line);
            not_enforced = vec![FieldNote { field: join(path, "spec"), line, reason: None }];
            Spec::NotServed
        });
        if !matches!(spec, Spec::VirtualService(_)) {
            not_enforced.extend(misplaced(&root, path));
        }
        self.parsed.resources.push(Resource {
            key,
            spec,
            annotations: root
                .get("metadata")
                .map(|metadata| metadata.labels_of("annotations"))
                .unwrap_or_default(),
            origin: Origin { file: self.file.to_owned(), line: root.line },
            not_enforced,
            text,
        });
    }

    fn key(&self, root: &Node, kind: &str) -> ResourceKey {
        let metadata = root.get("metadata");
        let name = metadata.map(|metadata| metadata.text_of("name")).unwrap_or_default();
        // A Namespace is in none: it is named with the one that it is.
        let own = match kind {
            "Namespace" => Some(name),
            _ => metadata.and_then(|metadata| metadata.get("namespace")).map(Node::text),
        };
        ResourceKey {
            kind: kind.to_owned(),
            namespace: own.unwrap_or(self.namespace).to_owned(),
            name: name.to_owned(),
        }
    }

    fn skip(&mut self, root: &Node) {
        let kind = root.text_of("kind");
        let group = root.text_of("apiVersion").split_once('/').map_or("", |(group, _)| group);
        let known = kinds().any(|known| known == kind);
        let name = if known { format!("{kind}.{group}") } else { kind.to_owned() };
        *self.parsed.skipped.0.entry(name).or_default() += 1;
    }

    /// What the object is. What a kind nobody knows holds cannot be checked.
    fn place(&mut self, root: &Node, path: &str) -> Option<Place> {
        if root.entries().is_empty() {
            let reason = format!(
                "{} where a resource belongs: a mapping with `apiVersion`, `kind`, `metadata` and `spec`",
                root.describe()
            );
            self.report.at(root, path, reason);
            return None;
        }
        let Some(kind) = root.get("kind").filter(|kind| !kind.text().is_empty()) else {
            let reason = "this field is required, e.g. `VirtualService`";
            self.report.at(root, &join(path, "kind"), reason);
            return None;
        };
        let api_version = root.get("apiVersion");
        match catalog::place(api_version.map(Node::text), kind.text()) {
            Ok(place) => Some(place),
            Err((field, reason)) => {
                let node = root.get(field).unwrap_or(root);
                let reason = match hint::placeholder(node.text()) {
                    Some(found) => hint::unfilled(&found),
                    None => reason,
                };
                self.report.at(node, &join(path, field), reason);
                None
            }
        }
    }
}

/// A `List` of anything, as `kubectl get` writes it.
fn is_list(root: &Node) -> bool {
    root.text_of("kind").ends_with("List") && root.has("items")
}

fn into_items(root: Node) -> Vec<Node> {
    let Value::Map(entries) = root.value else { return Vec::new() };
    let items = entries.into_iter().find(|entry| entry.key == "items");
    match items.map(|entry| entry.value.value) {
        Some(Value::List(items)) => items,
        _ => Vec::new(),
    }
}

/// Two documents for one object: one of them would be lost, unless they say the same.
fn keep_one_of_twins(resources: &mut Vec<Resource>, report: &mut Report<'_>) {
    let mut first: BTreeMap<ResourceKey, usize> = BTreeMap::new();
    let mut twins = Vec::new();
    for (at, resource) in resources.iter().enumerate() {
        let Some(&before) = first.get(&resource.key) else {
            first.insert(resource.key.clone(), at);
            continue;
        };
        if says(&resources[before].text).eq(says(&resource.text)) {
            twins.push(at);
            continue;
        }
        let line = resources[before].origin.line;
        let reason =
            format!("{} is also defined at line {line}, and differs: keep one", resource.key);
        report.error(resource.origin.line, "metadata.name", reason);
    }
    for at in twins.into_iter().rev() {
        resources.remove(at);
    }
}

/// The lines of an object that say something.
fn says(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_end);
    lines.filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
}

fn own_annotations(metadata: &Node, path: &str, report: &mut Report<'_>) {
    let place = join(path, "annotations");
    for entry in metadata.get("annotations").map_or(&[][..], Node::entries) {
        if !entry.key.starts_with("heddle.dev/") {
            continue;
        }
        let (key, text) = (entry.key.as_str(), entry.value.text());
        let checked = match key {
            FAULT_EXPIRES => value::moment(text),
            ISTIO_FAULT_SEMANTICS => match text {
                "true" | "false" => Ok(()),
                _ => Err(format!("`{text}` is neither \"true\" nor \"false\"")),
            },
            MIRROR_COMPARE => text.split(',').map(str::trim).try_for_each(|word| {
                let known = COMPARABLE.contains(&word);
                if known { Ok(()) } else { Err(suggest("comparison", word, COMPARABLE)) }
            }),
            _ if ANNOTATIONS.contains(&key) => Ok(()),
            _ => Err(suggest("annotation", key, ANNOTATIONS)),
        };
        if let Err(reason) = checked {
            report.error(entry.line, &join(&place, key), reason);
        }
    }
}

/// Annotations that say something on a VirtualService only.
fn misplaced(root: &Node, path: &str) -> impl Iterator<Item = FieldNote> {
    let metadata = root.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let entries = metadata.map_or(&[][..], Node::entries).iter();
    let ours = entries.filter(|entry| OF_VIRTUAL_SERVICES.contains(&entry.key.as_str()));
    let place = join(&join(path, "metadata"), "annotations");
    ours.map(move |entry| FieldNote {
        field: join(&place, &entry.key),
        line: entry.line,
        reason: Some("it says something on a VirtualService only".to_owned()),
    })
}

#[cfg(test)]
mod tests;
