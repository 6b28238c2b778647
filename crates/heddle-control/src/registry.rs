//! Who is in the mesh: workloads and the services they make up, with their addresses.
//!
//! A service is the union of its workloads' ports; it exists while one of them declares a port. Of the
//! registry's nouns this engine fills what one machine has: a workload is in one service, has an address
//! of each family, and a service port leads to the port of the same number. Services that files declare
//! are merged in behind it ([`declared`]).
//! Nothing here does I/O or reads a clock: times are Unix seconds given by the caller. What must
//! survive a restart is told in [`Joined`] and written by the caller.

mod admission;
pub(crate) mod declared;
mod touched;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{
    Addresses, EndpointState, Protocol, Registry, Service, ServiceName, ServicePort, TargetPort,
    Workload, WorkloadId, WorkloadPort,
};
use heddle_wire::local::control_api::{JoinRequest, JoinedWorkload, Problem};

use crate::{
    config::AddressRanges,
    journal::Noted,
    limits::{ID_TRIES_MAX, WORKLOADS_MAX},
    pool::IndexPool,
};
use declared::{Declared, Listening};
pub(crate) use touched::Touched;

/// A joined workload and what the store must remember of it.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The answer.
    pub(crate) workload: JoinedWorkload,
    /// The service's index to remember, if it was not held before.
    pub(crate) vip: Option<(ServiceName, u32)>,
    /// A service that lost its remembered index.
    pub(crate) evicted: Option<ServiceName>,
    /// What changed.
    pub(crate) touched: Touched,
}

/// What taking over declared services came to.
#[derive(Debug, Default)]
pub(crate) struct Redeclared {
    /// What changed.
    pub(crate) touched: Touched,
    /// Indices of services to remember; those that lost theirs have none.
    pub(crate) vips: Vec<(ServiceName, Option<u32>)>,
}

