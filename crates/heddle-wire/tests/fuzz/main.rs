//! Every decoder of this crate against a corpus, and against what small changes make of it.
//!
//! `corpus/TARGET/` holds inputs worth keeping: each is replayed, then changed some thousand times
//! from a fixed seed, so that a plain `cargo test` says the same everywhere. `HEDDLE_FUZZ_SECONDS=600`
//! goes on for so long with a new seed. An input that fails is written to a file, to be kept in the
//! corpus with the fix.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it met by failing")]

mod changes;
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use changes::Changes;

/// Changed inputs per target where no time is given: some tenths of a second.
const ROUNDS: u32 = 20_000;

#[test]
fn request_heads() {
    run("request_head", targets::request_head);
}

#[test]
fn response_heads() {
    run("response_head", targets::response_head);
}

#[test]
fn chunked_bodies() {
    run("chunked", targets::chunked);
}

#[test]
fn first_bytes_of_a_connection() {
    run("detect", targets::detect);
}

#[test]
fn client_hellos() {
    run("client_hello", targets::client_hello);
}

#[test]
fn discovery_resources() {
    run("discovery", targets::discovery);
}

#[test]
fn trace_contexts() {
    run("trace_context", targets::trace_context);
}

#[test]
fn spans_that_others_send() {
    run("spans", targets::spans);
}

/// Replays a target's corpus, then what becomes of it.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Whatever order the file system has.
    files.sort();
    let corpus: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty(), "no corpus in {}", folder.display());
    for input in &corpus {
        attempt(name, target, input);
    }
    let seconds = std::env::var("HEDDLE_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = if seconds.is_some() { seed_of_the_moment() } else { 1 };
    let end = seconds.map(|seconds| now() + Duration::from_secs(seconds));
    let mut changes = Changes::new(&corpus, seed);
    let mut rounds = 0;
    while end.map_or(rounds < ROUNDS, |end| now() < end) {
        attempt(name, target, &changes.next_input());
        rounds += 1;
    }
    if seconds.is_some() {
        eprintln!("{name}: {rounds} inputs, seed {seed}");
    }
}

#[expect(clippy::disallowed_methods, reason = "fuzzing lasts as long as it is told to")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "another seed each time")]
fn seed_of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

/// Runs a target once; keeps the input if that fails.
fn attempt(name: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-failed"));
        fs::write(&path, input).unwrap();
        eprintln!("the input is in {}: {:?}", path.display(), String::from_utf8_lossy(input));
        resume_unwind(panic);
    }
}
