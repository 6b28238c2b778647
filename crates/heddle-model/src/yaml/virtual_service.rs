//! Istio's `VirtualService`: every field of its schema, and Istio's own validation rules.
//!
//! What Heddle does not carry out yet is checked all the same and noted; see [`actions`].

use std::collections::HashSet;

use super::{
    node::Node,
    report::Report,
    schema::{
        DURATION, Kind, LABELS, Object, PORT, SMALL_COUNT, TEXT, at_least_one, at_most_one, join,
        not_yet, optional, present, required,
    },
    value,
};

mod actions;
mod overlap;
mod parts;
mod read;
mod traffic;

use parts::{DESTINATION, PERCENT, STRING_MATCH, TCP_DESTINATION, reaches_mesh, weights_sum};

/// Hosts of one VirtualService. Every host is a service that every client's rules are made for.
const HOSTS_MAX: usize = 1_000;

pub(super) use read::read;

/// `spec` of a VirtualService.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("hosts", Kind::List { of: &Kind::Text(value::host_or_ip), least: 0 }),
        optional("gateways", GATEWAYS),
        optional("http", Kind::List { of: &Kind::Object(&HTTP_ROUTE), least: 0 }),
        not_yet("tls", Kind::List { of: &Kind::Object(&actions::TLS_ROUTE), least: 0 }),
        optional("tcp", Kind::List { of: &Kind::Object(&TCP_ROUTE), least: 0 }),
        optional("exportTo", Kind::List { of: &Kind::Text(value::export_to), least: 0 }),
    ],
    rules: &[hosts_and_routes, gateways_are_noted, sni_hosts_are_hosts],
};

const GATEWAYS: Kind = Kind::List { of: &Kind::Text(value::gateway_name), least: 0 };

static HTTP_ROUTE: Object = Object {
    fields: &[
        optional("name", TEXT),
        optional("match", Kind::List { of: &Kind::Object(&HTTP_MATCH), least: 0 }),
        optional("route", Kind::List { of: &Kind::Object(&HTTP_DESTINATION), least: 0 }),
        optional("fault", Kind::Object(&FAULT)),
        optional("redirect", Kind::Object(&actions::REDIRECT)),
        optional("directResponse", Kind::Object(&actions::DIRECT_RESPONSE)),
        optional("delegate", Kind::Object(&actions::DELEGATE)),
        optional("rewrite", Kind::Object(&actions::REWRITE)),
        optional("timeout", Kind::Duration { least_ms: 0 }),
        optional("retries", Kind::Object(&actions::RETRIES)),
        not_yet("mirror", Kind::Object(&DESTINATION)),
        not_yet("mirrors", Kind::List { of: &Kind::Object(&actions::MIRROR), least: 0 }),
        not_yet("mirrorPercent", Kind::Int { min: 0, max: 100 }),
        not_yet("mirrorPercentage", Kind::Object(&PERCENT)),
        optional("corsPolicy", Kind::Object(&actions::CORS)),
        optional("headers", Kind::Object(&actions::HEADERS)),
    ],
    rules: &[one_action, no_action_beside_another, weights, actions::authority_is_set_once],
};

static HTTP_MATCH: Object = Object {
    fields: &[
        optional("name", TEXT),
        optional("uri", STRING_MATCH),
        optional("scheme", STRING_MATCH),
        optional("method", STRING_MATCH),
        optional("authority", AUTHORITY_MATCH),
        optional("headers", HEADER_MATCHES),
        optional("port", PORT),
        optional("sourceLabels", LABELS),
        optional("gateways", GATEWAYS),
        optional("queryParams", Kind::Map { key: value::not_empty, of: &STRING_MATCH }),
        optional("ignoreUriCase", Kind::Bool),
        optional("withoutHeaders", HEADER_MATCHES),
        optional("sourceNamespace", Kind::Text(value::dns_label)),
        not_yet("statPrefix", TEXT),
    ],
    rules: &[header_names_differ, claims_are_noted, gateways_are_noted],
};

const HEADER_MATCHES: Kind = Kind::Map { key: value::match_header, of: &STRING_MATCH };

