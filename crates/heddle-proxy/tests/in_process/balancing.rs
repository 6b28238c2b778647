//! How endpoints are chosen under a rule: in turn, by a key, little by little, and the near ones first.
//! What takes turns takes them for the whole proxy: with one worker and with four it is the same.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use heddle_model::{
    Protocol,
    discovery::{
        ClusterPolicy, ConnectionPool, Distribute, FailurePercentage, HashCookie, HashKey,
        HashPolicy, HashTable, LoadBalancing, LocalityRules, Method, OutlierDetection,
        RetryBudgetRule, Warmup,
    },
};
use heddle_proxy::worker::Worker;
use heddle_runtime::clock;
use http::{HeaderMap, HeaderValue};

use crate::{
    http2,
    mesh::{End, GET, Mesh, OK, address, with_standing_clock},
    servers::{self, Servers, ask, ask_for, with_workers},
};

const SECOND: Duration = Duration::from_secs(1);
const ERROR: &str = "HTTP/1.1 503 Oops\r\nContent-Length: 2\r\n\r\nno";
const TABLES: [HashTable; 2] = [HashTable::Ring(1024), HashTable::Maglev(65_537)];

fn policy(balancing: LoadBalancing) -> ClusterPolicy {
    ClusterPolicy { balancing: Some(balancing), ..servers::policy() }
}

fn by(method: Method) -> ClusterPolicy {
    policy(LoadBalancing { method, ..LoadBalancing::default() })
}

fn hashed(key: HashKey, table: HashTable) -> ClusterPolicy {
    by(Method::Hash(Box::new(HashPolicy { key, table })))
}

/// The same where one error takes an endpoint out.
fn ejecting(policy: ClusterPolicy) -> ClusterPolicy {
    let rule = OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    ClusterPolicy { outlier: Some(rule), ..policy }
}

fn with_header(name: &str, value: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: reviews\r\n{name}: {value}\r\n\r\n")
}

#[test]
fn endpoints_take_turns_exactly_whatever_the_number_of_workers() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mesh = servers.mesh(&by(Method::RoundRobin), &[20, 21, 22]);
        let workers = workers(&mesh);
        for _ in 0..5 {
            ask(&mesh, &workers, 3).await;
            assert_eq!(servers.taken(&[20, 21, 22]), [1, 1, 1]);
        }
        mesh.tell_of("", &[(20, ""), (22, "")], &[by(Method::RoundRobin)]);
        ask(&mesh, &workers, 10).await;
        assert_eq!(servers.taken(&[20, 21, 22]), [5, 0, 5]);
    });
}

#[test]
fn turns_are_even_also_while_one_is_out() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(by(Method::RoundRobin)), &[20, 21, 22]);
        let workers = workers(&mesh);
        servers.fail(&[21], ERROR);
        ask(&mesh, &workers, 3).await;
        assert_eq!(servers.taken(&[21]), [1]);
        ask(&mesh, &workers, 20).await;
        assert_eq!(servers.taken(&[20, 21, 22]), [10, 0, 10]);
    });
}

#[test]
fn connections_that_carry_bytes_take_turns_of_their_own() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.speaking(Protocol::Tcp, &by(Method::RoundRobin), &[20, 21]);
        let mut calls = Vec::new();
        for _ in 0..6 {
            let mut call = mesh.call();
            call.ask(GET).await;
            calls.push(call);
        }
        assert_eq!(servers.taken(&[20, 21]), [3, 3]);
    });
}

#[test]
fn a_connection_that_is_opened_early_takes_no_requests_turn() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.speaking(Protocol::Undeclared, &by(Method::RoundRobin), &[20, 21]);
        for _ in 0..6 {
            let mut call = mesh.call();
            clock::sleep(2 * SECOND).await;
            call.ask(GET).await;
        }
        assert_eq!(servers.taken(&[20, 21]), [3, 3]);
    });
}

