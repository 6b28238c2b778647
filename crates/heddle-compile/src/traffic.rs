//! What a rule does with requests besides choosing where they go, as one port of a service has it.

use heddle_model::{
    discovery::{
        Answer, HeaderOperations, HeaderRules, HttpMatch, Mirror, MirrorCompare, Redirect, Rewrite,
        StringMatch, Traffic, WeightedTarget,
    },
    resource::{MIRROR_COMPARE, Resource, RouteDestination},
};

use crate::{delegate::InForce, target::Scope};

/// The rule's author says that requests may be repeated whatever their method.
const RETRY_UNSAFE: &str = "heddle.dev/retry-unsafe";

/// What `rule` does on the port `number`, where its conditions are `matches`. `root` is the
/// VirtualService that has the hosts.
pub(crate) fn traffic(
    rule: &InForce<'_>,
    root: &Resource,
    matches: &[HttpMatch],
    (scope, number): (Scope<'_>, u16),
) -> Traffic {
    let route = &*rule.route;
    let mut traffic = route.traffic.clone();
    traffic.timeout = traffic.timeout.filter(|limit| !limit.is_zero());
    if let Some(Answer::Redirect(redirect)) = &mut traffic.answer {
        to_port(redirect, route.redirect_to_called_port.then_some(number));
    }
    if let Some(retries) = &mut traffic.retries {
        retries.any_method =
            said_unsafe(root) || said_unsafe(rule.resource) || names_methods(matches);
    }
    if let [only] = &route.route[..] {
        traffic.headers = as_one(traffic.headers.take(), only.headers.as_ref());
    }
    lift_authority(&mut traffic);
    let mirrored = route.mirrors.iter().map(|mirror| Mirror {
        to: scope.target(&mirror.to, number).to,
        percent: mirror.percent,
        compare: compared(root, rule.resource),
    });
    traffic.mirrors = mirrored.collect();
    traffic
}

/// What of the answers of mirrors is compared: what the rule's VirtualService says, else the one that has its
/// hosts.
fn compared(root: &Resource, own: &Resource) -> MirrorCompare {
    let said = [own, root].into_iter().find_map(|one| one.annotations.get(MIRROR_COMPARE));
    let has = |word: &str| said.is_some_and(|said| said.split(',').any(|one| one.trim() == word));
    MirrorCompare { status: has("status"), latency: has("latency"), body: has("body") }
}

/// Where a rule's requests go. What a single destination says of fields is part of the rule's
/// ([`traffic`]), as in Istio.
pub(crate) fn targets(
    route: &[RouteDestination],
    (scope, number): (Scope<'_>, u16),
) -> Vec<WeightedTarget> {
    let alone = route.len() == 1;
    let resolve = |to: &RouteDestination| WeightedTarget {
        headers: to.headers.clone().filter(|_| !alone).map(Box::new),
        ..scope.target(to, number)
    };
    route.iter().map(resolve).collect()
}

/// Does its author say that requests may be repeated whatever their method?
pub(crate) fn said_unsafe(resource: &Resource) -> bool {
    resource.annotations.get(RETRY_UNSAFE).is_some_and(|value| value == "true")
}

/// A port that the scheme implies is not named, as in Istio.
fn to_port(redirect: &mut Redirect, called: Option<u16>) {
    redirect.port = redirect.port.or(called);
    let implied = implied_port(redirect.scheme.as_deref());
    redirect.port = redirect.port.filter(|port| Some(*port) != implied);
}

/// The port of a scheme; of none that of plain HTTP.
pub(crate) fn implied_port(scheme: Option<&str>) -> Option<u16> {
    match scheme.unwrap_or("http") {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Does every alternative name the method it is for?
pub(crate) fn names_methods(matches: &[HttpMatch]) -> bool {
    let named = |one: &HttpMatch| matches!(one.method, Some(StringMatch::Exact(_)));
    !matches.is_empty() && matches.iter().all(named)
}

/// The rule's changes to fields and those of its one destination: the latter's values win.
fn as_one(rule: Option<HeaderRules>, target: Option<&HeaderRules>) -> Option<HeaderRules> {
    let Some(target) = target else { return rule };
    let rule = rule.unwrap_or_default();
    let one = |mut rule: HeaderOperations, target: &HeaderOperations| {
        rule.remove.extend(target.remove.iter().cloned());
        rule.set.extend(target.set.clone());
        rule.add.extend(target.add.clone());
        rule
    };
    Some(HeaderRules {
        request: one(rule.request, &target.request),
        response: one(rule.response, &target.response),
        authority: rule.authority.or_else(|| target.authority.clone()),
    })
}

/// An authority that is written as a field is a rewrite, unless there is one.
pub(crate) fn lift_authority(traffic: &mut Traffic) {
    let Some(authority) = traffic.headers.as_mut().and_then(|headers| headers.authority.take())
    else {
        return;
    };
    let rewrite = traffic.rewrite.get_or_insert_with(Rewrite::default);
    rewrite.authority.get_or_insert(authority);
}

/// What a rule does that a sidecar of an older version cannot: it refuses by this text.
pub(crate) fn for_older_sidecars(answer: Option<&Answer>) -> Option<String> {
    let what = match answer? {
        Answer::Redirect(_) => "redirect",
        Answer::Direct(_) => "directResponse",
    };
    Some(format!("`{what}` needs a newer sidecar: restart the workload"))
}
