//! What a snapshot is built from: decoded resources, each already known to build.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use heddle_model::{
    Address, Endpoints, MeshSettings, NameAnswer, Owner, ServiceName, discovery::Inbound,
};

use super::{AddressOwner, CompiledDestination};

/// Decoded resources by name. Cloning is cheap: the values are shared.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    /// Owners by address, `NotKnown` included.
    pub addresses: BTreeMap<IpAddr, AddressOwner>,
    /// Name answers by `NAMESPACE/HOST`, those without a service included.
    pub names: BTreeMap<String, Arc<NameAnswer>>,
    /// Endpoints by service; an empty list counts as present.
    pub endpoints: BTreeMap<ServiceName, Arc<Endpoints>>,
    /// Destinations by service.
    pub destinations: BTreeMap<ServiceName, Arc<CompiledDestination>>,
    /// This workload's own ports.
    pub inbound: Option<Arc<Inbound>>,
    /// Mesh-wide settings.
    pub mesh: Option<Arc<MeshSettings>>,
}

impl ResourceSet {
    /// Adds or replaces an address.
    pub fn insert_address(&mut self, address: Address) {
        let owner = match address.owner {
            Owner::Service(service) => AddressOwner::Service(Arc::new(service)),
            Owner::Workload(workload) => AddressOwner::Workload(Arc::new(*workload)),
            Owner::NotKnown => AddressOwner::NotKnown,
        };
        self.addresses.insert(address.ip, owner);
    }

    /// Adds or replaces a name answer.
    pub fn insert_name(&mut self, answer: NameAnswer) {
        self.names.insert(format!("{}/{}", answer.namespace, answer.host), Arc::new(answer));
    }

    /// Adds or replaces a service's endpoints.
    pub fn insert_endpoints(&mut self, endpoints: Endpoints) {
        self.endpoints.insert(endpoints.service.clone(), Arc::new(endpoints));
    }

    /// Adds or replaces a destination.
    pub fn insert_destination(&mut self, compiled: CompiledDestination) {
        self.destinations.insert(compiled.service.clone(), Arc::new(compiled));
    }
}
