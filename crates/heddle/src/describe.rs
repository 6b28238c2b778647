//! `heddle describe`: one page about a service, put together from the control plane (ports, workloads, rules), the
//! observer (who calls, how it fares, what to look at first) and nothing else.

mod page;
mod text;

use heddle_model::{EndpointState, ServiceName};
use heddle_proxy::explain::{in_force, policies};
use heddle_wire::{
    discovery::Resource,
    local::{
        control_api::{ClientView, Problem, ResourceView, ServiceView, Status, WorkloadView},
        observe_api::{Ejection, ServicePage},
    },
};
use serde::Deserialize;

use self::page::{Description, Measured, NameFailure, ObjectRow, WorkloadRow};
use crate::{
    chosen::{Chosen, Dashboard},
    cli::{Output, asking::DescribeArgs},
    explain::decoded,
    failure::Failure,
    naming::{self, named_port, object},
    output,
};

/// Seconds that rates are over.
const WINDOW: u64 = 60;

/// A service's page, with what newer observers say besides.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(flatten)]
    page: ServicePage,
    #[serde(default)]
    names: Vec<NameFailure>,
}

/// `heddle describe`.
///
/// # Errors
/// There is no such service: which one may be meant.
pub(crate) async fn describe(args: DescribeArgs) -> Result<(), Failure> {
    let mesh = Chosen::of(&args.mesh).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| mesh.namespace().to_owned());
    let services: Vec<ServiceView> = mesh.get("/v1/services").await?;
    let service = naming::service(&services, &args.service, &namespace, "SERVICE")?.name.clone();
    let view = services.iter().find(|view| view.service.name == service);
    let Some(view) = view else { return Err(Failure::refused("the service has just gone")) };
    let mut told = described(&mesh, view).await?;
    match mesh.dashboard().await {
        Ok(dashboard) => match measured(&dashboard, &service).await {
            Ok(measured) => told.measured = Some(measured),
            Err(failure) => told.unmeasured = Some(failure.message),
        },
        Err(failure) => told.unmeasured = Some(failure.message),
    }
    match args.output {
        Output::Json => output::json(&told),
        Output::Text => {
            output::line(text::of(&told));
            Ok(())
        }
    }
}

async fn described(mesh: &Chosen, view: &ServiceView) -> Result<Description, Failure> {
    let service = &view.service;
    let workloads = mesh.workloads().await?;
    let behind = workloads.iter().filter(|one| view.workloads.contains(&one.workload.id));
    let path =
        format!("/v1/view?namespace={}&host={}", service.name.namespace, service.name.fqdn());
    let told: ClientView = mesh.get(&path).await?;
    let destination = decoded(&told)?.into_iter().find_map(|resource| match resource {
        Resource::Destination(destination) => Some(destination),
        _ => None,
    });
    let rules = destination.as_ref().map(in_force).unwrap_or_default();
    let policies = destination.as_ref().map(policies).unwrap_or_default();
    let refused = destination.as_ref().and_then(|one| one.refused.as_ref());
    let all: Vec<ResourceView> = mesh.get("/v1/resources").await?;
    let named = |view: &ResourceView| {
        let key = view.key.to_string();
        let of_port = rules.iter().flat_map(|port| &port.rules).chain(&policies);
        of_port.into_iter().any(|rule| object(&rule.rule) == key) || is_about(view, &service.name)
    };
    let objects = all.iter().filter(|view| named(view)).map(|view| ObjectRow {
        object: view.key.to_string(),
        source: view.source.clone(),
        state: view.state.clone(),
        notes: view.notes.clone(),
    });
    let status: Status = mesh.get("/v1/status").await?;
    let mentions = |problem: &Problem| mentions(&problem.reason, &service.name);
    Ok(Description {
        host: service.name.fqdn(),
        addresses: service.vips.iter().map(ToString::to_string).collect(),
        ports: service.ports.values().map(named_port).collect(),
        workloads: behind.map(workload_row).collect(),
        objects: objects.collect(),
        rules,
        policies,
        refused_by: refused.map(|rule| rule.0.clone()),
        measured: None,
        unmeasured: None,
        problems: status.problems.into_iter().filter(mentions).collect(),
        service: service.name.clone(),
    })
}

/// Does the object name the service as the one that it is about?
fn is_about(view: &ResourceView, service: &ServiceName) -> bool {
    let of_host = |host: &str| {
        let host = host.trim().trim_matches(['"', '\'', '-', ' ']);
        ServiceName::resolve(host, &view.key.namespace).is_ok_and(|named| named == *service)
            || host == service.name && service.is_host()
    };
    // An object whose rules are not in force (invalid, conflicted) is in no destination.
    let hosts = view.text.lines().filter_map(|line| line.trim().strip_prefix("host:"));
    view.key.kind == "DestinationRule" && hosts.into_iter().any(of_host)
}

/// Is the service's name a word of this text?
fn mentions(text: &str, service: &ServiceName) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c: char| !is_part(c)).any(|word| word == service.name)
}

fn workload_row(view: &WorkloadView) -> WorkloadRow {
    let workload = &view.workload;
    let sidecar = match (view.sidecar, view.connected) {
        (false, _) => "none",
        (true, true) => "connected",
        (true, false) => "not connected",
    };
    let port = |port: &heddle_model::WorkloadPort| {
        let state = match port.state {
            EndpointState::Ready => "ready",
            EndpointState::Pending => "not ready",
            _ => "ending",
        };
        format!("{} {state}", port.number)
    };
    WorkloadRow {
        id: workload.id.to_string(),
        version: workload.version.clone(),
        address: workload.addresses.first().to_string(),
        sidecar: sidecar.to_owned(),
        ports: workload.ports.values().map(port).collect(),
        ready: workload.ports.values().any(|port| port.state == EndpointState::Ready),
    }
}

async fn measured(dashboard: &Dashboard, service: &ServiceName) -> Result<Measured, Failure> {
    let ServiceName { namespace, name } = service;
    let path = format!("/api/v1/services/{namespace}/{name}?window={WINDOW}");
    let Page { page, names } = dashboard.ask(&path).await?;
    let mut ejections: Vec<Ejection> = dashboard.ask("/api/v1/ejections").await?;
    ejections.retain(|one| one.service == *service);
    Ok(Measured {
        window: page.window,
        first: page.first,
        on_purpose: page.on_purpose,
        lost_contexts: page.lost_contexts,
        failing_since: page.failing_since,
        kind: page.summary.kind.clone(),
        client: page.summary.client,
        server: page.summary.server,
        callers: page.callers,
        callees: page.callees,
        responses: page.responses,
        templates: page.templates,
        ejections,
        names,
    })
}
