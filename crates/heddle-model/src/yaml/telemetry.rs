//! Istio's `Telemetry`: tracing, access logs and metrics of the workloads it is for.

use std::collections::BTreeMap;

use super::{
    expression::Expression,
    node::Node,
    report::Report,
    schema::{Kind, NAME, Object, TEXT, exactly_one, join, not_yet, optional, present, required},
    value,
};
use crate::{
    discovery::{CustomTag, Metric, MetricChange, TagChange, TagSource},
    resource::{LoggingRule, MetricOverride, MetricsRule, Named, Sides, Telemetry, TracingRule},
};

/// Versions of the kind.
pub(super) const API_VERSIONS: &[&str] = &["telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"];

/// `spec` of a Telemetry.
pub(super) static SPEC: Object = Object {
    fields: &[
        optional("selector", Kind::Object(&SELECTOR)),
        optional("targetRef", Kind::Object(&TARGET)),
        optional("targetRefs", Kind::List { of: &Kind::Object(&TARGET), least: 0 }),
        optional("tracing", Kind::List { of: &Kind::Object(&TRACING), least: 0 }),
        optional("metrics", Kind::List { of: &Kind::Object(&METRICS), least: 0 }),
        optional("accessLogging", Kind::List { of: &Kind::Object(&LOGGING), least: 0 }),
    ],
    rules: &[|spec, path, report| {
        let targets = present(spec, &["targetRef", "targetRefs"]);
        if let (Some(target), Some(selector)) = (targets.first(), spec.get("selector")) {
            let reason = format!("`selector` and `{target}` exclude each other: keep one");
            report.at(selector, &join(path, "selector"), reason);
        }
        for target in targets {
            let line = spec.get(target).map_or(spec.line, |node| node.line);
            let reason = "it is for gateways and waypoints, and no sidecar is one: use `selector`";
            report.no_effect(line, &join(path, target), reason);
        }
    }],
};

static SELECTOR: Object = Object {
    fields: &[optional(
        "matchLabels",
        Kind::Map { key: value::selector_key, of: &Kind::Text(value::selector_value) },
    )],
    rules: &[],
};

static TARGET: Object = Object {
    fields: &[
        optional("group", TEXT),
        required("kind", NAME),
        required("name", NAME),
        optional("namespace", TEXT),
    ],
    rules: &[],
};

/// A provider by its name.
pub(super) static PROVIDER: Object = Object { fields: &[required("name", NAME)], rules: &[] };
const PROVIDERS: Kind = Kind::List { of: &Kind::Object(&PROVIDER), least: 0 };
const MODE: Kind = Kind::Choice(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]);
const PERCENT: Kind = Kind::Number { min: 0.0, max: 100.0 };
/// Tags of spans by name.
pub(super) const CUSTOM_TAGS: Kind =
    Kind::Map { key: value::not_empty, of: &Kind::Object(&CUSTOM_TAG) };

static MODE_ALONE: Object = Object { fields: &[optional("mode", MODE)], rules: &[] };

static TRACING: Object = Object {
    fields: &[
        optional("match", Kind::Object(&MODE_ALONE)),
        optional("providers", PROVIDERS),
        optional("randomSamplingPercentage", Kind::Either(&PERCENT, &Kind::Object(&WRAPPED))),
        optional("disableSpanReporting", Kind::Bool),
        optional("customTags", CUSTOM_TAGS),
        optional("useRequestIdForTraceSampling", Kind::Bool),
        optional("enableIstioTags", Kind::Bool),
        optional("disableContextPropagation", Kind::Bool),
    ],
    rules: &[|node, path, report| {
        if let Some(second) = node.items_of("providers").get(1) {
            let place = format!("{}[1]", join(path, "providers"));
            report.no_effect(second.line, &place, "spans go to the first one, as in Istio");
        }
    }],
};

static WRAPPED: Object = Object { fields: &[required("value", PERCENT)], rules: &[] };

static CUSTOM_TAG: Object = Object {
    fields: &[
        optional("literal", Kind::Object(&LITERAL)),
        optional("environment", Kind::Object(&SOURCE)),
        optional("header", Kind::Object(&SOURCE)),
        not_yet("formatter", Kind::Any),
    ],
    rules: &[|node, path, report| {
        exactly_one(node, &["literal", "environment", "header", "formatter"], path, report);
    }],
};

static LITERAL: Object = Object { fields: &[required("value", NAME)], rules: &[] };
static SOURCE: Object =
    Object { fields: &[required("name", NAME), optional("defaultValue", TEXT)], rules: &[] };

