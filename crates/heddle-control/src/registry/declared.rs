//! Services that files declare, and the one place where they are merged with those that workloads make
//! up by themselves.
//!
//! **Who decides.** A `Service` object decides which ports of a workload its ports lead to, what they
//! speak, whether the service has an address, and whom it selects besides. A workload of
//! `heddle run NAME` belongs to NAME in any case, and ports that it declares and the object does not name
//! stay: what worked before the object works with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use heddle_model::{
    EndpointState, Protocol, Registry, Service, ServiceName, ServicePort, TargetPort, Workload,
    WorkloadId, WorkloadPort,
    registry::carries,
    resource::{Resource, ServiceObject, Spec},
};
use heddle_wire::local::proxy_config::taken_port;

use super::touched::Touched;
use crate::limits::ENDPOINTS_BYTES_MAX;

/// Services by name, as files declare them.
pub(crate) type Declared = BTreeMap<ServiceName, ServiceObject>;

/// The services that these objects declare.
pub(crate) fn declared(resources: &[Arc<Resource>]) -> Declared {
    let service = |resource: &Arc<Resource>| match &resource.spec {
        Spec::Service(object) => {
            let (namespace, name) = (resource.key.namespace.clone(), resource.key.name.clone());
            Some((ServiceName { namespace, name }, object.clone()))
        }
        _ => None,
    };
    resources.iter().filter_map(service).collect()
}

/// What is known of workloads besides themselves, for ports that only objects lead to.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Ports in LISTEN, as a workload's sidecar told last; none is known of one that was taken back.
    pub(super) ports: BTreeMap<WorkloadId, BTreeSet<u16>>,
    /// Workloads that end.
    pub(super) withdrawn: BTreeSet<WorkloadId>,
}

impl Listening {
    fn state(&self, id: &WorkloadId, port: u16) -> EndpointState {
        match self.ports.get(id) {
            _ if self.withdrawn.contains(id) => EndpointState::Terminating,
            Some(ports) if !ports.contains(&port) => EndpointState::Pending,
            // A running workload must not lose its traffic to our restart.
            _ => EndpointState::Ready,
        }
    }
}

/// The registry with what objects declare. `vips` are the addresses of services that no workload makes up.
pub(super) fn merged(
    base: &Registry,
    declared: &Declared,
    vips: &BTreeMap<ServiceName, Vec<IpAddr>>,
    listening: &Listening,
) -> Registry {
    let mut merged = base.clone();
    for (name, object) in declared.iter().filter(|(_, object)| object.external_name.is_none()) {
        let own = base.services.get(name);
        let mut ports = own.map(|service| service.ports.clone()).unwrap_or_default();
        for port in object.ports.values() {
            let protocol = spoken(port, own);
            ports.insert(port.number, ServicePort { protocol, ..port.clone() });
        }
        belong(&mut merged, name, object, &ports, listening);
        let vips = match own {
            _ if object.headless => Vec::new(),
            Some(own) => own.vips.clone(),
            None => vips.get(name).cloned().unwrap_or_default(),
        };
        merged.services.insert(name.clone(), Service { name: name.clone(), vips, ports });
    }
    merged
}

/// What a port speaks: what the object says, else what the workloads say of its target.
fn spoken(port: &ServicePort, own: Option<&Service>) -> Protocol {
    let of_target = || {
        let own = own?.ports.values();
        let mut target = own.filter(|own| match &port.target {
            TargetPort::Number(number) => own.number == *number,
            TargetPort::Name(name) => own.name == *name,
        });
        Some(target.next()?.protocol)
    };
    match port.protocol {
        Protocol::Undeclared => of_target().unwrap_or_default(),
        declared => declared,
    }
}

/// Makes the workloads that an object selects belong to it, and gives each of its workloads the ports
/// that it leads to.
fn belong(
    merged: &mut Registry,
    name: &ServiceName,
    object: &ServiceObject,
    ports: &BTreeMap<u16, ServicePort>,
    listening: &Listening,
) {
    let mut room = ENDPOINTS_BYTES_MAX / 2;
    for workload in merged.workloads.values_mut() {
        let is_own = workload.services.contains(name);
        let selected = workload.namespace == name.namespace
            && object.selector.as_ref().is_some_and(|wanted| carries(&workload.labels, wanted));
        if !is_own && !selected {
            continue;
        }
        // A proxy that cannot be told of all of them at once would hear of none.
        let bytes = size(workload, ports.len());
        let Some(left) = room.checked_sub(bytes) else {
            tracing::warn!(service = %name, workload = %workload.id, "too many workloads are selected; this one is left out");
            continue;
        };
        room = left;
        workload.services.insert(name.clone());
        for port in object.ports.values() {
            let protocol = ports.get(&port.number).map_or(port.protocol, |port| port.protocol);
            lead_to(workload, &port.target, protocol, listening);
        }
    }
}

fn lead_to(
    workload: &mut Workload,
    target: &TargetPort,
    protocol: Protocol,
    listening: &Listening,
) {
    let number = match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(_) => workload.port(target).map(|port| port.number),
    };
    let Some(number) = number.filter(|number| taken_port(*number).is_none()) else { return };
    let state = listening.state(&workload.id, number);
    let new = || WorkloadPort { number, name: String::new(), protocol, state };
    let port = workload.ports.entry(number).or_insert_with(new);
    if protocol != Protocol::Undeclared {
        port.protocol = protocol;
    }
}

/// About so many bytes is a workload as an endpoint.
fn size(workload: &Workload, ports: usize) -> usize {
    const REST: usize = 512;
    const PORT: usize = 32;
    let labels: usize =
        workload.labels.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    REST + labels + (ports + workload.ports.len()) * PORT
}

/// What differs between two registries.
pub(super) fn difference(before: &Registry, after: &Registry) -> Touched {
    let mut touched = Touched::default();
    let without_states = |workload: &Workload| {
        let mut plain = workload.clone();
        plain.ports.values_mut().for_each(|port| port.state = EndpointState::Ready);
        plain
    };
    let ids: BTreeSet<_> = before.workloads.keys().chain(after.workloads.keys()).collect();
    for id in ids {
        let (old, new) = (before.workloads.get(id), after.workloads.get(id));
        if old == new {
            continue;
        }
        touched.topology |= old.map(without_states) != new.map(without_states);
        let services = [old, new].into_iter().flatten().flat_map(|one| &one.services);
        touched.endpoints.extend(services.cloned());
    }
    let names: BTreeSet<_> = before.services.keys().chain(after.services.keys()).collect();
    for name in names {
        if before.services.get(name) != after.services.get(name) {
            touched.topology = true;
            touched.endpoints.insert(name.clone());
        }
    }
    // The name of a headless service stands for the addresses of those that are ready.
    let is_headless = |name: &ServiceName| {
        after.services.get(name).is_some_and(|service| service.vips.is_empty())
    };
    touched.topology |= touched.endpoints.iter().any(is_headless);
    touched
}

#[cfg(test)]
mod tests;
