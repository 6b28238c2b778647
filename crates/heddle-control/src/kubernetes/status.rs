//! What the mesh says of each object in its status: whether its newest version is in force, what it names that
//! is not there, and what of it is not enforced. Only the leader writes, and only what differs from what is
//! there; conditions and parents of others are left as they are.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use heddle_compile::{FindingKind, ParentStatus};
use heddle_model::{ResourceKey, timestamp};
use heddle_runtime::clock;
use heddle_wire::local::control_api::Problem;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    client::{Api, ApiError, Patch},
    health::Health,
    progress::{Progress, Round},
    rules::{RuleBook, Written},
    serve::PORT_MONITORING,
};
use crate::{
    control::{Control, RuleState},
    revision,
};

/// Whose words conditions and routes' parents are.
const DOMAIN: &str = "heddle.dev";
/// Changes within this time of one another are written together.
const SETTLE: Duration = Duration::from_millis(500);
/// Everything is looked at again after this time: what a rule names may have come or gone, and a status that
/// could not be written is tried again then.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same while proxies lack a rule.
const PENDING_INTERVAL: Duration = Duration::from_secs(1);
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
    /// This replica's pod.
    pub(crate) identity: String,
    /// This installation: another one says of the same rules what is so with its own proxies.
    pub(crate) revision: String,
}

/// Who writes, and who else may have written.
#[derive(Debug, Clone, Copy)]
struct Author<'a> {
    revision: &'a str,
    /// Revisions of control planes that are there: nobody keeps up what others have said.
    installed: &'a BTreeSet<String>,
}

impl Author<'_> {
    /// The type of a condition: several installations say the same words of one object.
    fn kind(self, word: &str) -> String {
        match self.revision {
            revision::DEFAULT => format!("{DOMAIN}/{word}"),
            revision => format!("{revision}.{DOMAIN}/{word}"),
        }
    }

    /// The controller of a route's parents.
    fn controller(self) -> String {
        format!("{DOMAIN}/{}", revision::named("mesh", self.revision))
    }

    /// Is it the type of a condition that an installation wrote which is gone?
    fn is_stale_kind(self, kind: &str) -> bool {
        let Some((domain, _)) = kind.split_once('/') else { return false };
        let of = match domain.strip_suffix(DOMAIN) {
            Some("") => revision::DEFAULT,
            Some(of) => of.strip_suffix('.').unwrap_or(of),
            None => return false,
        };
        !self.installed.contains(of)
    }

    /// The same of a route's controller.
    fn is_stale_controller(self, controller: &str) -> bool {
        let named = controller.strip_prefix(DOMAIN).and_then(|rest| rest.strip_prefix("/mesh"));
        let of = match named {
            Some("") => revision::DEFAULT,
            Some(rest) => rest.strip_prefix('-').unwrap_or(rest),
            None => return false,
        };
        !self.installed.contains(of)
    }
}

/// A condition, before it has its time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    kind: String,
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
            let leads = *self.leads.borrow_and_update();
            let pending = leads && self.write_all().await;
            let interval = if pending { PENDING_INTERVAL } else { INTERVAL };
            tokio::select! {
                // A sender that is gone ends the process too.
                _ = changes.changed() => {}
                _ = self.leads.changed() => {}
                () = clock::sleep(interval) => {}
            }
        }
    }

    /// Says whether there are proxies that lack a rule.
    async fn write_all(&self) -> bool {
        let itself = (self.identity.as_str(), self.revision.as_str(), PORT_MONITORING);
        let round = Round::look(&self.control, &self.book, itself).await;
        let author = Author { revision: &self.revision, installed: &round.installed };
        let mut pending = false;
        for (key, state) in self.control.rule_states() {
            let Some(written) = self.book.of(&key) else { continue };
            let progress = round.of(&key, written.generation);
            pending |= !progress.is_complete();
            let about = (&state, &progress);
            let is_route = written.kind.group == heddle_model::resource::GATEWAY_GROUP;
            let status = if is_route {
                let parents = self.control.parents_of(&key);
                of_route(author, &written, about, &parents)
            } else {
                of_rule(author, &written, about)
            };
            if let Some(status) = status {
                self.write(&key, &written, status).await;
            }
        }
        pending
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

/// What is known of a rule.
type About<'a> = (&'a RuleState, &'a Progress);

/// The status of an object of Istio's kinds or ours; `None` if it is there.
fn of_rule(author: Author<'_>, written: &Written, (state, progress): About<'_>) -> Option<Value> {
    let conditions = [
        accepted(author, state),
        resolved(author, state),
        enforced(author, state),
        reconciled(author, state, progress),
    ];
    let others = array(&written.status["conditions"]);
    let merged = merged(author, &others, &conditions, written.generation)?;
    Some(json!({"observedGeneration": written.generation, "conditions": merged}))
}

/// The same of a route of the Gateway API.
fn of_route(
    author: Author<'_>,
    written: &Written,
    about: About<'_>,
    parents: &[ParentStatus],
) -> Option<Value> {
    let controller = author.controller();
    let by = |one: &Value| one["controllerName"].as_str().unwrap_or_default().to_owned();
    let mut all = array(&written.status["parents"]);
    let before = all.len();
    all.retain(|one| !author.is_stale_controller(&by(one)));
    let mut changed = all.len() != before;
    let (ours, others): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|one| by(one) == controller);
    changed |= ours.len() != parents.len();
    let mut told = others;
    for parent in parents {
        let reference = reference(parent);
        let before = ours.iter().find(|one| one["parentRef"] == reference);
        let known = before.map(|one| array(&one["conditions"])).unwrap_or_default();
        let conditions = of_parent(author, about, parent);
        let merged = merged(author, &known, &conditions, written.generation);
        changed |= merged.is_some();
        told.push(json!({
            "parentRef": reference,
            "controllerName": controller,
            "conditions": merged.unwrap_or(known),
        }));
    }
    changed.then(|| json!({"parents": told}))
}

