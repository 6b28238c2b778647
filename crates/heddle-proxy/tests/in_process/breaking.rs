//! Circuit breaking: endpoints that are taken out for their errors and how they come back, and limits.
//! Every count is the proxy's: with one worker and with four it is the same.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::server::SendResponse;
use heddle_model::{
    Protocol,
    discovery::{ClusterPolicy, ConnectionPool, OutlierDetection},
};
use heddle_proxy::worker::Worker;
use heddle_runtime::{clock, task::spawn_contained};
use http::{HeaderName, HeaderValue};

use crate::{
    http2,
    mesh::{End, GET, Mesh, OK, POST, address, with_standing_clock},
    servers::{self, Servers, ask, with_workers},
};

const SECOND: Duration = Duration::from_secs(1);
const ERROR: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno";

fn ejecting(change: impl FnOnce(&mut OutlierDetection)) -> ClusterPolicy {
    let mut outlier = OutlierDetection { max_ejection_percent: 100, ..OutlierDetection::default() };
    change(&mut outlier);
    ClusterPolicy { outlier: Some(outlier), ..servers::policy() }
}

fn limited(change: impl FnOnce(&mut ConnectionPool)) -> ClusterPolicy {
    let mut pool = ConnectionPool::default();
    change(&mut pool);
    ClusterPolicy { pool: Some(pool), ..servers::policy() }
}

/// Asks until somebody is out, and tells how many answers were no 200. An endpoint that fails is asked
/// seldom, so that takes a while.
async fn ask_until_one_is_out(mesh: &Mesh, workers: &[Rc<Worker>]) -> usize {
    let mut failed = 0;
    for _ in 0..1_000 {
        if !mesh.client.shared.state.breakers.ejected().is_empty() {
            return failed;
        }
        failed += workers.len() - ask(mesh, workers, workers.len()).await;
        clock::sleep(SECOND).await;
    }
    panic!("nobody is out");
}

#[test]
fn an_endpoint_is_out_after_so_many_errors_in_a_row_of_all_workers_together() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|_| {}), &[20, 21]);
        let workers = workers(&mesh);
        servers.fail(&[20], ERROR);
        assert_eq!(ask_until_one_is_out(&mesh, &workers).await, 5);
        assert_eq!(ask(&mesh, &workers, 100).await, 100);
        assert_eq!(servers.asked(20), 5);
        let ejected = mesh.client.shared.state.breakers.ejected();
        let out: Vec<_> = ejected.iter().map(|one| (one.address.ip(), one.reason)).collect();
        assert_eq!(out, [(address(20), "consecutive5xxErrors")]);
        assert_eq!(ejected[0].until - ejected[0].since, 30 * SECOND);
        assert_eq!(mesh.client.sum("heddle_endpoint_ejected", &["240.241.0.20"]), 1.0);
        let total = mesh.client.sum("heddle_endpoint_ejections_total", &["consecutive5xxErrors"]);
        assert_eq!(total, 1.0);
    });
}

#[test]
fn where_a_rule_names_the_errors_no_others_are_counted() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|rule| rule.error_codes = vec![429]), &[20, 21]);
        let workers = workers(&mesh);
        servers.fail(&[20], ERROR);
        ask(&mesh, &workers, 200).await;
        assert_eq!(mesh.client.shared.state.breakers.ejected(), [], "500 is not among them");
        servers.fail(&[20], "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(ask_until_one_is_out(&mesh, &workers).await, 5);
        let ejected = mesh.client.shared.state.breakers.ejected();
        assert_eq!(ejected[0].reason, "consecutive5xxErrors");
    });
}

#[test]
fn a_connection_that_was_opened_early_says_nothing_of_an_endpoint_that_fails() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.speaking(Protocol::Undeclared, &ejecting(|_| {}), &[20, 21]);
        servers.fail(&[20], ERROR);
        for _ in 0..300 {
            let mut call = mesh.call();
            // So silent that a connection is opened in case the server is to speak first.
            clock::sleep(2 * SECOND).await;
            call.ask(GET).await;
            if servers.asked(20) == 5 {
                break;
            }
        }
        assert_eq!(mesh.client.shared.state.breakers.ejected().len(), 1);
    });
}

