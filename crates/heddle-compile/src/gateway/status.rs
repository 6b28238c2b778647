//! What is said of routes: the Gateway API's conditions of each parent, and findings.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{
    Registry, ServiceName,
    resource::{BackendRef, MeshRule, ParentRef, RouteKind},
};

use super::{Fault, carries, names_port, resolve};
use crate::{
    finding::{Finding, FindingKind},
    rules::{RouteSource, RuleIndex},
};

/// What a route's parent says of it (`status.parents[]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent as the route names it.
    pub parent: ParentRef,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// One condition. When it came to be so is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: &'static str,
    /// Does it hold?
    pub holds: bool,
    /// The API's word for why.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// What becomes of a route at one parent.
enum Verdict {
    Accepted,
    /// There is no such Service, or it has no such port.
    NoParent(String),
    /// Not on a port that speaks this; the API's word for it first.
    NotCarried(&'static str, String),
    /// Routes of another kind go before it: on all of its ports, or on some.
    Conflicted(String, bool),
}

impl RuleIndex {
    /// What the Services among a route's parents say of it; nothing of any other object.
    #[must_use]
    pub fn route_status(
        &self,
        registry: &Registry,
        key: &heddle_model::ResourceKey,
    ) -> Vec<ParentStatus> {
        let Some(source) = self.routes().find(|one| one.resource.key == *key) else {
            return Vec::new();
        };
        let resolved = resolved_refs(registry, source);
        let parents = source.route.parents.iter().filter(|parent| parent.is_service());
        let status = |parent: &ParentRef| ParentStatus {
            parent: parent.clone(),
            conditions: vec![accepted(self.verdict(registry, source, parent)), resolved.clone()],
        };
        parents.map(status).collect()
    }

    fn verdict(&self, registry: &Registry, source: RouteSource<'_>, parent: &ParentRef) -> Verdict {
        let home = &source.resource.key.namespace;
        let name = parent_name(home, parent);
        let kind = source.route.kind;
        let Some(service) = registry.services.get(&name) else {
            let text = format!("there is no service `{name}`: the route takes force when one is");
            return Verdict::NoParent(text);
        };
        let ports: Vec<_> =
            service.ports.values().filter(|port| names_port(parent, port)).collect();
        if ports.is_empty() {
            return Verdict::NoParent(format!("`{name}` has {}", missing_port(parent)));
        }
        let carrying: Vec<_> = ports.iter().filter(|port| carries(port.protocol, kind)).collect();
        let Some(_) = carrying.first() else {
            let port = ports[0];
            let (reason, declare) = match kind {
                RouteKind::Tls => ("UnsupportedValue", "tls"),
                _ => ("NotAllowedByListeners", "http"),
            };
            let text = format!(
                "port {} of `{name}` is declared {}: a {} has no effect there; declare it {declare}, or use a TCPRoute",
                port.number,
                port.protocol,
                kind.as_str()
            );
            return Verdict::NotCarried(reason, text);
        };
        let lost = carrying.iter().filter_map(|port| {
            let winner = self.attached_from(home, service, port)?;
            let first = winner.routes.first().filter(|_| winner.kind != kind)?;
            Some((port.number, first.resource.key.to_string()))
        });
        let lost: Vec<_> = lost.collect();
        let Some((port, winner)) = lost.first() else { return Verdict::Accepted };
        let text = format!(
            "{winner} is attached to port {port} of `{name}` and wins: on a port one kind applies, GRPCRoute before HTTPRoute before TLSRoute before TCPRoute"
        );
        Verdict::Conflicted(text, lost.len() == carrying.len())
    }

    /// Names that an older route has on some port of this parent, where connections of them go to that one's
    /// backends.
    fn lost_names(
        &self,
        registry: &Registry,
        source: RouteSource<'_>,
        parent: &ParentRef,
    ) -> Option<String> {
        let home = &source.resource.key.namespace;
        let service = registry.services.get(&parent_name(home, parent))?;
        let mut ports = service.ports.values().filter(|port| names_port(parent, port));
        ports.find_map(|port| {
            let attached = self.attached_from(home, service, port)?;
            let mut older =
                attached.routes.iter().take_while(|one| one.position != source.position);
            older.find_map(|one| {
                let lost = source.route.names.iter().find(|name| one.route.names.contains(name))?;
                Some(format!(
                    "{} also names `{lost}` on port {} of `{}` and wins: the older route first",
                    one.resource.key, port.number, service.name
                ))
            })
        })
    }

    /// Backends that routes name now and after an edit, and that would be there no more.
    pub(crate) fn routes_dangle_after(
        &self,
        after: &Self,
        (before_it, after_it): (&Registry, &Registry),
        found: &mut BTreeSet<Finding>,
    ) {
        let before: BTreeMap<_, _> = self.routes().map(|old| (&old.resource.key, old)).collect();
        for new in after.routes() {
            let key = &new.resource.key;
            let Some(&old) = before.get(key) else { continue };
            let named = |to: &BackendRef| {
                (to.group.clone(), to.kind.clone(), to.namespace.clone(), to.name.clone(), to.port)
            };
            let backends = |one: RouteSource<'_>| -> Vec<BackendRef> {
                one.route.rules.iter().flat_map(|rule| rule.backends.clone()).collect()
            };
            let kept: BTreeSet<_> = backends(old).iter().map(named).collect();
            for to in backends(new).into_iter().filter(|to| kept.contains(&named(to))) {
                let whole = resolve(before_it, &key.namespace, &to).is_ok();
                if let (true, Err(fault)) = (whole, resolve(after_it, &key.namespace, &to)) {
                    let text =
                        format!("{}: the edit would leave this without a target", fault.text());
                    let place = (to.line, to.field.clone());
                    found.insert(Finding::new(new.resource, place, FindingKind::Dangling, text));
                }
            }
        }
    }

