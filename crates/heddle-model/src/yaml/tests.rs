//! Whole files: what is read, what is refused and how it is told, what is noted.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::{
    discovery::{HeaderMatch, StringMatch},
    resource::{DestinationRule, FieldNote, VirtualService},
};

mod policies;
mod traffic;

const HEAD: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\n";
const RULE_HEAD: &str =
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n";

/// For bounds that only an algorithm of the wrong order breaks.
#[expect(clippy::disallowed_methods, reason = "the crate has no clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

fn accept(text: &str) -> Vec<Resource> {
    match parse("f.yaml", text, "default") {
        Ok(parsed) => parsed.resources,
        Err(errors) => panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()),
    }
}

fn refuse(text: &str) -> Vec<String> {
    let errors = parse("f.yaml", text, "default").expect_err("refused");
    errors.iter().map(ToString::to_string).collect()
}

/// The only error of a VirtualService with this spec, without the file's name.
fn wrong(spec: &str) -> String {
    only(refuse(&format!("{HEAD}spec:\n{spec}")))
}

fn only(errors: Vec<String>) -> String {
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].strip_prefix("f.yaml:").unwrap().to_owned()
}

fn virtual_service(text: &str) -> VirtualService {
    match accept(text).remove(0).spec {
        Spec::VirtualService(rule) => rule,
        other => panic!("{other:?}"),
    }
}

fn destination_rule(text: &str) -> DestinationRule {
    match accept(text).remove(0).spec {
        Spec::DestinationRule(rule) => rule,
        other => panic!("{other:?}"),
    }
}

fn notes(text: &str) -> Vec<String> {
    let note = |note: &FieldNote| format!("{} (line {})", note.field, note.line);
    accept(text).iter().flat_map(|resource| resource.not_enforced.iter().map(note)).collect()
}

/// `route` lines to complete a rule.
const ROUTE: &str = "    route: [{destination: {host: reviews}}]\n";

#[test]
fn a_canary_is_read_with_all_it_says() {
    let rule = virtual_service(
        "apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: reviews
  namespace: shop
  annotations: {team: a}
spec:
  hosts: [reviews, reviews.shop.svc.cluster.local]
  http:
  - name: canary
    match:
    - uri: {prefix: /reviews}
      ignoreUriCase: true
      headers: {End-User: {exact: jason}, x-any: {}}
      withoutHeaders: {x-debug: {regex: '1|true'}}
      queryParams: {v: {exact: '3'}, w: {}}
      port: 9080
      sourceLabels: {app: frontend}
      sourceNamespace: shop
    - method: {exact: GET}
    fault:
      delay: {percentage: {value: 80}, fixedDelay: 5s}
      abort: {percentage: {value: 0.5}, httpStatus: 503}
    route:
    - destination: {host: reviews, subset: v1}
      weight: 99
    - destination: {host: reviews, subset: v3, port: {number: 80}}
      weight: 1
  tcp:
  - match: [{port: 6379, destinationSubnets: [240.240.0.0/16]}]
    route: [{destination: {host: store}}]
",
    );
    assert_eq!(rule.hosts.len(), 2);
    assert_eq!(rule.host_lines, [8, 8]);
    let http = &rule.http[0];
    assert_eq!((http.name.as_str(), http.line), ("canary", 10));
    let one = &http.matches[0];
    assert_eq!(one.http.uri, Some(StringMatch::Prefix("/reviews".into())));
    assert!(one.http.ignore_uri_case);
    assert_eq!(
        one.http.headers["end-user"],
        HeaderMatch::Value(StringMatch::Exact("jason".into()))
    );
    assert_eq!(one.http.headers["x-any"], HeaderMatch::Present);
    assert_eq!(one.http.query_params["w"], StringMatch::Prefix(String::new()));
    assert_eq!(one.port, Some(9080));
    assert_eq!(one.source_labels["app"], "frontend");
    assert_eq!(one.source_namespace.as_deref(), Some("shop"));
    assert_eq!(http.matches[1].http.method, Some(StringMatch::Exact("GET".into())));
    let fault = http.fault.as_ref().unwrap();
    assert_eq!(fault.delay.as_ref().unwrap().duration, Duration::from_secs(5));
    assert!((fault.delay.as_ref().unwrap().percent - 80.0).abs() < 1e-9);
    assert_eq!(fault.abort.as_ref().unwrap().status, 503);
    let weights: Vec<_> = http.route.iter().map(|to| (to.subset.as_deref(), to.weight)).collect();
    assert_eq!(weights, [(Some("v1"), 99), (Some("v3"), 1)]);
    assert_eq!(http.route[1].port, Some(80));
    assert_eq!(rule.tcp[0].matches[0].port, Some(6379));
    assert_eq!(rule.tcp[0].matches[0].destination_subnets[0].1, 16);
    assert_eq!(rule.tcp[0].route[0].weight, 100, "a single destination takes all");
}

