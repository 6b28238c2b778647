//! `heddle install` and `heddle uninstall`: the mesh into a cluster, and out of it again.

use heddle_control::installation::{self, Applied, Cluster, Mode, Removal, Target};
use heddle_model::yaml;
use serde_json::Value;

use crate::{
    cli::cluster::{ClusterFlags, InstallArgs, PullPolicy, UninstallArgs},
    failure::{Doing as _, Failure},
    output,
};

mod demo;
mod kinds;
mod manifests;

use kinds::Definition;
use manifests::Values;

/// `heddle install`.
///
/// # Errors
/// A value that cannot be written, what the cluster refused, or a control plane that does not become ready.
pub(crate) async fn install(args: InstallArgs) -> Result<(), Failure> {
    let values = values(&args);
    if args.print {
        return print(&args, &values);
    }
    let cluster = reached(&args.cluster).await?;
    let mode = mode(args.dry_run);
    apply_kinds(&cluster, &args, mode).await?;
    let namespace = read(&manifests::namespace(&values))?;
    apply(&cluster, &namespace, mode).await?;
    // A dry run makes no namespace, and in one that is not there nothing can be checked.
    let is_there = cluster.has(&namespace).await.map_err(|e| Failure::refused(e.to_string()))?;
    for text in manifests::objects(&values)? {
        let object = read(&text)?;
        if is_there || object.pointer("/metadata/namespace").is_none() {
            apply(&cluster, &object, mode).await?;
        } else {
            tell(&object, "cannot be checked before its namespace is there");
        }
    }
    if mode == Mode::DryRun {
        output::line(format!("{} would accept all of it; nothing was changed", cluster.url()));
        return Ok(());
    }
    if args.timeout.is_zero() {
        return Ok(());
    }
    output::notice("waiting for the control plane");
    installation::wait_until_ready(&cluster, &values.namespace, args.timeout)
        .await
        .doing(|| format!("wait for the control plane in {}", values.namespace))?;
    output::line(format!("The mesh is in {}.", cluster.url()));
    if args.demo {
        // Not before pods can be injected.
        for text in demo::objects(&values) {
            apply(&cluster, &read(&text)?, mode).await?;
        }
        output::line(format!("next:  kubectl get pods --namespace {}", demo::NAMESPACE));
        return Ok(());
    }
    output::line("next:  kubectl label namespace NAME heddle.dev/inject=true");
    output::line("       kubectl rollout restart deployment --namespace NAME");
    Ok(())
}

/// `heddle uninstall`.
///
/// # Errors
/// What the cluster refused, or what is not gone in time.
pub(crate) async fn uninstall(args: UninstallArgs) -> Result<(), Failure> {
    let cluster = reached(&args.cluster).await?;
    let mode = mode(args.dry_run);
    let removal = Removal { purge: args.purge, mode, limit: args.timeout };
    let done = if args.dry_run { "would delete" } else { "deleted" };
    let kept = installation::remove(&cluster, &removal, &mut |object| {
        output::line(format!("{done} {object}"))
    })
    .await
    .doing(|| format!("remove the mesh from {}", cluster.url()))?;
    if !kept.is_empty() {
        output::line(format!(
            "kept, because there are objects of them: {}; `heddle uninstall --purge` deletes those too",
            kept.join(", ")
        ));
    }
    Ok(())
}

/// Our own kinds always; those of others where nobody has defined them.
async fn apply_kinds(cluster: &Cluster, args: &InstallArgs, mode: Mode) -> Result<(), Failure> {
    for definition in wanted(args) {
        let object = read(&definition.text)?;
        let applied = cluster.apply_unless_foreign(&object, mode).await;
        match applied.map_err(|error| Failure::refused(error.to_string()))? {
            Applied::Done => tell(&object, "applied"),
            Applied::LeftAlone => tell(&object, "is there already"),
        }
    }
    Ok(())
}

fn wanted(args: &InstallArgs) -> impl Iterator<Item = Definition> {
    let skip = args.skip_crds;
    kinds::definitions().into_iter().filter(move |kind| !skip || kind.owner == kinds::OURS)
}

async fn apply(cluster: &Cluster, object: &Value, mode: Mode) -> Result<(), Failure> {
    cluster.apply(object, mode).await.map_err(|error| Failure::refused(error.to_string()))?;
    tell(object, "applied");
    Ok(())
}

fn tell(object: &Value, what: &str) {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    output::line(format!("{} {} {what}", text("/kind"), text("/metadata/name")));
}

/// All manifests as one text; kinds first, since the rest is of none of them.
fn print(args: &InstallArgs, values: &Values) -> Result<(), Failure> {
    let mut documents = vec![manifests::namespace(values)];
    documents.extend(wanted(args).map(|kind| kind.text));
    documents.extend(manifests::objects(values)?);
    if args.demo {
        documents.extend(demo::objects(values));
    }
    output::line(documents.join("---\n").trim_end());
    Ok(())
}

async fn reached(flags: &ClusterFlags) -> Result<Cluster, Failure> {
    let target = Target { kubeconfig: flags.kubeconfig.clone(), context: flags.context.clone() };
    Cluster::of(&target).await.map_err(|error| Failure::refused(error.to_string()))
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
        trust_domain: args.trust_domain.clone(),
        cluster_domain: args.cluster_domain.clone(),
        cpu: args.cpu.clone(),
        memory: args.memory.clone(),
        memory_limit: args.memory_limit.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_the_demo_reads_as_one_and_goes_with_the_mesh() {
        let values = Values {
            namespace: "heddle-system".to_owned(),
            image: "heddle.dev/heddle:1".to_owned(),
            image_pull_policy: "Never".to_owned(),
            replicas: 1,
            revision: "default".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cpu: "1".to_owned(),
            memory: "1Gi".to_owned(),
            memory_limit: "1Gi".to_owned(),
        };
        for text in demo::objects(&values) {
            let object = read(&text).unwrap();
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/part-of"], "heddle",
                "{text}"
            );
        }
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
