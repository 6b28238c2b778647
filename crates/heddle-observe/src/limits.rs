//! Every bound of this crate, with its unit and reason.

use std::time::Duration;

/// Slots of one second: 15 minutes, so that a five-minute page and the period before it are exact.
pub const LIVE_SLOTS: usize = 900;
/// Slots of ten seconds: 6 hours.
pub const TEN_SECOND_SLOTS: usize = 2_160;
/// Slots of one minute: 48 hours.
pub const MINUTE_SLOTS: usize = 2_880;
/// Slots of ten minutes: 90 days.
pub const TEN_MINUTE_SLOTS: usize = 12_960;
/// Seconds a reader may ask for at once: all that is kept.
pub const WINDOW_MAX: u64 = 90 * 86_400;
/// Bytes all slots may take together; beyond it the oldest slots go first, from the tier that holds
/// most. A place takes 32 bytes in a slot and 8 for each number in it: 60 measured edges with 16 numbers each (answers,
/// durations, both sizes) take some 57 MiB in two days and reach it in a month. What places are called, with the labels
/// of both workloads, is not counted here but bounded by [`CELLS_MAX`].
pub const STORE_BYTES_MAX: usize = 96 << 20;
/// Time between two writes of what has changed to the history's file: what a kill loses at most.
pub const HISTORY_INTERVAL: Duration = Duration::from_secs(10);
/// After a write that failed, on a full disk for example, so long until all of it is tried again.
pub const HISTORY_RETRY: Duration = Duration::from_secs(60);
/// Bytes of the history's file that are held in memory besides the store itself.
pub const HISTORY_CACHE_BYTES: usize = 1 << 20;
/// Different measurements (reporter, source, destination, version, workload, protocol, and the labels of both workloads)
/// kept; further ones are folded into one per destination.
pub const CELLS_MAX: usize = 8_192;
/// Different pairs of status code and response flags kept; further ones lose their flags.
pub const RESPONSES_MAX: usize = 1_024;
/// Bytes of a label value that become part of a name here; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 253;

/// Bytes of one scrape. It is read line by line and never held.
pub const SCRAPE_BYTES_MAX: usize = 256 << 20;
/// Bytes of one line of a scrape: Istio's 25 labels need less than 2 KiB.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Labels of one sample.
pub const LABELS_MAX: usize = 64;
/// Counters followed per sidecar: more than 2,000 label sets of 38 lines that are read here.
pub const SERIES_PER_SIDECAR_MAX: usize = 98_304;
/// One scrape, from connecting to its last byte.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Scrapes under way at once.
pub const SCRAPES_AT_ONCE: usize = 16;
/// A sidecar is given this many times the length of its last scrape to rest, so that a huge one is
/// scraped less often instead of all the time.
pub const SCRAPE_REST: u32 = 4;
/// Seconds over which the increase of a sidecar is spread that could not be scraped for a while: the
/// slots of the five-minute page. What it counted earlier is left out of all slots, so that catching
/// up never costs more than this many slots per counter.
pub const CATCH_UP_MAX: f64 = 300.0;
/// The counters of a sidecar that the control plane no longer lists are kept this long: one that
/// restarts lists its members bit by bit.
pub const LEDGER_KEPT: Duration = Duration::from_secs(60);
/// A sidecar is found within this time of its start. One that began earlier has a past that nobody
/// saw, which is not to be booked as if it had happened now.
pub const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// Sidecars followed.
pub const SIDECARS_MAX: usize = 1_000;
/// One question to the control plane.
pub const CONTROL_TIMEOUT: Duration = Duration::from_millis(500);
/// The same in a cluster, where a token may be reviewed first.
pub const CLUSTER_CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection to an address of the control plane in a cluster, and then TLS on it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Sidecars that are waiting for their last scrape at one time; further ones end without.
pub const LAST_SCRAPES_MAX: usize = 256;
/// What such a sidecar says of itself must be complete within this time.
pub const LAST_SCRAPE_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two questions to the control plane for sidecars that it has not told of yet.
pub const ROSTER_REST: Duration = Duration::from_millis(250);

