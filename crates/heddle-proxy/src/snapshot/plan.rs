//! A destination made ready for requests: matchers built, targets resolved to clusters.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hashbrown::HashMap;
use heddle_logic::route::{RouteError, RouteTable};
use heddle_model::{
    Destination, DestinationPort, Protocol, ServiceName, WorkloadId,
    discovery::{Subset, WeightedTarget, WorkloadInfo},
};

use super::used::UseMark;

/// A destination's rules do not build.
#[derive(Debug, thiserror::Error)]
#[error("Destination {service} port {port}: {source}")]
pub struct PlanError {
    /// Which service.
    pub service: ServiceName,
    /// Which of its ports.
    pub port: u16,
    /// What is wrong with its rules.
    pub source: Box<RouteError>,
}

/// A destination with its matchers, before its targets are resolved to endpoints.
#[derive(Debug)]
pub struct CompiledDestination {
    /// As told.
    pub destination: Arc<Destination>,
    /// Matchers in the order of `destination.ports`.
    pub(super) routes: Vec<Arc<RouteTable>>,
    /// Every service whose endpoints it needs, itself included.
    backends: BTreeSet<ServiceName>,
}

impl CompiledDestination {
    /// Builds every matcher.
    ///
    /// # Errors
    /// [`PlanError`] naming the port whose rules do not build.
    pub fn new(destination: Destination) -> Result<Self, PlanError> {
        let mut routes = Vec::with_capacity(destination.ports.len());
        for port in &destination.ports {
            let table = RouteTable::build(port).map_err(|source| PlanError {
                service: destination.service.clone(),
                port: port.number,
                source: Box::new(source),
            })?;
            routes.push(Arc::new(table));
        }
        let mut backends = BTreeSet::from([destination.service.clone()]);
        backends.extend(
            destination
                .ports
                .iter()
                .flat_map(targets)
                .filter(|target| target.dangling.is_none())
                .map(|target| target.service.clone()),
        );
        Ok(Self { destination: Arc::new(destination), routes, backends })
    }

    /// Every service whose endpoints it needs, itself included.
    #[must_use]
    pub fn backends(&self) -> &BTreeSet<ServiceName> {
        &self.backends
    }
}

/// Every target a port names, HTTP and TCP.
fn targets(port: &DestinationPort) -> impl Iterator<Item = &WeightedTarget> {
    port.http.iter().flat_map(|rule| &rule.targets).chain(&port.tcp)
}

/// A service as requests see it.
#[derive(Debug)]
pub struct DestinationPlan {
    /// As told.
    pub destination: Arc<Destination>,
    pub(super) compiled: Arc<CompiledDestination>,
    pub(super) ports: HashMap<u16, Arc<PortPlan>>,
    pub(super) use_mark: UseMark,
}

impl DestinationPlan {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.destination.service
    }

    /// One of its ports; `None` if the service has no such port.
    #[must_use]
    #[inline]
    pub fn port(&self, number: u16) -> Option<&Arc<PortPlan>> {
        self.ports.get(&number)
    }

    /// Its ports, in no order.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<PortPlan>> {
        self.ports.values()
    }
}

/// One port of a service as requests see it.
#[derive(Debug)]
pub struct PortPlan {
    /// Port number.
    pub number: u16,
    /// Port name; may be empty.
    pub name: String,
    /// Declared protocol.
    pub protocol: Protocol,
    /// Matchers of the HTTP rules, in order.
    pub routes: Arc<RouteTable>,
    /// The service's own ready endpoints: where a request goes when there are no rules.
    pub default: Arc<Cluster>,
    /// TCP targets, in order; empty means `default`.
    pub tcp: Vec<WeightedTarget>,
    pub(super) http_clusters: Vec<Vec<Option<Arc<Cluster>>>>,
    pub(super) tcp_clusters: Vec<Option<Arc<Cluster>>>,
}

impl PortPlan {
    /// Endpoints of target `target` of HTTP rule `rule` (both 0-based, as written). `None` if that
    /// target names something absent: its `dangling` text says what.
    #[must_use]
    #[inline]
    pub fn http_cluster(&self, rule: usize, target: usize) -> Option<&Arc<Cluster>> {
        self.http_clusters.get(rule)?.get(target)?.as_ref()
    }

    /// Endpoints of TCP target `target`. `None` if it names something absent.
    #[must_use]
    #[inline]
    pub fn tcp_cluster(&self, target: usize) -> Option<&Arc<Cluster>> {
        self.tcp_clusters.get(target)?.as_ref()
    }

    /// Does this plan say the same, part by part?
    pub(super) fn same(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<Cluster>>, b: &Option<Arc<Cluster>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let same_list = |a: &[Option<Arc<Cluster>>], b: &[Option<Arc<Cluster>>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        };
        Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.default, &other.default)
            && same_list(&self.tcp_clusters, &other.tcp_clusters)
            && self.http_clusters.len() == other.http_clusters.len()
            && self.http_clusters.iter().zip(&other.http_clusters).all(|(a, b)| same_list(a, b))
    }
}

/// What a cluster's name is made of: content, never a position in a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// Service.
    pub service: ServiceName,
    /// Subset with its labels; `None` means all endpoints.
    pub subset: Option<Subset>,
    /// Port of that service: the one its clients use.
    pub port: u16,
}

/// The endpoints behind one target that take requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub key: ClusterKey,
    /// In order of workload id; empty is possible.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One workload's port behind a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is.
    pub workload: Arc<WorkloadInfo>,
    /// Where it is: of its addresses the first in a family that this sidecar's workload has too.
    pub ip: IpAddr,
    /// Port it listens on: what the cluster's service port leads to there.
    pub port: u16,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Is it the workload this sidecar belongs to? Then the call stays inside the process.
    pub is_self: bool,
    /// Where a worker keeps what it knows about it.
    pub slot: EndpointSlot,
}

impl Endpoint {
    /// Workload id.
    #[must_use]
    pub fn id(&self) -> &WorkloadId {
        &self.workload.id
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// A small index for per-worker state about an endpoint (workload, address and port).
///
/// Indexes are dense and used again; `stamp` never is. State found at `index` with another stamp
/// belongs to an endpoint that is gone and is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointSlot {
    /// Index into a worker's table.
    pub index: u32,
    /// Unique in this process, never 0.
    pub stamp: u64,
}
