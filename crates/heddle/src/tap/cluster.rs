//! The sidecars of a cluster, by the API server's port-forward to each pod's loopback address: what may be looked at
//! is what the person may forward ports of.

use std::time::Duration;

use heddle_control::reach::PodAt;
use heddle_observe::tap::Ways;
use heddle_runtime::local_http::{self, Opened};
use heddle_wire::local::{control_api::WorkloadView, proxy_config::PORT_ADMIN, tap_api::ASKED_BY};

use crate::cluster_mesh::ClusterMesh;

/// Time between two looks at who is there: each replica is asked through the API server.
const PAUSE: Duration = Duration::from_secs(5);

/// A mesh in a cluster.
#[derive(Debug)]
pub(super) struct ClusterWays(pub(super) Box<ClusterMesh>);

impl Ways for ClusterWays {
    fn pause(&self) -> Duration {
        PAUSE
    }

    async fn workloads(&self) -> Result<Vec<WorkloadView>, String> {
        self.0.workloads().await.map_err(|failure| failure.message)
    }

    async fn open(&self, workload: &WorkloadView, path: &str) -> Result<Opened, String> {
        let pod = PodAt::of(&workload.workload.id);
        let forwarded = self.0.reach.forward(&pod, PORT_ADMIN).await;
        let (stream, why) = forwarded.map_err(|error| error.text)?.split();
        let opened = local_http::open_on("its sidecar", stream, path, (ASKED_BY, "1")).await;
        match opened {
            Ok(response) => Ok(response),
            Err(error) => {
                let said = why.said().await.map_or_else(String::new, |said| format!(" ({said})"));
                Err(format!("{error}{said}"))
            }
        }
    }
}
