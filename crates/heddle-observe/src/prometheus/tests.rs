//! What sidecars told comes back by Prometheus' interface.

use std::{cell::RefCell, fmt::Write as _, sync::Arc, task::Poll};

use heddle_model::ServiceName;
use serde_json::Value;

use super::*;
use crate::{
    answers::View,
    ledger::{Ledger, Past},
    limits,
    measure::Owner,
    store::{Store, kept::Kept},
};

const START: u64 = 1_700_000_000;
/// What Kiali groups calls by.
const KIALI: &str = "source_cluster,source_workload_namespace,source_workload,source_canonical_service,\
    source_canonical_revision,destination_cluster,destination_service_namespace,destination_service,\
    destination_service_name,destination_workload_namespace,destination_workload,destination_canonical_service,\
    destination_canonical_revision,request_protocol,response_code,grpc_response_status,response_flags";

/// One sidecar, of `web`, whose scrapes are written by hand.
struct Mesh {
    view: RefCell<View>,
    ledger: Ledger,
    now: u64,
}

fn edge(protocol: &str) -> String {
    let party = |side: &str, name: &str| {
        format!(
            ",{side}_workload=\"{name}-v1\",{side}_workload_namespace=\"shop\",{side}_principal=\"unknown\",\
             {side}_app=\"{name}\",{side}_version=\"v1\",{side}_canonical_service=\"{name}\",\
             {side}_canonical_revision=\"v1\",{side}_cluster=\"test\""
        )
    };
    format!(
        "reporter=\"source\"{}{},destination_service=\"api.shop.svc.cluster.local\",\
         destination_service_name=\"api\",destination_service_namespace=\"shop\",\
         connection_security_policy=\"none\",request_protocol=\"{protocol}\"",
        party("source", "web"),
        party("destination", "api"),
    )
}

