//! Destination, route, fault and endpoint: what the rules say is what happens.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use heddle_model::{
    Address, EndpointState, Owner, Protocol,
    discovery::{Fault, FaultAbort, FaultDelay, HeaderMatch, HttpMatch, RuleAction, StringMatch},
};

use heddle_runtime::clock;
use heddle_testkit::resources::dangling;

use crate::support::{
    Backend, Peer, Sidecar, TestService, field, get, http_server, name_of, nobody, workload,
};

/// Backends on the same port of several loopback addresses, each answering with its address.
fn backends(count: u8) -> (Vec<Backend>, Vec<SocketAddr>) {
    let first = Backend::http(|_, _| "1".into());
    let port = first.address.port();
    let mut all = vec![first];
    for n in 2..=count {
        let address = SocketAddr::from(([127, 0, 0, n], port));
        all.push(Backend::at(address, http_server(move |_, _| n.to_string())));
    }
    let addresses = all.iter().map(|backend| backend.address).collect();
    (all, addresses)
}

/// How often each backend answered in `count` requests.
fn answers(address: SocketAddr, count: usize, request: &str) -> BTreeMap<String, usize> {
    let mut client = Peer::connect(address);
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(client.ask(request).1).or_insert(0) += 1;
    }
    answers
}

#[test]
fn requests_of_one_connection_are_balanced_over_all_endpoints() {
    let (_all, addresses) = backends(3);
    let sidecar = Sidecar::start();
    let address = sidecar.service(&TestService::speaking(Protocol::Http, &addresses));
    let answers = answers(address, 300, &get("/"));
    // How evenly depends on the latencies measured here, so on the machine.
    assert_eq!(answers.len(), 3, "{answers:?}");
}

#[test]
fn weights_and_matches_decide_over_subsets_and_an_edit_holds_for_the_next_request() {
    let (_all, addresses) = backends(2);
    let sidecar = Sidecar::start();
    let mut service = TestService::speaking(Protocol::Http, &addresses);
    service.endpoints[0].1 = "v1";
    service.endpoints[1].1 = "v2";
    let jason = HttpMatch {
        headers: BTreeMap::from([(
            "end-user".to_owned(),
            HeaderMatch::Value(StringMatch::Exact("jason".into())),
        )]),
        ..HttpMatch::default()
    };
    let mut to_v2 = service.rule(vec![service.target(Some("v2"), 100)]);
    to_v2.matches = vec![jason];
    let split = service.rule(vec![service.target(Some("v1"), 90), service.target(Some("v2"), 10)]);
    service.http = vec![to_v2, split];
    let address = sidecar.service(&service);
    let mut client = Peer::connect(address);
    for _ in 0..20 {
        let request = "GET / HTTP/1.1\r\nHost: r\r\nend-user: jason\r\n\r\n";
        assert_eq!(client.ask(request).1, "2");
    }
    let shares = answers(address, 500, &get("/"));
    assert!((420..480).contains(&shares["1"]), "{shares:?}");
    // The same client connection sees the edit with its next request.
    service.http = vec![service.rule(vec![service.target(Some("v1"), 1)])];
    sidecar.told(|set| service.tell(set));
    let request = "GET / HTTP/1.1\r\nHost: r\r\nend-user: jason\r\n\r\n";
    assert_eq!(client.ask(request).1, "1");
}

#[test]
fn a_request_that_no_rule_matches_is_refused_with_nr() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let mut service = TestService::http(backend.address);
    let mut only = service.rule(vec![service.target(None, 1)]);
    only.matches =
        vec![HttpMatch { uri: Some(StringMatch::Prefix("/only".into())), ..HttpMatch::default() }];
    service.http = vec![only];
    let mut client = Peer::connect(sidecar.service(&service));
    assert!(client.ask(&get("/only/this")).0.starts_with("HTTP/1.1 200 "));
    let (head, body) = client.ask(&get("/other"));
    assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
    let refusal = field(&head, "x-heddle-refusal").unwrap();
    assert!(refusal.starts_with("no-route; hop=outbound@client-1; rule=-; id="), "{refusal}");
    assert!(body.contains("reviews.default.svc.cluster.local"), "{body}");
    assert!(client.ask(&get("/only")).0.starts_with("HTTP/1.1 200 "), "the connection goes on");
    sidecar.settled();
    let flags = ["response_code=\"404\"", "response_flags=\"NR\""];
    assert_eq!(sidecar.sum("istio_requests_total", &flags), 1.0);
}