#[test]
fn any_endpoint_means_each_as_often() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&by(Method::Random), &[20, 21]);
        ask(&mesh, &[Rc::clone(&mesh.client.worker)], 1_000).await;
        // 500 is expected with a standard deviation of 16: 5 of them.
        let asked = servers.taken(&[20, 21]);
        assert!(asked.iter().all(|count| count.abs_diff(500) < 80), "{asked:?}");
    });
}

/// Where each of `count` keys goes, and that it goes there from every worker, twice.
async fn owners(
    mesh: &Mesh,
    workers: &[Rc<Worker>],
    servers: &Servers,
    count: usize,
) -> Vec<usize> {
    let mut owners = Vec::new();
    for key in 0..count {
        servers.taken(&[]);
        ask_for(mesh, workers, 2 * workers.len(), &with_header("x-user", &format!("u{key}"))).await;
        let asked = servers.taken(&[20, 21, 22]);
        let owner = asked.iter().position(|count| *count == 2 * workers.len());
        owners.push(owner.unwrap_or_else(|| panic!("u{key}: {asked:?}")));
    }
    owners
}

#[test]
fn requests_with_one_key_go_to_one_endpoint_and_only_those_of_one_that_is_out_move() {
    with_workers(async |workers| {
        for table in TABLES {
            let servers = Servers::default();
            let policy = hashed(HashKey::Header("x-user".into()), table);
            let mesh = servers.mesh(&ejecting(policy), &[20, 21, 22]);
            let workers = workers(&mesh);
            let before = owners(&mesh, &workers, &servers, 30).await;
            assert!((0..3).all(|one| before.contains(&one)), "{before:?}");
            // One goes out.
            servers.fail(&[20], ERROR);
            let own = before.iter().position(|one| *one == 0).unwrap();
            ask_for(&mesh, &workers, 1, &with_header("x-user", &format!("u{own}"))).await;
            let without = owners(&mesh, &workers, &servers, 30).await;
            assert!(!without.contains(&0));
            for (before, without) in before.iter().zip(&without) {
                assert!(*before == 0 || before == without);
            }
            // It comes back by a request of its own keys, and nobody else's goes there meanwhile.
            servers.heal();
            clock::sleep(31 * SECOND).await;
            let others = (0..30).filter(|key| before[*key] != 0);
            servers.taken(&[]);
            for key in others {
                ask_for(&mesh, &workers, 1, &with_header("x-user", &format!("u{key}"))).await;
            }
            assert_eq!(servers.taken(&[20]), [0]);
            ask_for(&mesh, &workers, 1, &with_header("x-user", &format!("u{own}"))).await;
            assert_eq!(owners(&mesh, &workers, &servers, 30).await, before);
        }
    });
}

#[test]
fn a_request_without_a_key_goes_anywhere_and_a_failed_one_to_the_next() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&hashed(HashKey::Header("x-user".into()), TABLES[0]), &[20, 21]);
        let workers = [Rc::clone(&mesh.client.worker)];
        ask(&mesh, &workers, 100).await;
        assert!(servers.taken(&[20, 21]).iter().all(|count| *count > 20));
        mesh.desert(20);
        for key in 0..20 {
            let mut call = mesh.call();
            let (head, _) = call.ask(&with_header("x-user", &format!("u{key}"))).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
    });
}

