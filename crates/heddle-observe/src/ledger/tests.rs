//! Increases, restarts, baselines and hostile scrapes.

use heddle_model::ServiceName;
use proptest::prelude::*;

use super::*;
use crate::measure::{ANSWER, BYTES_TO_CALLEE, OPENED, Protocol, REQUESTS_IN_FLIGHT, Reporter};

struct Fixture {
    ledger: Ledger,
    cells: Cells,
    answers: Answers,
}

impl Fixture {
    fn new(ran_before: bool) -> Self {
        Self::with_past(Past { ran_before, watched_from: 0 })
    }

    fn with_past(past: Past) -> Self {
        let owner = Owner {
            id: "reviews-v1-1".to_owned(),
            service: ServiceName::new("reviews", "default").unwrap(),
            version: "v1".to_owned(),
        };
        let ledger = Ledger::new(owner, past);
        Self { ledger, cells: Cells::default(), answers: Answers::default() }
    }

    fn scrape(&mut self, text: &str) -> Vec<(Rc<Cell>, Increase)> {
        self.ledger.begin();
        for line in text.lines() {
            self.ledger.line(line.as_bytes(), &mut self.cells, &mut self.answers).unwrap();
        }
        self.ledger.commit()
    }

    fn only(&mut self, text: &str, dimension: Dimension) -> Option<f64> {
        let increases = self.scrape(text);
        assert!(increases.len() <= 1, "{increases:?}");
        increases.first().and_then(|(_, increase)| increase.counts.get(&dimension).copied())
    }
}

fn requests(count: u64) -> String {
    format!(
        "# TYPE istio_requests_total counter\n\
         istio_requests_total{{reporter=\"source\",destination_service=\"ratings.default.svc.cluster.local\",\
         destination_version=\"v1\",request_protocol=\"http\",response_code=\"200\",response_flags=\"-\"}} {count}\n"
    )
}

#[test]
fn an_increase_is_the_difference_of_two_scrapes() {
    let mut fixture = Fixture::new(false);
    assert_eq!(fixture.only(&requests(5), ANSWER), Some(5.0));
    assert_eq!(fixture.only(&requests(12), ANSWER), Some(7.0));
    assert_eq!(fixture.only(&requests(12), ANSWER), None);
}

#[test]
fn a_sidecar_that_ran_before_begins_with_a_baseline() {
    let mut fixture = Fixture::new(true);
    assert_eq!(fixture.only(&requests(1_000), ANSWER), None);
    assert_eq!(fixture.only(&requests(1_003), ANSWER), Some(3.0));
}

#[test]
fn a_series_that_appears_later_began_at_zero() {
    let mut fixture = Fixture::new(true);
    assert_eq!(fixture.only("up 1\n", ANSWER), None);
    assert_eq!(fixture.only(&requests(4), ANSWER), Some(4.0));
}

#[test]
fn a_series_that_was_given_up_and_begins_anew_is_no_restart_of_the_others() {
    let other = "istio_requests_total{reporter=\"destination\",source_canonical_service=\"web\",source_workload_namespace=\"default\",response_code=\"200\",response_flags=\"-\"} 900\n";
    let mut fixture = Fixture::new(false);
    fixture.scrape(&(requests(50) + other));
    assert!(fixture.scrape(other).is_empty(), "it is idle and not told any more");
    let increases = fixture.scrape(&(requests(2) + other));
    assert_eq!(increases.len(), 1, "{increases:?}");
    assert_eq!(increases[0].1.counts[&ANSWER], 2.0);
    assert!(fixture.scrape(other).is_empty());
    let increases = fixture.scrape(&(requests(7) + other));
    assert_eq!(increases[0].1.counts[&ANSWER], 5.0, "hidden and shown again, it goes on");
}

#[test]
fn one_counter_that_fell_resets_them_all() {
    let tcp = |opened: u64, bytes: u64| {
        let labels = "reporter=\"destination\",source_canonical_service=\"web\",source_workload_namespace=\"default\"";
        format!(
            "istio_tcp_connections_opened_total{{{labels}}} {opened}\n\
             istio_tcp_received_bytes_total{{{labels}}} {bytes}\n"
        )
    };
    let mut fixture = Fixture::new(false);
    fixture.scrape(&tcp(10, 100));
    // After the restart more bytes were counted than ever before: only the other counter shows it.
    let increases = fixture.scrape(&tcp(3, 400));
    let counts = &increases[0].1.counts;
    assert_eq!((counts[&OPENED], counts[&BYTES_TO_CALLEE]), (3.0, 400.0));
    assert_eq!(increases[0].0.source.name, "web");
    assert_eq!(increases[0].0.protocol, Protocol::Tcp);
}

