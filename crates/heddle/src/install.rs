//! `heddle install`: the mesh into a cluster. What the other commands about an installation share is here too.

use heddle_control::installation::{self, Applied, Cluster, Found, Mode, Target};
use heddle_model::yaml;
use serde_json::Value;

use crate::{
    cli::{
        ClusterFlags,
        cluster::{InstallArgs, PullPolicy},
    },
    failure::{Doing as _, Failure},
    output,
};

mod check;
pub(crate) mod demo;
mod kinds;
mod manifests;
mod neighbours;
mod tag;
mod template;
mod uninstall;
mod upgrade;

pub(crate) use check::check;
pub(crate) use tag::tag;
pub(crate) use uninstall::uninstall;
pub(crate) use upgrade::upgrade;

use kinds::Definition;
use manifests::{Resources, Values};
use neighbours::Neighbours;

/// The ConfigMap whose settings are partly the installation's and partly the user's.
const SETTINGS: &str = "heddle-injector";

/// `heddle install`.
///
/// # Errors
/// A value that cannot be written, what the cluster refused, or a control plane that does not become ready.
pub(crate) async fn install(args: InstallArgs) -> Result<(), Failure> {
    let mut values = values(&args);
    if args.print {
        return print(&args, &values);
    }
    let cluster = reached(&args.cluster).await?;
    let mode = mode(args.dry_run);
    let neighbours = Neighbours::of(&cluster, &values).await?;
    // They are given and taken by `heddle tag`.
    values.tags = neighbours.own.as_ref().map(|own| own.settings.tags.clone()).unwrap_or_default();
    apply_kinds(&cluster, args.skip_crds, mode, &mut output::line).await?;
    apply_mesh(&cluster, &values, &neighbours, mode).await?;
    if mode == Mode::Change && !args.timeout.is_zero() {
        wait(&cluster, &values, args.timeout).await?;
    }
    if args.demo {
        // Not before pods can be injected.
        apply_all(&cluster, &demo::objects(&values), mode).await?;
    }
    if mode == Mode::DryRun {
        output::line(format!("{} refuses nothing of it; nothing was changed", cluster.url()));
        return Ok(());
    }
    output::line(format!("The mesh is in {}.", cluster.url()));
    if args.demo {
        output::line(format!("next:  kubectl get pods --namespace {}", demo::NAMESPACE));
    } else {
        let label = values.namespace_label();
        output::line(format!("next:  kubectl label namespace NAME {label}"));
        output::line("       kubectl rollout restart deployment --namespace NAME");
    }
    Ok(())
}

/// Our own kinds always; those of others where nobody has defined them.
async fn apply_kinds(
    cluster: &Cluster,
    skip: bool,
    mode: Mode,
    say: &mut dyn FnMut(String),
) -> Result<(), Failure> {
    for definition in wanted(skip) {
        let object = read(&definition.text)?;
        match cluster.apply_unless_foreign(&object, mode).await.map_err(refused)? {
            Applied::Done => say(told(&object, done(mode))),
            Applied::LeftAlone => say(told(&object, "is there already")),
        }
    }
    Ok(())
}

fn wanted(skip: bool) -> impl Iterator<Item = Definition> {
    kinds::definitions().into_iter().filter(move |kind| !skip || kind.owner == kinds::OURS)
}

/// Everything but kinds, in an order in which each finds what it needs.
async fn apply_mesh(
    cluster: &Cluster,
    values: &Values,
    neighbours: &Neighbours,
    mode: Mode,
) -> Result<(), Failure> {
    let namespace = manifests::namespace(values);
    apply_all(cluster, std::slice::from_ref(&namespace), mode).await?;
    if cluster.has(&read(&namespace)?).await.map_err(refused)? {
        neighbours.share_authority(cluster, values, mode).await?;
    }
    let mut texts = manifests::objects(values)?;
    if let Some(own) = &neighbours.own {
        for text in &mut texts {
            keep_settings(text, own)?;
        }
    }
    apply_all(cluster, &texts, mode).await
}

