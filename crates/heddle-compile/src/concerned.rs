//! Which services a change of rules may concern: those whose destinations are to be checked again.

use std::{collections::BTreeSet, sync::Arc};

use heddle_model::{
    Registry, ServiceName,
    resource::{FaultTarget, Resource, Spec},
};

use crate::{entries::entry_service, host::Host, reference::references, rules::RuleIndex};

impl RuleIndex {
    /// Services of which some client may be told something else with or without `changed`, which are rules
    /// as they were before a change or are after it. A service need not be there.
    #[must_use]
    pub fn concerned_by(
        &self,
        changed: &[Arc<Resource>],
        registry: &Registry,
    ) -> BTreeSet<ServiceName> {
        let mut hosts = BTreeSet::new();
        let mut named = BTreeSet::new();
        for resource in changed {
            self.hosts_of(resource, &mut hosts);
            self.named_by(resource, &mut named);
        }
        // A wildcard is looked for among all services; any other host is one of them.
        let wildcards: Vec<_> =
            hosts.iter().filter(|host| matches!(host, Host::Wildcard(_))).collect();
        named.extend(hosts.iter().filter_map(|host| match host {
            Host::Service(name) => Some(name.clone()),
            _ => None,
        }));
        let outside = registry.outside.keys().filter(|name| hosts.contains(&Host::of(name)));
        named.extend(outside.cloned());
        if !wildcards.is_empty() {
            let all = registry.services.keys();
            let met = all.filter(|name| wildcards.iter().any(|host| host.names(name).is_some()));
            named.extend(met.cloned());
        }
        named
    }

    /// Hosts that a rule is for, or that rules are for which depend on it.
    fn hosts_of(&self, resource: &Resource, hosts: &mut BTreeSet<Host>) {
        let read = |host: &str| Host::read(host, &resource.key.namespace);
        match &resource.spec {
            Spec::VirtualService(rule) => {
                hosts.extend(rule.hosts.iter().map(|host| read(host)));
                self.delegating(resource, hosts);
            }
            Spec::DestinationRule(rule) => {
                let host = read(&rule.host);
                self.leading_to(&host, hosts);
                hosts.insert(host);
            }
            _ => {}
        }
    }

    /// Services that a rule names as such.
    fn named_by(&self, resource: &Resource, named: &mut BTreeSet<ServiceName>) {
        let home = &resource.key.namespace;
        let service = |name: &str, namespace: Option<&String>| ServiceName {
            namespace: namespace.unwrap_or(home).clone(),
            name: name.to_owned(),
        };
        match &resource.spec {
            Spec::Route(route) => {
                let parents = route.parents.iter().filter(|parent| parent.is_service());
                named.extend(parents.map(|one| service(&one.name, one.namespace.as_ref())));
            }
            Spec::Fault(rule) => {
                if let FaultTarget::Service { name, namespace } = &rule.target {
                    named.insert(service(name, namespace.as_ref()));
                }
            }
            Spec::ServiceEntry(entry) => {
                named.extend(entry.hosts.iter().filter_map(|host| entry_service(&host.host, home)));
            }
            Spec::WorkloadEntry(_) => {
                let entries = self.entries().filter(|one| one.resource.key.namespace == *home);
                let hosts = entries.flat_map(|one| &one.entry.hosts);
                named.extend(hosts.filter_map(|host| entry_service(&host.host, home)));
            }
            _ => {}
        }
    }

    /// Hosts of rules that leave some of their requests to `delegate`.
    fn delegating(&self, delegate: &Resource, hosts: &mut BTreeSet<Host>) {
        let key = &delegate.key;
        for root in self.routings() {
            let home = &root.resource.key.namespace;
            let parts = root.rule.http.iter().filter_map(|route| route.delegate.as_ref());
            let mut parts = parts.map(|one| (&one.name, one.namespace.as_ref().unwrap_or(home)));
            if parts.any(|(name, namespace)| *name == key.name && *namespace == key.namespace) {
                hosts.extend(root.rule.hosts.iter().map(|host| Host::read(host, home)));
            }
        }
    }

    /// Hosts of rules that send requests to `host`: their targets carry the labels of its subsets.
    fn leading_to(&self, host: &Host, hosts: &mut BTreeSet<Host>) {
        for rule in self.routings() {
            let home = &rule.resource.key.namespace;
            let names = |to: Host| match (host, &to) {
                (Host::Wildcard(_), Host::Service(name)) => host.names(name).is_some(),
                _ => to == *host,
            };
            let mut led_to = references(rule.resource).into_iter();
            let led = led_to.any(|one| names(Host::read(&one.to.host, home)));
            if led {
                hosts.extend(rule.rule.hosts.iter().map(|host| Host::read(host, home)));
                self.delegating(rule.resource, hosts);
            }
        }
    }
}
