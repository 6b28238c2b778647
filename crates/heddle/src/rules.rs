//! `apply`, `get`, `delete`, `wait`: rules in and out of force. Nothing is decided here; the
//! control plane checks, the proxies acknowledge, and this says what happened.

use std::{path::PathBuf, time::Duration};

use heddle_model::{ResourceKey, yaml::Skipped};
use heddle_wire::local::control_api::{
    Acknowledgement, Action, ApplyRequest, ApplyResponse, DeleteRequest, Status,
};

use crate::{
    chosen::Chosen,
    cli::{ApplyArgs, DeleteArgs, Output, WaitArgs},
    control_client::{ControlClient, milliseconds, problem_line},
    failure::Failure,
    output,
};

mod cluster;
pub(crate) mod files;
pub(crate) mod get;
pub(crate) mod kinds;
pub(crate) mod made;

/// `heddle apply`.
///
/// # Errors
/// A refusal with every problem found, or naming the proxies that do not run the rules yet.
pub(crate) async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let files = files::read(&args.filename)?;
    let mesh = Chosen::of(&args.mesh).await?;
    let request = ApplyRequest {
        files,
        namespace: args.namespace.unwrap_or_else(|| mesh.namespace().to_owned()),
        dry_run: args.dry_run,
        force: args.force,
        strict: args.strict,
        wait_ms: milliseconds(args.timeout),
    };
    let response = put(&mesh, &request).await?;
    report(&response, args.output, args.timeout, args.dry_run)
}

/// Puts documents in force, wherever the mesh is.
///
/// # Errors
/// A refusal with every problem found.
pub(crate) async fn put(mesh: &Chosen, request: &ApplyRequest) -> Result<ApplyResponse, Failure> {
    match mesh {
        Chosen::Local(mesh) => {
            let control = ControlClient::new(&mesh.paths);
            let wait = Duration::from_millis(request.wait_ms);
            control.waiting(wait).post("/v1/apply", request).await
        }
        Chosen::Cluster(mesh) => cluster::apply(mesh, request).await,
    }
}

/// Takes objects out of force, wherever the mesh is.
///
/// # Errors
/// One that is not there, or that others need.
pub(crate) async fn take(mesh: &Chosen, request: &DeleteRequest) -> Result<ApplyResponse, Failure> {
    match mesh {
        Chosen::Local(mesh) => {
            let control = ControlClient::new(&mesh.paths);
            let wait = Duration::from_millis(request.wait_ms);
            control.waiting(wait).post("/v1/delete", request).await
        }
        Chosen::Cluster(mesh) => cluster::delete(mesh, request).await,
    }
}

/// `heddle delete`.
///
/// # Errors
/// As for [`apply`].
pub(crate) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let given = args.kind.as_ref().zip(args.name.as_ref());
    let kind = given.map(|(kind, _)| kinds::canonical(kind)).transpose()?;
    if kind.is_none() && args.filename.is_empty() {
        return Err(Failure::usage(
            "say what to delete: `heddle delete KIND NAME`, or `heddle delete -f FILE`",
        ));
    }
    let mesh = Chosen::of(&args.mesh).await?;
    let namespace = args.namespace.unwrap_or_else(|| mesh.namespace().to_owned());
    let keys = match (kind, given) {
        (Some(kind), Some((_, name))) => {
            let namespace = if kind == "Namespace" { name.clone() } else { namespace };
            vec![ResourceKey { kind: kind.to_owned(), namespace, name: name.clone() }]
        }
        _ => keys_in(&args.filename, &namespace)?,
    };
    let request = DeleteRequest { keys, force: args.force, wait_ms: milliseconds(args.timeout) };
    let response = take(&mesh, &request).await?;
    report(&response, args.output, args.timeout, false)
}

/// `heddle wait`.
///
/// # Errors
/// A refusal naming the proxies that do not run the generation when the time is over.
pub(crate) async fn wait(args: WaitArgs) -> Result<(), Failure> {
    let acknowledgement = match Chosen::of(&args.mesh).await? {
        Chosen::Local(mesh) => {
            let control = ControlClient::new(&mesh.paths);
            wait_here(control, args.generation, args.timeout).await?
        }
        Chosen::Cluster(mesh) => cluster::wait(&mesh, args.generation, args.timeout).await?,
    };
    match args.output {
        Output::Json => output::json(&acknowledgement)?,
        Output::Text => output::line(acknowledged_line(&acknowledgement)),
    }
    if acknowledgement.pending.is_empty() { Ok(()) } else { Err(pending(&acknowledgement)) }
}

async fn wait_here(
    control: ControlClient,
    generation: Option<u64>,
    limit: Duration,
) -> Result<Acknowledgement, Failure> {
    let generation = match generation {
        Some(generation) => generation,
        None => control.get::<Status>("/v1/status").await?.generation,
    };
    let path = format!("/v1/wait?generation={generation}&timeout_ms={}", milliseconds(limit));
    control.waiting(limit).get(&path).await
}

