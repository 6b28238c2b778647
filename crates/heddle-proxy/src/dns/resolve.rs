//! Which names are the mesh's, and what they resolve to.
//!
//! Only a name that could be a service costs a question to the control plane: any, where the workload sees hosts
//! of ServiceEntries; else a single label
//! (`reviews`), two labels (`reviews.default`, and thus `example.com` once per idle period), three
//! that end in `.svc`, and two labels before [`service_suffix`]. All else under that suffix is NXDOMAIN
//! at once (search lists produce `www.example.com.default.svc.cluster.local`), and all other names
//! go to the host's resolvers untouched.
//!
//! In a cluster the resolver outside knows services too, and more of them: headless ones, pods by name, service
//! records. There only the address of a service that has one is answered here, and whatever else is asked is
//! answered there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heddle_model::{NameAnswer, ServiceName, name::service_suffix};

use super::message::MeshQuery;
use crate::{
    Shared,
    lookup::LookupError,
    ranges::AddressKind,
    snapshot::{AddressOwner, Snapshot},
};

/// The host's own loopback.
pub(super) const HOST_NAME: &str = "host.heddle.internal";
/// Names of this kind that are not ours exist nowhere.
const INTERNAL_SUFFIX: &str = "heddle.internal";

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The answer.
    Answer(Vec<u8>),
    /// To the host's resolvers.
    Forward,
}

/// Where a name belongs, by its form alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Under the mesh's own suffix: nobody else may answer. It can be a service or not.
    Mesh { service: bool },
    /// Has names of services below it and nothing itself.
    Above,
    /// Could be a service; if it is not, the host's resolvers may know it.
    Perhaps,
    /// Not ours.
    Foreign,
}

fn form(host: &str, namespace: &str) -> Form {
    let service = ServiceName::resolve(host, namespace).is_ok();
    let mesh = host.strip_suffix(service_suffix());
    match mesh {
        Some("") => Form::Above,
        Some(rest) if rest.strip_suffix('.') == Some(namespace) => Form::Above,
        Some(rest) if rest.ends_with('.') => Form::Mesh { service },
        _ if service => Form::Perhaps,
        _ => Form::Foreign,
    }
}

/// Answers from what is known, or asks the control plane (at most `FETCH_WAIT`).
pub(super) async fn resolve(shared: &Shared, asked: &MeshQuery) -> Resolution {
    let host = asked.host();
    let alone = !shared.config.is_named_outside();
    if !asked.is_internet() || !(alone || asked.is_about_addresses()) {
        return Resolution::Forward;
    }
    if let Some(ip) = asked.reverse() {
        return reverse(shared, asked, ip);
    }
    if let Some(answer) = fixed(shared, asked, &host) {
        return Resolution::Answer(answer);
    }
    let namespace = &shared.config.namespace;
    let owner = owner_of_attributes(&host);
    let names_outside =
        || shared.snapshot.load().outbound().is_some_and(|own| own.outbound.names_outside);
    let in_mesh = match form(owner, namespace) {
        // An entry may name it, if this workload sees any.
        Form::Foreign if owner.contains('.') && names_outside() => false,
        Form::Foreign => return Resolution::Forward,
        Form::Above | Form::Mesh { service: false } if !alone => return Resolution::Forward,
        Form::Above if owner == host => return Resolution::Answer(asked.no_data()),
        Form::Above | Form::Mesh { service: false } => {
            return Resolution::Answer(asked.no_such_name());
        }
        Form::Mesh { service: true } => alone,
        Form::Perhaps => false,
    };
    let found = |vips: &[IpAddr]| of_service(asked, vips, owner == host);
    match shared.lookup.name(namespace, owner).await {
        Ok(answer) => match &answer.service {
            Some(service) => found(&service.vips),
            None if in_mesh => Resolution::Answer(asked.no_such_name()),
            None => Resolution::Forward,
        },
        Err(LookupError::NotKnown) if in_mesh => Resolution::Answer(asked.no_such_name()),
        Err(LookupError::NotKnown) => Resolution::Forward,
        Err(LookupError::Timeout | LookupError::Unreachable) => {
            match in_another_spelling(&shared.snapshot.load(), owner, namespace) {
                Some(vips) => found(&vips),
                None if in_mesh => Resolution::Answer(asked.server_failure()),
                None => Resolution::Forward,
            }
        }
    }
}

