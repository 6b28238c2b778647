//! One endpoint as a worker knows it ([`Upstream`]): its connections, how fast it is believed to be, its
//! series; and one request's stay there ([`Attempt`]), which tells how it went exactly once. Which endpoint
//! that is, is chosen above.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_logic::{
    balance::{Completion, Cost, LoadEstimate},
    eject::{Seen, http_of_grpc},
};
use heddle_model::{
    Protocol, ServiceName,
    discovery::{ConnectionPool, TcpKeepalive, WorkloadInfo},
};
use heddle_runtime::{clock, tls::Origin};
use tokio::sync::Notify;

use super::{
    target::DialTarget,
    watched::{Said, Watched},
};
use crate::{
    backlog::{Backlog, Opening, Waiting},
    breaker::Place,
    facts::Facts,
    metrics::{Edge, Reporter, ServiceLabels},
    pool::Pool,
    refusal::Refusal,
    relay::RelayLimits,
    series::SeriesSet,
    snapshot::LbEndpoint,
    streams::{HttpVersion, StreamLimits, Streams},
};

/// Answers after which an endpoint's speed counts as known.
pub(super) const COLD_ANSWERS: u8 = 3;

/// How much is known about an endpoint's speed.
///
/// The first answers of a process just started tell how cold it is, not how fast: taken as peaks,
/// they would keep requests away for half a minute. So an endpoint counts as neither fast nor slow
/// until a few have come, and then as fast as the best of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Warmth {
    Cold { answers: u8, best: Duration },
    Warm,
}

/// In which version a rule wants an endpoint to be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Version {
    /// It says nothing: as the port is declared, else as the client asks.
    #[default]
    AsDeclared,
    /// As the client asks.
    AsAsked,
    /// HTTP/2.
    Http2,
}

impl Version {
    fn of(pool: &ConnectionPool) -> Self {
        match pool {
            ConnectionPool { use_client_protocol: true, .. } => Self::AsAsked,
            ConnectionPool { upgrades_to_http2: true, .. } => Self::Http2,
            _ => Self::AsDeclared,
        }
    }
}

/// One endpoint as this worker knows it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) target: DialTarget,
    pub(crate) pool: Pool,
    pub(crate) streams: Streams,
    /// The TLS that connections to it are of; another TLS is another upstream.
    pub(crate) tls: Option<Arc<Origin>>,
    /// What its port was declared to speak, where that is not its workload's to say.
    declared: Cell<Protocol>,
    /// In which version a rule wants it to be asked.
    by_rule: Cell<Version>,
    /// It answered HTTP/2 in HTTP/1.
    http1_only: Cell<bool>,
    /// Is it in the worker's list of upstreams with idle connections?
    pub(crate) listed: Cell<bool>,
    /// Who waits there, on all workers.
    pub(crate) backlog: Option<Arc<Backlog>>,
    pub(super) workload: RefCell<Option<Arc<WorkloadInfo>>>,
    /// Its place in what a rule counts, where one does.
    place: RefCell<Option<Arc<Place>>>,
    /// Requests of this worker that wait for a connection to it, and what wakes one of them when another
    /// leaves it its own.
    pub(crate) waiting: Cell<usize>,
    pub(crate) left: Notify,
    /// It was picked to be tried; the next attempt is that.
    pub(super) picked_to_try: Cell<bool>,
    pub(super) load: RefCell<LoadEstimate>,
    pub(super) warmth: Cell<Warmth>,
    pub(super) stamp: u64,
    series: RefCell<Vec<(ServiceName, Rc<SeriesSet>)>>,
}

impl Upstream {
    pub(super) fn new(
        target: DialTarget,
        workload: Option<Arc<WorkloadInfo>>,
        load: LoadEstimate,
        stamp: u64,
    ) -> Self {
        Self {
            target,
            pool: Pool::default(),
            streams: Streams::default(),
            tls: None,
            declared: Cell::default(),
            by_rule: Cell::default(),
            http1_only: Cell::default(),
            listed: Cell::new(false),
            backlog: None,
            workload: RefCell::new(workload),
            place: RefCell::default(),
            waiting: Cell::default(),
            left: Notify::new(),
            picked_to_try: Cell::default(),
            load: RefCell::new(load),
            warmth: Cell::new(Warmth::Cold { answers: 0, best: Duration::MAX }),
            stamp,
            series: RefCell::default(),
        }
    }

    /// The same where others may wait for it.
    pub(super) fn with_backlog(self, backlog: Option<Arc<Backlog>>) -> Self {
        Self { backlog, ..self }
    }

