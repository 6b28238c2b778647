//! Builds snapshots one after the other, keeping every part whose content did not change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hashbrown::HashMap;
use heddle_logic::RouteTable;
use heddle_model::{
    Addresses, EndpointState, Endpoints, Locality, ServiceName, WorkloadId,
    discovery::{
        ClientTls, ClusterKey, ClusterPolicy, Endpoint, Inbound, OutsideAddress, Resolution,
        RuleAction, SniRule, Target, Weighted, WeightedTarget, WorkloadInfo,
    },
    registry::carries,
};
use heddle_runtime::tls::Origin;

use super::{
    ActionPlan, Balancer, Cluster, ClusterOutside, CompiledDestination, CompiledRule,
    DestinationPlan, EndpointOutside, EndpointSlot, HttpRulePlan, InboundPlan, LbEndpoint,
    MirrorPlan, PortPlan, ResourceSet, Snapshot, SniPlan, TargetPlan,
    balancer::{Here, Plan},
    used::{UseMark, Used},
};
use crate::{
    breaker::{Breaker, Breakers},
    resolved::{Resolved, ResolvedNames, Use},
    state::RetryAccounts,
};

/// Makes each snapshot from the resources and the snapshot before.
#[derive(Debug)]
pub struct SnapshotBuilder {
    own: WorkloadId,
    /// Where the workload is, as far as that was told.
    here: Here,
    /// Which family a connection from here can have; `None`: either.
    addresses: Option<Addresses>,
    retries: RetryAccounts,
    breakers: Breakers,
    resolved: ResolvedNames,
    slots: Slots,
    workloads: BTreeMap<WorkloadId, Arc<WorkloadInfo>>,
    endpoints: BTreeMap<EndpointKey, Arc<LbEndpoint>>,
    clusters: BTreeMap<ClusterKey, Arc<Cluster>>,
    origins: BTreeMap<ClientTls, Arc<Origin>>,
    destinations: BTreeMap<ServiceName, Arc<DestinationPlan>>,
    inbound: Option<Arc<InboundPlan>>,
    address_marks: BTreeMap<IpAddr, UseMark>,
    name_marks: BTreeMap<String, UseMark>,
}

/// A workload's port at an address. Where a rule counts connections or errors of a cluster, they are that
/// cluster's alone; and what is kept of connections of one TLS is no other's.
type EndpointKey = (WorkloadId, IpAddr, u16, Option<ClusterKey>, Option<ClientTls>);

/// What all endpoints of a cluster have in common.
#[derive(Clone, Copy)]
struct Common<'a> {
    breaker: Option<&'a Arc<Breaker>>,
    tls: Option<&'a Arc<Origin>>,
}

/// A snapshot and what could not yet take force in it.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Destinations whose new rules wait for endpoints of a backend, with those backends. The
    /// rules before (if any) stay in force.
    pub held_back: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

impl SnapshotBuilder {
    /// A builder for the sidecar of `own`.
    #[must_use]
    pub fn new(own: WorkloadId) -> Self {
        Self {
            own,
            here: Here::default(),
            addresses: None,
            retries: RetryAccounts::default(),
            breakers: Breakers::default(),
            resolved: ResolvedNames::default(),
            slots: Slots::default(),
            workloads: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            clusters: BTreeMap::new(),
            origins: BTreeMap::new(),
            destinations: BTreeMap::new(),
            inbound: None,
            address_marks: BTreeMap::new(),
            name_marks: BTreeMap::new(),
        }
    }

    /// The same where the workload has these addresses: endpoints are reached in a family that both
    /// have.
    #[must_use]
    pub fn with_addresses(self, addresses: Addresses) -> Self {
        Self { addresses: Some(addresses), ..self }
    }

    /// The same where retries are accounted for here.
    #[must_use]
    pub fn with_retries(self, retries: RetryAccounts) -> Self {
        Self { retries, ..self }
    }

    /// The same where clusters are counted here.
    #[must_use]
    pub fn with_breakers(self, breakers: Breakers) -> Self {
        Self { breakers, ..self }
    }

