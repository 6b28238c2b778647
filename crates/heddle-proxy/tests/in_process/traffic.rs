//! What a rule changes about requests and answers, and what it answers itself.

use std::collections::BTreeMap;

use heddle_model::discovery::{
    Answer, CorsPolicy, DirectResponse, HeaderOperations, HeaderRules, HttpMatch, HttpRule,
    PathRewrite, Redirect, RedirectPath, RegexRewrite, Rewrite, RuleAction, StringMatch,
};

use crate::mesh::{End, GET, Mesh, with_standing_clock};

/// Answers every request with its head, and with a field of its own.
async fn echoes(mut end: End) {
    while let Some((head, _)) = end.message().await {
        end.send(&format!(
            "HTTP/1.1 200 OK\r\nServer: app\r\nX-Own: 1\r\nContent-Length: {}\r\n\r\n{head}",
            head.len()
        ))
        .await;
    }
}

/// A mesh under this rule, and what the client is answered: head and body, in small letters.
async fn asked(rule: impl FnOnce(&mut HttpRule), request: &str) -> (Mesh, String, String) {
    let mesh = Mesh::ruled(&[20], rule, echoes);
    let (head, body) = mesh.call().ask(request).await;
    (mesh, head.to_ascii_lowercase(), body.to_ascii_lowercase())
}

fn for_prefix(rule: &mut HttpRule, prefix: &str) {
    let uri = Some(StringMatch::Prefix(prefix.into()));
    rule.matches = vec![HttpMatch { uri, ..HttpMatch::default() }];
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: reviews\r\n\r\n")
}

#[test]
fn a_redirect_is_answered_by_the_callers_sidecar_and_counted_with_its_status() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            for_prefix(rule, "/old");
            rule.action = RuleAction::Refuse("for older sidecars".into());
            rule.traffic.answer = Some(Answer::Redirect(Redirect {
                path: Some(RedirectPath::Prefix("/new".into())),
                scheme: Some("https".into()),
                status: 308,
                ..Redirect::default()
            }));
        };
        let (mesh, head, body) = asked(rule, &get("/x/../old/a?q=1")).await;
        assert!(head.starts_with("http/1.1 308 permanent redirect\r\n"), "{head}");
        assert!(head.contains("location: https://reviews/new/a?q=1\r\n"), "{head}");
        assert!(head.contains("content-length: 0\r\n") && body.is_empty(), "{head}");
        assert!(!head.contains("x-heddle-refusal"), "{head}");
        let labels = [
            "response_code=\"308\"",
            "response_flags=\"-\"",
            "destination_service_name=\"reviews\"",
        ];
        assert_eq!(mesh.client.requests(&labels), 1.0);
        assert_eq!(mesh.connects(), 0);
        assert_eq!(mesh.client.sum("heddle_refusals_total", &[]), 0.0);
    });
}

#[test]
fn a_direct_response_is_given_and_the_connection_goes_on() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            rule.traffic.answer =
                Some(Answer::Direct(DirectResponse { status: 418, body: b"teapot".to_vec() }));
            let set = BTreeMap::from([("x-a".into(), "b".into())]);
            let response = HeaderOperations { set, ..HeaderOperations::default() };
            rule.traffic.headers = Some(HeaderRules { response, ..HeaderRules::default() });
        };
        let mesh = Mesh::ruled(&[20], rule, echoes);
        let mut end = mesh.call();
        for request in [GET, crate::mesh::POST, GET] {
            let (head, body) = end.ask(request).await;
            assert!(head.starts_with("HTTP/1.1 418 I'm a Teapot\r\n"), "{head}");
            assert!(head.contains("content-type: text/plain\r\n"), "{head}");
            assert!(head.contains("x-a: b\r\n"), "as of any answer: {head}");
            assert_eq!(body, "teapot");
        }
        end.send("HEAD / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n").await;
        let head = end.head().await.expect("a head");
        assert!(head.contains("content-length: 6\r\n"), "{head}");
        assert_eq!(end.body(1).await, 0, "no body behind HEAD");
    });
}

