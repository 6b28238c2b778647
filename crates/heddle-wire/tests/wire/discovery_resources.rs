//! Discovery resources: what is encoded is decoded, and what must not be is refused by field.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use heddle_model::{
    Address, Addresses, Destination, DestinationPort, Endpoint, EndpointPort, EndpointState,
    Endpoints, Identity, Inbound, InboundPort, Locality, MeshSettings, NameAnswer, Owner, Protocol,
    ServiceName, ServicePortRef, ServiceVips, WorkloadId,
    discovery::{
        AbortWith, AccessLog, Answer, ClientTls, ClusterKey, ClusterPolicy, Collector,
        ConnectionPool, CorsPolicy, CustomTag, DefaultEndpoint, DirectResponse, Distribute,
        FailurePercentage, Fault, FaultAbort, FaultDelay, HashCookie, HashKey, HashPolicy,
        HashTable, HeaderMatch, HeaderOperations, HeaderRules, Http2Keepalive, HttpMatch, HttpRule,
        Injection, LoadBalancing, LocalityRules, LogLayout, LogSink, Method, Metric, MetricChange,
        Mirror, MirrorCompare, OtlpHttpSink, OutlierDetection, PathRewrite, PortFault, Provenance,
        RING_SIZE_MAX, Redirect, RedirectPath, Retries, RetryBudgetRule, Rewrite, RuleAction,
        SentField, SideTelemetry, SniRule, SpanSink, StringMatch, Subset, SuccessRate, TagChange,
        TagSource, Target, TcpFault, TcpKeepalive, Tracing, Traffic, Warmup, WeightedTarget,
        WorkloadInfo, WorkloadTelemetry, ZipkinSink,
    },
};
use heddle_wire::discovery::{
    DecodeError, Resource, ResourceType, WireResource, decode, service_name, version, wire_resource,
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::{Index, select},
};

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
        id in "[a-z0-9-]{1,12}", name in label(), namespace in label(), identity in identity(),
        services in btree_set(service(), 0..3), version in "[a-z0-9]{0,3}", labels in labels(),
        ports in btree_map(port(), protocol(), 0..3),
    ) -> WorkloadInfo {
        let id = WorkloadId(id);
        WorkloadInfo { id, name, namespace, identity, services, version, labels, ports }
    }
}

prop_compose! {
    fn identity()(
        trust_domain in "[a-z.]{1,12}", namespace in label(), service_account in "[a-z.-]{1,12}",
    ) -> Identity {
        Identity { trust_domain, namespace, service_account }
    }
}

fn addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        v4().prop_map(Addresses::V4),
        v6().prop_map(Addresses::V6),
        (v4(), v6()).prop_map(|(v4, v6)| Addresses::Both(v4, v6)),
    ]
}

fn endpoint_port() -> impl Strategy<Value = EndpointPort> {
    use EndpointState::{Pending, Ready, ServingTerminating, Terminating};
    let state = select(vec![Pending, Ready, ServingTerminating, Terminating]);
    (port(), state).prop_map(|(number, state)| EndpointPort { number, state })
}