    /// The same where names outside are resolved here.
    #[must_use]
    pub fn with_resolved(self, resolved: ResolvedNames) -> Self {
        Self { resolved, ..self }
    }

    /// Builds the next snapshot.
    ///
    /// A destination takes force only if the endpoints of every backend it names are in the set
    /// (an empty list counts), and every name among them has been asked about: make before break.
    pub fn build(&mut self, set: &ResourceSet, generation: u64) -> Built {
        self.here = set.inbound.as_ref().map(|inbound| here(inbound)).unwrap_or_default();
        let mut held_back = BTreeMap::new();
        let mut round = Round::default();
        let mut in_force = Vec::new();
        for (service, wanted) in &set.destinations {
            let missing = self.missing_backends(wanted, set);
            if missing.is_empty() {
                in_force.push(Arc::clone(wanted));
                continue;
            }
            held_back.insert(service.clone(), missing);
            in_force.extend(self.destinations.get(service).map(|plan| Arc::clone(&plan.compiled)));
        }
        round.policies = policies(&in_force);
        let mut destinations = BTreeMap::new();
        for compiled in in_force {
            let before = self.destinations.get(&compiled.service).cloned();
            let plan = self.plan(&compiled, before.as_ref(), set, &mut round);
            destinations.insert(compiled.service.clone(), plan);
        }
        self.destinations = destinations;
        self.endpoints = round.endpoints;
        self.workloads = round.workloads;
        self.clusters = round.clusters;
        self.origins = round.origins;
        self.slots.retain(&self.endpoints);
        let counted =
            |key: &ClusterKey| self.clusters.get(key).is_some_and(|one| one.breaker.is_some());
        self.breakers.only(counted);
        Built { snapshot: self.assemble(set, generation), held_back }
    }

    /// Every service whose endpoints a destination in force or in `set` names.
    #[must_use]
    pub fn backends(&self, set: &ResourceSet) -> BTreeSet<ServiceName> {
        let in_force = self.destinations.values().map(|plan| &plan.compiled);
        in_force.chain(set.destinations.values()).flat_map(|one| one.backends()).cloned().collect()
    }

    /// Use marks of destinations in force.
    pub fn destination_marks(&self) -> impl Iterator<Item = (&ServiceName, &UseMark)> {
        self.destinations.iter().map(|(service, plan)| (service, &plan.use_mark))
    }

    /// Use marks of addresses.
    pub fn address_marks(&self) -> impl Iterator<Item = (&IpAddr, &UseMark)> {
        self.address_marks.iter()
    }

    /// Use marks of names.
    pub fn name_marks(&self) -> impl Iterator<Item = (&String, &UseMark)> {
        self.name_marks.iter()
    }

    fn assemble(&mut self, set: &ResourceSet, generation: u64) -> Snapshot {
        self.address_marks.retain(|ip, _| set.addresses.contains_key(ip));
        self.name_marks.retain(|name, _| set.names.contains_key(name));
        let mut addresses = HashMap::with_capacity(set.addresses.len());
        for (ip, owner) in &set.addresses {
            let mark = self.address_marks.entry(*ip).or_default().clone();
            addresses.insert(*ip, Used { value: owner.clone(), mark });
        }
        let mut names = HashMap::with_capacity(set.names.len());
        for (name, answer) in &set.names {
            let mark = self.name_marks.entry(name.clone()).or_default().clone();
            names.insert(name.clone(), Used { value: Arc::clone(answer), mark });
        }
        let same = match (&self.inbound, &set.inbound) {
            (Some(plan), Some(inbound)) => plan.inbound == *inbound,
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.inbound = set.inbound.clone().map(|inbound| Arc::new(InboundPlan::new(inbound)));
        }
        let destinations =
            self.destinations.iter().map(|(name, plan)| (name.clone(), Arc::clone(plan))).collect();
        Snapshot {
            generation,
            addresses,
            destinations,
            names,
            inbound: self.inbound.clone(),
            mesh: set.mesh.clone(),
        }
    }

