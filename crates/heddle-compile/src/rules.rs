//! All rules, indexed by the hosts they are for, and the choice among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heddle_model::{
    ResourceKey, ServiceName,
    discovery::Subset,
    resource::{
        DestinationRule, FaultTarget, MeshRoute, Resource, Spec, SubsetRule, VirtualService,
        WorkloadEntry,
    },
};

use crate::{
    client::{Client, Export, View},
    host::Host,
};

/// The namespace whose DestinationRules hold where neither the client's nor the service's does.
pub(crate) const ROOT_NAMESPACE: &str = "istio-system";

/// Rules, indexed by the hosts they are for. Cloning is cheap: resources are shared.
#[derive(Debug, Clone, Default)]
pub struct RuleIndex {
    resources: Vec<Arc<Resource>>,
    /// Hosts of VirtualServices that reach into the mesh, by host, oldest first.
    services: BTreeMap<Host, Vec<usize>>,
    /// Hosts of DestinationRules.
    subsets: BTreeMap<Host, Vec<usize>>,
    /// Positions of what says who is outside and who sees whom.
    outside: Vec<usize>,
    /// Routes of the Gateway API by the services they are attached to, oldest first.
    routes: BTreeMap<ServiceName, Vec<usize>>,
    /// Positions of Telemetries and of MeshConfigs.
    telemetry: Vec<usize>,
    /// Positions of faults of a kind of their own.
    faults: Vec<usize>,
    /// Services that they are for.
    faulty: BTreeSet<Host>,
    /// Every condition on a client's labels.
    conditions: BTreeSet<BTreeMap<String, String>>,
    /// Does any rule look at how many callers there are in a zone?
    looks_at_callers: bool,
}

/// A VirtualService with its resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routing<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) rule: &'a VirtualService,
    /// Position among all resources: its age.
    pub(crate) position: usize,
}

/// A DestinationRule with its resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubsetSource<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) rule: &'a DestinationRule,
}

/// A route of the Gateway API with its resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteSource<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) route: &'a MeshRoute,
    /// Position among all resources: its age.
    pub(crate) position: usize,
}

/// Two spellings of one host in one resource are one.
fn push_once(positions: &mut Vec<usize>, position: usize) {
    if positions.last() != Some(&position) {
        positions.push(position);
    }
}

fn source_labels(rule: &VirtualService) -> impl Iterator<Item = BTreeMap<String, String>> {
    let http = rule.http.iter().flat_map(|route| &route.matches).map(|one| &one.source_labels);
    let tcp = rule.tcp.iter().flat_map(|route| &route.matches).map(|one| &one.source_labels);
    let tls = rule.tls.iter().flat_map(|route| &route.matches).map(|one| &one.tcp.source_labels);
    http.chain(tcp).chain(tls).filter(|labels| !labels.is_empty()).cloned()
}

impl RuleIndex {
    /// Indexes rules. `resources` are given oldest first; the first of two in conflict wins.
    #[must_use]
    pub fn new(resources: &[Arc<Resource>]) -> Self {
        let mut index = Self { resources: resources.to_vec(), ..Self::default() };
        for (position, resource) in resources.iter().enumerate() {
            let read = |host: &str| Host::read(host, &resource.key.namespace);
            match &resource.spec {
                Spec::VirtualService(rule) if !rule.gateways_only => {
                    for host in rule.hosts.iter().map(|host| read(host)) {
                        push_once(index.services.entry(host).or_default(), position);
                    }
                    index.conditions.extend(source_labels(rule));
                }
                Spec::VirtualService(_) | Spec::NotServed | Spec::Service(_) | Spec::Namespace => {}
                Spec::Telemetry(_) | Spec::MeshConfig(_) => index.telemetry.push(position),
                Spec::ServiceEntry(_) | Spec::WorkloadEntry(_) => index.outside.push(position),
                Spec::Sidecar(sidecar) => {
                    index.outside.push(position);
                    index.conditions.extend(sidecar.selector.clone());
                }
                Spec::Route(route) => {
                    for parent in route.parents.iter().filter(|parent| parent.is_service()) {
                        let home = &resource.key.namespace;
                        let namespace = parent.namespace.as_ref().unwrap_or(home).clone();
                        let name = ServiceName { namespace, name: parent.name.clone() };
                        push_once(index.routes.entry(name).or_default(), position);
                    }
                }
                Spec::Fault(rule) => {
                    index.faults.push(position);
                    if let FaultTarget::Service { name, namespace } = &rule.target {
                        let home = namespace.as_ref().unwrap_or(&resource.key.namespace);
                        index.faulty.insert(Host::read(name, home));
                    }
                    let labels = rule.matches.iter().map(|one| &one.source_labels);
                    let asked = labels.filter(|labels| !labels.is_empty());
                    index.conditions.extend(asked.cloned());
                }
                Spec::DestinationRule(rule) => {
                    index.subsets.entry(read(&rule.host)).or_default().push(position);
                    index.conditions.extend(rule.workload_selector.clone());
                    index.looks_at_callers |= rule.looks_at_zones();
                }
            }
        }
        index
    }

