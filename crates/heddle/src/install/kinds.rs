//! Kinds of rules as a cluster has to be told them (CustomResourceDefinitions), for clusters in which nobody has
//! defined them yet.
//!
//! What a rule may say is checked by the control plane, with positions and hints; the definitions therefore only
//! say that there is a `spec` and a `status`.

use std::fmt::Write as _;

/// Kinds of one API group.
struct Group {
    name: &'static str,
    /// What the cluster asks for where the group is one of Kubernetes' own.
    approval: Option<&'static str>,
    /// Those who define them otherwise; the file of the chart is named so too.
    owner: &'static str,
    kinds: &'static [Kind],
}

/// One kind.
struct Kind {
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// Served versions, the stored one first.
    versions: &'static [&'static str],
    scope: &'static str,
}

/// The owner of our own kinds.
pub(crate) const OURS: &str = "heddle";

const NAMESPACED: &str = "Namespaced";
const CLUSTER: &str = "Cluster";
/// Istio's networking kinds go by three names since long.
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// A kind with its plural, short names and versions.
const fn kind(
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    versions: &'static [&'static str],
) -> Kind {
    Kind { name, plural, short, versions, scope: NAMESPACED }
}

/// All of them.
static GROUPS: [Group; 6] = [
    Group {
        name: "heddle.dev",
        approval: None,
        owner: OURS,
        kinds: &[
            kind("Fault", "faults", &[], &["v1alpha1"]),
            kind("MeshConfig", "meshconfigs", &[], &["v1alpha1"]),
        ],
    },
    Group {
        name: "networking.istio.io",
        approval: None,
        owner: "istio",
        kinds: &[
            kind("VirtualService", "virtualservices", &["vs"], THREE),
            kind("DestinationRule", "destinationrules", &["dr"], THREE),
            kind("Gateway", "gateways", &["gw"], THREE),
            kind("ServiceEntry", "serviceentries", &["se"], THREE),
            kind("WorkloadEntry", "workloadentries", &["we"], THREE),
            kind("WorkloadGroup", "workloadgroups", &["wg"], THREE),
            kind("Sidecar", "sidecars", &[], THREE),
            kind("EnvoyFilter", "envoyfilters", &[], &["v1alpha3"]),
            kind("ProxyConfig", "proxyconfigs", &[], &["v1beta1"]),
        ],
    },
    Group {
        name: "security.istio.io",
        approval: None,
        owner: "istio",
        kinds: &[
            kind("AuthorizationPolicy", "authorizationpolicies", &["ap"], &["v1", "v1beta1"]),
            kind("PeerAuthentication", "peerauthentications", &["pa"], &["v1", "v1beta1"]),
            kind("RequestAuthentication", "requestauthentications", &["ra"], &["v1", "v1beta1"]),
        ],
    },
    Group {
        name: "telemetry.istio.io",
        approval: None,
        owner: "istio",
        kinds: &[kind("Telemetry", "telemetries", &["telemetry"], &["v1", "v1alpha1"])],
    },
    Group {
        name: "extensions.istio.io",
        approval: None,
        owner: "istio",
        kinds: &[
            kind("WasmPlugin", "wasmplugins", &[], &["v1alpha1"]),
            kind("TrafficExtension", "trafficextensions", &[], &["v1alpha1"]),
        ],
    },
    Group {
        name: "gateway.networking.k8s.io",
        approval: Some(
            "unapproved, without schemas; put the Gateway API's own in their place for those",
        ),
        owner: "gateway-api",
        kinds: &[
            Kind {
                scope: CLUSTER,
                ..kind("GatewayClass", "gatewayclasses", &["gc"], &["v1", "v1beta1"])
            },
            kind("Gateway", "gateways", &["gtw"], &["v1", "v1beta1"]),
            kind("HTTPRoute", "httproutes", &[], &["v1", "v1beta1"]),
            kind("GRPCRoute", "grpcroutes", &[], &["v1", "v1alpha2"]),
            kind("TCPRoute", "tcproutes", &[], &["v1", "v1alpha2"]),
            kind("TLSRoute", "tlsroutes", &[], &["v1", "v1alpha3", "v1alpha2"]),
            kind("UDPRoute", "udproutes", &[], &["v1", "v1alpha2"]),
            kind("ReferenceGrant", "referencegrants", &["refgrant"], &["v1", "v1beta1"]),
            kind("BackendTLSPolicy", "backendtlspolicies", &["btlspolicy"], &["v1", "v1alpha3"]),
            kind("ListenerSet", "listenersets", &[], &["v1"]),
        ],
    },
];

