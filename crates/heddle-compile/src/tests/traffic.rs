//! What a rule does with requests besides choosing where they go, as a client is told it.

use heddle_model::discovery::{Answer, HttpRule, RedirectPath};

use super::*;

/// The first rule of `reviews`, whose VirtualService has this `http` and these annotations.
fn annotated(annotations: &str, http: &str) -> HttpRule {
    let text = virtual_service("r", &format!("{{hosts: [reviews], http: [{http}]}}"))
        .replace("{name: r,", &format!("{{name: r, annotations: {{{annotations}}},"));
    let told = Mesh::demo().told(&rules(&text), "frontend", "reviews");
    told.ports[0].http[0].clone()
}

fn rule(http: &str) -> HttpRule {
    annotated("", http)
}

const ONE: &str = "route: [{destination: {host: reviews}}]";

#[test]
fn a_redirect_answers_and_an_older_sidecar_refuses() {
    let told = rule("{redirect: {uri: /new, port: 80, redirectCode: 307}}");
    let Some(Answer::Redirect(redirect)) = told.traffic.answer else { panic!("no answer") };
    assert_eq!(redirect.path, Some(RedirectPath::Whole("/new".into())));
    assert_eq!((redirect.status, redirect.port), (307, None), "80 is what http implies");
    assert!(matches!(told.action, RuleAction::Refuse(_)));
    let port = |parts: &str| match rule(&format!("{{redirect: {{{parts}}}}}")).traffic.answer {
        Some(Answer::Redirect(redirect)) => redirect.port,
        other => panic!("{other:?}"),
    };
    assert_eq!(port("derivePort: FROM_REQUEST_PORT, scheme: https"), Some(80));
    assert_eq!(port("derivePort: FROM_REQUEST_PORT"), None);
    assert_eq!(port("port: 443, scheme: https"), None);
    assert_eq!(port("port: 8443, scheme: https"), Some(8443));
}

#[test]
fn fields_of_a_single_destination_are_the_rules_and_its_values_win() {
    let told = rule(
        "{headers: {request: {set: {a: rule, b: rule}, remove: [x]}}, route: [{destination: {host: reviews}, headers: {request: {set: {a: target, host: t}, remove: [z]}}}]}",
    );
    let headers = told.traffic.headers.clone().unwrap();
    assert_eq!(headers.request.set["a"], "target");
    assert_eq!(headers.request.set["b"], "rule");
    assert_eq!(headers.request.remove, ["x", "z"]);
    assert_eq!(told.traffic.rewrite.unwrap().authority.as_deref(), Some("t"));
    assert_eq!(
        told.action,
        RuleAction::Forward(vec![WeightedTarget {
            weight: 100,
            to: Target::Cluster(ClusterKey { service: name("reviews"), subset: None, port: 80 }),
            headers: None,
        }])
    );
}

#[test]
fn fields_of_several_destinations_stay_theirs() {
    let told = rule(
        "{headers: {request: {set: {a: rule}}}, route: [{destination: {host: reviews}, weight: 1, headers: {request: {set: {a: one, host: one}}}}, {destination: {host: ratings}, weight: 1}]}",
    );
    assert_eq!(told.traffic.headers.unwrap().request.set["a"], "rule");
    assert_eq!(told.traffic.rewrite, None);
    let RuleAction::Forward(targets) = told.action else { panic!("refused") };
    let one = targets[0].headers.as_ref().unwrap();
    assert_eq!((&*one.request.set["a"], one.authority.as_deref()), ("one", Some("one")));
    assert_eq!(targets[1].headers, None);
}

#[test]
fn an_authority_to_rewrite_goes_before_one_that_is_set_as_a_field() {
    let authority = |parts: &str| {
        let told = rule(&format!("{{{parts}, {ONE}}}"));
        told.traffic.rewrite.and_then(|rewrite| rewrite.authority)
    };
    assert_eq!(authority("headers: {request: {set: {':authority': a}}}").as_deref(), Some("a"));
    assert_eq!(authority("rewrite: {authority: b}").as_deref(), Some("b"));
    assert_eq!(authority("rewrite: {uri: /}"), None);
}

#[test]
fn requests_of_every_method_are_repeated_only_where_the_author_says_so() {
    let any = |annotations: &str, parts: &str| {
        let told = annotated(annotations, &format!("{{retries: {{attempts: 1}}, {parts}{ONE}}}"));
        told.traffic.retries.unwrap().any_method
    };
    assert!(!any("", ""));
    assert!(!any("", "match: [{uri: {prefix: /}}], "));
    assert!(any("", "match: [{method: {exact: POST}}], "));
    assert!(!any("", "match: [{method: {exact: POST}}, {uri: {prefix: /}}], "), "in one of two");
    assert!(!any("", "match: [{method: {regex: '.*'}}], "), "nobody named it");
    assert!(any("heddle.dev/retry-unsafe: 'true'", ""));
    assert!(!any("heddle.dev/retry-unsafe: 'false'", ""));
}

#[test]
fn no_limit_is_no_limit() {
    assert_eq!(rule(&format!("{{timeout: 0s, {ONE}}}")).traffic.timeout, None);
    let limit = rule(&format!("{{timeout: 2s, {ONE}}}")).traffic.timeout;
    assert_eq!(limit.unwrap().as_secs(), 2);
}

#[test]
fn who_is_sent_copies_is_told_with_its_endpoints() {
    let text = virtual_service(
        "r",
        "{hosts: [reviews], http: [{mirror: {host: ratings}, mirrorPercentage: {value: 5}, route: [{destination: {host: reviews}}]}, {mirrors: [{destination: {host: nobody}}], route: [{destination: {host: reviews}}]}]}",
    );
    let told = Mesh::demo().told(&rules(&text), "frontend", "reviews");
    let mirror = &told.ports[0].http[0].traffic.mirrors[0];
    let key = ClusterKey { service: name("ratings"), subset: None, port: 80 };
    assert_eq!((&mirror.to, mirror.percent), (&Target::Cluster(key), 5.0));
    assert!(told.backends().contains(&name("ratings")));
    let said = Mesh::demo().said(&rules(&text));
    assert!(said.iter().any(|one| one.starts_with("Dangling spec.http[1].mirrors[0]")), "{said:?}");
}
