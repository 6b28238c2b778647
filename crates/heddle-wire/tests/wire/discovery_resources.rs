//! Discovery resources: what is encoded is decoded, and what must not be is refused by field.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use heddle_model::{
    Address, Destination, DestinationPort, Endpoint, EndpointState, Endpoints, Inbound,
    InboundPort, MeshSettings, NameAnswer, Owner, Protocol, ServiceName, WorkloadId,
    discovery::{
        Fault, FaultAbort, FaultDelay, HeaderMatch, HttpMatch, HttpRule, Provenance, StringMatch,
        Subset, WeightedTarget, WorkloadInfo,
    },
};
use heddle_wire::discovery::{
    DecodeError, Encode, Resource, ResourceType, decode, proto, version, wire_resource,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
};
use prost::Message;

fn label() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn service() -> impl Strategy<Value = ServiceName> {
    (label(), label()).prop_map(|(namespace, name)| ServiceName { namespace, name })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z./]{1,9}", "[ -~]{0,9}", 0..4)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Grpc, Http, Http2, Tcp, Tls, Undeclared};
    select(vec![Undeclared, Http, Http2, Grpc, Tls, Tcp])
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)]
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

prop_compose! {
    fn workload()(
        id in "[a-z0-9-]{1,12}", name in label(), namespace in label(), service in service(),
        version in "[a-z0-9]{0,3}", labels in labels(), ports in btree_map(port(), protocol(), 0..3),
    ) -> WorkloadInfo {
        WorkloadInfo { id: WorkloadId(id), name, namespace, service, version, labels, ports }
    }
}

prop_compose! {
    fn endpoint()(
        workload in workload(), ipv4 in v4(), ipv6 in v6(), weight in any::<u32>(),
        ports in btree_map(port(), select(vec![
            EndpointState::Pending, EndpointState::Ready, EndpointState::Terminating,
        ]), 0..3),
    ) -> Endpoint {
        Endpoint { workload, ipv4, ipv6, ports, weight }
    }
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        ".{0,9}".prop_map(StringMatch::Exact),
        ".{0,9}".prop_map(StringMatch::Prefix),
        ".{0,9}".prop_map(StringMatch::Regex),
    ]
}

fn headers() -> impl Strategy<Value = BTreeMap<String, HeaderMatch>> {
    let condition =
        prop_oneof![Just(HeaderMatch::Present), string_match().prop_map(HeaderMatch::Value),];
    btree_map("[a-z-]{1,9}", condition, 0..3)
}

prop_compose! {
    fn http_match()(
        uri in option::of(string_match()), ignore_uri_case in any::<bool>(),
        method in option::of(string_match()), authority in option::of(string_match()),
        scheme in option::of(string_match()), headers in headers(), without_headers in headers(),
        query_params in btree_map(".{1,5}", string_match(), 0..3),
    ) -> HttpMatch {
        HttpMatch {
            uri, ignore_uri_case, method, authority, scheme, headers, without_headers, query_params,
        }
    }
}

prop_compose! {
    fn targets()(targets in vec(target(), 1..4), weight in 1..=u32::MAX) -> Vec<WeightedTarget> {
        let mut targets = targets;
        targets[0].weight = weight;
        targets
    }
}

prop_compose! {
    fn target()(
        service in service(), subset in option::of((label(), labels())), port in port(),
        weight in any::<u32>(), dangling in option::of(".{0,9}"),
    ) -> WeightedTarget {
        let subset = subset.map(|(name, labels)| Subset { name, labels });
        WeightedTarget { service, subset, port, weight, dangling }
    }
}

prop_compose! {
    fn fault()(
        delay in option::of((any::<u64>(), 0..1_000_000_000u32, 0.0..=100.0f64)),
        abort in option::of((200..=599u16, 0.0..=100.0f64)),
    ) -> Fault {
        Fault {
            delay: delay.map(|(seconds, nanos, percent)| FaultDelay {
                duration: Duration::new(seconds, nanos),
                percent,
            }),
            abort: abort.map(|(status, percent)| FaultAbort { status, percent }),
        }
    }
}

prop_compose! {
    fn http_rule()(
        provenance in ".{0,20}", matches in vec(http_match(), 0..3), fault in option::of(fault()),
        targets in targets(),
    ) -> HttpRule {
        HttpRule { provenance: Provenance(provenance), matches, fault, targets }
    }
}

