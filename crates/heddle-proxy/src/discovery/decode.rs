//! Resources from their bytes into the set a snapshot is built from.

use std::sync::Arc;

use heddle_model::{Address, Endpoints, MeshSettings, NameAnswer, ServiceName, discovery::Inbound};
use heddle_wire::discovery::{self as wire, Resource, ResourceType};

use crate::snapshot::{CompiledDestination, ResourceSet, faults_of};

/// A resource that decodes and whose matchers build.
#[derive(Debug)]
pub(super) enum Decoded {
    Address(Address),
    Name(NameAnswer),
    Endpoints(Endpoints),
    Destination(Box<CompiledDestination>),
    Inbound(Arc<Inbound>),
    Mesh(MeshSettings),
}

/// Decodes a resource; the error says which and why, for the control plane's log.
pub(super) fn decode(kind: ResourceType, name: &str, body: &[u8]) -> Result<Decoded, String> {
    let resource = wire::decode(kind.type_url(), name, body).map_err(|error| error.to_string())?;
    Ok(match resource {
        Resource::Address(address) => Decoded::Address(address),
        Resource::Name(answer) => Decoded::Name(answer),
        Resource::Endpoints(endpoints) => Decoded::Endpoints(endpoints),
        Resource::Destination(destination) => {
            let compiled = CompiledDestination::new(destination).map_err(|e| e.to_string())?;
            Decoded::Destination(Box::new(compiled))
        }
        Resource::Inbound(inbound) => {
            let mut built = inbound.ports.iter().map(faults_of);
            built.try_for_each(|built| built.map(drop)).map_err(|error| error.to_string())?;
            Decoded::Inbound(Arc::new(inbound))
        }
        Resource::Mesh(mesh) => Decoded::Mesh(mesh),
    })
}

impl Decoded {
    /// Adds or replaces it.
    pub(super) fn insert_into(self, set: &mut ResourceSet) {
        match self {
            Self::Address(address) => set.insert_address(address),
            Self::Name(answer) => set.insert_name(answer),
            Self::Endpoints(endpoints) => set.insert_endpoints(endpoints),
            Self::Destination(compiled) => set.insert_destination(*compiled),
            Self::Inbound(inbound) => set.inbound = Some(inbound),
            Self::Mesh(mesh) => set.mesh = Some(mesh.into()),
        }
    }

    /// Removes a resource by name. Endpoints that are gone are an empty list: rules that still name
    /// the service must not wait for them.
    pub(super) fn remove_from(kind: ResourceType, name: &str, set: &mut ResourceSet) {
        match kind {
            ResourceType::Address => {
                if let Ok(ip) = name.parse() {
                    set.addresses.remove(&ip);
                }
            }
            ResourceType::Name => {
                set.names.remove(name);
            }
            ResourceType::Endpoints => {
                if let Some(service) = ServiceName::from_unique(name) {
                    set.insert_endpoints(Endpoints::inside(service, Vec::new()));
                }
            }
            ResourceType::Destination => {
                if let Some(service) = ServiceName::from_unique(name) {
                    set.destinations.remove(&service);
                }
            }
            ResourceType::Inbound => set.inbound = None,
            ResourceType::Mesh => set.mesh = None,
        }
    }
}