/// The members of a mesh.
#[derive(Debug)]
pub(crate) struct Members {
    ranges: AddressRanges,
    /// Workloads, and the services they make up by themselves.
    registry: Registry,
    /// Services that files declare.
    declared: Declared,
    /// Addresses of those of them that no workload made up when they were declared.
    declared_vips: BTreeMap<ServiceName, Vec<IpAddr>>,
    listening: Listening,
    /// The registry with what is declared, where something is.
    merged: Option<Registry>,
    by_address: BTreeMap<IpAddr, WorkloadId>,
    by_vip: BTreeMap<IpAddr, ServiceName>,
    vips: IndexPool<ServiceName>,
    addresses: IndexPool<WorkloadId>,
    /// Taken back from the journal and not yet confirmed by the holder.
    recalled: BTreeSet<WorkloadId>,
    /// Services that have no workload here and a virtual address all the same: those of entries.
    claimed: BTreeSet<ServiceName>,
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
            declared: Declared::new(),
            declared_vips: BTreeMap::new(),
            listening: Listening::default(),
            merged: None,
            by_address: BTreeMap::new(),
            by_vip: BTreeMap::new(),
            vips: pool,
            addresses: IndexPool::new(ranges.workload_indices()),
            recalled: BTreeSet::new(),
            claimed: BTreeSet::new(),
        }
    }

    /// Services and workloads as they are now.
    pub(crate) fn registry(&self) -> &Registry {
        self.merged.as_ref().unwrap_or(&self.registry)
    }

    /// The same as it would be with these declared services; new ones have no address yet.
    pub(crate) fn registry_with(&self, declared: &Declared) -> Cow<'_, Registry> {
        if *declared == self.declared {
            return Cow::Borrowed(self.registry());
        }
        let (vips, listening) = (&self.declared_vips, &self.listening);
        Cow::Owned(declared::merged(&self.registry, declared, vips, listening))
    }

    /// Takes over what files declare. Each service that has an address gets one at once.
    pub(crate) fn declare(&mut self, declared: Declared, now: u64) -> Redeclared {
        let mut changed = Redeclared::default();
        if declared == self.declared {
            return changed;
        }
        let has_vip = |object: &heddle_model::resource::ServiceObject| {
            !object.headless && object.external_name.is_none()
        };
        let gone: Vec<_> = self
            .declared_vips
            .keys()
            .filter(|name| !declared.get(name).is_some_and(has_vip))
            .cloned()
            .collect();
        for name in gone {
            let vips = self.declared_vips.remove(&name).unwrap_or_default();
            if !self.registry.services.contains_key(&name) {
                vips.iter().for_each(|vip| drop(self.by_vip.remove(vip)));
                self.vips.free(&name, now);
            }
        }
        for (name, _) in declared.iter().filter(|(_, object)| has_vip(object)) {
            if self.declared_vips.contains_key(name) {
                continue;
            }
            let Some(given) = self.vips.take(name, now) else {
                tracing::warn!(service = %name, "no virtual address is left: the service has none");
                continue;
            };
            let (v4, v6) = self.ranges.vip(given.index);
            let vips: Vec<IpAddr> = vec![v4.into(), v6.into()];
            vips.iter().for_each(|vip| drop(self.by_vip.insert(*vip, name.clone())));
            self.declared_vips.insert(name.clone(), vips);
            changed.vips.extend(given.evicted.map(|evicted| (evicted, None)));
            changed.vips.push((name.clone(), Some(given.index)));
        }
        self.declared = declared;
        changed.touched = self.merge();
        changed
    }

    /// Merges what is declared in again; what that changed.
    fn merge(&mut self) -> Touched {
        if self.declared.is_empty() && self.merged.is_none() {
            return Touched::default();
        }
        let (base, vips, listening) = (&self.registry, &self.declared_vips, &self.listening);
        let merged = (!self.declared.is_empty())
            .then(|| declared::merged(base, &self.declared, vips, listening));
        let before = std::mem::replace(&mut self.merged, merged);
        // Without a merged one before, callers tell what changed in the base.
        let before = before.as_ref().unwrap_or(&self.registry);
        declared::difference(before, self.registry())
    }

    /// The workload an address belongs to.
    pub(crate) fn workload_at(&self, ip: IpAddr) -> Option<&Workload> {
        self.by_address.get(&ip).and_then(|id| self.registry.workloads.get(id))
    }

    /// The service a virtual address belongs to.
    pub(crate) fn service_at(&self, ip: IpAddr) -> Option<&ServiceName> {
        self.by_vip.get(&ip)
    }

    /// The virtual addresses of a service that has [claimed](Self::claim) them; none for any other.
    pub(crate) fn claimed_vips(&self, name: &ServiceName) -> Vec<IpAddr> {
        let held = self.claimed.contains(name).then(|| self.vips.index(name)).flatten();
        held.map(|index| self.vip(index)).unwrap_or_default()
    }

    /// Gives each of these services virtual addresses, and takes back those of all that claimed some
    /// before and are not among them. Told is what the store must remember.
    pub(crate) fn claim(
        &mut self,
        wanted: &BTreeSet<ServiceName>,
        now: u64,
    ) -> Vec<(ServiceName, Option<u32>)> {
        let mut changes = Vec::new();
        let gone: Vec<ServiceName> = self.claimed.difference(wanted).cloned().collect();
        for name in gone {
            self.claimed.remove(&name);
            // A service of the mesh that has come under this name goes on with its address.
            if !self.registry.services.contains_key(&name) {
                self.vips.free(&name, now);
            }
        }
        for name in wanted.difference(&self.claimed.clone()) {
            let Some(given) = self.vips.take(name, now) else {
                tracing::warn!(service = name.unique(), "no virtual address is left for this host");
                break;
            };
            changes.extend(given.evicted.map(|evicted| (evicted, None)));
            changes.push((name.clone(), Some(given.index)));
            self.claimed.insert(name.clone());
        }
        changes
    }

    fn vip(&self, index: u32) -> Vec<IpAddr> {
        let (v4, v6) = self.ranges.vip(index);
        vec![v4.into(), v6.into()]
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
        let name =
            ServiceName { namespace: request.namespace.clone(), name: request.service.clone() };
        let Some(id) = (0..ID_TRIES_MAX)
            .map(|_| WorkloadId(format!("{}-{:06x}", workload.name, suffix() & 0x00ff_ffff)))
            .find(|id| !self.registry.workloads.contains_key(id))
        else {
            return Err(refusal("no free workload id was found; try again".to_owned()));
        };
        workload.id = id.clone();
        admission::check_fits(&workload, &name, &self.registry)?;
        let Some(address) = self.addresses.take(&id, now) else {
            return Err(refusal(
                "every workload address is in use or was until minutes ago".to_owned(),
            ));
        };
        let (v4, v6) = self.ranges.workload(address.index);
        workload.addresses = Addresses::Both(v4, v6);
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
        let mut touched = Touched { endpoints: workload.services.clone(), ..Touched::all() };
        self.insert(workload, given.as_ref().map(|given| (&name, given.index)));
        self.listening.ports.insert(id.clone(), BTreeSet::new());
        touched.merge(self.merge());
        Ok(Joined {
            workload: self.joined(&id),
            vip: given.as_ref().map(|given| (name, given.index)),
            evicted: given.and_then(|given| given.evicted),
            touched,
        })
    }

    /// What the journal is to remember.
    pub(crate) fn noted(&self, now: u64) -> Noted {
        let vips = self.vips.held().map(|(name, index)| (name.clone(), index)).collect();
        let resting = self.addresses.resting(now);
        let freed = resting.map(|(id, index, at)| (id.clone(), index, at)).collect();
        Noted { workloads: self.registry.workloads.values().cloned().collect(), vips, freed }
    }

    /// Takes back what the journal of this mesh's life told, ports in the state they had and
    /// services at the addresses they had; what was freed goes on resting.
    pub(crate) fn recall(&mut self, noted: Noted, now: u64) -> Adopted {
        let mut adopted = Adopted::default();
        let vips: BTreeMap<ServiceName, u32> = noted.vips.into_iter().collect();
        // Those whose address is known first: no other may take it before them.
        let mut workloads = noted.workloads;
        let known = |workload: &Workload| workload.services.iter().find_map(|name| vips.get(name));
        workloads.sort_by_key(|workload| known(workload).is_none());
        for workload in workloads {
            let (id, services) = (workload.id.clone(), workload.services.clone());
            let vip = known(&workload).copied();
            match self.restore(workload, vip, now) {
                Ok(vip) => {
                    adopted.vips.extend(vip);
                    adopted.touched.topology = true;
                    adopted.touched.endpoints.extend(services);
                    self.recalled.insert(id);
                }
                Err(problem) => adopted.problems.push(problem),
            }
        }
        for (id, index, at) in noted.freed {
            // A clock that was set back must not let it rest for longer.
            self.addresses.remember(id, index, at.min(now));
        }
        adopted.touched.merge(self.merge());
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
            let vip = member.service.as_ref().and_then(Service::vip_v4);
            let vip = vip.and_then(|vip| self.ranges.vip_index(vip));
            match self.restore(workload, vip, now) {
                Ok(vip) => {
                    adopted.vips.extend(vip);
                    adopted.touched.topology = true;
                    adopted.touched.endpoints.extend(member.workload.services.iter().cloned());
                }
                Err(problem) => adopted.problems.push(problem),
            }
        }
        adopted.touched.merge(self.merge());
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
        let (name, ip) = admission::check_restored(&workload).map_err(refuse)?;
        if self.registry.workloads.len() >= WORKLOADS_MAX {
            return Err(refuse(format!("the mesh is full: {WORKLOADS_MAX} workloads run in it")));
        }
        let index = self.ranges.workload_index(ip);
        if !index.is_some_and(|index| self.addresses.assign(&id, index)) {
            return Err(refuse(format!(
                "workload {id} cannot keep its address {ip}: it is outside the mesh's range or another workload's"
            )));
        }
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
        self.insert(workload, Some((&name, index)));
        Ok(Some((name, index)))
    }

    /// Marks every port of a workload as terminating. `None`: no such workload.
    pub(crate) fn withdraw(&mut self, id: &WorkloadId) -> Option<Touched> {
        let mut touched = self.set_states(id, |_| EndpointState::Terminating)?;
        self.listening.withdrawn.insert(id.clone());
        touched.merge(self.merge());
        Some(touched)
    }

    /// Takes over which declared ports are in LISTEN. A withdrawn workload stays withdrawn.
    pub(crate) fn report(&mut self, id: &WorkloadId, listening: &BTreeSet<u16>) -> Option<Touched> {
        let mut touched =
            self.set_states(id, |port| match (port.state, listening.contains(&port.number)) {
                (EndpointState::Terminating, _) | (EndpointState::ServingTerminating, false) => {
                    EndpointState::Terminating
                }
                (EndpointState::ServingTerminating, true) => EndpointState::ServingTerminating,
                (EndpointState::Pending | EndpointState::Ready, true) => EndpointState::Ready,
                (EndpointState::Pending | EndpointState::Ready, false) => EndpointState::Pending,
            })?;
        self.listening.ports.insert(id.clone(), listening.clone());
        touched.merge(self.merge());
        Some(touched)
    }

    /// Forgets a workload; its addresses rest before others get them. `None`: no such workload.
    pub(crate) fn delete(&mut self, id: &WorkloadId, now: u64) -> Option<Touched> {
        let workload = self.registry.workloads.remove(id)?;
        self.listening.ports.remove(id);
        self.listening.withdrawn.remove(id);
        for ip in workload.addresses.iter() {
            self.by_address.remove(&ip);
        }
        self.addresses.free(id, now);
        for name in &workload.services {
            let Some(service) = self.registry.services.get(name) else { continue };
            let vips = service.vips.clone();
            self.refresh(name, vips.clone());
            let is_declared = self.declared_vips.contains_key(name);
            if !self.registry.services.contains_key(name) && !is_declared {
                for vip in &vips {
                    self.by_vip.remove(vip);
                }
                self.vips.free(name, now);
            }
        }
        let mut touched = Touched { endpoints: workload.services, ..Touched::all() };
        touched.merge(self.merge());
        Some(touched)
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
                touched.endpoints.extend(workload.services.iter().cloned());
            }
        }
        Some(touched)
    }

    /// Adds a workload, and with it the service that was given the index `new`, if that is new.
    fn insert(&mut self, workload: Workload, new: Option<(&ServiceName, u32)>) {
        let services = workload.services.clone();
        for ip in workload.addresses.iter() {
            self.by_address.insert(ip, workload.id.clone());
        }
        self.registry.workloads.insert(workload.id.clone(), workload);
        for name in services {
            let known = self.registry.services.get(&name).map(|service| service.vips.clone());
            let given = new.filter(|(of, _)| **of == name).map(|(_, index)| self.vip(index));
            let Some(vips) = given.or(known) else { continue };
            for vip in &vips {
                self.by_vip.insert(*vip, name.clone());
            }
            self.refresh(&name, vips);
        }
    }

    /// Derives a service from its workloads: the union of their ports, where a declared protocol
    /// counts for all workloads that declared none. Without any port there is no service.
    fn refresh(&mut self, name: &ServiceName, vips: Vec<IpAddr>) {
        let mut ports: BTreeMap<u16, ServicePort> = BTreeMap::new();
        for workload in self.registry.workloads.values().filter(|w| w.services.contains(name)) {
            for port in workload.ports.values() {
                let number = port.number;
                let merged = ports.entry(number).or_insert_with(|| ServicePort {
                    number,
                    name: String::new(),
                    protocol: Protocol::Undeclared,
                    target: TargetPort::Number(number),
                });
                if merged.protocol == Protocol::Undeclared {
                    merged.protocol = port.protocol;
                }
                if merged.name.is_empty() {
                    merged.name.clone_from(&port.name);
                }
            }
        }
        for workload in self.registry.workloads.values_mut().filter(|w| w.services.contains(name)) {
            for port in workload.ports.values_mut() {
                port.protocol = ports.get(&port.number).map_or(port.protocol, |p| p.protocol);
            }
        }
        if ports.is_empty() {
            self.registry.services.remove(name);
        } else {
            let service = Service { name: name.clone(), vips, ports };
            self.registry.services.insert(name.clone(), service);
        }
    }

    fn joined(&self, id: &WorkloadId) -> JoinedWorkload {
        let workload = self.registry.workloads[id].clone();
        let service = workload.first_service();
        let service = service.and_then(|name| self.registry().services.get(name)).cloned();
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

fn refusal(reason: String) -> Vec<Problem> {
    vec![Problem { reason, ..Problem::default() }]
}

#[cfg(test)]
mod tests;
