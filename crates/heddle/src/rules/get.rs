//! `heddle get`: rules, services and workloads as a table, as YAML or as JSON.

use std::{collections::BTreeSet, fmt::Write as _};

use heddle_model::{
    EndpointState, Protocol, ServiceName,
    name::DEFAULT_NAMESPACE,
    yaml::{Skipped, with_status},
};
use heddle_wire::local::control_api::{Problem, ResourceView, ServiceView, Status, WorkloadView};

use crate::{
    cli::{GetArgs, GetOutput},
    control_client::{ControlClient, problem_line},
    failure::Failure,
    mesh::RunningMesh,
    output,
    rules::kinds::{self, Kind},
    top::{self, ejected},
};

/// `heddle get`.
///
/// # Errors
/// A refusal where the named object does not exist.
pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let kind = kinds::kind(&args.kind)?;
    if kind == Kind::All && args.name.is_some() {
        return Err(Failure::usage("a name needs its kind: heddle get KIND NAME"));
    }
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if let Some(name) = &args.name
        && !name.bytes().all(part_of_name)
    {
        return Err(Failure::usage(format!("`{name}` is no name of an object")));
    }
    let mesh = RunningMesh::select(args.mesh.mesh.as_deref())?;
    let control = ControlClient::new(&mesh.paths);
    match kind {
        Kind::All => rules(&control, &args, None).await,
        Kind::Rule(kind) => rules(&control, &args, Some(kind)).await,
        Kind::Services => services(&control, &args).await,
        Kind::Workloads => workloads(&control, &args).await,
    }
}

async fn rules(control: &ControlClient, args: &GetArgs, kind: Option<&str>) -> Result<(), Failure> {
    let mut path = "/v1/resources?".to_owned();
    let default = args.name.as_deref().map(|name| kinds::namespace_of(kind, name));
    let namespace = args.namespace.as_deref().or(default);
    let filters = [("kind", kind), ("namespace", namespace), ("name", args.name.as_deref())];
    for (key, value) in filters.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        // Kinds and labels need no escaping; both were checked.
        write!(path, "{key}={value}&").expect("invariant: writing to a String never fails");
    }
    let found: Vec<ResourceView> = control.get(path.trim_end_matches(['?', '&'])).await?;
    if let (Some(name), true) = (&args.name, found.is_empty()) {
        return Err(Failure::refused(format!(
            "no {} `{name}` in namespace `{}`",
            kind.unwrap_or("rule"),
            namespace.unwrap_or(DEFAULT_NAMESPACE)
        )));
    }
    match args.output {
        GetOutput::Json => output::json(&found)?,
        GetOutput::Yaml => output::line(yaml(&found)),
        GetOutput::Text => {
            // Where one object is asked for, files that hold others do not matter.
            let status = match &args.name {
                None => control.get::<Status>("/v1/status").await?,
                Some(_) => Status::default(),
            };
            let mut text = rule_table(&found, &status.out_of_force);
            if let Some(line) = Skipped(status.skipped).line() {
                text.push_str("\nnote: in the rule files: ");
                text.push_str(&line);
            }
            output::line(text);
            if found.iter().any(|view| view.key.kind == "DestinationRule") {
                say_ejected(args, &found).await;
            }
        }
    }
    Ok(())
}

/// Whom these rules have taken out, where the mesh has a dashboard that knows.
async fn say_ejected(args: &GetArgs, found: &[ResourceView]) {
    let Ok(dashboard) = top::dashboard_of(&args.mesh).await else { return };
    let Ok(mut ejections) = top::ask_ejected(dashboard).await else { return };
    ejections.retain(|one| found.iter().any(|view| view.key.to_string() == one.rule));
    for line in ejected::lines_now(&ejections) {
        output::line(line);
    }
}

fn yaml(found: &[ResourceView]) -> String {
    let document = |view: &ResourceView| {
        let status = view.status.as_ref().and_then(|status| serde_json::to_string(status).ok());
        let text = match status {
            Some(status) => with_status(&view.text, &status),
            None => view.text.clone(),
        };
        text.trim_end().to_owned()
    };
    let documents: Vec<String> = found.iter().map(document).collect();
    documents.join("\n---\n")
}

