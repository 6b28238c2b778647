//! Label sets that nobody uses any more make room, and take nothing with them that was counted.

use super::*;
use crate::{caller::TcpRecord, limits::SERIES_IDLE_SWEEPS};

fn sweeps(metrics: &Metrics, count: u32) {
    for _ in 0..count {
        metrics.sweep();
    }
}

fn requests(metrics: &Arc<Metrics>, service: &str) -> Option<u64> {
    let label = format!("destination_service_name=\"{service}\"");
    let text = text(metrics);
    let line = text
        .lines()
        .find(|line| line.starts_with("istio_requests_total{") && line.contains(&label))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn answered(metrics: &Metrics, set: &SeriesSet) {
    set.http(metrics, (200, Grpc::No, Flags::default()), |series| {
        series.record(Duration::ZERO, 1, 1);
    });
}

#[test]
fn a_set_that_is_idle_is_not_told_and_one_in_use_is() {
    let metrics = metrics(1);
    let (idle, busy) = (SeriesSet::new(edge("idle"), 0), SeriesSet::new(edge("busy"), 0));
    answered(&metrics, &idle);
    for _ in 0..=SERIES_IDLE_SWEEPS {
        answered(&metrics, &busy);
        metrics.sweep();
    }
    let calls = u64::from(SERIES_IDLE_SWEEPS) + 1;
    assert_eq!((requests(&metrics, "idle"), requests(&metrics, "busy")), (None, Some(calls)));
    answered(&metrics, &idle);
    assert_eq!(requests(&metrics, "idle"), Some(1), "it begins anew");
}

#[test]
fn idle_sets_leave_their_room_to_others() {
    let metrics = metrics(1);
    for status in 0..u16::try_from(LABEL_SETS).unwrap() {
        record(&metrics, 0, "reviews", status);
    }
    record(&metrics, 0, "ratings", 200);
    assert!(text(&metrics).contains("heddle_label_sets_overflow_total 1"));
    sweeps(&metrics, SERIES_IDLE_SWEEPS + 2);
    record(&metrics, 0, "ratings", 201);
    let text = text(&metrics);
    assert!(text.contains("heddle_label_sets_overflow_total 1"), "it has one of its own");
    assert_eq!(text.lines().filter(|line| line.starts_with("istio_requests_total{")).count(), 1);
}

#[test]
fn what_is_written_to_a_set_that_was_just_taken_out_is_not_lost() {
    let metrics = metrics(1);
    let key = (200, Grpc::No, Flags::default());
    let late = metrics.http_series(0, &edge("reviews"), (key, Bits::HTTP), None);
    late.record(Duration::ZERO, 1, 1);
    sweeps(&metrics, SERIES_IDLE_SWEEPS + 1);
    assert_eq!(requests(&metrics, "reviews"), None);
    // By one that found its handle before, while another finds a new one.
    late.record(Duration::ZERO, 1, 1);
    answered(&metrics, &SeriesSet::new(edge("reviews"), 0));
    assert_eq!(requests(&metrics, "reviews"), Some(1));
    metrics.sweep();
    assert_eq!(requests(&metrics, "reviews"), Some(3));
}

#[test]
fn a_connection_that_is_silent_for_days_ends_where_it_began() {
    let metrics = metrics(1);
    let set = SeriesSet::new(edge("redis"), 0);
    metrics.connection_opened(Direction::Outbound);
    set.tcp(&metrics, Flags::default()).opened.add(1);
    sweeps(&metrics, 3 * SERIES_IDLE_SWEEPS);
    let opened = |text: &str| text.contains("\nistio_tcp_connections_opened_total{");
    assert!(opened(&text(&metrics)));
    metrics.connection_closed(Direction::Outbound);
    let (closed, flags) = (1, Flags::default());
    let mut flagged = TcpRecord { closed, flags, ..TcpRecord::default() };
    flagged.flags.set(Flag::DC);
    flagged.count(&metrics, &set);
    sweeps(&metrics, SERIES_IDLE_SWEEPS + 1);
    assert!(!opened(&text(&metrics)));
}
