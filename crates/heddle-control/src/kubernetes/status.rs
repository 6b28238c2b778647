//! What the mesh says of each object in its status: whether its newest version is in force, what it names that
//! is not there, and what of it is not enforced. Only the leader writes, and only what differs from what is
//! there; conditions and parents of others are left as they are.

use std::{sync::Arc, time::Duration};

use heddle_compile::{FindingKind, ParentStatus};
use heddle_model::{ResourceKey, timestamp};
use heddle_runtime::clock;
use heddle_wire::local::control_api::Problem;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    client::{Api, ApiError, Patch},
    health::Health,
    rules::{RuleBook, Written},
};
use crate::control::{Control, RuleState};

/// Who says what of routes.
const CONTROLLER: &str = "heddle.dev/mesh";
/// Changes within this time of one another are written together.
const SETTLE: Duration = Duration::from_millis(500);
/// Everything is looked at again after this time: what a rule names may have come or gone, and a status that
/// could not be written is tried again then.
const INTERVAL: Duration = Duration::from_secs(10);
/// Longest message of a condition, bytes.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Writes statuses.
#[derive(Debug)]
pub(crate) struct StatusWriter {
    /// Where to.
    pub(crate) api: Api,
    /// What is in force.
    pub(crate) control: Arc<Control>,
    /// How it goes.
    pub(crate) health: Arc<Health>,
    /// What is there already.
    pub(crate) book: RuleBook,
    /// Is it ours to write?
    pub(crate) leads: watch::Receiver<bool>,
}

/// A condition, before it has its time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl StatusWriter {
    /// Writes for ever.
    pub(crate) async fn run(mut self) {
        let mut changes = self.control.rule_changes();
        loop {
            clock::sleep(SETTLE).await;
            if *self.leads.borrow_and_update() {
                self.write_all().await;
            }
            tokio::select! {
                // A sender that is gone ends the process too.
                _ = changes.changed() => {}
                _ = self.leads.changed() => {}
                () = clock::sleep(INTERVAL) => {}
            }
        }
    }

    async fn write_all(&self) {
        for (key, state) in self.control.rule_states() {
            let Some(written) = self.book.of(&key) else { continue };
            let is_route = written.kind.group == heddle_model::resource::GATEWAY_GROUP;
            let status = if is_route {
                let parents = self.control.parents_of(&key);
                of_route(&written, &state, &parents)
            } else {
                of_rule(&written, &state)
            };
            if let Some(status) = status {
                self.write(&key, &written, status).await;
            }
        }
    }

    async fn write(&self, key: &ResourceKey, written: &Written, status: Value) {
        let path = written.kind.path(&key.namespace, &key.name) + "/status";
        let what = format!("{}/status", written.kind);
        let change = json!({"metadata": {"resourceVersion": written.version}, "status": status});
        match self.api.patch(&what, &path, (Patch::Merge, &change)).await {
            Ok(answer) => {
                self.book.note(key, &answer);
                self.health.synced(&what);
            }
            // It has changed, or gone: then its watcher says so, and it is looked at again.
            Err(ApiError::Conflict | ApiError::NotFound(_)) => {}
            Err(error) => self.health.trouble(&what, &error),
        }
    }
}

/// The status of an object of Istio's kinds or ours; `None` if it is there.
fn of_rule(written: &Written, state: &RuleState) -> Option<Value> {
    let conditions = [accepted(state), resolved(state), enforced(state)];
    let others = array(&written.status["conditions"]);
    let merged = merged(&others, &conditions, written.generation)?;
    Some(json!({"observedGeneration": written.generation, "conditions": merged}))
}

