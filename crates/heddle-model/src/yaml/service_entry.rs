//! Istio's `ServiceEntry` and `WorkloadEntry`: services and workloads that are not in the mesh.

use std::{collections::HashSet, net::IpAddr};

use super::{
    node::Node,
    report::Report,
    schema::{
        COUNT, Kind, LABELS, NAME, Object, PORT, SUBJECT_ALT_NAMES_MAX, TEXT, at_most, join,
        not_yet, optional, required,
    },
    value,
    virtual_service::exports_differ,
};
use crate::{
    Locality, Protocol,
    discovery::Resolution,
    name::check_label,
    resource::{EndpointAddress, EntryEndpoint, EntryHost, EntryPort, ServiceEntry, WorkloadEntry},
};

/// Most hosts of one entry, as in Istio.
const HOSTS_MAX: usize = 256;
/// Most endpoints of one entry, as in Istio.
const ENDPOINTS_MAX: usize = 4096;
/// Begins the path of a socket in the file system.
const UNIX: &str = "unix://";
/// Protocols of ports, as Istio spells them.
const PROTOCOLS: &str = "HTTP, HTTPS, HTTP2, GRPC, GRPC-Web, TLS, TCP, MONGO, MYSQL or REDIS";

/// `spec` of a ServiceEntry.
pub(super) static SPEC: Object = Object {
    fields: &[
        required("hosts", Kind::List { of: &Kind::Text(entry_host), least: 1 }),
        optional("addresses", Kind::List { of: &Kind::Text(value::is_subnet), least: 0 }),
        optional("ports", Kind::List { of: &Kind::Object(&ENTRY_PORT), least: 0 }),
        // It would say which workloads take part in mutual TLS; the address says where one is.
        optional("location", Kind::Choice(&["MESH_EXTERNAL", "MESH_INTERNAL"])),
        optional(
            "resolution",
            Kind::Choice(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]),
        ),
        optional("endpoints", Kind::List { of: &Kind::Object(&ENDPOINT), least: 0 }),
        optional("workloadSelector", Kind::Object(&SELECTOR)),
        optional("exportTo", Kind::List { of: &Kind::Text(export_to), least: 0 }),
        optional("subjectAltNames", Kind::List { of: &NAME, least: 0 }),
    ],
    rules: &[
        hosts_are_few_and_differ,
        addresses_fit,
        ports_differ,
        one_source_of_endpoints,
        endpoints_fit,
        hosts_can_be_told_apart,
        exports_differ,
        to_nobody_else,
        names_are_bounded,
        names_decide,
    ],
};

/// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
pub(super) static ENDPOINT: Object = Object {
    fields: &[
        optional("address", Kind::Text(endpoint_address)),
        optional("ports", Kind::Map { key: port_name, of: &PORT }),
        optional("labels", LABELS),
        not_yet("network", TEXT),
        optional("locality", Kind::Text(locality)),
        optional("weight", COUNT),
        optional("serviceAccount", Kind::Text(value::object_name)),
    ],
    rules: &[has_a_place],
};

static ENTRY_PORT: Object = Object {
    fields: &[
        required("number", PORT),
        required("name", Kind::Text(port_name)),
        optional("protocol", Kind::Text(protocol)),
        optional("targetPort", PORT),
    ],
    rules: &[],
};

pub(super) static SELECTOR: Object = Object {
    fields: &[optional(
        "labels",
        Kind::Map { key: value::selector_key, of: &Kind::Text(value::selector_value) },
    )],
    rules: &[],
};

/// A host of an entry: as others may have it, but not `*` alone, which would be everything.
fn entry_host(text: &str) -> Result<(), String> {
    value::wildcard_host(text)?;
    match text.strip_prefix('*') {
        Some("") => {
            Err("`*` would be every host: use e.g. `api.example.com` or `*.example.com`".to_owned())
        }
        Some(rest) if !rest.trim_end_matches('.').contains('.') => {
            Err(format!("`{text}` is no host with a domain: use e.g. `*.example.com`"))
        }
        _ => Ok(()),
    }
}

fn port_name(text: &str) -> Result<(), String> {
    check_label(&text.to_ascii_lowercase()).map_err(|_| {
        format!("`{text}` is no port name: use letters, digits and `-`, e.g. `http-api`")
    })
}

