//! How a worker tells the prober's connections from the workload's: by the ports they come from.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use heddle_wire::local::proxy_config::PORT_HEALTH;
use tokio::sync::Notify;

/// What the workers tell the prober: which of its connections they accepted.
#[derive(Debug, Default)]
pub struct CaptureProbe {
    /// Source ports of probing connections under way.
    expected: Mutex<BTreeSet<u16>>,
    seen: Notify,
}

impl CaptureProbe {
    /// Is this accepted outbound connection the prober's? Then it is to be closed, not counted.
    #[must_use]
    pub fn take(&self, original: SocketAddr, peer: SocketAddr) -> bool {
        if original.port() != PORT_HEALTH {
            return false;
        }
        let ours = self.ports().remove(&peer.port());
        if ours {
            self.seen.notify_one();
        }
        ours
    }

    /// The prober is about to connect from `port`.
    pub(crate) fn expect(&self, port: u16) {
        self.ports().insert(port);
    }

    /// It does not wait any longer.
    pub(crate) fn forget(&self, port: u16) {
        self.ports().remove(&port);
    }

    /// Waits until an expected connection has been taken.
    pub(crate) async fn taken(&self) {
        self.seen.notified().await;
    }

    fn ports(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_probers_own_connection_is_taken_and_only_once() {
        let probe = CaptureProbe::default();
        probe.expect(40_000);
        let health: SocketAddr = "240.241.0.10:15021".parse().unwrap();
        let web: SocketAddr = "240.241.0.10:80".parse().unwrap();
        let peer = |port| SocketAddr::from(([240, 241, 0, 10], port));
        assert!(!probe.take(web, peer(40_000)));
        assert!(!probe.take(health, peer(40_001)));
        assert!(probe.take(health, peer(40_000)));
        assert!(!probe.take(health, peer(40_000)));
    }
}
