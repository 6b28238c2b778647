//! Answers that no rule changes: who owns an address, who is behind a service, what a name means.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{
    Address, Endpoint, EndpointPort, EndpointState, Endpoints, Identity, Inbound, InboundPort,
    NameAnswer, Owner, Protocol, Registry, Service, ServiceName, ServicePort, ServicePortRef,
    ServiceVips, TargetPort, Workload, WorkloadId,
    discovery::{OutboundPolicy, OutsideAddress, OutsideEndpoint, WorkloadInfo},
    identity::DEFAULT_SERVICE_ACCOUNT,
    name::{DEFAULT_NAMESPACE, service_suffix},
    registry::{OutsideHost, carries},
};

use crate::named::named;

/// Who owns an address.
#[must_use]
pub fn address(registry: &Registry, ip: IpAddr) -> Address {
    let owner = match (registry.service_at(ip), registry.workload_at(ip)) {
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
    let own = behind(registry, found).filter_map(|one| endpoint_in(registry, found, one));
    let mut all = Endpoints::inside(service.clone(), own.collect());
    all.node_local = registry.members.get(service).is_some_and(|members| members.node_local);
    if let Some(outside) = registry.outside.get(service) {
        all.resolution = outside.resolution;
        if outside.dynamic {
            all.by_name = found.ports.values().filter_map(by_name).collect();
        }
        for host in &outside.endpoints {
            match inside(registry, host) {
                Some(members) => all.endpoints.extend(members),
                None => all.outside.push(outside_endpoint(service, &outside.key.namespace, host)),
            }
        }
    }
    Some(all)
}

/// A port of a service whose calls name their host, and that host's.
fn by_name(port: &ServicePort) -> Option<(u16, u16)> {
    match port.target {
        TargetPort::Number(target) => Some((port.number, target)),
        TargetPort::Name(_) => None,
    }
}

/// An endpoint of an entry that is in the mesh all the same: a workload by its address, or a service by its
/// name or virtual address. `None` for one that is not.
fn inside(registry: &Registry, host: &OutsideHost) -> Option<Vec<Endpoint>> {
    let service = match &host.at {
        OutsideAddress::Ip(ip) => {
            if let Some(workload) = registry.workload_at(*ip) {
                let port =
                    |number: u16| Some((number, workload.ports.get(&number).map(|p| p.state)));
                return Some(led_by(host, workload, port).into_iter().collect());
            }
            registry.service_at(*ip)
        }
        OutsideAddress::Host(host) => {
            let in_mesh = host.ends_with(service_suffix());
            in_mesh
                .then(|| ServiceName::resolve(host, "").ok())
                .flatten()
                .and_then(|name| registry.services.get(&name))
        }
    };
    // An entry's own service leads outside: to name it here would be a circle.
    let service = service.filter(|service| !registry.outside.contains_key(&service.name))?;
    let members = behind(registry, service).filter_map(|workload| {
        led_by(host, workload, |number| {
            let port = service.ports.get(&number)?;
            let target = registry.led_to(&service.name, port, workload)?;
            Some((target.number, Some(target.state)))
        })
    });
    Some(members.collect())
}

/// A workload as an endpoint, where `port` says what each of the endpoint's ports is on it and in which
/// state, if that is known.
fn led_by(
    host: &OutsideHost,
    workload: &Workload,
    port: impl Fn(u16) -> Option<(u16, Option<EndpointState>)>,
) -> Option<Endpoint> {
    let led = |(called, (number, _)): (&u16, &(u16, Protocol))| {
        let (number, state) = port(*number)?;
        Some((*called, EndpointPort { number, state: state.unwrap_or(EndpointState::Ready) }))
    };
    let ports: BTreeMap<_, _> = host.ports.iter().filter_map(led).collect();
    (!ports.is_empty()).then(|| Endpoint {
        workload: workload.into(),
        addresses: workload.addresses,
        ports,
        weight: host.weight,
        locality: workload.locality.clone(),
    })
}

fn outside_endpoint(service: &ServiceName, namespace: &str, host: &OutsideHost) -> OutsideEndpoint {
    let account = match host.service_account.as_str() {
        "" => DEFAULT_SERVICE_ACCOUNT,
        account => account,
    };
    let workload = WorkloadInfo {
        id: WorkloadId(host.id.clone()),
        name: host.described.clone().unwrap_or_else(|| "unknown".to_owned()),
        namespace: namespace.to_owned(),
        identity: Identity::local(namespace, account),
        services: BTreeSet::from([service.clone()]),
        version: host.labels.get("version").cloned().unwrap_or_default(),
        labels: host.labels.clone(),
        ports: host.ports.values().copied().collect(),
    };
    OutsideEndpoint {
        workload,
        described: host.described.is_some(),
        at: host.at.clone(),
        ports: host.ports.iter().map(|(called, (own, _))| (*called, *own)).collect(),
        weight: host.weight,
        locality: host.locality.clone(),
    }
}

/// The workloads to which a service's ports lead.
pub fn behind<'a>(
    registry: &'a Registry,
    service: &'a Service,
) -> impl Iterator<Item = &'a Workload> {
    let told = registry.members.get(&service.name);
    let by_list = told.into_iter().flat_map(|members| &members.workloads);
    let by_list = by_list.filter(|(_, ports)| !ports.is_empty());
    let by_list = by_list.filter_map(|(id, _)| registry.workloads.get(id));
    let outside = registry.outside.get(&service.name);
    let selector = outside.and_then(|one| Some((&one.key.namespace, one.selector.as_ref()?)));
    let led_to = move |workload: &&Workload| {
        let serves = match (outside, selector) {
            (None, _) => workload.services.contains(&service.name),
            (Some(_), None) => false,
            (Some(_), Some((namespace, labels))) => {
                workload.namespace == *namespace && carries(&workload.labels, labels)
            }
        };
        serves && service.ports.values().any(|port| workload.port(&port.target).is_some())
    };
    // An entry without a selector has no workload behind it: nobody is looked through for it.
    let looked = told.is_none() && (outside.is_none() || selector.is_some());
    let all = looked.then(|| registry.workloads.values()).into_iter().flatten();
    by_list.chain(all.filter(led_to))
}