static LOGGING: Object = Object {
    fields: &[
        optional("match", Kind::Object(&MODE_ALONE)),
        optional("providers", PROVIDERS),
        optional("disabled", Kind::Bool),
        optional("filter", Kind::Object(&FILTER)),
    ],
    rules: &[],
};

static FILTER: Object =
    Object { fields: &[optional("expression", Kind::Text(condition))], rules: &[] };

fn condition(text: &str) -> Result<(), String> {
    Expression::parse_condition(text).map(drop)
}

static METRICS: Object = Object {
    fields: &[
        optional("providers", PROVIDERS),
        optional("overrides", Kind::List { of: &Kind::Object(&OVERRIDE), least: 0 }),
        optional("reportingInterval", Kind::Duration { least_ms: 1 }),
    ],
    rules: &[],
};

static OVERRIDE: Object = Object {
    fields: &[
        optional("match", Kind::Object(&METRIC_MATCH)),
        optional("disabled", Kind::Either(&Kind::Bool, &Kind::Object(&WRAPPED_BOOL))),
        optional("tagOverrides", Kind::Map { key: tag_name, of: &Kind::Object(&TAG) }),
    ],
    rules: &[tags_are_known],
};

static WRAPPED_BOOL: Object = Object { fields: &[required("value", Kind::Bool)], rules: &[] };

static METRIC_MATCH: Object = Object {
    fields: &[
        optional("metric", Kind::Choice(METRIC_NAMES)),
        optional("customMetric", NAME),
        optional("mode", MODE),
    ],
    rules: &[|node, path, report| {
        let Some(custom) = node.get("customMetric") else { return };
        let place = join(path, "customMetric");
        if node.has("metric") {
            let reason = "`metric` and `customMetric` exclude each other: keep one";
            report.at(custom, &place, reason);
        } else if Metric::of_name(custom.text()).is_none() {
            let names: Vec<_> = Metric::EACH.iter().map(|(_, name, _)| *name).collect();
            let reason =
                format!("no sidecar tells a metric of this name: use one of {}", names.join(", "));
            report.no_effect(custom.line, &place, &reason);
        }
    }],
};

const METRIC_NAMES: &[&str] = &[
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
];

/// Which metric is meant; `None` for one that sidecars do not tell.
fn metric_of(found: Option<&Node>) -> Option<Metric> {
    if let Some(custom) = found.and_then(|found| found.get("customMetric")) {
        return Metric::of_name(custom.text());
    }
    let name = found.map_or("", |found| found.text_of("metric"));
    let named = Metric::EACH.iter().find(|(.., known)| *known == name);
    Some(named.map_or(Metric::All, |(metric, ..)| *metric))
}

static TAG: Object = Object {
    fields: &[optional("operation", Kind::Choice(&["UPSERT", "REMOVE"])), optional("value", TEXT)],
    rules: &[],
};

/// A label's name as Prometheus takes it.
fn tag_name(name: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if name.len() > TAG_NAME_BYTES_MAX {
        return Err(format!("the name of a tag has at most {TAG_NAME_BYTES_MAX} bytes"));
    }
    if first && name.bytes().all(valid) && !name.starts_with("__") && name != "le" {
        return Ok(());
    }
    Err(format!("`{name}` is no name of a tag: use letters, digits and `_`, no digit first"))
}

fn is_removed(tag: &Node) -> bool {
    tag.text_of("operation") == "REMOVE"
}

/// Longest name of a tag.
const TAG_NAME_BYTES_MAX: usize = 64;
/// Most tags that are changed in one place.
const TAGS_MAX: usize = MetricChange::TAGS_MAX;
const RULES_OF_TAGS: &str = "give `value`: an expression, e.g. `request.method` or `\"constant\"`";

fn tags_are_known(node: &Node, path: &str, report: &mut Report<'_>) {
    let place = join(path, "tagOverrides");
    if let Some(tags) = node.get("tagOverrides").filter(|tags| tags.entries().len() > TAGS_MAX) {
        report.at(tags, &place, format!("at most {TAGS_MAX} tags are changed in one place"));
    }
    for entry in node.get("tagOverrides").map_or(&[][..], Node::entries) {
        let tag = &entry.value;
        let at = join(&place, &entry.key);
        if is_removed(tag) && tag.has("value") {
            report.at(tag, &at, "a tag that is removed has no `value`: leave it out");
        }
        if is_removed(tag) {
            continue;
        }
        match tag.get("value") {
            None => report.at(tag, &at, RULES_OF_TAGS),
            Some(value) => {
                if let Err(reason) = Expression::parse(value.text()) {
                    report.at(value, &join(&at, "value"), reason);
                }
            }
        }
    }
}

