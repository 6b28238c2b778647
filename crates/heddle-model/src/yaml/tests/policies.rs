//! Traffic policies of a DestinationRule: what is read, with which defaults, and what is noted.

use std::time::Duration;

use super::{RULE_HEAD, accept, destination_rule, notes};
use crate::{
    discovery::{
        ConnectionPool, HashCookie, HashKey, HashTable, Http2Keepalive, Method, OutlierDetection,
        RetryBudgetRule, TcpKeepalive, Warmup,
    },
    resource::{PolicyParts, TrafficPolicy},
};

#[test]
fn subsets_are_read_with_their_policies() {
    let text = format!(
        "{RULE_HEAD}spec:
  host: reviews
  exportTo: ['*']
  trafficPolicy:
    loadBalancer: {{simple: ROUND_ROBIN}}
    connectionPool: {{http: {{http1MaxPendingRequests: 1}}}}
  subsets:
  - name: v1
    labels: {{version: v1}}
  - name: all
    trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}
"
    );
    let rule = destination_rule(&text);
    assert_eq!((rule.host.as_str(), rule.host_line), ("reviews", 5));
    assert_eq!(rule.subsets[0].labels["version"], "v1");
    assert!(rule.subsets[1].labels.is_empty());
    assert_eq!(notes(&text), [""; 0]);
    let method = |policy: Option<TrafficPolicy>| policy.unwrap().general.balancing.unwrap().method;
    assert_eq!(method(rule.policy.clone()), Method::RoundRobin);
    assert_eq!(method(rule.subsets[1].policy.clone()), Method::Random);
    let pool = rule.policy.and_then(|policy| policy.general.pool).unwrap();
    assert_eq!(*pool, ConnectionPool { max_pending: Some(1), ..ConnectionPool::default() });
}

#[test]
fn outlier_detection_and_limits_are_read_with_istios_defaults() {
    let policy = |text: &str| {
        let text = format!("{RULE_HEAD}spec:\n  host: a\n  trafficPolicy: {text}\n");
        assert_eq!(notes(&text), [""; 0]);
        destination_rule(&text).policy.unwrap()
    };
    let outlier = |text: &str| policy(text).general.outlier.unwrap();
    assert_eq!(outlier("{outlierDetection: {}}"), OutlierDetection::default());
    let zeros =
        "{outlierDetection: {consecutive5xxErrors: 0, maxEjectionPercent: 0, minHealthPercent: 0}}";
    let off = OutlierDetection { consecutive_5xx: 0, ..OutlierDetection::default() };
    assert_eq!(outlier(zeros), off, "a percentage of 0 is the default");
    let all = outlier(
        "{outlierDetection: {consecutive5xxErrors: 7, consecutiveGatewayErrors: 3, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100, minHealthPercent: 40}}",
    );
    let wanted = OutlierDetection {
        consecutive_5xx: 7,
        consecutive_gateway: 3,
        splits_local_origin: true,
        consecutive_local_origin: 2,
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(180),
        max_ejection_percent: 100,
        min_health_percent: 40,
        ..OutlierDetection::default()
    };
    assert_eq!(all, wanted);
    let limits = policy(
        "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRequestsPerConnection: 4, maxRetries: 0, idleTimeout: 9s}}, portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 9}}}]}",
    );
    let wanted = ConnectionPool {
        max_connections: Some(1),
        connect_timeout: Some(Duration::from_secs(2)),
        max_pending: Some(2),
        max_requests: Some(3),
        max_requests_per_connection: Some(4),
        max_retries: None,
        idle_timeout: Some(Duration::from_secs(9)),
        ..ConnectionPool::default()
    };
    assert_eq!(
        limits.general,
        PolicyParts { pool: Some(Box::new(wanted)), ..PolicyParts::default() }
    );
    let (port, parts) = &limits.ports[0];
    assert_eq!((*port, parts.pool.as_ref().unwrap().max_connections), (80, Some(9)));
}

/// The general part of a policy of which every field is in force.
fn parts(text: &str) -> PolicyParts {
    let text = format!("{RULE_HEAD}spec:\n  host: a\n  trafficPolicy: {text}\n");
    assert_eq!(notes(&text), [""; 0]);
    destination_rule(&text).policy.unwrap().general
}

