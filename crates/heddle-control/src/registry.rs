//! Who is in the mesh: workloads and the services they make up, with their addresses.
//!
//! A service is the union of its workloads' ports; it exists while one of them declares a port.
//! Nothing here does I/O or reads a clock: times are Unix seconds given by the caller. What must
//! survive a restart is told in [`Joined`] and written by the caller.

mod admission;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{
    EndpointState, Protocol, Registry, Service, ServiceName, ServicePort, Workload, WorkloadId,
    WorkloadPort,
};
use heddle_wire::local::control_api::{JoinRequest, JoinedWorkload, Problem};

use crate::{
    config::AddressRanges,
    journal::Noted,
    limits::{ID_TRIES_MAX, WORKLOADS_MAX},
    pool::IndexPool,
};

/// What a change touched, so that only that is looked at again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Services came, went or changed their ports, or workloads came or went.
    pub(crate) topology: bool,
    /// Services whose endpoints changed.
    pub(crate) endpoints: BTreeSet<ServiceName>,
}

impl Touched {
    /// Did anything change?
    pub(crate) fn anything(&self) -> bool {
        self.topology || !self.endpoints.is_empty()
    }
}

/// A joined workload and what the store must remember of it.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The answer.
    pub(crate) workload: JoinedWorkload,
    /// The service's index to remember, if it was not held before.
    pub(crate) vip: Option<(ServiceName, u32)>,
    /// A service that lost its remembered index.
    pub(crate) evicted: Option<ServiceName>,
}

/// The members of a mesh.
#[derive(Debug)]
pub(crate) struct Members {
    ranges: AddressRanges,
    registry: Registry,
    by_address: BTreeMap<IpAddr, WorkloadId>,
    by_vip: BTreeMap<IpAddr, ServiceName>,
    vips: IndexPool<ServiceName>,
    addresses: IndexPool<WorkloadId>,
    /// Taken back from the journal and not yet confirmed by the holder.
    recalled: BTreeSet<WorkloadId>,
}

impl Members {
    /// An empty mesh that remembers the services' indices `vips` from before.
    pub(crate) fn new(ranges: AddressRanges, vips: &BTreeMap<ServiceName, u32>, now: u64) -> Self {
        let mut pool = IndexPool::new(ranges.vip_indices());
        for (name, index) in vips {
            pool.remember(name.clone(), *index, now);
        }
        Self {
            ranges,
            registry: Registry::default(),
            by_address: BTreeMap::new(),
            by_vip: BTreeMap::new(),
            vips: pool,
            addresses: IndexPool::new(ranges.workload_indices()),
            recalled: BTreeSet::new(),
        }
    }

    /// Services and workloads as they are now.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The workload an address belongs to.
    pub(crate) fn workload_at(&self, ip: IpAddr) -> Option<&Workload> {
        self.by_address.get(&ip).and_then(|id| self.registry.workloads.get(id))
    }

    /// The service a virtual address belongs to.
    pub(crate) fn service_at(&self, ip: IpAddr) -> Option<&ServiceName> {
        self.by_vip.get(&ip)
    }

    /// Lets a workload in; its ports are pending.
    ///
    /// # Errors
    /// Every reason against it.
    pub(crate) fn join(
        &mut self,
        request: &JoinRequest,
        now: u64,
        mut suffix: impl FnMut() -> u32,
    ) -> Result<Joined, Vec<Problem>> {
        if self.registry.workloads.len() >= WORKLOADS_MAX {
            return Err(refusal(format!("the mesh is full: {WORKLOADS_MAX} workloads run in it")));
        }
        let mut workload = admission::admit(request, &self.registry)?;
        let Some(id) = (0..ID_TRIES_MAX)
            .map(|_| WorkloadId(format!("{}-{:06x}", workload.name, suffix() & 0x00ff_ffff)))
            .find(|id| !self.registry.workloads.contains_key(id))
        else {
            return Err(refusal("no free workload id was found; try again".to_owned()));
        };
        workload.id = id.clone();
        admission::check_fits(&workload, &self.registry)?;
        let Some(address) = self.addresses.take(&id, now) else {
            return Err(refusal(
                "every workload address is in use or was until minutes ago".to_owned(),
            ));
        };
        (workload.ipv4, workload.ipv6) = self.ranges.workload(address.index);
        let name = workload.service.clone();
        let needs_vip = !workload.ports.is_empty() && !self.registry.services.contains_key(&name);
        let given = match needs_vip.then(|| self.vips.take(&name, now)) {
            Some(None) => {
                self.addresses.free(&id, now);
                return Err(refusal(
                    "every virtual address is in use or was until minutes ago".to_owned(),
                ));
            }
            Some(Some(given)) => Some(given),
            None => None,
        };
        self.insert(workload, given.as_ref().map(|given| given.index));
        Ok(Joined {
            workload: self.joined(&id),
            vip: given.as_ref().map(|given| (name, given.index)),
            evicted: given.and_then(|given| given.evicted),
        })
    }

