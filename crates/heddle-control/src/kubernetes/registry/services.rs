//! Services with their virtual addresses, and whom their slices lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{
    Protocol, ResourceKey, Service, ServiceName, ServicePort, TargetPort, WorkloadId,
    registry::{Members, OutsideAddress, OutsideHost, OutsideService, Resolution},
};

use super::Cluster;
use crate::{
    kubernetes::objects::{
        ObjectName, ServiceObject, ServicePortSpec, ServiceSpec, TargetPortSpec, is_tcp,
    },
    registry::Touched,
};

/// The kind of what has endpoints outside and is no entry.
const SERVICE: &str = "Service";

impl Cluster {
    /// Takes in a Service.
    pub(crate) fn put_service(&mut self, object: &ServiceObject) -> Touched {
        let (namespace, name) = object.metadata.object_name();
        let Ok(name) = ServiceName::new(&name, &namespace) else {
            tracing::warn!(namespace, name, "a Service whose name is no DNS label is left out");
            return Touched::default();
        };
        let alias = (object.spec.r#type == "ExternalName").then_some(&object.spec.external_name);
        let vips = if alias.is_some() { Vec::new() } else { vips(&object.spec) };
        let ports = object.spec.ports.iter().filter_map(port).collect();
        let service = Service { name: name.clone(), vips, ports };
        let node_local = object.spec.internal_traffic_policy == "Local";
        let mut touched = self.replace(service);
        match alias {
            Some(host) => touched.merge(self.put_alias(&name, host)),
            None => {
                let told = self.registry.members.get(&name).map(|one| one.node_local);
                if touched.anything() || told != Some(node_local) {
                    touched.merge(self.put_members(&name, node_local));
                }
            }
        }
        touched
    }

    /// Forgets a Service.
    pub(crate) fn remove_service(&mut self, (namespace, name): &ObjectName) -> Touched {
        let Ok(name) = ServiceName::new(name, namespace) else { return Touched::default() };
        let is_entry = |one: &OutsideService| one.key.kind != SERVICE;
        let entry = self.registry.outside.get(&name).is_some_and(is_entry);
        if entry || !self.registry.services.contains_key(&name) {
            return Touched::default();
        }
        self.unindex(&name);
        self.registry.services.remove(&name);
        self.registry.outside.remove(&name);
        let members = self.registry.members.remove(&name).unwrap_or_default();
        self.await_no_more(&name);
        let mut touched = Touched { topology: true, ..Touched::default() };
        touched.endpoints.insert(name.clone());
        for id in members.workloads.keys() {
            touched.merge(self.leave(id, &name));
        }
        touched
    }

    /// Puts a Service in the place of the one before, or of an entry that names it too.
    fn replace(&mut self, service: Service) -> Touched {
        let name = service.name.clone();
        let outside = self.registry.outside.get(&name);
        let was_entry = outside.is_some_and(|one| one.key.kind != SERVICE);
        let before = self.registry.services.get(&name).filter(|_| !was_entry);
        if before == Some(&service) {
            return Touched::default();
        }
        if was_entry {
            self.registry.outside.remove(&name);
        }
        self.unindex(&name);
        if let Some(index) = &mut self.registry.addresses {
            index.services.extend(service.vips.iter().map(|ip| (*ip, name.clone())));
        }
        self.registry.services.insert(name.clone(), service);
        let mut touched = Touched { topology: true, ..Touched::default() };
        touched.endpoints.insert(name);
        touched
    }

    fn unindex(&mut self, name: &ServiceName) {
        let vips = self.registry.services.get(name).map(|one| one.vips.clone());
        let Some(index) = &mut self.registry.addresses else { return };
        for ip in vips.unwrap_or_default() {
            if index.services.get(&ip) == Some(name) {
                index.services.remove(&ip);
            }
        }
    }

    /// An alias has one endpoint: what its name leads to, inside the mesh or out of it. Its own name is
    /// answered by the cluster's resolver.
    fn put_alias(&mut self, name: &ServiceName, host: &str) -> Touched {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let members = self.registry.members.remove(name).unwrap_or_default();
        self.await_no_more(name);
        let mut touched = Touched::default();
        for id in members.workloads.keys() {
            touched.merge(self.leave(id, name));
        }
        let ports = self.led_outside(name, |port| match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        });
        let (at, resolution) = match host.parse() {
            Ok(ip) => (OutsideAddress::Ip(ip), Resolution::Static),
            Err(_) => (OutsideAddress::Host(host), Resolution::Dns),
        };
        let endpoint = outside_host(name, at, ports);
        if self.put_outside(name, vec![endpoint], resolution) {
            touched.topology = true;
            touched.endpoints.insert(name.clone());
        }
        touched
    }

    fn put_members(&mut self, name: &ServiceName, node_local: bool) -> Touched {
        let members = self.registry.members.entry(name.clone()).or_default();
        let mut touched = Touched::default();
        if members.node_local != node_local {
            members.node_local = node_local;
            touched.endpoints.insert(name.clone());
        }
        touched.merge(self.refresh_members(name));
        // What a port speaks may have changed without leading elsewhere.
        let ids: Vec<WorkloadId> = self.members_of(name).cloned().collect();
        for id in ids {
            let services = self.services_of(&id);
            touched.merge(self.refresh_workload(&id, services));
        }
        touched
    }

