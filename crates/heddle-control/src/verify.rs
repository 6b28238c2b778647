//! "Accepted here" means "loads in the proxy": what a set of rules would send is encoded, decoded
//! again and its route tables built, with the code the proxies use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use heddle_compile::{Client, Compiled, View};
use heddle_logic::RouteTable;
use heddle_model::{Destination, Protocol, Registry, Service, ServicePort, discovery::Provenance};
use heddle_wire::{
    discovery::{Encode, Resource, decode},
    local::control_api::Problem,
};

/// Port of a service that is named by a rule and not there yet, for verifying the rule all the same.
const PORT_OF_ABSENT: u16 = 80;

/// Verifies everything any client could be sent.
///
/// # Errors
/// One problem per destination that would not load, at the rule's place where that is known.
pub(crate) fn verify(compiled: &Compiled, registry: &Registry) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let registry = with_absent(compiled, registry);
    let of_rules = compiled.resources().iter().map(|resource| resource.key.namespace.as_str());
    let of_workloads = registry.workloads.values().map(|workload| workload.namespace.as_str());
    let namespaces: BTreeSet<&str> = of_rules.chain(of_workloads).collect();
    let anybody = namespaces.into_iter().map(Client::any_of);
    let mut clients: BTreeMap<View, Client<'_>> = BTreeMap::new();
    for client in registry.workloads.values().map(Client::from).chain(anybody) {
        clients.entry(compiled.view(client)).or_insert(client);
    }
    for client in clients.into_values() {
        for service in registry.services.keys() {
            let Some(destination) = compiled.destination(&registry, client, service) else {
                continue;
            };
            if let Err(fault) = load(&destination) {
                let problem = fault.problem(compiled);
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Why a proxy would not take a destination.
struct Fault {
    rule: Option<Provenance>,
    reason: String,
}

/// What a proxy does with a destination it is sent.
fn load(destination: &Destination) -> Result<(), Fault> {
    let fault = |reason: String| Fault { rule: None, reason };
    let bytes = destination.encode();
    let decoded = decode(destination.kind().type_url(), &destination.name(), &bytes)
        .map_err(|error| fault(error.to_string()))?;
    let Resource::Destination(decoded) = decoded else {
        return Err(fault("it decodes as something else".to_owned()));
    };
    if decoded != *destination {
        return Err(fault(format!("{} changes on its way to the proxy", destination.service)));
    }
    for port in &decoded.ports {
        RouteTable::build(port).map_err(|error| Fault {
            rule: Some(error.provenance.clone()),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

impl Fault {
    fn problem(self, compiled: &Compiled) -> Problem {
        let rule = self.rule.map(|rule| rule.0).unwrap_or_default();
        let key = rule.split('#').next().unwrap_or_default();
        let resource = compiled.resources().iter().find(|r| r.key.to_string() == key);
        Problem {
            file: resource.map(|resource| resource.origin.file.clone()),
            line: resource.map(|resource| resource.origin.line),
            field: None,
            reason: format!("a proxy would refuse this: {}", self.reason),
        }
    }
}

/// The registry with a stand-in for every service that rules are for and that is not there (yet).
fn with_absent(compiled: &Compiled, registry: &Registry) -> Registry {
    let mut registry = registry.clone();
    for name in compiled.hosts() {
        let port = ServicePort {
            number: PORT_OF_ABSENT,
            name: String::new(),
            protocol: Protocol::Undeclared,
        };
        let absent = Service {
            name: name.clone(),
            vip_v4: Ipv4Addr::UNSPECIFIED,
            vip_v6: Ipv6Addr::UNSPECIFIED,
            ports: BTreeMap::from([(PORT_OF_ABSENT, port)]),
        };
        registry.services.entry(name).or_insert(absent);
    }
    registry
}
