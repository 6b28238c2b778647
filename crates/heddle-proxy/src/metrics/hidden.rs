//! Metrics that a Telemetry takes out (`overrides[].disabled`): they are counted as ever, and not told.

use heddle_model::discovery::{Metric, MetricChange, SideTelemetry, WorkloadTelemetry};

/// Standard metrics by their names, in the order of their bits.
const METRICS: [(Metric, &str); 8] = [
    (Metric::RequestCount, "istio_requests_total"),
    (Metric::RequestDuration, "istio_request_duration_milliseconds"),
    (Metric::RequestSize, "istio_request_bytes"),
    (Metric::ResponseSize, "istio_response_bytes"),
    (Metric::TcpOpened, "istio_tcp_connections_opened_total"),
    (Metric::TcpClosed, "istio_tcp_connections_closed_total"),
    (Metric::TcpSent, "istio_tcp_sent_bytes_total"),
    (Metric::TcpReceived, "istio_tcp_received_bytes_total"),
];

/// How the labels of what the caller's side reports begin.
const OF_CLIENT: &str = "reporter=\"source\"";

/// One bit for each metric that is taken out: those of the client's side first.
pub(super) fn of(telemetry: &WorkloadTelemetry) -> u32 {
    side(&telemetry.client) | side(&telemetry.server) << METRICS.len()
}

/// What a later change says of a metric holds.
fn side(told: &SideTelemetry) -> u32 {
    let is_out = |metric: Metric| {
        let meant = |one: &&MetricChange| one.metric == metric || one.metric == Metric::All;
        let said = told.metrics.iter().rev().filter(meant).find_map(|one| one.disabled);
        u32::from(said.unwrap_or(false))
    };
    METRICS.iter().enumerate().map(|(bit, (metric, _))| is_out(*metric) << bit).sum()
}

/// Is this metric, with these labels, among those that are taken out?
pub(super) fn hides(hidden: u32, name: &str, labels: &str) -> bool {
    if hidden == 0 {
        return false;
    }
    let Some(bit) = METRICS.iter().position(|(_, known)| *known == name) else { return false };
    let bit = if labels.starts_with(OF_CLIENT) { bit } else { bit + METRICS.len() };
    hidden >> bit & 1 == 1
}

#[cfg(test)]
mod tests {
    use heddle_model::discovery::Provenance;

    use super::*;

    fn change(metric: Metric, disabled: bool) -> MetricChange {
        MetricChange { provenance: Provenance::default(), metric, disabled: Some(disabled) }
    }

    #[test]
    fn the_last_word_on_a_metric_and_a_side_holds() {
        let changes = vec![
            change(Metric::All, true),
            change(Metric::RequestCount, false),
            change(Metric::TcpSent, false),
            change(Metric::TcpSent, true),
        ];
        let client = SideTelemetry { metrics: changes, ..SideTelemetry::default() };
        let hidden = of(&WorkloadTelemetry { client, server: SideTelemetry::default() });
        let client = "reporter=\"source\",source_workload=\"a\"";
        let server = "reporter=\"destination\",source_workload=\"a\"";
        assert!(!hides(hidden, "istio_requests_total", client));
        assert!(hides(hidden, "istio_request_bytes", client));
        assert!(hides(hidden, "istio_tcp_sent_bytes_total", client));
        assert!(!hides(hidden, "istio_request_bytes", server));
        assert!(!hides(hidden, "heddle_retries_total", client));
    }
}