/// A version that is not valid is accepted by nobody; the one in force says which Services have it.
fn of_parent(
    author: Author<'_>,
    (state, progress): About<'_>,
    parent: &ParentStatus,
) -> Vec<Condition> {
    let told = parent.conditions.iter().map(|one| Condition {
        kind: one.kind.to_owned(),
        holds: one.holds,
        reason: one.reason.to_owned(),
        message: one.message.clone(),
    });
    let mut conditions: Vec<Condition> = told.collect();
    if !state.problems.is_empty()
        && let Some(accepted) = conditions.iter_mut().find(|one| one.kind == "Accepted")
    {
        *accepted = Condition {
            kind: "Accepted".to_owned(),
            holds: false,
            reason: "UnsupportedValue".to_owned(),
            message: texts(&state.problems),
        };
    }
    conditions.push(reconciled(author, state, progress));
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

fn accepted(author: Author<'_>, state: &RuleState) -> Condition {
    let conflict = state.findings.iter().find(|one| one.kind == FindingKind::Conflict);
    let (holds, reason, message) = match (&state.problems[..], conflict) {
        ([], None) => (true, "Accepted", String::new()),
        ([], Some(conflict)) => (false, "Conflicted", conflict.text.clone()),
        (problems, _) if state.resource.is_some() => {
            (false, "Invalid", format!("the version before stays in force: {}", texts(problems)))
        }
        (problems, _) => (false, "Invalid", texts(problems)),
    };
    let kind = author.kind("Accepted");
    Condition { kind, holds, reason: reason.to_owned(), message }
}

fn resolved(author: Author<'_>, state: &RuleState) -> Condition {
    let dangling = state.findings.iter().filter(|one| one.kind == FindingKind::Dangling);
    let told: Vec<&str> = dangling.map(|one| one.text.as_str()).collect();
    let (holds, reason) = match told.is_empty() {
        true => (true, "ResolvedRefs"),
        false => (false, "NotFound"),
    };
    let message = told.join("; ");
    let kind = author.kind("ResolvedRefs");
    Condition { kind, holds, reason: reason.to_owned(), message }
}

fn enforced(author: Author<'_>, state: &RuleState) -> Condition {
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
    let kind = author.kind("Enforced");
    Condition { kind, holds, reason: reason.to_owned(), message }
}

/// Does every connected proxy that it concerns run this version? How many these are is said only while some do not:
/// else every pod that comes or goes would have all statuses written.
fn reconciled(author: Author<'_>, state: &RuleState, progress: &Progress) -> Condition {
    let kind = author.kind("Reconciled");
    let no = |reason: &str, message: String| Condition {
        kind: kind.clone(),
        holds: false,
        reason: reason.to_owned(),
        message,
    };
    if !state.problems.is_empty() {
        return no("Invalid", "no proxy runs this version".to_owned());
    }
    if progress.is_complete() {
        let (reason, message) = ("Reconciled".to_owned(), String::new());
        return Condition { kind, holds: true, reason, message };
    }
    no("Pending", progress.told())
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
fn merged(
    author: Author<'_>,
    before: &[Value],
    ours: &[Condition],
    generation: i64,
) -> Option<Vec<Value>> {
    let now = timestamp::format(clock::unix_now().as_secs());
    let is_ours = |one: &&Value| ours.iter().any(|our| one["type"] == json!(our.kind));
    let is_stale =
        |one: &&Value| one["type"].as_str().is_some_and(|kind| author.is_stale_kind(kind));
    let others = before.iter().filter(|one| !is_ours(one) && !is_stale(one));
    let mut all: Vec<Value> = others.cloned().collect();
    let mut changed = before.iter().any(|one| is_stale(&one));
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

    fn by<'a>(revision: &'a str, installed: &'a BTreeSet<String>) -> Author<'a> {
        Author { revision, installed }
    }

    fn alone() -> BTreeSet<String> {
        BTreeSet::from([revision::DEFAULT.to_owned()])
    }

    fn state(problems: Vec<Problem>) -> RuleState {
        RuleState { problems, findings: Vec::new(), resource: None }
    }

    #[test]
    fn what_is_there_already_is_not_written_and_others_words_stay() {
        let theirs = json!({"type": "Reconciled", "status": "True"});
        let (alone, done) = (alone(), Progress::default());
        let said = |before: Value, state: &RuleState| {
            of_rule(by(revision::DEFAULT, &alone), &written(before), (state, &done))
        };
        let first = said(json!({"conditions": [theirs]}), &state(Vec::new())).unwrap();
        assert_eq!(first["conditions"][0], theirs);
        assert_eq!(first["conditions"].as_array().unwrap().len(), 5);
        assert_eq!(said(first.clone(), &state(Vec::new())), None);

        let problem = Problem {
            reason: "no".to_owned(),
            field: Some("spec.http".to_owned()),
            ..Problem::default()
        };
        let mut old = first;
        old["conditions"][1]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        old["conditions"][2]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let second = said(old, &state(vec![problem])).unwrap();
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
        let of_ours = json!({"controllerName": "heddle.dev/mesh", "parentRef": {"name": "old"}, "conditions": []});
        let before = written(json!({"parents": [theirs, of_ours]}));
        let (alone, done, state) = (alone(), Progress::default(), state(Vec::new()));
        let said = |before: &Written| {
            of_route(by(revision::DEFAULT, &alone), before, (&state, &done), &[])
        };
        let told = said(&before).unwrap();
        assert_eq!(told["parents"], json!([theirs]), "a parent that it has no more goes");
        assert_eq!(said(&written(told)), None);
    }

    #[test]
    fn installations_do_not_write_over_each_other_and_words_of_one_that_is_gone_go() {
        let done = Progress::default();
        let both = BTreeSet::from(["default".to_owned(), "canary".to_owned()]);
        let state = state(Vec::new());
        let said = |revision: &str, installed: &BTreeSet<String>, before: Value| {
            of_rule(by(revision, installed), &written(before), (&state, &done))
        };
        let first = said("default", &both, Value::Null).unwrap();
        let second = said("canary", &both, first).unwrap();
        assert_eq!(second["conditions"].as_array().unwrap().len(), 8);
        assert_eq!(second["conditions"][4]["type"], "canary.heddle.dev/Accepted");
        assert_eq!(said("default", &both, second.clone()), None, "both say what they want");
        let left = said("default", &alone(), second).unwrap();
        let kinds = left["conditions"].as_array().unwrap().iter().map(|one| &one["type"]);
        let canary = |kind: &&Value| kind.as_str().unwrap().starts_with("canary");
        assert_eq!((kinds.clone().count(), kinds.filter(canary).count()), (4, 0));
        assert!(by("default", &alone()).is_stale_controller("heddle.dev/mesh-canary"));
        assert!(!by("default", &alone()).is_stale_controller("heddle.dev/gateway"));
        assert!(!by("default", &alone()).is_stale_kind("other.dev/Accepted"));
    }

    #[test]
    fn proxies_that_lack_a_rule_are_counted() {
        let alone = alone();
        let of = |progress: &Progress, problems| {
            reconciled(by("default", &alone), &state(problems), progress)
        };
        let names = vec![heddle_model::WorkloadId::of_pod("shop", "web-1")];
        let late =
            Progress { pending: 2, concerned: 12, names, unread: vec!["heddle-control-b".into()] };
        let said = of(&late, Vec::new());
        assert_eq!((said.holds, said.reason.as_str()), (false, "Pending"));
        assert_eq!(
            said.message,
            "2 of 12 connected proxies that it concerns do not run it yet: shop.web-1 and 1 more; heddle-control-b has not read it yet"
        );
        assert!(of(&Progress::default(), Vec::new()).holds);
        assert_eq!(of(&late, vec![Problem::default()]).reason, "Invalid");
    }
}
