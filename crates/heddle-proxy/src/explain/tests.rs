//! What is explained is what happens: both ask the same snapshot.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use heddle_logic::FaultPlan;
use heddle_model::{
    Destination, EndpointState, Owner, WorkloadId,
    discovery::{
        AbortWith, Answer, ClusterKey, ClusterPolicy, DirectResponse, Fault, FaultAbort,
        FaultDelay, HeaderMatch, HeaderOperations, HeaderRules, HttpMatch, HttpRule, Mirror,
        OutboundPolicy, OutlierDetection, PathRewrite, Redirect, Retries, Rewrite, RuleAction,
        StringMatch, Traffic,
    },
};
use heddle_runtime::task::run_local;
use heddle_wire::{
    discovery::Resource,
    local::sidecar_api::{ToldRefusal, ToldTarget},
};

use super::*;
use crate::{
    accept::start_worker,
    metrics::Metrics,
    outbound::Outbound,
    side::{Onward, Route, Side as _},
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
    testing::{Folder, proxy_config, resources},
    upstream::Backend,
    worker::WorkerOptions,
};

const PORT: u16 = resources::PORT;

/// A sidecar that was told this of `reviews`.
fn world(destination: Destination, change: impl FnOnce(&mut ResourceSet)) -> Arc<Shared> {
    let dir = Folder::new("explain");
    let config = proxy_config(dir.path());
    let metrics = Arc::new(Metrics::new(&config));
    let own = config.workload.clone();
    let shared = Arc::new(Shared::new(config, metrics).0);
    let mut set = ResourceSet::default();
    let owner = Owner::Service(resources::service("reviews"));
    set.insert_address(resources::address(resources::vip(10), owner));
    set.insert_name(resources::name_answer("reviews", Some("reviews")));
    let mut endpoints = resources::endpoints("reviews", &[20, 21, 22]);
    for (one, version) in endpoints.endpoints.iter_mut().zip(["v1", "v2", "v3"]) {
        one.workload.labels.insert("version".into(), version.into());
        one.workload.version = version.into();
    }
    set.insert_endpoints(endpoints);
    set.insert_destination(CompiledDestination::new(destination).unwrap());
    set.inbound = Some(Arc::new(resources::inbound()));
    change(&mut set);
    let builder = SnapshotBuilder::new(own).with_breakers(shared.state.breakers.clone());
    let mut builder = builder.with_retries(shared.state.retries.clone());
    shared.snapshot.store(Arc::new(builder.build(&set, 7).snapshot));
    shared
}

fn asked(path: &str) -> ExplainRequest {
    ExplainRequest {
        host: "reviews".into(),
        port: PORT,
        path: Some(path.into()),
        ..ExplainRequest::default()
    }
}

fn told(shared: &Shared, asked: &ExplainRequest) -> Explanation {
    run_local(explain(shared, asked)).unwrap()
}

fn one_of<'a, T>(random: &mut Rng, all: &'a [T]) -> &'a T {
    &all[random.usize(..all.len())]
}

fn text_match(random: &mut Rng, all: &[&str]) -> StringMatch {
    let text = (*one_of(random, all)).to_owned();
    match random.u8(..3) {
        0 => StringMatch::Exact(text),
        1 => StringMatch::Prefix(text),
        _ => StringMatch::Regex(format!("{text}.*")),
    }
}

const PATHS: [&str; 4] = ["/", "/a", "/a/b", "/b%2Fc"];
const USERS: [&str; 2] = ["jason", "anna"];
const METHODS: [&str; 2] = ["GET", "POST"];

fn random_match(random: &mut Rng) -> HttpMatch {
    let mut one = HttpMatch::default();
    if random.bool() {
        one.uri = Some(text_match(random, &PATHS));
    }
    if random.u8(..3) == 0 {
        one.method = Some(text_match(random, &METHODS));
    }
    if random.u8(..3) == 0 {
        let wanted = match random.bool() {
            true => HeaderMatch::Present,
            false => HeaderMatch::Value(text_match(random, &USERS)),
        };
        let at = if random.bool() { &mut one.headers } else { &mut one.without_headers };
        at.insert("end-user".into(), wanted);
    }
    if random.u8(..4) == 0 {
        one.query_params.insert("q".into(), text_match(random, &["1", "2"]));
    }
    one
}

