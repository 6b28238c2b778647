//! Discovery: what the control plane tells a proxy, as protobuf over xDS's incremental protocol.
//!
//! [`proto`] has the messages: the transport's own with Envoy's field numbers, so that known tools
//! can read the stream, and one per resource. [`Encode`] and [`decode()`] join them to the nouns of
//! `heddle-model`; decoding checks everything a message could get wrong, so that what has been
//! decoded needs no further check but the compiling of its regular expressions. [`transport`] is the
//! gRPC glue. Sessions (who subscribed to what, nonces, acknowledgements) are the callers' business.

mod decode;
mod encode;
pub mod proto;
pub mod transport;

use std::net::IpAddr;

use heddle_model::{
    Address, Destination, Endpoints, Inbound, MeshSettings, NameAnswer, ServiceName, WorkloadId,
};

pub use decode::{DecodeError, decode};
pub use encode::{Encode, version, wire_resource};

/// Longest regular expression of a rule, bytes.
pub const REGEX_BYTES_MAX: usize = 1024;

/// The six resource types, in the order in which one generation's responses are sent: what is named
/// comes before what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Whose is this IP? Named by the IP's text.
    Address,
    /// What does this host name mean? Named `NAMESPACE/HOST`.
    Name,
    /// A service's workloads. Named by the service's fully qualified name.
    Endpoints,
    /// A workload's own ports. Named by the workload's id.
    Inbound,
    /// A service with its rules. Named by the service's fully qualified name.
    Destination,
    /// What is the same for the whole mesh. Named [`MESH_NAME`].
    Mesh,
}

/// The name of the one [`ResourceType::Mesh`] resource.
pub const MESH_NAME: &str = "mesh";

impl ResourceType {
    /// All types in sending order.
    pub const ALL: [Self; 6] =
        [Self::Address, Self::Name, Self::Endpoints, Self::Inbound, Self::Destination, Self::Mesh];

    /// The type URL on the wire.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/heddle.discovery.v1alpha1.Address",
            Self::Name => "type.googleapis.com/heddle.discovery.v1alpha1.Name",
            Self::Endpoints => "type.googleapis.com/heddle.discovery.v1alpha1.Endpoints",
            Self::Inbound => "type.googleapis.com/heddle.discovery.v1alpha1.Inbound",
            Self::Destination => "type.googleapis.com/heddle.discovery.v1alpha1.Destination",
            Self::Mesh => "type.googleapis.com/heddle.discovery.v1alpha1.Mesh",
        }
    }

    /// The type with this URL, if it is one of ours.
    #[must_use]
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }
}

/// A decoded resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// Whose an IP is.
    Address(Address),
    /// What a host name means.
    Name(NameAnswer),
    /// A service's workloads.
    Endpoints(Endpoints),
    /// A workload's own ports.
    Inbound(Inbound),
    /// A service with its rules.
    Destination(Destination),
    /// What is the same for the whole mesh.
    Mesh(MeshSettings),
}

/// Resource name of an [`Address`].
#[must_use]
pub fn address_name(ip: IpAddr) -> String {
    ip.to_string()
}

/// Resource name of a [`Destination`] and of [`Endpoints`].
#[must_use]
pub fn service_name(service: &ServiceName) -> String {
    service.fqdn()
}

/// Resource name of an [`Inbound`].
#[must_use]
pub fn inbound_name(workload: &WorkloadId) -> String {
    workload.0.clone()
}

/// Resource name of a [`NameAnswer`]: `host` in lower case and without its trailing dot.
#[must_use]
pub fn host_name(namespace: &str, host: &str) -> String {
    format!("{namespace}/{}", host.trim_end_matches('.').to_ascii_lowercase())
}