    /// The same over TLS.
    pub(super) fn with_tls(self, tls: Option<Arc<Origin>>) -> Self {
        Self { tls, ..self }
    }

    /// Who it is; `None` outside the mesh and for the own application.
    pub(crate) fn workload(&self) -> Option<Arc<WorkloadInfo>> {
        self.workload.borrow().clone()
    }

    /// What Istio calls the cluster of one that was called by its own address: its service's, if it has one.
    pub(crate) fn cluster_name(&self) -> String {
        let service = self.workload().and_then(|workload| workload.first_service().cloned());
        match service {
            Some(service) => format!("outbound|{}||{}", self.target.port(), service.fqdn()),
            None => "PassthroughCluster".to_owned(),
        }
    }

    /// Notes in `facts` that something is sent there.
    #[cold]
    pub(crate) fn tell(&self, facts: &mut Facts) {
        facts.attempt(self.target.place(), self.workload(), || self.cluster_name());
        facts.upstream.is_hop =
            self.tls.is_none() && !matches!(self.target, DialTarget::Outside(_));
    }

    /// The version in which to ask it for the sake of a client that speaks `asked`: what its port was
    /// declared to speak, unless it was found to speak less, else the client's own.
    pub(crate) fn version(&self, asked: HttpVersion) -> HttpVersion {
        match self.declared() {
            _ if self.http1_only.get() => HttpVersion::Http1,
            _ if self.by_rule.get() == Version::AsAsked => asked,
            _ if self.by_rule.get() == Version::Http2 => HttpVersion::Http2,
            Protocol::Http2 | Protocol::Grpc => HttpVersion::Http2,
            _ => asked,
        }
    }

    fn declared(&self) -> Protocol {
        let port = match self.target {
            DialTarget::Workload(address) | DialTarget::Own(address) => address.port(),
            DialTarget::Application { .. } | DialTarget::Outside(_) => {
                return self.declared.get();
            }
        };
        let workload = self.workload.borrow();
        let of_workload = workload.as_ref().and_then(|one| one.ports.get(&port).copied());
        of_workload.unwrap_or_else(|| self.declared.get())
    }

    /// Its port is declared to speak this.
    pub(crate) fn declare(&self, protocol: Protocol) {
        self.declared.set(protocol);
    }

    /// It answers HTTP/2 in HTTP/1.
    pub(crate) fn learn_http1(&self) {
        self.http1_only.set(true);
        self.streams.abandon();
    }

