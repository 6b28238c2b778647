//! Flags that many subcommands have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
}

/// Which mesh.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MeshFlag {
    /// Which mesh [default: $HEDDLE_MESH, else the only one that runs]
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub mesh: Option<String>,
}

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ClusterFlags {
    /// File that says how to reach the cluster [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Which mesh: one of this machine, or one of a cluster.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TargetFlags {
    /// Which mesh of this machine [default: $HEDDLE_MESH, else the only one that runs]
    #[arg(long, value_name = "NAME", value_parser = values::label, conflicts_with_all = ["kubernetes", "kubeconfig", "context", "revision"])]
    pub mesh: Option<String>,
    /// The mesh of a cluster, though one runs on this machine; without one there it is meant anyway
    #[arg(long)]
    pub kubernetes: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Which of several meshes of the cluster
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    pub revision: Option<String>,
}

impl TargetFlags {
    /// Does one of them mean a cluster?
    pub(crate) fn means_a_cluster(&self) -> bool {
        let Self { mesh: _, kubernetes, cluster, revision } = self;
        *kubernetes
            || cluster.kubeconfig.is_some()
            || cluster.context.is_some()
            || revision.is_some()
    }
}

/// Of which namespaces something is told.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NamespaceFlags {
    /// Only this namespace [default: all]
    #[arg(long, short, value_name = "NS", value_parser = values::label)]
    pub namespace: Option<String>,
    /// All namespaces, which is also the default
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

impl NamespaceFlags {
    /// Is this namespace meant?
    pub(crate) fn has(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    }
}
