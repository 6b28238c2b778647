//! Filters of an HTTPRoute and a GRPCRoute, as they are checked.

mod external_auth;

use self::external_auth::EXTERNAL_AUTH;
use super::names::{Case, KIND, names_differ, service_has_port};
use crate::{
    field_name::delimits_messages,
    yaml::{
        node::Node,
        report::Report,
        schema::{
            Field, Kind, Object, PORT, TEXT, at_most, at_most_one, join, not_yet, optional,
            required,
        },
        value,
    },
};

const FILTERS_MAX: usize = 16;
const CHANGES_MAX: usize = 16;

/// Types of filters, each with the field that belongs to it.
const TYPES: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];

pub(super) static HTTP: Object = Object {
    fields: &[
        required(
            "type",
            Kind::Choice(&[
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
                "RequestRedirect",
                "URLRewrite",
                "CORS",
                "ExternalAuth",
                "ExtensionRef",
            ]),
        ),
        optional("requestHeaderModifier", Kind::Object(&REQUEST_CHANGES)),
        optional("responseHeaderModifier", Kind::Object(&ANSWER_CHANGES)),
        optional("requestMirror", Kind::Object(&MIRROR)),
        optional("requestRedirect", Kind::Object(&REDIRECT)),
        optional("urlRewrite", Kind::Object(&REWRITE)),
        optional("cors", Kind::Object(&CORS)),
        not_yet("externalAuth", Kind::Object(&EXTERNAL_AUTH)),
        optional("extensionRef", Kind::Object(&LOCAL_REF)),
    ],
    rules: &[field_of_its_type],
};

pub(super) static GRPC: Object = Object {
    fields: &[
        required(
            "type",
            Kind::Choice(&[
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestMirror",
                "ExtensionRef",
            ]),
        ),
        optional("requestHeaderModifier", Kind::Object(&REQUEST_CHANGES)),
        optional("responseHeaderModifier", Kind::Object(&ANSWER_CHANGES)),
        optional("requestMirror", Kind::Object(&MIRROR)),
        optional("extensionRef", Kind::Object(&LOCAL_REF)),
    ],
    rules: &[field_of_its_type],
};

static LOCAL_REF: Object = Object {
    fields: &[
        required("group", Kind::Text(value::api_group)).even_if_empty(),
        required("kind", KIND),
        required("name", Kind::Text(value::object_name)),
    ],
    rules: &[],
};

static REQUEST_CHANGES: Object = Object {
    fields: &changes_of(&Kind::Object(&REQUEST_FIELD)),
    rules: &[|node, path, report| changes(node, true, path, report)],
};

static ANSWER_CHANGES: Object = Object {
    fields: &changes_of(&Kind::Object(&ANSWER_FIELD)),
    rules: &[|node, path, report| changes(node, false, path, report)],
};

/// What sets, adds and removes fields; requests may have their Host changed, answers have none.
const fn changes_of(field: &'static Kind) -> [Field; 3] {
    [
        optional("set", Kind::List { of: field, least: 0 }),
        optional("add", Kind::List { of: field, least: 0 }),
        optional("remove", Kind::List { of: &Kind::Text(value::other_header), least: 0 }),
    ]
}

static REQUEST_FIELD: Object = Object {
    fields: &[
        required("name", Kind::Text(value::field_name)),
        required("value", Kind::Text(value::field_value)),
    ],
    rules: &[],
};

static ANSWER_FIELD: Object = Object {
    fields: &[
        required("name", Kind::Text(value::other_header)),
        required("value", Kind::Text(value::field_value)),
    ],
    rules: &[],
};

/// Each field is set, added or removed once; those by which a message ends stay as they are.
fn changes(node: &Node, of_requests: bool, path: &str, report: &mut Report<'_>) {
    for list in ["set", "add", "remove"] {
        at_most(node, list, CHANGES_MAX, path, report);
        let (items, place) = (node.items_of(list), join(path, list));
        let field = (list != "remove").then_some("name");
        names_differ(items, &place, (field, Case::Ignored), report);
        for (i, one) in items.iter().enumerate() {
            let name = field.map_or_else(|| one.text(), |field| one.text_of(field));
            let is_authority = of_requests && list != "remove" && name.eq_ignore_ascii_case("host");
            if delimits_messages(name) && !is_authority {
                report.not_enforced(one.line, &format!("{place}[{i}]"));
            }
        }
    }
}

