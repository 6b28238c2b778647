//! Rules as users write them (Istio's kinds, the Gateway API's routes, Services), parsed and checked, with the place they came from.

mod outside;

use std::{collections::BTreeMap, net::IpAddr};

pub use self::outside::{
    EgressHost, EgressNamespace, EndpointAddress, EntryEndpoint, EntryHost, EntryPort,
    IngressListener, OutboundMode, ServiceEntry, Sidecar, WorkloadEntry,
};
use crate::{
    ResourceKey,
    discovery::{
        ClientTls, ConnectionPool, Fault, HeaderRules, HttpMatch, Injection, LoadBalancing,
        OutlierDetection, RetryBudgetRule, Traffic,
    },
    timestamp,
};

mod gateway;
mod service;
mod telemetry;

pub use gateway::{
    BackendRef, GATEWAY_GROUP, MeshMatch, MeshMirror, MeshRedirect, MeshRewrite, MeshRoute,
    MeshRule, ParentRef, PathMatch, PathModifier, RouteKind, UnknownFilter,
};
pub use service::ServiceObject;
pub use telemetry::{
    LoggingRule, MeshConfig, MetricOverride, MetricsRule, Named, OtlpLog, Provider, ProviderKind,
    Sides, Telemetry, TracingRule,
};

/// One parsed resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// `kind/namespace/name`.
    pub key: ResourceKey,
    /// What it says.
    pub spec: Spec,
    /// Metadata annotations.
    pub annotations: BTreeMap<String, String>,
    /// File (or `-`) and 1-based line of the document.
    pub origin: Origin,
    /// Valid fields without effect.
    pub not_enforced: Vec<FieldNote>,
    /// The document's own text, as `get -o yaml` prints it.
    pub text: String,
}

/// Where a document came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Origin {
    /// File path as the user gave it; `-` for standard input.
    pub file: String,
    /// 1-based line of the document's first line.
    pub line: usize,
}

/// A field worth a note to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNote {
    /// Path of the field, e.g. `spec.http[0].timeout`.
    pub field: String,
    /// 1-based line in the file.
    pub line: usize,
    /// Why it has no effect; `None` if this version does not enforce it.
    pub reason: Option<String>,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Istio `VirtualService`.
    VirtualService(VirtualService),
    /// Istio `DestinationRule`.
    DestinationRule(DestinationRule),
    /// Istio `ServiceEntry`.
    ServiceEntry(ServiceEntry),
    /// Istio `WorkloadEntry`.
    WorkloadEntry(WorkloadEntry),
    /// Istio `Sidecar`.
    Sidecar(Sidecar),
    /// A route of the Gateway API with a Service among its parents.
    Route(MeshRoute),
    /// Kubernetes `Service`.
    Service(ServiceObject),
    /// Kubernetes `Namespace`: it is known, and decides nothing yet.
    Namespace,
    /// `Fault`.
    Fault(FaultRule),
    /// Istio `Telemetry`.
    Telemetry(Telemetry),
    /// `MeshConfig`.
    MeshConfig(Box<MeshConfig>),
    /// A kind of the mesh that is kept and not served yet.
    NotServed,
}

/// The annotation that ends a VirtualService's faults: a moment as RFC 3339 has it.
pub const FAULT_EXPIRES: &str = "heddle.dev/fault-expires";
/// The annotation by which a VirtualService's delays do not count against its limits on time, as in Istio.
pub const ISTIO_FAULT_SEMANTICS: &str = "heddle.dev/istio-fault-semantics";
/// The annotation that has answers of mirrors compared: `status`, `latency` and `body`, separated by commas.
pub const MIRROR_COMPARE: &str = "heddle.dev/mirror-compare";

impl Resource {
    /// When its faults end, in seconds since the Unix epoch, and where that is written.
    #[must_use]
    pub fn faults_expire(&self) -> Option<(u64, FieldNote)> {
        let note = |field: &str, line| FieldNote { field: field.to_owned(), line, reason: None };
        match &self.spec {
            Spec::Fault(rule) => Some((rule.expires?, note("spec.expires", rule.expires_line))),
            Spec::VirtualService(_) => {
                let at = timestamp::parse(self.annotations.get(FAULT_EXPIRES)?).ok()?;
                let field = format!("metadata.annotations[\"{FAULT_EXPIRES}\"]");
                Some((at, note(&field, self.origin.line)))
            }
            _ => None,
        }
    }

