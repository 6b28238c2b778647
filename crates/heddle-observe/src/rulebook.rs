//! The rules in force, as the control plane tells them, and how they changed while somebody watched.
//!
//! Each object is read again from its own text, so that it can be said in words what its rules are met by and do, and
//! how they are called where sidecars count what they decide. Not here: how often they did ([`crate::answers`]).

use std::collections::{BTreeMap, VecDeque};

use heddle_model::{
    ServiceName,
    resource::{FaultTarget, Resource, Spec},
    yaml,
};
use heddle_wire::local::{
    control_api::{Problem, ResourceView},
    observe_api::{FaultWord, RuleChange, RulePart, RuleRow},
};

use crate::limits;

mod said;

/// All rules and their latest changes.
#[derive(Debug, Default)]
pub(crate) struct Rulebook {
    /// By `kind/namespace/name`, then by source: two sources may claim one object.
    rules: BTreeMap<(String, String), RuleRow>,
    /// Oldest first.
    changes: VecDeque<RuleChange>,
    /// How many changes there have been, so that each has a number.
    noticed: u64,
    /// Of these, how many have been taken to be kept on the disk.
    kept: u64,
    /// Has the control plane told them yet?
    known: bool,
}

impl Rulebook {
    /// Takes over what the control plane tells at `now`, Unix time in seconds. What it tells first is no change.
    pub(crate) fn update(&mut self, told: Vec<ResourceView>, now: f64) {
        let mut rules = BTreeMap::new();
        let mut changes = Vec::new();
        for view in told.into_iter().take(limits::RULES_MAX) {
            let key = (view.key.to_string(), view.source.clone());
            let (rule, action) = match self.rules.remove(&key) {
                Some(mut known) if known.text == view.text => {
                    (known.state, known.line) = (view.state, view.line);
                    known.notes = notes(&view.notes);
                    (known, None)
                }
                before => {
                    let action = if before.is_some() { "configured" } else { "created" };
                    (row(view), Some(action))
                }
            };
            changes.extend(action.map(|action| change(&key, &rule, action, now)));
            rules.insert(key, rule);
        }
        let gone = std::mem::replace(&mut self.rules, rules);
        changes.extend(gone.iter().map(|(key, rule)| change(key, rule, "deleted", now)));
        if std::mem::replace(&mut self.known, true) {
            self.noticed += changes.len() as u64;
            self.changes.extend(changes);
        }
        while self.changes.len() > limits::RULE_CHANGES_MAX {
            self.changes.pop_front();
        }
    }

    /// The number of the oldest change that is remembered, and by number those that have not been taken yet, or all.
    pub(crate) fn unkept(&mut self, whole: bool) -> (u64, Vec<(u64, Vec<u8>)>) {
        let oldest = self.noticed - self.changes.len() as u64;
        let from = if whole { oldest } else { self.kept.max(oldest) };
        self.kept = self.noticed;
        let numbered = (oldest..).zip(&self.changes).filter(|(number, _)| *number >= from);
        // Plain structs are always JSON.
        let bytes = |change| serde_json::to_vec(change).unwrap_or_default();
        (oldest, numbered.map(|(number, change)| (number, bytes(change))).collect())
    }

    /// Takes over what was kept, ascending by number; the book is new. What makes no sense is left out.
    pub(crate) fn restore(&mut self, kept: Vec<(u64, Vec<u8>)>) {
        self.noticed = kept.last().map_or(0, |(number, _)| number.saturating_add(1));
        let told = kept.into_iter().rev().take(limits::RULE_CHANGES_MAX);
        for (_, bytes) in told {
            if let Ok(change) = serde_json::from_slice(&bytes) {
                self.changes.push_front(change);
            }
        }
        // Numbers have no gaps, whatever was left out.
        self.noticed = self.noticed.max(self.changes.len() as u64);
        self.kept = self.noticed;
    }

    /// Has the control plane told them yet?
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    /// All of them, or those about a service.
    pub(crate) fn about(&self, service: Option<&ServiceName>) -> impl Iterator<Item = &RuleRow> {
        self.rules.values().filter(move |rule| is_about(&rule.services, service))
    }

