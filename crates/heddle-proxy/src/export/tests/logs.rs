//! Records of access logs on their way to collectors, over TLS and with metadata, and collectors that take none.

use heddle_model::discovery::ClientTls;
use heddle_testkit::{
    folder::Folder,
    tls::{Authority, Server},
};
use heddle_wire::trace::otlp_logs::{self, ExportLogs, Record};

use super::*;
use crate::snapshot::LogCollector;

struct Logs {
    records: mpsc::Sender<Finished<Record, LogCollector>>,
    to: Arc<LogCollector>,
    metrics: Arc<Metrics>,
    _end: mpsc::Sender<oneshot::Sender<()>>,
}

impl Logs {
    fn start(to: Collector) -> Self {
        let config = proxy_config(std::path::Path::new("/nowhere"));
        let metrics = Arc::new(Metrics::new(&config));
        let (records, finished) = mpsc::channel(64);
        let (end, asked) = mpsc::channel(1);
        let told = (origin(&config, metrics.own()), Arc::clone(&metrics));
        let running = run(Counting(Rc::default()), told, finished, asked);
        drop(spawn_contained("exporter", running));
        let to = Arc::new(LogCollector { to, name: "calls".to_owned() });
        Self { records, to, metrics, _end: end }
    }

    async fn give(&self, body: &str) {
        let what = Record {
            at: Duration::from_secs(1),
            observed: Duration::from_secs(2),
            body: body.to_owned(),
            attributes: vec![("code".to_owned(), "503".to_owned())],
            span: Some((TraceId::of(7), SpanId::of(8))),
        };
        self.records.send(Finished { what, to: Arc::clone(&self.to) }).await.unwrap();
    }

    async fn counts(&self, result: ExportResult, records: u64) {
        while self.metrics.log_records.of(result) < records {
            clock::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.metrics.log_records.of(result), records, "{result:?}");
    }

    fn dropped(&self) -> u64 {
        self.metrics.log_lines_dropped.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// One that must be spoken to in TLS of this authority.
fn secure(port: u16, authority: &Authority, folder: &Folder) -> Collector {
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let tls = ClientTls {
        authorities: Some(file.to_str().unwrap().to_owned()),
        server_name: "collector.example.com".to_owned(),
        ..ClientTls::default()
    };
    Collector { tls: Some(Box::new(tls)), headers: vec![key()], ..at(port) }
}

#[test]
fn records_go_to_their_collector_over_tls_with_metadata() {
    run_local(async {
        let (folder, authority) = (Folder::new("collector"), Authority::new("test"));
        let server = Server::with(&authority.vouch(&["collector.example.com"]), None, &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Rc::<RefCell<Vec<(String, ExportLogs)>>>::default();
        let told = Rc::clone(&taken);
        drop(spawn_contained("collector", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = server.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let told = Rc::clone(&told);
                drop(spawn_contained("call", async move {
                    assert_eq!(request.uri().path(), otlp_logs::GRPC_PATH);
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    let key = request.headers()["x-key"].to_str().unwrap().to_owned();
                    let message = grpc_message(request).await;
                    told.borrow_mut().push((key, ExportLogs::decode(&message[..]).unwrap()));
                    grpc_thanks(respond);
                }));
            }
        }));
        let logs = Logs::start(secure(port, &authority, &folder));
        logs.give("GET / 503").await;
        logs.counts(ExportResult::Sent, 1).await;
        assert_eq!(logs.dropped(), 0);
        let (key, read) = taken.borrow_mut().remove(0);
        assert_eq!(key, "secret");
        let of = &read.resource_logs[0];
        let told: Vec<_> = of.resource.as_ref().unwrap().attributes.iter().collect();
        let text = |name: &str| told.iter().find(|one| one.key == name).and_then(|one| one.text());
        assert_eq!(
            (text("service.name"), text("log_name")),
            (Some("client.default"), Some("calls"))
        );
        let record = &of.scope_logs[0].log_records[0];
        assert_eq!(record.body.as_ref().unwrap().text.as_deref(), Some("GET / 503"));
        assert_eq!((record.time, record.attributes[0].text()), (1_000_000_000, Some("503")));
        assert_eq!(record.trace_id, TraceId::of(7).bytes());
    });
}

#[test]
fn a_collector_that_is_not_who_it_says_or_hangs_costs_its_records_and_they_are_counted() {
    run_local(async {
        let (folder, authority) = (Folder::new("collector"), Authority::new("test"));
        let other = Authority::new("other").vouch(&["collector.example.com"]);
        let server = Server::with(&other, None, &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(spawn_contained("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                assert!(server.accept(stream).await.is_err(), "nobody is to believe it");
            }
        }));
        let logs = Logs::start(secure(port, &authority, &folder));
        logs.give("a").await;
        logs.counts(ExportResult::Unreachable, 1).await;
        assert_eq!(logs.dropped(), 1);

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let hangs = Collector { timeout: Some(Duration::from_millis(50)), ..at(port) };
        let logs = Logs::start(hangs);
        logs.give("a").await;
        logs.counts(ExportResult::Timeout, 1).await;
        assert_eq!(logs.dropped(), 1);
        drop(silent);
    });
}
