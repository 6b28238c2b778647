//! Spans as Zipkin's API takes them: version 2, JSON, one list (`POST /api/v2/spans`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::Serialize;

use super::span::{Kind, Origin, Span};

/// Where Zipkin takes spans.
pub const PATH: &str = "/api/v2/spans";
/// What they are sent as.
pub const MEDIA_TYPE: &str = "application/json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    kind: &'static str,
    name: &'a str,
    timestamp: u64,
    duration: u64,
    local_endpoint: &'a Endpoint<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation<'a>>,
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Ipv6Addr>,
}

#[derive(Serialize)]
struct Annotation<'a> {
    timestamp: u64,
    value: &'a str,
}

/// The body of one request with these spans.
#[must_use]
pub fn encode(origin: &Origin, spans: &[Span]) -> Vec<u8> {
    let (ipv4, ipv6) = match origin.address {
        Some(IpAddr::V4(ip)) => (Some(ip), None),
        Some(IpAddr::V6(ip)) => (None, Some(ip)),
        None => (None, None),
    };
    let local = Endpoint { service_name: &origin.service, ipv4, ipv6 };
    let spans: Vec<_> = spans.iter().map(|span| written(span, &local)).collect();
    // Nothing in it can fail: no map has keys that are no text.
    serde_json::to_vec(&spans).unwrap_or_default()
}

fn written<'a>(span: &'a Span, local: &'a Endpoint<'a>) -> ZipkinSpan<'a> {
    let annotation =
        |(at, what): &'a (Duration, String)| Annotation { timestamp: micros(*at), value: what };
    let mut tags: BTreeMap<&str, &str> =
        span.tags.iter().map(|(name, value)| (&**name, value.as_str())).collect();
    if span.failed {
        tags.entry("error").or_insert("true");
    }
    ZipkinSpan {
        trace_id: span.context.trace.to_string(),
        id: span.context.span.to_string(),
        parent_id: span.context.parent.map(|parent| parent.to_string()),
        kind: match span.kind {
            Kind::Client => "CLIENT",
            Kind::Server => "SERVER",
        },
        name: &span.name,
        timestamp: micros(span.start),
        // 0 means that it is not known.
        duration: micros(span.duration).max(1),
        local_endpoint: local,
        annotations: span.events.iter().map(annotation).collect(),
        tags,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trace::{Decision, SpanContext, SpanId, TraceId};

    #[test]
    fn a_span_is_written_as_zipkin_reads_it() {
        let root = SpanContext::begin(TraceId::of(0xabc), SpanId::of(1), Decision::Record);
        let span = Span {
            context: root.child(SpanId::of(2), Decision::Record),
            kind: Kind::Server,
            name: "reviews.default.svc.cluster.local:9080/*".to_owned(),
            start: Duration::new(1_700_000_000, 123_456_789),
            duration: Duration::from_nanos(7),
            tags: vec![("http.status_code".into(), "503".to_owned())],
            events: vec![(Duration::new(1_700_000_001, 0), "retry: reset".to_owned())],
            failed: true,
        };
        let address = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)));
        let origin = Origin { service: "reviews.default".into(), address, ..Origin::default() };
        let body: serde_json::Value = serde_json::from_slice(&encode(&origin, &[span])).unwrap();
        assert_eq!(
            body,
            json!([{
                "traceId": "00000000000000000000000000000abc",
                "id": "0000000000000002",
                "parentId": "0000000000000001",
                "kind": "SERVER",
                "name": "reviews.default.svc.cluster.local:9080/*",
                "timestamp": 1_700_000_000_123_456_u64,
                "duration": 1,
                "localEndpoint": {"serviceName": "reviews.default", "ipv4": "10.0.0.7"},
                "annotations": [{"timestamp": 1_700_000_001_000_000_u64, "value": "retry: reset"}],
                "tags": {"http.status_code": "503", "error": "true"},
            }])
        );
    }
}