    /// What the journal is to remember.
    pub(crate) fn noted(&self) -> Noted {
        let vips = self.vips.held().map(|(name, index)| (name.clone(), index)).collect();
        Noted { workloads: self.registry.workloads.values().cloned().collect(), vips }
    }

    /// Takes back what the journal of this mesh's life told, ports in the state they had and
    /// services at the addresses they had.
    pub(crate) fn recall(&mut self, noted: Noted, now: u64) -> Adopted {
        let mut adopted = Adopted::default();
        let vips: BTreeMap<ServiceName, u32> = noted.vips.into_iter().collect();
        // Those whose address is known first: no other may take it before them.
        let mut workloads = noted.workloads;
        workloads.sort_by_key(|workload| !vips.contains_key(&workload.service));
        for workload in workloads {
            let (id, service) = (workload.id.clone(), workload.service.clone());
            let vip = vips.get(&service).copied();
            match self.restore(workload, vip, now) {
                Ok(vip) => {
                    adopted.vips.extend(vip);
                    adopted.touched.topology = true;
                    adopted.touched.endpoints.insert(service);
                    self.recalled.insert(id);
                }
                Err(problem) => adopted.problems.push(problem),
            }
        }
        adopted
    }

    /// Takes running members back, with the addresses they have, and drops those that only the
    /// journal told of. A port known here keeps its state; one not known is taken to be ready,
    /// because a running workload must not lose its traffic to our restart: its sidecar reports
    /// the truth next.
    pub(crate) fn adopt(&mut self, members: &[JoinedWorkload], now: u64) -> Adopted {
        let named: BTreeSet<&WorkloadId> = members.iter().map(|m| &m.workload.id).collect();
        let mut adopted = Adopted::default();
        for id in std::mem::take(&mut self.recalled) {
            if !named.contains(&id) {
                adopted.touched.merge(self.delete(&id, now).unwrap_or_default());
            }
        }
        for member in members {
            if self.registry.workloads.contains_key(&member.workload.id) {
                continue;
            }
            let mut workload = member.workload.clone();
            for port in workload.ports.values_mut() {
                if port.state == EndpointState::Pending {
                    port.state = EndpointState::Ready;
                }
            }
            let service = member.service.as_ref();
            let vip = service.and_then(|service| self.ranges.vip_index(service.vip_v4));
            match self.restore(workload, vip, now) {
                Ok(vip) => {
                    adopted.vips.extend(vip);
                    adopted.touched.topology = true;
                    adopted.touched.endpoints.insert(member.workload.service.clone());
                }
                Err(problem) => adopted.problems.push(problem),
            }
        }
        adopted
    }

    /// Takes one workload back exactly as it was, its service at the index `vip` if that is known.
    ///
    /// # Errors
    /// The reason why it cannot be: its address or its service's belongs to another.
    fn restore(
        &mut self,
        workload: Workload,
        vip: Option<u32>,
        now: u64,
    ) -> Result<Option<(ServiceName, u32)>, Problem> {
        let refuse = |reason: String| Problem { reason, ..Problem::default() };
        let id = workload.id.clone();
        admission::check_restored(&workload).map_err(refuse)?;
        if self.registry.workloads.len() >= WORKLOADS_MAX {
            return Err(refuse(format!("the mesh is full: {WORKLOADS_MAX} workloads run in it")));
        }
        let index = self.ranges.workload_index(workload.ipv4);
        if !index.is_some_and(|index| self.addresses.assign(&id, index)) {
            let ip = workload.ipv4;
            return Err(refuse(format!(
                "workload {id} cannot keep its address {ip}: it is outside the mesh's range or another workload's"
            )));
        }
        let name = workload.service.clone();
        if workload.ports.is_empty() || self.registry.services.contains_key(&name) {
            self.insert(workload, None);
            return Ok(None);
        }
        let index = match vip.filter(|index| self.vips.assign(&name, *index)) {
            Some(index) => index,
            // The address it had is another service's now: a new one is better than none.
            None => match self.vips.take(&name, now) {
                Some(given) => given.index,
                None => {
                    self.addresses.free(&id, now);
                    return Err(refuse(format!(
                        "service {name} has no virtual address left to take"
                    )));
                }
            },
        };
        self.insert(workload, Some(index));
        Ok(Some((name, index)))
    }

    /// Marks every port of a workload as terminating. `None`: no such workload.
    pub(crate) fn withdraw(&mut self, id: &WorkloadId) -> Option<Touched> {
        self.set_states(id, |_| EndpointState::Terminating)
    }

