//! What every thread of a sidecar shares: configuration, rules in force, and handles to thread 0.
//!
//! Everything here is read without locks on the way of a request. What a worker owns alone (pools,
//! balancers, counters) is not here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use heddle_model::Addresses;
use heddle_wire::local::proxy_config::{Outside, ProxyConfig, VirtualRanges};
use tokio::sync::mpsc;

use crate::{
    broker::{Broker, BrokerRequest},
    listening::Listening,
    lookup::{Ask, Lookup},
    memory::Memory,
    metrics::Metrics,
    probe::CaptureProbe,
    snapshot::Snapshot,
};

/// Shared by all threads of one sidecar.
#[derive(Debug)]
pub struct Shared {
    /// Start-up configuration.
    pub config: ProxyConfig,
    /// Rules in force. A request loads it once and keeps what it loaded.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Asks thread 0 for what the snapshot does not have.
    pub lookup: Lookup,
    /// Opens sockets on the host's side.
    pub broker: Broker,
    /// Counters, rendered at :15090.
    pub metrics: Arc<Metrics>,
    /// Where the application listens.
    pub listening: ArcSwap<Listening>,
    /// Which addresses are whose, before any look-up.
    pub ranges: Ranges,
    /// Connections being served, so that the end can wait for them.
    pub connections: OpenConnections,
    /// How close this process is to its memory limit.
    pub memory: Memory,
    /// What the workers tell the prober of the redirection.
    pub probe: CaptureProbe,
    /// Has the sidecar shown that it captures and escapes, and does it know its workload?
    pub ready: AtomicBool,
    /// Why the control plane's last update was refused, if nothing was accepted since.
    pub last_refusal: ArcSwapOption<String>,
}

/// Receiving ends of [`Shared`]'s handles: served by thread 0. Dropped, look-ups and outside
/// connections fail at once as unreachable.
#[derive(Debug)]
pub struct Ends {
    /// Questions for the discovery client.
    pub asks: mpsc::Receiver<Ask>,
    /// Requests for the holder.
    pub broker: mpsc::Receiver<BrokerRequest>,
}

impl Shared {
    /// Everything shared, with an empty snapshot.
    #[must_use]
    pub fn new(config: ProxyConfig, metrics: Arc<Metrics>) -> (Self, Ends) {
        let ranges = Ranges::of(&config);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (lookup, asks) = Lookup::new(Arc::clone(&snapshot), ranges);
        let (broker, broker_requests) = Broker::new(ranges, config.outside() != Outside::None);
        let listening = Listening::unknown(config.addresses);
        let shared = Self {
            config,
            snapshot,
            lookup,
            broker,
            metrics,
            listening: ArcSwap::from_pointee(listening),
            ranges,
            connections: OpenConnections::default(),
            memory: Memory::default(),
            probe: CaptureProbe::default(),
            ready: AtomicBool::new(false),
            last_refusal: ArcSwapOption::empty(),
        };
        (shared, Ends { asks, broker: broker_requests })
    }

    /// The mark every socket of the sidecar gets, where it needs one.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        self.config.escape_mark()
    }
}

/// What an address is by its range alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A service's virtual address: only `Address` says which, and nobody answers there otherwise.
    Vip,
    /// `host.heddle.internal`: the host's own loopback, through the broker.
    HostGateway,
    /// A workload of this mesh: connected to directly.
    Workload,
    /// Anything else: through the broker.
    Outside,
}

/// The mesh's address ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    vip_v4: (Ipv4Addr, u8),
    vip_v6: (Ipv6Addr, u8),
    /// `host.heddle.internal`.
    pub host_gateway: (Ipv4Addr, Ipv6Addr),
    own: Addresses,
}

impl Ranges {
    /// The ranges a configuration tells. Workloads' ranges are those of the own addresses with the
    /// prefix lengths of the virtual ones: the two are given out side by side.
    #[must_use]
    pub fn of(config: &ProxyConfig) -> Self {
        let VirtualRanges { v4, v6, host_gateway } = config.virtual_ranges();
        Self { vip_v4: v4, vip_v6: v6, host_gateway, own: config.addresses }
    }

