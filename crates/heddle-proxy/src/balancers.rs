//! What a worker knows about everything it connects to, and which of a cluster's endpoints takes the
//! next request.
//!
//! An [`Upstream`] holds one endpoint's pool, load estimate and metric series. Endpoints of a
//! snapshot are found by their dense slot; addresses outside of any cluster (a pod called by its
//! IP, the own application, the outside) by address, as long as somebody uses them. The choice
//! itself is `heddle_logic::balance`'s; connecting is `pool`'s and `worker`'s.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use heddle_logic::balance::{self, Completion, LoadEstimate};
use heddle_model::{ServiceName, discovery::WorkloadInfo};
use heddle_runtime::clock;

use crate::{
    metrics::SeriesSet,
    pool::Pool,
    snapshot::{Cluster, EndpointSlot, LbEndpoint as Endpoint},
};

/// Answers after which an endpoint's speed counts as known.
const COLD_ANSWERS: u8 = 3;

/// How an upstream is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    /// Marked, directly: a workload of the mesh.
    Direct(SocketAddr),
    /// Through this process's own inbound path: the workload itself.
    Own(SocketAddr),
    /// This workload's application, wherever it listens on the port.
    Application(u16),
    /// Through the holder: outside the mesh.
    Outside(SocketAddr),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) | Self::Own(address) | Self::Outside(address) => {
                write!(f, "{address}")
            }
            Self::Application(port) => write!(f, "localhost:{port}"),
        }
    }
}

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
    pub(crate) via: Via,
    pub(crate) pool: Pool,
    /// Is it in the worker's list of upstreams with idle connections?
    pub(crate) listed: Cell<bool>,
    workload: RefCell<Option<Arc<WorkloadInfo>>>,
    load: RefCell<LoadEstimate>,
    warmth: Cell<Warmth>,
    stamp: u64,
    series: RefCell<Vec<(ServiceName, Rc<SeriesSet>)>>,
}

impl Upstream {
    fn new(via: Via, workload: Option<Arc<WorkloadInfo>>, load: LoadEstimate, stamp: u64) -> Self {
        Self {
            via,
            pool: Pool::default(),
            listed: Cell::new(false),
            workload: RefCell::new(workload),
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

    /// The series of calls to it as a member of `service`, made by `make` the first time.
    pub(crate) fn series(
        &self,
        service: &ServiceName,
        make: impl FnOnce() -> SeriesSet,
    ) -> Rc<SeriesSet> {
        let mut series = self.series.borrow_mut();
        if let Some((_, set)) = series.iter().find(|(one, _)| one == service) {
            return Rc::clone(set);
        }
        let set = Rc::new(make());
        series.push((service.clone(), Rc::clone(&set)));
        set
    }

    /// A request or connection is given to it.
    pub(crate) fn begin(self: &Rc<Self>, now: Instant) -> Attempt {
        self.load.borrow_mut().begin();
        Attempt { upstream: Rc::clone(self), begun: now, completion: None }
    }

    /// What one more request costs here; `None` while the endpoint is cold.
    pub(crate) fn cost(&self, now: Instant) -> Option<f64> {
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
    fn refresh(&self, endpoint: &Endpoint) {
        let known = self
            .workload
            .borrow()
            .as_ref()
            .is_some_and(|workload| Arc::ptr_eq(workload, &endpoint.workload));
        if !known {
            *self.workload.borrow_mut() = Some(Arc::clone(&endpoint.workload));
            self.series.borrow_mut().clear();
        }
    }
}

/// One request's stay at an upstream; tells the balancer exactly once how it went.
#[derive(Debug)]
pub(crate) struct Attempt {
    upstream: Rc<Upstream>,
    begun: Instant,
    /// How it went, and when that was known.
    completion: Option<(Instant, Completion)>,
}

impl Attempt {
    pub(crate) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    /// A response head came.
    pub(crate) fn answered(&mut self, now: Instant, status: u16) {
        let latency = self.latency(now);
        let trouble = status >= 500 || status == 429;
        let completion =
            if trouble { Completion::Failure(latency) } else { Completion::Success(latency) };
        self.completion = Some((now, completion));
    }

    /// The connection stands (TCP: that is all there is to judge by).
    pub(crate) fn connected(&mut self, now: Instant) {
        self.completion = Some((now, Completion::Success(self.latency(now))));
    }

    /// The connection was opened early and carries no call: it says nothing about the endpoint's
    /// speed. Tells since when it stood.
    pub(crate) fn unused(mut self) -> Instant {
        let unused = Completion::Cancelled(Duration::ZERO);
        let connected = self.completion.replace((clock::now(), unused));
        connected.map_or(self.begun, |(at, _)| at)
    }

    /// No connection, or no response.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.completion = Some((now, Completion::Failure(self.latency(now))));
    }

    fn latency(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (now, completion) = self.completion.unwrap_or_else(|| {
            let now = clock::now();
            (now, Completion::Cancelled(self.latency(now)))
        });
        self.upstream.finish(now, completion);
    }
}

/// Where a request may go.
#[derive(Debug, Clone)]
pub(crate) enum Candidates {
    /// Any ready endpoint of a cluster.
    Cluster(Arc<Cluster>),
    /// This one.
    One(Rc<Upstream>),
}

/// All upstreams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_slot: RefCell<Vec<Option<Rc<Upstream>>>>,
    by_way: RefCell<HashMap<Via, Weak<Upstream>>>,
}

impl Upstreams {
    /// Picks the upstream for a request's next attempt: another than those `tried` if there is one.
    pub(crate) fn pick(
        &self,
        candidates: &Candidates,
        tried: &[Rc<Upstream>],
        now: Instant,
        random: u64,
    ) -> Option<Rc<Upstream>> {
        let cluster = match candidates {
            Candidates::One(upstream) => return Some(Rc::clone(upstream)),
            Candidates::Cluster(cluster) => cluster,
        };
        if tried.is_empty() {
            let picked = balance::pick(cluster.endpoints.len(), random, |index| {
                self.cost(cluster, &cluster.endpoints[index], now)
            })?;
            return Some(self.of_endpoint(cluster, &cluster.endpoints[picked], now));
        }
        let untried: Vec<&Arc<Endpoint>> = cluster
            .endpoints
            .iter()
            .filter(|endpoint| tried.iter().all(|one| one.stamp != endpoint.slot.stamp))
            .collect();
        if untried.is_empty() {
            return self.pick(candidates, &[], now, random);
        }
        let picked =
            balance::pick(untried.len(), random, |index| self.cost(cluster, untried[index], now))?;
        Some(self.of_endpoint(cluster, untried[picked], now))
    }