    /// Looks again whom the slices of a Service lead to.
    pub(super) fn refresh_members(&mut self, name: &ServiceName) -> Touched {
        let Some(before) = self.registry.members.get(name) else { return Touched::default() };
        let Some(service) = self.registry.services.get(name) else { return Touched::default() };
        let found = self.found(name, service);
        let came = found.members.keys().filter(|id| !before.workloads.contains_key(id));
        let went = before.workloads.keys().filter(|id| !found.members.contains_key(id));
        let moved = found.members.iter().filter(|(id, ports)| {
            let numbers = |ports: &BTreeMap<u16, heddle_model::EndpointPort>| -> Vec<_> {
                ports.values().map(|port| port.number).collect()
            };
            before.workloads.get(*id).is_some_and(|was| numbers(was) != numbers(ports))
        });
        let changed: BTreeSet<WorkloadId> =
            came.chain(went).chain(moved.map(|(id, _)| id)).cloned().collect();
        let mut touched = Touched::default();
        if before.workloads != found.members {
            touched.endpoints.insert(name.clone());
        }
        let node_local = before.node_local;
        self.await_no_more(name);
        for id in found.awaited {
            self.awaited.entry(id).or_default().insert(name.clone());
        }
        let members = Members { node_local, workloads: found.members };
        self.registry.members.insert(name.clone(), members);
        if self.put_outside(name, found.outside, found.resolution) {
            touched.topology = true;
            touched.endpoints.insert(name.clone());
        }
        for id in changed {
            let mut services = self.services_of(&id);
            if self.registry.members.get(name).is_some_and(|all| all.workloads.contains_key(&id)) {
                services.insert(name.clone());
            } else {
                services.remove(name);
            }
            touched.merge(self.refresh_workload(&id, services));
        }
        touched
    }

    /// Endpoints of a Service that are no pods. Whether that changed is returned.
    fn put_outside(
        &mut self,
        name: &ServiceName,
        endpoints: Vec<OutsideHost>,
        resolution: Resolution,
    ) -> bool {
        let made = OutsideService {
            key: ResourceKey {
                kind: SERVICE.to_owned(),
                namespace: name.namespace.clone(),
                name: name.name.clone(),
            },
            position: 0,
            export_to: vec!["*".to_owned()],
            resolution,
            addresses: Vec::new(),
            endpoints,
            selector: None,
            subject_alt_names: Vec::new(),
            dynamic: false,
        };
        if made.endpoints.is_empty() {
            return self.registry.outside.remove(name).is_some();
        }
        self.registry.outside.insert(name.clone(), made.clone()) != Some(made)
    }

    /// For each port of a service its port on an endpoint outside, and what that speaks.
    pub(super) fn led_outside(
        &self,
        name: &ServiceName,
        number: impl Fn(&ServicePort) -> Option<u16>,
    ) -> BTreeMap<u16, (u16, Protocol)> {
        let ports = self.registry.services.get(name).into_iter().flat_map(|one| one.ports.values());
        ports.filter_map(|port| Some((port.number, (number(port)?, port.protocol)))).collect()
    }

    fn leave(&mut self, id: &WorkloadId, service: &ServiceName) -> Touched {
        let mut services = self.services_of(id);
        services.remove(service);
        self.refresh_workload(id, services)
    }

    fn services_of(&self, id: &WorkloadId) -> BTreeSet<ServiceName> {
        self.registry.workloads.get(id).map(|one| one.services.clone()).unwrap_or_default()
    }

    fn members_of(&self, name: &ServiceName) -> impl Iterator<Item = &WorkloadId> {
        self.registry.members.get(name).into_iter().flat_map(|members| members.workloads.keys())
    }

    fn await_no_more(&mut self, name: &ServiceName) {
        let slices = self.slices_of.get(name).into_iter().flatten();
        let pods = slices.filter_map(|slice| self.slices.get(slice)).flat_map(|one| one.pods());
        for id in pods {
            let Some(services) = self.awaited.get_mut(id) else { continue };
            services.remove(name);
            if services.is_empty() {
                self.awaited.remove(id);
            }
        }
    }
}

/// An endpoint that nobody describes.
pub(super) fn outside_host(
    service: &ServiceName,
    at: OutsideAddress,
    ports: BTreeMap<u16, (u16, Protocol)>,
) -> OutsideHost {
    let place = match &at {
        OutsideAddress::Ip(ip) => ip.to_string(),
        OutsideAddress::Host(host) => host.clone(),
    };
    OutsideHost {
        id: format!("{}/{}@{place}", service.namespace, service.name),
        at,
        described: None,
        service_account: String::new(),
        labels: BTreeMap::new(),
        ports,
        weight: 1,
        locality: heddle_model::Locality::default(),
    }
}

/// Its virtual addresses; none of a headless one (`None`).
fn vips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let one = [&spec.cluster_ip];
    let all = if spec.cluster_ips.is_empty() { &one[..] } else { &[] };
    let all = all.iter().copied().chain(&spec.cluster_ips);
    let mut vips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    vips.sort_unstable();
    vips.dedup();
    vips
}

fn port(port: &ServicePortSpec) -> Option<(u16, ServicePort)> {
    if !is_tcp(&port.protocol) || port.port == 0 {
        return None;
    }
    let target = match &port.target_port {
        Some(TargetPortSpec::Number(0)) | None => TargetPort::Number(port.port),
        Some(TargetPortSpec::Number(number)) => TargetPort::Number(*number),
        Some(TargetPortSpec::Name(name)) => TargetPort::Name(name.clone()),
    };
    let protocol = Protocol::of_service_port(port.app_protocol.as_deref(), &port.name);
    let name = port.name.clone();
    Some((port.port, ServicePort { number: port.port, name, protocol, target }))
}