fn protocol(text: &str) -> Result<(), String> {
    spoken(text).map(|_| ()).ok_or_else(|| format!("`{text}` is no protocol: use {PROTOCOLS}"))
}

/// What a port speaks; the inner `None` for what the mesh does not carry.
fn spoken(text: &str) -> Option<Option<Protocol>> {
    match text.to_ascii_lowercase().as_str() {
        "udp" => Some(None),
        "grpc-web" => Some(Some(Protocol::Http)),
        "kubernetes.io/h2c" | "h2c" => None,
        other => other.parse().ok().map(Some),
    }
}

fn export_to(text: &str) -> Result<(), String> {
    if text == "~" { Ok(()) } else { value::export_to(text) }
}

/// What is no locality would be one that nobody is near to.
fn locality(text: &str) -> Result<(), String> {
    Locality::parse(text).map(drop)
}

fn endpoint_address(text: &str) -> Result<(), String> {
    if let Some(path) = text.strip_prefix(UNIX) {
        if (path.starts_with('/') && !path.ends_with('/')) || path.starts_with('@') {
            return Ok(());
        }
        return Err(format!("`{text}` is no socket: use e.g. `unix:///run/app.sock`"));
    }
    if text.parse::<IpAddr>().is_ok() || value::single_host(text).is_ok() {
        return Ok(());
    }
    Err(format!("`{text}` is neither an IP address nor a DNS name"))
}

fn has_a_place(node: &Node, path: &str, report: &mut Report<'_>) {
    let address = node.text_of("address");
    let place = join(path, "address");
    if address.is_empty() && !node.has("network") {
        report.at(node, &place, "this field is required, e.g. `10.0.0.7` or `db.example.com`");
    }
    if address.starts_with(UNIX) {
        if node.has("ports") {
            let reason = "a socket in the file system has no port: leave this out";
            report.at(node, &join(path, "ports"), reason);
        }
        report.not_enforced(node.get("address").map_or(node.line, |at| at.line), &place);
    }
}

fn hosts_are_few_and_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    let hosts = spec.items_of("hosts");
    if hosts.len() > HOSTS_MAX {
        let reason = format!("{} hosts, at most {HOSTS_MAX}: divide the entry", hosts.len());
        report.at(spec, &join(path, "hosts"), reason);
    }
    let mut seen = HashSet::new();
    for (i, host) in hosts.iter().enumerate() {
        if !seen.insert(plain_host(host.text())) {
            let reason = format!("`{}` is given twice: keep one", host.text());
            report.at(host, &format!("{}[{i}]", join(path, "hosts")), reason);
        }
    }
}

fn addresses_fit(spec: &Node, path: &str, report: &mut Report<'_>) {
    let resolution = resolution(spec);
    let by_name = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    for (i, address) in spec.items_of("addresses").iter().enumerate() {
        let is_range = address.text().contains('/');
        if by_name && is_range {
            let reason = "an address range needs `resolution: NONE` or `STATIC`";
            report.at(address, &format!("{}[{i}]", join(path, "addresses")), reason);
        }
    }
}

fn ports_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    let to_where_asked = resolution(spec) == Resolution::None && !is_dynamic(spec);
    for (i, port) in spec.items_of("ports").iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "ports"));
        let (number, name) = (port.text_of("number"), port.text_of("name"));
        if !numbers.insert(number) {
            let reason = format!("port {number} is given twice: keep one");
            report.at(port, &join(&place, "number"), reason);
        } else if !names.insert(name) {
            let reason = format!("two ports are called `{name}`: name them apart");
            report.at(port, &join(&place, "name"), reason);
        }
        let line_of = |field: &str| port.get(field).map_or(port.line, |value| value.line);
        if spoken(port.text_of("protocol")) == Some(None) {
            let reason = "UDP does not pass through the mesh: the port is left out";
            report.no_effect(line_of("protocol"), &join(&place, "protocol"), reason);
        }
        if to_where_asked && port.has("targetPort") {
            let reason = "with `resolution: NONE` a call goes to the address and port it asked for";
            report.no_effect(line_of("targetPort"), &join(&place, "targetPort"), reason);
        }
    }
    if numbers.is_empty() {
        report.no_effect(spec.line, &join(path, "ports"), "without a port nothing can be called");
    }
}

