//! Rules of a cluster: the API server keeps them, and asks the mesh's webhook; the control plane's replicas see them
//! there, and each of its proxies says when it runs them.
//!
//! The API server takes one object at a time. So a replica is asked first about all of them together, which knows what
//! else is in force, and then the API server about each, with nothing kept: a file with one bad rule changes nothing.

use std::{collections::BTreeMap, time::Duration};

use heddle_control::reach::{Object, PodAt, Put, Written};
use heddle_model::{
    ResourceKey,
    resource::Resource,
    yaml::{self, Skipped},
};
use heddle_runtime::{clock, local_http::Method};
use heddle_wire::local::control_api::{
    Acknowledgement, Action, ApplyRequest, ApplyResponse, Change, DeleteRequest, Seen, SeenObject,
    SeenRequest, Status,
};

use crate::{cluster_mesh::ClusterMesh, control_client::milliseconds, failure::Failure};

/// What of an object only the API server writes.
const ITS_OWN: [&str; 7] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
];

/// What files hold.
#[derive(Debug, Default)]
struct Read {
    objects: Vec<(Object, Resource)>,
    /// Services and Namespaces, which are the cluster's own.
    of_the_cluster: BTreeMap<String, usize>,
}

/// Puts the rules of files in force.
///
/// # Errors
/// Every problem found, with its place; then nothing was changed.
pub(super) async fn apply(
    mesh: &ClusterMesh,
    request: &ApplyRequest,
) -> Result<ApplyResponse, Failure> {
    let read = read(request)?;
    let checked: ApplyResponse = mesh.ask("/v1/check/apply", request).await?;
    let asked = ask_the_server(mesh, &read, request.force).await?;
    let of_state = |key: &ResourceKey| {
        let known = checked.changes.iter().find(|change| change.key == *key);
        known.map(|change| change.state.clone()).unwrap_or_default()
    };
    let mut skipped = checked.skipped.clone();
    for (kind, count) in &read.of_the_cluster {
        *skipped.entry(kind.clone()).or_default() += count;
    }
    let answer = |written: &[Written]| {
        let all = read.objects.iter().zip(written);
        let changes = all.map(|((object, _), one)| {
            let key = object.key.clone();
            Change { state: of_state(&key), key, action: action(one) }
        });
        ApplyResponse {
            changes: changes.collect(),
            notes: checked.notes.clone(),
            warnings: checked.warnings.clone(),
            skipped: skipped.clone(),
            ..ApplyResponse::default()
        }
    };
    if request.dry_run {
        return Ok(answer(&asked));
    }
    let written = write(mesh, &read, request.force).await?;
    let served = read.objects.iter().zip(&written);
    let served = served.filter(|((_, resource), _)| !resource.is_not_served());
    let objects = served.map(|((object, _), written)| SeenObject {
        key: object.key.clone(),
        version: Some(version(written).to_owned()),
    });
    let wait = Duration::from_millis(request.wait_ms);
    let acknowledgement = seen(mesh, objects.collect(), wait).await.map_err(after_writing)?;
    let generation = acknowledgement.generation;
    Ok(ApplyResponse { generation, acknowledgement, ..answer(&written) })
}

/// Takes rules out of force.
///
/// # Errors
/// One that is not there, that others need, or that may not be deleted.
pub(super) async fn delete(
    mesh: &ClusterMesh,
    request: &DeleteRequest,
) -> Result<ApplyResponse, Failure> {
    mesh.ask::<ApplyResponse>("/v1/check/delete", request).await?;
    let mut problems = Vec::new();
    for key in &request.keys {
        match mesh.reach.delete(key, true).await {
            Ok(()) => {}
            Err(error) if error.is_final => return Err(error.into()),
            Err(error) => problems.push(error.text),
        }
    }
    if !problems.is_empty() {
        return Err(nothing_changed(&problems));
    }
    let mut changes: Vec<Change> = Vec::new();
    for key in &request.keys {
        mesh.reach.delete(key, false).await.map_err(|error| {
            half_done(&error.text, "deleted", changes.iter().map(|change| change.key.to_string()))
        })?;
        changes.push(Change { key: key.clone(), action: Action::Deleted, state: String::new() });
    }
    let served = request.keys.iter().filter(|key| yaml::is_served(&key.kind));
    let objects = served.map(|key| SeenObject { key: key.clone(), version: None }).collect();
    let wait = Duration::from_millis(request.wait_ms);
    let acknowledgement = seen(mesh, objects, wait).await.map_err(after_writing)?;
    let generation = acknowledgement.generation;
    Ok(ApplyResponse { generation, changes, acknowledgement, ..ApplyResponse::default() })
}