static MIRROR: Object = Object {
    fields: &[
        required("backendRef", Kind::Object(&MIRRORED)),
        optional("percent", Kind::Int { min: 0, max: 100 }),
        optional("fraction", Kind::Object(&FRACTION)),
    ],
    rules: &[|node, path, report| at_most_one(node, &["percent", "fraction"], path, report)],
};

static MIRRORED: Object = Object { fields: &backend_ref!(), rules: &[service_has_port] };

static FRACTION: Object = Object {
    fields: &[
        required("numerator", Kind::Int { min: 0, max: i32::MAX as i64 }),
        optional("denominator", Kind::Int { min: 1, max: i32::MAX as i64 }),
    ],
    rules: &[|node, path, report| {
        let number = |key: &str, or: u64| node.text_of(key).parse().unwrap_or(or);
        if number("numerator", 0) > number("denominator", 100) {
            report.at(node, path, "more than the whole: `numerator` is at most `denominator`");
        }
    }],
};

static REDIRECT: Object = Object {
    fields: &[
        optional("scheme", Kind::Choice(&["http", "https"])),
        optional("hostname", Kind::Text(value::single_host)),
        optional("path", Kind::Object(&PATH_MODIFIER)),
        optional("port", PORT),
        optional("statusCode", Kind::Int { min: 301, max: 308 }),
    ],
    rules: &[|node, path, report| {
        let Some(status) = node.get("statusCode") else { return };
        if !matches!(status.text(), "301" | "302" | "303" | "307" | "308") {
            let reason =
                format!("`{}` is no redirect: use 301, 302, 303, 307 or 308", status.text());
            report.at(status, &join(path, "statusCode"), reason);
        }
    }],
};

static REWRITE: Object = Object {
    fields: &[
        optional("hostname", Kind::Text(value::single_host)),
        optional("path", Kind::Object(&PATH_MODIFIER)),
    ],
    rules: &[],
};

static PATH_MODIFIER: Object = Object {
    fields: &[
        required("type", Kind::Choice(&["ReplaceFullPath", "ReplacePrefixMatch"])),
        optional("replaceFullPath", TEXT).even_if_empty(),
        optional("replacePrefixMatch", TEXT).even_if_empty(),
    ],
    rules: &[|node, path, report| {
        let (own, other) = match node.text_of("type") {
            "ReplaceFullPath" => ("replaceFullPath", "replacePrefixMatch"),
            _ => ("replacePrefixMatch", "replaceFullPath"),
        };
        belongs(node, own, other, path, report);
    }],
};

/// The type of an object says which of its fields it has.
fn belongs(node: &Node, own: &str, other: &str, path: &str, report: &mut Report<'_>) {
    let type_of = node.text_of("type");
    if !node.has(own) {
        report.at(node, &join(path, own), format!("the type `{type_of}` needs this field"));
    }
    if let Some(wrong) = node.get(other) {
        let reason = format!("the type is `{type_of}`, which has no such field: remove one");
        report.at(wrong, &join(path, other), reason);
    }
}

static CORS: Object = Object {
    fields: &[
        optional("allowOrigins", Kind::List { of: &Kind::Text(origin), least: 0 }),
        optional("allowCredentials", Kind::Bool),
        optional(
            "allowMethods",
            Kind::List {
                of: &Kind::Choice(&[
                    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
                    "*",
                ]),
                least: 0,
            },
        ),
        optional("allowHeaders", Kind::List { of: &Kind::Text(value::cors_header), least: 0 }),
        optional("exposeHeaders", Kind::List { of: &Kind::Text(value::cors_header), least: 0 }),
        optional("maxAge", Kind::Int { min: 1, max: i32::MAX as i64 }),
    ],
    rules: &[|node, path, report| {
        for (list, most) in
            [("allowOrigins", 64), ("allowMethods", 9), ("allowHeaders", 64), ("exposeHeaders", 64)]
        {
            at_most(node, list, most, path, report);
            let items = node.items_of(list);
            if list != "exposeHeaders" && items.len() > 1 && items.iter().any(|i| i.text() == "*") {
                let reason = "`*` means all: name nothing beside it";
                report.at(&items[0], &join(path, list), reason);
            }
        }
    }],
};

