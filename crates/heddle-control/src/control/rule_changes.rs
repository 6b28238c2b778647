//! Changes of rules: `apply`, `delete`, and edits in the `--config` folder. Each is one transaction
//! and at most one generation: planned, indexed and verified beside what is in force, stored, and
//! only then put in force.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::http::StatusCode;
use heddle_compile::{Finding, ResourceState, RuleIndex};
use heddle_model::{
    ResourceKey,
    resource::Resource,
    yaml::{Parsed, Skipped},
};
use heddle_runtime::clock;
use heddle_wire::local::control_api::{
    Action, ApplyRequest, ApplyResponse, Change, DeleteRequest, Problem,
};

use super::{Control, uncancelled};
use crate::{
    credentials,
    documents::{not_enforced, parse},
    error::{Refused, shorten},
    files::{
        RuleFiles,
        read::{self, FileText},
        watch::{Batch, FolderWatch},
    },
    limits::RESOURCES_MAX,
    mesh::Mesh,
    rules::{Holder, Rules},
    store::{self, AppliedDocument},
    verify,
};

/// A change of applied objects, planned.
struct Plan {
    rules: Rules,
    changes: Vec<Change>,
    stored: Vec<store::Change>,
    /// Objects the answer's notes are about.
    about: BTreeSet<ResourceKey>,
}