#[test]
fn rules_see_the_canonical_path_and_the_server_sees_what_they_saw() {
    let backend = Backend::http(|head, _| head.lines().next().unwrap().to_owned());
    let sidecar = Sidecar::start();
    let mut service = TestService::http(backend.address);
    let mut to_admin = service.rule(vec![service.target(None, 1)]);
    to_admin.matches =
        vec![HttpMatch { uri: Some(StringMatch::Exact("/admin".into())), ..HttpMatch::default() }];
    service.http = vec![to_admin];
    let mut client = Peer::connect(sidecar.service(&service));
    for target in ["/admin", "/a/../admin", "/%61dmin", "/.\\admin"] {
        assert_eq!(client.ask(&get(target)).1, "GET /admin HTTP/1.1", "{target}");
    }
    assert_eq!(client.ask(&get("/x/%2e./admin?q=/../%61")).1, "GET /admin?q=/../%61 HTTP/1.1");
    for target in ["/admin/..", "/a%2F..%2Fadmin", "//admin"] {
        assert!(client.ask(&get(target)).0.starts_with("HTTP/1.1 404 "), "{target}");
    }
}

#[test]
fn a_percent_sign_goes_on_as_it_came_and_a_path_without_a_form_is_refused() {
    let backend = Backend::http(|head, _| head.lines().next().unwrap().to_owned());
    let sidecar = Sidecar::start();
    let mut service = TestService::http(backend.address);
    let mut by_path = service.rule(vec![service.target(None, 1)]);
    by_path.matches =
        vec![HttpMatch { uri: Some(StringMatch::Prefix("/".into())), ..HttpMatch::default() }];
    service.http = vec![by_path];
    let address = sidecar.service(&service);
    let mut client = Peer::connect(address);
    for target in ["/sale-50%", "/a%zz?b=%00"] {
        assert_eq!(client.ask(&get(target)).1, format!("GET {target} HTTP/1.1"));
    }
    for target in ["/a%00", "/a#f"] {
        let (head, _) = Peer::connect(address).ask(&get(target));
        assert!(head.starts_with("HTTP/1.1 400 "), "{target}: {head}");
    }
}

#[test]
fn without_a_rule_about_the_path_it_goes_on_as_it_came() {
    let backend = Backend::http(|head, _| head.lines().next().unwrap().to_owned());
    let sidecar = Sidecar::start();
    let mut service = TestService::http(backend.address);
    service.http = vec![service.rule(vec![service.target(None, 1)])];
    let mut client = Peer::connect(sidecar.service(&service));
    let line = "GET /a/../%61?b#c HTTP/1.1";
    assert_eq!(client.ask(&get("/a/../%61?b#c")).1, line);
}

#[test]
fn a_dangling_share_is_refused_with_nc_and_the_missing_reference() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let mut service = TestService::http(backend.address);
    let target = dangling("subset v9 of reviews");
    service.http = vec![service.rule(vec![target])];
    let mut client = Peer::connect(sidecar.service(&service));
    let (head, body) = client.ask(&get("/"));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let refusal = field(&head, "x-heddle-refusal").unwrap();
    assert!(refusal.contains("dangling-target"), "{refusal}");
    assert!(refusal.contains("rule=VirtualService/default/reviews#http[0]"), "{refusal}");
    assert!(body.contains("subset v9 of reviews"), "{body}");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_dangling_share_does_not_lessen_the_share_of_injected_aborts() {
    const ASKED: usize = 400;
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::with_seed(3);
    let abort = FaultAbort { status: 500, percent: 80.0, grpc: None };
    let mut service = with_fault(&backend, Fault { abort: Some(abort), ..Fault::default() });
    let targets = vec![service.target(None, 1), dangling("subset v9 of reviews")];
    service.http[0].action = RuleAction::Forward(targets);
    let mut client = Peer::connect(sidecar.service(&service));
    let heads: Vec<String> = (0..ASKED).map(|_| client.ask(&get("/")).0).collect();
    let share = |code: &str| heads.iter().filter(|head| head.contains(code)).count() * 100 / ASKED;
    assert!((74..=86).contains(&share("fault-abort")), "{}", share("fault-abort"));
    assert!((5..=15).contains(&share("dangling-target")), "{}", share("dangling-target"));
}

fn with_fault(backend: &Backend, fault: Fault) -> TestService {
    let mut service = TestService::http(backend.address);
    let mut rule = service.rule(vec![service.target(None, 1)]);
    rule.fault = Some(fault);
    service.http = vec![rule];
    service
}

