//! EndpointSlices: who is behind a Service, with which ports, in which state.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    EndpointPort, EndpointState, Service, ServiceName, WorkloadId,
    registry::{OutsideAddress, OutsideHost, Resolution},
};

use super::{
    Cluster,
    records::{Place, Slice},
    services::outside_host,
};
use crate::{
    kubernetes::objects::{ObjectName, SliceObject},
    registry::Touched,
};

/// What the slices of a Service say together.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) members: BTreeMap<WorkloadId, BTreeMap<u16, EndpointPort>>,
    pub(super) outside: Vec<OutsideHost>,
    pub(super) resolution: Resolution,
    /// Pods that are not known.
    pub(super) awaited: BTreeSet<WorkloadId>,
}

impl Cluster {
    /// Takes in a slice.
    pub(crate) fn put_slice(&mut self, object: &SliceObject) -> Touched {
        let name = object.metadata.object_name();
        let Some(slice) = Slice::of(object) else { return self.remove_slice(&name) };
        if self.slices.get(&name) == Some(&slice) {
            return Touched::default();
        }
        // The pods that it named, it may name no more; and it may have been another Service's.
        let mut touched = self.drop_slice(&name, &slice.service);
        let service = slice.service.clone();
        self.slices_of.entry(service.clone()).or_default().insert(name.clone());
        self.slices.insert(name, slice);
        touched.merge(self.refresh_members(&service));
        touched
    }

    /// Forgets a slice.
    pub(crate) fn remove_slice(&mut self, name: &ObjectName) -> Touched {
        let Some(slice) = self.slices.get(name) else { return Touched::default() };
        let service = slice.service.clone();
        self.unlist(name);
        self.refresh_members(&service)
    }

    fn drop_slice(&mut self, name: &ObjectName, service: &ServiceName) -> Touched {
        let Some(before) = self.slices.get(name).map(|one| one.service.clone()) else {
            return Touched::default();
        };
        self.unlist(name);
        if before == *service { Touched::default() } else { self.refresh_members(&before) }
    }

    fn unlist(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else { return };
        for id in slice.pods() {
            let Some(services) = self.awaited.get_mut(id) else { continue };
            services.remove(&slice.service);
            if services.is_empty() {
                self.awaited.remove(id);
            }
        }
        if let Some(names) = self.slices_of.get_mut(&slice.service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
    }

    /// Who is behind a Service. Of a pod that several slices name (one per address family, or per set of port
    /// numbers) their ports are put together.
    pub(super) fn found(&self, name: &ServiceName, service: &Service) -> Found {
        let mut found = Found::default();
        let slices = self.slices_of.get(name).into_iter().flatten();
        for slice in slices.filter_map(|name| self.slices.get(name)) {
            let numbers: Vec<(u16, u16)> = service
                .ports
                .values()
                .filter_map(|port| Some((port.number, slice.number(port)?)))
                .collect();
            for (place, state) in &slice.endpoints {
                match place {
                    Place::Pod(id) if self.registry.workloads.contains_key(id) => {
                        let ports = found.members.entry(id.clone()).or_default();
                        let led = |number| EndpointPort { number, state: *state };
                        ports.extend(numbers.iter().map(|(port, number)| (*port, led(*number))));
                    }
                    Place::Pod(id) => drop(found.awaited.insert(id.clone())),
                    Place::Outside(at) => {
                        let ready = *state == EndpointState::Ready;
                        let ports = self.led_outside(name, |port| slice.number(port));
                        if matches!(at, OutsideAddress::Host(_)) {
                            found.resolution = Resolution::Dns;
                        }
                        if ready && !ports.is_empty() {
                            found.outside.push(outside_host(name, at.clone(), ports));
                        }
                    }
                }
            }
        }
        found.outside.sort_by(|a, b| a.id.cmp(&b.id));
        found.outside.dedup_by(|a, b| a.id == b.id);
        found
    }
}
