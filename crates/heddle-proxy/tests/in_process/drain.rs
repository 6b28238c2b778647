//! The end of a sidecar: what is under way is waited for, within bounds.

use std::{path::Path, sync::Arc, time::Duration};

use heddle_proxy::{
    Shared,
    direction::Direction,
    listening::Listening,
    metrics::Metrics,
    sidecar::{DRAIN_MAX, drained, ended},
};
use heddle_runtime::{clock, task::spawn_contained};
use heddle_testkit::fixture::pod_config;
use heddle_wire::local::proxy_config::{ProxyConfig, Surroundings};

use crate::mesh::{End, GET, Mesh, OK, answers, since, with_standing_clock};

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

#[test]
fn answers_of_a_sidecar_that_ends_tell_their_clients_to_ask_elsewhere() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let mut end = mesh.call();
        let (head, _) = end.ask(GET).await;
        assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
        // Those who call the workload are told first; its own calls go on.
        mesh.client.shared.state.draining.begin_inbound();
        let (head, _) = end.ask(GET).await;
        assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
        mesh.client.shared.state.draining.begin();
        let (head, _) = end.ask(GET).await;
        assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
    });
}

/// What a pod's sidecar shares, with an application that listens.
fn pod(change: impl FnOnce(&mut ProxyConfig)) -> Arc<Shared> {
    let mut config = pod_config(Path::new("/nowhere"), "127.0.0.1:1".parse().unwrap());
    change(&mut config);
    let own = config.addresses;
    let metrics = Arc::new(Metrics::new(&config));
    let (shared, _ends) = Shared::new(config, metrics);
    let application = std::net::SocketAddr::new(own.first(), 8080);
    shared.listening.store(Arc::new(Listening::of(&[application], own)));
    Arc::new(shared)
}

fn gone(shared: &Shared) {
    shared.listening.store(Arc::new(Listening::unknown(shared.config.addresses)));
}

#[test]
fn in_a_pod_it_serves_while_others_hear_of_it_and_then_until_the_application_has_gone() {
    with_standing_clock(|| async {
        let shared = pod(|_| {});
        let (ending, begun) = (shared.clone(), clock::now());
        let end = tokio::task::spawn_local(async move { ended(&ending).await });
        clock::sleep(Duration::from_secs(1)).await;
        assert!(shared.state.draining.is_begun(Direction::Inbound));
        assert!(!shared.state.draining.is_begun(Direction::Outbound));
        clock::sleep(Duration::from_secs(19)).await;
        assert!(!end.is_finished(), "the application still listens");
        gone(&shared);
        end.await.unwrap();
        assert!(shared.state.draining.is_begun(Direction::Outbound));
        assert!(since(begun) <= Duration::from_secs(20) + NOTICED);
        // One that has gone before is no reason to tell nobody.
        let shared = pod(|_| {});
        gone(&shared);
        let begun = clock::now();
        ended(&shared).await;
        let bounds = Duration::from_secs(5)..=Duration::from_secs(5) + NOTICED;
        assert!(bounds.contains(&since(begun)), "{:?}", since(begun));
    });
}

#[test]
fn one_that_is_ended_after_its_application_ends_at_once() {
    with_standing_clock(|| async {
        let shared = pod(|config| {
            let Surroundings::Pod(pod) = &mut config.surroundings else { panic!() };
            pod.native = true;
        });
        let begun = clock::now();
        ended(&shared).await;
        assert_eq!(since(begun), Duration::ZERO);
    });
}