#[test]
fn an_abort_takes_its_share_never_reaches_the_server_and_is_never_retried() {
    const ASKED: usize = 1000;
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::with_seed(1);
    let abort = FaultAbort { status: 500, percent: 80.0, grpc: None };
    let fault = Fault { abort: Some(abort), ..Fault::default() };
    let mut client = Peer::connect(sidecar.service(&with_fault(&backend, fault)));
    let aborted = (0..ASKED)
        .filter(|_| {
            let (head, _) = client.ask(&get("/"));
            assert_eq!(head.starts_with("HTTP/1.1 500 "), head.contains("fault-abort"), "{head}");
            head.starts_with("HTTP/1.1 500 ")
        })
        .count();
    assert!((760..840).contains(&aborted), "{aborted}");
    sidecar.settled();
    let sum = |flags| sidecar.sum("istio_requests_total", &[flags]);
    assert_eq!(sum("response_flags=\"FI\"") as usize, aborted);
    assert_eq!(sum("response_flags=\"-\"") as usize, ASKED - aborted);
    let refusals = sidecar.sum("heddle_refusals_total", &["code=\"fault-abort\""]);
    assert_eq!(refusals as usize, aborted);
    let rule = "rule=\"VirtualService/default/reviews#http[0]\"";
    let decided = |code| sidecar.sum("heddle_rule_requests_total", &[rule, code]) as usize;
    assert_eq!(decided("response_code=\"aborted\",response_flags=\"FI\""), aborted);
    assert_eq!(decided("response_code=\"2xx\""), ASKED - aborted);
    let timed = sidecar.sum("heddle_rule_request_duration_milliseconds_count", &[rule]);
    assert_eq!(timed as usize, ASKED - aborted);
}

#[test]
fn a_delay_is_real_and_marked() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let delay = FaultDelay { duration: Duration::from_millis(300), percent: 100.0 };
    let fault = Fault { delay: Some(delay), ..Fault::default() };
    let mut client = Peer::connect(sidecar.service(&with_fault(&backend, fault)));
    let begun = clock::now();
    assert_eq!(client.ask(&get("/")).1, "ok");
    assert!(clock::now() - begun >= Duration::from_millis(300));
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"DI\""]), 1.0);
    let sum = sidecar.sum("istio_request_duration_milliseconds_sum", &[]);
    assert!(sum >= 300.0, "{sum}");
}

#[test]
fn a_client_that_resets_during_a_delay_ends_it() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let delay = FaultDelay { duration: Duration::from_secs(3600), percent: 100.0 };
    let fault = Fault { delay: Some(delay), ..Fault::default() };
    let mut client = Peer::connect(sidecar.service(&with_fault(&backend, fault)));
    client.write(&get("/"));
    crate::support::wait_until("the request has begun", || {
        sidecar.shared.metrics.requests_in_flight() == 1
    });
    client.reset();
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"DI,DC\""]), 1.0);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn without_ready_endpoints_the_service_is_named_with_uh() {
    for protocol in [Protocol::Http, Protocol::Undeclared] {
        let mut service = TestService::speaking(protocol, &[nobody()]);
        service.endpoints[0].2 = EndpointState::Terminating;
        let sidecar = Sidecar::start();
        let mut client = Peer::connect(sidecar.service(&service));
        let (head, body) = client.ask(&get("/"));
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("no-endpoints;"), "{head}");
        assert!(body.contains("reviews.default.svc.cluster.local"), "{body}");
        sidecar.settled();
        assert_eq!(sidecar.sum("istio_requests_total", &["response_flags=\"UH\""]), 1.0);
    }
}

#[test]
fn an_endpoint_that_ends_gets_no_new_requests_but_ends_open_ones() {
    let (told, go_on) = std::sync::mpsc::channel::<()>();
    let go_on = std::sync::Mutex::new(go_on);
    let old = Backend::start(move |mut peer| {
        peer.request().unwrap();
        go_on.lock().unwrap().recv().unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
    });
    let port = old.address.port();
    let new = SocketAddr::from(([127, 0, 0, 2], port));
    let _new = Backend::at(new, http_server(|_, _| "new".into()));
    let sidecar = Sidecar::start();
    let mut service = TestService::speaking(Protocol::Http, &[old.address]);
    let address = sidecar.service(&service);
    let mut open = Peer::connect(address);
    open.write(&get("/"));
    crate::support::wait_until("the old one has it", || old.connections() == 1);
    service.endpoints[0].2 = EndpointState::Terminating;
    service.endpoints.push((Ipv4Addr::new(127, 0, 0, 2), "", EndpointState::Ready));
    sidecar.told(|set| service.tell(set));
    assert_eq!(Peer::connect(address).ask(&get("/")).1, "new");
    told.send(()).unwrap();
    assert_eq!(open.response().unwrap().1, "old");
    assert_eq!(open.ask(&get("/")).1, "new");
}

