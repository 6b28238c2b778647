//! Sidecars: which services a workload sees, what becomes of calls of what nobody knows, and where its program takes
//! calls.

use heddle_model::{
    Protocol, Registry, ServiceName, Workload,
    discovery::{InboundPort, OutboundPolicy, Provenance},
    resource::{EgressHost, EgressNamespace, OutboundMode, Resource, Sidecar, Spec},
};

use crate::{
    client::Client,
    host::Host,
    named::is_seen,
    rules::{ROOT_NAMESPACE, RuleIndex},
};

/// What a client's Sidecar says of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is listed, or nothing is said.
    Seen,
    /// It is not listed, and what is not known may be called: no rule holds for it.
    Unseen,
    /// It is not listed, and by this Sidecar only what is may be called.
    Refused(Provenance),
}

impl RuleIndex {
    /// The Sidecar that holds for a client: one that selects it, else the one of its namespace, else that
    /// of the root namespace; of several the oldest.
    pub(crate) fn sidecar(&self, client: Client<'_>) -> Option<(&Resource, &Sidecar)> {
        let of = |namespace: &'static str| {
            let namespace = if namespace.is_empty() { client.namespace } else { namespace };
            self.sidecars().filter(move |(resource, _)| resource.key.namespace == namespace)
        };
        // Labels that are not known select nothing.
        let selects = |sidecar: &Sidecar| {
            let selector = sidecar.selector.as_ref();
            selector.is_some_and(|labels| client.labels.is_some() && client.carries(labels))
        };
        let general = |(_, sidecar): &(&Resource, &Sidecar)| sidecar.selector.is_none();
        of("")
            .find(|(_, sidecar)| selects(sidecar))
            .or_else(|| of("").find(general))
            .or_else(|| of(ROOT_NAMESPACE).find(general))
    }

    /// All Sidecars, oldest first.
    pub(crate) fn sidecars(&self) -> impl Iterator<Item = (&Resource, &Sidecar)> {
        self.entries_at().filter_map(|(_, resource)| match &resource.spec {
            Spec::Sidecar(sidecar) => Some((resource, sidecar)),
            _ => None,
        })
    }

    /// Does a client see this service on each of these ports, in their order?
    pub(crate) fn sight(
        &self,
        client: Client<'_>,
        service: &ServiceName,
        ports: impl Iterator<Item = u16>,
    ) -> Vec<Sight> {
        let sidecar = self.sidecar(client);
        ports.map(|port| Self::sight_of_port(sidecar, client, service, port)).collect()
    }

    fn sight_of_port(
        sidecar: Option<(&Resource, &Sidecar)>,
        client: Client<'_>,
        service: &ServiceName,
        port: u16,
    ) -> Sight {
        let Some((resource, sidecar)) = sidecar else { return Sight::Seen };
        let Some(egress) = &sidecar.egress else { return Sight::Seen };
        let home = resource.key.namespace.as_str();
        // An item that is for this port is all there is for it.
        let named = egress.iter().any(|one| one.port == Some(port)).then_some(port);
        let lists = |excluded: bool| {
            let mut hosts =
                egress.iter().filter(|one| one.excluded == excluded && one.port == named);
            hosts.any(|one| means(one, home, client, service))
        };
        match sidecar.outbound {
            _ if lists(false) && !lists(true) => Sight::Seen,
            Some(OutboundMode::RegistryOnly) => Sight::Refused(provenance(resource)),
            Some(OutboundMode::AllowAny) | None => Sight::Unseen,
        }
    }

    /// What a workload's Sidecar says of the ports at which it is called: one that it names is a port of the workload's.
    pub(crate) fn ingress(&self, workload: &Workload, ports: &mut Vec<InboundPort>) {
        let Some((_, sidecar)) = self.sidecar(workload.into()) else { return };
        for listener in &sidecar.ingress {
            let at = ports.iter().position(|port| port.number == listener.port);
            let at = at.unwrap_or_else(|| {
                ports.push(InboundPort {
                    number: listener.port,
                    protocol: Protocol::Undeclared,
                    services: Vec::new(),
                    faults: Vec::new(),
                    endpoint: None,
                });
                ports.len() - 1
            });
            ports[at].endpoint.clone_from(&listener.endpoint);
            if listener.protocol != Protocol::Undeclared {
                ports[at].protocol = listener.protocol;
            }
        }
    }

    /// What holds for a client's calls of what is no service that it knows.
    #[must_use]
    pub fn outbound(&self, registry: &Registry, client: Client<'_>) -> OutboundPolicy {
        let mut hosts = registry.outside.keys().filter(|name| name.is_host());
        let by_rules = || self.ruled_hosts(registry, client).next().is_some();
        let only = self
            .sidecar(client)
            .filter(|(_, sidecar)| sidecar.outbound == Some(OutboundMode::RegistryOnly));
        OutboundPolicy {
            names_outside: hosts.any(|name| is_seen(registry, client.namespace, name))
                || by_rules(),
            registry_only: only.map(|(resource, _)| provenance(resource)),
        }
    }
}

fn provenance(resource: &Resource) -> Provenance {
    Provenance(resource.key.to_string())
}

/// Is the service one of these? In a Sidecar of the root namespace `.` is the client's own, as in Istio.
fn means(one: &EgressHost, home: &str, client: Client<'_>, service: &ServiceName) -> bool {
    let home = if home == ROOT_NAMESPACE { client.namespace } else { home };
    let namespace = match &one.namespace {
        EgressNamespace::All => true,
        EgressNamespace::Own => service.namespace == home,
        EgressNamespace::Named(name) => service.namespace == *name,
        EgressNamespace::None => false,
    };
    namespace && Host::read(&one.host, &service.namespace).names(service).is_some()
}
