//! What a rule of a VirtualService does besides matching and routing, as it is checked; `traffic` makes
//! nouns of it.

use super::{
    parts::{DESTINATION, PERCENT, STRING_MATCH, TCP_DESTINATION, weights_sum},
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
            DURATION, Kind, LABELS, NAME, Object, PORT, SMALL_COUNT, TEXT, at_least_one,
            at_most_one, exactly_one, join, not_yet, optional, required,
        },
        value,
    },
};

pub(super) static REDIRECT: Object = Object {
    fields: &[
        optional("uri", NAME),
        optional("prefixRewrite", TEXT),
        optional("authority", NAME),
        optional("port", PORT),
        optional("derivePort", Kind::Choice(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
        optional("scheme", NAME),
        optional("redirectCode", Kind::Int { min: 300, max: 399 }),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["uri", "prefixRewrite"], path, report);
        at_most_one(node, &["port", "derivePort"], path, report);
        let parts = ["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme"];
        at_least_one(node, &parts, path, report);
    }],
};

pub(super) static DIRECT_RESPONSE: Object = Object {
    fields: &[
        required("status", Kind::Int { min: 200, max: 599 }),
        optional("body", Kind::Object(&BODY)),
    ],
    rules: &[],
};

static BODY: Object = Object {
    fields: &[optional("string", TEXT), optional("bytes", Kind::Text(base64::check))],
    rules: &[|node, path, report| exactly_one(node, &["string", "bytes"], path, report)],
};

pub(super) static DELEGATE: Object = Object {
    fields: &[
        required("name", Kind::Text(value::object_name)),
        optional("namespace", Kind::Text(value::dns_label)),
    ],
    rules: &[],
};

pub(super) static REWRITE: Object = Object {
    fields: &[
        optional("uri", NAME),
        optional("authority", NAME),
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
        not_yet("retryRemoteLocalities", Kind::Bool),
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
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let status = word.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !status && !RETRY_CONDITIONS.contains(&word) {
            return Err(suggest("retry condition", word, RETRY_CONDITIONS));
        }
    }
    Ok(())
}

pub(super) static MIRROR: Object = Object {
    fields: &[
        required("destination", Kind::Object(&DESTINATION)),
        optional("percentage", Kind::Object(&PERCENT)),
    ],
    rules: &[],
};

pub(super) static CORS: Object = Object {
    fields: &[
        optional("allowOrigin", Kind::List { of: &TEXT, least: 0 }),
        optional("allowOrigins", Kind::List { of: &STRING_MATCH, least: 0 }),
        optional("allowMethods", Kind::List { of: &NAME, least: 0 }),
        optional("allowHeaders", Kind::List { of: &Kind::Text(value::header_name), least: 0 }),
        optional("exposeHeaders", Kind::List { of: &Kind::Text(value::header_name), least: 0 }),
        optional("maxAge", Kind::Duration { least_ms: 0 }),
        optional("allowCredentials", Kind::Bool),
        optional("unmatchedPreflights", Kind::Choice(&["UNSPECIFIED", "FORWARD", "IGNORE"])),
    ],
    rules: &[],
};

pub(super) static HEADERS: Object = Object {
    fields: &[
        optional("request", Kind::Object(&HEADER_OPERATIONS)),
        optional("response", Kind::Object(&HEADER_OPERATIONS)),
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

static HEADER_OPERATIONS: Object = Object {
    fields: &[
        optional("set", HEADER_VALUES),
        optional("add", HEADER_VALUES),
        optional("remove", Kind::List { of: &Kind::Text(value::header_name), least: 0 }),
    ],
    rules: &[],
};

const HEADER_VALUES: Kind =
    Kind::Map { key: value::header_name, of: &Kind::Text(value::header_value) };

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
        optional("sourceNamespace", Kind::Text(value::dns_label)),
    ],
    rules: &[],
};

const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

pub(super) fn grpc_status(text: &str) -> Result<(), String> {
    if GRPC_STATUSES.contains(&text) {
        Ok(())
    } else {
        Err(suggest("gRPC status", text, GRPC_STATUSES))
    }
}
