//! What Heddle's CPU per request is held against: ratios to what ran beside it in the same rounds,
//! since they hold on fast and slow machines alike.

use serde_json::{Value, json};

use super::{
    peers::Proxy,
    row::{Row, path},
    sample::Sample,
};
use crate::bench::statistics::{spread, verdict};

/// A bound of a ratio.
struct Target {
    /// The row it is a ratio to.
    to: &'static str,
    /// Under which load.
    load: Load,
    /// At most; `None`: told without a bound.
    limit: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Saturated,
    Steady,
    Reconnecting,
}

const SATURATED: Load = Load::Saturated;
const STEADY: Load = Load::Steady;
const RECONNECTING: Load = Load::Reconnecting;

/// All of them, on both paths.
const TARGETS: [Target; 10] = [
    Target { to: "relay", load: SATURATED, limit: Some(1.15) },
    Target { to: "haproxy", load: SATURATED, limit: Some(0.9) },
    Target { to: "envoy", load: SATURATED, limit: None },
    Target { to: "envoy", load: STEADY, limit: None },
    Target { to: "heddle (old)", load: SATURATED, limit: Some(1.03) },
    Target { to: "heddle (old)", load: STEADY, limit: Some(1.03) },
    Target { to: "relay", load: RECONNECTING, limit: None },
    Target { to: "haproxy", load: RECONNECTING, limit: None },
    Target { to: "envoy", load: RECONNECTING, limit: None },
    Target { to: "heddle (old)", load: RECONNECTING, limit: None },
];

/// To these no relay is a floor: itself, and what is to be no dearer than it was.
const OURS: [&str; 2] = ["relay", "heddle (old)"];

/// A ratio that was measured.
#[derive(Debug)]
pub(super) struct Ratio {
    to: &'static str,
    load: Load,
    outbound: bool,
    limit: Option<f64>,
    /// What a relay that looks at nothing is at, under the same load.
    floor: Option<f64>,
    /// Median, least and greatest over the rounds.
    spread: (f64, f64, f64),
}

/// The ratios for which both sides were measured.
pub(super) fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let mut found = Vec::new();
    for Target { to, load, limit } in TARGETS {
        for outbound in [true, false] {
            let row = |wanted: &dyn Fn(&Proxy) -> bool| {
                rows.iter().find(|row| row.outbound == outbound && wanted(&row.proxy))
            };
            let ours = row(&|proxy| matches!(proxy, Proxy::Heddle(_)));
            let Some((ours, theirs)) = ours.zip(row(&|proxy| proxy.name() == to)) else { continue };
            // Round by round: what slows the machine for a while slows both.
            let each = |row: &Row| {
                let pairs = row.samples.iter().zip(&theirs.samples);
                spread(
                    &pairs
                        .map(|(own, other)| load.cost(own) / load.cost(other))
                        .collect::<Vec<_>>(),
                )
            };
            let relay = row(&|proxy| matches!(proxy, Proxy::Relay(_)));
            let floor = relay.map(|relay| each(relay).0).filter(|_| !OURS.contains(&to));
            found.push(Ratio { to, load, outbound, limit, floor, spread: each(ours) });
        }
    }
    found
}

impl Load {
    fn cost(self, sample: &Sample) -> f64 {
        match self {
            Self::Saturated => sample.cpu_us_per_request,
            Self::Steady => sample.steady_cpu_us_per_request,
            Self::Reconnecting => sample.reconnecting_cpu_us_per_request,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Steady => "at 10,000/s",
            Self::Reconnecting => "per request",
        }
    }
}

impl Ratio {
    fn is_met(&self) -> Option<bool> {
        self.limit.map(|limit| self.spread.0 <= limit)
    }

    /// A line of the table.
    pub(super) fn line(&self) -> String {
        let (median, least, most) = self.spread;
        let verdict = verdict(self.limit, median, self.floor);
        format!(
            "{:8} {:11} CPU heddle / {:12} {median:.3} ({least:.3}–{most:.3})  {verdict}",
            path(self.outbound),
            self.load.name(),
            self.to
        )
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        let (median, least, most) = self.spread;
        json!({
            "path": path(self.outbound), "load": self.load.name(), "to": self.to, "ratio": median,
            "ratio_range": [least, most], "limit": self.limit, "floor": self.floor,
            "met": self.is_met(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn row(proxy: Proxy, costs: &[f64]) -> Row {
        let sample = |cost: &f64| Sample {
            cpu_us_per_request: *cost,
            user_us_per_request: 0.0,
            requests_per_second: 0.0,
            p99_ms: 0.0,
            rss_mb: 0.0,
            rss_loaded_mb: 0.0,
            steady_cpu_us_per_request: 2.0 * cost,
            steady_p99_ms: 0.0,
            reconnecting_cpu_us_per_request: 3.0 * cost,
        };
        Row { proxy, outbound: true, samples: costs.iter().map(sample).collect() }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_held_against_its_limit() {
        let rows = [
            row(Proxy::Heddle(PathBuf::new()), &[10.0, 30.0, 11.0]),
            row(Proxy::Haproxy, &[20.0, 30.0, 10.0]),
            row(Proxy::OldHeddle(PathBuf::new()), &[10.0, 30.0, 11.0]),
        ];
        let lines: Vec<String> = ratios(&rows).iter().map(Ratio::line).collect();
        let wanted = [
            "outbound saturated   CPU heddle / haproxy      1.000 (0.500–1.100)  NOT met (at most 0.9)",
            "outbound saturated   CPU heddle / heddle (old) 1.000 (1.000–1.000)  met (at most 1.03)",
            "outbound at 10,000/s CPU heddle / heddle (old) 1.000 (1.000–1.000)  met (at most 1.03)",
            "outbound per request CPU heddle / haproxy      1.000 (0.500–1.100)  no target",
            "outbound per request CPU heddle / heddle (old) 1.000 (1.000–1.000)  no target",
        ];
        assert_eq!(lines, wanted);
    }
}