#[test]
fn a_cookie_is_set_where_it_is_missing_and_keeps_its_client_where_it_is() {
    with_standing_clock(async || {
        let cookie = HashCookie {
            name: "who".into(),
            path: "/".into(),
            ttl: Some(60 * SECOND),
            attributes: Vec::new(),
        };
        let servers = Servers::default();
        let mesh = servers.mesh(&hashed(HashKey::Cookie(cookie), TABLES[0]), &[20, 21, 22]);
        let mut seen = [0; 3];
        for _ in 0..12 {
            let (head, _) = mesh.call().ask(GET).await;
            let line = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
            let set = line.unwrap_or_else(|| panic!("{head}"));
            assert!(set.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{set}");
            let first = servers.taken(&[20, 21, 22]);
            let request =
                with_header("Cookie", &format!("a=b; {}", set.split(';').next().unwrap()));
            for _ in 0..3 {
                let (head, _) = mesh.call().ask(&request).await;
                assert!(!head.contains("set-cookie"), "{head}");
            }
            let then: Vec<usize> = first.iter().map(|count| 3 * count).collect();
            assert_eq!(servers.taken(&[20, 21, 22]), then);
            (0..3).for_each(|at| seen[at] += first[at]);
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    });
}

#[test]
fn calls_of_grpc_and_connections_by_their_source_keep_to_one_endpoint() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let by_source = hashed(HashKey::SourceIp, TABLES[0]);
        let mesh = servers.speaking(Protocol::Tcp, &by_source, &[20, 21, 22]);
        for _ in 0..9 {
            mesh.call().ask(GET).await;
        }
        let mut asked = servers.taken(&[20, 21, 22]);
        asked.sort_unstable();
        assert_eq!(asked, [0, 0, 9]);
    });
    with_standing_clock(async || {
        let asked = Rc::new(RefCell::new(BTreeMap::<IpAddr, usize>::new()));
        let seen = Rc::clone(&asked);
        let policy = hashed(HashKey::QueryParameter("user".into()), TABLES[1]);
        let mesh = Mesh::under(&[policy], Protocol::Grpc, &[20, 21, 22], move |end: End| {
            let (seen, at) = (Rc::clone(&seen), end.at);
            http2::serve(end, move |_, mut respond| {
                let seen = Rc::clone(&seen);
                async move {
                    *seen.borrow_mut().entry(at).or_default() += 1;
                    let head = http::Response::builder().status(200).body(()).unwrap();
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(Bytes::from_static(b"ok"), true).unwrap();
                }
            })
        });
        for user in 0..6 {
            for _ in 0..4 {
                let mut client = http2::connect(mesh.call()).await;
                let uri = format!("http://reviews/a?user=u{user}");
                let request = http::Request::get(uri).body(()).unwrap();
                let (answer, _) = http2::send(&mut client, request, true).await;
                assert_eq!(http2::whole(answer).await.unwrap().0.status(), 200);
            }
        }
        let asked = asked.borrow();
        assert!(asked.len() > 1 && asked.values().all(|count| count % 4 == 0), "{asked:?}");
    });
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    with_standing_clock(async || {
        for method in [Method::RoundRobin, Method::LeastRequest, Method::Random] {
            let servers = Servers::default();
            let warmup = Some(Warmup::lasting(100 * SECOND));
            let rule = policy(LoadBalancing { method: method.clone(), warmup, locality: None });
            let mesh = servers.mesh(&rule, &[20, 21]);
            let workers = [Rc::clone(&mesh.client.worker)];
            mesh.tell_of("", &[(20, "")], std::slice::from_ref(&rule));
            ask(&mesh, &workers, 20).await;
            mesh.tell_of("", &[(20, ""), (21, "")], std::slice::from_ref(&rule));
            servers.taken(&[]);
            let mut shares = Vec::new();
            for _ in 0..3 {
                ask(&mesh, &workers, 400).await;
                shares.push(servers.taken(&[20, 21])[1]);
                clock::sleep(50 * SECOND).await;
            }
            // A tenth of 200, half of 200, 200 are wanted in turn, and rather less: who passes its turn on
            // does so in favour of the other. One request at a time, so least requests decides by chance.
            assert!(shares[0] < 60, "{method:?}: {shares:?}");
            assert!(shares[2] > 150, "{method:?}: {shares:?}");
            assert!(shares[0] <= shares[1] && shares[1] < shares[2] + 40, "{method:?}: {shares:?}");
        }
    });
}