fn one_source_of_endpoints(spec: &Node, path: &str, report: &mut Report<'_>) {
    let (listed, selected) = (spec.get("endpoints"), spec.get("workloadSelector"));
    if let (Some(_), Some(selector)) = (listed, selected) {
        let reason = "endpoints are listed already: keep one of `endpoints` and `workloadSelector`";
        report.at(selector, &join(path, "workloadSelector"), reason);
    }
    if let (Resolution::None, Some(endpoints)) = (resolution(spec), listed)
        && !is_dynamic(spec)
    {
        let reason = "with `resolution: NONE` a call goes to the address it asked for: leave the \
                      endpoints out, or use `STATIC` or `DNS`";
        report.at(endpoints, &join(path, "endpoints"), reason);
    }
}

fn endpoints_fit(spec: &Node, path: &str, report: &mut Report<'_>) {
    let endpoints = spec.items_of("endpoints");
    let place = join(path, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        let reason = format!("{} endpoints, at most {ENDPOINTS_MAX}", endpoints.len());
        report.at(spec, &place, reason);
    }
    let resolution = resolution(spec);
    if let (Resolution::DnsRoundRobin, [_, second, ..]) = (resolution, endpoints) {
        let reason = "`resolution: DNS_ROUND_ROBIN` takes one endpoint: use `DNS` for several";
        report.at(second, &format!("{place}[1]"), reason);
    }
    if matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) && endpoints.is_empty() {
        for (i, host) in spec.items_of("hosts").iter().enumerate() {
            if host.text().starts_with('*') && !spec.has("workloadSelector") {
                let reason = format!(
                    "`{}` cannot be resolved: give `endpoints`, or use `resolution: NONE`",
                    host.text()
                );
                report.at(host, &format!("{}[{i}]", join(path, "hosts")), reason);
            }
        }
    }
    let names: Vec<_> = spec.items_of("ports").iter().map(|port| port.text_of("name")).collect();
    for (i, endpoint) in endpoints.iter().enumerate() {
        let place = format!("{place}[{i}]");
        let address = endpoint.text_of("address");
        let is_name =
            !address.is_empty() && !address.starts_with(UNIX) && address.parse::<IpAddr>().is_err();
        if resolution == Resolution::Static && is_name {
            let reason = format!(
                "`{address}` is a name, and `resolution: STATIC` takes addresses: use `resolution: DNS`"
            );
            report.at(endpoint, &join(&place, "address"), reason);
        }
        if resolution != Resolution::Static && address.starts_with(UNIX) {
            let reason = "a socket in the file system needs `resolution: STATIC`";
            report.at(endpoint, &join(&place, "address"), reason);
        }
        for entry in endpoint.get("ports").map_or(&[][..], Node::entries) {
            if !names.contains(&entry.key.as_str()) {
                let reason = format!("the entry has no port called `{}`", entry.key);
                report.error(entry.line, &join(&join(&place, "ports"), &entry.key), reason);
            }
        }
    }
}

/// Several hosts at one address are told apart by Host or SNI, which TCP does not have. Where each gets
/// an address of its own there is nothing to tell apart.
fn hosts_can_be_told_apart(spec: &Node, path: &str, report: &mut Report<'_>) {
    let several = spec.items_of("hosts").len() > 1 && !spec.items_of("addresses").is_empty();
    if !several || resolution(spec) == Resolution::None {
        return;
    }
    for (i, port) in spec.items_of("ports").iter().enumerate() {
        let speaks = spoken(port.text_of("protocol")).flatten().unwrap_or_default();
        if matches!(speaks, Protocol::Tcp | Protocol::Undeclared) {
            let reason = "several hosts share `addresses`, and TCP does not say which is meant: \
                          give each an entry of its own, or leave `addresses` out";
            let place = format!("{}[{i}].protocol", join(path, "ports"));
            return report.at(port, &place, reason);
        }
    }
}

fn to_nobody_else(spec: &Node, path: &str, report: &mut Report<'_>) {
    let all = spec.items_of("exportTo");
    if let Some(i) = all.iter().position(|to| to.text() == "~").filter(|_| all.len() > 1) {
        let place = format!("{}[{i}]", join(path, "exportTo"));
        report.at(&all[i], &place, "`~` means nobody: name no other beside it");
    }
}

