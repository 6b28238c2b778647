//! Discovery: what the control plane tells a proxy, over xDS's incremental protocol.
//!
//! [`proto`] has the transport's messages, protobuf with Envoy's field numbers, so that known tools can
//! read the stream. The resources in it are the nouns of `heddle-model` in their own form (CBOR), joined
//! to their names and types by [`WireResource`] and [`decode()`]. What has been decoded needs no further check
//! but the compiling of its regular expressions. [`transport`] is the gRPC glue,
//! [`certificates`] the service beside it by which a sidecar gets a certificate. Sessions (who
//! subscribed to what, nonces, acknowledgements) are the callers' business.

pub mod certificates;
mod decode;
pub mod proto;
mod served;
pub mod transport;

use std::net::IpAddr;

use heddle_model::{
    Address, Destination, Endpoints, Inbound, MeshSettings, NameAnswer, ServiceName, WorkloadId,
};

pub use decode::{DecodeError, decode};

/// The six resource types, in the order in which one generation's responses are sent: what is named
/// comes before what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Whose is this IP? Named by the IP's text.
    Address,
    /// What does this host name mean? Named `NAMESPACE/HOST`.
    Name,
    /// A service's workloads. Named by the service's [`service_name`].
    Endpoints,
    /// A workload's own ports. Named by the workload's id.
    Inbound,
    /// A service with its rules. Named as its endpoints.
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

    /// The type URL on the wire. It names the form too: another one would be another version, which who
    /// does not know it refuses by name.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "heddle.dev/discovery.v1alpha2.Address",
            Self::Name => "heddle.dev/discovery.v1alpha2.Name",
            Self::Endpoints => "heddle.dev/discovery.v1alpha2.Endpoints",
            Self::Inbound => "heddle.dev/discovery.v1alpha2.Inbound",
            Self::Destination => "heddle.dev/discovery.v1alpha2.Destination",
            Self::Mesh => "heddle.dev/discovery.v1alpha2.Mesh",
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

/// Resource name of a [`Destination`] and of [`Endpoints`]: the fully qualified name, or `NAMESPACE/HOST` for
/// a host outside the mesh.
#[must_use]
pub fn service_name(service: &ServiceName) -> String {
    service.unique()
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

/// What can be sent to a proxy.
pub trait WireResource {
    /// The type.
    fn kind(&self) -> ResourceType;
    /// The name, unique within the type.
    fn name(&self) -> String;
    /// The resource's bytes; equal values give equal bytes, in every process.
    fn encode(&self) -> Vec<u8>;
}

/// A resource as it is put into a response: named, typed, with its version.
#[must_use]
pub fn wire_resource(resource: &impl WireResource) -> proto::Resource {
    let value = resource.encode();
    proto::Resource {
        version: version(&value),
        resource: Some(proto::Any { type_url: resource.kind().type_url().to_owned(), value }),
        name: resource.name(),
    }
}

/// The version of a resource: a hash of its bytes (FNV-1a, 128 bits, hexadecimal), the same in every
/// process. It tells changes apart, not forgeries.
#[must_use]
pub fn version(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash =
        bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

/// Joins each noun to its type and its name.
macro_rules! resources {
    ($($kind:ident: $noun:ident, |$one:ident| $name:expr;)+) => {
        $(impl WireResource for $noun {
            fn kind(&self) -> ResourceType {
                ResourceType::$kind
            }

            fn name(&self) -> String {
                let $one = self;
                $name
            }

            fn encode(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                // The nouns' own form cannot fail, and neither can writing to memory.
                let _cannot_fail = minicbor::encode(self, &mut bytes);
                bytes
            }
        })+

        impl Resource {
            fn inner(&self) -> &dyn WireResource {
                match self {
                    $(Self::$kind(inner) => inner,)+
                }
            }
        }
    };
}

resources! {
    Address: Address, |one| address_name(one.ip);
    Name: NameAnswer, |one| host_name(&one.namespace, &one.host);
    Endpoints: Endpoints, |one| service_name(&one.service);
    Inbound: Inbound, |one| inbound_name(&one.workload.id);
    Destination: Destination, |one| service_name(&one.service);
    Mesh: MeshSettings, |_one| MESH_NAME.to_owned();
}

impl WireResource for Resource {
    fn kind(&self) -> ResourceType {
        self.inner().kind()
    }

    fn name(&self) -> String {
        self.inner().name()
    }

    fn encode(&self) -> Vec<u8> {
        self.inner().encode()
    }
}
