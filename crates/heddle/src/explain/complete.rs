//! What a sidecar is not told: endpoints that take no requests yet.

use heddle_model::{EndpointState, TargetPort, Workload, registry::carries};
use heddle_wire::local::{
    control_api::{ServiceView, WorkloadView},
    sidecar_api::{Explanation, ToldEndpoint, ToldTarget},
};

/// Adds them to the targets whose labels they carry.
pub(super) fn not_ready(
    told: &mut Explanation,
    services: &[ServiceView],
    workloads: &[WorkloadView],
) {
    for target in &mut told.targets {
        let Some(name) = &target.service else { continue };
        let Some(view) = services.iter().find(|view| view.service.name == *name) else { continue };
        let Some(port) = view.service.ports.get(&target.port) else { continue };
        let behind = workloads.iter().map(|view| &view.workload);
        let behind = behind.filter(|one| view.workloads.contains(&one.id));
        let missing: Vec<ToldEndpoint> = behind
            .filter(|one| fits(target, one))
            .filter_map(|one| pending(one, &port.target))
            .collect();
        target.endpoints.extend(missing);
    }
}

fn fits(target: &ToldTarget, one: &Workload) -> bool {
    let labels = target.labels.iter().filter_map(|label| label.split_once('='));
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let known = target.endpoints.iter().any(|endpoint| endpoint.workload == one.id.0);
    !known && carries(&one.labels, &labels)
}

fn pending(one: &Workload, to: &TargetPort) -> Option<ToldEndpoint> {
    let port = one.ports.values().find(|port| match to {
        TargetPort::Number(number) => port.number == *number,
        TargetPort::Name(name) => port.name == *name,
    })?;
    let state = match port.state {
        EndpointState::Ready => return None,
        EndpointState::Pending => "not ready",
        _ => "ending",
    };
    Some(ToldEndpoint {
        workload: one.id.0.clone(),
        version: one.version.clone(),
        address: std::net::SocketAddr::new(one.addresses.first(), port.number).to_string(),
        weight: 1,
        state: state.to_owned(),
        ..ToldEndpoint::default()
    })
}