    /// Takes over which declared ports are in LISTEN. A withdrawn workload stays withdrawn.
    pub(crate) fn report(&mut self, id: &WorkloadId, listening: &BTreeSet<u16>) -> Option<Touched> {
        self.set_states(id, |port| match port.state {
            EndpointState::Terminating => EndpointState::Terminating,
            _ if listening.contains(&port.number) => EndpointState::Ready,
            _ => EndpointState::Pending,
        })
    }

    /// Forgets a workload; its addresses rest before others get them. `None`: no such workload.
    pub(crate) fn delete(&mut self, id: &WorkloadId, now: u64) -> Option<Touched> {
        let workload = self.registry.workloads.remove(id)?;
        for ip in workload.addresses() {
            self.by_address.remove(&ip);
        }
        self.addresses.free(id, now);
        let name = workload.service;
        let vips =
            self.registry.services.get(&name).map(|service| (service.vip_v4, service.vip_v6));
        if let Some((vip_v4, vip_v6)) = vips {
            self.refresh(&name, vip_v4, vip_v6);
            if !self.registry.services.contains_key(&name) {
                self.by_vip.remove(&vip_v4.into());
                self.by_vip.remove(&vip_v6.into());
                self.vips.free(&name, now);
            }
        }
        Some(Touched { topology: true, endpoints: BTreeSet::from([name]) })
    }

    fn set_states(
        &mut self,
        id: &WorkloadId,
        state: impl Fn(&WorkloadPort) -> EndpointState,
    ) -> Option<Touched> {
        let workload = self.registry.workloads.get_mut(id)?;
        let mut touched = Touched::default();
        for port in workload.ports.values_mut() {
            let new = state(port);
            if port.state != new {
                port.state = new;
                touched.endpoints.insert(workload.service.clone());
            }
        }
        Some(touched)
    }

    fn insert(&mut self, workload: Workload, vip: Option<u32>) {
        let name = workload.service.clone();
        for ip in workload.addresses() {
            self.by_address.insert(ip, workload.id.clone());
        }
        self.registry.workloads.insert(workload.id.clone(), workload);
        let known =
            self.registry.services.get(&name).map(|service| (service.vip_v4, service.vip_v6));
        if let Some((vip_v4, vip_v6)) = vip.map(|index| self.ranges.vip(index)).or(known) {
            self.by_vip.insert(vip_v4.into(), name.clone());
            self.by_vip.insert(vip_v6.into(), name.clone());
            self.refresh(&name, vip_v4, vip_v6);
        }
    }

    /// Derives a service from its workloads: the union of their ports, where a declared protocol
    /// counts for all workloads that declared none. Without any port there is no service.
    fn refresh(
        &mut self,
        name: &ServiceName,
        vip_v4: std::net::Ipv4Addr,
        vip_v6: std::net::Ipv6Addr,
    ) {
        let mut ports: BTreeMap<u16, ServicePort> = BTreeMap::new();
        for workload in self.registry.workloads.values().filter(|w| w.service == *name) {
            for port in workload.ports.values() {
                let number = port.number;
                let merged = ports.entry(number).or_insert_with(|| ServicePort {
                    number,
                    name: String::new(),
                    protocol: Protocol::Undeclared,
                });
                if merged.protocol == Protocol::Undeclared {
                    merged.protocol = port.protocol;
                }
                if merged.name.is_empty() {
                    merged.name.clone_from(&port.name);
                }
            }
        }
        for workload in self.registry.workloads.values_mut().filter(|w| w.service == *name) {
            for port in workload.ports.values_mut() {
                port.protocol = ports.get(&port.number).map_or(port.protocol, |p| p.protocol);
            }
        }
        if ports.is_empty() {
            self.registry.services.remove(name);
        } else {
            let service = Service { name: name.clone(), vip_v4, vip_v6, ports };
            self.registry.services.insert(name.clone(), service);
        }
    }

    fn joined(&self, id: &WorkloadId) -> JoinedWorkload {
        let workload = self.registry.workloads[id].clone();
        let service = self.registry.services.get(&workload.service).cloned();
        JoinedWorkload { workload, service }
    }
}

/// What taking members back came to.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// What changed.
    pub(crate) touched: Touched,
    /// Indices of services to remember.
    pub(crate) vips: Vec<(ServiceName, u32)>,
    /// Members that could not be taken back, and why.
    pub(crate) problems: Vec<Problem>,
}

impl Touched {
    /// Adds what another change touched.
    pub(crate) fn merge(&mut self, other: Self) {
        self.topology |= other.topology;
        self.endpoints.extend(other.endpoints);
    }
}

fn refusal(reason: String) -> Vec<Problem> {
    vec![Problem { reason, ..Problem::default() }]
}

#[cfg(test)]
mod tests;
