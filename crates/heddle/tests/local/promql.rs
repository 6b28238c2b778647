//! The observer asked in Prometheus' words, and a Prometheus that scrapes the same sidecars: both say the same of the
//! same time, for every query of our dashboard for Grafana, those of Istio's, and those of Kiali.
//!
//! Within a tolerance: each scrapes at moments of its own, so at either end of a period they are up to a second apart.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use heddle_runtime::clock;
use serde_json::Value;

use crate::host::wait_until;

/// Share of the larger value by which two answers may differ.
const SHARE: f64 = 0.15;
/// And this much in any case: a few calls more or less in half a minute.
const AMOUNT: f64 = 0.3;
/// The same of gauges: Prometheus tells them of one moment, and the observer of each sidecar's last scrapes on average.
const GAUGE: (f64, f64) = (0.5, 5.0);
/// Seconds over which rates are told.
const WINDOW: &str = "30s";

/// Which labels Kiali groups the calls of its graph by.
const KIALI: &str = "source_cluster,source_workload_namespace,source_workload,source_canonical_service,\
    source_canonical_revision,destination_cluster,destination_service_namespace,destination_service,\
    destination_service_name,destination_workload_namespace,destination_workload,destination_canonical_service,\
    destination_canonical_revision,request_protocol,response_code,grpc_response_status,response_flags";

/// In the shape in which Istio's dashboards of mesh, service and workload ask, and Kiali's graph and charts. `CALLEE`
/// and `WINDOW` are put in.
const OTHERS: [&str; 24] = [
    r#"round(sum(rate(istio_requests_total{reporter=~"source|waypoint"}[WINDOW])), 0.01)"#,
    r#"sum(rate(istio_requests_total{reporter=~"source|waypoint", response_code!~"5.."}[WINDOW])) / sum(rate(istio_requests_total{reporter=~"source|waypoint"}[WINDOW]))"#,
    r#"round(sum(rate(istio_requests_total{reporter=~"source|waypoint", response_code=~"4.."}[WINDOW])), 0.01)or vector(0)"#,
    r#"label_join(sum by (destination_workload,destination_workload_namespace,destination_service) (rate(istio_requests_total{reporter=~"source|waypoint"}[WINDOW])), "destination_workload_var", ".", "destination_workload", "destination_workload_namespace")"#,
    r#"label_join(histogram_quantile(0.5, sum by (le,destination_workload,destination_workload_namespace) (rate(istio_request_duration_milliseconds_bucket{reporter=~"source|waypoint"}[WINDOW]))), "destination_workload_var", ".", "destination_workload", "destination_workload_namespace")"#,
    r#"label_join((sum by (destination_workload,destination_workload_namespace) (rate(istio_requests_total{reporter=~"source|waypoint", response_code!~"5.."}[WINDOW]))/sum by (destination_workload,destination_workload_namespace) (rate(istio_requests_total{reporter=~"source|waypoint"}[WINDOW]))), "destination_workload_var", ".", "destination_workload", "destination_workload_namespace")"#,
    r#"label_join(sum by (destination_workload,destination_workload_namespace,destination_service) (rate(istio_tcp_received_bytes_total{reporter=~"source|waypoint"}[WINDOW])), "destination_workload_var", ".", "destination_workload", "destination_workload_namespace")"#,
    r#"round(sum(irate(istio_requests_total{reporter=~"source",destination_service=~"CALLEE",connection_security_policy!="mutual_tls",response_code=~"9.."}[5m])) by (source_workload, source_workload_namespace, response_code), 0.001)"#,
    r#"round(sum(rate(istio_requests_total{reporter="destination",destination_service=~"CALLEE"}[WINDOW])) by (source_workload, source_workload_namespace, response_code), 0.001)"#,
    r#"sum(rate(istio_requests_total{reporter=~"destination",destination_service=~"CALLEE",response_code!~"5.*"}[WINDOW])) by (source_workload, source_workload_namespace) / sum(rate(istio_requests_total{reporter=~"destination",destination_service=~"CALLEE"}[WINDOW])) by (source_workload, source_workload_namespace)"#,
    r#"(histogram_quantile(0.50, sum(rate(istio_request_duration_milliseconds_bucket{reporter=~"source",destination_service=~"CALLEE"}[WINDOW])) by (source_workload, source_workload_namespace, le)) / 1000) or histogram_quantile(0.50, sum(rate(istio_request_duration_seconds_bucket{reporter=~"source",destination_service=~"CALLEE"}[WINDOW])) by (source_workload, source_workload_namespace, le))"#,
    r#"histogram_quantile(0.50, sum(rate(istio_request_bytes_bucket{reporter=~"destination",destination_service=~"CALLEE"}[WINDOW])) by (source_workload, source_workload_namespace, le))"#,
    r#"histogram_quantile(0.95, sum(rate(istio_response_bytes_bucket{reporter=~"source",destination_service=~"CALLEE"}[WINDOW])) by (le))"#,
    r#"sum(rate(istio_response_bytes_sum{reporter="source"}[WINDOW])) by (destination_workload) / sum(rate(istio_response_bytes_count{reporter="source"}[WINDOW])) by (destination_workload)"#,
    r#"round(sum(rate(istio_tcp_sent_bytes_total{reporter="destination"}[WINDOW])) by (destination_workload, destination_workload_namespace, destination_service), 0.001)"#,
    r#"topk(20, sum by (destination_service_name) (rate(istio_requests_total{reporter="source"}[WINDOW])) > 1)"#,
    r#"sum(rate(istio_requests_total{reporter=~"source|waypoint",source_workload_namespace="default"}[WINDOW])) by (KIALI) > 0"#,
    r#"sum(rate(istio_requests_total{reporter=~"destination|waypoint",destination_service_namespace="default"}[WINDOW])) by (KIALI) > 0"#,
    r#"sum(rate(istio_request_duration_milliseconds_sum{reporter="destination"}[WINDOW])) by (source_workload,destination_service_name,request_protocol) / sum(rate(istio_request_duration_milliseconds_count{reporter="destination"}[WINDOW])) by (source_workload,destination_service_name,request_protocol) > 0"#,
    r#"histogram_quantile(0.95, sum(rate(istio_request_duration_milliseconds_bucket{reporter=~"destination|waypoint"}[WINDOW])) by (le,source_canonical_service,destination_canonical_service)) > 0"#,
    r#"sum(rate(istio_tcp_sent_bytes_total{reporter="source"}[WINDOW])) by (source_workload,destination_service_name,response_flags) > 0"#,
    r#"sum(rate(istio_requests_total{reporter="source"}[WINDOW])) by (source_workload) unless on (source_workload) sum(rate(istio_requests_total{reporter="destination"}[WINDOW])) by (source_workload)"#,
    r#"count(sum by (source_workload, destination_service_name) (rate(istio_requests_total{reporter="source"}[WINDOW])))"#,
    r#"sum by (destination_service_name) (increase(istio_requests_total{reporter="source",response_flags!~"FI|DI"}[WINDOW]))"#,
];

