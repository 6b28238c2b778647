//! A cluster's objects as the registry of a mesh. No I/O and no clock: objects come in one by one, in any
//! order, and each answers what it touched, which is what it concerns and no more.
//!
//! Who is behind a Service is what its EndpointSlices say, port by port: they have the number of a named
//! port in each pod, and the readiness that this Service goes by. A pod is a workload from when it has an
//! address until it has ended. What the registry holds is the only copy; beside it is just what later
//! objects need.

mod pods;
mod records;
mod services;
mod slices;
#[cfg(test)]
mod tests;
mod vips;
mod workload_name;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heddle_compile::RuleIndex;
use heddle_model::{
    Locality, Registry, ServiceName, WorkloadId,
    name::service_suffix,
    registry::{AddressIndex, OutsideAddress, OutsideService},
};

use self::{
    records::{PodRecord, Slice},
    vips::NamedVips,
};
use crate::{
    config::AddressRanges,
    kubernetes::objects::{Bare, Labels, ObjectName},
    registry::Touched,
};

/// Where a node is.
const REGION: [&str; 2] =
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const SUBZONE: [&str; 1] = ["topology.istio.io/subzone"];

/// Who is in a cluster's mesh.
#[derive(Debug)]
pub(crate) struct Cluster {
    trust_domain: String,
    ranges: AddressRanges,
    registry: Registry,
    /// Of each workload what its pod says and the registry does not.
    pods: BTreeMap<WorkloadId, PodRecord>,
    slices: BTreeMap<ObjectName, Slice>,
    /// Slices by their Service.
    slices_of: BTreeMap<ServiceName, BTreeSet<ObjectName>>,
    /// Services whose slices name a pod that is not known (yet).
    awaited: BTreeMap<WorkloadId, BTreeSet<ServiceName>>,
    /// Places of nodes; only those that are somewhere.
    nodes: BTreeMap<String, Locality>,
    /// Labels of namespaces.
    namespaces: BTreeMap<String, Arc<Labels>>,
    vips: NamedVips,
    /// Entries that may have workloads of the mesh among their endpoints.
    entries_inside: BTreeSet<ServiceName>,
}

impl Cluster {
    /// An empty one, whose workloads have identities of this trust domain.
    pub(crate) fn new(trust_domain: String, ranges: AddressRanges) -> Self {
        let registry = Registry { addresses: Some(AddressIndex::default()), ..Registry::default() };
        Self {
            trust_domain,
            ranges,
            registry,
            pods: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            awaited: BTreeMap::new(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            vips: NamedVips::default(),
            entries_inside: BTreeSet::new(),
        }
    }

    /// Services and workloads as they are now.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Labels of the namespaces that are known.
    pub(crate) fn namespaces(&self) -> &BTreeMap<String, Arc<Labels>> {
        &self.namespaces
    }

    /// Takes in a namespace. It touches nothing that proxies are told.
    pub(crate) fn put_namespace(&mut self, namespace: Bare) {
        self.namespaces.insert(namespace.metadata.name, Arc::new(namespace.metadata.labels));
    }

    /// Forgets a namespace.
    pub(crate) fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Takes in where a node is.
    pub(crate) fn put_node(&mut self, node: &Bare) -> Touched {
        let name = &node.metadata.name;
        let labels = &node.metadata.labels;
        let said = |keys: &[&str]| {
            keys.iter().find_map(|key| labels.get(*key)).cloned().unwrap_or_default()
        };
        let place = Locality {
            node: name.clone(),
            region: said(&REGION),
            zone: said(&ZONE),
            subzone: said(&SUBZONE),
        };
        let before = self.nodes.get(name);
        // Nodes report often, and move seldom.
        if before == Some(&place) {
            return Touched::default();
        }
        self.nodes.insert(name.clone(), place.clone());
        self.place(name, &place)
    }

    /// Forgets a node.
    pub(crate) fn remove_node(&mut self, name: &str) -> Touched {
        self.nodes.remove(name);
        self.place(name, &Locality { node: name.to_owned(), ..Locality::default() })
    }

    fn place(&mut self, node: &str, place: &Locality) -> Touched {
        let mut touched = Touched::default();
        let on_it = self.registry.workloads.values_mut().filter(|one| one.locality.node == node);
        for workload in on_it.filter(|one| one.locality != *place) {
            workload.locality = place.clone();
            touched.workloads.insert(workload.id.clone());
            touched.endpoints.extend(workload.services.iter().cloned());
        }
        touched
    }

    fn locality(&self, node: &str) -> Locality {
        let unknown = || Locality { node: node.to_owned(), ..Locality::default() };
        self.nodes.get(node).cloned().unwrap_or_else(unknown)
    }

    /// Puts the services of entries beside those of the cluster, if those or the rules have `changed`.
    /// Returned are services whose endpoints may have others since the last call.
    pub(crate) fn put_entries(
        &mut self,
        index: &RuleIndex,
        changed: bool,
    ) -> BTreeSet<ServiceName> {
        if !changed {
            return self.entries_inside.clone();
        }
        let outside = &self.registry.outside;
        let mut touched: BTreeSet<ServiceName> = outside.keys().cloned().collect();
        let (vips, ranges) = (&mut self.vips, &self.ranges);
        index.put_entries(&mut self.registry, &mut |name| vips.of(name, ranges));
        let Registry { services, outside, .. } = &self.registry;
        self.vips.keep(|name| outside.contains_key(name) && services.contains_key(name));
        let inside = outside.iter().filter(|(_, one)| may_lead_inside(one));
        self.entries_inside = inside.map(|(name, _)| name.clone()).collect();
        touched.extend(outside.keys().cloned());
        touched
    }
}

/// Could a workload or a service of the mesh be among its endpoints?
fn may_lead_inside(one: &OutsideService) -> bool {
    one.selector.is_some()
        || one.endpoints.iter().any(|endpoint| match &endpoint.at {
            OutsideAddress::Ip(_) => true,
            OutsideAddress::Host(host) => host.ends_with(service_suffix()),
        })
}
