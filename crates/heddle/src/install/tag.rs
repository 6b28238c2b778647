//! `heddle tag`: names that labels may call a revision by, so that namespaces move to another revision by one command.
//!
//! A tag is one of the revision's own settings and stands in its own webhooks, so that they are believed and go with it.
//! It moves by being given to its new revision before it is taken from the other: no pod meets neither.

use std::time::Duration;

use heddle_control::{
    installation::{self, Cluster, Found, Mode},
    revision::{DEFAULT, SETTINGS_EVERY},
};
use heddle_runtime::clock;
use serde::Serialize;
use serde_json::Value;

use super::{SETTINGS, Values, keep_settings, manifests, mode, reached, read, refused, upgrade};
use crate::{
    cli::{
        Output,
        cluster::{TagArgs, TagCommand, TagListArgs, TagRemoveArgs, TagSetArgs},
    },
    failure::Failure,
    output,
    status::VERSION,
};

/// Time between two tries whether a tag is in force.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// After so long every injector has its new settings: it looks for them, and the API server has to answer.
const SETTINGS_KNOWN: Duration = SETTINGS_EVERY.saturating_add(Duration::from_secs(3));
/// The labels of a namespace that name a revision or a tag; the first one that is there counts.
const LABELS: [&str; 2] = ["heddle.dev/rev", "istio.io/rev"];

/// `heddle tag`.
///
/// # Errors
/// A tag that cannot be given or is not there, and what the cluster refused.
pub(crate) async fn tag(args: TagArgs) -> Result<(), Failure> {
    match args.what {
        TagCommand::Set(args) => set(args).await,
        TagCommand::List(args) => list(args).await,
        TagCommand::Remove(args) => remove(args).await,
    }
}

async fn set(args: TagSetArgs) -> Result<(), Failure> {
    let TagSetArgs { tag, revision, .. } = &args;
    let cluster = reached(&args.cluster).await?;
    let all = installation::installations(&cluster).await.map_err(refused)?;
    let (to, holder) = meant(&all, tag, revision)?;
    if let Some(holder) = holder
        && !args.overwrite
    {
        return Err(Failure::refused(format!(
            "the tag {tag} means the revision {}: `--overwrite` gives it to {revision}",
            holder.revision()
        )));
    }
    let mode = mode(args.dry_run);
    let mut tags = to.settings.tags.clone();
    if !tags.contains(tag) {
        tags.push(tag.clone());
    }
    for of in holder.into_iter().chain([to]) {
        same_version(of)?;
    }
    let pause = match (holder, mode) {
        (Some(_), Mode::Change) => SETTINGS_KNOWN,
        _ => Duration::ZERO,
    };
    write(&cluster, to, tags, Order::SettingsFirst(pause), mode).await?;
    if let Some(holder) = holder {
        take(&cluster, holder, tag, mode).await?;
    }
    if mode == Mode::DryRun {
        output::line(format!("{} refuses nothing of it; nothing was changed", cluster.url()));
        return Ok(());
    }
    if !args.timeout.is_zero() {
        output::notice(format!("waiting until pods are injected by the tag {tag}"));
        wait(&cluster, tag, revision, args.timeout).await?;
    }
    output::line(format!("The tag {tag} means the revision {revision}."));
    match namespaces_of(&cluster, tag).await?.join(" ") {
        none if none.is_empty() => {
            output::line(format!("next:  kubectl label namespace NAME heddle.dev/rev={tag}"));
        }
        names => output::line(format!("next:  restart what runs in {names}")),
    }
    Ok(())
}

/// Who is to have the tag, and who else has it.
fn meant<'f>(
    all: &'f [Found],
    tag: &str,
    revision: &str,
) -> Result<(&'f Found, Option<&'f Found>), Failure> {
    let of = |name: &str| all.iter().find(|one| one.revision() == name);
    if tag == DEFAULT {
        return Err(Failure::usage(format!(
            "`{DEFAULT}` is what labels mean that name no revision, and no tag: choose another name"
        )));
    }
    if of(tag).is_some() {
        return Err(Failure::refused(format!(
            "`{tag}` is the name of a revision: choose another name, or uninstall that revision"
        )));
    }
    let names: Vec<&str> = all.iter().map(Found::revision).collect();
    let to = of(revision).ok_or_else(|| {
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::refused(format!("no revision {revision} is installed; there is: {there}"))
    })?;
    let has = |one: &&Found| one.settings.tags.iter().any(|own| own == tag);
    Ok((to, all.iter().filter(|one| one.revision() != revision).find(has)))
}