impl Control {
    /// Puts documents in force as one generation.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        request: ApplyRequest,
    ) -> Result<ApplyResponse, Refused> {
        let (control, wait, dry_run) = (self.clone(), request.wait_ms, request.dry_run);
        let answer = uncancelled(async move {
            let _turn = control.turn.lock().await;
            let Parsed { resources, skipped } = read_documents(&request)?;
            if request.strict {
                refuse_ineffective(&resources, &skipped)?;
            }
            if !request.force {
                refuse_unusable(&resources)?;
            }
            let plan = plan_apply(&control.mesh().rules, resources)?;
            let answer = control.carry_out(plan, request.force, request.dry_run).await?;
            Ok(ApplyResponse { skipped: skipped.0, ..answer })
        })
        .await?;
        if dry_run {
            // It has changed nothing that anybody could acknowledge.
            return Ok(answer);
        }
        Ok(self.with_acknowledgement(answer, wait).await)
    }

    /// Deletes applied objects as one generation.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        request: DeleteRequest,
    ) -> Result<ApplyResponse, Refused> {
        let (control, wait) = (self.clone(), request.wait_ms);
        let answer = uncancelled(async move {
            let _turn = control.turn.lock().await;
            let plan = plan_delete(&control.mesh().rules, &request.keys)?;
            control.carry_out(plan, request.force, false).await
        })
        .await?;
        Ok(self.with_acknowledgement(answer, wait).await)
    }

    /// Would the rules that are left still have what they name? Nothing is changed; what is not known here says
    /// nothing.
    pub(crate) async fn check_delete(
        &self,
        request: DeleteRequest,
    ) -> Result<ApplyResponse, Refused> {
        let _turn = self.turn.lock().await;
        let plan = {
            let mesh = self.mesh();
            let known = request.keys.into_iter().filter(|key| mesh.rules.applied(key).is_some());
            let known: Vec<ResourceKey> = known.collect();
            if known.is_empty() {
                return Ok(ApplyResponse::default());
            }
            plan_delete(&mesh.rules, &known)?
        };
        self.carry_out(plan, request.force, true).await
    }

    async fn with_acknowledgement(&self, mut answer: ApplyResponse, wait_ms: u64) -> ApplyResponse {
        let limit = Duration::from_millis(wait_ms);
        answer.acknowledgement = self.acknowledged(answer.generation, limit).await;
        answer
    }

    /// Verifies a plan, stores it and puts it in force. The caller holds the turn.
    async fn carry_out(
        &self,
        plan: Plan,
        force: bool,
        dry_run: bool,
    ) -> Result<ApplyResponse, Refused> {
        let in_force = plan.rules.in_force();
        let index = RuleIndex::new(&in_force.resources);
        let (mut answer, unchanged) = {
            let mesh = self.mesh();
            let before = mesh.registry();
            let after = mesh.registry_with(index.resources());
            let registry = &*after;
            verify::verify(&index, registry)
                .map_err(|problems| Refused::of(StatusCode::BAD_REQUEST, problems))?;
            if !force {
                refuse_dangling(&mesh.index.dangles_between(&index, before, registry))?;
            }
            let unchanged = plan.changes.iter().all(|change| change.action == Action::Unchanged);
            let generation = mesh.generations.newest();
            let findings = index.findings_at(registry, clock::unix_now().as_secs());
            let notes = notes(&findings, &in_force.resources, &plan.about);
            let warnings = warnings(&findings, &plan.about);
            let mut changes = plan.changes.clone();
            tell_states(&mut changes, &in_force.resources, &findings);
            let answer =
                ApplyResponse { generation, changes, notes, warnings, ..ApplyResponse::default() };
            (answer, unchanged)
        };
        shorten(&mut answer.notes);
        shorten(&mut answer.warnings);
        if dry_run || unchanged {
            return Ok(answer);
        }
        self.persist(plan.stored).await.map_err(|error| {
            let reason = format!("nothing was changed: {error}");
            Refused::new(StatusCode::INSUFFICIENT_STORAGE, reason)
        })?;
        answer.generation = self.mesh().put_rules(plan.rules, index);
        self.after_commit();
        // A name's address must outlive this process from when its maker is told that it is there.
        let vips = self.entries_vips();
        self.note(vips).await;
        tracing::info!(
            generation = answer.generation,
            objects = answer.changes.len(),
            "rules changed"
        );
        Ok(answer)
    }

    /// Follows the `--config` folder, for ever.
    pub(crate) async fn follow_folder(self: Arc<Self>, mut watch: FolderWatch) {
        loop {
            let batch = watch.next().await;
            self.take_batch(&watch, batch).await;
        }
    }

    /// Looks at what a batch names and puts it in force.
    pub(crate) async fn take_batch(&self, watch: &FolderWatch, batch: Batch) {
        let (known, unsettled) = {
            let mesh = self.mesh();
            let files = &mesh.rules.files;
            let known: BTreeSet<String> = files.iter().map(|(path, _)| path.clone()).collect();
            (known, files.unsettled().map(PathBuf::from).collect())
        };
        let folder = watch.folder().to_owned();
        // Of a folder that could not be taken in, no file is taken in alone.
        let was_refused = !self.troubles().folder.is_empty();
        let batch = match with_unsettled(batch, unsettled) {
            Batch::Files(_) if was_refused => Batch::Folder { except: BTreeSet::new() },
            batch => batch,
        };
        let looked = tokio::task::spawn_blocking(move || look_at(folder, batch, known)).await;
        let Ok(looked) = looked else { return };
        let watching = watch.problem().map(str::to_owned);
        let refused = self.take_files(looked.files).await.err();
        let reasons = watching.into_iter().chain(looked.problem).chain(refused);
        let problem = |reason| Problem { reason, ..Problem::default() };
        self.troubles().folder = reasons.map(problem).collect();
    }

    /// Puts what was read in force; all of it stays out if there is too much.
    async fn take_files(&self, looked: Vec<(String, FileText)>) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let stored = {
            let mut mesh = self.mesh();
            let mut newest = mesh.rules.files.clone();
            let changed = newest.update(looked);
            if changed.is_empty() {
                return Ok(());
            }
            let paths: Vec<String> = changed.iter().cloned().collect();
            let mut rules = mesh.rules.clone();
            let objects = rules.len() - rules.files.len() + newest.len();
            if objects > RESOURCES_MAX {
                return Err(format!(
                    "the folder would make {objects} objects, and {}; nothing new of it is in force",
                    too_many()
                ));
            }
            admit(&mut rules, &newest, &paths, &mesh);
            let index = RuleIndex::new(&rules.in_force().resources);
            let before = &mesh.rules.files;
            warn_of_invalid(before, &rules.files, &paths);
            let good =
                |files: &RuleFiles, path: &str| files.file(path).and_then(|file| file.good.clone());
            let stored = paths.iter().filter_map(|path| {
                let text = good(&rules.files, path);
                (text != good(before, path)).then(|| store::Change::File(path.clone(), text))
            });
            let stored: Vec<store::Change> = stored.collect();
            if same_effect(&mesh.rules, &rules) {
                mesh.replace_rules(rules, index);
            } else {
                let generation = mesh.put_rules(rules, index);
                self.after_commit();
                tracing::info!(generation, files = changed.len(), "rule files changed");
            }
            stored
        };
        // The files themselves are what counts; the store keeps the last good text beside them. So
        // this comes after the proxies, and its failure is a finding, not a refusal.
        let vips = self.entries_vips();
        self.note(stored.into_iter().chain(vips)).await;
        Ok(())
    }
}

