//! Protobuf to model, with every check. An error names the field, so that a NACK can be read.

mod checks;

use std::time::Duration;

use heddle_model::{
    Address, Destination, DestinationPort, Endpoint, EndpointState, Endpoints, Inbound,
    InboundPort, MeshSettings, NameAnswer, Owner, Protocol, ServiceName, WorkloadId,
    discovery::{
        Fault, FaultAbort, FaultDelay, HeaderMatch, HttpMatch, HttpRule, Provenance, StringMatch,
        Subset, WeightedTarget, WorkloadInfo,
    },
};

use checks::{
    Checked, Wrong, distinct, ip, ipv4, ipv6, label, list, map, not_empty, optional, percent, port,
    prefix, read, required,
};

use super::{Encode, REGEX_BYTES_MAX, Resource, ResourceType, proto};

/// Why a resource is refused; the text of a NACK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type this proxy does not know.
    #[error("`{0}` is no resource type of this version: update the older side")]
    UnknownType(String),
    /// Not the protobuf message it should be.
    #[error("{kind:?} `{name}` is no valid message: {reason}")]
    Malformed {
        /// Its type.
        kind: ResourceType,
        /// Its name.
        name: String,
        /// What prost says.
        reason: String,
    },
    /// A field holds what it must not.
    #[error("{kind:?} `{name}`: {field}: {reason}")]
    Field {
        /// Its type.
        kind: ResourceType,
        /// Its name.
        name: String,
        /// Path of the field, e.g. `ports[0].http[2].targets[0].port`.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// Decodes and checks one resource, and that it is the one `name` names.
///
/// # Errors
/// [`DecodeError`]: keep the last good one and say so.
pub fn decode(type_url: &str, name: &str, bytes: &[u8]) -> Result<Resource, DecodeError> {
    let kind = ResourceType::from_type_url(type_url)
        .ok_or_else(|| DecodeError::UnknownType(type_url.to_owned()))?;
    let decoded = match kind {
        ResourceType::Address => read(bytes, address).map(|r| r.map(Resource::Address)),
        ResourceType::Name => read(bytes, name_answer).map(|r| r.map(Resource::Name)),
        ResourceType::Endpoints => read(bytes, endpoints).map(|r| r.map(Resource::Endpoints)),
        ResourceType::Inbound => read(bytes, inbound).map(|r| r.map(Resource::Inbound)),
        ResourceType::Destination => read(bytes, destination).map(|r| r.map(Resource::Destination)),
        ResourceType::Mesh => read(bytes, mesh).map(|r| r.map(Resource::Mesh)),
    };
    let wrong = |Wrong { field, reason }: Wrong| DecodeError::Field {
        kind,
        name: name.to_owned(),
        field,
        reason,
    };
    let resource = decoded
        .map_err(|error| DecodeError::Malformed {
            kind,
            name: name.to_owned(),
            reason: error.to_string(),
        })?
        .map_err(wrong)?;
    let own_name = resource.name();
    if own_name != name {
        return Err(wrong(Wrong::new("name", format_args!("the content is of `{own_name}`"))));
    }
    Ok(resource)
}

fn protocol(field: &str, value: i32) -> Checked<Protocol> {
    let wire = proto::Protocol::try_from(value)
        .map_err(|_| Wrong::new(field, format_args!("{value} is no protocol")))?;
    Ok(match wire {
        proto::Protocol::Undeclared => Protocol::Undeclared,
        proto::Protocol::Http => Protocol::Http,
        proto::Protocol::Http2 => Protocol::Http2,
        proto::Protocol::Grpc => Protocol::Grpc,
        proto::Protocol::Tls => Protocol::Tls,
        proto::Protocol::Tcp => Protocol::Tcp,
    })
}

fn state(value: i32) -> Checked<EndpointState> {
    match proto::EndpointState::try_from(value) {
        Ok(proto::EndpointState::Pending) => Ok(EndpointState::Pending),
        Ok(proto::EndpointState::Ready) => Ok(EndpointState::Ready),
        Ok(proto::EndpointState::Terminating) => Ok(EndpointState::Terminating),
        _ => Err(Wrong::new("", format_args!("{value} is no endpoint state"))),
    }
}

fn service(service: proto::Service) -> Checked<ServiceName> {
    label("namespace", &service.namespace)?;
    label("name", &service.name)?;
    Ok(ServiceName { namespace: service.namespace, name: service.name })
}

fn workload(workload: proto::Workload) -> Checked<WorkloadInfo> {
    not_empty("id", &workload.id)?;
    not_empty("name", &workload.name)?;
    label("namespace", &workload.namespace)?;
    Ok(WorkloadInfo {
        id: WorkloadId(workload.id),
        name: workload.name,
        namespace: workload.namespace,
        service: required("service", workload.service, service)?,
        version: workload.version,
        labels: workload.labels,
        ports: map("ports", workload.ports, |&number, value| {
            Ok((port("", number)?, protocol("", value)?))
        })?,
    })
}

fn address(message: proto::Address) -> Checked<Address> {
    let owner = match message.owner {
        None => Owner::NotKnown,
        Some(proto::Owner::Service(owner)) => {
            Owner::Service(required("service", Some(owner), service)?)
        }
        Some(proto::Owner::Workload(owner)) => {
            Owner::Workload(Box::new(required("workload", Some(owner), workload)?))
        }
    };
    Ok(Address { ip: ip("ip", &message.ip)?, owner })
}

fn name_answer(message: proto::Name) -> Checked<NameAnswer> {
    not_empty("host", &message.host)?;
    label("namespace", &message.namespace)?;
    let service = match optional("service", message.service, service)? {
        None => None,
        Some(name) => Some((name, ipv4("ipv4", &message.ipv4)?, ipv6("ipv6", &message.ipv6)?)),
    };
    Ok(NameAnswer { host: message.host, namespace: message.namespace, service })
}

fn endpoints(message: proto::Endpoints) -> Checked<Endpoints> {
    Ok(Endpoints {
        service: required("service", message.service, service)?,
        endpoints: list("endpoints", message.endpoints, endpoint)?,
    })
}

fn endpoint(message: proto::Endpoint) -> Checked<Endpoint> {
    Ok(Endpoint {
        workload: required("workload", message.workload, workload)?,
        ipv4: ipv4("ipv4", &message.ipv4)?,
        ipv6: ipv6("ipv6", &message.ipv6)?,
        ports: map("ports", message.ports, |&number, value| {
            Ok((port("", number)?, state(value)?))
        })?,
        weight: message.weight,
    })
}

fn inbound(message: proto::Inbound) -> Checked<Inbound> {
    let ports = list("ports", message.ports, |message: proto::InboundPort| {
        Ok(InboundPort {
            number: port("number", message.number)?,
            protocol: protocol("protocol", message.protocol)?,
            services: list("services", message.services, service)?,
        })
    })?;
    distinct("ports", ports.iter().map(|port| port.number))?;
    Ok(Inbound { workload: required("workload", message.workload, workload)?, ports })
}

fn mesh(message: proto::Mesh) -> Checked<MeshSettings> {
    not_empty("mesh", &message.mesh)?;
    Ok(MeshSettings {
        mesh: message.mesh,
        vip_range_v4: required("vip_range_v4", message.vip_range_v4, |range| {
            Ok((ipv4("address", &range.address)?, prefix(range.prefix, 32)?))
        })?,
        vip_range_v6: required("vip_range_v6", message.vip_range_v6, |range| {
            Ok((ipv6("address", &range.address)?, prefix(range.prefix, 128)?))
        })?,
        host_gateway_v4: ipv4("host_gateway_v4", &message.host_gateway_v4)?,
        host_gateway_v6: ipv6("host_gateway_v6", &message.host_gateway_v6)?,
    })
}

fn destination(message: proto::Destination) -> Checked<Destination> {
    let ports = list("ports", message.ports, destination_port)?;
    distinct("ports", ports.iter().map(|port| port.number))?;
    Ok(Destination {
        service: required("service", message.service, service)?,
        vips: list("vips", message.vips, |bytes| ip("", &bytes))?,
        ports,
        subsets: map("subsets", message.subsets, |name, subset| {
            not_empty("name", name)?;
            Ok((name.clone(), subset.labels))
        })?,
    })
}

fn destination_port(message: proto::DestinationPort) -> Checked<DestinationPort> {
    let tcp = list("tcp", message.tcp, target)?;
    if !tcp.is_empty() {
        some_weight("tcp", &tcp)?;
    }
    Ok(DestinationPort {
        number: port("number", message.number)?,
        name: message.name,
        protocol: protocol("protocol", message.protocol)?,
        http: list("http", message.http, http_rule)?,
        tcp,
    })
}

fn some_weight(field: &str, targets: &[WeightedTarget]) -> Checked<()> {
    if targets.iter().all(|target| target.weight == 0) {
        return Err(Wrong::new(field, "the weights sum up to 0"));
    }
    Ok(())
}

fn http_rule(message: proto::HttpRule) -> Checked<HttpRule> {
    let targets = list("targets", message.targets, target)?;
    some_weight("targets", &targets)?;
    Ok(HttpRule {
        provenance: Provenance(message.provenance),
        matches: list("matches", message.matches, http_match)?,
        fault: optional("fault", message.fault, fault)?,
        targets,
    })
}

fn http_match(message: proto::HttpMatch) -> Checked<HttpMatch> {
    Ok(HttpMatch {
        uri: optional("uri", message.uri, string_match)?,
        ignore_uri_case: message.ignore_uri_case,
        method: optional("method", message.method, string_match)?,
        authority: optional("authority", message.authority, string_match)?,
        scheme: optional("scheme", message.scheme, string_match)?,
        headers: map("headers", message.headers, |name, c| header_match(name, c))?,
        without_headers: map("without_headers", message.without_headers, |name, c| {
            header_match(name, c)
        })?,
        query_params: map("query_params", message.query_params, |name, condition| {
            Ok((name.clone(), string_match(condition)?))
        })?,
    })
}

fn header_match(name: &str, message: proto::HeaderMatch) -> Checked<(String, HeaderMatch)> {
    not_empty("name", name)?;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Wrong::new("name", "not in lower case"));
    }
    let condition = match optional("value", message.value, string_match)? {
        None => HeaderMatch::Present,
        Some(value) => HeaderMatch::Value(value),
    };
    Ok((name.to_owned(), condition))
}

