//! Route selection, by example and against a naive model.

use heddle_model::discovery::{HeaderMatch, HttpMatch, RuleAction, StringMatch, Traffic};
use proptest::prelude::*;

use super::*;

type Request = testing::Asked;

fn get(target: &str) -> Request {
    Request::get(target).host("reviews:9080")
}

fn with(request: Request, name: &str, value: &str) -> Request {
    request.with(name, value)
}

/// A rule that carries its position.
#[derive(Debug)]
struct Numbered(usize, Matcher);

impl Rule for Numbered {
    fn matcher(&self) -> &Matcher {
        &self.1
    }
}

fn rule(name: &str, matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        provenance: Provenance(format!("VirtualService/default/reviews#{name}")),
        matches,
        fault: None,
        action: RuleAction::Refuse(String::new()),
        traffic: Traffic::default(),
    }
}

fn table(rules: Vec<Vec<HttpMatch>>) -> RouteTable<Numbered> {
    let one = |(i, matches)| Numbered(i, Matcher::build(&rule("a", matches)).unwrap());
    RouteTable::new(rules.into_iter().enumerate().map(one).collect())
}

fn matches(one: HttpMatch, request: &Request) -> bool {
    matches!(table(vec![vec![one]]).select(request).selected, Selected::Rule(_))
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(text.into())
}

fn uri(text: StringMatch) -> HttpMatch {
    HttpMatch { uri: Some(text), ..HttpMatch::default() }
}

fn header(name: &str, condition: HeaderMatch) -> HttpMatch {
    HttpMatch { headers: [(name.into(), condition)].into(), ..HttpMatch::default() }
}

fn without(name: &str, condition: HeaderMatch) -> HttpMatch {
    HttpMatch { without_headers: [(name.into(), condition)].into(), ..HttpMatch::default() }
}

#[test]
fn uri_sees_the_path_without_query() {
    assert!(matches(uri(exact("/reviews")), &get("/reviews?id=1")));
    assert!(!matches(uri(prefix("/reviews?id")), &get("/reviews?id=1")));
    assert!(matches(uri(prefix("/v2")), &get("/v2example")));
    assert!(matches(uri(regex("/reviews/[0-9]+")), &get("/reviews/42?full=1")));
    assert!(!matches(uri(regex("/reviews")), &get("/reviews/42")));
}

#[test]
fn uri_and_path_see_the_canonical_path() {
    let admin = uri(exact("/admin"));
    for target in ["/a/../admin", "/%61dmin?x", "/.\\admin"] {
        assert!(matches(admin.clone(), &get(target)), "{target}");
    }
    assert!(!matches(admin.clone(), &get("/admin/..")));
    assert!(!matches(admin, &get("/a%2F..%2Fadmin")), "an escaped slash is none");
    let path = |text| header(":path", HeaderMatch::Value(exact(text)));
    assert!(matches(path("/admin?x=%61"), &get("/a/../%61dmin?x=%61")));
}

#[test]
fn a_path_without_a_canonical_form_is_bad_where_a_rule_looks_at_paths() {
    let reading = table(vec![vec![uri(prefix("/x"))], vec![]]);
    let other = table(vec![vec![header("x", HeaderMatch::Present)], vec![]]);
    for (target, fault) in [("/a%00", path::Fault::ZeroByte), ("/a#f", path::Fault::Fragment)] {
        let selected = reading.select(&get(target)).selected;
        assert!(matches!(selected, Selected::BadPath(found) if found == fault), "{selected:?}");
        assert!(matches!(other.select(&get(target)).selected, Selected::Rule(_)));
    }
}

#[test]
fn a_rules_text_is_compared_as_written() {
    assert!(!matches(uri(exact("/%61")), &get("/a")));
    assert!(!matches(uri(exact("/%61")), &get("/%61")));
    assert!(matches(uri(exact("/sale-50%")), &get("/sale-50%")));
    assert!(!matches(uri(exact("/sale-50%")), &get("/sale-50%25")));
}

#[test]
fn escapes_are_compared_whatever_their_case() {
    for rule in [exact("/a%2fb"), exact("/a%2Fb"), prefix("/a%2f"), regex("/a%2fb")] {
        for target in ["/a%2Fb", "/a%2fb"] {
            assert!(matches(uri(rule.clone()), &get(target)), "{rule:?} {target}");
        }
    }
    assert!(matches(uri(exact("/café")), &get("/caf%C3%a9")));
}

