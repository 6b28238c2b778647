//! A mesh in a cluster, asked through the API server: its control plane's replicas, each of which serves some of the
//! proxies, and its observer. The calls are those of a mesh on this machine.

use std::{io, time::Duration};

use heddle_control::{
    installation::Target,
    reach::{Part, PodAt, Reach, ReachError},
};
use heddle_model::name::set_cluster_domain;
use heddle_runtime::{
    clock,
    local_http::{self, Ask, CallError, Method},
};
use heddle_wire::local::control_api::{ApiError, WorkloadView};
use serde::{Serialize, de::DeserializeOwned};

use crate::{cli::TargetFlags, control_client::refusal_text, failure::Failure};

/// Longest wait for an answer that nobody waits for on purpose: it may be to a cluster's whole export.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Longest answer of a refusal that is repeated, characters.
const REASON_MAX: usize = 200;

/// A mesh in a cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterMesh {
    /// How its cluster is reached.
    pub reach: Reach,
    /// Its own namespace.
    pub namespace: String,
    /// What labels call it by.
    pub revision: String,
    /// The control plane's pods: those that serve first.
    pub control: Vec<PodAt>,
}

/// Why one pod gave no answer.
struct Unanswered {
    failure: Failure,
    /// Another one would say the same.
    is_final: bool,
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        Self::refused(error.text)
    }
}

impl ClusterMesh {
    /// Finds the mesh of the cluster that flags name.
    ///
    /// # Errors
    /// The cluster cannot be reached, or there is no mesh in it, or several are.
    pub(crate) async fn find(flags: &TargetFlags) -> Result<Self, Failure> {
        let target = Target {
            kubeconfig: flags.cluster.kubeconfig.clone(),
            context: flags.cluster.context.clone(),
        };
        let reach = Reach::of(&target).await?;
        let pods = reach.pods(Part::Control).await?;
        let control = chosen(pods, flags.revision.as_deref(), reach.context())?;
        let first = &control[0];
        let (namespace, revision) = (first.namespace.clone(), first.revision.clone());
        if !first.cluster_domain.is_empty() {
            set_cluster_domain(&first.cluster_domain)
                .map_err(|e| Failure::refused(format!("pod {}: {e}", first.name)))?;
        }
        Ok(Self { reach, namespace, revision, control })
    }

    /// Replicas of the control plane that serve.
    ///
    /// # Errors
    /// There is none: why.
    pub(crate) fn serving(&self) -> Result<Vec<&PodAt>, Failure> {
        let serving: Vec<_> = self.control.iter().filter(|pod| pod.ready).collect();
        if serving.is_empty() {
            let why = self.control.iter().map(|pod| format!("\n  pod {}: {}", pod.name, pod.why));
            return Err(Failure::refused(format!(
                "no replica of the control plane in namespace {} is ready; traffic goes on by the last rules; see `kubectl -n {} describe pods`{}",
                self.namespace,
                self.namespace,
                why.collect::<String>()
            )));
        }
        Ok(serving)
    }