/// `*`, or a scheme, a host that may hold a `*`, and perhaps a port.
fn origin(text: &str) -> Result<(), String> {
    let wrong =
        || format!("`{text}` is no origin: use `*`, or e.g. `https://*.example.com` (no path)");
    if text == "*" {
        return Ok(());
    }
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host, None),
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.*[]:".contains(&byte);
    let fine = matches!(scheme, "http" | "https")
        && !host.is_empty()
        && host.bytes().all(plain)
        && port_is_fine;
    if fine { Ok(()) } else { Err(wrong()) }
}

fn field_of_its_type(node: &Node, path: &str, report: &mut Report<'_>) {
    let Some((_, own)) = TYPES.iter().find(|(name, _)| *name == node.text_of("type")) else {
        return;
    };
    if !node.has(own) {
        let reason = format!("the type `{}` needs this field", node.text_of("type"));
        report.at(node, &join(path, own), reason);
    }
    for (_, other) in TYPES.iter().filter(|(_, other)| other != own) {
        if let Some(wrong) = node.get(other) {
            let reason = format!(
                "the type is `{}`, which has no such field: remove one",
                node.text_of("type")
            );
            report.at(wrong, &join(path, other), reason);
        }
    }
}

/// Which filters a list may hold together.
pub(super) fn fit_together(holder: &Node, path: &str, report: &mut Report<'_>) {
    at_most(holder, "filters", FILTERS_MAX, path, report);
    let place = join(path, "filters");
    let mut seen: Vec<&str> = Vec::new();
    for (i, filter) in holder.items_of("filters").iter().enumerate() {
        let name = filter.text_of("type");
        let repeats = !matches!(name, "RequestMirror" | "ExtensionRef") && seen.contains(&name);
        let excluded = match name {
            "RequestRedirect" => seen.contains(&"URLRewrite"),
            "URLRewrite" => seen.contains(&"RequestRedirect"),
            _ => false,
        };
        if repeats {
            report.at(filter, &format!("{place}[{i}]"), format!("a second `{name}`: keep one"));
        }
        if excluded {
            let reason = "`RequestRedirect` and `URLRewrite` exclude each other: keep one";
            report.at(filter, &format!("{place}[{i}]"), reason);
        }
        seen.push(name);
    }
}

/// What a rule's filters ask of the rule.
pub(super) fn fit_the_rule(rule: &Node, path: &str, report: &mut Report<'_>) {
    for (i, filter) in rule.items_of("filters").iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "filters"));
        if filter.has("requestRedirect") && !rule.items_of("backendRefs").is_empty() {
            let reason =
                "requests that are redirected go to no backend: remove this, or `backendRefs`";
            report.at(filter, &place, reason);
        }
        for of in ["requestRedirect", "urlRewrite"] {
            let modifier = filter.get(of).and_then(|one| one.get("path"));
            if modifier.is_some_and(|one| one.has("replacePrefixMatch")) && !has_one_prefix(rule) {
                let place = join(&join(&place, of), "path");
                let reason =
                    "`ReplacePrefixMatch` needs exactly one match in its rule, by `PathPrefix`";
                report.at(filter, &place, reason);
            }
        }
    }
}

fn has_one_prefix(rule: &Node) -> bool {
    let by_prefix = |path: &Node| path.get("type").is_none_or(|one| one.text() == "PathPrefix");
    match rule.items_of("matches") {
        [] => true,
        [only] => only.get("path").is_none_or(by_prefix),
        _ => false,
    }
}

/// Of a backend's own filters those that change fields are carried out.
pub(super) fn of_a_backend(backend: &Node, path: &str, report: &mut Report<'_>) {
    for (i, filter) in backend.items_of("filters").iter().enumerate() {
        if !matches!(filter.text_of("type"), "RequestHeaderModifier" | "ResponseHeaderModifier") {
            report.not_enforced(filter.line, &format!("{}[{i}]", join(path, "filters")));
        }
    }
}
