//! What HTTP rules do with requests besides choosing where they go, as it is read.

use std::collections::BTreeMap;

use super::{HEAD, notes, virtual_service, wrong};
use crate::{
    discovery::{
        Answer, DirectResponse, HeaderRules, PathRewrite, Redirect, RedirectPath, StringMatch,
        Traffic,
    },
    resource::HttpRoute,
};

/// The one HTTP rule of a VirtualService.
fn http_rule(rule: &str) -> HttpRoute {
    let text = format!("{HEAD}spec:\n  hosts: [a]\n  http:\n  - {rule}\n");
    virtual_service(&text).http.remove(0)
}

/// What a rule with a route does besides routing.
fn traffic(parts: &str) -> Traffic {
    http_rule(&format!("{{{parts}, route: [{{destination: {{host: a}}}}]}}")).traffic
}

#[test]
fn answers_without_an_upstream_are_read() {
    let answer = |action: &str| http_rule(action).traffic.answer.unwrap();
    assert_eq!(
        answer("redirect: {uri: /x, authority: b, port: 81, scheme: https, redirectCode: 308}"),
        Answer::Redirect(Redirect {
            path: Some(RedirectPath::Whole("/x".into())),
            authority: Some("b".into()),
            port: Some(81),
            scheme: Some("https".into()),
            status: 308,
            drops_port: false,
        })
    );
    let Answer::Redirect(plain) = answer("redirect: {prefixRewrite: /x}") else { panic!() };
    assert_eq!((plain.status, plain.path), (301, Some(RedirectPath::Prefix("/x".into()))));
    assert!(http_rule("redirect: {derivePort: FROM_REQUEST_PORT}").redirect_to_called_port);
    for (body, bytes) in
        [("string: teapot", &b"teapot"[..]), ("bytes: AP8=", &[0, 255]), ("string: ''", b"")]
    {
        let given = answer(&format!("directResponse: {{status: 418, body: {{{body}}}}}"));
        let expected = DirectResponse { status: 418, body: bytes.to_vec() };
        assert_eq!(given, Answer::Direct(expected));
    }
}

#[test]
fn what_a_rule_changes_is_read() {
    let rewrite = traffic("rewrite: {uri: /b, authority: other}").rewrite.unwrap();
    assert_eq!(rewrite.path, Some(PathRewrite::Prefix("/b".into())));
    assert_eq!(rewrite.authority.as_deref(), Some("other"));
    let regex = traffic(r"rewrite: {uriRegexRewrite: {match: '^/a/(.*)$', rewrite: '/\1'}}");
    let Some(PathRewrite::Regex(regex)) = regex.rewrite.unwrap().path else { panic!() };
    assert_eq!((&*regex.pattern, &*regex.substitution), ("^/a/(.*)$", r"/\1"));
    let headers = traffic(
        "headers: {request: {set: {Host: b, X-A: c}, add: {x-b: d}, remove: [X-D]}, response: {remove: [server]}}",
    );
    let headers = headers.headers.unwrap();
    assert_eq!(headers.authority.as_deref(), Some("b"));
    assert_eq!(headers.request.set, BTreeMap::from([("x-a".into(), "c".into())]));
    assert_eq!(headers.request.add, BTreeMap::from([("x-b".into(), "d".into())]));
    assert_eq!(
        (headers.request.remove, headers.response.remove),
        (vec!["x-d".into()], vec!["server".into()])
    );
}

#[test]
fn a_substitution_that_names_no_group_is_refused() {
    let rule = "{rewrite: {uriRegexRewrite: {match: /a, rewrite: '\\1'}}, route: [{destination: {host: a}}]}";
    let error = wrong(&format!("  hosts: [a]\n  http:\n  - {rule}\n"));
    assert!(error.contains("rewrite: `\\1` is no text to put in place of a match"), "{error}");
}