prop_compose! {
    fn endpoint()(
        workload in workload(), addresses in addresses(), weight in any::<u32>(),
        ports in btree_map(port(), endpoint_port(), 0..3), node in "[a-z]{0,5}",
        zone in "[a-z]{0,5}",
    ) -> Endpoint {
        Endpoint { workload, addresses, ports, weight, locality: Locality { node, zone, ..Locality::default() } }
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
    fn cluster_key()(
        service in service(), subset in option::of((label(), labels())), port in port(),
    ) -> ClusterKey {
        let subset = subset.map(|(name, labels)| Subset { name, labels });
        ClusterKey { service, subset, port }
    }
}

fn target() -> impl Strategy<Value = WeightedTarget> {
    let to =
        prop_oneof![cluster_key().prop_map(Target::Cluster), ".{0,9}".prop_map(Target::Dangling),];
    (any::<u32>(), to).prop_map(|(weight, to)| WeightedTarget { weight, to, headers: None })
}

prop_compose! {
    fn fault()(
        delay in option::of((any::<u64>(), 0..1_000_000_000u32, 0.0..=100.0f64)),
        abort in option::of((200..=599u16, 0.0..=100.0f64, option::of(0..=16u8))),
        expires in option::of(any::<u64>()), before_limits: bool,
    ) -> Fault {
        Fault {
            delay: delay.map(|(seconds, nanos, percent)| FaultDelay {
                duration: Duration::new(seconds, nanos),
                percent,
            }),
            abort: abort.map(|(status, percent, grpc)| FaultAbort { status, percent, grpc }),
            expires,
            before_limits,
        }
    }
}

fn injection() -> impl Strategy<Value = Injection> {
    let bytes = 1..=u64::MAX;
    prop_oneof![
        (0..9_999u64).prop_map(|millis| Injection::Delay(Duration::from_millis(millis))),
        (200..=599u16, option::of(0..=16u8))
            .prop_map(|(status, grpc)| Injection::Abort(AbortWith { status, grpc })),
        prop_oneof![
            Just(TcpFault::Refuse),
            Just(TcpFault::Blackhole),
            bytes.clone().prop_map(TcpFault::ResetAfterBytes),
            bytes.prop_map(TcpFault::BytesPerSecond),
        ]
        .prop_map(Injection::Tcp),
    ]
}

prop_compose! {
    fn port_fault()(
        provenance in ".{0,20}", matches in vec(http_match(), 0..2), percent in 0.0..=100.0f64,
        does in injection(), expires in option::of(any::<u64>()),
    ) -> PortFault {
        PortFault { provenance: Provenance(provenance), matches, percent, does, expires }
    }
}

prop_compose! {
    fn header_rules()(
        remove in vec("x-[a-z]{1,4}", 0..2), set in btree_map("x-[a-z]{1,4}", ".{0,4}", 0..2),
        add in btree_map("y-[a-z]{1,4}", ".{0,4}", 0..2), authority in option::of("[a-z]{1,5}"),
    ) -> HeaderRules {
        let operations = HeaderOperations { remove, set, add };
        HeaderRules { request: operations.clone(), response: operations, authority }
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    let path = prop_oneof![
        ".{0,5}".prop_map(RedirectPath::Whole),
        ".{0,5}".prop_map(RedirectPath::Prefix)
    ];
    let where_to = (option::of("[a-z]{1,5}"), option::of(port()), any::<bool>());
    let redirect = (option::of(path), where_to, 300..=399u16);
    prop_oneof![
        redirect.prop_map(|(path, (authority, port, drops_port), status)| {
            let scheme = Some("https".to_owned());
            Answer::Redirect(Redirect { path, authority, port, scheme, status, drops_port })
        }),
        (200..=599u16, vec(any::<u8>(), 0..9))
            .prop_map(|(status, body)| Answer::Direct(DirectResponse { status, body })),
    ]
}

prop_compose! {
    fn retries()(
        attempts: u32, millis in option::of(any::<u32>()), conditions in vec("[a-z-]{1,9}", 0..3),
        statuses in vec(any::<u16>(), 0..3), same_endpoint: bool, any_method: bool,
        other_localities: bool,
    ) -> Retries {
        let limit = millis.map(|millis| Duration::from_millis(millis.into()));
        Retries {
            attempts, per_try_timeout: limit, conditions, statuses, backoff: limit, same_endpoint,
            any_method, other_localities,
        }
    }
}

prop_compose! {
    fn traffic()(
        answer in option::of(answer()), authority in option::of("[a-z]{1,5}"),
        path in option::of("/[a-z]{0,5}"), headers in option::of(header_rules()),
        seconds in option::of(any::<u32>()), retries in option::of(retries()),
        origins in option::of(vec(string_match(), 0..2)), mirrored in option::of(0.0..=100.0f64),
        to in cluster_key(), absent_status in option::of(400..=599u16),
        (status, latency, body) in any::<(bool, bool, bool)>(),
    ) -> Traffic {
        let compare = MirrorCompare { status, latency, body };
        Traffic {
            answer,
            rewrite: Some(Rewrite { path: path.map(PathRewrite::Prefix), authority }),
            headers,
            timeout: seconds.map(|seconds| Duration::from_secs(seconds.into())),
            retries,
            cors: origins.map(|origins| CorsPolicy { origins, ..CorsPolicy::default() }),
            mirrors: mirrored
                .map(|percent| Mirror { to: Target::Cluster(to), percent, compare })
                .into_iter()
                .collect(),
            absent_status,
        }
    }
}

prop_compose! {
    fn http_rule()(
        provenance in ".{0,20}", matches in vec(http_match(), 0..3), fault in option::of(fault()),
        action in prop_oneof![
            targets().prop_map(RuleAction::Forward), ".{0,9}".prop_map(RuleAction::Refuse),
        ],
        traffic in traffic(),
    ) -> HttpRule {
        HttpRule { provenance: Provenance(provenance), matches, fault, action, traffic }
    }
}

prop_compose! {
    fn sni_rule()(
        provenance in ".{0,9}", names in vec("[*a-z.]{1,9}", 0..3), targets in targets(),
    ) -> SniRule {
        SniRule { provenance: Provenance(provenance), names, targets }
    }
}

prop_compose! {
    fn client_tls()(
        flags in any::<[bool; 2]>(), files in vec(option::of("/[a-z]{1,9}"), 3),
        server_name in "[a-z.]{1,9}", subject_alt_names in vec(".{1,9}", 0..3),
    ) -> ClientTls {
        ClientTls {
            mutual: flags[0],
            certificate: files[0].clone(),
            private_key: files[1].clone(),
            authorities: files[2].clone(),
            server_name,
            subject_alt_names,
            unverified: flags[1],
        }
    }
}

prop_compose! {
    fn destination_port()(
        number in port(), name in ".{0,9}", protocol in protocol(), http in vec(http_rule(), 0..3),
        tcp in prop_oneof![Just(Vec::new()), targets()],
        (sni, faults) in (vec(sni_rule(), 0..3), vec(port_fault(), 0..2)),
    ) -> DestinationPort {
        DestinationPort { number, name, protocol, http, tcp, sni, faults }
    }
}

prop_compose! {
    fn outlier()(
        counts in any::<[u32; 3]>(), splits_local_origin in any::<bool>(), times in (1..9u64, 1..9u64),
        percents in (0..=100u8, 0..=100u8), rates in option::of(any::<[u32; 3]>()),
        error_codes in vec(100..600u16, 0..3),
    ) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: counts[0],
            consecutive_gateway: counts[1],
            splits_local_origin,
            consecutive_local_origin: counts[2],
            interval: Duration::from_secs(times.0),
            base_ejection_time: Duration::from_millis(times.1),
            max_ejection_percent: percents.0,
            min_health_percent: percents.1,
            success_rate: rates.map(|[stdev_factor, minimum_hosts, request_volume]| {
                SuccessRate { stdev_factor, minimum_hosts, request_volume }
            }),
            failure_percentage: rates.map(|[threshold, minimum_hosts, request_volume]| {
                FailurePercentage { threshold: threshold % 101, minimum_hosts, request_volume }
            }),
            error_codes,
        }
    }
}

