//! A service as one client sees it: its ports with the rules that apply there.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    Destination, DestinationPort, Protocol, Registry, Service, ServiceName, ServicePort,
    TargetPort,
    discovery::{ANY_PORT, HttpMatch, HttpRule, RuleAction, SniRule, Target, WeightedTarget},
    resource::{HttpRoute, RouteDestination, TcpMatch, TcpRoute, TlsRoute},
};

use crate::{
    carries::{provenance, takes_http, takes_tcp, takes_tls},
    client::Client,
    delegate::InForce,
    egress::Sight,
    fault,
    gateway::PortRules,
    matching,
    named::is_seen,
    ranges::holds,
    rules::{Routing, RuleIndex},
    target::Scope,
    traffic::{for_older_sidecars, targets, traffic},
};

impl RuleIndex {
    /// A service with every rule that applies to calls of `client`; `None` if there is no such
    /// service.
    #[must_use]
    pub fn destination(
        &self,
        registry: &Registry,
        client: Client<'_>,
        service: &ServiceName,
    ) -> Option<Destination> {
        let Some(found) = registry.services.get(service) else {
            return self.of_host(registry, client, service);
        };
        if !is_seen(registry, client.namespace, service) {
            return None;
        }
        let sight = self.sight(client, service, found.ports.keys().copied());
        // Where it may call none of its ports, it is told by whom it is refused, and of all of them.
        let refusal = |sight: &Sight| match sight {
            Sight::Refused(sidecar) => Some(sidecar.clone()),
            Sight::Seen | Sight::Unseen => None,
        };
        let is_refused = !sight.is_empty() && sight.iter().all(|one| refusal(one).is_some());
        let refused = sight.first().filter(|_| is_refused).and_then(refusal);
        let routing = self.routing(client, service);
        let seen = found.ports.values().zip(&sight);
        let may_be_called = |sight: &Sight| is_refused || refusal(sight).is_none();
        let ports = seen.filter(|(_, sight)| may_be_called(sight)).map(|(port, sight)| {
            // What a client does not see, it may still call, by no rule.
            let by_rules = *sight == Sight::Seen;
            let rules = routing.filter(|_| by_rules).map(|routing| Governed {
                scope: Scope {
                    index: self,
                    registry,
                    client,
                    namespace: &routing.resource.key.namespace,
                },
                routing,
                service: found,
                port,
            });
            // A route of the Gateway API takes the place of VirtualServices on its port.
            let attached = self.attached(client.namespace, found, port).filter(|_| by_rules);
            let PortRules { http, tcp, sni } = match (attached, rules) {
                (Some(attached), _) => attached.rules(registry, port),
                (None, Some(rules)) => {
                    PortRules { http: rules.http(), tcp: rules.tcp(), sni: rules.sni() }
                }
                (None, None) => PortRules::default(),
            };
            let (number, name, protocol) = (port.number, port.name.clone(), port.protocol);
            let faults = self.client_faults(client, service, number);
            DestinationPort { number, name, protocol, http, tcp, sni, faults }
        });
        let ports: Vec<_> = ports.collect();
        let rules = sight.is_empty() || sight.contains(&Sight::Seen);
        Some(Destination {
            service: service.clone(),
            vips: found.vips.clone(),
            policies: match rules {
                true => self.policies(registry, client, service, &ports),
                false => Vec::new(),
            },
            ports,
            subsets: self.subsets(client, service),
            refused,
            others: None,
        })
    }

    /// A host that is no service, with the rules for calls that name it. They hold on any port; those that one
    /// of them, or of the services they lead to, has are compiled for themselves.
    fn of_host(
        &self,
        registry: &Registry,
        client: Client<'_>,
        host: &ServiceName,
    ) -> Option<Destination> {
        let routing = self.ruling(registry, client, host)?;
        let namespace = &routing.resource.key.namespace;
        let scope = Scope { index: self, registry, client, namespace };
        let none = Service { name: host.clone(), vips: Vec::new(), ports: BTreeMap::new() };
        let on = |number: u16| {
            let (name, protocol) = (String::new(), Protocol::Undeclared);
            let target = TargetPort::Number(number);
            let port = ServicePort { number, name: name.clone(), protocol, target };
            let rules = Governed { scope, routing, service: &none, port: &port };
            let (http, sni) = (rules.http(), rules.sni());
            let (tcp, faults) = (Vec::new(), Vec::new());
            DestinationPort { number, name, protocol, http, tcp, sni, faults }
        };
        let others = on(ANY_PORT);
        let ports: Vec<_> = self.ports_of(routing, scope).into_iter().map(on).collect();
        let every: Vec<_> = ports.iter().chain([&others]).cloned().collect();
        let mut policies = self.policies(registry, client, host, &every);
        policies.retain(|policy| policy.cluster.service != *host);
        Some(Destination {
            service: host.clone(),
            vips: Vec::new(),
            policies,
            ports,
            subsets: BTreeMap::new(),
            refused: None,
            others: Some(Box::new(others)),
        })
    }