/// As [`STRING_MATCH`]; matched without regard to case.
const AUTHORITY_MATCH: Kind = Kind::Object(&AUTHORITY_MATCH_OBJECT);
static AUTHORITY_MATCH_OBJECT: Object = Object {
    fields: &[
        optional("exact", TEXT),
        optional("prefix", TEXT),
        optional("regex", Kind::Text(value::regex_in_any_case)),
    ],
    rules: &[|node, path, report| at_most_one(node, &["exact", "prefix", "regex"], path, report)],
};

static HTTP_DESTINATION: Object = Object {
    fields: &[
        required("destination", Kind::Object(&DESTINATION)),
        optional("weight", SMALL_COUNT),
        optional("headers", Kind::Object(&actions::HEADERS)),
    ],
    rules: &[],
};

static FAULT: Object = Object {
    fields: &[optional("delay", Kind::Object(&DELAY)), optional("abort", Kind::Object(&ABORT))],
    rules: &[|node, path, report| at_least_one(node, &["delay", "abort"], path, report)],
};

static DELAY: Object = Object {
    fields: &[
        optional("percent", Kind::Int { min: 0, max: 100 }),
        optional("percentage", Kind::Object(&PERCENT)),
        optional("fixedDelay", DURATION),
        optional("exponentialDelay", DURATION),
    ],
    rules: &[|node, path, report| {
        if let Some(delay) = node.get("exponentialDelay") {
            let reason = "Istio knows no such delay either: use `fixedDelay`";
            report.at(delay, &join(path, "exponentialDelay"), reason);
        } else {
            at_least_one(node, &["fixedDelay"], path, report);
        }
    }],
};

static ABORT: Object = Object {
    fields: &[
        optional("percent", Kind::Int { min: 0, max: 100 }),
        optional("percentage", Kind::Object(&PERCENT)),
        optional("httpStatus", Kind::Int { min: 200, max: 599 }),
        not_yet("grpcStatus", Kind::Text(actions::grpc_status)),
        optional("http2Error", TEXT),
    ],
    rules: &[|node, path, report| {
        if let Some(error) = node.get("http2Error") {
            let reason = "Istio does not carry this out either: use `httpStatus`";
            report.at(error, &join(path, "http2Error"), reason);
        } else {
            super::schema::exactly_one(node, &["httpStatus", "grpcStatus"], path, report);
        }
    }],
};

static TCP_ROUTE: Object = Object {
    fields: &[
        optional("match", Kind::List { of: &Kind::Object(&TCP_MATCH), least: 0 }),
        required("route", Kind::List { of: &Kind::Object(&TCP_DESTINATION), least: 1 }),
    ],
    rules: &[weights],
};

static TCP_MATCH: Object = Object {
    fields: &[
        optional("destinationSubnets", Kind::List { of: &Kind::Text(value::is_subnet), least: 0 }),
        optional("port", PORT),
        not_yet("sourceSubnet", Kind::Text(value::is_subnet)),
        optional("sourceLabels", LABELS),
        optional("gateways", GATEWAYS),
        optional("sourceNamespace", Kind::Text(value::dns_label)),
    ],
    rules: &[gateways_are_noted],
};

/// Istio's rules for `hosts` and the three lists of routes.
fn hosts_and_routes(spec: &Node, path: &str, report: &mut Report<'_>) {
    let hosts = spec.items_of("hosts");
    let mesh = reaches_mesh(spec);
    if hosts.is_empty() && spec.has("gateways") {
        let reason = "a VirtualService without hosts is a delegate, and a delegate has no gateways";
        return report.at(spec, &join(path, "hosts"), reason);
    }
    if let Some(first) = hosts.get(HOSTS_MAX) {
        let reason = format!(
            "{} hosts, more than the {HOSTS_MAX} allowed: use several VirtualServices, or a wildcard",
            hosts.len()
        );
        return report.at(first, &join(path, "hosts"), reason);
    }
    let mut seen = overlap::Hosts::default();
    for (i, host) in hosts.iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "hosts"));
        if mesh && host.text() == "*" {
            let reason = "`*` would take every call in the mesh: name the hosts";
            report.at(host, &place, reason);
        }
        if let Some(other) = seen.add(host.text()) {
            let reason = format!("overlaps with `{other}` of the same list: keep one");
            report.at(host, &place, reason);
        }
    }
    let lists = ["http", "tcp", "tls"];
    if lists.iter().all(|list| spec.items_of(list).is_empty()) {
        report.at(spec, path, "no rules: `http`, `tcp` or `tls` is needed");
    }
    for (i, route) in spec.items_of("http").iter().enumerate() {
        if hosts.is_empty() && route.has("delegate") {
            let place = format!("{}[{i}].delegate", join(path, "http"));
            report.at(route, &place, "a delegate may not delegate further");
        }
    }
}

