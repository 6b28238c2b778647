//! Traffic policies of a DestinationRule: what is read, with which defaults, and what is noted.

use std::time::Duration;

use super::{RULE_HEAD, destination_rule, notes};
use crate::{
    discovery::{ConnectionPool, OutlierDetection},
    resource::PolicyParts,
};

#[test]
fn subsets_are_read_and_policies_noted() {
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
    assert_eq!(
        notes(&text),
        [
            "spec.trafficPolicy.loadBalancer (line 8)",
            "spec.subsets[1].trafficPolicy.loadBalancer (line 14)"
        ]
    );
    let pool = rule.policy.and_then(|policy| policy.general.pool).unwrap();
    assert_eq!(pool, ConnectionPool { max_pending: Some(1), ..ConnectionPool::default() });
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
    };
    assert_eq!(limits.general, PolicyParts { outlier: None, pool: Some(wanted), tls: None });
    let (port, parts) = &limits.ports[0];
    assert_eq!((*port, parts.pool.as_ref().unwrap().max_connections), (80, Some(9)));
}
