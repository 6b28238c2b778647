//! A checked route into its noun. Only called when the document has no error, so a value that is there
//! is well formed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    discovery::{CorsPolicy, HeaderOperations, HeaderRules, Retries, StringMatch, Traffic},
    field_name::delimits_messages,
    resource::{
        BackendRef, GATEWAY_GROUP, MeshMatch, MeshMirror, MeshRedirect, MeshRewrite, MeshRoute,
        MeshRule, ParentRef, PathMatch, PathModifier, RouteKind, UnknownFilter,
    },
    yaml::{node::Node, schema::join, value},
};

/// Status of a redirect that names none.
const FOUND: u16 = 302;
/// How often a request is sent again where `retry` does not say, as elsewhere.
const ATTEMPTS: u32 = 2;
/// How long a browser may keep a preflight's answer where `cors` does not say, seconds.
const MAX_AGE: u64 = 5;
/// What `retry` repeats besides its codes: what no backend has worked on, and, of requests that may be
/// sent twice, broken connections and attempts that took too long.
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "reset"];

/// Whom a reference names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    group: String,
    kind: String,
    namespace: String,
    name: String,
}

impl Named {
    /// Of a parent, seen from the route's namespace.
    pub(super) fn of(parent: &Node, home: &str) -> Self {
        let text = |key: &str, or: &str| parent.get(key).map_or(or, Node::text).to_owned();
        Self {
            group: text("group", GATEWAY_GROUP),
            kind: text("kind", "Gateway"),
            namespace: text("namespace", home),
            name: text("name", ""),
        }
    }

    /// A Service of the core group?
    pub(super) fn is_service(&self) -> bool {
        self.kind == "Service" && self.group.is_empty()
    }
}

/// Is a Service among the parents?
pub(in crate::yaml) fn is_of_mesh(spec: &Node) -> bool {
    spec.items_of("parentRefs").iter().any(|parent| Named::of(parent, "").is_service())
}

/// What the route says.
pub(in crate::yaml) fn read(kind: RouteKind, spec: &Node, path: &str) -> MeshRoute {
    let rules = spec.items_of("rules").iter().enumerate();
    let place = join(path, "rules");
    let mut rules: Vec<_> =
        rules.map(|(i, one)| rule(kind, one, &format!("{place}[{i}]"))).collect();
    if rules.is_empty() && matches!(kind, RouteKind::Http | RouteKind::Grpc) {
        // The API's default: a rule for every request, without a backend.
        let matches = vec![MeshMatch::default()];
        rules.push(MeshRule { line: spec.line, matches, ..MeshRule::default() });
    }
    let names = spec.items_of("hostnames").iter().filter(|_| kind == RouteKind::Tls);
    MeshRoute {
        kind,
        parents: spec.items_of("parentRefs").iter().map(parent).collect(),
        names: names.map(|name| name.text().to_ascii_lowercase()).collect(),
        rules,
    }
}

fn parent(node: &Node) -> ParentRef {
    let Named { group, kind, name, .. } = Named::of(node, "");
    ParentRef {
        group,
        kind,
        name,
        namespace: text(node, "namespace"),
        section_name: text(node, "sectionName"),
        port: number(node, "port"),
        line: node.line,
    }
}

fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).map(|text| text.text().to_owned())
}

fn number<T: std::str::FromStr>(node: &Node, key: &str) -> Option<T> {
    node.text_of(key).parse().ok()
}

fn duration(node: &Node, key: &str) -> Option<Duration> {
    value::duration(node.text_of(key)).ok()
}

fn rule(kind: RouteKind, node: &Node, path: &str) -> MeshRule {
    let place = join(path, "backendRefs");
    let backends = node.items_of("backendRefs").iter().enumerate();
    let mut rule = MeshRule {
        name: node.text_of("name").to_owned(),
        line: node.line,
        matches: match kind {
            RouteKind::Http => node.items_of("matches").iter().map(http_match).collect(),
            RouteKind::Grpc => node.items_of("matches").iter().map(grpc_match).collect(),
            RouteKind::Tls | RouteKind::Tcp => Vec::new(),
        },
        backends: backends.map(|(i, one)| backend(one, &format!("{place}[{i}]"))).collect(),
        ..MeshRule::default()
    };
    if rule.matches.is_empty() && matches!(kind, RouteKind::Http | RouteKind::Grpc) {
        rule.matches.push(MeshMatch::default());
    }
    filters(node, path, &mut rule);
    limits(node, &mut rule.traffic);
    rule
}

