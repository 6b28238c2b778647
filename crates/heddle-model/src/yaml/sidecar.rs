//! Istio's `Sidecar`: which services workloads see, and what becomes of calls of what nobody knows.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    node::Node,
    report::Report,
    schema::{Kind, Object, PORT, TEXT, join, not_yet, optional, required},
    service_entry::{self, SELECTOR},
    value,
};
use crate::{
    discovery::DefaultEndpoint,
    name::check_label,
    resource::{EgressHost, EgressNamespace, IngressListener, OutboundMode, Sidecar},
};

/// The namespace whose Sidecar is for all others.
const ROOT_NAMESPACE: &str = "istio-system";

/// `spec` of a Sidecar.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("workloadSelector", Kind::Object(&SELECTOR)),
        optional("ingress", Kind::List { of: &Kind::Object(&INGRESS), least: 0 }),
        optional("egress", Kind::List { of: &Kind::Object(&EGRESS), least: 0 }),
        not_yet("inboundConnectionPool", Kind::Any),
        optional("outboundTrafficPolicy", Kind::Object(&OUTBOUND)),
    ],
    rules: &[says_something, ingress_ports_differ, egress_ports_differ, root_is_for_all],
};

static INGRESS: Object = Object {
    fields: &[
        required("port", Kind::Object(&LISTENER_PORT)),
        optional("bind", Kind::Text(address)),
        // Whatever it says, calls of the port are captured: the sidecar has no other way to hear of them.
        optional("captureMode", CAPTURE),
        optional("defaultEndpoint", Kind::Text(default_endpoint)),
        not_yet("tls", Kind::Any),
        not_yet("connectionPool", Kind::Any),
    ],
    rules: &[
        |node, path, report| {
            let all = |bind: &Node| bind.text().parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
            if let Some(bind) = node.get("bind").filter(|bind| !all(bind)) {
                report.not_enforced(bind.line, &join(path, "bind"));
            }
        },
        |node, path, report| {
            let protocol = node.get("port").map_or("", |port| port.text_of("protocol"));
            let is_tls = ["HTTPS", "TLS"].iter().any(|one| protocol.eq_ignore_ascii_case(one));
            if let Some(tls) = node.get("tls").filter(|_| !is_tls) {
                let reason = "only a port of `protocol: HTTPS` or `TLS` has this";
                report.at(tls, &join(path, "tls"), reason);
            }
        },
    ],
};

static EGRESS: Object = Object {
    fields: &[
        // What is spoken there is the service's to say.
        optional("port", Kind::Object(&EGRESS_PORT)),
        not_yet("bind", Kind::Text(bind)),
        not_yet("captureMode", CAPTURE),
        required("hosts", Kind::List { of: &Kind::Text(egress_host), least: 1 }),
    ],
    rules: &[port_or_socket],
};

/// A socket in the file system has no port: 0 is written, or none.
static EGRESS_PORT: Object = Object {
    fields: &[
        optional("number", Kind::Int { min: 0, max: 65_535 }),
        optional("protocol", TEXT),
        optional("name", TEXT),
        optional("targetPort", PORT),
    ],
    rules: &[],
};

static LISTENER_PORT: Object = Object {
    fields: &[
        required("number", PORT),
        optional("protocol", TEXT),
        optional("name", TEXT),
        optional("targetPort", PORT),
    ],
    rules: &[],
};

static OUTBOUND: Object = Object {
    fields: &[
        // As in Istio, where nothing is said, what is not known is refused.
        optional("mode", Kind::Choice(&["REGISTRY_ONLY", "ALLOW_ANY"])),
        not_yet("egressProxy", Kind::Any),
    ],
    rules: &[],
};

const CAPTURE: Kind = Kind::Choice(&["DEFAULT", "IPTABLES", "NONE"]);

fn address(text: &str) -> Result<(), String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{text}` is no IP address")),
    }
}

const UNIX: &str = "unix://";

fn bind(text: &str) -> Result<(), String> {
    if text.starts_with(UNIX) { unix_socket(text) } else { address(text) }
}

/// A socket in the file system, or an abstract one (`@`).
fn unix_socket(text: &str) -> Result<(), String> {
    let path = text.strip_prefix(UNIX).unwrap_or_default();
    let is_file = path.starts_with('/') && !path.ends_with('/');
    match is_file || path.strip_prefix('@').is_some_and(|name| !name.is_empty()) {
        true => Ok(()),
        false => Err(format!("`{text}` is no socket: use e.g. `unix:///run/app.sock`")),
    }
}

fn port_or_socket(node: &Node, path: &str, report: &mut Report<'_>) {
    let Some(port) = node.get("port") else { return };
    let is_socket = node.text_of("bind").starts_with(UNIX);
    let has_number = !["", "0"].contains(&port.text_of("number"));
    let reason = match (has_number, is_socket) {
        (true, true) => "a socket in the file system has no port: use 0",
        (false, false) => "this field is required, but for a `bind` of `unix://…`",
        _ => {
            if is_socket && node.text_of("captureMode") == "IPTABLES" {
                let reason = "a socket in the file system is not captured: use `NONE`";
                report.at(node, &join(path, "captureMode"), reason);
            }
            return;
        }
    };
    report.at(port, &join(&join(path, "port"), "number"), reason);
}

