//! Rules of one VirtualService within another's, merged as Istio merges them.

use heddle_model::discovery::{HttpRule, StringMatch};

use super::*;

/// A VirtualService for `reviews` that delegates, and its delegate `child` in the namespace `team`.
fn family(root: &str, child: &str) -> String {
    virtual_service("root", &format!("{{hosts: [reviews], http: [{root}]}}"))
        + &virtual_service("child.team", &format!("{{http: [{child}]}}"))
}

fn told(text: &str) -> Vec<HttpRule> {
    Mesh::demo().told(&rules(text), "frontend", "reviews").ports.remove(0).http
}

fn uri(rule: &HttpRule, at: usize) -> Option<StringMatch> {
    rule.matches[at].uri.clone()
}

const ROOT: &str = "{name: all, match: [{uri: {prefix: /team}}], timeout: 3s, delegate: {name: child, namespace: team}}, {route: [{destination: {host: ratings}}]}";
const TO: &str = "route: [{destination: {host: reviews.default}}]";

#[test]
fn a_request_must_meet_both_and_what_the_delegate_says_goes_first() {
    let child = format!(
        "{{name: a, match: [{{uri: {{prefix: /team/a}}}}], timeout: 1s, {TO}}}, {{match: [{{method: {{exact: GET}}}}], {TO}}}"
    );
    let told = told(&family(ROOT, &child));
    assert_eq!(told.len(), 3);
    assert_eq!(uri(&told[0], 0), Some(StringMatch::Prefix("/team/a".into())));
    assert_eq!(uri(&told[1], 0), Some(StringMatch::Prefix("/team".into())));
    assert_eq!(told[1].matches[0].method, Some(StringMatch::Exact("GET".into())));
    let seconds = |rule: &HttpRule| rule.traffic.timeout.unwrap().as_secs();
    assert_eq!((seconds(&told[0]), seconds(&told[1])), (1, 3));
    assert_eq!(told[0].provenance.0, "VirtualService/team/child#all-a");
    assert_eq!(told[1].provenance.0, "VirtualService/team/child#all");
    assert_eq!(shown(told[0].targets()), ["reviews/*:80=100"]);
    assert_eq!(shown(told[2].targets()), ["ratings/*:80=100"]);
}

#[test]
fn a_rule_whose_conditions_lie_elsewhere_has_no_effect_and_that_is_said() {
    let child = format!("{{match: [{{uri: {{prefix: /other}}}}], {TO}}}, {{{TO}}}");
    let text = family(ROOT, &child);
    let told = told(&text);
    assert_eq!(told.len(), 2);
    assert_eq!(uri(&told[0], 0), Some(StringMatch::Prefix("/team".into())));
    let said = Mesh::demo().said(&rules(&text));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(
            "NoEffect spec.http[0].delegate: spec.http[0] of VirtualService/team/child"
        ),
        "{said:?}"
    );
}

#[test]
fn restrictions_of_both_are_kept() {
    let root = "{match: [{headers: {a: {prefix: x}}, withoutHeaders: {b: {}}, queryParams: {q: {}}}], delegate: {name: child, namespace: team}}";
    let child = format!(
        "{{match: [{{headers: {{a: {{exact: xy}}, c: {{}}}}, withoutHeaders: {{d: {{}}}}}}], {TO}}}"
    );
    let told = told(&family(root, &child));
    let merged = &told[0].matches[0];
    assert_eq!(merged.headers.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(merged.without_headers.keys().collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!(merged.query_params.keys().collect::<Vec<_>>(), ["q"]);
}

#[test]
fn a_delegate_that_is_absent_or_not_exported_dangles_and_its_share_goes_nowhere_else() {
    let absent = virtual_service("root", &format!("{{hosts: [reviews], http: [{ROOT}]}}"));
    let hidden = absent.clone()
        + &virtual_service("child.team", &format!("{{exportTo: ['.'], http: [{{{TO}}}]}}"));
    for (text, reason) in [
        (&absent, "there is no delegate `VirtualService/team/child`"),
        (&hidden, "the delegate `VirtualService/team/child` is not exported to `default`"),
    ] {
        let told = told(text);
        assert_eq!(shown(told[0].targets()), [format!("!{reason}=1")]);
        assert_eq!(uri(&told[0], 0), Some(StringMatch::Prefix("/team".into())));
        let said = Mesh::demo().said(&rules(text));
        assert!(
            said[0].starts_with(&format!("Dangling spec.http[0].delegate: {reason}")),
            "{said:?}"
        );
    }
}

#[test]
fn an_edit_may_not_take_a_delegate_or_its_target_away() {
    let child = format!("{{{TO}}}");
    let before = rules(&family(ROOT, &child));
    let demo = Mesh::demo();
    let without = rules(&virtual_service("root", &format!("{{hosts: [reviews], http: [{ROOT}]}}")));
    let broken = before.dangles_after(&without, &demo.0);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert_eq!(broken[0].field, "spec.http[0].delegate");
    let versioned = "{route: [{destination: {host: reviews.default, subset: v1}}]}";
    let with_subset = family(ROOT, versioned) + &destination_rule("r", VERSIONS);
    let broken = rules(&with_subset).dangles_after(&rules(&family(ROOT, versioned)), &demo.0);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(before.dangles_after(&before, &demo.0).is_empty());
}
