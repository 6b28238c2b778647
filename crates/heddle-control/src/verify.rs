//! "Accepted here" means "loads in the proxy": what a set of rules would send is encoded, decoded
//! again and its matchers built, with the code the proxies use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use heddle_compile::{Client, RuleIndex, View, endpoints};
use heddle_logic::{Matcher, PortFaults, RouteError, RulePlan, fault::Now};
use heddle_model::{
    Destination, Protocol, Registry, Service, ServiceName, ServicePort, TargetPort, Workload,
    WorkloadId,
    discovery::{PortFault, Provenance},
    resource::{Origin, Resource as Rule, Spec},
};
use heddle_runtime::clock;
use heddle_wire::{
    discovery::{Resource, WireResource, decode},
    local::control_api::Problem,
};

use crate::limits::DESTINATION_BYTES_MAX;

/// Port of a service that is named by a rule and not there yet, for verifying the rule all the same.
const PORT_OF_ABSENT: u16 = 80;

/// Verifies everything any client could be sent.
///
/// # Errors
/// One problem per destination that would not load, at the rule's place where that is known.
pub(crate) fn verify(index: &RuleIndex, registry: &Registry) -> Result<(), Vec<Problem>> {
    let registry = with_absent(index, index.with_entries(registry, &|_| Vec::new()).into_owned());
    let mut faults = destinations(index, &registry, &registry.workloads, registry.services.keys());
    faults.extend(entries(&registry, registry.outside.keys()));
    faults.extend(server_faults(index));
    told(index, faults)
}

/// Verifies what clients could be sent of the services that `changed` concerns: rules of a mesh that was
/// verified before, as they were and as they are now.
///
/// # Errors
/// As for [`verify`].
pub(crate) fn verify_changed(
    index: &RuleIndex,
    registry: &Registry,
    changed: &[Arc<Rule>],
) -> Result<(), Vec<Problem>> {
    // Rules are about services; a mesh has far more workloads.
    let mut small = Registry {
        services: registry.services.clone(),
        outside: registry.outside.clone(),
        ..Registry::default()
    };
    index.put_entries(&mut small, &mut |_| Vec::new());
    let small = with_absent(index, small);
    let concerned = index.concerned_by(changed, &small);
    let mut faults = destinations(index, &small, &registry.workloads, concerned.iter());
    faults.extend(entries(&small, concerned.iter()));
    if changed.iter().any(|one| matches!(one.spec, Spec::Fault(_))) {
        faults.extend(server_faults(index));
    }
    told(index, faults)
}

type Workloads = BTreeMap<WorkloadId, Workload>;

/// What is wrong with these services as any client sees them.
fn destinations<'a>(
    index: &RuleIndex,
    registry: &Registry,
    workloads: &Workloads,
    services: impl Iterator<Item = &'a ServiceName> + Clone,
) -> BTreeSet<Fault> {
    let mut faults = BTreeSet::new();
    let of_rules = index.resources().iter().map(|resource| resource.key.namespace.as_str());
    let of_workloads = workloads.values().map(|workload| workload.namespace.as_str());
    let namespaces: BTreeSet<&str> = of_rules.chain(of_workloads).collect();
    let anybody = namespaces.into_iter().map(Client::any_of);
    let mut clients: BTreeMap<View, Client<'_>> = BTreeMap::new();
    for client in workloads.values().map(Client::from).chain(anybody) {
        clients.entry(index.view(client)).or_insert(client);
    }
    for client in clients.into_values() {
        let by_rules = index.ruled_hosts(registry, client);
        for service in services.clone().cloned().chain(by_rules) {
            let Some(destination) = index.destination(registry, client, &service) else {
                continue;
            };
            if let Err(mut fault) = load(&destination) {
                if fault.resource.is_empty() {
                    let governing = index.governing(client, &service);
                    fault.resource = governing.map(ToString::to_string).unwrap_or_default();
                }
                faults.insert(fault);
            }
        }
    }
    faults
}

/// What is wrong with the endpoints of entries.
fn entries<'a>(
    registry: &Registry,
    services: impl Iterator<Item = &'a ServiceName>,
) -> BTreeSet<Fault> {
    let wrong = |service: &ServiceName| {
        let outside = registry.outside.get(service)?;
        let reason = loaded(&endpoints(registry, service)?).err()?;
        Some(Fault { resource: outside.key.to_string(), reason })
    };
    services.filter_map(wrong).collect()
}

/// What is wrong with what workloads inject themselves, which depends on none of them.
fn server_faults(index: &RuleIndex) -> impl Iterator<Item = Fault> {
    index.server_faults().filter_map(|fault| builds(&[fault]).err())
}

