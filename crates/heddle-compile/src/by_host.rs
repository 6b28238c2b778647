//! Rules of VirtualServices for hosts that are no service: they hold for requests, and connections of TLS,
//! that name such a host at an address that nobody knows. What of them holds for whom is compiled in
//! `destination`, like any other rule; here it is said which host a name means.

use heddle_model::{NameAnswer, Registry, ServiceName, ServiceVips, name::service_suffix};

use crate::{
    client::Client,
    facts::name_answer,
    host::Host,
    named::named,
    rules::{Routing, RuleIndex, hosts_of},
};

impl RuleIndex {
    /// What a host name means, asked from a namespace: a service, or a host that only rules name.
    #[must_use]
    pub fn name_answer(&self, registry: &Registry, namespace: &str, host: &str) -> NameAnswer {
        let mut answer = name_answer(registry, namespace, host);
        if answer.service.is_none() {
            let ruled = self.ruled(Client::any_of(namespace), &answer.host);
            answer.service = ruled.map(|name| ServiceVips { name, vips: Vec::new() });
        }
        answer
    }

    /// Of the hosts that rules name for this client the one closest to `host`, which no service has; it is
    /// called as services of entries are, in the namespace of the rule.
    fn ruled(&self, client: Client<'_>, host: &str) -> Option<ServiceName> {
        if is_of_the_mesh(host) {
            return None;
        }
        let asked = ServiceName::of_host(host, client.namespace).ok()?;
        let close = hosts_of(self.services(), &asked).filter_map(|one| {
            let routing = self.winner(client, one)?;
            Some((one.names(&asked)?, called(one, host, routing)?))
        });
        close.max_by_key(|(closeness, _)| *closeness).map(|(_, name)| name)
    }

    /// The VirtualService that says what becomes of calls that name this host, which no service has.
    pub(crate) fn ruling(
        &self,
        registry: &Registry,
        client: Client<'_>,
        host: &ServiceName,
    ) -> Option<Routing<'_>> {
        let is_known = || named(registry, client.namespace, &host.name).is_some();
        if !host.is_host() || is_of_the_mesh(&host.name) || is_known() {
            return None;
        }
        self.winner(client, &Host::of(host))
    }

    /// Hosts that no service has and that rules name for this client.
    pub fn ruled_hosts<'a>(
        &'a self,
        registry: &'a Registry,
        client: Client<'a>,
    ) -> impl Iterator<Item = ServiceName> + 'a {
        self.services().keys().filter_map(move |host| self.ruled_host(registry, client, host))
    }

    /// A host of a rule as what it is called by clients that name it; `None` for one that a service has.
    pub(crate) fn ruled_host(
        &self,
        registry: &Registry,
        client: Client<'_>,
        host: &Host,
    ) -> Option<ServiceName> {
        let written = match host {
            Host::Service(name) if registry.services.contains_key(name) => return None,
            // Of two labels it may be a host outside all the same.
            Host::Service(name) => format!("{}.{}", name.name, name.namespace),
            Host::Outside(host) => host.clone(),
            Host::Wildcard(suffix) => format!("*{suffix}"),
        };
        let name = called(host, &written, self.winner(client, host)?)?;
        self.ruling(registry, client, &name).map(|_| name)
    }
}

/// Does it end as names of the mesh's own do? Nothing outside has such a name.
fn is_of_the_mesh(host: &str) -> bool {
    host.ends_with(service_suffix())
}

/// A host of a rule, which names `asked`, as a service; `None` for one that could be none outside.
fn called(host: &Host, asked: &str, routing: Routing<'_>) -> Option<ServiceName> {
    let namespace = &routing.resource.key.namespace;
    match host {
        Host::Wildcard(suffix) => ServiceName::of_host(&format!("*{suffix}"), namespace).ok(),
        Host::Service(_) | Host::Outside(_) => ServiceName::of_host(asked, namespace).ok(),
    }
}