#[test]
fn a_new_start_time_resets_counters_that_did_not_fall() {
    let mut fixture = Fixture::new(false);
    let started = |at: u64, count| format!("process_start_time_seconds {at}\n{}", requests(count));
    fixture.scrape(&started(100, 5));
    assert_eq!(fixture.only(&started(200, 6), ANSWER), Some(6.0));
    assert_eq!(fixture.only(&started(200, 8), ANSWER), Some(2.0));
}

#[test]
fn a_series_absent_from_the_first_scrape_after_a_restart_is_no_second_restart() {
    let from = |workload: &str, count: u64| {
        format!(
            "istio_requests_total{{reporter=\"source\",destination_workload=\"{workload}\",response_code=\"200\"}} {count}\n"
        )
    };
    let mut fixture = Fixture::new(false);
    fixture.scrape(&(from("a", 10) + &from("b", 100)));
    assert_eq!(fixture.only(&from("a", 2), ANSWER), Some(2.0), "the restart");
    let increases = fixture.scrape(&(from("a", 3) + &from("b", 5)));
    let counts: Vec<_> = increases.iter().map(|(_, increase)| increase.counts[&ANSWER]).collect();
    assert_eq!(counts, [1.0, 5.0]);
}

#[test]
fn a_sidecar_that_began_before_it_was_watched_has_a_past() {
    let scrape =
        |began: u64, count| format!("process_start_time_seconds {began}\n{}", requests(count));
    let past = Past { ran_before: false, watched_from: 1_000 };
    let mut fixture = Fixture::with_past(past);
    assert_eq!(fixture.only(&scrape(999, 500), ANSWER), None);
    assert_eq!(fixture.only(&scrape(999, 501), ANSWER), Some(1.0));
    let mut fixture = Fixture::with_past(past);
    assert_eq!(fixture.only(&scrape(1_000, 5), ANSWER), Some(5.0));
}

#[test]
fn cumulative_buckets_become_counts_per_bucket() {
    let bucket = |le: &str, count: u64| {
        format!(
            "istio_request_duration_milliseconds_bucket{{reporter=\"destination\",le=\"{le}\"}} {count}\n"
        )
    };
    let mut fixture = Fixture::new(false);
    let text = [("0.5", 1), ("1", 1), ("5", 4), ("7", 9), ("10", 10), ("+Inf", 12)]
        .map(|(le, count)| bucket(le, count))
        .concat();
    let increases = fixture.scrape(&text);
    let counts: Vec<_> = increases[0].1.counts.iter().map(|(&d, &n)| (d, n)).collect();
    assert_eq!(counts, [(0, 1.0), (2, 3.0), (3, 6.0), (19, 2.0)]);
}

#[test]
fn injected_aborts_are_counted_but_have_no_latency() {
    let labels = "reporter=\"source\",response_code=\"500\",response_flags=\"DI,FI\"";
    let text = format!(
        "istio_requests_total{{{labels}}} 3\n\
         istio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} 3\n"
    );
    let mut fixture = Fixture::new(false);
    let increases = fixture.scrape(&text);
    let counts = &increases[0].1.counts;
    assert_eq!(counts.get(&ANSWER), Some(&3.0));
    assert!(counts.keys().all(|dimension| *dimension >= ANSWER), "no latency: {counts:?}");
    let answer = fixture.answers.get(ANSWER).unwrap();
    assert!(answer.injected() && answer.delayed() && !answer.failed());
}

#[test]
fn an_overflow_series_is_counted_by_its_status_class() {
    let mut fixture = Fixture::new(false);
    let classes = [
        ("0xx", 0),
        ("2xx", 200),
        ("4xx", 400),
        ("5xx", 500),
        ("204", 204),
        ("xx", 0),
        ("99xx", 0),
    ];
    for (class, code) in classes {
        let line =
            format!("istio_requests_total{{reporter=\"source\",response_code=\"{class}\"}} 2\n");
        let increases = fixture.scrape(&line);
        let (&dimension, &count) = increases[0].1.counts.iter().next().unwrap();
        assert_eq!((fixture.answers.get(dimension).unwrap().code, count), (code, 2.0), "{class}");
    }
    assert!(!fixture.answers.get(ANSWER + 1).unwrap().failed(), "2xx is a success");
}

#[test]
fn a_call_of_grpc_counts_by_its_own_status() {
    let mut fixture = Fixture::new(false);
    for (status, code) in [("0", 200), ("5", 404), ("14", 503), ("99", 500), ("", 200)] {
        let line = format!(
            "istio_requests_total{{reporter=\"source\",request_protocol=\"grpc\",response_code=\"200\",grpc_response_status=\"{status}\"}} 2\n"
        );
        let increases = fixture.scrape(&line);
        let (&dimension, _) = increases[0].1.counts.iter().next().unwrap();
        assert_eq!(fixture.answers.get(dimension).unwrap().code, code, "{status}");
    }
}

