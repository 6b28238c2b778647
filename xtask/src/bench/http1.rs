//! `cargo xtask bench http1`: one proxy on one core, HTTP/1.1 keep-alive, 1 KB, 64 connections,
//! outbound and inbound, Heddle and its peers in turn within each round.
//!
//! Three loads: as much as the proxy carries, a fixed 10,000 requests a second, where it wakes up
//! for single requests as most sidecars do most of the time, and clients that open a connection per
//! request and say so (`Connection: close`).
//!
//! The load (wrk) and the application share the other core. The figure to trust is CPU time per
//! request: user and system time of all the proxy's threads over the counted window. A relay that
//! looks at nothing runs beside them: what the kernel takes for a hop, whoever makes it. With
//! `--against`, another `heddle` binary runs in turn with this one, each with its own control plane.

pub(super) mod peers;
mod report;
mod row;
pub(super) mod sample;
mod targets;
mod wrk;

use std::time::Duration;

use super::{
    heddle::{self, Control, ONE_RULE, Wire},
    namespaces::Pair,
    options::Options,
};
use crate::time::now;
use peers::{Peers, Proxy};
use row::{Row, path};
use sample::measure;

/// For `--help`.
pub(super) const ABOUT: &str = "\
CPU time per request of one sidecar on one core, outbound and inbound, saturated, at 10,000
requests a second and with a connection per request, in turn with a relay that looks at nothing,
HAProxy, nginx, Envoy, and the binary of --against. Medians with their range, and the targets met or
not. Needs root.";

/// Rounds unless told otherwise: with every peer and `--against`, under five minutes.
const ROUNDS: u64 = 3;
/// Seconds of counted load per proxy, path, load and round.
const SECONDS: u64 = 2;
/// Seconds that start, first answer and warm-up of one proxy take.
const START_SECONDS: u64 = 2;
/// Ways of loading it.
const LOADS: u64 = 3;

/// Runs the bench and prints its table or JSON.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let Peers { found, missing } = peers::available(Wire::Http1)?;
    let binary = options.binary.clone().map_or_else(heddle::build, Ok)?;
    let mut proxies = vec![Proxy::Heddle(binary)];
    proxies.extend(options.against.clone().map(Proxy::OldHeddle));
    proxies.extend(found);
    let rounds = options.rounds.unwrap_or(ROUNDS);
    let seconds = options.seconds.unwrap_or(SECONDS);
    announce(&proxies, &missing, rounds, seconds);

    let pair = Pair::make()?;
    let dir = std::env::temp_dir().join("heddle-bench-http1");
    let mut rows: Vec<Row> = Vec::new();
    let mut controls = Vec::new();
    for proxy in proxies {
        if let Some(binary) = proxy.binary() {
            let control = Control::start(
                binary,
                &dir.join(proxy.name().replace(' ', "-")),
                Wire::Http1,
                ONE_RULE,
            )?;
            controls.push((proxy.name(), control));
        }
        let row = |outbound| Row { proxy: proxy.clone(), outbound, samples: Vec::new() };
        rows.extend([true, false].map(row));
    }
    let began = now();
    for round in 0..rounds {
        one_round(&mut rows, &controls, &pair, seconds, round)?;
        eprintln!("round {} of {rounds}: {} s so far", round + 1, (now() - began).as_secs());
    }
    report::print(&rows, &missing, options.json);
    drop(std::fs::remove_dir_all(&dir));
    Ok(())
}

/// Every proxy on both paths once; every other round backwards, so that nobody always comes after
/// the same one.
fn one_round(
    rows: &mut [Row],
    controls: &[(&str, Control)],
    pair: &Pair,
    seconds: u64,
    round: u64,
) -> Result<(), String> {
    let mut order: Vec<&mut Row> = rows.iter_mut().collect();
    if round % 2 == 1 {
        order.reverse();
    }
    for Row { proxy, outbound, samples } in order {
        let start = || match proxy.binary() {
            Some(binary) => {
                let control = controls.iter().find(|(name, _)| *name == proxy.name());
                let (_, control) = control.ok_or("a heddle without a control plane")?;
                control.sidecar(binary, *outbound)
            }
            None => proxy.start(*outbound, Wire::Http1),
        };
        let sample = measure(pair, *outbound, start, seconds)
            .map_err(|e| format!("round {round}, {} {}: {e}", proxy.name(), path(*outbound)))?;
        samples.push(sample);
    }
    Ok(())
}

/// Says what is measured, what is missing, and how long it takes.
fn announce(proxies: &[Proxy], missing: &[String], rounds: u64, seconds: u64) {
    let names: Vec<&str> = proxies.iter().map(Proxy::name).collect();
    let each = START_SECONDS + LOADS * seconds;
    let total = Duration::from_secs(proxies.len() as u64 * 2 * rounds * each);
    eprintln!("measuring {}", names.join(", "));
    for what in missing {
        eprintln!("missing: {what}");
    }
    eprintln!(
        "{rounds} rounds of {seconds} s per proxy, path and load: about {} min {} s",
        total.as_secs() / 60,
        total.as_secs() % 60
    );
}
