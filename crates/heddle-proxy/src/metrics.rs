//! The sidecar's counters: Istio's standard metrics with all their labels, and Heddle's own.
//!
//! A request finds its series by index: the label text is made once per edge, status and flags, and
//! kept as a handle ([`crate::series::SeriesSet`]) beside what the worker knows about the endpoint or peer. Each
//! series has one shard per worker with one writer, so recording takes no lock and no locked
//! instruction; a [`scrape`] adds the shards up. Nothing here knows a socket or a request.

mod comparisons;
mod counter;
mod edge;
pub mod exposition;
mod hidden;
mod histogram;
mod names;
mod native;
mod protobuf;
mod registry;
mod render;
mod rules;
pub mod scrape;
mod series;
mod tags;
mod tracing;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use heddle_model::{
    ServiceName,
    discovery::{ClusterKey, MetricChange, SideTelemetry, WorkloadInfo, WorkloadTelemetry},
};
use heddle_runtime::{clock, tls::TlsFault};
use heddle_wire::local::proxy_config::ProxyConfig;

pub(crate) use self::{
    comparisons::Compared,
    edge::{Edge, Grpc, HttpKey, Reporter, ServiceLabels},
    names::FailedNames,
    registry::VerdictCounters,
    rules::{RuleCounts, UNKNOWN_PATH},
    series::{HttpSeries, TcpSeries},
    tags::{Bits, Group, Tagged, Tagging},
    tracing::{ExportResult, Exported},
};
use self::{
    comparisons::Comparisons,
    counter::Counter,
    edge::Own,
    registry::{Asked, Registry},
    tags::Written,
    tracing::TraceCounts,
};
use crate::{
    breaker::Breakers,
    direction::Direction,
    limits::SERIES_SWEEP,
    refusal::{Flags, RefusalCode, RefusalRow},
};

/// What became of a scrape of the application's own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppScrape {
    /// They are shown behind the sidecar's.
    Merged,
    /// Nothing listens, or the answer broke off.
    Unreachable,
    /// It took too long.
    Timeout,
    /// The answer's status was not 200.
    Status,
    /// A line was none of Prometheus' text format; those before it are shown.
    Malformed,
    /// There was more than is passed on; what fits is shown.
    TooLarge,
}

impl AppScrape {
    const ALL: [Self; 6] = [
        Self::Merged,
        Self::Unreachable,
        Self::Timeout,
        Self::Status,
        Self::Malformed,
        Self::TooLarge,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
        }
    }
}

/// Why a request was sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// The endpoint did not accept the connection.
    ConnectFailure,
    /// A reused connection was reset before the first byte of an answer.
    ReuseRace,
    /// A connection broke, and the rule asks for another attempt then.
    Reset,
    /// An answer's status, for which the rule asks for another attempt.
    Status,
    /// An attempt took longer than the rule gives it.
    Timeout,
    /// The connection took no more requests, or its server turned out to speak HTTP/1 only.
    Connection,
}

impl RetryReason {
    const ALL: [Self; 6] = [
        Self::ConnectFailure,
        Self::ReuseRace,
        Self::Reset,
        Self::Status,
        Self::Timeout,
        Self::Connection,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::ReuseRace => "reuse-race",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
        }
    }
}

/// What became of a copy of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MirrorResult {
    /// It was answered, whatever the status.
    Answered,
    /// It was not.
    Failed,
    /// Its receiver did not keep up with the request, or the request itself broke off.
    Cut,
    /// None was made: too many were on their way, or memory was short.
    Dropped,
}

impl MirrorResult {
    const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::Cut, Self::Dropped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
        }
    }
}

