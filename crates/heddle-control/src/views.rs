//! What a proxy is told, as encoded bytes: made once per change and client view, shared by all
//! proxies that see the same.
//!
//! Only what somebody asks for is made. An entry is valid for one *edition*: rules and topology as
//! they were when it was made. Endpoints have no edition, because their states change often and
//! concern one service: they are dropped by name.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use heddle_compile::{
    Client, RuleIndex, TelemetryDefault, View, addresses_differ, endpoints, outside_at,
};
use heddle_model::{
    Address, MeshSettings, NameAnswer, Owner, Registry, ServiceName, Workload, WorkloadId,
    name::check_label,
};
use heddle_wire::discovery::{
    MESH_NAME, ResourceType as Kind, WireResource, address_name, host_name, service_name, version,
};

use crate::{
    limits::VIEWS_MAX,
    population::Population,
    registry::Touched,
    session::{Current, Encoded},
};

/// The cache. Its size is bounded by what proxies subscribe to.
#[derive(Debug, Default)]
pub(crate) struct Views {
    edition: u64,
    shared: BTreeMap<Kind, BTreeMap<String, Entry>>,
    destinations: BTreeMap<View, BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    edition: u64,
    resource: Option<Encoded>,
    backends: Arc<[String]>,
}

impl Views {
    /// Forgets what a change made stale, and what nobody asked for since the last one.
    pub(crate) fn invalidate(&mut self, touched: &Touched) {
        if let Some(endpoints) = self.shared.get_mut(&Kind::Endpoints) {
            for service in &touched.endpoints {
                endpoints.remove(&service_name(service));
            }
        }
        if !touched.topology {
            let addresses = touched.addresses.iter().map(|ip| (Kind::Address, address_name(*ip)));
            let own = touched.workloads.iter().map(|id| (Kind::Inbound, id.0.clone()));
            for (kind, name) in addresses.chain(own) {
                self.shared.get_mut(&kind).and_then(|entries| entries.remove(&name));
            }
            return;
        }
        let last = self.edition;
        self.edition += 1;
        for (kind, entries) in &mut self.shared {
            entries.retain(|_, entry| *kind == Kind::Endpoints || entry.edition == last);
        }
        for entries in self.destinations.values_mut() {
            entries.retain(|_, entry| entry.edition == last);
        }
        self.destinations.retain(|_, entries| !entries.is_empty());
    }

    /// Drops endpoints of services nobody is subscribed to.
    pub(crate) fn keep_endpoints(&mut self, wanted: impl Fn(&str) -> bool) {
        if let Some(endpoints) = self.shared.get_mut(&Kind::Endpoints) {
            endpoints.retain(|name, _| wanted(name));
        }
    }
}

/// The mesh at one moment, the same for every client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeshState<'a> {
    /// Mesh-wide settings.
    pub(crate) settings: &'a MeshSettings,
    /// What is told of calls where no rule says that: where spans go, of how many traces, and the access log.
    pub(crate) telemetry: Option<&'a TelemetryDefault>,
    /// Who is in the mesh.
    pub(crate) population: &'a Population,
    /// Services and workloads, those of entries among them.
    pub(crate) registry: &'a Registry,
    /// Rules.
    pub(crate) index: &'a RuleIndex,
    /// Whose an address is depends on who asks.
    pub(crate) addresses_differ: bool,
}

impl<'a> MeshState<'a> {
    /// What is known now.
    pub(crate) fn new(
        (settings, telemetry): (&'a MeshSettings, Option<&'a TelemetryDefault>),
        population: &'a Population,
        index: &'a RuleIndex,
    ) -> Self {
        let registry = population.registry();
        let addresses_differ = addresses_differ(registry);
        Self { settings, telemetry, population, registry, index, addresses_differ }
    }
}

/// The newest state as one client sees it.
#[derive(Debug)]
pub(crate) struct ClientResources<'a> {
    state: MeshState<'a>,
    views: &'a mut Views,
    client: &'a Workload,
    view: View,
}

impl Current for ClientResources<'_> {
    fn resource(&mut self, kind: Kind, name: &str) -> Option<Encoded> {
        if kind == Kind::Destination {
            return self.destination(name).resource;
        }
        if kind == Kind::Address && self.state.addresses_differ {
            return self.make(kind, name);
        }
        let edition = self.views.edition;
        let known = self.views.shared.get(&kind).and_then(|entries| entries.get(name));
        match known {
            Some(entry) if kind == Kind::Endpoints || entry.edition == edition => {
                entry.resource.clone()
            }
            _ => {
                let resource = self.make(kind, name);
                let entry = Entry { edition, resource: resource.clone(), backends: Arc::default() };
                keep(self.views.shared.entry(kind).or_default(), name, entry);
                resource
            }
        }
    }

    fn backends(&mut self, destination: &str) -> Arc<[String]> {
        self.destination(destination).backends
    }
}

