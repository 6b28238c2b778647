//! The control plane's local API: HTTP/1 with JSON bodies on the path socket `control.sock`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /v1/workloads` | [`JoinRequest`] | [`JoinedWorkload`] |
//! | `POST /v1/adopt` | list of [`Member`] | `{}`; a restarted control plane takes its members back |
//! | `POST /v1/workloads/{id}/withdraw` | – | [`Acknowledgement`], at most 1 s |
//! | `DELETE /v1/workloads/{id}` | – | `{}` |
//! | `GET /v1/workloads` | – | list of [`WorkloadView`] |
//! | `GET /v1/services` | – | list of [`ServiceView`] |
//! | `POST /v1/apply` | [`ApplyRequest`] | [`ApplyResponse`] |
//! | `POST /v1/delete` | [`DeleteRequest`] | [`ApplyResponse`] |
//! | `GET /v1/resources?kind=&namespace=&name=` | – | list of [`ResourceView`] |
//! | `GET /v1/view?workload=ID&host=HOST` | – | [`ClientView`]; `namespace=NS` in place of a workload |
//! | `GET /v1/wait?generation=N&timeout_ms=M` | – | [`Acknowledgement`] |
//! | `GET /v1/status` | – | [`Status`] |
//!
//! In a cluster each replica answers what only tells, on the loopback address of its pod, and besides:
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/replica` | – | [`Replica`] |
//! | `POST /v1/seen` | [`SeenRequest`] | [`Seen`], once it has seen them or at the end of the time |
//! | `POST /v1/check/apply` | [`ApplyRequest`] | [`ApplyResponse`] as of a dry run |
//! | `POST /v1/check/delete` | [`DeleteRequest`] | [`ApplyResponse`]; objects it does not know are left out |
//!
//! Any refusal is a 4xx, or 507 where the store cannot be written, with [`ApiError`] as its body.

use std::collections::BTreeMap;

use heddle_model::{Locality, Protocol, ResourceKey, Service, ServiceName, Workload, WorkloadId};
use serde::{Deserialize, Serialize};

/// A refusal: one or more problems, each with its place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApiError {
    /// At least one.
    pub errors: Vec<Problem>,
}

/// One problem. Shown as `file:line: field: reason`, absent parts left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// File as the user named it; `-` for standard input.
    pub file: Option<String>,
    /// 1-based line.
    pub line: Option<usize>,
    /// Field path, e.g. `spec.http[0].route[1].weight`.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// A workload that wants to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Service name, a DNS label.
    pub service: String,
    /// Namespace, a DNS label.
    pub namespace: String,
    /// Version; empty if not given.
    pub version: String,
    /// Further labels; `app` and `version` are added by the control plane.
    pub labels: BTreeMap<String, String>,
    /// Where it runs; the node means nothing.
    #[serde(default, skip_serializing_if = "Locality::is_unknown")]
    pub locality: Locality,
    /// Declared ports; empty for a client.
    pub ports: Vec<JoinPort>,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPort {
    /// Number.
    pub number: u16,
    /// Name; empty if not given. A name such as `http-web` declares a protocol.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
}

/// What a joining workload was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedWorkload {
    /// The workload as registered; its ports are pending.
    pub workload: Workload,
    /// Its service with virtual addresses; `None` for a client whose service has no ports.
    pub service: Option<Service>,
}

/// A workload that runs already: what it asked for and what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The request.
    pub request: JoinRequest,
    /// The answer.
    pub joined: JoinedWorkload,
}

/// How far a generation has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The generation asked about.
    pub generation: u64,
    /// Affected, connected proxies that run it.
    pub acknowledged: usize,
    /// Affected, connected proxies that do not run it yet, by workload id.
    pub pending: Vec<WorkloadId>,
}

/// A workload with what is known about its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadView {
    /// The workload.
    pub workload: Workload,
    /// Is its sidecar connected to discovery?
    pub connected: bool,
    /// The last generation its sidecar acknowledged.
    pub generation: u64,
    /// Has it a sidecar? Pods of a cluster may have none.
    #[serde(default = "yes")]
    pub sidecar: bool,
}

fn yes() -> bool {
    true
}

/// A service with its ports and virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// The service.
    pub service: Service,
    /// Workloads behind it.
    pub workloads: Vec<WorkloadId>,
}

/// Documents to put in force as one transaction and one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Files with their text; each may hold several YAML documents.
    pub files: Vec<SourceFile>,
    /// Namespace of documents that name none.
    pub namespace: String,
    /// Check only.
    pub dry_run: bool,
    /// Also make edits that leave a live reference dangling.
    pub force: bool,
    /// Refuse what would not be in force as it is written: kinds and fields that are not enforced, and
    /// objects that are none of the mesh's.
    #[serde(default)]
    pub strict: bool,
    /// How long to wait for acknowledgements, milliseconds; 0 returns at once.
    pub wait_ms: u64,
}

/// A named text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// File name as the user gave it; `-` for standard input.
    pub file: String,
    /// Its content.
    pub text: String,
}

/// Resources to delete as one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// What to delete; naming an absent one is an error.
    pub keys: Vec<ResourceKey>,
    /// Also delete what a live reference names.
    pub force: bool,
    /// How long to wait for acknowledgements, milliseconds.
    pub wait_ms: u64,
}

/// What an `apply` or `delete` did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApplyResponse {
    /// The generation that carries the change.
    pub generation: u64,
    /// What happened to each object.
    pub changes: Vec<Change>,
    /// Valid but worth saying: fields not enforced yet, dangling references, conflicts.
    pub notes: Vec<Problem>,
    /// Those of the notes for which calls are refused: what names something absent.
    #[serde(default)]
    pub warnings: Vec<Problem>,
    /// Objects of the files that are none of the mesh's and were left out, by kind.
    #[serde(default)]
    pub skipped: BTreeMap<String, usize>,
    /// How far the generation has come.
    pub acknowledgement: Acknowledgement,
}

/// What happened to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: ResourceKey,
    /// What.
    pub action: Action,
    /// Its state from now on, as in [`ResourceView`]; empty if it is gone.
    #[serde(default)]
    pub state: String,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// New.
    Created,
    /// Changed.
    Configured,
    /// Same as before.
    Unchanged,
    /// Gone.
    Deleted,
}

/// A resource as `get` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Identity.
    pub key: ResourceKey,
    /// `apply`, or the path of the file in the `--config` folder.
    pub source: String,
    /// Line of the document's first line there, from 1; 0 where that is not known.
    #[serde(default)]
    pub line: usize,
    /// The document's text.
    pub text: String,
    /// `Programmed`, `Partial` (some of its fields are not enforced), `NotEnforced` (its kind is not
    /// served yet), `Dangling`, `Conflicted` or `Invalid` (an invalid edit of a file; the last good
    /// version is in force).
    pub state: String,
    /// What the state means here, fields not enforced included.
    pub notes: Vec<Problem>,
    /// `status` of a route of the Gateway API whose parents are Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
    /// Those of the notes for which calls are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
    /// Since when it is there, Unix time in seconds: when it was applied first, or its file was changed last.
    /// In a cluster the document itself says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// `status` of a route, as the Gateway API has it. Times and generations, which a file does not have, are left
/// out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteStatus {
    /// One for each Service among the route's parents.
    pub parents: Vec<RouteParentStatus>,
}

/// What a parent says of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The parent as the route names it.
    pub parent_ref: RouteParent,
    /// Who says so.
    pub controller_name: String,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<RouteCondition>,
}

/// A parent as a route names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParent {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace, where the route names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// A port by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// A port by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A condition as Kubernetes has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCondition {
    /// `Accepted` or `ResolvedRefs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// The API's word for why, e.g. `Conflicted`.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// What the sidecar of a workload would be told of one callee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// The newest generation.
    pub generation: u64,
    /// Whose sidecar; where a namespace was asked for, one that nothing is known of.
    pub workload: Workload,
    /// The resources, as they would be sent.
    pub resources: Vec<ViewedResource>,
}