    fn plan(
        &mut self,
        compiled: &Arc<CompiledDestination>,
        before: Option<&Arc<DestinationPlan>>,
        set: &ResourceSet,
        round: &mut Round,
    ) -> Arc<DestinationPlan> {
        let mut ports = HashMap::with_capacity(compiled.ports.len());
        let mut unchanged = before.is_some_and(|plan| Arc::ptr_eq(&plan.compiled, compiled));
        for port in &compiled.ports {
            let own =
                ClusterKey { service: compiled.service.clone(), subset: None, port: port.number };
            let rules = port.http.iter().map(|rule| self.rule(rule, set, round)).collect();
            let fresh = PortPlan {
                number: port.number,
                name: port.name.clone(),
                protocol: port.protocol,
                http: RouteTable::new(rules),
                default: self.cluster(own, set, round),
                tcp: self.targets(&port.tcp, set, round),
                sni: port.sni.iter().map(|rule| self.sni(rule, set, round)).collect(),
                faults: Arc::clone(&port.faults),
                only_ruled: compiled.only_ruled,
            };
            let kept = before
                .and_then(|plan| plan.ports.get(&port.number))
                .filter(|plan| plan.same(&fresh));
            unchanged &= kept.is_some();
            ports.insert(port.number, kept.cloned().unwrap_or_else(|| Arc::new(fresh)));
        }
        match before {
            Some(plan) if unchanged => Arc::clone(plan),
            _ => Arc::new(DestinationPlan {
                compiled: Arc::clone(compiled),
                ports,
                use_mark: before.map(|plan| plan.use_mark.clone()).unwrap_or_default(),
            }),
        }
    }

    fn rule(
        &mut self,
        compiled: &Arc<CompiledRule>,
        set: &ResourceSet,
        round: &mut Round,
    ) -> HttpRulePlan {
        let action = match &compiled.rule.action {
            RuleAction::Forward(targets) => ActionPlan::Forward(self.targets(targets, set, round)),
            RuleAction::Refuse(reason) => ActionPlan::Refuse(reason.clone()),
        };
        let mirrors = compiled.rule.traffic.mirrors.iter().filter_map(|mirror| match &mirror.to {
            Target::Cluster(key) => Some(MirrorPlan {
                cluster: self.cluster(key.clone(), set, round),
                percent: mirror.percent,
                compare: mirror.compare,
            }),
            Target::Dangling(_) => None,
        });
        let mirrors = mirrors.collect();
        HttpRulePlan { compiled: Arc::clone(compiled), action, mirrors }
    }

    fn sni(&mut self, rule: &Arc<SniRule>, set: &ResourceSet, round: &mut Round) -> SniPlan {
        SniPlan { rule: Arc::clone(rule), targets: self.targets(&rule.targets, set, round) }
    }

    fn targets(
        &mut self,
        targets: &[WeightedTarget],
        set: &ResourceSet,
        round: &mut Round,
    ) -> Vec<Weighted<TargetPlan>> {
        let mut resolve = |target: &WeightedTarget| Weighted {
            weight: target.weight,
            headers: None,
            to: match &target.to {
                Target::Cluster(key) => TargetPlan::Cluster(self.cluster(key.clone(), set, round)),
                Target::Dangling(reason) => TargetPlan::Dangling(reason.clone()),
            },
        };
        targets.iter().map(&mut resolve).collect()
    }