/// Has the API server check every object, and keep none.
async fn ask_the_server(
    mesh: &ClusterMesh,
    read: &Read,
    force: bool,
) -> Result<Vec<Written>, Failure> {
    let mut problems = Vec::new();
    let mut asked = Vec::new();
    for (object, resource) in &read.objects {
        match mesh.reach.put(object, Put { dry_run: true, force }).await {
            Ok(written) => asked.push(written),
            // Of every other object the same would be said.
            Err(error) if error.is_final => return Err(error.into()),
            Err(error) => {
                let origin = &resource.origin;
                problems.push(format!("{}:{}: {}: {error}", origin.file, origin.line, object.key));
            }
        }
    }
    if problems.is_empty() { Ok(asked) } else { Err(nothing_changed(&problems)) }
}

/// Waits for the newest generation of each replica, or for this one of the only one.
///
/// # Errors
/// No replica answers, or a number is given where several count each for itself.
pub(super) async fn wait(
    mesh: &ClusterMesh,
    generation: Option<u64>,
    limit: Duration,
) -> Result<Acknowledgement, Failure> {
    let serving = mesh.serving()?;
    if let (Some(generation), [pod]) = (generation, &serving[..]) {
        let path = wait_path(generation, limit);
        return mesh.call(pod, (Method::GET, &path), None::<&()>, limit).await;
    }
    if generation.is_some() {
        return Err(Failure::usage(format!(
            "each of the {} replicas of the control plane counts its own generations: leave out --generation, and the newest of each is waited for",
            serving.len()
        )));
    }
    let statuses = mesh.get_of_each::<Status>("/v1/status").await?;
    let newest: Vec<_> = statuses.iter().map(|(pod, status)| (*pod, status.generation)).collect();
    acknowledged(mesh, &newest, limit).await
}

fn wait_path(generation: u64, limit: Duration) -> String {
    format!("/v1/wait?generation={generation}&timeout_ms={}", milliseconds(limit))
}

/// Every replica sees the objects as they are now, and its proxies run them. Nobody is asked where there is no time
/// to wait.
async fn seen(
    mesh: &ClusterMesh,
    objects: Vec<SeenObject>,
    limit: Duration,
) -> Result<Acknowledgement, Failure> {
    if limit.is_zero() {
        return Ok(Acknowledgement::default());
    }
    let deadline = clock::now() + limit;
    let left = || deadline.saturating_duration_since(clock::now());
    let mut carried = Vec::new();
    for pod in mesh.serving()? {
        let request = SeenRequest { objects: objects.clone(), wait_ms: milliseconds(left()) };
        let call = (Method::POST, "/v1/seen");
        let seen: Seen = mesh.call(pod, call, Some(&request), left()).await?;
        if !seen.missing.is_empty() {
            let names: Vec<String> = seen.missing.iter().map(ToString::to_string).collect();
            return Err(Failure::refused(format!(
                "replica {} of the control plane has not seen {} within {} s; see `heddle status`",
                pod.name,
                names.join(", "),
                limit.as_secs_f64()
            )));
        }
        carried.push((pod, seen.generation));
    }
    acknowledged(mesh, &carried, left()).await
}

/// How far generations of replicas have come, as one. The number is that of the first.
async fn acknowledged(
    mesh: &ClusterMesh,
    generations: &[(&PodAt, u64)],
    limit: Duration,
) -> Result<Acknowledgement, Failure> {
    let deadline = clock::now() + limit;
    let mut all = Acknowledgement::default();
    for (pod, generation) in generations {
        let left = deadline.saturating_duration_since(clock::now());
        let call = wait_path(*generation, left);
        let one: Acknowledgement = mesh.call(pod, (Method::GET, &call), None::<&()>, left).await?;
        if all.generation == 0 {
            all.generation = one.generation;
        }
        all.acknowledged += one.acknowledged;
        all.pending.extend(one.pending);
    }
    Ok(all)
}

async fn write(mesh: &ClusterMesh, read: &Read, force: bool) -> Result<Vec<Written>, Failure> {
    let mut written: Vec<Written> = Vec::new();
    for (object, _) in &read.objects {
        let put = mesh.reach.put(object, Put { dry_run: false, force }).await;
        written.push(put.map_err(|error| {
            let done = read.objects.iter().take(written.len());
            half_done(&error.text, "applied", done.map(|(object, _)| object.key.to_string()))
        })?);
    }
    Ok(written)
}

