//! Measurements, never tests: each prints a table or JSON, and stops by itself.

mod churn;
mod control;
mod demo;
mod edits;
mod heddle;
mod http1;
mod http2;
mod mesh;
mod namespaces;
mod options;
mod process;
mod relay;
mod restarts;
mod retries;
mod rows;
mod rules;
mod scrape;
mod slow_backend;
mod statistics;
mod store;
mod telemetry;
mod telemetry_sink;
mod upstream;

use options::{AGAINST, BINARY, COUNT, Choice, OUTPUT, Options, ROUNDS, RUNS, SECONDS, list};

/// A bench by name, what it measures and its options.
struct Bench {
    name: &'static str,
    about: &'static str,
    options: &'static [Choice],
    run: fn(&Options) -> Result<(), String>,
}

/// All of them.
const BENCHES: [Bench; 11] = [
    Bench {
        name: "http1",
        about: http1::ABOUT,
        options: &[OUTPUT, ROUNDS, SECONDS, AGAINST, BINARY],
        run: http1::run,
    },
    Bench {
        name: "http2",
        about: http2::ABOUT,
        options: &[OUTPUT, ROUNDS, SECONDS, AGAINST, BINARY],
        run: http2::run,
    },
    Bench {
        name: "rules",
        about: rules::ABOUT,
        options: &[OUTPUT, ROUNDS, SECONDS, BINARY],
        run: rules::run,
    },
    Bench {
        name: "churn",
        about: "Calls of the demo while rules change and the control plane dies, then ten runs of calls while replicas are replaced too: how many fail.",
        options: &[OUTPUT, SECONDS, RUNS, BINARY],
        run: churn::run,
    },
    Bench {
        name: "control-at-scale",
        about: control::ABOUT,
        options: &[BINARY],
        run: control::run_all,
    },
    Bench {
        name: "edits",
        about: "Time from `apply`, or from the write of a file, to the last acknowledgement.",
        options: &[OUTPUT, COUNT],
        run: edits::run,
    },
    Bench {
        name: "retries",
        about: retries::ABOUT,
        options: &[OUTPUT, SECONDS, BINARY],
        run: retries::run,
    },
    Bench {
        name: "scrape",
        about: scrape::ABOUT,
        options: &[OUTPUT, ROUNDS, BINARY],
        run: scrape::run,
    },
    Bench {
        name: "slow-backend",
        about: slow_backend::ABOUT,
        options: &[OUTPUT, ROUNDS, SECONDS, BINARY],
        run: slow_backend::run,
    },
    Bench { name: "store", about: store::ABOUT, options: &[], run: store::run },
    Bench {
        name: "telemetry",
        about: telemetry::ABOUT,
        options: &[OUTPUT, ROUNDS, SECONDS, BINARY],
        run: telemetry::run,
    },
];

/// Runs the bench called `name`.
pub(crate) fn run(name: &str, words: &[&str]) -> Result<(), String> {
    let is_help = |word: &str| ["--help", "-h", "help"].contains(&word);
    match name {
        name if is_help(name) => {
            println!("{}", help());
            return Ok(());
        }
        // What `http1` and `http2` run in namespaces of their own.
        "upstream-http2" => return http2::upstream::run(words),
        "upstream" => return upstream::run(words),
        "relay" => return relay::run(words),
        // What `slow-backend` runs in a network namespace of its own.
        "slow-backend-inside" => return slow_backend::run_inside(words),
        // What `telemetry` runs there.
        "telemetry-sink" => return telemetry_sink::run(),
        _ => {}
    }
    let bench = BENCHES.iter().find(|bench| bench.name == name);
    let bench = bench.ok_or_else(|| format!("`{name}` is no bench\n\n{}", help()))?;
    if words.iter().any(|word| is_help(word)) {
        println!("{}", bench.help());
        return Ok(());
    }
    (bench.run)(&Options::read(words, bench.options)?)
}

/// All benches with all their options.
pub(crate) fn help() -> String {
    let all: Vec<String> = BENCHES.iter().map(Bench::help).collect();
    format!("cargo xtask bench NAME [OPTIONS]\n\n{}", all.join("\n\n"))
}

impl Bench {
    fn help(&self) -> String {
        format!("cargo xtask bench {}\n{}\n\n{}", self.name, self.about, list(self.options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_option_of_every_bench() {
        let help = help();
        for bench in &BENCHES {
            assert!(help.contains(&bench.help()) && help.contains(bench.name), "{help}");
        }
        for option in
            ["--output", "--rounds", "--seconds", "--against", "--binary", "--count", "--runs"]
        {
            assert!(help.contains(option), "{help}");
        }
    }
}
