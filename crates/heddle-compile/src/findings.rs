//! The analyzers: what is worth saying about rules as things are. Shown by `apply`, status and
//! `analyze` alike.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    Protocol, Registry, ResourceKey, ServiceName, Workload,
    discovery::Injection,
    registry::carries,
    resource::{HttpRoute, Spec},
};

use crate::{
    carries::{asks_nothing, takes_http, takes_tcp, takes_tls},
    client::Client,
    delegate::merged,
    fault::FaultSource,
    finding::{Finding, FindingKind},
    host::Host,
    policy::names_no_server,
    reference::{namespaces, references},
    rules::{Routing, RuleIndex, SubsetSource},
    target::Scope,
};

impl RuleIndex {
    /// Everything worth saying, in order of resource, line and text.
    #[must_use]
    pub fn findings(&self, registry: &Registry) -> Vec<Finding> {
        let registry = &*self.merged(registry);
        let namespaces = namespaces(registry);
        let mut all = Findings { index: self, registry, namespaces, found: BTreeSet::new() };
        for routing in self.routings() {
            all.hosts(routing);
            all.targets(routing);
            all.ports(routing);
            all.rules(routing);
            all.routes(routing);
        }
        for resource in self.resources() {
            if let Spec::DestinationRule(rule) = &resource.spec {
                all.subsets(SubsetSource { resource, rule });
            }
        }
        all.found.extend(self.outside_findings(registry));
        all.found.extend(self.telemetry_findings(registry));
        self.route_findings(registry, &mut all.found);
        for one in self.faults() {
            all.own_fault(one);
        }
        all.found.into_iter().collect()
    }

    /// The same, and what is over at `now`, seconds since the Unix epoch.
    #[must_use]
    pub fn findings_at(&self, registry: &Registry, now: u64) -> Vec<Finding> {
        let mut all = self.findings(registry);
        all.extend(self.expired(now));
        all.sort();
        all
    }
}

struct Findings<'a> {
    index: &'a RuleIndex,
    registry: &'a Registry,
    namespaces: BTreeSet<&'a str>,
    found: BTreeSet<Finding>,
}

impl<'a> Findings<'a> {
    fn say(
        &mut self,
        routing: Routing<'_>,
        place: (usize, String),
        kind: FindingKind,
        text: String,
    ) {
        self.found.insert(Finding::new(routing.resource, place, kind, text));
    }

    /// Hosts that are absent, or that a rule before it holds.
    fn hosts(&mut self, routing: Routing<'a>) {
        for (i, written) in routing.rule.hosts.iter().enumerate() {
            let host = Host::read(written, &routing.resource.key.namespace);
            let line = routing.rule.host_lines.get(i).copied();
            let place = (line.unwrap_or(routing.resource.origin.line), format!("spec.hosts[{i}]"));
            if let Some((kind, text)) = self.unknown(routing, &host, written) {
                self.say(routing, place.clone(), kind, text);
            }
            let visible = self.clients(routing).into_iter();
            let winners: BTreeSet<_> = visible
                .filter_map(|client| self.index.winner(client, &host))
                .map(|winner| winner.position)
                .collect();
            if let Some(&winner) = winners.iter().find(|&&winner| winner != routing.position) {
                let winner = &self.index.resources()[winner].key;
                let text = format!(
                    "{winner} also names `{written}` and wins (rules private to the caller's namespace first, then those exported to it by name; among equals applied ones by age, then files by path): this one has no effect there; put both into one"
                );
                self.say(routing, place, FindingKind::Conflict, text);
            }
        }
    }

    /// A host that no service has: its rules hold only for who names it at an address that nobody knows.
    fn unknown(
        &self,
        routing: Routing<'a>,
        host: &Host,
        written: &str,
    ) -> Option<(FindingKind, String)> {
        let text = absent(self.registry, host, written)?;
        let mut clients = self.clients(routing).into_iter();
        let rules =
            |client: Client<'_>| self.index.ruled_host(self.registry, client, host).is_some();
        // A short name is a service's; of two labels it may be a host outside too.
        if !written.contains('.') || !clients.any(rules) {
            return Some((FindingKind::Dangling, text));
        }
        if matches!(host, Host::Service(_)) {
            let text = format!(
                "{text}; until then it holds for requests that name `{written}` at an address that the mesh does not know"
            );
            return Some((FindingKind::Dangling, text));
        }
        let bytes = match routing.rule.tcp.is_empty() {
            true => "",
            false => "; its `tcp` rules have no effect, since bytes name no host",
        };
        let text = format!(
            "`{written}` is no service of this mesh: the rule holds for requests, and connections of TLS, that name it at an address that the mesh does not know, and for no service's own address{bytes}"
        );
        Some((FindingKind::Notice, text))
    }