fn random_traffic(random: &mut Rng) -> Traffic {
    let mut traffic = Traffic::default();
    match random.u8(..8) {
        0 => {
            let body = b"teapot".to_vec();
            traffic.answer = Some(Answer::Direct(DirectResponse { status: 418, body }));
        }
        1 => {
            let authority = Some("shop".to_owned());
            traffic.answer =
                Some(Answer::Redirect(Redirect { authority, status: 302, ..Redirect::default() }));
        }
        2 => {
            let path = Some(PathRewrite::Prefix("/new".into()));
            traffic.rewrite = Some(Rewrite { path, authority: Some("other".into()) });
        }
        3 => traffic.headers = Some(header_rules("of-the-rule")),
        4 => traffic.timeout = Some(Duration::from_millis(1_500)),
        5 => traffic.retries = Some(Retries { attempts: 2, ..Retries::default() }),
        6 => {
            let to = resources::target("reviews", Some("v3")).to;
            traffic.mirrors = vec![Mirror { to, percent: 100.0, compare: Default::default() }];
        }
        _ => {}
    }
    traffic
}

fn header_rules(value: &str) -> HeaderRules {
    let set = BTreeMap::from([("x-set".to_owned(), value.to_owned())]);
    let request = HeaderOperations { set, ..HeaderOperations::default() };
    HeaderRules { request, ..HeaderRules::default() }
}

fn random_rule(random: &mut Rng, number: usize) -> HttpRule {
    let mut targets = Vec::new();
    for version in ["v1", "v2", "absent"] {
        if random.bool() {
            let mut target = resources::target("reviews", Some(version));
            target.weight = random.u32(..3);
            if random.u8(..4) == 0 {
                target.headers = Some(Box::new(header_rules(version)));
            }
            targets.push(target);
        }
    }
    if random.u8(..5) == 0 || targets.iter().all(|one| one.weight == 0) {
        targets.push(resources::dangling("subset v9 of reviews"));
    }
    let fault = (random.u8(..4) == 0).then(|| Fault {
        delay: Some(FaultDelay { duration: Duration::from_secs(1), percent: 50.0 }),
        abort: Some(FaultAbort { status: 503, percent: 50.0, grpc: None }),
        ..Fault::default()
    });
    let action = match random.u8(..8) {
        0 => RuleAction::Refuse("it asks for what is not carried out".into()),
        _ => RuleAction::Forward(targets),
    };
    HttpRule {
        provenance: Provenance(format!("VirtualService/default/reviews#http[{number}]")),
        matches: (0..random.usize(..3)).map(|_| random_match(random)).collect(),
        fault,
        action,
        traffic: random_traffic(random),
    }
}

fn random_request(random: &mut Rng) -> ExplainRequest {
    let all = [PATHS.as_slice(), &["/a/../b", "/%zz"]].concat();
    let mut path = (*one_of(random, &all)).to_owned();
    if random.bool() {
        path.push_str(if random.bool() { "?q=1" } else { "?x=2&q=2" });
    }
    let mut request = asked(&path);
    request.method = random.bool().then(|| (*one_of(random, &METHODS)).to_owned());
    if random.bool() {
        let user = (*one_of(random, &USERS)).to_owned();
        request.headers.push(("End-User".into(), user));
    }
    request
}

/// Says the explanation what this route does?
fn agrees(told: &Explanation, route: &Result<Route, Refused>, request: &Imagined) {
    let context = || format!("{told:#?}\n{route:#?}");
    let route = match route {
        Ok(route) => route,
        Err(refused) => {
            assert_eq!(told.refusal.as_ref(), Some(&words::refusal(refused)), "{}", context());
            return assert_eq!(told.outcome, "refused");
        }
    };
    let rule = route.rule().map(|rule| rule.0);
    assert_eq!(told.rule.as_ref().map(|rule| &rule.rule), rule.as_ref(), "{}", context());
    let limit = route.limit.map(|limit| limit.as_secs_f64() * 1000.0);
    assert_eq!(told.timeout_ms, limit, "{}", context());
    assert_eq!(told.retries.is_some(), route.retries().is_some());
    assert_eq!(told.mirrors.len(), route.mirrors.len());
    match &route.onward {
        Ok(Onward::Answer(reply)) => {
            let status = told.answer.as_ref().map(|answer| answer.status);
            assert_eq!((told.outcome.as_str(), status), ("answered", Some(reply.head.status)));
        }
        Ok(Onward::To(Backend::Cluster(cluster))) => {
            let subset = cluster.key.subset.as_ref().map(|one| one.name.clone());
            let same = |one: &&ToldTarget| one.subset == subset && one.share > 0.0;
            let target = told.targets.iter().find(same).expect("a share");
            let names: Vec<_> = cluster.endpoints.iter().map(|one| one.id().to_string()).collect();
            let told: Vec<_> = target.endpoints.iter().map(|one| one.workload.clone()).collect();
            assert_eq!(told, names);
            assert_eq!(target.refusal.is_some(), names.is_empty(), "{}", context());
        }
        Ok(Onward::To(other)) => panic!("{other:?}"),
        Err(refusal) => {
            let row = refusal.row();
            let same = |one: &ToldRefusal| one.code == row.code.as_str();
            let of_target = told
                .targets
                .iter()
                .any(|one| one.share > 0.0 && one.refusal.as_ref().is_some_and(same));
            assert!(of_target || told.refusal.as_ref().is_some_and(same), "{}", context());
        }
    }
    if let Some(changes) = &route.changes
        && told.outcome == "forwarded"
    {
        let done = words::changes(request, route.path.as_deref(), changes);
        let all = || told.changes.iter().chain(told.targets.iter().flat_map(|one| &one.changes));
        for one in &done {
            assert!(all().any(|told| told == one), "{one}\n{}", context());
        }
    }
    if let Some(FaultPlan { delay, abort, .. }) = &route.fault {
        let has = |what: &str| told.faults.iter().any(|fault| fault.what.contains(what));
        assert!(delay.is_none() || has("a delay of 1s"), "{}", context());
        assert!(abort.is_none_or(|AbortWith { status, .. }| has(&status.to_string())));
    }
}