fn default_endpoint(text: &str) -> Result<(), String> {
    let own = |at: SocketAddr| at.ip().is_loopback() || at.ip().is_unspecified();
    let fits = text.is_empty()
        || (text.starts_with(UNIX) && unix_socket(text).is_ok())
        || text.parse().is_ok_and(|at: SocketAddr| own(at) && at.port() != 0);
    if fits {
        return Ok(());
    }
    Err(format!("`{text}` is no endpoint of the workload: use `127.0.0.1:PORT` or `0.0.0.0:PORT`"))
}

/// A checked one; none where nothing is said.
fn read_endpoint(text: &str) -> Option<DefaultEndpoint> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return Some(DefaultEndpoint::Socket(path.to_owned()));
    }
    let at: SocketAddr = text.parse().ok()?;
    Some(match at.ip().is_loopback() {
        true => DefaultEndpoint::Loopback(at.port()),
        false => DefaultEndpoint::Own(at.port()),
    })
}

fn read_ingress(listener: &Node) -> Option<IngressListener> {
    let port = service_entry::port(listener.get("port")?)?;
    let endpoint = read_endpoint(listener.text_of("defaultEndpoint"));
    Some(IngressListener { port: port.number, protocol: port.protocol, endpoint })
}

fn egress_host(text: &str) -> Result<(), String> {
    read_host(text).map(|_| ())
}

fn read_host(text: &str) -> Result<EgressHost, String> {
    let wrong = || {
        format!(
            "`{text}` is no NAMESPACE/HOST: use e.g. `./*`, `*/api.example.com`, `prod/*` or `~/*`"
        )
    };
    let (namespace, host) = text.split_once('/').ok_or_else(wrong)?;
    let (excluded, namespace) = match namespace.strip_prefix('~') {
        Some(rest) if !rest.is_empty() => (true, rest),
        _ => (false, namespace),
    };
    let namespace = match namespace {
        "*" => EgressNamespace::All,
        "." => EgressNamespace::Own,
        "~" => EgressNamespace::None,
        name if check_label(name).is_ok() => EgressNamespace::Named(name.to_owned()),
        _ => return Err(wrong()),
    };
    value::wildcard_host(host)?;
    let is_name = host.strip_prefix("*.").unwrap_or(host);
    if host != "*" && (is_name.starts_with('*') || !host.contains('.')) {
        let reason =
            "write it in full, e.g. `api.default.svc.cluster.local`, or use `*` or `*.suffix`";
        return Err(format!("`{host}` is no whole name of a host: {reason}"));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    Ok(EgressHost { namespace, host, excluded, port: None })
}

fn says_something(spec: &Node, path: &str, report: &mut Report<'_>) {
    let parts = ["ingress", "egress", "inboundConnectionPool", "outboundTrafficPolicy"];
    if !parts.iter().any(|part| spec.has(part)) {
        let reason = "the Sidecar says nothing: give `egress` or `outboundTrafficPolicy`";
        report.at(spec, path, reason);
    }
}

fn ports_differ(spec: &Node, list: &str, path: &str, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for (i, listener) in spec.items_of(list).iter().enumerate() {
        let Some(port) = listener.get("port") else { continue };
        let number = port.text_of("number");
        // Without a port there is a socket, which has a name.
        let place = if ["", "0"].contains(&number) { listener.text_of("bind") } else { number };
        if !seen.insert(place) {
            let place = format!("{}[{i}].port.number", join(path, list));
            report.at(port, &place, format!("port {number} is given twice: keep one"));
        }
    }
}

fn ingress_ports_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    ports_differ(spec, "ingress", path, report);
}

fn egress_ports_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    ports_differ(spec, "egress", path, report);
    let all = spec.items_of("egress");
    for (i, listener) in all.iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "egress"));
        if !listener.has("port") && i + 1 < all.len() {
            let reason = "a listener without a port is for all others: put it last, and only one";
            report.at(listener, &place, reason);
        }
    }
}

fn root_is_for_all(spec: &Node, path: &str, report: &mut Report<'_>) {
    if let Some(selector) =
        spec.get("workloadSelector").filter(|_| report.namespace() == ROOT_NAMESPACE)
    {
        let reason = "a Sidecar of the root namespace is for all workloads: leave this out";
        report.at(selector, &join(path, "workloadSelector"), reason);
    }
}

/// A checked Sidecar into its noun.
pub(super) fn read(spec: &Node) -> Sidecar {
    let listeners = spec.items_of("egress");
    let hosts = listeners.iter().flat_map(|listener| {
        let port = listener.get("port").and_then(|port| port.text_of("number").parse().ok());
        let hosts = listener.items_of("hosts").iter();
        hosts.filter_map(move |host| Some(EgressHost { port, ..read_host(host.text()).ok()? }))
    });
    let mode = |policy: &Node| match policy.text_of("mode") {
        "ALLOW_ANY" => OutboundMode::AllowAny,
        _ => OutboundMode::RegistryOnly,
    };
    Sidecar {
        selector: spec.get("workloadSelector").map(|selector| selector.labels_of("labels")),
        egress: (!listeners.is_empty()).then(|| hosts.collect()),
        outbound: spec.get("outboundTrafficPolicy").map(mode),
        ingress: spec.items_of("ingress").iter().filter_map(read_ingress).collect(),
    }
}
