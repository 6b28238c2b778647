//! The messages on the wire, derived by hand: there is no `.proto` file and no build script.
//! Field numbers are for ever; a field that goes leaves its number unused. What they carry is not
//! protobuf: the nouns of `heddle-model` have a form of their own.

use std::collections::BTreeMap;

/// xDS `DeltaDiscoveryRequest`: a subscription, an acknowledgement, or both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; set in a stream's first request.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Resource type.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to subscribe to.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to unsubscribe from.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// Name to version of what the proxy has already; in the first request per type after a
    /// reconnect.
    #[prost(btree_map = "string, string", tag = "5")]
    pub initial_resource_versions: BTreeMap<String, String>,
    /// The nonce of the response that is acknowledged or refused; else empty.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Why that response was refused; absent in an acknowledgement.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<RpcStatus>,
}

/// xDS `DeltaDiscoveryResponse`: what has changed among the names subscribed to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// The generation, decimal.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources, all of `type_url`.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Resource type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be returned in the acknowledgement.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that do not exist (any more).
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Heddle's own: the last response of its generation, with which all of it takes force.
    #[prost(bool, tag = "1000")]
    pub generation_end: bool,
}

/// xDS `Resource`: one named, versioned resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Hash of the content ([`super::version`]).
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource itself.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Name, unique within its type.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `google.protobuf.Any` in shape; the type tells how `value` is to be read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// Type of the resource in `value` ([`super::ResourceType::type_url`]).
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// An encoded resource.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// xDS `Node`, as much of it as is used.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Workload id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Service, for people who read the stream.
    #[prost(string, tag = "2")]
    pub cluster: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What a sidecar reports about its workload. Replaces its last report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportRequest {
    /// Workload id.
    #[prost(string, tag = "1")]
    pub workload: String,
    /// Where the application listens.
    #[prost(message, repeated, tag = "2")]
    pub listening: Vec<Listening>,
}

/// One listening socket of the application.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listening {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub address: Vec<u8>,
    /// Port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// The answer to a report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportResponse {}