    /// What is worth saying about routes.
    pub(crate) fn route_findings(&self, registry: &Registry, found: &mut BTreeSet<Finding>) {
        for source in self.routes() {
            let mut say = |place: (usize, String), kind: FindingKind, text: String| {
                found.insert(Finding::new(source.resource, place, kind, text));
            };
            for (i, parent) in source.route.parents.iter().enumerate() {
                if !parent.is_service() {
                    continue;
                }
                let place = (parent.line, format!("spec.parentRefs[{i}]"));
                match self.verdict(registry, source, parent) {
                    Verdict::Accepted => {
                        if let Some(text) = self.lost_names(registry, source, parent) {
                            say(place, FindingKind::Conflict, text);
                        }
                    }
                    Verdict::NoParent(text) => say(place, FindingKind::Dangling, text),
                    Verdict::NotCarried(_, text) => say(place, FindingKind::NoEffect, text),
                    Verdict::Conflicted(text, _) => say(place, FindingKind::Conflict, text),
                }
            }
            for (i, rule) in source.route.rules.iter().enumerate() {
                of_rule(registry, source, (i, rule), &mut say);
            }
        }
    }
}

/// The Service that a parent of a route of namespace `home` is.
fn parent_name(home: &str, parent: &ParentRef) -> ServiceName {
    ServiceName {
        namespace: parent.namespace.as_deref().unwrap_or(home).to_owned(),
        name: parent.name.clone(),
    }
}

/// What is worth saying about one rule.
fn of_rule(
    registry: &Registry,
    source: RouteSource<'_>,
    (i, rule): (usize, &MeshRule),
    say: &mut impl FnMut((usize, String), FindingKind, String),
) {
    let home = &source.resource.key.namespace;
    let (all, refused) = match source.route.kind {
        RouteKind::Grpc | RouteKind::Http => ("requests that match are", "refused with 500"),
        RouteKind::Tls | RouteKind::Tcp => ("connections are", "refused"),
    };
    let place = |line: usize| (line, format!("spec.rules[{i}]"));
    if let Some(filter) = &rule.unknown_filter {
        let text = format!("{} is not carried out: {all} {refused}", filter.what);
        say(place(filter.line), FindingKind::Dangling, text);
    } else if rule.redirect.is_none() && rule.backends.iter().all(|one| one.weight == 0) {
        let text = format!("no backend has a weight: {all} {refused}");
        say(place(rule.line), FindingKind::Notice, text);
    }
    for backend in &rule.backends {
        if let Err(fault) = resolve(registry, home, backend) {
            let text = match fault {
                Fault::Absent(text) => {
                    format!("{text}: this share is {refused} until it is there")
                }
                Fault::Kind(text) | Fault::Filter(text) => {
                    format!("{text}: this share is {refused}")
                }
            };
            say((backend.line, backend.field.clone()), FindingKind::Dangling, text);
        }
    }
    for mirror in &rule.mirrors {
        if let Err(fault) = resolve(registry, home, &mirror.to) {
            let text = format!("{}: no copies are made", fault.text());
            say((mirror.to.line, mirror.to.field.clone()), FindingKind::Dangling, text);
        }
    }
}

fn missing_port(parent: &ParentRef) -> String {
    match (parent.port, &parent.section_name) {
        (Some(port), Some(name)) => format!("no port {port} with the name `{name}`"),
        (Some(port), None) => format!("no port {port}"),
        (None, Some(name)) => format!("no port with the name `{name}`"),
        (None, None) => "no port".to_owned(),
    }
}

fn accepted(verdict: Verdict) -> Condition {
    let (holds, reason, message) = match verdict {
        Verdict::Accepted => (true, "Accepted", "the route is in force".to_owned()),
        Verdict::Conflicted(text, false) => (true, "Accepted", format!("in part: {text}")),
        Verdict::Conflicted(text, true) => (false, "Conflicted", text),
        Verdict::NoParent(text) => (false, "NoMatchingParent", text),
        Verdict::NotCarried(reason, text) => (false, reason, text),
    };
    Condition { kind: "Accepted", holds, reason, message }
}

/// Do all references lead somewhere? An unknown kind is told before an absent backend.
fn resolved_refs(registry: &Registry, source: RouteSource<'_>) -> Condition {
    let home = &source.resource.key.namespace;
    let rules = &source.route.rules;
    let backends = rules
        .iter()
        .flat_map(|rule| rule.backends.iter().chain(rule.mirrors.iter().map(|mirror| &mirror.to)));
    let fault = |to: &BackendRef| resolve(registry, home, to).err();
    let of_filters = rules.iter().filter_map(|rule| rule.unknown_filter.as_ref());
    let of_filters =
        of_filters.map(|filter| Fault::Filter(format!("{} is not carried out", filter.what)));
    let faults: Vec<Fault> = of_filters.chain(backends.filter_map(fault)).collect();
    let is_absent = |fault: &&Fault| matches!(fault, Fault::Absent(_));
    let worst = faults.iter().find(|fault| !is_absent(fault)).or_else(|| faults.first());
    let (holds, reason, message) = match worst {
        None => (true, "ResolvedRefs", "all references are resolved".to_owned()),
        Some(Fault::Absent(text)) => (false, "BackendNotFound", text.clone()),
        Some(Fault::Kind(text) | Fault::Filter(text)) => (false, "InvalidKind", text.clone()),
    };
    Condition { kind: "ResolvedRefs", holds, reason, message }
}