    /// All resources, oldest first.
    #[must_use]
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Does any rule look at how many callers there are in a zone (`zoneAwareLbSetting`)? Then who joins or
    /// leaves concerns all workloads of the same service.
    #[must_use]
    pub fn looks_at_callers(&self) -> bool {
        self.looks_at_callers
    }

    /// ServiceEntries, WorkloadEntries and Sidecars with their positions.
    pub(crate) fn entries_at(&self) -> impl Iterator<Item = (usize, &Resource)> {
        self.outside.iter().filter_map(|&at| Some((at, &**self.resources.get(at)?)))
    }

    /// Faults of a kind of their own, oldest first.
    pub(crate) fn faults_at(&self) -> impl Iterator<Item = &Resource> {
        self.faults.iter().filter_map(|&at| Some(&**self.resources.get(at)?))
    }

    /// Telemetries and MeshConfigs, oldest first.
    pub(crate) fn telemetries_at(&self) -> impl Iterator<Item = &Resource> {
        self.telemetry.iter().filter_map(|&at| Some(&**self.resources.get(at)?))
    }

    /// All WorkloadEntries, oldest first.
    pub(crate) fn workload_entries(&self) -> impl Iterator<Item = (&Resource, &WorkloadEntry)> {
        self.entries_at().filter_map(|(_, resource)| match &resource.spec {
            Spec::WorkloadEntry(workload) => Some((resource, workload)),
            _ => None,
        })
    }

