//! Rules in words: what they are met by and what they do. For people; nothing is decided by these texts.

use std::{collections::BTreeMap, time::Duration};

use heddle_model::{
    discovery::{
        Fault, HeaderMatch, HttpMatch, Injection, OutlierDetection, StringMatch, TcpFault,
    },
    resource::{
        BackendRef, DestinationRule, FaultRule, FaultTarget, HttpRoute, MeshMatch, MeshRoute,
        PathMatch, PolicyParts, Resource, RouteDestination, RouteMatch, Spec, TcpMatch,
        VirtualService,
    },
};
use heddle_wire::local::observe_api::{FaultWord, RulePart};

use crate::limits;

/// What is met by whatever comes.
const ALL: &str = "all";

/// The single rules of an object.
pub(super) fn parts(resource: &Resource) -> Vec<RulePart> {
    let mut parts = match &resource.spec {
        Spec::VirtualService(one) => virtual_service(resource, one),
        Spec::DestinationRule(one) => destination_rule(one),
        Spec::Route(route) => mesh_route(route),
        Spec::Fault(rule) => vec![fault_rule(resource, rule)],
        _ => Vec::new(),
    };
    parts.truncate(limits::ROWS_MAX);
    for part in &mut parts {
        for text in [&mut part.matches, &mut part.does] {
            *text = short(text);
        }
    }
    parts
}

