//! What the control plane says of workloads, asked for all programs that wait at one time.

use std::{cell::Cell, convert::Infallible, rc::Rc, time::Duration};

use heddle_model::EndpointState;
use heddle_runtime::{clock, local_http};
use heddle_wire::local::control_api::WorkloadView;
use tokio::sync::watch;

use super::plan::{PROGRAM_LABEL, Planned, Ready};
use crate::{control_client::ControlClient, holder_client::HolderClient, mesh::MeshPaths};

/// Time between two looks.
const PACE: Duration = Duration::from_millis(100);

/// The newest answer, for whoever waits.
#[derive(Debug)]
pub(super) struct Views {
    paths: MeshPaths,
    seen: watch::Sender<Rc<Vec<WorkloadView>>>,
    waiting: Cell<usize>,
}

/// Somebody waits, as long as this lives.
struct Waits<'a>(&'a Cell<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Views {
    pub(super) fn new(paths: MeshPaths) -> Self {
        Self { paths, seen: watch::Sender::default(), waiting: Cell::new(0) }
    }

    /// Asks while somebody waits. Never returns.
    pub(super) async fn keep(&self) -> Infallible {
        let control = ControlClient::new(&self.paths);
        loop {
            clock::sleep(PACE).await;
            // Without an answer nothing is known to have changed: it is being restarted.
            if self.waiting.get() > 0
                && let Ok(views) = control.get::<Vec<WorkloadView>>("/v1/workloads").await
            {
                self.seen.send_replace(Rc::new(views));
            }
        }
    }

    /// Returns once a program is ready as it is to be.
    pub(super) async fn ready(&self, program: &Planned) {
        match &program.ready {
            // Its end says it.
            Ready::Ended => std::future::pending().await,
            Ready::Started => self.until(|views| of(views, &program.name).is_some()).await,
            Ready::Listening => self.until(|views| listens(views, &program.name)).await,
            Ready::Http { path, .. } => {
                self.until(|views| listens(views, &program.name)).await;
                self.answers(&program.name, path).await;
            }
        }
    }

    async fn until(&self, holds: impl Fn(&[WorkloadView]) -> bool) {
        self.waiting.set(self.waiting.get() + 1);
        let _waits = Waits(&self.waiting);
        let mut seen = self.seen.subscribe();
        // What was seen before it began to wait may be of its last process.
        while seen.changed().await.is_ok() {
            if holds(&seen.borrow_and_update()) {
                return;
            }
        }
    }

    /// Returns once a GET through the address that was published for it is answered well.
    async fn answers(&self, name: &str, path: &str) {
        loop {
            if let Some(address) = self.ready_at(name).await
                && let Ok(answer) = local_http::get_tcp(address, path).await
                && (200..400).contains(&answer.status)
            {
                return;
            }
            clock::sleep(PACE).await;
        }
    }

    async fn ready_at(&self, name: &str) -> Option<std::net::SocketAddr> {
        let info = HolderClient::connect(&self.paths).await.ok()?.info().await.ok()?;
        let is_it = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(PROGRAM_LABEL).is_some_and(|own| own == name)
        };
        let joined = info.workloads.iter().find(|one| is_it(&one.joined.workload.labels))?;
        joined.ready_at
    }
}

fn of<'v>(views: &'v [WorkloadView], name: &str) -> Option<&'v WorkloadView> {
    let is_it = |view: &&WorkloadView| {
        view.workload.labels.get(PROGRAM_LABEL).is_some_and(|own| own == name)
    };
    views.iter().find(is_it)
}

fn listens(views: &[WorkloadView], name: &str) -> bool {
    of(views, name).is_some_and(|view| {
        view.workload.ports.values().all(|port| port.state == EndpointState::Ready)
    })
}
