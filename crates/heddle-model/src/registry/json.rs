//! Services and workloads as JSON: in the local APIs and in what the control plane keeps of its
//! members.
//!
//! The form is that of one machine, where a workload has one service and an address of each family,
//! and a port leads to the port of the same number. What is as it is there is left out, so that this
//! form did not change when the nouns came to say more, and what was written before is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use super::TargetPort;
use crate::{
    Addresses, Identity, Locality, Protocol, ServiceName, WorkloadId,
    identity::DEFAULT_SERVICE_ACCOUNT,
};

#[derive(Serialize, Deserialize)]
pub(super) struct Service {
    name: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vip_v4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vip_v6: Option<Ipv6Addr>,
    /// All of them, where they are not one of each family, IPv4 first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vips: Vec<IpAddr>,
    ports: BTreeMap<u16, super::ServicePort>,
}

impl From<super::Service> for Service {
    fn from(service: super::Service) -> Self {
        let (vip_v4, vip_v6) = (service.vip_v4(), service.vip_v6());
        let told = of_each_family(vip_v4, vip_v6) == service.vips;
        let vips = if told { Vec::new() } else { service.vips };
        Self { name: service.name, vip_v4, vip_v6, vips, ports: service.ports }
    }
}

impl From<Service> for super::Service {
    fn from(form: Service) -> Self {
        let vips = match form.vips {
            none if none.is_empty() => of_each_family(form.vip_v4, form.vip_v6),
            all => all,
        };
        Self { name: form.name, vips, ports: form.ports }
    }
}

fn of_each_family(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Vec<IpAddr> {
    v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).collect()
}

#[derive(Serialize, Deserialize)]
pub(super) struct ServicePort {
    number: u16,
    name: String,
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetPort>,
}

impl From<super::ServicePort> for ServicePort {
    fn from(port: super::ServicePort) -> Self {
        let super::ServicePort { number, name, protocol, target } = port;
        let target = (target != TargetPort::Number(number)).then_some(target);
        Self { number, name, protocol, target }
    }
}

impl From<ServicePort> for super::ServicePort {
    fn from(form: ServicePort) -> Self {
        let ServicePort { number, name, protocol, target } = form;
        Self { number, name, protocol, target: target.unwrap_or(TargetPort::Number(number)) }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Workload {
    id: WorkloadId,
    name: String,
    namespace: String,
    /// Where it is one; of several the one that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<ServiceName>,
    /// Where they are several.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    services: BTreeSet<ServiceName>,
    /// Where it is not that of its service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    version: String,
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
    ports: BTreeMap<u16, super::WorkloadPort>,
    #[serde(default, skip_serializing_if = "Locality::is_unknown")]
    locality: Locality,
}

impl From<super::Workload> for Workload {
    fn from(workload: super::Workload) -> Self {
        let first = workload.first_service().cloned();
        let identity = identity_of(&workload.namespace, &workload.services);
        let identity = (workload.identity != identity).then_some(workload.identity);
        let services = match workload.services.len() {
            0 | 1 => BTreeSet::new(),
            _ => workload.services,
        };
        Self {
            id: workload.id,
            name: workload.name,
            namespace: workload.namespace,
            service: first,
            services,
            identity,
            version: workload.version,
            labels: workload.labels,
            ipv4: workload.addresses.v4(),
            ipv6: workload.addresses.v6(),
            ports: workload.ports,
            locality: workload.locality,
        }
    }
}

impl TryFrom<Workload> for super::Workload {
    type Error = &'static str;

    fn try_from(form: Workload) -> Result<Self, Self::Error> {
        let services: BTreeSet<_> = form.services.into_iter().chain(form.service).collect();
        let identity = form.identity;
        Ok(Self {
            identity: identity.unwrap_or_else(|| identity_of(&form.namespace, &services)),
            id: form.id,
            name: form.name,
            namespace: form.namespace,
            services,
            version: form.version,
            labels: form.labels,
            addresses: Addresses::new(form.ipv4, form.ipv6)
                .ok_or("neither `ipv4` nor `ipv6` is there")?,
            ports: form.ports,
            locality: form.locality,
        })
    }
}

/// Who a workload is on one machine: its service, or nobody in particular.
fn identity_of(namespace: &str, services: &BTreeSet<ServiceName>) -> Identity {
    let service = services.first().map(|service| service.name.as_str());
    Identity::local(namespace, service.unwrap_or(DEFAULT_SERVICE_ACCOUNT))
}

#[cfg(test)]
mod tests {
    use super::super::{Service, ServicePort, TargetPort, Workload};
    use super::*;

    /// A workload as the version before wrote it.
    const WORKLOAD: &str = r#"{"id":"web-1","name":"web-v1","namespace":"shop",
        "service":{"namespace":"shop","name":"web"},"version":"v1","labels":{"app":"web"},
        "ipv4":"240.241.0.10","ipv6":"fd68::a",
        "ports":{"80":{"number":80,"name":"http","protocol":"http","state":"ready"}}}"#;
    /// A service likewise.
    const SERVICE: &str = r#"{"name":{"namespace":"shop","name":"web"},"vip_v4":"240.240.0.10",
        "vip_v6":"fd68::1","ports":{"80":{"number":80,"name":"http","protocol":"http"}}}"#;

    fn plain(text: &str) -> String {
        text.split_whitespace().collect()
    }

    #[test]
    fn what_one_machine_has_reads_and_writes_as_it_always_did() {
        let workload: Workload = serde_json::from_str(WORKLOAD).unwrap();
        assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(workload.services.len(), 1);
        assert_eq!(serde_json::to_string(&workload).unwrap(), plain(WORKLOAD));
        let service: Service = serde_json::from_str(SERVICE).unwrap();
        assert_eq!(service.ports[&80].target, TargetPort::Number(80));
        assert_eq!(serde_json::to_string(&service).unwrap(), plain(SERVICE));
    }

    #[test]
    fn what_only_kubernetes_has_survives() {
        let mut workload: Workload = serde_json::from_str(WORKLOAD).unwrap();
        workload.services.insert(ServiceName::new("all", "shop").unwrap());
        workload.identity.service_account = "frontend".to_owned();
        workload.addresses = Addresses::V6("fd68::a".parse().unwrap());
        workload.locality =
            Locality { node: "one".to_owned(), zone: "a".to_owned(), ..Locality::default() };
        let read = serde_json::from_str(&serde_json::to_string(&workload).unwrap()).unwrap();
        assert_eq!(workload, read);
        workload.services.clear();
        let read = serde_json::from_str(&serde_json::to_string(&workload).unwrap()).unwrap();
        assert_eq!(workload, read);

        let mut service: Service = serde_json::from_str(SERVICE).unwrap();
        for target in [TargetPort::Number(8080), TargetPort::Name("web".to_owned())] {
            let port = ServicePort { target, ..service.ports[&80].clone() };
            service.ports.insert(80, port);
            service.vips.push("10.0.0.1".parse().unwrap());
            let read = serde_json::from_str(&serde_json::to_string(&service).unwrap()).unwrap();
            assert_eq!(service, read);
        }
        service.vips.clear();
        let read = serde_json::from_str(&serde_json::to_string(&service).unwrap()).unwrap();
        assert_eq!(service, read);
    }

    #[test]
    fn a_workload_without_any_address_is_refused() {
        let text = plain(WORKLOAD).replace(r#""ipv4":"240.241.0.10","ipv6":"fd68::a","#, "");
        let refused = serde_json::from_str::<Workload>(&text).unwrap_err();
        assert!(refused.to_string().contains("neither `ipv4` nor `ipv6`"), "{refused}");
    }
}
