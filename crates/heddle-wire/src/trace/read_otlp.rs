//! Spans that are sent in OpenTelemetry's protocol over HTTP: as protobuf, which is walked so that one span at a time
//! is taken apart, and as its JSON (ids in hexadecimal, 64-bit numbers perhaps as texts).

use prost::Message as _;

use super::{
    otlp::{
        AnyValue, Event, ExportRequest, KIND_CLIENT, KIND_SERVER, KeyValue, OtlpSpan, Resource,
        STATUS_ERROR, Scope,
    },
    received::{Batch, Received, ReceivedKind, Unreadable},
};

/// Largest span as protobuf, bytes: none of ours has a tenth of it.
const SPAN_BYTES_MAX: usize = 128 << 10;
/// Values of a list that are told.
const LIST_MAX: usize = 16;
/// What the mesh's own spans are made by.
const OWN_SCOPE: &str = "heddle";
/// Attributes of a resource that say which workload it is, the best first.
const WORKLOADS: [&str; 4] =
    ["heddle.workload", "k8s.pod.name", "service.instance.id", "host.name"];

/// Whose spans follow.
#[derive(Default)]
struct Whose {
    service: String,
    workload: String,
    version: Option<String>,
}

impl Whose {
    fn of(resource: &Resource) -> Self {
        let value = |name: &str| {
            let found = resource.attributes.iter().find(|one| one.key == name)?;
            found.value.as_ref().map(text).filter(|text| !text.is_empty())
        };
        Self {
            service: value("service.name").unwrap_or_default(),
            workload: WORKLOADS.iter().find_map(|name| value(name)).unwrap_or_default(),
            version: value("service.version"),
        }
    }
}

/// The spans of a body that is protobuf, `most` at most.
///
/// # Errors
/// It is no protobuf.
pub fn read(body: &[u8], most: usize) -> Result<Batch, Unreadable> {
    let broken = || Unreadable("no ExportTraceServiceRequest in protobuf".to_owned());
    let mut batch = Batch::default();
    for resource_spans in parts(body, 1).ok_or_else(broken)? {
        let resource = parts(resource_spans, 1).ok_or_else(broken)?.first().copied();
        let whose = match resource.filter(|bytes| bytes.len() <= SPAN_BYTES_MAX) {
            Some(bytes) => Whose::of(&Resource::decode(bytes).map_err(|_| broken())?),
            None => Whose::default(),
        };
        for scope_spans in parts(resource_spans, 2).ok_or_else(broken)? {
            let scope = parts(scope_spans, 1).ok_or_else(broken)?.first().copied();
            let scope = scope.filter(|bytes| bytes.len() <= SPAN_BYTES_MAX);
            let scope = scope.and_then(|bytes| Scope::decode(bytes).ok()).unwrap_or_default();
            for bytes in parts(scope_spans, 2).ok_or_else(broken)? {
                let fits = bytes.len() <= SPAN_BYTES_MAX && batch.spans.len() < most;
                let sent = fits.then(|| OtlpSpan::decode(bytes).ok()).flatten();
                batch.add(sent.and_then(|sent| span(&whose, &scope, sent)), most);
            }
        }
    }
    Ok(batch)
}