/// Connections to the dashboard; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request head.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// A request head must be complete within this time; also the longest idle keep-alive.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages that look at live calls at one time.
pub const TAP_READERS_MAX: usize = 4;
/// Points of a series, so that a page stays small whatever its period.
pub const POINTS_MAX: u64 = 120;
/// Rows of a table in an answer.
pub const ROWS_MAX: usize = 200;
/// Sidecars write TCP bytes every 5 s, so their rate is told over at least this many seconds.
pub const TCP_WINDOW_MIN: u64 = 30;
/// Share of failed calls from which a service counts as failing.
pub const FAILING_SHARE: f64 = 0.01;
/// Seconds without a failure after which an earlier trouble is over.
pub const FAILING_PAUSE: u64 = 60;
/// A connection to the dashboard is closed after this time, when its current answer has gone out.
pub const CONNECTION_LIFETIME_MAX: Duration = Duration::from_secs(600);

/// Bytes of a query in PromQL.
pub const QUERY_BYTES_MAX: usize = 16 << 10;
/// Bytes of a form that Prometheus' interface takes.
pub const FORM_BYTES_MAX: usize = 64 << 10;
/// A form must be complete within this time.
pub const FORM_TIMEOUT: Duration = Duration::from_secs(5);
/// Points of a series in one answer of Prometheus' interface, as Prometheus has it.
pub const QUERY_POINTS_MAX: usize = 11_000;
/// Series that the selectors of one query may select together.
pub const QUERY_SERIES_MAX: usize = 20_000;
/// Numbers that they may load from the store together, 16 bytes each.
pub const QUERY_LOADED_MAX: usize = 2_000_000;
/// Numbers that one query may come to on its way, 8 bytes each.
pub const QUERY_NUMBERS_MAX: usize = 5_000_000;
/// Samples of one answer of Prometheus' interface, some 35 bytes each.
pub const QUERY_SAMPLES_MAX: usize = 1_000_000;
/// Selectors of series in one question for series or labels.
pub const QUERY_MATCHES_MAX: usize = 32;
/// Queries that are worked out at one time; further ones wait.
pub const QUERIES_AT_ONCE: usize = 2;
/// One query, with its wait.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds for which a counter without a scrape is still told, as Prometheus has it.
pub const STALE_AFTER: f64 = 300.0;
/// Seconds for which a gauge is what it was when its sidecar was scraped last.
pub const GAUGE_SEEN: f64 = 10.0;
/// Seconds for which a series is told after it was last counted.
pub const SERIES_IDLE_MAX: f64 = 3_600.0;

/// Reasons of one sidecar for which no TLS came about.
pub const TLS_REASONS_MAX: usize = 50;

/// How long a failure of TLS is told after it, seconds.
pub const TLS_FAILURES_WINDOW: f64 = 60.0;
/// The same of workloads whose calls lost their trace: one that makes few of them is named all the same.
pub const LOST_CONTEXTS_WINDOW: f64 = 3_600.0;

/// Names without an address of one sidecar; it tells no more itself.
pub const NAMES_MAX: usize = 128;

/// Objects with rules that are told; the control plane may have more.
pub const RULES_MAX: usize = 5_000;
/// Changes of rules that are remembered.
pub const RULE_CHANGES_MAX: usize = 500;
/// Notes of one object that are told.
pub const RULE_NOTES_MAX: usize = 20;
/// Characters of what a rule is met by, or does, in words.
pub const RULE_WORDS_MAX: usize = 240;
/// Bytes of a name that a rule is counted under: the compiler gives longer ones a number.
pub const RULE_NAME_MAX: usize = 64;
/// Faults of one service that are told in the graph.
pub const FAULTS_TOLD_MAX: usize = 8;
/// Time after which rules are asked for again although nobody has told of a new generation.
pub const RULES_REFRESH: Duration = Duration::from_secs(10);
/// A callee that fails less than this share of its caller's failures does not account for them.
pub const CAUSE_SHARE: f64 = 0.2;