#[test]
fn identity_origin_and_text_are_kept() {
    let text = format!(
        "# first\n{HEAD}spec: {{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]}}]}}\n---\n"
    );
    let second = text.replace("name: r", "name: s, namespace: prod");
    let both = accept(&format!("{text}{second}"));
    assert_eq!(both[0].key.to_string(), "VirtualService/default/r");
    assert_eq!(both[1].key.to_string(), "VirtualService/prod/s");
    assert_eq!((both[0].origin.file.as_str(), both[0].origin.line), ("f.yaml", 2));
    assert_eq!(both[1].origin.line, 8);
    assert_eq!(format!("{}---\n", both[0].text), text);
    let again = accept(&both[1].text);
    assert_eq!((&again[0].key, &again[0].spec), (&both[1].key, &reline(&both[1], &again[0])));
}

/// `from`'s spec, if it says the same as `like`'s apart from lines.
fn reline(from: &Resource, like: &Resource) -> Spec {
    let strip = |resource: &Resource| format!("{:?}", resource.spec).replace(char::is_numeric, "");
    assert_eq!(strip(from), strip(like));
    like.spec.clone()
}

#[test]
fn lists_and_json_are_read_as_their_items() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
         "metadata": {"name": "a", "resourceVersion": "7", "managedFields": [{"x": 1}]},
         "spec": {"host": "a", "subsets": [{"name": "v1", "labels": {"version": "1"}}]},
         "status": {}}
    ]}"#;
    let items = accept(json);
    assert_eq!(items[0].key.to_string(), "DestinationRule/default/a");
    assert_eq!(items[0].origin.line, 2);
    let again = accept(&items[0].text);
    reline(&items[0], &again[0]);
    let broken = json.replace("\"host\"", "\"hots\"");
    let errors = refuse(&broken);
    assert_eq!(
        errors,
        ["f.yaml:4: items[0].spec.hots: unknown field `hots`; did you mean `host`?"]
    );
}

#[test]
fn all_errors_of_a_file_are_told_together_in_order() {
    let text = "apiVersion: networking.istio.io/v2
kind: VirtualService
metadata: {name: Reviews}
spec:
  hosts: [reviews]
  http:
  - match:
    - uri: {prefx: /a}
    route:
    - destination: {host: reviews, subset: v1}
      wieght: 99
    - destination: {subset: v2}
      weight: -1
---
kind: VirtualServise
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x}
spec: {host: reviews, subsets: [{name: v1}, {name: v1}]}
---
a: [
";
    let errors = refuse(text);
    let expected = [
        "f.yaml:1: apiVersion: unknown value `networking.istio.io/v2`; did you mean `networking.istio.io/v1`?",
        "f.yaml:3: metadata.name: `Reviews` has capitals: write `reviews`",
        "f.yaml:8: spec.http[0].match[0].uri.prefx: unknown field `prefx`; did you mean `prefix`?",
        "f.yaml:11: spec.http[0].route[0].wieght: unknown field `wieght`; did you mean `weight`?",
        "f.yaml:12: spec.http[0].route[1].destination.host: this field is required",
        "f.yaml:13: spec.http[0].route[1].weight: `-1` is out of range: use 0 to 2147483647",
        "f.yaml:15: kind: unknown kind `VirtualServise`; did you mean `VirtualService`?",
        "f.yaml:20: spec.subsets[1].name: the subset `v1` is defined twice",
    ];
    assert_eq!(errors[..8], expected);
    assert!(errors[8].contains("no YAML"), "{}", errors[8]);
    assert_eq!(errors.len(), 9);
}

