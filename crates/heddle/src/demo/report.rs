//! The demo's result: what every sidecar measured, beside what the applications counted themselves.
//!
//! All figures but `app_sent` and `app_received` come from the sidecars' own metrics.

mod rows;
mod tally;

use serde::Serialize;

use super::{
    plan::{EDGES, Member},
    tell::AppCounts,
};
use rows::{EdgeRow, ServiceRow, TakenOut};
use tally::{OUTSIDE, Tally, UNKNOWN};

/// One member with what was scraped from its sidecar and what it told.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Who.
    pub(super) member: Member,
    /// Its sidecar's `/stats/prometheus`.
    pub(super) metrics: String,
    /// What it counted; `None` where the program cannot tell.
    pub(super) told: Option<AppCounts>,
}

/// The object `heddle demo --output json` ends with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Mesh name.
    pub(super) mesh: String,
    /// Seconds from exec to the first successful call on every edge.
    pub(super) startup_seconds: f64,
    /// By service and version.
    pub(super) services: Vec<ServiceRow>,
    /// By caller and callee.
    pub(super) edges: Vec<EdgeRow>,
    /// 5xx or no response on any edge; injected aborts, what failed after them, and what the copy did that is broken
    /// on purpose, apart.
    pub(super) failed: u64,
    /// Calls that failed, and behind whose callee faults were injected.
    pub(super) failed_after_faults: u64,
    /// Calls that a rule had aborted.
    pub(super) injected_aborts: u64,
    /// Calls that a rule had delayed.
    pub(super) injected_delays: u64,
    /// Endpoints that a circuit breaker had taken out at the end.
    pub(super) taken_out: Vec<TakenOut>,
    /// How often one was taken out.
    pub(super) ejections: u64,
    /// Does every edge agree on both sides, and with the applications?
    pub(super) captured_both_sides: bool,
}

/// Puts the evidence together.
///
/// # Errors
/// A sidecar's metrics that cannot be read, named.
pub(super) fn make(
    mesh: &str,
    startup_seconds: f64,
    evidence: &[Evidence],
) -> Result<Report, String> {
    let mut tally = Tally::default();
    for one in evidence {
        let name = one.member.name();
        tally.add(&name, &one.metrics).map_err(|e| format!("metrics of {name}: {e}"))?;
    }
    let mut keys = tally.edges();
    for (source, destination) in EDGES {
        let key = (source.to_owned(), destination.to_owned());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut edges: Vec<EdgeRow> = keys.iter().map(|key| edge(&tally, key, evidence)).collect();
    set_apart(&mut edges);
    // An edge of the plan that nobody used proves nothing, so it does not count as captured.
    let used = edges.iter().all(|edge| edge.client_requests != Some(0));
    Ok(Report {
        mesh: mesh.to_owned(),
        startup_seconds,
        services: tally.services(),
        failed: edges.iter().map(|edge| edge.failed).sum(),
        failed_after_faults: edges.iter().map(|edge| edge.failed_after_faults).sum(),
        injected_aborts: edges.iter().map(|edge| edge.injected_aborts).sum(),
        injected_delays: edges.iter().map(|edge| edge.injected_delays).sum(),
        taken_out: tally.taken_out().to_vec(),
        ejections: tally.ejections(),
        captured_both_sides: used && edges.iter().all(EdgeRow::captured),
        edges,
    })
}

fn edge(tally: &Tally, key: &(String, String), evidence: &[Evidence]) -> EdgeRow {
    let (source, destination) = key;
    // Null as soon as one member cannot tell, and where there is no member to tell.
    let told = |service: &str, count: &dyn Fn(&AppCounts) -> u64| {
        let members = evidence.iter().filter(|one| one.member.service == service);
        let counts: Option<Vec<u64>> = members.map(|one| one.told.as_ref().map(count)).collect();
        counts.filter(|counts| !counts.is_empty()).map(|counts| counts.iter().sum())
    };
    EdgeRow {
        app_sent: told(source, &|t| t.sent.get(destination).copied().unwrap_or(0)),
        app_received: told(destination, &|t| {
            let caller = if source == OUTSIDE { UNKNOWN } else { source };
            t.received.get(caller).copied().unwrap_or(0)
        }),
        ..tally.edge(source, destination)
    }
}

/// Takes from each edge's failures those that faults behind its callee account for: whoever asks the demo to inject
/// some has not broken it. One call that was aborted or delayed, or that failed for that, fails one call before it at
/// most.
fn set_apart(edges: &mut [EdgeRow]) {
    // Once for each call on the longest way through the site; a circle of calls ends too.
    for _ in 0..edges.len() {
        let behind = |service: &str, edges: &[EdgeRow]| {
            let onward = edges.iter().filter(|edge| edge.source == service);
            onward
                .map(|edge| edge.injected_aborts + edge.injected_delays + edge.failed_after_faults)
                .sum::<u64>()
        };
        for at in 0..edges.len() {
            let faults = behind(&edges[at].destination, edges);
            let edge = &mut edges[at];
            let all = edge.failed + edge.failed_after_faults;
            edge.failed_after_faults = all.min(faults);
            edge.failed = all - edge.failed_after_faults;
        }
    }
}

#[cfg(test)]
mod tests;