/// The name whose attributes are asked about, without labels like `_http._tcp` (RFC 8552) before it.
fn owner_of_attributes(host: &str) -> &str {
    let mut owner = host;
    while let Some((_, rest)) = owner.split_once('.').filter(|_| owner.starts_with('_')) {
        owner = rest;
    }
    owner
}

/// A headless service has no address of its own: its name stands for those of its endpoints, which the
/// resolver of the cluster knows. Attributes of others are none: we have no such records.
fn of_service(asked: &MeshQuery, vips: &[IpAddr], itself: bool) -> Resolution {
    match (vips.is_empty(), itself) {
        (true, _) => Resolution::Forward,
        (false, true) => Resolution::Answer(asked.addresses(vips.iter().copied())),
        (false, false) => Resolution::Answer(asked.no_data()),
    }
}

/// Names that need nobody: the host, and `localhost` (RFC 6761).
fn fixed(shared: &Shared, asked: &MeshQuery, host: &str) -> Option<Vec<u8>> {
    if host == HOST_NAME
        && let Some((v4, v6)) = shared.ranges.host_gateway()
    {
        return Some(asked.addresses([v4.into(), v6.into()]));
    }
    if host == INTERNAL_SUFFIX {
        return Some(asked.no_data());
    }
    if host.ends_with(&format!(".{INTERNAL_SUFFIX}")) {
        return Some(asked.no_such_name());
    }
    (host == "localhost" || host.ends_with(".localhost"))
        .then(|| asked.addresses([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]))
}

/// Reverse queries about mesh addresses stay in the mesh; the host's resolvers cannot know them.
fn reverse(shared: &Shared, asked: &MeshQuery, ip: IpAddr) -> Resolution {
    let ip = ip.to_canonical();
    match shared.ranges.kind(ip) {
        AddressKind::Outside => Resolution::Forward,
        AddressKind::HostGateway => Resolution::Answer(asked.pointer(HOST_NAME)),
        AddressKind::Vip | AddressKind::Workload => {
            Resolution::Answer(match shared.snapshot.load().address(ip) {
                Some(AddressOwner::Service(service)) => asked.pointer(&service.fqdn()),
                _ => asked.no_such_name(),
            })
        }
    }
}

/// While nobody can be asked: the service may be known from another spelling of its name.
fn in_another_spelling(snapshot: &Snapshot, host: &str, namespace: &str) -> Option<Vec<IpAddr>> {
    let service = ServiceName::resolve(host, namespace).ok()?;
    match snapshot.destination(&service) {
        Some(plan) => Some(plan.vips().to_vec()),
        None => snapshot.names().find_map(|answer| vips_of(answer, &service)),
    }
}

fn vips_of(answer: &NameAnswer, service: &ServiceName) -> Option<Vec<IpAddr>> {
    let named = answer.service.as_ref()?;
    (named.name == *service).then(|| named.vips.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_could_be_services_cost_a_question() {
        let mesh = |service| Form::Mesh { service };
        for (host, expected) in [
            ("reviews", Form::Perhaps),
            ("reviews.default", Form::Perhaps),
            ("example.com", Form::Perhaps),
            ("reviews.default.svc", Form::Perhaps),
            ("reviews.default.svc.cluster.local", mesh(true)),
            ("svc.cluster.local", Form::Above),
            ("default.svc.cluster.local", Form::Above),
            ("reviews.svc.cluster.local", mesh(false)),
            ("www.example.com.default.svc.cluster.local", mesh(false)),
            ("www.example.com", Form::Foreign),
            ("_http._tcp.reviews", Form::Foreign),
            ("notsvc.cluster.local", Form::Foreign),
            ("xsvc.cluster.local", Form::Foreign),
            ("", Form::Foreign),
        ] {
            assert_eq!(form(host, "default"), expected, "{host}");
        }
    }

    #[test]
    fn labels_with_an_underscore_are_no_part_of_the_name() {
        for (host, owner) in [
            ("_http._tcp.reviews", "reviews"),
            ("_tcp.reviews.default", "reviews.default"),
            ("reviews", "reviews"),
            ("a._b.c", "a._b.c"),
            ("_alone", "_alone"),
            ("", ""),
        ] {
            assert_eq!(owner_of_attributes(host), owner);
        }
    }
}