#[test]
fn an_explanation_agrees_with_what_becomes_of_the_same_call() {
    let mut random = Rng::with_seed(7);
    for _ in 0..60 {
        let mut destination = resources::destination("reviews", Vec::new());
        let count = random.usize(..6);
        destination.ports[0].http = (0..count).map(|at| random_rule(&mut random, at)).collect();
        let shared = world(destination, |_| {});
        run_local(async {
            let worker = start_worker(Arc::clone(&shared), 0, WorkerOptions::default());
            let to = SocketAddr::new(resources::vip(10), PORT);
            let side = Outbound::of(&worker, to).await;
            for _ in 0..30 {
                let asked = random_request(&mut random);
                let request = Imagined::of(&asked, "reviews", Protocol::Http);
                let told = explain(&worker.shared, &asked).await;
                for _draw in 0..4 {
                    agrees(&told, &side.route(&request).await, &request);
                }
            }
        })
        .unwrap();
    }
}

#[test]
fn rules_before_the_one_that_decides_say_why_they_do_not() {
    let user = |user: &str| HttpMatch {
        headers: BTreeMap::from([(
            "end-user".to_owned(),
            HeaderMatch::Value(StringMatch::Exact(user.to_owned())),
        )]),
        ..HttpMatch::default()
    };
    let v1 = vec![resources::target("reviews", Some("v1"))];
    let mut destination = resources::destination("reviews", v1);
    let rules = &mut destination.ports[0].http;
    let mut first = rules[0].clone();
    first.provenance = Provenance("VirtualService/default/first#0".into());
    first.matches = vec![user("jason")];
    rules.insert(0, first);
    let shared = world(destination, |_| {});
    let mut request = asked("/");
    request.headers = vec![("end-user".into(), "anna".into()), ("cookie".into(), "hunter2".into())];
    let said = told(&shared, &request);
    assert_eq!(said.tried.len(), 1);
    assert_eq!(said.tried[0].rule, "VirtualService/default/first#0");
    assert_eq!(
        said.tried[0].because,
        ["header end-user is \"anna\"; the rule asks that it is \"jason\""]
    );
    let target = &said.targets[0];
    assert_eq!((target.share, target.subset.as_deref()), (100.0, Some("v1")));
    assert_eq!(target.endpoints.len(), 1);
    assert_eq!(target.endpoints[0].state, "in use");
    assert!(!serde_json::to_string(&said).unwrap().contains("hunter2"));
}

#[test]
fn an_endpoint_that_is_out_says_since_when_and_why() {
    let key = ClusterKey { service: resources::service("reviews"), subset: None, port: PORT };
    let outlier = OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let policy = ClusterPolicy {
        cluster: key,
        provenance: Provenance("DestinationRule/default/reviews".into()),
        outlier: Some(outlier),
        pool: None,
        tls: None,
        balancing: None,
        retry_budget: None,
    };
    let mut destination = resources::destination("reviews", Vec::new());
    destination.policies = vec![policy];
    let shared = world(destination, |_| {});
    let snapshot = shared.snapshot.load_full();
    let plan = snapshot.destination(&resources::service("reviews")).unwrap();
    let cluster = Arc::clone(&plan.port(PORT).unwrap().default);
    let fail = |at: usize| {
        let place = cluster.endpoints[at].place.as_ref().unwrap();
        place.saw(heddle_logic::eject::Seen::Answer(503), heddle_runtime::clock::now());
    };
    fail(1);
    let said = told(&shared, &asked("/"));
    let states: Vec<_> = said.targets[0].endpoints.iter().map(|one| one.state.as_str()).collect();
    assert_eq!(states, ["in use", "ejected", "in use"]);
    let out = said.targets[0].endpoints[1].ejected.as_ref().unwrap();
    assert_eq!(out.rule, "DestinationRule/default/reviews");
    assert_eq!(out.until - out.since, 30);
    assert_eq!(said.outcome, "forwarded");
    fail(0);
    fail(2);
    let said = told(&shared, &asked("/"));
    assert_eq!(said.refusal.unwrap().code, "all-ejected");
}