#[test]
fn a_port_the_service_has_not_is_refused_by_name_or_reset() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let service = TestService::http(backend.address);
    sidecar.told(|set| service.tell(set));
    let address = sidecar.outbound(SocketAddr::new(service.vip().ip(), 4444));
    let (head, body) = Peer::connect(address).ask(&get("/"));
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("port-not-declared;"), "{head}");
    assert!(body.contains("has no port 4444"), "{body}");
    let mut binary = Peer::connect(address);
    binary.write("\0\x01\x02");
    assert!(binary.rest().is_err(), "reset, as a refused connection would be");
    let mut silent = Peer::connect(address);
    assert!(silent.rest().is_err(), "reset after a moment of silence");
}

#[test]
fn a_virtual_address_nobody_has_is_refused_and_one_nobody_explains_too() {
    let sidecar = Sidecar::start();
    let ip = "240.240.9.9".parse().unwrap();
    sidecar.told(|set| set.insert_address(Address { ip, owner: Owner::NotKnown }));
    let address = sidecar.outbound(SocketAddr::new(ip, 80));
    let (head, _) = Peer::connect(address).ask(&get("/"));
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("unknown-address;"), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "it may be somebody's by then: {head}");

    let sidecar = Sidecar::start().without_control();
    let address = sidecar.outbound("240.240.8.8:80".parse().unwrap());
    let (head, body) = Peer::connect(address).ask(&get("/"));
    assert!(field(&head, "x-heddle-refusal").unwrap().starts_with("discovery-timeout;"), "{head}");
    assert!(body.contains("240.240.8.8"), "{body}");
}

#[test]
fn a_workloads_own_address_reaches_that_workload_under_its_services_name() {
    let (all, addresses) = backends(2);
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Http, &addresses);
    sidecar.told(|set| {
        service.tell(set);
        let workload = workload("reviews-1", "reviews", "v2", addresses[1].port());
        set.insert_address(Address {
            ip: addresses[1].ip(),
            owner: Owner::Workload(Box::new(workload)),
        });
    });
    let address = sidecar.outbound(addresses[1]);
    let shares = answers(address, 20, &get("/"));
    assert_eq!(shares, BTreeMap::from([("2".to_owned(), 20)]));
    assert_eq!(all[0].connections(), 0);
    sidecar.settled();
    let labels = [
        "destination_service=\"reviews.default.svc.cluster.local\"",
        "destination_workload=\"reviews\"",
        "destination_version=\"v2\"",
    ];
    assert_eq!(sidecar.sum("istio_requests_total", &labels), 20.0);
}

#[test]
fn a_call_to_oneself_goes_through_the_own_inbound_path() {
    let backend = Backend::http(|_, _| "me".into());
    let port = backend.address.port();
    let sidecar = Sidecar::start();
    let service = TestService::http(backend.address);
    sidecar.told(|set| {
        service.tell(set);
        // The endpoint is the sidecar's own workload.
        let mut own = (*set.endpoints[&name_of("reviews")]).clone();
        own.endpoints[0].workload.id = sidecar.shared.config.workload.clone();
        set.insert_endpoints(own);
    });
    let mut client = Peer::connect(sidecar.outbound(service.vip()));
    assert_eq!(client.ask(&get("/")).1, "me");
    assert_eq!(client.ask(&get("/")).1, "me");
    sidecar.settled();
    let sum = |reporter| sidecar.sum("istio_requests_total", &[reporter]);
    assert_eq!(sum("reporter=\"source\""), 2.0);
    assert_eq!(sum("reporter=\"destination\""), 2.0);
    let inbound = ["reporter=\"destination\"", "source_workload=\"client\""];
    assert_eq!(sidecar.sum("istio_requests_total", &inbound), 2.0, "port {port}");
}

#[test]
fn a_service_is_fetched_again_if_it_was_given_back_meanwhile() {
    let backend = Backend::http(|_, _| "ok".into());
    let mut sidecar = Sidecar::start();
    let service = TestService::http(backend.address);
    let mut client = Peer::connect(sidecar.service(&service));
    assert_eq!(client.ask(&get("/")).1, "ok");
    sidecar.told(|set| {
        set.destinations.clear();
    });
    let mut ends = sidecar.ends.take().unwrap();
    client.write(&get("/"));
    let ask = ends.asks.blocking_recv().unwrap();
    sidecar.told(|set| service.tell(set));
    ask.answer.send(Ok(sidecar.shared.snapshot.load_full())).unwrap();
    assert_eq!(client.response().unwrap().1, "ok");
}

#[test]
fn a_connection_to_an_address_not_known_yet_does_not_stay_refused() {
    let backend = Backend::http(|_, _| "ok".into());
    let sidecar = Sidecar::start();
    let service = TestService::http(backend.address);
    let mut client = Peer::connect(sidecar.outbound(service.vip()));
    let (head, _) = client.ask(&get("/"));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "the next one is looked up anew: {head}");
}