#[test]
fn what_goes_on_is_what_the_rules_looked_at() {
    let reading = table(vec![vec![uri(prefix("/admin"))], vec![]]);
    let by_header = table(vec![vec![header(":path", HeaderMatch::Present)]]);
    let other = table(vec![vec![header("x", HeaderMatch::Present)], vec![]]);
    let path = |table: &RouteTable<Numbered>, target: &str| table.select(&get(target)).path;
    for table in [&reading, &by_header] {
        assert_eq!(path(table, "/a/../b?c=/../d").as_deref(), Some("/b"));
        assert_eq!(path(table, "/sale-50%?a"), None);
        assert_eq!(path(table, "/a%zz"), None);
        assert_eq!(path(table, "/b%2fc?%61"), None, "capitals alone are nothing");
        assert_eq!(path(table, "/a/../b%2fc").as_deref(), Some("/b%2Fc"));
    }
    assert_eq!(path(&other, "/a/../b#c"), None, "no rule looked");
}

#[test]
fn ignore_uri_case_holds_for_exact_and_prefix_only() {
    let any = |text| HttpMatch { ignore_uri_case: true, ..uri(text) };
    assert!(matches(any(exact("/Reviews")), &get("/rEVIEWS")));
    assert!(matches(any(prefix("/Rev")), &get("/reviews/é")));
    assert!(!matches(any(prefix("/reviews/long")), &get("/reviews")));
    assert!(!matches(any(regex("/Reviews")), &get("/reviews")));
    assert!(!matches(uri(exact("/Reviews")), &get("/reviews")));
}

#[test]
fn authority_is_compared_whole() {
    let host = |text| HttpMatch { authority: Some(text), ..HttpMatch::default() };
    let request = |authority: &str| Request { authority: authority.into(), ..get("/") };
    assert!(matches(host(exact("reviews:9080")), &request("reviews:9080")));
    assert!(!matches(host(exact("reviews")), &request("reviews:9080")));
    assert!(!matches(host(exact("reviews")), &request("Reviews")));
    assert!(matches(host(prefix("reviews")), &request("reviews:9080")));
    assert!(!matches(host(regex("reviews|ratings")), &request("RATINGS")));
}

#[test]
fn of_a_header_on_several_lines_each_line_is_a_value() {
    let both = with(with(get("/"), "x-group", "beta"), "x-group", "eu");
    let value = |text| HeaderMatch::Value(exact(text));
    assert!(matches(header("x-group", value("beta")), &both));
    assert!(matches(header("x-group", value("eu")), &both));
    assert!(!matches(header("x-group", value("beta,eu")), &both));
    assert!(!matches(without("x-group", value("beta")), &both), "a second line evades nothing");
    assert!(!matches(without("x-group", value("eu")), &both));
    assert!(matches(without("x-group", value("us")), &both));
    let cookies = with(with(get("/"), "cookie", "a=1"), "cookie", "user=jason");
    let jason = HeaderMatch::Value(regex("^(.*?; )?(user=jason)(;.*)?$"));
    assert!(matches(header("cookie", jason), &cookies), "cookies are one value");
}

#[test]
fn the_scheme_is_what_the_proxy_before_saw() {
    let secure = HttpMatch { scheme: Some(exact("https")), ..HttpMatch::default() };
    let proto = |value| with(get("/"), "x-forwarded-proto", value);
    assert!(!matches(secure.clone(), &get("/")));
    assert!(matches(secure.clone(), &proto("https")) && matches(secure.clone(), &proto("HTTPS")));
    assert!(!matches(secure.clone(), &proto("wss")));
    let twice = with(proto("https"), "x-forwarded-proto", "https");
    assert!(!matches(secure, &twice), "two proxies that say it are none to believe");
    assert!(matches(header(":scheme", HeaderMatch::Value(exact("https"))), &proto("https")));
}

#[test]
fn an_empty_header_condition_asks_for_presence() {
    let jason = with(get("/"), "end-user", "jason");
    assert!(matches(header("end-user", HeaderMatch::Present), &jason));
    assert!(!matches(header("end-user", HeaderMatch::Present), &get("/")));
    assert!(matches(header("end-user", HeaderMatch::Value(exact("jason"))), &jason));
    assert!(!matches(header("end-user", HeaderMatch::Value(exact("Jason"))), &jason));
    assert!(!matches(header("end-user", HeaderMatch::Value(regex(".*"))), &get("/")));
}

