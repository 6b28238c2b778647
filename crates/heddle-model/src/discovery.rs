//! What the control plane tells a proxy: one resource per destination with all of its rules.
//!
//! These are the nouns with their wire form ([`crate::wire`]): a field's number is for ever. They are
//! made in `heddle-compile`, and matchers are built from them in `heddle-logic`.

mod balancing;
mod check;
mod fault;
mod parts;
mod policy;
mod telemetry;
mod tls;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

pub use self::{
    fault::{
        AbortWith, Fault, FaultAbort, FaultDelay, GRPC_STATUSES, Injection, PortFault, TcpFault,
        http_of_grpc,
    },
    parts::{ClusterKey, HeaderMatch, HttpMatch, Provenance, StringMatch, Subset, Target},
    telemetry::{
        AccessLog, Collector, CustomTag, LogLayout, LogSink, Metric, MetricChange, OtlpHttpSink,
        SentField, SideTelemetry, SpanSink, TagChange, TagSource, Tracing, WorkloadTelemetry,
        ZipkinSink,
    },
    tls::ClientTls,
    traffic::{
        Answer, CorsPolicy, DirectResponse, HeaderOperations, HeaderRules, Mirror, MirrorCompare,
        PathRewrite, Redirect, RedirectPath, RegexRewrite, Retries, Rewrite, Traffic,
    },
};
use crate::{
    Addresses, Identity, Locality, Protocol, ServiceName, Workload, WorkloadId, registry::first_of,
    wire::closed,
};

pub use self::{
    balancing::{
        Distribute, HashCookie, HashKey, HashPolicy, HashTable, LoadBalancing, LocalityRules,
        Method, RING_SIZE, RING_SIZE_MAX, RetryBudgetRule, TABLE_SIZE_END, Warmup, ZONES_ENDPOINTS,
        is_cookie_part, is_prime,
    },
    policy::{
        ConnectionPool, FailurePercentage, Http2Keepalive, OutlierDetection, SuccessRate,
        TcpKeepalive,
    },
};
pub use crate::registry::{EndpointPort, OutsideAddress, Resolution};

/// Answer to "who is this IP?". Asked by IP; `NotKnown` is an answer and a subscription too.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Address {
    /// The address asked for.
    #[n(1)]
    pub ip: IpAddr,
    /// Whose it is.
    #[n(2)]
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

closed!(Owner { 0 => NotKnown, 1 => Service(service), 2 => Workload(workload) });

/// A workload as a peer sees it: the source of every metric label about it.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cbor(map)]
pub struct WorkloadInfo {
    /// Unique id.
    #[n(1)]
    pub id: WorkloadId,
    /// Workload name (`source_workload`).
    #[n(2)]
    pub name: String,
    /// Namespace.
    #[n(3)]
    pub namespace: String,
    /// Who it is to others.
    #[n(8)]
    pub identity: Identity,
    /// Services it belongs to; the first by name stands for it where only one can be told.
    #[cbor(n(4), default)]
    pub services: BTreeSet<ServiceName>,
    /// Version; empty means `unknown` / `latest`.
    #[cbor(n(5), default)]
    pub version: String,
    /// All labels.
    #[cbor(n(6), default)]
    pub labels: BTreeMap<String, String>,
    /// Declared ports: number to protocol.
    #[cbor(n(7), default)]
    pub ports: BTreeMap<u16, Protocol>,
}

/// Labels that name the service a workload is part of, the first that is there.
const CANONICAL_NAME: [&str; 3] =
    ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// The same for its revision.
const CANONICAL_REVISION: [&str; 3] =
    ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];

impl WorkloadInfo {
    /// The service that stands for it where only one can be told: the one that its label `app` names,
    /// else the first by name.
    #[must_use]
    pub fn first_service(&self) -> Option<&ServiceName> {
        first_of(&self.services, &self.namespace, &self.labels)
    }