/// The same of a route of the Gateway API.
fn of_route(written: &Written, state: &RuleState, parents: &[ParentStatus]) -> Option<Value> {
    let all = array(&written.status["parents"]);
    let (ours, others): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|one| one["controllerName"] == json!(CONTROLLER));
    let mut changed = ours.len() != parents.len();
    let mut told = others;
    for parent in parents {
        let reference = reference(parent);
        let before = ours.iter().find(|one| one["parentRef"] == reference);
        let known = before.map(|one| array(&one["conditions"])).unwrap_or_default();
        let conditions = of_parent(state, parent);
        let merged = merged(&known, &conditions, written.generation);
        changed |= merged.is_some();
        told.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": merged.unwrap_or(known),
        }));
    }
    changed.then(|| json!({"parents": told}))
}

/// A version that is not valid is accepted by nobody; the one in force says which Services have it.
fn of_parent(state: &RuleState, parent: &ParentStatus) -> Vec<Condition> {
    let told = parent.conditions.iter().map(|one| Condition {
        kind: one.kind,
        holds: one.holds,
        reason: one.reason.to_owned(),
        message: one.message.clone(),
    });
    let mut conditions: Vec<Condition> = told.collect();
    if !state.problems.is_empty()
        && let Some(accepted) = conditions.iter_mut().find(|one| one.kind == "Accepted")
    {
        *accepted = Condition {
            kind: "Accepted",
            holds: false,
            reason: "UnsupportedValue".to_owned(),
            message: texts(&state.problems),
        };
    }
    conditions
}

fn reference(parent: &ParentStatus) -> Value {
    let parent = &parent.parent;
    let mut reference = json!({"group": parent.group, "kind": parent.kind, "name": parent.name});
    if let Some(namespace) = &parent.namespace {
        reference["namespace"] = json!(namespace);
    }
    if let Some(section) = &parent.section_name {
        reference["sectionName"] = json!(section);
    }
    if let Some(port) = parent.port {
        reference["port"] = json!(port);
    }
    reference
}

fn accepted(state: &RuleState) -> Condition {
    let conflict = state.findings.iter().find(|one| one.kind == FindingKind::Conflict);
    let (holds, reason, message) = match (&state.problems[..], conflict) {
        ([], None) => (true, "Accepted", String::new()),
        ([], Some(conflict)) => (false, "Conflicted", conflict.text.clone()),
        (problems, _) if state.resource.is_some() => {
            (false, "Invalid", format!("the version before stays in force: {}", texts(problems)))
        }
        (problems, _) => (false, "Invalid", texts(problems)),
    };
    Condition { kind: "heddle.dev/Accepted", holds, reason: reason.to_owned(), message }
}

fn resolved(state: &RuleState) -> Condition {
    let dangling = state.findings.iter().filter(|one| one.kind == FindingKind::Dangling);
    let told: Vec<&str> = dangling.map(|one| one.text.as_str()).collect();
    let (holds, reason) = match told.is_empty() {
        true => (true, "ResolvedRefs"),
        false => (false, "NotFound"),
    };
    let message = told.join("; ");
    Condition { kind: "heddle.dev/ResolvedRefs", holds, reason: reason.to_owned(), message }
}

fn enforced(state: &RuleState) -> Condition {
    let mut told: Vec<String> = Vec::new();
    if let Some(resource) = &state.resource {
        let fields = resource.not_enforced.iter();
        let reason =
            |why: &Option<String>| why.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        told.extend(fields.map(|note| format!("{}{}", note.field, reason(&note.reason))));
    }
    let without = state.findings.iter().filter(|one| one.kind == FindingKind::NoEffect);
    told.extend(without.map(|one| one.text.clone()));
    let (holds, reason) = match told.is_empty() {
        true => (true, "Enforced"),
        false => (false, "PartiallyEnforced"),
    };
    let message = told.join("; ");
    Condition { kind: "heddle.dev/Enforced", holds, reason: reason.to_owned(), message }
}

