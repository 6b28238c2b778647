//! Pods as workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use heddle_model::{
    Addresses, EndpointState, Identity, Protocol, ServiceName, Workload, WorkloadId, WorkloadPort,
    identity::DEFAULT_SERVICE_ACCOUNT, name::check_label,
};
use heddle_wire::local::proxy_config::taken_port;

use super::{Cluster, records::PodRecord, workload_name::workload_name};
use crate::{
    kubernetes::objects::{Labels, ObjectName, PodObject, PodStatus},
    registry::Touched,
};

impl Cluster {
    /// Takes in a pod.
    pub(crate) fn put_pod(&mut self, pod: PodObject) -> Touched {
        let name = pod.metadata.object_name();
        let id = WorkloadId::of_pod(&name.0, &name.1);
        let has_ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        let named = check_label(&name.0).is_ok() && !name.1.is_empty();
        let Some(addresses) = addresses(&pod.status).filter(|_| !has_ended && named) else {
            return self.remove_pod(&name);
        };
        let record = PodRecord::of(&pod);
        let before = self.registry.workloads.get(&id);
        let mut workload = self.workload(id.clone(), pod, addresses);
        workload.services = before.map(|one| one.services.clone()).unwrap_or_default();
        workload.ports = self.ports(&workload, &record);
        if before.is_some_and(|before| is_told_alike(before, &workload)) {
            self.pods.insert(id.clone(), record);
            self.registry.workloads.insert(id, workload);
            return Touched::default();
        }
        let mut touched = Touched {
            endpoints: workload.services.clone(),
            addresses: addresses.iter().collect(),
            ..Touched::default()
        };
        touched.workloads.insert(id.clone());
        if let Some(before) = before.map(|one| one.addresses) {
            touched.addresses.extend(before.iter());
            self.give_up(&id, before);
        }
        if !record.host_network {
            self.take(&id, addresses);
        }
        self.pods.insert(id.clone(), record);
        self.registry.workloads.insert(id.clone(), workload);
        for service in self.awaited.remove(&id).unwrap_or_default() {
            touched.merge(self.refresh_members(&service));
        }
        touched
    }

    /// Forgets a pod. Services whose slices still name it wait for another of its name.
    pub(crate) fn remove_pod(&mut self, (namespace, name): &ObjectName) -> Touched {
        let id = WorkloadId::of_pod(namespace, name);
        self.pods.remove(&id);
        let Some(workload) = self.registry.workloads.remove(&id) else { return Touched::default() };
        self.give_up(&id, workload.addresses);
        let mut touched =
            Touched { addresses: workload.addresses.iter().collect(), ..Touched::default() };
        touched.workloads.insert(id);
        for service in &workload.services {
            touched.merge(self.refresh_members(service));
        }
        touched
    }

    /// Gives a workload the services it belongs to and the ports they lead to, after either has changed.
    pub(super) fn refresh_workload(
        &mut self,
        id: &WorkloadId,
        services: BTreeSet<ServiceName>,
    ) -> Touched {
        let (Some(workload), Some(record)) = (self.registry.workloads.get(id), self.pods.get(id))
        else {
            return Touched::default();
        };
        let mut after = Workload { services, ..workload.clone() };
        after.ports = self.ports(&after, record);
        if after == *workload {
            return Touched::default();
        }
        // Everybody who is told of it is told its services and ports.
        let mut touched = Touched {
            endpoints: workload.services.union(&after.services).cloned().collect(),
            addresses: workload.addresses.iter().collect(),
            ..Touched::default()
        };
        touched.workloads.insert(id.clone());
        self.registry.workloads.insert(id.clone(), after);
        touched
    }

    /// Has this pod a sidecar?
    pub(crate) fn has_sidecar(&self, id: &WorkloadId) -> bool {
        self.pods.get(id).is_some_and(|record| record.has_sidecar)
    }

    /// Pods that should have a sidecar and have none, by namespace and name: made before the namespace was
    /// labelled, or while the webhook could not be reached.
    pub(crate) fn without_sidecar(&self) -> Vec<(String, String)> {
        let lacks = |(id, record): (&WorkloadId, &PodRecord)| {
            let workload = self.registry.workloads.get(id)?;
            let namespace = self.namespaces.get(&workload.namespace)?;
            let ends = matches!(
                record.state,
                EndpointState::Terminating | EndpointState::ServingTerminating
            );
            let missed = !record.has_sidecar && !record.host_network && !ends;
            let name = id.0.split_once('.').map(|(_, name)| name.to_owned())?;
            (missed && wanted(namespace, record.says)).then(|| (workload.namespace.clone(), name))
        };
        self.pods.iter().filter_map(lacks).collect()
    }