fn method() -> impl Strategy<Value = Method> {
    let ttl = option::of((0..9u64).prop_map(Duration::from_secs));
    let cookie = ("[a-z]{1,5}", "/[a-z]{0,5}", ttl, vec(("[A-Z]{1,5}", "[a-z]{0,5}"), 0..2));
    let key = prop_oneof![
        Just(HashKey::SourceIp),
        "[a-z]{1,5}".prop_map(HashKey::Header),
        "[a-z]{1,5}".prop_map(HashKey::QueryParameter),
        cookie.prop_map(|(name, path, ttl, attributes)| {
            HashKey::Cookie(HashCookie { name, path, ttl, attributes })
        }),
    ];
    let table =
        prop_oneof![Just(HashTable::Maglev(65_537)), (0..=RING_SIZE_MAX).prop_map(HashTable::Ring)];
    prop_oneof![
        Just(Method::LeastRequest),
        Just(Method::RoundRobin),
        Just(Method::Random),
        Just(Method::Passthrough),
        (key, table).prop_map(|(key, table)| Method::Hash(Box::new(HashPolicy { key, table }))),
    ]
}

prop_compose! {
    fn balancing()(
        method in method(), warmup in option::of((1..99u64, 0.0..=100.0, 0.0..9.0)),
        off in any::<bool>(), names in vec("[a-z]{1,4}", 0..3),
        to in btree_map("[a-z]{1,4}", 1..=100u32, 0..3),
    ) -> LoadBalancing {
        let warmup = warmup.map(|(seconds, minimum_percent, aggression)| Warmup {
            duration: Duration::from_secs(seconds), minimum_percent, aggression,
        });
        let distribute = names.iter().map(|from| Distribute { from: from.clone(), to: to.clone() });
        let locality = Some(LocalityRules {
            off,
            distribute: distribute.collect(),
            failover: names.iter().cloned().zip(names.clone()).collect(),
            failover_priority: names.clone(),
            zones: to.values().next().copied(),
        });
        LoadBalancing { method, warmup, locality }
    }
}

