//! The resources' own messages: the nouns of `heddle-model`, each with the name it has there.

use std::collections::BTreeMap;

/// `ServiceName`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Service {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// `Address`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ip: Vec<u8>,
    /// Absent: nobody in this mesh.
    #[prost(oneof = "Owner", tags = "2, 3")]
    pub owner: Option<Owner>,
}

/// Who owns an address.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Owner {
    /// A service.
    #[prost(message, tag = "2")]
    Service(Service),
    /// A workload.
    #[prost(message, tag = "3")]
    Workload(Workload),
}

/// `WorkloadInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Workload {
    /// Id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Workload name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Its service.
    #[prost(message, optional, tag = "4")]
    pub service: Option<Service>,
    /// Version; may be empty.
    #[prost(string, tag = "5")]
    pub version: String,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: BTreeMap<String, String>,
    /// Declared ports: number to protocol.
    #[prost(btree_map = "uint32, enumeration(Protocol)", tag = "7")]
    pub ports: BTreeMap<u32, i32>,
}

/// `Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Protocol {
    /// Not declared.
    Undeclared = 0,
    /// HTTP/1.x.
    Http = 1,
    /// HTTP/2.
    Http2 = 2,
    /// gRPC.
    Grpc = 3,
    /// TLS.
    Tls = 4,
    /// Opaque.
    Tcp = 5,
}

/// `EndpointState`. 0 is no state, so that a forgotten one is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EndpointState {
    /// Not set: an error.
    Unset = 0,
    /// Not yet in LISTEN.
    Pending = 1,
    /// Takes requests.
    Ready = 2,
    /// Takes no new ones.
    Terminating = 3,
}

/// `NameAnswer`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Name {
    /// Host as asked, normalised.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Namespace it was asked from.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Absent: no service of this mesh.
    #[prost(message, optional, tag = "3")]
    pub service: Option<Service>,
    /// 4 bytes, with `service`.
    #[prost(bytes = "vec", tag = "4")]
    pub ipv4: Vec<u8>,
    /// 16 bytes, with `service`.
    #[prost(bytes = "vec", tag = "5")]
    pub ipv6: Vec<u8>,
}

/// `Endpoints`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Endpoints {
    /// Which service.
    #[prost(message, optional, tag = "1")]
    pub service: Option<Service>,
    /// Its workloads.
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<Endpoint>,
}

/// `Endpoint`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Endpoint {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub workload: Option<Workload>,
    /// 4 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub ipv4: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub ipv6: Vec<u8>,
    /// State per port number.
    #[prost(btree_map = "uint32, enumeration(EndpointState)", tag = "4")]
    pub ports: BTreeMap<u32, i32>,
    /// Load-balancing weight.
    #[prost(uint32, tag = "5")]
    pub weight: u32,
}

/// `Inbound`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Inbound {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub workload: Option<Workload>,
    /// Its declared ports.
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<InboundPort>,
}

/// `InboundPort`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InboundPort {
    /// Number.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Protocol.
    #[prost(enumeration = "Protocol", tag = "2")]
    pub protocol: i32,
    /// Services owning the port.
    #[prost(message, repeated, tag = "3")]
    pub services: Vec<Service>,
}

/// `MeshSettings`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mesh {
    /// Mesh name.
    #[prost(string, tag = "1")]
    pub mesh: String,
    /// Range of virtual IPv4 addresses.
    #[prost(message, optional, tag = "2")]
    pub vip_range_v4: Option<Range>,
    /// Range of virtual IPv6 addresses.
    #[prost(message, optional, tag = "3")]
    pub vip_range_v6: Option<Range>,
    /// 4 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub host_gateway_v4: Vec<u8>,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub host_gateway_v6: Vec<u8>,
}

/// An address range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Range {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    /// Prefix length, bits.
    #[prost(uint32, tag = "2")]
    pub prefix: u32,
}

/// `Destination`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Destination {
    /// Which service.
    #[prost(message, optional, tag = "1")]
    pub service: Option<Service>,
    /// Virtual addresses, 4 or 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub vips: Vec<Vec<u8>>,
    /// Ports with rules.
    #[prost(message, repeated, tag = "3")]
    pub ports: Vec<DestinationPort>,
    /// Subsets by name.
    #[prost(btree_map = "string, message", tag = "4")]
    pub subsets: BTreeMap<String, Labels>,
}

