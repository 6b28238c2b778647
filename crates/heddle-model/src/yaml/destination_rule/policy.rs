//! `trafficPolicy` of a DestinationRule with everything below it: checked as Istio checks it, noted
//! as not enforced yet.

use crate::yaml::{
    node::Node,
    report::Report,
    schema::{
        COUNT, DURATION, Field, Kind, NAME, Object, PORT, SMALL_COUNT, TEXT, at_least_one,
        at_most_one, exactly_one, join, optional, required,
    },
    value,
};

/// The policy of a whole destination.
pub(super) static TRAFFIC_POLICY: Object = Object { fields: &POLICY_FIELDS, rules: &[] };
/// The policy of a subset.
pub(super) static SUBSET_POLICY: Object = Object { fields: &POLICY_FIELDS, rules: &[] };

static POLICY_FIELDS: [Field; 8] = [
    optional("loadBalancer", Kind::Object(&LOAD_BALANCER)),
    optional("connectionPool", Kind::Object(&CONNECTION_POOL)),
    optional("outlierDetection", Kind::Object(&OUTLIER_DETECTION)),
    optional("tls", Kind::Object(&TLS)),
    optional("portLevelSettings", Kind::List { of: &Kind::Object(&PORT_POLICY), least: 0 }),
    optional("tunnel", Kind::Object(&TUNNEL)),
    optional("proxyProtocol", Kind::Object(&PROXY_PROTOCOL)),
    optional("retryBudget", Kind::Object(&RETRY_BUDGET)),
];

static PORT_POLICY: Object = Object {
    fields: &[
        required("port", Kind::Object(&PORT_SELECTOR)),
        optional("loadBalancer", Kind::Object(&LOAD_BALANCER)),
        optional("connectionPool", Kind::Object(&CONNECTION_POOL)),
        optional("outlierDetection", Kind::Object(&OUTLIER_DETECTION)),
        optional("tls", Kind::Object(&TLS)),
    ],
    rules: &[],
};

static PORT_SELECTOR: Object = Object { fields: &[required("number", PORT)], rules: &[] };

static LOAD_BALANCER: Object = Object {
    fields: &[
        optional(
            "simple",
            Kind::Choice(&[
                "UNSPECIFIED",
                "LEAST_REQUEST",
                "LEAST_CONN",
                "ROUND_ROBIN",
                "RANDOM",
                "PASSTHROUGH",
            ]),
        ),
        optional("consistentHash", Kind::Object(&CONSISTENT_HASH)),
        optional("localityLbSetting", Kind::Object(&LOCALITY)),
        optional("zoneAwareLbSetting", Kind::Object(&ZONE_AWARE)),
        optional("warmupDurationSecs", DURATION),
        optional("warmup", Kind::Object(&WARMUP)),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["simple", "consistentHash"], path, report);
        at_most_one(node, &["warmup", "warmupDurationSecs"], path, report);
        at_most_one(node, &["localityLbSetting", "zoneAwareLbSetting"], path, report);
    }],
};

static WARMUP: Object = Object {
    fields: &[
        required("duration", DURATION),
        optional("minimumPercent", Kind::Number { min: 0.0, max: 100.0 }),
        optional("aggression", Kind::Number { min: 1.0, max: f64::MAX }),
    ],
    rules: &[],
};

static CONSISTENT_HASH: Object = Object {
    fields: &[
        optional("httpHeaderName", Kind::Text(value::header_name)),
        optional("httpCookie", Kind::Object(&COOKIE)),
        optional("useSourceIp", Kind::Bool),
        optional("httpQueryParameterName", NAME),
        optional("ringHash", Kind::Object(&RING_HASH)),
        optional("maglev", Kind::Object(&MAGLEV)),
        optional("minimumRingSize", COUNT),
    ],
    rules: &[|node, path, report| {
        let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
        exactly_one(node, &keys, path, report);
        at_most_one(node, &["ringHash", "maglev"], path, report);
    }],
};

static COOKIE: Object = Object {
    fields: &[
        required("name", NAME),
        optional("path", TEXT),
        optional("ttl", Kind::Duration { least_ms: 0 }),
        optional("attributes", Kind::List { of: &Kind::Object(&COOKIE_ATTRIBUTE), least: 0 }),
    ],
    rules: &[],
};

static COOKIE_ATTRIBUTE: Object =
    Object { fields: &[required("name", NAME), optional("value", TEXT)], rules: &[] };

