//! The rules of a service in words: what each matches, and what it does.

use heddle_logic::route::Matcher;
use heddle_model::{
    Destination,
    discovery::{
        Answer, ClusterKey, ClusterPolicy, DestinationPort, HttpRule, RuleAction, Target,
        WeightedTarget,
    },
};
use heddle_wire::local::sidecar_api::{PortRules, RuleInForce};

use super::words;

/// The rules of every port, in the order in which they are tried.
#[must_use]
pub fn in_force(destination: &Destination) -> Vec<PortRules> {
    let of_port = |port: &DestinationPort| {
        let faults = port.faults.iter().map(|fault| RuleInForce {
            rule: fault.provenance.0.clone(),
            matches: Matcher::of(&fault.matches, &fault.provenance)
                .map(|matcher| matcher.words())
                .unwrap_or_default(),
            does: vec![format!(
                "{} in {} % of the calls",
                words::injection(fault.does),
                fault.percent
            )],
        });
        let sni = port.sni.iter().map(|rule| RuleInForce {
            rule: rule.provenance.0.clone(),
            matches: rule
                .names
                .iter()
                .map(|name| vec![format!("server name is {name:?}")])
                .collect(),
            does: shares(&rule.targets),
        });
        let tcp = (!port.tcp.is_empty()).then(|| RuleInForce {
            rule: "connections that are no HTTP".to_owned(),
            matches: Vec::new(),
            does: shares(&port.tcp),
        });
        let http = port.http.iter().map(rule);
        PortRules { port: port.number, rules: faults.chain(http).chain(sni).chain(tcp).collect() }
    };
    destination.every_port().map(of_port).collect()
}

/// What DestinationRules ask of the service's clusters: of which, and by which rule.
#[must_use]
pub fn policies(destination: &Destination) -> Vec<RuleInForce> {
    let own = destination.policies.iter().filter(|one| one.cluster.service == destination.service);
    let told = |policy: &ClusterPolicy| {
        let mut does = Vec::new();
        if let Some(rule) = &policy.outlier {
            does.push(words::ejection(rule));
        }
        if let Some(pool) = &policy.pool {
            let limits = [
                ("maxConnections", pool.max_connections),
                ("http1MaxPendingRequests", pool.max_pending),
                ("http2MaxRequests", pool.max_requests),
                ("maxRetries", pool.max_retries),
            ];
            let set = limits.into_iter().filter_map(|(field, most)| Some((field, most?)));
            does.extend(set.map(|(field, most)| format!("{field} {most}")));
        }
        if policy.balancing.is_some() {
            does.push(words::balancing(policy.balancing.as_ref()));
        }
        does.extend(policy.tls.as_ref().map(words::tls));
        RuleInForce {
            rule: policy.provenance.0.clone(),
            matches: vec![vec![cluster(&policy.cluster)]],
            does,
        }
    };
    own.map(told).filter(|one| !one.does.is_empty()).collect()
}

fn rule(rule: &HttpRule) -> RuleInForce {
    let matcher = Matcher::build(rule);
    let traffic = &rule.traffic;
    let mut does: Vec<String> = words_of_faults(rule);
    match (&traffic.answer, &rule.action) {
        (Some(Answer::Redirect(redirect)), _) => {
            does.push(format!("redirects with {}", redirect.status))
        }
        (Some(Answer::Direct(answer)), _) => does.push(format!("answers with {}", answer.status)),
        (None, RuleAction::Forward(targets)) => does.extend(shares(targets)),
        (None, RuleAction::Refuse(reason)) => does.push(format!("refuses: {reason}")),
    }
    does.extend(traffic.timeout.map(|limit| format!("timeout {limit:?}")));
    does.extend(traffic.retries.as_ref().map(|one| format!("retries: {}", words::retries(one))));
    let mirrors = traffic.mirrors.iter();
    does.extend(
        mirrors.map(|mirror| format!("copies {} % to {}", mirror.percent, target(&mirror.to))),
    );
    if traffic.rewrite.is_some() {
        does.push("rewrites path or authority".to_owned());
    }
    if traffic.headers.is_some() {
        does.push("changes headers".to_owned());
    }
    if traffic.cors.is_some() {
        does.push("answers browsers about other origins (CORS)".to_owned());
    }
    RuleInForce {
        rule: rule.provenance.0.clone(),
        matches: matcher.map(|matcher| matcher.words()).unwrap_or_default(),
        does,
    }
}

fn words_of_faults(rule: &HttpRule) -> Vec<String> {
    let faults = rule.fault.iter().flat_map(|fault| words::faults(fault, &rule.provenance));
    faults.map(|fault| format!("{} in {} % of the calls", fault.what, fault.percent)).collect()
}

fn shares(targets: &[WeightedTarget]) -> Vec<String> {
    let sum: u64 = targets.iter().map(|one| u64::from(one.weight)).sum();
    let share = |one: &WeightedTarget| match sum {
        0 => 0.0,
        sum => (f64::from(one.weight) * 1_000.0 / sum as f64).round() / 10.0,
    };
    targets.iter().map(|one| format!("{} % to {}", share(one), target(&one.to))).collect()
}

fn target(to: &Target) -> String {
    match to {
        Target::Cluster(key) => cluster(key),
        Target::Dangling(reason) => format!("nothing ({reason})"),
    }
}

fn cluster(key: &ClusterKey) -> String {
    let subset = key.subset.as_ref().map(|subset| format!(", subset {}", subset.name));
    let namespace = if key.service.is_host() { "" } else { key.service.namespace.as_str() };
    let dot = if namespace.is_empty() { "" } else { "." };
    format!("{}{dot}{namespace}:{}{}", key.service.name, key.port, subset.unwrap_or_default())
}