impl<'a> ClientResources<'a> {
    /// `client` is the workload whose sidecar asks; `views` has what was made already.
    pub(crate) fn new(state: MeshState<'a>, views: &'a mut Views, client: &'a Workload) -> Self {
        let view = state.index.view(client.into());
        Self { state, views, client, view }
    }

    fn destination(&mut self, name: &str) -> Entry {
        let edition = self.views.edition;
        let of_view = self.views.destinations.get(&self.view);
        let known = of_view.and_then(|entries| entries.get(name));
        if let Some(entry) = known.filter(|entry| entry.edition == edition) {
            return entry.clone();
        }
        let MeshState { registry, index, .. } = self.state;
        let made = parse_service(name)
            .and_then(|service| index.destination(registry, Client::from(self.client), &service));
        let entry = match made {
            Some(destination) => Entry {
                edition,
                backends: destination.backends().iter().map(service_name).collect(),
                resource: Some(encoded(&destination)),
            },
            None => Entry { edition, resource: None, backends: Arc::default() },
        };
        let of_view = self.views.destinations.entry(self.view.clone()).or_default();
        keep(of_view, name, entry.clone());
        entry
    }

    /// A resource by type and name; `None` if there is no such thing or its name is not spelled as
    /// the proxy's decoder spells it.
    fn make(&self, kind: Kind, name: &str) -> Option<Encoded> {
        let MeshState { settings, registry, index, .. } = self.state;
        match kind {
            Kind::Address => {
                let ip: IpAddr = name.parse().ok()?;
                (address_name(ip) == name).then(|| encoded(&self.address(ip)))
            }
            Kind::Name => {
                let (namespace, host) = name.split_once('/')?;
                check_label(namespace).ok()?;
                let answer: NameAnswer = index.name_answer(registry, namespace, host);
                (host_name(namespace, host) == name).then(|| encoded(&answer))
            }
            Kind::Endpoints => endpoints(registry, &parse_service(name)?).map(|of| encoded(&of)),
            Kind::Inbound => {
                // A proxy is told of itself only.
                let own = self.client.id == WorkloadId(name.to_owned());
                let telemetry = self.state.telemetry;
                own.then(|| encoded(&index.inbound_with(registry, self.client, telemetry)))
            }
            Kind::Mesh => (name == MESH_NAME).then(|| encoded(settings)),
            Kind::Destination => None,
        }
    }
}

impl ClientResources<'_> {
    /// As `heddle_compile::address`, by index, and for an entry's own address as this client sees it.
    fn address(&self, ip: IpAddr) -> Address {
        let MeshState { population, registry, .. } = self.state;
        let outside = || outside_at(registry, &self.client.namespace, ip);
        let owner = match (population.service_at(ip), population.workload_at(ip)) {
            (Some(service), _) => Owner::Service(service.clone()),
            (None, Some(workload)) => Owner::Workload(Box::new(workload.into())),
            (None, None) => outside().map_or(Owner::NotKnown, |name| Owner::Service(name.clone())),
        };
        Address { ip, owner }
    }
}

/// Names come from proxies: what has become too much is made again when it is asked for.
fn keep(entries: &mut BTreeMap<String, Entry>, name: &str, entry: Entry) {
    if entries.len() >= VIEWS_MAX {
        entries.clear();
    }
    entries.insert(name.to_owned(), entry);
}

/// Encodes a resource and names its version.
pub(crate) fn encoded(resource: &impl WireResource) -> Encoded {
    let bytes = resource.encode();
    Encoded { version: parse_version(&version(&bytes)).unwrap_or_default(), bytes: bytes.into() }
}

/// A version's text as the number it is; `None` for one that is none of ours.
pub(crate) fn parse_version(text: &str) -> Option<u128> {
    u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)
}

/// The inverse of [`parse_version`].
pub(crate) fn version_text(version: u128) -> String {
    format!("{version:032x}")
}

/// A service by its [`service_name`]; `None` for anything else.
pub(crate) fn parse_service(name: &str) -> Option<ServiceName> {
    ServiceName::from_unique(name)
}