    /// `GET path` of whichever replica answers.
    ///
    /// # Errors
    /// None does: why.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        any(&self.reach, &self.serving()?, Part::Control, (Method::GET, path), None::<&()>).await
    }

    /// `POST path`, which changes nothing, of whichever replica answers.
    ///
    /// # Errors
    /// None does: why, or what it refuses.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let serving = self.serving()?;
        any(&self.reach, &serving, Part::Control, (Method::POST, path), Some(body)).await
    }

    /// `GET path` of each replica that serves. One that has just gone is left out, all of them are not.
    ///
    /// # Errors
    /// None answers: why.
    pub(crate) async fn get_of_each<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Vec<(&PodAt, T)>, Failure> {
        let mut answers = Vec::new();
        let mut failed = None;
        for pod in self.serving()? {
            match call(
                &self.reach,
                pod,
                Part::Control,
                (Method::GET, path),
                None::<&()>,
                ANSWER_WAIT,
            )
            .await
            {
                Ok(answer) => answers.push((pod, answer)),
                Err(error) if error.is_final => return Err(error.failure),
                Err(error) => failed = Some(error.failure),
            }
        }
        match failed {
            Some(failure) if answers.is_empty() => Err(failure),
            _ => Ok(answers),
        }
    }

    /// A call of one replica, which is asked to wait for so long.
    ///
    /// # Errors
    /// It does not answer: why.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        pod: &PodAt,
        (method, path): (Method, &str),
        body: Option<&impl Serialize>,
        wait: Duration,
    ) -> Result<T, Failure> {
        let limit = ANSWER_WAIT.saturating_add(wait);
        let called = call(&self.reach, pod, Part::Control, (method, path), body, limit).await;
        called.map_err(|error| error.failure)
    }

    /// All workloads, each as the replica tells of it that serves its sidecar.
    ///
    /// # Errors
    /// As [`Self::get_of_each`].
    pub(crate) async fn workloads(&self) -> Result<Vec<WorkloadView>, Failure> {
        let answers = self.get_of_each::<Vec<WorkloadView>>("/v1/workloads").await?;
        let mut answers = answers.into_iter().map(|(_, views)| views);
        let mut merged = answers.next().unwrap_or_default();
        for view in answers.flatten().filter(|view| view.connected) {
            match merged.iter_mut().find(|known| known.workload.id == view.workload.id) {
                Some(known) => *known = view,
                None => merged.push(view),
            }
        }
        Ok(merged)
    }

    /// The observer's pods: those that serve first.
    ///
    /// # Errors
    /// The API server does not say.
    pub(crate) async fn observers(&self) -> Result<Vec<PodAt>, Failure> {
        let mut pods = self.reach.pods(Part::Observe).await?;
        pods.retain(|pod| pod.namespace == self.namespace);
        Ok(pods)
    }

    /// Those of them that serve.
    ///
    /// # Errors
    /// There is none: why.
    pub(crate) async fn serving_observers(&self) -> Result<Vec<PodAt>, Failure> {
        let mut pods = self.observers().await?;
        let why = pods.iter().map(|pod| format!("\n  pod {}: {}", pod.name, pod.why));
        let why: String = why.collect();
        pods.retain(|pod| pod.ready);
        match (pods.is_empty(), why.is_empty()) {
            (false, _) => Ok(pods),
            (true, true) => Err(Failure::refused(format!(
                "namespace {} of context `{}` has no pod of {}, which `heddle install` makes",
                self.namespace,
                self.reach.context(),
                Part::Observe.name()
            ))),
            (true, false) => Err(Failure::refused(format!(
                "no pod of {} in namespace {} is ready{why}",
                Part::Observe.name(),
                self.namespace
            ))),
        }
    }
}

/// A call that changes nothing of one of these pods: of the first, and of another if it gives no answer.
///
/// # Errors
/// Neither does: why.
pub(crate) async fn any<T: DeserializeOwned>(
    reach: &Reach,
    pods: &[&PodAt],
    part: Part,
    (method, path): (Method, &str),
    body: Option<&impl Serialize>,
) -> Result<T, Failure> {
    let mut last = Failure::refused(format!("there is no pod of {}", part.name()));
    for pod in pods.iter().take(2) {
        match call(reach, pod, part, (method.clone(), path), body, ANSWER_WAIT).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_final => return Err(error.failure),
            Err(error) => last = error.failure,
        }
    }
    Err(last)
}

/// The pods of the one installation that is meant.
fn chosen(pods: Vec<PodAt>, revision: Option<&str>, context: &str) -> Result<Vec<PodAt>, Failure> {
    if pods.is_empty() {
        return Err(Failure::refused(format!(
            "there is no mesh in the cluster of context `{context}`: put it there with `heddle install`, or choose another with --context, or a mesh on this machine with --mesh"
        )));
    }
    let place = |pod: &PodAt| (pod.revision.clone(), pod.namespace.clone());
    let mut places: Vec<_> = pods.iter().map(place).collect();
    places.sort_unstable();
    places.dedup();
    let named = |(revision, namespace): &(String, String)| format!("{revision} in {namespace}");
    let there_are: Vec<String> = places.iter().map(named).collect();
    let fits = |pod: &PodAt| revision.is_none_or(|wanted| pod.revision == wanted);
    places.retain(|(own, _)| revision.is_none_or(|wanted| own == wanted));
    match &places[..] {
        [] => Err(Failure::refused(format!(
            "the cluster of context `{context}` has no mesh of revision `{}`: there are {}",
            revision.unwrap_or_default(),
            there_are.join(", ")
        ))),
        [_] => Ok(pods.into_iter().filter(fits).collect()),
        _ => Err(Failure::refused(format!(
            "the cluster of context `{context}` has several meshes: say which one with --revision ({})",
            there_are.join(", ")
        ))),
    }
}