fn http_match(node: &Node) -> MeshMatch {
    MeshMatch {
        path: node.get("path").map_or(PathMatch::Elements(String::new()), path_match),
        method: text(node, "method"),
        headers: conditions(node, "headers", true),
        query_params: conditions(node, "queryParams", false),
    }
}

fn path_match(node: &Node) -> PathMatch {
    let value = node.get("value").map_or("/", Node::text);
    match node.text_of("type") {
        "Exact" => PathMatch::Exact(value.to_owned()),
        "RegularExpression" => PathMatch::Regex(value.to_owned()),
        _ => PathMatch::Elements(value.strip_suffix('/').unwrap_or(value).to_owned()),
    }
}

fn grpc_match(node: &Node) -> MeshMatch {
    let call = node.get("method");
    let part = |key: &str| call.and_then(|call| Some(condition(call, call.get(key)?.text())));
    MeshMatch {
        path: match call {
            Some(_) => PathMatch::Call { service: part("service"), method: part("method") },
            None => PathMatch::Elements(String::new()),
        },
        headers: conditions(node, "headers", true),
        ..MeshMatch::default()
    }
}

/// A condition of the type that `holder` has.
fn condition(holder: &Node, text: &str) -> StringMatch {
    match holder.text_of("type") {
        "RegularExpression" => StringMatch::Regex(text.to_owned()),
        _ => StringMatch::Exact(text.to_owned()),
    }
}

/// Of equal names the first counts.
fn conditions(node: &Node, list: &str, ignores_case: bool) -> BTreeMap<String, StringMatch> {
    let mut all = BTreeMap::new();
    for one in node.items_of(list) {
        let name = one.text_of("name");
        let name = if ignores_case { name.to_ascii_lowercase() } else { name.to_owned() };
        all.entry(name).or_insert_with(|| condition(one, one.text_of("value")));
    }
    all
}

fn backend(node: &Node, path: &str) -> BackendRef {
    let filters = node.items_of("filters");
    BackendRef {
        group: node.text_of("group").to_owned(),
        kind: node.get("kind").map_or("Service", Node::text).to_owned(),
        namespace: text(node, "namespace"),
        name: node.text_of("name").to_owned(),
        port: number(node, "port"),
        weight: number(node, "weight").unwrap_or(1),
        headers: headers(filters),
        // A copy that is not made changes nothing for who asked; what else is not carried out would.
        unknown_filter: filters
            .iter()
            .find(|one| {
                !matches!(
                    one.text_of("type"),
                    "RequestHeaderModifier" | "ResponseHeaderModifier" | "RequestMirror" | "CORS"
                )
            })
            .map(unknown),
        field: path.to_owned(),
        line: node.line,
    }
}

fn unknown(filter: &Node) -> UnknownFilter {
    let what = match filter.get("extensionRef") {
        Some(to) => format!("the filter {}/{}", to.text_of("kind"), to.text_of("name")),
        None => format!("the filter `{}`", filter.text_of("type")),
    };
    UnknownFilter { what, line: filter.line }
}

fn filters(node: &Node, path: &str, rule: &mut MeshRule) {
    let filters = node.items_of("filters");
    rule.traffic.headers = headers(filters);
    for (i, filter) in filters.iter().enumerate() {
        let part = |key: &str| filter.get(key);
        match filter.text_of("type") {
            "RequestRedirect" => rule.redirect = part("requestRedirect").map(redirect),
            "URLRewrite" => rule.rewrite = part("urlRewrite").map(rewrite),
            "CORS" => rule.traffic.cors = part("cors").map(cors),
            "RequestMirror" => {
                let field = format!("{path}.filters[{i}].requestMirror.backendRef");
                rule.mirrors.extend(part("requestMirror").and_then(|one| mirror(one, &field)));
            }
            "RequestHeaderModifier" | "ResponseHeaderModifier" => {}
            _ => rule.unknown_filter = Some(unknown(filter)),
        }
    }
}

fn redirect(node: &Node) -> MeshRedirect {
    MeshRedirect {
        scheme: text(node, "scheme"),
        hostname: text(node, "hostname"),
        path: node.get("path").map(modifier),
        port: number(node, "port"),
        status: number(node, "statusCode").unwrap_or(FOUND),
    }
}

fn rewrite(node: &Node) -> MeshRewrite {
    MeshRewrite { hostname: text(node, "hostname"), path: node.get("path").map(modifier) }
}

