//! What a call is where its address does not tell: which service a host names, and whether what nobody
//! knows may be called. And a service's port under the rules of now, for all who have found out which.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use heddle_model::{ServiceName, discovery::Provenance};
use heddle_runtime::clock;

use crate::{
    limits::LOOK_UP_WAIT,
    lookup::LookupError,
    refusal::{Refusal, Refused},
    resolved::Resolved,
    snapshot::{DestinationPlan, PortPlan},
    worker::Worker,
};

/// The service outside the mesh that `host` names to this workload, and its port of that number: by Host of a
/// request, or by the name in a TLS hello. It may be one that rules name and nobody else. `None` for what nobody
/// names, or not with this port.
pub(crate) async fn named(
    worker: &Worker,
    host: &str,
    port: u16,
) -> Option<(ServiceName, Result<Arc<PortPlan>, Refusal>)> {
    let shared = &worker.shared;
    // Who cannot be asked now says nothing, and so the address stands.
    let answer = shared.lookup.name(&shared.config.namespace, host).await.ok()?;
    let service = answer.service.as_ref().map(|found| &found.name).filter(|name| name.is_host())?;
    match port_plan(worker, service, port).await {
        // The last: it is gone since it was answered.
        Err(
            Refusal::PortNotDeclared(..) | Refusal::DiscoveryTimeout(_) | Refusal::NoEndpoints(_),
        ) => None,
        plan => Some((service.clone(), plan)),
    }
}

/// Where a host is outside the mesh, by what its name leads to now; the first caller waits for the answer.
///
/// # Errors
/// [`Refusal::NotResolved`], with the name and what was said of it.
pub(crate) async fn at_host(worker: &Worker, host: &str, port: u16) -> Result<SocketAddr, Refusal> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip.to_canonical(), port));
    }
    if !host.contains('.') {
        return Err(Refusal::NotResolved("a call that names no host outside".to_owned()));
    }
    let names = &worker.shared.state.resolved;
    let said = match clock::within(LOOK_UP_WAIT, names.look_up(host)).await {
        Some(Resolved::Addresses(all)) => match all.first() {
            Some(ip) => return Ok(SocketAddr::new(*ip, port)),
            None => "it has no address".into(),
        },
        Some(Resolved::Never(said)) => said,
        Some(Resolved::Pending) | None => "no resolver of the host has answered in time".into(),
    };
    Err(Refusal::NotResolved(format!("{host}: {said}")))
}

/// The Sidecar by which only what is known may be called, if one says so.
pub(crate) fn registry_only(worker: &Worker) -> Option<Provenance> {
    worker.shared.snapshot.load().outbound()?.outbound.registry_only.clone()
}

/// The refusal of what is not known.
pub(crate) fn not_in_registry(what: impl fmt::Display, rule: &Provenance) -> Refused {
    let refusal = Refusal::NotInRegistry(what.to_string(), rule.clone());
    Refused { refusal, rule: Some(rule.clone()) }
}

/// One port of a service under the rules of now.
pub(crate) async fn port_plan(
    worker: &Worker,
    service: &ServiceName,
    port: u16,
) -> Result<Arc<PortPlan>, Refusal> {
    let of = |plan: &DestinationPlan| match (plan.refused(), plan.port(port)) {
        (Some(sidecar), _) => Err(Refusal::NotVisible(service.clone(), sidecar.clone())),
        (None, Some(port)) => Ok(Arc::clone(port)),
        (None, None) => Err(Refusal::PortNotDeclared(service.clone(), port)),
    };
    if let Some(plan) = worker.shared.snapshot.load().destination(service) {
        return of(plan);
    }
    // Only the first request to a service waits here.
    match Box::pin(worker.shared.lookup.destination(service)).await {
        Ok(plan) => of(&plan),
        Err(LookupError::NotKnown) => Err(Refusal::NoEndpoints(service.clone())),
        Err(error) => Err(Refusal::DiscoveryTimeout(format!("{service} ({error})"))),
    }
}