/// Takes the files `paths` over from `newest` as far as a proxy would take the whole. If it would
/// not, each half is tried, down to single files, so that one bad file does not hold up the others.
fn admit(rules: &mut Rules, newest: &RuleFiles, paths: &[String], mesh: &Mesh) {
    let mut trial = rules.clone();
    trial.files.take_over(newest, paths);
    let index = RuleIndex::new(&trial.in_force().resources);
    let registry = mesh.registry_with(index.resources());
    let verified = verify::verify(&index, &registry);
    match (verified, paths) {
        (Ok(()), _) => *rules = trial,
        (Err(_), []) => {}
        (Err(problems), [path]) => rules.files.reject(path, &problems),
        (Err(_), paths) => {
            let (first, second) = paths.split_at(paths.len() / 2);
            admit(rules, newest, first, mesh);
            admit(rules, newest, second, mesh);
        }
    }
}

/// Tells of files that are invalid, once per reason.
fn warn_of_invalid(before: &RuleFiles, now: &RuleFiles, paths: &[String]) {
    for path in paths {
        let problems = |files: &RuleFiles| {
            files.file(path).map(|file| file.problems.clone()).unwrap_or_default()
        };
        let invalid = problems(now);
        if invalid == problems(before) {
            continue;
        }
        for Problem { file, line, field, reason } in invalid {
            tracing::warn!(
                file,
                line,
                field,
                reason,
                "rule file is invalid; its last good version stays in force"
            );
        }
    }
}

/// A batch with the files that are to be looked at in each. A whole folder has them anyway.
fn with_unsettled(batch: Batch, unsettled: BTreeSet<PathBuf>) -> Batch {
    match batch {
        Batch::Files(paths) => Batch::Files(paths.into_iter().chain(unsettled).collect()),
        whole @ Batch::Folder { .. } => whole,
    }
}

/// What a look at the folder brought.
struct Looked {
    files: Vec<(String, FileText)>,
    problem: Option<String>,
}

fn look_at(folder: PathBuf, batch: Batch, known: BTreeSet<String>) -> Looked {
    let name = |path: &PathBuf| path.to_string_lossy().into_owned();
    let (paths, problem) = match batch {
        Batch::Files(paths) => (paths.into_iter().collect(), None),
        Batch::Folder { except } => match read::list(&folder) {
            Ok(mut paths) => {
                let present: BTreeSet<String> = paths.iter().map(name).collect();
                let gone = known.into_iter().filter(|path| !present.contains(path));
                paths.extend(gone.map(PathBuf::from));
                paths.retain(|path| !except.contains(path));
                (paths, None)
            }
            Err(why) => {
                let folder = folder.display();
                let reason =
                    format!("the folder {folder} {why}; what was read from it stays in force");
                (Vec::new(), Some(reason))
            }
        },
    };
    let files = paths.iter().map(|path| (name(path), read::look(path))).collect();
    Looked { files, problem }
}

/// Reads all files of a request; every error of every file is told together.
fn read_documents(request: &ApplyRequest) -> Result<Parsed, Refused> {
    let mut resources: Vec<Resource> = Vec::new();
    let mut skipped = Skipped::default();
    let mut problems = Vec::new();
    for file in &request.files {
        match parse(&file.file, &file.text, &request.namespace) {
            Ok(read) => {
                resources.extend(read.resources);
                skipped.add(&read.skipped);
            }
            Err(errors) => problems.extend(errors),
        }
    }
    let mut seen: BTreeMap<&ResourceKey, &Resource> = BTreeMap::new();
    let mut twins = BTreeSet::new();
    for (position, resource) in resources.iter().enumerate() {
        let Some(first) = seen.get(&resource.key) else {
            seen.insert(&resource.key, resource);
            continue;
        };
        // One object in two files is no harm as long as it is the same.
        if first.text == resource.text {
            twins.insert(position);
            continue;
        }
        let origin = &first.origin;
        let reason = format!(
            "{} is also defined in {}:{}, and differs: keep one",
            resource.key, origin.file, origin.line
        );
        problems.push(at(resource, Some("metadata.name"), reason));
    }
    let mut positions = 0..;
    resources.retain(|_| positions.next().is_none_or(|position| !twins.contains(&position)));
    if problems.is_empty() && resources.is_empty() {
        let files: Vec<&str> = request.files.iter().map(|file| file.file.as_str()).collect();
        let others = skipped.line().map(|line| format!(" ({line})")).unwrap_or_default();
        let reason = format!("no rule in {}: there is nothing to apply{others}", named(&files));
        problems.push(Problem { reason, ..Problem::default() });
    }
    if problems.is_empty() {
        Ok(Parsed { resources, skipped })
    } else {
        Err(Refused::of(StatusCode::BAD_REQUEST, problems))
    }
}

