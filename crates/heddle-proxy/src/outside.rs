//! What a call is: whose its address is, and where that does not tell, which service a host names, and whether what
//! nobody knows may be called. And a service's port under the rules of now, for all who have found out which. One
//! place for connections and for whoever asks what would become of them; it opens none.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use heddle_model::{
    ServiceName,
    discovery::{Provenance, WorkloadInfo},
};
use heddle_runtime::clock;

use crate::{
    Shared,
    limits::{HOST_LABEL_BYTES, LOOK_UP_WAIT},
    lookup::LookupError,
    ranges::AddressKind,
    refusal::{Refusal, Refused},
    resolved::Resolved,
    snapshot::{ABSENT_STATUS, AddressOwner, Cluster, DestinationPlan, PortPlan},
};

/// Whose an address is that is called.
#[derive(Debug)]
pub(crate) enum Called {
    /// A service's: its rules hold.
    Service(Arc<ServiceName>),
    /// A workload's own.
    Workload(Arc<WorkloadInfo>),
    /// A workload's that nobody explained.
    Unexplained,
    /// Nobody's of the mesh.
    Outside,
    /// A virtual address that leads nowhere.
    Nowhere(Refusal),
}

/// Whose address `to` is, which is in its canonical form.
pub(crate) async fn called(shared: &Shared, to: SocketAddr) -> Called {
    let ip = to.ip();
    match Box::pin(shared.lookup.address(ip)).await {
        Ok(AddressOwner::Service(service)) => match says_nothing_of(shared, &service, to).await {
            true => Called::Outside,
            false => Called::Service(service),
        },
        Ok(AddressOwner::Workload(workload)) => Called::Workload(workload),
        Ok(AddressOwner::NotKnown) => match shared.ranges.kind(ip) {
            AddressKind::Vip => Called::Nowhere(Refusal::UnknownAddress(ip)),
            AddressKind::Workload => Called::Unexplained,
            AddressKind::HostGateway | AddressKind::Outside => Called::Outside,
        },
        Err(LookupError::NotKnown) => Called::Nowhere(Refusal::UnknownAddress(ip)),
        Err(error @ (LookupError::Timeout | LookupError::Unreachable)) => {
            Called::Nowhere(Refusal::DiscoveryTimeout(format!("{ip} ({error})")))
        }
    }
}

/// Is it a real address of an entry's, and a port that the entry does not have? Who is there is there.
async fn says_nothing_of(shared: &Shared, service: &ServiceName, to: SocketAddr) -> bool {
    let real = service.is_host() && shared.ranges.kind(to.ip()) != AddressKind::Vip;
    let plan = || Box::pin(port_plan(shared, service, to.port()));
    real && matches!(plan().await, Err(Refusal::PortNotDeclared(..)))
}

/// What becomes of a request to an address outside.
#[derive(Debug)]
pub(crate) enum OutsideCall {
    /// Its host names this service, whose rules hold.
    Named(ServiceName, Arc<PortPlan>),
    /// It goes where it was sent.
    Anywhere,
    /// Nowhere: by this Sidecar only what is known may be called.
    Refused(Provenance),
}

/// What becomes of a request that names `authority` to an address outside, at this port.
///
/// # Errors
/// The service that the host names may not be called, or is not known in time.
pub(crate) async fn to_outside(
    shared: &Shared,
    authority: &str,
    port: u16,
) -> Result<OutsideCall, Refusal> {
    let Some(policy) = shared.snapshot.load().outbound() else { return Ok(OutsideCall::Anywhere) };
    let policy = &policy.outbound;
    if policy.names_outside
        && let Some((service, plan)) = Box::pin(named(shared, &host_label(authority), port)).await
    {
        let plan = plan?;
        if !(plan.only_ruled && plan.http.rules().is_empty()) {
            return Ok(OutsideCall::Named(service, plan));
        }
    }
    Ok(match &policy.registry_only {
        None => OutsideCall::Anywhere,
        Some(rule) => OutsideCall::Refused(rule.clone()),
    })
}