    /// What `ip` is. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn reach(&self, ip: IpAddr) -> Reach {
        let (gateway, vip, workload) = match ip.to_canonical() {
            IpAddr::V4(ip) => (
                ip == self.host_gateway.0,
                same_v4(ip, self.vip_v4.0, self.vip_v4.1),
                self.own.v4().is_some_and(|own| same_v4(ip, own, self.vip_v4.1)),
            ),
            IpAddr::V6(ip) => (
                ip == self.host_gateway.1,
                same_v6(ip, self.vip_v6.0, self.vip_v6.1),
                self.own.v6().is_some_and(|own| same_v6(ip, own, self.vip_v6.1)),
            ),
        };
        match (gateway, vip, workload) {
            (true, ..) => Reach::HostGateway,
            (_, true, _) => Reach::Vip,
            (.., true) => Reach::Workload,
            _ => Reach::Outside,
        }
    }
}

fn same_v4(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let shift = 32_u32.saturating_sub(u32::from(prefix));
    let cut = |ip: Ipv4Addr| u32::from(ip).checked_shr(shift).unwrap_or(0);
    cut(a) == cut(b)
}

fn same_v6(a: Ipv6Addr, b: Ipv6Addr, prefix: u8) -> bool {
    let shift = 128_u32.saturating_sub(u32::from(prefix));
    let cut = |ip: Ipv6Addr| u128::from(ip).checked_shr(shift).unwrap_or(0);
    cut(a) == cut(b)
}

/// How many connections are open, and how many of them carry HTTP: those are busy only while a
/// request is in flight, which the metrics know without a shared counter per request.
#[derive(Debug, Clone, Default)]
pub struct OpenConnections(Arc<OpenCounts>);

#[derive(Debug, Default)]
struct OpenCounts {
    open: AtomicUsize,
    by_request: AtomicUsize,
}

impl OpenConnections {
    /// Counts one until the guard is dropped. Taken at accept.
    #[must_use]
    pub fn enter(&self) -> ConnectionGuard {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.clone())
    }

    /// Notes that an entered connection carries requests, until the guard is dropped: the end of
    /// the sidecar waits for them and not for the connection.
    #[must_use]
    pub fn by_request(&self) -> ByRequestGuard {
        self.0.by_request.fetch_add(1, Ordering::Relaxed);
        ByRequestGuard(self.clone())
    }

    /// How many are open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many are open now of those that do not carry requests.
    #[must_use]
    pub fn relayed(&self) -> usize {
        self.count().saturating_sub(self.0.by_request.load(Ordering::Relaxed))
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGuard(OpenConnections);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open connection that carries requests.
#[derive(Debug)]
pub struct ByRequestGuard(OpenConnections);

impl Drop for ByRequestGuard {
    fn drop(&mut self) {
        self.0.0.by_request.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        Ranges {
            vip_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            vip_v6: ("fd68:6564:646c::".parse().unwrap(), 64),
            host_gateway: (Ipv4Addr::new(240, 240, 0, 1), "fd68:6564:646c::1".parse().unwrap()),
            own: Addresses::Both(
                Ipv4Addr::new(240, 241, 0, 10),
                "fd68:6564:646c:1::a".parse().unwrap(),
            ),
        }
    }

    #[test]
    fn an_address_is_told_by_its_range() {
        for (ip, reach) in [
            ("240.240.0.1", Reach::HostGateway),
            ("::ffff:240.240.0.1", Reach::HostGateway),
            ("240.240.7.9", Reach::Vip),
            ("240.241.3.4", Reach::Workload),
            ("240.242.0.1", Reach::Outside),
            ("127.0.0.1", Reach::Outside),
            ("fd68:6564:646c::1", Reach::HostGateway),
            ("fd68:6564:646c::99", Reach::Vip),
            ("fd68:6564:646c:1::99", Reach::Workload),
            ("2001:db8::1", Reach::Outside),
        ] {
            assert_eq!(ranges().reach(ip.parse().unwrap()), reach, "{ip}");
        }
    }

    #[test]
    fn an_open_connection_counts_until_its_guard_is_dropped() {
        let connections = OpenConnections::default();
        let guard = connections.enter();
        assert_eq!((connections.count(), connections.relayed()), (1, 1));
        let requests = connections.by_request();
        assert_eq!((connections.count(), connections.relayed()), (1, 0));
        drop((requests, guard));
        assert_eq!((connections.count(), connections.relayed()), (0, 0));
    }
}
