//! What a control plane is started with.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use heddle_compile::TelemetryDefault;
use heddle_model::MeshSettings;

use crate::limits::ADDRESS_INDEX_FIRST;

/// Start-up configuration of one mesh's control plane.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// Mesh name.
    pub mesh: String,
    /// Existing folder for `control.sock`, `discovery.sock` and the member journal.
    pub run_dir: PathBuf,
    /// Folder of the store; made if absent.
    pub state_dir: PathBuf,
    /// Folder of rule files to watch, if any.
    pub config_dir: Option<PathBuf>,
    /// Where addresses come from.
    pub ranges: AddressRanges,
    /// What is told of calls where no rule says that: where spans go, of how many traces, and the access log.
    pub telemetry: Option<TelemetryDefault>,
}

/// The ranges addresses are given from. An index gives the same low bits in IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRanges {
    /// Services' virtual addresses: network and prefix length.
    pub vip_v4: (Ipv4Addr, u8),
    /// The same, IPv6.
    pub vip_v6: (Ipv6Addr, u8),
    /// Workloads' own addresses: network and prefix length.
    pub workload_v4: (Ipv4Addr, u8),
    /// The same, IPv6.
    pub workload_v6: (Ipv6Addr, u8),
}

impl Default for AddressRanges {
    fn default() -> Self {
        Self {
            vip_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            vip_v6: (Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, 0), 64),
            workload_v4: (Ipv4Addr::new(240, 241, 0, 0), 16),
            workload_v6: (Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, 0), 64),
        }
    }
}

impl AddressRanges {
    /// `host.heddle.internal`: the first address of the virtual range.
    #[must_use]
    pub fn host_gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        (v4_at(self.vip_v4.0, 1), v6_at(self.vip_v6.0, 1))
    }

    /// What the proxies of this mesh are told alike.
    pub(crate) fn settings(&self, mesh: String) -> MeshSettings {
        let (host_gateway_v4, host_gateway_v6) = self.host_gateway();
        MeshSettings {
            mesh,
            vip_range_v4: self.vip_v4,
            vip_range_v6: self.vip_v6,
            host_gateway_v4,
            host_gateway_v6,
        }
    }

    /// A service's virtual addresses by index.
    pub(crate) fn vip(&self, index: u32) -> (Ipv4Addr, Ipv6Addr) {
        (v4_at(self.vip_v4.0, index), v6_at(self.vip_v6.0, index))
    }

    /// A workload's addresses by index.
    pub(crate) fn workload(&self, index: u32) -> (Ipv4Addr, Ipv6Addr) {
        (v4_at(self.workload_v4.0, index), v6_at(self.workload_v6.0, index))
    }

    /// The index of a virtual IPv4 address; `None` outside the range.
    pub(crate) fn vip_index(&self, address: Ipv4Addr) -> Option<u32> {
        index_of(self.vip_v4, address)
    }

    /// The index of a workload's IPv4 address; `None` outside the range.
    pub(crate) fn workload_index(&self, address: Ipv4Addr) -> Option<u32> {
        index_of(self.workload_v4, address)
    }

    /// First and last index that may be given to a service.
    pub(crate) fn vip_indices(&self) -> (u32, u32) {
        indices(self.vip_v4.1, self.vip_v6.1)
    }

    /// First and last index that may be given to a workload.
    pub(crate) fn workload_indices(&self) -> (u32, u32) {
        indices(self.workload_v4.1, self.workload_v6.1)
    }
}

/// The host bits of both families, without the broadcast address; empty ranges have last < first.
fn indices(prefix_v4: u8, prefix_v6: u8) -> (u32, u32) {
    let bits_v4 = 32_u32.saturating_sub(u32::from(prefix_v4));
    let bits_v6 = 128_u32.saturating_sub(u32::from(prefix_v6));
    let bits = bits_v4.min(bits_v6).min(24);
    (ADDRESS_INDEX_FIRST, (1_u32 << bits).saturating_sub(2))
}

fn v4_at(network: Ipv4Addr, index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.to_bits() | index)
}

fn v6_at(network: Ipv6Addr, index: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(network.to_bits() | u128::from(index))
}

fn index_of((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> Option<u32> {
    let host_mask = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (address.to_bits() & !host_mask == network.to_bits()).then(|| address.to_bits() & host_mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_the_same_low_bits_in_both_families() {
        let ranges = AddressRanges::default();
        let (v4, v6) = ranges.vip(0x0102);
        assert_eq!(v4, Ipv4Addr::new(240, 240, 1, 2));
        assert_eq!(v6.to_bits() & 0xffff, 0x0102);
        assert_eq!(ranges.vip_index(v4), Some(0x0102));
        assert_eq!(ranges.vip_index(Ipv4Addr::new(240, 241, 1, 2)), None);
        assert_eq!(ranges.vip_indices(), (10, 65534));
        assert_eq!(ranges.host_gateway().0, Ipv4Addr::new(240, 240, 0, 1));
    }
}