#[test]
fn an_endpoint_comes_back_through_one_request_that_succeeds() {
    with_workers(async |workers| {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|_| {}), &[20, 21]);
        let workers = workers(&mesh);
        servers.fail(&[20], ERROR);
        ask_until_one_is_out(&mesh, &workers).await;
        clock::sleep(28 * SECOND).await;
        assert_eq!(ask(&mesh, &workers, 20).await, 20);
        clock::sleep(2 * SECOND).await;
        // One is tried and fails: another, longer time out.
        assert_eq!(ask(&mesh, &workers, 20).await, 19);
        assert_eq!(servers.asked(20), 6);
        let ejected = mesh.client.shared.state.breakers.ejected();
        assert_eq!(ejected[0].reason, "probe");
        clock::sleep(59 * SECOND).await;
        assert_eq!(ask(&mesh, &workers, 20).await, 20);
        servers.heal();
        clock::sleep(2 * SECOND).await;
        assert_eq!(ask(&mesh, &workers, 100).await, 100);
        assert!(servers.asked(20) > 16, "it has its share again: {}", servers.asked(20));
        assert_eq!(mesh.client.shared.state.breakers.ejected(), []);
        assert_eq!(mesh.client.sum("heddle_endpoint_ejected", &[]), 0.0);
    });
}

#[test]
fn while_one_is_tried_nobody_else_goes_there() {
    with_standing_clock(async || {
        let slow = Rc::new(Cell::new(false));
        let (asked, seen) = (Rc::new(Cell::new(0)), Rc::clone(&slow));
        let count = Rc::clone(&asked);
        let mesh = Mesh::under(
            &[ejecting(|rule| rule.consecutive_5xx = 1)],
            Protocol::Http,
            &[20, 21],
            move |mut end: End| {
                let (slow, count) = (Rc::clone(&seen), Rc::clone(&count));
                async move {
                    while end.message().await.is_some() {
                        if end.at == address(20) {
                            count.set(count.get() + 1);
                            match slow.get() {
                                true => clock::sleep(10 * SECOND).await,
                                false => {
                                    end.send(ERROR).await;
                                    continue;
                                }
                            }
                        }
                        end.send(OK).await;
                    }
                }
            },
        );
        let workers = [Rc::clone(&mesh.client.worker)];
        ask(&mesh, &workers, 20).await;
        assert_eq!(asked.get(), 1);
        slow.set(true);
        clock::sleep(31 * SECOND).await;
        let mut tried = mesh.call();
        tried.send(GET).await;
        clock::sleep(SECOND).await;
        assert_eq!((asked.get(), ask(&mesh, &workers, 30).await), (2, 30));
        assert_eq!(asked.get(), 2);
        let (head, _) = tried.message().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"));
        assert_eq!(mesh.client.shared.state.breakers.ejected(), []);
    });
}

#[test]
fn an_edit_of_the_rules_resets_nothing_and_their_removal_everything() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|_| {}), &[20, 21]);
        let workers = [Rc::clone(&mesh.client.worker)];
        servers.fail(&[20], ERROR);
        ask_until_one_is_out(&mesh, &workers).await;
        mesh.tell(&[ejecting(|rule| rule.consecutive_5xx = 9)]);
        assert_eq!(ask(&mesh, &workers, 50).await, 50);
        assert_eq!(mesh.client.shared.state.breakers.ejected().len(), 1);
        mesh.tell(&[]);
        assert_eq!(mesh.client.shared.state.breakers.ejected(), []);
        assert!(ask(&mesh, &workers, 50).await < 50);
    });
}

#[test]
fn where_all_are_out_the_refusal_names_the_rule_and_with_a_panic_rule_all_are_used() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|_| {}), &[20, 21]);
        let workers = [Rc::clone(&mesh.client.worker)];
        servers.fail(&[20, 21], ERROR);
        assert_eq!(ask(&mesh, &workers, 20).await, 0);
        assert_eq!(servers.asked(20) + servers.asked(21), 10);
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(body.contains("DestinationRule/default/reviews"), "{body}");
        assert!(mesh.client.requests(&["response_flags=\"UH\""]) > 0.0);
        mesh.tell(&[ejecting(|rule| rule.min_health_percent = 50)]);
        ask(&mesh, &workers, 20).await;
        assert_eq!(servers.asked(20) + servers.asked(21), 30, "nobody counts as out");
    });
}

