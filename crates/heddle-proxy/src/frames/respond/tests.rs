//! Responses by their parts, as clients of HTTP/1 get to see them.

use std::{collections::VecDeque, rc::Rc, task::Context};

use h2::Reason;
use http::HeaderValue;

use heddle_runtime::{task, transport::Transport};
use tokio::io::AsyncReadExt;

use super::*;
use crate::{
    direction::Direction,
    metrics::{Edge, Reporter, ServiceLabels},
    record::MetricSeries,
    series::SeriesSet,
    testing,
};

/// Frames that are there at once, with waits between them where `None` stands.
struct Scripted(VecDeque<Option<Result<Frame, Reset>>>);

impl Frames for Scripted {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        match self.0.pop_front() {
            Some(None) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame.flatten()),
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

fn data(text: &str) -> Option<Result<Frame, Reset>> {
    Some(Ok(Frame::Data(text.to_owned().into())))
}

/// What a client is sent of a response with these frames, and how sending ended.
fn sent(
    status: u16,
    length: Option<u64>,
    recipient: Recipient,
    frames: impl IntoIterator<Item = Option<Result<Frame, Reset>>>,
) -> (String, Result<(), Failure>) {
    task::run_local(async {
        let worker = testing::worker();
        let edge = Edge {
            reporter: Reporter::Source,
            peer: None,
            service: ServiceLabels::passthrough(None),
        };
        let series = MetricSeries::Edge(Rc::new(SeriesSet::new(edge, 0)));
        let now = heddle_runtime::clock::now();
        let outcome = RequestOutcome::begin(&worker, Direction::Outbound, series, now);
        let mut fields = HeaderMap::new();
        fields.insert("x-a", HeaderValue::from_static("1"));
        let head = Head { status, fields, length };
        let (mut near, mut far) = Transport::pair();
        let mut frames = Scripted(frames.into_iter().collect());
        let result = {
            let (_, mut to) = near.split();
            send_response(&mut to, &head, &mut frames, recipient, &outcome).await
        };
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        (text, result)
    })
    .unwrap()
}

const MODERN: Recipient =
    Recipient { method: Some(Method::Get), version: Version::Http11, persists: true };
const OLD: Recipient =
    Recipient { method: Some(Method::Get), version: Version::Http10, persists: true };

#[test]
fn a_body_of_known_length_goes_as_it_is() {
    let (text, result) = sent(200, Some(5), MODERN, [data("he"), None, data("llo")]);
    assert_eq!(text, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello");
    assert!(result.is_ok());
}

#[test]
fn a_body_of_unknown_length_is_chunked_with_its_trailers() {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from_static("0"));
    let trailers = Some(Ok(Frame::Trailers(fields)));
    let (text, _) = sent(200, None, MODERN, [data("hello"), data(""), None, data("you"), trailers]);
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(text.contains("transfer-encoding: chunked\r\n"), "{text}");
    assert_eq!(body, "5\r\nhello\r\n3\r\nyou\r\n0\r\ngrpc-status: 0\r\n\r\n");
}

#[test]
fn a_client_of_http_1_0_gets_it_until_the_connection_ends() {
    let (text, _) = sent(200, None, OLD, [data("hello")]);
    assert!(text.ends_with("connection: close\r\n\r\nhello"), "{text}");
    let (text, _) = sent(200, Some(5), OLD, [data("hello")]);
    assert!(text.ends_with("connection: keep-alive\r\n\r\nhello"), "{text}");
}

#[test]
fn no_body_follows_the_answer_to_head_nor_a_status_without_one() {
    let head = Recipient { method: Some(Method::Head), ..MODERN };
    let (text, _) = sent(200, Some(5), head, [data("hello")]);
    assert!(text.ends_with("content-length: 5\r\n\r\n"), "{text}");
    let (text, _) = sent(204, Some(0), MODERN, [data("hello")]);
    assert_eq!(text, "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n");
}

#[test]
fn a_body_that_breaks_off_is_never_completed() {
    let reset = || [data("hel"), Some(Err(Reset(Reason::CANCEL)))];
    let (text, result) = sent(200, None, MODERN, reset());
    assert!(text.ends_with("3\r\nhel\r\n"), "{text}");
    assert!(matches!(result, Err(Failure::Cut(Cut::Closed))), "{result:?}");
    let (_, result) = sent(200, None, OLD, reset());
    assert!(matches!(result, Err(Failure::Cut(Cut::Reset))), "an end would look whole: {result:?}");
    for frames in [vec![data("hell")], vec![data("hello!")]] {
        let (_, result) = sent(200, Some(5), MODERN, frames);
        assert!(matches!(result, Err(Failure::Cut(_))), "{result:?}");
    }
}
