//! The sidecar's counters: Istio's standard metrics with all their labels, and Heddle's own.
//!
//! A request finds its series by index: the label text is made once per edge, status and flags, and
//! kept as a handle ([`crate::series::SeriesSet`]) beside what the worker knows about the endpoint or peer. Each
//! series has one shard per worker with one writer, so recording takes no lock and no locked
//! instruction; [`Metrics::render`] adds the shards up. Nothing here knows a socket or a request.

mod edge;
mod histogram;
mod registry;
mod render;
mod series;

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use heddle_model::discovery::WorkloadInfo;
use heddle_runtime::clock;
use heddle_wire::local::proxy_config::ProxyConfig;

use self::{edge::Own, histogram::Counter, registry::Registry};
pub(crate) use self::{
    edge::{Edge, Reporter, ServiceLabels},
    registry::VerdictCounters,
    series::{HttpSeries, TcpSeries},
};
use crate::{
    direction::Direction,
    refusal::{Flags, RefusalCode, RefusalRow},
    verdict::{Reason, Verdict},
};

/// Why a request was sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// The endpoint did not accept the connection.
    ConnectFailure,
    /// A reused connection was reset before the first byte of an answer.
    ReuseRace,
}

impl RetryReason {
    const ALL: [Self; 2] = [Self::ConnectFailure, Self::ReuseRace];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::ReuseRace => "reuse-race",
        }
    }
}

/// All counters of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    own: Own,
    registry: Mutex<Registry>,
    /// By worker, then by direction.
    in_flight: Box<[[InFlight; 2]]>,
    /// Seconds since 1970 at which this process began to serve.
    started: u64,
    refusals: [[AtomicU64; RefusalCode::ALL.len()]; 2],
    retries: [AtomicU64; 2],
    connections: [AtomicU64; 2],
}

/// Requests begun and ended on one worker: a gauge without a shared cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InFlight {
    begun: Counter,
    ended: Counter,
}

impl Metrics {
    /// Counters for the sidecar that `config` describes.
    #[must_use]
    pub fn new(config: &ProxyConfig) -> Self {
        Self {
            own: Own::of(config),
            registry: Mutex::new(Registry::new(config.workers.max(1))),
            in_flight: (0..config.workers.max(1)).map(|_| Default::default()).collect(),
            started: clock::unix_now().as_secs(),
            refusals: Default::default(),
            retries: Default::default(),
            connections: Default::default(),
        }
    }

