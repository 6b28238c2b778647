//! What this crate's own tests share: a configuration, and folders that are removed again.

pub(crate) mod control;
pub(crate) mod resources;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use heddle_model::{Protocol, WorkloadId};
use heddle_wire::local::proxy_config::ProxyConfig;

/// A sidecar's configuration with its files in `dir`, without marks: nothing is redirected here.
pub(crate) fn config(dir: &Path) -> ProxyConfig {
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

/// A folder of its own, removed when dropped.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heddle-proxy-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for a test");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}
