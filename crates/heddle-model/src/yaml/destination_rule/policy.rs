//! `trafficPolicy` of a DestinationRule with everything below it: checked as Istio checks it. Outlier
//! detection, limits and TLS ([`tls`]) are read here, the choice of an endpoint in [`balancer`] and
//! [`locality`]; the rest is noted as not enforced yet.

use crate::{
    discovery::{ConnectionPool, Http2Keepalive, OutlierDetection, RetryBudgetRule, TcpKeepalive},
    resource::{PolicyParts, TrafficPolicy},
    yaml::{
        node::Node,
        report::Report,
        schema::{
            COUNT, DURATION, Field, Kind, Object, PORT, Rule, SMALL_COUNT, at_least_one,
            at_most_one, join, not_yet, optional, required,
        },
        value,
    },
};

mod balancer;
mod locality;
mod part;
pub(in crate::yaml) mod tls;

use part::{decimal_of, duration_of, is_true, number_of};

/// The policy of a whole destination.
pub(super) static TRAFFIC_POLICY: Object = Object { fields: &POLICY_FIELDS, rules: POLICY_RULES };
/// The policy of a subset.
pub(super) static SUBSET_POLICY: Object = Object { fields: &POLICY_FIELDS, rules: POLICY_RULES };

const POLICY_RULES: &[Rule] = &[|node, path, report| {
    let parts = POLICY_FIELDS.each_ref().map(Field::name);
    at_least_one(node, &parts, path, report);
    at_most_one(node, &["tunnel", "proxyProtocol"], path, report);
}];

static POLICY_FIELDS: [Field; 8] = [
    optional("loadBalancer", Kind::Object(&balancer::LOAD_BALANCER)),
    optional("connectionPool", Kind::Object(&CONNECTION_POOL)),
    optional("outlierDetection", Kind::Object(&OUTLIER_DETECTION)),
    optional("tls", Kind::Object(&tls::TLS)),
    optional("portLevelSettings", Kind::List { of: &Kind::Object(&PORT_POLICY), least: 0 }),
    not_yet("tunnel", Kind::Object(&TUNNEL)),
    not_yet("proxyProtocol", Kind::Object(&PROXY_PROTOCOL)),
    optional("retryBudget", Kind::Object(&RETRY_BUDGET)),
];

static PORT_POLICY: Object = Object {
    fields: &[
        required("port", Kind::Object(&PORT_SELECTOR)),
        optional("loadBalancer", Kind::Object(&balancer::LOAD_BALANCER)),
        optional("connectionPool", Kind::Object(&CONNECTION_POOL)),
        optional("outlierDetection", Kind::Object(&OUTLIER_DETECTION)),
        optional("tls", Kind::Object(&tls::TLS)),
    ],
    rules: &[|node, path, report| {
        let parts = ["loadBalancer", "connectionPool", "outlierDetection", "tls"];
        at_least_one(node, &parts, path, report);
    }],
};

static PORT_SELECTOR: Object = Object { fields: &[required("number", PORT)], rules: &[] };

static CONNECTION_POOL: Object = Object {
    fields: &[optional("tcp", Kind::Object(&TCP_POOL)), optional("http", Kind::Object(&HTTP_POOL))],
    rules: &[|node, path, report| at_least_one(node, &["tcp", "http"], path, report)],
};

static TCP_POOL: Object = Object {
    fields: &[
        optional("maxConnections", SMALL_COUNT),
        optional("connectTimeout", DURATION),
        optional("tcpKeepalive", Kind::Object(&KEEPALIVE)),
        optional("maxConnectionDuration", DURATION),
        optional("idleTimeout", Kind::Duration { least_ms: 0 }),
    ],
    rules: &[],
};

static KEEPALIVE: Object = Object {
    fields: &[
        optional("probes", COUNT),
        optional("time", DURATION),
        optional("interval", DURATION),
    ],
    rules: &[],
};