    /// Has every candidate been tried?
    pub(crate) fn exhausted(candidates: &Candidates, tried: &[Rc<Upstream>]) -> bool {
        match candidates {
            Candidates::One(_) => !tried.is_empty(),
            Candidates::Cluster(cluster) => cluster
                .endpoints
                .iter()
                .all(|endpoint| tried.iter().any(|one| one.stamp == endpoint.slot.stamp)),
        }
    }

    /// The upstream that is reached this way, shared while somebody uses it.
    pub(crate) fn of_way(&self, via: Via, workload: Option<Arc<WorkloadInfo>>) -> Rc<Upstream> {
        let mut known = self.by_way.borrow_mut();
        if let Some(upstream) = known.get(&via).and_then(Weak::upgrade)
            && same_workload(upstream.workload.borrow().as_ref(), workload.as_ref())
        {
            return upstream;
        }
        known.retain(|_, upstream| upstream.strong_count() > 0);
        let load = LoadEstimate::neutral(clock::now(), []);
        let upstream = Rc::new(Upstream::new(via, workload, load, 0));
        known.insert(via, Rc::downgrade(&upstream));
        upstream
    }

    fn cost(&self, cluster: &Cluster, endpoint: &Endpoint, now: Instant) -> f64 {
        let known = self.with_known(endpoint.slot, |upstream| upstream.cost(now)).flatten();
        let cost = known.unwrap_or_else(|| {
            // As good as the median of those that are known: requests in flight decide.
            let upstream = self.of_endpoint(cluster, endpoint, now);
            let load = upstream.load.borrow();
            self.median(cluster, now).cost(now) * (f64::from(load.in_flight()) + 1.0)
        });
        cost / f64::from(endpoint.weight)
    }

    /// The estimate for an endpoint nobody knows, among the warm ones of its cluster.
    fn median(&self, cluster: &Cluster, now: Instant) -> LoadEstimate {
        let known = cluster.endpoints.iter().filter_map(|one| self.known(one.slot));
        let warm: Vec<_> = known.filter(|one| matches!(one.warmth.get(), Warmth::Warm)).collect();
        let loads: Vec<_> = warm.iter().map(|one| one.load.borrow()).collect();
        LoadEstimate::neutral(now, loads.iter().map(|load| &**load))
    }

