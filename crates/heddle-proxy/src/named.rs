//! What a host name means, where the address that was dialled says nothing: a name in a ClientHello today, and
//! the one place to ask for any other.

use std::sync::Arc;

use heddle_model::ServiceName;

use crate::{snapshot::PortPlan, worker::Worker};

/// The service that `host` (lower case, no trailing dot) names here, under its rules of now, and its port
/// of that number. `None` where the name means nothing, has no such port, or nobody can tell in time:
/// the address decides then.
pub(crate) async fn service_named(
    worker: &Worker,
    host: &str,
    port: u16,
) -> Option<(ServiceName, Arc<PortPlan>)> {
    let lookup = &worker.shared.lookup;
    let namespace = &worker.shared.metrics.own().namespace;
    let answer = Box::pin(lookup.name(namespace, host)).await.ok()?;
    let service = &answer.service.as_ref()?.name;
    let plan = Box::pin(lookup.destination(service)).await.ok()?;
    Some((service.clone(), Arc::clone(plan.port(port)?)))
}