    /// What it is called where a service is meant, as Istio derives it: by its labels, else its service's
    /// name, or its own.
    #[must_use]
    pub fn canonical_name(&self) -> &str {
        let said = CANONICAL_NAME.iter().find_map(|label| self.labels.get(*label));
        let service = || self.first_service().map_or(&self.name, |service| &service.name);
        said.filter(|name| !name.is_empty()).unwrap_or_else(service)
    }

    /// Its revision, likewise; `latest` where nothing says one.
    #[must_use]
    pub fn canonical_revision(&self) -> &str {
        let said = CANONICAL_REVISION.iter().find_map(|label| self.labels.get(*label));
        let said = said.unwrap_or(&self.version);
        if said.is_empty() { "latest" } else { said }
    }
}

impl From<&Workload> for WorkloadInfo {
    fn from(workload: &Workload) -> Self {
        Self {
            id: workload.id.clone(),
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            identity: workload.identity.clone(),
            services: workload.services.clone(),
            version: workload.version.clone(),
            labels: workload.labels.clone(),
            ports: workload.ports.values().map(|port| (port.number, port.protocol)).collect(),
        }
    }
}

/// A service as seen by one client, with every rule that applies. Replaced whole and atomically.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Destination {
    /// Which service.
    #[n(1)]
    pub service: ServiceName,
    /// Its virtual addresses; none if it is headless.
    #[cbor(n(2), default)]
    pub vips: Vec<IpAddr>,
    /// Its ports by number, with rules.
    #[cbor(n(3), default)]
    pub ports: Vec<DestinationPort>,
    /// Subsets by name with their label selectors, for rules of this or another service that name them.
    #[cbor(n(4), default)]
    pub subsets: BTreeMap<String, BTreeMap<String, String>>,
    /// What DestinationRules ask of the clusters its rules can pick; those without are left out.
    #[cbor(n(20), default)]
    pub policies: Vec<ClusterPolicy>,
    /// Calls of it are refused, by this Sidecar.
    #[n(40)]
    pub refused: Option<Provenance>,
    /// Of a host that is no service and that rules name all the same: what holds on every port that is not among
    /// `ports`; its number is [`ANY_PORT`]. Requests that name such a host at an address that nobody knows meet
    /// its rules, and where there are none go where they asked.
    #[n(95)]
    pub others: Option<Box<DestinationPort>>,
}

/// Stands for every port that is not named.
pub const ANY_PORT: u16 = 0;

impl Destination {
    /// Every service whose endpoints its rules can pick: its own, if it is one, and those they name.
    #[must_use]
    pub fn backends(&self) -> BTreeSet<ServiceName> {
        let named = self.every_port().flat_map(DestinationPort::clusters);
        let own = self.others.is_none().then(|| self.service.clone());
        named.map(|key| key.service.clone()).chain(own).collect()
    }

    /// Its ports, and what holds on all others.
    pub fn every_port(&self) -> impl Iterator<Item = &DestinationPort> {
        self.ports.iter().chain(self.others.as_deref())
    }
}

impl HttpRule {
    /// Where matching requests go; nothing where they go nowhere.
    #[must_use]
    pub fn targets(&self) -> &[WeightedTarget] {
        match &self.action {
            RuleAction::Forward(targets) => targets,
            RuleAction::Refuse(_) => &[],
        }
    }
}

/// One port of a destination.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct DestinationPort {
    /// Port number.
    #[n(1)]
    pub number: u16,
    /// Port name; may be empty.
    #[cbor(n(2), default)]
    pub name: String,
    /// Declared protocol.
    #[cbor(n(3), default)]
    pub protocol: Protocol,
    /// HTTP rules in order; the first that matches decides. No match: 404 `NR` if the list is not
    /// empty, as in Istio; an empty list goes to the service itself.
    #[cbor(n(4), default)]
    pub http: Vec<HttpRule>,
    /// Where TCP connections go; empty means the service itself.
    #[cbor(n(5), default)]
    pub tcp: Vec<WeightedTarget>,
    /// Where connections of TLS go by the name they ask for; the closest name decides, and of equals the
    /// first. One that meets none goes where TCP connections go.
    #[cbor(n(60), default)]
    pub sni: Vec<SniRule>,
    /// Faults of a kind of their own that the caller's sidecar injects, in order: the first that is hit wins.
    #[cbor(n(80), default)]
    pub faults: Vec<PortFault>,
}