fn told(index: &RuleIndex, faults: BTreeSet<Fault>) -> Result<(), Vec<Problem>> {
    if faults.is_empty() {
        return Ok(());
    }
    let by_key = |resource: &Arc<Rule>| (resource.key.to_string(), resource.origin.clone());
    let places: BTreeMap<String, Origin> = index.resources().iter().map(by_key).collect();
    Err(faults.into_iter().map(|fault| fault.problem(&places)).collect())
}

/// Why a proxy would not take a destination. Clients that see the same rule have the same fault.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    /// The resource it is in; empty if that is not known.
    resource: String,
    reason: String,
}

/// What a proxy does with a destination it is sent.
fn load(destination: &Destination) -> Result<(), Fault> {
    let fault = |reason: String| Fault { resource: String::new(), reason };
    let bytes = destination.encode();
    if bytes.len() > DESTINATION_BYTES_MAX {
        return Err(fault(format!(
            "the rules of {} come to {} bytes, more than the {DESTINATION_BYTES_MAX} that are sent at once: use fewer or shorter ones",
            destination.service,
            bytes.len()
        )));
    }
    let Resource::Destination(decoded) = loaded(destination).map_err(fault)? else {
        return Err(fault("it decodes as something else".to_owned()));
    };
    if decoded != *destination {
        return Err(fault(format!("{} changes on its way to the proxy", destination.service)));
    }
    for rule in decoded.every_port().flat_map(|port| &port.http) {
        let built = Matcher::build(rule).and_then(|_| RulePlan::build(rule));
        built.map_err(of_rule)?;
    }
    for port in &decoded.ports {
        builds(&port.faults)?;
    }
    Ok(())
}

/// A resource as it comes out at a proxy.
fn loaded(resource: &impl WireResource) -> Result<Resource, String> {
    let bytes = resource.encode();
    decode(resource.kind().type_url(), &resource.name(), &bytes).map_err(|error| error.to_string())
}

/// Would a proxy take these faults?
fn builds(faults: &[PortFault]) -> Result<(), Fault> {
    let now = Now { unix: clock::unix_now().as_secs(), instant: clock::now() };
    PortFaults::build(faults, now).map(drop).map_err(of_rule)
}

fn of_rule(error: RouteError) -> Fault {
    Fault { resource: resource_of(&error.provenance), reason: error.to_string() }
}

impl Fault {
    fn problem(self, places: &BTreeMap<String, Origin>) -> Problem {
        let origin = places.get(&self.resource);
        Problem {
            file: origin.map(|origin| origin.file.clone()),
            line: origin.map(|origin| origin.line),
            field: None,
            reason: format!("a proxy would refuse this: {}", self.reason),
        }
    }
}

/// The resource a rule is part of, as its key is displayed.
fn resource_of(rule: &Provenance) -> String {
    rule.0.split('#').next().unwrap_or_default().to_owned()
}

/// The registry with a stand-in for every service that rules are for and that is not there (yet).
fn with_absent(index: &RuleIndex, mut registry: Registry) -> Registry {
    for name in index.hosts() {
        let port = ServicePort {
            number: PORT_OF_ABSENT,
            name: String::new(),
            protocol: Protocol::Undeclared,
            target: TargetPort::Number(PORT_OF_ABSENT),
        };
        let absent = Service {
            name: name.clone(),
            vips: Vec::new(),
            ports: BTreeMap::from([(PORT_OF_ABSENT, port)]),
        };
        registry.services.entry(name).or_insert(absent);
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::parse;

    #[test]
    fn rules_too_large_for_one_message_are_refused_at_their_place() {
        let labels: String =
            (0..300).map(|n| format!("{}{n}: {}, ", "k".repeat(50), "v".repeat(60))).collect();
        let route = "  - route: [{destination: {host: reviews, subset: v1}}]\n    match: [{uri: {prefix: /a}}]\n";
        let text = |routes: usize| {
            let head = "apiVersion: networking.istio.io/v1\n";
            format!(
                "{head}kind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: reviews, subsets: [{{name: v1, labels: {{{labels}}}}}]}}\n---\n{head}kind: VirtualService\nmetadata: {{name: r}}\nspec:\n  hosts: [reviews]\n  http:\n{}",
                route.repeat(routes)
            )
        };
        let check = |routes: usize| {
            let resources = parse("big.yaml", &text(routes), "default").unwrap().resources;
            let resources: Vec<_> = resources.into_iter().map(Arc::new).collect();
            verify(&RuleIndex::new(&resources), &Registry::default())
        };
        assert_eq!(check(10), Ok(()));
        let problems = check(300).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((problems[0].file.as_deref(), problems[0].line), (Some("big.yaml"), Some(6)));
        assert!(problems[0].reason.contains("more than the 8388608"), "{problems:?}");
    }
}
