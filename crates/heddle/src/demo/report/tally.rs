//! Adds up Istio's standard metrics of all sidecars by edge and by service.

use std::collections::BTreeMap;

use heddle_observe::{
    exposition::{self, Sample},
    grpc_as_http,
    quantile::{BUCKETS, bucket_of, quantile},
};

use super::rows::{EdgeRow, Latency, ServiceRow, TakenOut};
use crate::demo::plan::BROKEN;

/// The source of calls from outside the mesh, as the callee's sidecar names it, and as the demo's programs do.
pub(super) const UNKNOWN: &str = "unknown";
/// The same as it is told, here as on the dashboard.
pub(super) const OUTSIDE: &str = "outside";

/// What the sidecars on one side of an edge saw.
#[derive(Debug, Default)]
struct Side {
    count: u64,
    failed: u64,
    on_purpose: u64,
    aborts: u64,
    delays: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// Requests, failures, faults and bytes of one edge.
#[derive(Debug, Default)]
struct Edge {
    tcp: bool,
    /// Calls of gRPC by status, as callers saw it.
    grpc: BTreeMap<String, u64>,
    client: Side,
    server: Side,
}

/// One version of a service.
#[derive(Debug, Default)]
struct Version {
    requests: u64,
    failed: u64,
    client: [f64; BUCKETS.len()],
    server: [f64; BUCKETS.len()],
}

/// What all scrapes add up to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    edges: BTreeMap<(String, String), Edge>,
    versions: BTreeMap<(String, String), Version>,
    taken_out: Vec<TakenOut>,
    ejections: u64,
}

impl Tally {
    /// Adds the metrics of one sidecar, that of the workload `by`.
    pub(super) fn add(&mut self, by: &str, text: &str) -> Result<(), exposition::ExpositionError> {
        for sample in exposition::parse(text)? {
            match sample.name {
                "heddle_endpoint_ejected" if sample.value > 0.0 => {
                    self.taken_out.push(taken_out(by, &sample));
                }
                "heddle_endpoint_ejections_total" => self.ejections += whole(sample.value),
                _ => {}
            }
            if sample.name.starts_with("istio_") && !sample.label("reporter").is_empty() {
                self.add_edge(&sample);
                self.add_version(&sample);
            }
        }
        Ok(())
    }

    fn add_edge(&mut self, sample: &Sample<'_>) {
        let source = match sample.label("source_canonical_service") {
            UNKNOWN => OUTSIDE.to_owned(),
            known => known.to_owned(),
        };
        let destination = sample.label("destination_service_name").to_owned();
        let client = sample.label("reporter") == "source";
        let count = whole(sample.value);
        let edge = self.edges.entry((source, destination)).or_default();
        let side = if client { &mut edge.client } else { &mut edge.server };
        match sample.name {
            "istio_requests_total" => {
                let flag = |wanted| sample.label("response_flags").split(',').any(|f| f == wanted);
                side.count += count;
                side.aborts += if flag("FI") { count } else { 0 };
                side.delays += if flag("DI") { count } else { 0 };
                match is_failure(sample) {
                    true if is_broken_copy(sample) => side.on_purpose += count,
                    true => side.failed += count,
                    false => {}
                }
                if sample.label("request_protocol") == "grpc" && client {
                    let status = sample.label("grpc_response_status").to_owned();
                    *edge.grpc.entry(status).or_default() += count;
                }
            }
            "istio_tcp_connections_opened_total" => {
                edge.tcp = true;
                side.count += count;
            }
            "istio_tcp_connections_closed_total" if is_broken(sample) => side.failed += count,
            // Istio names bytes from the server's point of view: received is what the caller sent.
            "istio_request_bytes_sum" | "istio_tcp_received_bytes_total" => {
                side.sent_bytes += count
            }
            "istio_response_bytes_sum" | "istio_tcp_sent_bytes_total" => {
                side.received_bytes += count;
            }
            _ => {}
        }
    }

    fn add_version(&mut self, sample: &Sample<'_>) {
        let key = (
            sample.label("destination_service_name").to_owned(),
            sample.label("destination_version").to_owned(),
        );
        let client = sample.label("reporter") == "source";
        let count = whole(sample.value);
        match sample.name {
            "istio_requests_total" | "istio_tcp_connections_opened_total" if !client => {
                let version = self.versions.entry(key).or_default();
                version.requests += count;
                version.failed += if is_failure(sample) { count } else { 0 };
            }
            // Opened it was counted as a request; how it ended is known only now.
            "istio_tcp_connections_closed_total" if !client && is_broken(sample) => {
                self.versions.entry(key).or_default().failed += count;
            }
            "istio_request_duration_milliseconds_bucket" => {
                let version = self.versions.entry(key).or_default();
                let into = if client { &mut version.client } else { &mut version.server };
                if let Some(bucket) = bucket_of(sample.label("le")) {
                    into[bucket] += sample.value;
                }
            }
            _ => {}
        }
    }

