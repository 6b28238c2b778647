//! Options of a bench: `--output json|text`, and numbers with their bounds.

/// What was asked for; each bench has its own defaults.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Print one JSON object instead of a table.
    pub(super) json: bool,
    /// Interleaved rounds.
    pub(super) rounds: Option<u64>,
    /// Seconds of load.
    pub(super) seconds: Option<u64>,
    /// Edits.
    pub(super) count: Option<u64>,
}

impl Options {
    /// Reads the words after the bench's name.
    pub(super) fn read(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let mut value =
                || rest.next().copied().ok_or_else(|| format!("`{word}` needs a value"));
            match *word {
                "--output" => options.json = value()? == "json",
                "--rounds" => options.rounds = Some(number(value()?, 100)?),
                "--seconds" => options.seconds = Some(number(value()?, 600)?),
                "--count" => options.count = Some(number(value()?, 10_000)?),
                other => {
                    return Err(format!(
                        "`{other}` is no option: use --output json, --rounds, --seconds or --count"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// A whole number from 1 to `max`: every bench is bounded.
fn number(text: &str, max: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to {max}"))
}
