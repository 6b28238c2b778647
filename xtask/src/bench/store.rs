//! `cargo xtask bench store`: what the observer's store takes in memory and on the disk. What is measured, and how, is in
//! `crates/heddle-observe/src/rounds/six_hours.rs`: it has to be inside, where six hours pass in a minute.

use super::options::Options;
use crate::command::{self, program};

/// For the list of benches.
pub(super) const ABOUT: &str = "The observer's store after six hours of 50 sidecars with 3,000 series, and with far more than fits: memory and disk.";

/// The workspace's libraries, as all tests build them.
const BENCH: [&str; 8] = [
    "test",
    "--workspace",
    "--lib",
    "--release",
    "--locked",
    "--quiet",
    "--",
    "rounds::six_hours::",
];

/// Runs the bench.
pub(super) fn run(_: &Options) -> Result<(), String> {
    command::run(&mut program("cargo", &[&BENCH[..], &["--ignored", "--nocapture"]].concat()))
}
