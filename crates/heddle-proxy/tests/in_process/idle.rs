//! How long what is idle is kept.

use std::{cell::Cell, rc::Rc, time::Duration};

use heddle_proxy::limits::{OUTBOUND_IDLE_TIMEOUT, POOL_SWEEP};
use heddle_runtime::clock;

use crate::mesh::{GET, Mesh, OK, answers, since, with_standing_clock};

#[test]
fn an_applications_idle_connection_is_closed_after_its_limit_and_no_sooner() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let mut end = mesh.call();
        for _ in 0..3 {
            let (head, _) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            clock::sleep(OUTBOUND_IDLE_TIMEOUT - Duration::from_secs(60)).await;
        }
        let (_, body) = end.ask(GET).await;
        assert_eq!(body, "ok", "used again and again, it is not idle");
        let (after, result) = end.ended().await;
        result.expect("an orderly end");
        let bounds = OUTBOUND_IDLE_TIMEOUT..=2 * OUTBOUND_IDLE_TIMEOUT;
        assert!(bounds.contains(&after), "{after:?}");
    });
}

/// How long the application of `reviews` saw its connection idle after an answer with these fields.
async fn pooled_for(fields: &'static str) -> Duration {
    let idled = Rc::new(Cell::new(None));
    let told = Rc::clone(&idled);
    let mesh = Mesh::new(move |mut end| {
        let told = Rc::clone(&told);
        async move {
            end.message().await.expect("a request");
            end.send(&OK.replacen("\r\n", &format!("\r\n{fields}"), 1)).await;
            let answered = clock::now();
            assert!(end.message().await.is_none(), "no other request");
            told.set(Some(since(answered)));
        }
    });
    let mut end = mesh.call();
    end.ask(GET).await;
    clock::sleep(Duration::from_secs(60)).await;
    idled.get().expect("it was closed")
}

#[test]
fn a_pooled_connection_is_closed_before_the_servers_of_the_field_close_it() {
    with_standing_clock(|| async {
        let idled = pooled_for("").await;
        let bounds = Duration::from_secs(4)..=Duration::from_secs(4) + POOL_SWEEP;
        assert!(bounds.contains(&idled), "{idled:?}");
    });
}

#[test]
fn what_a_server_announces_is_kept_with_a_margin() {
    with_standing_clock(|| async {
        let idled = pooled_for("Keep-Alive: timeout=2\r\n").await;
        let bounds = Duration::from_millis(1_600)..=Duration::from_millis(1_600) + POOL_SWEEP;
        assert!(bounds.contains(&idled), "80 % of 2 s: {idled:?}");
    });
}
