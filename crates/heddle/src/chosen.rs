//! Which mesh a command means, one of this machine or one of a cluster, and one way to ask either.
//!
//! The rule is told in docs/tools.md: `--mesh` names one of this machine; `--kubernetes`, `--context`, `--kubeconfig`
//! and `--revision` mean a cluster; with none of them a mesh that runs on this machine is meant, and where none runs,
//! the cluster of the kubeconfig's current context.

use std::{cell::RefCell, net::SocketAddr};

use heddle_control::reach::{self, Part, PodAt};
use heddle_model::name::DEFAULT_NAMESPACE;
use heddle_runtime::local_http::{self, Method};
use heddle_wire::local::control_api::WorkloadView;
use serde::de::DeserializeOwned;

use crate::{
    cli::TargetFlags,
    cluster_mesh::{self, ClusterMesh},
    control_client::ControlClient,
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    mesh::{RunRoot, RunningMesh},
    output,
};

/// Longest answer of a refusal that is repeated, characters.
const REASON_MAX: usize = 200;

/// The mesh that is meant.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// One that runs on this machine.
    Local(RunningMesh),
    /// One in a cluster.
    Cluster(Box<ClusterMesh>),
}

/// What flags, and what there is, come to.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Local,
    Cluster,
    /// The cluster, because nothing runs here; its context.
    ClusterOf(String),
    Nothing,
}

fn decide(
    flags: &TargetFlags,
    runs_here: impl FnOnce() -> Result<bool, Failure>,
    context: impl FnOnce() -> Option<String>,
) -> Result<Decision, Failure> {
    if flags.mesh.is_some() {
        return Ok(Decision::Local);
    }
    if flags.means_a_cluster() {
        return Ok(Decision::Cluster);
    }
    if runs_here()? {
        return Ok(Decision::Local);
    }
    Ok(context().map_or(Decision::Nothing, Decision::ClusterOf))
}

impl Chosen {
    /// The mesh that flags mean.
    ///
    /// # Errors
    /// There is none, or there are several: what to do.
    pub(crate) async fn of(flags: &TargetFlags) -> Result<Self, Failure> {
        let runs_here = || Ok(!RunRoot::open()?.running()?.is_empty());
        match decide(flags, runs_here, reach::current_context)? {
            Decision::Local => Ok(Self::Local(RunningMesh::select(flags.mesh.as_deref())?)),
            Decision::Cluster => Ok(Self::Cluster(Box::new(ClusterMesh::find(flags).await?))),
            Decision::ClusterOf(context) => {
                output::notice(format!(
                    "no mesh is running on this machine: this is the cluster of context `{context}`"
                ));
                Ok(Self::Cluster(Box::new(ClusterMesh::find(flags).await?)))
            }
            Decision::Nothing => Err(Failure::refused(
                "no mesh is running on this machine (start one with `heddle up`, or try `heddle demo`), and no kubeconfig with a current context names a cluster (say which with --kubeconfig and --context)",
            )),
        }
    }

    /// The namespace of what names none.
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Self::Local(_) => DEFAULT_NAMESPACE,
            Self::Cluster(mesh) => mesh.reach.namespace(),
        }
    }

    /// `GET path` of the control plane.
    ///
    /// # Errors
    /// A refusal with the control plane's own problems, or saying why it does not answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        match self {
            Self::Local(mesh) => ControlClient::new(&mesh.paths).get(path).await,
            Self::Cluster(mesh) => mesh.get(path).await,
        }
    }

    /// All workloads.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn workloads(&self) -> Result<Vec<WorkloadView>, Failure> {
        match self {
            Self::Local(_) => self.get("/v1/workloads").await,
            Self::Cluster(mesh) => mesh.workloads().await,
        }
    }

    /// Who keeps the numbers.
    ///
    /// # Errors
    /// Nobody does, or none of them is ready.
    pub(crate) async fn dashboard(&self) -> Result<Dashboard, Failure> {
        match self {
            Self::Local(mesh) => {
                let info = HolderClient::connect(&mesh.paths).await?.info().await?;
                let none = || Failure::refused(format!("mesh `{}` has no dashboard", info.mesh));
                info.dashboard.map(Dashboard::Local).ok_or_else(none)
            }
            Self::Cluster(mesh) => {
                let pods = RefCell::new(mesh.serving_observers().await?);
                Ok(Dashboard::Cluster { mesh: mesh.clone(), pods })
            }
        }
    }
}

