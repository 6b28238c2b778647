//! A mesh of this machine: the control plane and every sidecar have a path socket below its run-time folder.

use std::{path::PathBuf, time::Duration};

use heddle_runtime::{
    clock,
    local_http::{self, Method, Opened},
    path_socket,
};
use heddle_wire::local::{
    control_api::WorkloadView, proxy_config::admin_socket, tap_api::ASKED_BY,
};

use super::ways::Ways;

/// Longest wait for the control plane.
const CONTROL_WAIT: Duration = Duration::from_secs(5);

/// The mesh whose run-time folder this is.
#[derive(Debug, Clone)]
pub struct LocalWays(pub PathBuf);

impl Ways for LocalWays {
    async fn workloads(&self) -> Result<Vec<WorkloadView>, String> {
        let socket = self.0.join("control.sock");
        let called = local_http::call(&socket, Method::GET, "/v1/workloads", None::<&()>);
        match clock::within(CONTROL_WAIT, called).await {
            Some(answer) => answer.map_err(|error| error.to_string()),
            None => Err("the control plane does not answer".to_owned()),
        }
    }

    async fn open(&self, workload: &WorkloadView, path: &str) -> Result<Opened, String> {
        let socket = admin_socket(&self.0, &workload.workload.id);
        let stream = path_socket::connect(&socket).await;
        let stream = stream.map_err(|error| format!("its sidecar does not answer: {error}"))?;
        let opened = local_http::open_on("its sidecar", stream, path, (ASKED_BY, "1")).await;
        opened.map_err(|error| error.to_string())
    }
}
