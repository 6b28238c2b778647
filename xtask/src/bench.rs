//! Measurements, never tests: each prints a table or JSON, and stops by itself.

mod churn;
mod demo;
mod edits;
mod heddle;
mod http1;
mod namespaces;
mod options;
mod process;
mod relay;
mod statistics;
mod upstream;

use options::Options;

/// Runs the bench called `name`.
pub(crate) fn run(name: &str, words: &[&str]) -> Result<(), String> {
    match name {
        "http1" => http1::run(&Options::read(words)?),
        "churn" => churn::run(&Options::read(words)?),
        "edits" => edits::run(&Options::read(words)?),
        // What `http1` runs in namespaces of its own.
        "upstream" => upstream::run(words),
        "relay" => relay::run(words),
        _ => Err(format!("`{name}` is no bench: choose http1, churn or edits")),
    }
}
