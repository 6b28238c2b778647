//! What a scrape shows.

mod idle;
mod tags;

use std::{path::Path, time::Duration};

use heddle_model::ServiceName;

use super::{scrape::Scrape, *};
use crate::{
    limits::{LABEL_SETS, LABEL_SETS_OUTSIDE, SCRAPE_PIECE_BYTES, VERDICT_PORTS_PER_DESTINATION},
    refusal::Flag,
    series::SeriesSet,
    testing,
    verdict::{Reason, Verdict},
};

fn metrics(workers: usize) -> Arc<Metrics> {
    let config = ProxyConfig { workers, ..testing::proxy_config(Path::new("/nowhere")) };
    Arc::new(Metrics::new(&config))
}

fn text(metrics: &Arc<Metrics>) -> String {
    Scrape::new(Arc::clone(metrics)).collect()
}

fn edge(name: &str) -> Edge {
    let service = ServiceName::new(name, "default").unwrap();
    Edge { reporter: Reporter::Source, peer: None, service: ServiceLabels::of(&service) }
}

fn record(metrics: &Metrics, worker: usize, name: &str, status: u16) {
    record_flagged(metrics, worker, name, (status, Flags::default()));
}

fn record_flagged(metrics: &Metrics, worker: usize, name: &str, answer: (u16, Flags)) {
    let set = SeriesSet::new(edge(name), worker);
    set.http(metrics, (answer.0, Grpc::No, answer.1), |series| {
        series.record(Duration::from_micros(700), 80, 1_200);
    });
}

#[test]
fn shards_of_all_workers_add_up_under_one_label_set() {
    let metrics = metrics(2);
    record(&metrics, 0, "reviews", 200);
    record(&metrics, 1, "reviews", 200);
    record(&metrics, 1, "reviews", 200);
    let text = text(&metrics);
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    assert!(line.ends_with(" 3"), "{line}");
    assert_eq!(text.lines().filter(|line| line.starts_with("istio_requests_total{")).count(), 1);
}

#[test]
fn a_request_has_all_of_istios_labels() {
    let metrics = metrics(1);
    record(&metrics, 0, "reviews", 200);
    let text = text(&metrics);
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    let labels = line.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
    assert_eq!(labels.split(',').count(), 25, "{labels}");
    for expected in [
        r#"reporter="source""#,
        r#"source_workload="client""#,
        r#"source_canonical_revision="latest""#,
        r#"destination_workload="unknown""#,
        r#"destination_service="reviews.default.svc.cluster.local""#,
        r#"destination_service_name="reviews""#,
        r#"response_code="200""#,
        r#"response_flags="-""#,
        r#"grpc_response_status="""#,
        r#"connection_security_policy="none""#,
    ] {
        assert!(labels.contains(expected), "{expected} in {labels}");
    }
}

