//! What a rule of a VirtualService does besides matching and routing, as it is checked; `traffic` makes
//! nouns of it.

use super::{
    parts::{
        DESTINATION, MIRROR_PERCENT, ORIGIN_MATCH, TCP_DESTINATION, gateways_are_noted, weights_sum,
    },
    traffic::names_authority,
};
use crate::{
    field_name::delimits_messages,
    pattern::Replacement,
    yaml::{
        base64,
        node::Node,
        report::{Report, suggest},
        schema::{
            DURATION, Kind, LABELS, NAME, Object, PORT, SMALL_COUNT, TEXT, TextCheck, at_least_one,
            at_most_one, join, optional, required,
        },
        value,
    },
};

pub(super) static REDIRECT: Object = Object {
    fields: &[
        optional("uri", NAME),
        optional("prefixRewrite", TEXT),
        optional("authority", Kind::Text(value::authority)),
        optional("port", PORT),
        optional("derivePort", Kind::Choice(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
        optional("scheme", Kind::Choice(&["http", "https"])),
        optional("redirectCode", Kind::Int { min: 300, max: 399 }),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["uri", "prefixRewrite"], path, report);
        at_most_one(node, &["port", "derivePort"], path, report);
        let parts = ["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme"];
        at_least_one(node, &parts, path, report);
    }],
};

/// A status that a rule answers with. Istio takes 600 too.
pub(super) const STATUS: Kind = Kind::Int { min: 200, max: 600 };

/// Most bytes of a direct response, as in Istio.
const BODY_BYTES_MAX: usize = 1 << 20;

pub(super) static DIRECT_RESPONSE: Object = Object {
    fields: &[required("status", STATUS), optional("body", Kind::Object(&BODY))],
    rules: &[],
};

static BODY: Object = Object {
    fields: &[optional("string", TEXT), optional("bytes", Kind::Text(base64::check))],
    rules: &[|node, path, report| {
        at_most_one(node, &["string", "bytes"], path, report);
        let bytes = node.text_of("string").len().max(node.text_of("bytes").len() / 4 * 3);
        if bytes > BODY_BYTES_MAX {
            let reason = format!("{bytes} bytes, more than the {BODY_BYTES_MAX} allowed");
            report.at(node, path, reason);
        }
    }],
};

pub(super) static DELEGATE: Object = Object {
    fields: &[
        required("name", Kind::Text(value::object_name)),
        optional("namespace", Kind::Text(value::asked_namespace)),
    ],
    rules: &[],
};

pub(super) static REWRITE: Object = Object {
    fields: &[
        optional("uri", NAME),
        optional("authority", Kind::Text(value::authority)),
        optional("uriRegexRewrite", Kind::Object(&REGEX_REWRITE)),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["uri", "uriRegexRewrite"], path, report);
        at_least_one(node, &["uri", "authority", "uriRegexRewrite"], path, report);
    }],
};

static REGEX_REWRITE: Object = Object {
    fields: &[required("match", Kind::Text(value::regex)), required("rewrite", TEXT)],
    rules: &[|node, path, report| {
        let (pattern, substitution) = (node.text_of("match"), node.text_of("rewrite"));
        if let Err(error) = Replacement::new(pattern, substitution) {
            report.at(node, &join(path, "rewrite"), error.to_string());
        }
    }],
};

pub(super) static RETRIES: Object = Object {
    fields: &[
        optional("attempts", SMALL_COUNT),
        optional("perTryTimeout", DURATION),
        optional("retryOn", Kind::Text(retry_on)),
        optional("retryRemoteLocalities", Kind::Bool),
        optional("retryIgnorePreviousHosts", Kind::Bool),
        optional("backoff", DURATION),
    ],
    rules: &[|node, path, report| {
        if node.text_of("attempts").parse::<u32>().unwrap_or(0) > 0 {
            return;
        }
        for part in ["perTryTimeout", "retryOn", "retryRemoteLocalities"] {
            if let Some(part_node) = node.get(part) {
                let reason = "`attempts` is 0, which switches retries off: set it, or remove this";
                report.at(part_node, &join(path, part), reason);
            }
        }
    }],
};

const RETRY_CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn retry_on(text: &str) -> Result<(), String> {
    for word in text.split(',') {
        if word.parse().is_ok_and(is_named_status) || RETRY_CONDITIONS.contains(&word) {
            continue;
        }
        return Err(match word.trim() {
            bare if bare != word && RETRY_CONDITIONS.contains(&bare) => {
                format!("`{word}` has blanks, which Istio does not take: write `{bare}`")
            }
            _ if word.parse::<u16>().is_ok() => format!("`{word}` is no HTTP status with a name"),
            _ => suggest("retry condition", word, RETRY_CONDITIONS),
        });
    }
    Ok(())
}

/// Has this HTTP status a name in Go's library, which Istio asks?
fn is_named_status(code: u16) -> bool {
    matches!(
        code,
        100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=418
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511
    )
}

