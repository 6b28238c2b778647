//! Whether the mesh in a cluster is well.

use std::collections::BTreeMap;

use heddle_control::installation::{self, Cluster, Found, Member, Redirection};
use heddle_model::timestamp;
use heddle_runtime::clock;

use super::report::{Answer, Report};

/// Pods that are named one by one.
const NAMED_MAX: usize = 10;
/// Roots that end within this time are told, seconds.
const ROOTS_LEFT_MIN: u64 = 60 * 24 * 3600;

/// All that is asked.
pub(super) async fn all(cluster: &Cluster, found: &[Found], report: &mut Report) {
    for one in found {
        installed(cluster, one, report).await;
    }
    let members = match installation::members(cluster, found).await {
        Ok(members) => members,
        Err(error) => return report.failed("pods", error),
    };
    for one in found {
        versions(&members, one, report);
    }
    pods(&members, report);
}

async fn installed(cluster: &Cluster, one: &Found, report: &mut Report) {
    let Found { namespace, settings, .. } = one;
    let revision = one.revision();
    let what = |of: &str| format!("{of} of {revision} in {namespace}");
    match installation::what_is_missing(cluster, namespace, revision).await {
        Ok(None) => report.ok(&what("control plane"), format!("ready, {}", settings.image)),
        Ok(Some(missing)) => report.failed(&what("control plane"), missing),
        Err(error) => report.failed(&what("control plane"), error),
    }
    match installation::what_the_observer_lacks(cluster, namespace).await {
        Ok(None) => report.ok(&what("observer"), "ready"),
        Ok(Some(missing)) => report.failed(&what("observer"), missing),
        Err(error) => report.failed(&what("observer"), error),
    }
    let roots = match cluster.roots(namespace, revision).await {
        Ok(Some(roots)) => roots,
        Ok(None) => {
            return report.failed(&what("authority"), "its roots are not spread yet");
        }
        Err(error) => return report.failed(&what("authority"), error),
    };
    match installation::roots_end(&roots) {
        Ok(end) => {
            let until = timestamp::format(end);
            match end.saturating_sub(clock::unix_now().as_secs()) {
                0 => report.failed(&what("authority"), format!("its roots have ended at {until}")),
                left if left < ROOTS_LEFT_MIN => {
                    report.warning(&what("authority"), format!("its roots end at {until}"));
                }
                _ => report.ok(&what("authority"), format!("its roots hold until {until}")),
            }
        }
        Err(error) => report.failed(&what("authority"), error),
    }
    match cluster.webhook_bundles(revision).await {
        Ok(bundles) => {
            let other = bundles.iter().filter(|(_, bundle)| *bundle != roots);
            let wrong: Vec<String> = other
                .map(|(name, _)| {
                    format!("{name} has another bundle than the roots: the control plane writes it within 10 s; what does it log?")
                })
                .collect();
            let right = format!("{} webhooks believe its roots", bundles.len());
            report.judged(&what("webhook bundles"), Answer::Failed, &wrong, right);
        }
        Err(error) => report.failed(&what("webhook bundles"), error),
    }
    for called in [revision].into_iter().chain(settings.tags.iter().map(String::as_str)) {
        let injection = what(&match called == revision {
            true => "injection".to_owned(),
            false => format!("injection by the tag {called}"),
        });
        match cluster.injects(revision, called).await {
            Ok(None) => {
                report.ok(&injection, "the API server reaches it: a pod gets a sidecar");
            }
            Ok(Some(reason)) => report.failed(&injection, reason),
            Err(error) => report.failed(&injection, error),
        }
    }
}