#[test]
fn pseudo_headers_read_the_request_line() {
    let request = get("/a?b=c");
    assert!(matches(header(":method", HeaderMatch::Value(exact("GET"))), &request));
    assert!(matches(header(":path", HeaderMatch::Value(exact("/a?b=c"))), &request));
    assert!(matches(header("host", HeaderMatch::Value(prefix("reviews"))), &request));
    assert!(!matches(header(":scheme", HeaderMatch::Value(exact("https"))), &request));
}

#[test]
fn without_headers_takes_an_absent_header_as_empty() {
    let debug = with(get("/"), "x-debug", "1");
    assert!(!matches(without("x-debug", HeaderMatch::Present), &debug));
    assert!(matches(without("x-debug", HeaderMatch::Present), &get("/")));
    assert!(matches(without("x-debug", HeaderMatch::Value(exact("2"))), &debug));
    assert!(matches(without("x-debug", HeaderMatch::Value(exact("2"))), &get("/")));
    assert!(!matches(without("x-debug", HeaderMatch::Value(regex(".*"))), &get("/")));
}

#[test]
fn query_parameters_are_compared_as_sent_and_the_first_of_a_name_counts() {
    let param =
        |text| HttpMatch { query_params: [("v".to_owned(), text)].into(), ..HttpMatch::default() };
    assert!(matches(param(exact("1")), &get("/?v=1&v=2")));
    assert!(!matches(param(exact("2")), &get("/?v=1&v=2")));
    assert!(matches(param(exact("a%20b")), &get("/?x&v=a%20b#v=3")));
    assert!(matches(param(prefix("")), &get("/?v")), "presence");
    assert!(!matches(param(prefix("")), &get("/?vv=1")));
    assert!(!matches(param(prefix("")), &get("/v")));
}

#[test]
fn alternatives_are_ored_conditions_anded_and_the_first_rule_wins() {
    let jason = header("end-user", HeaderMatch::Value(exact("jason")));
    let both = HttpMatch { uri: Some(prefix("/reviews")), ..jason.clone() };
    let table = table(vec![vec![both, uri(exact("/test"))], vec![jason], vec![]]);
    let chosen = |request: &Request| match table.select(request).selected {
        Selected::Rule(rule) => rule.0,
        other => panic!("{other:?}"),
    };
    let as_jason = |target| with(get(target), "end-user", "jason");
    assert_eq!(chosen(&as_jason("/reviews/1")), 0);
    assert_eq!(chosen(&get("/test")), 0);
    assert_eq!(chosen(&as_jason("/other")), 1);
    assert_eq!(chosen(&get("/reviews/1")), 2);
}

#[test]
fn no_rules_mean_the_service_itself_and_no_match_means_no_route() {
    assert!(matches!(table(vec![]).select(&get("/")).selected, Selected::Default));
    let narrow = table(vec![vec![uri(exact("/only"))]]);
    assert!(matches!(narrow.select(&get("/")).selected, Selected::NoRoute));
}

#[test]
fn a_rule_that_does_not_compile_is_named() {
    let rule = rule("http[0]", vec![uri(regex("("))]);
    let error = Matcher::build(&rule).unwrap_err().to_string();
    assert!(error.starts_with("rule VirtualService/default/reviews#http[0]: `(`"), "{error}");
}

#[test]
fn weights_are_relative_and_exact_over_the_whole_range() {
    let targets = weighted(&[99, 0, 1]);
    let step = u64::MAX / 10_000;
    let mut counts = [0u32; 3];
    for i in 0..10_000u64 {
        counts[*pick_target(&targets, i * step + step / 2).unwrap()] += 1;
    }
    assert_eq!(counts, [9_900, 0, 100]);
    assert_eq!(pick_target(&targets, 0), Some(&0));
    assert_eq!(pick_target(&targets, u64::MAX), Some(&2));
    assert_eq!(pick_target(&weighted(&[0, 0]), 7), Some(&0));
    assert_eq!(pick_target::<usize>(&[], 7), None);
}

/// Targets that are their position.
fn weighted(weights: &[u32]) -> Vec<Weighted<usize>> {
    let one = |(to, &weight)| Weighted { weight, to, headers: None };
    weights.iter().enumerate().map(one).collect()
}

