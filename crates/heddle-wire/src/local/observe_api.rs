//! The dashboard's JSON API, also used by `heddle top` and `heddle graph`: HTTP/1 on the dashboard's address.
//!
//! | call | answer |
//! |---|---|
//! | `GET /api/v1/graph?window=10&end=UNIX` | [`Graph`] over the `window` seconds before `end` (at least one scrape interval; without `end`: until now) |
//! | `GET /api/v1/services?window=10&end=UNIX` | list of [`ServiceSummary`] |
//! | `GET /api/v1/services/{namespace}/{name}?window=300&end=UNIX` | [`ServicePage`]; `-` stands for the empty namespace of what is outside |
//! | `GET /api/v1/rules?window=10&end=UNIX` | [`RulesPage`] |
//! | `GET /api/v1/refusals?window=300&end=UNIX` | [`RefusalsPage`] |
//! | `GET /api/v1/ejections` | list of [`Ejection`]: endpoints that are out now |
//! | `GET /api/v1/tls-failures` | list of [`TlsFailure`]: connections without TLS of the last minute |
//! | `GET /api/v1/tap?to=reviews&status=5xx` | live calls, a line of JSON each, for as long as somebody reads; parameters and lines are those of [`super::tap_api`] |
//! | `GET /api/v1/prometheus/targets` | Prometheus HTTP service discovery |
//! | `GET` or `POST /api/v1/query` and others of Prometheus' own | what Prometheus answers; `docs/prometheus.md` lists them |
//! | `GET /sidecars/{workload}/stats/prometheus` | that sidecar's :15090, passed through |
//! | anything else | the dashboard |
//!
//! A refusal is a 4xx with `{"error": "what is wrong and what to do"}`.

use heddle_model::{ServiceName, WorkloadId};
use serde::{Deserialize, Serialize};

mod figures;
mod rules;

pub use figures::{Ejection, Rates, TlsFailure};
pub use rules::{
    Cause, FaultWord, NameFailure, PathRow, RefusalRow, RefusalsPage, RuleChange, RulePart,
    RuleRow, RulesPage, TemplateRow,
};

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// Mesh name.
    pub mesh: String,
    /// Unix time of the newest scrape, seconds.
    pub at: f64,
    /// Seconds the rates are over.
    pub window: f64,
    /// Services, sorted by name; callers without ports included.
    pub nodes: Vec<Node>,
    /// Calls, sorted by source and destination.
    pub edges: Vec<Edge>,
    /// How complete the picture is.
    #[serde(default)]
    pub coverage: Coverage,
    /// Endpoints that are out now, sorted by who took them out.
    #[serde(default)]
    pub ejections: Vec<Ejection>,
    /// Rules that were changed in the period, newest first.
    #[serde(default)]
    pub changes: Vec<RuleChange>,
}

/// How complete the picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Sidecars the control plane knows.
    pub sidecars: usize,
    /// Those whose last scrape succeeded.
    pub scraped: usize,
    /// Did the control plane answer the last time it was asked? If not, the list of sidecars may be old.
    pub control: bool,
}

/// A service in the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Service; for what is outside the mesh the host or `PassthroughCluster` as name and an empty namespace.
    pub service: ServiceName,
    /// `http`, `tcp`, `client` (calls only) or `outside`.
    pub kind: String,
    /// What it answered, measured on its own side (by its callers where it has no sidecar).
    pub rates: Rates,
    /// Bytes per second both ways on TCP.
    pub bytes_per_second: f64,
    /// Versions with their share of what was received.
    pub versions: Vec<Version>,
    /// What its callers saw of it: also the calls that never reached it.
    #[serde(default)]
    pub client: Rates,
    /// Unix time, seconds, since when at least 1 % of the calls to it have failed on either side without
    /// a minute's pause; `None` while it is well.
    #[serde(default)]
    pub failing_since: Option<f64>,
    /// Its virtual address and those of its workloads, for the search.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Where its failures come from, if that is another service.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Faults that rules inject into calls to it now.
    #[serde(default)]
    pub faults: Vec<FaultWord>,
}

/// One version's share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Version label; `unknown` where none.
    pub version: String,
    /// 0 to 1.
    pub share: f64,
    /// Its own rates.
    pub rates: Rates,
}

/// Calls from one service to another, measured on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Caller.
    pub source: ServiceName,
    /// Callee.
    pub destination: ServiceName,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// As the caller's sidecar saw it.
    pub client: Rates,
    /// As the callee's sidecar saw it.
    pub server: Rates,
    /// TCP: bytes per second to the callee.
    pub sent_bytes_per_second: f64,
    /// TCP: bytes per second back to the caller.
    pub received_bytes_per_second: f64,
}

