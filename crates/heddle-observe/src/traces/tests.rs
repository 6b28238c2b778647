//! The store as a whole: assembling, making room, and what is there after a restart.

use heddle_testkit::folder::Folder;
use heddle_wire::trace::received::ReceivedKind;
use proptest::prelude::*;

use super::*;
use crate::kept_file::{self, Layout as _};

/// The time of day in all tests: 2,000 s.
const UNIX: Duration = Duration::from_secs(2_000);

fn span(trace: u128, id: u64) -> Received {
    Received {
        trace,
        id,
        parent: (id > 1).then_some(1),
        service: "a.default".to_owned(),
        name: "a:80/*".to_owned(),
        kind: ReceivedKind::Server,
        start: 1_000_000_000 + u64::try_from(trace).unwrap() * 1_000,
        duration: 10_000,
        tags: vec![("http.status_code".to_owned(), "200".to_owned())],
        ..Received::default()
    }
}

fn failed(trace: u128) -> Received {
    Received { failed: true, ..span(trace, 1) }
}

fn store(bytes: usize) -> Traces {
    Traces { room: Room { bytes, ..Room::default() }, ..Traces::default() }
}

fn take(traces: &mut Traces, spans: Vec<Received>) -> Instant {
    let now = heddle_runtime::clock::now();
    traces.take(spans, now, UNIX);
    now
}

/// Takes one in, and lets the time pass after which it is complete.
fn complete(traces: &mut Traces, spans: Vec<Received>) {
    let now = take(traces, spans);
    traces.settle(now + limits::TRACE_QUIET);
}

fn asked(query: &str) -> asked::Asked {
    asked::Asked::read(query, UNIX).unwrap()
}

fn ids(traces: &mut Traces, query: &str) -> Vec<u128> {
    traces.found(&asked(query)).0
}

/// What is counted is what is there.
fn check(traces: &Traces) {
    for class in 0..2 {
        let of = traces.all.values().filter(|entry| entry.class() == class);
        let (bytes, turns): (Vec<_>, Vec<_>) = of.map(|entry| (entry.bytes, entry.turn)).unzip();
        assert_eq!(bytes.iter().sum::<usize>(), traces.bytes[class]);
        assert_eq!(turns.len(), traces.turns[class].len());
    }
    let open = traces.all.values().filter_map(|entry| match &entry.body {
        Body::Open { weight, .. } => Some(*weight),
        Body::Sealed { .. } => None,
    });
    let (count, weight) = open.fold((0, 0), |(n, sum), weight| (n + 1, sum + weight));
    assert_eq!((count, weight), (traces.open.len(), traces.open_bytes));
}

