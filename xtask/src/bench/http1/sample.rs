//! One run of one proxy: started, loaded in three ways, counted.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::wrk::{self, Offered};
use crate::{
    bench::{
        namespaces::{FAR, FAR_ADDRESSES, NEAR, Pair, VIP, inside},
        process::{Guarded, wait_for},
    },
    time::pause,
};

/// Time between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds of load before counting.
const WARM_UP_SECONDS: u64 = 1;

/// What one run of one proxy gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// User and system time, saturated.
    pub(super) cpu_us_per_request: f64,
    /// User time, saturated.
    pub(super) user_us_per_request: f64,
    /// Saturated.
    pub(super) requests_per_second: f64,
    /// Saturated.
    pub(super) p99_ms: f64,
    /// Before the load.
    pub(super) rss_mb: f64,
    /// After the saturating load.
    pub(super) rss_loaded_mb: f64,
    /// User and system time at 10,000 requests a second.
    pub(super) steady_cpu_us_per_request: f64,
    /// At 10,000 requests a second.
    pub(super) steady_p99_ms: f64,
    /// User and system time, saturated by clients that open a connection per request.
    pub(super) reconnecting_cpu_us_per_request: f64,
}

/// What one load gave and what it took of the proxy.
struct LoadCost {
    load: wrk::Load,
    cpu_us_per_request: f64,
    user_us_per_request: f64,
}

/// Starts application and proxy, loads them, and counts.
pub(super) fn measure(
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
    let reconnecting = count(&proxy, &url, seconds, Offered::Reconnecting)?;
    drop(scraper);
    Ok(Sample {
        cpu_us_per_request: all.cpu_us_per_request,
        user_us_per_request: all.user_us_per_request,
        requests_per_second: all.load.requests_per_second,
        p99_ms: all.load.p99_ms,
        rss_mb,
        rss_loaded_mb,
        steady_cpu_us_per_request: steady.cpu_us_per_request,
        steady_p99_ms: steady.load.p99_ms,
        reconnecting_cpu_us_per_request: reconnecting.cpu_us_per_request,
    })
}

/// CPU µs per request of an outbound proxy as `start` makes it, saturated.
pub(in crate::bench) fn saturated(
    pair: &Pair,
    start: impl FnOnce() -> Result<Guarded, String>,
    seconds: u64,
) -> Result<f64, String> {
    pair.stop_redirecting()?;
    let _application = application()?;
    pair.redirect(true)?;
    let proxy = start()?;
    let url = format!("http://{VIP}/");
    wait_for("first answer", Duration::from_secs(10), || wrk::answers(NEAR, &url))?;
    wrk::run(NEAR, &url, WARM_UP_SECONDS, Offered::AllItCarries)?;
    Ok(count(&proxy, &url, seconds, Offered::AllItCarries)?.cpu_us_per_request)
}

/// Loads and counts.
fn count(proxy: &Guarded, url: &str, seconds: u64, offered: Offered) -> Result<LoadCost, String> {
    let before = proxy.cpu_time()?;
    let load = wrk::run(NEAR, url, seconds, offered)?;
    let after = proxy.cpu_time()?;
    if load.errors > 0 {
        return Err(format!("{} of {} requests failed", load.errors, load.requests));
    }
    let per_request = |seconds: f64| seconds * 1e6 / load.requests.max(1) as f64;
    Ok(LoadCost {
        cpu_us_per_request: per_request(after.total - before.total),
        user_us_per_request: per_request(after.user - before.user),
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