/// Compares the answers of both, asked at their addresses.
pub(crate) fn both_say_the_same(prometheus: &str, observer: &str, panels: &[(String, String)]) {
    let others = OTHERS.map(|query| {
        let query = query.replace("KIALI", KIALI).replace("CALLEE", ".*(ratings|reviews).*");
        ("another dashboard's".to_owned(), query.replace("WINDOW", WINDOW))
    });
    for (title, query) in panels.iter().chain(&others) {
        let is_gauge = ["Requests in flight", "Open connections"].contains(&title.as_str());
        let difference = RefCell::new(String::new());
        let _agree = Told(&difference, query);
        wait_until(&format!("both say the same to `{title}`: {query}"), || {
            let at = clock::unix_now().as_secs_f64() - 2.0;
            let (one, other) = (asked(prometheus, query, at)?, asked(observer, query, at)?);
            *difference.borrow_mut() = differences(&values(&one), &values(&other), is_gauge);
            difference.borrow().is_empty().then_some(())
        });
    }
}

/// Tells where they differed when waiting has been in vain.
struct Told<'a>(&'a RefCell<String>, &'a str);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.1, self.0.borrow());
        }
    }
}

/// What one answers to a query about a moment.
fn asked(address: &str, query: &str, at: f64) -> Option<Value> {
    let mut ask = Command::new("curl");
    ask.args(["-s", "--max-time", "10", &format!("http://{address}/api/v1/query")]);
    ask.arg("--data-urlencode").arg(format!("query={query}"));
    ask.arg("--data-urlencode").arg(format!("time={at}"));
    let answer: Value = serde_json::from_slice(&ask.output().ok()?.stdout).ok()?;
    assert_eq!(answer["status"], "success", "{address}: {query}: {answer}");
    Some(answer)
}

/// Values by the labels of their series; of a series that is at rest there need be no word.
fn values(answer: &Value) -> BTreeMap<String, f64> {
    let all = answer["data"]["result"].as_array().into_iter().flatten();
    let named = all.map(|one| {
        let labels: BTreeMap<&String, &Value> =
            one["metric"].as_object().into_iter().flatten().collect();
        let value = one["value"][1].as_str().and_then(|value| value.parse().ok());
        (format!("{labels:?}"), value.unwrap_or(f64::NAN))
    });
    named.filter(|(_, value)| *value != 0.0 && !value.is_nan()).collect()
}

fn differences(
    one: &BTreeMap<String, f64>,
    other: &BTreeMap<String, f64>,
    is_gauge: bool,
) -> String {
    let all: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = all.into_iter().filter_map(|labels| {
        let value = |side: &BTreeMap<String, f64>| side.get(labels).copied();
        let (a, b) = (value(one).unwrap_or(0.0), value(other).unwrap_or(0.0));
        let (share, amount) = if is_gauge { GAUGE } else { (SHARE, AMOUNT) };
        let near = (a - b).abs() <= amount + share * a.abs().max(b.abs());
        (!near).then(|| format!("{labels}: {a} and {b}"))
    });
    differ.collect::<Vec<_>>().join("\n")
}

/// Our dashboard's queries with their panels' titles, as Grafana would ask them.
pub(crate) fn panels(window: &str) -> Vec<(String, String)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grafana/heddle.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", window).replace("$service", ".*");
            all.push((title.to_owned(), query));
        }
    }
    assert!(all.len() > 25, "{}", all.len());
    all
}