/// A few names; of many, how many there are.
fn named(files: &[&str]) -> String {
    const SHOWN_MAX: usize = 3;
    match files.get(SHOWN_MAX) {
        None => files.join(", "),
        Some(_) => {
            format!("{} and {} more", files[..SHOWN_MAX].join(", "), files.len() - SHOWN_MAX)
        }
    }
}

/// Refuses what would not be in force as it is written.
fn refuse_ineffective(resources: &[Resource], skipped: &Skipped) -> Result<(), Refused> {
    let strict = |problem: Problem| Problem {
        reason: format!("{}: refused by --strict", problem.reason),
        ..problem
    };
    let noted = resources.iter().flat_map(not_enforced).map(strict);
    let others = skipped.line().map(|reason| strict(Problem { reason, ..Problem::default() }));
    let problems: Vec<Problem> = noted.chain(others).collect();
    if problems.is_empty() { Ok(()) } else { Err(Refused::of(StatusCode::BAD_REQUEST, problems)) }
}

/// Refuses rules whose files no sidecar could use.
fn refuse_unusable(resources: &[Resource]) -> Result<(), Refused> {
    let problems = credentials::problems(resources);
    if problems.is_empty() { Ok(()) } else { Err(Refused::of(StatusCode::BAD_REQUEST, problems)) }
}

/// Says of each changed object what has become of it.
fn tell_states(changes: &mut [Change], resources: &[Arc<Resource>], findings: &[Finding]) {
    let resources: HashMap<&ResourceKey, &Arc<Resource>> =
        resources.iter().map(|resource| (&resource.key, resource)).collect();
    let findings = by_key(findings);
    for change in changes {
        let Some(resource) = resources.get(&change.key) else { continue };
        let own = findings.get(&change.key).into_iter().flatten().copied();
        ResourceState::of(resource, own).as_str().clone_into(&mut change.state);
    }
}

/// Findings by what they are about.
pub(super) fn by_key(findings: &[Finding]) -> HashMap<&ResourceKey, Vec<&Finding>> {
    let mut by_key: HashMap<&ResourceKey, Vec<&Finding>> = HashMap::new();
    for finding in findings {
        by_key.entry(&finding.key).or_default().push(finding);
    }
    by_key
}

fn plan_apply(rules: &Rules, resources: Vec<Resource>) -> Result<Plan, Refused> {
    let mut plan = Plan::of(rules);
    let mut problems = Vec::new();
    let holders = rules.holders();
    for resource in resources {
        let key = resource.key.clone();
        if let Some(Holder::File(path)) = holders.get(&key) {
            let reason = format!(
                "{key} is held by the file {path}: edit it there, or take it out of that file first"
            );
            problems.push(at(&resource, None, reason));
            continue;
        }
        plan.about.insert(key.clone());
        let action = match rules.applied(&key) {
            None => Action::Created,
            Some(applied) if applied.resource.text == resource.text => Action::Unchanged,
            Some(_) => Action::Configured,
        };
        plan.changes.push(Change { key: key.clone(), action, state: String::new() });
        if action == Action::Unchanged {
            continue;
        }
        let (file, line) = (resource.origin.file.clone(), resource.origin.line);
        let text = resource.text.clone();
        let (order, since) = plan.rules.put(Arc::new(resource), clock::unix_now().as_secs());
        let document = AppliedDocument { order, file, line, text, since };
        plan.stored.push(store::Change::Applied(key, Some(document)));
    }
    if plan.rules.len() > RESOURCES_MAX {
        problems.push(Problem { reason: too_many(), ..Problem::default() });
    }
    if problems.is_empty() { Ok(plan) } else { Err(Refused::of(StatusCode::CONFLICT, problems)) }
}