/// Applies documents in their order. A dry run makes no namespace, and in one that is not there nothing can be
/// checked.
async fn apply_all(cluster: &Cluster, texts: &[String], mode: Mode) -> Result<(), Failure> {
    let mut there: Vec<(String, bool)> = Vec::new();
    for text in texts {
        let object = read(text)?;
        if mode == Mode::DryRun
            && let Some(name) = object.pointer("/metadata/namespace").and_then(Value::as_str)
        {
            if !there.iter().any(|(known, _)| known == name) {
                there.push((name.to_owned(), has_namespace(cluster, name).await?));
            }
            if there.iter().any(|(known, is_there)| known == name && !is_there) {
                output::line(told(&object, "cannot be checked before its namespace is there"));
                continue;
            }
        }
        cluster.apply(&object, mode).await.map_err(refused)?;
        output::line(told(&object, done(mode)));
    }
    Ok(())
}

async fn has_namespace(cluster: &Cluster, name: &str) -> Result<bool, Failure> {
    let namespace =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.has(&namespace).await.map_err(refused)
}

/// Settings that the installation does not set are whoever's wrote them into the ConfigMap: they stay.
fn keep_settings(text: &mut String, own: &Found) -> Result<(), Failure> {
    let mut object = read(text)?;
    if object["kind"] != "ConfigMap" || object["metadata"]["name"] != SETTINGS {
        return Ok(());
    }
    let Some(ours) = object.pointer("/data/settings.yaml").and_then(Value::as_str) else {
        return Ok(());
    };
    let (Value::Object(set), Value::Object(written)) = (read(ours)?, &own.written) else {
        return Ok(());
    };
    let others = written.iter().filter(|(key, _)| !set.contains_key(*key));
    let others: serde_json::Map<_, _> = others.map(|(k, v)| (k.clone(), v.clone())).collect();
    if others.is_empty() {
        return Ok(());
    }
    object["data"]["settings.yaml"] = format!("{ours}{}", yaml::to_yaml(&others.into())).into();
    *text = yaml::to_yaml(&object);
    Ok(())
}

/// Waits until pods can be injected and there is somebody to observe them.
async fn wait(
    cluster: &Cluster,
    values: &Values,
    limit: std::time::Duration,
) -> Result<(), Failure> {
    output::notice("waiting for the control plane and the observer");
    installation::wait_until_ready(cluster, (&values.namespace, &values.revision), limit)
        .await
        .doing(|| format!("wait for the mesh in {}", values.namespace))
}

fn done(mode: Mode) -> &'static str {
    if mode == Mode::DryRun { "would be applied" } else { "applied" }
}

fn told(object: &Value, what: &str) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!("{} {} {what}", text("/kind"), text("/metadata/name"))
}

/// All manifests as one text; kinds first, since the rest is of none of them.
fn print(args: &InstallArgs, values: &Values) -> Result<(), Failure> {
    let mut documents = vec![manifests::namespace(values)];
    documents.extend(wanted(args.skip_crds).map(|kind| kind.text));
    documents.extend(manifests::objects(values)?);
    if args.demo {
        documents.extend(demo::objects(values));
    }
    output::line(documents.join("---\n").trim_end());
    Ok(())
}

async fn reached(flags: &ClusterFlags) -> Result<Cluster, Failure> {
    let target = Target { kubeconfig: flags.kubeconfig.clone(), context: flags.context.clone() };
    Cluster::of(&target).await.map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::refused(error.to_string())
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Change }
}

/// One of our own documents as a value.
fn read(text: &str) -> Result<Value, Failure> {
    let documents = yaml::documents("manifest", text);
    let read = documents.ok().and_then(|documents| documents.into_iter().next());
    read.map(|document| document.value)
        .ok_or_else(|| Failure::refused(format!("a manifest cannot be read:\n{text}")))
}

