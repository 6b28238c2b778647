//! Routes of the Gateway API: every field of their schemas, and the API's own validation rules.
//!
//! Routes with a Gateway as their only parent are checked alike and then kept: nothing serves them yet.

use std::collections::HashSet;

use super::{
    node::Node,
    report::Report,
    schema::{Field, Kind, Object, PORT, at_most, join, not_yet, optional, required},
    value,
};
use crate::resource::RouteKind;

/// Fields that name a backend, and `more`. A Service needs a port; what else there is, is none of ours.
macro_rules! backend_ref {
    ($($more:expr),*) => {
        [
            optional("group", Kind::Text(value::api_group)).even_if_empty(),
            optional("kind", KIND),
            optional("namespace", Kind::Text(value::namespace)),
            required("name", Kind::Text(value::object_name)),
            optional("port", PORT),
            $($more),*
        ]
    };
}

mod filters;
mod matches;
mod names;
mod read;

use names::{KIND, service_has_port};
pub(super) use read::{is_of_mesh, read};

/// API versions under which routes are served.
pub(super) const API_VERSIONS: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];

/// `spec` of each kind.
pub(super) static HTTP: Object =
    Object { fields: &route(&HTTP_RULE), rules: &[parents_differ, rules_are_few] };
pub(super) static GRPC: Object =
    Object { fields: &route(&GRPC_RULE), rules: &[parents_differ, rules_are_few] };
pub(super) static TLS: Object =
    Object { fields: &route(&TCP_RULE), rules: &[parents_differ, rules_are_few, one_rule] };
pub(super) static TCP: Object = Object {
    fields: &[PARENTS, DEFAULT_GATEWAYS, rules_of(&TCP_RULE)],
    rules: &[parents_differ, rules_are_few, one_rule],
};

/// Bounds of the Gateway API.
const PARENTS_MAX: usize = 32;
const RULES_MAX: usize = 16;
const HOSTNAMES_MAX: usize = 16;
const MATCHES_MAX: usize = 64;
const MATCHES_OF_ALL_RULES_MAX: usize = 128;
const BACKENDS_MAX: usize = 16;
const WEIGHT_MAX: i64 = 1_000_000;

static PARENT: Kind = Kind::Object(&PARENT_REF);
const PARENTS: Field = optional("parentRefs", Kind::List { of: &PARENT, least: 0 });
const DEFAULT_GATEWAYS: Field = optional("useDefaultGateways", Kind::Choice(&["All", "None"]));

const fn rules_of(rule: &'static Kind) -> Field {
    optional("rules", Kind::List { of: rule, least: 0 })
}

/// Fields of a route that has hostnames. In a mesh those of requests are not looked at: the called address
/// decides. Those of a TLSRoute are the names that connections ask for.
const fn route(rule: &'static Kind) -> [Field; 4] {
    [
        PARENTS,
        optional("hostnames", Kind::List { of: &Kind::Text(value::wildcard_host), least: 0 }),
        DEFAULT_GATEWAYS,
        rules_of(rule),
    ]
}

static PARENT_REF: Object = Object {
    fields: &[
        optional("group", Kind::Text(value::api_group)).even_if_empty(),
        optional("kind", KIND),
        optional("namespace", Kind::Text(value::namespace)),
        required("name", Kind::Text(value::object_name)),
        optional("sectionName", Kind::Text(value::object_name)),
        optional("port", PORT),
    ],
    rules: &[],
};

static HTTP_RULE: Kind = Kind::Object(&HTTP_RULE_OBJECT);
static HTTP_RULE_OBJECT: Object = Object {
    fields: &[
        optional("name", Kind::Text(value::object_name)),
        optional("matches", Kind::List { of: &Kind::Object(&matches::HTTP), least: 0 }),
        optional("filters", Kind::List { of: &Kind::Object(&filters::HTTP), least: 0 }),
        optional("backendRefs", Kind::List { of: &Kind::Object(&HTTP_BACKEND), least: 0 }),
        optional("timeouts", Kind::Object(&TIMEOUTS)),
        optional("retry", Kind::Object(&RETRY)),
        not_yet("sessionPersistence", Kind::Any),
    ],
    rules: &[few_parts, filters::fit_together, filters::fit_the_rule],
};

static GRPC_RULE: Kind = Kind::Object(&GRPC_RULE_OBJECT);
static GRPC_RULE_OBJECT: Object = Object {
    fields: &[
        optional("name", Kind::Text(value::object_name)),
        optional("matches", Kind::List { of: &Kind::Object(&matches::GRPC), least: 0 }),
        optional("filters", Kind::List { of: &Kind::Object(&filters::GRPC), least: 0 }),
        optional("backendRefs", Kind::List { of: &Kind::Object(&GRPC_BACKEND), least: 0 }),
        not_yet("sessionPersistence", Kind::Any),
    ],
    rules: &[few_parts, filters::fit_together],
};

static TCP_RULE: Kind = Kind::Object(&TCP_RULE_OBJECT);
static TCP_RULE_OBJECT: Object = Object {
    fields: &[
        optional("name", Kind::Text(value::object_name)),
        required("backendRefs", Kind::List { of: &Kind::Object(&TCP_BACKEND), least: 1 }),
    ],
    rules: &[few_parts],
};