    /// Is all of it kept without effect, because its kind is not served yet?
    #[must_use]
    pub fn is_not_served(&self) -> bool {
        self.spec == Spec::NotServed
    }

    /// Is a part of it kept without effect?
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.not_enforced.iter().any(|note| note.reason.is_none())
    }
}

/// Istio `VirtualService`: rules for the hosts it names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VirtualService {
    /// Hosts as written; short names resolve in the resource's namespace.
    pub hosts: Vec<String>,
    /// 1-based line of each host.
    pub host_lines: Vec<usize>,
    /// `gateways` names gateways only, not `mesh`: nothing of it applies inside the mesh.
    pub gateways_only: bool,
    /// Namespaces whose clients see it: names, `.`, `*` or `~`; empty means all.
    pub export_to: Vec<String>,
    /// HTTP rules in order.
    pub http: Vec<HttpRoute>,
    /// TCP rules in order.
    pub tcp: Vec<TcpRoute>,
    /// Rules by the name that a client of TLS asks for, in order.
    pub tls: Vec<TlsRoute>,
}

/// One entry of `spec.http`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpRoute {
    /// Optional name.
    pub name: String,
    /// 1-based line in the file.
    pub line: usize,
    /// Alternatives; `port` is beside the match.
    pub matches: Vec<RouteMatch>,
    /// Fault.
    pub fault: Option<Fault>,
    /// Destinations with weights; empty if requests are answered or delegated instead.
    pub route: Vec<RouteDestination>,
    /// The rules of another VirtualService hold for requests that match.
    pub delegate: Option<Delegate>,
    /// What else happens to requests. Its mirrors are in `mirrors`, as written.
    pub traffic: Traffic,
    /// A redirect names the port that was called (`derivePort: FROM_REQUEST_PORT`).
    pub redirect_to_called_port: bool,
    /// Who is sent copies.
    pub mirrors: Vec<MirrorDestination>,
}

/// A VirtualService without hosts, whose rules hold within another's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; `None`: that of the rule that names it.
    pub namespace: Option<String>,
    /// 1-based line in the file.
    pub line: usize,
}

/// Who is sent copies of a share of requests, as written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MirrorDestination {
    /// Where they go; its weight means nothing.
    pub to: RouteDestination,
    /// Share in percent.
    pub percent: f64,
}

/// One alternative of `match`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteMatch {
    /// Conditions on the request.
    pub http: HttpMatch,
    /// Condition on the destination port.
    pub port: Option<u16>,
    /// Labels the calling workload must carry.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace the calling workload must be in.
    pub source_namespace: Option<String>,
    /// `gateways` names gateways only: never met inside the mesh.
    pub gateways_only: bool,
}

/// One entry of `spec.tcp`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TcpRoute {
    /// 1-based line in the file.
    pub line: usize,
    /// Alternatives; an empty list matches every connection.
    pub matches: Vec<TcpMatch>,
    /// Destinations with weights.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TCP rule's `match`. All of it is known before a connection is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpMatch {
    /// Condition on the destination port.
    pub port: Option<u16>,
    /// Ranges one of which must hold the service's address: address and prefix length. Empty means
    /// any.
    pub destination_subnets: Vec<(IpAddr, u8)>,
    /// Labels the calling workload must carry.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace the calling workload must be in.
    pub source_namespace: Option<String>,
    /// `gateways` names gateways only: never met inside the mesh.
    pub gateways_only: bool,
}

/// One entry of `spec.tls`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsRoute {
    /// 1-based line in the file.
    pub line: usize,
    /// Alternatives; at least one.
    pub matches: Vec<TlsMatch>,
    /// Destinations with weights.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TLS rule's `match`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsMatch {
    /// Names of which the client asks for one, in lower case: a name, or `*` and a suffix.
    pub sni_hosts: Vec<String>,
    /// What must hold besides.
    pub tcp: TcpMatch,
}