#[test]
fn what_is_refused_is_explained_too() {
    let empty = vec![resources::target("reviews", Some("v9"))];
    let shared = world(resources::destination("reviews", empty), |set| {
        let mut inbound = resources::inbound();
        inbound.outbound = OutboundPolicy {
            registry_only: Some(Provenance("Sidecar/default/strict".into())),
            ..OutboundPolicy::default()
        };
        set.inbound = Some(Arc::new(inbound));
        set.insert_name(resources::name_answer("example.com", None));
    });
    let code =
        |asked: &ExplainRequest| told(&shared, asked).refusal.map(|one| (one.code, one.status));
    assert_eq!(code(&asked("/")), Some(("no-endpoints".into(), 503)));
    let other_port = ExplainRequest { port: 81, ..asked("/") };
    assert_eq!(code(&other_port), Some(("port-not-declared".into(), 503)));
    let outside = ExplainRequest { host: "example.com".into(), ..asked("/") };
    let said = told(&shared, &outside);
    let refusal = said.refusal.unwrap();
    assert_eq!((refusal.code.as_str(), refusal.status), ("not-in-registry", 502));
    assert_eq!(refusal.rule.as_deref(), Some("Sidecar/default/strict"));
    let nowhere = ExplainRequest { host: "240.240.0.99".into(), ..asked("/") };
    assert_eq!(code(&nowhere).unwrap().1, 503);
}

#[test]
fn what_is_no_call_is_refused_with_what_would_be_one() {
    let wrong = [
        ExplainRequest { host: "a b".into(), ..asked("/") },
        ExplainRequest { method: Some("G T".into()), ..asked("/") },
        ExplainRequest { path: Some("x".into()), ..asked("/") },
        ExplainRequest { path: Some("/a b".into()), ..asked("/") },
        ExplainRequest { headers: vec![("x y".into(), String::new())], ..asked("/") },
        ExplainRequest { headers: vec![("x".into(), "a\r\nb".into())], ..asked("/") },
    ];
    for asked in wrong {
        assert!(check(&asked).is_err(), "{asked:?}");
    }
    assert_eq!(check(&asked("/a?b")), Ok(()));
}

#[test]
fn bytes_are_no_request() {
    let mut destination = resources::destination("reviews", Vec::new());
    destination.ports[0].protocol = Protocol::Tcp;
    let shared = world(destination, |set| {
        let mut endpoints = resources::endpoints("reviews", &[20, 21]);
        let port = endpoints.endpoints[1].ports.get_mut(&PORT).unwrap();
        port.state = EndpointState::Pending;
        set.insert_endpoints(endpoints);
    });
    let said = told(&shared, &asked("/"));
    assert_eq!((said.taken_as.as_str(), said.request.is_none()), ("tcp", true));
    assert_eq!(said.targets[0].endpoints.len(), 1);
    assert!(said.notes.iter().any(|note| note.contains("no request is read")), "{said:?}");
    assert_eq!(said.workload, WorkloadId("client-1".into()));
}

#[test]
fn without_a_sidecar_the_same_is_said_of_what_it_would_be_told() {
    let v1 = vec![resources::target("reviews", Some("v1"))];
    let destination = resources::destination("reviews", v1);
    let owner = Owner::Service(resources::service("reviews"));
    let told_to = vec![
        Resource::Address(resources::address(resources::vip(10), owner)),
        Resource::Name(resources::name_answer("reviews", Some("reviews"))),
        Resource::Endpoints(resources::endpoints("reviews", &[20])),
        Resource::Destination(destination.clone()),
        Resource::Inbound(resources::inbound()),
    ];
    let dir = Folder::new("explain");
    let config = proxy_config(dir.path());
    let said = run_local(as_told(config, told_to, 7, &asked("/"))).unwrap().unwrap();
    let shared = world(destination, |set| {
        set.insert_endpoints(resources::endpoints("reviews", &[20]));
    });
    let live = told(&shared, &asked("/"));
    assert!(!said.live && live.live);
    assert_eq!((said.rule, said.targets), (live.rule, live.targets));
}