prop_compose! {
    fn policy()(
        balancing in balancing(), retry_budget in option::of((0.0..=100.0, any::<u32>())),
        service in service(), port in port(), outlier in option::of(outlier()),
        pool in option::of((option::of(any::<u32>()), option::of(0..9u64))),
        tls in option::of(client_tls()),
    ) -> ClusterPolicy {
        let pool = pool.map(|(limit, seconds)| ConnectionPool {
            max_connections: limit,
            max_pending: limit,
            idle_timeout: seconds.map(Duration::from_secs),
            tcp_idle_timeout: seconds.map(Duration::from_secs),
            max_connection_duration: seconds.map(Duration::from_secs),
            max_concurrent_streams: limit,
            tcp_keepalive: seconds.map(|seconds| TcpKeepalive {
                probes: limit,
                time: Some(Duration::from_secs(seconds)),
                interval: None,
            }),
            http2_keepalive: seconds.map(|seconds| Http2Keepalive {
                interval: Duration::from_secs(seconds),
                timeout: Duration::from_millis(seconds),
            }),
            ..ConnectionPool::default()
        });
        let retry_budget = retry_budget
            .map(|(percent, min_concurrency)| RetryBudgetRule {
                percent,
                min_concurrency,
                interval: Some(Duration::from_millis(min_concurrency.into())),
            });
        ClusterPolicy {
            cluster: ClusterKey { service, subset: None, port },
            provenance: Provenance("DestinationRule/default/x".to_owned()),
            outlier,
            pool,
            tls,
            balancing: Some(balancing),
            retry_budget,
        }
    }
}

prop_compose! {
    fn destination()(
        service in service(), vips in vec(ip(), 0..3), ports in vec(destination_port(), 0..3),
        subsets in btree_map(label(), labels(), 0..3), policies in vec(policy(), 0..3),
    ) -> Destination {
        let mut ports = ports;
        ports.sort_by_key(|port| port.number);
        ports.dedup_by_key(|port| port.number);
        Destination { service, vips, ports, subsets, policies, refused: None, others: None }
    }
}

fn service_port() -> impl Strategy<Value = ServicePortRef> {
    (service(), port()).prop_map(|(service, port)| ServicePortRef { service, port })
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
        ports in btree_map(
            port(),
            (protocol(), vec(service_port(), 0..3), vec(port_fault(), 0..2)),
            0..3,
        ),
    ) -> Inbound {
        let port = |(number, (protocol, services, faults))| InboundPort {
            number,
            protocol,
            services,
            faults,
            endpoint: Some(match number % 3 {
                0 => DefaultEndpoint::Socket("/run/app.sock".to_owned()),
                1 => DefaultEndpoint::Loopback(number),
                _ => DefaultEndpoint::Own(number),
            }),
        };
        Inbound {
            workload,
            ports: ports.into_iter().map(port).collect(),
            outbound: Default::default(),
            locality: Box::new(Locality { region: "eu".to_owned(), ..Locality::default() }),
            telemetry: Some(Box::new(telemetry())),
            callers: [("eu/a/".to_owned(), 3)].into(),
        }
    }
}

