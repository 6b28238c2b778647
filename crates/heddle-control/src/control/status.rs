//! Answers for people: what runs, what is in force, what is wrong.

use std::{collections::BTreeMap, sync::Arc};

use heddle_compile::{Finding, ParentStatus, ResourceState, behind, endpoints};
use heddle_model::{
    Registry, ResourceKey, Service, WorkloadId,
    resource::{Resource, Spec},
};
use heddle_runtime::clock;
use heddle_wire::local::control_api::{
    Acknowledgement, Problem, ProxyStatus, ResourceView, RouteCondition, RouteParent,
    RouteParentStatus, RouteStatus, ServiceView, Status, WorkloadView,
};
use serde::Deserialize;

use super::{
    Control,
    rule_changes::{by_key, problem},
};
use crate::{
    documents::not_enforced,
    error::shorten,
    rules::{APPLIED, Rules},
};

/// Filters of `GET /v1/resources`; an absent one matches everything.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ResourceQuery {
    /// Kind in any case, singular, plural or short.
    pub(crate) kind: Option<String>,
    /// Namespace.
    pub(crate) namespace: Option<String>,
    /// Name.
    pub(crate) name: Option<String>,
}

impl Control {
    /// How far a generation has come now.
    pub(crate) fn progress_of(&self, generation: u64) -> Acknowledgement {
        self.mesh().progress(generation).acknowledgement
    }

    /// The oldest generation that a connected proxy runs.
    pub(crate) fn least_running(&self) -> u64 {
        self.mesh().least_running()
    }

    /// Workloads with the state of their sidecars.
    pub(crate) fn workloads(&self) -> Vec<WorkloadView> {
        let mesh = self.mesh();
        let workloads = mesh.registry().workloads.values();
        workloads
            .map(|workload| {
                let (connected, generation) = mesh.running(&workload.id);
                let sidecar = mesh.population.has_sidecar(&workload.id);
                WorkloadView { workload: workload.clone(), connected, generation, sidecar }
            })
            .collect()
    }

    /// Services with who serves them.
    pub(crate) fn services(&self) -> Vec<ServiceView> {
        let mesh = self.mesh();
        let registry = mesh.registry();
        registry
            .services
            .values()
            .map(|service| ServiceView {
                service: service.clone(),
                workloads: members(registry, service),
            })
            .collect()
    }

    /// Objects with their state.
    pub(crate) fn resources(&self, query: &ResourceQuery) -> Vec<ResourceView> {
        let mesh = self.mesh();
        let now = clock::unix_now().as_secs();
        let findings = mesh.index.findings_at(mesh.registry(), now);
        let in_force = mesh.rules.in_force();
        let mut lost: BTreeMap<(ResourceKey, Option<String>), Problem> = BTreeMap::new();
        for (key, problem) in in_force.lost {
            lost.insert((key, problem.file.clone()), problem);
        }
        let findings = by_key(&findings);
        let sources = mesh.rules.sources().into_iter();
        sources
            .filter(|(resource, ..)| query.matches(&resource.key))
            .map(|(resource, source, is_invalid)| {
                let loser = lost.remove(&(resource.key.clone(), Some(source.clone())));
                let invalid = mesh.rules.files.file(&source).filter(|_| is_invalid);
                let invalid = invalid.map(|file| file.problems.clone());
                let own = findings.get(&resource.key).map_or(&[][..], Vec::as_slice);
                let is_route = matches!(resource.spec, Spec::Route(_));
                let status = (is_route && invalid.is_none() && loser.is_none())
                    .then(|| route_status(mesh.index.route_status(mesh.registry(), &resource.key)));
                let since = since(&mesh.rules, &resource.key, &source);
                ResourceView { status, since, ..view(&resource, source, invalid, loser, own) }
            })
            .collect()
    }

