//! May this workload join? Every reason against it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use heddle_compile::{endpoint, endpoints};
use heddle_model::{
    Addresses, EndpointState, Endpoints, Identity, Locality, Protocol, Registry, Service,
    ServiceName, ServicePort, TargetPort, Workload, WorkloadId, WorkloadPort,
    discovery::WorkloadInfo,
    name::{check_label, check_port_name},
    wire::Check,
};
use heddle_wire::{
    discovery::WireResource,
    local::{
        control_api::{JoinPort, JoinRequest, Problem},
        proxy_config::taken_port,
    },
};

use crate::limits::{
    ENDPOINTS_BYTES_MAX, LABEL_BYTES_MAX, LABEL_PREFIX_BYTES_MAX, LABELS_MAX,
    PORTS_PER_WORKLOAD_MAX,
};

/// Checks a request and makes the workload of it, still without id and addresses.
pub(super) fn admit(request: &JoinRequest, registry: &Registry) -> Result<Workload, Vec<Problem>> {
    let mut problems = Vec::new();
    if let Err(error) = check_label(&request.service) {
        problems.push(problem("service", error.to_string()));
    }
    if let Err(error) = check_label(&request.namespace) {
        problems.push(problem("namespace", error.to_string()));
    }
    if let Err(reason) = request.locality.check() {
        problems.push(problem("locality", reason));
    }
    let labels = labels(request, &mut problems);
    let service =
        ServiceName { namespace: request.namespace.clone(), name: request.service.clone() };
    let ports = ports(request, &service, registry, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let version = labels.get("version").cloned().unwrap_or_default();
    let name = match version.as_str() {
        "" => request.service.clone(),
        version => format!("{}-{version}", request.service),
    };
    Ok(Workload {
        id: WorkloadId(String::new()),
        name,
        namespace: request.namespace.clone(),
        identity: Identity::local(&request.namespace, &request.service),
        services: BTreeSet::from([service]),
        version,
        labels,
        addresses: Addresses::Both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        ports,
        locality: Locality { node: String::new(), ..request.locality.clone() },
    })
}

/// Would the endpoints of its service still go into one message with it? A proxy that cannot be told
/// of them would never hear of any change of its mesh again.
pub(super) fn check_fits(
    workload: &Workload,
    service: &ServiceName,
    registry: &Registry,
) -> Result<(), Vec<Problem>> {
    let none = || Endpoints::inside(service.clone(), Vec::new());
    let mut all = endpoints(registry, service).unwrap_or_else(none);
    let own = workload.ports.values().map(|port| {
        let WorkloadPort { number, name, protocol, .. } = port.clone();
        (number, ServicePort { number, name, protocol, target: TargetPort::Number(number) })
    });
    let own = Service { name: service.clone(), vips: Vec::new(), ports: own.collect() };
    let Some(endpoint) = endpoint(&own, workload) else { return Ok(()) };
    all.endpoints.push(endpoint);
    let bytes = all.encode().len();
    if bytes <= ENDPOINTS_BYTES_MAX {
        return Ok(());
    }
    let count = all.endpoints.len();
    Err(vec![problem(
        "labels",
        format!(
            "the {count} workloads of service {service} would come to {bytes} bytes, more than the {ENDPOINTS_BYTES_MAX} that a sidecar is told at once: use fewer or shorter labels, or fewer workloads"
        ),
    )])
}

/// Checks what a running member says of itself: it names files and resources elsewhere. Its one
/// service, and the address that its index is told by.
pub(super) fn check_restored(workload: &Workload) -> Result<(ServiceName, Ipv4Addr), String> {
    let id = &workload.id.0;
    let safe = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if id.is_empty() || id.len() > 255 || !safe || id.starts_with('.') {
        return Err(format!("`{id}` is no workload id: letters, digits, `-`, `.` and `_` only"));
    }
    let mut services = workload.services.iter();
    let (Some(service), None) = (services.next(), services.next()) else {
        let count = workload.services.len();
        return Err(format!("workload {id} is in {count} services: on one machine it is in one"));
    };
    // What a sidecar would not take is not to be told to all of them.
    WorkloadInfo::from(workload).check().map_err(|error| format!("workload {id}: {error}"))?;
    let Addresses::Both(ip, _) = workload.addresses else {
        return Err(format!("workload {id} lacks an IPv4 or an IPv6 address"));
    };
    if workload.ports.iter().any(|(number, port)| *number != port.number) {
        return Err(format!("workload {id} lists a port under another port's number"));
    }
    Ok((service.clone(), ip))
}

fn labels(request: &JoinRequest, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let mut labels = request.labels.clone();
    set(&mut labels, "app", &request.service, problems);
    if !request.version.is_empty() {
        set(&mut labels, "version", &request.version, problems);
    }
    if labels.len() > LABELS_MAX {
        let count = labels.len();
        problems
            .push(problem("labels", format!("{count} labels are too many: at most {LABELS_MAX}")));
    }
    for (key, value) in &labels {
        let (prefix, name) =
            key.split_once('/').map_or((None, key.as_str()), |(p, n)| (Some(p), n));
        let prefix_fits = prefix.is_none_or(|prefix| {
            prefix.len() <= LABEL_PREFIX_BYTES_MAX
                && prefix.split('.').all(|part| check_label(part).is_ok())
        });
        if !prefix_fits || name.is_empty() || !is_label_word(name) {
            problems.push(problem(
                "labels",
                format!("`{key}` is no label key: use [PREFIX/]NAME with up to {LABEL_BYTES_MAX} letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"),
            ));
        }
        if !is_label_word(value) {
            let field = if key == "version" { "version" } else { "labels" };
            problems.push(problem(
                field,
                format!("`{value}` is no value for label `{key}`: use up to {LABEL_BYTES_MAX} letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"),
            ));
        }
    }
    labels
}

/// Sets a label that Heddle derives; a different one given by the user is a contradiction.
fn set(labels: &mut BTreeMap<String, String>, key: &str, value: &str, problems: &mut Vec<Problem>) {
    match labels.insert(key.to_owned(), value.to_owned()) {
        Some(given) if given != value => problems.push(problem(
            "labels",
            format!("label `{key}={given}` contradicts `{key}={value}`, which Heddle sets itself: leave the label out"),
        )),
        _ => {}
    }
}

/// Kubernetes' syntax of label values and of the names of label keys; empty is a valid value.
fn is_label_word(word: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    word.len() <= LABEL_BYTES_MAX
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && ends(word.as_bytes().first())
        && ends(word.as_bytes().last())
}

fn ports(
    request: &JoinRequest,
    service: &ServiceName,
    registry: &Registry,
    problems: &mut Vec<Problem>,
) -> BTreeMap<u16, WorkloadPort> {
    let mut ports = BTreeMap::new();
    if request.ports.len() > PORTS_PER_WORKLOAD_MAX {
        let count = request.ports.len();
        problems.push(problem(
            "ports",
            format!("{count} ports are too many: at most {PORTS_PER_WORKLOAD_MAX}"),
        ));
    }
    for (position, asked) in request.ports.iter().take(PORTS_PER_WORKLOAD_MAX).enumerate() {
        let field = format!("ports[{position}]");
        let number = asked.number;
        let protocol = match asked.protocol {
            Protocol::Undeclared => Protocol::from_port_name(&asked.name).unwrap_or_default(),
            declared => declared,
        };
        let fault = number_fault(number)
            .or_else(|| name_fault(asked))
            .or_else(|| conflict(service, number, protocol, request, registry));
        if let Some(reason) = fault {
            problems.push(problem(&field, reason));
            continue;
        }
        let port = WorkloadPort {
            number,
            name: asked.name.clone(),
            protocol,
            state: EndpointState::Pending,
        };
        if ports.insert(number, port).is_some() {
            problems
                .push(problem(&field, format!("port {number} is declared twice: name it once")));
        }
    }
    ports
}

fn number_fault(number: u16) -> Option<String> {
    if number == 0 {
        return Some("port 0 is no port: use 1 to 65535".to_owned());
    }
    let whose = taken_port(number)?;
    Some(format!("port {number} is {whose}; 53 and 15000 to 15090 are the mesh's, choose another"))
}

fn name_fault(port: &JoinPort) -> Option<String> {
    if port.name.is_empty() {
        return None;
    }
    check_port_name(&port.name).err().map(|error| error.to_string())
}

/// A service has one protocol per port; who said nothing contradicts nobody.
fn conflict(
    service: &ServiceName,
    number: u16,
    protocol: Protocol,
    request: &JoinRequest,
    registry: &Registry,
) -> Option<String> {
    let known = registry.services.get(service)?.ports.get(&number)?.protocol;
    if known == protocol || known == Protocol::Undeclared || protocol == Protocol::Undeclared {
        return None;
    }
    let holder = registry
        .workloads
        .values()
        .find(|w| w.services.contains(service) && w.ports.contains_key(&number))
        .map_or_else(|| "another workload".to_owned(), |w| format!("workload {}", w.id));
    let newcomer = match request.version.as_str() {
        "" => "this workload".to_owned(),
        version => format!("this workload (version {version})"),
    };
    Some(format!(
        "port {number} of service {service} is {known} by {holder}, but {protocol} by {newcomer}: a service has one protocol per port; use the same one or another service name"
    ))
}

fn problem(field: &str, reason: String) -> Problem {
    Problem { field: Some(field.to_owned()), reason, ..Problem::default() }
}
