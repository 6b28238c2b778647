//! Where the application listens: found by reading the kernel's tables, never by connecting.
//!
//! Thread 0 scans, publishes the result for inbound dialling and reports it to the control plane,
//! which makes the endpoints ready. The workers only read [`Listening`].

pub(crate) mod scan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashMap;

/// Ports in LISTEN in this network namespace with the address to dial for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    own: (Ipv4Addr, Ipv6Addr),
    ports: HashMap<u16, IpAddr>,
}

impl Listening {
    /// Nothing known yet.
    #[must_use]
    pub fn unknown(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Self {
        Self { own: (ipv4, ipv6), ports: HashMap::new() }
    }

    /// The best address of each port among `sockets`: the workload's own IPv4, its IPv6, then
    /// 127.0.0.1, then `::1`. A wildcard listener counts as listening on the workload's address.
    #[must_use]
    pub fn of(sockets: &[SocketAddr], ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Self {
        let mut found = Self::unknown(ipv4, ipv6);
        for socket in sockets {
            let Some(address) = found.dial_address(socket.ip()) else { continue };
            let rank = found.rank(address);
            let best = found.ports.get(&socket.port()).copied();
            if best.is_none_or(|best| rank < found.rank(best)) {
                found.ports.insert(socket.port(), address);
            }
        }
        found
    }

    /// Is something listening on `port`?
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Addresses to dial for `port`, best first: where it was last seen listening, then the rest,
    /// since an application may have moved since the last scan. Loopback refusals cost microseconds.
    #[must_use]
    pub fn candidates(&self, port: u16) -> [SocketAddr; 4] {
        let mut order = self.order();
        if let Some(seen) = self.ports.get(&port) {
            order.sort_by_key(|address| address != seen);
        }
        order.map(|address| SocketAddr::new(address, port))
    }

    fn order(&self) -> [IpAddr; 4] {
        [
            IpAddr::V4(self.own.0),
            IpAddr::V6(self.own.1),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]
    }

    fn rank(&self, address: IpAddr) -> usize {
        let order = self.order();
        order.iter().position(|one| *one == address).unwrap_or(order.len())
    }

    /// The address that reaches a listener bound to `bound`; `None` if inbound traffic may not.
    fn dial_address(&self, bound: IpAddr) -> Option<IpAddr> {
        let address = match bound.to_canonical() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(self.own.0),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(self.own.1),
            other => other,
        };
        self.order().contains(&address).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(240, 241, 0, 10);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0, 0, 1, 0, 0, 0, 10);

    fn first(sockets: &[&str], port: u16) -> IpAddr {
        let sockets: Vec<SocketAddr> = sockets.iter().map(|text| text.parse().unwrap()).collect();
        Listening::of(&sockets, V4, V6).candidates(port)[0].ip()
    }

    #[test]
    fn the_workloads_own_address_is_dialled_before_loopback() {
        assert_eq!(first(&["127.0.0.1:80", "0.0.0.0:80"], 80), IpAddr::V4(V4));
        assert_eq!(first(&["240.241.0.10:80", "[::]:80"], 80), IpAddr::V4(V4));
        assert_eq!(first(&["[::]:80"], 80), IpAddr::V6(V6));
        assert_eq!(first(&["[::1]:80", "127.0.0.1:80"], 80), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(first(&["[::1]:80"], 80), IpAddr::V6(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn a_listener_on_a_foreign_address_does_not_count() {
        let sockets = ["10.0.0.1:80".parse().unwrap(), "127.0.0.2:81".parse().unwrap()];
        let listening = Listening::of(&sockets, V4, V6);
        assert!(!listening.has(80));
        assert!(!listening.has(81));
    }

    #[test]
    fn every_address_is_a_candidate_for_an_unseen_port() {
        let candidates = Listening::unknown(V4, V6).candidates(9000);
        assert_eq!(candidates[0], SocketAddr::new(IpAddr::V4(V4), 9000));
        assert_eq!(candidates.len(), 4);
    }
}
