//! What is taken in, and what is refused with a reason.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::body::Frame;

use heddle_wire::trace::{
    Decision, SpanContext, SpanId, TraceId,
    span::{Kind, Origin, Span},
};

use super::*;

const ZIPKIN: &str =
    r#"[{"traceId": "1", "id": "2", "timestamp": 5, "localEndpoint": {"serviceName": "b"}}]"#;
/// The same as Python's gzip makes it.
const ZIPKIN_GZIP: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 139, 174, 86, 42, 41, 74, 76, 78, 245, 76, 81, 178, 82, 80,
    50, 84, 210, 81, 80, 202, 4, 51, 141, 64, 204, 146, 204, 220, 212, 226, 146, 196, 220, 2, 160,
    136, 41, 144, 159, 147, 159, 156, 152, 227, 154, 151, 82, 144, 159, 153, 87, 2, 20, 171, 86,
    42, 78, 45, 42, 203, 76, 78, 245, 75, 204, 77, 5, 233, 74, 82, 170, 173, 141, 5, 0, 44, 200,
    113, 193, 84, 0, 0, 0,
];

/// A body of which nothing ever comes.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn intake() -> Intake {
    Intake::new(Rc::default())
}

fn request(path: &str, kind: &str, coding: Option<&str>) -> hyper::http::request::Builder {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::CONTENT_TYPE, kind);
    match coding {
        Some(coding) => request.header(header::CONTENT_ENCODING, coding),
        None => request,
    }
}

async fn sent(
    intake: &Intake,
    request: hyper::http::request::Builder,
    body: impl Into<Bytes>,
) -> (StatusCode, String) {
    let response = intake.answer(request.body(Full::new(body.into())).unwrap()).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn spans(intake: &Intake) -> u64 {
    intake.traces.borrow().counts.spans
}

#[tokio::test]
async fn every_form_is_taken_and_thanked_for_in_its_own_way() {
    let context = SpanContext::begin(TraceId::of(7), SpanId::of(8), Decision::Record);
    let span = Span {
        context,
        kind: Kind::Server,
        name: "a:80/*".to_owned(),
        start: Duration::from_secs(5),
        duration: Duration::from_millis(6),
        tags: vec![("http.status_code".into(), "503".to_owned())],
        events: Vec::new(),
        failed: true,
    };
    let origin = Origin {
        service: "a.default".to_owned(),
        attributes: vec![("heddle.workload", "a-v1".to_owned())],
        ..Origin::default()
    };
    let intake = intake();
    // As our own sidecars send it.
    let ours = otlp::encode(&origin, std::slice::from_ref(&span));
    let answered = sent(&intake, request(otlp::PATH, otlp::MEDIA_TYPE, None), ours).await;
    assert_eq!(answered, (StatusCode::OK, String::new()));
    let trace = intake.traces.borrow_mut().one(7).unwrap();
    let one = &trace.spans[0];
    assert_eq!((one.service.as_str(), one.workload.as_str()), ("a.default", "a-v1"));
    assert_eq!((one.status.as_str(), one.duration_ms, trace.errors), ("503", 6.0, 1));
    let ours = zipkin::encode(&origin, &[span]);
    let answered = sent(&intake, request(zipkin::PATH, zipkin::MEDIA_TYPE, None), ours).await;
    assert_eq!(answered, (StatusCode::ACCEPTED, String::new()));
    let json = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "000000000000000000000000000000ab",
        "spanId": "00000000000000cd", "startTimeUnixNano": "5000"}]}]}]}"#;
    let kind = "application/json; charset=utf-8";
    let answered = sent(&intake, request(otlp::PATH, kind, None), json).await;
    assert_eq!(answered, (StatusCode::OK, "{}".to_owned()));
    let answered = sent(&intake, request(zipkin::PATH, kind, Some("gzip")), ZIPKIN_GZIP).await;
    assert_eq!(answered.0, StatusCode::ACCEPTED);
    assert_eq!(spans(&intake), 4);
    assert_eq!(intake.traces.borrow_mut().one(1).unwrap().service, "b");
}

