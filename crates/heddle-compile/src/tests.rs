//! Rules against a registry like the demo's: what clients are told, and what is said about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use heddle_model::{
    Addresses, Destination, EndpointPort, EndpointState, Identity, Locality, Owner, Protocol,
    Registry, ResourceKey, Service, ServiceName, ServicePort, ServicePortRef, TargetPort, Workload,
    WorkloadId, WorkloadPort,
    discovery::{ClusterKey, Provenance, RuleAction, Target, WeightedTarget},
    resource::{Resource, Spec},
    yaml,
};

use super::*;

mod by_host;
mod conflicts;
mod delegates;
mod examples;
mod faults;
mod gateway;
mod outside;
mod policies;
mod properties;
mod registry;
mod rules;
mod said;
mod telemetry;
mod tls;
mod traffic;

fn name(service: &str) -> ServiceName {
    ServiceName::resolve(service, "default").unwrap()
}

/// A registry built member by member.
#[derive(Default)]
struct Mesh(Registry);

impl Mesh {
    /// The demo: every service with its versions and ports.
    fn demo() -> Self {
        let http = Protocol::Http;
        Self::default()
            .joins("frontend", "v1", &[(80, http)])
            .joins("restaurants", "v1", &[(80, Protocol::Undeclared)])
            .joins("reviews", "v1", &[(80, http)])
            .joins("reviews", "v2", &[(80, http)])
            .joins("reviews", "v3", &[(80, http)])
            .joins("photos", "v1", &[(80, Protocol::Undeclared)])
            .joins("ratings", "v1", &[(80, http)])
            .joins("store", "v1", &[(6379, Protocol::Undeclared)])
            .joins("loadgen", "v1", &[])
    }

    fn joins(mut self, service: &str, version: &str, ports: &[(u16, Protocol)]) -> Self {
        let service = name(service);
        let number = u8::try_from(self.0.workloads.len() + 10).unwrap();
        let named = |(number, protocol): &(u16, Protocol)| ServicePort {
            number: *number,
            name: String::new(),
            protocol: *protocol,
            target: TargetPort::Number(*number),
        };
        let id = WorkloadId(format!("{}-{version}-{number}", service.name));
        let labels = [("app", service.name.as_str()), ("version", version)];
        let workload = Workload {
            id: id.clone(),
            name: format!("{}-{version}", service.name),
            namespace: service.namespace.clone(),
            identity: Identity::local(&service.namespace, &service.name),
            services: BTreeSet::from([service.clone()]),
            version: version.to_owned(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            addresses: Addresses::Both(
                Ipv4Addr::new(240, 241, 0, number),
                Ipv6Addr::new(0xfd68, 0, 0, 1, 0, 0, 0, number.into()),
            ),
            ports: ports
                .iter()
                .map(|&(number, protocol)| {
                    let state = EndpointState::Ready;
                    (number, WorkloadPort { number, name: String::new(), protocol, state })
                })
                .collect(),
            locality: Locality::default(),
        };
        self.0.workloads.insert(id, workload);
        if !ports.is_empty() {
            let entry = self.0.services.entry(service.clone()).or_insert_with(|| Service {
                name: service,
                vips: vec![
                    Ipv4Addr::new(240, 240, 0, number).into(),
                    Ipv6Addr::new(0xfd68, 0, 0, 0, 0, 0, 0, number.into()).into(),
                ],
                ports: BTreeMap::new(),
            });
            entry.ports.extend(ports.iter().map(|port| (port.0, named(port))));
        }
        self
    }

    /// With the Services that rules declare beside themselves, as the control plane merges them in.
    fn declaring(mut self, rules: &RuleIndex) -> Self {
        for resource in rules.resources() {
            let Spec::Service(object) = &resource.spec else { continue };
            let service = name(&resource.key.name);
            let wanted = object.selector.clone().unwrap_or_default();
            for workload in self.0.workloads.values_mut() {
                if wanted.iter().all(|(key, value)| workload.labels.get(key) == Some(value)) {
                    workload.services.insert(service.clone());
                }
            }
            let (vips, ports) = (Vec::new(), object.ports.clone());
            self.0.services.insert(service.clone(), Service { name: service, vips, ports });
        }
        self
    }

    fn client(&self, service: &str) -> Client<'_> {
        let service = name(service);
        self.0.workloads.values().find(|one| one.services.contains(&service)).unwrap().into()
    }

    /// What `client` is told of `service`.
    fn told(&self, rules: &RuleIndex, client: &str, service: &str) -> Destination {
        rules.destination(&self.0, self.client(client), &name(service)).unwrap()
    }

    /// Findings as `kind field: text`.
    fn said(&self, rules: &RuleIndex) -> Vec<String> {
        let findings = rules.findings(&self.0);
        let line = |one: &Finding| format!("{:?} {}: {}", one.kind, one.field, one.text);
        findings.iter().map(line).collect()
    }
}

/// Reads rules, oldest first.
fn resources(text: &str) -> Vec<Arc<Resource>> {
    match yaml::parse("f.yaml", text, "default") {
        Ok(parsed) => parsed.resources.into_iter().map(Arc::new).collect(),
        Err(errors) => panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()),
    }
}

fn rules(text: &str) -> RuleIndex {
    RuleIndex::new(&resources(text))
}

/// A VirtualService document; `spec` in flow style.
fn virtual_service(named: &str, spec: &str) -> String {
    document("VirtualService", named, spec)
}

/// A DestinationRule document.
fn destination_rule(named: &str, spec: &str) -> String {
    document("DestinationRule", named, spec)
}

/// `named` is `name` or `name.namespace`.
fn document(kind: &str, named: &str, spec: &str) -> String {
    let (name, namespace) = named.split_once('.').unwrap_or((named, "default"));
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

const VERSIONS: &str = "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]}";

/// `service/subset:port=weight`, or the reason after `!`.
fn shown(targets: &[WeightedTarget]) -> Vec<String> {
    let show = |target: &WeightedTarget| match &target.to {
        Target::Dangling(reason) => format!("!{reason}={}", target.weight),
        Target::Cluster(ClusterKey { service, subset, port }) => {
            let subset = subset.as_ref().map_or("*", |subset| &subset.name);
            format!("{}/{subset}:{port}={}", service.name, target.weight)
        }
    };
    targets.iter().map(show).collect()
}
