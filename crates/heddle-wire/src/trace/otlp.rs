//! Spans in OpenTelemetry's protocol (OTLP 1): the same messages by gRPC and by HTTP. Derived by hand, as those of
//! discovery: a dozen messages, no `.proto` file and no build script. Fields that are never used here are left out.
//! How those that others sent are read, also as JSON, is in `read_otlp`.

use std::time::Duration;

use prost::Message as _;
use serde::{Deserialize, Deserializer};
use tonic::{
    Request, Status as GrpcStatus,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use super::{
    b3::{B3, NOT_RECORDED},
    otlp_json,
    span::{Kind, Origin, Span},
};

/// Where a receiver takes spans over HTTP.
pub const PATH: &str = "/v1/traces";
/// What they are sent as.
pub const MEDIA_TYPE: &str = "application/x-protobuf";
/// The call by gRPC.
pub const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What made the spans, among the libraries of a service.
const SCOPE: &str = "heddle";
/// Of [`OtlpSpan::flags`]: of W3C's flags, the sampled one.
const FLAG_SAMPLED: u32 = 1;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportRequest {
    /// Spans by whose they are.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    /// What of it was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`; that of logs has the same numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// So many spans or records were not taken.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// The spans of one workload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its spans by what made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// A workload.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    /// What is known of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Spans made by one library.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<OtlpSpan>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct OtlpSpan {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "otlp_json::id_bytes")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "otlp_json::id_bytes")]
    pub span_id: Vec<u8>,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    #[serde(deserialize_with = "otlp_json::id_bytes")]
    pub parent_span_id: Vec<u8>,
    /// What was called.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`KIND_SERVER`] or [`KIND_CLIENT`].
    #[prost(int32, tag = "6")]
    #[serde(deserialize_with = "otlp_json::choice")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    #[serde(rename = "startTimeUnixNano", deserialize_with = "otlp_json::unsigned")]
    pub start: u64,
    /// The same of its end.
    #[prost(fixed64, tag = "8")]
    #[serde(rename = "endTimeUnixNano", deserialize_with = "otlp_json::unsigned")]
    pub end: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// What happened on the way.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C's flags.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `SPAN_KIND_SERVER`.
pub const KIND_SERVER: i32 = 2;
/// `SPAN_KIND_CLIENT`.
pub const KIND_CLIENT: i32 = 3;
/// `STATUS_CODE_ERROR`.
pub const STATUS_ERROR: i32 = 2;

/// `Span.Event`.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    #[serde(rename = "timeUnixNano", deserialize_with = "otlp_json::unsigned")]
    pub time: u64,
    /// What happened.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What is known of it.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

/// `Status`.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 0 for none, [`STATUS_ERROR`].
    #[prost(int32, tag = "3")]
    #[serde(deserialize_with = "otlp_json::choice")]
    pub code: i32,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// `AnyValue`, of which only texts are written. One of these is there; maps and bytes are not read.
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
#[serde(default)]
pub struct AnyValue {
    /// The text.
    #[prost(string, optional, tag = "1")]
    #[serde(rename = "stringValue")]
    pub text: Option<String>,
    /// True or false.
    #[prost(bool, optional, tag = "2")]
    #[serde(rename = "boolValue")]
    pub flag: Option<bool>,
    /// A whole number.
    #[prost(int64, optional, tag = "3")]
    #[serde(rename = "intValue", deserialize_with = "otlp_json::signed")]
    pub integer: Option<i64>,
    /// Another number.
    #[prost(double, optional, tag = "4")]
    #[serde(rename = "doubleValue")]
    pub number: Option<f64>,
    /// Several of them.
    #[prost(message, optional, tag = "5")]
    #[serde(rename = "arrayValue", deserialize_with = "list")]
    pub list: Option<ArrayValue>,
}

/// `ArrayValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ArrayValue {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

fn list<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<ArrayValue>, D::Error> {
    let values = otlp_json::texts(reader)?.into_iter();
    let value = |text| AnyValue { text: Some(text), ..AnyValue::default() };
    Ok(Some(ArrayValue { values: values.map(value).collect() }))
}

impl AnyValue {
    pub(super) fn of(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::default() }
    }
}

impl KeyValue {
    pub(super) fn new(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), value: Some(AnyValue::of(value)) }
    }

    /// Its value, if it is a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.value.as_ref()?.text.as_deref()
    }
}

/// A receiver that is reached by gRPC.
#[derive(Debug, Clone)]
pub struct ExportClient {
    grpc: Grpc<Channel>,
}

