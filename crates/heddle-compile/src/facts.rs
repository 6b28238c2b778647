//! Answers that no rule changes: who owns an address, who is behind a service, what a name means.

use std::{collections::BTreeMap, net::IpAddr};

use heddle_model::{
    Address, Endpoint, EndpointPort, Endpoints, Inbound, InboundPort, NameAnswer, Owner, Registry,
    Service, ServiceName, ServicePort, ServicePortRef, ServiceVips, Workload,
    name::DEFAULT_NAMESPACE,
};

/// Who owns an address. Looks through the registry; a control plane that is asked often keeps an
/// index of its own.
#[must_use]
pub fn address(registry: &Registry, ip: IpAddr) -> Address {
    let service = registry.services.values().find(|service| service.vips.contains(&ip));
    let workload = registry.workloads.values().find(|workload| workload.addresses.contains(ip));
    let owner = match (service, workload) {
        (Some(service), _) => Owner::Service(service.name.clone()),
        (None, Some(workload)) => Owner::Workload(Box::new(workload.into())),
        (None, None) => Owner::NotKnown,
    };
    Address { ip, owner }
}

/// A service's endpoints in order of workload id; `None` if there is no such service.
#[must_use]
pub fn endpoints(registry: &Registry, service: &ServiceName) -> Option<Endpoints> {
    let found = registry.services.get(service)?;
    let endpoints = behind(registry, found).filter_map(|workload| endpoint(found, workload));
    Some(Endpoints { service: service.clone(), endpoints: endpoints.collect() })
}

/// The workloads to which a service's ports lead.
pub fn behind<'a>(
    registry: &'a Registry,
    service: &'a Service,
) -> impl Iterator<Item = &'a Workload> {
    let led_to = |workload: &&Workload| {
        workload.services.contains(&service.name)
            && service.ports.values().any(|port| workload.port(&port.target).is_some())
    };
    registry.workloads.values().filter(led_to)
}

/// A workload as an endpoint of a service. `None` if none of the service's ports leads to it: it is
/// a client only.
#[must_use]
pub fn endpoint(service: &Service, workload: &Workload) -> Option<Endpoint> {
    let leads = |port: &ServicePort| {
        let target = workload.port(&port.target)?;
        Some((port.number, EndpointPort { number: target.number, state: target.state }))
    };
    let ports: BTreeMap<_, _> = service.ports.values().filter_map(leads).collect();
    (!ports.is_empty()).then(|| Endpoint {
        workload: workload.into(),
        addresses: workload.addresses,
        ports,
        weight: 1,
        locality: workload.locality.clone(),
    })
}

/// A workload's own ports, each with the service ports that lead to it.
#[must_use]
pub fn inbound(registry: &Registry, workload: &Workload) -> Inbound {
    let services = workload.services.iter().filter_map(|name| registry.services.get(name));
    let mut leading: BTreeMap<u16, Vec<ServicePortRef>> = BTreeMap::new();
    for service in services {
        for port in service.ports.values() {
            let Some(target) = workload.port(&port.target) else { continue };
            let named = ServicePortRef { service: service.name.clone(), port: port.number };
            leading.entry(target.number).or_default().push(named);
        }
    }
    let ports = workload.ports.values().map(|port| InboundPort {
        number: port.number,
        protocol: port.protocol,
        services: leading.remove(&port.number).unwrap_or_default(),
    });
    Inbound { workload: workload.into(), ports: ports.collect() }
}

/// What a host name means, asked from a namespace.
#[must_use]
pub fn name_answer(registry: &Registry, namespace: &str, host: &str) -> NameAnswer {
    let from = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let service = ServiceName::resolve(&host, from)
        .ok()
        .and_then(|name| registry.services.get(&name))
        .map(|service| ServiceVips { name: service.name.clone(), vips: service.vips.clone() });
    NameAnswer { host, namespace: namespace.to_owned(), service }
}