    /// Closes idle connections that are not wanted any longer; true while some are left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        self.pool.sweep(now) | self.streams.sweep(now)
    }

    /// How many connections are kept at hand or in use as streams.
    pub(crate) fn kept(&self) -> usize {
        self.pool.len() + self.streams.len()
    }

    /// Closes all connections that are only kept at hand; true while some are left.
    pub(crate) fn clear(&self) -> bool {
        self.pool.clear() | self.streams.clear()
    }

    /// The series of requests that were given to it as one of a cluster's `service`, or as itself, on this
    /// `worker`. `None` where it belongs to no service: those requests stay under the labels they have.
    pub(crate) fn series(
        &self,
        service: Option<&ServiceName>,
        worker: usize,
    ) -> Option<Rc<SeriesSet>> {
        match service {
            Some(service) => Some(self.series_as(service, worker)),
            None => self.own_series(None, worker),
        }
    }

    /// The same for connections, which are counted under the workload's own service: of several the
    /// one that was `called`, else the first.
    pub(crate) fn own_series(
        &self,
        called: Option<&ServiceName>,
        worker: usize,
    ) -> Option<Rc<SeriesSet>> {
        let workload = self.workload()?;
        let called = called.filter(|called| workload.services.contains(*called));
        Some(self.series_as(called.or_else(|| workload.first_service())?, worker))
    }

    fn series_as(&self, service: &ServiceName, worker: usize) -> Rc<SeriesSet> {
        let mut series = self.series.borrow_mut();
        if let Some((_, set)) = series.iter().find(|(one, _)| one == service) {
            return Rc::clone(set);
        }
        let edge = Edge {
            reporter: Reporter::Source,
            peer: self.workload(),
            service: ServiceLabels::of(service),
        };
        let set = Rc::new(SeriesSet::new(edge, worker));
        series.push((service.clone(), Rc::clone(&set)));
        set
    }

    /// A request or connection is given to it.
    pub(crate) fn begin(self: &Rc<Self>, now: Instant) -> Attempt {
        self.load.borrow_mut().begin();
        let place = self.place.borrow();
        let watched = place.as_ref().filter(|place| place.is_watched());
        let watched = watched.map(|place| Watched::new(place, self.picked_to_try.take()));
        let upstream = Rc::clone(self);
        Attempt { upstream, begun: now, completion: None, waiting: None, watched }
    }

    /// Its place in what a rule counts.
    pub(crate) fn place(&self) -> Option<Arc<Place>> {
        self.place.borrow().clone()
    }

    /// How long a connect may take, where a rule says so.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.place.borrow().as_ref()?.pool()?.connect_timeout
    }

    /// When the kernel probes connections to it, where a rule says so.
    pub(crate) fn tcp_keepalive(&self) -> Option<TcpKeepalive> {
        self.place.borrow().as_ref()?.pool()?.tcp_keepalive
    }

    /// How long bytes may be relayed to it, where a rule says so.
    pub(crate) fn relay_limits(&self) -> RelayLimits {
        let place = self.place.borrow();
        let Some(pool) = place.as_ref().and_then(|place| place.pool()) else {
            return RelayLimits::default();
        };
        RelayLimits {
            idle: pool.tcp_idle_timeout.filter(|limit| !limit.is_zero()),
            lasts: pool.max_connection_duration,
        }
    }

    /// Does somebody wait for one of its connections to end, of whichever worker?
    pub(crate) fn is_waited_for(&self) -> bool {
        self.place.borrow().as_ref().is_some_and(|place| place.breaker().is_waited_for())
    }

    /// What rules say of it may be new.
    pub(super) fn placed(&self, place: Option<&Arc<Place>>) {
        let known = match (&*self.place.borrow(), place) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if !known {
            let pool = place.and_then(|place| place.pool());
            let idle = pool.and_then(|pool| pool.idle_timeout.or(pool.tcp_idle_timeout));
            let lasts = pool.and_then(|pool| pool.max_connection_duration);
            self.pool.by_rule(idle, lasts);
            self.streams.limited(StreamLimits {
                requests: pool.and_then(|pool| pool.max_requests_per_connection),
                at_once: pool.and_then(|pool| pool.max_concurrent_streams),
                idle,
                lasts,
                pings: pool.and_then(|pool| pool.http2_keepalive),
            });
            self.by_rule.set(pool.map(Version::of).unwrap_or_default());
            *self.place.borrow_mut() = place.cloned();
        }
    }

    /// To be asked for before a connection is opened.
    pub(crate) fn opening(&self) -> Opening {
        self.backlog.as_ref().map_or_else(Opening::default, |backlog| backlog.opening())
    }

    /// Do others wait there while connections to it are idle?
    pub(crate) fn is_held_up(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.is_held_up())
    }

    /// Closes idle connections that may hold up the server; true while some are left. Of an application
    /// all that can be spared, because who opened one may keep it for others too; another costs next to
    /// nothing. Outside only those whose client has left.
    pub(crate) fn make_room(&self) -> bool {
        let keeps_some = match self.target {
            DialTarget::Application { .. } => self.pool.clear(),
            _ => self.pool.close_left(),
        };
        keeps_some || self.streams.len() > 0
    }

    /// What one more request costs here; `None` while the endpoint is cold.
    pub(crate) fn cost(&self, now: Instant) -> Option<Cost> {
        match self.warmth.get() {
            Warmth::Warm => Some(self.load.borrow().cost(now)),
            Warmth::Cold { .. } => None,
        }
    }

    /// A request or connection ended.
    fn finish(&self, now: Instant, completion: Completion) {
        let mut load = self.load.borrow_mut();
        match (self.warmth.get(), completion) {
            (Warmth::Cold { answers, best }, Completion::Success(latency)) => {
                let (answers, best) = (answers + 1, best.min(latency));
                load.finish(now, Completion::Cancelled(Duration::ZERO));
                if answers < COLD_ANSWERS {
                    self.warmth.set(Warmth::Cold { answers, best });
                } else {
                    load.measured(now, best);
                    self.warmth.set(Warmth::Warm);
                }
            }
            (Warmth::Cold { .. }, Completion::Cancelled(_)) => {
                load.finish(now, Completion::Cancelled(Duration::ZERO));
            }
            (Warmth::Warm, _) | (_, Completion::Failure(_)) => {
                // A failure is a reason to stay away, cold or not.
                self.warmth.set(Warmth::Warm);
                load.finish(now, completion);
            }
        }
    }

    /// The snapshot may say something new about the same endpoint: new labels mean new series.
    pub(super) fn refresh(&self, endpoint: &LbEndpoint, place: Option<&Arc<Place>>) {
        let known = match (&*self.workload.borrow(), endpoint.who()) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if !known {
            *self.workload.borrow_mut() = endpoint.who().cloned();
            self.series.borrow_mut().clear();
        }
        if endpoint.outside.is_some() {
            self.declare(endpoint.declared());
        }
        self.placed(place);
    }
}

