//! Istio's `VirtualService`: every field of its schema, and Istio's own validation rules.
//!
//! What Heddle does not carry out yet is checked all the same and noted; see [`actions`].

use std::{collections::HashSet, net::IpAddr};

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

use parts::{
    ABSENT_MATCH, DESTINATION, STRING_MATCH, TCP_DESTINATION, URI_MATCH, gateways_are_noted,
    reaches_mesh, weights_sum,
};

/// Hosts of one VirtualService. Every host is a service that every client's rules are made for.
const HOSTS_MAX: usize = 1_000;

pub(super) use parts::{PERCENT, exports_differ};
pub(super) use read::{http_match, read};

/// `spec` of a VirtualService.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("hosts", Kind::List { of: &Kind::Text(value::host_or_ip), least: 0 }),
        optional("gateways", GATEWAYS),
        optional("http", Kind::List { of: &Kind::Object(&HTTP_ROUTE), least: 0 }),
        optional("tls", Kind::List { of: &Kind::Object(&actions::TLS_ROUTE), least: 0 }),
        optional("tcp", Kind::List { of: &Kind::Object(&TCP_ROUTE), least: 0 }),
        optional("exportTo", Kind::List { of: &Kind::Text(value::export_to), least: 0 }),
    ],
    rules: &[
        hosts_and_routes,
        gateways_are_noted,
        sni_hosts_are_hosts,
        claims_need_a_gateway,
        exports_differ,
    ],
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
        optional("mirror", Kind::Object(&DESTINATION)),
        optional("mirrors", Kind::List { of: &Kind::Object(&actions::MIRROR), least: 0 }),
        optional("mirrorPercent", Kind::Int { min: 0, max: 100 }).or_named("mirror_percent"),
        optional("mirrorPercentage", Kind::Object(&PERCENT)),
        optional("corsPolicy", Kind::Object(&actions::CORS)),
        optional("headers", Kind::Object(&actions::HEADERS)),
    ],
    rules: &[one_action, no_action_beside_another, weights, actions::authority_is_set_once],
};

pub(super) static HTTP_MATCH: Object = Object {
    fields: &[
        optional("name", TEXT),
        optional("uri", URI_MATCH),
        optional("scheme", STRING_MATCH),
        optional("method", STRING_MATCH),
        optional("authority", STRING_MATCH),
        optional("headers", HEADER_MATCHES),
        optional("port", PORT),
        optional("sourceLabels", LABELS),
        optional("gateways", GATEWAYS),
        optional("queryParams", Kind::Map { key: value::not_empty, of: &STRING_MATCH }),
        optional("ignoreUriCase", Kind::Bool),
        optional("withoutHeaders", Kind::Map { key: value::match_header, of: &ABSENT_MATCH }),
        optional("sourceNamespace", Kind::Text(value::asked_namespace)),
        not_yet("statPrefix", TEXT),
    ],
    rules: &[header_names_differ, claims_are_noted, gateways_are_noted],
};

const HEADER_MATCHES: Kind = Kind::Map { key: value::match_header, of: &STRING_MATCH };

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
        } else if !node.has("fixedDelay") {
            report.no_effect(node.line, path, "nothing is delayed: set `fixedDelay`");
        }
    }],
};

static ABORT: Object = Object {
    fields: &[
        optional("percentage", Kind::Object(&PERCENT)),
        optional("httpStatus", actions::STATUS).even_if_empty(),
        optional("grpcStatus", Kind::Word(value::grpc_status)).even_if_empty(),
        optional("http2Error", TEXT).even_if_empty(),
    ],
    rules: &[|node, path, report| {
        if let Some(error) = node.get("http2Error") {
            let reason = "Istio does not carry this out either: use `httpStatus`";
            report.at(error, &join(path, "http2Error"), reason);
        } else if node.has("httpStatus") || node.has("grpcStatus") {
            at_most_one(node, &["httpStatus", "grpcStatus"], path, report);
        } else {
            let reason = "nothing is aborted: set `httpStatus` or `grpcStatus`";
            report.no_effect(node.line, path, reason);
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
        not_yet("sourceSubnet", TEXT),
        optional("sourceLabels", LABELS),
        optional("gateways", GATEWAYS),
        optional("sourceNamespace", Kind::Text(value::asked_namespace)),
    ],
    rules: &[gateways_are_noted],
};

/// Istio's rules for `hosts` and the three lists of routes.
fn hosts_and_routes(spec: &Node, path: &str, report: &mut Report<'_>) {
    let hosts = spec.items_of("hosts");
    let mesh = reaches_mesh(spec);
    if hosts.is_empty() {
        if spec.has("gateways") {
            let reason =
                "a VirtualService without hosts is a delegate, and a delegate has no gateways";
            return report.at(spec, &join(path, "hosts"), reason);
        }
        for list in present(spec, &["tcp", "tls"]) {
            let line = spec.get(list).map_or(spec.line, |list| list.line);
            let reason = "a VirtualService without hosts is a delegate, and a delegate has only `http`: name `hosts`, or remove this";
            report.error(line, &join(path, list), reason);
        }
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

fn sni_hosts_are_hosts(spec: &Node, path: &str, report: &mut Report<'_>) {
    if !spec.has("hosts") {
        return; // Then there are no `tls` rules either, and that is told.
    }
    let mut hosts = overlap::Hosts::default();
    for host in spec.items_of("hosts") {
        hosts.add(host.text());
    }
    for (i, route) in spec.items_of("tls").iter().enumerate() {
        for (j, one) in route.items_of("match").iter().enumerate() {
            for (k, sni) in one.items_of("sniHosts").iter().enumerate() {
                if hosts.covering(sni.text()).is_none() && sni.text().parse::<IpAddr>().is_err() {
                    let place = format!("{}[{i}].match[{j}].sniHosts[{k}]", join(path, "tls"));
                    let reason = format!("the SNI host `{}` is none of `hosts`", sni.text());
                    report.at(sni, &place, reason);
                }
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
        // What a delegate's route answers itself goes before what stands here.
        ["directResponse", "delegate"] => {}
        [first, second, ..] => {
            let reason = format!("`{first}` and `{second}` exclude each other: keep one");
            report.at(route, &join(path, second), reason);
        }
    }
}

fn no_action_beside_another(route: &Node, path: &str, report: &mut Report<'_>) {
    at_most_one(route, &["mirror", "mirrors"], path, report);
    if route.has("delegate") {
        return;
    }
    for action in present(route, &["redirect", "directResponse"]) {
        for beside in present(route, &["fault", "rewrite"]) {
            let line = route.get(beside).map_or(route.line, |node| node.line);
            let reason = format!("`{beside}` has no meaning beside `{action}`: remove one");
            report.error(line, &join(path, beside), reason);
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

/// A claim of a token is known to a gateway, which has checked the token, and not to a sidecar.
fn claims_need_a_gateway(spec: &Node, path: &str, report: &mut Report<'_>) {
    if !reaches_mesh(spec) {
        return;
    }
    for (i, route) in spec.items_of("http").iter().enumerate() {
        for (j, one) in route.items_of("match").iter().enumerate() {
            for list in ["headers", "withoutHeaders"] {
                let entries = one.get(list).map_or(&[][..], Node::entries).iter();
                for entry in entries.filter(|entry| value::is_claim(&entry.key)) {
                    let place = format!("{}[{i}].match[{j}].{list}", join(path, "http"));
                    let reason = "only a gateway knows the claims of a token: name one in `gateways`, and not `mesh`";
                    report.error(entry.line, &join(&place, &entry.key), reason);
                }
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
