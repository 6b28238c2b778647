//! Which service a host or an address means to a client: the one place that says so, for DNS, for rules
//! and for requests alike.

use std::{cmp::Reverse, net::IpAddr};

use heddle_model::{Registry, Service, ServiceName, registry::OutsideService};

use crate::{
    client::{Client, Export},
    ranges::holds,
};

/// The service that `host` (in lower case, without a trailing dot) means to clients of `namespace`: one of
/// the mesh's own, else that of the closest entry they see; among equals one of their own namespace, then
/// one exported to it by name, then the first in order.
#[must_use]
pub fn named<'r>(registry: &'r Registry, namespace: &str, host: &str) -> Option<&'r Service> {
    let own = ServiceName::resolve(host, namespace).ok();
    let own = own.and_then(|name| registry.services.get(&name));
    let own = own.filter(|service| is_seen(registry, namespace, &service.name));
    own.or_else(|| registry.services.get(outside_named(registry, namespace, host)?))
}

/// The same among entries' hosts only. A host with a wildcard means the entry that has exactly that one.
pub(crate) fn outside_named<'r>(
    registry: &'r Registry,
    namespace: &str,
    host: &str,
) -> Option<&'r ServiceName> {
    let close = |name: &ServiceName| match name.name.strip_prefix('*') {
        _ if name.name == host => Some(usize::MAX),
        Some(suffix) if host.ends_with(suffix) && !host.starts_with('*') => Some(suffix.len()),
        _ => None,
    };
    let client = Client::any_of(namespace);
    let seen = registry.outside.iter().filter(|(name, one)| name.is_host() && sees(client, one));
    let close = seen.filter_map(|(name, one)| Some((close(name)?, name, one)));
    let closest = close.max_by_key(|(close, _, one)| (*close, Reverse(rank(client, one))));
    closest.map(|(_, name, _)| name)
}

/// The entry's service whose address this is to clients of `namespace`: by a whole address before a range,
/// by a small range before a large one.
#[must_use]
pub fn outside_at<'r>(
    registry: &'r Registry,
    namespace: &str,
    ip: IpAddr,
) -> Option<&'r ServiceName> {
    let client = Client::any_of(namespace);
    let close = |name: &ServiceName, one: &OutsideService| {
        if registry.services.get(name)?.vips.contains(&ip) {
            return Some(u8::MAX);
        }
        let ranges = one.addresses.iter().filter(|range| holds(**range, ip));
        ranges.map(|(_, bits)| *bits).max()
    };
    let seen = registry.outside.iter().filter(|(_, one)| sees(client, one));
    let close = seen.filter_map(|(name, one)| Some((close(name, one)?, name, one)));
    let closest = close.max_by_key(|(close, _, one)| (*close, Reverse(rank(client, one))));
    closest.map(|(_, name, _)| name)
}

/// Does it depend on the client whose address this is?
#[must_use]
pub fn addresses_differ(registry: &Registry) -> bool {
    registry.outside.values().any(|one| !one.addresses.is_empty())
}

/// May clients of `namespace` call this service at all? Those of the mesh all may.
pub(crate) fn is_seen(registry: &Registry, namespace: &str, service: &ServiceName) -> bool {
    let outside = registry.outside.get(service);
    outside.is_none_or(|one| sees(Client::any_of(namespace), one))
}

fn sees(client: Client<'_>, one: &OutsideService) -> bool {
    client.sees(&one.key.namespace, &one.export_to)
}

fn rank(client: Client<'_>, one: &OutsideService) -> (bool, Export, usize) {
    let export = Export::to(client, &one.key.namespace, &one.export_to);
    (one.key.namespace != client.namespace, export, one.position)
}