/// One kind's definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// Whose kind it is: `heddle`, `istio` or `gateway-api`.
    pub owner: &'static str,
    /// The definition as YAML.
    pub text: String,
}

/// All definitions.
pub(crate) fn definitions() -> Vec<Definition> {
    let of = |group: &Group| {
        let made = group.kinds.iter().map(|kind| definition(group, kind));
        made.map(|text| Definition { owner: group.owner, text }).collect::<Vec<_>>()
    };
    GROUPS.iter().flat_map(of).collect()
}

fn definition(group: &Group, kind: &Kind) -> String {
    let Group { name: group_name, approval, .. } = group;
    let Kind { name, plural, short, versions, scope } = kind;
    let mut text = format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.{group_name}
  labels:
    app.kubernetes.io/part-of: heddle
"
    );
    // Writing to a string cannot fail.
    if let Some(approval) = approval {
        let _ = write!(text, "  annotations:\n    api-approved.kubernetes.io: \"{approval}\"\n");
    }
    let singular = name.to_lowercase();
    let _ = write!(
        text,
        "spec:
  group: {group_name}
  names:
    kind: {name}
    listKind: {name}List
    plural: {plural}
    singular: {singular}
"
    );
    if !short.is_empty() {
        let _ = writeln!(text, "    shortNames: [{}]", short.join(", "));
    }
    let _ = writeln!(text, "  scope: {scope}\n  versions:");
    for (i, version) in versions.iter().enumerate() {
        let stored = i == 0;
        let _ = write!(
            text,
            "  - name: {version}
    served: true
    storage: {stored}
    subresources:
      status: {{}}
    additionalPrinterColumns:
    - name: Age
      type: date
      jsonPath: .metadata.creationTimestamp
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-preserve-unknown-fields: true
          status:
            type: object
            x-kubernetes-preserve-unknown-fields: true
"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// What the rules of ours are kept under, and have no effect yet: no cluster needs them.
    const NOT_DEFINED: [&str; 2] = ["ErrorBudget", "Rollout"];
    /// What every cluster has.
    const OF_KUBERNETES: [&str; 2] = ["Service", "Namespace"];

    fn all() -> impl Iterator<Item = (&'static Group, &'static Kind)> {
        GROUPS.iter().flat_map(|group| group.kinds.iter().map(move |kind| (group, kind)))
    }

    #[test]
    fn every_kind_that_is_read_is_defined() {
        for known in heddle_model::yaml::kinds() {
            let (name, group) = known.split_once('.').unwrap_or((known, ""));
            let other = NOT_DEFINED.contains(&name) || OF_KUBERNETES.contains(&name);
            let defined = all().any(|(of, kind)| kind.name == name && of.name.ends_with(group));
            assert!(defined != other, "{known}");
        }
    }

    #[test]
    fn the_control_plane_may_read_every_kind_that_is_defined() {
        let access = include_str!("../../../../charts/heddle/templates/access.yaml");
        for (group, kind) in all() {
            assert!(access.contains(&format!("apiGroups: [{}", group.name)), "{}", group.name);
            let named = |word: &str| {
                access.split(|c: char| !c.is_ascii_alphanumeric() && c != '/').any(|w| w == word)
            };
            assert!(named(kind.plural), "{}", kind.plural);
            // A ReferenceGrant has no status.
            assert!(
                named(&format!("{}/status", kind.plural)) != (kind.name == "ReferenceGrant"),
                "{}",
                kind.plural
            );
        }
    }

    /// `HEDDLE_WRITE=1 cargo test -p heddle the_chart_has_the_same_kinds` writes them.
    #[test]
    fn the_chart_has_the_same_kinds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/heddle/crds");
        for owner in ["heddle", "istio", "gateway-api"] {
            let of_owner = definitions().into_iter().filter(|definition| definition.owner == owner);
            let definitions: Vec<_> = of_owner.map(|definition| definition.text).collect();
            let file = folder.join(format!("{owner}.yaml"));
            if std::env::var_os("HEDDLE_WRITE").is_some() {
                fs::write(&file, definitions.join("---\n")).unwrap();
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), definitions.join("---\n"), "{owner}");
        }
    }
}
