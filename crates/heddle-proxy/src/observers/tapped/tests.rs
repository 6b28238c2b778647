//! What a filter means, what a line says, and what hostile clients cannot do to it.

use std::net::SocketAddr;

use heddle_model::ServiceName;
use heddle_runtime::clock;

use super::*;
use crate::{
    facts::{Answered, Ends, Finish, Injected, Place, Wanted},
    tap::Taps,
    testing::resources::workload,
};

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// A call of reviews by web, answered by reviews-v1.
fn answered(direction: Direction) -> Facts {
    let ends = Ends { remote: Some(at("10.0.0.1:40000")), called: at("240.240.0.5:9080") };
    let mut facts = Facts::of(Wanted::default(), direction, ends, clock::now());
    facts.started = Duration::from_millis(1_796_027_807_045);
    facts.request = Some(Request {
        method: "GET".to_owned(),
        target: "/reviews/7?x=1".to_owned(),
        authority: "reviews:9080".to_owned(),
        protocol: "HTTP/1.1",
        id: Some("id-1".to_owned()),
        fields: vec![
            ("user-agent".to_owned(), "curl/8".to_owned()),
            ("authorization".to_owned(), "Bearer abc".to_owned()),
            ("x-other".to_owned(), "another reader's".to_owned()),
        ],
        ..Request::default()
    });
    facts.upstream.workload = Some(Arc::new(workload("reviews-v1-1", "reviews", "v1")));
    facts.upstream.address = Some(Place::Address("240.241.0.9:9080".parse().unwrap()));
    facts.upstream.attempts = 1;
    facts.upstream.is_hop = true;
    facts.answer = Answered { details: Some("via_upstream"), ..Answered::default() };
    facts.finish = Finish {
        status: 200,
        duration: Duration::from_millis(15),
        received: 120,
        sent: 500,
        ..Finish::default()
    };
    facts
}

/// What a reader with this filter gets of it.
fn seen(facts: &Facts, query: &str) -> Option<TappedCall> {
    let taps = Arc::new(Taps::default());
    let mut reader = taps.attach(TapFilter::parse(query).unwrap()).unwrap();
    let client = facts.direction == Direction::Outbound;
    let (web, reviews) =
        (workload("web-1", "web", "v1"), workload("reviews-v1-1", "reviews", "v1"));
    let (own, peer) = if client { (web, reviews) } else { (reviews, web) };
    let service = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    let parties = Parties { peer: Some(Some(Arc::new(peer))), service: &service };
    let of = Of { own: &own, parties: &parties, pressed: Pressure::None };
    let set = taps.of(facts.direction)?;
    told(&set, facts, &of);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match reader.poll_line(&mut context) {
        std::task::Poll::Ready(Some(line)) => {
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
            match serde_json::from_slice(&line).unwrap() {
                TapLine::Call(call) => Some(*call),
                other => panic!("{other:?}"),
            }
        }
        _ => None,
    }
}

#[test]
fn a_line_says_who_called_whom_and_how_it_went() {
    let call = seen(&answered(Direction::Outbound), "").unwrap();
    assert_eq!((call.time.as_str(), call.side), ("2026-11-30T08:36:47.045Z", Side::Client));
    assert_eq!(
        (call.from.workload.as_deref(), call.from.id.as_deref()),
        (Some("web-v1"), Some("web-1"))
    );
    assert_eq!(call.to.service.as_deref(), Some("reviews.default.svc.cluster.local"));
    assert_eq!(call.to.id.as_deref(), Some("reviews-v1-1"));
    assert_eq!((call.method.as_str(), call.path.as_str()), ("GET", "/reviews/7?x=1"));
    assert_eq!((call.status, call.duration_ms, call.retries), (200, 15.0, 0));
    assert!(call.seen_by_callee && !call.failed());
    assert!(call.request_headers.is_empty(), "nobody asked for any");
    let call = seen(&answered(Direction::Inbound), "").unwrap();
    assert_eq!((call.side, call.sidecar.as_str()), (Side::Server, "reviews-v1-1"));
    assert_eq!(call.from.id.as_deref(), Some("web-1"));
    assert_eq!(call.to.id.as_deref(), Some("reviews-v1-1"));
}

#[test]
fn only_what_the_filter_asks_for_makes_a_line() {
    let facts = answered(Direction::Outbound);
    for meant in [
        "status=2xx",
        "status=404,200",
        "path=/reviews",
        "path=/*/7",
        "method=get",
        "method=POST,GET",
        "slower-than=14ms",
        "side=client",
        "to=reviews",
        "to=reviews.default",
        "to=reviews-v1-1",
        "from=web",
        "from=web-1",
        "namespace=default",
        "filter=response.code%20%3D%3D%20200",
        "to=reviews&from=web&status=200&path=/r&method=GET",
    ] {
        assert!(seen(&facts, meant).is_some(), "{meant}");
    }
    for other in [
        "status=5xx",
        "status=none",
        "status=failed",
        "path=/review/",
        "method=POST",
        "slower-than=15ms",
        "side=server",
        "to=web",
        "from=reviews",
        "namespace=shop",
        "unseen=1",
        "filter=response.code%20%3E%20200",
        "to=reviews&from=web&status=200&path=/x",
    ] {
        assert!(seen(&facts, other).is_none(), "{other}");
    }
}