/// Near endpoints first, by the locality of each.
fn near_first(change: impl FnOnce(&mut LocalityRules)) -> ClusterPolicy {
    let mut rules = LocalityRules::default();
    change(&mut rules);
    let locality = Some(rules);
    ejecting(policy(LoadBalancing { locality, ..LoadBalancing::default() }))
}

const PLACES: [(u8, &str); 4] = [(20, "eu/a"), (21, "eu/a"), (22, "eu/b"), (23, "us/a")];

#[test]
fn the_near_take_all_until_they_are_out_and_again_when_they_are_back() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let rule = near_first(|_| {});
        let mesh = servers.mesh(&rule, &[20, 21, 22, 23]);
        let workers = workers(&mesh);
        mesh.tell_of("eu/a", &PLACES, &[rule]);
        ask(&mesh, &workers, 100).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        assert!(asked[0] > 10 && asked[1] > 10 && asked[2..] == [0, 0], "{asked:?}");
        // Half of the near ones can take 70 %, the rest spills over to the next zone, not to the region.
        servers.fail(&[20], ERROR);
        ask(&mesh, &workers, 100).await;
        servers.taken(&[]);
        ask(&mesh, &workers, 1_000).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        // 700 are expected with a standard deviation of 14.5: 5 of them.
        assert!(asked[1].abs_diff(700) < 73, "{asked:?}");
        assert_eq!((asked[0], asked[1] + asked[2], asked[3]), (0, 1_000, 0));
        servers.fail(&[20, 21, 22], ERROR);
        ask(&mesh, &workers, 100).await;
        servers.taken(&[]);
        ask(&mesh, &workers, 100).await;
        assert_eq!(servers.taken(&[20, 21, 22, 23]), [0, 0, 0, 100]);
        // Back, each by one request.
        servers.heal();
        clock::sleep(31 * SECOND).await;
        ask(&mesh, &workers, 10).await;
        servers.taken(&[]);
        ask(&mesh, &workers, 100).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        assert_eq!((asked[0] + asked[1], asked[2], asked[3]), (100, 0, 0));
    });
}

#[test]
fn localities_mean_nothing_where_a_rule_says_so_and_shares_hold_without_ejections() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let rule = near_first(|rules| rules.off = true);
        let mesh = servers.mesh(&rule, &[20, 21, 22, 23]);
        let workers = [Rc::clone(&mesh.client.worker)];
        mesh.tell_of("eu/a", &PLACES, &[rule]);
        ask(&mesh, &workers, 200).await;
        assert!(servers.taken(&[20, 21, 22, 23]).iter().all(|count| *count > 20));
        let to = [("eu/a".to_owned(), 20), ("us".to_owned(), 80)];
        let distribute = vec![Distribute { from: "eu/*".into(), to: to.into() }];
        let locality = Some(LocalityRules { distribute, ..LocalityRules::default() });
        let rule = policy(LoadBalancing { locality, ..LoadBalancing::default() });
        mesh.tell_of("eu/a", &PLACES, std::slice::from_ref(&rule));
        servers.taken(&[]);
        ask(&mesh, &workers, 1_000).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        // 800 are expected with a standard deviation of 12.6: 5 of them.
        assert!(asked[2] == 0 && asked[3].abs_diff(800) < 64, "{asked:?}");
        mesh.tell_of("asia", &PLACES, &[rule]);
        ask(&mesh, &workers, 100).await;
        assert!(servers.taken(&[22])[0] > 0, "no rule is about the caller");
    });
}