pub(super) static MIRROR: Object = Object {
    fields: &[
        required("destination", Kind::Object(&DESTINATION)),
        optional("percentage", Kind::Object(&MIRROR_PERCENT)),
    ],
    rules: &[],
};

pub(super) static CORS: Object = Object {
    fields: &[
        optional("allowOrigin", Kind::List { of: &TEXT, least: 0 }),
        optional("allowOrigins", Kind::List { of: &ORIGIN_MATCH, least: 0 }),
        optional("allowMethods", Kind::List { of: &Kind::Choice(CORS_METHODS), least: 0 }),
        optional("allowHeaders", Kind::List { of: &Kind::Text(value::cors_header), least: 0 }),
        optional("exposeHeaders", Kind::List { of: &Kind::Text(value::cors_header), least: 0 }),
        optional("maxAge", DURATION),
        optional("allowCredentials", Kind::Bool),
        optional("unmatchedPreflights", Kind::Choice(&["UNSPECIFIED", "FORWARD", "IGNORE"])),
    ],
    rules: &[|node, path, report| {
        let Some(age) = node.get("maxAge") else { return };
        if value::duration(age.text()).is_ok_and(|age| age.subsec_nanos() > 0) {
            report.at(age, &join(path, "maxAge"), "browsers count whole seconds: use e.g. `2s`");
        }
    }],
};

const CORS_METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) static HEADERS: Object = Object {
    fields: &[
        optional("request", Kind::Object(&REQUEST_HEADERS)),
        optional("response", Kind::Object(&RESPONSE_HEADERS)),
    ],
    rules: &[unchanged_fields_are_noted],
};

/// Fields by which a message ends, or which belong to one connection, no rule changes; the authority
/// of a request can be set and nothing else.
fn unchanged_fields_are_noted(headers: &Node, path: &str, report: &mut Report<'_>) {
    for side in ["request", "response"] {
        let Some(operations) = headers.get(side) else { continue };
        let path = join(path, side);
        let stays = |name: &str| delimits_messages(name) || name.starts_with(':');
        for operation in ["set", "add"] {
            for entry in operations.get(operation).map_or(&[][..], Node::entries) {
                let is_the_authority = side == "request" && names_authority(&entry.key);
                if stays(&entry.key) && !is_the_authority {
                    let place = join(&join(&path, operation), &entry.key);
                    report.not_enforced(entry.line, &place);
                }
            }
        }
        for (i, name) in operations.items_of("remove").iter().enumerate() {
            if stays(name.text()) {
                report.not_enforced(name.line, &format!("{}[{i}]", join(&path, "remove")));
            }
        }
    }
}

static REQUEST_HEADERS: Object = Object {
    fields: &[
        optional("set", header_values(value::request_header)),
        optional("add", header_values(value::request_header)),
        optional("remove", Kind::List { of: &Kind::Text(value::other_header), least: 0 }),
    ],
    rules: &[],
};

static RESPONSE_HEADERS: Object = Object {
    fields: &[
        optional("set", header_values(value::other_header)),
        optional("add", header_values(value::other_header)),
        optional("remove", Kind::List { of: &Kind::Text(value::other_header), least: 0 }),
    ],
    rules: &[],
};

const fn header_values(key: TextCheck) -> Kind {
    Kind::Map { key, of: &Kind::Text(value::header_value) }
}

/// The authority may be rewritten in one place only.
pub(super) fn authority_is_set_once(route: &Node, path: &str, report: &mut Report<'_>) {
    let rewrite = route.get("rewrite").filter(|rewrite| rewrite.has("authority"));
    let request = route.get("headers").and_then(|headers| headers.get("request"));
    let entries = ["set", "add"]
        .into_iter()
        .filter_map(|operation| request.and_then(|request| request.get(operation)))
        .flat_map(Node::entries);
    let named = entries.filter(|entry| names_authority(&entry.key));
    for entry in named.skip(usize::from(rewrite.is_none())) {
        let reason = "the authority is set twice: keep one of `rewrite.authority` and `headers`";
        report.error(entry.line, &join(path, "headers"), reason);
    }
}

pub(super) static TLS_ROUTE: Object = Object {
    fields: &[
        required("match", Kind::List { of: &Kind::Object(&TLS_MATCH), least: 1 }),
        required("route", Kind::List { of: &Kind::Object(&TCP_DESTINATION), least: 1 }),
    ],
    rules: &[|node, path, report| {
        weights_sum(node.items_of("route"), &join(path, "route"), report);
    }],
};

static TLS_MATCH: Object = Object {
    fields: &[
        required("sniHosts", Kind::List { of: &Kind::Text(value::host_or_ip), least: 1 }),
        optional("destinationSubnets", Kind::List { of: &Kind::Text(value::is_subnet), least: 0 }),
        optional("port", PORT),
        optional("sourceLabels", LABELS),
        optional("gateways", Kind::List { of: &Kind::Text(value::gateway_name), least: 0 }),
        optional("sourceNamespace", Kind::Text(value::asked_namespace)),
    ],
    rules: &[gateways_are_noted],
};