/// Do calls of a cluster go to the `address` that they asked for, since it has no endpoints of its own?
///
/// # Errors
/// [`Refusal::DanglingTarget`] for a virtual address, where nobody is.
pub(crate) fn goes_as_asked(
    shared: &Shared,
    cluster: &Cluster,
    address: SocketAddr,
) -> Result<bool, Refusal> {
    if !cluster.outside.as_asked || !cluster.endpoints.is_empty() {
        return Ok(false);
    }
    let is_virtual = shared.ranges.kind(address.ip()) == AddressKind::Vip;
    if is_virtual && cluster.outside.by_name.is_none() {
        let service = &cluster.key.service;
        let why = format!(
            "calls of {service} go to the address they asked for (resolution: NONE), and this one is virtual"
        );
        return Err(Refusal::DanglingTarget(why, ABSENT_STATUS));
    }
    Ok(true)
}

/// A host as a label's value, and as it is looked up: without port, in lower case, and nothing that is no host.
pub(crate) fn host_label(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    if host.is_empty() || host.len() > HOST_LABEL_BYTES || !host.bytes().all(valid) {
        return "unknown".to_owned();
    }
    host.to_ascii_lowercase()
}

/// The service outside the mesh that `host` names to this workload, and its port of that number: by Host of a
/// request, or by the name in a TLS hello. It may be one that rules name and nobody else. `None` for what nobody
/// names, or not with this port.
pub(crate) async fn named(
    shared: &Shared,
    host: &str,
    port: u16,
) -> Option<(ServiceName, Result<Arc<PortPlan>, Refusal>)> {
    // Who cannot be asked now says nothing, and so the address stands.
    let answer = shared.lookup.name(&shared.config.namespace, host).await.ok()?;
    let service = answer.service.as_ref().map(|found| &found.name).filter(|name| name.is_host())?;
    match port_plan(shared, service, port).await {
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
pub(crate) async fn at_host(shared: &Shared, host: &str, port: u16) -> Result<SocketAddr, Refusal> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip.to_canonical(), port));
    }
    if !host.contains('.') {
        return Err(Refusal::NotResolved("a call that names no host outside".to_owned()));
    }
    let names = &shared.state.resolved;
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
pub(crate) fn registry_only(shared: &Shared) -> Option<Provenance> {
    shared.snapshot.load().outbound()?.outbound.registry_only.clone()
}

/// The refusal of what is not known.
pub(crate) fn not_in_registry(what: impl fmt::Display, rule: &Provenance) -> Refused {
    let refusal = Refusal::NotInRegistry(what.to_string(), rule.clone());
    Refused { refusal, rule: Some(rule.clone()) }
}

/// One port of a service under the rules of now.
pub(crate) async fn port_plan(
    shared: &Shared,
    service: &ServiceName,
    port: u16,
) -> Result<Arc<PortPlan>, Refusal> {
    let of = |plan: &DestinationPlan| match (plan.refused(), plan.port(port)) {
        (Some(sidecar), _) => Err(Refusal::NotVisible(service.clone(), sidecar.clone())),
        (None, Some(port)) => Ok(Arc::clone(port)),
        (None, None) => Err(Refusal::PortNotDeclared(service.clone(), port)),
    };
    if let Some(plan) = shared.snapshot.load().destination(service) {
        return of(plan);
    }
    // Only the first request to a service waits here.
    match Box::pin(shared.lookup.destination(service)).await {
        Ok(plan) => of(&plan),
        Err(LookupError::NotKnown) => Err(Refusal::NoEndpoints(service.clone())),
        Err(error) => Err(Refusal::DiscoveryTimeout(format!("{service} ({error})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_label_has_no_port_and_no_case() {
        for (authority, label) in [
            ("Example.com:8080", "example.com"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("", "unknown"),
            ("a b", "unknown"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(host_label(authority), label);
        }
        assert_eq!(host_label(&"x".repeat(300)), "unknown");
    }
}
