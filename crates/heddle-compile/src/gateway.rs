//! Routes of the Gateway API on the ports of Services (GEP-1426): which of them apply to a client on a port,
//! and in which order their rules do.
//!
//! Of the routes that are attached to a port those of the client's namespace go before those of the
//! Service's, and are not merged with them; routes of other namespaces do not count for this client. Of
//! those left one kind applies. What a rule becomes is in `rules`, what is said of a route in `status`.

use heddle_model::{
    Protocol, Registry, Service, ServiceName, ServicePort,
    discovery::{ClusterKey, HttpRule, SniRule, Target, WeightedTarget},
    resource::{BackendRef, ParentRef, RouteKind},
};

use crate::{
    carries::{takes_http, takes_tls},
    rules::{RouteSource, RuleIndex},
};

mod precedence;
mod rules;
mod status;

pub use status::{Condition, ParentStatus};

/// The routes that decide about calls of a client on one port.
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) kind: RouteKind,
    /// All of that kind, oldest first.
    pub(crate) routes: Vec<RouteSource<'a>>,
}

/// What one port of a service is told.
#[derive(Debug, Default)]
pub(crate) struct PortRules {
    pub(crate) http: Vec<HttpRule>,
    pub(crate) tcp: Vec<WeightedTarget>,
    pub(crate) sni: Vec<SniRule>,
}

impl RuleIndex {
    /// The routes that decide about calls of clients of `namespace` on a port; `None` if there are none.
    pub(crate) fn attached(
        &self,
        namespace: &str,
        service: &Service,
        port: &ServicePort,
    ) -> Option<Attached<'_>> {
        let own = self.attached_from(namespace, service, port);
        own.or_else(|| self.attached_from(&service.name.namespace, service, port))
    }

    /// The same, of routes of one namespace alone.
    pub(crate) fn attached_from(
        &self,
        namespace: &str,
        service: &Service,
        port: &ServicePort,
    ) -> Option<Attached<'_>> {
        let here: Vec<_> = self
            .routes_of(&service.name)
            .filter(|one| one.resource.key.namespace == namespace)
            .filter(|one| carries(port.protocol, one.route.kind))
            .filter(|one| one.parents_of(&service.name).any(|parent| names_port(parent, port)))
            .collect();
        let kind = here.iter().map(|one| one.route.kind).min()?;
        let routes = here.into_iter().filter(|one| one.route.kind == kind).collect();
        Some(Attached { kind, routes })
    }
}

impl<'a> RouteSource<'a> {
    /// Its parents that are this service.
    pub(crate) fn parents_of(
        self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a ParentRef> + use<'a, '_> {
        let home = &self.resource.key.namespace;
        let parents = self.route.parents.iter().filter(|parent| parent.is_service());
        parents.filter(move |parent| {
            let namespace = parent.namespace.as_ref().unwrap_or(home);
            *namespace == service.namespace && parent.name == service.name
        })
    }
}

/// Can a route of this kind apply to a port of this protocol? Connections of every port can be routed as
/// such, requests where there can be any, and connections of TLS by the name they ask for.
pub(crate) fn carries(protocol: Protocol, kind: RouteKind) -> bool {
    match kind {
        RouteKind::Grpc | RouteKind::Http => takes_http(protocol),
        RouteKind::Tls => takes_tls(protocol),
        RouteKind::Tcp => true,
    }
}

/// Is the port one of those that a parent means?
pub(crate) fn names_port(parent: &ParentRef, port: &ServicePort) -> bool {
    parent.port.is_none_or(|number| number == port.number)
        && parent.section_name.as_ref().is_none_or(|name| *name == port.name)
}

/// Why a backend gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its kind is none that can be called.
    Kind(String),
    /// It is absent.
    Absent(String),
    /// It has a filter that is not carried out.
    Filter(String),
}

impl Fault {
    /// In words.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Kind(text) | Self::Absent(text) | Self::Filter(text) => text,
        }
    }
}

/// The endpoints that a backend means, named by a route of `namespace`. No grant is needed for one of
/// another namespace: in a mesh its owner decides by policy who may call it.
pub(crate) fn resolve(
    registry: &Registry,
    namespace: &str,
    to: &BackendRef,
) -> Result<ClusterKey, Fault> {
    if let Some(filter) = &to.unknown_filter {
        return Err(Fault::Filter(format!("{} is not carried out", filter.what)));
    }
    if to.kind != "Service" || !to.group.is_empty() {
        let group = if to.group.is_empty() { String::new() } else { format!(".{}", to.group) };
        let text = format!("a {}{group} is no backend here: name a Service", to.kind);
        return Err(Fault::Kind(text));
    }
    let namespace = to.namespace.as_deref().unwrap_or(namespace);
    let service = ServiceName { namespace: namespace.to_owned(), name: to.name.clone() };
    let Some(found) = registry.services.get(&service) else {
        return Err(Fault::Absent(format!("there is no service `{service}`")));
    };
    match to.port.filter(|port| found.ports.contains_key(port)) {
        Some(port) => Ok(ClusterKey { service, subset: None, port }),
        None => {
            let port = to.port.unwrap_or_default();
            Err(Fault::Absent(format!("`{service}` has no port {port}")))
        }
    }
}

/// The same as a target.
pub(crate) fn target(registry: &Registry, namespace: &str, to: &BackendRef) -> Target {
    match resolve(registry, namespace, to) {
        Ok(key) => Target::Cluster(key),
        Err(fault) => Target::Dangling(fault.text().to_owned()),
    }
}
