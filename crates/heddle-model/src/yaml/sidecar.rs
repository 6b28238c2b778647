//! Istio's `Sidecar`: which services workloads see, and what becomes of calls of what nobody knows.

use std::{collections::HashSet, net::SocketAddr};

use super::{
    node::Node,
    report::Report,
    schema::{Kind, Object, PORT, TEXT, join, not_yet, optional, required},
    service_entry::SELECTOR,
    value,
};
use crate::{
    name::check_label,
    resource::{EgressHost, EgressNamespace, OutboundMode, Sidecar},
};

/// The namespace whose Sidecar is for all others.
const ROOT_NAMESPACE: &str = "istio-system";

/// `spec` of a Sidecar.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("workloadSelector", Kind::Object(&SELECTOR)),
        not_yet("ingress", Kind::List { of: &Kind::Object(&INGRESS), least: 0 }),
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
        optional("captureMode", CAPTURE),
        optional("defaultEndpoint", Kind::Text(default_endpoint)),
        optional("tls", Kind::Any),
        optional("connectionPool", Kind::Any),
    ],
    rules: &[],
};

static EGRESS: Object = Object {
    fields: &[
        // What is spoken there is the service's to say.
        optional("port", Kind::Object(&LISTENER_PORT)),
        not_yet("bind", Kind::Text(bind)),
        not_yet("captureMode", CAPTURE),
        required("hosts", Kind::List { of: &Kind::Text(egress_host), least: 1 }),
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
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("`{text}` is no IP address")),
    }
}

fn bind(text: &str) -> Result<(), String> {
    if text.starts_with("unix://") { Ok(()) } else { address(text) }
}

fn default_endpoint(text: &str) -> Result<(), String> {
    let own = |at: SocketAddr| at.ip().is_loopback() || at.ip().is_unspecified();
    let fits = text.is_empty()
        || text.starts_with("unix:///")
        || text.parse().is_ok_and(|at: SocketAddr| own(at) && at.port() != 0);
    if fits {
        return Ok(());
    }
    Err(format!("`{text}` is no endpoint of the workload: use `127.0.0.1:PORT` or `0.0.0.0:PORT`"))
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
        if !seen.insert(number) {
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
    }
}
