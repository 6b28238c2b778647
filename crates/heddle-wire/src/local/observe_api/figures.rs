//! What several answers of the dashboard are made of.

use heddle_model::{ServiceName, WorkloadId};
use serde::{Deserialize, Serialize};

/// An endpoint that a sidecar gives no requests, for its errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ejection {
    /// The workload whose sidecar took it out.
    pub by: WorkloadId,
    /// Of which service.
    pub service: ServiceName,
    /// Port of the service.
    pub port: u16,
    /// Subset, or empty.
    pub subset: String,
    /// Who is out.
    pub endpoint: WorkloadId,
    /// Where it is.
    pub address: String,
    /// Why: `consecutive5xxErrors`, `consecutiveGatewayErrors`, `consecutiveLocalOriginFailures`, or
    /// `probe` where it failed the request it was tried with.
    pub reason: String,
    /// The rule that asks for it.
    pub rule: String,
    /// Since when, Unix time in seconds.
    pub since: f64,
    /// When it is tried again, Unix time in seconds.
    pub until: f64,
}

/// Connections to upstreams on which no TLS came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsFailure {
    /// The workload whose sidecar connected.
    pub by: WorkloadId,
    /// Why, as in `heddle_tls_failures_total`: `unknown-issuer`, `expired`, …
    pub reason: String,
    /// How many there were since the sidecar's start.
    pub total: f64,
    /// When the last was, to the scrape; Unix time in seconds.
    pub last: f64,
}

/// Golden signals of one side.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Requests (connections opened on TCP) per second.
    pub per_second: f64,
    /// Share answered without 5xx and without a missing answer, injected aborts left out of both
    /// numbers, 0 to 1; 1 where nothing was asked. On TCP: connections that reached an endpoint.
    pub success: f64,
    /// 4xx per second.
    pub client_errors_per_second: f64,
    /// 5xx or no answer, per second; injected aborts apart.
    pub server_errors_per_second: f64,
    /// Injected aborts per second.
    pub injected_per_second: f64,
    /// Requests delayed by an injected fault, per second.
    #[serde(default)]
    pub delayed_per_second: f64,
    /// Median, milliseconds, injected aborts left out; `None` where nothing was asked.
    pub p50_ms: Option<f64>,
    /// 90th percentile.
    pub p90_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
}