#[test]
fn the_matched_prefix_of_the_canonical_path_is_rewritten_and_the_query_stays() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            for_prefix(rule, "/v1");
            rule.traffic.rewrite = Some(Rewrite {
                path: Some(PathRewrite::Prefix("/api/v2".into())),
                authority: Some("other.example:81".into()),
            });
        };
        let (_, _, body) = asked(rule, &get("/x/../%761/a%2fb?q=/v1")).await;
        assert!(body.starts_with("get /api/v2/a%2fb?q=/v1 http/1.1\r\n"), "{body}");
        assert!(body.contains("\r\nhost: other.example:81\r\n"), "{body}");
        assert!(body.contains("\r\nx-envoy-original-path: /v1/a%2fb?q=/v1\r\n"), "{body}");
        assert!(body.contains("\r\nx-envoy-original-host: reviews\r\n"), "{body}");
        assert_eq!(body.matches("\r\nhost:").count(), 1, "{body}");
    });
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            rule.traffic.rewrite = Some(Rewrite { path: None, authority: Some("other".into()) });
        };
        let (_, _, body) =
            asked(rule, "GET http://reviews/a HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        assert!(body.starts_with("get http://other/a http/1.1\r\n"), "{body}");
        assert!(body.contains("\r\nhost: other\r\n"), "{body}");
    });
}

#[test]
fn a_path_is_rewritten_by_pattern() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            rule.traffic.rewrite = Some(Rewrite {
                path: Some(PathRewrite::Regex(RegexRewrite {
                    pattern: "^/service/([^/]+)(/.*)$".into(),
                    substitution: r"\2/instance/\1".into(),
                })),
                authority: None,
            });
        };
        let (_, _, body) = asked(rule, &get("/service/foo/v1/api?x")).await;
        assert!(body.starts_with("get /v1/api/instance/foo?x http/1.1\r\n"), "{body}");
    });
}

#[test]
fn fields_of_the_target_are_changed_before_those_of_the_rule() {
    let operations = |remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]| {
        let map = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        HeaderOperations {
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
            set: map(set),
            add: map(add),
        }
    };
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            let RuleAction::Forward(targets) = &mut rule.action else { panic!("refuses") };
            targets[0].headers = Some(Box::new(HeaderRules {
                request: operations(&[], &[("x-a", "target"), ("x-b", "target")], &[]),
                response: operations(&["server"], &[], &[]),
                authority: Some("target".into()),
            }));
            rule.traffic.headers = Some(HeaderRules {
                request: operations(
                    &["x-c", "x-request-id"],
                    &[("x-a", "rule")],
                    &[("x-d", "added")],
                ),
                response: operations(&[], &[("x-own", "2")], &[("x-own", "3")]),
                authority: None,
            });
        };
        let request =
            "GET / HTTP/1.1\r\nHost: reviews\r\nX-A: sent\r\nX-C: sent\r\nX-D: sent\r\n\r\n";
        let (_, head, body) = asked(rule, request).await;
        assert!(body.contains("\r\nx-a: rule\r\n") && body.matches("x-a:").count() == 1, "{body}");
        assert!(body.contains("\r\nx-b: target\r\n"), "{body}");
        assert!(!body.contains("x-c:"), "{body}");
        assert!(
            body.contains("\r\nx-d: sent\r\n") && body.contains("\r\nx-d: added\r\n"),
            "{body}"
        );
        assert!(body.contains("\r\nhost: target\r\n"), "{body}");
        assert!(!head.contains("server:"), "{head}");
        assert!(head.contains("\r\nx-own: 2\r\n") && head.contains("\r\nx-own: 3\r\n"), "{head}");
        assert!(!head.contains("x-own: 1"), "{head}");
    });
}

#[test]
fn hundreds_of_changes_are_carried_out() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            let set = (0..110).map(|n| (format!("x-{n}"), n.to_string())).collect();
            let request = HeaderOperations { set, ..HeaderOperations::default() };
            rule.traffic.headers = Some(HeaderRules { request, ..HeaderRules::default() });
            let set = (110..220).map(|n| (format!("x-{n}"), n.to_string())).collect();
            let RuleAction::Forward(targets) = &mut rule.action else { panic!("refuses") };
            let request = HeaderOperations { set, ..HeaderOperations::default() };
            targets[0].headers = Some(Box::new(HeaderRules { request, ..HeaderRules::default() }));
        };
        let (_, _, body) =
            asked(rule, "GET / HTTP/1.1\r\nHost: r\r\nX-0: a\r\nX-219: a\r\n\r\n").await;
        for n in 0..220 {
            assert_eq!(body.matches(&format!("\r\nx-{n}: {n}\r\n")).count(), 1, "{n}: {body}");
        }
        assert!(!body.contains(": a\r\n"), "{body}");
    });
}

