//! What a worker knows about everything it connects to, and which of a cluster's endpoints takes the
//! next request.
//!
//! An [`Upstream`] holds one endpoint's pool, load estimate and metric series. Endpoints of a
//! snapshot are found by their dense slot; addresses outside of any cluster (a pod called by its
//! IP, the own application, the outside) by address, as long as somebody uses them. The choice
//! itself is `heddle_logic::balance`'s; connecting is `pool`'s and `dial`'s.

mod backend;
mod target;
mod watched;

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use heddle_logic::{
    balance::{self, Completion, Cost, LoadEstimate},
    eject::Seen,
};
use heddle_model::{Protocol, ServiceName, discovery::WorkloadInfo};
use heddle_runtime::{clock, tls::Origin};
use tokio::sync::Notify;

use crate::{
    backlog::{Backlog, Backlogs, Opening, Waiting},
    breaker::{Admitted, Place},
    metrics::{Edge, Reporter, ServiceLabels},
    pool::Pool,
    refusal::Refusal,
    series::SeriesSet,
    snapshot::{Cluster, EndpointSlot, LbEndpoint},
    streams::{HttpVersion, StreamLimits, Streams},
};

use self::watched::Watched;
pub(crate) use self::{backend::Backend, target::DialTarget, watched::Said};

/// Answers after which an endpoint's speed counts as known.
const COLD_ANSWERS: u8 = 3;

/// How much is known about an endpoint's speed.
///
/// The first answers of a process just started tell how cold it is, not how fast: taken as peaks,
/// they would keep requests away for half a minute. So an endpoint counts as neither fast nor slow
/// until a few have come, and then as fast as the best of them.
#[derive(Debug, Clone, Copy)]
enum Warmth {
    Cold { answers: u8, best: Duration },
    Warm,
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
    /// It answered HTTP/2 in HTTP/1.
    http1_only: Cell<bool>,
    /// Is it in the worker's list of upstreams with idle connections?
    pub(crate) listed: Cell<bool>,
    /// Who waits there, on all workers.
    pub(crate) backlog: Option<Arc<Backlog>>,
    workload: RefCell<Option<Arc<WorkloadInfo>>>,
    /// Its place in what a rule counts, where one does.
    place: RefCell<Option<Arc<Place>>>,
    /// Requests of this worker that wait for a connection to it, and what wakes one of them when another
    /// leaves it its own.
    pub(crate) waiting: Cell<usize>,
    pub(crate) left: Notify,
    /// It was picked to be tried; the next attempt is that.
    picked_to_try: Cell<bool>,
    load: RefCell<LoadEstimate>,
    warmth: Cell<Warmth>,
    stamp: u64,
    series: RefCell<Vec<(ServiceName, Rc<SeriesSet>)>>,
}