/// A checked Telemetry into its noun.
pub(super) fn read(spec: &Node) -> Telemetry {
    let selector = spec.get("selector").map(|selector| selector.labels_of("matchLabels"));
    Telemetry {
        selector: selector.filter(|labels| !labels.is_empty()),
        for_targets: spec.has("targetRef") || spec.has("targetRefs"),
        line: spec.get("selector").map_or(spec.line, |node| node.line),
        tracing: spec.items_of("tracing").iter().map(tracing).collect(),
        access_logging: spec.items_of("accessLogging").iter().map(logging).collect(),
        metrics: spec.items_of("metrics").iter().map(metrics).collect(),
    }
}

fn sides(node: &Node) -> Sides {
    match node.get("match").map_or("", |one| one.text_of("mode")) {
        "CLIENT" => Sides::Client,
        "SERVER" => Sides::Server,
        _ => Sides::Both,
    }
}

fn providers(node: &Node) -> Vec<Named> {
    let all = node.items_of("providers").iter().filter_map(|one| one.get("name"));
    all.map(|name| Named { name: name.text().to_owned(), line: name.line }).collect()
}

fn is_true(node: &Node) -> bool {
    node.text() == "true"
}

/// A value, or one that protobuf wraps.
fn unwrapped<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let found = node.get(key)?;
    Some(found.get("value").unwrap_or(found))
}

fn tracing(node: &Node) -> TracingRule {
    let flag = |key: &str| node.get(key).map(is_true);
    TracingRule {
        sides: sides(node),
        providers: providers(node),
        sampling: unwrapped(node, "randomSamplingPercentage").and_then(|n| n.text().parse().ok()),
        reports_nothing: flag("disableSpanReporting"),
        custom_tags: node.has("customTags").then(|| custom_tags(node)),
        by_request_id: flag("useRequestIdForTraceSampling"),
        istio_tags: flag("enableIstioTags"),
        keeps_context: flag("disableContextPropagation"),
    }
}

/// The tags below `customTags`; those that are not carried out are noted, and left out.
pub(super) fn custom_tags(node: &Node) -> BTreeMap<String, CustomTag> {
    let entries = node.get("customTags").map_or(&[][..], Node::entries);
    let source = |of: &Node| TagSource {
        name: of.text_of("name").to_owned(),
        default: of.text_of("defaultValue").to_owned(),
    };
    let tag = |tag: &Node| {
        if let Some(literal) = tag.get("literal") {
            return Some(CustomTag::Literal(literal.text_of("value").to_owned()));
        }
        if let Some(variable) = tag.get("environment") {
            return Some(CustomTag::Environment(source(variable)));
        }
        tag.get("header").map(|header| CustomTag::Header(source(header)))
    };
    entries.iter().filter_map(|entry| Some((entry.key.clone(), tag(&entry.value)?))).collect()
}

fn logging(node: &Node) -> LoggingRule {
    let filter = node.get("filter").and_then(|filter| filter.get("expression"));
    LoggingRule {
        sides: sides(node),
        providers: providers(node),
        disabled: node.get("disabled").is_some_and(is_true),
        filter: filter.map(|text| text.text().to_owned()).filter(|text| !text.is_empty()),
    }
}

fn metrics(node: &Node) -> MetricsRule {
    let overrides = node.items_of("overrides").iter();
    MetricsRule {
        providers: providers(node),
        overrides: overrides.filter_map(one_override).collect(),
        reporting_interval: node
            .get("reportingInterval")
            .and_then(|text| value::duration(text.text()).ok()),
    }
}

fn one_override(node: &Node) -> Option<MetricOverride> {
    let tag = |tag: &Node| match is_removed(tag) {
        true => TagChange::Removed,
        false => TagChange::Value(tag.text_of("value").to_owned()),
    };
    let tags = node.get("tagOverrides").map_or(&[][..], Node::entries);
    Some(MetricOverride {
        sides: sides(node),
        metric: metric_of(node.get("match"))?,
        disabled: unwrapped(node, "disabled").map(is_true),
        tags: tags.iter().map(|entry| (entry.key.clone(), tag(&entry.value))).collect(),
    })
}