#[test]
fn wrong_types_say_what_belongs_there() {
    let host = "  hosts: [reviews]\n  http:\n  - ";
    for (spec, error) in [
        (
            "route: {destination: {host: a}}",
            "7: spec.http[0].route: a mapping where a list belongs: begin each item with `- `",
        ),
        (
            "route: [{destination: reviews}]",
            "7: spec.http[0].route[0].destination: `reviews` where a mapping with `host`, `subset` or `port` belongs",
        ),
        (
            "route: [{destination: {host: a}, weight: '9'}]",
            "7: spec.http[0].route[0].weight: `9` is text: leave out the quotes",
        ),
        (
            "route: [{destination: {host: a}, weight: 1.5}]",
            "7: spec.http[0].route[0].weight: `1.5` is no whole number from 0 to 2147483647",
        ),
        (
            "route: [{destination: {host: a, subset: 1}}]",
            "7: spec.http[0].route[0].destination.subset: `1` is no text: put it in quotes, \"1\"",
        ),
        (
            "route: [{destination: {host: a, port: 80}}]",
            "7: spec.http[0].route[0].destination.port: `80` where a mapping with `number` belongs",
        ),
        (
            "route: [{destination: {host: a, port: {number: 70000}}}]",
            "7: spec.http[0].route[0].destination.port.number: `70000` is out of range: use 1 to 65535",
        ),
        (
            "route: [{destination: {host: '*'}}]",
            "7: spec.http[0].route[0].destination.host: `*` names no service: use e.g. `reviews`",
        ),
        ("route: [~]", "7: spec.http[0].route[0]: the item is empty"),
        (
            "timeout: 5\n    route: [{destination: {host: a}}]",
            "7: spec.http[0].timeout: `5` has no unit: write e.g. `5s` or `5ms`",
        ),
    ] {
        assert_eq!(wrong(&format!("{host}{spec}\n")), error);
    }
    assert_eq!(
        wrong(&format!("  hosts: reviews\n  http:\n  -\n{ROUTE}")),
        "5: spec.hosts: `reviews` where a list belongs: begin each item with `- `"
    );
}

#[test]
fn matches_are_checked_as_istio_checks_them() {
    for (one, error) in [
        (
            "{uri: {exact: a, prefix: b}}",
            "match[0].uri.prefix: `exact` and `prefix` exclude each other: keep one",
        ),
        (
            "{uri: {regex: '('}}",
            "match[0].uri.regex: `(` is no valid regex (RE2 syntax): unclosed group",
        ),
        (
            "{uri: {regex: ''}}",
            "match[0].uri.regex: the regex is empty: leave the condition out, or write `.*` for any value",
        ),
        ("{headers: {a b: {exact: x}}}", "match[0].headers[\"a b\"]: `a b` is no header name"),
        ("{headers: {x: }}", "match[0].headers.x: no value: write `{}` for an empty one"),
        (
            "{headers: {x-a: {}, X-A: {}}}",
            "match[0].headers.X-A: the same header twice: names ignore case",
        ),
        ("{port: 65536}", "match[0].port: `65536` is out of range: use 1 to 65535"),
        (
            "{sourceNamespace: a_b}",
            "match[0].sourceNamespace: `a_b` is no DNS label: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
        ),
        (
            "{sourceLabels: {app: true}}",
            "match[0].sourceLabels.app: `true` is no text: put it in quotes, \"true\"",
        ),
        ("{ignoreUriCase: maybe}", "match[0].ignoreUriCase: `maybe` is neither `true` nor `false`"),
        (
            "{sourceLabels: {app: 010}}",
            "match[0].sourceLabels.app: `010` means 8 and is no text: put it in quotes, \"010\"",
        ),
    ] {
        let spec = format!("  hosts: [a]\n  http:\n  - match: [{one}]\n{ROUTE}");
        assert_eq!(wrong(&spec), format!("7: spec.http[0].{error}"));
    }
    let long = format!(
        "  hosts: [a]\n  http:\n  - match: [{{uri: {{regex: '{}'}}}}]\n{ROUTE}",
        "a".repeat(1025)
    );
    assert!(wrong(&long).contains("1025 bytes"));
}