impl DestinationPort {
    /// Every cluster that its rules name, mirrors among them.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterKey> {
        let http = self.http.iter().flat_map(HttpRule::targets).map(|target| &target.to);
        let mirrors = self.http.iter().flat_map(|rule| &rule.traffic.mirrors);
        let tcp = self.tcp.iter().map(|target| &target.to);
        let sni = self.sni.iter().flat_map(|rule| &rule.targets).map(|target| &target.to);
        let all = http.chain(mirrors.map(|mirror| &mirror.to)).chain(tcp).chain(sni);
        all.filter_map(|to| match to {
            Target::Cluster(key) => Some(key),
            Target::Dangling(_) => None,
        })
    }
}

/// Where connections of TLS go by the name in their ClientHello (RFC 6066 §3): a VirtualService's `tls[]`, or
/// a TLSRoute.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct SniRule {
    /// Where it comes from.
    #[cbor(n(1), default)]
    pub provenance: Provenance,
    /// Names in lower case: a name, or `*` and what a name must end with. `*` alone, like none at all, is met
    /// by every connection of TLS, also by one that names nobody.
    #[cbor(n(2), default)]
    pub names: Vec<String>,
    /// Where connections that match go, by weight. Never empty.
    #[cbor(n(3), default)]
    pub targets: Vec<WeightedTarget>,
}

/// One HTTP rule.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct HttpRule {
    /// Where it comes from.
    #[cbor(n(1), default)]
    pub provenance: Provenance,
    /// Alternatives; an empty list matches everything.
    #[cbor(n(2), default, decode_with = "crate::wire::conditions")]
    pub matches: Vec<HttpMatch>,
    /// Fault decided once per request, before the endpoint is picked.
    #[n(3)]
    pub fault: Option<Fault>,
    /// What becomes of a request that matches.
    #[n(4)]
    pub action: RuleAction,
    /// What else happens to it.
    #[cbor(n(5), default)]
    pub traffic: Traffic,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAction {
    /// It goes to one of these, by weight. Never empty.
    Forward(Vec<WeightedTarget>),
    /// It is refused with this text: what the rule asks for is not carried out.
    Refuse(String),
}

closed!(RuleAction { 1 => Forward(targets), 2 => Refuse(reason) });

/// Something with its share of the traffic.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Weighted<T> {
    /// Relative weight; the sum over a rule is not 0.
    #[cbor(n(1), default)]
    pub weight: u32,
    /// Where that share goes.
    #[n(2)]
    pub to: T,
    /// Fields of its requests and responses, before those of the rule. HTTP only.
    #[n(3)]
    pub headers: Option<Box<HeaderRules>>,
}

/// A share of the traffic, and where it goes.
pub type WeightedTarget = Weighted<Target>;

/// The traffic policy of one cluster. A cluster without one has neither limits nor ejections.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct ClusterPolicy {
    /// Which endpoints.
    #[n(1)]
    pub cluster: ClusterKey,
    /// The DestinationRule it comes from.
    #[cbor(n(2), default)]
    pub provenance: Provenance,
    /// When an endpoint is taken out; never where absent.
    #[n(3)]
    pub outlier: Option<OutlierDetection>,
    /// How much may be under way; any number where absent.
    #[n(4)]
    pub pool: Option<ConnectionPool>,
    /// The TLS that is begun towards them; none where absent.
    #[n(60)]
    pub tls: Option<ClientTls>,
    /// How an endpoint is chosen.
    #[n(70)]
    pub balancing: Option<LoadBalancing>,
    /// How many retries may be under way; a sidecar's own budget where absent.
    #[n(71)]
    pub retry_budget: Option<RetryBudgetRule>,
}

