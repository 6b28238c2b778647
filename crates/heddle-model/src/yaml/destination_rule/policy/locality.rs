//! Localities of a traffic policy: `region/zone/subzone`, how shares and failover name them, and which
//! overlap.

use std::collections::HashSet;

use crate::{
    discovery::{Distribute, LocalityRules, ZONES_ENDPOINTS},
    yaml::{
        node::Node,
        report::Report,
        schema::{Kind, NAME, Object, at_most_one, join, optional, required},
        value,
    },
};

/// Labels that mean a locality's parts.
const TOPOLOGY_LABELS: &[&str] =
    &["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(super) static LOCALITY: Object = Object {
    fields: &[
        optional("distribute", Kind::List { of: &Kind::Object(&DISTRIBUTE), least: 0 }),
        optional("failover", Kind::List { of: &Kind::Object(&FAILOVER), least: 0 }),
        optional("failoverPriority", Kind::List { of: &NAME, least: 0 }),
        optional("enabled", Kind::Bool),
    ],
    rules: &[|node, path, report| {
        at_most_one(node, &["distribute", "failover"], path, report);
        for label in node.items_of("failoverPriority") {
            if node.has("failover") && TOPOLOGY_LABELS.contains(&label.text()) {
                let reason = "`failover` says that already: keep one of the two";
                report.at(label, &join(path, "failoverPriority"), reason);
            }
        }
        let from = node.items_of("distribute").iter().enumerate();
        let from = from.filter_map(|(i, one)| Some((format!("[{i}].from"), one.get("from")?)));
        let from: Vec<_> = from.map(|(place, from)| (place, from.text(), from.line)).collect();
        differ(from, &join(path, "distribute"), report);
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
        let named = to.entries().iter();
        let named = named.map(|e| (format!("[\"{}\"]", join("", &e.key)), e.key.as_str(), e.line));
        let mut named: Vec<_> = named.collect();
        // A mapping has no order.
        named.sort_by_key(|(_, text, _)| text.contains('*'));
        differ(named, &join(path, "to"), report);
    }],
};

static FAILOVER: Object = Object {
    fields: &[required("from", NAME), required("to", NAME)],
    rules: &[|node, path, report| {
        if node.text_of("from") == node.text_of("to") {
            report.at(node, path, "`from` and `to` are the same");
        }
        for end in ["from", "to"] {
            let region = node.text_of(end);
            if region.contains(['/', '*']) {
                let reason =
                    format!("`{region}` is no region: failover goes from region to region");
                report.at(node, &join(path, end), reason);
            }
        }
    }],
};

pub(super) static ZONE_AWARE: Object = Object {
    fields: &[
        optional("enabled", Kind::Bool),
        optional("failover", Kind::List { of: &Kind::Object(&FAILOVER), least: 0 }),
        optional("failoverPriority", Kind::List { of: &NAME, least: 0 }),
        optional("minClusterSize", Kind::Int { min: 1, max: u32::MAX as i64 }),
    ],
    rules: &[|node, path, report| {
        for label in node.items_of("failoverPriority") {
            if TOPOLOGY_LABELS.contains(&label.text()) {
                let reason = "regions and zones are looked at in any case: leave this out, or use `failover`";
                report.at(label, &join(path, "failoverPriority"), reason);
            }
        }
    }],
};

/// A checked `localityLbSetting` into its noun.
pub(super) fn read(node: &Node) -> LocalityRules {
    let text = |one: &Node, key| one.text_of(key).to_owned();
    let share = |entry: &crate::yaml::node::Entry| {
        Some((entry.key.clone(), entry.value.text().parse().ok()?))
    };
    let distribute = |one: &Node| Distribute {
        from: text(one, "from"),
        to: one.get("to").map_or(&[][..], Node::entries).iter().filter_map(share).collect(),
    };
    LocalityRules {
        off: node.text_of("enabled").eq_ignore_ascii_case("false"),
        distribute: node.items_of("distribute").iter().map(distribute).collect(),
        failover: node
            .items_of("failover")
            .iter()
            .map(|one| (text(one, "from"), text(one, "to")))
            .collect(),
        failover_priority: node.texts_of("failoverPriority"),
        zones: None,
    }
}

/// A checked `zoneAwareLbSetting` into the same noun: where it is switched off, so is everything of it.
pub(super) fn read_zone_aware(node: &Node) -> LocalityRules {
    let least = node.get("minClusterSize").and_then(|size| size.text().parse().ok());
    LocalityRules { zones: Some(least.unwrap_or(ZONES_ENDPOINTS)), ..read(node) }
}

/// Reports localities that are none, and those that one before them holds or that hold one before
/// them. Only `*` may follow what it holds: it means the rest.
fn differ(localities: Vec<(String, &str, usize)>, path: &str, report: &mut Report<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    let mut held: HashSet<String> = HashSet::new();
    for (place, text, line) in localities {
        let place = format!("{path}{place}");
        let parts: Vec<&str> = text.splitn(3, '/').collect();
        let stars = text.matches('*').count();
        if parts.contains(&"") || stars > 1 || (stars == 1 && !text.ends_with('*')) {
            let reason = format!(
                "`{text}` is no locality: use `region`, `region/zone`, `region/zone/subzone` or a `*` at the end"
            );
            report.error(line, &place, reason);
            continue;
        }
        let outer = |len: usize| parts[..len].join("/");
        let around = (0..parts.len()).flat_map(|len| {
            let star = if len == 0 { "*".to_owned() } else { format!("{}/*", outer(len)) };
            [star, outer(len)]
        });
        let taken = around.chain([text.to_owned()]).any(|wide| seen.contains(&wide));
        if taken || held.contains(text) {
            let reason = format!("`{text}` overlaps with one before it: keep one");
            report.error(line, &place, reason);
        }
        held.extend((1..parts.len()).map(outer));
        seen.insert(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(localities: &[&str]) -> usize {
        let mut report = Report::new("f");
        differ(localities.iter().map(|text| (String::new(), *text, 1)).collect(), "", &mut report);
        report.count()
    }

    #[test]
    fn localities_overlap_unless_a_star_means_the_rest() {
        for fine in [
            &["eu", "us"][..],
            &["eu/a", "eu/b", "eu/*"],
            &["eu/a/1", "eu/a/2", "eu/b"],
            &["eu", "*"],
        ] {
            assert_eq!(faults(fine), 0, "{fine:?}");
        }
        for wrong in [
            &["eu", "eu"][..],
            &["eu", "eu/a"],
            &["eu/a", "eu"],
            &["eu/*", "eu/a"],
            &["*", "eu"],
            &["eu/a/1", "eu/a"],
            &["eu/a", "eu/a/1"],
            &["eu//1"],
            &["eu/*/1"],
        ] {
            assert_eq!(faults(wrong), 1, "{wrong:?}");
        }
    }
}
