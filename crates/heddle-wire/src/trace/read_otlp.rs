//! Spans that are sent in OpenTelemetry's protocol over HTTP: as protobuf, which is walked so that one span at a time
//! is taken apart, and as its JSON (ids in hexadecimal, 64-bit numbers perhaps as texts), whose fields may come in any
//! order, and of which one span at a time is taken apart as well.

use std::fmt;

use prost::Message as _;
use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    otlp::{
        AnyValue, Event, KIND_CLIENT, KIND_SERVER, KeyValue, OtlpSpan, Resource, STATUS_ERROR,
        Scope,
    },
    received::{
        Batch, Bounded, NAME_BYTES_MAX, Received, ReceivedKind, Unreadable, WHO_BYTES_MAX, cut,
    },
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

/// Whose spans are read, cut to what is kept of it: each span has a copy.
#[derive(Default)]
struct Whose {
    service: String,
    workload: String,
    version: Option<String>,
}

impl Whose {
    fn of(resource: &Resource) -> Self {
        let value = |name: &str, most: usize| {
            let found = resource.attributes.iter().find(|one| one.key == name)?;
            let value = found.value.as_ref().map(text).filter(|text| !text.is_empty())?;
            Some(cut(value, most))
        };
        let workload = WORKLOADS.iter().find_map(|name| value(name, WHO_BYTES_MAX));
        Self {
            service: value("service.name", WHO_BYTES_MAX).unwrap_or_default(),
            workload: workload.unwrap_or_default(),
            version: value("service.version", NAME_BYTES_MAX),
        }
    }
}

/// What has been read of a body.
struct Reading {
    batch: Batch,
    most: usize,
    /// Of the resource that is being read, spans that something else than the mesh made.
    others: Vec<usize>,
}

