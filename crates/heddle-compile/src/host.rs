//! A host as a rule writes it: a service, a wildcard, or a name outside the mesh.

use heddle_model::ServiceName;

/// What a host means, seen from its resource's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// A service of the mesh, whether it is there or not.
    Service(ServiceName),
    /// `*suffix`: every service whose full name ends so.
    Wildcard(String),
    /// A name or address that no service of the mesh can have; a ServiceEntry may be for it.
    Outside(String),
}

/// How closely a host names a service; a greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Closeness(usize);

impl Host {
    pub(crate) fn read(host: &str, namespace: &str) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match host.strip_prefix('*') {
            Some(suffix) => Self::Wildcard(suffix.to_owned()),
            None => {
                ServiceName::resolve(&host, namespace).map_or(Self::Outside(host), Self::Service)
            }
        }
    }

    /// What a rule for this service alone has as its host.
    pub(crate) fn of(service: &ServiceName) -> Self {
        match service.is_host() {
            // Of two labels it reads as a service, here as in the rule.
            true => Self::read(&service.name, ""),
            false => Self::Service(service.clone()),
        }
    }

    /// How closely this names `service`; `None` if it does not.
    pub(crate) fn names(&self, service: &ServiceName) -> Option<Closeness> {
        match self {
            Self::Service(_) | Self::Outside(_) => {
                (*self == Self::of(service)).then_some(Closeness(usize::MAX))
            }
            Self::Wildcard(suffix) => {
                service.fqdn().ends_with(suffix.as_str()).then_some(Closeness(suffix.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_from_its_resources_namespace() {
        let service =
            |name: &str, namespace: &str| Host::Service(ServiceName::new(name, namespace).unwrap());
        assert_eq!(Host::read("reviews", "shop"), service("reviews", "shop"));
        assert_eq!(Host::read("reviews.prod", "shop"), service("reviews", "prod"));
        assert_eq!(Host::read("A.b.svc.cluster.local.", "shop"), service("a", "b"));
        assert_eq!(Host::read("*.b", "shop"), Host::Wildcard(".b".into()));
        assert_eq!(Host::read("10.0.0.1", "shop"), Host::Outside("10.0.0.1".into()));
        assert_eq!(Host::read("www.example.com", "x"), Host::Outside("www.example.com".into()));
    }

    #[test]
    fn the_closest_host_is_the_longest() {
        let service = ServiceName::new("reviews", "shop").unwrap();
        let close = |host: &str| Host::read(host, "shop").names(&service);
        assert!(close("reviews") > close("*.shop.svc.cluster.local"));
        assert!(close("*.shop.svc.cluster.local") > close("*.local"));
        assert!(close("*.local") > close("*"));
        assert_eq!(close("*.prod.svc.cluster.local"), None);
        assert_eq!(close("ratings"), None);
        for (host, written) in
            [("api.example.com", "API.example.com."), ("example.com", "example.com")]
        {
            let outside = ServiceName::of_host(host, "prod").unwrap();
            let close = |host: &str| Host::read(host, "shop").names(&outside);
            assert!(close(written) > close("*.com"), "{host}");
            assert!(close("*.com") > close("*") && close("*").is_some());
            assert_eq!(close("other.example.com"), None);
        }
    }
}
