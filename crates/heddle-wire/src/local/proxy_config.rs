//! What a sidecar is started with: one JSON file, written by the holder, read once; in a pod the environment
//! ([`super::pod_environment`]).

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use heddle_model::{Addresses, Identity, Protocol, WorkloadId};
use serde::{Deserialize, Serialize};

use super::{
    app_probes::{AppProbes, HttpGet},
    last_scrape::observer_socket,
};

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
/// What programs ask for names: the sidecar takes it on every address.
pub const PORT_RESOLVER: u16 = 53;

/// Why no program of a workload can be reached at this port: the sidecar captures it, or listens
/// there itself. `None`: it can be.
#[must_use]
pub fn taken_port(number: u16) -> Option<&'static str> {
    Some(match number {
        PORT_RESOLVER => {
            "DNS, which every sidecar answers for its program: no call would get there"
        }
        PORT_ADMIN => "the sidecar's admin port",
        PORT_OUTBOUND => "the sidecar's outbound listener",
        PORT_INBOUND => "the sidecar's inbound listener",
        PORT_MERGED_METRICS => "the sidecar's merged metrics",
        PORT_HEALTH => "the sidecar's health check",
        PORT_DNS => "the sidecar's DNS",
        PORT_METRICS => "the sidecar's metrics",
        _ if (PORT_ADMIN..=PORT_METRICS).contains(&number) => "kept for the sidecar",
        _ => return None,
    })
}

/// The folder of a workload of one machine's mesh, in the mesh's run-time folder.
#[must_use]
pub fn workload_dir(run_dir: &Path, workload: &WorkloadId) -> PathBuf {
    run_dir.join("workloads").join(&workload.0)
}

/// The folder of what ended sidecars of one machine's mesh leave for `heddle why`.
#[must_use]
pub fn left_refusals(run_dir: &Path) -> PathBuf {
    run_dir.join("refusals")
}

/// Where the sidecar of that workload serves its admin page.
#[must_use]
pub fn admin_socket(run_dir: &Path, workload: &WorkloadId) -> PathBuf {
    workload_dir(run_dir, workload).join("admin.sock")
}

/// What others may ask of a sidecar: metrics and health. The rest of the ports from [`PORT_ADMIN`] to
/// [`PORT_METRICS`] is nobody's but the workload's own.
pub const PORTS_FOR_ALL: [u16; 3] = [PORT_MERGED_METRICS, PORT_HEALTH, PORT_METRICS];
/// SO_MARK on every socket the sidecar opens: what the redirection rules let through.
pub const ESCAPE_MARK: u32 = 0x539;

/// A sidecar's start-up configuration: what every sidecar has, and what its surroundings are.
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
    /// Own addresses.
    pub addresses: Addresses,
    /// Declared ports.
    pub ports: BTreeMap<u16, Protocol>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Folder of the last good set.
    pub state_dir: PathBuf,
    /// Bytes of anonymous memory the sidecar stays within; `None`: whatever there is.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// The application's probes that the sidecar asks for the kubelet.
    #[serde(default)]
    pub app_probes: AppProbes,
    /// Where the application shows its own metrics, if they are to be shown behind the sidecar's.
    #[serde(default)]
    pub app_metrics: Option<HttpGet>,
    /// Inherited pipe: one byte is written to it once the sidecar is ready.
    pub ready_fd: Option<i32>,
    /// What is around it.
    pub surroundings: Surroundings,
}

/// Where a sidecar runs. Nothing asks which of them it is: [`ProxyConfig`]'s methods answer what
/// differs, so that another one is another variant and its answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Surroundings {
    /// A network namespace of one machine, which has no way out of its own.
    Local(Local),
    /// A pod of Kubernetes: its network leads everywhere by itself, and its sidecar is told from the application by
    /// the user it runs as.
    Pod(Pod),
}

/// What a sidecar in a pod is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// How the control plane is reached.
    pub control: SecureControl,
    /// The pod's resolver file: whom to ask for names that are not the mesh's.
    pub resolv_conf: PathBuf,
    /// The service account that it runs as, as others know it.
    pub identity: Identity,
    /// Uid of the pod.
    pub uid: String,
    /// Node that it runs on.
    pub node: String,
    /// The observer, which is asked for one more scrape at the end: name or address, and port.
    #[serde(default)]
    pub observer: Option<(String, u16)>,
    /// Does it end after the application? Else both are told to end at once.
    pub native: bool,
    /// How long after SIGTERM inbound connections are accepted at least, seconds: until those who call have heard
    /// that the pod is going.
    pub drain_seconds: u64,
    /// Does the application see its callers' addresses (Istio's TPROXY mode), and not the sidecar's? The redirection
    /// was written for it then, and the sidecar has the capability that it takes.
    #[serde(default)]
    pub keeps_callers: bool,
}

