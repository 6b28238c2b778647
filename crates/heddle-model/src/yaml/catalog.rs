//! Which objects of a file are the mesh's: those that are put in force, those that are kept because a
//! later version will, and those of others, which a file of a cluster holds as well.

use super::report::{closest, suggest};
use crate::resource::GATEWAY_GROUP;

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
/// Istio's kinds that are put in force.
pub(super) const SERVED: &[&str] =
    &["VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "Sidecar"];
/// Routes of the Gateway API that are put in force where a Service is their parent.
pub(super) const ROUTES: &[&str] = &["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];
/// Kinds of the core group that say what the cluster holds.
pub(super) const CORE: &[&str] = &["Service", "Namespace"];
/// API versions of the mesh's own kinds.
pub(super) const OWN_API_VERSIONS: &[&str] = &["heddle.dev/v1alpha1"];
/// Those of them that are put in force.
pub(super) const OWN_SERVED: &[&str] = &["Fault", "MeshConfig"];
/// The kind of Istio's telemetry.
pub(super) const TELEMETRY: &[&str] = &["Telemetry"];

/// All kinds that are put in force, by their API group; the core group has no name.
const SERVED_BY_GROUP: &[(&str, &[&str])] = &[
    (NETWORKING, SERVED),
    ("telemetry.istio.io", TELEMETRY),
    (GATEWAY_GROUP, ROUTES),
    ("", CORE),
    (OWN, OWN_SERVED),
];

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
    ("telemetry.istio.io", &[]),
    (
        "extensions.istio.io",
        &[("WasmPlugin", "WasmPlugin"), ("TrafficExtension", "TrafficExtension")],
    ),
    (
        GATEWAY_GROUP,
        &[
            ("Gateway", "Gateway.gateway.networking.k8s.io"),
            ("GatewayClass", "GatewayClass"),
            ("UDPRoute", "UDPRoute"),
            ("ReferenceGrant", "ReferenceGrant"),
            ("BackendTLSPolicy", "BackendTLSPolicy"),
            ("ListenerSet", "ListenerSet"),
        ],
    ),
    (OWN, &[("ErrorBudget", "ErrorBudget"), ("Rollout", "Rollout")]),
];

const NETWORKING: &str = "networking.istio.io";
const OWN: &str = "heddle.dev";

/// Every kind an object of the mesh may have, as keys name it.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let kept = KEPT.iter().flat_map(|(_, kinds)| kinds.iter().map(|(_, key)| *key));
    let served = SERVED_BY_GROUP.iter().flat_map(|(_, kinds)| kinds.iter().copied());
    served.chain(kept)
}

/// The API group of a kind as keys name it; that of the core group is empty.
#[must_use]
pub fn group_of(kind: &str) -> Option<&'static str> {
    let served = SERVED_BY_GROUP.iter().find(|(_, kinds)| kinds.contains(&kind));
    let is = |(_, key): &(&str, &str)| *key == kind;
    let kept = || KEPT.iter().find(|(_, kinds)| kinds.iter().any(is)).map(|(group, _)| *group);
    served.map(|(group, _)| *group).or_else(kept)
}

/// Is a kind, as keys name it, put in force?
#[must_use]
pub fn is_served(kind: &str) -> bool {
    SERVED_BY_GROUP.iter().any(|(_, kinds)| kinds.contains(&kind))
}

/// What an object is, by its API version and kind.
///
/// # Errors
/// Which field is wrong, and why.
pub(super) fn place(
    api_version: Option<&str>,
    kind: &str,
) -> Result<Place, (&'static str, String)> {
    let served = SERVED_BY_GROUP.iter().find_map(|(group, kinds)| {
        kinds.iter().find(|served| **served == kind).map(|kind| (*group, *kind))
    });
    let Some(api_version) = api_version else {
        return match (served, kinds().find(|known| *known == kind)) {
            // Its own check asks for the version.
            (Some((_, served)), _) => Ok(Place::Served(served)),
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
    if let Some((_, served)) = served.filter(|(of, _)| *of == group) {
        return Ok(Place::Served(served));
    }
    if let Some((_, known)) = KEPT.iter().find(|(of, _)| *of == group) {
        if let Some((_, key)) = known.iter().find(|(name, _)| *name == kind) {
            return Ok(Place::Kept(key));
        }
        let mut names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let served = SERVED_BY_GROUP.iter().filter(|(of, _)| *of == group);
        names.extend(served.flat_map(|(_, kinds)| kinds.iter().copied()));
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
            ("gateway.networking.k8s.io/v1", "HTTPRoute", Place::Served("HTTPRoute")),
            ("gateway.networking.k8s.io/v1", "UDPRoute", Place::Kept("UDPRoute")),
            ("security.istio.io/v1", "PeerAuthentication", Place::Kept("PeerAuthentication")),
            ("v1", "Service", Place::Served("Service")),
            ("v1", "Namespace", Place::Served("Namespace")),
            ("v1", "ConfigMap", Place::Foreign),
            ("serving.knative.dev/v1", "Service", Place::Foreign),
            ("heddle.dev/v1alpha1", "Fault", Place::Served("Fault")),
            ("heddle.dev/v1alpha1", "Rollout", Place::Kept("Rollout")),
            ("chaos-mesh.org/v1alpha1", "Fault", Place::Foreign),
            ("apps/v1", "Deployment", Place::Foreign),
            ("appmesh.k8s.aws/v1beta2", "VirtualService", Place::Foreign),
            ("networking.k8s.io/v1", "Ingress", Place::Foreign),
        ] {
            assert_eq!(place(Some(api_version), kind), Ok(expected), "{api_version} {kind}");
        }
    }

    #[test]
    fn every_kind_has_a_group() {
        assert!(kinds().all(|kind| group_of(kind).is_some()));
        assert_eq!(group_of("Gateway"), Some("networking.istio.io"));
        assert_eq!(group_of("Gateway.gateway.networking.k8s.io"), Some(GATEWAY_GROUP));
        assert_eq!(group_of("Service"), Some(""));
        assert_eq!(group_of("Deployment"), None);
        assert!(is_served("Fault") && !is_served("PeerAuthentication"));
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