fn plan_delete(rules: &Rules, keys: &[ResourceKey]) -> Result<Plan, Refused> {
    let mut plan = Plan::of(rules);
    let (mut absent, mut held) = (Vec::new(), Vec::new());
    let keys: BTreeSet<&ResourceKey> = keys.iter().collect();
    let holders = rules.holders();
    for key in keys {
        match holders.get(key) {
            Some(Holder::Apply) => {
                plan.rules.remove(key);
                plan.stored.push(store::Change::Applied(ResourceKey::clone(key), None));
                let (key, state) = (key.clone(), String::new());
                plan.changes.push(Change { key, action: Action::Deleted, state });
            }
            Some(Holder::File(path)) => {
                held.push(format!("{key} is held by the file {path}: take it out of that file"))
            }
            None => absent.push(format!("there is no {key}")),
        }
    }
    let status = if absent.is_empty() { StatusCode::CONFLICT } else { StatusCode::NOT_FOUND };
    let reasons = absent.into_iter().chain(held);
    let problems: Vec<Problem> =
        reasons.map(|reason| Problem { reason, ..Problem::default() }).collect();
    if !problems.is_empty() {
        return Err(Refused::of(status, problems));
    }
    if plan.changes.is_empty() {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "no object was named: there is nothing to delete",
        ));
    }
    Ok(plan)
}

impl Plan {
    fn of(rules: &Rules) -> Self {
        Self {
            rules: rules.clone(),
            changes: Vec::new(),
            stored: Vec::new(),
            about: BTreeSet::new(),
        }
    }
}

/// Refuses a change after which live references, good before it, name nothing.
fn refuse_dangling(dangling: &[Finding]) -> Result<(), Refused> {
    if dangling.is_empty() {
        return Ok(());
    }
    let explain = |finding: &Finding| Problem {
        reason: format!(
            "{}: {}; change that rule first, or use --force",
            finding.key, finding.text
        ),
        ..problem(finding)
    };
    Err(Refused::of(StatusCode::CONFLICT, dangling.iter().map(explain).collect()))
}

/// A finding as callers are told it.
pub(super) fn problem(finding: &Finding) -> Problem {
    Problem {
        file: Some(finding.file.clone()),
        line: Some(finding.line),
        field: Some(finding.field.clone()).filter(|field| !field.is_empty()),
        reason: finding.text.clone(),
    }
}

/// What is worth saying about the objects of a request.
fn notes(
    findings: &[Finding],
    resources: &[Arc<Resource>],
    about: &BTreeSet<ResourceKey>,
) -> Vec<Problem> {
    let own = resources.iter().filter(|resource| about.contains(&resource.key));
    let not_enforced = own.flat_map(|resource| not_enforced(resource));
    let found = findings.iter().filter(|finding| about.contains(&finding.key));
    not_enforced.chain(found.map(problem)).collect()
}

/// What of that is graver: calls are refused for it.
fn warnings(findings: &[Finding], about: &BTreeSet<ResourceKey>) -> Vec<Problem> {
    let own = findings.iter().filter(|finding| about.contains(&finding.key));
    own.filter(|finding| finding.refuses_calls()).map(problem).collect()
}

/// Do two sets of rules say the same, comments and places apart?
pub(super) fn same_effect(one: &Rules, other: &Rules) -> bool {
    let (one, other) = (one.in_force().resources, other.in_force().resources);
    let same = |(a, b): (&Arc<Resource>, &Arc<Resource>)| {
        Arc::ptr_eq(a, b) || (a.key == b.key && a.annotations == b.annotations && a.spec == b.spec)
    };
    one.len() == other.len() && one.iter().zip(&other).all(same)
}

fn at(resource: &Resource, field: Option<&str>, reason: String) -> Problem {
    Problem {
        file: Some(resource.origin.file.clone()),
        line: Some(resource.origin.line),
        field: field.map(str::to_owned),
        reason,
    }
}

fn too_many() -> String {
    format!("this mesh takes no more than {RESOURCES_MAX} objects")
}