impl ClusterPolicy {
    /// Does it say anything that is counted, or chosen by, per endpoint? TLS alone is neither.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        let counts = self.outlier.is_some() || self.pool.is_some();
        counts || self.balancing.is_some() || self.retry_budget.is_some()
    }
}

/// A service's endpoints. Changes often and bypasses debouncing. An empty list is an answer.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Endpoints {
    /// Which service.
    #[n(1)]
    pub service: ServiceName,
    /// In order of workload id.
    #[cbor(n(2), default)]
    pub endpoints: Vec<Endpoint>,
    /// Those that are no workloads of the mesh, in the order of their entry.
    #[cbor(n(40), default)]
    pub outside: Vec<OutsideEndpoint>,
    /// How those are found.
    #[cbor(n(41), default)]
    pub resolution: Resolution,
    /// Where there are none and each call goes to the host that it names: for each port of the service that of
    /// the host. Who does not know this lets calls go to the address that they ask for.
    #[cbor(n(95), default)]
    pub by_name: BTreeMap<u16, u16>,
    /// Of `endpoints` a client is led to those of its own node only, if it knows its node.
    #[cbor(n(115), default)]
    pub node_local: bool,
}

impl Endpoints {
    /// Those of a service of the mesh's own.
    #[must_use]
    pub fn inside(service: ServiceName, endpoints: Vec<Endpoint>) -> Self {
        let (outside, resolution) = (Vec::new(), Resolution::default());
        let by_name = BTreeMap::new();
        Self { service, endpoints, outside, resolution, by_name, node_local: false }
    }
}

/// One workload behind a service.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct Endpoint {
    /// Who it is; `workload.ports` lists what it declared.
    #[n(1)]
    pub workload: WorkloadInfo,
    /// Where it is.
    #[n(2)]
    pub addresses: Addresses,
    /// What it has for each port of the service. One that is missing leads to nothing here.
    #[cbor(n(3), default)]
    pub ports: BTreeMap<u16, EndpointPort>,
    /// Load-balancing weight; 1 by default.
    #[cbor(n(4), default)]
    pub weight: u32,
    /// Where it runs.
    #[cbor(n(5), default)]
    pub locality: Locality,
}

/// One endpoint outside the mesh.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct OutsideEndpoint {
    /// Who it is: its id is unique among the endpoints of its service, and of `ports` those it serves.
    #[n(1)]
    pub workload: WorkloadInfo,
    /// Is that a workload somebody described (a WorkloadEntry)? Else nothing is known of it but where it
    /// is, and metrics call it `unknown`.
    #[cbor(n(2), default)]
    pub described: bool,
    /// Where it is.
    #[n(3)]
    pub at: OutsideAddress,
    /// Its port for each port of the service.
    #[cbor(n(4), default)]
    pub ports: BTreeMap<u16, u16>,
    /// Load-balancing weight; 0 counts as 1.
    #[cbor(n(5), default)]
    pub weight: u32,
    /// Where it runs.
    #[cbor(n(6), default)]
    pub locality: Locality,
}

/// A workload's own ports, and what applies to calls it receives and to those it makes to the outside.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct Inbound {
    /// Who it is.
    #[n(1)]
    pub workload: WorkloadInfo,
    /// Declared ports.
    #[cbor(n(2), default)]
    pub ports: Vec<InboundPort>,
    /// What holds for its calls of what no service of the mesh is.
    #[cbor(n(40), default)]
    pub outbound: OutboundPolicy,
    /// Where it runs: what its sidecar prefers endpoints by.
    #[cbor(n(70), default)]
    pub locality: Box<Locality>,
    /// What its sidecar tells about its calls besides metrics, and what of those it does not.
    #[n(145)]
    pub telemetry: Option<Box<WorkloadTelemetry>>,
    /// How many workloads of its service run where, itself among them, by `region/zone/subzone`. Told where
    /// a rule looks at it: zones share what they can take.
    #[cbor(n(166), default)]
    pub callers: BTreeMap<String, u32>,
}

