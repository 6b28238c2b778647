//! `heddle upgrade`: an installation at this program's version. What changes is shown, then changed; pods keep their
//! sidecars until they are replaced, so the workloads that have older ones are named.

use std::collections::BTreeMap;

use heddle_control::{
    injection::IMAGE,
    installation::{self, Cluster, Difference, FieldChange, Found, Member, Mode},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Resources, Values, apply_kinds, keep_settings, manifests, mode, neighbours::Neighbours,
    reached, read, refused, wait, wanted,
};
use crate::{
    cli::{Output, cluster::UpgradeArgs},
    failure::Failure,
    output,
    status::VERSION,
};

/// What was changed, or would be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Upgrade {
    revision: String,
    namespace: String,
    dry_run: bool,
    image: FromTo,
    objects: Vec<ObjectChange>,
    restart: Vec<Restart>,
}

#[derive(Debug, Serialize)]
struct FromTo {
    from: String,
    to: String,
}

#[derive(Debug, Serialize)]
struct ObjectChange {
    kind: String,
    name: String,
    #[serde(flatten)]
    difference: Difference,
}

/// A workload whose sidecars are not what its pods would get now.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Restart {
    namespace: String,
    /// As `kubectl rollout restart` takes it.
    workload: String,
    pods: usize,
    /// Versions of its sidecars, with their images.
    has: Vec<String>,
}

/// `heddle upgrade`.
///
/// # Errors
/// Nothing is installed, or several and none is named; what the cluster refused; a control plane that is not ready
/// in time.
pub(crate) async fn upgrade(args: UpgradeArgs) -> Result<(), Failure> {
    let cluster = reached(&args.cluster).await?;
    let found = chosen(&cluster, args.revision.as_deref()).await?;
    let values = values(&cluster, &found, args.image.clone()).await?;
    let mode = mode(args.dry_run);
    let neighbours = Neighbours::of(&cluster, &values).await?;
    let texts = texts(&values, &neighbours)?;
    let objects = differences(&cluster, &texts, args.skip_crds).await?;
    let from = found.settings.image.clone();
    let to = values.image.clone();
    let text = args.output == Output::Text;
    if text {
        show(&found, &from, &to, &objects);
    }
    if mode == Mode::Change {
        change(&cluster, &values, &texts, &args).await?;
    }
    let members = installation::members(&cluster, &[]).await.map_err(refused)?;
    let restart = restart(&members, &found, &to);
    if text {
        show_restart(&restart, args.dry_run);
        return Ok(());
    }
    let (revision, namespace) = (found.revision().to_owned(), found.namespace.clone());
    let image = FromTo { from, to };
    output::json(&Upgrade { revision, namespace, dry_run: args.dry_run, image, objects, restart })
}

/// The installation that is meant.
async fn chosen(cluster: &Cluster, revision: Option<&str>) -> Result<Found, Failure> {
    let mut found = installation::installations(cluster).await.map_err(refused)?;
    let names = found.iter().map(|one| one.revision().to_owned()).collect::<Vec<_>>().join(", ");
    if let Some(revision) = revision {
        let at = found.iter().position(|one| one.revision() == revision);
        let at = at.ok_or_else(|| {
            let there = if names.is_empty() { "none".to_owned() } else { names };
            Failure::refused(format!("no revision {revision} is installed; there is: {there}"))
        })?;
        return Ok(found.swap_remove(at));
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(Failure::refused(format!(
            "there are several installations ({names}): name one with --revision"
        ))),
        (None, _) => Err(Failure::refused(format!(
            "the mesh is not installed in {}: `heddle install` does that",
            cluster.url()
        ))),
    }
}