fn modifier(node: &Node) -> PathModifier {
    match node.get("replaceFullPath") {
        Some(path) => PathModifier::Full(path.text().to_owned()),
        None => PathModifier::Prefix(node.text_of("replacePrefixMatch").to_owned()),
    }
}

fn mirror(node: &Node, field: &str) -> Option<MeshMirror> {
    let to = backend(node.get("backendRef")?, field);
    let percent = match node.get("fraction") {
        Some(fraction) => {
            let whole: f64 = number(fraction, "denominator").unwrap_or(100.0);
            number::<f64>(fraction, "numerator").unwrap_or(0.0) / whole * 100.0
        }
        None => number(node, "percent").unwrap_or(100.0),
    };
    Some(MeshMirror { to, percent: percent.clamp(0.0, 100.0) })
}

/// Changes to fields of requests and answers; `None` if no filter has any.
fn headers(filters: &[Node]) -> Option<HeaderRules> {
    let changes = |key: &str| filters.iter().find_map(|filter| filter.get(key));
    let (request, answer) = (changes("requestHeaderModifier"), changes("responseHeaderModifier"));
    if request.is_none() && answer.is_none() {
        return None;
    }
    let mut lists = ["set", "add"].into_iter();
    let authority = lists.find_map(|list| {
        let fields = request?.items_of(list).iter();
        fields.into_iter().find(|one| one.text_of("name").eq_ignore_ascii_case("host"))
    });
    Some(HeaderRules {
        request: request.map(operations).unwrap_or_default(),
        response: answer.map(operations).unwrap_or_default(),
        authority: authority.map(|one| one.text_of("value").to_owned()),
    })
}

fn operations(node: &Node) -> HeaderOperations {
    let values = |key: &str| -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for one in node.items_of(key) {
            let name = one.text_of("name").to_ascii_lowercase();
            if !delimits_messages(&name) {
                all.entry(name).or_insert_with(|| one.text_of("value").to_owned());
            }
        }
        all
    };
    let removed = node.items_of("remove").iter().map(Node::text);
    HeaderOperations {
        remove: removed
            .filter(|name| !delimits_messages(name))
            .map(str::to_ascii_lowercase)
            .collect(),
        set: values("set"),
        add: values("add"),
    }
}

fn cors(node: &Node) -> CorsPolicy {
    let joined = |key: &str| {
        let all: Vec<_> = node.items_of(key).iter().map(Node::text).collect();
        all.join(",")
    };
    CorsPolicy {
        origins: node.items_of("allowOrigins").iter().map(|one| origin(one.text())).collect(),
        methods: joined("allowMethods"),
        headers: joined("allowHeaders"),
        expose: joined("exposeHeaders"),
        max_age: Some(number(node, "maxAge").unwrap_or(MAX_AGE)),
        credentials: node.text_of("allowCredentials").eq_ignore_ascii_case("true"),
        keeps_unmatched: true,
    }
}

/// A `*` in a host takes any labels; a port that the scheme implies is never sent.
fn origin(text: &str) -> StringMatch {
    let implied = if text.starts_with("https://") { ":443" } else { ":80" };
    let text = text.strip_suffix(implied).unwrap_or(text);
    if text == "*" || !text.contains('*') {
        return StringMatch::Exact(text.to_owned());
    }
    let mut pattern = String::new();
    for part in text.chars() {
        match part {
            '*' => pattern.push_str(".*"),
            part if part.is_ascii_alphanumeric() => pattern.push(part),
            part => pattern.extend(['\\', part]),
        }
    }
    StringMatch::Regex(pattern)
}

/// `timeouts` and `retry`. Without retries a request is one attempt, and the limit on one is that on all.
fn limits(node: &Node, traffic: &mut Traffic) {
    let timeouts = node.get("timeouts");
    let limit =
        |key: &str| timeouts.and_then(|one| duration(one, key)).filter(|limit| !limit.is_zero());
    let (whole, one) = (limit("request"), limit("backendRequest"));
    traffic.retries = node.get("retry").map(|retry| retries(retry, one));
    traffic.timeout = match &traffic.retries {
        Some(_) => whole,
        None => one.or(whole),
    };
}

fn retries(node: &Node, per_try_timeout: Option<Duration>) -> Retries {
    let codes = node.items_of("codes").iter().filter_map(|code| code.text().parse().ok());
    Retries {
        attempts: number(node, "attempts").unwrap_or(ATTEMPTS),
        per_try_timeout,
        conditions: RETRY_ON.map(str::to_owned).to_vec(),
        statuses: codes.collect(),
        backoff: duration(node, "backoff"),
        ..Retries::default()
    }
}
