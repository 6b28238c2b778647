//! What resources name, and which edits would leave a live reference naming nothing.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    Registry,
    resource::{Delegate, Resource, RouteDestination, Spec},
};

use crate::{
    client::Client,
    finding::{Finding, FindingKind},
    host::Host,
    rules::{Routing, RuleIndex},
    target::Scope,
};

/// A destination that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Field path, e.g. `spec.http[0].route[1].destination`.
    pub field: String,
    /// As written.
    pub to: RouteDestination,
}

/// Everything a resource names: the destinations of a VirtualService, those of copies among them.
#[must_use]
pub fn references(resource: &Resource) -> Vec<Reference> {
    let Spec::VirtualService(rule) = &resource.spec else { return Vec::new() };
    let http = rule.http.iter().map(|route| &route.route).enumerate();
    let tcp = rule.tcp.iter().map(|route| &route.route).enumerate();
    let tls = rule.tls.iter().map(|route| &route.route).enumerate();
    let bytes = tcp.map(|(i, to)| ("tcp", i, to)).chain(tls.map(|(i, to)| ("tls", i, to)));
    let lists = http.map(|(i, to)| ("http", i, to)).chain(bytes);
    let mut found = Vec::new();
    for (list, i, destinations) in lists {
        for (j, to) in destinations.iter().enumerate() {
            let field = format!("spec.{list}[{i}].route[{j}].destination");
            found.push(Reference { field, to: to.clone() });
        }
    }
    for (i, route) in rule.http.iter().enumerate() {
        for (j, mirror) in route.mirrors.iter().enumerate() {
            let field = format!("spec.http[{i}].mirrors[{j}].destination");
            found.push(Reference { field, to: mirror.to.clone() });
        }
    }
    found
}

impl RuleIndex {
    /// References that are live and resolve now, and would name nothing if `after` were in force:
    /// reason to refuse the edit, unless it is forced. A reference that is new, changed or removed
    /// by the same edit is none of them, nor one that is dangling already.
    #[must_use]
    pub fn dangles_after(&self, after: &Self, registry: &Registry) -> Vec<Finding> {
        self.dangles_between(after, registry, registry)
    }

    /// The same for an edit that changes services too: `registry` is what there was before it.
    #[must_use]
    pub fn dangles_between(
        &self,
        after: &Self,
        registry: &Registry,
        registry_after: &Registry,
    ) -> Vec<Finding> {
        let mut found = BTreeSet::new();
        let (registry, registry_after) = (&*self.merged(registry), &*after.merged(registry_after));
        self.routes_dangle_after(after, (registry, registry_after), &mut found);
        let then: BTreeMap<_, _> = after.routings().map(|new| (&new.resource.key, new)).collect();
        let mut known = namespaces(registry);
        for old in self.routings() {
            let Some(&new) = then.get(&old.resource.key) else { continue };
            known.insert(&old.resource.key.namespace);
            found.extend(self.undelegated(after, old, new));
            let kept = references(old.resource);
            let in_both = |one: &Reference| kept.iter().any(|old| same_target(&old.to, &one.to));
            for reference in references(new.resource).into_iter().filter(in_both) {
                let broken = known.iter().find_map(|namespace| {
                    let client = Client::any_of(namespace);
                    let whole = self.resolves(client, registry, old, &reference.to)?.is_ok();
                    let after = after.resolves(client, registry_after, new, &reference.to)?;
                    after.err().filter(|_| whole)
                });
                if let Some(reason) = broken {
                    let place = (reference.to.line, reference.field);
                    let text = format!("{reason}: the edit would leave this without a target");
                    found.insert(Finding::new(new.resource, place, FindingKind::Dangling, text));
                }
            }
        }
        found.into_iter().collect()
    }

    /// Delegates that are there now and would be no more.
    fn undelegated(&self, after: &Self, old: Routing<'_>, new: Routing<'_>) -> Vec<Finding> {
        let named = |delegate: &Delegate| (delegate.name.clone(), delegate.namespace.clone());
        let kept = old.rule.http.iter().filter_map(|route| route.delegate.as_ref());
        let kept: BTreeMap<_, _> = kept.map(|one| (named(one), one)).collect();
        let rules = new.rule.http.iter().enumerate();
        let broken = rules.filter_map(|(i, route)| {
            let delegate = route.delegate.as_ref()?;
            self.delegate(old.resource, kept.get(&named(delegate))?).ok()?;
            let reason = after.delegate(new.resource, delegate).err()?;
            let place = (delegate.line, format!("spec.http[{i}].delegate"));
            let text = format!("{reason}: the edit would leave this without a target");
            Some(Finding::new(new.resource, place, FindingKind::Dangling, text))
        });
        broken.collect()
    }

    /// Does a destination resolve? `None` if the rule that names it governs nothing for the client.
    fn resolves(
        &self,
        client: Client<'_>,
        registry: &Registry,
        routing: Routing<'_>,
        to: &RouteDestination,
    ) -> Option<Result<(), String>> {
        let namespace = &routing.resource.key.namespace;
        let wins = |host: &String| {
            let winner = self.winner(client, &Host::read(host, namespace));
            winner.is_some_and(|winner| winner.position == routing.position)
        };
        let live = match routing.rule.hosts.is_empty() {
            true => self.is_delegated_to(routing.resource),
            false => routing.rule.hosts.iter().any(wins),
        };
        let scope = Scope { index: self, registry, client, namespace };
        live.then(|| scope.resolve(to, None).map(|_| ()))
    }
}

fn same_target(a: &RouteDestination, b: &RouteDestination) -> bool {
    (&a.host, &a.subset, a.port) == (&b.host, &b.subset, b.port)
}

/// Namespaces from which calls can come: those of all workloads.
pub(crate) fn namespaces(registry: &Registry) -> BTreeSet<&str> {
    registry.workloads.values().map(|workload| workload.namespace.as_str()).collect()
}
