//! Tags that rules change: what has them, that no call is lost, and that nobody writes what is not a value.

use std::{collections::BTreeMap, rc::Rc};

use heddle_logic::expression::{Attributes, Value};
use heddle_model::{
    discovery::{Metric, Provenance, TagChange},
    yaml::expression::Attribute,
};

use super::*;
use crate::{
    facts::{Ends, Facts, Wanted},
    record::{MetricSeries, TcpOutcome},
};

/// A call to a path.
struct To<'a>(&'a str);

impl Attributes for To<'_> {
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
        (*attribute == Attribute::Path).then(|| Value::text(self.0))
    }
}

fn change(metric: Metric, tags: &[(&str, Option<&str>)]) -> MetricChange {
    let one = |(name, value): &(&str, Option<&str>)| {
        let change = value.map_or(TagChange::Removed, |value| TagChange::Value(value.to_owned()));
        ((*name).to_owned(), change)
    };
    let tags = tags.iter().map(one).collect::<BTreeMap<_, _>>();
    MetricChange { provenance: Provenance::default(), metric, disabled: None, tags }
}

fn telling(metrics: &Metrics, changes: Vec<MetricChange>) {
    let client = SideTelemetry { metrics: changes, ..SideTelemetry::default() };
    metrics.tell_only(Some(&WorkloadTelemetry { client, server: SideTelemetry::default() }));
}

/// A finished call to a path, as its outcome records it.
fn call(metrics: &Metrics, set: &SeriesSet, path: &str) {
    let key = (200, Grpc::No, Flags::default());
    match metrics.tagging(Direction::Outbound).map(|plan| plan.values(Some(&To(path)))) {
        None => set.http(metrics, key, |series| series.record(Duration::ZERO, 80, 1_200)),
        Some(tagged) => set.http_tagged(metrics, (key, &tagged), |series, of| {
            series.record_some(of, Duration::ZERO, (80, 1_200));
        }),
    }
}

/// Samples of a metric: labels and value.
fn samples(metrics: &Arc<Metrics>, name: &str) -> Vec<(String, u64)> {
    let start = format!("{name}{{");
    let text = text(metrics);
    let read = |line: &str| {
        let (labels, value) = line.strip_prefix(&start)?.rsplit_once("} ")?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(read).collect()
}

const COUNT: &str = "istio_requests_total";
const SECONDS: &str = "istio_request_duration_milliseconds_count";

#[test]
fn one_metric_gets_and_loses_tags_and_the_others_stay_as_they_are() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    call(&metrics, &set, "/before");
    let tags = [
        ("path", Some("request.path")),
        ("response_code", Some("'2' + 'xx'")),
        ("source_principal", None),
        ("host", Some("request.host")),
    ];
    telling(&metrics, vec![change(Metric::RequestCount, &tags)]);
    for path in ["/a", "/a", "/b"] {
        call(&metrics, &set, path);
    }
    let counted = samples(&metrics, COUNT);
    let of = |path: &str| {
        let path = format!("path=\"{path}\"");
        counted.iter().filter(|(labels, _)| labels.contains(&path)).map(|(_, n)| *n).sum::<u64>()
    };
    assert_eq!((of("/a"), of("/b"), counted.len()), (2, 1, 2), "{counted:?}");
    for (labels, _) in &counted {
        assert!(labels.contains("response_code=\"2xx\"") && labels.contains("host=\"unknown\""));
        assert!(
            !labels.contains("source_principal") && labels.matches("response_code").count() == 1
        );
    }
    let timed = samples(&metrics, SECONDS);
    assert_eq!(timed.len(), 1, "{timed:?}");
    assert!(timed[0].0.contains("response_code=\"200\"") && !timed[0].0.contains("path="));
    assert_eq!(timed[0].1, 4, "it goes on where it was");
}