#[test]
fn faults_are_checked_as_istio_checks_them() {
    for (fault, error) in [
        ("{}", ": `delay` or `abort` is needed"),
        (
            "{delay: {percentage: {value: 101}, fixedDelay: 1s}}",
            ".delay.percentage.value: `101` is out of range: use 0 to 100",
        ),
        (
            "{delay: {percentage: {value: 0.00001}, fixedDelay: 1s}}",
            ".delay.percentage.value: too small a share: use 0, or 0.0001 to 100",
        ),
        (
            "{delay: {percent: 1.5, fixedDelay: 1s}}",
            ".delay.percent: `1.5` is no whole number from 0 to 100",
        ),
        ("{delay: {fixedDelay: 0s}}", ".delay.fixedDelay: `0s` is too short: use at least 1ms"),
        (
            "{delay: {fixedDelay: 5 seconds}}",
            ".delay.fixedDelay: `5 seconds` is no duration: use e.g. `5s`, `250ms` or `1m30s`",
        ),
        (
            "{delay: {exponentialDelay: 1s}}",
            ".delay.exponentialDelay: Istio knows no such delay either: use `fixedDelay`",
        ),
        ("{abort: {httpStatus: 601}}", ".abort.httpStatus: `601` is out of range: use 200 to 600"),
        ("{abort: {httpStatus: 0}}", ".abort.httpStatus: `0` is out of range: use 200 to 600"),
        (
            "{abort: {httpStatus: 500, grpcStatus: INTERNAL}}",
            ".abort.grpcStatus: `httpStatus` and `grpcStatus` exclude each other: keep one",
        ),
        (
            "{abort: {http2Error: x}}",
            ".abort.http2Error: Istio does not carry this out either: use `httpStatus`",
        ),
        (
            "{abort: {percentage: 80, httpStatus: 500}}",
            ".abort.percentage: `80` where a mapping with `value` belongs",
        ),
    ] {
        let spec = format!("  hosts: [a]\n  http:\n  - fault: {fault}\n{ROUTE}");
        assert_eq!(wrong(&spec), format!("7: spec.http[0].fault{error}"));
    }
}

#[test]
fn percentages_default_to_zero_and_the_deprecated_form_counts() {
    let percent = |delay: &str| {
        let text =
            format!("{HEAD}spec:\n  hosts: [a]\n  http:\n  - fault: {{delay: {delay}}}\n{ROUTE}");
        virtual_service(&text).http[0].fault.as_ref().unwrap().delay.as_ref().unwrap().percent
    };
    assert!((percent("{percent: 30, fixedDelay: 1s}") - 30.0).abs() < 1e-9);
    assert!((percent("{percent: 30, percentage: {value: 5}, fixedDelay: 1s}") - 5.0).abs() < 1e-9);
    assert!(percent("{fixedDelay: 1s}").abs() < 1e-9);
}

