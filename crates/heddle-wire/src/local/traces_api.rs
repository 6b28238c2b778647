//! What the dashboard's JSON API answers about traces.
//!
//! | call | answer |
//! |---|---|
//! | `GET /api/v1/traces?service=&status=&path=&longer_than=&shorter_than=&since=&before=&limit=&spans=` | [`TraceList`], the newest first, without tags and events, and with `spans=no` without spans |
//! | `GET /api/v1/traces/{id}` | [`Trace`] |
//!
//! All filters hold for one and the same span where they are about spans, so that `service=reviews&status=5xx` is a
//! trace in which reviews answered, or was answered, with 5xx. Without a service the times are those of the whole trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Traces that were asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TraceList {
    /// The newest first.
    pub traces: Vec<Trace>,
    /// Others match too, that are older.
    #[serde(default)]
    pub more: bool,
    /// What is kept altogether.
    #[serde(default)]
    pub store: StoreState,
}

/// What the store of traces holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StoreState {
    /// Where spans of applications may be sent, as they reach it: a URL to which `/v1/traces` or `/api/v2/spans` is
    /// added; empty where nobody takes any.
    #[serde(default)]
    pub endpoint: String,
    /// Whom the mesh's own spans go to instead, if they do not come here.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// Traces.
    pub traces: u64,
    /// Bytes they take, of [`Self::bytes_max`].
    pub bytes: u64,
    /// Bytes they may take.
    pub bytes_max: u64,
    /// Spans that came since the start of the observer.
    pub spans: u64,
    /// Of all that came, by reason, those that were not kept: `malformed`, `too-many`, `too-fast`.
    pub dropped: BTreeMap<String, u64>,
    /// Traces that made room for others since the start.
    pub evicted: u64,
    /// Services that have spans here, sorted; some hundreds at most.
    pub services: Vec<String>,
}

/// One trace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub id: String,
    /// When it began, Unix time in seconds.
    pub start: f64,
    /// From its first span's begin to the last one's end, milliseconds.
    pub duration_ms: f64,
    /// Whose its first span is.
    pub service: String,
    /// What its first span is about: the method and the path where they are known.
    pub name: String,
    /// That of its first span.
    pub status: String,
    /// How many of its spans failed.
    pub errors: u64,
    /// It is kept longer, because: `error` or `slow`.
    #[serde(default)]
    pub kept: Option<String>,
    /// Are no more spans of it expected? One that comes later joins it all the same.
    pub complete: bool,
    /// How many spans it has.
    pub span_count: u64,
    /// Services that have spans in it, sorted.
    pub services: Vec<String>,
    /// Spans that it had beside these, which were too many.
    #[serde(default)]
    pub left_out: u64,
    /// Each span behind its parent; none where that was asked for.
    pub spans: Vec<TraceSpan>,
}

/// One span of a trace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TraceSpan {
    /// 16 hexadecimal digits.
    pub id: String,
    /// The span that it is part of, which need not be there.
    #[serde(default)]
    pub parent: Option<String>,
    /// How many spans are above it in this answer.
    pub depth: u64,
    /// Who made it.
    pub service: String,
    /// Which workload of that, or empty.
    pub workload: String,
    /// What was called, or done.
    pub name: String,
    /// `client`, `server`, `internal`, `producer` or `consumer`.
    pub kind: String,
    /// When it began, Unix time in seconds, as its own clock had it.
    pub start: f64,
    /// When it began, milliseconds since the trace did. Where the clocks of two machines contradict each other, a server's
    /// span is moved into its caller's.
    pub offset_ms: f64,
    /// By how much it was moved for that.
    #[serde(default)]
    pub moved_ms: f64,
    /// How long it took, milliseconds.
    pub duration_ms: f64,
    /// The code of HTTP, else `grpc N`, else `error` or `ok`.
    pub status: String,
    /// Did it fail?
    pub error: bool,
    /// The method of HTTP, or empty.
    #[serde(default)]
    pub method: String,
    /// The path that was asked for, or empty.
    #[serde(default)]
    pub path: String,
    /// Was it made by a sidecar?
    #[serde(default)]
    pub mesh: bool,
    /// What is known of it, by tag; only where one trace is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What happened on the way; only where one trace is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<SpanEvent>,
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SpanEvent {
    /// Milliseconds since the trace began.
    pub offset_ms: f64,
    /// What.
    pub text: String,
}
