//! `externalAuth` of an HTTPRoute's filter, as it is checked. Nobody is asked by it yet: what it is for is refused.

use super::super::{
    matches::has_only_its_characters,
    names::{Case, KIND, names_differ, service_has_port},
};
use crate::yaml::{
    node::Node,
    report::Report,
    schema::{Field, Kind, Object, PORT, join, optional, required},
    value,
};

/// Longest prefix of a path, bytes.
const PATH_MAX: usize = 1024;

/// Each protocol with the field that belongs to it.
const PROTOCOLS: [(&str, &str); 2] = [("GRPC", "grpc"), ("HTTP", "http")];

pub(super) static EXTERNAL_AUTH: Object = Object {
    fields: &[
        required("protocol", Kind::Choice(&["HTTP", "GRPC"])),
        required("backendRef", Kind::Object(&ASKED)),
        optional("grpc", Kind::Object(&GRPC)),
        optional("http", Kind::Object(&HTTP)),
        optional("forwardBody", Kind::Object(&FORWARD_BODY)),
    ],
    rules: &[field_of_its_protocol],
};

static ASKED: Object = Object { fields: &backend_ref!(), rules: &[service_has_port] };

static GRPC: Object = Object { fields: &[names("allowedHeaders")], rules: &[each_once] };

static HTTP: Object = Object {
    fields: &[
        optional("path", Kind::Text(path_prefix)),
        names("allowedHeaders"),
        names("allowedResponseHeaders"),
    ],
    rules: &[each_once],
};

static FORWARD_BODY: Object = Object {
    fields: &[optional("maxSize", Kind::Int { min: 0, max: u16::MAX as i64 })],
    rules: &[],
};

const fn names(list: &'static str) -> Field {
    optional(list, Kind::List { of: &Kind::Text(value::not_empty), least: 0 })
}

/// Lists of names are sets.
fn each_once(node: &Node, path: &str, report: &mut Report<'_>) {
    for list in ["allowedHeaders", "allowedResponseHeaders"] {
        names_differ(node.items_of(list), &join(path, list), (None, Case::Counts), report);
    }
}

fn field_of_its_protocol(node: &Node, path: &str, report: &mut Report<'_>) {
    let protocol = node.text_of("protocol");
    for (name, own) in PROTOCOLS {
        match node.get(own) {
            None if name == protocol => {
                let reason = format!(
                    "the protocol `{name}` needs this field: write `{{}}` for what is usual"
                );
                report.at(node, &join(path, own), reason);
            }
            Some(wrong) if name != protocol && !protocol.is_empty() => {
                let reason =
                    format!("the protocol is `{protocol}`, which has no such field: remove one");
                report.at(wrong, &join(path, own), reason);
            }
            _ => {}
        }
    }
}

/// What stands before the paths of requests.
fn path_prefix(text: &str) -> Result<(), String> {
    if text.len() > PATH_MAX {
        return Err(format!("{} bytes, more than the {PATH_MAX} allowed", text.len()));
    }
    if has_only_its_characters(text) {
        return Ok(());
    }
    Err(format!("`{text}` has a character that a path cannot hold: escape it, as in `%20`"))
}