#[test]
fn a_zone_keeps_what_it_can_take_and_others_get_the_rest() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let rule = near_first(|rules| rules.zones = Some(3));
        let places = [(20, "eu/a"), (21, "eu/b"), (22, "eu/b"), (23, "us/a")];
        let mesh = servers.mesh(&rule, &[20, 21, 22, 23]);
        let workers = workers(&mesh);
        let halves = [("eu/a", 1), ("eu/b", 1)];
        mesh.tell_of_many(("eu/a", &halves), &places, std::slice::from_ref(&rule));
        ask(&mesh, &workers, 900).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        // Half of the callers and a third of the endpoints: 600 are expected to stay, with a standard
        // deviation of 14.1: 5 of them.
        assert!(asked[0].abs_diff(600) < 71 && asked[3] == 0, "{asked:?}");
        mesh.tell_of_many(
            ("eu/a", &[("eu/a", 1), ("eu/b", 2)]),
            &places,
            std::slice::from_ref(&rule),
        );
        servers.taken(&[]);
        ask(&mesh, &workers, 100).await;
        assert_eq!(servers.taken(&[20, 21, 22, 23]), [100, 0, 0, 0], "a third of both");
        mesh.tell_of_many(("eu/a", &halves), &places, &[rule]);
        // Fewer than three are left: they share evenly, whatever zone they are in.
        servers.fail(&[22], ERROR);
        ask(&mesh, &workers, 100).await;
        servers.taken(&[]);
        ask(&mesh, &workers, 100).await;
        let asked = servers.taken(&[20, 21, 22, 23]);
        assert!(asked[0] > 20 && asked[1] > 20 && asked[2] == 0, "{asked:?}");
    });
}

#[test]
fn more_retries_than_the_budget_has_are_not_made() {
    with_standing_clock(async || {
        let open = Rc::new(Cell::new(0));
        let most = Rc::new(Cell::new(0));
        let counts = (Rc::clone(&open), Rc::clone(&most));
        let mut rule = by(Method::RoundRobin);
        rule.retry_budget =
            Some(RetryBudgetRule { percent: 20.0, min_concurrency: 1, interval: None });
        let mesh = Mesh::under(&[rule], Protocol::Http, &[20, 21], move |mut end: End| {
            let (open, most) = counts.clone();
            async move {
                while end.message().await.is_some() {
                    open.set(open.get() + 1);
                    most.set(most.get().max(open.get()));
                    clock::sleep(SECOND).await;
                    open.set(open.get() - 1);
                    end.send(OK).await;
                }
            }
        });
        mesh.desert(20);
        // One of two connects is refused: without a budget each is made again.
        let mut calls: Vec<End> = (0..20).map(|_| mesh.call()).collect();
        for call in &mut calls {
            call.send(GET).await;
        }
        let mut well = 0;
        for call in &mut calls {
            let (head, _) = call.message().await.unwrap();
            well += usize::from(head.starts_with("HTTP/1.1 200"));
        }
        assert!(
            (11..=14).contains(&well),
            "{well} of 20: ten at once, and a fifth of what is under way"
        );
        assert_eq!(most.get(), well);
    });
}

#[test]
fn a_server_is_asked_in_http2_where_a_rule_says_so() {
    with_standing_clock(async || {
        let pool = ConnectionPool { upgrades_to_http2: true, ..ConnectionPool::default() };
        let rule = ClusterPolicy { pool: Some(pool), balancing: None, ..by(Method::Random) };
        let mesh = Mesh::under(&[rule], Protocol::Http, &[20], |end: End| {
            http2::serve(end, |request, mut respond| async move {
                assert_eq!(request.version(), http::Version::HTTP_2);
                let head = http::Response::builder().status(200).body(()).unwrap();
                respond.send_response(head, true).unwrap();
            })
        });
        let (head, _) = mesh.call().ask("HEAD / HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    });
}

#[test]
fn who_fails_too_often_is_out_by_its_share_and_not_for_errors_in_a_row() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mut rule = by(Method::RoundRobin);
        rule.outlier = Some(OutlierDetection {
            consecutive_5xx: 0,
            max_ejection_percent: 100,
            failure_percentage: Some(FailurePercentage {
                threshold: 50,
                minimum_hosts: 3,
                request_volume: 20,
            }),
            ..OutlierDetection::default()
        });
        let mesh = servers.mesh(&rule, &[20, 21, 22]);
        let workers = workers(&mesh);
        let reasons = || -> Vec<(IpAddr, &str)> {
            let ejected = mesh.client.shared.state.breakers.ejected();
            ejected.iter().map(|one| (one.address.ip(), one.reason)).collect()
        };
        // Two in five fail, then three in five.
        for (failing, out) in [(12, vec![]), (18, vec![(address(20), "failurePercentage")])] {
            servers.fail(&[20], ERROR);
            ask(&mesh, &workers, 3 * failing).await;
            servers.heal();
            ask(&mesh, &workers, 3 * (30 - failing)).await;
            assert_eq!(reasons(), []);
            clock::sleep(11 * SECOND).await;
            ask(&mesh, &workers, 1).await;
            assert_eq!(reasons(), out);
        }
        servers.taken(&[]);
        ask(&mesh, &workers, 30).await;
        assert_eq!(servers.taken(&[20, 21, 22]), [0, 15, 15]);
    });
}