/// The rules with their notes, then what is written and yet no rule: a file that was never valid has none.
fn rule_table(found: &[ResourceView], out_of_force: &[Problem]) -> String {
    let row = |view: &ResourceView| {
        let key = &view.key;
        vec![
            key.kind.clone(),
            key.namespace.clone(),
            key.name.clone(),
            view.state.clone(),
            view.source.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let mut text = match found {
        [] => "no rules".to_owned(),
        _ => output::table(&["KIND", "NAMESPACE", "NAME", "STATE", "SOURCE"], &rows),
    };
    for view in found {
        for note in &view.notes {
            write!(text, "\nnote: {}: {}", view.key, problem_line(note))
                .expect("invariant: writing to a String never fails");
        }
    }
    let untold = |problem: &&Problem| !found.iter().any(|view| view.notes.contains(problem));
    for problem in out_of_force.iter().filter(untold) {
        write!(text, "\nproblem: {}", problem_line(problem))
            .expect("invariant: writing to a String never fails");
    }
    text
}

async fn services(control: &ControlClient, args: &GetArgs) -> Result<(), Failure> {
    let mut found: Vec<ServiceView> = control.get("/v1/services").await?;
    found.retain(|view| {
        let name = &view.service.name;
        args.name.as_ref().is_none_or(|wanted| *wanted == name.name)
            && args.namespace.as_ref().is_none_or(|wanted| *wanted == name.namespace)
    });
    absent(args, found.is_empty(), "service")?;
    let row = |view: &ServiceView| {
        let service = &view.service;
        let ports =
            service.ports.values().map(|port| port_text(port.number, &port.name, port.protocol));
        vec![
            service.name.namespace.clone(),
            service.name.name.clone(),
            service.vips.first().map_or_else(|| "None".to_owned(), ToString::to_string),
            ports.collect::<Vec<_>>().join(","),
            view.workloads.len().to_string(),
        ]
    };
    let head = ["NAMESPACE", "NAME", "ADDRESS", "PORTS", "WORKLOADS"];
    print(args.output, "service", &found, &head, found.iter().map(row).collect())
}

/// Short names, where a table has no room for more.
fn names(services: &BTreeSet<ServiceName>) -> String {
    services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(",")
}

async fn workloads(control: &ControlClient, args: &GetArgs) -> Result<(), Failure> {
    let mut found: Vec<WorkloadView> = control.get("/v1/workloads").await?;
    found.retain(|view| {
        args.name.as_ref().is_none_or(|wanted| *wanted == view.workload.id.0)
            && args.namespace.as_ref().is_none_or(|wanted| *wanted == view.workload.namespace)
    });
    absent(args, found.is_empty(), "workload")?;
    let row = |view: &WorkloadView| {
        let workload = &view.workload;
        let ports = workload.ports.values().map(|port| {
            let text = port_text(port.number, &port.name, port.protocol);
            match port.state {
                EndpointState::Ready => text,
                EndpointState::Pending => format!("{text}(pending)"),
                EndpointState::ServingTerminating | EndpointState::Terminating => {
                    format!("{text}(terminating)")
                }
            }
        });
        vec![
            workload.namespace.clone(),
            workload.id.0.clone(),
            names(&workload.services),
            workload.version.clone(),
            workload.addresses.first().to_string(),
            ports.collect::<Vec<_>>().join(","),
            if view.connected {
                format!("generation {}", view.generation)
            } else {
                "not connected".to_owned()
            },
        ]
    };
    let head = ["NAMESPACE", "NAME", "SERVICE", "VERSION", "ADDRESS", "PORTS", "PROXY"];
    print(args.output, "workload", &found, &head, found.iter().map(row).collect())
}

fn absent(args: &GetArgs, nothing_found: bool, what: &str) -> Result<(), Failure> {
    match &args.name {
        Some(name) if nothing_found => Err(Failure::refused(format!("no {what} `{name}`"))),
        _ => Ok(()),
    }
}

fn print(
    format: GetOutput,
    what: &str,
    found: &impl serde::Serialize,
    head: &[&str],
    rows: Vec<Vec<String>>,
) -> Result<(), Failure> {
    match format {
        GetOutput::Text if rows.is_empty() => output::line(format!("no {what}s")),
        GetOutput::Text => output::line(output::table(head, &rows)),
        // Services and workloads are no documents; JSON is YAML too.
        GetOutput::Yaml | GetOutput::Json => output::json(found)?,
    }
    Ok(())
}

/// `80/http`, `http-web:80/http`, or just the number where nothing was declared.
fn port_text(number: u16, name: &str, protocol: Protocol) -> String {
    let name = if name.is_empty() { String::new() } else { format!("{name}:") };
    match protocol {
        Protocol::Undeclared => format!("{name}{number}"),
        protocol => format!("{name}{number}/{protocol}"),
    }
}