    fn cluster(&mut self, key: ClusterKey, set: &ResourceSet, round: &mut Round) -> Arc<Cluster> {
        if let Some(done) = round.clusters.get(&key) {
            return Arc::clone(done);
        }
        let policy = round.policies.get(&key).cloned();
        let tls = policy.as_ref().and_then(|policy| policy.tls.as_ref());
        let tls = tls.map(|tls| self.origin(tls, round));
        let breaker = policy.filter(|one| one.is_counted());
        let breaker = breaker.map(|policy| self.breaker(&policy));
        let common = Common { breaker: breaker.as_ref(), tls: tls.as_ref() };
        let (endpoints, outside) = match set.endpoints.get(&key.service) {
            Some(endpoints) => self.endpoints_of((&key, common), endpoints, round),
            None => Default::default(),
        };
        if let Some(breaker) = &breaker {
            let id = |one: &Arc<LbEndpoint>| (one.id().clone(), one.ip, one.port);
            breaker.is_of(endpoints.iter().map(id));
        }
        let retries = self.retries.of(&key.service);
        let balancer = self.balancer(&key, breaker.as_deref(), &endpoints);
        let fresh = Cluster { key, endpoints, retries, breaker, balancer, tls, outside };
        let cluster = match self.clusters.get(&fresh.key) {
            Some(before) if **before == fresh => Arc::clone(before),
            _ => Arc::new(fresh),
        };
        round.clusters.insert(cluster.key.clone(), Arc::clone(&cluster));
        cluster
    }

    /// TLS as it is asked for: what is known of it already, or anew.
    fn origin(&self, tls: &ClientTls, round: &mut Round) -> Arc<Origin> {
        let known = round.origins.get(tls).or_else(|| self.origins.get(tls)).cloned();
        let origin = known.unwrap_or_else(|| Arc::new(Origin::new(tls.clone())));
        round.origins.insert(tls.clone(), Arc::clone(&origin));
        origin
    }

    /// The breaker under this policy: the one there was, unless the policy is another.
    fn breaker(&self, policy: &Arc<ClusterPolicy>) -> Arc<Breaker> {
        let before = self.clusters.get(&policy.cluster).and_then(|one| one.breaker.as_ref());
        match before {
            Some(before) if before.policy() == &**policy => Arc::clone(before),
            _ => self.breakers.of(Arc::clone(policy)),
        }
    }

    /// The balancer under this policy: the one there was, unless the policy or the endpoints are others.
    fn balancer(
        &self,
        key: &ClusterKey,
        breaker: Option<&Breaker>,
        endpoints: &[Arc<LbEndpoint>],
    ) -> Option<Arc<Balancer>> {
        let plan = Plan::new(breaker?.policy(), &self.here, endpoints)?;
        let before = self.clusters.get(key).filter(|before| before.endpoints == endpoints);
        match before.and_then(|before| before.balancer.as_ref()) {
            Some(balancer) if *balancer.plan() == plan => Some(Arc::clone(balancer)),
            _ => Some(Arc::new(Balancer::build(plan, endpoints))),
        }
    }

