//! What the control plane of a cluster is told from outside.

use std::path::PathBuf;

use heddle_compile::TelemetryDefault;

/// What the control plane of a cluster is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesConfig {
    /// Our own namespace.
    pub namespace: String,
    /// Which of several control planes of a cluster this is.
    pub revision: String,
    /// The trust domain of all identities.
    pub trust_domain: String,
    /// The suffix of the cluster's names.
    pub cluster_domain: String,
    /// How to reach the API server; `None`: as a pod does, or as `KUBECONFIG` says.
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts; `None`: its current one.
    pub context: Option<String>,
    /// Our own name, unique among replicas: our pod's.
    pub identity: String,
    /// What is told of calls where no rule says that: where spans go, of how many traces, and the access log.
    pub telemetry: Option<TelemetryDefault>,
}