prop_compose! {
    fn destination_port()(
        number in port(), name in ".{0,9}", protocol in protocol(), http in vec(http_rule(), 0..3),
        tcp in prop_oneof![Just(Vec::new()), targets()],
    ) -> DestinationPort {
        DestinationPort { number, name, protocol, http, tcp }
    }
}

prop_compose! {
    fn destination()(
        service in service(), vips in vec(ip(), 0..3), ports in vec(destination_port(), 0..3),
        subsets in btree_map(label(), labels(), 0..3),
    ) -> Destination {
        let mut ports = ports;
        ports.sort_by_key(|port| port.number);
        ports.dedup_by_key(|port| port.number);
        Destination { service, vips, ports, subsets }
    }
}

fn address() -> impl Strategy<Value = Address> {
    let owner = prop_oneof![
        Just(Owner::NotKnown),
        service().prop_map(Owner::Service),
        workload().prop_map(|workload| Owner::Workload(Box::new(workload))),
    ];
    (ip(), owner).prop_map(|(ip, owner)| Address { ip, owner })
}

prop_compose! {
    fn inbound()(
        workload in workload(),
        ports in btree_map(port(), (protocol(), vec(service(), 0..3)), 0..3),
    ) -> Inbound {
        let port = |(number, (protocol, services))| InboundPort { number, protocol, services };
        Inbound { workload, ports: ports.into_iter().map(port).collect() }
    }
}

prop_compose! {
    fn mesh()(
        mesh in "[a-z]{1,9}", range4 in (v4(), 0..=32u8), range6 in (v6(), 0..=128u8),
        host_gateway_v4 in v4(), host_gateway_v6 in v6(),
    ) -> MeshSettings {
        MeshSettings {
            mesh, vip_range_v4: range4, vip_range_v6: range6, host_gateway_v4, host_gateway_v6,
        }
    }
}