    /// The mesh's own state.
    pub(crate) fn status(&self) -> Status {
        let mesh = self.mesh();
        let registry = mesh.registry();
        let sidecars = registry.workloads.keys().filter(|id| mesh.population.has_sidecar(id));
        let proxies: Vec<ProxyStatus> = sidecars.map(|id| mesh.proxy_status(id)).collect();
        let mut problems: Vec<Problem> = Vec::new();
        let mut out_of_force: Vec<Problem> = Vec::new();
        {
            let troubles = self.troubles();
            out_of_force.extend(troubles.folder.iter().cloned());
            let texts = troubles.store.iter().chain(&troubles.journal);
            problems
                .extend(texts.map(|text| Problem { reason: text.clone(), ..Problem::default() }));
            problems.extend(troubles.members.iter().chain(&troubles.cluster).cloned());
        }
        let in_force = mesh.rules.in_force();
        out_of_force.extend(mesh.rules.problems().cloned());
        out_of_force.extend(in_force.lost.into_iter().map(|(_, problem)| problem));
        problems.extend(out_of_force.iter().cloned());
        let now = clock::unix_now().as_secs();
        problems.extend(mesh.index.findings_at(registry, now).iter().map(problem));
        problems.extend(in_force.resources.iter().flat_map(|resource| not_enforced(resource)));
        shorten(&mut problems);
        shorten(&mut out_of_force);
        let generation = mesh.generations.newest();
        let skipped = mesh.rules.files.skipped().0;
        let rules_changed = mesh.rules_changed;
        let mesh = mesh.settings.mesh.clone();
        Status { mesh, generation, proxies, problems, out_of_force, skipped, rules_changed }
    }
}

/// Who serves it: workloads of the mesh, and of an entry's endpoints those that are none.
fn members(registry: &Registry, service: &Service) -> Vec<WorkloadId> {
    if !registry.outside.contains_key(&service.name) {
        return behind(registry, service).map(|one| one.id.clone()).collect();
    }
    let Some(all) = endpoints(registry, &service.name) else { return Vec::new() };
    let inside = all.endpoints.into_iter().map(|one| one.workload.id);
    inside.chain(all.outside.into_iter().map(|one| one.workload.id)).collect()
}

impl ResourceQuery {
    fn matches(&self, key: &ResourceKey) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        let kind = self.kind.as_ref().is_none_or(|kind| is_kind(kind, &key.kind));
        kind && is(&self.namespace, &key.namespace) && is(&self.name, &key.name)
    }
}

/// Does a user's word (`vs`, `virtualservices`, `VirtualService`) name this kind?
fn is_kind(word: &str, kind: &str) -> bool {
    let (word, kind) = (word.to_ascii_lowercase(), kind.to_ascii_lowercase());
    let short = match kind.as_str() {
        "virtualservice" => "vs",
        "destinationrule" => "dr",
        "serviceentry" => "se",
        "workloadentry" => "we",
        _ => "",
    };
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    word == kind || (word == short && !short.is_empty()) || word == plural
}

/// When it was applied first, or its file was changed last.
fn since(rules: &Rules, key: &ResourceKey, source: &str) -> Option<u64> {
    if source == APPLIED {
        return rules.applied(key).map(|applied| applied.since).filter(|since| *since > 0);
    }
    let changed = std::fs::metadata(source).and_then(|meta| meta.modified()).ok()?;
    changed.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn view(
    resource: &Arc<Resource>,
    source: String,
    invalid: Option<Vec<Problem>>,
    lost: Option<Problem>,
    findings: &[&Finding],
) -> ResourceView {
    let own = findings.iter().copied().filter(|_| lost.is_none());
    let state = match () {
        () if invalid.is_some() => "Invalid",
        () if lost.is_some() => ResourceState::Conflicted.as_str(),
        () => ResourceState::of(resource, own.clone()).as_str(),
    };
    let mut notes: Vec<Problem> = invalid.into_iter().flatten().collect();
    notes.extend(lost.clone());
    let warnings = own.clone().filter(|finding| finding.refuses_calls()).map(problem).collect();
    notes.extend(own.map(problem));
    notes.extend(not_enforced(resource));
    ResourceView {
        key: resource.key.clone(),
        source,
        line: resource.origin.line,
        text: resource.text.clone(),
        state: state.to_owned(),
        notes,
        status: None,
        warnings,
        since: None,
    }
}

/// Who says what of routes.
const CONTROLLER: &str = "heddle.dev/mesh";

fn route_status(parents: Vec<ParentStatus>) -> RouteStatus {
    let condition = |one: &heddle_compile::Condition| RouteCondition {
        kind: one.kind.to_owned(),
        status: if one.holds { "True" } else { "False" }.to_owned(),
        reason: one.reason.to_owned(),
        message: one.message.clone(),
    };
    let parent = |one: ParentStatus| RouteParentStatus {
        conditions: one.conditions.iter().map(condition).collect(),
        controller_name: CONTROLLER.to_owned(),
        parent_ref: RouteParent {
            group: one.parent.group,
            kind: one.parent.kind,
            namespace: one.parent.namespace,
            name: one.parent.name,
            section_name: one.parent.section_name,
            port: one.parent.port,
        },
    };
    RouteStatus { parents: parents.into_iter().map(parent).collect() }
}