/// The text within the limit.
fn short(text: &str) -> String {
    match text.char_indices().nth(limits::RULE_WORDS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// As sidecars count it: see `provenance` of the compiler.
fn name(own: &str, list: &str, position: usize) -> String {
    let plain = own.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match !own.is_empty() && plain && own.len() <= limits::RULE_NAME_MAX {
        true => own.to_owned(),
        false => format!("{list}[{position}]"),
    }
}

fn virtual_service(resource: &Resource, one: &VirtualService) -> Vec<RulePart> {
    let http = one.http.iter().enumerate().map(|(at, route)| http_route(resource, route, at));
    let tcp = one.tcp.iter().enumerate().map(|(at, route)| RulePart {
        name: format!("tcp[{at}]"),
        line: route.line,
        matches: any(route.matches.iter().map(tcp_match)),
        does: destinations(&route.route),
        ..RulePart::default()
    });
    let tls = one.tls.iter().enumerate().map(|(at, route)| RulePart {
        name: format!("tls[{at}]"),
        line: route.line,
        matches: any(route.matches.iter().map(|one| {
            let mut words = vec![format!("SNI {}", one.sni_hosts.join(" or "))];
            words.extend(Some(tcp_match(&one.tcp)).filter(|words| words != ALL));
            words.join(", ")
        })),
        does: destinations(&route.route),
        ..RulePart::default()
    });
    http.chain(tcp).chain(tls).collect()
}

fn http_route(resource: &Resource, route: &HttpRoute, at: usize) -> RulePart {
    let name = name(&route.name, "http", at);
    let matches = any(route.matches.iter().map(route_match));
    let partly = matches != ALL;
    let rule = format!("{}#{name}", resource.key);
    let mut does: Vec<String> = Vec::new();
    does.extend(traffic_words(&route.traffic));
    if !route.route.is_empty() {
        does.insert(0, destinations(&route.route));
    }
    if let Some(delegate) = &route.delegate {
        does.push(format!("as VirtualService {} says", delegate.name));
    }
    for mirror in &route.mirrors {
        does.push(format!("{} % copied to {}", figure(mirror.percent), destination(&mirror.to)));
    }
    let faults = route.fault.as_ref().map(|fault| faults(fault, &rule, partly)).unwrap_or_default();
    RulePart {
        name,
        line: route.line,
        matches,
        does: does.join("; "),
        faults,
        counted: true,
        ..RulePart::default()
    }
}

fn faults(fault: &Fault, rule: &str, partly: bool) -> Vec<FaultWord> {
    let word = |what: &str, percent: f64, detail: String| FaultWord {
        what: what.to_owned(),
        percent,
        detail,
        rule: rule.to_owned(),
        partly,
    };
    let abort = fault
        .abort
        .as_ref()
        .map(|abort| word("abort", abort.percent, status_words(abort.status, abort.grpc)));
    let delay = fault.delay.as_ref().map(|one| word("delay", one.percent, time(one.duration)));
    abort.into_iter().chain(delay).collect()
}

fn status_words(status: u16, grpc: Option<u8>) -> String {
    grpc.map_or_else(|| status.to_string(), |grpc| format!("gRPC {grpc}"))
}

fn fault_rule(resource: &Resource, rule: &FaultRule) -> RulePart {
    let detail = match &rule.does {
        Injection::Delay(length) => time(*length),
        Injection::Abort(with) => status_words(with.status, with.grpc),
        Injection::Tcp(TcpFault::ResetAfterBytes(bytes)) => format!("{bytes} bytes"),
        Injection::Tcp(TcpFault::BytesPerSecond(bytes)) => format!("{bytes} B/s"),
        Injection::Tcp(TcpFault::Refuse | TcpFault::Blackhole) => String::new(),
    };
    let matches = any(rule.matches.iter().map(route_match));
    let word = FaultWord {
        what: rule.does.as_str().to_owned(),
        percent: rule.percent,
        detail,
        rule: resource.key.to_string(),
        partly: matches != ALL,
    };
    let at = match &rule.target {
        FaultTarget::Service { .. } => String::new(),
        FaultTarget::Workloads(labels) => format!(" at workloads {}", pairs(labels)),
    };
    RulePart {
        name: "spec".to_owned(),
        line: rule.target_line,
        matches,
        does: format!("{} {} % {}{at}", word.what, figure(word.percent), word.detail),
        faults: vec![word],
        ..RulePart::default()
    }
}

fn mesh_route(route: &MeshRoute) -> Vec<RulePart> {
    let part = |(at, rule): (usize, &heddle_model::resource::MeshRule)| {
        let mut does: Vec<String> = Vec::new();
        if !rule.backends.is_empty() {
            let total: u32 = rule.backends.iter().map(|backend| backend.weight).sum();
            let many = rule.backends.len() > 1;
            let words = rule
                .backends
                .iter()
                .map(|backend| shares(&backend_name(backend), backend.weight, total, many));
            does.push(words.collect::<Vec<_>>().join(", "));
        }
        if let Some(redirect) = &rule.redirect {
            does.push(format!("redirected with {}", redirect.status));
        }
        if rule.rewrite.is_some() {
            does.push("rewritten".to_owned());
        }
        does.extend(traffic_words(&rule.traffic));
        for mirror in &rule.mirrors {
            let to = backend_name(&mirror.to);
            does.push(format!("{} % copied to {to}", figure(mirror.percent)));
        }
        RulePart {
            name: name(&rule.name, "rules", at),
            line: rule.line,
            matches: any(rule.matches.iter().map(mesh_match)),
            does: does.join("; "),
            counted: true,
            ..RulePart::default()
        }
    };
    route.rules.iter().enumerate().map(part).collect()
}

fn backend_name(backend: &BackendRef) -> String {
    match backend.port {
        Some(port) => format!("{}:{port}", backend.name),
        None => backend.name.clone(),
    }
}

fn mesh_match(one: &MeshMatch) -> String {
    let mut words: Vec<String> = Vec::new();
    match &one.path {
        PathMatch::Exact(path) => words.push(format!("path {path}")),
        PathMatch::Elements(path) if path.is_empty() || path == "/" => {}
        PathMatch::Elements(path) => words.push(format!("path {path}/*")),
        PathMatch::Regex(pattern) => words.push(format!("path ~ {pattern}")),
        PathMatch::Call { service, method } => {
            let word =
                |part: &Option<StringMatch>| part.as_ref().map_or_else(|| "*".to_owned(), text);
            words.push(format!("call {}/{}", word(service), word(method)));
        }
    }
    words.extend(one.method.as_ref().map(|method| format!("method {method}")));
    words
        .extend(one.headers.iter().map(|(name, value)| format!("header {name} {}", equals(value))));
    words.extend(
        one.query_params.iter().map(|(name, value)| format!("query {name} {}", equals(value))),
    );
    all(words)
}

fn destination_rule(rule: &DestinationRule) -> Vec<RulePart> {
    let mut parts = Vec::new();
    let mut add = |name: String, line: usize, matches: String, policy: &PolicyParts| {
        let does = policy_words(policy);
        if !does.is_empty() || name.starts_with("subset") {
            parts.push(RulePart { name, line, matches, does, ..RulePart::default() });
        }
    };
    if let Some(policy) = &rule.policy {
        add("trafficPolicy".to_owned(), 0, ALL.to_owned(), &policy.general);
        for (port, policy) in &policy.ports {
            add(format!("port {port}"), 0, format!("port {port}"), policy);
        }
    }
    for subset in &rule.subsets {
        let none = PolicyParts::default();
        let policy = subset.policy.as_ref().map_or(&none, |policy| &policy.general);
        let matches = format!("workloads {}", pairs(&subset.labels));
        add(format!("subset {}", subset.name), subset.line, matches, policy);
    }
    parts
}

fn policy_words(policy: &PolicyParts) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(policy.outlier.as_ref().map(breaker_words));
    if let Some(pool) = &policy.pool {
        let limits = [
            (pool.max_connections, "connections"),
            (pool.max_pending, "pending requests"),
            (pool.max_requests, "requests at once"),
            (pool.max_retries, "retries at once"),
        ];
        for (limit, what) in limits {
            words.extend(limit.map(|limit| format!("at most {limit} {what}")));
        }
    }
    if policy.tls.is_some() {
        words.push("TLS as written".to_owned());
    }
    if policy.balancing.is_some() {
        words.push("load balancing as written".to_owned());
    }
    if policy.retry_budget.is_some() {
        words.push("a retry budget".to_owned());
    }
    words.join("; ")
}

fn breaker_words(outlier: &OutlierDetection) -> String {
    let counts = [
        (outlier.consecutive_5xx, "5xx in a row"),
        (outlier.consecutive_gateway, "gateway errors in a row"),
        (outlier.consecutive_local_origin, "failed connections in a row"),
    ];
    let mut after: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if outlier.success_rate.is_some() || outlier.failure_percentage.is_some() {
        after.push("a share of failures".to_owned());
    }
    format!(
        "out for {} after {}, at most {} %",
        time(outlier.base_ejection_time),
        after.join(" or "),
        outlier.max_ejection_percent
    )
}

fn traffic_words(traffic: &heddle_model::discovery::Traffic) -> Vec<String> {
    use heddle_model::discovery::Answer;
    let mut words = Vec::new();
    match &traffic.answer {
        Some(Answer::Redirect(_)) => words.push("redirected".to_owned()),
        Some(Answer::Direct(answer)) => words.push(format!("answered with {}", answer.status)),
        None => {}
    }
    if traffic.rewrite.is_some() {
        words.push("rewritten".to_owned());
    }
    if traffic.headers.is_some() {
        words.push("headers changed".to_owned());
    }
    words.extend(traffic.timeout.map(|limit| format!("timeout {}", time(limit))));
    if let Some(retries) = &traffic.retries {
        words.push(match retries.attempts {
            0 => "never sent again".to_owned(),
            1 => "sent again once".to_owned(),
            times => format!("sent again up to {times} times"),
        });
    }
    if traffic.cors.is_some() {
        words.push("CORS".to_owned());
    }
    words
}

fn route_match(one: &RouteMatch) -> String {
    let mut words = http_match(&one.http);
    words.extend(one.port.map(|port| format!("port {port}")));
    words.extend(from(&one.source_labels, one.source_namespace.as_deref()));
    all(words)
}

fn tcp_match(one: &TcpMatch) -> String {
    let mut words: Vec<String> = one.port.map(|port| format!("port {port}")).into_iter().collect();
    let nets = one.destination_subnets.iter();
    words.extend(nets.map(|(address, bits)| format!("to {address}/{bits}")));
    words.extend(from(&one.source_labels, one.source_namespace.as_deref()));
    all(words)
}

fn from(labels: &BTreeMap<String, String>, namespace: Option<&str>) -> Vec<String> {
    let mut words = Vec::new();
    if !labels.is_empty() {
        words.push(format!("callers {}", pairs(labels)));
    }
    words.extend(namespace.map(|namespace| format!("callers in {namespace}")));
    words
}

fn http_match(one: &HttpMatch) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(one.uri.as_ref().map(|uri| format!("path {}", text(uri))));
    words.extend(one.method.as_ref().map(|method| format!("method {}", text(method))));
    words.extend(one.authority.as_ref().map(|host| format!("host {}", text(host))));
    words.extend(one.scheme.as_ref().map(|scheme| format!("scheme {}", text(scheme))));
    let header = |(name, value): (&String, &HeaderMatch)| match value {
        HeaderMatch::Present => name.clone(),
        HeaderMatch::Value(value) => format!("{name} {}", equals(value)),
    };
    words.extend(one.headers.iter().map(|one| format!("header {}", header(one))));
    words.extend(one.without_headers.iter().map(|one| format!("not header {}", header(one))));
    let query = one.query_params.iter();
    words.extend(query.map(|(name, value)| format!("query {name} {}", equals(value))));
    words
}