#[test]
fn injected_aborts_of_an_overflow_series_are_no_failures() {
    let labels = "reporter=\"source\",response_code=\"5xx\",response_flags=\"FI\"";
    let text = format!(
        "istio_requests_total{{{labels}}} 3\n\
         istio_request_duration_milliseconds_bucket{{{labels},le=\"+Inf\"}} 3\n"
    );
    let mut fixture = Fixture::new(false);
    let increases = fixture.scrape(&text);
    let counts = &increases[0].1.counts;
    assert!(counts.keys().all(|dimension| *dimension >= ANSWER), "no latency: {counts:?}");
    let answer = fixture.answers.get(ANSWER).unwrap();
    assert!(answer.injected() && !answer.failed());
}

#[test]
fn saturation_is_the_inbound_gauge_alone() {
    let mut fixture = Fixture::new(true);
    let increases = fixture.scrape(
        "heddle_requests_in_flight{direction=\"inbound\"} 7\n\
         heddle_requests_in_flight{direction=\"outbound\"} 9\n\
         heddle_requests_in_flight 16\n",
    );
    assert_eq!(increases.len(), 1);
    assert_eq!(increases[0].1.counts[&REQUESTS_IN_FLIGHT], 7.0);
    assert_eq!(increases[0].0.reporter, Reporter::Server);
}

#[test]
fn a_host_outside_is_a_place_without_namespace() {
    let mut fixture = Fixture::new(false);
    let text = |service: &str, name: &str| {
        format!(
            "istio_requests_total{{reporter=\"source\",destination_service=\"{service}\",destination_service_name=\"{name}\",response_code=\"0\"}} 1\n"
        )
    };
    let all = text("www.example.com", "PassthroughCluster")
        + &text("unknown", "PassthroughCluster")
        + &text("example.com", "x");
    let names: Vec<_> =
        fixture.scrape(&all).iter().map(|(cell, _)| cell.destination.clone()).collect();
    assert_eq!(
        names,
        ["www.example.com", "PassthroughCluster", "example.com"].map(measure::outside)
    );
}

#[test]
fn an_unfinished_scrape_changes_nothing() {
    let mut fixture = Fixture::new(false);
    fixture.scrape(&requests(5));
    let Fixture { ledger, cells, answers } = &mut fixture;
    ledger.begin();
    ledger.line(requests(50).lines().nth(1).unwrap().as_bytes(), cells, answers).unwrap();
    assert_eq!(
        ledger.line(b"istio_requests_total{", cells, answers),
        Err(LineError::Value),
        "a cut line"
    );
    assert_eq!(fixture.only(&requests(6), ANSWER), Some(1.0));
}

#[test]
fn the_number_of_series_followed_is_bounded() {
    let mut fixture = Fixture::new(false);
    for code in 0..=limits::SERIES_PER_SIDECAR_MAX {
        let line = format!("istio_requests_total{{reporter=\"none\",x=\"{code}\"}} 1");
        let Fixture { ledger, cells, answers } = &mut fixture;
        ledger.line(line.as_bytes(), cells, answers).unwrap();
    }
    assert!(fixture.ledger.take_overflow());
    assert!(!fixture.ledger.take_overflow(), "told once");
}

proptest! {
    #[test]
    fn hostile_lines_never_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20)) {
        let mut fixture = Fixture::new(false);
        let Fixture { ledger, cells, answers } = &mut fixture;
        for line in lines {
            let _ = ledger.line(&line, cells, answers);
        }
        let _ = ledger.commit();
    }

    #[test]
    fn hostile_labels_never_panic(
        name in "istio_(requests_total|tcp_sent_bytes_total|request_duration_milliseconds_bucket)",
        labels in proptest::collection::vec(("(reporter|response_code|response_flags|destination_service|le|source_app)", "\\PC{0,300}"), 0..6),
        value in any::<f64>(),
    ) {
        let labels: Vec<_> = labels
            .into_iter()
            .map(|(name, value)| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        let line = format!("{name}{{{}}} {value}", labels.join(","));
        let mut fixture = Fixture::new(false);
        let Fixture { ledger, cells, answers } = &mut fixture;
        let _ = ledger.line(line.as_bytes(), cells, answers);
        for (_, increase) in ledger.commit() {
            prop_assert!(increase.counts.values().all(|count| *count > 0.0 && count.is_finite()));
        }
    }
}