static RING_HASH: Object = Object { fields: &[optional("minimumRingSize", COUNT)], rules: &[] };

static MAGLEV: Object = Object { fields: &[optional("tableSize", COUNT)], rules: &[] };

static LOCALITY: Object = Object {
    fields: &[
        optional("distribute", Kind::List { of: &Kind::Object(&DISTRIBUTE), least: 0 }),
        optional("failover", Kind::List { of: &Kind::Object(&FAILOVER), least: 0 }),
        optional("failoverPriority", Kind::List { of: &NAME, least: 0 }),
        optional("enabled", Kind::Bool),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["distribute", "failover"], path, report);
        at_most_one(node, &["distribute", "failoverPriority"], path, report);
    }],
};

static DISTRIBUTE: Object = Object {
    fields: &[
        required("from", NAME),
        required("to", Kind::Map { key: value::not_empty, of: &Kind::Int { min: 1, max: 100 } }),
    ],
    rules: &[|node, path, report| {
        let Some(to) = node.get("to") else { return };
        let shares = to.entries().iter().map(|e| e.value.text().parse::<u64>().unwrap_or(0));
        let sum: u64 = shares.sum();
        if sum != 100 {
            report.at(to, &join(path, "to"), format!("the shares sum to {sum}, not to 100"));
        }
    }],
};

static FAILOVER: Object = Object {
    fields: &[required("from", NAME), required("to", NAME)],
    rules: &[|node, path, report| {
        if node.text_of("from") == node.text_of("to") {
            report.at(node, path, "`from` and `to` are the same");
        }
    }],
};

static ZONE_AWARE: Object = Object {
    fields: &[
        optional("enabled", Kind::Bool),
        optional("failover", Kind::List { of: &Kind::Object(&FAILOVER), least: 0 }),
        optional("failoverPriority", Kind::List { of: &NAME, least: 0 }),
        optional("minClusterSize", COUNT),
    ],
    rules: &[],
};

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
        optional("idleTimeout", Kind::Duration { least_ms: 0 }),
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
    Object { fields: &[optional("interval", DURATION), optional("timeout", DURATION)], rules: &[] };

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
    rules: &[local_origin_needs_split],
};

fn local_origin_needs_split(node: &Node, path: &str, report: &mut Report<'_>) {
    let split = node.text_of("splitExternalLocalOriginErrors").eq_ignore_ascii_case("true");
    let failures = node.get("consecutiveLocalOriginFailures");
    if let Some(failures) = failures.filter(|failures| !split && failures.text() != "0") {
        let reason = "has no effect unless `splitExternalLocalOriginErrors` is true";
        report.at(failures, &join(path, "consecutiveLocalOriginFailures"), reason);
    }
}

static TLS: Object = Object {
    fields: &[
        optional("mode", Kind::Choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
        optional("clientCertificate", TEXT),
        optional("privateKey", TEXT),
        optional("caCertificates", TEXT),
        optional("credentialName", TEXT),
        optional("subjectAltNames", Kind::List { of: &TEXT, least: 0 }),
        optional("sni", TEXT),
        optional("insecureSkipVerify", Kind::Bool),
        optional("caCrl", TEXT),
    ],
    rules: &[tls_files_fit_the_mode],
};

fn tls_files_fit_the_mode(node: &Node, path: &str, report: &mut Report<'_>) {
    let files = ["clientCertificate", "privateKey", "caCertificates"];
    match node.text_of("mode") {
        "ISTIO_MUTUAL" => {
            for file in files.into_iter().chain(["credentialName"]) {
                if let Some(given) = node.get(file) {
                    let reason = "ISTIO_MUTUAL uses the mesh's own certificates: remove this";
                    report.at(given, &join(path, file), reason);
                }
            }
        }
        "MUTUAL" if !node.has("credentialName") => {
            for file in ["clientCertificate", "privateKey"] {
                if !node.has(file) {
                    report.at(node, &join(path, file), "MUTUAL needs this, or `credentialName`");
                }
            }
        }
        _ => {}
    }
    if let Some(name) = node.get("credentialName") {
        for file in files.into_iter().filter(|file| node.has(file)) {
            let reason = format!("`credentialName` and `{file}` exclude each other: keep one");
            report.at(name, &join(path, file), reason);
        }
    }
}

static TUNNEL: Object = Object {
    fields: &[
        optional("protocol", Kind::Choice(&["CONNECT", "POST"])),
        required("targetHost", Kind::Text(value::host_or_ip)),
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
