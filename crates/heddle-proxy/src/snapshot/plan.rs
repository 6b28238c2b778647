//! A destination made ready for requests: matchers built, targets resolved to clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use hashbrown::HashMap;
use heddle_logic::{
    PortFaults, RulePlan,
    fault::{Expiry, Now},
    route::{Matcher, RequestView, RouteError, RouteTable, Rule, pick_position, pick_target},
    rule::{self, Changes, OwnAnswer},
    sni,
};
use heddle_model::{
    Destination, DestinationPort, Protocol, ServiceName,
    discovery::{
        ANY_PORT, ClusterKey, ClusterPolicy, Fault, HttpRule, MirrorCompare, Provenance, SniRule,
        Weighted, WeightedTarget,
    },
};

use heddle_runtime::{clock, tls::Origin};

use super::{balancer::Balancer, endpoint::LbEndpoint, used::UseMark};
use crate::{breaker::Breaker, metrics::RuleCounts, state::RetryAccount};

/// A destination's rules do not build.
#[derive(Debug, thiserror::Error)]
#[error("Destination {service} port {port}: {source}")]
pub struct PlanError {
    /// Which service.
    pub service: ServiceName,
    /// Which of its ports.
    pub port: u16,
    /// What is wrong with its rules.
    pub source: Box<RouteError>,
}

/// A destination with its matchers, before its targets are resolved to endpoints.
#[derive(Debug)]
pub struct CompiledDestination {
    /// Which service.
    pub service: ServiceName,
    /// Its virtual addresses.
    pub(super) vips: Vec<IpAddr>,
    pub(super) ports: Vec<CompiledPort>,
    /// Every service whose endpoints it needs, itself included.
    backends: BTreeSet<ServiceName>,
    /// What is asked of the clusters it names.
    pub(super) policies: BTreeMap<ClusterKey, Arc<ClusterPolicy>>,
    /// Calls of it are refused, by this Sidecar.
    pub(super) refused: Option<Provenance>,
    /// It is a host that rules name and no service has.
    pub(super) only_ruled: bool,
}

/// One of its ports.
#[derive(Debug)]
pub(super) struct CompiledPort {
    pub(super) number: u16,
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) http: Vec<Arc<CompiledRule>>,
    pub(super) tcp: Vec<WeightedTarget>,
    pub(super) sni: Vec<Arc<SniRule>>,
    pub(super) faults: Arc<PortFaults>,
}

/// An HTTP rule with its matcher: what of it no endpoint changes.
#[derive(Debug)]
pub struct CompiledRule {
    /// As told.
    pub rule: HttpRule,
    pub(crate) matcher: Matcher,
    /// What it does besides choosing where requests go.
    pub(crate) does: RulePlan,
    /// When its fault ends.
    pub(crate) fault_expires: Option<Expiry>,
    /// What it has decided, found at the first request it decides about.
    pub(crate) counts: OnceLock<Arc<RuleCounts>>,
}

/// What a share that leads nowhere is answered where its rule does not say.
pub(crate) const ABSENT_STATUS: u16 = 503;

impl CompiledRule {
    /// Its fault, unless that is over.
    pub(crate) fn fault_of_now(&self) -> Option<&Fault> {
        let fault = self.rule.fault.as_ref();
        fault.filter(|_| self.fault_expires.is_none_or(|at| !at.is_over(now())))
    }

    /// What a share that leads nowhere is answered.
    pub(crate) fn absent_status(&self) -> u16 {
        self.rule.traffic.absent_status.unwrap_or(ABSENT_STATUS)
    }

    /// What it changes about a request that goes to the target at `position` (or nowhere), and what it answers
    /// without passing it on, if that.
    pub(crate) fn effects(
        &self,
        request: &dyn RequestView,
        position: Option<usize>,
    ) -> (Changes, Option<OwnAnswer>) {
        let path = rule::canonical_path(request);
        let (changes, preflight) = self.does.changes(&self.matcher, request, &path, position);
        (changes, self.does.answer(&self.matcher, request, &path).or(preflight))
    }
}

impl CompiledDestination {
    /// Builds every matcher.
    ///
    /// # Errors
    /// [`PlanError`] naming the port whose rules do not build.
    pub fn new(destination: Destination) -> Result<Self, PlanError> {
        let backends = destination.backends();
        let Destination { service, vips, ports, policies, refused, others, .. } = destination;
        let only_ruled = others.is_some();
        let named = |policy: ClusterPolicy| (policy.cluster.clone(), Arc::new(policy));
        let policies = policies.into_iter().map(named).collect();
        let ports = ports.into_iter().chain(others.map(|port| *port)).map(|port| {
            let number = port.number;
            CompiledPort::new(port).map_err(|source| PlanError {
                service: service.clone(),
                port: number,
                source: Box::new(source),
            })
        });
        let ports = ports.collect::<Result<_, _>>()?;
        Ok(Self { service, vips, ports, backends, policies, refused, only_ruled })
    }

    /// Every service whose endpoints it needs, itself included.
    #[must_use]
    pub fn backends(&self) -> &BTreeSet<ServiceName> {
        &self.backends
    }
}

