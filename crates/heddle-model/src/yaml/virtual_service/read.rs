//! A checked VirtualService into its noun. Only called when the document has no error, so a value
//! that is there is well formed.

use std::collections::BTreeMap;

use super::{
    parts::{reaches_mesh, string_match},
    traffic,
};
use crate::{
    discovery::{Fault, FaultAbort, FaultDelay, HeaderMatch, HttpMatch, StringMatch, http_of_grpc},
    resource::{
        Delegate, HttpRoute, MirrorDestination, RouteDestination, RouteMatch, TcpMatch, TcpRoute,
        TlsMatch, TlsRoute, VirtualService,
    },
    yaml::{node::Node, value},
};

/// What the rule says.
pub(in crate::yaml) fn read(spec: &Node) -> VirtualService {
    let hosts = spec.items_of("hosts");
    VirtualService {
        hosts: hosts.iter().map(|host| host.text().to_owned()).collect(),
        host_lines: hosts.iter().map(|host| host.line).collect(),
        gateways_only: !reaches_mesh(spec),
        export_to: spec.texts_of("exportTo"),
        http: spec.items_of("http").iter().map(http_route).collect(),
        tcp: spec.items_of("tcp").iter().map(tcp_route).collect(),
        tls: spec.items_of("tls").iter().map(tls_route).collect(),
    }
}

fn http_route(route: &Node) -> HttpRoute {
    HttpRoute {
        name: route.text_of("name").to_owned(),
        line: route.line,
        matches: route.items_of("match").iter().map(http_match).collect(),
        fault: route.get("fault").map(fault),
        route: destinations(route.items_of("route")),
        delegate: route.get("delegate").map(|one| Delegate {
            name: one.text_of("name").to_owned(),
            namespace: one.get("namespace").map(|text| text.text().to_owned()),
            line: one.line,
        }),
        traffic: traffic::read(route),
        redirect_to_called_port: route
            .get("redirect")
            .is_some_and(|redirect| redirect.text_of("derivePort") == "FROM_REQUEST_PORT"),
        mirrors: mirrors(route),
    }
}

/// `mirror` with its own percentage, or `mirrors` with one each; all requests where none is given.
fn mirrors(route: &Node) -> Vec<MirrorDestination> {
    let share = |of: &Node, key: &str| {
        of.get(key).map(|share| share.text_of("value").parse().unwrap_or(0.0))
    };
    let one = route.get("mirror").map(|to| {
        let older = || route.text_of("mirrorPercent").parse().ok();
        let percent = share(route, "mirrorPercentage").or_else(older).unwrap_or(100.0);
        MirrorDestination { to: destination(to, 0), percent }
    });
    let several = route.items_of("mirrors").iter().filter_map(|mirror| {
        let to = destination(mirror.get("destination")?, 0);
        Some(MirrorDestination { to, percent: share(mirror, "percentage").unwrap_or(100.0) })
    });
    one.into_iter().chain(several).collect()
}

/// One alternative of `match`.
pub(in crate::yaml) fn http_match(one: &Node) -> RouteMatch {
    RouteMatch {
        http: HttpMatch {
            uri: one.get("uri").and_then(string_match),
            ignore_uri_case: flag(one, "ignoreUriCase"),
            method: one.get("method").and_then(string_match),
            authority: one.get("authority").and_then(string_match),
            scheme: one.get("scheme").and_then(string_match),
            headers: header_matches(one, "headers"),
            without_headers: header_matches(one, "withoutHeaders"),
            query_params: query_params(one),
        },
        port: port(one),
        source_labels: one.labels_of("sourceLabels"),
        source_namespace: one.get("sourceNamespace").map(|text| text.text().to_owned()),
        gateways_only: !reaches_mesh(one),
    }
}

