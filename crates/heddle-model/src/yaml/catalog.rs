//! Which objects of a file are the mesh's: those that are put in force, those that are kept because a
//! later version will, and those of others, which a file of a cluster holds as well.

use super::report::{closest, suggest};

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is read and put in force.
    Served(&'static str),
    /// It is kept, under this kind, and has no effect yet.
    Kept(&'static str),
    /// It is none of the mesh's.
    Foreign,
}

/// API versions under which Istio serves its networking kinds.
pub(super) const API_VERSIONS: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
/// Kinds that are put in force.
pub(super) const SERVED: &[&str] =
    &["VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "Sidecar"];

/// Kinds of an API group of the mesh that are kept. Of two kinds with one name, that of the Gateway API
/// goes by its name and group, as in `kubectl`.
const KEPT: &[(&str, &[(&str, &str)])] = &[
    (
        NETWORKING,
        &[
            ("Gateway", "Gateway"),
            ("WorkloadGroup", "WorkloadGroup"),
            ("ProxyConfig", "ProxyConfig"),
            ("EnvoyFilter", "EnvoyFilter"),
        ],
    ),
    (
        "security.istio.io",
        &[
            ("PeerAuthentication", "PeerAuthentication"),
            ("RequestAuthentication", "RequestAuthentication"),
            ("AuthorizationPolicy", "AuthorizationPolicy"),
        ],
    ),
    ("telemetry.istio.io", &[("Telemetry", "Telemetry")]),
    (
        "extensions.istio.io",
        &[("WasmPlugin", "WasmPlugin"), ("TrafficExtension", "TrafficExtension")],
    ),
    (
        "gateway.networking.k8s.io",
        &[
            ("Gateway", "Gateway.gateway.networking.k8s.io"),
            ("GatewayClass", "GatewayClass"),
            ("HTTPRoute", "HTTPRoute"),
            ("GRPCRoute", "GRPCRoute"),
            ("TCPRoute", "TCPRoute"),
            ("TLSRoute", "TLSRoute"),
            ("UDPRoute", "UDPRoute"),
            ("ReferenceGrant", "ReferenceGrant"),
            ("BackendTLSPolicy", "BackendTLSPolicy"),
            ("ListenerSet", "ListenerSet"),
        ],
    ),
    ("heddle.dev", &[("ErrorBudget", "ErrorBudget"), ("Fault", "Fault"), ("Rollout", "Rollout")]),
];

const NETWORKING: &str = "networking.istio.io";

/// Every kind an object of the mesh may have, as keys name it.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let kept = KEPT.iter().flat_map(|(_, kinds)| kinds.iter().map(|(_, key)| *key));
    SERVED.iter().copied().chain(kept)
}

/// What an object is, by its API version and kind.
///
/// # Errors
/// Which field is wrong, and why.
pub(super) fn place(
    api_version: Option<&str>,
    kind: &str,
) -> Result<Place, (&'static str, String)> {
    let served = SERVED.iter().find(|served| **served == kind).copied();
    let Some(api_version) = api_version else {
        return match (served, kinds().find(|known| *known == kind)) {
            // Its own check asks for the version.
            (Some(served), _) => Ok(Place::Served(served)),
            (None, Some(_)) => Err(("apiVersion", "this field is required".to_owned())),
            (None, None) => {
                let known: Vec<_> = kinds().collect();
                let reason = match closest(kind, &known) {
                    Some(_) => suggest("kind", kind, &known),
                    None => format!(
                        "`{kind}` is no kind of the mesh, and no `apiVersion` says whose it is"
                    ),
                };
                Err(("kind", reason))
            }
        };
    };
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    if let (Some(served), NETWORKING) = (served, group) {
        return Ok(Place::Served(served));
    }
    if let Some((_, known)) = KEPT.iter().find(|(of, _)| *of == group) {
        if let Some((_, key)) = known.iter().find(|(name, _)| *name == kind) {
            return Ok(Place::Kept(key));
        }
        let mut names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        if group == NETWORKING {
            names.extend(SERVED);
        }
        return Err(("kind", suggest("kind", kind, &names)));
    }
    // A slip of the pen must not make a rule somebody else's.
    let groups: Vec<_> = KEPT.iter().map(|(group, _)| *group).collect();
    if let (Some(meant), Some(_)) = (closest(group, &groups), kinds().find(|known| *known == kind))
    {
        let reason = format!("unknown API group `{group}`; did you mean `{meant}`?");
        return Err(("apiVersion", reason));
    }
    Ok(Place::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_by_its_group_and_kind() {
        for (api_version, kind, expected) in [
            ("networking.istio.io/v1", "VirtualService", Place::Served("VirtualService")),
            ("networking.istio.io/v9", "DestinationRule", Place::Served("DestinationRule")),
            ("networking.istio.io/v1", "Gateway", Place::Kept("Gateway")),
            (
                "gateway.networking.k8s.io/v1",
                "Gateway",
                Place::Kept("Gateway.gateway.networking.k8s.io"),
            ),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", Place::Kept("HTTPRoute")),
            ("security.istio.io/v1", "PeerAuthentication", Place::Kept("PeerAuthentication")),
            ("v1", "Service", Place::Foreign),
            ("apps/v1", "Deployment", Place::Foreign),
            ("appmesh.k8s.aws/v1beta2", "VirtualService", Place::Foreign),
            ("networking.k8s.io/v1", "Ingress", Place::Foreign),
        ] {
            assert_eq!(place(Some(api_version), kind), Ok(expected), "{api_version} {kind}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_makes_no_object_foreign() {
        let wrong = |api_version, kind| place(api_version, kind).unwrap_err();
        let (field, reason) = wrong(Some("networking.istio.oi/v1"), "VirtualService");
        assert_eq!(field, "apiVersion");
        assert!(reason.contains("`networking.istio.io`"), "{reason}");
        let (field, reason) = wrong(Some("networking.istio.io/v1"), "VirtualServise");
        assert_eq!(field, "kind");
        assert!(reason.contains("did you mean `VirtualService`?"), "{reason}");
        assert_eq!(wrong(None, "Gateway").0, "apiVersion");
        assert_eq!(wrong(None, "values").0, "kind");
    }
}