/// The definition, spelled out: no shortcuts, allocation everywhere.
fn naive_text(text: &StringMatch, value: &str) -> bool {
    match text {
        StringMatch::Exact(t) => value == t,
        StringMatch::Prefix(t) => value.chars().take(t.chars().count()).collect::<String>() == *t,
        StringMatch::Regex(t) => {
            heddle_model::pattern::Pattern::new(t, heddle_model::pattern::Case::Sensitive)
                .unwrap()
                .matches(value)
        }
    }
}

fn naive_header(condition: &HeaderMatch, lines: Option<&Vec<String>>) -> bool {
    let lines = lines.cloned().unwrap_or_default();
    match condition {
        HeaderMatch::Present => !lines.is_empty(),
        HeaderMatch::Value(text) => lines.iter().any(|value| naive_text(text, value)),
    }
}

fn naive(one: &HttpMatch, request: &Request) -> bool {
    let path = request.target.split(['?', '#']).next().unwrap().to_owned();
    one.uri.as_ref().is_none_or(|t| naive_text(t, &path))
        && one.method.as_ref().is_none_or(|t| naive_text(t, &request.method))
        && one.headers.iter().all(|(n, c)| naive_header(c, request.headers.get(n)))
        && one.without_headers.iter().all(|(n, c)| match (c, request.headers.get(n)) {
            (HeaderMatch::Value(text), None) => !naive_text(text, ""),
            (condition, value) => !naive_header(condition, value),
        })
}

fn text() -> impl Strategy<Value = StringMatch> {
    let word = "[ab/]{0,3}";
    prop_oneof![
        word.prop_map(StringMatch::Exact),
        word.prop_map(StringMatch::Prefix),
        "[ab/]{1,2}[*+]?".prop_map(StringMatch::Regex),
    ]
}

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    prop_oneof![Just(HeaderMatch::Present), text().prop_map(HeaderMatch::Value)]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let headers = || prop::collection::btree_map("x|y", header_match(), 0..2);
    (
        prop::option::of(text()),
        prop::option::of("[ab]".prop_map(StringMatch::Exact)),
        headers(),
        headers(),
    )
        .prop_map(|(uri, method, headers, without_headers)| HttpMatch {
            uri,
            method,
            headers,
            without_headers,
            ..HttpMatch::default()
        })
}

fn request() -> impl Strategy<Value = Request> {
    let lines = prop::collection::vec("[ab/]{0,2}", 1..3);
    ("/[ab/]{0,3}([?][ab]{0,2})?", "[ab]", prop::collection::btree_map("x|y", lines, 0..2))
        .prop_map(|(target, method, headers)| Request { method, headers, ..get(&target) })
}

proptest! {
    #[test]
    fn selection_equals_the_naive_definition(
        rules in prop::collection::vec(prop::collection::vec(http_match(), 0..3), 0..4),
        request in request(),
    ) {
        let expected = rules
            .iter()
            .position(|alternatives| {
                alternatives.is_empty() || alternatives.iter().any(|one| naive(one, &request))
            });
        match (table(rules.clone()).select(&request).selected, expected) {
            (Selected::Default, _) => prop_assert!(rules.is_empty()),
            (Selected::NoRoute | Selected::BadPath(_), found) => prop_assert!(found.is_none()),
            (Selected::Rule(rule), found) => prop_assert_eq!(Some(rule.0), found),
        }
    }

    #[test]
    fn a_long_table_selects_what_looking_at_each_rule_selects(
        rules in prop::collection::vec(prop::collection::vec(http_match(), 1..3), 12..40),
        request in request(),
    ) {
        let expected = rules.iter().position(|rule| rule.iter().any(|one| naive(one, &request)));
        let table = table(rules);
        prop_assert!(table.index.is_some());
        let found = match table.select(&request).selected {
            Selected::Rule(rule) => Some(rule.0),
            _ => None,
        };
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_target_without_weight_gets_no_traffic(
        weights in prop::collection::vec(0u32..=u32::MAX, 1..6), random: u64,
    ) {
        prop_assume!(weights.iter().any(|&w| w > 0));
        prop_assert!(weights[*pick_target(&weighted(&weights), random).unwrap()] > 0);
    }

    #[test]
    fn no_request_text_panics(target in "\\PC{0,40}", authority in "\\PC{0,20}") {
        let any = HttpMatch {
            uri: Some(prefix("/é")),
            ignore_uri_case: true,
            authority: Some(exact("é")),
            query_params: [("é".to_owned(), exact("x"))].into(),
            ..HttpMatch::default()
        };
        let _ = matches(any, &Request { authority, ..get(&target) });
    }
}
