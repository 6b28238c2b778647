//! The holder's protocol on the path socket `MESH.sock`: frames of a 4-byte big-endian length and
//! a JSON text of at most [`FRAME_MAX`] bytes; file descriptors travel beside the first byte of
//! the frame that names them (SCM_RIGHTS). Who may speak is decided by SO_PEERCRED. A request or
//! answer is its name, or an object with its name as the only key: `"info"`, `{"connect": {…}}`
//! (a tag beside the fields would forbid maps with number keys inside them).
//!
//! A connection that sent [`HolderRequest::Join`] stands for that workload: when it closes, the holder
//! ends the workload's processes, its sidecar and its namespace. A sidecar keeps one connection
//! for [`HolderRequest::Connect`] and [`HolderRequest::Resolver`]; answers carry the request's `id`.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    app_probes::HttpGet,
    control_api::{JoinRequest, JoinedWorkload},
};

/// Largest frame, bytes.
pub const FRAME_MAX: usize = 256 * 1024;

/// What a peer asks of the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderRequest {
    /// What runs here? Answer: [`HolderReply::Info`].
    Info,
    /// Let a workload in. Answers: any number of [`HolderReply::Progress`], then [`HolderReply::Joined`] with the
    /// descriptors `[net]` or `[user, net]`, or [`HolderReply::Refused`].
    Join(Box<JoinSpec>),
    /// Withdraw this connection's endpoint from all proxies (at most 1 s). Answer: [`HolderReply::Done`].
    Withdraw,
    /// End this connection's workload now. Answer: [`HolderReply::Done`] when all is gone.
    Leave,
    /// Open a TCP connection on the host's side. Answer: [`HolderReply::Connected`] with one descriptor, or [`HolderReply::Refused`].
    Connect {
        /// Correlates the answer.
        id: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// Open a connected UDP (or TCP) socket to one of the host's resolvers. Answer as for `Connect`.
    Resolver {
        /// Correlates the answer.
        id: u64,
        /// TCP instead of UDP.
        tcp: bool,
        /// Which of the host's resolvers: 0, 1, …, modulo their number.
        index: usize,
    },
    /// Restart a part after a crash or not; start it if it does not run. For benches and tests.
    Supervise {
        /// `control` or `observe`.
        part: String,
        /// Restart it when it ends?
        restart: bool,
    },
    /// Why [`Self::Shutdown`] will be asked for, in words for whoever is in the mesh. A request of its own, so that a
    /// holder which does not know it can be ended all the same.
    Because {
        /// Who asks.
        reason: String,
    },
    /// End the mesh. Answer: [`HolderReply::Done`] when all is gone.
    Shutdown,
}

/// What the holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderReply {
    /// What runs here.
    Info(Box<Info>),
    /// Something takes longer; one line for the user.
    Progress {
        /// The line.
        text: String,
    },
    /// The workload is in: its namespaces are the frame's descriptors, its sidecar is ready.
    Joined(Box<Joined>),
    /// A host-side socket is the frame's descriptor.
    Connected {
        /// Which request.
        id: u64,
    },
    /// No, and why.
    Refused {
        /// Which request (0 for others than `Connect` and `Resolver`).
        id: u64,
        /// Why; one line for the user.
        reason: String,
        /// `errno` of a failed connect, so that the application sees what it would have seen; 0 if none.
        errno: i32,
    },
    /// Done.
    Done,
    /// The mesh is ending: the last word to everybody but sidecars, whether they asked or not.
    Ended {
        /// Why; one line for the user.
        reason: String,
    },
}

/// A workload to let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSpec {
    /// What the control plane is asked.
    pub request: JoinRequest,
    /// Host addresses whose connections go to a port of the workload.
    pub publish: Vec<Publish>,
    /// Ports of the host's loopback that appear on the workload's 127.0.0.1.
    pub host_ports: Vec<u16>,
    /// Bytes of memory the sidecar stays within.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// A port of the workload that the host is let in to besides, to ask whether the program is ready.
    #[serde(default)]
    pub ready_port: Option<u16>,
    /// Where its program shows metrics of its own.
    #[serde(default)]
    pub app_metrics: Option<HttpGet>,
}