/// A service as a row of `heddle top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Service.
    pub service: ServiceName,
    /// As for [`Node`].
    pub kind: String,
    /// As its callers saw it.
    pub client: Rates,
    /// As it saw itself.
    pub server: Rates,
    /// Bytes per second to it (TCP).
    pub sent_bytes_per_second: f64,
    /// Bytes per second from it (TCP).
    pub received_bytes_per_second: f64,
    /// Requests (connections on TCP) that all its workloads have in flight now; in the list of services only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<f64>,
    /// Versions with their shares, as the service measured them; in the list of services only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// One service's page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePage {
    /// Now.
    pub summary: ServiceSummary,
    /// The same over the period before, for the change.
    pub previous: ServiceSummary,
    /// Points in time, oldest first. A time that was not measured has no point: the distance to the
    /// next one is then more than `step`.
    pub series: Vec<Point>,
    /// Who calls it.
    pub callers: Vec<Edge>,
    /// Whom it calls.
    pub callees: Vec<Edge>,
    /// Versions.
    pub versions: Vec<Version>,
    /// Workloads behind it, with saturation of each sidecar.
    pub workloads: Vec<WorkloadRow>,
    /// Mesh name.
    #[serde(default)]
    pub mesh: String,
    /// Unix time the period ends, seconds.
    #[serde(default)]
    pub at: f64,
    /// Seconds of the period.
    #[serde(default)]
    pub window: f64,
    /// Seconds between points.
    #[serde(default)]
    pub step: f64,
    /// Share of the previous period that was measured, 0 to 1: below one half no change should be told.
    #[serde(default)]
    pub previous_measured: f64,
    /// Answers by status code and response flags, most frequent first.
    #[serde(default)]
    pub responses: Vec<Response>,
    /// See [`Node::failing_since`].
    #[serde(default)]
    pub failing_since: Option<f64>,
    /// See [`Node::cause`].
    #[serde(default)]
    pub cause: Option<Cause>,
    /// See [`Node::faults`].
    #[serde(default)]
    pub faults: Vec<FaultWord>,
    /// Calls to it by the rule that decided about them, most frequent first.
    #[serde(default)]
    pub paths: Vec<PathRow>,
    /// Its paths by template, busiest first.
    #[serde(default)]
    pub templates: Vec<TemplateRow>,
    /// The rules about it that are in force now.
    #[serde(default)]
    pub rules: Vec<RuleRow>,
    /// Changes of rules in the period, newest first, about whatever they are: a rule about a callee may be felt here.
    #[serde(default)]
    pub changes: Vec<RuleChange>,
    /// What the sidecars of its workloads refused in the period.
    #[serde(default)]
    pub refusals: Vec<RefusalRow>,
    /// Names that sound like it and were asked for in vain, and those that its workloads asked for.
    #[serde(default)]
    pub names: Vec<NameFailure>,
    /// Endpoints of it that are out now.
    #[serde(default)]
    pub ejections: Vec<Ejection>,
    /// What to look at first, in sentences; none where all is well.
    #[serde(default)]
    pub first: Vec<String>,
    /// What rules do on purpose, as they ask for it and as it was measured.
    #[serde(default)]
    pub on_purpose: Vec<String>,
    /// Its workloads that lately made calls without the trace of the call they served, in sentences.
    #[serde(default)]
    pub lost_contexts: Vec<String>,
}

/// One kind of answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// HTTP status; 0 where there was no answer (and on TCP).
    pub code: u16,
    /// Envoy-style flags joined by `,`; `-` when none.
    pub flags: String,
    /// As the callers saw it, per second.
    pub client_per_second: f64,
    /// As the service saw it, per second.
    pub server_per_second: f64,
}

/// One point of a service's series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Point {
    /// Unix time, seconds.
    pub at: f64,
    /// As its callers saw it.
    pub client: Rates,
    /// As it saw itself.
    pub server: Rates,
    /// Requests (connections) in flight, all its workloads together: saturation.
    pub in_flight: f64,
    /// Bytes per second both ways.
    pub bytes_per_second: f64,
}

/// One workload on a service's page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRow {
    /// Workload.
    pub id: WorkloadId,
    /// Version.
    pub version: String,
    /// Address.
    pub address: String,
    /// Did the last scrape succeed?
    pub scraped: bool,
    /// Requests in flight.
    pub in_flight: f64,
    /// What it answered, measured by its own sidecar.
    #[serde(default)]
    pub rates: Rates,
    /// Is it a member now? `false`: it has left, its numbers are history.
    #[serde(default)]
    pub present: bool,
}