impl Reading {
    fn new(most: usize) -> Self {
        Self { batch: Batch::default(), most, others: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.batch.spans.len() >= self.most
    }

    fn add(&mut self, sent: Option<OtlpSpan>) {
        self.batch.add(sent.and_then(span), self.most);
    }

    /// The spans from `begin` on were made by this library.
    fn made_by(&mut self, begin: usize, scope: Option<Scope>) {
        let name = cut(scope.unwrap_or_default().name, NAME_BYTES_MAX);
        if name == OWN_SCOPE {
            return;
        }
        for (at, span) in self.batch.spans.iter_mut().enumerate().skip(begin) {
            if !name.is_empty() {
                span.add_tag("otel.scope.name", name.clone());
            }
            self.others.push(at);
        }
    }

    /// The spans from `begin` on are of this workload.
    fn made_in(&mut self, begin: usize, whose: &Whose) {
        for span in self.batch.spans.iter_mut().skip(begin) {
            if !whose.service.is_empty() {
                span.service.clone_from(&whose.service);
            }
            span.workload.clone_from(&whose.workload);
        }
        for at in self.others.drain(..) {
            if let (Some(version), Some(span)) = (&whose.version, self.batch.spans.get_mut(at)) {
                span.add_tag("service.version", version.clone());
            }
        }
    }
}

/// The spans of a body that is protobuf, `most` at most.
///
/// # Errors
/// It is no protobuf.
pub fn read(body: &[u8], most: usize) -> Result<Batch, Unreadable> {
    let mut read = Reading::new(most);
    for resource_spans in parts(body, 1) {
        let (resource_spans, of_resource) = (resource_spans?, read.batch.spans.len());
        let resource = parts(resource_spans, 1).next().transpose()?;
        let whose = match resource.filter(|bytes| bytes.len() <= SPAN_BYTES_MAX) {
            Some(bytes) => Whose::of(&Resource::decode(bytes).map_err(|_| broken())?),
            None => Whose::default(),
        };
        for scope_spans in parts(resource_spans, 2) {
            let (scope_spans, of_scope) = (scope_spans?, read.batch.spans.len());
            let scope = parts(scope_spans, 1).next().transpose()?;
            let scope = scope.filter(|bytes| bytes.len() <= SPAN_BYTES_MAX);
            for bytes in parts(scope_spans, 2) {
                let fits = Some(bytes?).filter(|bytes| bytes.len() <= SPAN_BYTES_MAX);
                let sent = fits.filter(|_| !read.is_full());
                read.add(sent.and_then(|bytes| OtlpSpan::decode(bytes).ok()));
            }
            read.made_by(of_scope, scope.and_then(|bytes| Scope::decode(bytes).ok()));
        }
        read.made_in(of_resource, &whose);
    }
    Ok(read.batch)
}

fn broken() -> Unreadable {
    Unreadable("no ExportTraceServiceRequest in protobuf".to_owned())
}

/// The messages of a message that have this number, one by one: there may be two million empty ones.
fn parts(mut message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Unreadable>> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let found = field(&mut message).ok_or_else(broken);
            match found {
                Ok((key, part)) if key >> 3 == number && key & 7 == 2 => return Some(Ok(part)),
                Ok(_) => {}
                Err(error) => {
                    message = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

/// The next field of a message with its key; what is no message is told as an empty one.
fn field<'m>(message: &mut &'m [u8]) -> Option<(u64, &'m [u8])> {
    let key = varint(message)?;
    let length = match key & 7 {
        0 => {
            varint(message)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(message)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (part, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((key, part))
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
    let mut reader = serde_json::Deserializer::from_slice(body);
    let mut read = Reading::new(most);
    let done =
        Level { at: 0, read: &mut read }.deserialize(&mut reader).and_then(|()| reader.end());
    done.map_err(|error| Unreadable(format!("no ExportTraceServiceRequest in JSON: {error}")))?;
    Ok(read.batch)
}

/// What an object on each level has: who made the spans in it, and those, or what is on the next level.
const LEVELS: [(&str, &str); 3] =
    [("", "resourceSpans"), ("resource", "scopeSpans"), ("scope", "spans")];

/// An object on a level.
struct Level<'r> {
    at: usize,
    read: &'r mut Reading,
}

/// The list in such an object.
struct List<'r>(Level<'r>);

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with `{}`", LEVELS[self.at].1)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<(), A::Error> {
        let Self { at, read } = self;
        let begin = read.batch.spans.len();
        let (mut whose, mut scope) = (Whose::default(), None);
        while let Some(name) = sent.next_key::<String>()? {
            if name == LEVELS[at].1 {
                sent.next_value_seed(List(Level { at, read: &mut *read }))?;
            } else if at == 0 || name != LEVELS[at].0 {
                sent.next_value::<IgnoredAny>()?;
            } else if at == 1 {
                let resource = made(sent.next_value_seed(Bounded)?);
                whose = resource.as_ref().map(Whose::of).unwrap_or_default();
            } else {
                scope = made(sent.next_value_seed(Bounded)?);
            }
        }
        match at {
            0 => {}
            1 => read.made_in(begin, &whose),
            _ => read.made_by(begin, scope),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of `{}`", LEVELS[self.0.at].1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<(), A::Error> {
        let Level { at, read } = self.0;
        if at + 1 < LEVELS.len() {
            while sent.next_element_seed(Level { at: at + 1, read: &mut *read })?.is_some() {}
            return Ok(());
        }
        while !read.is_full() {
            let Some(one) = sent.next_element_seed(Bounded)? else { return Ok(()) };
            read.add(made(one));
        }
        while sent.next_element::<IgnoredAny>()?.is_some() {
            read.add(None);
        }
        Ok(())
    }
}

/// What a value is, if it is that.
fn made<T: DeserializeOwned>(value: Option<serde_json::Value>) -> Option<T> {
    value.and_then(|value| serde_json::from_value(value).ok())
}

/// A span without whose it is.
fn span(sent: OtlpSpan) -> Option<Received> {
    let id = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let status = sent.status.unwrap_or_default();
    let mut span = Received {
        trace: u128::from_be_bytes(sent.trace_id.as_slice().try_into().ok()?),
        id: id(&sent.span_id)?,
        parent: id(&sent.parent_span_id),
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
    use crate::trace::otlp::{ExportRequest, ResourceSpans, ScopeSpans};

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
        let body: serde_json::Value = serde_json::from_str(BODY).unwrap();
        let resource_spans = &body["resourceSpans"][0];
        let scope_spans = &resource_spans["scopeSpans"][0];
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: made(Some(resource_spans["resource"].clone())),
                scope_spans: vec![ScopeSpans {
                    scope: made(Some(scope_spans["scope"].clone())),
                    spans: vec![made(Some(scope_spans["spans"][0].clone())).unwrap()],
                }],
            }],
        };
        let batch = read(&request.encode_to_vec(), 10).unwrap();
        assert_eq!(batch, Batch { spans: vec![wanted()], rejected: 0 });
    }