fn keys_in(paths: &[PathBuf], namespace: &str) -> Result<Vec<ResourceKey>, Failure> {
    let mut keys = Vec::new();
    let mut problems = Vec::new();
    for file in files::read(paths)? {
        match heddle_model::yaml::parse(&file.file, &file.text, namespace) {
            Ok(read) => keys.extend(read.resources.into_iter().map(|resource| resource.key)),
            Err(errors) => problems.extend(errors.iter().map(ToString::to_string)),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::refused(problems.join("\n")));
    }
    if keys.is_empty() {
        return Err(Failure::refused("the files define no rule: there is nothing to delete"));
    }
    Ok(keys)
}

pub(crate) fn report(
    response: &ApplyResponse,
    format: Output,
    timeout: Duration,
    dry_run: bool,
) -> Result<(), Failure> {
    match format {
        Output::Json => output::json(response)?,
        Output::Text => output::line(response_text(response, timeout, dry_run)),
    }
    let waited = !timeout.is_zero() && !dry_run;
    if waited && !response.acknowledgement.pending.is_empty() {
        return Err(pending(&response.acknowledgement));
    }
    Ok(())
}

fn response_text(response: &ApplyResponse, timeout: Duration, dry_run: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    for change in &response.changes {
        let done = match change.action {
            Action::Created => "created",
            Action::Configured => "configured",
            Action::Unchanged => "unchanged",
            Action::Deleted => "deleted",
        };
        let checked_only = if dry_run { " (dry run)" } else { "" };
        let state = match change.state.as_str() {
            "" | "Programmed" => String::new(),
            state => format!(", {state}"),
        };
        lines.push(format!("{} {done}{state}{checked_only}", change.key));
    }
    lines.extend(Skipped(response.skipped.clone()).line());
    lines.extend(response.notes.iter().map(|note| format!("note: {}", problem_line(note))));
    if dry_run {
        lines.push("nothing was changed".to_owned());
    } else if timeout.is_zero() && response.generation == 0 {
        // The API server has it, and no replica has been asked.
        lines.push("not waited for: `heddle wait` does".to_owned());
    } else if timeout.is_zero() {
        lines.push(format!("generation {}", response.generation));
    } else {
        lines.push(acknowledged_line(&response.acknowledgement));
    }
    lines.join("\n")
}

fn acknowledged_line(acknowledgement: &Acknowledgement) -> String {
    let count = acknowledgement.acknowledged;
    let whom = match (count, acknowledgement.pending.len()) {
        (0, 0) => "no running proxy is affected".to_owned(),
        (1, 0) => "in force in the one proxy it concerns".to_owned(),
        (count, 0) => format!("in force in all {count} proxies it concerns"),
        (count, pending) => format!("in force in {count} of {} proxies", count + pending),
    };
    format!("generation {}: {whom}", acknowledgement.generation)
}

fn pending(acknowledgement: &Acknowledgement) -> Failure {
    let names: Vec<&str> = acknowledgement.pending.iter().map(|id| id.0.as_str()).collect();
    Failure::refused(format!(
        "generation {0} is accepted, but these proxies do not run it yet: {1}; wait with `heddle wait`, and see `heddle proxy-status`",
        acknowledgement.generation,
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use heddle_model::WorkloadId;
    use heddle_wire::local::control_api::{Change, Problem};

    use super::*;

    #[test]
    fn an_apply_says_what_happened_to_each_object_and_where_it_is_in_force() {
        let key = ResourceKey {
            kind: "VirtualService".to_owned(),
            namespace: "default".to_owned(),
            name: "reviews".to_owned(),
        };
        let response = ApplyResponse {
            generation: 7,
            changes: vec![Change { key, action: Action::Created, state: "Partial".to_owned() }],
            skipped: [("Deployment".to_owned(), 2), ("Secret".to_owned(), 1)].into(),
            notes: vec![Problem {
                file: Some("a.yaml".to_owned()),
                line: Some(3),
                field: Some("spec.http[0].timeout".to_owned()),
                reason: "not enforced yet".to_owned(),
            }],
            acknowledgement: Acknowledgement { generation: 7, acknowledged: 3, pending: vec![] },
        };
        assert_eq!(
            response_text(&response, Duration::from_secs(1), false),
            "VirtualService/default/reviews created, Partial\n\
             3 objects skipped, no rules: 2 Deployment, 1 Secret\n\
             note: a.yaml:3: spec.http[0].timeout: not enforced yet\n\
             generation 7: in force in all 3 proxies it concerns"
        );
    }

    #[test]
    fn proxies_that_do_not_run_a_generation_are_named() {
        let acknowledgement = Acknowledgement {
            generation: 7,
            acknowledged: 1,
            pending: vec![WorkloadId("web-1".to_owned())],
        };
        assert_eq!(acknowledged_line(&acknowledgement), "generation 7: in force in 1 of 2 proxies");
        assert!(pending(&acknowledgement).message.contains("web-1"));
    }
}