/// Sorts of faults, as `heddle_model::discovery::Injection` names them.
const FAULTS: [&str; 6] =
    ["delay", "abort", "refuse", "blackhole", "resetAfterBytes", "bytesPerSecond"];

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
    retries: [AtomicU64; RetryReason::ALL.len()],
    mirrors: [AtomicU64; MirrorResult::ALL.len()],
    tls_failures: [AtomicU64; TlsFault::ALL.len()],
    faults: [[AtomicU64; FAULTS.len()]; 2],
    left_to_others: AtomicU64,
    app_scrapes: [AtomicU64; AppScrape::ALL.len()],
    comparisons: Mutex<Comparisons>,
    /// Metrics that are not told, as [`hidden`] has them.
    hidden: AtomicU32,
    /// What rules change about tags, by direction.
    tagging: [SideTagging; 2],
    /// Another one whenever workers are to look up anew which series are theirs.
    epoch: AtomicU32,
    /// Shown here, counted where access logs are written.
    pub(crate) log_lines_dropped: Arc<AtomicU64>,
    connections: [AtomicU64; 2],
    pub(crate) traces: TraceCounts,
    /// Records of access logs that are sent to collectors.
    pub(crate) log_records: Exported,
    /// Names that the workload asked for in vain.
    pub(crate) failed_names: FailedNames,
    /// Shown here, counted by the clusters themselves.
    pub(crate) breakers: Breakers,
}

/// What rules change about the metrics of one direction.
#[derive(Debug, Default)]
struct SideTagging {
    /// Is there a plan? Asked by each request, so that nothing else is.
    is_any: AtomicBool,
    plan: ArcSwapOption<Tagging>,
    /// 0 for none.
    interval_ms: AtomicU64,
    /// What the plan was made of.
    told: Mutex<Vec<MetricChange>>,
}

