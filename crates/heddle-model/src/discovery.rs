//! What the control plane tells a proxy: one resource per destination with all of its rules.
//!
//! These are the nouns; their protobuf form is in `heddle-wire`, their making in `heddle-compile`,
//! and the matchers built from them in `heddle-logic`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Protocol, ServiceName, Workload, WorkloadId};

/// Answer to "who is this IP?". Asked by IP; `NotKnown` is an answer and a subscription too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address asked for.
    pub ip: IpAddr,
    /// Whose it is.
    pub owner: Owner,
}

/// Who owns an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A service's virtual address.
    Service(ServiceName),
    /// A workload's own address.
    Workload(Box<WorkloadInfo>),
    /// Nobody in this mesh.
    NotKnown,
}

/// A workload as a peer sees it: the source of every metric label about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkloadInfo {
    /// Unique id.
    pub id: WorkloadId,
    /// Workload name (`source_workload`).
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service it belongs to (`app`, canonical service).
    pub service: ServiceName,
    /// Version; empty means `unknown` / `latest`.
    pub version: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Declared ports: number to protocol.
    pub ports: BTreeMap<u16, Protocol>,
}

impl From<&Workload> for WorkloadInfo {
    fn from(workload: &Workload) -> Self {
        Self {
            id: workload.id.clone(),
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            service: workload.service.clone(),
            version: workload.version.clone(),
            labels: workload.labels.clone(),
            ports: workload.ports.values().map(|port| (port.number, port.protocol)).collect(),
        }
    }
}

/// A service as seen by one client, with every rule that applies. Replaced whole and atomically.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Which service.
    pub service: ServiceName,
    /// Its virtual addresses.
    pub vips: Vec<IpAddr>,
    /// Its ports by number, with rules.
    pub ports: Vec<DestinationPort>,
    /// Subsets by name with their label selectors, for rules of this or another service that name them.
    pub subsets: BTreeMap<String, BTreeMap<String, String>>,
}

/// One port of a destination.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationPort {
    /// Port number.
    pub number: u16,
    /// Port name; may be empty.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
    /// HTTP rules in order; the first that matches decides. No match: 404 `NR` if the list is not
    /// empty, as in Istio; an empty list goes to the service itself.
    pub http: Vec<HttpRule>,
    /// Where TCP connections go; empty means the service itself.
    pub tcp: Vec<WeightedTarget>,
}

/// `kind/namespace/name#rule`: where a decision comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Provenance(pub String);

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// Where it comes from.
    pub provenance: Provenance,
    /// Alternatives; an empty list matches everything.
    pub matches: Vec<HttpMatch>,
    /// Fault decided once per request, before the endpoint is picked.
    pub fault: Option<Fault>,
    /// Where matching requests go, by weight. Never empty.
    pub targets: Vec<WeightedTarget>,
}

/// All conditions must hold (VirtualService `HTTPMatchRequest`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// Condition on the request path without its query (Istio `uri`).
    pub uri: Option<StringMatch>,
    /// Compare `uri` exact and prefix without case.
    pub ignore_uri_case: bool,
    /// Condition on the method.
    pub method: Option<StringMatch>,
    /// Condition on Host, without case; the only one that reads it. A value without a port also
    /// meets a Host with one.
    pub authority: Option<StringMatch>,
    /// Condition on the scheme.
    pub scheme: Option<StringMatch>,
    /// Headers that must match; names in lower case. `:authority`, `:method`, `:path` and `:scheme`
    /// mean the parts of the request line.
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Headers that must not match; for a value condition an absent header counts as empty, as in
    /// Istio.
    pub without_headers: BTreeMap<String, HeaderMatch>,
    /// Query parameters that must match: the first of that name, not percent-decoded. Presence is
    /// `Prefix("")`.
    pub query_params: BTreeMap<String, StringMatch>,
}

/// Condition on a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Present with any value (`{}` in Istio).
    Present,
    /// Present with a matching value.
    Value(StringMatch),
}

/// Istio's `StringMatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// A plain string prefix (`/v2` matches `/v2example`).
    Prefix(String),
    /// RE2 syntax, matched against the whole value; at most 1024 bytes.
    Regex(String),
}

/// Where traffic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedTarget {
    /// Service.
    pub service: ServiceName,
    /// Subset name with its label selector; `None` means all endpoints.
    pub subset: Option<Subset>,
    /// Port of that service.
    pub port: u16,
    /// Relative weight; the sum over a rule is not 0.
    pub weight: u32,
    /// Set if the target names something absent: that share is refused with 503 `NC` and this text.
    pub dangling: Option<String>,
}

/// A subset with its selector, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subset {
    /// Name from the DestinationRule.
    pub name: String,
    /// Labels an endpoint must carry, all of them.
    pub labels: BTreeMap<String, String>,
}

/// Fault injection (VirtualService `HTTPFaultInjection`). Absent percentage is 0 %, as in Istio.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Wait before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer without forwarding.
    pub abort: Option<FaultAbort>,
}

/// A fixed delay for a share of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// Share in percent, 0 to 100.
    pub percent: f64,
}

/// An abort for a share of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultAbort {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Share in percent, 0 to 100.
    pub percent: f64,
}

/// A service's endpoints. Changes often and bypasses debouncing. An empty list is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Which service.
    pub service: ServiceName,
    /// In order of workload id.
    pub endpoints: Vec<Endpoint>,
}

/// One workload behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is; `workload.ports` lists what it declared.
    pub workload: WorkloadInfo,
    /// Where it is.
    pub ipv4: Ipv4Addr,
    /// Where it is, IPv6.
    pub ipv6: Ipv6Addr,
    /// Readiness per port number.
    pub ports: BTreeMap<u16, EndpointState>,
    /// Load-balancing weight; 1 by default.
    pub weight: u32,
}

/// An endpoint's state on one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Known, not yet in LISTEN: never picked.
    Pending,
    /// Takes new requests.
    Ready,
    /// Takes no new requests; those in flight end.
    Terminating,
}

/// A workload's own ports and what applies to calls it receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Who it is.
    pub workload: WorkloadInfo,
    /// Declared ports.
    pub ports: Vec<InboundPort>,
}

/// One declared port of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// Number.
    pub number: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// Services owning the port, sorted by name: `destination_service` is the one Host names, else the first.
    pub services: Vec<ServiceName>,
}

/// Answer to a hostname asked from a namespace; resource name `NAMESPACE/HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAnswer {
    /// Host as asked: lower case, no trailing dot.
    pub host: String,
    /// Namespace it was asked from.
    pub namespace: String,
    /// The service it names with its virtual addresses, if it names one.
    pub service: Option<(ServiceName, Ipv4Addr, Ipv6Addr)>,
}

/// What is the same for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Mesh name.
    pub mesh: String,
    /// Range virtual IPv4 addresses come from: address and prefix length.
    pub vip_range_v4: (Ipv4Addr, u8),
    /// Range virtual IPv6 addresses come from.
    pub vip_range_v6: (Ipv6Addr, u8),
    /// The virtual address of `host.heddle.internal`: the host's own loopback.
    pub host_gateway_v4: Ipv4Addr,
    /// The same, IPv6.
    pub host_gateway_v6: Ipv6Addr,
}