#[test]
fn histograms_have_istios_bounds_and_sum_in_the_metrics_unit() {
    let metrics = metrics(1);
    record(&metrics, 0, "reviews", 200);
    let text = text(&metrics);
    let value = |name: &str, end: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(end))
            .unwrap_or_else(|| panic!("no {name} with {end}"));
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let duration = "istio_request_duration_milliseconds";
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="0.5""#), "0");
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="1""#), "1");
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="+Inf""#), "1");
    assert_eq!(value(&format!("{duration}_sum"), ""), "0.7");
    assert_eq!(value("istio_response_bytes_sum", ""), "1200");
    assert_eq!(value("istio_request_bytes_bucket", r#"le="100""#), "1");
}

#[test]
fn label_sets_beyond_the_limit_keep_service_and_status_class_and_are_counted() {
    let metrics = metrics(1);
    for status in 0..u16::try_from(LABEL_SETS).unwrap() {
        record(&metrics, 0, "reviews", status);
    }
    assert!(text(&metrics).contains("heddle_label_sets_overflow_total 0"));
    record(&metrics, 0, "ratings", 503);
    record(&metrics, 0, "ratings", 504);
    let text = text(&metrics);
    assert!(text.contains("heddle_label_sets_overflow_total 2"));
    let line = text
        .lines()
        .find(|line| line.starts_with("istio_requests_total{") && line.contains("ratings"))
        .unwrap();
    assert!(line.contains(r#"response_code="5xx""#) && line.ends_with(" 2"), "{line}");
    assert!(line.contains(r#"destination_workload="overflow""#), "{line}");
}

#[test]
fn injected_aborts_stay_apart_beyond_the_limit() {
    let metrics = metrics(1);
    for status in 0..u16::try_from(LABEL_SETS).unwrap() {
        record(&metrics, 0, "reviews", status);
    }
    let mut injected = Flags::default();
    injected.set(Flag::DI);
    injected.set(Flag::FI);
    record_flagged(&metrics, 0, "ratings", (500, injected));
    record_flagged(&metrics, 0, "ratings", (503, injected));
    record(&metrics, 0, "ratings", 500);
    let text = text(&metrics);
    let of = |flags: &str| {
        let flags = format!("response_flags=\"{flags}\"");
        let line = text.lines().find(|line| {
            line.starts_with("istio_requests_total{")
                && line.contains("ratings")
                && line.contains(r#"response_code="5xx""#)
                && line.contains(&flags)
        });
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count)
    };
    assert_eq!((of("FI"), of("-")), (Some("2"), Some("1")), "{text}");
}

#[test]
fn overflow_itself_is_bounded() {
    let metrics = metrics(1);
    for number in 0..LABEL_SETS + 2_000 {
        record(&metrics, 0, &format!("s{number}"), 200);
    }
    let text = text(&metrics);
    let sets = text.lines().filter(|line| line.starts_with("istio_requests_total{")).count();
    assert!(sets <= LABEL_SETS + crate::limits::OVERFLOW_LABEL_SETS + 10, "{sets}");
    let total: u64 = text
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(total, LABEL_SETS as u64 + 2_000, "no request is lost");
}

#[test]
fn label_values_are_escaped() {
    let metrics = metrics(1);
    let service = ServiceLabels::passthrough(Some("a\"b\\c\nd"));
    let edge = Edge { reporter: Reporter::Source, peer: None, service };
    SeriesSet::new(edge, 0).tcp(&metrics, Flags::default());
    assert!(text(&metrics).contains(r#"destination_service="a\"b\\c\nd""#));
}

#[test]
fn refusals_are_counted_by_code_and_direction() {
    let metrics = metrics(1);
    let row = crate::refusal::Refusal::HeadTimeout.row();
    metrics.refused(&row, Direction::Inbound);
    assert_eq!(row.flag, Flag::SI);
    let text = text(&metrics);
    assert!(text.contains(r#"heddle_refusals_total{code="head-timeout",direction="inbound"} 1"#));
}

/// A request to a host outside the mesh.
fn record_outside(metrics: &Arc<Metrics>, host: &str, status: u16) {
    let service = ServiceLabels::passthrough(Some(host));
    let set = SeriesSet::new(Edge { reporter: Reporter::Source, peer: None, service }, 0);
    set.http(metrics, (status, Grpc::No, Flags::default()), |series| {
        series.record(Duration::ZERO, 1, 1)
    });
}

#[test]
fn a_scrape_is_made_in_pieces_and_has_each_metric_in_one_place() {
    let metrics = metrics(2);
    for status in 0..u16::try_from(LABEL_SETS).unwrap() {
        record(&metrics, usize::from(status % 2), "reviews", status);
    }
    let mut metrics_seen = Vec::new();
    let mut samples = 0;
    let mut carried = String::new();
    for piece in Scrape::new(Arc::clone(&metrics)) {
        // The lines of one label set's histogram more, at most.
        assert!(piece.len() < SCRAPE_PIECE_BYTES + 32 * 1024, "{}", piece.len());
        carried += &piece;
        assert!(carried.ends_with('\n'), "of whole lines");
        for line in carried.lines().filter(|line| !line.starts_with('#')) {
            let (name, _) = line.split_once(['{', ' ']).unwrap();
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            if metrics_seen.last().is_none_or(|last| last != name) {
                assert!(!metrics_seen.iter().any(|one| one == name), "{name} is said twice");
                metrics_seen.push(name.to_owned());
            }
            samples += 1;
        }
        carried.clear();
    }
    // Of each: the counter, 20 buckets of time and twice 7 of bytes, with their sums and counts.
    assert!(samples > LABEL_SETS * 41 && samples < LABEL_SETS * 41 + 100, "{samples}");
}

#[test]
fn a_label_set_that_is_new_during_a_scrape_is_in_the_next_one() {
    let metrics = metrics(1);
    record(&metrics, 0, "reviews", 200);
    let scrape = Scrape::new(Arc::clone(&metrics));
    record(&metrics, 0, "ratings", 200);
    assert!(!scrape.collect::<String>().contains("ratings"));
    assert!(text(&metrics).contains("ratings"));
}

#[test]
fn hosts_outside_take_no_label_set_from_services() {
    let metrics = metrics(1);
    for host in 0..LABEL_SETS + 1 {
        record_outside(&metrics, &format!("host{host}.example.com"), 200);
    }
    record(&metrics, 0, "reviews", 200);
    let text = text(&metrics);
    let of = |label: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("istio_requests_total{") && line.contains(label));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count.to_owned())
    };
    assert_eq!(of(r#"destination_service_name="reviews""#).as_deref(), Some("1"));
    assert_eq!(of(r#"destination_service="host0.example.com""#).as_deref(), Some("1"));
    let folded = LABEL_SETS + 1 - LABEL_SETS_OUTSIDE;
    let folded_label =
        r#"destination_service="overflow",destination_service_name="PassthroughCluster""#;
    assert_eq!(of(folded_label), Some(folded.to_string()), "no request is lost");
    // Nor one of the overflow sets.
    let sets = text.lines().filter(|line| line.starts_with("istio_requests_total{")).count();
    assert_eq!(sets, LABEL_SETS_OUTSIDE + 2);
}

#[test]
fn one_destinations_ports_leave_room_for_those_of_others() {
    let metrics = metrics(1);
    let outside = ServiceLabels::passthrough(None);
    for port in 1..=u16::MAX {
        metrics.verdicts(&outside, port).count(Verdict::Tcp, Reason::Declared);
    }
    let reviews = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    metrics.verdicts(&reviews, 80).count(Verdict::Http, Reason::Declared);
    let text = text(&metrics);
    let verdicts = |label: &str| {
        let lines = text.lines().filter(|line| line.starts_with("heddle_protocol_verdicts_total{"));
        lines.filter(|line| line.contains(label)).count()
    };
    assert_eq!(verdicts("reviews"), 1);
    assert_eq!(verdicts("PassthroughCluster"), VERDICT_PORTS_PER_DESTINATION + 1);
    let shared = usize::from(u16::MAX) - VERDICT_PORTS_PER_DESTINATION;
    let line = text.lines().find(|line| line.contains(r#"port="0""#)).unwrap();
    assert!(line.ends_with(&format!(" {shared}")), "{line}");
}
