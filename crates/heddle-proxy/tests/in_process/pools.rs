//! What a rule says of connections: how long one may idle, how old it may get, what it carries at once.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use heddle_model::{
    Protocol,
    discovery::{ClusterPolicy, ConnectionPool},
};
use heddle_runtime::{clock, task::spawn_contained};
use http::{Request, Response};

use crate::{
    http2,
    mesh::{End, GET, Mesh, OK, answers, seconds_since, with_standing_clock},
    servers::{self, Servers},
};

const SECOND: Duration = Duration::from_secs(1);

fn pool(change: impl FnOnce(&mut ConnectionPool)) -> ClusterPolicy {
    let mut pool = ConnectionPool::default();
    change(&mut pool);
    ClusterPolicy { pool: Some(pool), ..servers::policy() }
}

/// A mesh where `reviews` speaks TCP; its applications answer.
fn of_bytes(change: impl FnOnce(&mut ConnectionPool)) -> Mesh {
    Mesh::under(&[pool(change)], Protocol::Tcp, &[20], answers)
}

fn closed(mesh: &Mesh, flag: &str) -> f64 {
    let flag = format!("response_flags=\"{flag}\"");
    mesh.client.sum("istio_tcp_connections_closed_total", &[&flag])
}

#[test]
fn bytes_that_idle_in_both_directions_for_as_long_as_a_rule_says_end() {
    with_standing_clock(async || {
        let mesh = of_bytes(|pool| pool.tcp_idle_timeout = Some(30 * SECOND));
        let mut call = mesh.call();
        for _ in 0..5 {
            call.ask(GET).await;
            clock::sleep(29 * SECOND).await;
        }
        let (after, ended) = call.ended().await;
        assert_eq!((after.as_secs(), ended.is_ok()), (1, true), "30 s after the last answer");
        assert_eq!(closed(&mesh, "SI"), 1.0);
    });
}

#[test]
fn bytes_idle_for_as_long_as_they_like_where_no_rule_says_otherwise_or_one_says_so() {
    for limit in [None, Some(Duration::ZERO)] {
        with_standing_clock(async || {
            let mesh = of_bytes(|pool| {
                pool.tcp_idle_timeout = limit;
                pool.max_connections = Some(9);
            });
            let mut call = mesh.call();
            call.ask(GET).await;
            clock::sleep(100_000 * SECOND).await;
            call.ask(GET).await;
        });
    }
}

#[test]
fn a_connection_of_bytes_ends_at_the_age_that_a_rule_gives_it_whatever_passes() {
    with_standing_clock(async || {
        let mesh = of_bytes(|pool| {
            pool.max_connection_duration = Some(60 * SECOND);
            pool.tcp_idle_timeout = Some(30 * SECOND);
        });
        let begun = clock::now();
        let mut call = mesh.call();
        loop {
            call.send(GET).await;
            if call.message().await.is_none() {
                break;
            }
            clock::sleep(7 * SECOND).await;
        }
        assert_eq!(seconds_since(begun), 63, "what was sent after 60 s had no answer");
        assert_eq!(closed(&mesh, "DT"), 1.0);
    });
}

#[test]
fn a_connection_of_http_1_is_not_used_again_once_it_is_too_old_and_idles_as_one_of_tcp_may() {
    with_standing_clock(async || {
        let servers = Servers::default();
        let rule = pool(|pool| {
            pool.max_connection_duration = Some(60 * SECOND);
            pool.tcp_idle_timeout = Some(30 * SECOND);
        });
        let mesh = servers.mesh(&rule, &[20]);
        let mut call = mesh.call();
        // By when it is asked: so many connections were opened.
        for (at, connects) in [(0, 1), (29, 1), (58, 1), (61, 2), (90, 2), (121, 3), (152, 4)] {
            let begun = clock::now();
            call.ask(GET).await;
            assert_eq!((at, mesh.connects()), (at, connects));
            assert_eq!(seconds_since(begun), 0);
            clock::sleep(match at {
                0 | 29 | 61 => 29 * SECOND,
                58 => 3 * SECOND,
                _ => 31 * SECOND,
            })
            .await;
        }
    });
}

#[test]
fn a_request_under_way_outlives_the_time_of_its_connection() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        with_standing_clock(async || {
            let rule = pool(|pool| pool.max_connection_duration = Some(5 * SECOND));
            let mesh = Mesh::under(&[rule], protocol, &[20], move |mut end: End| async move {
                if protocol == Protocol::Http2 {
                    return http2::serve(end, slow).await;
                }
                while end.message().await.is_some() {
                    clock::sleep(20 * SECOND).await;
                    end.send(OK).await;
                }
            });
            let mut first = mesh.call();
            let first = spawn_contained("first", async move {
                assert!(first.ask(GET).await.0.starts_with("HTTP/1.1 200"));
            });
            clock::sleep(10 * SECOND).await;
            assert!(mesh.call().ask(GET).await.0.starts_with("HTTP/1.1 200"));
            first.await.unwrap();
            assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 2.0, "{protocol:?}");
            assert_eq!(mesh.connects(), 2, "{protocol:?}");
        });
    }
}

/// Answers after 20 s.
async fn slow(_request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    clock::sleep(20 * SECOND).await;
    respond.send_response(Response::new(()), true).unwrap();
}

#[test]
fn no_more_streams_are_on_one_connection_than_a_rule_says() {
    with_standing_clock(async || {
        let rule = pool(|pool| pool.max_concurrent_streams = Some(2));
        let mesh = Mesh::under(&[rule], Protocol::Http2, &[20], |end| http2::serve(end, slow));
        let answered = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (mut call, answered) = (mesh.call(), Rc::clone(&answered));
            drop(spawn_contained("call", async move {
                assert!(call.ask(GET).await.0.starts_with("HTTP/1.1 200"));
                answered.set(answered.get() + 1);
            }));
        }
        clock::sleep(30 * SECOND).await;
        assert_eq!((answered.get(), mesh.connects()), (5, 3));
    });
}