#[test]
fn values_are_shown_on_request_and_secrets_never() {
    let mut facts = answered(Direction::Inbound);
    facts.request.as_mut().unwrap().target = "/a?token=t0p&x=1".to_owned();
    facts.request.as_mut().unwrap().authority = "me:pw@reviews".to_owned();
    facts.answer.fields = vec![("set-cookie".to_owned(), "id=1".to_owned())];
    let call = seen(&facts, "header=user-agent&header=authorization&header=set-cookie").unwrap();
    let shown: Vec<_> =
        call.request_headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(shown, [("authorization", "(hidden)"), ("user-agent", "curl/8")]);
    assert_eq!(call.response_headers["set-cookie"], "(hidden)");
    assert_eq!(
        (call.path.as_str(), call.authority.as_str()),
        ("/a?token=(hidden)&x=1", "(hidden)@reviews")
    );
}

#[test]
fn what_the_callee_does_not_tell_is_told_by_the_caller() {
    type Change = fn(&mut Facts);
    let changes: [(&str, Change, bool); 8] = [
        ("answered", |_| {}, false),
        ("left by the client", |facts| facts.finish.flags.set(Flag::DC), false),
        ("sent twice", |facts| facts.upstream.attempts = 2, true),
        ("never sent", |facts| facts.upstream.attempts = 0, true),
        ("to the outside", |facts| facts.upstream.is_hop = false, true),
        ("to nobody known", |facts| facts.upstream.workload = None, true),
        ("given up", |facts| facts.finish.flags.set(Flag::UT), true),
        (
            "with a fault",
            |facts| {
                facts.injected.push(Injected { what: "delay", rule: "r".to_owned() });
            },
            true,
        ),
    ];
    for (what, change, told) in changes {
        let mut facts = answered(Direction::Outbound);
        change(&mut facts);
        assert_eq!(seen(&facts, "unseen=1").is_some(), told, "{what}");
    }
}

#[test]
fn what_failed_is_found_whatever_it_speaks() {
    let mut facts = answered(Direction::Inbound);
    facts.finish.grpc = Grpc::Status(14);
    assert_eq!(seen(&facts, "status=failed").unwrap().grpc_status, Some(14));
    let mut facts = answered(Direction::Inbound);
    facts.request = None;
    facts.finish.status = 0;
    assert_eq!(seen(&facts, "").unwrap().protocol, "tcp");
    assert_eq!(seen(&facts, "").unwrap().request_id, None);
    facts.kept_as = Some("id-2".to_owned());
    assert_eq!(seen(&facts, "").unwrap().request_id.as_deref(), Some("id-2"));
    assert!(seen(&facts, "status=failed").is_none() && seen(&facts, "status=none").is_none());
    facts.finish.flags.set(Flag::UC);
    assert!(seen(&facts, "status=failed").is_some());
    assert!(seen(&facts, "path=/").is_none() && seen(&facts, "method=GET").is_none());
}

#[test]
fn hostile_texts_are_one_bounded_line() {
    let mut facts = answered(Direction::Inbound);
    let request = facts.request.as_mut().unwrap();
    request.target = format!("/\u{1b}[2J\n\"\\{}", "\u{1}".repeat(4_000));
    request.authority = "\u{7}".repeat(4_000);
    request.method = "\n".repeat(4_000);
    request.id = Some("\u{1}".repeat(4_000));
    request.fields = (0..16).map(|n| (format!("x-{n}"), "\u{1}".repeat(4_000))).collect();
    let query: Vec<String> = (0..16).map(|n| format!("header=x-{n}")).collect();
    let call = seen(&facts, &query.join("&")).unwrap();
    assert!(call.path.len() <= TAP_PATH_BYTES + 3 && call.path.ends_with('…'));
    assert_eq!(call.request_headers.len(), 16);
}

#[test]
fn a_caller_that_is_still_being_asked_for_is_left_to_the_reader() {
    let facts = answered(Direction::Inbound);
    let taps = Arc::new(Taps::default());
    let mut reader = taps.attach(TapFilter::parse("from=web").unwrap()).unwrap();
    let own = workload("reviews-v1-1", "reviews", "v1");
    let service = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    for (peer, expected) in [(None, true), (Some(None), false)] {
        let parties = Parties { peer, service: &service };
        let of = Of { own: &own, parties: &parties, pressed: Pressure::None };
        told(&taps.of(Direction::Inbound).unwrap(), &facts, &of);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert_eq!(reader.poll_line(&mut context).is_ready(), expected);
    }
}

#[test]
fn close_to_the_memory_limit_lines_are_lost_and_counted() {
    let facts = answered(Direction::Inbound);
    let taps = Arc::new(Taps::default());
    let reader = taps.attach(TapFilter::default()).unwrap();
    let own = workload("reviews-v1-1", "reviews", "v1");
    let service = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    let parties = Parties { peer: Some(None), service: &service };
    let of = Of { own: &own, parties: &parties, pressed: Pressure::Shrink };
    told(&taps.of(Direction::Inbound).unwrap(), &facts, &of);
    assert_eq!(reader.lost(), 1);
}