static HTTP_POOL: Object = Object {
    fields: &[
        optional("http1MaxPendingRequests", SMALL_COUNT),
        optional("http2MaxRequests", SMALL_COUNT),
        optional("maxRequestsPerConnection", SMALL_COUNT),
        optional("maxRetries", SMALL_COUNT),
        optional("idleTimeout", DURATION),
        optional("h2UpgradePolicy", Kind::Choice(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"])),
        optional("useClientProtocol", Kind::Bool),
        optional("maxConcurrentStreams", SMALL_COUNT),
        optional("http2KeepAlive", Kind::Object(&HTTP2_KEEPALIVE)),
    ],
    rules: &[|node, path, report| {
        let client = node.get("useClientProtocol").filter(|flag| flag.text() != "false");
        if let Some(client) = client.filter(|_| node.text_of("h2UpgradePolicy") == "UPGRADE") {
            let reason = "`UPGRADE` and the client's own protocol exclude each other: keep one";
            report.at(client, &join(path, "useClientProtocol"), reason);
        }
    }],
};

static HTTP2_KEEPALIVE: Object =
    Object { fields: &[required("interval", DURATION), required("timeout", DURATION)], rules: &[] };

static OUTLIER_DETECTION: Object = Object {
    fields: &[
        optional("splitExternalLocalOriginErrors", Kind::Bool),
        optional("consecutiveLocalOriginFailures", COUNT),
        optional("consecutiveGatewayErrors", COUNT),
        optional("consecutive5xxErrors", COUNT),
        optional("consecutiveErrors", SMALL_COUNT),
        optional("interval", DURATION),
        optional("baseEjectionTime", DURATION),
        optional("maxEjectionPercent", Kind::Int { min: 0, max: 100 }),
        optional("minHealthPercent", Kind::Int { min: 0, max: 100 }),
        optional(
            "outlierDetectionHttpErrorCodes",
            Kind::List { of: &Kind::Int { min: 100, max: 599 }, least: 0 },
        ),
    ],
    rules: &[local_origin_needs_split, older_name_does_nothing],
};

fn local_origin_needs_split(node: &Node, path: &str, report: &mut Report<'_>) {
    let split = node.text_of("splitExternalLocalOriginErrors").eq_ignore_ascii_case("true");
    let failures = node.get("consecutiveLocalOriginFailures");
    if let Some(failures) = failures.filter(|failures| !split && failures.text() != "0") {
        let reason = "has no effect unless `splitExternalLocalOriginErrors` is true";
        report.at(failures, &join(path, "consecutiveLocalOriginFailures"), reason);
    }
}

/// What is now `consecutive5xxErrors`: Istio takes it and does not look at it.
fn older_name_does_nothing(node: &Node, path: &str, report: &mut Report<'_>) {
    if let Some(older) = node.get("consecutiveErrors") {
        let reason = "older versions had it, and none looks at it now: use `consecutive5xxErrors`";
        report.no_effect(older.line, &join(path, "consecutiveErrors"), reason);
    }
}

static TUNNEL: Object = Object {
    fields: &[
        optional("protocol", Kind::Choice(&["CONNECT", "POST"])),
        required("targetHost", Kind::Text(value::single_host)),
        required("targetPort", PORT),
    ],
    rules: &[],
};

static PROXY_PROTOCOL: Object =
    Object { fields: &[optional("version", Kind::Choice(&["V1", "V2"]))], rules: &[] };

static RETRY_BUDGET: Object = Object {
    fields: &[
        optional("percent", Kind::Number { min: 0.0, max: 100.0 }),
        optional("minRetryConcurrency", COUNT),
        optional("budgetInterval", Kind::Duration { least_ms: 0 }),
    ],
    rules: &[],
};

/// A checked `trafficPolicy` into its noun.
pub(super) fn read(policy: &Node) -> TrafficPolicy {
    let port = |settings: &Node| {
        let number = settings.get("port").and_then(|port| number_of(port, "number"))?;
        Some((u16::try_from(number).ok()?, parts(settings)))
    };
    TrafficPolicy {
        general: parts(policy),
        ports: policy.items_of("portLevelSettings").iter().filter_map(port).collect(),
    }
}

fn parts(policy: &Node) -> PolicyParts {
    PolicyParts {
        outlier: policy.get("outlierDetection").map(outlier),
        pool: policy.get("connectionPool").map(pool).map(Box::new),
        tls: policy.get("tls").map(tls::read),
        balancing: policy.get("loadBalancer").map(balancer::read).map(Box::new),
        retry_budget: policy.get("retryBudget").map(retry_budget),
    }
}

fn outlier(node: &Node) -> OutlierDetection {
    let by_default = OutlierDetection::default();
    // As in protobuf a percentage of 0 is none that was given.
    let percent = |key| number_of(node, key).and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0);
    let local = number_of(node, "consecutiveLocalOriginFailures").filter(|count| *count > 0);
    OutlierDetection {
        consecutive_5xx: number_of(node, "consecutive5xxErrors")
            .unwrap_or(by_default.consecutive_5xx),
        consecutive_gateway: number_of(node, "consecutiveGatewayErrors")
            .unwrap_or(by_default.consecutive_gateway),
        splits_local_origin: node
            .text_of("splitExternalLocalOriginErrors")
            .eq_ignore_ascii_case("true"),
        consecutive_local_origin: local.unwrap_or(by_default.consecutive_local_origin),
        interval: duration_of(node, "interval").unwrap_or(by_default.interval),
        base_ejection_time: duration_of(node, "baseEjectionTime")
            .unwrap_or(by_default.base_ejection_time),
        max_ejection_percent: percent("maxEjectionPercent")
            .unwrap_or(by_default.max_ejection_percent),
        min_health_percent: percent("minHealthPercent").unwrap_or(by_default.min_health_percent),
        error_codes: node
            .items_of("outlierDetectionHttpErrorCodes")
            .iter()
            .filter_map(|code| code.text().parse().ok())
            .collect(),
        ..by_default
    }
}

fn pool(node: &Node) -> ConnectionPool {
    let (tcp, http) = (node.get("tcp"), node.get("http"));
    // As in Istio a limit of 0 is none.
    let limit = |part: Option<&Node>, key| number_of(part?, key).filter(|limit| *limit > 0);
    ConnectionPool {
        max_connections: limit(tcp, "maxConnections"),
        connect_timeout: tcp.and_then(|tcp| duration_of(tcp, "connectTimeout")),
        max_pending: limit(http, "http1MaxPendingRequests"),
        max_requests: limit(http, "http2MaxRequests"),
        max_requests_per_connection: limit(http, "maxRequestsPerConnection"),
        max_retries: limit(http, "maxRetries"),
        idle_timeout: http.and_then(|http| duration_of(http, "idleTimeout")),
        upgrades_to_http2: http.is_some_and(|http| http.text_of("h2UpgradePolicy") == "UPGRADE"),
        use_client_protocol: http.is_some_and(|http| is_true(http, "useClientProtocol")),
        tcp_idle_timeout: tcp.and_then(|tcp| duration_of(tcp, "idleTimeout")),
        max_connection_duration: tcp.and_then(|tcp| duration_of(tcp, "maxConnectionDuration")),
        max_concurrent_streams: limit(http, "maxConcurrentStreams"),
        tcp_keepalive: tcp.and_then(|tcp| tcp.get("tcpKeepalive")).map(tcp_keepalive),
        http2_keepalive: http.and_then(|http| http2_keepalive(http.get("http2KeepAlive")?)),
    }
}

fn tcp_keepalive(node: &Node) -> TcpKeepalive {
    TcpKeepalive {
        // As in protobuf a count of 0 is none that was given.
        probes: number_of(node, "probes").filter(|count| *count > 0),
        time: duration_of(node, "time"),
        interval: duration_of(node, "interval"),
    }
}

fn http2_keepalive(node: &Node) -> Option<Http2Keepalive> {
    let (interval, timeout) = (duration_of(node, "interval")?, duration_of(node, "timeout")?);
    Some(Http2Keepalive { interval, timeout })
}

fn retry_budget(node: &Node) -> RetryBudgetRule {
    let by_default = RetryBudgetRule::default();
    RetryBudgetRule {
        percent: decimal_of(node, "percent").unwrap_or(by_default.percent),
        // As in protobuf a count of 0 is none that was given.
        min_concurrency: number_of(node, "minRetryConcurrency")
            .filter(|count| *count > 0)
            .unwrap_or(by_default.min_concurrency),
        interval: duration_of(node, "budgetInterval").filter(|interval| !interval.is_zero()),
    }
}