#[test]
fn no_more_than_the_share_is_out_but_one_may_be() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|rule| rule.max_ejection_percent = 10), &[20, 21, 22]);
        let workers = [Rc::clone(&mesh.client.worker)];
        servers.fail(&[20, 21, 22], ERROR);
        ask(&mesh, &workers, 100).await;
        assert_eq!(mesh.client.shared.state.breakers.ejected().len(), 1);
    });
}

#[test]
fn an_application_that_closes_or_is_gone_counts_and_what_the_mesh_refuses_does_not() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|rule| rule.consecutive_5xx = 2), &[20, 21]);
        servers.fail(&[20], "");
        let workers = [Rc::clone(&mesh.client.worker)];
        ask(&mesh, &workers, 50).await;
        assert_eq!(servers.asked(20), 2);
        assert_eq!(mesh.client.shared.state.breakers.ejected().len(), 1);
    });
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&ejecting(|rule| rule.consecutive_5xx = 2), &[20, 21]);
        mesh.stop_application(20);
        let workers = [Rc::clone(&mesh.client.worker)];
        assert_eq!(ask(&mesh, &workers, 50).await, 50, "another answers");
        let ejected = mesh.client.shared.state.breakers.ejected();
        assert_eq!(ejected.iter().map(|one| one.address.ip()).collect::<Vec<_>>(), [address(20)]);
    });
}

#[test]
fn failures_to_connect_take_an_endpoint_out_by_their_own_count_where_they_are_split_off() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let split = ejecting(|rule| {
            rule.splits_local_origin = true;
            rule.consecutive_local_origin = 3;
        });
        let mesh = servers.mesh(&split, &[20, 21]);
        mesh.desert(20);
        let workers = [Rc::clone(&mesh.client.worker)];
        assert_eq!(ask_until_one_is_out(&mesh, &workers).await, 0, "another answers");
        let ejected = mesh.client.shared.state.breakers.ejected();
        assert_eq!(ejected[0].reason, "consecutiveLocalOriginFailures");
    });
}

#[test]
fn a_call_of_grpc_counts_by_its_status_wherever_that_stands() {
    // By where its status stands and what it is: is the endpoint taken out?
    for (in_trailers, status, out) in
        [(false, "14", true), (true, "13", true), (true, "5", false), (true, "0", false)]
    {
        with_standing_clock(async || {
            let answer = move |_request, mut respond: SendResponse<Bytes>| async move {
                let mut response = http::Response::new(());
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert("content-type", kind);
                if !in_trailers {
                    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
                }
                let mut body = respond.send_response(response, !in_trailers).unwrap();
                if in_trailers {
                    let status = HeaderValue::from_static(status);
                    let name = HeaderName::from_static("grpc-status");
                    body.send_trailers([(name, status)].into_iter().collect()).unwrap();
                }
            };
            let policies = [ejecting(|rule| rule.consecutive_5xx = 2)];
            let mesh =
                Mesh::under(&policies, Protocol::Grpc, &[20], move |end| http2::serve(end, answer));
            let mut client = http2::connect(mesh.call()).await;
            for _ in 0..2 {
                let mut request = http2::post("/shop.Reviews/Get");
                let kind = HeaderValue::from_static("application/grpc");
                request.headers_mut().insert("content-type", kind);
                let (response, _) = http2::send(&mut client, request, true).await;
                http2::whole(response).await.unwrap();
            }
            clock::sleep(Duration::from_millis(10)).await;
            let ejected = mesh.client.shared.state.breakers.ejected();
            assert_eq!(!ejected.is_empty(), out, "{status} in trailers: {in_trailers}");
        });
    }
}

/// Requests on connections of their own, all at once and on each worker in turn; answers as they come.
async fn at_once(mesh: &Mesh, workers: &[Rc<Worker>], count: usize) -> Rc<RefCell<Vec<String>>> {
    let heads = Rc::new(RefCell::new(Vec::new()));
    for at in 0..count {
        let mut call = mesh.call_on(&workers[at % workers.len()]);
        let heads = Rc::clone(&heads);
        drop(spawn_contained("call", async move {
            let (head, body) = call.ask(POST).await;
            heads.borrow_mut().push(format!("{}{body}", &head[9..13]));
        }));
    }
    clock::sleep(Duration::from_millis(10)).await;
    heads
}

