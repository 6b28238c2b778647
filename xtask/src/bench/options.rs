//! Options of the benches: each names the ones it has, and `--help` lists them.

use std::path::PathBuf;

/// An option: its words, and what it does.
pub(super) struct Choice {
    name: &'static str,
    value: &'static str,
    about: &'static str,
}

/// `--output`.
pub(super) const OUTPUT: Choice =
    Choice { name: "--output", value: "text|json", about: "a table (default), or one JSON object" };
/// `--rounds`.
pub(super) const ROUNDS: Choice = Choice {
    name: "--rounds",
    value: "N",
    about: "rounds, each with every proxy in turn, 1 to 100",
};
/// `--seconds`.
pub(super) const SECONDS: Choice =
    Choice { name: "--seconds", value: "N", about: "seconds of counted load, 1 to 600" };
/// `--runs`.
pub(super) const RUNS: Choice = Choice {
    name: "--runs",
    value: "N",
    about: "only the runs with restarts and kills, so many, 1 to 100",
};
/// `--count`.
pub(super) const COUNT: Choice = Choice { name: "--count", value: "N", about: "edits, 1 to 10000" };
/// `--against`.
pub(super) const AGAINST: Choice = Choice {
    name: "--against",
    value: "PATH",
    about: "another `heddle` binary to measure in turn with this one, as \"heddle (old)\"",
};

/// `--binary`.
pub(super) const BINARY: Choice = Choice {
    name: "--binary",
    value: "PATH",
    about: "the `heddle` binary to measure; without it, this tree's is built",
};

/// What was asked for; each bench has its own defaults.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Print one JSON object instead of a table.
    pub(super) json: bool,
    /// Interleaved rounds.
    pub(super) rounds: Option<u64>,
    /// Seconds of load.
    pub(super) seconds: Option<u64>,
    /// Runs.
    pub(super) runs: Option<u64>,
    /// Edits.
    pub(super) count: Option<u64>,
    /// Another binary to compare with.
    pub(super) against: Option<PathBuf>,
    /// The binary itself, where it is not to be built.
    pub(super) binary: Option<PathBuf>,
}

impl Options {
    /// Reads the words after the bench's name, which takes these choices.
    pub(super) fn read(words: &[&str], choices: &[Choice]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if !choices.iter().any(|choice| choice.name == *word) {
                return Err(format!("`{word}` is no option of this bench\n\n{}", list(choices)));
            }
            let value = rest.next().copied().ok_or_else(|| format!("`{word}` needs a value"))?;
            match *word {
                "--output" => options.json = output(value)?,
                "--rounds" => options.rounds = Some(number(value, 100)?),
                "--seconds" => options.seconds = Some(number(value, 600)?),
                "--runs" => options.runs = Some(number(value, 100)?),
                "--against" => options.against = Some(binary(value)?),
                "--binary" => options.binary = Some(binary(value)?),
                _ => options.count = Some(number(value, 10_000)?),
            }
        }
        Ok(options)
    }
}

/// A line for each choice.
pub(super) fn list(choices: &[Choice]) -> String {
    let line = |choice: &Choice| {
        let words = format!("{} {}", choice.name, choice.value);
        format!("  {words:22} {}", choice.about)
    };
    choices.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn output(text: &str) -> Result<bool, String> {
    match text {
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(format!("`{other}` is no output: use text or json")),
    }
}

/// A whole number from 1 to `max`: every bench is bounded.
fn number(text: &str, max: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to {max}"))
}

/// The file by its full path: programs are started from other folders.
fn binary(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|e| format!("{text}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_takes_its_own_options_only() {
        let choices = [OUTPUT, SECONDS];
        let read = Options::read(&["--output", "json", "--seconds", "3"], &choices).unwrap();
        assert_eq!(read, Options { json: true, seconds: Some(3), ..Options::default() });
        let refused = |words: &[&str]| Options::read(words, &choices).unwrap_err();
        assert!(refused(&["--count", "3"]).starts_with("`--count` is no option of this bench"));
        assert_eq!(refused(&["--seconds"]), "`--seconds` needs a value");
        assert_eq!(refused(&["--seconds", "0"]), "`0` is not a number from 1 to 600");
        assert_eq!(refused(&["--output", "xml"]), "`xml` is no output: use text or json");
    }
}
