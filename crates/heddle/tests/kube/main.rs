//! Kubernetes mode end to end: a real cluster of one node, real pods with the real init container and sidecar.
//!
//! `cargo xtask kube test` starts the cluster and runs these in its network. Without a cluster each of them is
//! skipped, loudly.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says best what it expected by failing there; skips are told"
)]

mod apps;
mod callers;
mod calls;
mod cluster;
mod demo;
mod dual_stack;
mod ending;
mod injected;
mod installed;
mod jobs;
mod lifecycle;
mod outages;
mod probes;
mod revisions;
mod rights;
mod rules;
mod scraping;
mod taps;
mod telling;
mod tools;
mod uninstall;
mod without_nftables;
