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

/// Each rule kind with the other names it goes by.
const RULES: [(&str, &[&str]); 2] = [
    ("VirtualService", &["virtualservice", "virtualservices", "vs"]),
    ("DestinationRule", &["destinationrule", "destinationrules", "dr"]),
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
    let rule = RULES.iter().find(|(_, names)| names.contains(&word_lower.as_str()));
    rule.map(|(kind, _)| Kind::Rule(kind)).ok_or_else(|| {
        Failure::usage(format!(
            "`{word}` is no kind: use virtualservice (vs), destinationrule (dr), services, workloads or all"
        ))
    })
}

/// The kind of a rule as YAML spells it.
///
/// # Errors
/// A usage failure that lists the kinds of rules.
pub(crate) fn canonical(word: &str) -> Result<&'static str, Failure> {
    match kind(word) {
        Ok(Kind::Rule(kind)) => Ok(kind),
        _ => Err(Failure::usage(format!(
            "`{word}` is no kind of rule: use virtualservice (vs) or destinationrule (dr)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_go_by_the_names_of_kubectl() {
        for word in ["vs", "VirtualService", "virtualservices"] {
            assert_eq!(canonical(word), Ok("VirtualService"), "{word}");
        }
        assert_eq!(kind("svc"), Ok(Kind::Services));
        assert!(canonical("services").is_err());
        assert!(kind("gateway").is_err());
    }
}
