//! What the rules of an HTTPRoute and a GRPCRoute match, as it is checked.

use super::names::{Case, names_differ};
use crate::yaml::{
    node::Node,
    report::Report,
    schema::{Kind, NAME, Object, at_most, join, optional, required},
    value,
};

const CONDITIONS_MAX: usize = 16;
const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const PATH_MAX: usize = 1024;

pub(super) static HTTP: Object = Object {
    fields: &[
        optional("path", Kind::Object(&PATH)),
        optional("headers", Kind::List { of: &Kind::Object(&HEADER), least: 0 }),
        optional("queryParams", Kind::List { of: &Kind::Object(&QUERY), least: 0 }),
        optional("method", Kind::Choice(METHODS)),
    ],
    rules: &[conditions_differ],
};

pub(super) static GRPC: Object = Object {
    fields: &[
        optional("method", Kind::Object(&CALL)),
        optional("headers", Kind::List { of: &Kind::Object(&HEADER), least: 0 }),
    ],
    rules: &[conditions_differ],
};

static PATH: Object = Object {
    fields: &[
        optional("type", Kind::Choice(&["Exact", "PathPrefix", "RegularExpression"])),
        optional("value", NAME),
    ],
    rules: &[|node, path, report| {
        let value = node.text_of("value");
        let checked = match node.text_of("type") {
            "RegularExpression" => value::regex(value),
            _ if !node.has("value") => Ok(()),
            _ => plain_path(value),
        };
        if let Err(reason) = checked {
            report.at(node.get("value").unwrap_or(node), &join(path, "value"), reason);
        }
    }],
};

static HEADER: Object = Object {
    fields: &[
        optional("type", Kind::Choice(&["Exact", "RegularExpression"])),
        required("name", Kind::Text(value::field_name)),
        required("value", NAME),
    ],
    rules: &[value_of_its_type],
};

static QUERY: Object = Object {
    fields: &[
        optional("type", Kind::Choice(&["Exact", "RegularExpression"])),
        required("name", Kind::Text(value::field_name)),
        required("value", NAME),
    ],
    rules: &[value_of_its_type],
};

static CALL: Object = Object {
    fields: &[
        optional("type", Kind::Choice(&["Exact", "RegularExpression"])),
        optional("service", NAME),
        optional("method", NAME),
    ],
    rules: &[|node, path, report| {
        if !node.has("service") && !node.has("method") {
            return report.at(node, path, "`service`, `method` or both are needed");
        }
        for part in ["service", "method"] {
            let Some(word) = node.get(part) else { continue };
            let checked = match node.text_of("type") {
                "RegularExpression" => value::regex(word.text()),
                _ => grpc_word(part, word.text()),
            };
            if let Err(reason) = checked {
                report.at(word, &join(path, part), reason);
            }
        }
    }],
};

fn value_of_its_type(node: &Node, path: &str, report: &mut Report<'_>) {
    let Some(text) = node.get("value") else { return };
    if node.text_of("type") == "RegularExpression"
        && let Err(reason) = value::regex(text.text())
    {
        report.at(text, &join(path, "value"), reason);
    }
}

/// Each of them is matched once.
fn conditions_differ(node: &Node, path: &str, report: &mut Report<'_>) {
    for (list, case) in [("headers", Case::Ignored), ("queryParams", Case::Counts)] {
        at_most(node, list, CONDITIONS_MAX, path, report);
        names_differ(node.items_of(list), &join(path, list), (Some("name"), case), report);
    }
}

/// A path to compare as it is, as the Gateway API takes it.
fn plain_path(path: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{path}` {why}"));
    if !path.starts_with('/') {
        return wrong("does not begin with `/`: a path does");
    }
    if path.len() > PATH_MAX {
        return Err(format!("{} bytes, more than the {PATH_MAX} allowed", path.len()));
    }
    let lower = path.to_ascii_lowercase();
    for part in ["//", "/./", "/../", "%2f", "#"] {
        if lower.contains(part) {
            return wrong(&format!("has `{part}`, which the Gateway API does not take in a path"));
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return wrong("ends with dots, which the Gateway API does not take: resolve them");
    }
    if !has_only_its_characters(path) {
        return wrong(
            "has a character that a path cannot hold: escape it, as in `%20`; a query belongs into `queryParams`",
        );
    }
    Ok(())
}

/// Does a path, or a part of one, hold what may stand in it and nothing else (RFC 3986, section 3.3)?
pub(super) fn has_only_its_characters(path: &str) -> bool {
    let bytes = path.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| {
        byte.is_ascii_alphanumeric()
            || b"-/._~!$&'()*+,;=:@".contains(byte)
            || *byte == b'%' && hex(at + 1) && hex(at + 2)
    })
}

/// A service with its package, or a method, as protobuf spells them.
fn grpc_word(part: &str, word: &str) -> Result<(), String> {
    let name = |text: &str| {
        text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let valid = match part {
        "service" => word.strip_prefix('.').unwrap_or(word).split('.').all(name),
        _ => name(word),
    };
    if valid && word.len() <= PATH_MAX {
        return Ok(());
    }
    let example = if part == "service" { "shop.v1.Reviews" } else { "List" };
    Err(format!("`{word}` is no gRPC {part}: use letters, digits and `_`, e.g. `{example}`"))
}