#[test]
fn routes_are_checked_as_istio_checks_them() {
    for (rule, error) in [
        (
            "match: [{uri: {exact: /}}]",
            ": one of `route`, `redirect`, `directResponse` or `delegate` is needed",
        ),
        ("route: []", ": one of `route`, `redirect`, `directResponse` or `delegate` is needed"),
        (
            "{redirect: {uri: /}, route: [{destination: {host: a}}]}",
            ".redirect: `route` and `redirect` exclude each other: keep one",
        ),
        (
            "{redirect: {uri: /}, fault: {abort: {httpStatus: 500}}}",
            ".fault: `fault` has no meaning beside `redirect`: remove one",
        ),
        (
            "redirect: {}",
            ".redirect: `uri`, `prefixRewrite`, `authority`, `port`, `derivePort` or `scheme` is needed",
        ),
        (
            "redirect: {uri: /, redirectCode: 200}",
            ".redirect.redirectCode: `200` is out of range: use 300 to 399",
        ),
        (
            "directResponse: {status: 700}",
            ".directResponse.status: `700` is out of range: use 200 to 600",
        ),
        (
            "{delegate: {name: x}, route: [{destination: {host: a}}]}",
            ".delegate: `route` and `delegate` exclude each other: keep one",
        ),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]",
            ".route: the weights sum to 0: give at least one destination a `weight`",
        ),
        (
            "{retries: {retryOn: 5xx}, route: [{destination: {host: a}}]}",
            ".retries.retryOn: `attempts` is 0, which switches retries off: set it, or remove this",
        ),
        (
            "{retries: {attempts: 2, retryOn: 'gateway-errors'}, route: [{destination: {host: a}}]}",
            ".retries.retryOn: unknown retry condition `gateway-errors`; did you mean `gateway-error`?",
        ),
        (
            "{mirror: {host: a}, mirrors: [{destination: {host: b}}], route: [{destination: {host: a}}]}",
            ".mirrors: `mirror` and `mirrors` exclude each other: keep one",
        ),
        (
            "{rewrite: {}, route: [{destination: {host: a}}]}",
            ".rewrite: `uri`, `authority` or `uriRegexRewrite` is needed",
        ),
    ] {
        assert_eq!(
            wrong(&format!("  hosts: [a]\n  http:\n  - {rule}\n")),
            format!("7: spec.http[0]{error}")
        );
    }
}

#[test]
fn hosts_and_gateways_are_checked_as_istio_checks_them() {
    let rest = format!("  http:\n  -\n{ROUTE}");
    for (hosts, error) in [
        (
            "[]\n  gateways: [g]",
            "5: spec.hosts: a VirtualService without hosts is a delegate, and a delegate has no gateways",
        ),
        ("['*']", "5: spec.hosts[0]: `*` would take every call in the mesh: name the hosts"),
        ("[a.b, '*.b']", "5: spec.hosts[1]: overlaps with `a.b` of the same list: keep one"),
        (
            "[reviews_1]",
            "5: spec.hosts[0]: `reviews_1` is no DNS name: use letters, digits and `-` between dots, e.g. `reviews` or `*.example.com`",
        ),
    ] {
        assert_eq!(wrong(&format!("  hosts: {hosts}\n{rest}")), error);
    }
    assert_eq!(wrong("  hosts: [a]\n"), "5: spec: no rules: `http`, `tcp` or `tls` is needed");
    let gateway = format!("{HEAD}spec:\n  hosts: ['*']\n  gateways: [ns/gate]\n{rest}");
    assert!(virtual_service(&gateway).gateways_only);
    assert_eq!(notes(&gateway), ["spec.gateways[0] (line 6)"]);
    let both = gateway.replace("['*']", "[a]").replace("[ns/gate]", "[mesh, gate]");
    assert!(!virtual_service(&both).gateways_only);
    assert_eq!(notes(&both), ["spec.gateways[1] (line 6)"]);
}