fn resource() -> impl Strategy<Value = Resource> {
    let name = ("[a-z0-9.-]{0,19}[a-z0-9]", label(), option::of((service(), v4(), v6())));
    prop_oneof![
        address().prop_map(Resource::Address),
        name.prop_map(|(host, namespace, service)| {
            Resource::Name(NameAnswer { host, namespace, service })
        }),
        (service(), vec(endpoint(), 0..3))
            .prop_map(|(service, endpoints)| Resource::Endpoints(Endpoints { service, endpoints })),
        inbound().prop_map(Resource::Inbound),
        destination().prop_map(Resource::Destination),
        mesh().prop_map(Resource::Mesh),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(resource in resource()) {
        let wire = wire_resource(&resource);
        let any = wire.resource.expect("there is one");
        prop_assert_eq!(&wire.version, &version(&any.value));
        prop_assert_eq!(decode(&any.type_url, &wire.name, &any.value), Ok(resource.clone()));
        prop_assert_eq!(resource.encode(), any.value, "equal values give equal bytes");
    }

    #[test]
    fn damaged_messages_are_refused_or_other_values_but_never_a_panic(
        resource in resource(), at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let mut bytes = resource.encode();
        prop_assume!(!bytes.is_empty());
        let index = at.index(bytes.len());
        bytes[index] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(decoded) = decode(resource.kind().type_url(), &resource.name(), &bytes) {
            prop_assert_eq!(decoded.kind(), resource.kind());
        }
    }
}

#[test]
fn a_version_is_the_same_in_every_process() {
    // Known values of FNV-1a with 128 bits.
    assert_eq!(version(b""), "6c62272e07bb014262b821756295c58d");
    assert_eq!(version(b"a"), "d228cb696f1a8caf78912b704e4a8964");
}

#[test]
fn type_urls_name_their_types_and_others_are_refused() {
    for kind in ResourceType::ALL {
        assert_eq!(ResourceType::from_type_url(kind.type_url()), Some(kind));
    }
    let other = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    assert_eq!(decode(other, "x", b""), Err(DecodeError::UnknownType(other.to_owned())));
}

fn wire_service() -> Option<proto::Service> {
    Some(proto::Service { namespace: "default".to_owned(), name: "reviews".to_owned() })
}

fn wire_destination() -> proto::Destination {
    let target = proto::Target {
        service: wire_service(),
        subset: None,
        port: 80,
        weight: 1,
        dangling: None,
    };
    let condition = proto::StringMatch { form: Some(proto::StringForm::Exact("/".to_owned())) };
    let rule = proto::HttpRule {
        provenance: "VirtualService/default/x#0".to_owned(),
        matches: vec![proto::HttpMatch { uri: Some(condition), ..proto::HttpMatch::default() }],
        fault: Some(proto::Fault {
            delay: Some(proto::Delay { seconds: 1, nanos: 0, percent: 80.0 }),
            abort: Some(proto::Abort { status: 500, percent: 80.0 }),
        }),
        targets: vec![target.clone()],
    };
    proto::Destination {
        service: wire_service(),
        vips: vec![vec![240, 240, 0, 10]],
        ports: vec![proto::DestinationPort {
            number: 80,
            name: "http".to_owned(),
            protocol: 1,
            http: vec![rule],
            tcp: vec![target],
        }],
        subsets: BTreeMap::new(),
    }
}

/// The field a changed destination is refused for.
fn refused(change: impl FnOnce(&mut proto::Destination)) -> String {
    let mut message = wire_destination();
    change(&mut message);
    let name = "reviews.default.svc.cluster.local";
    let bytes = message.encode_to_vec();
    match decode(ResourceType::Destination.type_url(), name, &bytes) {
        Err(DecodeError::Field { field, .. }) => field,
        other => panic!("not refused for a field: {other:?}"),
    }
}

#[test]
fn a_refusal_names_the_field() {
    fn rule(d: &mut proto::Destination) -> &mut proto::HttpRule {
        &mut d.ports[0].http[0]
    }
    fn condition(d: &mut proto::Destination) -> &mut proto::HttpMatch {
        &mut rule(d).matches[0]
    }
    fn fault(d: &mut proto::Destination) -> &mut proto::Fault {
        rule(d).fault.as_mut().expect("the example has one")
    }
    let text = |form| Some(proto::StringMatch { form });
    let cases = [
        (refused(|d| d.service = None), "service"),
        (refused(|d| d.service = Some(proto::Service::default())), "service.namespace"),
        (refused(|d| d.vips[0] = vec![1, 2, 3]), "vips[0]"),
        (refused(|d| d.ports[0].number = 0), "ports[0].number"),
        (refused(|d| d.ports[0].number = 65536), "ports[0].number"),
        (refused(|d| d.ports[0].protocol = 77), "ports[0].protocol"),
        (refused(|d| d.ports.push(d.ports[0].clone())), "ports"),
        (refused(|d| d.ports[0].tcp[0].weight = 0), "ports[0].tcp"),
        (refused(|d| rule(d).targets.clear()), "ports[0].http[0].targets"),
        (refused(|d| rule(d).targets[0].weight = 0), "ports[0].http[0].targets"),
        (refused(|d| rule(d).targets[0].port = 0), "ports[0].http[0].targets[0].port"),
        (refused(|d| condition(d).uri = text(None)), "ports[0].http[0].matches[0].uri"),
        (
            refused(|d| condition(d).uri = text(Some(proto::StringForm::Regex("x".repeat(1025))))),
            "ports[0].http[0].matches[0].uri.regex",
        ),
        (
            refused(|d| {
                condition(d).headers.insert("X-A".to_owned(), proto::HeaderMatch { value: None });
            }),
            "ports[0].http[0].matches[0].headers[X-A].name",
        ),
        (
            refused(|d| fault(d).delay.as_mut().expect("one").percent = f64::NAN),
            "ports[0].http[0].fault.delay.percent",
        ),
        (
            refused(|d| fault(d).delay.as_mut().expect("one").nanos = 1_000_000_000),
            "ports[0].http[0].fault.delay.nanos",
        ),
        (
            refused(|d| fault(d).abort.as_mut().expect("one").percent = 100.1),
            "ports[0].http[0].fault.abort.percent",
        ),
        (
            refused(|d| fault(d).abort.as_mut().expect("one").status = 199),
            "ports[0].http[0].fault.abort.status",
        ),
        (refused(|d| d.service.as_mut().expect("one").name = "ratings".to_owned()), "name"),
    ];
    for (got, wanted) in cases {
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_message_that_is_none_says_what_it_should_have_been() {
    let error = decode(ResourceType::Mesh.type_url(), "mesh", b"\xff\xff").unwrap_err();
    assert!(error.to_string().starts_with("Mesh `mesh` is no valid message"), "{error}");
}