#[test]
fn the_closest_word_about_a_tag_holds_and_without_rules_all_is_as_it_was() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    call(&metrics, &set, "/");
    let plain = samples(&metrics, COUNT);
    let changes = vec![
        change(Metric::All, &[("a", Some("'far'")), ("b", Some("'far'")), ("reporter", None)]),
        change(Metric::RequestCount, &[("a", None), ("b", Some("'near'"))]),
    ];
    telling(&metrics, changes);
    call(&metrics, &set, "/");
    let (counted, timed) = (samples(&metrics, COUNT), samples(&metrics, SECONDS));
    assert!(
        counted[0].0.ends_with("b=\"near\"") && !counted[0].0.contains("a=\"far"),
        "{counted:?}"
    );
    assert!(timed[0].0.contains("a=\"far\",b=\"far\""), "{timed:?}");
    assert!(!timed[0].0.contains("reporter"));
    metrics.tell_only(None);
    call(&metrics, &set, "/");
    let after = samples(&metrics, COUNT);
    assert_eq!(after, [(plain[0].0.clone(), plain[0].1 + 1)], "what has the old tags is not told");
}

#[test]
fn however_many_values_there_are_the_sets_are_bounded_and_no_call_is_lost() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    telling(&metrics, vec![change(Metric::All, &[("path", Some("request.path"))])]);
    let calls = LABEL_SETS + 500;
    for number in 0..calls {
        call(&metrics, &set, &format!("/{number}"));
    }
    let counted = samples(&metrics, COUNT);
    assert_eq!(counted.iter().map(|(_, n)| n).sum::<u64>(), calls as u64);
    assert_eq!(counted.len(), LABEL_SETS + 1);
    let folded = counted.iter().find(|(labels, _)| labels.contains("path=\"overflow\"")).unwrap();
    assert_eq!(folded.1, 500);
    assert!(folded.0.contains("destination_service_name=\"reviews\""), "{folded:?}");
    assert!(text(&metrics).contains("heddle_label_sets_overflow_total 500"));
}

#[test]
fn what_a_client_says_is_cut_and_escaped() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    telling(&metrics, vec![change(Metric::RequestCount, &[("path", Some("request.path"))])]);
    call(&metrics, &set, "/\"} 1\nforged{a=\"b\\");
    call(&metrics, &set, &"\u{e9}".repeat(5_000));
    let text = text(&metrics);
    assert!(text.contains(r#"path="/\"} 1\nforged{a=\"b\\"} 1"#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("forged")));
    let longest = text.lines().filter(|line| line.contains("\u{e9}")).map(str::len).max();
    assert!(longest.is_some_and(|bytes| bytes < 2_048), "{longest:?}");
}

#[test]
fn a_metric_without_any_tag_is_still_one_that_scrapers_read() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    call(&metrics, &set, "/");
    let text = text(&metrics);
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    let labels = line.split_once('{').unwrap().1.rsplit_once('}').unwrap().0;
    let names = labels.split("\",").filter_map(|label| Some((label.split_once('=')?.0, None)));
    telling(&metrics, vec![change(Metric::All, &names.collect::<Vec<_>>())]);
    call(&metrics, &set, "/");
    let text = super::text(&metrics);
    assert!(text.contains("\nistio_requests_total{} 1\n"), "{text}");
    assert!(text.contains("\nistio_request_bytes_bucket{le=\"100\"} 1\n"), "{text}");
    assert!(text.contains("\nistio_request_bytes_bucket{le=\"+Inf\"} 1\n"));
}

