//! `cargo xtask bench http1`: one proxy on one core, HTTP/1.1 keep-alive, 1 KB, 64 connections,
//! outbound and inbound, Heddle and its peers in turn within each round.
//!
//! Two loads: as much as the proxy carries, and a fixed 10,000 requests a second, where it wakes up
//! for single requests as most sidecars do most of the time.
//!
//! The load (wrk) and the application share the other core. The figure to trust is CPU time per
//! request: user and system time of all the proxy's threads over the counted window. A relay that
//! looks at nothing runs beside them: what the kernel takes for a hop, whoever makes it.

mod peers;
mod wrk;

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    heddle::{self, Control},
    namespaces::{FAR, FAR_ADDRESSES, NEAR, Pair, VIP, inside},
    options::Options,
    process::{Guarded, wait_for},
    statistics::spread,
};
use peers::Proxy;
use wrk::Offered;

use crate::time::pause;

/// Rounds unless told otherwise.
const ROUNDS: u64 = 5;
/// Seconds of counted load per proxy, path and round.
const SECONDS: u64 = 5;
/// Time between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds of load before counting.
const WARM_UP_SECONDS: u64 = 1;

/// What one run of one proxy gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    user_us_per_request: f64,
    system_us_per_request: f64,
    requests_per_second: f64,
    p99_ms: f64,
    rss_mb: f64,
    rss_loaded_mb: f64,
    steady_cpu_us_per_request: f64,
    steady_p99_ms: f64,
}

/// What one load gave and what it took of the proxy.
struct Counted {
    load: wrk::Load,
    user_us_per_request: f64,
    system_us_per_request: f64,
}

impl Sample {
    fn cpu_us_per_request(&self) -> f64 {
        self.user_us_per_request + self.system_us_per_request
    }
}

/// Runs the bench and prints its table or JSON.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let binary = heddle::build()?;
    let proxies = peers::available()?;
    let pair = Pair::make()?;
    let dir = std::env::temp_dir().join("heddle-bench-http1");
    let control = Control::start(&binary, &dir)?;
    let mut results: Vec<(Proxy, bool, Vec<Sample>)> = Vec::new();
    for proxy in &proxies {
        results.extend([true, false].map(|outbound| (proxy.clone(), outbound, Vec::new())));
    }
    for round in 0..options.rounds.unwrap_or(ROUNDS) {
        for (proxy, outbound, samples) in &mut results {
            let proxy = &*proxy;
            let start = || match proxy {
                Proxy::Heddle => control.sidecar(&binary, *outbound),
                peer => peer.start(*outbound),
            };
            let seconds = options.seconds.unwrap_or(SECONDS);
            let sample = measure(&pair, *outbound, start, seconds)
                .map_err(|e| format!("round {round}, {} {}: {e}", proxy.name(), path(*outbound)))?;
            samples.push(sample);
        }
    }
    print(&results, options.json);
    drop(std::fs::remove_dir_all(&dir));
    Ok(())
}

fn path(outbound: bool) -> &'static str {
    if outbound { "outbound" } else { "inbound" }
}

/// Starts application and proxy, loads them, and counts.
fn measure(
    pair: &Pair,
    outbound: bool,
    start: impl FnOnce() -> Result<Guarded, String>,
    seconds: u64,
) -> Result<Sample, String> {
    pair.stop_redirecting()?;
    let _application = application()?;
    pair.redirect(outbound)?;
    let proxy = start()?;
    let url = format!("http://{}/", if outbound { VIP } else { FAR_ADDRESSES[0] });
    wait_for("first answer", Duration::from_secs(10), || wrk::answers(NEAR, &url))?;
    let scraper = Scraper::start(outbound);
    pause(Duration::from_millis(500));
    let rss_mb = proxy.rss_mb()?;
    wrk::run(NEAR, &url, WARM_UP_SECONDS, Offered::AllItCarries)?;
    let all = count(&proxy, &url, seconds, Offered::AllItCarries)?;
    let rss_loaded_mb = proxy.rss_mb()?;
    let steady = count(&proxy, &url, seconds, Offered::Steady)?;
    drop(scraper);
    Ok(Sample {
        user_us_per_request: all.user_us_per_request,
        system_us_per_request: all.system_us_per_request,
        requests_per_second: all.load.requests_per_second,
        p99_ms: all.load.p99_ms,
        rss_mb,
        rss_loaded_mb,
        steady_cpu_us_per_request: steady.user_us_per_request + steady.system_us_per_request,
        steady_p99_ms: steady.load.p99_ms,
    })
}

