//! Servers that read one connection to its end before they take up the next, whose clients leave without a
//! word; and servers that are merely slow.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_proxy::limits::{BACKLOG_PATIENCE, BACKLOG_ROOM};
use heddle_runtime::{clock, task::spawn_contained};

use crate::{
    mesh::{End, GET, Mesh, OK, POST, since, with_standing_clock},
    strangers::single_threaded,
};

/// What a whole round of clients may wait: once for the finding, and a little for every timer on the way.
const ONCE: Duration = BACKLOG_PATIENCE.saturating_mul(2);

/// A client that asks once and leaves. Its connection it gives up without a word.
async fn asks_and_leaves(mesh: &Mesh, request: &str) {
    let (head, _) = mesh.call().ask(request).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

async fn four_at_once(mesh: &Mesh, request: &str) {
    tokio::join!(
        asks_and_leaves(mesh, request),
        asks_and_leaves(mesh, request),
        asks_and_leaves(mesh, request),
        asks_and_leaves(mesh, request),
    );
}

#[test]
fn clients_that_leave_without_a_word_hold_up_nobody() {
    for request in [GET, POST] {
        with_standing_clock(|| async {
            let (mesh, seen) = single_threaded();
            for round in 0..3 {
                let begun = clock::now();
                four_at_once(&mesh, request).await;
                assert!(since(begun) <= ONCE, "round {round}: {:?}", since(begun));
                clock::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(seen.borrow().len(), 12);
        });
    }
}

#[test]
fn one_after_the_other_they_wait_for_nothing() {
    for request in [GET, POST] {
        with_standing_clock(|| async {
            let (mesh, _) = single_threaded();
            let begun = clock::now();
            for _ in 0..10 {
                asks_and_leaves(&mesh, request).await;
            }
            assert_eq!(since(begun), Duration::ZERO);
        });
    }
}

#[test]
fn what_one_worker_keeps_at_hand_holds_up_no_other() {
    with_standing_clock(|| async {
        let (mesh, seen) = single_threaded();
        mesh.add_worker(20);
        let begun = clock::now();
        four_at_once(&mesh, GET).await;
        assert!(since(begun) <= ONCE, "{:?}", since(begun));
        assert_eq!(seen.borrow().len(), 4);
    });
}

#[test]
fn a_client_that_stays_and_says_nothing_holds_up_nobody_and_is_served_again() {
    with_standing_clock(|| async {
        let (mesh, _) = single_threaded();
        let mut stays = mesh.call();
        stays.ask(GET).await;
        let begun = clock::now();
        tokio::join!(asks_and_leaves(&mesh, POST), asks_and_leaves(&mesh, POST));
        assert!(since(begun) <= ONCE, "{:?}", since(begun));
        stays.ask(POST).await;
    });
}

/// A server that takes its time for every request, and how many connections it has had.
fn slow(time: Duration) -> (Mesh, Rc<Cell<usize>>) {
    let connections = Rc::new(Cell::new(0));
    let count = Rc::clone(&connections);
    let mesh = Mesh::new(move |mut end: End| {
        count.set(count.get() + 1);
        async move {
            while end.message().await.is_some() {
                clock::sleep(time).await;
                end.send(OK).await;
            }
        }
    });
    (mesh, connections)
}

#[test]
fn connections_to_a_server_that_is_merely_slow_are_soon_kept_again() {
    with_standing_clock(|| async {
        let (mesh, connections) = slow(Duration::from_millis(100));
        let mesh = Rc::new(mesh);
        for client in 0..20 {
            let mesh = Rc::clone(&mesh);
            drop(spawn_contained("client", async move {
                clock::sleep(Duration::from_millis(5 * client)).await;
                let mut end = mesh.call();
                loop {
                    end.ask(GET).await;
                }
            }));
        }
        clock::sleep(BACKLOG_ROOM + Duration::from_millis(500)).await;
        let before = connections.get();
        clock::sleep(Duration::from_secs(3)).await;
        assert_eq!(connections.get(), before, "nobody opens another");
    });
}

#[test]
fn an_answer_that_takes_long_costs_others_their_connection_once() {
    with_standing_clock(|| async {
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        let mesh = Mesh::new(move |mut end: End| {
            count.set(count.get() + 1);
            async move {
                while let Some((head, _)) = end.message().await {
                    if head.starts_with("GET /poll") {
                        clock::sleep(Duration::from_secs(30)).await;
                    }
                    end.send(OK).await;
                }
            }
        });
        let (mut polls, mut asks) = (mesh.call(), mesh.call());
        asks.ask(GET).await;
        polls.send("GET /poll HTTP/1.1\r\nHost: reviews\r\n\r\n").await;
        for _ in 0..100 {
            clock::sleep(Duration::from_millis(100)).await;
            asks.ask(GET).await;
        }
        assert!(connections.get() <= 3, "{}", connections.get());
        polls.message().await.expect("its answer");
    });
}

#[test]
fn the_application_sees_its_clients_leave_and_their_sidecars_connections_stay() {
    with_standing_clock(|| async {
        let (mesh, connections) = slow(Duration::ZERO);
        for _ in 0..10 {
            asks_and_leaves(&mesh, GET).await;
        }
        assert_eq!((mesh.connects(), connections.get()), (1, 1), "who opens one per call shares");
    });
}