/// The messages of a message that have this number; `None` if it is none.
fn parts(mut message: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (part, rest) = message.split_at_checked(length)?;
        message = rest;
        if key >> 3 == number && key & 7 == 2 {
            found.push(part);
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The spans of a body that is JSON, `most` at most.
///
/// # Errors
/// It is not, or something else.
pub fn read_json(body: &[u8], most: usize) -> Result<Batch, Unreadable> {
    let request: ExportRequest = serde_json::from_slice(body)
        .map_err(|error| Unreadable(format!("no ExportTraceServiceRequest in JSON: {error}")))?;
    let mut batch = Batch::default();
    for resource_spans in request.resource_spans {
        let whose = resource_spans.resource.as_ref().map(Whose::of).unwrap_or_default();
        for scope_spans in resource_spans.scope_spans {
            let scope = scope_spans.scope.unwrap_or_default();
            for sent in scope_spans.spans {
                batch.add(span(&whose, &scope, sent), most);
            }
        }
    }
    Ok(batch)
}

fn span(whose: &Whose, scope: &Scope, sent: OtlpSpan) -> Option<Received> {
    let id = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let status = sent.status.unwrap_or_default();
    let mut span = Received {
        trace: u128::from_be_bytes(sent.trace_id.as_slice().try_into().ok()?),
        id: id(&sent.span_id)?,
        parent: id(&sent.parent_span_id),
        service: whose.service.clone(),
        workload: whose.workload.clone(),
        name: sent.name,
        kind: kind(sent.kind),
        start: sent.start / 1_000,
        duration: sent.end.saturating_sub(sent.start) / 1_000,
        failed: status.code == STATUS_ERROR,
        ..Received::default()
    };
    for KeyValue { key, value } in sent.attributes {
        span.add_tag(&key, value.as_ref().map(text).unwrap_or_default());
    }
    if !status.message.is_empty() {
        span.add_tag("otel.status_description", status.message);
    }
    if scope.name != OWN_SCOPE {
        if !scope.name.is_empty() {
            span.add_tag("otel.scope.name", scope.name.clone());
        }
        if let Some(version) = &whose.version {
            span.add_tag("service.version", version.clone());
        }
    }
    for Event { time, name, attributes } in sent.events {
        span.add_event(time / 1_000, told(name, &attributes));
    }
    Some(span)
}

/// An event in one line: an exception says which.
fn told(name: String, attributes: &[KeyValue]) -> String {
    let said = attributes.iter().filter(|one| one.key != "exception.stacktrace").take(LIST_MAX);
    said.fold(name, |text, one| {
        let value = one.value.as_ref().map(self::text).unwrap_or_default();
        format!("{text} {}={value}", one.key)
    })
}

fn kind(number: i32) -> ReceivedKind {
    match number {
        KIND_SERVER => ReceivedKind::Server,
        KIND_CLIENT => ReceivedKind::Client,
        4 => ReceivedKind::Producer,
        5 => ReceivedKind::Consumer,
        _ => ReceivedKind::Internal,
    }
}

/// A value in one line. Lists within lists are told as such.
fn text(value: &AnyValue) -> String {
    match value {
        AnyValue { text: Some(text), .. } => text.clone(),
        AnyValue { flag: Some(flag), .. } => flag.to_string(),
        AnyValue { integer: Some(integer), .. } => integer.to_string(),
        AnyValue { number: Some(number), .. } => number.to_string(),
        AnyValue { list: Some(list), .. } => {
            let simple = |one: &AnyValue| match one.list {
                Some(_) => "[…]".to_owned(),
                None => text(one),
            };
            list.values.iter().take(LIST_MAX).map(simple).collect::<Vec<_>>().join(", ")
        }
        AnyValue { text: None, flag: None, integer: None, number: None, list: None } => {
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::otlp::{ResourceSpans, ScopeSpans};

    fn wanted() -> Received {
        Received {
            trace: 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c,
            id: 0xeee1_9b7e_c3c1_b174,
            parent: Some(0xeee1_9b7e_c3c1_b173),
            service: "my.service".to_owned(),
            workload: "pod-7".to_owned(),
            name: "I'm a server span".to_owned(),
            kind: ReceivedKind::Server,
            start: 1_544_712_660_000_000,
            duration: 1_000_000,
            failed: true,
            tags: [
                ("http.response.status_code", "503"),
                ("retried", "true"),
                ("ports", "80, 443"),
                ("otel.scope.name", "my.library"),
                ("service.version", "2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            events: vec![(1_544_712_660_500_000, "exception exception.type=OSError".to_owned())],
        }
    }

    const BODY: &str = r#"{"resourceSpans": [{"resource": {"attributes": [
        {"key": "service.name", "value": {"stringValue": "my.service"}},
        {"key": "service.version", "value": {"stringValue": "2"}},
        {"key": "k8s.pod.name", "value": {"stringValue": "pod-7"}}]},
      "scopeSpans": [{"scope": {"name": "my.library", "version": "1.0.0"}, "spans": [{
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "EEE19B7EC3C1B173", "name": "I'm a server span", "kind": 2,
        "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": "1544712661000000000",
        "attributes": [{"key": "http.response.status_code", "value": {"intValue": "503"}},
          {"key": "retried", "value": {"boolValue": true}},
          {"key": "ports", "value": {"arrayValue": {"values": [{"intValue": "80"}, {"intValue": "443"}]}}}],
        "events": [{"timeUnixNano": "1544712660500000000", "name": "exception",
          "attributes": [{"key": "exception.type", "value": {"stringValue": "OSError"}},
            {"key": "exception.stacktrace", "value": {"stringValue": "a\nb"}}]}],
        "status": {"code": 2}, "droppedAttributesCount": 0, "unknown": {}}]}]}]}"#;

    #[test]
    fn a_span_in_json_is_read() {
        let batch = read_json(BODY.as_bytes(), 10).unwrap();
        assert_eq!(batch, Batch { spans: vec![wanted()], rejected: 0 });
    }

    #[test]
    fn the_same_span_in_protobuf_is_the_same() {
        let request: ExportRequest = serde_json::from_str(BODY).unwrap();
        let batch = read(&request.encode_to_vec(), 10).unwrap();
        assert_eq!(batch, Batch { spans: vec![wanted()], rejected: 0 });
    }

    #[test]
    fn what_is_too_much_or_not_whole_is_counted() {
        let span = |trace: u8| OtlpSpan {
            trace_id: vec![trace; 16],
            span_id: vec![1; 8],
            start: 5_000,
            ..OtlpSpan::default()
        };
        let large = OtlpSpan { name: "x".repeat(SPAN_BYTES_MAX + 1), ..span(1) };
        let short = OtlpSpan { span_id: vec![1; 7], ..span(1) };
        let spans = vec![span(1), span(0), large, short, span(2), span(3)];
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: None,
                scope_spans: vec![ScopeSpans { scope: None, spans }],
            }],
        };
        let batch = read(&request.encode_to_vec(), 2).unwrap();
        assert_eq!((batch.spans.len(), batch.rejected), (2, 4));
        assert_eq!(batch.spans[1].trace, u128::from_be_bytes([2; 16]));
        assert_eq!(read(b"", 2).unwrap(), Batch::default());
        assert!(read(b"<html>", 2).is_err());
        assert!(read(&[0x0a, 0x7f, 1], 2).is_err());
        assert!(read_json(b"7", 2).is_err());
        assert_eq!(read_json(b"{}", 2).unwrap(), Batch::default());
    }
}
