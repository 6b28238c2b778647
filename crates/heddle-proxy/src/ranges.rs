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
    pub fn kind(&self, ip: IpAddr) -> AddressKind {
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
}