/// What is looked up for each call needs a name in the call.
fn names_decide(spec: &Node, path: &str, report: &mut Report<'_>) {
    if !is_dynamic(spec) {
        return;
    }
    for part in ["endpoints", "workloadSelector"] {
        if let Some(node) = spec.get(part) {
            let reason = "with `resolution: DYNAMIC_DNS` a call goes to the host that it names";
            report.no_effect(node.line, &join(path, part), reason);
        }
    }
    for (i, host) in spec.items_of("hosts").iter().enumerate() {
        if !host.text().starts_with('*') {
            let place = format!("{}[{i}]", join(path, "hosts"));
            let reason = "`resolution: DYNAMIC_DNS` is for `*.suffix`: use `DNS` for one host";
            report.at(host, &place, reason);
        }
    }
    for (i, port) in spec.items_of("ports").iter().enumerate() {
        if spoken(port.text_of("protocol")).flatten() == Some(Protocol::Tcp) {
            let place = format!("{}[{i}].protocol", join(path, "ports"));
            let reason = "TCP names no host: its calls go to the address that they ask for";
            report.no_effect(port.line, &place, reason);
        }
    }
}

fn is_dynamic(spec: &Node) -> bool {
    spec.text_of("resolution") == "DYNAMIC_DNS"
}

fn names_are_bounded(spec: &Node, path: &str, report: &mut Report<'_>) {
    at_most(spec, "subjectAltNames", SUBJECT_ALT_NAMES_MAX, path, report);
}

fn resolution(spec: &Node) -> Resolution {
    match spec.text_of("resolution") {
        "STATIC" => Resolution::Static,
        "DNS" => Resolution::Dns,
        "DNS_ROUND_ROBIN" => Resolution::DnsRoundRobin,
        // What is looked up for each call has no endpoints either.
        _ => Resolution::None,
    }
}

/// A host in the one spelling by which it is compared.
fn plain_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// A checked ServiceEntry into its noun.
pub(super) fn read(spec: &Node) -> ServiceEntry {
    let hosts = spec.items_of("hosts").iter();
    let subnets = spec.items_of("addresses").iter();
    let selector = spec.get("workloadSelector");
    ServiceEntry {
        hosts: hosts.map(|h| EntryHost { host: plain_host(h.text()), line: h.line }).collect(),
        addresses: subnets.filter_map(|one| value::subnet(one.text()).ok()).collect(),
        ports: spec.items_of("ports").iter().filter_map(port).collect(),
        resolution: resolution(spec),
        dynamic: is_dynamic(spec),
        endpoints: spec.items_of("endpoints").iter().map(endpoint).collect(),
        selector: selector.map(|selector| selector.labels_of("labels")),
        export_to: spec.texts_of("exportTo"),
        subject_alt_names: spec.texts_of("subjectAltNames"),
    }
}

/// A checked WorkloadEntry into its noun.
pub(super) fn read_workload(spec: &Node) -> WorkloadEntry {
    WorkloadEntry { endpoint: endpoint(spec) }
}

fn number(node: &Node, field: &str) -> Option<u16> {
    node.text_of(field).parse().ok()
}

/// A port of this object, of a protocol that the mesh carries.
pub(super) fn port(node: &Node) -> Option<EntryPort> {
    let name = node.text_of("name");
    let protocol = match node.text_of("protocol") {
        "" => Protocol::from_port_name(&name.to_ascii_lowercase()).unwrap_or_default(),
        text => spoken(text)??,
    };
    let target = number(node, "targetPort");
    Some(EntryPort { number: number(node, "number")?, name: name.to_owned(), protocol, target })
}

fn endpoint(node: &Node) -> EntryEndpoint {
    let address = node.text_of("address");
    let address = match address.parse::<IpAddr>() {
        Ok(ip) => EndpointAddress::Ip(ip.to_canonical()),
        Err(_) if address.is_empty() || address.starts_with(UNIX) => EndpointAddress::Elsewhere,
        Err(_) => EndpointAddress::Host(plain_host(address)),
    };
    let ports = node.get("ports").map_or(&[][..], Node::entries).iter();
    let ports = ports.filter_map(|one| Some((one.key.clone(), one.value.text().parse().ok()?)));
    EntryEndpoint {
        address,
        ports: ports.collect(),
        labels: node.labels_of("labels"),
        locality: Locality::parse(node.text_of("locality")).unwrap_or_default(),
        weight: node.text_of("weight").parse().unwrap_or(0),
        service_account: node.text_of("serviceAccount").to_owned(),
        line: node.line,
    }
}