    /// Caller and callee of every edge seen, in order.
    pub(super) fn edges(&self) -> Vec<(String, String)> {
        let used = self.edges.iter().filter(|(_, edge)| edge.client.count + edge.server.count > 0);
        used.map(|(key, _)| key.clone()).collect()
    }

    /// One edge without what applications told; zeros where nothing was seen.
    pub(super) fn edge(&self, source: &str, destination: &str) -> EdgeRow {
        let none = Edge::default();
        let key = (source.to_owned(), destination.to_owned());
        let edge = self.edges.get(&key).unwrap_or(&none);
        // Who calls from outside has no sidecar: the callee's saw it alone.
        let outside = source == OUTSIDE;
        let seen = if outside { &edge.server } else { &edge.client };
        EdgeRow {
            source: key.0,
            destination: key.1,
            protocol: match (edge.tcp, edge.grpc.is_empty()) {
                (true, _) => "tcp",
                (false, true) => "http",
                (false, false) => "grpc",
            }
            .to_owned(),
            client_requests: (!outside).then_some(edge.client.count),
            // What its own sidecar aborted did not reach it; the callers' count that apart too.
            server_requests: edge.server.count.saturating_sub(edge.server.aborts),
            app_sent: None,
            app_received: None,
            grpc_statuses: edge.grpc.clone(),
            failed: seen.failed,
            failed_after_faults: 0,
            failed_on_purpose: seen.on_purpose,
            injected_aborts: seen.aborts,
            injected_delays: seen.delays,
            sent_bytes: seen.sent_bytes,
            received_bytes: seen.received_bytes,
        }
    }

    /// Endpoints that some sidecar had taken out at the end.
    pub(super) fn taken_out(&self) -> &[TakenOut] {
        &self.taken_out
    }

    /// How often one was taken out.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Every version that received something.
    pub(super) fn services(&self) -> Vec<ServiceRow> {
        let row = |((name, version), counted): (&(String, String), &Version)| ServiceRow {
            name: name.clone(),
            version: version.clone(),
            requests: counted.requests,
            success_rate: 1.0 - counted.failed as f64 / counted.requests.max(1) as f64,
            client: latency(&counted.client),
            server: latency(&counted.server),
        };
        self.versions.iter().filter(|(_, counted)| counted.requests > 0).map(row).collect()
    }
}

/// 5xx, no answer, or one that was cut, and not because a rule said so. Of a call of gRPC its own status says.
fn is_failure(sample: &Sample<'_>) -> bool {
    let code = sample.label("response_code");
    let flag = |wanted| sample.label("response_flags").split(',').any(|flag| flag == wanted);
    let grpc = grpc_as_http(sample.label("grpc_response_status")).is_some_and(|code| code >= 500);
    (code.starts_with('5') || code == "0" || grpc || flag("UC")) && !flag("FI")
}

/// Did the copy answer that is broken on purpose?
fn is_broken_copy(sample: &Sample<'_>) -> bool {
    (sample.label("destination_service_name"), sample.label("destination_version")) == BROKEN
}

fn taken_out(by: &str, sample: &Sample<'_>) -> TakenOut {
    let text = |label| sample.label(label).to_owned();
    let host = sample.label("destination_service");
    TakenOut {
        service: host.split('.').next().unwrap_or(host).to_owned(),
        endpoint: text("endpoint"),
        by: by.to_owned(),
        reason: text("reason"),
        rule: text("rule"),
    }
}

/// A TCP connection that ended for a reason of the mesh's or the server's.
fn is_broken(sample: &Sample<'_>) -> bool {
    let healthy = ["-", "", "DC", "DI", "FI"];
    !sample.label("response_flags").split(',').all(|flag| healthy.contains(&flag))
}

/// Quantiles of cumulative buckets.
fn latency(cumulative: &[f64; BUCKETS.len()]) -> Latency {
    let mut counts = *cumulative;
    for index in (1..counts.len()).rev() {
        counts[index] = (counts[index] - counts[index - 1]).max(0.0);
    }
    Latency {
        p50_ms: quantile(&counts, 0.5),
        p90_ms: quantile(&counts, 0.9),
        p99_ms: quantile(&counts, 0.99),
    }
}

/// A counter as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