impl CompiledPort {
    fn new(port: DestinationPort) -> Result<Self, RouteError> {
        let DestinationPort { number, name, protocol, http, tcp, sni, faults } = port;
        let now = now();
        let compiled = |rule: HttpRule| {
            let (matcher, does) = (Matcher::build(&rule)?, RulePlan::build(&rule)?);
            let expires = rule.fault.as_ref().and_then(|fault| fault.expires);
            let fault_expires = expires.map(|unix| Expiry::at(unix, now));
            let counts = OnceLock::new();
            Ok(Arc::new(CompiledRule { rule, matcher, does, fault_expires, counts }))
        };
        let http = http.into_iter().map(compiled).collect::<Result<_, _>>()?;
        let sni = sni.into_iter().map(Arc::new).collect();
        let faults = Arc::new(PortFaults::build(&faults, now)?);
        Ok(Self { number, name, protocol, http, tcp, sni, faults })
    }
}

/// This moment, for what ends at another.
pub(crate) fn now() -> Now {
    Now { unix: clock::unix_now().as_secs(), instant: clock::now() }
}

/// A service as requests see it.
#[derive(Debug)]
pub struct DestinationPlan {
    pub(super) compiled: Arc<CompiledDestination>,
    pub(super) ports: HashMap<u16, Arc<PortPlan>>,
    pub(super) use_mark: UseMark,
}

impl DestinationPlan {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.compiled.service
    }

    /// The Sidecar that does not let this workload call it, if one does not.
    #[must_use]
    pub fn refused(&self) -> Option<&Provenance> {
        self.compiled.refused.as_ref()
    }

    /// Its virtual addresses.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.compiled.vips
    }

    /// One of its ports; `None` if the service has no such port. A host that rules name has every port.
    #[must_use]
    #[inline]
    pub fn port(&self, number: u16) -> Option<&Arc<PortPlan>> {
        self.ports.get(&number).or_else(|| self.ports.get(&ANY_PORT))
    }

    /// Its ports, in no order.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<PortPlan>> {
        self.ports.values()
    }
}

/// One port of a service as requests see it.
#[derive(Debug)]
pub struct PortPlan {
    /// Port number.
    pub number: u16,
    /// Port name; may be empty.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
    /// The HTTP rules in order, each with its clusters.
    pub http: RouteTable<HttpRulePlan>,
    /// The service's own endpoints: where a request goes when there are no rules.
    pub default: Arc<Cluster>,
    /// TCP targets; empty means `default`.
    pub tcp: Vec<Weighted<TargetPlan>>,
    /// Faults of a kind of their own.
    pub(crate) faults: Arc<PortFaults>,
    /// Rules by the name that a client of TLS asks for.
    pub sni: Vec<SniPlan>,
    /// Of a host that rules name and no service has: what meets no rule goes where it asked.
    pub(crate) only_ruled: bool,
}

/// A rule by the name that a client of TLS asks for, as connections see it.
#[derive(Debug)]
pub struct SniPlan {
    /// The rule, shared by all plans of it.
    pub rule: Arc<SniRule>,
    /// Where connections go, by weight.
    pub targets: Vec<Weighted<TargetPlan>>,
}

/// One HTTP rule as requests see it.
#[derive(Debug)]
pub struct HttpRulePlan {
    /// The rule, shared by all plans of it.
    pub compiled: Arc<CompiledRule>,
    /// What becomes of a request that matches.
    pub action: ActionPlan,
    /// Who is sent copies. What is absent gets none.
    pub mirrors: Vec<MirrorPlan>,
}

/// Who is sent copies.
#[derive(Debug)]
pub struct MirrorPlan {
    /// Whom they go to.
    pub cluster: Arc<Cluster>,
    /// Of how many requests in a hundred.
    pub percent: f64,
    /// What of their answers is compared.
    pub compare: MirrorCompare,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum ActionPlan {
    /// It goes to one of these, by weight.
    Forward(Vec<Weighted<TargetPlan>>),
    /// It is refused with this text.
    Refuse(String),
}

/// Where a share of the traffic goes.
#[derive(Debug)]
pub enum TargetPlan {
    /// To one of these endpoints.
    Cluster(Arc<Cluster>),
    /// Nowhere: this is absent.
    Dangling(String),
}

/// Where one request or connection goes; in words why to nowhere.
pub type Picked<'a> = Result<&'a Arc<Cluster>, &'a str>;

impl PortPlan {
    /// Where a connection goes that no HTTP rule decides. `random` is uniform over all of `u64`.
    #[inline]
    pub fn pick_tcp(&self, random: u64) -> Picked<'_> {
        pick_target(&self.tcp, random).map_or(Ok(&self.default), TargetPlan::get)
    }

    /// The rule for a connection of TLS whose client asks for `name`, and where that leads; `None` where no
    /// rule is met. `random` is uniform over all of `u64`.
    pub fn pick_sni(&self, name: Option<&str>, random: u64) -> Option<(&SniPlan, Picked<'_>)> {
        let plan = sni::select(&self.sni, |plan| plan.rule.names.as_slice(), name)?;
        // The list is never empty: that is checked where rules come in.
        let picked = pick_target(&plan.targets, random);
        Some((plan, picked.map_or(Err("the rule has no target"), TargetPlan::get)))
    }

