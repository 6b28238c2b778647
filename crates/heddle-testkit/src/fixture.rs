//! Configurations as a mesh would write them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use heddle_model::{Addresses, Identity, Protocol, WorkloadId};
use heddle_wire::local::proxy_config::{
    Local, Pod, ProxyConfig, SecureControl, Surroundings, VirtualRanges,
};

/// The configuration of workload `client-1`'s sidecar with its files in `dir`, without marks: nothing
/// is redirected here.
#[must_use]
pub fn proxy_config(dir: &Path) -> ProxyConfig {
    proxy_config_in(dir, local(dir))
}

/// The same in the given surroundings.
#[must_use]
pub fn proxy_config_in(dir: &Path, local: Local) -> ProxyConfig {
    ProxyConfig {
        mesh: "test".into(),
        workload: WorkloadId("client-1".into()),
        name: "client".into(),
        namespace: "default".into(),
        service: "client".into(),
        version: String::new(),
        labels: BTreeMap::new(),
        addresses: Addresses::Both(
            Ipv4Addr::new(240, 241, 0, 10),
            Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, 10),
        ),
        ports: BTreeMap::from([(8080, Protocol::Http)]),
        workers: 1,
        state_dir: dir.join("state"),
        memory_limit: None,
        app_probes: BTreeMap::new(),
        app_metrics: None,
        ready_fd: None,
        surroundings: Surroundings::Local(local),
    }
}

/// A mesh's network namespace in which nothing is redirected and nothing leads outside.
#[must_use]
pub fn local(dir: &Path) -> Local {
    Local {
        discovery_socket: dir.join("discovery.sock"),
        holder_socket: None,
        mark: None,
        published: BTreeMap::new(),
        kept: Vec::new(),
        keeper_fd: None,
        host_ports: Vec::new(),
        admin_socket: None,
        ranges: VirtualRanges {
            v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            v6: (Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, 0), 64),
            host_gateway: (
                Ipv4Addr::new(240, 240, 0, 1),
                Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, 1),
            ),
        },
    }
}

/// The configuration of pod `web-1`'s sidecar, in namespace `shop`, with its files in `dir`.
#[must_use]
pub fn pod_config(dir: &Path, control: SocketAddr) -> ProxyConfig {
    let pod = Pod {
        control: SecureControl {
            host: "localhost".into(),
            port: control.port(),
            roots: dir.join("root-cert.pem"),
            token: dir.join("token"),
        },
        resolv_conf: dir.join("resolv.conf"),
        identity: Identity {
            trust_domain: "cluster.local".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
        },
        uid: String::new(),
        node: String::new(),
        native: false,
        observer: None,
        drain_seconds: 5,
        keeps_callers: false,
    };
    ProxyConfig {
        workload: WorkloadId::of_pod("shop", "web-1"),
        namespace: "shop".into(),
        surroundings: Surroundings::Pod(pod),
        ..proxy_config(dir)
    }
}