async fn call<T: DeserializeOwned>(
    reach: &Reach,
    pod: &PodAt,
    part: Part,
    (method, path): (Method, &str),
    body: Option<&impl Serialize>,
    limit: Duration,
) -> Result<T, Unanswered> {
    let peer = format!("{}/{}", pod.namespace, pod.name);
    let passing = |text: String| Unanswered { failure: Failure::refused(text), is_final: false };
    let whole = async {
        let forwarded = reach
            .forward(pod, part.port())
            .await
            .map_err(|error| Unanswered { is_final: error.is_final, failure: error.into() })?;
        let (stream, why) = forwarded.split();
        match local_http::call_on(&peer, stream, Ask::new(&method, path), body).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused { status, body, .. }) => {
                Err(Unanswered { failure: refused(&peer, status, &body), is_final: true })
            }
            Err(error @ CallError::Unexpected { .. }) => Err(passing(format!(
                "{error}: is it of another version than this one ({})?",
                env!("CARGO_PKG_VERSION")
            ))),
            Err(error) => {
                let said = why.said().await.map_or_else(String::new, |said| format!(" ({said})"));
                Err(passing(format!("pod {peer} gave no answer: {error}{said}")))
            }
        }
    };
    let late =
        || Err(passing(format!("pod {peer} has not answered {path} within {} s", limit.as_secs())));
    clock::within(limit, Box::pin(whole)).await.unwrap_or_else(late)
}

/// What a pod said that refused a call.
fn refused(peer: &str, status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(refusal) if !refusal.errors.is_empty() => {
            Failure::of_problems(refusal_text(&refusal), refusal.errors)
        }
        _ if status == 404 => Failure::refused(format!(
            "pod {peer} does not know this call: is it of an older version than this one ({})? `heddle install` brings it up to date",
            env!("CARGO_PKG_VERSION")
        )),
        _ => {
            let text = String::from_utf8_lossy(body);
            let text: String = text.chars().take(REASON_MAX).collect();
            Failure::refused(format!("pod {peer} refused with HTTP {status}: {text}"))
        }
    }
}

/// An error of a local listener's port, for `--port`.
pub(crate) fn port_taken(port: u16, error: &io::Error) -> Failure {
    Failure::refused(format!(
        "port {port} of 127.0.0.1 cannot be listened on ({error}): is `heddle dashboard` running already? Choose another with --port"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, namespace: &str, revision: &str) -> PodAt {
        PodAt {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            cluster_domain: String::new(),
            ready: true,
            started: String::new(),
            why: String::new(),
        }
    }

    #[test]
    fn one_mesh_is_meant_by_itself_and_one_of_several_by_its_revision() {
        let one = vec![pod("a", "heddle-system", "default"), pod("b", "heddle-system", "default")];
        assert_eq!(chosen(one.clone(), None, "kind").unwrap().len(), 2);
        let error = chosen(one.clone(), Some("canary"), "kind").unwrap_err().message;
        assert!(error.ends_with("there are default in heddle-system"), "{error}");
        let mut two = one;
        two.push(pod("c", "heddle-canary", "canary"));
        let error = chosen(two.clone(), None, "kind").unwrap_err().message;
        assert!(error.contains("--revision (canary in heddle-canary, default in"), "{error}");
        assert_eq!(chosen(two, Some("canary"), "kind").unwrap()[0].name, "c");
        let error = chosen(Vec::new(), None, "kind").unwrap_err().message;
        assert!(error.contains("context `kind`: put it there with `heddle install`"), "{error}");
    }
}
