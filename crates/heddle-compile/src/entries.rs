//! ServiceEntries in the registry: the one place where services that are not in the mesh are put beside
//! those that are, and who of them serves which.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use heddle_model::{
    Protocol, Registry, Service, ServiceName, ServicePort, TargetPort,
    discovery::{OutsideAddress, Resolution},
    registry::{OutsideHost, OutsideService, carries},
    resource::{EndpointAddress, EntryEndpoint, Resource, ServiceEntry, Spec},
};

use crate::rules::RuleIndex;

/// The kind of entries.
const ENTRY: &str = "ServiceEntry";

/// A ServiceEntry with its resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) entry: &'a ServiceEntry,
    /// Its place in the order of force.
    pub(crate) position: usize,
}

impl RuleIndex {
    /// The registry with the services of all ServiceEntries; those it has of other entries are left out.
    /// `vip` are a host's virtual addresses, for one that has none of its own.
    ///
    /// Of two entries of one namespace that name one host the first in order makes it, and a service of
    /// the mesh goes before both.
    #[must_use]
    pub fn with_entries<'r>(
        &self,
        registry: &'r Registry,
        vip: &dyn Fn(&ServiceName) -> Vec<IpAddr>,
    ) -> Cow<'r, Registry> {
        if registry.outside.is_empty() && !self.has_entries() {
            return Cow::Borrowed(registry);
        }
        let mut merged = registry.clone();
        self.put_entries(&mut merged, &mut |name| vip(name));
        Cow::Owned(merged)
    }

    /// The same in place, for a registry too large to be made twice.
    pub fn put_entries(
        &self,
        registry: &mut Registry,
        vip: &mut dyn FnMut(&ServiceName) -> Vec<IpAddr>,
    ) {
        let Registry { services, outside, .. } = registry;
        outside.retain(|name, one| {
            // A Service of a cluster may have endpoints outside too; it stays as it is.
            let is_entry = one.key.kind == ENTRY;
            if is_entry {
                services.remove(name);
            }
            !is_entry
        });
        for entry in self.entries() {
            for host in &entry.entry.hosts {
                let name = entry_service(&host.host, &entry.resource.key.namespace);
                let Some(name) = name.filter(|name| !services.contains_key(name)) else {
                    continue;
                };
                let addresses = &entry.entry.addresses;
                let single = addresses.iter().filter(|(ip, bits)| is_single(*ip, *bits));
                let mut vips: Vec<IpAddr> = single.map(|(ip, _)| *ip).collect();
                if vips.is_empty() && entry.entry.resolution != Resolution::None {
                    vips = vip(&name);
                }
                let ports = ports(entry.entry);
                outside.insert(name.clone(), self.outside(entry, &name));
                services.insert(name.clone(), Service { name: name.clone(), vips, ports });
            }
        }
    }

    /// The same for checks, to which it does not matter what the virtual addresses are.
    pub(crate) fn merged<'r>(&self, registry: &'r Registry) -> Cow<'r, Registry> {
        let known = |name: &ServiceName| {
            registry.services.get(name).map(|service| service.vips.clone()).unwrap_or_default()
        };
        self.with_entries(registry, &known)
    }

    /// Is there any ServiceEntry?
    #[must_use]
    pub fn has_entries(&self) -> bool {
        self.entries().next().is_some()
    }

    /// All ServiceEntries, in the order of force.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries_at().filter_map(|(position, resource)| match &resource.spec {
            Spec::ServiceEntry(entry) => Some(Entry { resource, entry, position }),
            _ => None,
        })
    }

    fn outside(&self, entry: Entry<'_>, name: &ServiceName) -> OutsideService {
        let Entry { resource, entry, position } = entry;
        let make = |one: &EntryEndpoint, described: Option<&str>| host(name, entry, one, described);
        let mut endpoints: Vec<_> =
            entry.endpoints.iter().filter_map(|one| make(one, None)).collect();
        if let Some(selector) = &entry.selector {
            let selected = self.workload_entries().filter(|(of, workload)| {
                of.key.namespace == resource.key.namespace
                    && carries(&workload.endpoint.labels, selector)
            });
            endpoints
                .extend(selected.filter_map(|(of, one)| make(&one.endpoint, Some(&of.key.name))));
        } else if endpoints.is_empty() && entry.endpoints.is_empty() && is_dns(entry.resolution) {
            let address = EndpointAddress::Host(name.fqdn());
            endpoints.extend(make(&EntryEndpoint { address, ..EntryEndpoint::default() }, None));
        }
        let export_to = match &entry.export_to[..] {
            [] => vec![".".to_owned()],
            given => given.to_vec(),
        };
        OutsideService {
            key: resource.key.clone(),
            position,
            export_to,
            resolution: entry.resolution,
            dynamic: entry.dynamic,
            addresses: entry.addresses.clone(),
            endpoints,
            selector: entry.selector.clone(),
            subject_alt_names: entry.subject_alt_names.clone(),
        }
    }
}

fn is_dns(resolution: Resolution) -> bool {
    matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin)
}

fn is_single(ip: IpAddr, bits: u8) -> bool {
    bits == if ip.is_ipv4() { 32 } else { 128 }
}

/// The service that a host of an entry is: one of the mesh's own form where the host has that, else the
/// host itself.
pub(crate) fn entry_service(host: &str, namespace: &str) -> Option<ServiceName> {
    let own_form = !host.contains('.') || host.ends_with(heddle_model::name::service_suffix());
    if own_form {
        ServiceName::resolve(host, namespace)
    } else {
        ServiceName::of_host(host, namespace)
    }
    .ok()
}

fn ports(entry: &ServiceEntry) -> BTreeMap<u16, ServicePort> {
    let ports = entry.ports.iter().map(|port| ServicePort {
        number: port.number,
        name: port.name.clone(),
        protocol: port.protocol,
        target: TargetPort::Number(port.target.unwrap_or(port.number)),
    });
    ports.map(|port| (port.number, port)).collect()
}

/// An endpoint with its ports resolved; `None` for one that this version does not reach.
fn host(
    service: &ServiceName,
    entry: &ServiceEntry,
    one: &EntryEndpoint,
    described: Option<&str>,
) -> Option<OutsideHost> {
    let at = match &one.address {
        EndpointAddress::Ip(ip) => OutsideAddress::Ip(*ip),
        EndpointAddress::Host(host) => OutsideAddress::Host(host.clone()),
        EndpointAddress::Elsewhere => return None,
    };
    let place = match &at {
        OutsideAddress::Ip(ip) => ip.to_string(),
        OutsideAddress::Host(host) => host.clone(),
    };
    let id = match described {
        Some(name) => format!("{}/{name}", service.namespace),
        None => format!("{}/{}@{place}", service.namespace, service.name),
    };
    let target = |port: &heddle_model::resource::EntryPort| -> (u16, (u16, Protocol)) {
        let own = one.ports.get(&port.name).copied();
        (port.number, (own.or(port.target).unwrap_or(port.number), port.protocol))
    };
    Some(OutsideHost {
        id,
        at,
        described: described.map(str::to_owned),
        service_account: one.service_account.clone(),
        labels: one.labels.clone(),
        ports: entry.ports.iter().map(target).collect(),
        weight: one.weight.max(1),
        locality: one.locality.clone(),
    })
}
