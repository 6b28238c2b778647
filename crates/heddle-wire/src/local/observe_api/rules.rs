//! What the dashboard tells of rules, of their changes, and of what the mesh itself refused.

use heddle_model::{ServiceName, WorkloadId};
use serde::{Deserialize, Serialize};

use super::figures::{Ejection, Rates, TlsFailure};

/// The rules in force, and how they changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RulesPage {
    /// Mesh name.
    pub mesh: String,
    /// Unix time of the newest scrape, seconds.
    pub at: f64,
    /// Seconds the rates are over.
    pub window: f64,
    /// Has the control plane told its rules yet?
    pub known: bool,
    /// By kind, namespace and name.
    pub rules: Vec<RuleRow>,
    /// Those of the period, newest first.
    pub changes: Vec<RuleChange>,
}

/// An object with rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleRow {
    /// Kind as written, e.g. `VirtualService`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `apply`, or the file it comes from.
    pub source: String,
    /// Line of its first line there, from 1; 0 where that is not known.
    pub line: usize,
    /// As `heddle get` says it: `Programmed`, `Partial`, `NotEnforced`, `Dangling`, `Conflicted` or `Invalid`.
    pub state: String,
    /// What the state means here.
    pub notes: Vec<String>,
    /// Whom it is about.
    pub services: Vec<ServiceName>,
    /// Its single rules, in their order.
    pub parts: Vec<RulePart>,
    /// As it was written.
    pub text: String,
}

/// A single rule of an object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RulePart {
    /// Its name, or its place, e.g. `http[0]`.
    pub name: String,
    /// Line within the object's text, from 1.
    pub line: usize,
    /// What it is met by, in words.
    pub matches: String,
    /// What it does then, in words.
    pub does: String,
    /// Faults it injects.
    pub faults: Vec<FaultWord>,
    /// Is it counted how often it decides? Policies of connections are not.
    pub counted: bool,
    /// What it decided in the period, as the callers' sidecars saw it.
    pub rates: Rates,
}

/// A fault that a rule injects.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FaultWord {
    /// `abort`, `delay`, `refuse`, `blackhole`, `resetAfterBytes` or `bytesPerSecond`.
    pub what: String,
    /// The share the rule asks for, 0 to 100.
    pub percent: f64,
    /// The status of an abort, the length of a delay.
    pub detail: String,
    /// `kind/namespace/name` of the rule, and which of its parts.
    pub rule: String,
    /// Does it hold only for some requests or callers?
    pub partly: bool,
}

/// A rule that was put in force, changed or taken away.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleChange {
    /// When it was noticed, Unix time in seconds.
    pub at: f64,
    /// `created`, `configured` or `deleted`.
    pub action: String,
    /// `kind/namespace/name`.
    pub rule: String,
    /// As in [`RuleRow`].
    pub source: String,
    /// Whom it is about.
    pub services: Vec<ServiceName>,
}

/// A rule's share of the calls to a service: its paths, as far as rules tell them apart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PathRow {
    /// `kind/namespace/name#part` of the rule; empty for what no rule decides about.
    pub rule: String,
    /// What it is met by, in words.
    pub matches: String,
    /// Is the rule still in force?
    pub in_force: bool,
    /// As the callers' sidecars saw it.
    pub rates: Rates,
}

/// Calls to a service whose paths differ by numbers and ids only.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TemplateRow {
    /// The path, with `{id}` for what differs; `unknown`: paths that were answered with 4xx and nothing else so far;
    /// `overflow`: those beyond the limit of templates.
    pub path: String,
    /// As the sidecars of its own workloads saw it.
    pub rates: Rates,
}

/// What the mesh refused, and what could not be found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RefusalsPage {
    /// Mesh name.
    pub mesh: String,
    /// Unix time of the newest scrape, seconds.
    pub at: f64,
    /// Seconds the counts are over.
    pub window: f64,
    /// Most frequent first.
    pub refusals: Vec<RefusalRow>,
    /// Names without an address that were asked for in the period, newest first.
    pub names: Vec<NameFailure>,
    /// Connections without TLS, of the last minute.
    pub tls: Vec<TlsFailure>,
    /// Endpoints that are out now.
    pub ejections: Vec<Ejection>,
}

/// Requests or connections that a sidecar refused for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusalRow {
    /// Whose sidecar.
    pub by: WorkloadId,
    /// Its service.
    pub service: ServiceName,
    /// `outbound` where it is the caller's, `inbound` where it is the callee's.
    pub direction: String,
    /// Why, as in `x-heddle-refusal`.
    pub code: String,
    /// How many in the period.
    pub count: f64,
}

/// A name that a workload asked for and got no address of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NameFailure {
    /// Who asked.
    pub by: WorkloadId,
    /// Its service.
    pub service: ServiceName,
    /// The name as asked for.
    pub name: String,
    /// `NXDOMAIN`, `SERVFAIL` or `REFUSED`.
    pub answer: String,
    /// How often since it last resolved.
    pub count: f64,
    /// When it was asked for last, Unix time in seconds.
    pub last: f64,
    /// The name of a service that may have been meant.
    pub did_you_mean: Option<String>,
}

/// Where the failures of a service come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cause {
    /// From the service itself to the deepest callee whose failures account for its own.
    pub path: Vec<ServiceName>,
    /// Share of the calls that fail on the last step, 0 to 1.
    pub failed: f64,
    /// Share of them that a rule aborts.
    pub injected: f64,
}
