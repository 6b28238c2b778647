//! `cargo xtask bench rules`: what the order of rules costs. A sidecar whose service has 1,000 rules of
//! which the request matches the last, one with that last rule alone, and one with 50 regular expressions
//! before it, in turn within each round.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    heddle::{self, Control, Wire},
    http1::{peers::available, sample::saturated},
    namespaces::Pair,
    options::Options,
    statistics::spread,
};
use crate::time::now;

/// For `--help`.
pub(super) const ABOUT: &str = "\
CPU time per request of one sidecar on one core, outbound, saturated, whose request matches the last of
1,000 rules (70 % prefixes, 20 % exact paths, 10 % headers), against that rule alone (at most 1.05) and
against 50 regular expressions before it (told without a bound). Needs root.";

const ROUNDS: u64 = 5;
const SECONDS: u64 = 2;
/// Rules before the last.
const RULES: usize = 999;
/// Regular expressions before the last.
const REGEXES: usize = 50;
/// At most this ratio.
const LIMIT: f64 = 1.05;

/// The rules a sidecar has, and what each round gave.
struct Row {
    name: &'static str,
    control: Control,
    limit: Option<f64>,
    /// CPU µs per request, one per round.
    costs: Vec<f64>,
}

/// Runs the bench.
pub(super) fn run(options: &Options) -> Result<(), String> {
    available(Wire::Http1)?;
    let binary = options.binary.clone().map_or_else(heddle::build, Ok)?;
    let (rounds, seconds) = (options.rounds.unwrap_or(ROUNDS), options.seconds.unwrap_or(SECONDS));
    let pair = Pair::make()?;
    let dir = std::env::temp_dir().join("heddle-bench-rules");
    let row = |name, rules: &str, limit| {
        let control = Control::start(&binary, &dir.join(name), Wire::Http1, rules)?;
        Ok::<_, String>(Row { name, control, limit, costs: Vec::new() })
    };
    let mut rows = [
        row("alone", &rules(&[]), None)?,
        row("1000-rules", &rules(&mixed()), Some(LIMIT))?,
        row("50-regexes", &rules(&regexes()), None)?,
    ];
    let total = Duration::from_secs(rounds * rows.len() as u64 * (seconds + 3)).as_secs();
    eprintln!("{rounds} rounds of {seconds} s per set of rules: about {total} s");
    let began = now();
    for round in 0..rounds {
        let mut order: Vec<&mut Row> = rows.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for Row { name, control, costs, .. } in order {
            let start = || control.sidecar(&binary, true);
            let cost = saturated(&pair, start, seconds);
            costs.push(cost.map_err(|e| format!("round {round}, {name}: {e}"))?);
        }
        eprintln!("round {} of {rounds}: {} s so far", round + 1, (now() - began).as_secs());
    }
    print(&rows, options.json);
    drop(std::fs::remove_dir_all(&dir));
    Ok(())
}

/// A condition that no request of the bench meets.
fn mixed() -> Vec<String> {
    let condition = |n: usize| match n % 10 {
        0..7 => format!("uri: {{ prefix: /service-{n}/ }}"),
        7 | 8 => format!("uri: {{ exact: /service-{n}/orders }}"),
        _ => format!("headers: {{ x-tenant: {{ exact: tenant-{n} }} }}"),
    };
    (0..RULES).map(condition).collect()
}

fn regexes() -> Vec<String> {
    (0..REGEXES).map(|n| format!("uri: {{ regex: \"/service-{n}/[a-z]+/[0-9]+\" }}")).collect()
}

/// A VirtualService with a rule per condition, and the one that the request matches behind them.
fn rules(conditions: &[String]) -> String {
    let mut text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                    metadata: { name: echo }\nspec:\n  hosts: [echo]\n  http:\n"
        .to_owned();
    let last = "headers: { x-bench: { exact: \"yes\" } }".to_owned();
    for condition in conditions.iter().chain([&last]) {
        let _ = write!(
            text,
            "    - match: [{{ {condition} }}]\n      route: [{{ destination: {{ host: echo }} }}]\n"
        );
    }
    text
}

fn print(rows: &[Row], as_json: bool) {
    let alone = rows.first().map_or(&[][..], |row| &row.costs);
    let ratio = |row: &Row| {
        let each = row.costs.iter().zip(alone).map(|(cost, alone)| cost / alone);
        spread(&each.collect::<Vec<_>>())
    };
    if as_json {
        let row = |row: &Row| {
            let (ratio, least, most) = ratio(row);
            json!({
                "rules": row.name, "cpu_us_per_request": spread(&row.costs).0, "ratio": ratio,
                "ratio_range": [least, most], "limit": row.limit,
                "met": row.limit.map(|limit| ratio <= limit),
            })
        };
        let rows: Vec<Value> = rows.iter().map(row).collect();
        println!("{:#}", json!({ "bench": "rules", "rows": rows }));
        return;
    }
    println!("HTTP/1.1, outbound, saturated; the request matches the last rule; medians (min–max)");
    for row in rows {
        let (cpu, least, most) = spread(&row.costs);
        let (ratio, low, high) = ratio(row);
        let verdict = match row.limit {
            Some(limit) if ratio <= limit => format!("  met (at most {limit})"),
            Some(limit) => format!("  NOT met (at most {limit})"),
            None => String::new(),
        };
        println!(
            "{:11} CPU µs/request {cpu:.2} ({least:.2}–{most:.2}), to the rule alone {ratio:.3} ({low:.3}–{high:.3}){verdict}",
            row.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_ten_rules_look_at_prefixes_two_at_paths_and_one_at_a_header() {
        let rules = rules(&mixed());
        let count = |what: &str| rules.matches(what).count();
        assert_eq!((count("prefix:"), count("uri: { exact:"), count("x-tenant")), (700, 200, 99));
        assert_eq!(count("- match:"), 1_000);
    }
}
