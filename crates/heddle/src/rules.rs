//! `apply`, `get`, `delete`, `wait`: rules in and out of force. Nothing is decided here; the
//! control plane checks, the proxies acknowledge, and this says what happened.

use std::{path::PathBuf, time::Duration};

use heddle_model::{
    ResourceKey,
    yaml::{ParseError, Skipped},
};
use heddle_wire::local::control_api::{
    Acknowledgement, Action, ApplyRequest, ApplyResponse, DeleteRequest, Problem, ResourceView,
    Status,
};

use crate::{
    chosen::Chosen,
    cli::{ApplyArgs, DeleteArgs, Output, WaitArgs, selector::Selector},
    control_client::{ControlClient, milliseconds, problem_line},
    failure::Failure,
    output,
};

mod cluster;
pub(crate) mod files;
pub(crate) mod get;
pub(crate) mod kinds;
pub(crate) mod made;
mod table;
mod wanted;

pub(crate) use table::labels;

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
    let named = wanted::to_delete(&args)?;
    let mesh = Chosen::of(&args.mesh).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| mesh.namespace().to_owned());
    let keys = match named {
        wanted::ToDelete::InFiles => keys_in(&args.filename, &namespace)?,
        wanted::ToDelete::Named(named) => {
            named.into_iter().map(|(kind, name)| key(kind, &namespace, &name)).collect()
        }
        wanted::ToDelete::AllOf(kinds) => {
            let namespace = (!args.all_namespaces).then_some(&*namespace);
            let found = found(&mesh, &kinds, namespace, args.selector.as_ref()).await?;
            if found.is_empty() {
                return nothing_to_delete(args.output);
            }
            found
        }
    };
    let request = DeleteRequest { keys, force: args.force, wait_ms: milliseconds(args.timeout) };
    let response = take(&mesh, &request).await?;
    report(&response, args.output, args.timeout, false)
}

/// A rule by its name; a Namespace is named with itself.
fn key(kind: &str, namespace: &str, name: &str) -> ResourceKey {
    let namespace = if kind == "Namespace" { name } else { namespace };
    ResourceKey { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The rules of some kinds, in a namespace and with labels, if they matter.
async fn found(
    mesh: &Chosen,
    kinds: &[&'static str],
    namespace: Option<&str>,
    selector: Option<&Selector>,
) -> Result<Vec<ResourceKey>, Failure> {
    let mut keys = Vec::new();
    for kind in kinds {
        let views: Vec<ResourceView> = mesh.get(&format!("/v1/resources?kind={kind}")).await?;
        let meant = views.into_iter().filter(|view| {
            namespace.is_none_or(|namespace| view.key.namespace == namespace)
                && selector.is_none_or(|selector| selector.fits(&labels(view)))
        });
        keys.extend(meant.map(|view| view.key));
    }
    Ok(keys)
}

/// As with kubectl, that nothing is left is no error.
fn nothing_to_delete(format: Output) -> Result<(), Failure> {
    match format {
        Output::Json => output::json(&ApplyResponse::default()),
        Output::Text => {
            output::line("there is no such rule: nothing to delete");
            Ok(())
        }
    }
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
            Err(errors) => problems.extend(errors.into_iter().map(problem)),
        }
    }
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(problem_line).collect();
        return Err(Failure::of_problems(lines.join("\n"), problems));
    }
    if keys.is_empty() {
        return Err(Failure::refused("the files define no rule: there is nothing to delete"));
    }
    Ok(keys)
}

/// An error of a file, as the control plane tells it.
pub(crate) fn problem(error: ParseError) -> Problem {
    let field = Some(error.field).filter(|field| !field.is_empty());
    Problem { file: Some(error.file), line: Some(error.line), field, reason: error.reason }
}

/// Prints what was done.
///
/// # Errors
/// A refusal naming proxies that do not run it yet.
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
    for note in &response.notes {
        // One word for each: calls are refused, or it is worth knowing.
        let word = if response.warnings.contains(note) { "warning" } else { "note" };
        lines.push(format!("{word}: {}", problem_line(note)));
    }
    let all_as_before = !response.changes.is_empty()
        && response.changes.iter().all(|change| change.action == Action::Unchanged);
    if dry_run {
        lines.push("nothing was changed".to_owned());
    } else if all_as_before && response.generation > 0 {
        lines.push(unchanged_line(&response.acknowledgement, response.generation));
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

/// Where an edit has changed nothing, the generation is told as before, and only who does not run it.
fn unchanged_line(acknowledgement: &Acknowledgement, generation: u64) -> String {
    match acknowledgement.pending.len() {
        0 => format!("generation {generation}: unchanged"),
        _ => format!("unchanged; {}", acknowledged_line(acknowledgement)),
    }
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
    use heddle_wire::local::control_api::Change;

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
            warnings: vec![],
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
    fn one_word_tells_what_refuses_calls_from_what_is_worth_knowing() {
        let told = |reason: &str| Problem { reason: reason.to_owned(), ..Problem::default() };
        let key = key("VirtualService", "default", "reviews");
        let change = Change { key, action: Action::Unchanged, state: "Dangling".to_owned() };
        let response = ApplyResponse {
            generation: 7,
            changes: vec![change],
            notes: vec![told("not enforced yet"), told("there is no subset v9")],
            warnings: vec![told("there is no subset v9")],
            acknowledgement: Acknowledgement { generation: 7, acknowledged: 3, pending: vec![] },
            ..ApplyResponse::default()
        };
        assert_eq!(
            response_text(&response, Duration::from_secs(1), false),
            "VirtualService/default/reviews unchanged, Dangling\n\
             note: not enforced yet\n\
             warning: there is no subset v9\n\
             generation 7: unchanged"
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