#[test]
fn fields_that_delimit_a_message_are_noted_and_left_alone() {
    let headers =
        "headers: {request: {set: {Content-Length: '1'}, remove: [te]}, response: {add: {te: x}}}";
    let rule = format!("{{{headers}, route: [{{destination: {{host: a}}}}]}}");
    let text = format!("{HEAD}spec:\n  hosts: [a]\n  http:\n  - {rule}\n");
    assert_eq!(
        notes(&text),
        [
            "spec.http[0].headers.request.set.Content-Length (line 7)",
            "spec.http[0].headers.request.remove[0] (line 7)",
            "spec.http[0].headers.response.add.te (line 7)",
        ]
    );
    assert_eq!(traffic(headers).headers, Some(HeaderRules::default()));
}

#[test]
fn limits_and_retries_are_read_with_istios_defaults() {
    let seconds = |text: &str| traffic(&format!("timeout: {text}")).timeout.unwrap().as_secs();
    assert_eq!((seconds("2s"), seconds("0s")), (2, 0));
    let retries = |text: &str| traffic(&format!("retries: {{{text}}}")).retries.unwrap();
    let plain = retries("attempts: 3");
    assert_eq!((plain.attempts, plain.statuses.len()), (3, 0));
    assert_eq!(plain.conditions, ["connect-failure", "refused-stream", "unavailable", "cancelled"]);
    let all = retries(
        "attempts: 1, retryOn: '5xx,429,reset', perTryTimeout: 500ms, backoff: 1s, retryIgnorePreviousHosts: false",
    );
    assert_eq!(all.conditions, ["5xx", "reset"]);
    assert_eq!((all.statuses, all.same_endpoint), (vec![429], true));
    assert_eq!(all.per_try_timeout.unwrap().as_millis(), 500);
    assert_eq!(all.backoff.unwrap().as_secs(), 1);
    assert_eq!(retries("attempts: 0").attempts, 0);
}

#[test]
fn a_policy_for_other_origins_is_read() {
    let cors = |text: &str| traffic(&format!("corsPolicy: {{{text}}}")).cors.unwrap();
    let all = cors(
        "allowOrigins: [{exact: https://a}, {regex: 'https://.*'}], allowMethods: [GET, POST], allowHeaders: [x-a, x-b], exposeHeaders: [x-c], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE",
    );
    assert_eq!((&*all.methods, &*all.headers, &*all.expose), ("GET,POST", "x-a,x-b", "x-c"));
    assert_eq!((all.max_age, all.credentials, all.keeps_unmatched), (Some(86_400), true, true));
    assert_eq!(all.origins[0], StringMatch::Exact("https://a".into()));
    let older = cors("allowOrigin: ['*'], unmatchedPreflights: FORWARD");
    assert_eq!(older.origins, [StringMatch::Exact("*".into())]);
    assert_eq!((older.credentials, older.keeps_unmatched, older.max_age), (false, false, None));
}

#[test]
fn a_delegate_and_mirrors_are_read() {
    let delegate = http_rule("delegate: {name: other, namespace: team}").delegate.unwrap();
    assert_eq!((&*delegate.name, delegate.namespace.as_deref()), ("other", Some("team")));
    let shares = |parts: &str| -> Vec<_> {
        let rule = http_rule(&format!("{{{parts}, route: [{{destination: {{host: a}}}}]}}"));
        rule.mirrors.into_iter().map(|mirror| (mirror.to.host, mirror.percent)).collect()
    };
    assert_eq!(shares("mirror: {host: b}"), [("b".into(), 100.0)]);
    assert_eq!(shares("mirror: {host: b}, mirrorPercentage: {value: 0.5}"), [("b".into(), 0.5)]);
    assert_eq!(shares("mirror: {host: b}, mirrorPercent: 5"), [("b".into(), 5.0)]);
    let two =
        "mirrors: [{destination: {host: b}}, {destination: {host: c}, percentage: {value: 1}}]";
    assert_eq!(shares(two), [("b".into(), 100.0), ("c".into(), 1.0)]);
    let without_hosts =
        format!("{HEAD}spec:\n  http:\n  - route: [{{destination: {{host: a}}}}]\n");
    assert_eq!(notes(&without_hosts), Vec::<String>::new());
}
