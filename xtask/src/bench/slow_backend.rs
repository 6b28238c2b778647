//! `cargo xtask bench slow-backend`: what one backend of eight that is ten times slower costs the slowest
//! answers, under the balancer that is used without any rule.
//!
//! Each backend serves one request at a time: seven 500 a second, the slow one 50. Requests come at
//! 1,750 a second over 64 connections whether or not others are answered, and a latency counts from when
//! its request was due. The same is measured with the slow one removed; the figure to trust is the ratio
//! of the two, round by round. All of it stands in one network namespace of its own, made by `unshare`.

mod backends;
mod load;

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    heddle::{self, Control, Wire},
    namespaces::{NEAR_ADDRESS, VIP},
    options::Options,
    process::wait_for,
    statistics::{quantile, spread},
};
use crate::command::{exists, output, program, run as run_command};
use load::Load;

/// For `--help`.
pub(super) const ABOUT: &str = "\
What one slow backend of eight (50 requests a second, the others 500, one at a time) costs the slowest
answers: p99 at 1,750 requests a second over 64 connections, against p99 with that backend removed,
with 1 and with 4 workers. Medians with their range, and whether it is at most 20 % more. Needs root.";

/// Rounds unless told otherwise.
const ROUNDS: u64 = 5;
/// Seconds of counted load per measurement.
const SECONDS: u64 = 60;
/// Seconds in which the balancer gets to know its backends.
const WARM_UP: Duration = Duration::from_secs(10);
/// What is wanted of p99 with the slow one, as a multiple of p99 without.
const LIMIT: f64 = 1.2;
const WORKERS: [usize; 2] = [1, 4];
/// Where the backends listen; the last one is the slow one.
const ADDRESSES: [&str; 8] = [
    "240.241.0.21",
    "240.241.0.22",
    "240.241.0.23",
    "240.241.0.24",
    "240.241.0.25",
    "240.241.0.26",
    "240.241.0.27",
    "240.241.0.28",
];

/// The redirection of the client's sidecar, where everybody stands at one place.
const RULES: &str = "table inet bench { chain output { type nat hook output priority -100;
    meta mark 0x539 return; ip daddr 240.240.0.0/16 tcp dport 80 redirect to :15001; }; }";

/// Runs the bench in a network namespace of its own.
pub(super) fn run(options: &Options) -> Result<(), String> {
    for (name, package) in [("ip", "iproute2"), ("nft", "nftables"), ("unshare", "util-linux")] {
        if !exists(name) {
            return Err(format!("this bench needs root and: apt-get install {package}"));
        }
    }
    let binary = options.binary.clone().map_or_else(heddle::build, Ok)?;
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let words = [
        "--net".to_owned(),
        this.to_string_lossy().into_owned(),
        "bench".to_owned(),
        "slow-backend-inside".to_owned(),
        binary.to_string_lossy().into_owned(),
        options.rounds.unwrap_or(ROUNDS).to_string(),
        options.seconds.unwrap_or(SECONDS).to_string(),
        if options.json { "json" } else { "text" }.to_owned(),
    ];
    run_command(&mut program("unshare", &words.each_ref().map(String::as_str)))
}