impl SideTagging {
    /// Takes what is told now; gives the metrics whose tags are others than before.
    fn takes(&self, told: Option<&SideTelemetry>) -> Bits {
        let interval = told.and_then(|told| told.reporting_interval).unwrap_or_default();
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.interval_ms.store(ms, Ordering::Relaxed);
        let changes = told.map_or(&[][..], |told| &told.metrics);
        let mut before = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = Bits::changed(&before, changes);
        if !differs.is_none() {
            let plan = Tagging::of(changes);
            let is_any = plan.is_some();
            self.plan.store(plan);
            self.is_any.store(is_any, Ordering::Release);
            changes.clone_into(&mut before);
        }
        differs
    }
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
            mirrors: Default::default(),
            tls_failures: Default::default(),
            faults: Default::default(),
            left_to_others: AtomicU64::default(),
            app_scrapes: Default::default(),
            comparisons: Mutex::default(),
            hidden: AtomicU32::default(),
            tagging: Default::default(),
            epoch: AtomicU32::default(),
            log_lines_dropped: Arc::default(),
            connections: Default::default(),
            traces: TraceCounts::default(),
            log_records: Exported::default(),
            failed_names: FailedNames::default(),
            breakers: Breakers::default(),
        }
    }

    /// From now on only those metrics are told that a Telemetry leaves.
    pub fn tell_only(&self, by: Option<&WorkloadTelemetry>) {
        self.hidden.store(by.map_or(0, hidden::of), Ordering::Relaxed);
        let sides = [
            (Direction::Outbound, Reporter::Source, by.map(|told| &told.client)),
            (Direction::Inbound, Reporter::Destination, by.map(|told| &told.server)),
        ];
        for (direction, reporter, told) in sides {
            let differs = self.tagging[direction as usize].takes(told);
            if !differs.is_none() {
                self.lock().hide(reporter, differs);
                self.epoch.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// What rules change about the tags of calls in this direction; `None`, as nearly always: nothing.
    #[inline]
    pub(crate) fn tagging(&self, direction: Direction) -> Option<Arc<Tagging>> {
        let side = &self.tagging[direction as usize];
        if side.is_any.load(Ordering::Relaxed) { side.plan.load_full() } else { None }
    }

    /// How often bytes of open connections of this direction are counted; `None`: as they move.
    pub(crate) fn reporting_interval(&self, direction: Direction) -> Option<Duration> {
        match self.tagging[direction as usize].interval_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// Another number than before: whoever has handles of series is to look them up anew.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Takes out label sets that nobody used for [`SERIES_IDLE_SWEEPS`](crate::limits::SERIES_IDLE_SWEEPS) calls of this.
    pub(crate) fn sweep(&self) {
        let open = |reporter| match reporter {
            Reporter::Source => self.connections_open(Direction::Outbound) > 0,
            Reporter::Destination => self.connections_open(Direction::Inbound) > 0,
        };
        if self.lock().sweep(open) {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Sweeps for ever.
    pub(crate) async fn keep_swept(self: Arc<Self>) {
        loop {
            clock::sleep(SERIES_SWEEP).await;
            self.sweep();
        }
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

    /// Is a call of the workload under way? Its sidecar gives each a trace context.
    pub(crate) fn is_serving_traced(&self) -> bool {
        self.in_flight(Direction::Inbound) > 0
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

    /// Counts a fault by its name, one of [`FAULTS`].
    pub(crate) fn injected(&self, what: &str, direction: Direction) {
        if let Some(at) = FAULTS.iter().position(|fault| *fault == what) {
            self.faults[direction as usize][at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Faults so far, each sort with its name.
    fn faults(&self, direction: Direction) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.faults[direction as usize].iter();
        FAULTS.into_iter().zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    pub(crate) fn mirrored(&self, result: MirrorResult) {
        self.mirrors[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what came of comparing a mirror's answer with the live one; `latencies`: the live one's, then the
    /// mirror's.
    pub(crate) fn compared(
        &self,
        mirror: &ClusterKey,
        compared: impl Iterator<Item = Compared>,
        latencies: Option<(Duration, Duration)>,
    ) {
        let (service, subset) = (mirror.service.fqdn(), mirror.subset.as_ref());
        let subset = subset.map_or("", |subset| &subset.name);
        let mirror = format!("destination_service=\"{service}\",subset=\"{subset}\"");
        self.comparisons().count(&mirror, compared, latencies);
    }

    fn comparisons(&self) -> std::sync::MutexGuard<'_, Comparisons> {
        self.comparisons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mirrors(&self, result: MirrorResult) -> u64 {
        self.mirrors[result as usize].load(Ordering::Relaxed)
    }

    /// No TLS came about with an upstream, for this reason.
    pub(crate) fn tls_failed(&self, fault: TlsFault) {
        self.tls_failures[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    #[must_use]
    pub fn tls_failures(&self, fault: TlsFault) -> u64 {
        self.tls_failures[fault as usize].load(Ordering::Relaxed)
    }

    /// A request is not sent again, because those behind it have tried enough.
    pub(crate) fn left_to_others(&self) {
        self.left_to_others.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn app_scraped(&self, result: AppScrape) {
        self.app_scrapes[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn app_scrapes(&self, result: AppScrape) -> u64 {
        self.app_scrapes[result as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn retried(&self, reason: RetryReason) {
        self.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn retries(&self, reason: RetryReason) -> u64 {
        self.retries[reason as usize].load(Ordering::Relaxed)
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

    /// The series of an edge for one status and set of flags, where these metrics are counted; `worker`'s shard of it.
    pub(crate) fn http_series(
        &self,
        worker: usize,
        edge: &Edge,
        (key, of): (HttpKey, Bits),
        tagged: Option<(&Tagged, &Group)>,
    ) -> Arc<HttpSeries> {
        let metrics = tagged.map_or(of, |(_, group)| group.metrics.and(of));
        let written = Written::of(tagged);
        self.lock().http(
            Asked::new(worker, edge, metrics),
            || edge.http_labels(&self.own, key, written),
            || edge.http_overflow_labels(&self.own, key, written),
        )
    }

    /// The same for a TCP connection.
    pub(crate) fn tcp_series(
        &self,
        worker: usize,
        edge: &Edge,
        flags: Flags,
        tagged: Option<(&Tagged, &Group)>,
    ) -> Arc<TcpSeries> {
        let metrics = tagged.map_or(Bits::TCP, |(_, group)| group.metrics);
        let written = Written::of(tagged);
        self.lock().tcp(
            Asked::new(worker, edge, metrics),
            || edge.tcp_labels(&self.own, flags, written),
            || edge.tcp_overflow_labels(&self.own, written),
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

    /// Counters of a path of `service`, by its template.
    pub(crate) fn path(&self, service: &str, template: &str) -> Arc<RuleCounts> {
        self.lock().paths.of(service, template)
    }

    /// Counters of a rule about calls to `service`, named by where it comes from.
    pub(crate) fn rule(&self, service: &ServiceName, rule: &str) -> Arc<RuleCounts> {
        self.lock().rules.of(&service.fqdn(), rule)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A panic while the lock was held can at worst have left a label set out.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