async fn remove(args: TagRemoveArgs) -> Result<(), Failure> {
    let tag = &args.tag;
    let cluster = reached(&args.cluster).await?;
    let all = installation::installations(&cluster).await.map_err(refused)?;
    let has = |one: &&Found| one.settings.tags.contains(tag);
    let holder = all.iter().find(has).ok_or_else(|| {
        Failure::refused(format!("there is no tag {tag}: `heddle tag list` shows those that are"))
    })?;
    let namespaces = namespaces_of(&cluster, tag).await?;
    if !namespaces.is_empty() && !args.force {
        return Err(Failure::refused(format!(
            "namespaces name the tag {tag}, and their new pods would have no sidecar: {}; label them otherwise, or \
             give --force",
            namespaces.join(", ")
        )));
    }
    let mode = mode(args.dry_run);
    same_version(holder)?;
    take(&cluster, holder, tag, mode).await?;
    match mode {
        Mode::Change => output::line(format!("The tag {tag} means nothing any more.")),
        Mode::DryRun => {
            output::line(format!("{} refuses nothing of it; nothing was changed", cluster.url()));
        }
    }
    Ok(())
}

async fn take(cluster: &Cluster, holder: &Found, tag: &str, mode: Mode) -> Result<(), Failure> {
    let tags = holder.settings.tags.iter().filter(|own| *own != tag).cloned().collect();
    write(cluster, holder, tags, Order::WebhooksFirst, mode).await
}

/// What is written first: a webhook may send no pod to an injector that does not know its tag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// So long before the webhooks: while the tag is another's, that one's webhook goes on to send pods until the new
    /// injector surely knows it.
    SettingsFirst(Duration),
    WebhooksFirst,
}

/// What is written is this program's chart, so only an installation of this version can be given a tag.
fn same_version(of: &Found) -> Result<(), Failure> {
    let (revision, image) = (of.revision(), &of.settings.image);
    match upgrade::other_version(image) {
        None => Ok(()),
        Some(version) => Err(Failure::refused(format!(
            "the revision {revision} is of the version {version}, and this program of {VERSION}: \
             `heddle upgrade --revision {revision}` first, or use the program of that version"
        ))),
    }
}

/// Writes what of an installation says which tags it has; all else of it stays as it is.
async fn write(
    cluster: &Cluster,
    of: &Found,
    tags: Vec<String>,
    order: Order,
    mode: Mode,
) -> Result<(), Failure> {
    let installed = upgrade::values(cluster, of, Some(of.settings.image.clone())).await?;
    let mut texts: Vec<String> = concerned(&Values { tags, ..installed })?;
    // The settings come first in it.
    let between = match order {
        Order::SettingsFirst(between) => between,
        Order::WebhooksFirst => {
            texts.reverse();
            Duration::ZERO
        }
    };
    for (i, mut text) in texts.into_iter().enumerate() {
        if i == 1 && !between.is_zero() {
            output::notice("waiting until the injector has read its settings");
            clock::sleep(between).await;
        }
        keep_settings(&mut text, of)?;
        cluster.apply(&read(&text)?, mode).await.map_err(refused)?;
    }
    Ok(())
}

/// The settings, and the webhooks that send pods.
fn concerned(values: &Values) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for text in manifests::objects(values)? {
        let object = read(&text)?;
        let is_settings = object["kind"] == "ConfigMap" && object["metadata"]["name"] == SETTINGS;
        if is_settings || object["kind"] == "MutatingWebhookConfiguration" {
            texts.push(text);
        }
    }
    Ok(texts)
}

async fn wait(
    cluster: &Cluster,
    tag: &str,
    revision: &str,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = clock::now() + limit;
    loop {
        let missing = match cluster.injects(revision, tag).await {
            Ok(None) => return Ok(()),
            Ok(Some(reason)) => reason,
            Err(error) => error.to_string(),
        };
        if clock::now() >= deadline {
            return Err(Failure::refused(format!(
                "the tag {tag} is written, and not in force within {} s: {missing}",
                limit.as_secs()
            )));
        }
        clock::sleep(TRY_EVERY).await;
    }
}