/// A label selector.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Labels {
    /// All must be carried.
    #[prost(btree_map = "string, string", tag = "1")]
    pub labels: BTreeMap<String, String>,
}

/// `DestinationPort`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DestinationPort {
    /// Number.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Name; may be empty.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Protocol.
    #[prost(enumeration = "Protocol", tag = "3")]
    pub protocol: i32,
    /// HTTP rules in order.
    #[prost(message, repeated, tag = "4")]
    pub http: Vec<HttpRule>,
    /// TCP targets.
    #[prost(message, repeated, tag = "5")]
    pub tcp: Vec<Target>,
}

/// `HttpRule`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRule {
    /// `kind/namespace/name#rule`.
    #[prost(string, tag = "1")]
    pub provenance: String,
    /// Alternatives.
    #[prost(message, repeated, tag = "2")]
    pub matches: Vec<HttpMatch>,
    /// Fault.
    #[prost(message, optional, tag = "3")]
    pub fault: Option<Fault>,
    /// Where requests go.
    #[prost(message, repeated, tag = "4")]
    pub targets: Vec<Target>,
}

/// `HttpMatch`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpMatch {
    /// Path with query.
    #[prost(message, optional, tag = "1")]
    pub uri: Option<StringMatch>,
    /// Compare `uri` without case.
    #[prost(bool, tag = "2")]
    pub ignore_uri_case: bool,
    /// Method.
    #[prost(message, optional, tag = "3")]
    pub method: Option<StringMatch>,
    /// Host.
    #[prost(message, optional, tag = "4")]
    pub authority: Option<StringMatch>,
    /// Scheme.
    #[prost(message, optional, tag = "5")]
    pub scheme: Option<StringMatch>,
    /// Header conditions; a message without a form is "present".
    #[prost(btree_map = "string, message", tag = "6")]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Header conditions that must not hold.
    #[prost(btree_map = "string, message", tag = "7")]
    pub without_headers: BTreeMap<String, HeaderMatch>,
    /// Query parameter conditions.
    #[prost(btree_map = "string, message", tag = "8")]
    pub query_params: BTreeMap<String, StringMatch>,
}

/// `HeaderMatch`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMatch {
    /// Absent: present with any value.
    #[prost(message, optional, tag = "1")]
    pub value: Option<StringMatch>,
}

/// `StringMatch`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringMatch {
    /// The comparison; absent is an error.
    #[prost(oneof = "StringForm", tags = "1, 2, 3")]
    pub form: Option<StringForm>,
}

/// How texts are compared.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StringForm {
    /// Equal.
    #[prost(string, tag = "1")]
    Exact(String),
    /// Prefix.
    #[prost(string, tag = "2")]
    Prefix(String),
    /// Regular expression, whole value.
    #[prost(string, tag = "3")]
    Regex(String),
}

/// `Fault`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fault {
    /// Delay.
    #[prost(message, optional, tag = "1")]
    pub delay: Option<Delay>,
    /// Abort.
    #[prost(message, optional, tag = "2")]
    pub abort: Option<Abort>,
}

/// `FaultDelay`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delay {
    /// Whole seconds.
    #[prost(uint64, tag = "1")]
    pub seconds: u64,
    /// Nanoseconds besides, below 10^9.
    #[prost(uint32, tag = "2")]
    pub nanos: u32,
    /// Share, percent.
    #[prost(double, tag = "3")]
    pub percent: f64,
}

/// `FaultAbort`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Abort {
    /// HTTP status.
    #[prost(uint32, tag = "1")]
    pub status: u32,
    /// Share, percent.
    #[prost(double, tag = "2")]
    pub percent: f64,
}

/// `WeightedTarget`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Target {
    /// Service.
    #[prost(message, optional, tag = "1")]
    pub service: Option<Service>,
    /// Subset; absent means all endpoints.
    #[prost(message, optional, tag = "2")]
    pub subset: Option<Subset>,
    /// Port.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// Weight.
    #[prost(uint32, tag = "4")]
    pub weight: u32,
    /// Names something absent: this text.
    #[prost(string, optional, tag = "5")]
    pub dangling: Option<String>,
}

/// `Subset`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subset {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Selector.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
}