impl ExportClient {
    /// A client on a connected channel.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { grpc: Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX) }
    }

    /// Sends what `path` takes, spans or logs, with these fields.
    ///
    /// # Errors
    /// What the receiver says; unavailable, if it cannot be reached any more.
    pub async fn export<M: prost::Message + Default + 'static>(
        &mut self,
        path: &'static str,
        message: M,
        fields: &[(String, String)],
    ) -> Result<ExportResponse, GrpcStatus> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| GrpcStatus::unavailable(error.to_string()))?;
        let mut request = Request::new(message);
        for (name, value) in fields {
            let name = MetadataKey::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value.parse::<MetadataValue<Ascii>>()) {
                request.metadata_mut().insert(name, value);
            }
        }
        // Spans about the sending of spans would have no end, where the receiver has a sidecar.
        let dropped = MetadataValue::from_static(NOT_RECORDED);
        request.metadata_mut().insert(B3, dropped);
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::new());
        let answered = self.grpc.unary(request, path, codec).await;
        answered.map(tonic::Response::into_inner)
    }
}

/// The message of one call with these spans.
#[must_use]
pub fn request(origin: &Origin, spans: &[Span]) -> ExportRequest {
    let spans = spans.iter().map(written).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans }];
    let resource = Some(resource(origin));
    ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
}

/// The same as the body of a request over HTTP.
#[must_use]
pub fn encode(origin: &Origin, spans: &[Span]) -> Vec<u8> {
    request(origin, spans).encode_to_vec()
}

/// Whose they are.
pub(super) fn resource(origin: &Origin) -> Resource {
    let own = [("service.name", &origin.service)].into_iter();
    let known = origin.attributes.iter().map(|(name, value)| (*name, value));
    Resource {
        attributes: own.chain(known).map(|(name, value)| KeyValue::new(name, value)).collect(),
    }
}

/// What made them.
pub(super) fn scope() -> Scope {
    Scope { name: SCOPE.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn written(span: &Span) -> OtlpSpan {
    let mut attributes: Vec<_> =
        span.tags.iter().map(|(name, value)| KeyValue::new(name, value)).collect();
    if span.failed && span.tag("error").is_none() {
        attributes.push(KeyValue::new("error", "true"));
    }
    let event = |(at, what): &(Duration, String)| Event {
        time: nanos(*at),
        name: what.clone(),
        attributes: Vec::new(),
    };
    OtlpSpan {
        trace_id: span.context.trace.bytes().to_vec(),
        span_id: span.context.span.bytes().to_vec(),
        parent_span_id: span.context.parent.map_or_else(Vec::new, |id| id.bytes().to_vec()),
        name: span.name.clone(),
        kind: match span.kind {
            Kind::Server => KIND_SERVER,
            Kind::Client => KIND_CLIENT,
        },
        start: nanos(span.start),
        end: nanos(span.start + span.duration),
        attributes,
        events: span.events.iter().map(event).collect(),
        status: span.failed.then(|| Status { message: String::new(), code: STATUS_ERROR }),
        flags: FLAG_SAMPLED,
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Decision, SpanContext, SpanId, TraceId};

    #[test]
    fn a_span_has_the_bytes_of_the_protocol() {
        let span = Span {
            context: SpanContext::begin(TraceId::of(1), SpanId::of(2), Decision::Record),
            kind: Kind::Client,
            name: "a".to_owned(),
            start: Duration::from_nanos(3),
            duration: Duration::from_nanos(4),
            tags: vec![("k".into(), "v".to_owned())],
            events: Vec::new(),
            failed: false,
        };
        let bytes = written(&span).encode_to_vec();
        // By the numbers of opentelemetry/proto/trace/v1/trace.proto.
        let mut wanted = vec![0x0a, 16];
        wanted.extend([0; 15].into_iter().chain([1]));
        wanted.extend([0x12, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
        wanted.extend(*b"\x2a\x01a\x30\x03");
        wanted.extend([0x39, 3, 0, 0, 0, 0, 0, 0, 0, 0x41, 7, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend(*b"\x4a\x08\x0a\x01k\x12\x03\x0a\x01v");
        wanted.extend([0x85, 0x01, 1, 0, 0, 0]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn spans_are_told_with_whose_they_are() {
        let origin = Origin {
            service: "reviews.default".to_owned(),
            address: None,
            attributes: vec![("k8s.namespace.name", "default".to_owned())],
        };
        let read = ExportRequest::decode(&*encode(&origin, &[])).unwrap();
        let resource = read.resource_spans[0].resource.as_ref().unwrap();
        let told: Vec<_> =
            resource.attributes.iter().map(|one| (one.key.as_str(), one.text())).collect();
        let wanted =
            [("service.name", Some("reviews.default")), ("k8s.namespace.name", Some("default"))];
        assert_eq!(told, wanted);
    }
}
