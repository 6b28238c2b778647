//! Model to protobuf. Total: whatever the model holds can be sent.

use std::{collections::BTreeMap, net::IpAddr};

use heddle_model::{
    Address, Destination, DestinationPort, Endpoint, EndpointState, Endpoints, Inbound,
    InboundPort, MeshSettings, NameAnswer, Owner, Protocol, ServiceName,
    discovery::{
        Fault, HeaderMatch, HttpMatch, HttpRule, StringMatch, WeightedTarget, WorkloadInfo,
    },
};
use prost::Message;

use super::{
    MESH_NAME, Resource, ResourceType, address_name, host_name, inbound_name, proto, service_name,
};

/// What can be sent to a proxy.
pub trait Encode {
    /// The type.
    fn kind(&self) -> ResourceType;
    /// The name, unique within the type.
    fn name(&self) -> String;
    /// The message's bytes; equal values give equal bytes, in every process.
    fn encode(&self) -> Vec<u8>;
}

/// A resource as it is put into a response: named, typed, with its version.
#[must_use]
pub fn wire_resource(resource: &impl Encode) -> proto::Resource {
    let value = resource.encode();
    proto::Resource {
        version: version(&value),
        resource: Some(proto::Any { type_url: resource.kind().type_url().to_owned(), value }),
        name: resource.name(),
    }
}