    /// A span in JSON that is whole.
    const SMALL: &str = r#"{"traceId": "00000000000000000000000000000001", "spanId": "0000000000000002",
        "startTimeUnixNano": "5000"}"#;

    #[test]
    fn whose_spans_they_are_may_be_told_behind_them() {
        let resource = r#""resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "a"}},
            {"key": "service.version", "value": {"stringValue": "2"}}]}"#;
        let of = |scope: &str| format!(r#"{{"spans": [{SMALL}], "scope": {{"name": "{scope}"}}}}"#);
        let scopes = format!("{}, {}", of("heddle"), of("my.library"));
        let body = format!(
            r#"{{"resourceSpans": [{{"scopeSpans": [{scopes}], {resource}}}, {{"scopeSpans": [{scopes}]}}]}}"#
        );
        let spans = read_json(body.as_bytes(), 10).unwrap().spans;
        let told: Vec<_> = spans
            .iter()
            .map(|span| {
                let tag = |name| span.tag(&[name]);
                (span.service.as_str(), tag("otel.scope.name"), tag("service.version"))
            })
            .collect();
        let library = Some("my.library");
        let wanted = [
            ("a", None, None),
            ("a", library, Some("2")),
            ("unknown", None, None),
            ("unknown", library, None),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn spans_beyond_the_most_are_counted_and_not_taken_apart() {
        let spans = format!("[{SMALL}, 7, {SMALL}, {SMALL}, {{\"name\": []}}, 7]");
        let body = format!(r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": {spans}}}]}}]}}"#);
        let batch = read_json(body.as_bytes(), 2).unwrap();
        assert_eq!((batch.spans.len(), batch.rejected), (2, 4));
        let many = format!("{{\"spans\": [{}]}}", vec!["{}"; 300_000].join(","));
        let body = format!(r#"{{"resourceSpans": [{{"scopeSpans": [{many}]}}]}}"#);
        assert_eq!(read_json(body.as_bytes(), 2).unwrap().rejected, 300_000);
    }

    #[test]
    fn a_span_with_too_many_values_costs_only_itself() {
        let large = SMALL.replace('}', &format!(", \"events\": [{}]}}", ["{}"; 9_000].join(",")));
        let body = format!(
            r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{large}, {SMALL}]}}]}}]}}"#
        );
        let batch = read_json(body.as_bytes(), 10).unwrap();
        assert_eq!((batch.spans.len(), batch.rejected), (1, 1));
    }

    #[test]
    fn what_many_spans_share_is_kept_cut() {
        let long = "x".repeat(20 << 10);
        let attribute = |key: &str| {
            let value = AnyValue { text: Some(long.clone()), ..AnyValue::default() };
            KeyValue { key: key.to_owned(), value: Some(value) }
        };
        let attributes = ["service.name", "service.version", "host.name"].map(attribute).to_vec();
        let span = OtlpSpan {
            trace_id: vec![1; 16],
            span_id: vec![1; 8],
            start: 5_000,
            ..OtlpSpan::default()
        };
        let scope = Some(Scope { name: long, ..Scope::default() });
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { scope, spans: vec![span; 100] }],
            }],
        };
        for span in read(&request.encode_to_vec(), 100).unwrap().spans {
            let tags = span.tags.iter().flat_map(|(name, value)| [name, value]);
            let texts = [&span.service, &span.workload, &span.name].into_iter().chain(tags);
            let held: usize = texts.map(String::capacity).sum();
            assert!(held < 2 * (WHO_BYTES_MAX + NAME_BYTES_MAX) + 100, "{held} bytes");
            assert_eq!((span.service.len(), span.workload.len(), span.tags.len()), (253, 253, 2));
        }
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