/// Everything is read before anything is asked.
fn read(request: &ApplyRequest) -> Result<Read, Failure> {
    let mut read = Read::default();
    let mut skipped = Skipped::default();
    let mut problems: Vec<String> = Vec::new();
    for file in &request.files {
        match yaml::parse(&file.file, &file.text, &request.namespace) {
            Err(errors) => problems.extend(errors.iter().map(ToString::to_string)),
            Ok(parsed) => {
                skipped.add(&parsed.skipped);
                for resource in parsed.resources {
                    match object(&resource) {
                        // One object in two files: that they are the same is checked with the rest.
                        Some(object)
                            if read.objects.iter().any(|(one, _)| one.key == object.key) => {}
                        Some(object) => read.objects.push((object, resource)),
                        None => *read.of_the_cluster.entry(resource.key.kind).or_default() += 1,
                    }
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(nothing_changed(&problems));
    }
    if read.objects.is_empty() {
        skipped.add(&Skipped(read.of_the_cluster));
        let skipped = skipped.line().map_or_else(String::new, |line| format!(" ({line})"));
        return Err(Failure::refused(format!(
            "the files hold no rule{skipped}: nothing was changed"
        )));
    }
    Ok(read)
}

/// A rule as the API server takes it; `None` of what is the cluster's own.
fn object(resource: &Resource) -> Option<Object> {
    if yaml::group_of(&resource.key.kind).is_none_or(str::is_empty) {
        return None;
    }
    let documents = yaml::documents("-", &resource.text).ok()?;
    let mut value = documents.into_iter().next()?.value;
    let api_version = value.get("apiVersion")?.as_str()?.to_owned();
    let fields = value.as_object_mut()?;
    fields.remove("status");
    let metadata = fields.get_mut("metadata")?.as_object_mut()?;
    for own in ITS_OWN {
        metadata.remove(own);
    }
    metadata.insert("namespace".to_owned(), resource.key.namespace.clone().into());
    Some(Object { key: resource.key.clone(), api_version, value })
}

fn version(written: &Written) -> &str {
    match written {
        Written::Created(version) | Written::Changed(version) | Written::Unchanged(version) => {
            version
        }
    }
}

fn action(written: &Written) -> Action {
    match written {
        Written::Created(_) => Action::Created,
        Written::Changed(_) => Action::Configured,
        Written::Unchanged(_) => Action::Unchanged,
    }
}

fn nothing_changed(problems: &[String]) -> Failure {
    Failure::refused(format!("refused, nothing was changed:\n{}", problems.join("\n")))
}

/// The API server has it, whatever becomes of who waits.
fn after_writing(failure: Failure) -> Failure {
    Failure::refused(format!("the change is written, but {}", failure.message))
}

fn half_done(reason: &str, what: &str, done: impl Iterator<Item = String>) -> Failure {
    let done: Vec<String> = done.collect();
    let before = match done.is_empty() {
        true => "nothing was changed".to_owned(),
        false => format!("{what} before it: {}", done.join(", ")),
    };
    Failure::refused(format!("{reason}\n{before}"))
}

#[cfg(test)]
mod tests {
    use heddle_wire::local::control_api::SourceFile;

    use super::*;

    fn request(text: &str) -> ApplyRequest {
        ApplyRequest {
            files: vec![SourceFile { file: "a.yaml".to_owned(), text: text.to_owned() }],
            namespace: "shop".to_owned(),
            dry_run: false,
            force: false,
            strict: false,
            wait_ms: 0,
        }
    }

    const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, resourceVersion: \"7\", labels: {a: b}}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}, weight: 100}]}]
status: {}
";

    #[test]
    fn a_rule_goes_to_the_api_server_in_its_namespace_and_without_what_that_writes() {
        let read = read(&request(ROUTE)).unwrap();
        let (object, _) = &read.objects[0];
        assert_eq!(object.api_version, "networking.istio.io/v1");
        assert_eq!(
            object.value["metadata"],
            serde_json::json!({"name": "web", "labels": {"a": "b"}, "namespace": "shop"})
        );
        assert_eq!(object.value["spec"]["http"][0]["route"][0]["weight"], 100);
        assert!(object.value.get("status").is_none());
    }

    #[test]
    fn a_bad_file_is_told_by_line_and_field_before_anybody_is_asked() {
        let failure = read(&request(&ROUTE.replace("100", "-1"))).unwrap_err();
        let begins = "refused, nothing was changed:\na.yaml:6: spec.http[0].route[0].weight: ";
        assert!(failure.message.starts_with(begins), "{failure}");
    }

    #[test]
    fn what_is_the_clusters_own_is_left_to_kubectl() {
        let service =
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
        let both = read(&request(&format!("{service}---\n{ROUTE}"))).unwrap();
        assert_eq!((both.objects.len(), both.of_the_cluster["Service"]), (1, 1));
        let failure = read(&request(service)).unwrap_err();
        assert!(failure.message.contains("no rule (1 object skipped"), "{failure}");
    }
}