fn header_matches(one: &Node, list: &str) -> BTreeMap<String, HeaderMatch> {
    let entries = one.get(list).map_or(&[][..], Node::entries).iter();
    entries
        .map(|entry| {
            let condition = match string_match(&entry.value) {
                None => HeaderMatch::Present,
                // No regex: Istio's word for any value, allowed where a header must be missing.
                Some(StringMatch::Regex(any)) if any == "*" => HeaderMatch::Present,
                Some(value) => HeaderMatch::Value(value),
            };
            (entry.key.to_ascii_lowercase(), condition)
        })
        .collect()
}

fn query_params(one: &Node) -> BTreeMap<String, StringMatch> {
    let entries = one.get("queryParams").map_or(&[][..], Node::entries).iter();
    let present = || StringMatch::Prefix(String::new());
    entries
        .map(|entry| (entry.key.clone(), string_match(&entry.value).unwrap_or_else(present)))
        .collect()
}

fn fault(node: &Node) -> Fault {
    let percent = |part: &Node| {
        let share = part.get("percentage").map(|share| share.text_of("value"));
        share.unwrap_or_else(|| part.text_of("percent")).parse().unwrap_or(0.0)
    };
    let delay = node.get("delay").and_then(|delay| {
        let duration = value::duration(delay.text_of("fixedDelay")).ok()?;
        Some(FaultDelay { duration, percent: percent(delay) })
    });
    let abort = node.get("abort").and_then(|abort| {
        let grpc = abort.get("grpcStatus").and_then(|code| value::grpc_code(code.text()).ok());
        let status = match grpc {
            Some(code) => http_of_grpc(code),
            None => abort.text_of("httpStatus").parse().ok()?,
        };
        Some(FaultAbort { status, percent: percent(abort), grpc })
    });
    Fault { delay, abort, ..Fault::default() }
}

fn tcp_route(route: &Node) -> TcpRoute {
    TcpRoute {
        line: route.line,
        matches: route.items_of("match").iter().map(tcp_match).collect(),
        route: destinations(route.items_of("route")),
    }
}

fn tcp_match(one: &Node) -> TcpMatch {
    let subnets = one.items_of("destinationSubnets").iter();
    TcpMatch {
        port: port(one),
        destination_subnets: subnets.filter_map(|text| value::subnet(text.text()).ok()).collect(),
        source_labels: one.labels_of("sourceLabels"),
        source_namespace: one.get("sourceNamespace").map(|text| text.text().to_owned()),
        gateways_only: !reaches_mesh(one),
    }
}

fn tls_route(route: &Node) -> TlsRoute {
    TlsRoute {
        line: route.line,
        matches: route.items_of("match").iter().map(tls_match).collect(),
        route: destinations(route.items_of("route")),
    }
}

fn tls_match(one: &Node) -> TlsMatch {
    // As in a ClientHello: no case, and no dot behind the last label.
    let name = |host: &Node| host.text().trim_end_matches('.').to_ascii_lowercase();
    TlsMatch { sni_hosts: one.items_of("sniHosts").iter().map(name).collect(), tcp: tcp_match(one) }
}

fn destinations(items: &[Node]) -> Vec<RouteDestination> {
    let alone = items.len() == 1;
    let weight = |item: &Node| match item.text_of("weight").parse() {
        // Protobuf cannot tell 0 from absent: a single destination takes all in both cases.
        Ok(0) | Err(_) if alone => 100,
        Ok(weight) => weight,
        Err(_) => 0,
    };
    let weighted = |item: &Node| {
        let headers = item.get("headers").map(traffic::headers);
        Some(RouteDestination { headers, ..destination(item.get("destination")?, weight(item)) })
    };
    items.iter().filter_map(weighted).collect()
}

fn destination(target: &Node, weight: u32) -> RouteDestination {
    RouteDestination {
        host: target.text_of("host").to_owned(),
        subset: target.get("subset").map(|subset| subset.text().to_owned()),
        port: target.get("port").and_then(|port| port.text_of("number").parse().ok()),
        weight,
        headers: None,
        line: target.line,
    }
}

fn port(one: &Node) -> Option<u16> {
    one.text_of("port").parse().ok()
}

fn flag(node: &Node, key: &str) -> bool {
    node.text_of(key).eq_ignore_ascii_case("true")
}