#[test]
fn spans_of_one_trace_are_one_whenever_they_come() {
    let mut traces = store(1 << 20);
    let now = take(&mut traces, vec![span(7, 1), span(8, 1)]);
    take(&mut traces, vec![span(7, 2)]);
    let open = traces.one(7).unwrap();
    assert_eq!((open.spans.len(), open.complete), (2, false));
    traces.settle(now + limits::TRACE_QUIET * 2);
    assert_eq!((traces.open.len(), traces.all.len()), (0, 2));
    assert!(traces.one(7).unwrap().complete);
    // One that comes late, and one that comes twice.
    take(&mut traces, vec![span(7, 3), span(7, 2)]);
    let whole = traces.one(7).unwrap();
    assert_eq!(whole.spans.iter().map(|one| one.depth).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!((whole.duration_ms, whole.status.as_str()), (10.0, "200"));
    check(&traces);
}

#[test]
fn ordinary_traces_make_room_for_errors_and_slow_ones() {
    let mut traces = store(40_000);
    complete(&mut traces, vec![failed(1)]);
    (100..120).for_each(|id| complete(&mut traces, vec![span(id, 1)]));
    let slow = Received { duration: 900_000, ..span(120, 1) };
    complete(&mut traces, vec![slow]);
    assert_eq!(traces.one(120).unwrap().kept.as_deref(), Some("slow"));
    (200..400).for_each(|id| complete(&mut traces, vec![span(id, 1)]));
    check(&traces);
    let there = ids(&mut traces, "limit=500");
    assert!(there.contains(&1) && there.contains(&120), "{there:?}");
    // Of the ordinary ones the oldest have gone.
    assert!(there.contains(&399) && !there.contains(&200) && !there.contains(&100), "{there:?}");
    assert!(traces.counts.evicted > 100);
}

#[test]
fn errors_do_not_drive_out_everything_else() {
    let mut traces = store(40_000);
    (1..200).for_each(|id| complete(&mut traces, vec![failed(id)]));
    (200..206).for_each(|id| complete(&mut traces, vec![span(id, 1)]));
    let there = ids(&mut traces, "limit=500");
    assert!((200..206).all(|id| there.contains(&id)), "{there:?}");
    assert!(there.contains(&199) && !there.contains(&1));
    check(&traces);
}

#[test]
fn a_trace_and_all_open_ones_are_bounded() {
    let room = Room { spans: 10, open: 20_000, ..Room::default() };
    let mut traces = Traces { room, ..Traces::default() };
    take(&mut traces, (1..=15).map(|id| span(1, id)).collect());
    let one = traces.one(1).unwrap();
    assert_eq!((one.spans.len(), one.left_out), (10, 5));
    for id in 2..200 {
        take(&mut traces, vec![span(id, 1)]);
        assert!(traces.open_bytes <= room.open);
    }
    assert!(traces.open.len() < 199 && traces.all.len() == 199);
    check(&traces);
}

#[test]
fn one_body_opens_no_more_than_there_is_room_for() {
    let room = Room { open: 20_000, ..Room::default() };
    let mut traces = Traces { room, ..Traces::default() };
    for trace in 1..=100 {
        complete(&mut traces, (1..=10).map(|id| span(trace, id)).collect());
    }
    let one = weight_of(&(1..=11).map(|id| span(1, id)).collect::<Vec<_>>());
    traces.open_most = 0;
    take(&mut traces, (1..=100).map(|trace| span(trace, 11)).collect());
    assert!(traces.open_most > 0 && traces.open_most <= room.open + one, "{}", traces.open_most);
    assert!((1..=100).all(|trace| traces.one(trace).unwrap().spans.len() == 11));
    check(&traces);
}

#[test]
fn a_full_trace_is_not_opened_for_what_it_has_no_room_for() {
    let room = Room { spans: 10, ..Room::default() };
    let mut traces = Traces { room, is_kept: true, ..Traces::default() };
    complete(&mut traces, (1..=12).map(|id| span(1, id)).collect());
    take(&mut traces, vec![span(1, 13), span(1, 14), span(2, 1)]);
    assert_eq!(traces.open.values().collect::<Vec<_>>(), [&2]);
    let one = traces.one(1).unwrap();
    assert_eq!((one.complete, one.spans.len(), one.left_out), (true, 10, 4));
    assert_eq!(traces.counts.dropped[&Dropped::TooMany], 4);
    // The same by its weight, also after a restart.
    let rows = Rows { traces: traces.changes(true).unwrap().put };
    let trace = weight_of(&(1..=10).map(|id| span(1, id)).collect::<Vec<_>>());
    let mut again = Traces { room: Room { trace, ..Room::default() }, ..Traces::default() };
    again.restore(rows);
    take(&mut again, vec![span(1, 13)]);
    assert!(again.open.is_empty() && again.one(1).unwrap().complete);
    check(&again);
}

#[test]
fn nothing_is_noted_for_a_file_that_is_not_there() {
    let mut traces = store(10_000);
    let come_and_go = |traces: &mut Traces| {
        (1..=100).for_each(|id| complete(traces, vec![span(id, 1), failed(200 + id)]));
        assert!(traces.counts.evicted > 0);
        (traces.changed.len(), traces.gone.len())
    };
    assert_eq!(come_and_go(&mut traces), (0, 0));
    traces.keep(true);
    let (changed, gone) = come_and_go(&mut traces);
    assert!(changed > 0 && gone > 0);
    // Its thread could not begin.
    traces.keep(false);
    assert_eq!((traces.changed.len(), traces.gone.len()), (0, 0));
}

#[test]
fn times_that_cannot_be_are_not_believed() {
    let mut traces = store(1 << 20);
    let future = Received { start: u64::MAX, ..span(1, 1) };
    let endless = Received { duration: u64::MAX, ..span(2, 1) };
    take(&mut traces, vec![future, endless]);
    assert_eq!(traces.all.len(), 1);
    assert_eq!(traces.counts.dropped[&Dropped::Malformed], 1);
    assert_eq!(traces.one(2).unwrap().duration_ms, limits::SPAN_MICROS_MAX as f64 / 1e3);
}

#[test]
fn what_is_asked_of_a_span_holds_for_one_and_the_same() {
    let mut traces = store(1 << 20);
    let of = |trace, id, service: &str, path: &str, code: &str, duration| Received {
        service: service.to_owned(),
        duration,
        tags: vec![
            ("http.url".to_owned(), format!("http://x{path}?q")),
            ("http.status_code".to_owned(), code.to_owned()),
        ],
        ..span(trace, id)
    };
    take(
        &mut traces,
        vec![
            of(1, 1, "web.shop", "/page", "200", 500_000),
            of(1, 2, "api.shop", "/items/7", "503", 100_000),
            of(2, 1, "web.shop", "/page", "404", 90_000),
            of(3, 1, "api.shop", "/items/8", "200", 20_000),
        ],
    );
    for (query, wanted) in [
        ("", &[3, 2, 1][..]),
        ("service=api", &[3, 1]),
        ("service=api.shop&status=5xx", &[1]),
        ("service=web&status=5xx", &[]),
        ("status=error", &[1]),
        ("status=ok", &[3, 2]),
        ("status=404", &[2]),
        ("path=/items", &[3, 1]),
        ("path=/items/8", &[3]),
        ("longer_than=400ms", &[1]),
        ("service=api&longer_than=400ms", &[]),
        ("service=api&longer_than=50ms", &[1]),
        ("shorter_than=50ms", &[3]),
        ("since=1000.002", &[3, 2]),
        ("since=1000.002&before=1000.003", &[2]),
        ("limit=1", &[3]),
    ] {
        assert_eq!(ids(&mut traces, query), wanted, "{query}");
    }
    assert!(traces.list(&asked("limit=1")).more);
    let brief = traces.list(&asked("status=error&spans=no"));
    let brief = &brief.traces[0];
    assert_eq!((brief.spans.len(), brief.span_count, brief.name.as_str()), (0, 2, "a:80/*"));
    let listed = traces.list(&asked("status=error"));
    assert!(listed.traces[0].spans.iter().all(|one| one.tags.is_empty()));
    assert_eq!(listed.store.services, ["api.shop", "web.shop"]);
    assert_eq!(traces.one(1).unwrap().spans[0].tags["http.status_code"], "200");
}

#[test]
fn spans_about_the_sending_of_spans_are_not_kept() {
    let mut traces = store(1 << 20);
    let tags =
        [("node_id", "sidecar~x"), ("http.method", "POST"), ("http.url", "http://t:1/v1/traces")];
    let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    take(&mut traces, vec![Received { tags, ..span(1, 1) }]);
    assert!(traces.all.is_empty() && traces.counts.dropped[&Dropped::Delivery] == 1);
}

#[test]
fn a_restart_finds_what_was_written_open_or_not() {
    let folder = Folder::new("traces");
    let path = folder.join("kept/traces.redb");
    let mut traces = store(1 << 20);
    let mut file = file::open(path.clone(), &mut traces).unwrap();
    complete(&mut traces, vec![span(1, 1), failed(2)]);
    take(&mut traces, vec![span(3, 1)]);
    let batch = traces.changes(false).unwrap();
    file.write::<file::TraceFile>(&batch).unwrap();
    assert_eq!(traces.changes(false), None);
    // Killed: nothing is closed in order.
    drop(file);
    let mut again = store(1 << 20);
    let mut file = file::open(path.clone(), &mut again).unwrap();
    assert_eq!(ids(&mut again, ""), [3, 2, 1]);
    assert_eq!(again.one(2).unwrap().kept.as_deref(), Some("error"));
    take(&mut again, vec![span(3, 2), span(4, 1)]);
    let turns: BTreeSet<_> = again.all.values().map(|entry| entry.turn).collect();
    assert_eq!(turns.len(), 4);
    file.write::<file::TraceFile>(&again.changes(false).unwrap()).unwrap();
    drop(file);
    // With less room than before the oldest have to go, from the file too.
    let mut small = store(1_500);
    let mut file = file::open(path.clone(), &mut small).unwrap();
    let left = ids(&mut small, "");
    assert!(left.len() < 4 && left[0] == 4, "{left:?}");
    file.write::<file::TraceFile>(&small.changes(false).unwrap()).unwrap();
    drop(file);
    let (_, kept) = kept_file::read::<file::TraceFile>(&path).unwrap();
    assert_eq!(kept.traces.len(), left.len());
}

#[test]
fn a_damaged_file_is_set_aside_and_rows_that_make_no_sense_are_left_out() {
    let folder = Folder::new("traces");
    let path = folder.join("traces.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let mut traces = store(1 << 20);
    let mut file = file::open(path.clone(), &mut traces).unwrap();
    complete(&mut traces, vec![span(1, 1)]);
    let mut batch = traces.changes(false).unwrap();
    batch.put.push((9, b"nonsense".to_vec()));
    file.write::<file::TraceFile>(&batch).unwrap();
    drop(file);
    let mut again = store(1 << 20);
    let file = file::open(path, &mut again).unwrap();
    assert_eq!(ids(&mut again, ""), [1]);
    // And leave the file.
    let batch = again.changes(false).unwrap();
    assert_eq!(batch.gone, [9]);
    file::TraceFile::write(file.database.as_ref().unwrap(), &batch).unwrap();
    let aside = std::fs::read_dir(folder.path()).unwrap();
    let aside = aside.filter(|one| {
        let name = one.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("traces.damaged-")
    });
    assert_eq!(aside.count(), 1);
}

#[test]
fn the_file_stays_small_while_traces_come_and_go() {
    let folder = Folder::new("traces");
    let path = folder.join("traces.redb");
    let mut traces = store(100_000);
    let mut file = file::open(path.clone(), &mut traces).unwrap();
    for round in 0..60_u128 {
        (1..=40).for_each(|id| {
            take(&mut traces, vec![span(round * 100 + id, 1)]);
        });
        file.write::<file::TraceFile>(&traces.changes(false).unwrap()).unwrap();
    }
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 4 << 20, "{size} bytes for {:?}", traces.bytes);
}

#[test]
fn the_page_reads_exactly_the_fields_that_are_sent() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/src/traces/api.ts");
    let source = std::fs::read_to_string(path).unwrap();
    let mut traces = store(1 << 20);
    let told = Received { events: vec![(1, "retried".to_owned())], ..span(1, 1) };
    take(&mut traces, vec![told]);
    let list = serde_json::to_value(traces.list(&asked(""))).unwrap();
    let one = serde_json::to_value(traces.one(1).unwrap()).unwrap();
    for (name, sent) in [
        ("TraceList", &list),
        ("StoreState", &list["store"]),
        ("Trace", &one),
        ("TraceSpan", &one["spans"][0]),
        ("SpanEvent", &one["spans"][0]["events"][0]),
    ] {
        let mut fields: Vec<String> = sent.as_object().expect(name).keys().cloned().collect();
        fields.sort();
        let mut read = crate::answers::tests::interface(&source, name);
        read.iter_mut().for_each(|field| field.truncate(field.trim_end_matches('?').len()));
        assert_eq!(fields, read, "{name} in ui/src/traces/api.ts");
    }
}