/// A server that takes a second for each request; how many it had at once and on how many connections.
fn slow(policy: &ClusterPolicy) -> (Mesh, Rc<Cell<usize>>) {
    let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let seen = Rc::clone(&most);
    let mesh = Mesh::under(std::slice::from_ref(policy), Protocol::Http, &[20], move |mut end| {
        let (now, most) = (Rc::clone(&now), Rc::clone(&seen));
        async move {
            while end.message().await.is_some() {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                clock::sleep(SECOND).await;
                now.set(now.get() - 1);
                end.send(OK).await;
            }
        }
    });
    (mesh, most)
}

#[test]
fn so_many_requests_are_under_way_and_the_next_is_refused_by_name() {
    with_workers(async |workers| {
        let (mesh, most) = slow(&limited(|pool| pool.max_requests = Some(3)));
        let workers = workers(&mesh);
        let heads = at_once(&mesh, &workers, 8).await;
        assert_eq!(heads.borrow().len(), 5, "refused at once");
        let text = "http2MaxRequests of DestinationRule/default/reviews is 3";
        assert!(heads.borrow().iter().all(|head| head.starts_with("503") && head.contains(text)));
        clock::sleep(2 * SECOND).await;
        assert_eq!((heads.borrow().len(), most.get()), (8, 3));
        assert_eq!(mesh.client.requests(&["response_flags=\"UO\"", "response_code=\"503\""]), 5.0);
        assert_eq!(ask(&mesh, &workers, 2).await, 2, "all room is free again");
    });
}

#[test]
fn requests_wait_for_a_connection_in_turn_and_no_more_than_the_limit_do() {
    with_workers(async |workers| {
        let limits = limited(|pool| {
            pool.max_connections = Some(1);
            pool.max_pending = Some(2);
        });
        let (mesh, most) = slow(&limits);
        let workers = workers(&mesh);
        let heads = at_once(&mesh, &workers, 5).await;
        assert_eq!(heads.borrow().len(), 2, "one is served, two wait");
        assert!(heads.borrow().iter().all(|head| head.contains("http1MaxPendingRequests")));
        clock::sleep(5 * SECOND).await;
        assert_eq!((heads.borrow().len(), most.get()), (5, 1));
        let well = heads.borrow().iter().filter(|head| head.starts_with("200")).count();
        assert_eq!(well, 3);
    });
}

#[test]
fn requests_of_one_worker_that_wait_use_its_connection_one_after_the_other() {
    with_standing_clock(async || {
        let (mesh, _) = slow(&limited(|pool| pool.max_connections = Some(1)));
        let calls = (0..5).map(|_| mesh.call()).map(async |mut call| call.ask(GET).await.0);
        let heads = futures_util::future::join_all(calls).await;
        assert!(heads.iter().all(|head| head.starts_with("HTTP/1.1 200")), "{heads:?}");
        assert_eq!(mesh.connects(), 1);
    });
}

#[test]
fn whoever_leaves_while_it_waits_for_a_connection_leaves_its_place_to_others() {
    with_workers(async |workers| {
        let limits = limited(|pool| {
            pool.max_connections = Some(1);
            pool.max_pending = Some(1);
        });
        let (mesh, _) = slow(&limits);
        let workers = workers(&mesh);
        let served = at_once(&mesh, &workers, 1).await;
        let mut leaves = mesh.call();
        leaves.send(POST).await;
        let refused = at_once(&mesh, &workers, 1).await;
        assert!(refused.borrow()[0].contains("http1MaxPendingRequests"));
        leaves.transport.reset();
        clock::sleep(Duration::from_millis(10)).await;
        assert_eq!(mesh.client.requests(&["response_flags=\"DC\""]), 1.0);
        let waits = at_once(&mesh, &workers, 1).await;
        assert_eq!(waits.borrow().len(), 0, "there is a place to wait in");
        clock::sleep(3 * SECOND).await;
        assert!(served.borrow()[0].starts_with("200") && waits.borrow()[0].starts_with("200"));
        assert_eq!(mesh.client.requests(&[]), 4.0, "each is recorded once");
        assert_eq!(mesh.servers[0].requests(&[]), 2.0);
    });
}