impl Upstream {
    fn new(
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

    /// Who it is; `None` outside the mesh and for the own application.
    pub(crate) fn workload(&self) -> Option<Arc<WorkloadInfo>> {
        self.workload.borrow().clone()
    }

    /// The version in which to ask it for the sake of a client that speaks `asked`: what its port was
    /// declared to speak, unless it was found to speak less, else the client's own.
    pub(crate) fn version(&self, asked: HttpVersion) -> HttpVersion {
        match self.declared() {
            _ if self.http1_only.get() => HttpVersion::Http1,
            Protocol::Http2 | Protocol::Grpc => HttpVersion::Http2,
            _ => asked,
        }
    }

    fn declared(&self) -> Protocol {
        let port = match self.target {
            DialTarget::Workload(address) | DialTarget::Own(address) => address.port(),
            DialTarget::Application(_) | DialTarget::Outside(_) => return self.declared.get(),
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

    /// The series of requests that were given to it as one of `backend`, on this `worker`. `None`
    /// where it belongs to no service: those requests stay under the labels they have.
    pub(crate) fn series(&self, backend: &Backend, worker: usize) -> Option<Rc<SeriesSet>> {
        match backend {
            Backend::Cluster(cluster) | Backend::AsAsked(_, cluster) => {
                Some(self.series_as(&cluster.key.service, worker))
            }
            Backend::Upstream(_) => self.own_series(None, worker),
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

    /// Does somebody wait for one of its connections to end, of whichever worker?
    pub(crate) fn is_waited_for(&self) -> bool {
        self.place.borrow().as_ref().is_some_and(|place| place.breaker().is_waited_for())
    }

    /// What rules say of it may be new.
    fn placed(&self, place: Option<&Arc<Place>>) {
        let known = match (&*self.place.borrow(), place) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        if !known {
            let pool = place.and_then(|place| place.pool());
            let idle = pool.and_then(|pool| pool.idle_timeout);
            let requests = pool.and_then(|pool| pool.max_requests_per_connection);
            self.pool.idle_by_rule(idle);
            self.streams.limited(StreamLimits { requests, idle });
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
            DialTarget::Application(_) => self.pool.clear(),
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
    fn refresh(&self, endpoint: &LbEndpoint, place: Option<&Arc<Place>>) {
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
        let trouble = status >= 500 || status == 429;
        let completion =
            if trouble { Completion::Failure(latency) } else { Completion::Success(latency) };
        self.completion = Some((now, completion));
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

/// All upstreams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_slot: RefCell<Vec<Option<Rc<Upstream>>>>,
    by_target: RefCell<HashMap<DialTarget, Weak<Upstream>>>,
    backlogs: Backlogs,
    /// What rules count of live requests is not counted here.
    unplaced: bool,
}

impl Upstreams {
    /// None so far; who waits at them is known to all who share `backlogs`.
    pub(crate) fn new(backlogs: Backlogs) -> Self {
        Self { backlogs, ..Self::default() }
    }

    /// Those of copies: what becomes of them is no concern of what rules count.
    pub(crate) fn of_copies() -> Self {
        Self { unplaced: true, ..Self::default() }
    }

    /// Picks the upstream for a request's next attempt: another than those `tried` if there is one, and
    /// none that is out for its errors.
    ///
    /// # Errors
    /// [`Refusal::NoEndpoints`], [`Refusal::AllEjected`].
    pub(crate) fn pick(
        &self,
        backend: &Backend,
        tried: &[Rc<Upstream>],
        now: Instant,
        random: u64,
    ) -> Result<Rc<Upstream>, Refusal> {
        let cluster = match backend {
            Backend::Upstream(upstream) | Backend::AsAsked(upstream, _) => {
                return Ok(Rc::clone(upstream));
            }
            Backend::Cluster(cluster) => cluster,
        };
        let nobody = || nobody_left(cluster);
        if cluster.has_ejected() {
            return self.pick_admitted(cluster, tried, now, random);
        }
        if tried.is_empty() {
            let picked = balance::pick(cluster.endpoints.len(), random, |index| {
                self.cost(cluster, &cluster.endpoints[index], now)
            });
            let picked = picked.ok_or_else(nobody)?;
            return Ok(self.of_endpoint(cluster, &cluster.endpoints[picked], now));
        }
        let untried: Vec<&Arc<LbEndpoint>> = cluster
            .endpoints
            .iter()
            .filter(|endpoint| tried.iter().all(|one| one.stamp != endpoint.slot.stamp))
            .collect();
        if untried.is_empty() {
            return self.pick(backend, &[], now, random);
        }
        let picked =
            balance::pick(untried.len(), random, |index| self.cost(cluster, untried[index], now));
        let picked = picked.ok_or_else(nobody)?;
        Ok(self.of_endpoint(cluster, untried[picked], now))
    }

    /// The same where endpoints are out.
    #[cold]
    fn pick_admitted(
        &self,
        cluster: &Cluster,
        tried: &[Rc<Upstream>],
        now: Instant,
        random: u64,
    ) -> Result<Rc<Upstream>, Refusal> {
        let untried = |one: &&Arc<LbEndpoint>| tried.iter().all(|t| t.stamp != one.slot.stamp);
        let mut among: Vec<&Arc<LbEndpoint>> = cluster.endpoints.iter().filter(untried).collect();
        if among.is_empty() {
            among.extend(&cluster.endpoints);
        }
        let places: Vec<&Place> = among.iter().filter_map(|one| one.place.as_deref()).collect();
        let admitted = cluster
            .breaker
            .as_ref()
            .map_or(Admitted::All, |breaker| breaker.admitted(&places, !tried.is_empty(), now));
        match admitted {
            Admitted::All => {}
            Admitted::Probe(at) => {
                let upstream = self.of_endpoint(cluster, among[at], now);
                upstream.picked_to_try.set(true);
                return Ok(upstream);
            }
            Admitted::Some(at) => among = at.into_iter().map(|at| among[at]).collect(),
        }
        let picked = balance::pick(among.len(), random, |at| self.cost(cluster, among[at], now));
        match (picked, tried) {
            (Some(picked), _) => Ok(self.of_endpoint(cluster, among[picked], now)),
            // Whoever was tried before and is in may be asked again.
            (None, [_, ..]) => self.pick_admitted(cluster, &[], now, random),
            (None, []) => Err(nobody_left(cluster)),
        }
    }

    /// Is there nobody else to go to than those `tried` and the `next`?
    pub(crate) fn exhausted(
        backend: &Backend,
        tried: &[Rc<Upstream>],
        next: &Rc<Upstream>,
    ) -> bool {
        let Backend::Cluster(cluster) = backend else { return true };
        let stamps = |stamp| tried.iter().chain([next]).any(|one| one.stamp == stamp);
        cluster.endpoints.iter().all(|endpoint| stamps(endpoint.slot.stamp))
    }

    /// The upstream that is reached this way, shared while somebody uses it.
    pub(crate) fn of_target(
        &self,
        target: DialTarget,
        workload: Option<Arc<WorkloadInfo>>,
    ) -> Rc<Upstream> {
        let mut known = self.by_target.borrow_mut();
        if let Some(upstream) = known.get(&target).and_then(Weak::upgrade)
            && same_workload(upstream.workload.borrow().as_ref(), workload.as_ref())
        {
            return upstream;
        }
        known.retain(|_, upstream| upstream.strong_count() > 0);
        let load = LoadEstimate::neutral(clock::now(), []);
        let backlog = target.server().map(|server| self.backlogs.of(server));
        let upstream = Rc::new(Upstream { backlog, ..Upstream::new(target, workload, load, 0) });
        known.insert(target, Rc::downgrade(&upstream));
        upstream
    }

    fn cost(&self, cluster: &Cluster, endpoint: &LbEndpoint, now: Instant) -> Cost {
        let known = self.with_known(endpoint.slot, |upstream| upstream.cost(now)).flatten();
        let cost = known.unwrap_or_else(|| {
            // As good as the median of those that are known: requests in flight decide.
            let upstream = self.of_endpoint(cluster, endpoint, now);
            let in_flight = upstream.load.borrow().in_flight();
            self.median(cluster, now).cost(now).with_in_flight(in_flight)
        });
        cost.weighted(endpoint.weight)
    }

    /// The estimate for an endpoint nobody knows, among the warm ones of its cluster.
    fn median(&self, cluster: &Cluster, now: Instant) -> LoadEstimate {
        let known = cluster.endpoints.iter().filter_map(|one| self.known(one.slot));
        let warm: Vec<_> = known.filter(|one| matches!(one.warmth.get(), Warmth::Warm)).collect();
        let loads: Vec<_> = warm.iter().map(|one| one.load.borrow()).collect();
        LoadEstimate::neutral(now, loads.iter().map(|load| &**load))
    }

    fn of_endpoint(&self, cluster: &Cluster, endpoint: &LbEndpoint, now: Instant) -> Rc<Upstream> {
        let place = endpoint.place.as_ref().filter(|_| !self.unplaced);
        if let Some(upstream) = self.known(endpoint.slot) {
            upstream.refresh(endpoint, place);
            return upstream;
        }
        let load = self.median(cluster, now);
        let target = match (endpoint.outside, endpoint.is_self) {
            (Some(_), _) => DialTarget::Outside(endpoint.address()),
            (None, true) => DialTarget::Own(endpoint.address()),
            (None, false) => DialTarget::Workload(endpoint.address()),
        };
        let workload = endpoint.who().cloned();
        let backlog = target.server().map(|server| self.backlogs.of(server));
        let new = Upstream::new(target, workload, load, endpoint.slot.stamp);
        let upstream = Rc::new(Upstream { backlog, tls: endpoint.tls.clone(), ..new });
        upstream.declare(endpoint.declared());
        upstream.placed(place);
        let index = endpoint.slot.index as usize;
        let mut by_slot = self.by_slot.borrow_mut();
        if by_slot.len() <= index {
            by_slot.resize(index + 1, None);
        }
        by_slot[index] = Some(Rc::clone(&upstream));
        upstream
    }

    fn known(&self, slot: EndpointSlot) -> Option<Rc<Upstream>> {
        self.with_known(slot, Rc::clone)
    }

    fn with_known<T>(
        &self,
        slot: EndpointSlot,
        look: impl FnOnce(&Rc<Upstream>) -> T,
    ) -> Option<T> {
        let by_slot = self.by_slot.borrow();
        let upstream = by_slot.get(slot.index as usize)?.as_ref()?;
        (upstream.stamp == slot.stamp).then(|| look(upstream))
    }
}

/// Why a request goes to none of a cluster's endpoints.
fn nobody_left(cluster: &Cluster) -> Refusal {
    let service = cluster.key.service.clone();
    if let Some(said) = &cluster.outside.unresolved {
        return Refusal::NotResolved(said.clone());
    }
    match &cluster.breaker {
        Some(breaker) if !cluster.endpoints.is_empty() => {
            Refusal::AllEjected(service, breaker.policy().provenance.clone())
        }
        _ => Refusal::NoEndpoints(service),
    }
}

fn same_workload(a: Option<&Arc<WorkloadInfo>>, b: Option<&Arc<WorkloadInfo>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
