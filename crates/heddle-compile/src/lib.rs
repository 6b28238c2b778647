//! Pure function: resources and registry to what each proxy is told, with provenance.
//!
//! A [`RuleIndex`] is made of the rules once per edit, and answers for any registry: a workload that
//! joins costs no new one. A service is compiled for who asks ([`RuleIndex::destination`]): what a
//! client is told depends on the client (`sourceLabels`, `sourceNamespace`, `exportTo`,
//! `workloadSelector`, the namespace whose DestinationRules it sees); clients of one [`View`] are told
//! the same.
//!
//! **Order decides conflicts.** Creation time is not part of a resource: the caller gives resources
//! oldest first, and the first one wins.
//!
//! **What names something absent is kept**: its share of traffic is refused by name
//! (`Target::Dangling`), never sent somewhere else, and [`RuleIndex::findings`] says so. What a sidecar of
//! an older version cannot carry out, such as a redirect, it refuses (`RuleAction::Refuse`).
//!
//! Nothing here does I/O, waits or reads a clock; the same input gives the same output.

mod by_host;
mod callers;
mod carries;
mod client;
mod concerned;
mod delegate;
mod destination;
mod egress;
mod entries;
mod facts;
mod fault;
mod finding;
mod findings;
mod gateway;
mod host;
mod matching;
mod named;
mod outside_findings;
mod policy;
mod ranges;
mod reference;
mod rules;
mod target;
mod telemetry;
mod telemetry_findings;
mod traffic;

pub use client::{Client, View};
pub use facts::{address, behind, endpoint, endpoints, name_answer};
pub use finding::{Finding, FindingKind, ResourceState};
pub use gateway::{Condition, ParentStatus};
pub use named::{addresses_differ, named, outside_at};
pub use reference::{Reference, references};
pub use rules::RuleIndex;
pub use telemetry::TelemetryDefault;

#[cfg(test)]
mod tests;
