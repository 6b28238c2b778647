//! What a worker knows about everything it connects to, and which of a cluster's endpoints takes the
//! next request.
//!
//! An [`Upstream`] holds one endpoint's pool, load estimate and metric series. Endpoints of a
//! snapshot are found by their dense slot; addresses outside of any cluster (a pod called by its
//! IP, the own application, the outside) by address, as long as somebody uses them. The choice
//! itself is `heddle_logic::balance`'s, under a rule by way of `by_rule`; connecting is `pool`'s and
//! `dial`'s.

mod backend;
mod by_rule;
mod endpoint;
mod target;
mod watched;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

use hashbrown::HashMap;
use heddle_logic::balance::{self, Cost, LoadEstimate};
use heddle_model::discovery::WorkloadInfo;
use heddle_runtime::{clock, tls::Origin};

pub(crate) use self::{
    backend::Backend,
    by_rule::Ask,
    endpoint::{Attempt, Upstream},
    target::DialTarget,
    watched::Said,
};
use self::{
    by_rule::{Choice, Chosen, Nobody},
    endpoint::Warmth,
};
use crate::{
    backlog::Backlogs,
    breaker::{Admitted, Place, Tries},
    refusal::Refusal,
    snapshot::{Balancer, Cluster, EndpointSlot, LbEndpoint},
};

/// Which TLS, by where its settings are; none where there is none.
type TlsOf = Option<usize>;

/// All upstreams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_slot: RefCell<Vec<Option<Rc<Upstream>>>>,
    by_target: RefCell<HashMap<(DialTarget, TlsOf), Weak<Upstream>>>,
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
        ask: Ask,
    ) -> Result<Rc<Upstream>, Refusal> {
        let cluster = match backend {
            Backend::Upstream(upstream) | Backend::AsAsked(upstream, _) => {
                return Ok(Rc::clone(upstream));
            }
            Backend::Cluster(cluster) => cluster,
        };
        if let Some(balancer) = &cluster.balancer {
            return self.pick_by_rule(cluster, balancer, tried, ask);
        }
        let Ask { now, random, .. } = ask;
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
            return self.pick(backend, &[], ask);
        }
        let picked =
            balance::pick(untried.len(), random, |index| self.cost(cluster, untried[index], now));
        let picked = picked.ok_or_else(nobody)?;
        Ok(self.of_endpoint(cluster, untried[picked], now))
    }

    /// The same where a rule says how one is chosen.
    fn pick_by_rule(
        &self,
        cluster: &Cluster,
        balancer: &Balancer,
        tried: &[Rc<Upstream>],
        ask: Ask,
    ) -> Result<Rc<Upstream>, Refusal> {
        let is_tried = |at: usize| {
            let stamp = cluster.endpoints[at].slot.stamp;
            tried.iter().any(|one| one.stamp == stamp)
        };
        let cost = |at: usize| self.cost(cluster, &cluster.endpoints[at], ask.now);
        let choice = Choice { cluster, balancer, ask, copy: self.unplaced };
        let tried = (!tried.is_empty()).then_some(&is_tried as &dyn Fn(usize) -> bool);
        match choice.make(tried, &cost) {
            Ok(Chosen::One(at)) => Ok(self.of_endpoint(cluster, &cluster.endpoints[at], ask.now)),
            Ok(Chosen::Probe(at)) => {
                let upstream = self.of_endpoint(cluster, &cluster.endpoints[at], ask.now);
                upstream.picked_to_try.set(true);
                Ok(upstream)
            }
            Err(Nobody::Absent | Nobody::Out) => Err(nobody_left(cluster)),
        }
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
        let tries = match tried {
            // What comes of a copy nobody counts.
            _ if self.unplaced => Tries::Never,
            [] => Tries::AtOnce,
            [_, ..] => Tries::IfNobodyIsIn,
        };
        let places: Vec<&Place> = among.iter().filter_map(|one| one.place.as_deref()).collect();
        let admitted = cluster
            .breaker
            .as_ref()
            .map_or(Admitted::All, |breaker| breaker.admitted(&places, tries, now));
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
        self.of_target_by(target, workload, None)
    }

    /// The same, over the TLS that a rule asks for.
    pub(crate) fn of_target_by(
        &self,
        target: DialTarget,
        workload: Option<Arc<WorkloadInfo>>,
        tls: Option<&Arc<Origin>>,
    ) -> Rc<Upstream> {
        // As long as the upstream is there, so is its TLS, and nobody else's is at that place.
        let key = (target.clone(), tls.map(|tls| Arc::as_ptr(tls).addr()));
        let mut known = self.by_target.borrow_mut();
        if let Some(upstream) = known.get(&key).and_then(Weak::upgrade)
            && same_workload(upstream.workload.borrow().as_ref(), workload.as_ref())
        {
            return upstream;
        }
        known.retain(|_, upstream| upstream.strong_count() > 0);
        let load = LoadEstimate::neutral(clock::now(), []);
        let backlog = target.server().map(|server| self.backlogs.of(server));
        let new = Upstream::new(target, workload, load, 0);
        let upstream = Rc::new(new.with_backlog(backlog).with_tls(tls.cloned()));
        known.insert(key, Rc::downgrade(&upstream));
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
        let upstream = Rc::new(new.with_backlog(backlog).with_tls(endpoint.tls.clone()));
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
pub(crate) fn nobody_left(cluster: &Cluster) -> Refusal {
    if let Some(said) = &cluster.outside.unresolved {
        return Refusal::NotResolved(said.clone());
    }
    let service = cluster.key.service.clone();
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