#[test]
fn traffic_policies_are_checked_as_istio_checks_them() {
    for (policy, error) in [
        (
            "{loadBalancer: {simple: ROUNDROBIN}}",
            "loadBalancer.simple: unknown value `ROUNDROBIN`; did you mean `ROUND_ROBIN`?",
        ),
        (
            "{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
            "loadBalancer.consistentHash: `simple` and `consistentHash` exclude each other: keep one",
        ),
        (
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a: 60, b: 30}}]}}}",
            "loadBalancer.localityLbSetting.distribute[0].to: the shares sum to 90, not to 100",
        ),
        ("{connectionPool: {}}", "connectionPool: `tcp` or `http` is needed"),
        (
            "{connectionPool: {tcp: {maxConnections: -1}}}",
            "connectionPool.tcp.maxConnections: `-1` is out of range: use 0 to 2147483647",
        ),
        (
            "{outlierDetection: {maxEjectionPercent: 101}}",
            "outlierDetection.maxEjectionPercent: `101` is out of range: use 0 to 100",
        ),
        (
            "{outlierDetection: {consecutiveLocalOriginFailures: 3}}",
            "outlierDetection.consecutiveLocalOriginFailures: has no effect unless `splitExternalLocalOriginErrors` is true",
        ),
        (
            "{tls: {mode: MUTUAL, clientCertificate: /a}}",
            "tls.privateKey: MUTUAL needs this, or `credentialName`",
        ),
        (
            "{portLevelSettings: [{tls: {mode: DISABLE}}]}",
            "portLevelSettings[0].port: this field is required",
        ),
    ] {
        let text = format!("{RULE_HEAD}spec:\n  host: a\n  trafficPolicy: {policy}\n");
        assert_eq!(only(refuse(&text)), format!("6: spec.trafficPolicy.{error}"));
    }
}

/// Every field of Istio's VirtualService and DestinationRule, so that none is forgotten.
const EVERY_FIELD: &str = include_str!("tests/every_field.yaml");

#[test]
fn every_field_of_istio_is_accepted_and_what_has_no_effect_is_noted_once() {
    let noted = notes(EVERY_FIELD);
    assert!(noted.iter().any(|note| note.contains(".statPrefix ")), "{noted:#?}");
    let halves = |note: &&String| note.contains("trafficPolicy ");
    assert_eq!(noted.iter().find(halves), None, "a policy is noted by its parts");
    let enforced = [
        "match",
        "route",
        "fault",
        "hosts",
        "subsets[0].labels",
        "exportTo",
        "redirect",
        "directResponse",
        "rewrite",
        "headers",
        "timeout",
        "retries",
        "corsPolicy",
        "delegate",
    ];
    for field in enforced {
        assert!(!noted.iter().any(|note| note.contains(&format!(".{field} "))), "{field}");
    }
}

#[test]
fn kinds_are_told_by_their_group_and_twins_must_be_equal() {
    let named = |of: &str| format!("apiVersion: {of}\nmetadata: {{name: a}}\nspec: {{b: c}}\n");
    let kept = accept(&named("security.istio.io/v1\nkind: PeerAuthentication"));
    assert_eq!(kept[0].key.to_string(), "PeerAuthentication/default/a");
    assert!(kept[0].is_not_served() && kept[0].is_partial());
    assert_eq!(
        only(refuse("kind: Gateway\nspec: {a: b}\n")),
        "1: apiVersion: this field is required"
    );
    assert!(only(refuse("kind: Deployment\n")).contains("no `apiVersion` says whose it is"));
    let parsed = parse("f.yaml", &named("apps/v1\nkind: Deployment"), "default").unwrap();
    assert_eq!(parsed.skipped.line().unwrap(), "1 object skipped, no rules: 1 Deployment");
    assert!(only(refuse("- a\n")).contains("a resource belongs"));
    assert!(only(refuse("metadata: {name: a}\n")).contains("kind: this field is required"));
    let one = format!("{RULE_HEAD}spec: {{host: a}}\n");
    assert_eq!(accept(&format!("{one}---\n{one}")).len(), 1);
    assert_eq!(
        only(refuse(&format!("{one}---\n{}", one.replace("host: a", "host: b")))),
        "6: metadata.name: DestinationRule/default/r is also defined at line 1, and differs: keep one"
    );
}