#[test]
fn a_preflight_is_answered_by_the_callers_sidecar_and_the_answer_says_who_may_read_it() {
    let policy = |rule: &mut HttpRule| {
        rule.traffic.cors = Some(CorsPolicy {
            origins: vec![StringMatch::Exact("https://a.example".into())],
            methods: "GET,PUT".into(),
            headers: "x-a".into(),
            expose: "x-own".into(),
            max_age: Some(600),
            credentials: true,
            keeps_unmatched: false,
        });
    };
    let from = |method: &str, origin: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: reviews\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
        )
    };
    with_standing_clock(|| async {
        let (mesh, head, body) = asked(policy, &from("OPTIONS", "https://a.example")).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n") && body.is_empty(), "{head}{body}");
        for field in [
            "access-control-allow-origin: https://a.example",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: get,put",
            "access-control-allow-headers: x-a",
            "access-control-max-age: 600",
        ] {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field}: {head}");
        }
        assert_eq!(mesh.connects(), 0);
        assert_eq!(mesh.client.requests(&["response_code=\"200\"", "response_flags=\"-\""]), 1.0);
    });
    with_standing_clock(|| async {
        let (_, head, body) = asked(policy, &from("GET", "https://a.example")).await;
        assert!(body.starts_with("get / "), "{body}");
        assert!(head.contains("\r\naccess-control-allow-origin: https://a.example\r\n"), "{head}");
        assert!(head.contains("\r\naccess-control-expose-headers: x-own\r\n"), "{head}");
    });
    with_standing_clock(|| async {
        let (_, head, body) = asked(policy, &from("OPTIONS", "https://b.example")).await;
        assert!(body.starts_with("options / "), "it is the service's to answer: {body}");
        assert!(!head.contains("access-control"), "{head}");
    });
}

#[test]
fn a_refusal_can_be_read_by_a_script_and_has_the_fields_of_the_rule() {
    with_standing_clock(|| async {
        let rule = |rule: &mut HttpRule| {
            rule.traffic.cors = Some(CorsPolicy {
                origins: vec![StringMatch::Exact("*".into())],
                ..CorsPolicy::default()
            });
            let set = BTreeMap::from([("x-a".into(), "b".into())]);
            let response = HeaderOperations { set, ..HeaderOperations::default() };
            rule.traffic.headers = Some(HeaderRules { response, ..HeaderRules::default() });
        };
        let mesh = Mesh::ruled(&[20], rule, echoes);
        mesh.desert(20);
        let request = "GET / HTTP/1.1\r\nHost: reviews\r\nOrigin: https://a\r\n\r\n";
        let (head, _) = mesh.call().ask(request).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("access-control-allow-origin: https://a\r\n"), "{head}");
        assert!(head.contains("x-a: b\r\n") && head.contains("x-heddle-refusal: "), "{head}");
    });
}

/// The Gateway API's status for what is absent; Istio's is the default.
#[test]
fn what_is_absent_is_refused_with_the_status_of_the_rules_dialect() {
    with_standing_clock(|| async {
        let rule = |status: Option<u16>| {
            move |rule: &mut HttpRule| {
                rule.action =
                    RuleAction::Forward(vec![heddle_testkit::resources::dangling("no `nobody`")]);
                rule.traffic.absent_status = status;
            }
        };
        let (mesh, head, body) = asked(rule(Some(500)), GET).await;
        assert!(head.starts_with("http/1.1 500 internal server error\r\n"), "{head}");
        assert!(head.contains("x-heddle-refusal: dangling-target; hop=outbound@"), "{head}");
        assert!(body.contains("no `nobody`"), "{body}");
        let labels = ["response_code=\"500\"", "response_flags=\"NC\""];
        assert_eq!(mesh.client.requests(&labels), 1.0);
        let (_, head, _) = asked(rule(None), GET).await;
        assert!(head.starts_with("http/1.1 503 "), "{head}");
    });
}