    /// Destinations that name something absent.
    fn targets(&mut self, routing: Routing<'a>) {
        let ports: BTreeSet<u16> = self
            .governed(routing)
            .iter()
            .filter_map(|name| self.registry.services.get(name))
            .flat_map(|service| service.ports.keys().copied())
            .collect();
        let called: Vec<Option<u16>> =
            if ports.is_empty() { vec![None] } else { ports.into_iter().map(Some).collect() };
        let clients = self.clients(routing);
        for reference in references(routing.resource) {
            let mut reasons: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
            for client in &clients {
                let scope = Scope {
                    index: self.index,
                    registry: self.registry,
                    client: *client,
                    namespace: &routing.resource.key.namespace,
                };
                for &port in &called {
                    if let Err(reason) = scope.resolve(&reference.to, port) {
                        reasons.entry(reason).or_default().insert(client.namespace);
                    }
                }
            }
            for (reason, namespaces) in reasons {
                let whom = self.whom(&namespaces, clients.len());
                let text =
                    format!("{reason}: this share is refused with 503 until it is there{whom}");
                let place = (reference.to.line, reference.field.clone());
                self.say(routing, place, FindingKind::Dangling, text);
            }
        }
    }

    /// Rules that no port of the services they are for can carry.
    fn ports(&mut self, routing: Routing<'a>) {
        for name in self.governed(routing) {
            let Some(service) = self.registry.services.get(&name) else { continue };
            for (i, route) in routing.rule.http.iter().enumerate() {
                let place = (route.line, format!("spec.http[{i}]"));
                let asked: BTreeSet<_> = route.matches.iter().filter_map(|one| one.port).collect();
                let all = asked.is_empty() || route.matches.iter().any(|one| one.port.is_none());
                let ports = service.ports.values();
                let mut ports = ports.filter(|port| all || asked.contains(&port.number)).peekable();
                if ports.peek().is_none() {
                    let text = format!("`{name}` has none of the ports this rule asks for");
                    self.say(routing, place, FindingKind::NoEffect, text);
                    continue;
                }
                let protocols: Vec<_> = ports.map(|port| (port.number, port.protocol)).collect();
                if let Some(text) = http_without_effect(&name, &protocols) {
                    self.say(routing, place, FindingKind::NoEffect, text);
                }
            }
            let any_tcp = service.ports.values().any(|port| takes_tcp(port.protocol));
            if let (Some(route), false) = (routing.rule.tcp.first(), any_tcp) {
                let text =
                    format!("no port of `{name}` is TCP: the TCP rules have no effect there");
                let place = (route.line, "spec.tcp".to_owned());
                self.say(routing, place, FindingKind::NoEffect, text);
            }
            let any_tls = service.ports.values().any(|port| takes_tls(port.protocol));
            if let (Some(route), false) = (routing.rule.tls.first(), any_tls) {
                let text =
                    format!("no port of `{name}` is TLS: the TLS rules have no effect there");
                let place = (route.line, "spec.tls".to_owned());
                self.say(routing, place, FindingKind::NoEffect, text);
            }
        }
    }

    /// Rules that are never reached, inject nothing, or delegate to nobody.
    fn rules(&mut self, routing: Routing<'a>) {
        let mut catches_all: Option<usize> = None;
        for (i, route) in routing.rule.http.iter().enumerate() {
            let place = (route.line, format!("spec.http[{i}]"));
            if let Some(before) = catches_all {
                let text = format!("never reached: spec.http[{before}] matches every request");
                self.say(routing, place.clone(), FindingKind::NoEffect, text);
            } else if catches_everything(route) {
                catches_all = Some(i);
            }
            self.delegate(routing, i, route);
            self.faults(routing, i, route);
        }
    }

    /// A delegate that is absent, and rules of one that no request can meet.
    fn delegate(&mut self, routing: Routing<'a>, i: usize, route: &HttpRoute) {
        let Some(delegate) = &route.delegate else { return };
        let field = format!("spec.http[{i}].delegate");
        let (found, rule) = match self.index.delegate(routing.resource, delegate) {
            Ok(found) => found,
            Err(reason) => {
                let text =
                    format!("{reason}: requests that match are refused with 503 until it is there");
                return self.say(routing, (delegate.line, field), FindingKind::Dangling, text);
            }
        };
        for (j, part) in rule.http.iter().enumerate() {
            if merged(route, part).is_none() {
                let text = format!(
                    "spec.http[{j}] of {} has no effect here: its conditions do not lie within those of this rule (a prefix within a prefix, no regex)",
                    found.key
                );
                self.say(routing, (delegate.line, field.clone()), FindingKind::NoEffect, text);
            }
        }
    }

