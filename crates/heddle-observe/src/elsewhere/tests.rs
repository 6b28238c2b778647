//! Answers of a Prometheus, as it would give them, and what the same code as ever makes of them.

use heddle_model::ServiceName;

use super::*;
use crate::{
    answers::{TimeRange, View},
    measure::Owner,
};

const NOW: u64 = 1_700_000_003;

/// An answer with one caller's counter of calls, at the steps of the period.
fn answer(wanted: Wanted, values: impl Fn(usize) -> Option<f64>, code: u16) -> Vec<u8> {
    let values: Vec<_> = wanted
        .times()
        .enumerate()
        .filter_map(|(number, at)| Some((at, values(number)?.to_string())))
        .collect();
    let metric = serde_json::json!({
        "__name__": "istio_requests_total", "job": "mesh", "instance": "10.0.0.1:15090",
        "reporter": "source", "source_canonical_service": "web",
        "source_workload_namespace": "default", "response_code": code.to_string(),
        "destination_service": "api.default.svc.cluster.local", "request_protocol": "http",
    });
    let series = serde_json::json!({ "metric": metric, "values": values });
    let data = serde_json::json!({ "resultType": "matrix", "result": [series] });
    serde_json::to_vec(&serde_json::json!({ "status": "success", "data": data })).unwrap()
}

async fn seen(wanted: Wanted, body: &[u8], window: u64, owner: Option<Owner>) -> View {
    let store = replay::replay(body, wanted, |_| owner.clone()).await.unwrap();
    let view = View { store, interval: wanted.step, ..View::default() };
    assert_eq!(view.store.newest(), Some(wanted.end - 1), "{window}");
    view
}

#[tokio::test]
async fn counters_are_rates_of_the_period_asked_about() {
    for window in [10, 60, 300, 3_600, 86_400, 30 * 86_400] {
        let wanted = Wanted::new(window, NOW, NOW);
        assert!(wanted.back / wanted.step <= limits::ELSEWHERE_STEPS_MAX, "{wanted:?}");
        // Two calls per second, of a sidecar that was at work long before.
        let rate = 2.0 * wanted.step as f64;
        let body = answer(wanted, |number| Some(1e6 + rate * number as f64), 200);
        let view = seen(wanted, &body, window, None).await;
        let graph = view.graph(TimeRange { window, end: None });
        let [edge] = &graph.edges[..] else { panic!("{window}: {graph:?}") };
        assert_eq!((&*edge.source.name, &*edge.destination.name), ("web", "api"));
        let told = edge.client.per_second;
        assert!((told - 2.0).abs() < 0.01, "{window}: {told}");
        let page = view.page(&edge.destination, TimeRange { window, end: None }).unwrap();
        assert!((page.summary.client.per_second - 2.0).abs() < 0.01, "{window}");
        let before = page.previous.client.per_second;
        assert!((before - 2.0).abs() < 0.01, "{window}: {before}");
    }
}

#[tokio::test]
async fn a_counter_that_began_anew_and_one_without_a_past_make_no_burst() {
    let wanted = Wanted::new(300, NOW, NOW);
    let last = usize::try_from(wanted.back / wanted.step).unwrap();
    // It restarts in the last step, and what it had counted by then is not counted again.
    let anew = answer(wanted, |number| Some(if number == last { 60.0 } else { 5e5 }), 200);
    // First met in the last step, and it does not say that it has just begun.
    let late = answer(wanted, |number| (number == last).then_some(5e5), 200);
    let range = TimeRange { window: 60, end: None };
    let view = seen(wanted, &anew, 60, None).await;
    let told = view.graph(range).edges[0].client.per_second;
    assert!((told - 1.0).abs() < 0.01, "{told}");
    assert!(seen(wanted, &late, 60, None).await.graph(range).edges.is_empty());
}

#[tokio::test]
async fn whose_sidecar_it_is_says_the_mesh_before_labels_do() {
    let wanted = Wanted::new(60, NOW, NOW);
    let service = ServiceName::new("shop", "default").unwrap();
    let owner = Owner { id: "shop-1".to_owned(), service, version: "v1".to_owned() };
    let body = answer(wanted, |number| Some(60.0 * number as f64), 503);
    let view = seen(wanted, &body, 60, Some(owner)).await;
    let graph = view.graph(TimeRange { window: 60, end: None });
    assert_eq!(graph.edges[0].source.name, "shop");
    assert!(graph.edges[0].client.server_errors_per_second > 0.9, "{graph:?}");
}

#[tokio::test]
async fn what_is_no_prometheus_is_told_in_words() {
    let wanted = Wanted::new(60, NOW, NOW);
    for body in [&b"<html>sign in</html>"[..], b"", b"{}", b"{\"data\":{\"result\":[7]}}"] {
        let error = replay::replay(body, wanted, |_| None).await.unwrap_err();
        assert!(error.contains("no Prometheus") && error.contains("query_range"), "{error}");
    }
    assert_eq!(said(b"{\"status\":\"error\",\"error\":\"too many samples\"}"), "too many samples");
    assert_eq!(encode("a{b=\"c|d\"}"), "a%7Bb%3D%22c%7Cd%22%7D");
}
