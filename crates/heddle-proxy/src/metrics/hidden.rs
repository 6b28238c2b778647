//! Metrics that a Telemetry takes out (`overrides[].disabled`): they are counted as ever, and not told.

use heddle_model::discovery::{Metric, MetricChange, SideTelemetry, WorkloadTelemetry};

use super::{edge::Reporter, tags::Bits};

/// One bit for each metric that is taken out: those of the client's side first.
pub(super) fn of(telemetry: &WorkloadTelemetry) -> u32 {
    side(&telemetry.client) | side(&telemetry.server) << Metric::EACH.len()
}

/// What a later change says of a metric holds.
fn side(told: &SideTelemetry) -> u32 {
    let is_out = |metric: Metric| {
        let meant = |one: &&MetricChange| one.metric == metric || one.metric == Metric::All;
        let said = told.metrics.iter().rev().filter(meant).find_map(|one| one.disabled);
        u32::from(said.unwrap_or(false))
    };
    Metric::EACH.iter().enumerate().map(|(bit, (metric, ..))| is_out(*metric) << bit).sum()
}

/// Is this metric of this side among those that are taken out?
pub(super) fn hides(hidden: u32, metric: Bits, reporter: Reporter) -> bool {
    let shift = if reporter == Reporter::Source { 0 } else { Metric::EACH.len() };
    hidden >> shift & u32::from(metric.0) != 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heddle_model::discovery::Provenance;

    use super::*;

    fn change(metric: Metric, disabled: bool) -> MetricChange {
        let tags = BTreeMap::new();
        MetricChange { provenance: Provenance::default(), metric, disabled: Some(disabled), tags }
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
        let of = |metric, reporter| hides(hidden, Bits::of(metric), reporter);
        assert!(!of(Metric::RequestCount, Reporter::Source));
        assert!(of(Metric::RequestSize, Reporter::Source));
        assert!(of(Metric::GrpcResponseMessages, Reporter::Source));
        assert!(of(Metric::TcpSent, Reporter::Source));
        assert!(!of(Metric::RequestSize, Reporter::Destination));
    }
}
