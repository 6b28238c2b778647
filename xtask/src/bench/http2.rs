//! `cargo xtask bench http2`: what `http1` measures, for HTTP/2 on both sides: CPU time per request of
//! one proxy on one core, outbound and inbound, in several shapes of connections and streams, and for
//! calls of gRPC, Heddle and its peers in turn within each round.

mod load;
mod report;
mod row;
pub(super) mod upstream;

use std::{path::Path, time::Duration};

use super::{
    heddle::{self, Control, ONE_RULE, Wire},
    http1::peers::{Peers, Proxy, available},
    namespaces::{FAR, FAR_ADDRESSES, NEAR, Pair, VIP, inside},
    options::Options,
    process::{Guarded, wait_for},
};
use crate::time::{now, pause};
use load::{SHAPES, Shape};
use row::{Cost, Row, Sample, path};

/// For `--help`.
pub(super) const ABOUT: &str = "\
CPU time per request of one sidecar on one core with HTTP/2 on both sides, outbound and inbound, in
shapes of connections × streams and as gRPC, in turn with a relay that looks at nothing, HAProxy,
Envoy, and the binary of --against. Medians with their range, and the target met or not. Needs root.";

const ROUNDS: u64 = 3;
/// Seconds of counted load per proxy, path, shape and round.
const SECONDS: u64 = 2;
/// One in so many of a peer's requests may fail.
const PEER_FAILURES_PART: u64 = 100;
/// Seconds that start, first answer and warm-up of one proxy take.
const START_SECONDS: u64 = 3;

/// Runs the bench and prints its table or JSON.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let Peers { found, missing } = available(Wire::Http2)?;
    let binary = options.binary.clone().map_or_else(heddle::build, Ok)?;
    let mut proxies = vec![Proxy::Heddle(binary)];
    proxies.extend(options.against.clone().map(Proxy::OldHeddle));
    proxies.extend(found);
    let (rounds, seconds) = (options.rounds.unwrap_or(ROUNDS), options.seconds.unwrap_or(SECONDS));
    announce(&proxies, &missing, rounds, seconds);

    let pair = Pair::make()?;
    let dir = std::env::temp_dir().join("heddle-bench-http2");
    let (mut rows, mut controls): (Vec<Row>, Vec<_>) = (Vec::new(), Vec::new());
    for proxy in proxies {
        if let Some(binary) = proxy.binary() {
            let dir = dir.join(proxy.name().replace(' ', "-"));
            controls.push((proxy.name(), Control::start(binary, &dir, Wire::Http2, ONE_RULE)?));
        }
        let row = |outbound| Row { proxy: proxy.clone(), outbound, samples: Vec::new() };
        rows.extend([true, false].map(row));
    }
    let began = now();
    for round in 0..rounds {
        // Every other round backwards, so that nobody always comes after the same one.
        let mut order: Vec<&mut Row> = rows.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for Row { proxy, outbound, samples } in order {
            let control = controls.iter().find(|(name, _)| *name == proxy.name());
            let start = || match (proxy.binary(), control) {
                (Some(binary), Some((_, control))) => control.sidecar(binary, *outbound),
                _ => proxy.start(*outbound, Wire::Http2),
            };
            let ours = proxy.binary().is_some();
            let sample = measure(&pair, *outbound, start, (seconds, ours))
                .map_err(|e| format!("round {round}, {} {}: {e}", proxy.name(), path(*outbound)))?;
            samples.push(sample);
        }
        eprintln!("round {} of {rounds}: {} s so far", round + 1, (now() - began).as_secs());
    }
    report::print(&rows, &missing, options.json);
    drop(std::fs::remove_dir_all(&dir));
    Ok(())
}

/// Starts application and proxy, loads them, and counts.
fn measure(
    pair: &Pair,
    outbound: bool,
    start: impl FnOnce() -> Result<Guarded, String>,
    (seconds, ours): (u64, bool),
) -> Result<Sample, String> {
    pair.stop_redirecting()?;
    let _application = application()?;
    pair.redirect(outbound)?;
    let proxy = start()?;
    let url = format!("http://{}/", if outbound { VIP } else { FAR_ADDRESSES[0] });
    wait_for("first answer", Duration::from_secs(10), || load::answers(NEAR, &url))?;
    pause(Duration::from_millis(500));
    let mut sample = Sample { rss_mb: proxy.rss_mb()?, ..Sample::default() };
    for shape in &SHAPES {
        load::run(NEAR, &url, 1, shape)?;
        sample.costs.push(count(&proxy, &url, (seconds, ours), shape)?);
    }
    sample.rss_loaded_mb = proxy.rss_mb()?;
    Ok(sample)
}

/// Loads and counts. Of ours no request may fail; that some of a peer's do (of HAProxy's, when it ends
/// a connection) is told and costs the others nothing.
fn count(
    proxy: &Guarded,
    url: &str,
    (seconds, ours): (u64, bool),
    shape: &Shape,
) -> Result<Cost, String> {
    let before = proxy.cpu_time()?;
    let load = load::run(NEAR, url, seconds, shape)?;
    let after = proxy.cpu_time()?;
    if load.failed > 0 {
        let told = format!("{}: {} of {} requests failed", shape.name, load.failed, load.requests);
        if ours || load.failed > load.requests / PEER_FAILURES_PART {
            return Err(told);
        }
        eprintln!("{told}");
    }
    let per_request = |seconds: f64| seconds * 1e6 / load.requests.max(1) as f64;
    Ok(Cost {
        cpu_us: per_request(after.total - before.total),
        user_us: per_request(after.user - before.user),
        requests_per_second: load.requests as f64 / seconds as f64,
    })
}

/// The application on the other core; it listens on every address of the far side.
fn application() -> Result<Guarded, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let this: &Path = &this;
    let words = ["-c", "1", &this.to_string_lossy(), "bench", "upstream-http2", "0.0.0.0:80"];
    let application = Guarded::start(&mut inside(FAR, "taskset", &words))?;
    let url = format!("http://{}/", FAR_ADDRESSES[0]);
    wait_for("application", Duration::from_secs(5), || load::answers(NEAR, &url))?;
    Ok(application)
}

/// Says what is measured, what is missing, and how long it takes.
fn announce(proxies: &[Proxy], missing: &[String], rounds: u64, seconds: u64) {
    let names: Vec<&str> = proxies.iter().map(Proxy::name).collect();
    let each = START_SECONDS + SHAPES.len() as u64 * (seconds + 1);
    let total = Duration::from_secs(proxies.len() as u64 * 2 * rounds * each).as_secs();
    eprintln!("measuring {}", names.join(", "));
    for what in missing {
        eprintln!("missing: {what}");
    }
    eprintln!(
        "{rounds} rounds of {seconds} s per proxy, path and shape: about {} min {} s",
        total / 60,
        total % 60
    );
}
