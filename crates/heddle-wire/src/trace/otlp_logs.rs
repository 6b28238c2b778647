//! Access logs in OpenTelemetry's protocol (OTLP 1, `opentelemetry/proto/logs/v1`): beside spans, whose resource,
//! scope and answer are the same. Only written, by gRPC: nobody here takes logs in.

use std::time::Duration;

use super::{
    context::{SpanId, TraceId},
    otlp::{AnyValue, KeyValue, Resource, Scope, nanos, resource, scope},
    span::Origin,
};

/// The call by gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The attribute of a resource that tells the name of the log.
const LOG_NAME: &str = "log_name";

/// One record: a finished request or connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// When it began, since 1970.
    pub at: Duration,
    /// When it was told, since 1970.
    pub observed: Duration,
    /// The line.
    pub body: String,
    /// What else is told of it, by name.
    pub attributes: Vec<(String, String)>,
    /// Which span of which trace it is, if it is one.
    pub span: Option<(TraceId, SpanId)>,
}

impl Record {
    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len() + 48);
        size_of::<Self>() + self.body.len() + attributes.sum::<usize>()
    }
}

/// `ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportLogs {
    /// Records by whose they are.
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

/// The records of one workload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceLogs {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its records by what made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

/// Records made by one library.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeLogs {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The records.
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

/// `LogRecord`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    /// Nanoseconds since 1970: when it began.
    #[prost(fixed64, tag = "1")]
    pub time: u64,
    /// The line.
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    /// What else is told of it.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// 16 bytes, or none.
    #[prost(bytes = "vec", tag = "9")]
    pub trace_id: Vec<u8>,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "10")]
    pub span_id: Vec<u8>,
    /// Nanoseconds since 1970: when it was told.
    #[prost(fixed64, tag = "11")]
    pub observed_time: u64,
}

/// The message of one call with these records of a log.
#[must_use]
pub fn request(origin: &Origin, log_name: &str, records: &[Record]) -> ExportLogs {
    let mut resource = resource(origin);
    resource.attributes.push(KeyValue::new(LOG_NAME, log_name));
    let log_records = records.iter().map(written).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records }];
    ExportLogs { resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs }] }
}

fn written(record: &Record) -> LogRecord {
    let attributes = record.attributes.iter();
    LogRecord {
        time: nanos(record.at),
        body: Some(AnyValue::of(&record.body)),
        attributes: attributes.map(|(name, value)| KeyValue::new(name, value)).collect(),
        trace_id: record.span.map_or_else(Vec::new, |(trace, _)| trace.bytes().to_vec()),
        span_id: record.span.map_or_else(Vec::new, |(_, span)| span.bytes().to_vec()),
        observed_time: nanos(record.observed),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_record_has_the_bytes_of_the_protocol() {
        let record = Record {
            at: Duration::from_nanos(3),
            observed: Duration::from_nanos(4),
            body: "a".to_owned(),
            attributes: vec![("k".to_owned(), "v".to_owned())],
            span: Some((TraceId::of(1), SpanId::of(2))),
        };
        // By the numbers of opentelemetry/proto/logs/v1/logs.proto.
        let mut wanted = vec![0x09, 3, 0, 0, 0, 0, 0, 0, 0];
        wanted.extend(*b"\x2a\x03\x0a\x01a\x32\x08\x0a\x01k\x12\x03\x0a\x01v");
        wanted.extend([0x4a, 16]);
        wanted.extend([0; 15].into_iter().chain([1]));
        wanted.extend([0x52, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0x59, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&record).encode_to_vec(), wanted);
    }
}
