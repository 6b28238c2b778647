//! `/config_dump`: what is in force, as JSON for people.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Shared,
    snapshot::{AddressOwner, Cluster, DestinationPlan, PortPlan, Snapshot},
};

/// Everything in force.
#[derive(Serialize)]
struct Dump {
    mesh: String,
    workload: String,
    generation: u64,
    control_plane: &'static str,
    last_refusal: Option<String>,
    inbound: Vec<InboundPort>,
    destinations: BTreeMap<String, DestinationDump>,
    addresses: BTreeMap<String, String>,
    names: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct InboundPort {
    number: u16,
    protocol: String,
    services: Vec<String>,
    listening: bool,
}

#[derive(Serialize)]
struct DestinationDump {
    vips: Vec<String>,
    ports: BTreeMap<u16, Port>,
}

#[derive(Serialize)]
struct Port {
    name: String,
    protocol: String,
    endpoints: Vec<EndpointDump>,
    rules: Vec<Rule>,
    tcp: Vec<Target>,
}

#[derive(Serialize)]
struct Rule {
    provenance: String,
    fault: Option<String>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    service: String,
    subset: Option<String>,
    port: u16,
    weight: u32,
    dangling: Option<String>,
    endpoints: Vec<String>,
}

#[derive(Serialize)]
struct EndpointDump {
    workload: String,
    version: String,
    address: String,
    weight: u32,
}

/// The dump as text.
pub(super) fn of(shared: &Shared) -> String {
    let snapshot = shared.snapshot.load_full();
    let dump = Dump {
        mesh: shared.config.mesh.clone(),
        workload: shared.config.workload.to_string(),
        generation: snapshot.generation,
        control_plane: if shared.lookup.is_down() { "unreachable" } else { "connected" },
        last_refusal: shared.last_refusal.load().as_deref().cloned(),
        inbound: inbound(shared, &snapshot),
        destinations: snapshot
            .destinations()
            .map(|plan| (plan.service().fqdn(), destination(plan)))
            .collect(),
        addresses: snapshot
            .addresses()
            .map(|(ip, owner)| (ip.to_string(), owner_text(owner)))
            .collect(),
        names: snapshot
            .names()
            .map(|answer| {
                let service = answer.service.as_ref().map(|service| service.name.fqdn());
                (format!("{}/{}", answer.namespace, answer.host), service)
            })
            .collect(),
    };
    serde_json::to_string_pretty(&dump).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn inbound(shared: &Shared, snapshot: &Snapshot) -> Vec<InboundPort> {
    let listening = shared.listening.load();
    let ports = snapshot.inbound.iter().flat_map(|plan| &plan.inbound.ports);
    ports
        .map(|port| InboundPort {
            number: port.number,
            protocol: port.protocol.to_string(),
            services: port.services.iter().map(|one| one.service.to_string()).collect(),
            listening: listening.has(port.number),
        })
        .collect()
}

fn owner_text(owner: &AddressOwner) -> String {
    match owner {
        AddressOwner::Service(service) => format!("service {service}"),
        AddressOwner::Workload(workload) => format!("workload {}", workload.id),
        AddressOwner::NotKnown => "not in this mesh".into(),
    }
}

fn destination(plan: &DestinationPlan) -> DestinationDump {
    DestinationDump {
        vips: plan.destination.vips.iter().map(ToString::to_string).collect(),
        ports: plan.ports().map(|port| (port.number, port_dump(port))).collect(),
    }
}

fn port_dump(port: &PortPlan) -> Port {
    let rules = port.routes.rules().iter().map(|rule| Rule {
        provenance: rule.provenance().0.clone(),
        fault: rule.fault().map(|fault| format!("{fault:?}")),
        targets: rule
            .targets()
            .iter()
            .enumerate()
            .map(|(index, one)| target(one, port.http_cluster(rule.index(), index).map(|c| &**c)))
            .collect(),
    });
    let tcp = port.tcp.iter().enumerate();
    Port {
        name: port.name.clone(),
        protocol: port.protocol.to_string(),
        endpoints: port
            .default
            .endpoints
            .iter()
            .map(|one| EndpointDump {
                workload: one.id().to_string(),
                version: one.workload.version.clone(),
                address: one.address().to_string(),
                weight: one.weight,
            })
            .collect(),
        rules: rules.collect(),
        tcp: tcp.map(|(index, one)| target(one, port.tcp_cluster(index).map(|c| &**c))).collect(),
    }
}

fn target(one: &heddle_model::discovery::WeightedTarget, cluster: Option<&Cluster>) -> Target {
    let endpoints = cluster.map(|cluster| &cluster.endpoints);
    Target {
        service: one.service.fqdn(),
        subset: one.subset.as_ref().map(|subset| subset.name.clone()),
        port: one.port,
        weight: one.weight,
        dangling: one.dangling.clone(),
        endpoints: endpoints.into_iter().flatten().map(|one| one.id().to_string()).collect(),
    }
}
