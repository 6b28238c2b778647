//! What several parts of a VirtualService share.

use crate::{
    discovery::StringMatch,
    yaml::{
        node::Node,
        report::Report,
        schema::{Kind, Object, PORT, SMALL_COUNT, TEXT, at_most_one, join, optional, required},
        value,
    },
};

/// A condition on a text; empty means presence.
pub(super) const STRING_MATCH: Kind = Kind::Object(&STRING_MATCH_OBJECT);
static STRING_MATCH_OBJECT: Object = Object {
    fields: &[
        optional("exact", TEXT),
        optional("prefix", TEXT),
        optional("regex", Kind::Text(value::regex)),
    ],
    rules: &[|node, path, report| at_most_one(node, &["exact", "prefix", "regex"], path, report)],
};

/// `None` for `{}`: no condition, or presence.
pub(super) fn string_match(node: &Node) -> Option<StringMatch> {
    let text = |key: &str| node.get(key).map(|value| value.text().to_owned());
    (text("exact").map(StringMatch::Exact))
        .or_else(|| text("prefix").map(StringMatch::Prefix))
        .or_else(|| text("regex").map(StringMatch::Regex))
}

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
pub(super) static PERCENT: Object = Object {
    fields: &[optional("value", Kind::Number { min: 0.0, max: 100.0 })],
    rules: &[|node, path, report| {
        let Some(share) = node.get("value") else { return };
        if share.text().parse::<f64>().is_ok_and(|value| value > 0.0 && value < 0.0001) {
            let reason = "too small a share: use 0, or 0.0001 to 100";
            report.at(share, &join(path, "value"), reason);
        }
    }],
};

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
