//! What a sidecar is started with: one JSON file, written by the holder, read once.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use heddle_model::{Protocol, WorkloadId};
use serde::{Deserialize, Serialize};

/// Outbound listener (Istio's).
pub const PORT_OUTBOUND: u16 = 15001;
/// Inbound listener.
pub const PORT_INBOUND: u16 = 15006;
/// Merged metrics and probes.
pub const PORT_MERGED_METRICS: u16 = 15020;
/// Health: `GET /healthz/ready`.
pub const PORT_HEALTH: u16 = 15021;
/// DNS, UDP and TCP.
pub const PORT_DNS: u16 = 15053;
/// Prometheus metrics: `GET /stats/prometheus`.
pub const PORT_METRICS: u16 = 15090;
/// Admin, loopback only.
pub const PORT_ADMIN: u16 = 15000;
/// SO_MARK on every socket the sidecar opens: what the redirection rules let through.
pub const ESCAPE_MARK: u32 = 0x539;

/// A sidecar's start-up configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Mesh name.
    pub mesh: String,
    /// Whose sidecar.
    pub workload: WorkloadId,
    /// Workload name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service (short name).
    pub service: String,
    /// Version; may be empty.
    pub version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Own IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Own IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Declared ports.
    pub ports: BTreeMap<u16, Protocol>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Path socket of the discovery server.
    pub discovery_socket: PathBuf,
    /// Path socket of the holder, for sockets on the host's side; `None`: no outside.
    pub holder_socket: Option<PathBuf>,
    /// Folder of the last good set.
    pub state_dir: PathBuf,
    /// Mark on every socket the sidecar opens.
    pub mark: u32,
    /// Inherited listening sockets of the host: descriptor number to workload port.
    pub published: BTreeMap<i32, u16>,
    /// Inherited sockets on which an earlier process of this sidecar served; what is missing is bound.
    #[serde(default)]
    pub kept: Vec<i32>,
    /// Inherited socket to whoever keeps the sockets for the next process: they are sent to it.
    #[serde(default)]
    pub keeper_fd: Option<i32>,
    /// Bytes of anonymous memory the sidecar stays within; `None`: whatever there is.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// Host loopback ports to serve on the workload's 127.0.0.1.
    pub host_ports: Vec<u16>,
    /// Inherited pipe: one byte is written to it once the sidecar is ready.
    pub ready_fd: Option<i32>,
    /// The virtual addresses' ranges, known before the control plane answers: IPv4 with prefix length.
    pub vip_range_v4: (Ipv4Addr, u8),
    /// The same, IPv6.
    pub vip_range_v6: (Ipv6Addr, u8),
    /// `host.heddle.internal`, IPv4 and IPv6.
    pub host_gateway: (Ipv4Addr, Ipv6Addr),
}