    fn workload(&self, id: WorkloadId, pod: PodObject, addresses: Addresses) -> Workload {
        let name = workload_name(&pod.metadata);
        let account = match pod.spec.service_account_name {
            none if none.is_empty() => DEFAULT_SERVICE_ACCOUNT.to_owned(),
            account => account,
        };
        let namespace = pod.metadata.namespace;
        let labels = pod.metadata.labels;
        Workload {
            id,
            name,
            identity: Identity {
                trust_domain: self.trust_domain.clone(),
                namespace: namespace.clone(),
                service_account: account,
            },
            namespace,
            services: BTreeSet::new(),
            version: labels.get("version").cloned().unwrap_or_default(),
            labels,
            addresses,
            ports: BTreeMap::new(),
            locality: self.locality(&pod.spec.node_name),
        }
    }

    /// The ports a pod declares and those its services lead to. What one speaks is said by the first of its
    /// services, by name, that says anything.
    fn ports(&self, workload: &Workload, record: &PodRecord) -> BTreeMap<u16, WorkloadPort> {
        let port = |number: u16, name: &str| WorkloadPort {
            number,
            name: name.to_owned(),
            protocol: Protocol::Undeclared,
            state: record.state,
        };
        let declared = record.declared.iter().map(|(number, name)| (*number, port(*number, name)));
        let mut ports: BTreeMap<u16, WorkloadPort> = declared.collect();
        for name in &workload.services {
            let Some(service) = self.registry.services.get(name) else { continue };
            for of_service in service.ports.values() {
                let led = self.registry.led_to(name, of_service, workload);
                let led = led.filter(|led| taken_port(led.number).is_none());
                let Some(led) = led else { continue };
                let own = ports.entry(led.number).or_insert_with(|| port(led.number, ""));
                if own.protocol == Protocol::Undeclared {
                    own.protocol = of_service.protocol;
                }
            }
        }
        ports
    }

    fn take(&mut self, id: &WorkloadId, addresses: Addresses) {
        let Some(index) = &mut self.registry.addresses else { return };
        index.workloads.extend(addresses.iter().map(|ip| (ip, id.clone())));
    }

    /// Its addresses may be another's already: pods come and go in any order.
    fn give_up(&mut self, id: &WorkloadId, addresses: Addresses) {
        let Some(index) = &mut self.registry.addresses else { return };
        for ip in addresses.iter() {
            if index.workloads.get(&ip) == Some(id) {
                index.workloads.remove(&ip);
            }
        }
    }
}

/// Does a namespace with these labels want sidecars in its pods, one of which says this of itself? Which
/// revision gives them is not asked: some should have.
fn wanted(namespace: &Labels, says: Option<bool>) -> bool {
    let label = |keys: [&str; 2]| keys.iter().find_map(|key| namespace.get(*key));
    match label(["heddle.dev/inject", "istio-injection"]).map(String::as_str) {
        Some("enabled" | "true") => says != Some(false),
        Some(_) => false,
        None if label(["heddle.dev/rev", "istio.io/rev"]).is_some() => says != Some(false),
        None => says == Some(true),
    }
}

/// Is everybody told the same of both? Whether a pod is ready, its slices say.
fn is_told_alike(one: &Workload, other: &Workload) -> bool {
    let ports = |workload: &Workload| -> Vec<_> {
        workload.ports.values().map(|port| (port.number, port.protocol)).collect()
    };
    one.name == other.name
        && one.identity == other.identity
        && one.services == other.services
        && one.labels == other.labels
        && one.addresses == other.addresses
        && one.locality == other.locality
        && ports(one) == ports(other)
}

fn addresses(status: &PodStatus) -> Option<Addresses> {
    let all = status.pod_ips.iter().map(|one| one.ip.as_str()).chain([status.pod_ip.as_str()]);
    let ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    let v4 = ips.iter().find_map(|ip| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v6 = ips.iter().find_map(|ip| match ip {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });
    Addresses::new(v4, v6)
}