#[test]
fn how_an_endpoint_is_chosen_is_read_with_istios_defaults() {
    let balancing = |text: &str| parts(&format!("{{loadBalancer: {text}}}")).balancing.unwrap();
    for (simple, method) in [
        ("UNSPECIFIED", Method::LeastRequest),
        ("LEAST_CONN", Method::LeastRequest),
        ("LEAST_REQUEST", Method::LeastRequest),
        ("RANDOM", Method::Random),
        ("ROUND_ROBIN", Method::RoundRobin),
        ("PASSTHROUGH", Method::Passthrough),
    ] {
        assert_eq!(balancing(&format!("{{simple: {simple}}}")).method, method);
    }
    let hash = |text: &str| match balancing(&format!("{{consistentHash: {text}}}")).method {
        Method::Hash(policy) => *policy,
        other => panic!("{other:?}"),
    };
    let header = hash("{httpHeaderName: X-User}");
    assert_eq!(header.key, HashKey::Header("x-user".to_owned()));
    assert_eq!(header.table, HashTable::Ring(1024));
    assert_eq!(hash("{useSourceIp: true, minimumRingSize: 9}").table, HashTable::Ring(9));
    assert_eq!(
        hash("{useSourceIp: true, ringHash: {minimumRingSize: 7}}").table,
        HashTable::Ring(7)
    );
    let query = hash("{httpQueryParameterName: user, maglev: {tableSize: 101}}");
    assert_eq!(query.key, HashKey::QueryParameter("user".to_owned()));
    assert_eq!(query.table, HashTable::Maglev(101));
    let cookie = hash("{httpCookie: {name: a, path: /, ttl: 0s, attributes: [{name: Secure}]}}");
    let wanted = HashCookie {
        name: "a".to_owned(),
        path: "/".to_owned(),
        ttl: Some(Duration::ZERO),
        attributes: vec![("Secure".to_owned(), String::new())],
    };
    assert_eq!(cookie.key, HashKey::Cookie(wanted));
    let seconds = Duration::from_secs;
    for (text, wanted) in [
        ("{warmupDurationSecs: 30s}", Warmup::lasting(seconds(30))),
        ("{warmup: {duration: 1m}}", Warmup::lasting(seconds(60))),
        (
            "{warmupDurationSecs: 30s, warmup: {duration: 9s, minimumPercent: 0, aggression: 2.5}}",
            Warmup { duration: seconds(9), minimum_percent: 0.0, aggression: 2.5 },
        ),
    ] {
        assert_eq!(balancing(text).warmup, Some(wanted));
    }
}

#[test]
fn localities_are_read() {
    let rules = |text: &str| {
        let text = format!("{{loadBalancer: {{localityLbSetting: {text}}}}}");
        parts(&text).balancing.unwrap().locality.unwrap()
    };
    assert!(rules("{enabled: false}").off && !rules("{enabled: true}").off);
    let shares = rules("{distribute: [{from: eu/*, to: {eu/a: 80, 'us/*': 20}}]}").distribute;
    assert_eq!((shares[0].from.as_str(), shares[0].to["us/*"]), ("eu/*", 20));
    let failover = rules("{failover: [{from: eu, to: us}], failoverPriority: [tier]}");
    assert_eq!(failover.failover, [("eu".to_owned(), "us".to_owned())]);
    assert_eq!(failover.failover_priority, ["tier"]);
}

#[test]
fn a_budget_for_retries_and_versions_of_http_are_read() {
    let budget = |text: &str| parts(&format!("{{retryBudget: {text}}}")).retry_budget.unwrap();
    assert_eq!(budget("{}"), RetryBudgetRule::default());
    let half = RetryBudgetRule { percent: 0.5, min_concurrency: 1, interval: None };
    assert_eq!(budget("{percent: 0.5, minRetryConcurrency: 1, budgetInterval: 0s}"), half);
    assert_eq!(budget("{budgetInterval: 10s}").interval, Some(Duration::from_secs(10)));
    let pool = |text: &str| parts(&format!("{{connectionPool: {{http: {text}}}}}")).pool.unwrap();
    assert!(pool("{h2UpgradePolicy: UPGRADE}").upgrades_to_http2);
    assert!(!pool("{h2UpgradePolicy: DO_NOT_UPGRADE}").upgrades_to_http2);
    assert!(pool("{useClientProtocol: true}").use_client_protocol);
}

#[test]
fn what_a_rule_says_of_connections_is_read() {
    let seconds = Duration::from_secs;
    let pool = |text: &str| *parts(&format!("{{connectionPool: {text}}}")).pool.unwrap();
    let all = pool(
        "{tcp: {idleTimeout: 0s, maxConnectionDuration: 1h, tcpKeepalive: {probes: 3, time: 10s, interval: 5s}}, \
          http: {maxConcurrentStreams: 10, http2KeepAlive: {interval: 30s, timeout: 2s}}}",
    );
    let wanted = ConnectionPool {
        tcp_idle_timeout: Some(Duration::ZERO),
        max_connection_duration: Some(seconds(3_600)),
        max_concurrent_streams: Some(10),
        tcp_keepalive: Some(TcpKeepalive {
            probes: Some(3),
            time: Some(seconds(10)),
            interval: Some(seconds(5)),
        }),
        http2_keepalive: Some(Http2Keepalive { interval: seconds(30), timeout: seconds(2) }),
        ..ConnectionPool::default()
    };
    assert_eq!(all, wanted);
    let none = pool("{tcp: {tcpKeepalive: {probes: 0}}, http: {maxConcurrentStreams: 0}}");
    let probed = Some(TcpKeepalive::default());
    assert_eq!(none, ConnectionPool { tcp_keepalive: probed, ..ConnectionPool::default() });
}

#[test]
fn an_outliers_errors_are_read_and_what_older_versions_called_them_is_told_of() {
    let codes = parts("{outlierDetection: {outlierDetectionHttpErrorCodes: [429, 503]}}");
    assert_eq!(codes.outlier.unwrap().error_codes, [429, 503]);
    let older = format!(
        "{RULE_HEAD}spec:\n  host: a\n  trafficPolicy: {{outlierDetection: {{consecutiveErrors: 1}}}}\n"
    );
    let resources = accept(&older);
    let reason = resources[0].not_enforced[0].reason.as_deref();
    assert!(reason.is_some_and(|reason| reason.contains("consecutive5xxErrors")), "{reason:?}");
}
