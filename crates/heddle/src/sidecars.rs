//! Sidecars of a mesh, asked one by one: on one machine at the path socket in a workload's folder, in a cluster at the
//! loopback of its pod, through the API server's port-forward. They change nothing by being asked.

use std::{cell::Cell, future::poll_fn, pin::Pin, task::Poll, time::Duration};

use heddle_control::reach::PodAt;
use heddle_runtime::{
    clock,
    local_http::{self, Ask, CallError, Method},
    path_socket,
};
use heddle_wire::local::{
    control_api::WorkloadView,
    proxy_config::{PORT_ADMIN, admin_socket},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{chosen::Chosen, failure::Failure};

/// Longest wait for one sidecar.
const ANSWER_WAIT: Duration = Duration::from_secs(6);
/// Sidecars that are asked at one time.
const AT_ONCE: usize = 16;

/// Asks the sidecar of a workload.
///
/// # Errors
/// It does not answer, or refuses: why.
pub(crate) async fn ask<T: DeserializeOwned>(
    mesh: &Chosen,
    of: &WorkloadView,
    (method, path): (Method, &str),
    body: Option<&impl Serialize>,
) -> Result<T, Failure> {
    let id = &of.workload.id;
    let called = clock::within(ANSWER_WAIT, Box::pin(call(mesh, of, (method, path), body))).await;
    let late = || {
        let wait = ANSWER_WAIT.as_secs();
        Err(Failure::refused(format!("the sidecar of {id} has not answered within {wait} s")))
    };
    called.unwrap_or_else(late)
}

async fn call<T: DeserializeOwned>(
    mesh: &Chosen,
    of: &WorkloadView,
    (method, path): (Method, &str),
    body: Option<&impl Serialize>,
) -> Result<T, Failure> {
    let id = &of.workload.id;
    let peer = format!("the sidecar of {id}");
    let ask = Ask::new(&method, path);
    let called = match mesh {
        Chosen::Local(mesh) => {
            let socket = admin_socket(&mesh.paths.run_dir(), id);
            let stream = path_socket::connect(&socket).await.map_err(|error| {
                Failure::refused(format!(
                    "{peer} cannot be reached at {}: {error}",
                    socket.display()
                ))
            })?;
            local_http::call_on(&peer, stream, ask, body).await
        }
        Chosen::Cluster(mesh) => {
            let forwarded = mesh.reach.forward(&PodAt::of(id), PORT_ADMIN).await?;
            local_http::call_on(&peer, forwarded.stream, ask, body).await
        }
    };
    called.map_err(|error| match error {
        CallError::Refused { status: 404 | 405, .. } => Failure::refused(format!(
            "{peer} does not know this question: is it of an older version than this one ({})?",
            env!("CARGO_PKG_VERSION")
        )),
        CallError::Refused { body, .. } => {
            Failure::refused(String::from_utf8_lossy(&body).trim().to_owned())
        }
        error => Failure::refused(error.to_string()),
    })
}

/// `GET path` of all of these sidecars, [`AT_ONCE`] at a time; in their order.
pub(crate) async fn ask_all<T: DeserializeOwned>(
    mesh: &Chosen,
    all: &[&WorkloadView],
    path: &str,
) -> Vec<Result<T, Failure>> {
    let next = Cell::new(0);
    let answers: Vec<Cell<Option<Result<T, Failure>>>> =
        all.iter().map(|_| Cell::new(None)).collect();
    let lane = async || {
        loop {
            let at = next.get();
            let Some(of) = all.get(at) else { return };
            next.set(at + 1);
            answers[at].set(Some(ask(mesh, of, (Method::GET, path), None::<&()>).await));
        }
    };
    let mut lanes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for _ in 0..AT_ONCE.min(all.len()) {
        lanes.push(Box::pin(lane()));
    }
    poll_fn(|context| {
        lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
        if lanes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(lanes);
    let unasked = || Err(Failure::refused("it was not asked"));
    answers.into_iter().map(|answer| answer.into_inner().unwrap_or_else(unasked)).collect()
}
