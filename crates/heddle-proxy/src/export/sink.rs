//! Receivers by what they take: what is one item, what is said with it, and in which form.

use std::time::Duration;

use heddle_model::discovery::{Collector, SpanSink};
use heddle_wire::trace::{
    otlp::{self, ExportRequest},
    otlp_logs::{self, ExportLogs, Record},
    span::{Origin, Span},
    zipkin,
};
use prost::Message;

use crate::{
    limits::SPANS_TIME,
    metrics::{Exported, Metrics},
    snapshot::LogCollector,
};

/// A receiver.
pub(crate) trait Sink: PartialEq + 'static {
    /// What it takes.
    type Item: 'static;
    /// Many of them, as OTLP has them.
    type Batch: Message + Default + 'static;

    /// What it takes, for people.
    const WHAT: &'static str;
    /// The call of OTLP by gRPC.
    const GRPC_PATH: &'static str;

    /// About how much memory one takes, bytes.
    fn weight(item: &Self::Item) -> usize;
    /// Where it is counted what became of them.
    fn counts(metrics: &Metrics) -> &Exported;
    /// Some of them were lost.
    fn lost(metrics: &Metrics, count: usize);
    /// Where it is.
    fn collector(&self) -> &Collector;
    /// A batch for it.
    fn batch(&self, origin: &Origin, items: &[Self::Item]) -> Self::Batch;
    /// The same as a body of HTTP/1.1; `None`: it takes them by gRPC.
    fn post(&self, origin: &Origin, items: &[Self::Item]) -> Option<Post<'_>>;
    /// Does it take them by gRPC?
    fn is_grpc(&self) -> bool;

    /// Most time for one batch.
    fn time(&self) -> Duration {
        self.collector().timeout.unwrap_or(SPANS_TIME)
    }
}

/// A body of HTTP.
pub(crate) struct Post<'a> {
    pub(super) path: &'a str,
    pub(super) media_type: &'static str,
    pub(super) body: Vec<u8>,
    /// Does the answer say what was not taken?
    pub(super) is_otlp: bool,
}

impl Sink for SpanSink {
    type Item = Span;
    type Batch = ExportRequest;

    const WHAT: &'static str = "spans";
    const GRPC_PATH: &'static str = otlp::GRPC_PATH;

    fn weight(item: &Span) -> usize {
        item.weight()
    }

    fn counts(metrics: &Metrics) -> &Exported {
        &metrics.traces.spans
    }

    fn lost(_metrics: &Metrics, _count: usize) {}

    fn collector(&self) -> &Collector {
        self.collector()
    }

    fn batch(&self, origin: &Origin, items: &[Span]) -> ExportRequest {
        otlp::request(origin, items)
    }

    fn post(&self, origin: &Origin, items: &[Span]) -> Option<Post<'_>> {
        match self {
            Self::OtlpGrpc(_) => None,
            Self::Zipkin(to) => Some(Post {
                path: &to.path,
                media_type: zipkin::MEDIA_TYPE,
                body: zipkin::encode(origin, items),
                is_otlp: false,
            }),
            Self::OtlpHttp(to) => Some(Post {
                path: &to.path,
                media_type: otlp::MEDIA_TYPE,
                body: otlp::encode(origin, items),
                is_otlp: true,
            }),
        }
    }

    fn is_grpc(&self) -> bool {
        matches!(self, Self::OtlpGrpc(_))
    }
}

impl Sink for LogCollector {
    type Item = Record;
    type Batch = ExportLogs;

    const WHAT: &'static str = "records of an access log";
    const GRPC_PATH: &'static str = otlp_logs::GRPC_PATH;

    fn weight(item: &Record) -> usize {
        item.weight()
    }

    fn counts(metrics: &Metrics) -> &Exported {
        &metrics.log_records
    }

    fn lost(metrics: &Metrics, count: usize) {
        metrics.log_lines_dropped.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn collector(&self) -> &Collector {
        &self.to
    }

    fn batch(&self, origin: &Origin, items: &[Record]) -> ExportLogs {
        otlp_logs::request(origin, &self.name, items)
    }

    fn post(&self, _origin: &Origin, _items: &[Record]) -> Option<Post<'_>> {
        None
    }

    fn is_grpc(&self) -> bool {
        true
    }
}