/// Endpoints of one sidecar that are told to be out; more are as many as there can be of use.
pub const EJECTED_MAX: usize = 1_000;

/// Bytes that all traces may take together in memory, and up to three times as much in their file, whose pages are
/// never quite full: some 15,000 traces of six spans of the mesh's own.
pub const TRACES_BYTES_MAX: usize = 48 << 20;
/// Of these, bytes of traces that are not complete yet, whose spans take four times as much as when they are.
pub const TRACES_OPEN_BYTES_MAX: usize = 12 << 20;
/// Of the whole room so many parts of so many are for traces with errors and slow ones before they make room for
/// ordinary ones.
pub const TRACES_WORTH_SHARE: (usize, usize) = (3, 4);
/// Spans of one trace.
pub const SPANS_PER_TRACE_MAX: usize = 1_000;
/// Bytes of the spans of one trace.
pub const TRACE_BYTES_MAX: usize = 1 << 20;
/// A trace of which nobody has heard for so long is complete. A span that comes later joins it all the same.
pub const TRACE_QUIET: Duration = Duration::from_secs(5);
/// Time between two writes of what has changed to the traces' file: what a kill loses at most.
pub const TRACES_INTERVAL: Duration = Duration::from_secs(1);
/// A span that begins further in the future is of no clock.
pub const SPAN_AHEAD_MAX: Duration = Duration::from_secs(3_600);
/// Longest span that is believed, microseconds: a week.
pub const SPAN_MICROS_MAX: u64 = 7 * 86_400 * 1_000_000;
/// First spans of which it is remembered how long their traces take.
pub const TRACE_BEGINNINGS_MAX: usize = 512;
/// Traces of one answer.
pub const TRACES_TOLD_MAX: usize = 500;
/// Spans of one answer, of whichever traces.
pub const SPANS_TOLD_MAX: usize = 20_000;
/// Services that are named in one answer.
pub const SERVICES_TOLD_MAX: usize = 300;

/// Bytes of a body with spans in protobuf.
pub const SPANS_BODY_MAX: usize = 4 << 20;
/// The same in JSON. It is read span by span: besides the spans that are made of it, at most
/// [`SPANS_BODY_COUNT_MAX`], some 3 MiB at most are in memory for the values of one of them.
pub const SPANS_JSON_BODY_MAX: usize = 1 << 20;
/// Spans of one body.
pub const SPANS_BODY_COUNT_MAX: usize = 10_000;
/// A body must be complete within this time.
pub const SPANS_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a sender that keeps a connection of HTTP/2 is asked whether it is still there.
pub const SPANS_PING: Duration = Duration::from_secs(20);
/// Bodies that are taken in at once; further ones are refused.
pub const SPANS_BODIES_MAX: usize = 8;
/// Spans that are taken in per second; beyond, senders are told to come again.
pub const SPANS_PER_SECOND_MAX: u32 = 5_000;
/// Connections of senders of spans; one per sidecar, and of applications.
pub const SPAN_CONNECTIONS_MAX: usize = 2_048;

/// Seconds of a question to another Prometheus may end at, where its steps allow: one answer serves all who ask
/// meanwhile.
pub const ELSEWHERE_GRID: u64 = 10;
/// Steps of one answer of another Prometheus.
pub const ELSEWHERE_STEPS_MAX: u64 = 60;
/// Series of sidecars in one answer of another Prometheus.
pub const ELSEWHERE_SERIES_MAX: usize = 20_000;
/// Bytes of one answer of another Prometheus: that many series at that many steps, 30 bytes each, and their labels.
pub const ELSEWHERE_BYTES_MAX: usize = 64 << 20;
/// One answer of another Prometheus, from connecting to its last byte.
pub const ELSEWHERE_TIMEOUT: Duration = Duration::from_secs(20);
/// Periods of another Prometheus that are held in memory.
pub const ELSEWHERE_KEPT: usize = 2;
/// Bytes that are told of what answered instead of a Prometheus.
pub const ELSEWHERE_SAID_MAX: usize = 200;