/// What holds for a workload's calls of what is no service of the mesh.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, Default)]
#[cbor(map)]
pub struct OutboundPolicy {
    /// May a name outside the mesh's own domain be a service that this workload sees? Then it is asked
    /// about; else names and hosts outside cost nothing.
    #[cbor(n(1), default)]
    pub names_outside: bool,
    /// Only what is known may be called, by this Sidecar (`outboundTrafficPolicy.mode: REGISTRY_ONLY`).
    #[n(2)]
    pub registry_only: Option<Provenance>,
}

/// One declared port of a workload.
#[derive(Debug, Clone, Decode, Encode, PartialEq)]
#[cbor(map)]
pub struct InboundPort {
    /// Number.
    #[n(1)]
    pub number: u16,
    /// Declared protocol.
    #[cbor(n(2), default)]
    pub protocol: Protocol,
    /// Service ports that lead to it, sorted: `destination_service` is the service that Host names,
    /// else the first.
    #[cbor(n(3), default)]
    pub services: Vec<ServicePortRef>,
    /// Faults that this workload's sidecar injects, in order: the first that is hit wins.
    #[cbor(n(80), default)]
    pub faults: Vec<PortFault>,
    /// Where the program takes calls of it, as a Sidecar says; `None`: wherever it listens on that number.
    #[n(190)]
    pub endpoint: Option<DefaultEndpoint>,
}

/// Where a workload's program takes the calls of one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DefaultEndpoint {
    /// At this port of the loopback.
    Loopback(u16),
    /// At this port of the workload's own addresses.
    Own(u16),
    /// At a socket in the file system, by its path from `/`; or at one by name (`@name`), which is the network
    /// namespace's.
    Socket(String),
}

closed!(DefaultEndpoint { 0 => Loopback(port), 1 => Own(port), 2 => Socket(path) });

/// A port of a service, by name.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq, PartialOrd, Ord)]
#[cbor(map)]
pub struct ServicePortRef {
    /// The service.
    #[n(1)]
    pub service: ServiceName,
    /// The port its clients use.
    #[n(2)]
    pub port: u16,
}

/// Answer to a hostname asked from a namespace; resource name `NAMESPACE/HOST`.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct NameAnswer {
    /// Host as asked: lower case, no trailing dot.
    #[n(1)]
    pub host: String,
    /// Namespace it was asked from.
    #[n(2)]
    pub namespace: String,
    /// The service it names, if it names one.
    #[n(3)]
    pub service: Option<ServiceVips>,
}

/// A service as DNS knows it.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct ServiceVips {
    /// Which.
    #[n(1)]
    pub name: ServiceName,
    /// Its virtual addresses; none if it is headless.
    #[cbor(n(2), default, decode_with = "crate::wire::known_addresses")]
    pub vips: Vec<IpAddr>,
}

/// What is the same for the whole mesh.
#[derive(Debug, Clone, Decode, Encode, PartialEq, Eq)]
#[cbor(map)]
pub struct MeshSettings {
    /// Mesh name.
    #[n(1)]
    pub mesh: String,
    /// Range virtual IPv4 addresses come from: address and prefix length.
    #[n(2)]
    pub vip_range_v4: (Ipv4Addr, u8),
    /// Range virtual IPv6 addresses come from.
    #[n(3)]
    pub vip_range_v6: (Ipv6Addr, u8),
    /// The virtual address of `host.heddle.internal`: the host's own loopback.
    #[n(4)]
    pub host_gateway_v4: Ipv4Addr,
    /// The same, IPv6.
    #[n(5)]
    pub host_gateway_v6: Ipv6Addr,
}