/// Something of everything that a sidecar may be told to tell.
fn telemetry() -> WorkloadTelemetry {
    let to = || Collector {
        tls: Some(Box::new(ClientTls { server_name: "c".to_owned(), ..ClientTls::default() })),
        headers: vec![SentField {
            name: "x-token".to_owned(),
            value: "TOKEN".to_owned(),
            from_environment: true,
        }],
        timeout: Some(Duration::from_secs(3)),
        ..Collector::at("collector.example.com", 4317)
    };
    let header = TagSource { name: "x-user".to_owned(), default: "nobody".to_owned() };
    let log = |to, layout| AccessLog {
        provenance: Provenance("Telemetry/istio-system/all#accessLogging[0]".to_owned()),
        provider: "log".to_owned(),
        to,
        layout,
        filter: Some("response.code >= 400".to_owned()),
        log_name: "log".to_owned(),
        attributes: BTreeMap::from([("code".to_owned(), "%RESPONSE_CODE%".to_owned())]),
    };
    let json = BTreeMap::from([("code".to_owned(), "%RESPONSE_CODE%".to_owned())]);
    let change = MetricChange {
        provenance: Provenance::default(),
        metric: Metric::TcpSent,
        disabled: Some(true),
        tags: BTreeMap::from([
            ("source_app".to_owned(), TagChange::Removed),
            ("method".to_owned(), TagChange::Value("request.method".to_owned())),
        ]),
    };
    let tracing = |to| Tracing {
        provenance: Provenance::default(),
        provider: "spans".to_owned(),
        to,
        sampling: 12.5,
        reports_nothing: true,
        custom_tags: BTreeMap::from([
            ("user".to_owned(), CustomTag::Header(header.clone())),
            ("zone".to_owned(), CustomTag::Environment(header.clone())),
            ("mesh".to_owned(), CustomTag::Literal("own".to_owned())),
        ]),
        by_request_id: true,
        istio_tags: true,
        keeps_context: true,
        max_tag_length: 256,
        at_least: 10,
        also: vec![SpanSink::OtlpGrpc(Collector::at("127.0.0.1", 4317))],
    };
    let over_http = OtlpHttpSink { to: to(), path: "/v1/traces".to_owned() };
    let zipkin = ZipkinSink { to: to(), path: "/api/v2/spans".to_owned(), short_ids: true };
    WorkloadTelemetry {
        client: SideTelemetry {
            access_logs: vec![
                log(
                    LogSink::File("/dev/stdout".to_owned()),
                    LogLayout::Text("%DURATION%".to_owned()),
                ),
                log(LogSink::Otlp(to()), LogLayout::Json(json)),
            ],
            tracing: Some(Box::new(tracing(SpanSink::OtlpHttp(over_http)))),
            metrics: vec![change],
            reporting_interval: Some(Duration::from_secs(5)),
        },
        server: SideTelemetry {
            tracing: Some(Box::new(tracing(SpanSink::Zipkin(zipkin)))),
            ..SideTelemetry::default()
        },
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
    let named = (service(), vec(ip(), 0..3)).prop_map(|(name, vips)| ServiceVips { name, vips });
    let name = ("[a-z0-9.-]{0,19}[a-z0-9]", label(), option::of(named));
    prop_oneof![
        address().prop_map(Resource::Address),
        name.prop_map(|(host, namespace, service)| {
            Resource::Name(NameAnswer { host, namespace, service })
        }),
        (service(), vec(endpoint(), 0..3)).prop_map(|(service, endpoints)| Resource::Endpoints(
            Endpoints::inside(service, endpoints)
        )),
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

fn reviews() -> ServiceName {
    ServiceName { namespace: "default".to_owned(), name: "reviews".to_owned() }
}

/// A destination with one of everything.
fn example() -> Destination {
    let key = ClusterKey { service: reviews(), subset: None, port: 80 };
    let target = WeightedTarget { weight: 1, to: Target::Cluster(key), headers: None };
    let uri = Some(StringMatch::Exact("/".to_owned()));
    let rule = HttpRule {
        provenance: Provenance("VirtualService/default/x#0".to_owned()),
        matches: vec![HttpMatch { uri, ..HttpMatch::default() }],
        fault: Some(Fault {
            delay: Some(FaultDelay { duration: Duration::from_secs(1), percent: 80.0 }),
            abort: Some(FaultAbort { status: 500, percent: 80.0, grpc: None }),
            ..Fault::default()
        }),
        action: RuleAction::Forward(vec![target.clone()]),
        traffic: Traffic::default(),
    };
    Destination {
        service: reviews(),
        vips: vec![Ipv4Addr::new(240, 240, 0, 10).into()],
        ports: vec![DestinationPort {
            number: 8080,
            name: "http".to_owned(),
            protocol: Protocol::Http,
            http: vec![rule],
            tcp: vec![target.clone()],
            sni: vec![SniRule {
                provenance: Provenance("virtualservice/default/reviews#tls[0]".to_owned()),
                names: vec!["*.example.com".to_owned()],
                targets: vec![target],
            }],
            faults: Vec::new(),
        }],
        subsets: BTreeMap::new(),
        policies: Vec::new(),
        refused: None,
        others: None,
    }
}

fn decode_example(bytes: &[u8]) -> Result<Resource, DecodeError> {
    decode(ResourceType::Destination.type_url(), &service_name(&reviews()), bytes)
}

/// The field a changed destination is refused for.
fn refused(change: impl FnOnce(&mut Destination)) -> String {
    let mut destination = example();
    change(&mut destination);
    match decode_example(&destination.encode()) {
        Err(DecodeError::Field { field, .. }) => field,
        other => panic!("not refused for a field: {other:?}"),
    }
}

#[test]
fn a_refusal_names_the_field() {
    fn rule(d: &mut Destination) -> &mut HttpRule {
        &mut d.ports[0].http[0]
    }
    fn targets(d: &mut Destination) -> &mut Vec<WeightedTarget> {
        match &mut rule(d).action {
            RuleAction::Forward(targets) => targets,
            RuleAction::Refuse(reason) => panic!("{reason}"),
        }
    }
    fn key(d: &mut Destination) -> &mut ClusterKey {
        match &mut targets(d)[0].to {
            Target::Cluster(key) => key,
            Target::Dangling(reason) => panic!("{reason}"),
        }
    }
    fn condition(d: &mut Destination) -> &mut HttpMatch {
        &mut rule(d).matches[0]
    }
    fn fault(d: &mut Destination) -> &mut Fault {
        rule(d).fault.as_mut().expect("the example has one")
    }
    let cases = [
        (refused(|d| d.service.namespace.clear()), "service.namespace"),
        (refused(|d| d.ports[0].number = 0), "ports[0].number"),
        (refused(|d| d.ports.push(d.ports[0].clone())), "ports"),
        (refused(|d| d.ports[0].tcp[0].weight = 0), "ports[0].tcp"),
        (refused(|d| targets(d).clear()), "ports[0].http[0].targets"),
        (refused(|d| targets(d)[0].weight = 0), "ports[0].http[0].targets"),
        (refused(|d| key(d).port = 0), "ports[0].http[0].targets[0].port"),
        (
            refused(|d| condition(d).uri = Some(StringMatch::Regex("x".repeat(1025)))),
            "ports[0].http[0].matches[0].uri.regex",
        ),
        (
            refused(|d| {
                condition(d).headers.insert("X-A".to_owned(), HeaderMatch::Present);
            }),
            "ports[0].http[0].matches[0].headers[X-A].name",
        ),
        (
            refused(|d| fault(d).delay.as_mut().expect("one").percent = f64::NAN),
            "ports[0].http[0].fault.delay.percent",
        ),
        (
            refused(|d| fault(d).abort.as_mut().expect("one").percent = 100.1),
            "ports[0].http[0].fault.abort.percent",
        ),
        (
            refused(|d| fault(d).abort.as_mut().expect("one").status = 199),
            "ports[0].http[0].fault.abort.status",
        ),
        (refused(|d| d.subsets = [(String::new(), BTreeMap::new())].into()), "subsets[].name"),
        (refused(|d| d.service.name = "ratings".to_owned()), "name"),
    ];
    for (got, wanted) in cases {
        assert_eq!(got, wanted);
    }
}

/// Why the example is refused with `from`, which is in it once, replaced by `to`.
fn refused_bytes(from: &[u8], to: &[u8]) -> String {
    let bytes = example().encode();
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    let &[at] = &places[..] else { panic!("{from:x?} is at {places:?} of {bytes:x?}") };
    let changed = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    match decode_example(&changed) {
        Err(error @ DecodeError::Malformed { .. }) => error.to_string(),
        other => panic!("not refused for its form: {other:?}"),
    }
}

#[test]
fn a_value_of_another_form_is_refused_by_the_fields_number() {
    let number = [0x01, 0x19, 0x1f, 0x90];
    let cases = [
        // Four bytes of an address become three.
        (refused_bytes(&[0x44, 240, 240, 0, 10], &[0x43, 240, 240, 0]), "2[0]"),
        // A port becomes 65536; a port goes, and a field that nobody knows comes.
        (refused_bytes(&number, &[0x01, 0x1a, 0, 1, 0, 0]), "3[0].1"),
        (refused_bytes(&number, &[0x18, 99, 0x19, 0x1f, 0x90]), "DestinationPort::number"),
        // A protocol and a condition that this version does not know; never "no condition".
        (refused_bytes(b"http\x03\x01", b"http\x03\x09"), "3[0].3"),
        (refused_bytes(&[0x82, 1, 0x61, b'/'], &[0x82, 9, 0x61, b'/']), "3[0].4[0].2[0].1"),
        (refused_bytes(&[0x82, 1, 0x61, b'/'], &[1]), "3[0].4[0].2[0].1"),
    ];
    for (error, field) in cases {
        assert!(error.contains(field), "{error} does not name {field}");
    }
}

#[test]
fn what_is_cut_off_or_followed_by_more_is_refused() {
    let bytes = example().encode();
    for len in 0..bytes.len() {
        assert!(decode_example(&bytes[..len]).is_err(), "cut at {len}");
    }
    assert!(decode_example(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_message_cannot_ask_for_memory_or_depth_that_it_does_not_fill() {
    // Lists of 2^63 items, as a known field and as one to be skipped.
    for field in [2, 3, 20] {
        let bytes = [&[0xa1, field, 0x9b, 0x80][..], &[0; 7]].concat();
        assert!(decode_example(&bytes).is_err());
    }
    // A million lists, each within the one before: in a field of the kind, and in an unknown one.
    for (field, open) in [(2, 0x81), (20, 0x81), (20, 0x9f), (20, 0xbf)] {
        let bytes = [&[0xa1, field][..], &vec![open; 1_000_000]].concat();
        assert!(decode_example(&bytes).is_err());
    }
}

/// A destination as another version writes it: without matches and faults, and with fields that this
/// version does not know, at every level.
mod other_version {
    use super::*;

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    pub(super) struct Destination {
        #[n(1)]
        pub(super) service: ServiceName,
        #[cbor(n(3), default)]
        pub(super) ports: Vec<Port>,
        #[cbor(n(70), default)]
        pub(super) locality: BTreeMap<String, Vec<String>>,
    }

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    pub(super) struct Port {
        #[n(1)]
        pub(super) number: u16,
        #[cbor(n(4), default)]
        pub(super) http: Vec<Rule>,
        #[n(71)]
        pub(super) budget: Option<(u32, f64)>,
    }

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    pub(super) struct Rule {
        #[cbor(n(1), default)]
        pub(super) provenance: Provenance,
        #[n(4)]
        pub(super) action: RuleAction,
        #[n(72)]
        pub(super) mirror: Option<String>,
    }

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    pub(super) struct Endpoints {
        #[n(1)]
        pub(super) service: ServiceName,
        #[cbor(n(2), default)]
        pub(super) endpoints: Vec<Endpoint>,
    }

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    pub(super) struct Endpoint {
        #[n(1)]
        pub(super) workload: WorkloadInfo,
        #[n(2)]
        pub(super) addresses: Addresses,
        #[n(73)]
        pub(super) zone: Option<String>,
    }
}

#[test]
fn another_versions_destination_is_read_without_its_new_fields_and_with_defaults_for_missing_ones()
{
    let rule = example().ports.remove(0).http.remove(0);
    let theirs = other_version::Destination {
        service: reviews(),
        ports: vec![other_version::Port {
            number: 80,
            http: vec![other_version::Rule {
                provenance: rule.provenance.clone(),
                action: rule.action.clone(),
                mirror: Some("canary".to_owned()),
            }],
            budget: Some((20, 0.5)),
        }],
        locality: [("eu".to_owned(), vec!["a".to_owned()])].into(),
    };
    let port = DestinationPort {
        number: 80,
        name: String::new(),
        protocol: Protocol::Undeclared,
        http: vec![HttpRule { matches: Vec::new(), fault: None, ..rule }],
        tcp: Vec::new(),
        sni: Vec::new(),
        faults: Vec::new(),
    };
    let ours = Destination {
        service: reviews(),
        vips: Vec::new(),
        ports: vec![port],
        subsets: BTreeMap::new(),
        policies: Vec::new(),
        refused: None,
        others: None,
    };
    let bytes = minicbor::to_vec(&theirs).unwrap();
    assert_eq!(decode_example(&bytes), Ok(Resource::Destination(ours)));

    let read: other_version::Destination = minicbor::decode(&example().encode()).unwrap();
    let mut wanted = theirs;
    wanted.locality.clear();
    wanted.ports[0].number = 8080;
    wanted.ports[0].budget = None;
    wanted.ports[0].http[0].mirror = None;
    assert_eq!(read, wanted, "and the other version reads ours");
}

/// A destination of a version whose requests have one more condition.
mod with_a_new_condition {
    use heddle_model::{
        ServiceName,
        discovery::{RuleAction, StringMatch},
    };

    #[derive(Debug, minicbor::Encode)]
    #[cbor(map)]
    pub(super) struct Destination {
        #[n(1)]
        pub(super) service: ServiceName,
        #[n(3)]
        pub(super) ports: Vec<Port>,
    }

    #[derive(Debug, minicbor::Encode)]
    #[cbor(map)]
    pub(super) struct Port {
        #[n(1)]
        pub(super) number: u16,
        #[n(4)]
        pub(super) http: Vec<Rule>,
    }

    #[derive(Debug, minicbor::Encode)]
    #[cbor(map)]
    pub(super) struct Rule {
        #[n(2)]
        pub(super) matches: Vec<Match>,
        #[n(4)]
        pub(super) action: RuleAction,
    }

    #[derive(Debug, minicbor::Encode)]
    #[cbor(map)]
    pub(super) struct Match {
        #[n(1)]
        pub(super) uri: Option<StringMatch>,
        #[n(9)]
        pub(super) country: Option<String>,
    }
}

#[test]
fn a_condition_unknown_to_this_version_is_refused_and_not_left_out() {
    use with_a_new_condition::{Destination, Match, Port, Rule};
    let action = example().ports.remove(0).http.remove(0).action;
    let decoded = |country: Option<&str>| {
        let uri = Some(StringMatch::Exact("/".to_owned()));
        let matches = vec![Match { uri, country: country.map(str::to_owned) }];
        let port = Port { number: 80, http: vec![Rule { matches, action: action.clone() }] };
        let theirs = Destination { service: reviews(), ports: vec![port] };
        decode_example(&minicbor::to_vec(&theirs).unwrap())
    };
    let Ok(Resource::Destination(read)) = decoded(None) else { panic!("all are known") };
    assert_eq!(read.ports[0].http[0].matches.len(), 1);
    let refused = decoded(Some("nz")).unwrap_err().to_string();
    assert!(refused.contains("condition 9 is unknown to this version"), "{refused}");
}

#[test]
fn every_condition_of_a_request_is_one_of_this_version() {
    let text = || StringMatch::Exact("x".to_owned());
    let all = HttpMatch {
        uri: Some(text()),
        ignore_uri_case: true,
        method: Some(text()),
        authority: Some(text()),
        scheme: Some(text()),
        headers: [("a".to_owned(), HeaderMatch::Present)].into(),
        without_headers: [("b".to_owned(), HeaderMatch::Present)].into(),
        query_params: [("c".to_owned(), text())].into(),
    };
    let mut whole = example();
    whole.ports[0].http[0].matches = vec![all];
    assert_eq!(decode_example(&whole.encode()), Ok(Resource::Destination(whole)));
}

#[test]
fn another_versions_endpoints_are_read_without_its_new_fields_and_with_defaults_for_missing_ones() {
    let workload = WorkloadInfo {
        id: WorkloadId("reviews-1".to_owned()),
        name: "reviews-v1".to_owned(),
        namespace: "default".to_owned(),
        identity: Identity::local("default", "reviews"),
        services: [reviews()].into(),
        version: "v1".to_owned(),
        labels: [("version".to_owned(), "v1".to_owned())].into(),
        ports: [(80, Protocol::Http)].into(),
    };
    let addresses = Addresses::V4(Ipv4Addr::new(240, 241, 0, 1));
    let zone = Some("a".to_owned());
    let theirs = |zone| other_version::Endpoints {
        service: reviews(),
        endpoints: vec![other_version::Endpoint { workload: workload.clone(), addresses, zone }],
    };
    let ours = |ports, weight| {
        let (workload, locality) = (workload.clone(), Locality::default());
        let endpoint = Endpoint { workload, addresses, ports, weight, locality };
        Endpoints::inside(reviews(), vec![endpoint])
    };
    let kind = ResourceType::Endpoints.type_url();
    let bytes = minicbor::to_vec(theirs(zone)).unwrap();
    let wanted = Resource::Endpoints(ours(BTreeMap::new(), 0));
    assert_eq!(decode(kind, &service_name(&reviews()), &bytes), Ok(wanted));

    let ready = EndpointPort { number: 8080, state: EndpointState::Ready };
    let bytes = ours([(80, ready)].into(), 7).encode();
    let read: other_version::Endpoints = minicbor::decode(&bytes).unwrap();
    assert_eq!(read, theirs(None), "and the other version reads ours");
}

#[test]
fn an_endpoint_without_any_address_is_refused() {
    #[derive(minicbor::Encode)]
    #[cbor(map)]
    struct Nowhere {
        #[n(1)]
        workload: WorkloadInfo,
        #[n(2)]
        addresses: BTreeMap<u8, u8>,
    }
    #[derive(minicbor::Encode)]
    #[cbor(map)]
    struct Theirs(#[n(1)] ServiceName, #[n(2)] Vec<Nowhere>);
    let workload = WorkloadInfo {
        id: WorkloadId("reviews-1".to_owned()),
        name: "reviews-v1".to_owned(),
        namespace: "default".to_owned(),
        identity: Identity::local("default", "reviews"),
        services: [reviews()].into(),
        version: String::new(),
        labels: BTreeMap::new(),
        ports: BTreeMap::new(),
    };
    let nowhere = Nowhere { workload, addresses: BTreeMap::new() };
    let bytes = minicbor::to_vec(Theirs(reviews(), vec![nowhere])).unwrap();
    let kind = ResourceType::Endpoints.type_url();
    let error = decode(kind, &service_name(&reviews()), &bytes).unwrap_err();
    assert!(error.to_string().contains("neither an IPv4 nor an IPv6 address"), "{error}");
}

#[test]
fn a_message_that_is_none_says_what_it_should_have_been() {
    let error = decode(ResourceType::Mesh.type_url(), "mesh", b"\xff\xff").unwrap_err();
    assert!(error.to_string().starts_with("Mesh `mesh` is no valid message"), "{error}");
}

#[test]
fn an_address_of_an_unknown_kind_does_not_make_a_name_unknown() {
    let vips = vec![Ipv4Addr::new(240, 240, 0, 10).into()];
    let service = Some(ServiceVips { name: reviews(), vips });
    let answer = NameAnswer { host: "reviews".into(), namespace: "default".into(), service };
    let kind = ResourceType::Name.type_url();
    let mut bytes = answer.encode();
    assert_eq!(decode(kind, "default/reviews", &bytes).unwrap(), Resource::Name(answer));
    // The kind of an address stands between its list and its bytes.
    let at = bytes.windows(3).position(|three| three == [0x82, 0, 0x44]).expect("an IPv4 address");
    bytes[at + 1] = 2;
    let error = decode(kind, "default/reviews", &bytes).unwrap_err().to_string();
    assert!(error.contains("unknown to this version"), "{error}");
}
