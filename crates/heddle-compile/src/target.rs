//! Where a share of traffic goes: a destination as written, resolved against what is there.

use heddle_model::{
    Registry, Service, ServiceName, discovery::WeightedTarget, resource::RouteDestination,
};

use crate::{client::Client, host::Host, rules::Compiled};

/// What a destination is resolved against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) compiled: &'a Compiled,
    pub(crate) registry: &'a Registry,
    pub(crate) client: Client<'a>,
    /// Namespace of the rule, in which short names resolve.
    pub(crate) namespace: &'a str,
}

impl Scope<'_> {
    /// Resolves `to` for calls that arrive for `called` on `port`. What is absent makes the target
    /// dangling; it keeps its weight, so its share is refused and goes nowhere else.
    pub(crate) fn target(
        &self,
        to: &RouteDestination,
        called: &ServiceName,
        port: u16,
    ) -> WeightedTarget {
        let service = match Host::read(&to.host, self.namespace) {
            Host::Service(name) => name,
            _ => called.clone(),
        };
        let mut target = WeightedTarget {
            service,
            subset: None,
            port: to.port.unwrap_or(port),
            weight: to.weight,
            dangling: None,
        };
        match self.resolve(to, Some(port)) {
            Ok(port) => target.port = port.unwrap_or(target.port),
            Err(reason) => target.dangling = Some(reason),
        }
        if let (None, Some(subset)) = (&target.dangling, &to.subset) {
            target.subset = self.compiled.subset(self.client, &target.service, subset);
        }
        target
    }

    /// The port a destination means, for calls to port `called` where that is known.
    ///
    /// # Errors
    /// What is absent, in words.
    pub(crate) fn resolve(
        &self,
        to: &RouteDestination,
        called: Option<u16>,
    ) -> Result<Option<u16>, String> {
        let name = match Host::read(&to.host, self.namespace) {
            Host::Service(name) => name,
            Host::Wildcard(_) => return Err(format!("`{}` names no single service", to.host)),
            Host::Outside(_) => return Err(format!("`{}` is no service of this mesh", to.host)),
        };
        let Some(service) = self.registry.services.get(&name) else {
            return Err(format!("there is no service `{name}`"));
        };
        let port = port_of(service, to.port, called)?;
        if let Some(subset) = &to.subset
            && self.compiled.subset(self.client, &name, subset).is_none()
        {
            return Err(self.no_subset(&name, subset));
        }
        Ok(port)
    }

    fn no_subset(&self, service: &ServiceName, subset: &str) -> String {
        let known = self.compiled.subsets(self.client, service);
        let known: Vec<_> = known.keys().map(|name| format!("`{name}`")).collect();
        if known.is_empty() {
            return format!("no DestinationRule defines the subset `{subset}` of `{service}`");
        }
        format!(
            "no DestinationRule defines the subset `{subset}` of `{service}`; defined are {}",
            known.join(", ")
        )
    }
}

/// The port a destination without one means: the only one the service has, else the port that was
/// called, as in Istio.
fn port_of(
    service: &Service,
    written: Option<u16>,
    called: Option<u16>,
) -> Result<Option<u16>, String> {
    let ports: Vec<_> = service.ports.keys().copied().collect();
    let listed = || ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    match (written, &ports[..], called) {
        (_, [], _) => Err(format!("`{}` has no port", service.name)),
        (Some(port), _, _) if ports.contains(&port) => Ok(Some(port)),
        (Some(port), _, _) => {
            Err(format!("`{}` has no port {port}, but {}", service.name, listed()))
        }
        (None, &[only], _) => Ok(Some(only)),
        (None, _, None) => Ok(None),
        (None, _, Some(called)) if ports.contains(&called) => Ok(Some(called)),
        (None, _, Some(called)) => Err(format!(
            "no port is given, and `{}` has several but not {called}: say which of {}",
            service.name,
            listed()
        )),
    }
}