fn text(value: &StringMatch) -> String {
    match value {
        StringMatch::Exact(text) => text.clone(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Regex(text) => format!("~ {text}"),
    }
}

fn equals(value: &StringMatch) -> String {
    match value {
        StringMatch::Regex(text) => format!("~ {text}"),
        other => format!("= {}", text(other)),
    }
}

fn all(words: Vec<String>) -> String {
    if words.is_empty() { ALL.to_owned() } else { words.join(", ") }
}

/// Alternatives; one that all meet stands for them.
fn any(alternatives: impl Iterator<Item = String>) -> String {
    let mut alternatives: Vec<String> = alternatives.collect();
    if alternatives.is_empty() || alternatives.iter().any(|one| one == ALL) {
        return ALL.to_owned();
    }
    alternatives.dedup();
    alternatives.join(" or ")
}

fn destinations(all: &[RouteDestination]) -> String {
    let total: u32 = all.iter().map(|one| one.weight).sum();
    let words = all.iter().map(|one| shares(&destination(one), one.weight, total, all.len() > 1));
    words.collect::<Vec<_>>().join(", ")
}

fn shares(name: &str, weight: u32, total: u32, many: bool) -> String {
    if many && total > 0 {
        format!("{} % to {name}", figure(f64::from(weight) * 100.0 / f64::from(total)))
    } else {
        format!("to {name}")
    }
}

fn destination(one: &RouteDestination) -> String {
    let mut name = one.host.clone();
    if let Some(port) = one.port {
        name = format!("{name}:{port}");
    }
    if let Some(subset) = &one.subset {
        name = format!("{name} {subset}");
    }
    name
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(", ")
}

/// A number with at most two places.
fn figure(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn time(length: Duration) -> String {
    match length.as_secs_f64() {
        seconds if seconds >= 1.0 || seconds <= 0.0 => format!("{} s", figure(seconds)),
        seconds => format!("{} ms", figure(seconds * 1e3)),
    }
}