    fn of_endpoint(&self, cluster: &Cluster, endpoint: &Endpoint, now: Instant) -> Rc<Upstream> {
        if let Some(upstream) = self.known(endpoint.slot) {
            upstream.refresh(endpoint);
            return upstream;
        }
        let load = self.median(cluster, now);
        let via = match endpoint.is_self {
            true => Via::Own(endpoint.address()),
            false => Via::Direct(endpoint.address()),
        };
        let workload = Some(Arc::clone(&endpoint.workload));
        let upstream = Rc::new(Upstream::new(via, workload, load, endpoint.slot.stamp));
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

fn same_workload(a: Option<&Arc<WorkloadInfo>>, b: Option<&Arc<WorkloadInfo>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr};

    use heddle_model::WorkloadId;

    use super::*;
    use crate::snapshot::ClusterKey;

    const MS: Duration = Duration::from_millis(1);

    fn cluster(count: u8) -> Candidates {
        let service = ServiceName::new("reviews", "default").unwrap();
        let endpoint = |n: u8| Endpoint {
            workload: Arc::new(WorkloadInfo {
                id: WorkloadId(format!("reviews-{n}")),
                name: format!("reviews-{n}"),
                namespace: "default".into(),
                service: service.clone(),
                version: String::new(),
                labels: BTreeMap::new(),
                ports: BTreeMap::new(),
            }),
            ipv4: Ipv4Addr::new(127, 0, 0, n),
            ipv6: std::net::Ipv6Addr::LOCALHOST,
            port: 80,
            weight: 1,
            is_self: false,
            slot: EndpointSlot { index: u32::from(n), stamp: u64::from(n) + 1 },
        };
        Candidates::Cluster(Arc::new(Cluster {
            key: ClusterKey { service: service.clone(), subset: None, port: 80 },
            endpoints: (0..count).map(|n| Arc::new(endpoint(n))).collect(),
        }))
    }

    /// Sends `count` requests one after the other; `answer` gives latency and status by endpoint
    /// and number of its requests so far. Returns how many each got.
    fn simulate(count: u32, answer: impl Fn(usize, u32) -> (Duration, u16)) -> Vec<u32> {
        let (upstreams, candidates) = (Upstreams::default(), cluster(3));
        let mut random = fastrand::Rng::with_seed(5);
        let mut now = clock::now();
        let mut served = vec![0; 3];
        for _ in 0..count {
            let picked = upstreams.pick(&candidates, &[], now, random.u64(..)).unwrap();
            let index = usize::try_from(picked.stamp).unwrap() - 1;
            let (latency, status) = answer(index, served[index]);
            let mut attempt = picked.begin(now);
            now += latency;
            attempt.answered(now, status);
            served[index] += 1;
        }
        served
    }

    #[test]
    fn a_cold_first_answer_costs_an_endpoint_nothing() {
        let served = simulate(300, |index, nth| {
            let cold = index == 2 && nth == 0;
            (if cold { 98 * MS } else { MS / 2 }, 200)
        });
        assert!(served.iter().all(|count| *count > 70), "{served:?}");
    }

    #[test]
    fn an_endpoint_that_stays_slow_gets_little() {
        let served = simulate(300, |index, _| (if index == 2 { 50 * MS } else { MS }, 200));
        assert!(served[2] < 20, "{served:?}");
    }

    #[test]
    fn an_endpoint_that_fails_fast_attracts_nothing() {
        let served = simulate(300, |index, _| (MS, if index == 2 { 503 } else { 200 }));
        assert!(served[2] < 30, "{served:?}");
    }

    #[test]
    fn what_was_tried_is_tried_again_only_when_nothing_else_is_left() {
        let (upstreams, candidates) = (Upstreams::default(), cluster(3));
        let now = clock::now();
        let mut tried = Vec::new();
        for _ in 0..3 {
            assert!(!Upstreams::exhausted(&candidates, &tried));
            let next = upstreams.pick(&candidates, &tried, now, 7).unwrap();
            assert!(tried.iter().all(|one| !Rc::ptr_eq(one, &next)));
            tried.push(next);
        }
        assert!(Upstreams::exhausted(&candidates, &tried));
        assert!(upstreams.pick(&candidates, &tried, now, 7).is_some());
        assert!(upstreams.pick(&cluster(0), &[], now, 7).is_none());
    }

    #[test]
    fn a_connection_opened_early_and_not_used_says_nothing_about_speed() {
        let upstreams = Upstreams::default();
        let upstream = upstreams.of_way(Via::Application(80), None);
        let begun = clock::now();
        for _ in 0..COLD_ANSWERS {
            upstream.begin(begun).answered(begun + 50 * MS, 200);
        }
        let later = begun + 5000 * MS;
        let before = upstream.cost(later);
        assert!(before.is_some(), "warm");
        let mut early = upstream.begin(later - MS);
        early.connected(later);
        early.unused();
        assert_eq!(upstream.cost(later), before);
    }

    #[test]
    fn every_attempt_ends_once_also_when_it_is_dropped() {
        let upstreams = Upstreams::default();
        let upstream = upstreams.of_way(Via::Application(80), None);
        let attempt = upstream.begin(clock::now());
        assert_eq!(upstream.load.borrow().in_flight(), 1);
        drop(attempt);
        assert_eq!(upstream.load.borrow().in_flight(), 0);
    }
}