/// A resource as it would be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedResource {
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its encoded form, hexadecimal.
    pub body: String,
}

/// The mesh's own state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Mesh name.
    pub mesh: String,
    /// Generation in force.
    pub generation: u64,
    /// Proxies by workload id.
    pub proxies: Vec<ProxyStatus>,
    /// Findings of the compiler and problems of sources (invalid files, a full disk under the store).
    pub problems: Vec<Problem>,
    /// Those of them that keep something written out of force: invalid files, a folder that cannot
    /// be read, an object that another file holds.
    #[serde(default)]
    pub out_of_force: Vec<Problem>,
    /// Objects in the files of the `--config` folder that are none of the mesh's, by kind.
    #[serde(default)]
    pub skipped: BTreeMap<String, usize>,
    /// When rules were put in force last, Unix time in seconds; 0 where that was before this process's start.
    #[serde(default)]
    pub rules_changed: u64,
}

/// A replica of a cluster's control plane, as it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replica {
    /// Its pod.
    pub name: String,
    /// Heddle's version.
    pub version: String,
    /// What labels call the installation by.
    pub revision: String,
    /// Does it write, or another one?
    pub leads: bool,
    /// What it has not read of the cluster yet: as long as there is something, it serves nobody.
    pub unread: Vec<String>,
    /// What the API server does not answer as it should.
    pub troubles: Vec<String>,
    /// Pods that should have a sidecar and have none, as `namespace/name`.
    pub without_sidecar: Vec<String>,
}

/// Objects of a cluster that a replica is asked whether it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRequest {
    /// Which.
    pub objects: Vec<SeenObject>,
    /// How long to wait for them, milliseconds.
    pub wait_ms: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenObject {
    /// Which.
    pub key: ResourceKey,
    /// Its `metadata.resourceVersion`; `None`: it is gone.
    pub version: Option<String>,
}

/// How much of them a replica has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// The generation that holds what it has seen of them.
    pub generation: u64,
    /// Those it has not.
    pub missing: Vec<ResourceKey>,
}

/// One proxy's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Whose sidecar.
    pub workload: WorkloadId,
    /// Connected now?
    pub connected: bool,
    /// Last generation it acknowledged.
    pub generation: u64,
    /// Its last NACK, if it has not accepted anything since.
    pub nack: Option<String>,
    /// Destinations it subscribes to.
    pub destinations: Vec<ServiceName>,
}