/// The namespaces that name a tag.
async fn namespaces_of(cluster: &Cluster, tag: &str) -> Result<Vec<String>, Failure> {
    let all = cluster.list("v1", "Namespace").await.map_err(refused)?;
    let named = all.iter().filter(|one| revision_named(one) == Some(tag));
    Ok(named.filter_map(|one| one["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

fn revision_named(namespace: &Value) -> Option<&str> {
    let labels = &namespace["metadata"]["labels"];
    LABELS.iter().find_map(|label| labels[*label].as_str())
}

/// A tag as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    tag: String,
    revision: String,
    namespaces: Vec<String>,
}

async fn list(args: TagListArgs) -> Result<(), Failure> {
    let cluster = reached(&args.cluster).await?;
    let all = installation::installations(&cluster).await.map_err(refused)?;
    let mut listed = Vec::new();
    for one in &all {
        for tag in &one.settings.tags {
            let namespaces = namespaces_of(&cluster, tag).await?;
            let (tag, revision) = (tag.clone(), one.revision().to_owned());
            listed.push(Listed { tag, revision, namespaces });
        }
    }
    listed.sort_by(|one, other| one.tag.cmp(&other.tag));
    if args.output == Output::Json {
        return output::json(&listed);
    }
    if listed.is_empty() {
        output::line("there are no tags: `heddle tag set TAG --revision NAME` makes one");
        return Ok(());
    }
    let row = |one: &Listed| vec![one.tag.clone(), one.revision.clone(), one.namespaces.join(", ")];
    let rows: Vec<_> = listed.iter().map(row).collect();
    output::line(output::table(&["TAG", "REVISION", "NAMESPACES"], &rows).trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use heddle_control::injection::InjectionSettings;
    use serde_json::json;

    use super::*;

    fn found(revision: &str, tags: &[&str]) -> Found {
        let settings = InjectionSettings {
            revision: revision.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..InjectionSettings::default()
        };
        Found { namespace: format!("heddle-{revision}"), settings, written: Value::Null }
    }

    #[test]
    fn a_tag_is_no_revision_and_means_one_that_is_there() {
        let all = [found("default", &["stable"]), found("canary", &["prod"])];
        let told = |tag: &str, revision: &str| {
            let meant = meant(&all, tag, revision);
            meant
                .map(|(to, holder)| (to.revision(), holder.map(Found::revision)))
                .map_err(|failure| failure.message)
        };
        assert_eq!(told("prod", "canary"), Ok(("canary", None)), "again");
        assert_eq!(told("stable", "canary"), Ok(("canary", Some("default"))), "from another");
        assert_eq!(told("new", "default"), Ok(("default", None)));
        for (tag, revision, expected) in [
            ("default", "canary", "is what labels mean that name no revision"),
            ("canary", "default", "`canary` is the name of a revision"),
            ("prod", "gone", "no revision gone is installed; there is: default, canary"),
        ] {
            let message = told(tag, revision).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_installation_of_another_version_is_given_no_tag() {
        let told = |image: &str| {
            let mut found = found("canary", &[]);
            found.settings.image = image.to_owned();
            same_version(&found).map_err(|failure| failure.message)
        };
        let this = format!("registry:5000/heddle:{VERSION}");
        for image in [this.as_str(), "heddle:mine", "registry:5000/heddle", "heddle@sha256:00"] {
            assert_eq!(told(image), Ok(()), "{image}");
        }
        let message = told("heddle.dev/heddle:0.0.7").unwrap_err();
        assert!(message.contains("0.0.7") && message.contains("heddle upgrade --revision canary"));
    }

    #[test]
    fn of_both_labels_of_a_namespace_our_own_counts() {
        let labels = |labels: Value| json!({"metadata": {"name": "shop", "labels": labels}});
        let both = labels(json!({"istio.io/rev": "a", "heddle.dev/rev": "b"}));
        assert_eq!(revision_named(&both), Some("b"));
        assert_eq!(revision_named(&labels(json!({"istio.io/rev": "a"}))), Some("a"));
        assert_eq!(revision_named(&json!({"metadata": {"name": "shop"}})), None);
    }
}