/// The version of a resource: a hash of its bytes (FNV-1a, 128 bits, hexadecimal), the same in every
/// process. It tells changes apart, not forgeries.
#[must_use]
pub fn version(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash =
        bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

impl Encode for Address {
    fn kind(&self) -> ResourceType {
        ResourceType::Address
    }

    fn name(&self) -> String {
        address_name(self.ip)
    }

    fn encode(&self) -> Vec<u8> {
        let owner = match &self.owner {
            Owner::Service(name) => Some(proto::Owner::Service(service(name))),
            Owner::Workload(info) => Some(proto::Owner::Workload(workload(info))),
            Owner::NotKnown => None,
        };
        proto::Address { ip: ip(self.ip), owner }.encode_to_vec()
    }
}

impl Encode for NameAnswer {
    fn kind(&self) -> ResourceType {
        ResourceType::Name
    }

    fn name(&self) -> String {
        host_name(&self.namespace, &self.host)
    }

    fn encode(&self) -> Vec<u8> {
        let (service, ipv4, ipv6) = match &self.service {
            Some((name, v4, v6)) => {
                (Some(service(name)), v4.octets().to_vec(), v6.octets().to_vec())
            }
            None => (None, Vec::new(), Vec::new()),
        };
        let (host, namespace) = (self.host.clone(), self.namespace.clone());
        proto::Name { host, namespace, service, ipv4, ipv6 }.encode_to_vec()
    }
}

impl Encode for Endpoints {
    fn kind(&self) -> ResourceType {
        ResourceType::Endpoints
    }

    fn name(&self) -> String {
        service_name(&self.service)
    }

    fn encode(&self) -> Vec<u8> {
        let endpoints = self.endpoints.iter().map(endpoint).collect();
        proto::Endpoints { service: Some(service(&self.service)), endpoints }.encode_to_vec()
    }
}

impl Encode for Inbound {
    fn kind(&self) -> ResourceType {
        ResourceType::Inbound
    }

    fn name(&self) -> String {
        inbound_name(&self.workload.id)
    }

    fn encode(&self) -> Vec<u8> {
        let ports = self.ports.iter().map(inbound_port).collect();
        proto::Inbound { workload: Some(workload(&self.workload)), ports }.encode_to_vec()
    }
}

impl Encode for Destination {
    fn kind(&self) -> ResourceType {
        ResourceType::Destination
    }

    fn name(&self) -> String {
        service_name(&self.service)
    }

    fn encode(&self) -> Vec<u8> {
        let labels = |labels: &BTreeMap<String, String>| proto::Labels { labels: labels.clone() };
        proto::Destination {
            service: Some(service(&self.service)),
            vips: self.vips.iter().copied().map(ip).collect(),
            ports: self.ports.iter().map(destination_port).collect(),
            subsets: self.subsets.iter().map(|(name, l)| (name.clone(), labels(l))).collect(),
        }
        .encode_to_vec()
    }
}

impl Encode for MeshSettings {
    fn kind(&self) -> ResourceType {
        ResourceType::Mesh
    }

    fn name(&self) -> String {
        MESH_NAME.to_owned()
    }

    fn encode(&self) -> Vec<u8> {
        let range = |address: IpAddr, prefix: u8| proto::Range {
            address: ip(address),
            prefix: u32::from(prefix),
        };
        proto::Mesh {
            mesh: self.mesh.clone(),
            vip_range_v4: Some(range(self.vip_range_v4.0.into(), self.vip_range_v4.1)),
            vip_range_v6: Some(range(self.vip_range_v6.0.into(), self.vip_range_v6.1)),
            host_gateway_v4: self.host_gateway_v4.octets().to_vec(),
            host_gateway_v6: self.host_gateway_v6.octets().to_vec(),
        }
        .encode_to_vec()
    }
}

impl Encode for Resource {
    fn kind(&self) -> ResourceType {
        self.inner().kind()
    }

    fn name(&self) -> String {
        self.inner().name()
    }

    fn encode(&self) -> Vec<u8> {
        self.inner().encode()
    }
}

impl Resource {
    fn inner(&self) -> &dyn Encode {
        match self {
            Self::Address(inner) => inner,
            Self::Name(inner) => inner,
            Self::Endpoints(inner) => inner,
            Self::Inbound(inner) => inner,
            Self::Destination(inner) => inner,
            Self::Mesh(inner) => inner,
        }
    }
}

fn ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn service(name: &ServiceName) -> proto::Service {
    proto::Service { namespace: name.namespace.clone(), name: name.name.clone() }
}

fn workload(info: &WorkloadInfo) -> proto::Workload {
    let port = |(&number, &declared): (&u16, &Protocol)| (u32::from(number), protocol(declared));
    proto::Workload {
        id: info.id.0.clone(),
        name: info.name.clone(),
        namespace: info.namespace.clone(),
        service: Some(service(&info.service)),
        version: info.version.clone(),
        labels: info.labels.clone(),
        ports: info.ports.iter().map(port).collect(),
    }
}

fn protocol(protocol: Protocol) -> i32 {
    let wire = match protocol {
        Protocol::Undeclared => proto::Protocol::Undeclared,
        Protocol::Http => proto::Protocol::Http,
        Protocol::Http2 => proto::Protocol::Http2,
        Protocol::Grpc => proto::Protocol::Grpc,
        Protocol::Tls => proto::Protocol::Tls,
        Protocol::Tcp => proto::Protocol::Tcp,
    };
    wire.into()
}

fn state(state: EndpointState) -> i32 {
    let wire = match state {
        EndpointState::Pending => proto::EndpointState::Pending,
        EndpointState::Ready => proto::EndpointState::Ready,
        EndpointState::Terminating => proto::EndpointState::Terminating,
    };
    wire.into()
}

fn endpoint(endpoint: &Endpoint) -> proto::Endpoint {
    proto::Endpoint {
        workload: Some(workload(&endpoint.workload)),
        ipv4: endpoint.ipv4.octets().to_vec(),
        ipv6: endpoint.ipv6.octets().to_vec(),
        ports: endpoint.ports.iter().map(|(&port, &s)| (u32::from(port), state(s))).collect(),
        weight: endpoint.weight,
    }
}

fn inbound_port(port: &InboundPort) -> proto::InboundPort {
    proto::InboundPort {
        number: u32::from(port.number),
        protocol: protocol(port.protocol),
        services: port.services.iter().map(service).collect(),
    }
}

fn destination_port(port: &DestinationPort) -> proto::DestinationPort {
    proto::DestinationPort {
        number: u32::from(port.number),
        name: port.name.clone(),
        protocol: protocol(port.protocol),
        http: port.http.iter().map(http_rule).collect(),
        tcp: port.tcp.iter().map(target).collect(),
    }
}

fn http_rule(rule: &HttpRule) -> proto::HttpRule {
    proto::HttpRule {
        provenance: rule.provenance.0.clone(),
        matches: rule.matches.iter().map(http_match).collect(),
        fault: rule.fault.as_ref().map(fault),
        targets: rule.targets.iter().map(target).collect(),
    }
}

fn http_match(condition: &HttpMatch) -> proto::HttpMatch {
    let headers = |map: &BTreeMap<String, HeaderMatch>| {
        map.iter().map(|(name, condition)| (name.clone(), header_match(condition))).collect()
    };
    proto::HttpMatch {
        uri: condition.uri.as_ref().map(string_match),
        ignore_uri_case: condition.ignore_uri_case,
        method: condition.method.as_ref().map(string_match),
        authority: condition.authority.as_ref().map(string_match),
        scheme: condition.scheme.as_ref().map(string_match),
        headers: headers(&condition.headers),
        without_headers: headers(&condition.without_headers),
        query_params: condition
            .query_params
            .iter()
            .map(|(name, value)| (name.clone(), string_match(value)))
            .collect(),
    }
}

fn header_match(condition: &HeaderMatch) -> proto::HeaderMatch {
    proto::HeaderMatch {
        value: match condition {
            HeaderMatch::Present => None,
            HeaderMatch::Value(value) => Some(string_match(value)),
        },
    }
}

fn string_match(condition: &StringMatch) -> proto::StringMatch {
    let form = match condition {
        StringMatch::Exact(text) => proto::StringForm::Exact(text.clone()),
        StringMatch::Prefix(text) => proto::StringForm::Prefix(text.clone()),
        StringMatch::Regex(text) => proto::StringForm::Regex(text.clone()),
    };
    proto::StringMatch { form: Some(form) }
}

fn fault(fault: &Fault) -> proto::Fault {
    proto::Fault {
        delay: fault.delay.as_ref().map(|delay| proto::Delay {
            seconds: delay.duration.as_secs(),
            nanos: delay.duration.subsec_nanos(),
            percent: delay.percent,
        }),
        abort: fault
            .abort
            .as_ref()
            .map(|abort| proto::Abort { status: u32::from(abort.status), percent: abort.percent }),
    }
}

fn target(target: &WeightedTarget) -> proto::Target {
    proto::Target {
        service: Some(service(&target.service)),
        subset: target.subset.as_ref().map(|subset| proto::Subset {
            name: subset.name.clone(),
            labels: subset.labels.clone(),
        }),
        port: u32::from(target.port),
        weight: target.weight,
        dangling: target.dangling.clone(),
    }
}