#[test]
fn a_worker_whose_requests_never_end_leaves_others_their_turn() {
    with_standing_clock(async || {
        let (mesh, _) = slow(&limited(|pool| pool.max_connections = Some(1)));
        let other = mesh.add_client_worker();
        let again_and_again = (0..3).map(async |_| {
            let mut call = mesh.call();
            for _ in 0..20 {
                assert!(call.ask(GET).await.0.starts_with("HTTP/1.1 200"));
            }
        });
        let begun = clock::now();
        let one = async {
            clock::sleep(Duration::from_millis(10)).await;
            mesh.call_on(&other).ask(GET).await;
            crate::mesh::seconds_since(begun)
        };
        let all = futures_util::future::join_all(again_and_again);
        let (_, one) = futures_util::future::join(all, one).await;
        assert!(one < 15, "it took {one} of 61 s");
    });
}

#[test]
fn a_connection_that_idles_on_one_worker_makes_room_for_another() {
    with_standing_clock(async || {
        let (mesh, _) = slow(&limited(|pool| pool.max_connections = Some(1)));
        let workers = [Rc::clone(&mesh.client.worker), mesh.add_client_worker()];
        assert_eq!(ask(&mesh, &workers, 4).await, 4);
        assert_eq!(mesh.connects(), 4, "each on the other worker");
    });
}

#[test]
fn bytes_do_not_wait_for_a_connection() {
    with_standing_clock(async || {
        let policies = [limited(|pool| pool.max_connections = Some(1))];
        let mesh = Mesh::under(&policies, Protocol::Tcp, &[20], async |mut end: End| {
            while end.message().await.is_some() {
                end.send(OK).await;
            }
        });
        let (mut one, mut two) = (mesh.call(), mesh.call());
        assert!(one.ask(GET).await.0.starts_with("HTTP/1.1 200"));
        two.send(GET).await;
        assert_eq!(two.message().await, None);
        assert_eq!(mesh.client.sum("heddle_refusals_total", &["overflow"]), 1.0);
        drop(one);
        clock::sleep(SECOND).await;
        assert!(mesh.call().ask(GET).await.0.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn a_connection_carries_so_many_requests_and_idles_so_long() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let limits = limited(|pool| {
            pool.max_requests_per_connection = Some(2);
            pool.idle_timeout = Some(30 * SECOND);
        });
        let mesh = servers.mesh(&limits, &[20]);
        let workers = [Rc::clone(&mesh.client.worker)];
        ask(&mesh, &workers, 6).await;
        assert_eq!(mesh.connects(), 3);
        ask(&mesh, &workers, 1).await;
        clock::sleep(29 * SECOND).await;
        ask(&mesh, &workers, 1).await;
        assert_eq!(mesh.connects(), 4, "kept for longer than our own limit is");
        ask(&mesh, &workers, 1).await;
        clock::sleep(31 * SECOND).await;
        ask(&mesh, &workers, 1).await;
        assert_eq!(mesh.connects(), 6);
    });
}

#[test]
fn a_connect_takes_as_long_as_the_rule_says() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&limited(|pool| pool.connect_timeout = Some(3 * SECOND)), &[20]);
        mesh.silence(20);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503"));
        // Attempts to the one endpoint there is.
        assert_eq!(crate::mesh::seconds_since(begun) % 3, 0);
        assert!(crate::mesh::seconds_since(begun) <= 9);
    });
}

#[test]
fn no_more_retries_than_the_limit_are_under_way() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let mesh = servers.mesh(&limited(|pool| pool.max_retries = Some(1)), &[20, 21]);
        mesh.silence(20);
        mesh.silence(21);
        let workers = [Rc::clone(&mesh.client.worker)];
        let heads = at_once(&mesh, &workers, 4).await;
        clock::sleep(30 * SECOND).await;
        assert_eq!(heads.borrow().len(), 4);
        assert_eq!(mesh.client.requests(&["response_flags=\"UF,UO\""]), 3.0);
    });
}
