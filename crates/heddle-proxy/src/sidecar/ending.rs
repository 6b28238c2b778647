//! The end of a sidecar: what is under way goes on for a while, and others are told to ask elsewhere.

use std::time::Duration;

use heddle_runtime::clock;
use heddle_wire::local::proxy_config::Ending;

use crate::Shared;

/// How long open connections may go on after SIGTERM, where the application is ended by whoever ends the sidecar.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long readers of live calls are waited for.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Between looks at the open connections while draining.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the sidecar may end.
pub async fn ended(shared: &Shared) {
    let draining = &shared.state.draining;
    match shared.config.ending() {
        Ending::Withdrawn | Ending::AfterApplication => draining.begin(),
        Ending::WithApplication { accepting } => {
            draining.begin_inbound();
            with_application(shared, accepting).await;
            draining.begin();
        }
    }
    drained(shared).await;
}

/// Waits until no request is in flight and nothing is relayed, at most [`DRAIN_MAX`]. Connections
/// that idle between requests, as in other sidecars' pools, are not waited for.
pub async fn drained(shared: &Shared) {
    let end = clock::now() + DRAIN_MAX;
    while is_busy(shared) && clock::now() < end {
        clock::sleep(DRAIN_INTERVAL).await;
    }
}

/// Waits until who looks at live calls has taken what waits for them, at most [`LAST_LINES`].
pub(super) async fn told(shared: &Shared) {
    let end = clock::now() + LAST_LINES;
    while shared.taps.any_waits() && clock::now() < end {
        clock::sleep(DRAIN_INTERVAL).await;
    }
}

/// Serves while others hear that the workload is going, and then until the application has gone: it listens no more,
/// and nothing of its own is under way. Whoever ends the pod sets the end of that.
async fn with_application(shared: &Shared, accepting: Duration) {
    clock::sleep(accepting).await;
    while is_busy(shared) || !shared.listening.load().is_empty() {
        clock::sleep(DRAIN_INTERVAL).await;
    }
}

fn is_busy(shared: &Shared) -> bool {
    shared.metrics.requests_in_flight() > 0 || shared.state.connections.relayed() > 0
}