    fn faults(&mut self, routing: Routing<'a>, i: usize, route: &HttpRoute) {
        let Some(fault) = &route.fault else { return };
        let delay = fault.delay.as_ref().map(|delay| ("delay", delay.percent));
        let abort = fault.abort.as_ref().map(|abort| ("abort", abort.percent));
        for (what, percent) in delay.into_iter().chain(abort) {
            if percent <= 0.0 {
                let place = (route.line, format!("spec.http[{i}].fault.{what}"));
                let text = "0 % of requests, as in Istio where no percentage is given: set `percentage.value`";
                self.say(routing, place, FindingKind::Notice, text.to_owned());
            }
        }
    }

    /// Ports where routes of the Gateway API take the place of the rule.
    fn routes(&mut self, routing: Routing<'a>) {
        if !self.index.has_routes() {
            return;
        }
        let mut taken: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let clients = self.clients(routing);
        for name in self.governed(routing) {
            let Some(service) = self.registry.services.get(&name) else { continue };
            for client in &clients {
                let governs = self.index.routing(*client, &name);
                if governs.is_none_or(|one| one.position != routing.position) {
                    continue;
                }
                for port in service.ports.values() {
                    let attached = self.index.attached(client.namespace, service, port);
                    let Some(first) = attached.as_ref().and_then(|all| all.routes.first()) else {
                        continue;
                    };
                    let text = format!(
                        "{} is attached to port {} of `{name}` and takes the place of this rule there",
                        first.resource.key, port.number
                    );
                    taken.entry(text).or_default().insert(client.namespace);
                }
            }
        }
        for (text, namespaces) in taken {
            let whom = self.whom(&namespaces, clients.len());
            let place = (routing.resource.origin.line, "spec.hosts".to_owned());
            self.say(routing, place, FindingKind::Conflict, format!("{text}{whom}"));
        }
    }

    /// For which clients, where it is not all who see the rule.
    fn whom(&self, namespaces: &BTreeSet<&str>, all: usize) -> String {
        if namespaces.len() == all {
            return String::new();
        }
        let names: Vec<_> = namespaces.iter().copied().collect();
        format!(" (for clients in {})", names.join(", "))
    }

    /// A fault for nobody, or one that no port of its service can have.
    fn own_fault(&mut self, one: FaultSource<'a>) {
        let FaultSource { resource, rule } = one;
        let mut say = |place: (usize, &str), kind, text: String| {
            let place = (place.0, place.1.to_owned());
            self.found.insert(Finding::new(resource, place, kind, text));
        };
        if rule.percent <= 0.0 {
            let text = "0 % of them: nothing is injected; set `percentage`".to_owned();
            say((rule.target_line, "spec.percentage"), FindingKind::Notice, text);
        }
        let Some(name) = one.service() else {
            if !self.registry.workloads.values().any(|workload| one.selects(workload)) {
                let text = format!(
                    "no workload of namespace `{}` carries these labels",
                    resource.key.namespace
                );
                say((rule.target_line, "spec.selector"), FindingKind::Notice, text);
            }
            return;
        };
        let place = (rule.target_line, "spec.targetRef");
        let Some(service) = self.registry.services.get(&name) else {
            let text =
                format!("there is no service `{name}`: the fault takes force when one joins");
            return say(place, FindingKind::Dangling, text);
        };
        let asked: BTreeSet<_> = rule.matches.iter().filter_map(|one| one.port).collect();
        let all = rule.matches.is_empty() || rule.matches.iter().any(|one| one.port.is_none());
        let ports = service.ports.values().map(|port| (port.number, port.protocol));
        let ports: Vec<_> = ports.filter(|(port, _)| all || asked.contains(port)).collect();
        if ports.is_empty() {
            let text = format!("`{name}` has none of the ports this fault asks for");
            return say((rule.target_line, "spec.match"), FindingKind::NoEffect, text);
        }
        let of_requests = !matches!(rule.does, Injection::Tcp(_));
        if of_requests && let Some(text) = http_without_effect(&name, &ports) {
            say(place, FindingKind::NoEffect, text);
        }
    }

