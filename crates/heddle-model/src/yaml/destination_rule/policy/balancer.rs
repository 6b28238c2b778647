//! `loadBalancer` of a traffic policy: how an endpoint is chosen.

use super::{
    locality,
    part::{decimal_of, duration_of, is_true, number_of},
};
use crate::{
    discovery::{
        HashCookie, HashKey, HashPolicy, HashTable, LoadBalancing, Method, RING_SIZE,
        RING_SIZE_MAX, TABLE_SIZE_END, Warmup, is_cookie_part, is_prime,
    },
    field_name::is_token,
    yaml::{
        node::Node,
        schema::{DURATION, Kind, NAME, Object, at_most_one, join, optional, present, required},
        value,
    },
};

pub(super) static LOAD_BALANCER: Object = Object {
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
        optional("localityLbSetting", Kind::Object(&locality::LOCALITY)),
        optional("zoneAwareLbSetting", Kind::Object(&locality::ZONE_AWARE)),
        optional("warmupDurationSecs", DURATION),
        optional("warmup", Kind::Object(&WARMUP)),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["simple", "consistentHash"], path, report);
        at_most_one(node, &["localityLbSetting", "zoneAwareLbSetting"], path, report);
    }],
};

static WARMUP: Object = Object {
    fields: &[
        required("duration", DURATION),
        optional("minimumPercent", Kind::Number { min: 0.0, max: 100.0 }),
        // More than 0, as Envoy has it.
        optional("aggression", Kind::Number { min: f64::MIN_POSITIVE, max: f64::MAX }),
    ],
    rules: &[],
};

static CONSISTENT_HASH: Object = Object {
    fields: &[
        optional("httpHeaderName", Kind::Text(value::request_header)).even_if_empty(),
        optional("httpCookie", Kind::Object(&COOKIE)),
        optional("useSourceIp", Kind::Bool),
        optional("httpQueryParameterName", NAME).even_if_empty(),
        optional("ringHash", Kind::Object(&RING_HASH)),
        optional("maglev", Kind::Object(&MAGLEV)),
        optional("minimumRingSize", SIZE),
    ],
    rules: &[|node, path, report| {
        let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
        at_most_one(node, &keys, path, report);
        at_most_one(node, &["ringHash", "maglev"], path, report);
        if node.get("minimumRingSize").is_some_and(|size| size.text() != "0") {
            at_most_one(node, &["ringHash", "minimumRingSize"], path, report);
            at_most_one(node, &["maglev", "minimumRingSize"], path, report);
        }
        if present(node, &keys).is_empty() {
            report.no_effect(
                node.line,
                path,
                "nothing to hash is named: requests are spread evenly",
            );
        }
    }],
};

static COOKIE: Object = Object {
    fields: &[
        required("name", Kind::Text(cookie_name)),
        optional("path", Kind::Text(cookie_part)),
        optional("ttl", Kind::Duration { least_ms: 0 }),
        optional("attributes", Kind::List { of: &Kind::Object(&COOKIE_ATTRIBUTE), least: 0 }),
    ],
    rules: &[],
};

static COOKIE_ATTRIBUTE: Object = Object {
    fields: &[
        required("name", Kind::Text(cookie_name)),
        optional("value", Kind::Text(cookie_part)),
    ],
    rules: &[],
};

fn cookie_name(text: &str) -> Result<(), String> {
    match is_token(text.as_bytes()) {
        true => Ok(()),
        false => Err(format!("`{text}` is no name of a cookie: use letters, digits, `-` and `_`")),
    }
}

fn cookie_part(text: &str) -> Result<(), String> {
    match is_cookie_part(text) {
        true => Ok(()),
        false => Err(format!(
            "`{text}` cannot be a part of `Set-Cookie`: it has a `;` or a control character"
        )),
    }
}

/// Points of a ring.
const SIZE: Kind = Kind::Int { min: 0, max: RING_SIZE_MAX as i64 };

static RING_HASH: Object = Object { fields: &[optional("minimumRingSize", SIZE)], rules: &[] };

static MAGLEV: Object = Object {
    fields: &[required("tableSize", Kind::Int { min: 1, max: TABLE_SIZE_END as i64 - 1 })],
    rules: &[|node, path, report| {
        let Some(size) = node.get("tableSize") else { return };
        if !size.text().parse().is_ok_and(is_prime) {
            let reason = format!("{} is no prime number: use e.g. 65537", size.text());
            report.at(size, &join(path, "tableSize"), reason);
        }
    }],
};

/// A checked `loadBalancer` into its noun.
pub(super) fn read(node: &Node) -> LoadBalancing {
    let hash = node.get("consistentHash").and_then(hash);
    let older = || duration_of(node, "warmupDurationSecs").map(Warmup::lasting);
    LoadBalancing {
        method: match (hash, node.text_of("simple")) {
            (Some(policy), _) => Method::Hash(Box::new(policy)),
            (None, "ROUND_ROBIN") => Method::RoundRobin,
            (None, "RANDOM") => Method::Random,
            (None, "PASSTHROUGH") => Method::Passthrough,
            (None, _) => Method::LeastRequest,
        },
        warmup: node.get("warmup").and_then(warmup).or_else(older),
        locality: match node.get("zoneAwareLbSetting") {
            Some(zones) => Some(locality::read_zone_aware(zones)),
            None => node.get("localityLbSetting").map(locality::read),
        },
    }
}

fn warmup(node: &Node) -> Option<Warmup> {
    let by_default = Warmup::lasting(duration_of(node, "duration")?);
    Some(Warmup {
        minimum_percent: decimal_of(node, "minimumPercent").unwrap_or(by_default.minimum_percent),
        aggression: decimal_of(node, "aggression").unwrap_or(by_default.aggression),
        ..by_default
    })
}

/// `None` where there is nothing to hash by.
fn hash(node: &Node) -> Option<HashPolicy> {
    let text = |key| Some(node.text_of(key).to_owned()).filter(|text| !text.is_empty());
    let key = match (text("httpHeaderName"), node.get("httpCookie").map(cookie)) {
        (Some(name), _) => HashKey::Header(name.to_ascii_lowercase()),
        (None, Some(cookie)) => HashKey::Cookie(cookie),
        (None, None) if is_true(node, "useSourceIp") => HashKey::SourceIp,
        (None, None) => HashKey::QueryParameter(text("httpQueryParameterName")?),
    };
    let maglev = node.get("maglev").and_then(|maglev| number_of(maglev, "tableSize"));
    let ring = node.get("ringHash").and_then(|ring| number_of(ring, "minimumRingSize"));
    let older = || number_of(node, "minimumRingSize").filter(|size| *size > 0);
    let table = match maglev {
        Some(size) => HashTable::Maglev(size),
        None => HashTable::Ring(ring.or_else(older).unwrap_or(RING_SIZE)),
    };
    Some(HashPolicy { key, table })
}

fn cookie(node: &Node) -> HashCookie {
    let attribute = |one: &Node| (one.text_of("name").to_owned(), one.text_of("value").to_owned());
    HashCookie {
        name: node.text_of("name").to_owned(),
        path: node.text_of("path").to_owned(),
        ttl: duration_of(node, "ttl"),
        attributes: node.items_of("attributes").iter().map(attribute).collect(),
    }
}