/// `--publish [ADDR:]HOSTPORT[-HOSTPORT]:PORT`; printed in that form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Host address, with the first port to try; port 0 takes a free one.
    pub host: SocketAddr,
    /// The last port to try; the first free one is taken.
    pub host_port_max: u16,
    /// Port of the workload.
    pub port: u16,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        if self.host_port_max != self.host.port() {
            write!(f, "-{}", self.host_port_max)?;
        }
        write!(f, ":{}", self.port)
    }
}

/// What a joined workload needs to start its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Identity, addresses, service.
    pub joined: JoinedWorkload,
    /// Host addresses really bound, in the order of `publish`.
    pub published: Vec<SocketAddr>,
    /// Where the host reaches `ready_port`.
    #[serde(default)]
    pub ready_at: Option<SocketAddr>,
    /// Is a user namespace descriptor passed before the network namespace?
    pub user_namespace: bool,
    /// Folder with `resolv.conf`, `nsswitch.conf` and `hosts` for the command's mount namespace.
    pub etc_dir: String,
}

/// What runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Mesh name.
    pub mesh: String,
    /// Heddle's version.
    pub version: String,
    /// The mesh's run-time folder: `control.sock`, `discovery.sock`, `workloads/`.
    pub run_dir: String,
    /// Address of the dashboard and its JSON API.
    pub dashboard: Option<SocketAddr>,
    /// Where this machine sends spans to be in the dashboard's traces (OTLP over HTTP, and Zipkin's JSON).
    #[serde(default)]
    pub spans: Option<SocketAddr>,
    /// Process ids: holder, control, observe (0 while not running).
    pub pids: Pids,
    /// Workloads that have joined: as many as fit the frame (some 300); the control plane lists all.
    pub workloads: Vec<Joined>,
    /// Parts that had to be started again, the most frequent first; of sidecars some hundred at most.
    #[serde(default)]
    pub restarts: Vec<Restarts>,
}

/// How often a part of the mesh was started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// `control`, `observe` or `sidecar of WORKLOAD`.
    pub part: String,
    /// Times it was started after its first start.
    pub count: u64,
    /// How many of its processes were killed because they did not answer any more.
    pub unanswered: u64,
    /// When the first of its processes ended, Unix time in seconds.
    #[serde(default)]
    pub since: u64,
    /// When the last one did.
    #[serde(default)]
    pub last: u64,
    /// Why the last one did; one line for the user.
    #[serde(default)]
    pub reason: String,
}

/// Process ids of the mesh's parts; 0 while a part is not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pids {
    /// Holder.
    pub holder: u32,
    /// Control plane.
    pub control: u32,
    /// Metrics store and dashboard.
    pub observe: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heddle_model::{
        Addresses, EndpointState, Identity, Locality, Protocol, ServiceName, Workload, WorkloadId,
        registry::WorkloadPort,
    };

    use super::*;

    #[test]
    fn an_answer_with_ports_survives_the_way_to_the_reader() {
        let port = WorkloadPort {
            number: 80,
            name: String::new(),
            protocol: Protocol::Http,
            state: EndpointState::Pending,
        };
        let workload = Workload {
            id: WorkloadId("web-1".to_owned()),
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            identity: Identity::local("default", "web"),
            services: [ServiceName::new("web", "default").unwrap()].into(),
            version: String::new(),
            labels: BTreeMap::new(),
            addresses: Addresses::Both(
                [240, 241, 0, 10].into(),
                [0xfd68, 0, 0, 0, 0, 0, 0, 10].into(),
            ),
            ports: BTreeMap::from([(80, port)]),
            locality: Locality::default(),
        };
        let reply = HolderReply::Joined(Box::new(Joined {
            joined: JoinedWorkload { workload, service: None },
            published: vec![([127, 0, 0, 1], 8080).into()],
            ready_at: None,
            user_namespace: true,
            etc_dir: "/run/heddle/m/workloads/web-1/etc".to_owned(),
        }));
        let text = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<HolderReply>(&text).unwrap(), reply);
        assert_eq!(serde_json::to_string(&HolderRequest::Withdraw).unwrap(), "\"withdraw\"");
    }
}
