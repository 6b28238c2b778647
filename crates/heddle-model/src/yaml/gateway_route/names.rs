//! Names within a route: of kinds, of what a list has once each, and of backends.

use std::collections::HashSet;

use crate::yaml::{
    node::Node,
    report::Report,
    schema::{Kind, join},
    value,
};

/// The kind of something that a route names.
pub(super) const KIND: Kind = Kind::Text(value::object_kind);

/// Does the case of a list's names count?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// `x-a` and `X-A` are two names.
    Counts,
    /// They are one.
    Ignored,
}

/// Items of the list at `place` have names, in a field of theirs or by themselves, and each name is there once. Of
/// names that differ in their case alone, where that does not count, the first one does.
pub(super) fn names_differ(
    items: &[Node],
    place: &str,
    (field, case): (Option<&str>, Case),
    report: &mut Report<'_>,
) {
    let (mut seen, mut alike) = (HashSet::new(), HashSet::new());
    for (i, one) in items.iter().enumerate() {
        let name = field.map_or_else(|| one.text(), |field| one.text_of(field));
        let item = format!("{place}[{i}]");
        let place = field.map_or_else(|| item.clone(), |field| join(&item, field));
        if !seen.insert(name) {
            report.at(one, &place, format!("`{name}` is given twice: keep one"));
        } else if !alike.insert(name.to_ascii_lowercase()) && case == Case::Ignored {
            let reason = "the same header before it counts: names ignore case";
            report.no_effect(one.line, &place, reason);
        }
    }
}

/// A Service as a backend needs a port.
pub(super) fn service_has_port(node: &Node, path: &str, report: &mut Report<'_>) {
    let is_service = node.text_of("group").is_empty()
        && matches!(node.get("kind").map_or("Service", Node::text), "Service");
    if is_service && !node.has("port") {
        report.at(node, &join(path, "port"), "a Service needs a `port`, e.g. `80`");
    }
}
