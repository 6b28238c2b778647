//! The scan: reads the kernel's table of listening sockets, again and again.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_model::discovery::DefaultEndpoint;
use heddle_runtime::{clock, sock_diag};
use heddle_wire::local::proxy_config::{PORT_ADMIN, PORT_METRICS};
use tokio::sync::watch;

use super::Listening;
use crate::Shared;

/// Between scans until every declared port listens: bounds how late an endpoint becomes ready.
const INTERVAL_STARTING: Duration = Duration::from_millis(20);
/// Between scans from then on.
const INTERVAL_STEADY: Duration = Duration::from_millis(250);
/// A declared port that does not listen after this long may never: scans slow down.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// Scans for ever: publishes [`Listening`] for the workers and the sockets for the report.
pub(crate) async fn run(shared: Arc<Shared>, report: watch::Sender<Vec<SocketAddr>>) {
    let mut starting_since = Some(clock::now());
    let mut failure_logged = false;
    loop {
        match sock_diag::listening_sockets() {
            Ok(sockets) => publish(&shared, &report, sockets),
            Err(error) if failure_logged => tracing::debug!(%error, "scanning failed again"),
            Err(error) => {
                failure_logged = true;
                log_failure(&error);
            }
        }
        let pause = pause(&shared, &mut starting_since, clock::now());
        clock::sleep(pause).await;
    }
}

fn log_failure(error: &io::Error) {
    tracing::error!(
        %error,
        "listening sockets cannot be read (kernel module inet_diag?): this workload's ports never become ready"
    );
}

fn publish(shared: &Shared, report: &watch::Sender<Vec<SocketAddr>>, mut sockets: Vec<SocketAddr>) {
    let config = &shared.config;
    sockets.retain(|socket| {
        let own = (PORT_ADMIN..=PORT_METRICS).contains(&socket.port())
            || (socket.ip().is_loopback() && config.host_ports().contains(&socket.port()));
        !own
    });
    sockets.extend(served_elsewhere(shared, &sockets));
    sockets.sort();
    sockets.dedup();
    let listening = Listening::of(&sockets, config.addresses);
    if **shared.listening.load() != listening {
        shared.listening.store(Arc::new(listening));
    }
    report.send_if_modified(|told| {
        let changed = *told != sockets;
        if changed {
            *told = sockets;
        }
        changed
    });
}

/// Ports of the workload's that its program serves elsewhere, as its Sidecar says, where it does: as if it listened on
/// them.
fn served_elsewhere(shared: &Shared, sockets: &[SocketAddr]) -> Vec<SocketAddr> {
    let snapshot = shared.snapshot.load();
    let ports = snapshot.inbound.iter().flat_map(|plan| &plan.inbound.ports);
    let listens = |number: u16| sockets.iter().any(|socket| socket.port() == number);
    let served = ports.filter(|port| match &port.endpoint {
        None => false,
        Some(DefaultEndpoint::Loopback(number) | DefaultEndpoint::Own(number)) => listens(*number),
        // One by name cannot be looked for.
        Some(DefaultEndpoint::Socket(path)) => path.starts_with('@') || Path::new(path).exists(),
    });
    let own = shared.config.addresses.first();
    served.map(|port| SocketAddr::new(own, port.number)).collect()
}

fn pause(shared: &Shared, starting_since: &mut Option<Instant>, now: Instant) -> Duration {
    let Some(since) = *starting_since else { return INTERVAL_STEADY };
    let listening = shared.listening.load();
    let complete = shared.config.ports.keys().all(|port| listening.has(*port));
    if complete || now.saturating_duration_since(since) >= STARTING_MAX {
        *starting_since = None;
        return INTERVAL_STEADY;
    }
    INTERVAL_STARTING
}
