//! What the bench found, as a table or JSON.

use serde_json::{Value, json};

use super::{
    load::SHAPES,
    row::{Cost, Row, Sample, path},
};
use crate::bench::{
    http1::peers::Proxy,
    statistics::{spread, verdict},
};

/// Prints rows, ratios and what was missing.
pub(super) fn print(rows: &[Row], missing: &[String], as_json: bool) {
    let ratios = ratios(rows);
    if as_json {
        let rows: Vec<Value> = rows.iter().map(object).collect();
        let ratios: Vec<Value> = ratios.iter().map(Ratio::json).collect();
        let all = json!({ "bench": "http2", "rows": rows, "ratios": ratios, "missing": missing });
        println!("{all:#}");
        return;
    }
    println!(
        "HTTP/2 on both sides, one core, 1 KB (gRPC: a message of 64 B); medians (min–max over rounds)"
    );
    rows.iter().for_each(|row| println!("{}", line(row)));
    println!("\nratios round by round; medians (min–max)");
    ratios.iter().for_each(|ratio| println!("{}", ratio.line()));
    missing.iter().for_each(|what| println!("missing: {what}"));
}

fn line(row: &Row) -> String {
    let mut line = format!("{:12} {:8}", row.proxy.name(), path(row.outbound));
    for (n, shape) in SHAPES.iter().enumerate() {
        let (cpu, least, most) = row.spread(n, |cost| cost.cpu_us);
        let (user, ..) = row.spread(n, |cost| cost.user_us);
        let (rate, ..) = row.spread(n, |cost| cost.requests_per_second);
        line += &format!(
            " | {}: CPU µs {cpu:.1} ({least:.1}–{most:.1}; user {user:.1}), {rate:.0}/s",
            shape.name
        );
    }
    let rss =
        |value: fn(&Sample) -> f64| spread(&row.samples.iter().map(value).collect::<Vec<_>>()).0;
    line + &format!(
        " | RSS MB idle {:.1} loaded {:.1}",
        rss(|s| s.rss_mb),
        rss(|s| s.rss_loaded_mb)
    )
}

impl Row {
    fn spread(&self, shape: usize, value: fn(&Cost) -> f64) -> (f64, f64, f64) {
        let costs = self.samples.iter().filter_map(|sample| sample.costs.get(shape));
        spread(&costs.map(value).collect::<Vec<_>>())
    }
}

fn object(row: &Row) -> Value {
    let shapes = SHAPES.iter().enumerate().map(|(n, shape)| {
        let (cpu, least, most) = row.spread(n, |cost| cost.cpu_us);
        json!({
            "shape": shape.name, "cpu_us_per_request": cpu, "cpu_us_per_request_range": [least, most],
            "user_us_per_request": row.spread(n, |cost| cost.user_us).0,
            "requests_per_second": row.spread(n, |cost| cost.requests_per_second).0,
        })
    });
    let rss =
        |value: fn(&Sample) -> f64| spread(&row.samples.iter().map(value).collect::<Vec<_>>()).0;
    json!({
        "proxy": row.proxy.name(), "path": path(row.outbound), "rounds": row.samples.len(),
        "shapes": shapes.collect::<Vec<_>>(),
        "rss_mb": rss(|s| s.rss_mb), "rss_loaded_mb": rss(|s| s.rss_loaded_mb),
    })
}

/// Heddle's cost to another's, in one shape on one path.
struct Ratio {
    to: &'static str,
    shape: &'static str,
    outbound: bool,
    limit: Option<f64>,
    /// What a relay that looks at nothing is at, in the same shape.
    floor: Option<f64>,
    spread: (f64, f64, f64),
}

/// One row's cost in a shape to another's, round by round: what slows the machine for a while slows both.
fn to_each(row: &Row, other: &Row, shape: usize) -> (f64, f64, f64) {
    let pairs = row.samples.iter().zip(&other.samples);
    let each = pairs.filter_map(|(own, other)| {
        Some(own.costs.get(shape)?.cpu_us / other.costs.get(shape)?.cpu_us)
    });
    spread(&each.collect::<Vec<_>>())
}

fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let mut found = Vec::new();
    let ours = rows.iter().filter(|row| matches!(row.proxy, Proxy::Heddle(_)));
    for ours in ours {
        let others = rows.iter().filter(|row| row.outbound == ours.outbound);
        let is_relay = |row: &&Row| matches!(row.proxy, Proxy::Relay(_));
        let relay = others.clone().find(is_relay);
        for theirs in others.filter(|row| !matches!(row.proxy, Proxy::Heddle(_))) {
            for (n, shape) in SHAPES.iter().enumerate() {
                let envoy = matches!(theirs.proxy, Proxy::Envoy(_));
                found.push(Ratio {
                    to: theirs.proxy.name(),
                    shape: shape.name,
                    outbound: ours.outbound,
                    limit: shape.limit.filter(|_| envoy),
                    floor: relay.map(|relay| to_each(relay, theirs, n).0),
                    spread: to_each(ours, theirs, n),
                });
            }
        }
    }
    found
}

impl Ratio {
    fn line(&self) -> String {
        let (median, least, most) = self.spread;
        let verdict = verdict(self.limit, median, self.floor);
        format!(
            "{:8} {:10} CPU heddle / {:12} {median:.3} ({least:.3}–{most:.3})  {verdict}",
            path(self.outbound),
            self.shape,
            self.to
        )
    }

    fn json(&self) -> Value {
        let (median, least, most) = self.spread;
        json!({
            "path": path(self.outbound), "shape": self.shape, "to": self.to, "ratio": median,
            "ratio_range": [least, most], "limit": self.limit, "floor": self.floor,
            "met": self.limit.map(|limit| median <= limit),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round_and_only_envoys_is_bounded() {
        let row = |proxy: Proxy, costs: [f64; 3]| {
            let cost = |cpu_us| Cost { cpu_us, user_us: 0.0, requests_per_second: 0.0 };
            let sample = |cpu| Sample { costs: vec![cost(cpu)], ..Sample::default() };
            Row { proxy, outbound: true, samples: costs.map(sample).to_vec() }
        };
        let rows = [
            row(Proxy::Heddle(PathBuf::new()), [10.0, 30.0, 11.0]),
            row(Proxy::Envoy(PathBuf::new()), [20.0, 30.0, 10.0]),
            row(Proxy::Relay(PathBuf::new()), [10.0, 30.0, 5.0]),
        ];
        let lines: Vec<String> = ratios(&rows).iter().map(Ratio::line).collect();
        assert_eq!(
            lines[0],
            "outbound 16x16      CPU heddle / envoy        1.000 (0.500–1.100)  NOT met (at most 0.4; a relay that looks at nothing is at 0.500)"
        );
        assert!(lines[SHAPES.len()].ends_with("1.000 (1.000–2.200)  no target"), "{lines:?}");
    }
}