/// A control plane that is reached over TLS, and what it is asked for a certificate with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureControl {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// File of those who are believed, PEM; read for each connection.
    pub roots: PathBuf,
    /// File of the token that says which pod this is; read for each certificate.
    pub token: PathBuf,
}

/// What a sidecar of one machine's mesh is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// Path socket of the discovery server.
    pub discovery_socket: PathBuf,
    /// Path socket of the holder, for sockets on the host's side; `None`: no outside.
    pub holder_socket: Option<PathBuf>,
    /// Mark on every socket the sidecar opens; `None`: nothing is redirected.
    pub mark: Option<u32>,
    /// Inherited listening sockets of the host: descriptor number to workload port.
    pub published: BTreeMap<i32, u16>,
    /// Inherited sockets on which an earlier process of this sidecar served; what is missing is bound.
    #[serde(default)]
    pub kept: Vec<i32>,
    /// Inherited socket to whoever keeps the sockets for the next process: they are sent to it.
    #[serde(default)]
    pub keeper_fd: Option<i32>,
    /// Host loopback ports to serve on the workload's 127.0.0.1.
    pub host_ports: Vec<u16>,
    /// Path socket at which the admin page is served to the user of the mesh, who is in no workload's network;
    /// `None`: nowhere but on the loopback.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// The ranges of the mesh's addresses, known before the control plane answers.
    pub ranges: VirtualRanges,
}

/// The ranges services' virtual addresses come from, and the address that stands for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualRanges {
    /// IPv4 network with prefix length.
    pub v4: (Ipv4Addr, u8),
    /// The same, IPv6.
    pub v6: (Ipv6Addr, u8),
    /// `host.heddle.internal`, IPv4 and IPv6.
    pub host_gateway: (Ipv4Addr, Ipv6Addr),
}

/// Where the control plane is, and how it knows who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPlane<'a> {
    /// At a path socket: the kernel tells it the peer.
    PathSocket(&'a Path),
    /// Over TLS: a certificate tells it the peer.
    Tls(&'a SecureControl),
}

/// Who keeps what a sidecar measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observer<'a> {
    /// A process of this machine, on this path socket.
    Socket(PathBuf),
    /// A pod, behind this name or address.
    At {
        /// Which.
        host: &'a str,
        /// Its port for it.
        port: u16,
    },
    /// Nobody that it knows of.
    None,
}

/// How a connection to an address outside of the mesh is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside<'a> {
    /// The holder at this path socket makes it on the host's side.
    ThroughHolder(&'a Path),
    /// From here, like any other; names are asked for as this file says.
    Direct {
        /// The resolver file.
        resolv_conf: &'a Path,
    },
    /// Not at all.
    None,
}

/// Sockets that the sidecar finds open when it starts, by descriptor number.
#[derive(Debug, Clone, Copy)]
pub struct InheritedSockets<'a> {
    /// Listening on the host's side for a port of the workload.
    pub published: &'a BTreeMap<i32, u16>,
    /// On which an earlier process of this sidecar served.
    pub kept: &'a [i32],
    /// To whoever keeps this process's sockets for the next one.
    pub keeper: Option<i32>,
}

/// What holds when a sidecar is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The workload's endpoint was withdrawn before, and the application is ended by whoever ends the sidecar.
    Withdrawn,
    /// The application has gone already: nobody is left to serve.
    AfterApplication,
    /// Others hear of it at the same time, and the application may still run.
    WithApplication {
        /// Inbound connections are accepted for so long at least.
        accepting: Duration,
    },
}

/// Is this port the sidecar's, and not for others to call?
#[must_use]
pub fn is_private_port(port: u16) -> bool {
    (PORT_ADMIN..=PORT_METRICS).contains(&port) && !PORTS_FOR_ALL.contains(&port)
}

impl ProxyConfig {
    /// The mark that lets the sidecar's own sockets past the redirection; `None` where no mark is
    /// needed: nothing is redirected, or what the sidecar's user opens passes anyway.
    #[must_use]
    pub fn escape_mark(&self) -> Option<u32> {
        match &self.surroundings {
            Surroundings::Local(local) => local.mark,
            Surroundings::Pod(_) => None,
        }
    }

    /// Is the workload's traffic redirected to this sidecar?
    #[must_use]
    pub fn is_redirected(&self) -> bool {
        match &self.surroundings {
            Surroundings::Local(local) => local.mark.is_some(),
            Surroundings::Pod(_) => true,
        }
    }