/// Who keeps the numbers, and draws them.
#[derive(Debug)]
pub(crate) enum Dashboard {
    /// At an address of this machine.
    Local(SocketAddr),
    /// In a cluster.
    Cluster {
        /// Of which mesh.
        mesh: Box<ClusterMesh>,
        /// Its pods that serve.
        pods: RefCell<Vec<PodAt>>,
    },
}

impl Dashboard {
    /// Asks its JSON API.
    ///
    /// # Errors
    /// A refusal where it does not answer, or answers something else.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        match self {
            Self::Local(address) => ask_local(*address, path).await,
            Self::Cluster { mesh, pods } => {
                let known = pods.borrow().clone();
                match asked(mesh, &known, path).await {
                    Ok(answer) => Ok(answer),
                    // Pods come and go while somebody watches.
                    Err(failure) => {
                        let now = mesh.serving_observers().await?;
                        if now == known {
                            return Err(failure);
                        }
                        pods.replace(now.clone());
                        asked(mesh, &now, path).await
                    }
                }
            }
        }
    }
}

async fn asked<T: DeserializeOwned>(
    mesh: &ClusterMesh,
    pods: &[PodAt],
    path: &str,
) -> Result<T, Failure> {
    let pods: Vec<&PodAt> = pods.iter().collect();
    let call = (Method::GET, path);
    cluster_mesh::any(&mesh.reach, &pods, Part::Observe, call, None::<&()>).await
}

async fn ask_local<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, Failure> {
    let what = || format!("ask the dashboard for http://{address}{path}");
    let answer = local_http::get_tcp(address, path).await.doing(what)?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body);
        let reason: String = body.chars().take(REASON_MAX).collect();
        let message = format!("cannot {}: HTTP {}: {reason}", what(), answer.status);
        return Err(Failure::refused(message));
    }
    serde_json::from_slice(&answer.body).doing(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(mesh: Option<&str>, context: Option<&str>) -> TargetFlags {
        let mut flags = TargetFlags { mesh: mesh.map(str::to_owned), ..TargetFlags::default() };
        flags.cluster.context = context.map(str::to_owned);
        flags
    }

    fn decided(flags: &TargetFlags, runs_here: bool, current: Option<&str>) -> Decision {
        decide(flags, || Ok(runs_here), || current.map(str::to_owned)).unwrap()
    }

    #[test]
    fn a_flag_decides_whatever_there_is() {
        for (runs_here, current) in
            [(false, None), (true, None), (false, Some("c")), (true, Some("c"))]
        {
            assert_eq!(decided(&flags(Some("demo"), None), runs_here, current), Decision::Local);
            assert_eq!(decided(&flags(None, Some("x")), runs_here, current), Decision::Cluster);
            let kubernetes = TargetFlags { kubernetes: true, ..TargetFlags::default() };
            assert_eq!(decided(&kubernetes, runs_here, current), Decision::Cluster);
            let revision = TargetFlags { revision: Some("r".to_owned()), ..TargetFlags::default() };
            assert_eq!(decided(&revision, runs_here, current), Decision::Cluster);
        }
    }

    #[test]
    fn without_a_flag_what_runs_here_is_meant_and_else_the_current_cluster() {
        let none = TargetFlags::default();
        assert_eq!(decided(&none, true, None), Decision::Local);
        assert_eq!(decided(&none, true, Some("c")), Decision::Local);
        assert_eq!(decided(&none, false, Some("c")), Decision::ClusterOf("c".to_owned()));
        assert_eq!(decided(&none, false, None), Decision::Nothing);
    }

    #[test]
    fn a_kubeconfig_is_not_read_where_a_mesh_runs_here() {
        let read = || -> Option<String> { panic!("it is read") };
        assert_eq!(decide(&TargetFlags::default(), || Ok(true), read), Ok(Decision::Local));
    }
}