fn texts(problems: &[Problem]) -> String {
    let text = |one: &Problem| match &one.field {
        Some(field) => format!("{field}: {}", one.reason),
        None => one.reason.clone(),
    };
    problems.iter().map(text).collect::<Vec<_>>().join("; ")
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Conditions of others with ours; `None` if ours are there already. A condition keeps the moment from which
/// on it is as it is.
fn merged(before: &[Value], ours: &[Condition], generation: i64) -> Option<Vec<Value>> {
    let now = timestamp::format(clock::unix_now().as_secs());
    let is_ours = |one: &&Value| ours.iter().any(|our| one["type"] == json!(our.kind));
    let mut all: Vec<Value> = before.iter().filter(|one| !is_ours(one)).cloned().collect();
    let mut changed = false;
    for our in ours {
        let status = if our.holds { "True" } else { "False" };
        let message = cut(&our.message);
        let known = before.iter().find(|one| one["type"] == json!(our.kind));
        let since = known.filter(|one| one["status"] == json!(status));
        let since = since.and_then(|one| one["lastTransitionTime"].as_str()).unwrap_or(&now);
        let made = json!({
            "type": our.kind, "status": status, "reason": our.reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": generation,
        });
        changed |= !known.is_some_and(|known| says_the_same(known, &made));
        all.push(made);
    }
    changed.then_some(all)
}

/// What of a message there is room for.
fn cut(text: &str) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(MESSAGE_BYTES_MAX)).rev().find(fits);
    &text[..end.unwrap_or_default()]
}

/// Older kinds know no `observedGeneration` in a condition: the server drops it.
fn says_the_same(known: &Value, made: &Value) -> bool {
    let generation = &known["observedGeneration"];
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    (generation.is_null() || *generation == made["observedGeneration"])
        && ["status", "reason", "message"].iter().all(|key| text(known, key) == text(made, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::client::Kind;

    fn written(status: Value) -> Written {
        let kind = Kind::new("networking.istio.io", "v1", "VirtualService", "virtualservices");
        Written { kind, generation: 2, version: "1".to_owned(), status, carried: 0 }
    }

    fn state(problems: Vec<Problem>) -> RuleState {
        RuleState { problems, findings: Vec::new(), resource: None }
    }

    #[test]
    fn what_is_there_already_is_not_written_and_others_words_stay() {
        let theirs = json!({"type": "Reconciled", "status": "True"});
        let first = of_rule(&written(json!({"conditions": [theirs]})), &state(Vec::new())).unwrap();
        assert_eq!(first["conditions"][0], theirs);
        assert_eq!(first["conditions"].as_array().unwrap().len(), 4);
        assert_eq!(of_rule(&written(first.clone()), &state(Vec::new())), None);

        let problem = Problem {
            reason: "no".to_owned(),
            field: Some("spec.http".to_owned()),
            ..Problem::default()
        };
        let mut old = first;
        old["conditions"][1]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        old["conditions"][2]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let second = of_rule(&written(old), &state(vec![problem])).unwrap();
        let accepted = &second["conditions"][1];
        assert_eq!(
            (&accepted["status"], &accepted["reason"]),
            (&json!("False"), &json!("Invalid"))
        );
        assert_eq!(accepted["message"], json!("spec.http: no"));
        assert_ne!(accepted["lastTransitionTime"], json!("2020-01-01T00:00:00Z"));
        assert_eq!(second["conditions"][2]["lastTransitionTime"], json!("2020-01-01T00:00:00Z"));
    }

    #[test]
    fn a_route_keeps_what_other_controllers_say_of_it() {
        let theirs =
            json!({"controllerName": "other.dev/x", "parentRef": {"name": "gw"}, "conditions": []});
        let of_ours =
            json!({"controllerName": CONTROLLER, "parentRef": {"name": "old"}, "conditions": []});
        let before = written(json!({"parents": [theirs, of_ours]}));
        let told = of_route(&before, &state(Vec::new()), &[]).unwrap();
        assert_eq!(told["parents"], json!([theirs]), "a parent that it has no more goes");
        assert_eq!(of_route(&written(told), &state(Vec::new()), &[]), None);
    }
}