proptest! {
    #[test]
    fn whatever_comes_the_room_holds(
        sent in prop::collection::vec((1_u128..30, 1_u64..6, any::<bool>(), 0_u8..4), 1..300),
        bytes in 3_000_usize..30_000,
    ) {
        let mut traces = Traces {
            room: Room { bytes, open: bytes / 3, spans: 4, trace: 2_000 },
            is_kept: true,
            ..Traces::default()
        };
        for (trace, id, fails, then) in sent {
            let one = Received { failed: fails, ..span(trace, id) };
            match then {
                0 => complete(&mut traces, vec![one]),
                _ => drop(take(&mut traces, vec![one])),
            }
            prop_assert!(traces.bytes[0] + traces.bytes[1] <= bytes);
            prop_assert!(traces.open_bytes <= bytes / 3);
            if then == 1 {
                let changes = traces.changes(false);
                prop_assert!(changes.is_none_or(|batch| batch.put.iter().all(|(id, _)| !batch.gone.contains(id))));
            }
            check(&traces);
        }
        // What is written as a whole is what is there.
        let whole = traces.changes(true).unwrap();
        let mut again = store(usize::MAX);
        again.restore(Rows { traces: whole.put });
        prop_assert_eq!(ids(&mut again, "limit=500"), ids(&mut traces, "limit=500"));
        check(&again);
    }
}