    /// Does the name that a client of TLS asks for say where its bytes go?
    #[must_use]
    pub(crate) fn leads_by_name(&self) -> bool {
        self.tcp.is_empty() && self.default.outside.by_name.is_some()
    }

    /// May nothing but HTTP pass? Where a rule for bytes holds too, what is no HTTP is its own.
    #[must_use]
    pub fn is_http_only(&self) -> bool {
        !self.http.rules().is_empty() && self.tcp.is_empty()
    }

    /// Does this plan say the same, part by part?
    pub(super) fn same(&self, other: &Self) -> bool {
        let (rules, others) = (self.http.rules(), other.http.rules());
        (&self.name, self.protocol) == (&other.name, other.protocol)
            && self.only_ruled == other.only_ruled
            && Arc::ptr_eq(&self.default, &other.default)
            && same_targets(&self.tcp, &other.tcp)
            && self.sni.len() == other.sni.len()
            && self.sni.iter().zip(&other.sni).all(|(one, other)| one.same(other))
            && Arc::ptr_eq(&self.faults, &other.faults)
            && rules.len() == others.len()
            && rules.iter().zip(others).all(|(one, other)| one.same(other))
    }
}

impl SniPlan {
    fn same(&self, other: &Self) -> bool {
        self.rule == other.rule && same_targets(&self.targets, &other.targets)
    }
}

impl HttpRulePlan {
    /// Where a request that matches goes, and at which position of the targets that is. `random` is
    /// uniform over all of `u64`.
    #[inline]
    pub fn pick(&self, random: u64) -> (Option<usize>, Picked<'_>) {
        match &self.action {
            ActionPlan::Forward(targets) => match pick_position(targets, random) {
                Some(at) => (Some(at), targets[at].to.get()),
                // The list is never empty: that is checked where rules come in.
                None => (None, Err("the rule has no target")),
            },
            ActionPlan::Refuse(reason) => (None, Err(reason)),
        }
    }

    /// Its targets, in order; none where it refuses.
    #[must_use]
    pub fn targets(&self) -> &[Weighted<TargetPlan>] {
        match &self.action {
            ActionPlan::Forward(targets) => targets,
            ActionPlan::Refuse(_) => &[],
        }
    }

    fn same(&self, other: &Self) -> bool {
        let mirrors = self.mirrors.iter().zip(&other.mirrors);
        Arc::ptr_eq(&self.compiled, &other.compiled)
            && same_targets(self.targets(), other.targets())
            && self.mirrors.len() == other.mirrors.len()
            && mirrors.into_iter().all(|(one, other)| Arc::ptr_eq(&one.cluster, &other.cluster))
    }
}

impl Rule for HttpRulePlan {
    fn matcher(&self) -> &Matcher {
        &self.compiled.matcher
    }
}

impl TargetPlan {
    /// The endpoints, or what is absent.
    pub fn get(&self) -> Picked<'_> {
        match self {
            Self::Cluster(cluster) => Ok(cluster),
            Self::Dangling(reason) => Err(reason),
        }
    }
}

/// Do these say the same, share by share?
fn same_targets(one: &[Weighted<TargetPlan>], other: &[Weighted<TargetPlan>]) -> bool {
    let same = |(one, other): (&Weighted<TargetPlan>, &Weighted<TargetPlan>)| {
        one.weight == other.weight
            && match (one.to.get(), other.to.get()) {
                (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.err() == other.err(),
            }
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// The endpoints behind one target that take requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub key: ClusterKey,
    /// In order of workload id; empty is possible.
    pub endpoints: Vec<Arc<LbEndpoint>>,
    /// What of the service's requests may be sent again.
    pub retries: Arc<RetryAccount>,
    /// What is counted of it, where a rule asks for something.
    pub breaker: Option<Arc<Breaker>>,
    /// How one is chosen, where a rule says so.
    pub balancer: Option<Arc<Balancer>>,
    /// The TLS that connections to its endpoints are of.
    pub tls: Option<Arc<Origin>>,
    /// What is different where its service is no workload's of the mesh.
    pub outside: ClusterOutside,
}

/// What is different about a cluster of a service outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterOutside {
    /// It has no endpoints: a call goes to the address that it asked for.
    pub as_asked: bool,
    /// A call that names a host goes to that instead, to this port of it.
    pub by_name: Option<u16>,
    /// Some of its endpoints are no hop of the mesh.
    pub leaves: bool,
    /// It has no endpoints because a name leads nowhere: which one, and what was said of it.
    pub unresolved: Option<String>,
}

impl Cluster {
    /// Does a rule of its own say how many retries may be under way?
    #[must_use]
    pub(crate) fn has_retry_budget(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.has_retry_budget())
    }

    /// Is any of its endpoints out for its errors?
    #[inline]
    #[must_use]
    pub(crate) fn has_ejected(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.has_ejected())
    }
}