    /// Does the application see its callers' addresses?
    #[must_use]
    pub fn keeps_callers(&self) -> bool {
        match &self.surroundings {
            Surroundings::Local(_) => false,
            Surroundings::Pod(pod) => pod.keeps_callers,
        }
    }

    /// Can this process open a connection as the workload would, and so see that it is captured? Where all it opens
    /// escapes, whoever wrote the rules has seen to that.
    #[must_use]
    pub fn proves_capture(&self) -> bool {
        self.escape_mark().is_some()
    }

    /// Who the workload is to others.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match &self.surroundings {
            Surroundings::Local(_) => Identity::local(&self.namespace, &self.service),
            Surroundings::Pod(pod) => pod.identity.clone(),
        }
    }

    /// Where the rules come from.
    #[must_use]
    pub fn control_plane(&self) -> ControlPlane<'_> {
        match &self.surroundings {
            Surroundings::Local(local) => ControlPlane::PathSocket(&local.discovery_socket),
            Surroundings::Pod(pod) => ControlPlane::Tls(&pod.control),
        }
    }

    /// Does the control plane learn from this sidecar which of the workload's ports are served? In a cluster its
    /// probes tell that.
    #[must_use]
    pub fn reports_listening(&self) -> bool {
        matches!(self.surroundings, Surroundings::Local(_))
    }

    /// How the outside is reached.
    #[must_use]
    pub fn outside(&self) -> Outside<'_> {
        match &self.surroundings {
            Surroundings::Local(local) => {
                local.holder_socket.as_deref().map_or(Outside::None, Outside::ThroughHolder)
            }
            Surroundings::Pod(pod) => Outside::Direct { resolv_conf: &pod.resolv_conf },
        }
    }

    /// Do the resolvers outside know the names of the mesh too? Then they are asked whatever is not known here.
    #[must_use]
    pub fn is_named_outside(&self) -> bool {
        matches!(self.surroundings, Surroundings::Pod(_))
    }

    /// What was handed down to this process.
    #[must_use]
    pub fn inherited(&self) -> InheritedSockets<'_> {
        static NONE: BTreeMap<i32, u16> = BTreeMap::new();
        match &self.surroundings {
            Surroundings::Local(Local { published, kept, keeper_fd, .. }) => {
                InheritedSockets { published, kept, keeper: *keeper_fd }
            }
            Surroundings::Pod(_) => InheritedSockets { published: &NONE, kept: &[], keeper: None },
        }
    }

    /// The host's loopback ports that are served on the workload's 127.0.0.1.
    #[must_use]
    pub fn host_ports(&self) -> &[u16] {
        match &self.surroundings {
            Surroundings::Local(local) => &local.host_ports,
            Surroundings::Pod(_) => &[],
        }
    }

    /// Who keeps what this sidecar measures.
    #[must_use]
    pub fn observer(&self) -> Observer<'_> {
        match &self.surroundings {
            Surroundings::Local(_) => self
                .run_dir()
                .map_or(Observer::None, |run_dir| Observer::Socket(observer_socket(run_dir))),
            Surroundings::Pod(pod) => match &pod.observer {
                Some((host, port)) => Observer::At { host, port: *port },
                None => Observer::None,
            },
        }
    }

    /// The mesh's run-time folder, where it is of one machine.
    fn run_dir(&self) -> Option<&Path> {
        // The socket is in the workload's folder, which is below it.
        self.admin_socket()?.ancestors().nth(3)
    }

    /// Where this sidecar leaves what it refused lately, when it ends.
    #[must_use]
    pub fn left_refusals(&self) -> Option<PathBuf> {
        self.run_dir().map(left_refusals)
    }

    /// The path socket at which the admin page is served too. In a cluster a port-forward leads to the loopback.
    #[must_use]
    pub fn admin_socket(&self) -> Option<&Path> {
        match &self.surroundings {
            Surroundings::Local(local) => local.admin_socket.as_deref(),
            Surroundings::Pod(_) => None,
        }
    }

    /// The mesh's address ranges; `None` where services have the addresses that the cluster gives them.
    #[must_use]
    pub fn virtual_ranges(&self) -> Option<VirtualRanges> {
        match &self.surroundings {
            Surroundings::Local(local) => Some(local.ranges),
            Surroundings::Pod(_) => None,
        }
    }

    /// How the sidecar ends.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match &self.surroundings {
            Surroundings::Local(_) => Ending::Withdrawn,
            Surroundings::Pod(pod) if pod.native => Ending::AfterApplication,
            Surroundings::Pod(pod) => {
                Ending::WithApplication { accepting: Duration::from_secs(pod.drain_seconds) }
            }
        }
    }
}
