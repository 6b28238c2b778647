//! Receivers of every sort and temper, over real sockets.

mod logs;

use std::{cell::RefCell, net::SocketAddr};

use bytes::{Buf as _, Bytes};
use heddle_model::discovery::{OtlpHttpSink, SentField, SpanSink, ZipkinSink};
use heddle_runtime::task;
use heddle_testkit::fixture::proxy_config;
use heddle_wire::trace::{
    Decision, SpanContext, SpanId, TraceId,
    otlp::{ExportRequest, ExportResponse, PartialSuccess},
    span::{Kind, Span},
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Connects, and counts.
struct Counting(Rc<Cell<usize>>);

impl Reach for Counting {
    async fn connect(&self, to: &Collector) -> Result<TcpStream, String> {
        self.0.set(self.0.get() + 1);
        let at: SocketAddr = format!("{}:{}", to.host, to.port).parse().unwrap();
        TcpStream::connect(at).await.map_err(|error| error.to_string())
    }
}

fn at(port: u16) -> Collector {
    Collector::at("127.0.0.1", port)
}

fn zipkin(port: u16) -> SpanSink {
    let path = "/api/v2/spans".to_owned();
    SpanSink::Zipkin(ZipkinSink { to: at(port), path, short_ids: false })
}

/// A field that goes with requests.
fn key() -> SentField {
    let (name, value) = ("x-key".to_owned(), "secret".to_owned());
    SentField { name, value, from_environment: false }
}

/// With this limit on each batch.
fn otlp_http(port: u16, timeout_ms: u64) -> SpanSink {
    SpanSink::OtlpHttp(OtlpHttpSink {
        to: Collector {
            timeout: Some(Duration::from_millis(timeout_ms)),
            headers: vec![key()],
            ..at(port)
        },
        path: "/v1/traces".to_owned(),
    })
}

/// An exporter with one receiver.
struct Exporter {
    spans: mpsc::Sender<Finished>,
    to: Arc<SpanSink>,
    metrics: Arc<Metrics>,
    connects: Rc<Cell<usize>>,
    end: mpsc::Sender<oneshot::Sender<()>>,
}

impl Exporter {
    fn start(sink: SpanSink) -> Self {
        let config = proxy_config(std::path::Path::new("/nowhere"));
        let metrics = Arc::new(Metrics::new(&config));
        let (spans, finished) = mpsc::channel(64);
        let (end, asked) = mpsc::channel(1);
        let connects = Rc::<Cell<usize>>::default();
        let told = (origin(&config, metrics.own()), Arc::clone(&metrics));
        let running = run(Counting(Rc::clone(&connects)), told, finished, asked);
        drop(spawn_contained("exporter", running));
        Self { spans, to: Arc::new(sink), metrics, connects, end }
    }

    async fn give(&self, name: &str) {
        let context = SpanContext::begin(TraceId::of(7), SpanId::of(8), Decision::Record);
        let span = Span {
            context,
            kind: Kind::Server,
            name: name.to_owned(),
            start: Duration::from_secs(1),
            duration: Duration::from_millis(2),
            tags: Vec::new(),
            events: Vec::new(),
            failed: false,
        };
        let finished = Finished { what: span, to: Arc::clone(&self.to) };
        self.spans.send(finished).await.unwrap();
    }

    fn count(&self, result: ExportResult) -> u64 {
        self.metrics.traces.spans.of(result)
    }

    /// Waits until so many spans ended so.
    async fn counts(&self, result: ExportResult, spans: u64) {
        while self.count(result) < spans {
            clock::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.count(result), spans, "{result:?}");
    }

    /// Waits until as many spans or more ended so.
    async fn counts_at_least(&self, result: ExportResult, spans: u64) {
        while self.count(result) < spans {
            clock::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it.
    async fn end(&self) {
        let (told, done) = oneshot::channel();
        self.end.send(told).await.unwrap();
        done.await.unwrap();
    }
}

/// What a receiver over HTTP was sent: heads in small letters, and bodies.
type Taken = Rc<RefCell<Vec<(String, Vec<u8>)>>>;

/// A receiver that answers each request with `answer`; an empty one is no answer at all.
async fn http_receiver(answer: &'static str) -> (u16, Taken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Taken::default();
    let told = Rc::clone(&taken);
    drop(spawn_contained("receiver", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(spawn_contained("connection", receive(stream, answer, Rc::clone(&told))));
        }
    }));
    (port, taken)
}

async fn receive(mut stream: TcpStream, answer: &'static str, taken: Taken) {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(read.drain(..at + 4).collect()).unwrap();
            }
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let length: usize = length.parse().unwrap();
        while read.len() < length {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        taken.borrow_mut().push((head, read.drain(..length).collect()));
        if answer.is_empty() {
            std::future::pending::<()>().await;
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

fn run_local(test: impl Future<Output = ()>) {
    task::run_local(test).unwrap();
}

#[test]
fn zipkin_gets_batches_over_one_connection() {
    run_local(async {
        let (port, taken) = http_receiver(ACCEPTED).await;
        let exporter = Exporter::start(zipkin(port));
        exporter.give("a").await;
        exporter.give("b").await;
        exporter.counts(ExportResult::Sent, 2).await;
        exporter.give("c").await;
        exporter.counts(ExportResult::Sent, 3).await;
        let taken = taken.borrow();
        assert_eq!((taken.len(), exporter.connects.get()), (2, 1));
        let (head, body) = &taken[0];
        assert!(head.starts_with("post /api/v2/spans http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains("b3: 0\r\n"), "nobody traces this: {head}");
        let spans: serde_json::Value = serde_json::from_slice(body).unwrap();
        let names: Vec<_> = spans.as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(spans[0]["localEndpoint"]["serviceName"], "client.default");
    });
}

#[test]
fn otlp_over_http_tells_what_it_did_not_want() {
    run_local(async {
        // `partial_success { rejected_spans: 1 }`.
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x01";
        let (port, taken) = http_receiver(answer).await;
        let exporter = Exporter::start(otlp_http(port, 5_000));
        exporter.give("a").await;
        exporter.give("b").await;
        exporter.counts(ExportResult::Sent, 1).await;
        exporter.counts(ExportResult::Refused, 1).await;
        let (head, body) = taken.borrow_mut().remove(0);
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        assert!(head.contains("x-key: secret\r\n"), "{head}");
        let read = ExportRequest::decode(&body[..]).unwrap();
        let spans = &read.resource_spans[0].scope_spans[0].spans;
        assert_eq!(spans.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    });
}

#[test]
fn otlp_by_grpc_is_called_over_one_connection() {
    run_local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Rc::<RefCell<Vec<ExportRequest>>>::default();
        let told = Rc::clone(&taken);
        drop(spawn_contained("receiver", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                drop(spawn_contained("call", grpc_call(request, respond, Rc::clone(&told))));
            }
        }));
        let exporter = Exporter::start(SpanSink::OtlpGrpc(at(port)));
        exporter.give("a").await;
        exporter.counts(ExportResult::Sent, 1).await;
        exporter.give("b").await;
        exporter.counts(ExportResult::Sent, 2).await;
        assert_eq!((taken.borrow().len(), exporter.connects.get()), (2, 1));
        let resource = taken.borrow()[0].resource_spans[0].resource.clone().unwrap();
        assert_eq!(resource.attributes[0].text(), Some("client.default"));
    });
}

async fn grpc_call(
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    taken: Rc<RefCell<Vec<ExportRequest>>>,
) {
    assert_eq!(request.uri().path(), heddle_wire::trace::otlp::GRPC_PATH);
    assert_eq!(request.headers()["b3"], "0", "nobody traces this");
    let message = grpc_message(request).await;
    taken.borrow_mut().push(ExportRequest::decode(&message[..]).unwrap());
    grpc_thanks(respond);
}

/// The one message of a call, without its frame.
async fn grpc_message(request: http::Request<h2::RecvStream>) -> Vec<u8> {
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    let mut message = &message[..];
    assert_eq!(message.get_u8(), 0, "not compressed");
    assert_eq!(message.get_u32() as usize, message.len());
    message.to_vec()
}

fn grpc_thanks(mut respond: h2::server::SendResponse<Bytes>) {
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut sending = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let partial_success = Some(PartialSuccess::default());
    let answer = ExportResponse { partial_success }.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, answer.len() as u8];
    framed.extend(answer);
    sending.send_data(framed.into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    sending.send_trailers(trailers).unwrap();
}

#[test]
fn a_receiver_that_hangs_costs_its_own_batch_and_no_more() {
    run_local(async {
        let (port, taken) = http_receiver("").await;
        let exporter = Exporter::start(otlp_http(port, 50));
        exporter.give("a").await;
        exporter.counts(ExportResult::Timeout, 1).await;
        exporter.give("b").await;
        exporter.counts(ExportResult::Timeout, 2).await;
        assert_eq!((taken.borrow().len(), exporter.connects.get()), (2, 2));
    });
}

#[test]
fn a_receiver_that_says_no_is_not_asked_again_for_the_same() {
    run_local(async {
        let (port, taken) =
            http_receiver("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno").await;
        let exporter = Exporter::start(zipkin(port));
        exporter.give("a").await;
        exporter.counts(ExportResult::Refused, 1).await;
        assert_eq!(taken.borrow().len(), 1);
    });
}

#[test]
fn a_receiver_that_lies_is_left() {
    run_local(async {
        let (port, _taken) = http_receiver("SSH-2.0-what\r\n").await;
        let exporter = Exporter::start(zipkin(port));
        exporter.give("a").await;
        exporter.counts(ExportResult::Unreachable, 1).await;
        let exporter = Exporter::start(SpanSink::OtlpGrpc(at(port)));
        exporter.give("a").await;
        while exporter.count(ExportResult::Unreachable) + exporter.count(ExportResult::Timeout) == 0
        {
            clock::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_receiver_that_comes_back_gets_what_waited_for_it() {
    run_local(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let exporter = Exporter::start(zipkin(at.port()));
        exporter.give("a").await;
        while exporter.connects.get() == 0 {
            clock::sleep(Duration::from_millis(10)).await;
        }
        let listener = TcpListener::bind(at).await.unwrap();
        let taken = Taken::default();
        let told = Rc::clone(&taken);
        drop(spawn_contained("receiver", async move {
            let (stream, _) = listener.accept().await.unwrap();
            receive(stream, ACCEPTED, told).await;
        }));
        exporter.counts(ExportResult::Sent, 1).await;
        assert_eq!(taken.borrow().len(), 1);
    });
}

#[test]
fn what_a_receiver_does_not_take_is_bounded_and_counted() {
    run_local(async {
        let (port, _taken) = http_receiver("").await;
        let exporter = Exporter::start(otlp_http(port, 60_000));
        let large = "x".repeat(100_000);
        for _ in 0..100 {
            exporter.give(&large).await;
        }
        while exporter.count(ExportResult::QueueFull) < 50 {
            clock::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn at_the_end_what_waits_is_sent_at_once() {
    run_local(async {
        let (port, taken) = http_receiver(ACCEPTED).await;
        let exporter = Exporter::start(zipkin(port));
        exporter.give("last").await;
        exporter.end().await;
        assert_eq!((taken.borrow().len(), exporter.count(ExportResult::Sent)), (1, 1));
    });
}

#[test]
fn an_end_is_an_end_however_many_spans_go_on_to_come() {
    run_local(async {
        let (port, _taken) = http_receiver(ACCEPTED).await;
        let exporter = Rc::new(Exporter::start(zipkin(port)));
        let giver = Rc::clone(&exporter);
        // Never is there nothing to take.
        let steady = spawn_contained("steady flow", async move {
            loop {
                giver.give("more").await;
            }
        });
        exporter.counts_at_least(ExportResult::Sent, 1).await;
        exporter.end().await;
        steady.abort();
    });
}