    /// Ports on which a rule may say something else than on others: those that its conditions name, and those
    /// of the services that it leads to, which are called on the same where none is written.
    fn ports_of(&self, routing: Routing<'_>, scope: Scope<'_>) -> BTreeSet<u16> {
        let mut all = BTreeSet::new();
        let mut leads = |scope: Scope<'_>, to: &[RouteDestination]| {
            let services = to.iter().filter_map(|one| scope.service(one));
            all.extend(services.flat_map(|service| service.ports.keys().copied()));
        };
        for rule in self.in_force(routing) {
            leads(scope.within(&rule.resource.key.namespace), &rule.route.route);
        }
        routing.rule.tls.iter().for_each(|rule| leads(scope, &rule.route));
        for rule in self.in_force(routing) {
            all.extend(rule.route.matches.iter().filter_map(|one| one.port));
        }
        let by_name = routing.rule.tls.iter().flat_map(|route| &route.matches);
        all.extend(by_name.filter_map(|one| one.tcp.port));
        all
    }
}

/// One port under one VirtualService.
#[derive(Clone, Copy)]
struct Governed<'a> {
    scope: Scope<'a>,
    routing: Routing<'a>,
    service: &'a Service,
    port: &'a ServicePort,
}

impl Governed<'_> {
    fn http(&self) -> Vec<HttpRule> {
        let mut rules = Vec::new();
        if !takes_http(self.port.protocol) {
            return rules;
        }
        for rule in self.scope.index.in_force(self.routing) {
            let Some(matches) = self.matches(&rule.route) else { continue };
            let last = matches.is_empty();
            // Short names of a delegate are of its own namespace.
            let here = (self.scope.within(&rule.resource.key.namespace), self.port.number);
            rules.push(HttpRule {
                provenance: provenance(rule.resource, "http", rule.position, &rule.route.name),
                fault: fault::of_rule(&rule, self.routing.resource),
                action: action(&rule, here),
                traffic: traffic(&rule, self.routing.resource, &matches, here),
                matches,
            });
            if last {
                break; // It matches everything: no rule after it is ever reached.
            }
        }
        rules
    }

    /// The alternatives left for this client and port: `None` if none is, empty if one asks nothing
    /// of the request.
    fn matches(&self, route: &HttpRoute) -> Option<Vec<HttpMatch>> {
        let here = |number| number == self.port.number;
        matching::left(&route.matches, self.scope.client, here)
    }

    fn tcp(&self) -> Vec<WeightedTarget> {
        if !takes_tcp(self.port.protocol) {
            return Vec::new();
        }
        let mut rules = self.routing.rule.tcp.iter();
        let first = rules.find(|route| self.applies(route));
        first.map(|route| self.resolved(&route.route)).unwrap_or_default()
    }

    fn sni(&self) -> Vec<SniRule> {
        if !takes_tls(self.port.protocol) {
            return Vec::new();
        }
        let rules = self.routing.rule.tls.iter().enumerate();
        let here = rules.filter_map(|(position, route)| {
            let names = self.names(route);
            (!names.is_empty()).then(|| SniRule {
                provenance: provenance(self.routing.resource, "tls", position, ""),
                names,
                targets: self.resolved(&route.route),
            })
        });
        here.collect()
    }

    /// The names by which connections of this client to this port meet a rule.
    fn names(&self, route: &TlsRoute) -> Vec<String> {
        let here = route.matches.iter().filter(|one| self.meets(&one.tcp));
        here.flat_map(|one| &one.sni_hosts).cloned().collect()
    }

    fn applies(&self, route: &TcpRoute) -> bool {
        route.matches.is_empty() || route.matches.iter().any(|one| self.meets(one))
    }

    fn meets(&self, one: &TcpMatch) -> bool {
        let (subnets, vips) = (&one.destination_subnets, &self.service.vips);
        !one.gateways_only
            && one.port.is_none_or(|port| port == self.port.number)
            && self.scope.client.is(&one.source_labels, one.source_namespace.as_deref())
            && (subnets.is_empty()
                || vips.iter().any(|&ip| subnets.iter().any(|&range| holds(range, ip))))
    }

    fn resolved(&self, route: &[RouteDestination]) -> Vec<WeightedTarget> {
        let resolve = |to| self.scope.target(to, self.port.number);
        route.iter().map(resolve).collect()
    }
}

/// Where the requests of `rule` go.
fn action(rule: &InForce<'_>, here: (Scope<'_>, u16)) -> RuleAction {
    if let Some(reason) = &rule.dangling {
        let to = Target::Dangling(reason.clone());
        return RuleAction::Forward(vec![WeightedTarget { weight: 1, to, headers: None }]);
    }
    match for_older_sidecars(rule.route.traffic.answer.as_ref()) {
        Some(refusal) => RuleAction::Refuse(refusal),
        None => RuleAction::Forward(targets(&rule.route.route, here)),
    }
}
