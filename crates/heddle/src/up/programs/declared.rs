//! Services that a file of programs declares before any of its programs runs: so each name leads to an address from
//! the beginning, and a proxy such as nginx, which looks up its upstreams once, at its start, finds them.
//!
//! They are objects like any other, marked as made here: those of an earlier file that are not wanted any more go.

use std::{collections::BTreeMap, fmt::Write as _};

use heddle_model::ResourceKey;
use heddle_wire::local::control_api::{
    ApplyRequest, ApplyResponse, DeleteRequest, ResourceView, SourceFile,
};

use super::plan::Plan;
use crate::{control_client::ControlClient, failure::Failure, rules::labels};

/// Marks what was made here.
const LABEL: &str = "heddle.dev/declared-by";
const OURS: &str = "up";
/// What stands for a file's name where there is none.
const BY: &str = "heddle up";

/// Declares what the file has, and takes away what an earlier one had.
///
/// # Errors
/// The control plane's refusal.
pub(crate) async fn declare(control: &ControlClient, plan: Option<&Plan>) -> Result<(), Failure> {
    let known: Vec<ResourceView> = control.get("/v1/resources?kind=Service").await?;
    let wanted = plan.map(services).unwrap_or_default();
    let ours = |view: &ResourceView| labels(view).get(LABEL).is_some_and(|by| by == OURS);
    let old = known.iter().filter(|view| ours(view)).map(|view| view.key.clone());
    take_away(control, old.filter(|key| !wanted.contains_key(key)).collect()).await?;
    // Somebody's own object says it better.
    let held = |key: &ResourceKey| known.iter().any(|view| view.key == *key && !ours(view));
    let texts: Vec<String> =
        wanted.iter().filter(|(key, _)| !held(key)).map(|(key, ports)| text(key, ports)).collect();
    if texts.is_empty() {
        return Ok(());
    }
    let request = ApplyRequest {
        files: vec![SourceFile { file: BY.to_owned(), text: texts.join("---\n") }],
        namespace: heddle_model::name::DEFAULT_NAMESPACE.to_owned(),
        dry_run: false,
        force: false,
        strict: false,
        wait_ms: 0,
    };
    control.post::<ApplyResponse>("/v1/apply", &request).await.map(drop)
}

/// Takes away what is declared, when its programs have ended.
///
/// # Errors
/// The control plane's refusal.
pub(crate) async fn withdraw(control: &ControlClient, plan: &Plan) -> Result<(), Failure> {
    let known: Vec<ResourceView> = control.get("/v1/resources?kind=Service").await?;
    let wanted = services(plan);
    let ours = known.into_iter().filter(|view| wanted.contains_key(&view.key));
    let ours = ours.filter(|view| labels(view).get(LABEL).is_some_and(|by| by == OURS));
    take_away(control, ours.map(|view| view.key).collect()).await
}

async fn take_away(control: &ControlClient, keys: Vec<ResourceKey>) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    // A rule that names one of them waits for it, as it does for any service that has not joined.
    let request = DeleteRequest { keys, force: true, wait_ms: 0 };
    control.post::<ApplyResponse>("/v1/delete", &request).await.map(drop)
}

/// Port numbers with their names, which are empty where none was given.
type Ports = BTreeMap<u16, String>;

/// Services that have ports, with those of all programs that belong to them.
fn services(plan: &Plan) -> BTreeMap<ResourceKey, Ports> {
    let mut services: BTreeMap<ResourceKey, Ports> = BTreeMap::new();
    for program in plan.programs.iter().filter(|program| !program.args.port.is_empty()) {
        let key = ResourceKey {
            kind: "Service".to_owned(),
            namespace: program.args.namespace.clone(),
            name: program.args.service.clone(),
        };
        let ports = services.entry(key).or_default();
        for port in &program.args.port {
            let name = ports.entry(port.number).or_default();
            if name.is_empty() {
                name.clone_from(&port.name);
            }
        }
    }
    services
}

fn text(key: &ResourceKey, ports: &Ports) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\n  labels: {{{LABEL}: {OURS}}}\nspec:\n  ports:\n",
        quoted(&key.name),
        quoted(&key.namespace),
    );
    for (number, name) in ports {
        let name = if name.is_empty() { format!("port-{number}") } else { name.clone() };
        // Writing to a string cannot fail.
        let _ok = writeln!(text, "  - {{name: {}, port: {number}}}", quoted(&name));
    }
    text
}

/// Labels and port names hold no quotes.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_service_with_these_ports() {
        let key =
            ResourceKey { kind: "Service".into(), namespace: "shop".into(), name: "on".into() };
        let ports = Ports::from([(80, "http".to_owned()), (9000, String::new())]);
        let text = text(&key, &ports);
        let read = heddle_model::yaml::parse("-", &text, "default").unwrap();
        assert_eq!(read.resources[0].key, key);
        assert!(
            text.contains("{name: \"http\", port: 80}") && text.contains("port-9000"),
            "{text}"
        );
    }
}