/// Gateways other than `mesh` have no effect yet.
fn gateways_are_noted(node: &Node, path: &str, report: &mut Report<'_>) {
    for (i, gateway) in node.items_of("gateways").iter().enumerate() {
        if gateway.text() != "mesh" {
            report.not_enforced(gateway.line, &format!("{}[{i}]", join(path, "gateways")));
        }
    }
}

fn sni_hosts_are_hosts(spec: &Node, path: &str, report: &mut Report<'_>) {
    let mut hosts = overlap::Hosts::default();
    for host in spec.items_of("hosts") {
        hosts.add(host.text());
    }
    for (i, route) in spec.items_of("tls").iter().enumerate() {
        for sni in route.items_of("match").iter().flat_map(|one| one.items_of("sniHosts")) {
            if hosts.covering(sni.text()).is_none() {
                let place = format!("{}[{i}]", join(path, "tls"));
                let reason = format!("the SNI host `{}` is none of `hosts`", sni.text());
                report.at(sni, &place, reason);
            }
        }
    }
}

const ACTIONS: &[&str] = &["route", "redirect", "directResponse", "delegate"];

fn one_action(route: &Node, path: &str, report: &mut Report<'_>) {
    let mut found = present(route, ACTIONS);
    found.retain(|name| *name != "route" || !route.items_of("route").is_empty());
    match found[..] {
        [] => report.at(
            route,
            path,
            "one of `route`, `redirect`, `directResponse` or `delegate` is needed",
        ),
        [_] => {}
        [first, second, ..] => {
            let reason = format!("`{first}` and `{second}` exclude each other: keep one");
            report.at(route, &join(path, second), reason);
        }
    }
}

fn no_action_beside_another(route: &Node, path: &str, report: &mut Report<'_>) {
    for action in present(route, &["redirect", "directResponse"]) {
        for beside in present(route, &["fault", "rewrite"]) {
            let line = route.get(beside).map_or(route.line, |node| node.line);
            let reason = format!("`{beside}` has no meaning beside `{action}`: remove one");
            report.error(line, &join(path, beside), reason);
        }
    }
    at_most_one(route, &["mirror", "mirrors"], path, report);
    if route.has("delegate") {
        for (i, one) in route.items_of("match").iter().enumerate() {
            if ["uri", "scheme", "method", "authority"]
                .iter()
                .any(|part| one.get(part).is_some_and(|text| text.has("regex")))
            {
                let place = format!("{}[{i}]", join(path, "match"));
                report.at(one, &place, "a rule that delegates may not match by regex");
            }
        }
    }
}

fn weights(route: &Node, path: &str, report: &mut Report<'_>) {
    weights_sum(route.items_of("route"), &join(path, "route"), report);
}

fn header_names_differ(one: &Node, path: &str, report: &mut Report<'_>) {
    for list in ["headers", "withoutHeaders"] {
        let entries = one.get(list).map_or(&[][..], Node::entries);
        let mut seen = HashSet::new();
        for entry in entries {
            if !seen.insert(entry.key.to_ascii_lowercase()) {
                let place = join(&join(path, list), &entry.key);
                report.error(entry.line, &place, "the same header twice: names ignore case");
            }
        }
    }
}

/// Routing by JWT claims is written as a header that cannot be sent.
fn claims_are_noted(one: &Node, path: &str, report: &mut Report<'_>) {
    for list in ["headers", "withoutHeaders"] {
        for entry in one.get(list).map_or(&[][..], Node::entries) {
            if entry.key.starts_with('@') {
                report.not_enforced(entry.line, &join(&join(path, list), &entry.key));
            }
        }
    }
}
