//! Lines as Istio's users know them, and what hostile clients cannot do to them.

use std::{net::SocketAddr, time::Duration};

use heddle_model::yaml::log_format::{DEFAULT_JSON, DEFAULT_TEXT, parse};
use heddle_runtime::clock;

use super::*;
use crate::{
    direction::Direction,
    facts::{Answered, Ends, Finish, Place, Request, Wanted},
    refusal::Flags,
};

fn line(plan: &LinePlan, facts: &Facts, host: &str) -> String {
    let mut line = String::new();
    write(plan, facts, host, &mut line);
    line
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// A call of reviews that was answered.
fn answered() -> Facts {
    let ends = Ends { remote: Some(at("10.0.0.1:40000")), called: at("240.240.0.5:9080") };
    let mut facts = Facts::of(Wanted::default(), Direction::Outbound, ends, clock::now());
    facts.started = Duration::from_millis(1_796_027_807_045);
    facts.request = Some(Request {
        method: "GET".to_owned(),
        target: "/reviews/7?x=1".to_owned(),
        authority: "reviews:9080".to_owned(),
        scheme: "http".into(),
        protocol: "HTTP/1.1",
        id: Some("id-1".to_owned()),
        fields: vec![("user-agent".to_owned(), "curl/8".to_owned())],
        ..Request::default()
    });
    facts.upstream.cluster = Some("outbound|9080|v1|reviews.shop.svc.cluster.local".to_owned());
    facts.upstream.address = Some(Place::Address("240.241.0.9:9080".parse().unwrap()));
    facts.upstream.local = Some(at("240.241.0.2:51000"));
    facts.upstream.attempts = 1;
    facts.answer = Answered {
        service_time: Some(Duration::from_millis(13)),
        details: Some("via_upstream"),
        ..Answered::default()
    };
    facts.rule = Some("VirtualService/shop/reviews#http[0]".to_owned());
    facts.finish = Finish {
        status: 200,
        duration: Duration::from_millis(15),
        received: 120,
        sent: 500,
        ..Finish::default()
    };
    facts
}

fn text(format: &str) -> LinePlan {
    LinePlan::Text(parse(format.trim_end_matches('\n')).unwrap())
}

fn json(fields: &[(&str, &str)]) -> LinePlan {
    let read = |(name, format): &(&str, &str)| ((*name).to_owned(), parse(format).unwrap());
    LinePlan::Json(fields.iter().map(read).collect())
}

#[test]
fn the_default_text_is_istios() {
    assert_eq!(
        line(&text(DEFAULT_TEXT), &answered(), "client"),
        "[2026-11-30T08:36:47.045Z] \"GET /reviews/7?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 120 500 15 13 \"-\" \"curl/8\" \"id-1\" \"reviews:9080\" \"240.241.0.9:9080\" outbound|9080|v1|reviews.shop.svc.cluster.local 240.241.0.2:51000 240.240.0.5:9080 10.0.0.1:40000 - VirtualService/shop/reviews#http[0]\n"
    );
}

#[test]
fn the_default_json_has_istios_names_and_sorts() {
    let line = line(&json(DEFAULT_JSON), &answered(), "client");
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1);
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 24);
    assert_eq!(value["response_code"], 200);
    assert_eq!(value["duration"], 15);
    assert_eq!(value["upstream_service_time"], "13");
    assert_eq!(value["path"], "/reviews/7?x=1");
    assert_eq!(value["response_flags"], "-");
    for absent in ["x_forwarded_for", "requested_server_name", "connection_termination_details"] {
        assert_eq!(value[absent], Value::Null, "{absent}");
    }
}

#[test]
fn a_connection_without_requests_is_a_line_too() {
    let mut facts = answered();
    facts.request = None;
    facts.answer = Answered::default();
    facts.finish.status = 0;
    facts.server_name = Some("db.example.com".to_owned());
    let logged = line(&text(DEFAULT_TEXT), &facts, "client");
    assert!(logged.contains("\"- - -\" 0 - - - \"-\" 120 500 15 -"), "{logged}");
    assert!(logged.contains(" db.example.com "), "{logged}");
    // One that is refused has the id by which it is found again.
    facts.kept_as = Some("id-2".to_owned());
    assert_eq!(line(&text("%REQ(X-REQUEST-ID)% %REQ(USER-AGENT)%"), &facts, "client"), "id-2 -\n");
}

#[test]
fn a_rewritten_path_is_logged_as_it_came_and_as_it_went() {
    let mut facts = answered();
    facts.sent_path(Some("/v2/reviews/7"));
    let line = line(&text("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:PATH)%"), &facts, "client");
    assert_eq!(line, "/reviews/7?x=1 /v2/reviews/7?x=1\n");
}

#[test]
fn operators_say_what_they_are_for() {
    let mut facts = answered();
    facts.finish.grpc = Grpc::Status(4);
    let mut flags = Flags::default();
    flags.set(Flag::UT);
    facts.finish.flags = flags;
    for (format, expected) in [
        ("%START_TIME(%s.%3f)%", "1796027807.045"),
        ("%START_TIME(%F %T)%", "2026-11-30 08:36:47"),
        ("%REQ(USER-AGENT):3%", "cur"),
        ("%REQ(X-NONE)%|%REQ(X-NONE?USER-AGENT)%", "-|curl/8"),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "DeadlineExceeded 4"),
        ("%RESPONSE_FLAGS%", "UT"),
        ("%DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "9080 10.0.0.1"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %HOSTNAME% %TRACE_ID%", "1 client -"),
        ("100%%", "100%"),
    ] {
        assert_eq!(line(&text(format), &facts, "client"), format!("{expected}\n"), "{format}");
    }
    assert_eq!(line(&json(&[("a", "x %DURATION% y")]), &facts, "c"), "{\"a\":\"x 15 y\"}\n");
    assert_eq!(grpc_name(1), "Canceled");
    assert_eq!(grpc_name(0), "OK");
}

#[test]
fn a_client_cannot_make_a_line_of_its_own() {
    let mut facts = answered();
    let hostile = "x\" 200\n[2026] \"GET /forged\r\0\u{1b}[31m\u{2028}\u{202e}\\";
    let request = facts.request.as_mut().unwrap();
    request.target = hostile.to_owned();
    request.fields = vec![("user-agent".to_owned(), hostile.to_owned())];
    let made = line(&text(DEFAULT_TEXT), &facts, "client");
    assert_eq!(made.matches('\n').count(), 1, "{made}");
    assert!(!made.chars().any(|one| one.is_control() && one != '\n'), "{made:?}");
    assert!(!made.contains(['\u{2028}', '\u{202e}']), "{made:?}");
    assert!(made.contains("x\\\" 200\\n[2026] \\\"GET /forged\\r\\u{0}\\u{1b}[31m"), "{made}");
    let made = line(&json(DEFAULT_JSON), &facts, "client");
    assert_eq!(made.matches('\n').count(), 1, "{made}");
    let value: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(value["user_agent"], hostile);
}
