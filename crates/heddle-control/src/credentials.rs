//! Files with certificates and keys that rules name. Sidecars read them; where this process sees the same files,
//! an `apply` finds out now what every request would be told later. Nothing of a file is kept.

use heddle_model::resource::{PolicyParts, Resource, Spec, TlsSettings, TrafficPolicy};
use heddle_runtime::tls::{FileFault, check};
use heddle_wire::local::control_api::Problem;

/// What is wrong with the files that these objects name, each file once.
pub(crate) fn problems(resources: &[Resource]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for resource in resources {
        let Spec::DestinationRule(rule) = &resource.spec else { continue };
        let mut look = |place: &str, policy: &Option<TrafficPolicy>| {
            let Some(policy) = policy else { return };
            let general = (String::new(), &policy.general);
            let ports = policy.ports.iter().enumerate();
            let ports = ports.map(|(i, (_, parts))| (format!(".portLevelSettings[{i}]"), parts));
            for (below, parts) in std::iter::once(general).chain(ports) {
                let Some(fault) = fault(parts) else { continue };
                let problem = problem(resource, &format!("{place}.trafficPolicy{below}"), &fault);
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        };
        look("spec", &rule.policy);
        for (i, subset) in rule.subsets.iter().enumerate() {
            look(&format!("spec.subsets[{i}]"), &subset.policy);
        }
    }
    problems
}

fn fault(parts: &PolicyParts) -> Option<FileFault> {
    let Some(TlsSettings::Originate(tls)) = &parts.tls else { return None };
    // Of a credential that is not in force yet the rule's state tells.
    let by_credential = tls.mutual && tls.certificate.is_none();
    if by_credential { None } else { check(tls).err() }
}

fn problem(resource: &Resource, place: &str, fault: &FileFault) -> Problem {
    let FileFault { field, path, reason } = fault;
    let named = |line: &str| line.contains(field) && line.contains(path.as_str());
    let at = resource.text.lines().position(named).unwrap_or(0);
    let shown = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Problem {
        file: Some(resource.origin.file.clone()),
        line: Some(resource.origin.line + at),
        field: Some(format!("{place}.tls.{field}")),
        reason: format!("{} cannot be carried out: {shown}{reason}", resource.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::parse;

    #[test]
    fn a_file_that_is_missing_is_told_at_its_place() {
        let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: a\n  trafficPolicy:\n    tls:\n      mode: SIMPLE\n      caCertificates: /nowhere/ca.pem\n  subsets:\n  - name: v1\n    trafficPolicy:\n      portLevelSettings:\n      - port: {number: 80}\n        tls: {mode: MUTUAL, clientCertificate: /nowhere/c.pem, privateKey: /k.pem}\n      - port: {number: 81}\n        tls: {mode: SIMPLE, insecureSkipVerify: true}\n";
        let resources = parse("f.yaml", &format!("---\n{text}"), "default").unwrap().resources;
        let problems = problems(&resources);
        let shown: Vec<_> =
            problems.iter().map(|one| (one.line, one.field.as_deref().unwrap())).collect();
        let second = "spec.subsets[0].trafficPolicy.portLevelSettings[0].tls.clientCertificate";
        let first = "spec.trafficPolicy.tls.caCertificates";
        let line = resources[0].origin.line;
        assert_eq!(shown, [(Some(line + 8), first), (Some(line + 14), second)]);
        let wanted =
            "DestinationRule/default/r cannot be carried out: /nowhere/ca.pem: No such file";
        assert!(problems[0].reason.starts_with(wanted), "{problems:?}");
    }
}
