//! `/config_dump`: what is in force, as JSON for people.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::discovery::{Traffic, Weighted};
use serde::Serialize;

use crate::{
    Shared,
    breaker::Ejected,
    snapshot::{
        ActionPlan, AddressOwner, Cluster, DestinationPlan, PortPlan, Snapshot, TargetPlan,
    },
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
    ejected: Vec<EjectedDump>,
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

/// An endpoint that is out for its errors.
#[derive(Serialize)]
struct EjectedDump {
    service: String,
    subset: Option<String>,
    port: u16,
    workload: String,
    address: String,
    reason: &'static str,
    rule: String,
    since_unix_seconds: u64,
    until_unix_seconds: u64,
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
    /// How one of them is chosen, where a rule says so.
    balancing: Option<BalancingDump>,
    endpoints: Vec<EndpointDump>,
    rules: Vec<Rule>,
    tcp: Vec<Target>,
    sni: Vec<SniDump>,
}

#[derive(Serialize)]
struct SniDump {
    provenance: String,
    names: Vec<String>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Rule {
    provenance: String,
    fault: Option<String>,
    refuses: Option<String>,
    /// What else it does with requests, if anything.
    does: Option<String>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    service: Option<String>,
    subset: Option<String>,
    port: Option<u16>,
    weight: u32,
    dangling: Option<String>,
    balancing: Option<BalancingDump>,
    endpoints: Vec<String>,
    /// The TLS that is begun towards them; of files, where they are.
    tls: Option<String>,
}

#[derive(Serialize)]
struct BalancingDump {
    rule: String,
    /// Workloads that are used alike, the first first unless they have shares.
    groups: Vec<Vec<String>>,
    shares: Option<Vec<u32>>,
    /// What goes to each zone of the first group, which are the last of the groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    zones: Vec<f64>,
}

#[derive(Serialize)]
struct EndpointDump {
    workload: String,
    version: String,
    address: String,
    weight: u32,
    tls: Option<String>,
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
        ejected: shared.state.breakers.ejected().into_iter().map(ejected).collect(),
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
            services: {
                let services: BTreeSet<_> = port.services.iter().map(|one| &one.service).collect();
                services.into_iter().map(ToString::to_string).collect()
            },
            listening: listening.has(port.number),
        })
        .collect()
}

fn ejected(one: Ejected) -> EjectedDump {
    EjectedDump {
        service: one.cluster.service.fqdn(),
        subset: one.cluster.subset.map(|subset| subset.name),
        port: one.cluster.port,
        workload: one.workload.to_string(),
        address: one.address.to_string(),
        reason: one.reason,
        rule: one.rule,
        since_unix_seconds: one.since.as_secs(),
        until_unix_seconds: one.until.as_secs(),
    }
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
        vips: plan.vips().iter().map(ToString::to_string).collect(),
        ports: plan.ports().map(|port| (port.number, port_dump(port))).collect(),
    }
}

fn port_dump(port: &PortPlan) -> Port {
    let rules = port.http.rules().iter().map(|plan| Rule {
        provenance: plan.compiled.rule.provenance.0.clone(),
        fault: plan.compiled.rule.fault.as_ref().map(|fault| format!("{fault:?}")),
        refuses: match &plan.action {
            // An own answer goes before it.
            ActionPlan::Refuse(reason) if plan.compiled.rule.traffic.answer.is_none() => {
                Some(reason.clone())
            }
            ActionPlan::Refuse(_) | ActionPlan::Forward(_) => None,
        },
        does: Some(&plan.compiled.rule.traffic)
            .filter(|traffic| **traffic != Traffic::default())
            .map(|traffic| format!("{traffic:?}")),
        targets: plan.targets().iter().map(target).collect(),
    });
    let sni = port.sni.iter().map(|plan| SniDump {
        provenance: plan.rule.provenance.0.clone(),
        names: plan.rule.names.clone(),
        targets: plan.targets.iter().map(target).collect(),
    });
    Port {
        name: port.name.clone(),
        protocol: port.protocol.to_string(),
        balancing: balancing(&port.default),
        endpoints: port
            .default
            .endpoints
            .iter()
            .map(|one| EndpointDump {
                workload: one.id().to_string(),
                version: one.workload.version.clone(),
                address: one.address().to_string(),
                weight: one.weight,
                tls: one.tls.as_ref().map(|tls| format!("{:?}", tls.settings())),
            })
            .collect(),
        rules: rules.collect(),
        tcp: port.tcp.iter().map(target).collect(),
        sni: sni.collect(),
    }
}

fn balancing(cluster: &Cluster) -> Option<BalancingDump> {
    let balancer = cluster.balancer.as_ref()?;
    let name = |at: &usize| Some(cluster.endpoints.get(*at)?.id().to_string());
    let groups = balancer.groups().iter();
    Some(BalancingDump {
        rule: format!("{:?}", balancer.rule()),
        shares: balancer.by_share().then(|| groups.clone().map(|one| one.share).collect()),
        groups: groups.map(|one| one.members.iter().filter_map(name).collect()).collect(),
        zones: balancer.zone_shares().to_vec(),
    })
}

fn target(one: &Weighted<TargetPlan>) -> Target {
    let (cluster, dangling) = match one.to.get() {
        Ok(cluster) => (Some(cluster), None),
        Err(reason) => (None, Some(reason.to_owned())),
    };
    let key = cluster.map(|cluster| &cluster.key);
    let tls = cluster.and_then(|cluster| cluster.tls.as_ref());
    let endpoints = cluster.into_iter().flat_map(|cluster| &cluster.endpoints);
    Target {
        service: key.map(|key| key.service.fqdn()),
        subset: key.and_then(|key| Some(key.subset.as_ref()?.name.clone())),
        port: key.map(|key| key.port),
        weight: one.weight,
        dangling,
        balancing: cluster.and_then(|one| balancing(one)),
        endpoints: endpoints.map(|one| one.id().to_string()).collect(),
        tls: tls.map(|tls| format!("{:?}", tls.settings())),
    }
}
