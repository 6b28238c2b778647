//! Which addresses are whose by their range alone, before any look-up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_model::Addresses;
use heddle_wire::local::proxy_config::{ProxyConfig, VirtualRanges};

/// What an address is by its range alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// A service's virtual address: only `Address` says which, and nobody answers there otherwise.
    Vip,
    /// `host.heddle.internal`: the host's own loopback, through the broker.
    HostGateway,
    /// A workload of this mesh: connected to directly.
    Workload,
    /// Anything else: through the broker.
    Outside,
}

/// The mesh's address ranges. Where there are none, in a cluster, an address tells nothing by itself: a service's
/// leads somewhere without the mesh too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    virtual_ones: Option<VirtualRanges>,
    own: Addresses,
}

impl Ranges {
    /// The ranges a configuration tells. Workloads' ranges are those of the own addresses with the
    /// prefix lengths of the virtual ones: the two are given out side by side.
    #[must_use]
    pub fn of(config: &ProxyConfig) -> Self {
        Self { virtual_ones: config.virtual_ranges(), own: config.addresses }
    }

    /// `host.heddle.internal`, where there is one.
    #[must_use]
    pub fn host_gateway(&self) -> Option<(Ipv4Addr, Ipv6Addr)> {
        self.virtual_ones.map(|ranges| ranges.host_gateway)
    }

    /// What `ip` is. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn kind(&self, ip: IpAddr) -> AddressKind {
        let Some(ranges) = self.virtual_ones else { return AddressKind::Outside };
        let VirtualRanges { v4, v6, host_gateway } = ranges;
        let (gateway, vip, workload) = match ip.to_canonical() {
            IpAddr::V4(ip) => (
                ip == host_gateway.0,
                same_v4(ip, v4.0, v4.1),
                self.own.v4().is_some_and(|own| same_v4(ip, own, v4.1)),
            ),
            IpAddr::V6(ip) => (
                ip == host_gateway.1,
                same_v6(ip, v6.0, v6.1),
                self.own.v6().is_some_and(|own| same_v6(ip, own, v6.1)),
            ),
        };
        match (gateway, vip, workload) {
            (true, ..) => AddressKind::HostGateway,
            (_, true, _) => AddressKind::Vip,
            (.., true) => AddressKind::Workload,
            _ => AddressKind::Outside,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let virtual_ones = VirtualRanges {
            v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            v6: ("fd68:6564:646c::".parse().unwrap(), 64),
            host_gateway: (Ipv4Addr::new(240, 240, 0, 1), "fd68:6564:646c::1".parse().unwrap()),
        };
        Ranges {
            virtual_ones: Some(virtual_ones),
            own: Addresses::Both(
                Ipv4Addr::new(240, 241, 0, 10),
                "fd68:6564:646c:1::a".parse().unwrap(),
            ),
        }
    }

    #[test]
    fn an_address_is_told_by_its_range() {
        for (ip, kind) in [
            ("240.240.0.1", AddressKind::HostGateway),
            ("::ffff:240.240.0.1", AddressKind::HostGateway),
            ("240.240.7.9", AddressKind::Vip),
            ("240.241.3.4", AddressKind::Workload),
            ("240.242.0.1", AddressKind::Outside),
            ("127.0.0.1", AddressKind::Outside),
            ("fd68:6564:646c::1", AddressKind::HostGateway),
            ("fd68:6564:646c::99", AddressKind::Vip),
            ("fd68:6564:646c:1::99", AddressKind::Workload),
            ("2001:db8::1", AddressKind::Outside),
        ] {
            assert_eq!(ranges().kind(ip.parse().unwrap()), kind, "{ip}");
        }
    }

    #[test]
    fn where_the_mesh_has_no_ranges_no_address_tells_whose_it_is() {
        let ranges = Ranges { virtual_ones: None, ..ranges() };
        for ip in ["240.240.7.9", "240.241.0.10", "10.96.0.1", "fd68:6564:646c::1"] {
            assert_eq!(ranges.kind(ip.parse().unwrap()), AddressKind::Outside, "{ip}");
        }
        assert_eq!(ranges.host_gateway(), None);
    }
}