/// What it was installed with, by what is there; a new image.
pub(super) async fn values(
    cluster: &Cluster,
    found: &Found,
    image: Option<String>,
) -> Result<Values, Failure> {
    let Found { namespace, settings, .. } = found;
    let control = deployment(cluster, namespace, "heddle-control").await?;
    let observe = deployment(cluster, namespace, "heddle-observe").await?;
    let Resources { cpu, memory, memory_limit } = resources(&control);
    let replicas = control.pointer("/spec/replicas").and_then(Value::as_u64);
    let installed = settings.image.clone();
    Ok(Values {
        namespace: namespace.clone(),
        image: image.unwrap_or_else(|| of_this_version(&installed)),
        image_pull_policy: settings
            .image_pull_policy
            .clone()
            .unwrap_or_else(|| "IfNotPresent".to_owned()),
        replicas: replicas.and_then(|count| u16::try_from(count).ok()).unwrap_or(1),
        revision: settings.revision.clone(),
        tags: settings.tags.clone(),
        trust_domain: settings.trust_domain.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        cpu,
        memory,
        memory_limit,
        observe: resources(&observe),
        traces: if takes_spans(&control) { "store" } else { "none" }.to_owned(),
    })
}

async fn deployment(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value, Failure> {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
    });
    cluster.get(&deployment).await.map_err(refused)?.ok_or_else(|| {
        Failure::refused(format!(
            "there is no Deployment {namespace}/{name}: `heddle install` makes it again"
        ))
    })
}

/// Of a Deployment's one container.
fn resources(deployment: &Value) -> Resources {
    let resource = |path: &str| {
        let at = format!("/spec/template/spec/containers/0/resources/{path}");
        deployment.pointer(&at).and_then(Value::as_str).unwrap_or("0").to_owned()
    };
    Resources {
        cpu: resource("requests/cpu"),
        memory: resource("requests/memory"),
        memory_limit: resource("limits/memory"),
    }
}

/// Was it installed to have the observer take spans?
fn takes_spans(control: &Value) -> bool {
    let arguments = control.pointer("/spec/template/spec/containers/0/args");
    let mut arguments = arguments.and_then(Value::as_array).into_iter().flatten();
    arguments.any(|one| one.as_str().is_some_and(|one| one.starts_with("--trace-store=")))
}

/// The same repository with this program's version, where the tag is a version; else the image is somebody's own
/// choice and stays.
fn of_this_version(installed: &str) -> String {
    let version = IMAGE.rsplit_once(':').map_or("", |(_, version)| version);
    match installed.rsplit_once(':') {
        Some((repository, tag)) if is_version(tag) => format!("{repository}:{version}"),
        _ => installed.to_owned(),
    }
}

/// The version that an image's tag names, if that is not this program's.
pub(super) fn other_version(image: &str) -> Option<&str> {
    let (_, tag) = image.rsplit_once(':').filter(|(_, tag)| is_version(tag))?;
    (tag.trim_start_matches('v') != VERSION).then_some(tag)
}

