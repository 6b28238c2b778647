//! Kinds by the names people type: `vs`, `virtualservices`, `VirtualService`.

use crate::failure::Failure;

/// What `get` can show that is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every rule.
    All,
    /// Rules of one kind, as YAML spells it.
    Rule(&'static str),
    /// Services with their virtual addresses.
    Services,
    /// Workloads with their sidecars.
    Workloads,
}

/// Short names of rule kinds, as in `kubectl`.
const SHORT: &[(&str, &str)] = &[
    ("vs", "VirtualService"),
    ("dr", "DestinationRule"),
    ("ns", "Namespace"),
    ("gw", "Gateway"),
    ("se", "ServiceEntry"),
    ("we", "WorkloadEntry"),
    ("wg", "WorkloadGroup"),
    ("pa", "PeerAuthentication"),
    ("ra", "RequestAuthentication"),
    ("ap", "AuthorizationPolicy"),
];

/// The kind that `word` means.
///
/// # Errors
/// A usage failure that lists the kinds.
pub(crate) fn kind(word: &str) -> Result<Kind, Failure> {
    let word_lower = word.to_ascii_lowercase();
    match word_lower.as_str() {
        "all" | "rules" => return Ok(Kind::All),
        "service" | "services" | "svc" => return Ok(Kind::Services),
        "workload" | "workloads" | "wl" => return Ok(Kind::Workloads),
        _ => {}
    }
    let short = SHORT.iter().find(|(short, _)| *short == word_lower).map(|(_, kind)| *kind);
    let named = |kind: &&str| [singular(kind), plural(kind)].contains(&word_lower);
    short.or_else(|| heddle_model::yaml::kinds().find(named)).map(Kind::Rule).ok_or_else(|| {
        Failure::usage(format!(
            "`{word}` is no kind: use virtualservice (vs), destinationrule (dr), fault, another kind of rule, services, workloads or all"
        ))
    })
}

fn singular(kind: &str) -> String {
    kind.to_ascii_lowercase()
}

/// The plural; of a kind with its group, that of the kind.
fn plural(kind: &str) -> String {
    let lower = singular(kind);
    let (word, group) = match lower.split_once('.') {
        Some((word, group)) => (word, format!(".{group}")),
        None => (lower.as_str(), String::new()),
    };
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies{group}"),
        _ if word.ends_with('s') => format!("{word}es{group}"),
        _ => format!("{word}s{group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_go_by_the_names_of_kubectl() {
        assert_eq!(kind("svc"), Ok(Kind::Services));
        for (word, rule) in [
            ("vs", "VirtualService"),
            ("VirtualService", "VirtualService"),
            ("virtualservices", "VirtualService"),
            ("gw", "Gateway"),
            ("gateways.gateway.networking.k8s.io", "Gateway.gateway.networking.k8s.io"),
            ("authorizationpolicies", "AuthorizationPolicy"),
            ("serviceentries", "ServiceEntry"),
            ("gatewayclasses", "GatewayClass"),
            ("HTTPRoute", "HTTPRoute"),
            ("httproutes", "HTTPRoute"),
            ("ns", "Namespace"),
        ] {
            assert_eq!(kind(word), Ok(Kind::Rule(rule)), "{word}");
        }
        assert!(kind("deployment").is_err());
    }
}