    /// The ready ones and those outside, or where there is none those that serve until they end.
    fn endpoints_of(
        &mut self,
        (key, common): (&ClusterKey, Common<'_>),
        endpoints: &Endpoints,
        round: &mut Round,
    ) -> (Vec<Arc<LbEndpoint>>, ClusterOutside) {
        let as_asked = endpoints.resolution == Resolution::None;
        let by_name = endpoints.by_name.get(&key.port).copied();
        let mut outside = ClusterOutside { as_asked, by_name, ..ClusterOutside::default() };
        let beyond = match endpoints.outside.is_empty() {
            true => Vec::new(),
            false => self.outside_of((key, common), endpoints, &mut outside, round),
        };
        let labels = key.subset.as_ref().map(|subset| &subset.labels);
        let members = endpoints.endpoints.iter();
        let members =
            members.filter(|one| labels.is_none_or(|labels| carries(&one.workload.labels, labels)));
        let here = Some(self.here.locality.node.clone());
        let here = here.filter(|node| endpoints.node_local && !node.is_empty());
        let members =
            members.filter(|one| here.as_ref().is_none_or(|node| one.locality.node == *node));
        let mut in_state = |state: EndpointState| -> Vec<_> {
            let led_to = members.clone().filter_map(|one| Some((one, one.ports.get(&key.port)?)));
            let found = led_to.filter(|(_, port)| port.state == state);
            found.map(|(one, port)| self.endpoint(one, (port.number, common), round)).collect()
        };
        let mut ready = in_state(EndpointState::Ready);
        outside.leaves = !beyond.is_empty();
        ready.extend(beyond);
        if ready.is_empty() {
            ready = in_state(EndpointState::ServingTerminating);
        }
        (ready, outside)
    }

    /// Those outside, each name with the addresses it leads to; where it leads nowhere, `outside` says so.
    fn outside_of(
        &mut self,
        (key, common): (&ClusterKey, Common<'_>),
        endpoints: &Endpoints,
        outside: &mut ClusterOutside,
        round: &mut Round,
    ) -> Vec<Arc<LbEndpoint>> {
        let labels = key.subset.as_ref().map(|subset| &subset.labels);
        let members = endpoints.outside.iter();
        let members =
            members.filter(|one| labels.is_none_or(|labels| carries(&one.workload.labels, labels)));
        let mut found = Vec::new();
        for one in members {
            let Some(port) = one.ports.get(&key.port) else { continue };
            let addresses = match &one.at {
                OutsideAddress::Ip(ip) => vec![*ip],
                OutsideAddress::Host(host) => match self.resolved.get(host) {
                    Resolved::Addresses(mut all) if endpoints.resolution == Resolution::Dns => {
                        all.sort_unstable();
                        all
                    }
                    Resolved::Addresses(all) => all.into_iter().take(1).collect(),
                    Resolved::Never(said) => {
                        outside.unresolved.get_or_insert_with(|| format!("{host}: {said}"));
                        continue;
                    }
                    // What it led to before serves until it is known where it leads now.
                    Resolved::Pending => match self.clusters.get(key) {
                        Some(before) => return before.endpoints.clone(),
                        None => continue,
                    },
                },
            };
            let described = Some(EndpointOutside { described: one.described });
            for ip in addresses {
                let place = Placed {
                    workload: &one.workload,
                    ip,
                    weight: one.weight,
                    locality: &one.locality,
                };
                found.push(self.placed(place, described, (*port, common), round));
            }
        }
        if !found.is_empty() {
            outside.unresolved = None;
        }
        found
    }

    /// Which names outside are to be resolved, and what for.
    pub(crate) fn names_outside(set: &ResourceSet) -> BTreeMap<Arc<str>, Use> {
        let mut names = BTreeMap::new();
        for endpoints in set.endpoints.values().filter(|one| !one.outside.is_empty()) {
            let used = match endpoints.resolution {
                Resolution::DnsRoundRobin => Use::First,
                _ => Use::All,
            };
            let hosts = endpoints.outside.iter().filter_map(|one| match &one.at {
                OutsideAddress::Host(host) => Some(Arc::from(host.as_str())),
                OutsideAddress::Ip(_) => None,
            });
            for host in hosts {
                let known = names.entry(host).or_insert(used);
                *known = used.min(*known);
            }
        }
        names
    }

    fn missing_backends(
        &self,
        compiled: &CompiledDestination,
        set: &ResourceSet,
    ) -> BTreeSet<ServiceName> {
        let is_missing = |service: &&ServiceName| match set.endpoints.get(*service) {
            Some(endpoints) => endpoints.outside.iter().any(|one| match &one.at {
                OutsideAddress::Host(host) => self.resolved.get(host) == Resolved::Pending,
                OutsideAddress::Ip(_) => false,
            }),
            None => true,
        };
        compiled.backends().iter().filter(is_missing).cloned().collect()
    }

    fn endpoint(
        &mut self,
        one: &Endpoint,
        at: (u16, Common<'_>),
        round: &mut Round,
    ) -> Arc<LbEndpoint> {
        let reachable = |ip: &IpAddr| self.addresses.is_none_or(|own| own.of_family(*ip).is_some());
        let ip = one.addresses.iter().find(reachable).unwrap_or_else(|| one.addresses.first());
        let place =
            Placed { workload: &one.workload, ip, weight: one.weight, locality: &one.locality };
        self.placed(place, None, at, round)
    }

    fn placed(
        &mut self,
        one: Placed<'_>,
        outside: Option<EndpointOutside>,
        (port, Common { breaker, tls }): (u16, Common<'_>),
        round: &mut Round,
    ) -> Arc<LbEndpoint> {
        let ip = one.ip;
        let counted = breaker.map(|breaker| breaker.policy().cluster.clone());
        let of_tls = tls.map(|tls| tls.settings().clone());
        let key = (one.workload.id.clone(), ip, port, counted, of_tls);
        let workload = self.workload(one.workload, round);
        let fresh = LbEndpoint {
            is_self: one.workload.id == self.own,
            outside,
            workload,
            ip,
            port,
            weight: one.weight.max(1),
            locality: one.locality.clone(),
            slot: self.slots.of(&key),
            place: breaker.map(|breaker| Arc::new(breaker.place((key.0.clone(), ip, port)))),
            tls: tls.cloned(),
        };
        let before = round.endpoints.get(&key).or_else(|| self.endpoints.get(&key));
        let endpoint = match before {
            Some(before) if **before == fresh => Arc::clone(before),
            _ => Arc::new(fresh),
        };
        round.endpoints.insert(key, Arc::clone(&endpoint));
        endpoint
    }

    fn workload(&self, info: &WorkloadInfo, round: &mut Round) -> Arc<WorkloadInfo> {
        let before = round.workloads.get(&info.id).or_else(|| self.workloads.get(&info.id));
        let workload = match before {
            Some(before) if **before == *info => Arc::clone(before),
            _ => Arc::new(info.clone()),
        };
        round.workloads.insert(info.id.clone(), Arc::clone(&workload));
        workload
    }
}

/// A workload at one of its addresses.
struct Placed<'a> {
    workload: &'a WorkloadInfo,
    ip: IpAddr,
    weight: u32,
    locality: &'a Locality,
}

/// What one build has made so far, so that equal parts are made once.
#[derive(Debug, Default)]
struct Round {
    workloads: BTreeMap<WorkloadId, Arc<WorkloadInfo>>,
    endpoints: BTreeMap<EndpointKey, Arc<LbEndpoint>>,
    clusters: BTreeMap<ClusterKey, Arc<Cluster>>,
    origins: BTreeMap<ClientTls, Arc<Origin>>,
    policies: BTreeMap<ClusterKey, Arc<ClusterPolicy>>,
}

/// Gives endpoints their indexes.
#[derive(Debug, Default)]
struct Slots {
    taken: BTreeMap<EndpointKey, EndpointSlot>,
    free: BTreeSet<u32>,
    next: u32,
    stamps: u64,
}

impl Slots {
    fn of(&mut self, key: &EndpointKey) -> EndpointSlot {
        if let Some(slot) = self.taken.get(key) {
            return *slot;
        }
        let index = self.free.pop_first().unwrap_or_else(|| {
            let index = self.next;
            self.next += 1;
            index
        });
        self.stamps += 1;
        let slot = EndpointSlot { index, stamp: self.stamps };
        self.taken.insert(key.clone(), slot);
        slot
    }

    fn retain(&mut self, endpoints: &BTreeMap<EndpointKey, Arc<LbEndpoint>>) {
        let free = &mut self.free;
        self.taken.retain(|key, slot| {
            let kept = endpoints.contains_key(key);
            if !kept {
                free.insert(slot.index);
            }
            kept
        });
    }
}

fn here(inbound: &Inbound) -> Here {
    Here {
        locality: Locality::clone(&inbound.locality),
        labels: inbound.workload.labels.clone(),
        callers: inbound.callers.clone(),
    }
}

/// What is asked of each cluster. What a service's own destination says of it goes before what another
/// says, whose new rules may be held back.
fn policies(in_force: &[Arc<CompiledDestination>]) -> BTreeMap<ClusterKey, Arc<ClusterPolicy>> {
    let mut policies = BTreeMap::new();
    for destination in in_force {
        for (key, policy) in &destination.policies {
            if key.service == destination.service || !policies.contains_key(key) {
                policies.insert(key.clone(), Arc::clone(policy));
            }
        }
    }
    policies
}