#[test]
fn errors_of_grpc_that_come_fast_attract_nothing() {
    for in_trailers in [false, true] {
        with_standing_clock(async || {
            let asked = Rc::new(RefCell::new(BTreeMap::<IpAddr, usize>::new()));
            let seen = Rc::clone(&asked);
            let mesh = Mesh::speaking(Protocol::Grpc, &[20, 21], move |end: End| {
                let (seen, at) = (Rc::clone(&seen), end.at);
                http2::serve(end, move |_, mut respond| {
                    *seen.borrow_mut().entry(at).or_default() += 1;
                    async move {
                        let fails = at == address(20);
                        if !fails {
                            clock::sleep(20 * SECOND / 1_000).await;
                        }
                        let status = HeaderValue::from_static(if fails { "8" } else { "0" });
                        let head =
                            http::Response::builder().header("content-type", "application/grpc");
                        if in_trailers {
                            let head = head.body(()).unwrap();
                            let mut body = respond.send_response(head, false).unwrap();
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", status);
                            body.send_trailers(trailers).unwrap();
                        } else {
                            let head = head.header("grpc-status", status).body(()).unwrap();
                            respond.send_response(head, true).unwrap();
                        }
                    }
                })
            });
            let mut client = http2::connect(mesh.call()).await;
            for _ in 0..100 {
                let request = http::Request::post("http://reviews/a.B/C");
                let request = request.header("content-type", "application/grpc").body(()).unwrap();
                let (answer, _) = http2::send(&mut client, request, true).await;
                http2::whole(answer).await.unwrap();
            }
            let failing = asked.borrow().get(&address(20)).copied().unwrap_or(0);
            assert!(failing < 30, "{failing} of 100, in trailers: {in_trailers}");
        });
    }
}

#[test]
fn a_budget_of_an_interval_counts_what_is_over_too_and_for_all_workers_together() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mut rule = by(Method::RoundRobin);
        let interval = Some(10 * SECOND);
        rule.retry_budget = Some(RetryBudgetRule { percent: 20.0, min_concurrency: 1, interval });
        let mesh = servers.mesh(&rule, &[20, 21]);
        let workers = workers(&mesh);
        assert_eq!(ask(&mesh, &workers, 40).await, 40);
        mesh.desert(20);
        // Until no connection to it is left.
        clock::sleep(5 * SECOND).await;
        // More than one of two connects is refused, each at once: a fifth of 80 requests is made again, of which
        // the last ones need not be refused.
        let retries = || mesh.client.sum("heddle_retries_total", &[]);
        let well = ask(&mesh, &workers, 40).await;
        let made = retries();
        assert!(well < 40 && (14.0..=16.0).contains(&made), "{well} of 40, {made} made again");
        clock::sleep(20 * SECOND).await;
        ask(&mesh, &workers, 4).await;
        assert_eq!(retries() - made, 1.0, "one is free");
    });
}
