//! Kubernetes' `Service` and `Namespace`: what a cluster holds, as the mesh needs it. Of a Service these are
//! its ports, who is behind them, and whether it has an address; what else it has concerns a cluster's
//! nodes and its edge, and is checked for its type alone.

use std::collections::{BTreeMap, HashSet};

use super::{
    node::Node,
    report::Report,
    schema::{Kind, LABELS, Object, PORT, TEXT, join, not_yet, optional, required},
    value,
};
use crate::{
    Protocol, ServicePort, TargetPort,
    name::{check_label, check_port_name},
    resource::ServiceObject,
};

const PORTS_MAX: usize = 100;

/// `spec` of a Service.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("ports", Kind::List { of: &Kind::Object(&PORT_OBJECT), least: 0 }),
        optional("selector", LABELS),
        optional("type", Kind::Choice(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
        optional("clusterIP", TEXT),
        optional("clusterIPs", Kind::List { of: &TEXT, least: 0 }),
        not_yet("externalName", Kind::Text(value::single_host)),
        optional("allocateLoadBalancerNodePorts", Kind::Bool),
        optional("externalIPs", Kind::List { of: &TEXT, least: 0 }),
        optional("externalTrafficPolicy", TEXT),
        optional("healthCheckNodePort", Kind::Int { min: 0, max: 65_535 }),
        optional("internalTrafficPolicy", TEXT),
        optional("ipFamilies", Kind::List { of: &TEXT, least: 0 }),
        optional("ipFamilyPolicy", TEXT),
        optional("loadBalancerClass", TEXT),
        optional("loadBalancerIP", TEXT),
        optional("loadBalancerSourceRanges", Kind::List { of: &TEXT, least: 0 }),
        optional("publishNotReadyAddresses", Kind::Bool),
        optional("sessionAffinity", Kind::Choice(&["None", "ClientIP"])),
        optional("sessionAffinityConfig", Kind::Any),
        optional("topologyKeys", Kind::Any),
        optional("trafficDistribution", TEXT),
    ],
    rules: &[ports_fit, kind_fits],
};

static PORT_OBJECT: Object = Object {
    fields: &[
        optional("name", TEXT),
        required("port", PORT),
        optional("protocol", Kind::Choice(&["TCP", "UDP", "SCTP"])),
        optional("targetPort", Kind::Any),
        optional("nodePort", Kind::Int { min: 0, max: 65_535 }),
        optional("appProtocol", TEXT),
    ],
    rules: &[|node, path, report| {
        if let Some(name) = node.get("name")
            && let Err(error) = check_label(name.text())
        {
            report.at(name, &join(path, "name"), error.to_string());
        }
        if let Some(target) = node.get("targetPort")
            && let Err(reason) = target_port(target)
        {
            report.at(target, &join(path, "targetPort"), reason);
        }
    }],
};

/// A number, or the name that a workload gives its port.
fn target_port(node: &Node) -> Result<TargetPort, String> {
    let text = node.text();
    let wrong = || {
        format!("`{text}` is no port: use a number from 1 to 65535, or a port's name, e.g. `http`")
    };
    if let Ok(number) = text.parse::<u32>() {
        let number = u16::try_from(number).ok().filter(|number| *number > 0);
        return match number {
            Some(number) if node.is_plain() => Ok(TargetPort::Number(number)),
            Some(_) => Err(format!("`{text}` is text: leave out the quotes")),
            None => Err(wrong()),
        };
    }
    check_port_name(text).map_err(|_| wrong())?;
    Ok(TargetPort::Name(text.to_owned()))
}

fn protocol_of(port: &Node) -> &str {
    port.get("protocol").map_or("TCP", Node::text)
}

fn ports_fit(spec: &Node, path: &str, report: &mut Report<'_>) {
    let ports = spec.items_of("ports");
    let place = join(path, "ports");
    if let Some(first) = ports.get(PORTS_MAX) {
        let reason = format!("{} ports, more than the {PORTS_MAX} allowed", ports.len());
        return report.at(first, &place, reason);
    }
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let (name, number) = (port.text_of("name"), port.text_of("port"));
        let place = format!("{place}[{i}]");
        if name.is_empty() && ports.len() > 1 {
            let reason = "of several ports each has a name: say e.g. `http`";
            report.at(port, &join(&place, "name"), reason);
        }
        if !name.is_empty() && !names.insert(name) {
            let reason = format!("two ports have the name `{name}`: names differ");
            report.at(port, &join(&place, "name"), reason);
        }
        if !numbers.insert((number, protocol_of(port))) {
            report.at(port, &join(&place, "port"), format!("port {number} is given twice"));
        }
        if protocol_of(port) != "TCP" {
            report.not_enforced(port.line, &place);
        }
    }
}

fn kind_fits(spec: &Node, path: &str, report: &mut Report<'_>) {
    if let Some(affinity) = spec.get("sessionAffinity").filter(|one| one.text() == "ClientIP") {
        report.not_enforced(affinity.line, &join(path, "sessionAffinity"));
    }
    let is_alias = spec.text_of("type") == "ExternalName";
    if is_alias && !spec.has("externalName") {
        let reason = "a Service of type `ExternalName` needs the name it stands for";
        report.at(spec, &join(path, "externalName"), reason);
    }
    let headless = spec.text_of("clusterIP") == "None";
    if !is_alias && !headless && spec.items_of("ports").is_empty() {
        report.at(spec, &join(path, "ports"), "a Service needs a port, e.g. `- port: 80`");
    }
}

/// The name of a Service or a Namespace is one label of a DNS name.
pub(super) fn name_is_a_label(root: &Node, path: &str, report: &mut Report<'_>) {
    let Some(name) = root.get("metadata").and_then(|metadata| metadata.get("name")) else { return };
    if let Err(error) = check_label(name.text()) {
        report.at(name, &join(&join(path, "metadata"), "name"), error.to_string());
    }
}

/// What a checked Service says.
pub(super) fn read(spec: &Node) -> ServiceObject {
    let tcp = spec.items_of("ports").iter().filter(|port| protocol_of(port) == "TCP");
    let ports: BTreeMap<u16, ServicePort> = tcp.filter_map(port).collect();
    let selector = spec.labels_of("selector");
    let is_alias = spec.text_of("type") == "ExternalName";
    ServiceObject {
        ports,
        selector: (!selector.is_empty()).then_some(selector),
        headless: spec.text_of("clusterIP") == "None",
        external_name: is_alias.then(|| spec.text_of("externalName").to_owned()),
    }
}

fn port(node: &Node) -> Option<(u16, ServicePort)> {
    let number = node.text_of("port").parse().ok()?;
    let name = node.text_of("name").to_owned();
    let protocol = Protocol::of_service_port(node.get("appProtocol").map(Node::text), &name);
    let target = node.get("targetPort").and_then(|target| target_port(target).ok());
    let target = target.unwrap_or(TargetPort::Number(number));
    Some((number, ServicePort { number, name, protocol, target }))
}