    /// All metrics in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(64 * 1024);
        // In flight first: a scrape that shows 0 shows every request that was begun before it.
        let in_flight = Direction::ALL.map(|direction| self.in_flight(direction));
        self.render_own(&mut text, in_flight);
        let sets = self.lock().sets();
        render::series(&mut text, &sets);
        text
    }

    /// Requests begun and not ended, both directions.
    #[must_use]
    pub fn requests_in_flight(&self) -> u64 {
        Direction::ALL.map(|direction| self.in_flight(direction)).iter().sum()
    }

    /// Requests begun and not ended of one direction.
    fn in_flight(&self, direction: Direction) -> u64 {
        let workers = || self.in_flight.iter().map(|worker| &worker[direction as usize]);
        // Ended before begun, so that the difference is never negative.
        let ended: u64 = workers().map(|worker| worker.ended.get_acquire()).sum();
        let begun: u64 = workers().map(|worker| worker.begun.get_acquire()).sum();
        begun.saturating_sub(ended)
    }

    /// Open connections of one direction.
    #[must_use]
    pub fn connections_open(&self, direction: Direction) -> u64 {
        self.connections[direction as usize].load(Ordering::Relaxed)
    }

    /// Counts a refusal.
    pub fn refused(&self, row: &RefusalRow, direction: Direction) {
        self.refusals[direction as usize][row.code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Refusals so far with one code and direction.
    #[must_use]
    pub fn refusals(&self, code: RefusalCode, direction: Direction) -> u64 {
        self.refusals[direction as usize][code as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn retried(&self, reason: RetryReason) {
        self.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more, and tells how many were open before.
    pub(crate) fn connection_opened(&self, direction: Direction) -> u64 {
        self.connections[direction as usize].fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn connection_closed(&self, direction: Direction) {
        self.connections[direction as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// Called on `worker`'s thread only.
    pub(crate) fn request_begun(&self, worker: usize, direction: Direction) {
        self.in_flight[worker][direction as usize].begun.add(1);
    }

    /// Called on `worker`'s thread only, after the request was recorded.
    pub(crate) fn request_ended(&self, worker: usize, direction: Direction) {
        self.in_flight[worker][direction as usize].ended.add_release(1);
    }

    /// The series of an edge for one status and set of flags; `worker`'s shard of it.
    pub(crate) fn http_series(
        &self,
        worker: usize,
        edge: &Edge,
        status: u16,
        flags: Flags,
    ) -> Arc<HttpSeries> {
        self.lock().http(
            worker,
            || edge.http_labels(&self.own, status, flags),
            || edge.http_overflow_labels(&self.own, status, flags),
        )
    }

    /// The same for a TCP connection.
    pub(crate) fn tcp_series(&self, worker: usize, edge: &Edge, flags: Flags) -> Arc<TcpSeries> {
        self.lock().tcp(
            worker,
            || edge.tcp_labels(&self.own, flags),
            || edge.tcp_overflow_labels(&self.own),
        )
    }

    /// Counters of protocol verdicts of one destination port. Ports of destinations that belong to
    /// no service are counted together.
    pub(crate) fn verdicts(&self, service: &ServiceLabels, port: u16) -> Arc<VerdictCounters> {
        self.lock().verdicts(service.verdict_label(), port)
    }

    /// This workload, as its peers see it.
    pub(crate) fn own(&self) -> &WorkloadInfo {
        &self.own.workload
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A panic while the lock was held can at worst have left a label set out.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn render_own(&self, text: &mut String, in_flight: [u64; 2]) {
        render::family(text, "istio_build", "gauge", "Version of this proxy.");
        let tag = env!("CARGO_PKG_VERSION");
        let _ = writeln!(text, "istio_build{{component=\"proxy\",tag=\"{tag}\"}} 1");
        let help = "When this process began, seconds since 1970.";
        render::family(text, "process_start_time_seconds", "gauge", help);
        let _ = writeln!(text, "process_start_time_seconds {}", self.started);
        let help = "HTTP requests begun and not yet recorded.";
        render::by_direction(text, ("heddle_requests_in_flight", help), in_flight);
        let open = Direction::ALL.map(|direction| self.connections_open(direction));
        let help = "Open downstream connections.";
        render::by_direction(text, ("heddle_connections_open", help), open);
        let help = "Requests and connections refused by the mesh itself, by reason.";
        render::family(text, "heddle_refusals_total", "counter", help);
        for direction in Direction::ALL {
            for code in RefusalCode::ALL {
                let count = self.refusals(code, direction);
                if count > 0 {
                    let direction = direction.as_str();
                    let _ = writeln!(
                        text,
                        "heddle_refusals_total{{code=\"{code}\",direction=\"{direction}\"}} {count}"
                    );
                }
            }
        }
        render::family(text, "heddle_retries_total", "counter", "Requests sent again, by reason.");
        for reason in RetryReason::ALL {
            let count = self.retries[reason as usize].load(Ordering::Relaxed);
            let reason = reason.as_str();
            let _ = writeln!(text, "heddle_retries_total{{reason=\"{reason}\"}} {count}");
        }
        self.render_verdicts(text);
        let help = "Label sets folded into an overflow series because the limit was reached.";
        render::family(text, "heddle_label_sets_overflow_total", "counter", help);
        let overflow = self.lock().overflow();
        let _ = writeln!(text, "heddle_label_sets_overflow_total {overflow}");
        let help = "Panics caught in a task; each ended one connection.";
        render::family(text, "heddle_task_panics_total", "counter", help);
        let panics = heddle_runtime::task::panics();
        let _ = writeln!(text, "heddle_task_panics_total {panics}");
    }

    fn render_verdicts(&self, text: &mut String) {
        let help = "What connections to a destination port were taken for, and why.";
        render::family(text, "heddle_protocol_verdicts_total", "counter", help);
        let ports = self.lock().verdict_ports();
        for (service, port, counters) in ports {
            for (verdict, reason) in Verdict::ALL
                .into_iter()
                .flat_map(|verdict| Reason::ALL.into_iter().map(move |reason| (verdict, reason)))
            {
                let count = counters.get(verdict, reason);
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "heddle_protocol_verdicts_total{{destination_service=\"{service}\",\
                         port=\"{port}\",verdict=\"{}\",reason=\"{}\"}} {count}",
                        verdict.as_str(),
                        reason.as_str(),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