/// Loads and counts.
fn count(proxy: &Guarded, url: &str, seconds: u64, offered: Offered) -> Result<Counted, String> {
    let before = proxy.cpu_time()?;
    let load = wrk::run(NEAR, url, seconds, offered)?;
    let after = proxy.cpu_time()?;
    if load.errors > 0 {
        return Err(format!("{} of {} requests failed", load.errors, load.requests));
    }
    let per_request = |seconds: f64| seconds * 1e6 / load.requests.max(1) as f64;
    Ok(Counted {
        user_us_per_request: per_request(after.user - before.user),
        system_us_per_request: per_request(after.system - before.system),
        load,
    })
}

/// A Prometheus that scrapes Heddle's sidecar every second, as one in use is; the peers have no such
/// port, so there it finds nothing to do.
struct Scraper {
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    fn start(outbound: bool) -> Self {
        let (stop, stopped) = mpsc::channel();
        let namespace = if outbound { NEAR } else { FAR };
        let scrape = move || {
            let url = "http://127.0.0.1:15090/stats/prometheus";
            let words = ["-c", "1", "curl", "-s", "-o", "/dev/null", "-m", "1", url];
            drop(inside(namespace, "taskset", &words).status());
        };
        let thread = thread::spawn(move || {
            scrape();
            while stopped.recv_timeout(SCRAPE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                scrape();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        // It has ended already if nobody listens.
        let _ended = self.stop.send(());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The application on the other core; it listens on every address of the far side.
fn application() -> Result<Guarded, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let arguments = ["-c", "1", &this.to_string_lossy(), "bench", "upstream", "0.0.0.0:80"];
    let application = Guarded::start(&mut inside(FAR, "taskset", &arguments))?;
    let url = format!("http://{}/", FAR_ADDRESSES[0]);
    wait_for("application", Duration::from_secs(5), || wrk::answers(NEAR, &url))?;
    Ok(application)
}

fn print(results: &[(Proxy, bool, Vec<Sample>)], as_json: bool) {
    if as_json {
        let rows: Vec<Value> = results.iter().map(row).collect();
        println!("{:#}", json!({ "bench": "http1", "rows": rows }));
        return;
    }
    println!("HTTP/1.1 keep-alive, 1 KB, 64 connections, one core; medians (min–max)");
    for (proxy, outbound, samples) in results {
        let column = |value: fn(&Sample) -> f64| {
            let (median, least, most) = spread(&samples.iter().map(value).collect::<Vec<_>>());
            format!("{median:>8.1} ({least:.1}–{most:.1})")
        };
        println!(
            "{:8} {:8} CPU µs/request {} (user {}) | requests/s {} | p99 ms {} | RSS MB idle {} loaded {} | \
             at 10,000/s: CPU µs/request {} p99 ms {}",
            proxy.name(),
            path(*outbound),
            column(Sample::cpu_us_per_request),
            column(|s| s.user_us_per_request),
            column(|s| s.requests_per_second),
            column(|s| s.p99_ms),
            column(|s| s.rss_mb),
            column(|s| s.rss_loaded_mb),
            column(|s| s.steady_cpu_us_per_request),
            column(|s| s.steady_p99_ms)
        );
    }
}

fn row((proxy, outbound, samples): &(Proxy, bool, Vec<Sample>)) -> Value {
    let of = |value: fn(&Sample) -> f64| spread(&samples.iter().map(value).collect::<Vec<_>>());
    let (cpu, cpu_min, cpu_max) = of(Sample::cpu_us_per_request);
    let (rate, rate_min, rate_max) = of(|s| s.requests_per_second);
    let (p99, p99_min, p99_max) = of(|s| s.p99_ms);
    let (steady, steady_min, steady_max) = of(|s| s.steady_cpu_us_per_request);
    json!({
        "proxy": proxy.name(), "path": path(*outbound), "rounds": samples.len(), "errors": 0,
        "cpu_us_per_request": cpu, "cpu_us_per_request_range": [cpu_min, cpu_max],
        "user_us_per_request": of(|s| s.user_us_per_request).0,
        "system_us_per_request": of(|s| s.system_us_per_request).0,
        "requests_per_second": rate, "requests_per_second_range": [rate_min, rate_max],
        "p99_ms": p99, "p99_ms_range": [p99_min, p99_max],
        "rss_mb": of(|s| s.rss_mb).0, "rss_loaded_mb": of(|s| s.rss_loaded_mb).0,
        "steady_cpu_us_per_request": steady, "steady_cpu_us_per_request_range": [steady_min, steady_max],
        "steady_p99_ms": of(|s| s.steady_p99_ms).0,
    })
}
