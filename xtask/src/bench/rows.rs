//! Sidecars under different rules, measured in turn: what one request costs each of them, against the first.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    heddle::{self, Control, Wire},
    http1::{peers::available, sample::saturated},
    namespaces::Pair,
    options::Options,
    statistics::spread,
};
use crate::time::now;

const ROUNDS: u64 = 5;
const SECONDS: u64 = 2;

/// The rules a sidecar has, and what each round gave.
pub(super) struct Row {
    pub(super) name: &'static str,
    control: Control,
    /// At most this ratio to the first row.
    limit: Option<f64>,
    /// CPU µs per request, one per round.
    costs: Vec<f64>,
}

/// A bench of rows.
pub(super) struct Rows {
    /// What it is called, and what is measured.
    pub(super) bench: &'static str,
    pub(super) title: &'static str,
    /// What the first row is called in a sentence.
    pub(super) first: &'static str,
    pub(super) binary: PathBuf,
    dir: PathBuf,
    rows: Vec<Row>,
}

impl Rows {
    /// Begins one.
    pub(super) fn new(
        (bench, title, first): (&'static str, &'static str, &'static str),
        options: &Options,
    ) -> Result<Self, String> {
        available(Wire::Http1)?;
        let binary = options.binary.clone().map_or_else(heddle::build, Ok)?;
        let dir = std::env::temp_dir().join(format!("heddle-bench-{bench}"));
        Ok(Self { bench, title, first, binary, dir, rows: Vec::new() })
    }

    /// Where a row's control plane keeps its files, and its sidecar too.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Adds a row whose sidecar goes by `rules`.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        rules: &str,
        limit: Option<f64>,
    ) -> Result<(), String> {
        let control = Control::start(&self.binary, &self.folder(name), Wire::Http1, rules)?;
        self.rows.push(Row { name, control, limit, costs: Vec::new() });
        Ok(())
    }

    /// Measures all of them in `pair`, in turn within each round, and tells.
    pub(super) fn run(mut self, pair: &Pair, options: &Options) -> Result<(), String> {
        let rounds = options.rounds.unwrap_or(ROUNDS);
        let seconds = options.seconds.unwrap_or(SECONDS);
        let total = Duration::from_secs(rounds * self.rows.len() as u64 * (seconds + 3)).as_secs();
        eprintln!("{rounds} rounds of {seconds} s per set of rules: about {total} s");
        let began = now();
        for round in 0..rounds {
            let mut order: Vec<&mut Row> = self.rows.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for row in order {
                row.measure(&self.binary, pair, seconds)
                    .map_err(|e| format!("round {round}, {}: {e}", row.name))?;
            }
            eprintln!("round {} of {rounds}: {} s so far", round + 1, (now() - began).as_secs());
        }
        self.print(options.json);
        drop(std::fs::remove_dir_all(&self.dir));
        Ok(())
    }

    fn print(&self, as_json: bool) {
        let first = self.rows.first().map_or(&[][..], |row| &row.costs);
        let ratio = |row: &Row| {
            let each = row.costs.iter().zip(first).map(|(cost, first)| cost / first);
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
            let rows: Vec<Value> = self.rows.iter().map(row).collect();
            println!("{:#}", json!({ "bench": self.bench, "rows": rows }));
            return;
        }
        println!("{}; medians (min–max)", self.title);
        for row in &self.rows {
            let (cpu, least, most) = spread(&row.costs);
            let (ratio, low, high) = ratio(row);
            let verdict = match row.limit {
                Some(limit) if ratio <= limit => format!("  met (at most {limit})"),
                Some(limit) => format!("  NOT met (at most {limit})"),
                None => String::new(),
            };
            println!(
                "{:16} CPU µs/request {cpu:.2} ({least:.2}–{most:.2}), to {} {ratio:.3} ({low:.3}–{high:.3}){verdict}",
                row.name, self.first
            );
        }
    }
}

impl Row {
    fn measure(&mut self, binary: &Path, pair: &Pair, seconds: u64) -> Result<(), String> {
        let start = || self.control.sidecar(binary, true);
        self.costs.push(saturated(pair, start, seconds)?);
        Ok(())
    }
}
