//! What several parts of a VirtualService share.

use std::collections::HashSet;

use crate::{
    discovery::StringMatch,
    yaml::{
        node::Node,
        report::Report,
        schema::{
            Field, Kind, NAME, Object, PORT, Rule, SMALL_COUNT, TEXT, at_most_one, exactly_one,
            join, optional, required,
        },
        value,
    },
};

/// A condition on a text; `{}` means presence.
pub(super) const STRING_MATCH: Kind = Kind::Object(&STRING_MATCH_OBJECT);
static STRING_MATCH_OBJECT: Object = text_condition(&[
    optional("exact", TEXT).even_if_empty(),
    optional("prefix", Kind::Text(value::prefix)).even_if_empty(),
    optional("regex", Kind::Text(value::regex)).even_if_empty(),
]);

/// A condition on a path, of which every one has the empty prefix.
pub(super) const URI_MATCH: Kind = Kind::Object(&URI_MATCH_OBJECT);
static URI_MATCH_OBJECT: Object = text_condition(&[
    optional("exact", TEXT).even_if_empty(),
    optional("prefix", TEXT).even_if_empty(),
    optional("regex", Kind::Text(value::regex)).even_if_empty(),
]);

/// A condition that must not hold. As in Istio, the regex `*` means any value.
pub(super) const ABSENT_MATCH: Kind = Kind::Object(&ABSENT_MATCH_OBJECT);
static ABSENT_MATCH_OBJECT: Object = text_condition(&[
    optional("exact", TEXT).even_if_empty(),
    optional("prefix", Kind::Text(value::prefix)).even_if_empty(),
    optional("regex", Kind::Text(value::regex_or_any)).even_if_empty(),
]);

/// Origins of which one may be met: none of them is empty.
pub(super) const ORIGIN_MATCH: Kind = Kind::Object(&ORIGIN_MATCH_OBJECT);
static ORIGIN_MATCH_OBJECT: Object = Object {
    fields: &[
        optional("exact", NAME).even_if_empty(),
        optional("prefix", NAME).even_if_empty(),
        optional("regex", Kind::Text(value::regex)).even_if_empty(),
    ],
    rules: &[|node, path, report| exactly_one(node, &["exact", "prefix", "regex"], path, report)],
};

/// `None` for `{}`: no condition, or presence.
pub(super) fn string_match(node: &Node) -> Option<StringMatch> {
    let text = |key: &str| node.get(key).map(|value| value.text().to_owned());
    (text("exact").map(StringMatch::Exact))
        .or_else(|| text("prefix").map(StringMatch::Prefix))
        .or_else(|| text("regex").map(StringMatch::Regex))
}

const fn text_condition(fields: &'static [Field]) -> Object {
    Object { fields, rules: ONE_WAY }
}

const ONE_WAY: &[Rule] =
    &[|node, path, report| at_most_one(node, &["exact", "prefix", "regex"], path, report)];

/// Where requests go.
pub(super) static DESTINATION: Object = Object {
    fields: &[
        required("host", Kind::Text(value::target_host)),
        optional("subset", Kind::Text(value::subset_name)),
        optional("port", Kind::Object(&PORT_SELECTOR)),
    ],
    rules: &[],
};

static PORT_SELECTOR: Object = Object { fields: &[required("number", PORT)], rules: &[] };

/// A share: 0, or 0.0001 to 100.
pub(in crate::yaml) static PERCENT: Object = Object {
    fields: &[optional("value", Kind::Number { min: 0.0, max: 100.0 })],
    rules: &[|node, path, report| {
        let Some(share) = node.get("value") else { return };
        if share.text().parse::<f64>().is_ok_and(|value| value > 0.0 && value < 0.0001) {
            let reason = "too small a share: use 0, or 0.0001 to 100";
            report.at(share, &join(path, "value"), reason);
        }
    }],
};

/// A mirror's share, of which any counts.
pub(super) static MIRROR_PERCENT: Object =
    Object { fields: &[optional("value", Kind::Number { min: 0.0, max: 100.0 })], rules: &[] };

/// Where connections go, with its share.
pub(super) static TCP_DESTINATION: Object = Object {
    fields: &[required("destination", Kind::Object(&DESTINATION)), optional("weight", SMALL_COUNT)],
    rules: &[],
};

/// Does it apply inside the mesh, at least partly?
pub(super) fn reaches_mesh(node: &Node) -> bool {
    let gateways = node.items_of("gateways");
    gateways.is_empty() || gateways.iter().any(|gateway| gateway.text() == "mesh")
}

/// Gateways other than `mesh` have no effect yet.
pub(super) fn gateways_are_noted(node: &Node, path: &str, report: &mut Report<'_>) {
    for (i, gateway) in node.items_of("gateways").iter().enumerate() {
        if gateway.text() != "mesh" {
            report.not_enforced(gateway.line, &format!("{}[{i}]", join(path, "gateways")));
        }
    }
}

/// Namespaces a rule is exported to, each once: `.` is the rule's own, and `*` leaves none to name.
pub(in crate::yaml) fn exports_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    let mut seen: HashSet<&str> = HashSet::new();
    let home = report.namespace().to_owned();
    let all = spec.items_of("exportTo");
    for (i, to) in all.iter().enumerate() {
        let place = format!("{}[{i}]", join(path, "exportTo"));
        let namespace = if to.text() == "." { home.as_str() } else { to.text() };
        if !seen.insert(namespace) {
            let reason = format!("`{}` is given twice: keep one", to.text());
            report.at(to, &place, reason);
        } else if to.text() == "*" && all.len() > 1 {
            report.at(to, &place, "`*` means every namespace: name no other beside it");
        }
    }
}

/// Weights are relative; their sum must not be 0. A single destination needs none.
pub(super) fn weights_sum(destinations: &[Node], path: &str, report: &mut Report<'_>) {
    let Some(first) = destinations.first() else { return };
    let weight = |one: &Node| one.text_of("weight").parse::<u64>().unwrap_or(0);
    let sum: u64 = destinations.iter().map(weight).sum();
    if destinations.len() > 1 && sum == 0 {
        let reason = "the weights sum to 0: give at least one destination a `weight`";
        report.at(first, path, reason);
    }
    if sum > u64::from(u32::MAX) {
        report.at(
            first,
            path,
            format!("the weights sum to {sum}: at most {} is possible", u32::MAX),
        );
    }
}