/// A weighted destination as written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteDestination {
    /// Host as written.
    pub host: String,
    /// Subset name.
    pub subset: Option<String>,
    /// Port number.
    pub port: Option<u16>,
    /// Weight; a single destination without one counts as 100.
    pub weight: u32,
    /// Fields of its requests and responses.
    pub headers: Option<HeaderRules>,
    /// 1-based line in the file.
    pub line: usize,
}

/// Istio `DestinationRule`: subsets of a host, and what holds for calls of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DestinationRule {
    /// Host as written.
    pub host: String,
    /// 1-based line of `host`.
    pub host_line: usize,
    /// What holds for all endpoints.
    pub policy: Option<TrafficPolicy>,
    /// Subsets in order; of two with one name the first wins.
    pub subsets: Vec<SubsetRule>,
    /// Namespaces whose clients see it: names, `.`, `*` or `~`; empty means all.
    pub export_to: Vec<String>,
    /// Labels a client must carry for the rule to hold, in its own namespace only.
    pub workload_selector: Option<BTreeMap<String, String>>,
}

impl DestinationRule {
    /// Does any of its policies go by zones and what they can take (`zoneAwareLbSetting`)?
    #[must_use]
    pub fn looks_at_zones(&self) -> bool {
        let policies = self.subsets.iter().map(|subset| &subset.policy).chain([&self.policy]);
        let parts = policies.flatten().flat_map(|policy| {
            policy.ports.iter().map(|(_, parts)| parts).chain([&policy.general])
        });
        let mut rules = parts.filter_map(|parts| parts.balancing.as_ref()?.locality.as_ref());
        rules.any(|rules| rules.zones.is_some() && !rules.off)
    }
}

/// One subset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubsetRule {
    /// Name.
    pub name: String,
    /// Labels, all of which must be carried.
    pub labels: BTreeMap<String, String>,
    /// What holds for it instead of what holds for all.
    pub policy: Option<TrafficPolicy>,
    /// 1-based line in the file.
    pub line: usize,
}

/// A `trafficPolicy`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficPolicy {
    /// What holds for all ports.
    pub general: PolicyParts,
    /// What holds for some ports, in place of all of the above.
    pub ports: Vec<(u16, PolicyParts)>,
}

/// The parts of a policy that are put in force. One that is absent says nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyParts {
    /// When endpoints are taken out.
    pub outlier: Option<OutlierDetection>,
    /// How much may be under way.
    pub pool: Option<Box<ConnectionPool>>,
    /// What carries connections to them.
    pub tls: Option<TlsSettings>,
    /// How an endpoint is chosen.
    pub balancing: Option<Box<LoadBalancing>>,
    /// How many retries may be under way.
    pub retry_budget: Option<RetryBudgetRule>,
}

/// What `tls` of a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSettings {
    /// Connections carry what is sent as it is (`DISABLE`; and `ISTIO_MUTUAL`, which the mesh's own TLS will
    /// stand for).
    Plain,
    /// A sidecar begins this TLS. Its `server_name` is empty where none is written.
    Originate(Box<ClientTls>),
}

/// `Fault`: what is injected into calls of a service, or by some workloads into calls they receive.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// Whose calls.
    pub target: FaultTarget,
    /// 1-based line of the target.
    pub target_line: usize,
    /// Whose sidecar injects.
    pub side: FaultSide,
    /// Alternatives; an empty list matches everything.
    pub matches: Vec<RouteMatch>,
    /// Share in percent, 0 to 100.
    pub percent: f64,
    /// What is injected.
    pub does: Injection,
    /// From then on nothing is: seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// 1-based line of that.
    pub expires_line: usize,
}

/// Whose calls a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultTarget {
    /// Those of a service; `None`: of the rule's own namespace.
    Service {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: Option<String>,
    },
    /// Those of workloads of the rule's namespace that carry all of these labels.
    Workloads(BTreeMap<String, String>),
}

/// Whose sidecar injects a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultSide {
    /// The caller's.
    Client,
    /// The called one's.
    Server,
}
