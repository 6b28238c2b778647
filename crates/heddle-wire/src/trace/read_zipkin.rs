//! Spans that are sent as Zipkin's JSON, version 2: one list, read one by one, so that what is in memory at a time is
//! one of them.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

use super::received::{Batch, Bounded, Received, ReceivedKind, Unreadable, hex};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    timestamp: Option<u64>,
    duration: Option<u64>,
    local_endpoint: Option<Endpoint>,
    annotations: Option<Vec<Annotation>>,
    tags: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    service_name: Option<String>,
}

#[derive(Deserialize)]
struct Annotation {
    timestamp: u64,
    value: String,
}

/// The spans of a body, `most` at most.
///
/// # Errors
/// It is no list in JSON.
pub fn read(body: &[u8], most: usize) -> Result<Batch, Unreadable> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let batch = reader.deserialize_seq(Spans(most)).and_then(|batch| reader.end().map(|()| batch));
    batch.map_err(|error| Unreadable(format!("no list of spans in Zipkin's JSON: {error}")))
}

struct Spans(usize);

impl<'de> Visitor<'de> for Spans {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of spans")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<Batch, A::Error> {
        let mut batch = Batch::default();
        while batch.spans.len() < self.0 {
            let Some(one) = sent.next_element_seed(Bounded)? else { return Ok(batch) };
            let one = one.and_then(|one| serde_json::from_value(one).ok());
            batch.add(one.and_then(span), self.0);
        }
        while sent.next_element::<IgnoredAny>()?.is_some() {
            batch.rejected += 1;
        }
        Ok(batch)
    }
}

fn span(sent: Sent) -> Option<Received> {
    let id = |text: &str| hex(text, 16).and_then(|id| u64::try_from(id).ok());
    let mut span = Received {
        trace: hex(&sent.trace_id, 32)?,
        id: id(&sent.id)?,
        parent: sent.parent_id.as_deref().and_then(id),
        service: sent.local_endpoint.and_then(|own| own.service_name).unwrap_or_default(),
        name: sent.name.unwrap_or_default(),
        kind: kind(sent.kind.as_deref()),
        start: sent.timestamp?,
        duration: sent.duration.unwrap_or(0),
        ..Received::default()
    };
    for (name, value) in sent.tags.unwrap_or_default() {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match name.as_str() {
            "heddle.workload" | "k8s.pod.name" if span.workload.is_empty() => span.workload = value,
            "error" => {
                span.failed = value != "false";
                span.add_tag(&name, value);
            }
            "node_id" if span.workload.is_empty() => {
                span.workload = of_node(&value).unwrap_or_default().to_owned();
                span.add_tag(&name, value);
            }
            _ => span.add_tag(&name, value),
        }
    }
    for Annotation { timestamp, value } in sent.annotations.unwrap_or_default() {
        span.add_event(timestamp, value);
    }
    Some(span)
}

fn kind(word: Option<&str>) -> ReceivedKind {
    match word {
        Some("SERVER") => ReceivedKind::Server,
        Some("CLIENT") => ReceivedKind::Client,
        Some("PRODUCER") => ReceivedKind::Producer,
        Some("CONSUMER") => ReceivedKind::Consumer,
        _ => ReceivedKind::Internal,
    }
}

/// The workload in `sidecar~ADDRESS~NAME.NAMESPACE~DOMAIN`.
fn of_node(node: &str) -> Option<&str> {
    let name = node.split('~').nth(2)?;
    Some(name.rsplit_once('.').map_or(name, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_zipkins_own_documentation_is_read() {
        let body = br#"[{"id": "352bff9a74ca9ad2", "traceId": "5af7183fb1d4cf5f", "parentId": "6b221d5bc9e6496c",
            "name": "get /api", "timestamp": 1556604172355737, "duration": 1431, "kind": "SERVER",
            "localEndpoint": {"serviceName": "backend", "ipv4": "192.168.99.1", "port": 3306},
            "annotations": [{"timestamp": 1556604172355800, "value": "ws"}],
            "tags": {"http.method": "GET", "error": "true", "retries": 2}}]"#;
        let batch = read(body, 10).unwrap();
        assert_eq!(batch.rejected, 0);
        let span = &batch.spans[0];
        assert_eq!((span.trace, span.parent), (0x5af7_183f_b1d4_cf5f, Some(0x6b22_1d5b_c9e6_496c)));
        assert_eq!((span.service.as_str(), span.kind), ("backend", ReceivedKind::Server));
        assert_eq!((span.start, span.duration, span.failed), (1_556_604_172_355_737, 1431, true));
        assert_eq!(span.tag(&["nothing", "retries"]), Some("2"));
        assert_eq!(span.events, [(1_556_604_172_355_800, "ws".to_owned())]);
    }

    #[test]
    fn a_span_that_is_not_whole_costs_only_itself() {
        let good = r#"{"traceId": "1", "id": "2", "timestamp": 5}"#;
        let large = good.replace('}', &format!(", \"x\": [{}]}}", ["{}"; 9_000].join(",")));
        for bad in [
            "7",
            "{}",
            r#"{"traceId": "0", "id": "2", "timestamp": 5}"#,
            r#"{"traceId": "xy", "id": "2", "timestamp": 5}"#,
            r#"{"traceId": "1", "id": "00112233445566778", "timestamp": 5}"#,
            r#"{"traceId": "1", "id": "2"}"#,
            r#"{"traceId": "1", "id": "2", "timestamp": -1}"#,
            &large,
        ] {
            let batch = read(format!("[{bad},{good}]").as_bytes(), 10).unwrap();
            assert_eq!((batch.spans.len(), batch.rejected), (1, 1), "{bad}");
            assert_eq!(batch.spans[0].service, "unknown");
        }
        let many = format!("[{}]", [good; 7].join(","));
        let batch = read(many.as_bytes(), 4).unwrap();
        assert_eq!((batch.spans.len(), batch.rejected), (4, 3));
        for none in ["", "{}", "[1", "[] []", "\u{0}"] {
            assert!(read(none.as_bytes(), 4).is_err(), "{none}");
        }
    }

    #[test]
    fn the_workload_of_a_sidecar_is_in_its_node() {
        let node = "sidecar~10.0.0.7~reviews-v1.shop~shop.svc.cluster.local";
        assert_eq!(of_node(node), Some("reviews-v1"));
        assert_eq!(of_node("x"), None);
    }
}
