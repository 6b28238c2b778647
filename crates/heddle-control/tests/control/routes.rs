//! Which rule of which route decides: what is compiled and matched, from YAML to the table that a proxy
//! asks, against the Gateway API's own words, for routes and requests at random.

use std::sync::Arc;

use heddle_compile::{Client, RuleIndex};
use heddle_logic::{
    Matcher, RulePlan, Selected,
    route::{RequestView, RouteTable, Rule},
};
use heddle_model::{
    Protocol, Registry, Service, ServiceName, ServicePort, TargetPort, discovery::HttpRule,
    resource::Resource, yaml,
};

/// Seeds that are tried; one that fails is printed.
const SEEDS: u64 = 400;
const REQUESTS: usize = 25;

/// A match as it is written.
#[derive(Debug, Clone)]
struct Written {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    form: &'static str,
    path: String,
    method: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

struct Asked {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl RequestView for Asked {
    fn method(&self) -> &str {
        self.method
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn path(&self) -> &[u8] {
        self.target.split('?').next().unwrap_or_default().as_bytes()
    }
    fn authority(&self) -> &str {
        "shop"
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.headers.iter().any(|(own, value)| own.eq_ignore_ascii_case(name) && test(value))
    }
}

struct Built {
    rule: HttpRule,
    matcher: Matcher,
}

impl Rule for Built {
    fn matcher(&self) -> &Matcher {
        &self.matcher
    }
}

fn path(random: &mut fastrand::Rng, most: usize) -> String {
    let elements = (0..random.usize(..=most)).map(|_| ["a", "ab", "b"][random.usize(..3)]);
    let path = format!("/{}", elements.collect::<Vec<_>>().join("/"));
    if random.u8(..4) == 0 && path != "/" { path + "/" } else { path }
}

/// Some of `x-a`, `x-b`, each with one of two values.
fn some(random: &mut fastrand::Rng, one_in: u8) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    for name in ["x-a", "x-b"] {
        if random.u8(..one_in) == 0 {
            all.push((name, if random.bool() { "1" } else { "2" }));
        }
    }
    all
}

fn written(random: &mut fastrand::Rng) -> Written {
    let (form, path) = match random.u8(..6) {
        0 | 1 => ("Exact", path(random, 2)),
        2 => ("RegularExpression", ["/a.*", "/(a|b)", "/ab/.*"][random.usize(..3)].to_owned()),
        _ => ("PathPrefix", path(random, 2)),
    };
    let method = (random.u8(..4) == 0).then(|| if random.bool() { "GET" } else { "PUT" });
    Written { form, path, method, headers: some(random, 4), query: some(random, 5) }
}

/// Routes with rules with matches.
fn routes(random: &mut fastrand::Rng) -> Vec<Vec<Vec<Written>>> {
    let rule = |random: &mut fastrand::Rng| {
        (0..random.usize(1..3)).map(|_| written(random)).collect::<Vec<_>>()
    };
    let route = |random: &mut fastrand::Rng| {
        (0..random.usize(1..4)).map(|_| rule(random)).collect::<Vec<_>>()
    };
    (0..random.usize(1..4)).map(|_| route(random)).collect()
}

fn yaml_of(routes: &[Vec<Vec<Written>>]) -> String {
    let pairs = |pairs: &[(&str, &str)]| {
        let all = pairs.iter().map(|(name, value)| format!("{{name: {name}, value: '{value}'}}"));
        all.collect::<Vec<_>>().join(", ")
    };
    let one = |one: &Written| {
        let method = one.method.map(|method| format!(", method: {method}")).unwrap_or_default();
        format!(
            "{{path: {{type: {}, value: '{}'}}, headers: [{}], queryParams: [{}]{method}}}",
            one.form,
            one.path,
            pairs(&one.headers),
            pairs(&one.query)
        )
    };
    let rule = |rule: &Vec<Written>| {
        let matches: Vec<_> = rule.iter().map(one).collect();
        format!("{{matches: [{}], backendRefs: [{{name: shop, port: 80}}]}}", matches.join(", "))
    };
    let mut text = String::new();
    for (i, route) in routes.iter().enumerate() {
        let rules: Vec<_> = route.iter().map(rule).collect();
        text += &format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{i}}}\nspec: {{parentRefs: [{{kind: Service, group: '', name: shop}}], rules: [{}]}}\n",
            rules.join(", ")
        );
    }
    text
}

fn table(text: &str) -> RouteTable<Built> {
    let parsed = yaml::parse("f.yaml", text, "default").expect("valid");
    let resources: Vec<Arc<Resource>> = parsed.resources.into_iter().map(Arc::new).collect();
    let name = ServiceName::new("shop", "default").unwrap();
    let port = ServicePort {
        number: 80,
        name: String::new(),
        protocol: Protocol::Http,
        target: TargetPort::Number(80),
    };
    let service = Service { name: name.clone(), vips: Vec::new(), ports: [(80, port)].into() };
    let mut registry = Registry::default();
    registry.services.insert(name.clone(), service);
    let index = RuleIndex::new(&resources);
    let told = index.destination(&registry, Client::any_of("default"), &name).unwrap();
    let built = told.ports[0].http.iter().map(|rule| Built {
        rule: rule.clone(),
        matcher: Matcher::build(rule).expect("it builds"),
    });
    RouteTable::new(built.collect())
}