#[tokio::test]
async fn what_is_no_span_is_refused_with_a_reason() {
    let large = vec![b' '; limits::SPANS_JSON_BODY_MAX + 1];
    let json = |path| request(path, JSON, None);
    let intake = intake();
    for (request, body, status, word) in [
        (json("/v1/metrics"), &b"{}"[..], StatusCode::NOT_FOUND, "/v1/traces"),
        (json(otlp::PATH).method(Method::PUT), b"{}", StatusCode::METHOD_NOT_ALLOWED, "POST"),
        (
            request(otlp::PATH, "text/plain", None),
            b"{}",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "text/plain",
        ),
        (request(zipkin::PATH, JSON, Some("br")), b"[]", StatusCode::UNSUPPORTED_MEDIA_TYPE, "br"),
        (request(zipkin::PATH, JSON, Some("gzip")), b"[]", StatusCode::BAD_REQUEST, "gzip"),
        (json(otlp::PATH), b"<html>", StatusCode::BAD_REQUEST, "JSON"),
        (json(zipkin::PATH), b"{}", StatusCode::BAD_REQUEST, "Zipkin"),
        (
            request(otlp::PATH, otlp::MEDIA_TYPE, None),
            b"<html>",
            StatusCode::BAD_REQUEST,
            "protobuf",
        ),
        (json(zipkin::PATH), &large, StatusCode::PAYLOAD_TOO_LARGE, "bytes"),
    ] {
        let (got, reason) = sent(&intake, request, body.to_vec()).await;
        assert_eq!(got, status, "{reason}");
        assert!(reason.contains(word), "{word}: {reason}");
    }
    assert_eq!(spans(&intake), 0);
    assert!(intake.traces.borrow().counts.dropped[&Dropped::Malformed] >= 5);
}

#[tokio::test]
async fn who_sends_too_much_is_told_to_come_again() {
    let intake = intake();
    let many = format!("[{}]", [ZIPKIN.trim_matches(['[', ']']); 3_000].join(","));
    let mut refused = 0;
    for _ in 0..6 {
        let request = request(zipkin::PATH, JSON, None);
        let (status, _) = sent(&intake, request, many.clone()).await;
        refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused >= 1 && spans(&intake) < 6 * 3_000);
    assert_eq!(intake.traces.borrow().counts.dropped[&Dropped::TooFast], refused as u64);
}

#[tokio::test]
async fn bodies_that_never_end_hold_up_no_more_than_their_places() {
    let intake = Rc::new(intake());
    let endless = || {
        let (intake, request) = (Rc::clone(&intake), request(zipkin::PATH, JSON, None));
        async move { intake.answer(request.body(Never).unwrap()).await.status() }
    };
    let local = tokio::task::LocalSet::new();
    let waiting: Vec<_> =
        (0..limits::SPANS_BODIES_MAX).map(|_| local.spawn_local(endless())).collect();
    let further = local.run_until(async {
        tokio::task::yield_now().await;
        endless().await
    });
    assert_eq!(further.await, StatusCode::TOO_MANY_REQUESTS);
    // Who has gone leaves its place.
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    local.await;
    let (status, _) = sent(&intake, request(zipkin::PATH, JSON, None), ZIPKIN).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

/// A message in gRPC's frame.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

#[tokio::test]
async fn grpc_is_answered_in_its_own_way() {
    let intake = intake();
    let called = |path: &str, kind: &str, body: Vec<u8>| {
        let request = request(path, kind, None).body(Full::new(Bytes::from(body))).unwrap();
        async { intake.answer(request).await }
    };
    let empty = framed(0, &[]);
    let answer = called(otlp::GRPC_PATH, "application/grpc", empty.clone()).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), &[0; 5][..]);
    for (path, body, status) in [
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", empty.clone(), "12"),
        (otlp::GRPC_PATH, b"abc".to_vec(), "3"),
        (otlp::GRPC_PATH, framed(0, b"no message"), "3"),
        (otlp::GRPC_PATH, framed(7, b""), "3"),
        (otlp::GRPC_PATH, [empty.clone(), empty.clone()].concat(), "3"),
    ] {
        let answer = called(path, "application/grpc+proto", body).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], status, "{path}");
        assert!(!answer.headers()["grpc-message"].is_empty());
    }
    // What is not sent as gRPC is not taken for it.
    assert_eq!(
        called(otlp::GRPC_PATH, "text/plain", empty).await.status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}
