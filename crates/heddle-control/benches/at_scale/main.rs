//! A control plane of a large cluster, measured: the built `heddle control --kubernetes` on one processor, and on
//! the others an API server made of a table, sidecars that only listen, and admissions at a fixed rate.
//!
//! It prints figures and passes no judgement. `cargo xtask bench control-at-scale` runs it in a network of its own,
//! since the control plane's ports are fixed.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says best where it stands")]
#![expect(clippy::print_stdout, reason = "it is run for what it prints")]

mod admissions;
mod api_server;
mod client;
mod cluster;
mod figures;
mod plane;
mod sidecars;

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use heddle_runtime::{clock, task};
use serde_json::{Value, json};

use self::{
    api_server::ApiServer,
    client::Client,
    cluster::Cluster,
    figures::{Figures, pause_until},
    plane::Plane,
    sidecars::Sidecars,
};

/// The longest that all of it may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Sidecars that are connected while things change.
const SIDECARS: usize = 200;
/// Services that all of them call, and whose pods are replaced.
const CALLED: usize = 5;
/// Pods replaced, and how many a second.
const CHANGES: u32 = 1_000;
const CHANGES_A_SECOND: u32 = 50;
/// Edits of a rule, one after another.
const EDITS: usize = 50;
/// Admissions, and how many a second.
const ADMISSIONS: u32 = 4_000;
const ADMISSIONS_A_SECOND: u32 = 200;

fn main() {
    let mut words = env::args().skip_while(|word| word != "--binary").skip(1);
    // `cargo test --benches` runs it too, and it is no test.
    let Some(binary) = words.next().map(PathBuf::from) else { return };
    let report = task::run_local(clock::within(LIMIT, run(binary))).unwrap();
    println!("{:#}", report.expect("it ends in time"));
}

async fn run(binary: PathBuf) -> Value {
    let cluster = Arc::new(Cluster::of(5_000, 10));
    let api = ApiServer::start(cluster.clone()).await;
    let plane = Plane::start(&binary, api.address());
    plane.ready().await;
    let known = plane.memory();
    let client = Arc::new(Client::believing(&api.roots()));
    let mut sidecars = Sidecars::connect(&cluster, SIDECARS, CALLED, &client).await;
    let connected = plane.memory();
    let endpoints = changed(&api, &cluster, &mut sidecars).await;
    let rules = edited(&api, &mut sidecars).await;
    let admissions = admissions::run(&client, ADMISSIONS, ADMISSIONS_A_SECOND).await;
    json!({
        "services": cluster.services(), "endpoints": cluster.pods(), "sidecars": SIDECARS,
        "memory_mb": {"known": known, "with_sidecars": connected, "at_the_end": plane.memory()},
        "endpoint_change_ms": endpoints.json(),
        "rule_to_last_sidecar_ms": rules.json(),
        "admission_ms": admissions.json(),
        "processor_seconds": plane.processor_seconds(),
    })
}

/// Pods are replaced at a fixed rate: the time from each until each sidecar has been told.
async fn changed(api: &ApiServer, cluster: &Cluster, sidecars: &mut Sidecars) -> Figures {
    let begun = clock::now();
    for number in 1..=CHANGES {
        pause_until(begun + Duration::from_secs(1) * (number - 1) / CHANGES_A_SECOND).await;
        sidecars.expect_change(number);
        for (plural, event) in cluster.replacement(number, CALLED) {
            api.tell(plural, &event);
        }
    }
    sidecars.all_changes_told().await
}

/// A rule is edited again and again: the time until the last sidecar has been told.
async fn edited(api: &ApiServer, sidecars: &mut Sidecars) -> Figures {
    let mut figures = Figures::default();
    for number in 0..EDITS {
        let begun = clock::now();
        let waits = sidecars.expect_rule();
        api.tell("virtualservices", &Cluster::rule(number));
        waits.await;
        figures.add(clock::now() - begun);
    }
    figures
}