#[test]
fn an_object_has_at_most_as_many_bytes_as_in_kubernetes() {
    let text = format!("{RULE_HEAD}spec: {{host: a}}\n# {}\n", "x".repeat(OBJECT_BYTES_MAX));
    let other = format!("---\n{RULE_HEAD}spec: {{hots: a}}\n");
    let told = refuse(&format!("{text}{other}"));
    assert!(told[0].contains("DestinationRule/default/r has 15"), "{told:?}");
    assert!(told[1].contains("hots"), "the others are checked all the same: {told:?}");
}

#[test]
fn own_annotations_say_something_on_a_virtual_service_and_misspelt_ones_are_refused() {
    let rule = |annotation: &str| {
        format!("{RULE_HEAD}spec: {{host: a}}\n")
            .replace("{name: r}", &format!("{{name: r, annotations: {{{annotation}}}}}"))
    };
    let misplaced = accept(&rule("heddle.dev/retry-unsafe: 'true'"));
    let note = &misplaced[0].not_enforced[0];
    assert_eq!(note.field, "metadata.annotations[\"heddle.dev/retry-unsafe\"]");
    assert!(note.reason.as_deref().is_some_and(|reason| reason.contains("VirtualService only")));
    assert!(only(refuse(&rule("heddle.dev/fault-expire: x"))).contains("did you mean"));
    assert_eq!(notes(&rule("example.com/x: x")), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_is_accepted_or_refused_but_never_panics(
        at in 0..EVERY_FIELD.len(), len in 0usize..40, with in "[ -~\n]{0,6}",
    ) {
        let mut text = EVERY_FIELD.to_owned();
        prop_assume!(text.is_char_boundary(at));
        let end = (at + len).min(text.len());
        prop_assume!(text.is_char_boundary(end));
        text.replace_range(at..end, &with);
        let lines = text.lines().count() + 1;
        if let Err(errors) = parse("f", &text, "default") {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|e| (1..=lines).contains(&e.line) && !e.reason.is_empty()));
        }
    }

    #[test]
    fn any_value_in_any_place_is_told_with_its_path(
        value in "[a-z0-9{}\\[\\]:, '\"*&.-]{0,12}",
    ) {
        let _ = parse("f", &format!("{HEAD}spec: {value}\n"), "default");
        let _ = parse("f", &format!("{HEAD}spec:\n  hosts: [a]\n  http: {value}\n"), "default");
        let _ = parse("f", &format!("{HEAD}spec:\n  hosts: [a]\n  http:\n  - fault: {value}\n"), "default");
    }
}

#[test]
fn a_subset_may_have_capitals_in_its_name() {
    let rule = destination_rule(&format!(
        "{RULE_HEAD}spec: {{host: reviews, subsets: [{{name: V2, labels: {{version: v2}}}}]}}"
    ));
    assert_eq!(rule.subsets[0].name, "V2");
    accept(&format!(
        "{HEAD}spec: {{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: V2}}}}]}}]}}"
    ));
}

#[test]
fn more_hosts_than_allowed_are_refused_and_many_headers_and_subsets_are_compared_quickly() {
    let hosts: Vec<String> = (0..100_000).map(|n| format!("h{n}")).collect();
    let told = wrong(&format!("  hosts: [{}]\n  http:\n  -\n{ROUTE}", hosts.join(", ")));
    assert!(told.starts_with("5: spec.hosts: 100000 hosts, more than the 1000 allowed"), "{told}");
    accept(&format!(
        "{HEAD}spec:\n  hosts: [{}]\n  http:\n  -\n{ROUTE}",
        hosts[..1_000].join(", ")
    ));

    let began = now();
    let headers: Vec<String> = (0..90_000).map(|n| format!("h{n}: {{}}")).collect();
    accept(&format!(
        "{HEAD}spec:\n  hosts: [a]\n  http:\n  - match: [{{headers: {{{}}}}}]\n{ROUTE}",
        headers.join(", ")
    ));
    let subsets: Vec<String> = (0..60_000).map(|n| format!("{{name: s{n}}}")).collect();
    accept(&format!("{RULE_HEAD}spec: {{host: a, subsets: [{}]}}", subsets.join(", ")));
    assert!(now() - began < Duration::from_secs(10), "{:?}", now() - began);
}