    /// A resource by its identity.
    #[must_use]
    pub fn resource(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| resource.key == *key)
    }

    /// The same by its parts.
    pub(crate) fn resource_of(&self, kind: &str, namespace: &str, name: &str) -> Option<&Resource> {
        let key = |one: &Arc<Resource>| {
            (&*one.key.kind, &*one.key.namespace, &*one.key.name) == (kind, namespace, name)
        };
        self.resources.iter().find(|one| key(one)).map(|one| &**one)
    }

    /// Which view a client has: clients of one view are told the same.
    #[must_use]
    pub fn view(&self, client: Client<'_>) -> View {
        View::of(client, &self.conditions)
    }

    /// Services that rules are for, whether they are there or not; wildcards apart.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<ServiceName> {
        let hosts = self.services.keys().chain(self.subsets.keys()).chain(&self.faulty);
        let service = |host: &Host| match host {
            Host::Service(name) => Some(name.clone()),
            _ => None,
        };
        hosts.filter_map(service).chain(self.routes.keys().cloned()).collect()
    }

    /// The VirtualService that governs calls of `client` to `service`: of those the client sees,
    /// the one with the closest host; then the one most closely exported; then the first in order.
    pub(crate) fn routing(&self, client: Client<'_>, service: &ServiceName) -> Option<Routing<'_>> {
        let named = hosts_of(&self.services, service);
        let closest = named.filter_map(|host| {
            let routing = self.winner(client, host)?;
            Some((host.names(service)?, routing))
        });
        closest.max_by_key(|(closeness, _)| *closeness).map(|(_, routing)| routing)
    }

    /// The resource that governs calls of `client` to `service`: a VirtualService, or else the oldest
    /// DestinationRule.
    #[must_use]
    pub fn governing(&self, client: Client<'_>, service: &ServiceName) -> Option<&ResourceKey> {
        let routing = self.routing(client, service).map(|routing| &routing.resource.key);
        routing.or_else(|| Some(&self.subset_sources(client, service).first()?.resource.key))
    }

    /// Hosts of VirtualServices that reach into the mesh.
    pub(crate) fn services(&self) -> &BTreeMap<Host, Vec<usize>> {
        &self.services
    }

    /// The VirtualService that wins a host for a client.
    pub(crate) fn winner(&self, client: Client<'_>, host: &Host) -> Option<Routing<'_>> {
        let visible = self.services.get(host)?.iter().filter_map(|&at| self.routing_at(at));
        let visible = visible.filter(|routing| {
            client.sees(&routing.resource.key.namespace, &routing.rule.export_to)
        });
        visible.min_by_key(|routing| {
            let Routing { resource, rule, position } = routing;
            (Export::to(client, &resource.key.namespace, &rule.export_to), *position)
        })
    }

    /// All VirtualServices that reach into the mesh.
    pub(crate) fn routings(&self) -> impl Iterator<Item = Routing<'_>> {
        (0..self.resources.len())
            .filter_map(|at| self.routing_at(at))
            .filter(|routing| !routing.rule.gateways_only)
    }

    fn routing_at(&self, position: usize) -> Option<Routing<'_>> {
        let resource = self.resources.get(position)?;
        match &resource.spec {
            Spec::VirtualService(rule) => Some(Routing { resource, rule, position }),
            _ => None,
        }
    }

    /// The routes of the Gateway API that are attached to a service, oldest first.
    pub(crate) fn routes_of(&self, service: &ServiceName) -> impl Iterator<Item = RouteSource<'_>> {
        let at = self.routes.get(service).map_or(&[][..], Vec::as_slice);
        at.iter().filter_map(|&position| self.route_at(position))
    }

    /// Is a service a parent of a route of the Gateway API?
    pub(crate) fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// All routes of the Gateway API.
    pub(crate) fn routes(&self) -> impl Iterator<Item = RouteSource<'_>> {
        (0..self.resources.len()).filter_map(|at| self.route_at(at))
    }

    fn route_at(&self, position: usize) -> Option<RouteSource<'_>> {
        let resource = self.resources.get(position)?;
        match &resource.spec {
            Spec::Route(route) => Some(RouteSource { resource, route, position }),
            _ => None,
        }
    }

    /// The DestinationRules that hold for calls of `client` to `service`, oldest first. As in
    /// Istio: those of the client's namespace, else of the service's, else of the root namespace;
    /// of one namespace those with the closest host; and those that select the client by labels
    /// before those for all.
    pub(crate) fn subset_sources(
        &self,
        client: Client<'_>,
        service: &ServiceName,
    ) -> Vec<SubsetSource<'_>> {
        let namespaces = [client.namespace, &service.namespace, ROOT_NAMESPACE];
        let mut found =
            namespaces.iter().map(|namespace| self.in_namespace(client, service, namespace));
        found.find(|rules| !rules.is_empty()).unwrap_or_default()
    }

    fn in_namespace(
        &self,
        client: Client<'_>,
        service: &ServiceName,
        namespace: &str,
    ) -> Vec<SubsetSource<'_>> {
        let mut by_closeness: Vec<_> = hosts_of(&self.subsets, service)
            .filter_map(|host| Some((host.names(service)?, host)))
            .collect();
        by_closeness.sort_by(|a, b| b.cmp(a));
        let seen = |host| self.seen(client, host, namespace);
        by_closeness
            .into_iter()
            .map(|(_, host)| seen(host))
            .find(|r| !r.is_empty())
            .unwrap_or_default()
    }

    /// DestinationRules of one host and namespace that a client sees.
    fn seen(&self, client: Client<'_>, host: &Host, namespace: &str) -> Vec<SubsetSource<'_>> {
        let rules = self.subset_sources_of(host);
        let visible = rules.filter(|one| {
            let home = one.resource.key.namespace == client.namespace;
            let selected = one.rule.workload_selector.as_ref();
            one.resource.key.namespace == namespace
                && client.sees(namespace, &one.rule.export_to)
                && selected.is_none_or(|labels| home && client.carries(labels))
        });
        let (chosen, general): (Vec<_>, Vec<_>) =
            visible.partition(|one| one.rule.workload_selector.is_some());
        match client.labels {
            Some(_) if chosen.is_empty() => general,
            Some(_) => chosen,
            None => chosen.into_iter().chain(general).collect(),
        }
    }

    /// All DestinationRules of one host, oldest first.
    pub(crate) fn subset_sources_of(&self, host: &Host) -> impl Iterator<Item = SubsetSource<'_>> {
        let at = self.subsets.get(host).map_or(&[][..], Vec::as_slice);
        at.iter().filter_map(|&position| {
            let resource = self.resources.get(position)?;
            let Spec::DestinationRule(rule) = &resource.spec else { return None };
            Some(SubsetSource { resource, rule })
        })
    }

    /// Subsets of a service as a client sees them; of two with one name the older wins.
    pub(crate) fn subsets(
        &self,
        client: Client<'_>,
        service: &ServiceName,
    ) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut subsets = BTreeMap::new();
        for one in self.subset_sources(client, service) {
            for SubsetRule { name, labels, .. } in &one.rule.subsets {
                subsets.entry(name.clone()).or_insert_with(|| labels.clone());
            }
        }
        subsets
    }

    /// One subset.
    pub(crate) fn subset(
        &self,
        client: Client<'_>,
        service: &ServiceName,
        name: &str,
    ) -> Option<Subset> {
        let rules = self.subset_sources(client, service);
        let mut subsets = rules.iter().flat_map(|one| &one.rule.subsets);
        let found = subsets.find(|subset| subset.name == name)?;
        Some(Subset { name: found.name.clone(), labels: found.labels.clone() })
    }
}

/// Hosts of an index that could name `service`: its own entry, and wildcards.
pub(crate) fn hosts_of<'a>(
    index: &'a BTreeMap<Host, Vec<usize>>,
    service: &ServiceName,
) -> impl Iterator<Item = &'a Host> {
    let own = index.get_key_value(&Host::of(service)).map(|(host, _)| host);
    let own = own.filter(|host| !matches!(host, Host::Wildcard(_)));
    let first = Host::Wildcard(String::new());
    let wildcards = index.range(first..).map(|(host, _)| host);
    own.into_iter().chain(wildcards.take_while(|host| matches!(host, Host::Wildcard(_))))
}