fn is_version(tag: &str) -> bool {
    let parts: Vec<&str> = tag.trim_start_matches('v').split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

fn texts(values: &Values, neighbours: &Neighbours) -> Result<Vec<String>, Failure> {
    let mut texts = vec![manifests::namespace(values)];
    texts.extend(manifests::objects(values)?);
    if let Some(own) = &neighbours.own {
        for text in &mut texts {
            keep_settings(text, own)?;
        }
    }
    Ok(texts)
}

async fn differences(
    cluster: &Cluster,
    texts: &[String],
    skip_crds: bool,
) -> Result<Vec<ObjectChange>, Failure> {
    let mut changes = Vec::new();
    let mut note = |object: &Value, difference: Difference| {
        let text = |path: &str| {
            object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if difference != Difference::None {
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            changes.push(ObjectChange { kind, name, difference });
        }
    };
    for kind in wanted(skip_crds) {
        let object = read(&kind.text)?;
        if !cluster.is_foreign(&object).await.map_err(refused)? {
            note(&object, cluster.difference(&object).await.map_err(refused)?);
        }
    }
    for text in texts {
        let object = read(text)?;
        note(&object, cluster.difference(&object).await.map_err(refused)?);
    }
    Ok(changes)
}

async fn change(
    cluster: &Cluster,
    values: &Values,
    texts: &[String],
    args: &UpgradeArgs,
) -> Result<(), Failure> {
    output::notice("applying");
    apply_kinds(cluster, args.skip_crds, Mode::Change, &mut |_| {}).await?;
    for text in texts {
        cluster.apply(&read(text)?, Mode::Change).await.map_err(refused)?;
    }
    if args.timeout.is_zero() { Ok(()) } else { wait(cluster, values, args.timeout).await }
}

/// Workloads with sidecars of another version or image than their pods would get.
fn restart(members: &[Member], found: &Found, image: &str) -> Vec<Restart> {
    let version = env!("CARGO_PKG_VERSION");
    let mut by_workload: BTreeMap<(&str, &str), (usize, Vec<String>)> = BTreeMap::new();
    for member in members {
        let Some(sidecar) = &member.sidecar else { continue };
        let of_another = sidecar.revision != found.revision();
        if of_another || (sidecar.version == version && sidecar.image == image) {
            continue;
        }
        let key = (member.namespace.as_str(), member.workload.as_str());
        let (pods, has) = by_workload.entry(key).or_default();
        *pods += 1;
        let shown = format!("{} ({})", sidecar.version, sidecar.image);
        if !has.contains(&shown) {
            has.push(shown);
        }
    }
    let restart = by_workload.into_iter().map(|((namespace, workload), (pods, has))| Restart {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        pods,
        has,
    });
    restart.collect()
}

fn show(found: &Found, from: &str, to: &str, objects: &[ObjectChange]) {
    let (revision, namespace) = (found.revision(), &found.namespace);
    output::line(format!("revision {revision} in {namespace}: {from} → {to}"));
    if objects.is_empty() {
        output::line("no object of it changes");
    }
    for ObjectChange { kind, name, difference } in objects {
        match difference {
            Difference::None => {}
            Difference::New => output::line(format!("{kind} {name}: new")),
            Difference::Fields(fields) => {
                output::line(format!("{kind} {name}:"));
                fields.iter().for_each(|field| output::line(format!("  {}", shown(field))));
            }
        }
    }
}

fn shown(FieldChange { field, now, then }: &FieldChange) -> String {
    let value = |value: &Option<Value>| match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    format!("{field}: {} → {}", value(now), value(then))
}

fn show_restart(restart: &[Restart], dry_run: bool) {
    if restart.is_empty() {
        output::line("all sidecars are what their pods would get now");
        return;
    }
    let when = if dry_run { "would have" } else { "have" };
    output::line(format!("workloads that {when} older sidecars until they are restarted:"));
    let rows: Vec<Vec<String>> = restart
        .iter()
        .map(|one| {
            let Restart { namespace, workload, pods, has } = one;
            vec![namespace.clone(), workload.clone(), pods.to_string(), has.join(", ")]
        })
        .collect();
    output::line(output::table(&["NAMESPACE", "WORKLOAD", "PODS", "SIDECAR"], &rows));
    output::line("next:  kubectl rollout restart --namespace NAMESPACE WORKLOAD");
}

#[cfg(test)]
mod tests {
    use heddle_control::{
        injection::InjectionSettings,
        installation::{Redirection, Sidecar},
    };

    use super::*;

    #[test]
    fn only_an_image_whose_tag_is_a_version_follows_this_programs() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(of_this_version("r:5000/heddle:0.0.9"), format!("r:5000/heddle:{version}"));
        assert_eq!(of_this_version("r/heddle:v9.9.9"), format!("r/heddle:{version}"));
        for own in ["r:5000/heddle", "r/heddle:dev", "r/heddle@sha256:00", "r/heddle:1.2"] {
            assert_eq!(of_this_version(own), own);
        }
    }

    #[test]
    fn workloads_with_other_sidecars_are_named_once_with_what_they_have() {
        let member = |pod: &str, revision: &str, image: &str| Member {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            workload: "deployment/web".to_owned(),
            sidecar: Some(Sidecar {
                revision: revision.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                image: image.to_owned(),
                ready: true,
                redirection: Redirection::Proven,
            }),
        };
        let settings = InjectionSettings::default();
        let found = Found { namespace: "m".to_owned(), settings, written: Value::Null };
        let members = [
            member("a", "default", "old"),
            member("b", "default", "old"),
            member("c", "default", "new"),
            member("d", "canary", "old"),
        ];
        let told = restart(&members, &found, "new");
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].pods, told[0].workload.as_str()), (2, "deployment/web"));
        assert_eq!(told[0].has, [format!("{} (old)", env!("CARGO_PKG_VERSION"))]);
        assert_eq!(restart(&members[2..3], &found, "new"), Vec::new());
    }
}
