//! Configurations as a mesh would write them.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use heddle_model::{Protocol, WorkloadId};
use heddle_wire::local::proxy_config::ProxyConfig;

/// The configuration of workload `client-1`'s sidecar with its files in `dir`, without marks: nothing
/// is redirected here.
///
/// # Panics
/// Never: the addresses are fixed.
#[must_use]
pub fn proxy_config(dir: &Path) -> ProxyConfig {
    ProxyConfig {
        mesh: "test".into(),
        workload: WorkloadId("client-1".into()),
        name: "client".into(),
        namespace: "default".into(),
        service: "client".into(),
        version: String::new(),
        labels: BTreeMap::new(),
        ipv4: Ipv4Addr::new(240, 241, 0, 10),
        ipv6: "fd68:6564:646c:1::a".parse().expect("an address"),
        ports: BTreeMap::from([(8080, Protocol::Http)]),
        workers: 1,
        discovery_socket: dir.join("discovery.sock"),
        holder_socket: None,
        state_dir: dir.join("state"),
        mark: 0,
        published: BTreeMap::new(),
        kept: Vec::new(),
        keeper_fd: None,
        memory_limit: None,
        host_ports: Vec::new(),
        ready_fd: None,
        vip_range_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
        vip_range_v6: ("fd68:6564:646c::".parse().expect("an address"), 64),
        host_gateway: (
            Ipv4Addr::new(240, 240, 0, 1),
            "fd68:6564:646c::1".parse().expect("an address"),
        ),
    }
}
