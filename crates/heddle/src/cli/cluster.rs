//! What may be typed about a cluster: `heddle install` and `heddle uninstall`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::values;

/// Which cluster, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterFlags {
    /// File that says how to reach the cluster [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

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
    #[arg(long, value_name = "IMAGE", default_value = concat!("heddle.dev/heddle:", env!("CARGO_PKG_VERSION")), value_parser = values::image)]
    pub image: String,
    /// When it is pulled
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub image_pull_policy: PullPolicy,
    /// Replicas of the control plane: all of them serve, one of them writes
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub replicas: u16,
    /// What labels of namespaces and pods call this installation by
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = values::label)]
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
    /// How long to wait for the control plane; 0 returns at once
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    pub timeout: Duration,
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
