//! What is kept of pods and EndpointSlices besides what the registry holds: enough to do without the objects
//! when others come that concern them.

use std::{collections::BTreeMap, net::IpAddr};

use heddle_model::{
    EndpointState, ServiceName, ServicePort, TargetPort, WorkloadId, registry::OutsideAddress,
};
use heddle_wire::local::proxy_config::taken_port;

use crate::kubernetes::objects::{
    Labels, PodObject, SliceConditions, SliceEndpoint, SliceObject, is_tcp,
};

/// Containers that are a sidecar of the mesh.
const SIDECAR: &str = "heddle-proxy";
/// Labels and annotations that say of one pod whether it gets a sidecar.
const INJECT: [&str; 2] = ["heddle.dev/inject", "sidecar.istio.io/inject"];

/// What a pod says besides what the registry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodRecord {
    /// Ports its containers declare, by number.
    pub(super) declared: BTreeMap<u16, String>,
    pub(super) state: EndpointState,
    /// It has its node's addresses, as others have.
    pub(super) host_network: bool,
    /// Has it a sidecar?
    pub(super) has_sidecar: bool,
    /// What it says itself about having one: label or annotation.
    pub(super) says: Option<bool>,
}

impl PodRecord {
    pub(super) fn of(pod: &PodObject) -> Self {
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let ports = containers.clone().flat_map(|container| &container.ports);
        let tcp = ports.filter(|port| is_tcp(&port.protocol) && port.container_port > 0);
        let declared = tcp.filter(|port| taken_port(port.container_port).is_none());
        let ready = pod.status.conditions.iter().find(|one| one.r#type == "Ready");
        let ready = ready.is_some_and(|condition| condition.status == "True");
        let of = |map: &Labels| INJECT.iter().find_map(|key| map.get(*key).map(|is| is == "true"));
        Self {
            declared: declared.map(|port| (port.container_port, port.name.clone())).collect(),
            state: EndpointState::of(ready, pod.metadata.deletion_timestamp.is_some()),
            host_network: pod.spec.host_network,
            has_sidecar: containers.clone().any(|container| container.name == SIDECAR),
            says: of(&pod.metadata.labels).or_else(|| of(&pod.metadata.annotations)),
        }
    }
}

/// The label with the Service a slice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: ServiceName,
    /// Numbers by the name of the service's port; none: whatever number it targets.
    ports: Vec<(String, Option<u16>)>,
    pub(super) endpoints: Vec<(Place, EndpointState)>,
}

/// What an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Pod(WorkloadId),
    Outside(OutsideAddress),
}

impl Slice {
    /// Pods among its endpoints.
    pub(super) fn pods(&self) -> impl Iterator<Item = &WorkloadId> {
        self.endpoints.iter().filter_map(|(place, _)| match place {
            Place::Pod(id) => Some(id),
            Place::Outside(_) => None,
        })
    }

    pub(super) fn of(object: &SliceObject) -> Option<Self> {
        let namespace = &object.metadata.namespace;
        let service = object.metadata.labels.get(SERVICE_NAME)?;
        let ports = object.ports.iter().filter(|port| is_tcp(&port.protocol));
        let endpoints = object.endpoints.iter().flat_map(|one| places(one, object));
        Some(Self {
            service: ServiceName::new(service, namespace).ok()?,
            ports: ports.map(|port| (port.name.clone(), port.port)).collect(),
            endpoints: endpoints.collect(),
        })
    }

    /// The number that a port of the service has on the endpoints of this slice.
    pub(super) fn number(&self, port: &ServicePort) -> Option<u16> {
        let (_, number) = self.ports.iter().find(|(name, _)| *name == port.name)?;
        let number = number.or(match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        });
        number.filter(|number| *number > 0 && taken_port(*number).is_none())
    }
}

/// An endpoint is a pod, or each of its addresses is one.
fn places<'a>(
    endpoint: &'a SliceEndpoint,
    slice: &'a SliceObject,
) -> impl Iterator<Item = (Place, EndpointState)> + 'a {
    let state = state(endpoint.conditions);
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
    let pod = pod.map(|target| {
        let own = &slice.metadata.namespace;
        let namespace = if target.namespace.is_empty() { own } else { &target.namespace };
        Place::Pod(WorkloadId::of_pod(namespace, &target.name))
    });
    let addresses = if pod.is_some() { &[][..] } else { &endpoint.addresses };
    let outside = addresses.iter().filter_map(|address| match slice.address_type.as_str() {
        "FQDN" => Some(OutsideAddress::Host(address.to_ascii_lowercase())),
        _ => address.parse::<IpAddr>().ok().map(OutsideAddress::Ip),
    });
    pod.into_iter().chain(outside.map(Place::Outside)).map(move |place| (place, state))
}

/// `ready` goes before the others: it is what the Service wants its endpoint to be taken for
/// (`publishNotReadyAddresses`). What is not said is well.
fn state(conditions: SliceConditions) -> EndpointState {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, conditions.terminating.unwrap_or(false)) {
        (true, _) => EndpointState::Ready,
        (false, terminating) => match (serving, terminating) {
            // Ready means serving and not terminating; it serves, and yet its Service does not want it.
            (true, false) => EndpointState::Pending,
            (serving, terminating) => EndpointState::of(serving, terminating),
        },
    }
}