    /// Subsets that an older rule defines, or that select nobody; hosts that are absent.
    fn subsets(&mut self, one: SubsetSource<'a>) {
        let key = &one.resource.key;
        let host = Host::read(&one.rule.host, &key.namespace);
        if let Some(text) = absent(self.registry, &host, &one.rule.host) {
            let place = (one.rule.host_line, "spec.host".to_owned());
            self.found.insert(Finding::new(one.resource, place, FindingKind::Dangling, text));
        }
        let outside = self.registry.outside.keys();
        let mut wild =
            outside.filter(|name| name.name.starts_with('*') && host.names(name).is_some());
        if let Some(name) = wild.next().filter(|_| names_no_server(one.rule)) {
            let text = format!(
                "no server is called `{name}`: over TLS its calls are refused until `sni` says whom to ask for"
            );
            let place = (one.rule.host_line, "spec.trafficPolicy.tls.sni".to_owned());
            self.found.insert(Finding::new(one.resource, place, FindingKind::Notice, text));
        }
        for (i, subset) in one.rule.subsets.iter().enumerate() {
            let place = (subset.line, format!("spec.subsets[{i}]"));
            if let Some(older) = self.older(one, &host, &subset.name) {
                let text = format!(
                    "{older} already defines the subset `{}` of `{}`: the older one wins",
                    subset.name, one.rule.host
                );
                self.found.insert(Finding::new(one.resource, place, FindingKind::Conflict, text));
                continue;
            }
            let Host::Service(name) = &host else { continue };
            let mut members = self.registry.belonging(name);
            // Of an entry's own the endpoints are not all workloads.
            if self.registry.outside.contains_key(name) {
                continue;
            }
            let carried = |workload: &Workload| carries(&workload.labels, &subset.labels);
            if self.registry.services.contains_key(name) && !members.any(carried) {
                let text = format!(
                    "no workload of `{name}` carries the labels of the subset `{}`: requests sent there find no endpoint",
                    subset.name
                );
                self.found.insert(Finding::new(one.resource, place, FindingKind::Notice, text));
            }
        }
    }

    /// An older DestinationRule of the same namespace, host and selector that defines this subset.
    fn older(&self, one: SubsetSource<'_>, host: &Host, subset: &str) -> Option<ResourceKey> {
        let mut before = self
            .index
            .subset_sources_of(host)
            .take_while(|other| other.resource.key != one.resource.key);
        let same = before.find(|other| {
            other.resource.key.namespace == one.resource.key.namespace
                && other.rule.workload_selector == one.rule.workload_selector
                && other.rule.subsets.iter().any(|defined| defined.name == subset)
        });
        same.map(|other| other.resource.key.clone())
    }

    /// One client per namespace that sees the rule.
    fn clients(&self, routing: Routing<'a>) -> Vec<Client<'a>> {
        let key = &routing.resource.key;
        let home = key.namespace.as_str();
        let known = self.namespaces.iter().copied();
        let all = known.chain((!self.namespaces.contains(home)).then_some(home));
        all.map(Client::any_of)
            .filter(|client| client.sees(&key.namespace, &routing.rule.export_to))
            .collect()
    }

    /// Services the rule governs for somebody. Looks only at those its hosts can name.
    fn governed(&self, routing: Routing<'a>) -> BTreeSet<ServiceName> {
        let clients = self.clients(routing);
        let services = &self.registry.services;
        let hosts = routing.rule.hosts.iter();
        let hosts = hosts.map(|host| Host::read(host, &routing.resource.key.namespace));
        let named = hosts.flat_map(|host| match host {
            Host::Service(ref name) if services.contains_key(name) => {
                services.get_key_value(name).map(|(name, _)| name).into_iter().collect()
            }
            host => services.keys().filter(|name| host.names(name).is_some()).collect::<Vec<_>>(),
        });
        let governs = |name: &&ServiceName| {
            clients.iter().any(|&client| {
                let winner = self.index.routing(client, name);
                winner.is_some_and(|winner| winner.position == routing.position)
            })
        };
        named.filter(governs).cloned().collect()
    }
}

fn absent(registry: &Registry, host: &Host, written: &str) -> Option<String> {
    match host {
        Host::Service(name) if registry.services.contains_key(name) => None,
        host if registry.outside.keys().any(|name| host.names(name).is_some()) => None,
        Host::Service(name) => {
            Some(format!("there is no service `{name}`: the rule takes force when one joins"))
        }
        Host::Wildcard(_) if registry.services.keys().any(|name| host.names(name).is_some()) => {
            None
        }
        Host::Wildcard(_) => Some(format!("no service matches `{written}`")),
        Host::Outside(_) => Some(format!(
            "`{written}` is no service of this mesh: the rule takes force when a ServiceEntry names it"
        )),
    }
}

fn catches_everything(route: &HttpRoute) -> bool {
    route.matches.is_empty()
        || route.matches.iter().any(|one| {
            asks_nothing(&one.http)
                && one.port.is_none()
                && one.source_labels.is_empty()
                && one.source_namespace.is_none()
                && !one.gateways_only
        })
}

/// Why no port of these lets an HTTP rule take effect; `None` if one does.
fn http_without_effect(service: &ServiceName, ports: &[(u16, Protocol)]) -> Option<String> {
    if ports.iter().any(|&(_, protocol)| takes_http(protocol)) {
        return None;
    }
    let (number, protocol) = ports.first()?;
    Some(format!(
        "port {number} of `{service}` is declared {protocol}: an HTTP rule has no effect there; declare it http, or write a `tcp` rule"
    ))
}
