//! Resources for tests: a service `reviews` (and others by name) with its workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use heddle_model::{
    Address, Addresses, Destination, DestinationPort, Endpoint, EndpointPort, EndpointState,
    Endpoints, Identity, Inbound, InboundPort, Locality, NameAnswer, Owner, Protocol, ServiceName,
    ServicePortRef, ServiceVips, WorkloadId,
    discovery::{
        ClusterKey, Collector, HttpRule, OutboundPolicy, Provenance, RuleAction, SideTelemetry,
        SpanSink, Subset, Target, Tracing, Traffic, WeightedTarget, WorkloadInfo,
        WorkloadTelemetry, ZipkinSink,
    },
};

/// The port of every service here.
pub const PORT: u16 = 9080;

/// The service of this name in namespace `default`.
pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name, "default").expect("a label")
}

/// A virtual address by its last byte.
pub fn vip(last: u8) -> IpAddr {
    Ipv4Addr::new(240, 240, 0, last).into()
}

/// The same for IPv6.
pub fn vip_v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, u16::from(last))
}

/// Who owns an address.
pub fn address(ip: IpAddr, owner: Owner) -> Address {
    Address { ip, owner }
}

/// The answer about a name.
pub fn name_answer(host: &str, names: Option<&str>) -> NameAnswer {
    NameAnswer {
        host: host.into(),
        namespace: "default".into(),
        service: names.map(|name| ServiceVips {
            name: service(name),
            vips: vec![vip(10), vip_v6(10).into()],
        }),
    }
}

/// A workload.
pub fn workload(id: &str, name: &str, version: &str) -> WorkloadInfo {
    WorkloadInfo {
        id: WorkloadId(id.into()),
        name: format!("{name}-{version}"),
        namespace: "default".into(),
        identity: Identity::local("default", name),
        services: BTreeSet::from([service(name)]),
        version: version.into(),
        labels: BTreeMap::from([("version".into(), version.into())]),
        ports: BTreeMap::from([(PORT, Protocol::Http)]),
    }
}

/// What the sidecar of [`proxy_config`](crate::fixture::proxy_config) is told about itself.
pub fn inbound() -> Inbound {
    inbound_of("client-1", "client", 8080)
}

/// What the sidecar of a workload with one HTTP port is told about itself.
pub fn inbound_of(id: &str, name: &str, number: u16) -> Inbound {
    Inbound {
        workload: workload(id, name, "v1"),
        ports: vec![InboundPort {
            number,
            protocol: Protocol::Http,
            services: vec![ServicePortRef { service: service(name), port: number }],
            faults: Vec::new(),
            endpoint: None,
        }],
        outbound: OutboundPolicy::default(),
        telemetry: None,
        locality: Box::default(),
        callers: BTreeMap::new(),
    }
}

/// Requests are traced both ways, and of so many in a hundred the trace is recorded.
pub fn tracing(percent: f64) -> WorkloadTelemetry {
    let to = Collector::at("127.0.0.1", 9411);
    let tracing = Tracing {
        provenance: Provenance::default(),
        provider: "zipkin".to_owned(),
        to: SpanSink::Zipkin(ZipkinSink { to, path: "/api/v2/spans".to_owned(), short_ids: false }),
        sampling: percent,
        reports_nothing: false,
        custom_tags: BTreeMap::new(),
        by_request_id: true,
        istio_tags: true,
        keeps_context: false,
        max_tag_length: 256,
        at_least: 0,
        also: Vec::new(),
    };
    let side = SideTelemetry { tracing: Some(Box::new(tracing)), ..SideTelemetry::default() };
    WorkloadTelemetry { client: side.clone(), server: side }
}

/// A ready endpoint of `name`.
pub fn endpoint(id: &str, name: &str, last: u8, version: &str) -> Endpoint {
    Endpoint {
        workload: workload(id, name, version),
        addresses: Addresses::Both(
            Ipv4Addr::new(240, 241, 0, last),
            Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, u16::from(last)),
        ),
        ports: BTreeMap::from([(PORT, EndpointPort { number: PORT, state: EndpointState::Ready })]),
        weight: 1,
        locality: Locality::default(),
    }
}

/// Endpoints of `name` with one ready workload per last byte.
pub fn endpoints(name: &str, lasts: &[u8]) -> Endpoints {
    let one = |last: &u8| endpoint(&format!("{name}-{last}"), name, *last, "v1");
    Endpoints::inside(service(name), lasts.iter().map(one).collect())
}

/// All weight to `name`: to all of its endpoints, or those of one version.
pub fn target(name: &str, version: Option<&str>) -> WeightedTarget {
    let key = ClusterKey {
        service: service(name),
        subset: version.map(|version| Subset {
            name: version.into(),
            labels: BTreeMap::from([("version".into(), version.into())]),
        }),
        port: PORT,
    };
    WeightedTarget { weight: 1, to: Target::Cluster(key), headers: None }
}

/// All weight to something absent.
pub fn dangling(reason: &str) -> WeightedTarget {
    WeightedTarget { weight: 1, to: Target::Dangling(reason.into()), headers: None }
}

/// A service whose one rule has these targets; no rule without targets.
pub fn destination(name: &str, targets: Vec<WeightedTarget>) -> Destination {
    let rules = usize::from(!targets.is_empty());
    let rule = HttpRule {
        provenance: Provenance(format!("VirtualService/default/{name}#0")),
        matches: vec![],
        fault: None,
        action: RuleAction::Forward(targets),
        traffic: Traffic::default(),
    };
    Destination {
        service: service(name),
        vips: vec![vip(10), vip_v6(10).into()],
        ports: vec![DestinationPort {
            number: PORT,
            name: "http".into(),
            protocol: Protocol::Http,
            http: vec![rule; rules],
            tcp: vec![],
            sni: vec![],
            faults: vec![],
        }],
        subsets: BTreeMap::new(),
        policies: Vec::new(),
        refused: None,
        others: None,
    }
}