/// One request's stay at an upstream; tells the balancer exactly once how it went.
#[derive(Debug)]
pub(crate) struct Attempt {
    upstream: Rc<Upstream>,
    begun: Instant,
    /// How it went, and when that was known.
    completion: Option<(Instant, Completion)>,
    /// It waits on a connection that never had an answer.
    waiting: Option<Waiting>,
    watched: Option<Watched>,
}

impl Attempt {
    pub(crate) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    /// It goes out on a connection that never had an answer, and until it has one, waits for that.
    pub(crate) fn waits(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
    }

    /// A response head came.
    pub(crate) fn answered(&mut self, now: Instant, status: u16) {
        if let Some(waiting) = self.waiting.take() {
            waiting.served();
        }
        let latency = self.latency(now);
        let completion = match is_trouble(status) {
            true => Completion::Failure(latency),
            false => Completion::Success(latency),
        };
        self.completion = Some((now, completion));
    }

    /// The response turned out to be `injected` by a fault: it says nothing of the endpoint.
    pub(crate) fn judged(&mut self, now: Instant, injected: bool) {
        if injected {
            self.completion = Some((now, Completion::Cancelled(self.latency(now))));
        }
    }

    /// Is the endpoint watched for errors, so that it matters what it [`says`](Self::says)?
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// What the head of a response says.
    pub(crate) fn says(&mut self, now: Instant, status: u16, said: Said<'_>) {
        if let Some(watched) = &mut self.watched {
            watched.says(now, status, said);
        }
    }

    /// The response is over; for gRPC with this status, or with none, which is an error.
    pub(crate) fn ended(&mut self, now: Instant, grpc: Option<u32>) {
        if let (Some(status), Some((at, Completion::Success(latency)))) = (grpc, self.completion)
            && is_trouble(http_of_grpc(status))
        {
            self.completion = Some((at, Completion::Failure(latency)));
        }
        if let Some(watched) = &mut self.watched {
            watched.ended(now, grpc);
        }
    }

    /// The connection stands (TCP: that is all there is to judge by).
    pub(crate) fn connected(&mut self, now: Instant) {
        self.completion = Some((now, Completion::Success(self.latency(now))));
    }

    /// The connection carries bytes: that it stands is the endpoint's answer. Where requests follow, theirs
    /// are.
    pub(crate) fn carries_bytes(&mut self, now: Instant) {
        if let Some(watched) = &mut self.watched {
            watched.saw(Some(Seen::Connected), now);
        }
    }

    /// The connection was opened early and carries no call: it says nothing about the endpoint's
    /// speed. Tells since when it stood.
    pub(crate) fn unused(mut self) -> Instant {
        let unused = Completion::Cancelled(Duration::ZERO);
        let connected = self.completion.replace((clock::now(), unused));
        connected.map_or(self.begun, |(at, _)| at)
    }

    /// No connection, and this is why. What says nothing about the endpoint leaves nothing behind.
    pub(crate) fn refused(&mut self, now: Instant, refusal: &Refusal) {
        if !matches!(refusal, Refusal::Overflow(_) | Refusal::DescriptorLimit(_)) {
            self.failed(now);
        }
    }

    /// Its connection broke before there was a response. Only if the request is `over` so, it is an error of
    /// the endpoint's: else it goes there again, since the endpoint may have closed what was idle.
    pub(crate) fn broke(&mut self, now: Instant, over: bool) {
        match over {
            true => self.failed(now),
            false => self.completion = Some((now, Completion::Failure(self.latency(now)))),
        }
    }

    /// No connection, or no response.
    pub(crate) fn failed(&mut self, now: Instant) {
        if let Some(watched) = &mut self.watched {
            watched.failed(now);
        }
        self.completion = Some((now, Completion::Failure(self.latency(now))));
    }

    /// How long it has lasted.
    pub(crate) fn latency(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

/// Is this status a sign of trouble, for which an endpoint may not seem fast?
fn is_trouble(status: u16) -> bool {
    status >= 500 || status == 429
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.saw(None, self.begun);
        }
        let (now, completion) = self.completion.unwrap_or_else(|| {
            let now = clock::now();
            (now, Completion::Cancelled(self.latency(now)))
        });
        self.upstream.finish(now, completion);
    }
}
