//! What is told of a service.

use heddle_model::ServiceName;
use heddle_wire::local::{
    control_api::Problem,
    observe_api::{Edge, Ejection, Rates, Response, TemplateRow},
    sidecar_api::{PortRules, RuleInForce},
};
use serde::{Deserialize, Serialize};

/// All that is told of a service.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) service: ServiceName,
    /// Its name within the mesh.
    pub(super) host: String,
    /// Addresses that stand for it.
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) workloads: Vec<WorkloadRow>,
    /// Rules of each port, for callers of its namespace.
    pub(super) rules: Vec<PortRules>,
    /// What DestinationRules ask for.
    pub(super) policies: Vec<RuleInForce>,
    /// The objects that these are parts of.
    pub(super) objects: Vec<ObjectRow>,
    /// The Sidecar by which callers of its own namespace may not call it.
    pub(super) refused_by: Option<String>,
    /// What the observer has measured; absent where there is none.
    pub(super) measured: Option<Measured>,
    /// Why there is none.
    pub(super) unmeasured: Option<String>,
    /// Findings that name it.
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
pub(super) struct WorkloadRow {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) address: String,
    /// `connected`, `not connected` or `none`.
    pub(super) sidecar: String,
    /// Of each port.
    pub(super) ports: Vec<String>,
    pub(super) ready: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ObjectRow {
    pub(super) object: String,
    pub(super) source: String,
    pub(super) state: String,
    /// What is not enforced, among other things worth knowing.
    pub(super) notes: Vec<Problem>,
}

/// What the observer tells.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// Seconds that rates are over.
    pub(super) window: f64,
    /// What to look at first, in the dashboard's words.
    pub(super) first: Vec<String>,
    /// What rules do on purpose, in the same words.
    pub(super) on_purpose: Vec<String>,
    /// Workloads that do not pass trace headers on, in sentences.
    pub(super) lost_contexts: Vec<String>,
    pub(super) failing_since: Option<f64>,
    /// `http`, `tcp`, …
    pub(super) kind: String,
    pub(super) client: Rates,
    pub(super) server: Rates,
    pub(super) callers: Vec<Edge>,
    pub(super) callees: Vec<Edge>,
    pub(super) responses: Vec<Response>,
    /// Its paths by template, as its own sidecars saw them.
    pub(super) templates: Vec<TemplateRow>,
    pub(super) ejections: Vec<Ejection>,
    /// Names like its own that did not resolve.
    pub(super) names: Vec<NameFailure>,
}

/// A name that a workload asked for in vain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct NameFailure {
    /// Who asked.
    pub(super) by: String,
    /// The name as asked for.
    pub(super) name: String,
    /// What was answered.
    #[serde(default)]
    pub(super) answer: String,
    /// What may have been meant.
    #[serde(default)]
    pub(super) did_you_mean: Option<String>,
}