    /// Changes from `from` to before `to`, Unix times in seconds, newest first; all, or those about a service.
    pub(crate) fn changes(
        &self,
        from: u64,
        to: u64,
        about: Option<&ServiceName>,
    ) -> Vec<RuleChange> {
        let within = |change: &&RuleChange| {
            change.at >= from as f64 && change.at < to as f64 && is_about(&change.services, about)
        };
        self.changes.iter().rev().filter(within).take(limits::ROWS_MAX).cloned().collect()
    }

    /// Faults that are injected into calls to a service.
    pub(crate) fn faults(&self, service: &ServiceName) -> Vec<FaultWord> {
        let rules = self.about(Some(service)).filter(|rule| is_in_force(rule));
        let faults = rules.flat_map(|rule| rule.parts.iter().flat_map(|part| &part.faults));
        faults.take(limits::FAULTS_TOLD_MAX).cloned().collect()
    }

    /// What a rule is met by, by the name that sidecars count it under.
    pub(crate) fn part(&self, counted_as: &str) -> Option<&RulePart> {
        let (key, name) = counted_as.split_once('#').unwrap_or((counted_as, ""));
        let all = self.rules.range((key.to_owned(), String::new())..);
        let mut objects = all.take_while(|((known, _), _)| known == key);
        objects.find_map(|(_, rule)| {
            is_in_force(rule).then(|| rule.parts.iter().find(|part| part.name == name))?
        })
    }
}

/// An edit that is invalid is not in force, nor is what another source holds.
fn is_in_force(rule: &RuleRow) -> bool {
    !matches!(rule.state.as_str(), "Invalid" | "Conflicted" | "NotEnforced")
}

fn is_about(services: &[ServiceName], wanted: Option<&ServiceName>) -> bool {
    wanted.is_none_or(|wanted| services.contains(wanted))
}

fn change((key, source): &(String, String), rule: &RuleRow, action: &str, at: f64) -> RuleChange {
    RuleChange {
        at,
        action: action.to_owned(),
        rule: key.clone(),
        source: source.clone(),
        services: rule.services.clone(),
    }
}

fn notes(problems: &[Problem]) -> Vec<String> {
    let text = |problem: &Problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.reason),
        None => problem.reason.clone(),
    };
    problems.iter().take(limits::RULE_NOTES_MAX).map(text).collect()
}

fn row(view: ResourceView) -> RuleRow {
    let ResourceView { key, source, line, text, state, notes: problems, .. } = view;
    // What is in force was read before; of what was not, the text is told all the same.
    let parsed = yaml::parse(&source, &text, &key.namespace).unwrap_or_default();
    let resource = parsed.resources.into_iter().find(|resource| resource.key == key);
    let (mut services, parts) = match &resource {
        Some(resource) => (about(resource), said::parts(resource)),
        None => Default::default(),
    };
    services.sort();
    services.dedup();
    RuleRow {
        kind: key.kind,
        namespace: key.namespace,
        name: key.name,
        source,
        line,
        state,
        notes: notes(&problems),
        services,
        parts,
        text,
    }
}

/// Whom the object is about.
fn about(resource: &Resource) -> Vec<ServiceName> {
    let own = &resource.key.namespace;
    let named = |host: &str, namespace: &str| {
        let service = ServiceName::resolve(host, namespace);
        service.or_else(|_| ServiceName::of_host(host, namespace)).ok()
    };
    match &resource.spec {
        Spec::VirtualService(one) => one.hosts.iter().filter_map(|host| named(host, own)).collect(),
        Spec::DestinationRule(one) => named(&one.host, own).into_iter().collect(),
        Spec::ServiceEntry(one) => {
            one.hosts.iter().filter_map(|one| named(&one.host, own)).collect()
        }
        Spec::Route(route) => {
            let services = route.parents.iter().filter(|parent| parent.is_service());
            services
                .filter_map(|parent| {
                    named(&parent.name, parent.namespace.as_deref().unwrap_or(own))
                })
                .collect()
        }
        Spec::Service(_) => named(&resource.key.name, own).into_iter().collect(),
        Spec::Fault(fault) => match &fault.target {
            FaultTarget::Service { name, namespace } => {
                named(name, namespace.as_deref().unwrap_or(own)).into_iter().collect()
            }
            FaultTarget::Workloads(_) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