/// A workload as an endpoint of a service. `None` if none of the service's ports leads to it: it is
/// a client only.
#[must_use]
pub fn endpoint(service: &Service, workload: &Workload) -> Option<Endpoint> {
    endpoint_in(&Registry::default(), service, workload)
}

fn endpoint_in(registry: &Registry, service: &Service, workload: &Workload) -> Option<Endpoint> {
    let leads =
        |port: &ServicePort| Some((port.number, registry.led_to(&service.name, port, workload)?));
    let ports: BTreeMap<_, _> = service.ports.values().filter_map(leads).collect();
    (!ports.is_empty()).then(|| Endpoint {
        workload: workload.into(),
        addresses: workload.addresses,
        ports,
        weight: 1,
        locality: workload.locality.clone(),
    })
}

/// A workload's own ports, each with the service ports that lead to it; without what rules and its Sidecar
/// say ([`crate::RuleIndex::inbound`]).
#[must_use]
pub(crate) fn inbound(registry: &Registry, workload: &Workload) -> Inbound {
    let services = workload.services.iter().filter_map(|name| registry.services.get(name));
    let mut leading: BTreeMap<u16, Vec<ServicePortRef>> = BTreeMap::new();
    for service in services {
        for port in service.ports.values() {
            let Some(target) = registry.led_to(&service.name, port, workload) else { continue };
            let named = ServicePortRef { service: service.name.clone(), port: port.number };
            leading.entry(target.number).or_default().push(named);
        }
    }
    let ports = workload.ports.values().map(|port| InboundPort {
        number: port.number,
        protocol: port.protocol,
        services: leading.remove(&port.number).unwrap_or_default(),
        faults: Vec::new(),
        endpoint: None,
    });
    Inbound {
        workload: workload.into(),
        ports: ports.collect(),
        outbound: OutboundPolicy::default(),
        locality: Box::new(workload.locality.clone()),
        telemetry: None,
        callers: BTreeMap::new(),
    }
}

/// What a host name means, asked from a namespace.
#[must_use]
pub fn name_answer(registry: &Registry, namespace: &str, host: &str) -> NameAnswer {
    let from = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let service = named(registry, from, &host).map(|service| ServiceVips {
        name: service.name.clone(),
        vips: stands_for(registry, service),
    });
    NameAnswer { host, namespace: namespace.to_owned(), service }
}

/// Most workloads that the name of a headless service stands for at once: so many addresses go into one
/// answer.
const HEADLESS_MAX: usize = 32;

/// The addresses that a service's name stands for: its own, or of a headless one those of its workloads
/// that are ready; without ports all of them.
fn stands_for(registry: &Registry, service: &Service) -> Vec<IpAddr> {
    // A cluster's own resolver knows more of a headless service: each workload's name, and their ports.
    let elsewhere = registry.members.contains_key(&service.name);
    if !service.vips.is_empty() || elsewhere || registry.outside.contains_key(&service.name) {
        return service.vips.clone();
    }
    let is_ready = |workload: &&Workload| {
        let mut ports = service.ports.values().filter_map(|port| workload.port(&port.target));
        service.ports.is_empty() || ports.any(|port| port.state == EndpointState::Ready)
    };
    let members = registry.workloads.values().filter(|one| one.services.contains(&service.name));
    members.filter(is_ready).take(HEADLESS_MAX).flat_map(|one| one.addresses.iter()).collect()
}