/// What a sidecar tells after so many calls: all in the bucket up to 25 ms, a tenth of them failed.
fn told(calls: u64) -> String {
    let mut text = String::new();
    let (http, grpc, tcp) = (edge("http"), edge("grpc"), edge("tcp"));
    let failed = calls / 10;
    for (labels, code, status, count) in
        [(&http, 200, "", calls - failed), (&http, 503, "", failed), (&grpc, 200, "14", calls)]
    {
        let flags = if code == 503 { "UH" } else { "-" };
        let labels = format!(
            "{labels},response_code=\"{code}\",grpc_response_status=\"{status}\",response_flags=\"{flags}\""
        );
        let _ = writeln!(text, "istio_requests_total{{{labels}}} {count}");
        let name = "istio_request_duration_milliseconds";
        for (le, share) in [("10", 0), ("25", 1), ("+Inf", 1)] {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {}", count * share);
        }
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", count * 20);
        let _ = writeln!(text, "istio_request_bytes_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "istio_request_bytes_sum{{{labels}}} {}", count * 300);
    }
    let tcp = format!("{tcp},response_flags=\"-\"");
    let _ = writeln!(text, "istio_tcp_sent_bytes_total{{{tcp}}} {}", calls * 1_000);
    let _ = writeln!(text, "heddle_retries_total{{reason=\"reset\"}} {calls}");
    let _ = writeln!(
        text,
        "heddle_faults_injected_total{{direction=\"inbound\",fault=\"delay\"}} {calls}"
    );
    let _ =
        writeln!(text, "heddle_refusals_total{{code=\"no-route\",direction=\"outbound\"}} {calls}");
    let _ = writeln!(text, "heddle_connections_open{{direction=\"inbound\"}} 3");
    let _ = writeln!(text, "heddle_requests_in_flight{{direction=\"outbound\"}} 0");
    text
}

impl Mesh {
    fn new() -> Self {
        let owner = Owner {
            id: "web-v1-1".to_owned(),
            service: ServiceName::new("web", "shop").unwrap(),
            version: "v1".to_owned(),
        };
        let view = View { mesh: "test".to_owned(), interval: 1, ..View::default() };
        Self { view: RefCell::new(view), ledger: Ledger::new(owner, Past::default()), now: START }
    }

    /// A second in which ten calls of each protocol were made.
    fn second(&mut self) {
        self.scraped(&told(10 * (self.now + 1 - START)));
    }

    /// A sidecar with 1,000 callees, and 22 series of how long calls of each took.
    fn large() -> Self {
        let mut mesh = Self::new();
        let name = "istio_request_duration_milliseconds";
        let lines = (0..1_000).map(|number| {
            let edge = edge("http").replace("api", &format!("api{number}"));
            let edge = format!("{edge},response_code=\"200\",response_flags=\"-\"");
            format!("{name}_bucket{{{edge},le=\"+Inf\"}} 1\n{name}_sum{{{edge}}} 7\n")
        });
        mesh.scraped(&lines.collect::<String>());
        mesh
    }

    /// A second after which a sidecar told this.
    fn scraped(&mut self, text: &str) {
        self.now += 1;
        let store = &mut self.view.get_mut().store;
        store.begin_round(self.now, 1.0);
        self.ledger.begin();
        for line in text.lines() {
            self.ledger.line(line.as_bytes(), &mut store.cells, &mut store.answers).unwrap();
        }
        let spread = store.spread(store.elapsed() - 1.0);
        for (cell, increase) in self.ledger.commit() {
            store.add(&cell, &increase, &spread);
        }
    }

    fn after(seconds: u64) -> Self {
        let mut mesh = Self::new();
        for _ in 0..seconds {
            mesh.second();
        }
        mesh
    }

    async fn ask(&self, path: &[&str], form: &str) -> Value {
        serde_json::from_slice(&answer(&self.view, path, "", form.as_bytes()).await.1).unwrap()
    }

    /// The values of a query's series, at the newest scrape.
    async fn values(&self, query: &str) -> Vec<f64> {
        let query = query.replace('+', "%2B");
        let told = self.ask(&["query"], &format!("query={query}&time={}", self.now + 1)).await;
        assert_eq!(told["status"], "success", "{query}: {told}");
        let all = told["data"]["result"].as_array().unwrap();
        all.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }
}

#[tokio::test]
async fn counters_are_what_sidecars_counted() {
    let mesh = Mesh::after(120);
    for (query, wanted) in [
        ("sum(istio_requests_total)", 2_400.0),
        ("sum(istio_requests_total{response_code=\"503\",response_flags=\"UH\"})", 120.0),
        (
            "sum(istio_requests_total{request_protocol=\"grpc\",grpc_response_status=\"14\"})",
            1_200.0,
        ),
        ("sum(rate(istio_requests_total{request_protocol=\"http\"}[1m]))", 10.0),
        ("sum(istio_request_duration_milliseconds_count)", 2_400.0),
        ("sum(istio_request_duration_milliseconds_bucket{le=\"+Inf\"})", 2_400.0),
        ("sum(istio_request_duration_milliseconds_bucket{le=\"10\"})", 0.0),
        ("sum(istio_request_duration_milliseconds_sum)", 48_000.0),
        (
            "histogram_quantile(0.5, sum by (le) (rate(istio_request_duration_milliseconds_bucket[1m])))",
            17.5,
        ),
        ("sum(istio_request_bytes_sum) / sum(istio_request_bytes_count)", 300.0),
        ("sum(rate(istio_tcp_sent_bytes_total[1m]))", 10_000.0),
        ("sum by (reason) (rate(heddle_retries_total[1m]))", 10.0),
        ("sum by (fault, direction) (rate(heddle_faults_injected_total[1m]))", 10.0),
        ("sum by (code) (rate(heddle_refusals_total{direction=\"outbound\"}[1m]))", 10.0),
        ("heddle_connections_open{direction=\"inbound\",service=\"web\"}", 3.0),
    ] {
        let values = mesh.values(query).await;
        assert!(values.len() == 1 && (values[0] - wanted).abs() < 1e-6, "{query}: {values:?}");
    }
    let gauges = mesh.values("heddle_requests_in_flight").await;
    assert_eq!(gauges, [0.0, 0.0], "a gauge that is 0 is there too");
}

#[tokio::test]
async fn all_labels_that_kiali_groups_by_are_there() {
    let mesh = Mesh::after(60);
    let query =
        format!("query=sum(rate(istio_requests_total[30s])) by ({KIALI})&time={}", mesh.now);
    let told = mesh.ask(&["query"], &query).await;
    let series = told["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 3, "{told}");
    for one in series {
        for label in KIALI.split(',').filter(|label| *label != "grpc_response_status") {
            assert!(one["metric"][label].is_string(), "no {label} in {one}");
        }
    }
}

#[tokio::test]
async fn a_counter_goes_on_over_a_restart_and_into_coarser_slots() {
    // Twenty minutes: the oldest seconds are gone, and told by slots of ten.
    let mut mesh = Mesh::after(1_200);
    let queries = ["sum(istio_requests_total)", "sum(istio_request_duration_milliseconds_sum)"];
    let before = [mesh.values(queries[0]).await, mesh.values(queries[1]).await];
    assert_eq!(before, [[24_000.0], [480_000.0]]);
    let batch = mesh.view.borrow_mut().store.changes(true);
    let (slots, places, answers) = (batch.slots, batch.places, batch.answers);
    let mut kept = Kept { slots, places, answers, ..Kept::default() };
    kept.slots.sort();
    let mut store = Store::default();
    store.restore(kept);
    // The next scrape's baseline; nothing was called meanwhile.
    store.begin_round(mesh.now + 1, 0.0);
    mesh.view.borrow_mut().store = store;
    mesh.now += 1;
    let after = [mesh.values(queries[0]).await, mesh.values(queries[1]).await];
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_range_has_a_value_at_each_step() {
    let mesh = Mesh::after(300);
    let form = format!(
        "query=sum(rate(istio_requests_total[1m]))&start={}&end={}&step=60",
        START + 60,
        START + 300
    );
    let told = mesh.ask(&["query_range"], &form).await;
    let values = told["data"]["result"][0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 5, "{told}");
    assert!(values[1..].iter().all(|value| value[1] == "20"), "{told}");
}

#[tokio::test]
async fn what_there_is_to_ask_for_is_told() {
    let mesh = Mesh::after(30);
    let data = |told: Value| {
        assert_eq!(told["status"], "success", "{told}");
        told["data"].clone()
    };
    let names = data(mesh.ask(&["label", "__name__", "values"], "").await);
    let names: Vec<&str> = names.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"istio_requests_total"), "{names:?}");
    assert!(names.contains(&"istio_request_duration_milliseconds_bucket"), "{names:?}");
    assert!(!names.contains(&"heddle_rule_requests_total"), "no rule has counted: {names:?}");
    let services = data(
        mesh.ask(&["label", "destination_service", "values"], "match[]=istio_requests_total").await,
    );
    assert_eq!(services, serde_json::json!(["api.shop.svc.cluster.local"]));
    let labels = data(mesh.ask(&["labels"], "").await);
    assert!(labels.as_array().unwrap().contains(&"response_code".into()), "{labels}");
    let series =
        data(mesh.ask(&["series"], "match[]=istio_requests_total{response_code=\"503\"}").await);
    assert_eq!(series.as_array().unwrap().len(), 1, "{series}");
    let metadata = data(mesh.ask(&["metadata"], "metric=istio_requests_total").await);
    assert_eq!(metadata["istio_requests_total"][0]["type"], "counter");
    assert_eq!(data(mesh.ask(&["status", "buildinfo"], "").await)["version"], "2.42.0");
    let config = data(mesh.ask(&["status", "config"], "").await);
    assert!(config["yaml"].as_str().unwrap().contains("scrape_interval: 1s"), "{config}");
    assert!(data(mesh.ask(&["status", "runtimeinfo"], "").await)["storageRetention"].is_string());
}

#[tokio::test]
async fn refusals_are_prometheus_own() {
    let mesh = Mesh::after(3);
    for (path, form, kind, reason) in [
        ("query", "query=", "bad_data", "invalid parameter \"query\""),
        ("query", "query=stddev(x)", "bad_data", "supported are"),
        ("query", "query=x&time=soon", "bad_data", "valid timestamp"),
        ("query_range", "query=x&start=1&end=2", "bad_data", "\"step\""),
        ("query_range", "query=x&start=2&end=1&step=1", "bad_data", "must not be before"),
        ("query_range", "query=x&start=1&end=2&step=0", "bad_data", "zero or negative"),
        ("query_range", "query=x&start=0&end=11001&step=1", "bad_data", "11,000 points"),
        ("query_range", "query=x[5m]&start=0&end=10&step=1", "bad_data", "expression type"),
        ("series", "", "bad_data", "match[]"),
        ("series", "match[]={", "bad_data", "parse error"),
    ] {
        let told = mesh.ask(&[path], form).await;
        assert_eq!(
            (&told["status"], &told["errorType"]),
            (&"error".into(), &kind.into()),
            "{form}"
        );
        assert!(told["error"].as_str().unwrap().contains(reason), "{form}: {told}");
    }
}

#[tokio::test]
async fn names_and_values_of_labels_are_told_of_a_store_beyond_the_caps_of_queries() {
    let mesh = Mesh::large();
    let all = mesh.ask(&["series"], "match[]={reporter=\"source\"}").await;
    assert!(all["error"].as_str().unwrap().contains("more than 20000 series"), "{all}");
    let labels = mesh.ask(&["labels"], "").await;
    assert!(labels["data"].as_array().unwrap().contains(&"le".into()), "{labels}");
    let services = mesh.ask(&["label", "destination_service_name", "values"], "").await;
    assert_eq!(services["data"].as_array().unwrap().len(), 1_000);
    let matched = "match[]={destination_service_name=~\"api1.\"}";
    let services = mesh.ask(&["label", "destination_service_name", "values"], matched).await;
    assert_eq!(services["data"].as_array().unwrap().len(), 10, "{services}");
    let many = mesh.ask(&["labels"], &"match[]=x&".repeat(33)).await;
    assert_eq!(many["errorType"], "bad_data", "{many}");
}

#[tokio::test]
async fn a_query_is_bounded_over_all_of_its_selectors_and_in_its_answer() {
    let mesh = Mesh::large();
    let name = "istio_request_duration_milliseconds_bucket";
    let most = format!("count({name}{{le=~\"[1-9].*\"}})");
    assert_eq!(mesh.values(&most).await, [18_000.0]);
    let twice = mesh.ask(&["query"], &format!("query={most}%2B{most}&time={}", mesh.now + 1)).await;
    assert!(twice["error"].as_str().unwrap().contains("more than 20000 series"), "{twice}");
    let (start, end) = (START + 2, START + 222);
    let form = format!("query={name}{{le=\"10\"}}&start={start}&end={end}&step=");
    let told = mesh.ask(&["query_range"], &format!("{form}22")).await;
    assert_eq!(told["data"]["result"].as_array().unwrap().len(), 1_000);
    let told = mesh.ask(&["query_range"], &format!("{form}0.2")).await;
    assert_eq!(told["errorType"], "execution", "1,000 series of 1,101 samples");
}

#[test]
fn who_goes_away_gives_no_place_free_while_there_is_work() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::after(3);
        let places = Arc::clone(&mesh.view.borrow().queries.0);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let mut asked = Box::pin(mesh.ask(&["query"], "query=1"));
        let once = |context: &mut std::task::Context<'_>| {
            Poll::Ready(asked.as_mut().poll(context).is_pending())
        };
        assert!(std::future::poll_fn(once).await, "it waits for a thread");
        drop(asked);
        assert_eq!(places.available_permits(), limits::QUERIES_AT_ONCE - 1);
        drop(go);
        let _ended = busy.await;
        let all = u32::try_from(limits::QUERIES_AT_ONCE).unwrap();
        assert!(places.acquire_many(all).await.is_ok(), "then they are free again");
    });
}
