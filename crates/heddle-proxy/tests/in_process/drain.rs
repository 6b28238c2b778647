//! The end of a sidecar: what is under way is waited for, within bounds.

use std::time::Duration;

use heddle_proxy::sidecar::{DRAIN_MAX, drained};
use heddle_runtime::{clock, task::spawn_contained};

use crate::mesh::{End, GET, Mesh, OK, since, with_standing_clock};

/// The longest between the end of the last request and the end of waiting for it.
const NOTICED: Duration = Duration::from_millis(20);

/// An application that takes its time for each answer.
fn slow(seconds: u64) -> Mesh {
    Mesh::new(move |mut end: End| async move {
        while end.message().await.is_some() {
            clock::sleep(Duration::from_secs(seconds)).await;
            end.send(OK).await;
        }
    })
}

/// How long draining the client's sidecar takes while one request is under way.
async fn drain_during(mesh: &Mesh) -> Duration {
    let mut end = mesh.call();
    end.send(GET).await;
    // Its answer is waited for by an application of its own.
    drop(spawn_contained("application", async move {
        let _answer = end.message().await;
    }));
    clock::sleep(Duration::from_millis(1)).await;
    let begun = clock::now();
    drained(&mesh.client.shared).await;
    since(begun)
}

#[test]
fn a_request_under_way_is_waited_for_and_its_idle_connection_is_not() {
    with_standing_clock(|| async {
        let mesh = slow(3);
        let waited = drain_during(&mesh).await;
        let bounds = Duration::from_millis(2_990)..=Duration::from_secs(3) + NOTICED;
        assert!(bounds.contains(&waited), "{waited:?}");
        assert_eq!(mesh.client.requests(&["response_code=\"200\""]), 1.0, "it got its answer");
        assert_eq!(mesh.client.shared.state.connections.relayed(), 0);
    });
}

#[test]
fn a_request_that_takes_too_long_is_not_waited_for_for_ever() {
    with_standing_clock(|| async {
        let waited = drain_during(&slow(60)).await;
        assert!((DRAIN_MAX..=DRAIN_MAX + NOTICED).contains(&waited), "{waited:?}");
    });
}