/// Does a request meet a match, by the words of the specification?
fn meets(one: &Written, asked: &Asked) -> bool {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let elements = |path: &str| -> Vec<String> {
        path.trim_matches('/').split('/').filter(|e| !e.is_empty()).map(str::to_owned).collect()
    };
    let by_path = match (one.form, one.path.as_str()) {
        ("Exact", own) => own == path,
        ("PathPrefix", own) => elements(path).starts_with(&elements(own)),
        (_, "/a.*") => path.starts_with("/a"),
        (_, "/(a|b)") => path == "/a" || path == "/b",
        _ => path.starts_with("/ab/"),
    };
    let first = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    by_path
        && one.method.is_none_or(|method| method == asked.method)
        && one.headers.iter().all(|(name, value)| {
            asked.headers.iter().any(|(own, held)| own == name && held == value)
        })
        && one.query.iter().all(|(name, value)| first(name) == Some(value))
}

/// Form of the path, its length, a method, headers, query parameters.
type Rank = (u8, usize, bool, usize, usize);

/// The rule that decides, by the words of the specification.
fn expected(routes: &[Vec<Vec<Written>>], asked: &Asked) -> Option<String> {
    let mut best: Option<(Rank, String)> = None;
    for (i, route) in routes.iter().enumerate() {
        for (j, rule) in route.iter().enumerate() {
            for one in rule.iter().filter(|one| meets(one, asked)) {
                let (form, length) = match one.form {
                    "Exact" => (2, 0),
                    "PathPrefix" => (0, one.path.trim_end_matches('/').len()),
                    _ => (1, one.path.len()),
                };
                let rank = (form, length, one.method.is_some(), one.headers.len(), one.query.len());
                if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                    best = Some((rank, format!("HTTPRoute/default/r{i}#rules[{j}]")));
                }
            }
        }
    }
    best.map(|(_, rule)| rule)
}

#[test]
fn the_rule_that_decides_is_the_one_that_the_specification_names() {
    let mut decided = 0;
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let routes = routes(&mut random);
        let table = table(&yaml_of(&routes));
        for _ in 0..REQUESTS {
            let pairs = some(&mut random, 2);
            let query = pairs.iter().map(|(name, value)| format!("{name}={value}"));
            let query = query.collect::<Vec<_>>().join("&");
            let asked = Asked {
                method: if random.bool() { "GET" } else { "PUT" },
                target: format!("{}?{query}", path(&mut random, 3)),
                headers: some(&mut random, 2),
            };
            let selected = match table.select(&asked).selected {
                Selected::Rule(built) => Some(built.rule.provenance.0.clone()),
                Selected::NoRoute => None,
                other => panic!("seed {seed}: {:?}", std::mem::discriminant(&other)),
            };
            let expected = expected(&routes, &asked);
            decided += usize::from(expected.is_some());
            assert_eq!(
                selected, expected,
                "seed {seed}: {} {} {:?}\n{routes:#?}",
                asked.method, asked.target, asked.headers
            );
        }
    }
    assert!(decided > 1_000, "the requests here meet too little: {decided}");
}

/// Request path, matched prefix, what replaces it, and what becomes of the path: the specification's table.
const REPLACED: [(&str, &str, &str, &str); 13] = [
    ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("/foo", "/foo", "/xyz", "/xyz"),
    ("/foo/", "/foo", "/xyz", "/xyz/"),
    ("/foo/bar", "/foo", "", "/bar"),
    ("/foo/", "/foo", "", "/"),
    ("/foo", "/foo", "", "/"),
    ("/foo/", "/foo", "/", "/"),
    ("/foo", "/foo", "/", "/"),
    ("/a/b", "/", "/xyz", "/xyz/a/b"),
    ("/", "/", "/xyz", "/xyz/"),
];

fn filtered(prefix: &str, filter: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{parentRefs: [{{kind: Service, group: '', name: shop}}], rules: [{{matches: [{{path: {{value: '{prefix}'}}}}], filters: [{filter}]{backend}}}]}}\n"
    )
}

const TO_SHOP: &str = ", backendRefs: [{name: shop, port: 80}]";

fn get(path: &str) -> Asked {
    Asked { method: "GET", target: format!("{path}?q=1"), headers: Vec::new() }
}

#[test]
fn prefixes_are_replaced_as_in_the_specifications_table() {
    for (path, prefix, with, expected) in REPLACED {
        let modifier = format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{with}'}}");
        let rewrite = format!("{{type: URLRewrite, urlRewrite: {{{modifier}}}}}");
        let asked = get(path);
        let rewrites = table(&filtered(prefix, &rewrite, TO_SHOP));
        let Selected::Rule(built) = rewrites.select(&asked).selected else { panic!("{path}") };
        let plan = RulePlan::build(&built.rule).unwrap();
        let (changes, _) = plan.changes(&built.matcher, &asked, path, Some(0));
        assert_eq!(changes.path.as_deref(), Some(expected), "{path} {prefix} {with}");

        let redirect = format!("{{type: RequestRedirect, requestRedirect: {{{modifier}}}}}");
        let redirects = table(&filtered(prefix, &redirect, ""));
        let Selected::Rule(built) = redirects.select(&asked).selected else { panic!("{path}") };
        let plan = RulePlan::build(&built.rule).unwrap();
        let answer = plan.answer(&built.matcher, &asked, path).unwrap();
        let location = format!("http://shop{expected}?q=1");
        assert_eq!(
            (answer.status, &answer.fields[0].1),
            (302, &location),
            "{path} {prefix} {with}"
        );
    }
}

#[test]
fn a_whole_path_is_replaced_whatever_was_matched() {
    let rewrite =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/x\\1'}}}";
    let rewrites = table(&filtered("/foo", rewrite, TO_SHOP));
    let asked = get("/foo/bar");
    let Selected::Rule(built) = rewrites.select(&asked).selected else { panic!("no rule") };
    let plan = RulePlan::build(&built.rule).unwrap();
    let (changes, _) = plan.changes(&built.matcher, &asked, "/foo/bar", Some(0));
    assert_eq!(changes.path.as_deref(), Some("/x\\1"), "a backslash is no group");
}
