//! Nouns of the mesh: names, addresses, services, workloads, rules, and what a proxy is told.
//!
//! This crate does no I/O, reads no clock and knows neither tokio nor Kubernetes. Parsing of YAML
//! into these nouns lives here too, so that "accepted" means one thing everywhere.

pub mod addresses;
pub mod discovery;
pub mod field_name;
pub mod identity;
pub mod name;
pub mod pattern;
pub mod registry;
pub mod resource;
pub mod secret;
pub mod timestamp;
pub mod wire;
pub mod yaml;

pub use addresses::Addresses;
pub use discovery::{
    Address, Destination, DestinationPort, Endpoint, EndpointPort, Endpoints, Inbound, InboundPort,
    MeshSettings, NameAnswer, Owner, ServicePortRef, ServiceVips,
};
pub use identity::{Identity, Locality};
pub use name::{NameError, Protocol, ResourceKey, ServiceName, WorkloadId};
pub use registry::{
    EndpointState, Registry, Service, ServicePort, TargetPort, Workload, WorkloadPort,
};