const WEIGHT: Field = optional("weight", Kind::Int { min: 0, max: WEIGHT_MAX });

static HTTP_FILTERS: Kind = Kind::Object(&filters::HTTP);
static GRPC_FILTERS: Kind = Kind::Object(&filters::GRPC);

static HTTP_BACKEND: Object = Object {
    fields: &backend_ref!(WEIGHT, optional("filters", Kind::List { of: &HTTP_FILTERS, least: 0 })),
    rules: &[service_has_port, filters::fit_together, filters::of_a_backend],
};
static GRPC_BACKEND: Object = Object {
    fields: &backend_ref!(WEIGHT, optional("filters", Kind::List { of: &GRPC_FILTERS, least: 0 })),
    rules: &[service_has_port, filters::fit_together, filters::of_a_backend],
};
static TCP_BACKEND: Object = Object { fields: &backend_ref!(WEIGHT), rules: &[service_has_port] };

static TIMEOUTS: Object = Object {
    fields: &[
        optional("request", Kind::Text(value::gateway_duration)),
        optional("backendRequest", Kind::Text(value::gateway_duration)),
    ],
    rules: &[|node, path, report| {
        let limit = |key: &str| value::duration(node.text_of(key)).unwrap_or_default();
        let (whole, one) = (limit("request"), limit("backendRequest"));
        if !whole.is_zero() && one > whole {
            let reason = "longer than `request`, which covers it: use at most that";
            report.at(node, &join(path, "backendRequest"), reason);
        }
    }],
};

static RETRY: Object = Object {
    fields: &[
        optional("codes", Kind::List { of: &Kind::Int { min: 400, max: 599 }, least: 0 }),
        optional("attempts", Kind::Int { min: 0, max: i32::MAX as i64 }),
        optional("backoff", Kind::Text(value::gateway_duration)),
    ],
    rules: &[],
};

fn rules_are_few(spec: &Node, path: &str, report: &mut Report<'_>) {
    at_most(spec, "rules", RULES_MAX, path, report);
    at_most(spec, "hostnames", HOSTNAMES_MAX, path, report);
    let rules = spec.items_of("rules");
    let matches: usize = rules.iter().map(|rule| rule.items_of("matches").len()).sum();
    if matches > MATCHES_OF_ALL_RULES_MAX {
        let reason = format!(
            "{matches} matches in all rules, more than the {MATCHES_OF_ALL_RULES_MAX} allowed: use several routes"
        );
        report.at(spec, &join(path, "rules"), reason);
    }
    let mut names = HashSet::new();
    for (i, rule) in rules.iter().enumerate() {
        let name = rule.text_of("name");
        if !name.is_empty() && !names.insert(name) {
            let place = format!("{}[{i}].name", join(path, "rules"));
            report.at(rule, &place, format!("two rules have the name `{name}`: names differ"));
        }
    }
}

fn few_parts(rule: &Node, path: &str, report: &mut Report<'_>) {
    at_most(rule, "matches", MATCHES_MAX, path, report);
    at_most(rule, "backendRefs", BACKENDS_MAX, path, report);
}

/// Connections have nothing by which a second rule could be told.
fn one_rule(spec: &Node, path: &str, report: &mut Report<'_>) {
    for (i, rule) in spec.items_of("rules").iter().enumerate().skip(1) {
        let place = format!("{}[{i}]", join(path, "rules"));
        report.no_effect(rule.line, &place, "the first rule takes every connection");
    }
}

/// Each parent once; a Gateway is none that is served.
fn parents_differ(spec: &Node, path: &str, report: &mut Report<'_>) {
    at_most(spec, "parentRefs", PARENTS_MAX, path, report);
    let place = join(path, "parentRefs");
    let home = report.namespace().to_owned();
    let parents = spec.items_of("parentRefs");
    let mut seen: Vec<(read::Named, &Node)> = Vec::new();
    for (i, parent) in parents.iter().enumerate() {
        let named = read::Named::of(parent, &home);
        let ports =
            |one: &Node| (one.text_of("sectionName").to_owned(), one.text_of("port").to_owned());
        let none = |one: &(String, String)| one.0.is_empty() && one.1.is_empty();
        for (_, other) in seen.iter().filter(|(other, _)| *other == named) {
            let (own, others) = (ports(parent), ports(other));
            if own == others {
                let reason = format!("`{}` is given twice: keep one", parent.text_of("name"));
                report.at(parent, &format!("{place}[{i}]"), reason);
                break;
            }
            if none(&own) || none(&others) {
                let reason = "the same parent twice: say `port` or `sectionName` in each";
                report.at(parent, &format!("{place}[{i}]"), reason);
                break;
            }
        }
        if !named.is_service() {
            report.not_enforced(parent.line, &format!("{place}[{i}]"));
        }
        seen.push((named, parent));
    }
    if parents.is_empty() {
        report.no_effect(spec.line, &place, "a route without a parent is attached to nothing");
    }
}

/// The kind of route that YAML spells so.
pub(super) fn kind(word: &str) -> Option<RouteKind> {
    let all = [RouteKind::Grpc, RouteKind::Http, RouteKind::Tls, RouteKind::Tcp];
    all.into_iter().find(|kind| kind.as_str() == word)
}