/// Which versions the sidecars of an installation have.
fn versions(members: &[Member], one: &Found, report: &mut Report) {
    let (revision, image) = (one.revision(), &one.settings.image);
    let what = format!("sidecars of {revision}");
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for sidecar in members.iter().filter_map(|member| member.sidecar.as_ref()) {
        if sidecar.revision == revision {
            *counts.entry((&sidecar.version, &sidecar.image)).or_default() += 1;
        }
    }
    let other: Vec<String> = counts
        .iter()
        .filter(|((_, of), _)| of != image)
        .map(|((version, of), count)| {
            format!("{count} of version {version} have the image {of}, and new ones get {image}: `heddle upgrade --dry-run` names their workloads")
        })
        .collect();
    let all: usize = counts.values().sum();
    report.judged(&what, Answer::Warning, &other, format!("{all}, all with {image}"));
}

fn pods(members: &[Member], report: &mut Report) {
    let named = |which: &dyn Fn(&Member) -> Option<String>| -> Vec<String> {
        let all: Vec<String> = members
            .iter()
            .filter_map(|one| which(one).map(|why| format!("{}/{}{why}", one.namespace, one.pod)))
            .collect();
        let more = all.len().saturating_sub(NAMED_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        all.into_iter().take(NAMED_MAX).chain(more).collect()
    };
    let without = named(&|one| {
        one.sidecar
            .is_none()
            .then(|| format!(" should have a sidecar and has none: restart {}", one.workload))
    });
    report.judged("pods without a sidecar", Answer::Warning, &without, "none lacks one");
    let uncaptured = named(&|one| match &one.sidecar.as_ref()?.redirection {
        Redirection::Failed(why) => Some(format!(
            ": {why}; `kubectl logs --namespace {} {} -c heddle-init` says more",
            one.namespace, one.pod
        )),
        Redirection::Proven | Redirection::Unknown => None,
    });
    let proven = members.iter().filter(|one| {
        one.sidecar.as_ref().is_some_and(|sidecar| sidecar.redirection == Redirection::Proven)
    });
    let right = format!("proven in {} pods", proven.count());
    report.judged("redirection", Answer::Failed, &uncaptured, right);
    let unready = named(&|one| {
        let ready = one.sidecar.as_ref()?.ready;
        (!ready).then(|| ": its sidecar is not ready".to_owned())
    });
    report.judged("sidecars that are not ready", Answer::Warning, &unready, "none");
}

#[cfg(test)]
mod tests {
    use heddle_control::{injection::InjectionSettings, installation::Sidecar};
    use serde_json::Value;

    use super::*;

    fn member(pod: &str, sidecar: Option<(&str, bool, Redirection)>) -> Member {
        Member {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            workload: "deployment/web".to_owned(),
            sidecar: sidecar.map(|(image, ready, redirection)| Sidecar {
                revision: "default".to_owned(),
                version: "0.1.0".to_owned(),
                image: image.to_owned(),
                ready,
                redirection,
            }),
        }
    }

    #[test]
    fn pods_that_are_not_well_are_named_with_what_helps() {
        let failed = Redirection::Failed("it ended with 1".to_owned());
        let members = [
            member("bare", None),
            member("old", Some(("old", true, Redirection::Proven))),
            member("bad", Some(("old", false, failed))),
        ];
        let mut report = Report { shows: false, checks: Vec::new() };
        let settings = InjectionSettings { image: "new".to_owned(), ..Default::default() };
        let found = Found { namespace: "m".to_owned(), settings, written: Value::Null };
        versions(&members, &found, &mut report);
        pods(&members, &mut report);
        let said: Vec<_> =
            report.checks.iter().map(|one| (one.answer, one.said.as_str())).collect();
        assert_eq!(said[0].0, Answer::Warning);
        assert!(said[0].1.starts_with("2 of version 0.1.0 have the image old"), "{said:?}");
        assert!(said[1].1.contains("shop/bare should have a sidecar"), "{said:?}");
        assert_eq!(said[2].0, Answer::Failed);
        assert!(said[2].1.starts_with("shop/bad: it ended with 1"), "{said:?}");
        assert!(said[3].1.starts_with("shop/bad: its sidecar"), "{said:?}");
    }
}
