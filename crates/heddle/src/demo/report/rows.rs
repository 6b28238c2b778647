//! Rows of the demo's result: a version of a service, an edge between two services.

use std::collections::BTreeMap;

use serde::Serialize;

/// One version of a service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::demo) struct ServiceRow {
    /// Service.
    pub(in crate::demo) name: String,
    /// Version.
    pub(in crate::demo) version: String,
    /// Requests (connections on TCP) its own sidecars counted.
    pub(in crate::demo) requests: u64,
    /// Share of them without 5xx and with an answer, 0 to 1.
    pub(in crate::demo) success_rate: f64,
    /// Latency as its callers' sidecars saw it.
    pub(in crate::demo) client: Latency,
    /// Latency as its own sidecars saw it.
    pub(in crate::demo) server: Latency,
}

/// Latency quantiles, milliseconds; null on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(in crate::demo) struct Latency {
    /// Median.
    pub(in crate::demo) p50_ms: Option<f64>,
    /// 90th percentile.
    pub(in crate::demo) p90_ms: Option<f64>,
    /// 99th percentile.
    pub(in crate::demo) p99_ms: Option<f64>,
}

/// Calls from one service to another; connections on TCP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::demo) struct EdgeRow {
    /// Caller.
    pub(in crate::demo) source: String,
    /// Callee.
    pub(in crate::demo) destination: String,
    /// `http`, `grpc` or `tcp`.
    pub(in crate::demo) protocol: String,
    /// Counted by the callers' sidecars; null for callers outside the mesh, which have none.
    pub(in crate::demo) client_requests: Option<u64>,
    /// Counted by the callees' sidecars, aborts that they injected apart.
    pub(in crate::demo) server_requests: u64,
    /// Counted by the callers; null where a program cannot tell.
    pub(in crate::demo) app_sent: Option<u64>,
    /// Counted by the callees; null where a program cannot tell.
    pub(in crate::demo) app_received: Option<u64>,
    /// Calls of gRPC by their own status, a number, as the callers' sidecars saw it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::demo) grpc_statuses: BTreeMap<String, u64>,
    /// 5xx or no response as the callers' sidecars saw it; injected aborts, and what the copy did that is broken
    /// on purpose, apart.
    pub(in crate::demo) failed: u64,
    /// Of the failures above none: those that injected faults behind the callee account for, at most one for each
    /// call that was aborted or delayed there.
    pub(in crate::demo) failed_after_faults: u64,
    /// What the copy did that is broken on purpose.
    pub(in crate::demo) failed_on_purpose: u64,
    /// Aborts injected by a rule.
    pub(in crate::demo) injected_aborts: u64,
    /// Delays injected by a rule.
    pub(in crate::demo) injected_delays: u64,
    /// Bytes from caller to callee.
    pub(in crate::demo) sent_bytes: u64,
    /// Bytes back.
    pub(in crate::demo) received_bytes: u64,
}

impl EdgeRow {
    /// Was every call seen by both sidecars, and by both applications where they can tell?
    pub(in crate::demo) fn captured(&self) -> bool {
        let captured_at_client = self.client_requests.is_none_or(|requests| {
            self.app_sent.is_none_or(|sent| sent == requests)
                && requests.saturating_sub(self.injected_aborts) == self.server_requests
        });
        captured_at_client
            && self.app_received.is_none_or(|received| received == self.server_requests)
    }
}

/// An endpoint that a circuit breaker has taken out, as it was at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::demo) struct TakenOut {
    /// Its service.
    pub(in crate::demo) service: String,
    /// The workload.
    pub(in crate::demo) endpoint: String,
    /// Whose sidecar gives it no requests.
    pub(in crate::demo) by: String,
    /// What it did too often: the field of the rule, or `probe`.
    pub(in crate::demo) reason: String,
    /// The rule that asks for it.
    pub(in crate::demo) rule: String,
}
