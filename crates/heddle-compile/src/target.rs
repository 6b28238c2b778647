//! Where a share of traffic goes: a destination as written, resolved against what is there.

use heddle_model::{
    Registry, Service, ServiceName,
    discovery::{ANY_PORT, ClusterKey, Subset, Target, WeightedTarget},
    resource::RouteDestination,
};

use crate::{
    client::Client,
    host::Host,
    named::{is_seen, outside_named},
    rules::RuleIndex,
};

/// What a destination is resolved against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) index: &'a RuleIndex,
    pub(crate) registry: &'a Registry,
    pub(crate) client: Client<'a>,
    /// Namespace of the rule, in which short names resolve.
    pub(crate) namespace: &'a str,
}

/// What a destination means.
pub(crate) struct Found {
    service: ServiceName,
    subset: Option<Subset>,
    /// `None` where it depends on the port that is called, and that is not known.
    port: Option<u16>,
}

impl<'a> Scope<'a> {
    /// The same for a rule of another namespace.
    pub(crate) fn within(self, namespace: &'a str) -> Self {
        Self { namespace, ..self }
    }

    /// Resolves `to` for calls that arrive on `port`. What is absent makes the target dangling; it
    /// keeps its weight, so its share is refused and goes nowhere else.
    pub(crate) fn target(&self, to: &RouteDestination, port: u16) -> WeightedTarget {
        let key = |found: Found| ClusterKey {
            service: found.service,
            subset: found.subset,
            port: found.port.unwrap_or(port),
        };
        let resolved = self.resolve(to, Some(port)).map(key);
        WeightedTarget {
            weight: to.weight,
            to: resolved.map_or_else(Target::Dangling, Target::Cluster),
            headers: None,
        }
    }

    /// What a destination means, for calls to port `called` where that is known.
    ///
    /// # Errors
    /// What is absent, in words.
    pub(crate) fn resolve(
        &self,
        to: &RouteDestination,
        called: Option<u16>,
    ) -> Result<Found, String> {
        let service = self.named(&to.host)?;
        let name = service.name.clone();
        let port = port_of(service, to.port, called)?;
        let subset = match &to.subset {
            None => None,
            Some(subset) => match self.index.subset(self.client, &name, subset) {
                None => return Err(self.no_subset(&name, subset)),
                found => found,
            },
        };
        Ok(Found { service: name, subset, port })
    }

    /// The service that a destination names, if it is there.
    pub(crate) fn service(&self, to: &RouteDestination) -> Option<&'a Service> {
        self.named(&to.host).ok()
    }

    /// The service that a host means: short names in the rule's namespace, entries' hosts as its client
    /// sees them.
    fn named(&self, written: &str) -> Result<&'a Service, String> {
        let host = Host::read(written, self.namespace);
        let own = match &host {
            Host::Service(name) => self.registry.services.get(name),
            Host::Wildcard(_) | Host::Outside(_) => None,
        };
        let seen = |one: &&Service| is_seen(self.registry, self.client.namespace, &one.name);
        let plain = written.trim_end_matches('.').to_ascii_lowercase();
        let outside = || outside_named(self.registry, self.client.namespace, &plain);
        let outside = || self.registry.services.get(outside()?);
        own.filter(seen).or_else(outside).ok_or_else(|| match &host {
            Host::Service(name) => format!("there is no service `{name}`"),
            Host::Wildcard(_) => format!("`{written}` names no single service"),
            Host::Outside(_) => format!("`{written}` is no service of this mesh"),
        })
    }

    fn no_subset(&self, service: &ServiceName, subset: &str) -> String {
        let known = self.index.subsets(self.client, service);
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
        (None, _, Some(ANY_PORT)) => Err(format!(
            "no port is given, and `{}` has several: say which of {}",
            service.name,
            listed()
        )),
        (None, _, Some(called)) => Err(format!(
            "no port is given, and `{}` has several but not {called}: say which of {}",
            service.name,
            listed()
        )),
    }
}
