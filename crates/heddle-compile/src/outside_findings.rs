//! The analyzers of ServiceEntries, WorkloadEntries and Sidecars.

use std::collections::BTreeSet;

use heddle_model::{
    Registry, ServiceName,
    name::service_suffix,
    registry::carries,
    resource::{EndpointAddress, Resource, Sidecar, WorkloadEntry},
};

use crate::{
    client::Client,
    entries::{Entry, entry_service},
    finding::{Finding, FindingKind},
    named::named,
    reference::namespaces,
    rules::RuleIndex,
};

impl RuleIndex {
    /// What is worth saying about the outside. `registry` has the services of all entries.
    pub(crate) fn outside_findings(&self, registry: &Registry) -> Vec<Finding> {
        let mut found = Vec::new();
        for entry in self.entries() {
            found.extend(lost_hosts(entry, registry));
            found.extend(absent_endpoints(entry, registry));
        }
        for (resource, workload) in self.workload_entries() {
            found.extend(self.nobody_selects(resource, workload));
        }
        for (resource, sidecar) in self.sidecars() {
            found.extend(self.second_sidecar(resource, sidecar));
        }
        found
    }

    fn nobody_selects(&self, resource: &Resource, workload: &WorkloadEntry) -> Option<Finding> {
        let namespace = &resource.key.namespace;
        let mut entries = self.entries().filter(|one| one.resource.key.namespace == *namespace);
        let selects = |one: Entry<'_>| {
            let selector = one.entry.selector.as_ref();
            selector.is_some_and(|labels| carries(&workload.endpoint.labels, labels))
        };
        if entries.any(selects) {
            return None;
        }
        let text = format!(
            "no ServiceEntry of `{namespace}` selects it by its labels (`workloadSelector`): nothing calls it"
        );
        let place = (workload.endpoint.line, "spec.labels".to_owned());
        Some(Finding::new(resource, place, FindingKind::NoEffect, text))
    }

    fn second_sidecar(&self, resource: &Resource, sidecar: &Sidecar) -> Option<Finding> {
        let mut before = self.sidecars().take_while(|(other, _)| other.key != resource.key);
        let (first, _) = before.find(|(other, one)| {
            other.key.namespace == resource.key.namespace && one.selector == sidecar.selector
        })?;
        let text = format!(
            "{} is for the same workloads and came first: this one has no effect; put both into one",
            first.key
        );
        let place = (resource.origin.line, "spec.workloadSelector".to_owned());
        Some(Finding::new(resource, place, FindingKind::Conflict, text))
    }
}

/// Hosts that another entry, or a service of the mesh, has for some of those who see this one.
fn lost_hosts(entry: Entry<'_>, registry: &Registry) -> Vec<Finding> {
    let key = &entry.resource.key;
    let export_to = match &entry.entry.export_to[..] {
        [] => vec![".".to_owned()],
        given => given.to_vec(),
    };
    let mut known = namespaces(registry);
    known.insert(&key.namespace);
    let seeing: BTreeSet<&str> = known
        .into_iter()
        .filter(|namespace| Client::any_of(namespace).sees(&key.namespace, &export_to))
        .collect();
    let mut found = Vec::new();
    for (i, host) in entry.entry.hosts.iter().enumerate() {
        let Some(own) = entry_service(&host.host, &key.namespace) else { continue };
        let winner = seeing.iter().find_map(|namespace| {
            let winner = &named(registry, namespace, &host.host)?.name;
            winner_of(registry, winner, &own, entry).map(|by| (by, *namespace))
        });
        let Some((winner, namespace)) = winner else { continue };
        let text = format!(
            "{winner} also names `{}` and wins for clients of `{namespace}` (a service of the mesh first, then an entry of the client's own namespace, then one exported to it by name; among equals applied ones by age, then files by path). Entries are not merged: put their ports and endpoints into one",
            host.host
        );
        let place = (host.line, format!("spec.hosts[{i}]"));
        found.push(Finding::new(entry.resource, place, FindingKind::Conflict, text));
    }
    found
}

/// Who has the host, if not this entry.
fn winner_of(
    registry: &Registry,
    winner: &ServiceName,
    own: &ServiceName,
    entry: Entry<'_>,
) -> Option<String> {
    match registry.outside.get(winner) {
        None => Some(format!("the service `{winner}`")),
        Some(outside) if outside.key == entry.resource.key && winner == own => None,
        Some(outside) => Some(outside.key.to_string()),
    }
}

/// Endpoints that name a service of the mesh that is not there.
fn absent_endpoints(entry: Entry<'_>, registry: &Registry) -> Vec<Finding> {
    let mut found = Vec::new();
    for (i, endpoint) in entry.entry.endpoints.iter().enumerate() {
        let EndpointAddress::Host(host) = &endpoint.address else { continue };
        let name = ServiceName::resolve(host, "").ok().filter(|_| host.ends_with(service_suffix()));
        let Some(name) = name.filter(|name| !registry.services.contains_key(name)) else {
            continue;
        };
        let text = format!("there is no service `{name}`: nobody outside knows that name either");
        let place = (endpoint.line, format!("spec.endpoints[{i}].address"));
        found.push(Finding::new(entry.resource, place, FindingKind::Dangling, text));
    }
    found
}