fn values(args: &InstallArgs) -> Values {
    let policy = match args.image_pull_policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    };
    Values {
        namespace: args.namespace.clone(),
        image: args.image.clone(),
        image_pull_policy: policy.to_owned(),
        replicas: args.replicas,
        revision: args.revision.clone(),
        tags: Vec::new(),
        trust_domain: args.trust_domain.clone(),
        cluster_domain: args.cluster_domain.clone(),
        cpu: args.cpu.clone(),
        memory: args.memory.clone(),
        memory_limit: args.memory_limit.clone(),
        observe: Resources {
            cpu: args.observe_cpu.clone(),
            memory: args.observe_memory.clone(),
            memory_limit: args.observe_memory_limit.clone(),
        },
        traces: args.traces.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_object_of_the_demo_reads_as_one_and_goes_with_the_mesh() {
        let values = Values {
            namespace: "heddle-system".to_owned(),
            image: "heddle.dev/heddle:1".to_owned(),
            image_pull_policy: "Never".to_owned(),
            replicas: 1,
            revision: "default".to_owned(),
            tags: Vec::new(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cpu: "1".to_owned(),
            memory: "1Gi".to_owned(),
            memory_limit: "1Gi".to_owned(),
            observe: Resources {
                cpu: "1".to_owned(),
                memory: "1Gi".to_owned(),
                memory_limit: "1Gi".to_owned(),
            },
            traces: "store".to_owned(),
        };
        for text in demo::objects(&values) {
            let object = read(&text).unwrap();
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/part-of"], "heddle",
                "{text}"
            );
            let kind = object["kind"].as_str();
            let placed = object["metadata"]["namespace"] == demo::NAMESPACE;
            assert!(placed || kind == Some("Namespace"), "{text}");
        }
    }

    #[test]
    fn the_chart_and_the_command_have_the_same_values_and_defaults() {
        let cli = crate::cli::Cli::try_parse_from(["heddle", "install"]).unwrap();
        let crate::cli::Command::Install(args) = cli.command else { panic!("{cli:?}") };
        let named = values(&args).named();
        let ours: BTreeMap<_, _> = named
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(".Values.")?, value.as_str())))
            .collect();
        let file = include_str!("../../../charts/heddle/values.yaml");
        let lines = file.lines().filter(|line| !line.starts_with('#'));
        let of_list = |(name, value)| (name, if value == "[]" { "" } else { value });
        let in_chart: BTreeMap<_, _> =
            lines.filter_map(|line| line.split_once(": ")).map(of_list).collect();
        assert_eq!(in_chart, ours);
        let chart = include_str!("../../../charts/heddle/Chart.yaml");
        let version = format!("\nversion: {0}\nappVersion: {0}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&version), "{chart}");
    }

    #[test]
    fn settings_that_a_user_has_written_stay_beside_the_installations_own() {
        let config = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: heddle-injector\ndata:\n  settings.yaml: |\n    image: \"new\"\n";
        let kept = |written: Value| {
            let settings = heddle_control::injection::InjectionSettings::default();
            let own = Found { namespace: "heddle-system".to_owned(), settings, written };
            let mut text = config.to_owned();
            keep_settings(&mut text, &own).unwrap();
            (text == config, read(&text).unwrap()["data"]["settings.yaml"].clone())
        };
        let (same, settings) = kept(serde_json::json!({"image": "old"}));
        assert!(same && settings == "image: \"new\"\n", "{settings}");
        let (_, settings) = kept(serde_json::json!({"image": "old", "nativeSidecars": false}));
        assert_eq!(settings, "image: \"new\"\nnativeSidecars: false\n");
    }

    #[test]
    fn every_definition_reads_as_one_object() {
        for definition in kinds::definitions() {
            let object = read(&definition.text).unwrap();
            assert_eq!(object["kind"], "CustomResourceDefinition", "{}", definition.text);
            let (group, plural) = (&object["spec"]["group"], &object["spec"]["names"]["plural"]);
            let name = format!("{}.{}", plural.as_str().unwrap(), group.as_str().unwrap());
            assert_eq!(object["metadata"]["name"], name);
            let stored = object["spec"]["versions"].as_array().unwrap().iter();
            assert_eq!(stored.filter(|version| version["storage"] == true).count(), 1, "{name}");
        }
    }
}