/// The rest of it, within.
pub(super) fn run_inside(words: &[&str]) -> Result<(), String> {
    let [binary, rounds, seconds, form] = words else {
        return Err("started by `bench slow-backend` only".to_owned());
    };
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let (rounds, seconds) = (number(rounds)?, number(seconds)?);
    prepare()?;
    let each = (WARM_UP.as_secs() + seconds + 2) * 2 * WORKERS.len() as u64;
    eprintln!("{rounds} rounds: about {} min", (rounds * each).div_ceil(60));
    let _backends = backends::start(&ADDRESSES)?;
    let mut rows = WORKERS.map(|workers| Row { workers, pairs: Vec::new() });
    for round in 0..rounds {
        for row in &mut rows {
            let measure = |slow| one(Path::new(binary), row.workers, slow, seconds);
            // Every other round backwards, so that neither always comes after the other.
            let (with, without) = match round % 2 {
                0 => (measure(true)?, measure(false)?),
                _ => {
                    let without = measure(false)?;
                    (measure(true)?, without)
                }
            };
            row.pairs.push((with, without));
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    match *form {
        "json" => println!("{}", json!({ "rows": rows.each_ref().map(Row::json) })),
        _ => rows.iter().for_each(|row| println!("{}", row.line())),
    }
    Ok(())
}

/// Addresses of all, and the redirection.
fn prepare() -> Result<(), String> {
    let ip = |words: &[&str]| output(&mut program("ip", words)).map(drop);
    ip(&["link", "set", "lo", "up"])?;
    for address in ADDRESSES.iter().chain([&NEAR_ADDRESS]) {
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    ip(&["route", "add", "240.240.0.0/16", "dev", "lo", "src", NEAR_ADDRESS])?;
    output(&mut program("nft", &[RULES])).map(drop)
}

/// What one measurement gave.
struct Sample {
    p50_ms: f64,
    p99_ms: f64,
    requests: usize,
    /// Of them, those that the slow one answered.
    of_slow: usize,
}

/// Starts the sidecar with its control plane, loads it, and counts.
fn one(binary: &Path, workers: usize, slow: bool, seconds: u64) -> Result<Sample, String> {
    let dir = std::env::temp_dir().join(format!("heddle-bench-slow-{}", std::process::id()));
    let addresses = &ADDRESSES[..ADDRESSES.len() - usize::from(!slow)];
    let control = Control::of(binary, &dir, Wire::Http1, addresses)?;
    let sidecar = control.sidecar_here(binary, workers)?;
    let to = format!("{VIP}:80");
    wait_for("first answer", Duration::from_secs(10), || load::answers(&to))?;
    let Load { latencies_ms, of_slow } = load::run(&to, WARM_UP, Duration::from_secs(seconds))?;
    drop((sidecar, control));
    drop(std::fs::remove_dir_all(&dir));
    Ok(Sample {
        p50_ms: quantile(&latencies_ms, 0.5),
        p99_ms: quantile(&latencies_ms, 0.99),
        requests: latencies_ms.len(),
        of_slow,
    })
}

/// With so many workers: with the slow one and without, round by round.
struct Row {
    workers: usize,
    pairs: Vec<(Sample, Sample)>,
}

impl Row {
    fn spread(&self, of: impl Fn(&(Sample, Sample)) -> f64) -> (f64, f64, f64) {
        spread(&self.pairs.iter().map(of).collect::<Vec<_>>())
    }

    fn ratio(&self) -> (f64, f64, f64) {
        self.spread(|(with, without)| with.p99_ms / without.p99_ms)
    }

    fn share_of_slow(&self) -> (f64, f64, f64) {
        self.spread(|(with, _)| 100.0 * with.of_slow as f64 / with.requests.max(1) as f64)
    }

    fn line(&self) -> String {
        let (with, without) =
            (self.spread(|(with, _)| with.p99_ms), self.spread(|(_, without)| without.p99_ms));
        let (ratio, least, most) = self.ratio();
        let verdict = if ratio <= LIMIT { "met" } else { "NOT met" };
        format!(
            "{} workers: p99 {:.1} ms ({:.1}–{:.1}) with the slow one, {:.1} ms ({:.1}–{:.1}) without; \
             ratio {ratio:.2} ({least:.2}–{most:.2}), {verdict} (at most {LIMIT}); it got {:.2} % of requests; p50 {:.1} and {:.1} ms",
            self.workers,
            with.0,
            with.1,
            with.2,
            without.0,
            without.1,
            without.2,
            self.share_of_slow().0,
            self.spread(|(with, _)| with.p50_ms).0,
            self.spread(|(_, without)| without.p50_ms).0,
        )
    }

    fn json(&self) -> Value {
        let range = |(median, least, most): (f64, f64, f64)| json!([median, least, most]);
        json!({
            "workers": self.workers,
            "p99_ms_with": range(self.spread(|(with, _)| with.p99_ms)),
            "p99_ms_without": range(self.spread(|(_, without)| without.p99_ms)),
            "ratio": range(self.ratio()), "limit": LIMIT, "met": self.ratio().0 <= LIMIT,
            "percent_of_slow": range(self.share_of_slow()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let sample = |p99_ms, of_slow| Sample { p50_ms: 2.0, p99_ms, requests: 1_000, of_slow };
        let pairs = [(10.0, 8.0), (30.0, 10.0), (11.0, 10.0)];
        let pairs = pairs.map(|(with, without)| (sample(with, 5), sample(without, 0))).into();
        let line = Row { workers: 4, pairs }.line();
        assert!(
            line.contains("ratio 1.25 (1.10–3.00), NOT met (at most 1.2); it got 0.50 %"),
            "{line}"
        );
    }
}
