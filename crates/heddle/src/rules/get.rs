//! `heddle get`: rules, services and workloads as a table, as YAML or as JSON.

use std::{collections::BTreeSet, fmt::Write as _};

use heddle_model::{
    EndpointState, Protocol, ServiceName,
    yaml::{Skipped, documents, to_yaml, with_status},
};
use heddle_wire::local::control_api::{Problem, ResourceView, ServiceView, Status, WorkloadView};

use crate::{
    chosen::Chosen,
    cli::{GetArgs, GetOutput},
    control_client::problem_line,
    failure::Failure,
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
    let mesh = Chosen::of(&args.mesh).await?;
    match kind {
        Kind::All => rules(&mesh, &args, None).await,
        Kind::Rule(kind) => rules(&mesh, &args, Some(kind)).await,
        Kind::Services => services(&mesh, &args).await,
        Kind::Workloads => workloads(&mesh, &args).await,
    }
}

async fn rules(mesh: &Chosen, args: &GetArgs, kind: Option<&str>) -> Result<(), Failure> {
    let mut path = "/v1/resources?".to_owned();
    let default = args.name.as_deref().map(|name| match kind {
        // A Namespace is named with itself.
        Some("Namespace") => name,
        _ => mesh.namespace(),
    });
    let namespace = args.namespace.as_deref().or(default);
    let filters = [("kind", kind), ("namespace", namespace), ("name", args.name.as_deref())];
    for (key, value) in filters.into_iter().filter_map(|(key, value)| Some((key, value?))) {
        // Kinds and labels need no escaping; both were checked.
        write!(path, "{key}={value}&").expect("invariant: writing to a String never fails");
    }
    let found: Vec<ResourceView> = mesh.get(path.trim_end_matches(['?', '&'])).await?;
    if let (Some(name), true) = (&args.name, found.is_empty()) {
        return Err(Failure::refused(format!(
            "no {} `{name}` in namespace `{}`",
            kind.unwrap_or("rule"),
            namespace.unwrap_or_else(|| mesh.namespace())
        )));
    }
    match args.output {
        GetOutput::Json => output::json(&found)?,
        GetOutput::Yaml => output::line(yaml(found, matches!(mesh, Chosen::Cluster(_)))),
        GetOutput::Text => {
            // Where one object is asked for, files that hold others do not matter.
            let status = match &args.name {
                None => mesh.get::<Status>("/v1/status").await?,
                Some(_) => Status::default(),
            };
            let mut text = rule_table(&found, &status.out_of_force);
            if let Some(line) = Skipped(status.skipped).line() {
                text.push_str("\nnote: in the rule files: ");
                text.push_str(&line);
            }
            output::line(text);
            if found.iter().any(|view| view.key.kind == "DestinationRule") {
                say_ejected(mesh, &found).await;
            }
        }
    }
    Ok(())
}

/// Whom these rules have taken out, where the mesh has a dashboard that knows.
async fn say_ejected(mesh: &Chosen, found: &[ResourceView]) {
    let Ok(dashboard) = mesh.dashboard().await else { return };
    let Ok(mut ejections) = top::ask_ejected(&dashboard).await else { return };
    ejections.retain(|one| found.iter().any(|view| view.key.to_string() == one.rule));
    for line in ejected::lines_now(&ejections) {
        output::line(line);
    }
}

/// The documents; those of a cluster are kept as JSON there.
fn yaml(found: Vec<ResourceView>, of_cluster: bool) -> String {
    let document = |view: ResourceView| {
        let read = of_cluster.then(|| documents("-", &view.text)).and_then(Result::ok);
        let read = read.and_then(|documents| documents.into_iter().next());
        let text = read.map_or(view.text, |document| to_yaml(&document.value));
        let status = view.status.as_ref().and_then(|status| serde_json::to_string(status).ok());
        let text = status.map_or_else(|| text.clone(), |status| with_status(&text, &status));
        text.trim_end().to_owned()
    };
    let documents: Vec<String> = found.into_iter().map(document).collect();
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

async fn services(mesh: &Chosen, args: &GetArgs) -> Result<(), Failure> {
    let mut found: Vec<ServiceView> = mesh.get("/v1/services").await?;
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

async fn workloads(mesh: &Chosen, args: &GetArgs) -> Result<(), Failure> {
    let mut found = mesh.workloads().await?;
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
            match (view.sidecar, view.connected) {
                (false, _) => "no sidecar".to_owned(),
                (true, true) => format!("generation {}", view.generation),
                (true, false) => "not connected".to_owned(),
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