fn string_match(message: proto::StringMatch) -> Checked<StringMatch> {
    match message.form {
        None => Err(Wrong::new("", "neither exact, prefix nor regex")),
        Some(proto::StringForm::Exact(text)) => Ok(StringMatch::Exact(text)),
        Some(proto::StringForm::Prefix(text)) => Ok(StringMatch::Prefix(text)),
        Some(proto::StringForm::Regex(text)) if text.len() > REGEX_BYTES_MAX => {
            let reason = format_args!("{} bytes, at most {REGEX_BYTES_MAX}", text.len());
            Err(Wrong::new("regex", reason))
        }
        Some(proto::StringForm::Regex(text)) => Ok(StringMatch::Regex(text)),
    }
}

fn fault(message: proto::Fault) -> Checked<Fault> {
    let delay = optional("delay", message.delay, |delay| {
        if delay.nanos >= 1_000_000_000 {
            return Err(Wrong::new("nanos", format_args!("{} is a second or more", delay.nanos)));
        }
        let duration = Duration::new(delay.seconds, delay.nanos);
        Ok(FaultDelay { duration, percent: percent(delay.percent)? })
    })?;
    let abort = optional("abort", message.abort, |abort| {
        let status = u16::try_from(abort.status).ok().filter(|s| (200..=599).contains(s));
        let status = status.ok_or_else(|| {
            Wrong::new("status", format_args!("{} is not within 200 to 599", abort.status))
        })?;
        Ok(FaultAbort { status, percent: percent(abort.percent)? })
    })?;
    Ok(Fault { delay, abort })
}

fn target(message: proto::Target) -> Checked<WeightedTarget> {
    // Where the reference dangles there may be no port to name.
    let number = match (&message.dangling, message.port) {
        (Some(_), 0) => 0,
        (_, number) => port("port", number)?,
    };
    Ok(WeightedTarget {
        service: required("service", message.service, service)?,
        subset: optional("subset", message.subset, |subset| {
            not_empty("name", &subset.name)?;
            Ok(Subset { name: subset.name, labels: subset.labels })
        })?,
        port: number,
        weight: message.weight,
        dangling: message.dangling,
    })
}
