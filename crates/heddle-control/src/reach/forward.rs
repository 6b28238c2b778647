//! Bytes to a port of a pod and back, through the API server and the node's kubelet.

use std::{future::Future, pin::Pin, time::Duration};

use heddle_runtime::clock;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::DuplexStream;

use super::{
    cluster::Reach,
    error::{ANSWER_WAIT, ReachError},
    explain,
    pods::PodAt,
};

/// Longest wait for why a forwarded port gave nothing: it comes beside the bytes.
const WHY_WAIT: Duration = Duration::from_millis(500);

/// A connection to a port of a pod.
pub struct Forwarded {
    /// Its bytes.
    pub stream: DuplexStream,
    why: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

impl std::fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarded").finish_non_exhaustive()
    }
}

impl Forwarded {
    /// Its bytes, and who knows why there were none.
    #[must_use]
    pub fn split(self) -> (DuplexStream, WhyNot) {
        (self.stream, WhyNot(self.why))
    }
}

/// Who knows why a forwarded port gave nothing.
pub struct WhyNot(Pin<Box<dyn Future<Output = Option<String>> + Send>>);

impl std::fmt::Debug for WhyNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WhyNot").finish_non_exhaustive()
    }
}

impl WhyNot {
    /// What the node said, if it said something.
    pub async fn said(self) -> Option<String> {
        let said = clock::within(WHY_WAIT, self.0).await.flatten()?;
        Some(said.trim().to_owned()).filter(|said| !said.is_empty())
    }
}

impl Reach {
    /// A connection to a port of a pod, through the API server.
    ///
    /// # Errors
    /// The person may not, the pod is gone, or nobody answers in time.
    pub async fn forward(&self, pod: &PodAt, port: u16) -> Result<Forwarded, ReachError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let asked = clock::within(ANSWER_WAIT, pods.portforward(&pod.name, &[port])).await;
        let what = format!("forward port {port} of pod {}/{}", pod.namespace, pod.name);
        let mut ports = match asked {
            Some(Ok(ports)) => ports,
            Some(Err(error)) => {
                let right = explain::Right {
                    verb: "create",
                    what: "pods/portforward",
                    namespace: Some(&pod.namespace),
                };
                return Err(explain::error(self.place(), &what, right, &error));
            }
            None => return Err(explain::late(self.place(), &what)),
        };
        match (ports.take_stream(port), ports.take_error(port)) {
            (Some(stream), Some(why)) => Ok(Forwarded { stream, why: Box::pin(why) }),
            _ => Err(ReachError::passing(format!("cannot {what}: the port was not opened"))),
        }
    }
}