#[test]
fn a_connection_opens_and_closes_under_the_same_tags() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("redis"), 0);
    let tags = [("path", Some("request.path"))];
    telling(&metrics, vec![change(Metric::TcpOpened, &tags), change(Metric::TcpClosed, &tags)]);
    let tagged: Rc<Tagged> = metrics.tagging(Direction::Outbound).unwrap().values(Some(&To("x")));
    set.tcp_tagged(&metrics, (Flags::default(), &tagged), |series, of| {
        for (metric, counter) in [
            (Metric::TcpOpened, &series.opened),
            (Metric::TcpClosed, &series.closed),
            (Metric::TcpSent, &series.sent),
        ] {
            counter.add(u64::from(of.has(Bits::of(metric))));
        }
    });
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
        let of = samples(&metrics, name);
        assert!(of.len() == 1 && of[0].0.contains("path=\"x\"") && of[0].1 == 1, "{of:?}");
    }
    let sent = samples(&metrics, "istio_tcp_sent_bytes_total");
    assert!(sent.len() == 1 && !sent[0].0.contains("path="), "{sent:?}");
}

/// What is known of a connection to redis.
fn facts() -> Facts {
    let ends = Ends { remote: None, called: "10.0.0.1:6379".parse().unwrap() };
    Facts::of(Wanted::default(), Direction::Outbound, ends, clock::now())
}

#[test]
fn tags_of_a_connection_are_made_of_what_is_known_of_it() {
    heddle_runtime::task::run_local(async {
        let worker = testing::worker();
        let metrics = &worker.shared.metrics;
        telling(metrics, vec![change(Metric::All, &[("port", Some("string(destination.port)"))])]);
        let set = Rc::new(SeriesSet::new(edge("redis"), 0));
        drop(TcpOutcome::begin(&worker, MetricSeries::Edge(set), Some(facts())));
        for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
            let of = samples(metrics, name);
            let counted: Vec<_> = of.iter().filter(|(_, count)| *count == 1).collect();
            assert!(counted.len() == 1 && counted[0].0.contains("port=\"6379\""), "{of:?}");
        }
    })
    .unwrap();
}

#[test]
fn a_call_over_plain_http_makes_no_label_set_for_metrics_of_grpc() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    let tags = [("path", Some("request.path"))];
    telling(&metrics, vec![change(Metric::GrpcRequestMessages, &tags)]);
    call(&metrics, &set, "/");
    assert_eq!(metrics.lock().sets().0.len(), 1);
    let epoch = metrics.epoch();
    metrics.sweep();
    metrics.sweep();
    assert_eq!(metrics.epoch(), epoch, "nothing left");
}

#[test]
fn a_stream_whose_messages_are_counted_is_no_request_before_its_end() {
    let key = (200, Grpc::Unanswered, Flags::default());
    for tags in [vec![], vec![change(Metric::All, &[("path", Some("request.path"))])]] {
        let metrics = metrics(1);
        telling(&metrics, tags);
        let set = SeriesSet::new(edge("reviews"), 0);
        let tagged = metrics.tagging(Direction::Outbound).map(|plan| plan.values(Some(&To("/"))));
        set.messages(&metrics, (key, tagged.as_ref()), (2, 3));
        let received = samples(&metrics, "istio_request_messages_total");
        assert!(received.len() == 1 && received[0].1 == 2, "{received:?}");
        assert_eq!(samples(&metrics, COUNT), [], "none has ended");
        match &tagged {
            None => set.http(&metrics, key, |series| series.record(Duration::ZERO, 1, 1)),
            Some(tagged) => set.http_tagged(&metrics, (key, tagged), |series, of| {
                series.record_some(of, Duration::ZERO, (1, 1));
            }),
        }
        let counted = samples(&metrics, COUNT);
        assert!(counted.len() == 1 && counted[0].1 == 1, "{counted:?}");
    }
}

#[test]
fn series_of_other_metrics_are_told_on_when_the_tags_of_one_change() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("reviews"), 0);
    call(&metrics, &set, "/");
    set.tcp(&metrics, Flags::default()).opened.add(1);
    let tags = [("path", Some("request.path"))];
    telling(&metrics, vec![change(Metric::RequestCount, &tags)]);
    assert_eq!(samples(&metrics, COUNT), []);
    assert_eq!(samples(&metrics, SECONDS).len(), 1);
    assert_eq!(samples(&metrics, "istio_tcp_connections_opened_total").len(), 1);
}
