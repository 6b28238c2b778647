//! Istio's `DestinationRule`: its subsets; traffic policies are in `policy`.

use std::collections::HashSet;

use super::{
    node::Node,
    report::Report,
    schema::{Kind, LABELS, Object, join, optional, required},
    value,
    virtual_service::exports_differ,
};
use crate::resource::{DestinationRule, SubsetRule};

mod policy;

pub(super) use self::policy::tls;
pub(super) mod rates;

/// `spec` of a DestinationRule.
pub(super) static SPEC: Object = Object {
    fields: &[
        required("host", Kind::Text(value::wildcard_host)),
        optional("trafficPolicy", Kind::Object(&policy::TRAFFIC_POLICY)),
        optional("subsets", Kind::List { of: &Kind::Object(&SUBSET), least: 0 }),
        optional("exportTo", Kind::List { of: &Kind::Text(value::export_to), least: 0 }),
        optional("workloadSelector", Kind::Object(&SELECTOR)),
    ],
    rules: &[subset_names_differ, exports_differ, selectors_stay_at_home],
};

static SUBSET: Object = Object {
    fields: &[
        required("name", Kind::Text(value::subset_name)),
        optional("labels", LABELS),
        optional("trafficPolicy", Kind::Object(&policy::SUBSET_POLICY)),
    ],
    rules: &[],
};

static SELECTOR: Object = Object {
    fields: &[optional(
        "matchLabels",
        Kind::Map { key: value::selector_key, of: &Kind::Text(value::selector_value) },
    )],
    rules: &[],
};

fn subset_names_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for (i, subset) in spec.items_of("subsets").iter().enumerate() {
        let name = subset.text_of("name");
        if !seen.insert(name) {
            let place = format!("{}[{i}].name", join(path, "subsets"));
            report.at(subset, &place, format!("the subset `{name}` is defined twice"));
        }
    }
}

fn selectors_stay_at_home(spec: &Node, path: &str, report: &mut Report<'_>) {
    let exported = spec.items_of("exportTo");
    let is_home = |to: &Node| to.text() == "." || to.text() == report.namespace();
    if spec.has("workloadSelector") && !exported.iter().all(is_home) {
        let reason = "a rule with `workloadSelector` holds in its own namespace: use `[\".\"]`";
        report.at(spec, &join(path, "exportTo"), reason);
    }
}

/// A checked DestinationRule into its noun.
pub(super) fn read(spec: &Node) -> DestinationRule {
    let subset = |subset: &Node| SubsetRule {
        name: subset.text_of("name").to_owned(),
        labels: subset.labels_of("labels"),
        policy: subset.get("trafficPolicy").map(policy::read),
        line: subset.line,
    };
    let selector = spec.get("workloadSelector");
    DestinationRule {
        host: spec.text_of("host").to_owned(),
        host_line: spec.get("host").map_or(spec.line, |host| host.line),
        policy: spec.get("trafficPolicy").map(policy::read),
        subsets: spec.items_of("subsets").iter().map(subset).collect(),
        export_to: spec.texts_of("exportTo"),
        workload_selector: selector.map(|selector| selector.labels_of("matchLabels")),
    }
}
