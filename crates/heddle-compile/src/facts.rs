//! Answers that no rule changes: who owns an address, who is behind a service, what a name means.

use std::net::IpAddr;

use heddle_model::{
    Address, Endpoint, Endpoints, Inbound, InboundPort, NameAnswer, Owner, Registry, ServiceName,
    Workload, name::DEFAULT_NAMESPACE,
};

/// Who owns an address. Looks through the registry; a control plane that is asked often keeps an
/// index of its own.
#[must_use]
pub fn address(registry: &Registry, ip: IpAddr) -> Address {
    let is_vip = |service: &&heddle_model::Service| {
        IpAddr::from(service.vip_v4) == ip || IpAddr::from(service.vip_v6) == ip
    };
    let service = registry.services.values().find(is_vip);
    let workload = registry.workloads.values().find(|workload| workload.addresses().contains(&ip));
    let owner = match (service, workload) {
        (Some(service), _) => Owner::Service(service.name.clone()),
        (None, Some(workload)) => Owner::Workload(Box::new(workload.into())),
        (None, None) => Owner::NotKnown,
    };
    Address { ip, owner }
}

/// A service's endpoints in order of workload id; `None` if there is no such service. Members that
/// declare no port are clients only and no endpoints.
#[must_use]
pub fn endpoints(registry: &Registry, service: &ServiceName) -> Option<Endpoints> {
    registry.services.get(service)?;
    let behind = |workload: &&Workload| workload.service == *service && !workload.ports.is_empty();
    let endpoints = registry.workloads.values().filter(behind).map(endpoint).collect();
    Some(Endpoints { service: service.clone(), endpoints })
}

/// A workload as an endpoint of its service.
#[must_use]
pub fn endpoint(workload: &Workload) -> Endpoint {
    Endpoint {
        workload: workload.into(),
        ipv4: workload.ipv4,
        ipv6: workload.ipv6,
        ports: workload.ports.values().map(|port| (port.number, port.state)).collect(),
        weight: 1,
    }
}

/// A workload's own ports.
#[must_use]
pub fn inbound(registry: &Registry, workload: &Workload) -> Inbound {
    let owner = registry.services.get(&workload.service);
    let ports = workload.ports.values().map(|port| InboundPort {
        number: port.number,
        protocol: port.protocol,
        services: owner
            .filter(|service| service.ports.contains_key(&port.number))
            .map(|service| service.name.clone())
            .into_iter()
            .collect(),
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
        .map(|service| (service.name.clone(), service.vip_v4, service.vip_v6));
    NameAnswer { host, namespace: namespace.to_owned(), service }
}
