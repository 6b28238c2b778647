//! What may be typed about an installation in a cluster: `heddle install`, `upgrade`, `tag`, `check` and `uninstall`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    common::{ClusterFlags, Output},
    values,
};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum PullPolicy {
    /// Before every start
    Always,
    /// Where the node does not have it
    IfNotPresent,
    /// Never: the node has it
    Never,
}

/// `heddle install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle install --print > heddle.yaml             what would be applied, without a cluster
  heddle install --dry-run                         the same asked of the cluster, which changes nothing
  heddle install                                   into the cluster of the current context
  heddle install --image registry.example/heddle:1 --replicas 2")]
#[expect(clippy::struct_excessive_bools, reason = "flags, each with a meaning of its own")]
pub(crate) struct InstallArgs {
    /// The mesh's own namespace
    #[arg(long, short, value_name = "NS", default_value = "heddle-system", value_parser = values::label)]
    pub namespace: String,
    /// Image of the control plane and of what is added to pods
    #[arg(long, value_name = "IMAGE", default_value = heddle_control::injection::IMAGE, value_parser = values::image)]
    pub image: String,
    /// When it is pulled
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub image_pull_policy: PullPolicy,
    /// Replicas of the control plane: all of them serve, one of them writes
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub replicas: u16,
    /// What labels of namespaces and pods call this installation by; several go side by side, each in a namespace of its own
    #[arg(long, value_name = "NAME", default_value = heddle_control::revision::DEFAULT, value_parser = values::label)]
    pub revision: String,
    /// Trust domain of the identities that it issues
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::domain)]
    pub trust_domain: String,
    /// Suffix of the cluster's names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = values::domain)]
    pub cluster_domain: String,
    /// Share of a processor that each replica asks for
    #[arg(long, value_name = "CPU", default_value = "100m", value_parser = values::quantity)]
    pub cpu: String,
    /// Memory that each replica asks for
    #[arg(long, value_name = "SIZE", default_value = "128Mi", value_parser = values::quantity)]
    pub memory: String,
    /// Memory that each replica may take
    #[arg(long, value_name = "SIZE", default_value = "512Mi", value_parser = values::quantity)]
    pub memory_limit: String,
    /// Share of a processor that the observer asks for
    #[arg(long, value_name = "CPU", default_value = "50m", value_parser = values::quantity)]
    pub observe_cpu: String,
    /// Memory that the observer asks for
    #[arg(long, value_name = "SIZE", default_value = "64Mi", value_parser = values::quantity)]
    pub observe_memory: String,
    /// Memory that the observer may take: it keeps up to 144 MiB
    #[arg(long, value_name = "SIZE", default_value = "384Mi", value_parser = values::quantity)]
    pub observe_memory_limit: String,
    /// Who takes spans where no MeshConfig says that: the observer's own store, 1 % of the traces, or nobody
    #[arg(long, value_name = "WHO", default_value = "store", value_parser = ["store", "none"])]
    pub traces: String,
    /// Leave out Istio's and the Gateway API's kinds, which are otherwise defined where the cluster has none
    #[arg(long)]
    pub skip_crds: bool,
    /// Also install the example application, in the namespace `heddle-demo`
    #[arg(long)]
    pub demo: bool,
    /// Print the manifests, all kinds among them, and ask no cluster
    #[arg(long, conflicts_with = "dry_run")]
    pub print: bool,
    /// Have the cluster check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the control plane and the observer; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle upgrade`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle upgrade --dry-run                         what would change
  heddle upgrade                                   to the version of this program
  heddle upgrade --image registry.example/heddle:2 --revision canary")]
pub(crate) struct UpgradeArgs {
    /// Which of several installations
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub revision: Option<String>,
    /// Image of the control plane and of what is added to pods [default: as installed, and of this program's version where its tag is a version]
    #[arg(long, value_name = "IMAGE", value_parser = values::image)]
    pub image: Option<String>,
    /// Leave Istio's and the Gateway API's kinds as they are
    #[arg(long)]
    pub skip_crds: bool,
    /// Show what would change and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for the control plane and the observer; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    pub timeout: Duration,
    /// How to print what was changed; `json` prints progress to stderr
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// What is done.
    #[command(subcommand)]
    pub what: TagCommand,
}

/// What `heddle tag` does.
#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Call a revision by a name of yours, or call another revision by it
    Set(TagSetArgs),
    /// List the tags, the revision of each, and the namespaces that name it
    #[command(visible_alias = "ls")]
    List(TagListArgs),
    /// Take a name from its revision
    #[command(visible_alias = "rm")]
    Remove(TagRemoveArgs),
}

/// `heddle tag set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  heddle tag set prod --revision 1-0
  kubectl label namespace shop istio.io/rev=prod
  heddle tag set prod --revision 1-1 --overwrite    pods that start from now on are the new revision's")]
pub(crate) struct TagSetArgs {
    /// The tag: what labels call the revision by
    #[arg(value_name = "TAG", value_parser = values::label)]
    pub tag: String,
    /// The revision that it means
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub revision: String,
    /// Take the tag from the revision that has it
    #[arg(long)]
    pub overwrite: bool,
    /// Have the cluster check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until pods are injected by it; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle tag list`.
#[derive(Debug, Args)]
pub(crate) struct TagListArgs {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle tag remove`.
#[derive(Debug, Args)]
pub(crate) struct TagRemoveArgs {
    /// The tag
    #[arg(value_name = "TAG", value_parser = values::label)]
    pub tag: String,
    /// Also while namespaces name it, whose new pods will have no sidecar
    #[arg(long)]
    pub force: bool,
    /// Have the cluster check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 0 where nothing has failed, with 1 otherwise. Nothing is changed: whether the webhook
answers is tried by the dry run of a pod."
)]
pub(crate) struct CheckArgs {
    /// Ask whether the mesh could be installed, also where it is
    #[arg(long)]
    pub before: bool,
    /// Only this one of several installations
    #[arg(long, value_name = "NAME", conflicts_with = "before", value_parser = values::label)]
    pub revision: Option<String>,
    /// The namespace that would be installed into
    #[arg(long, short, value_name = "NS", default_value = "heddle-system", value_parser = values::label)]
    pub namespace: String,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `heddle uninstall`.
#[derive(Debug, Args)]
#[command(
    after_help = "Pods keep their sidecars until they are replaced: `kubectl rollout restart` afterwards."
)]
pub(crate) struct UninstallArgs {
    /// Which of several installations
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub revision: Option<String>,
    /// All installations
    #[arg(long, conflicts_with = "revision")]
    pub all: bool,
    /// Also remove kinds that `install` has defined and of which there are still objects: those are lost
    #[arg(long)]
    pub purge: bool,
    /// Have the cluster check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until all of it is gone; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    pub timeout: Duration,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}
