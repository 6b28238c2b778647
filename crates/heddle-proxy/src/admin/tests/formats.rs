//! Formats that a scraper may ask for, and what a real Prometheus makes of them.

use std::{
    net::TcpListener as StdListener,
    process::{Child, Command, Stdio},
};

use super::*;

async fn accepting(address: SocketAddr, accept: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /stats/prometheus HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    (head, answer.split_off(end + 4))
}

const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// Splits what is delimited into its messages.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (mut length, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("a length");
            bytes = rest;
            length |= usize::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                break;
            }
        }
        let (message, rest) = bytes.split_at(length);
        all.push(message);
        bytes = rest;
    }
    all
}

#[test]
fn each_format_is_told_by_its_type_and_has_its_end() {
    run_local(async {
        let dir = Folder::new("formats");
        let shared = shared(&dir);
        counted_a_lot(&shared);
        for face in [Face::Metrics, Face::Merged] {
            let address = served(&shared, face);
            let (head, body) =
                accepting(address, "application/openmetrics-text;version=1.0.0").await;
            assert!(
                head.contains("content-type: application/openmetrics-text; version=1.0.0;"),
                "{head}"
            );
            let text = String::from_utf8(body).unwrap();
            assert!(text.ends_with("\n# EOF\n"));
            assert!(text.contains("\n# TYPE istio_requests counter\nistio_requests_total{"));
            assert!(!text.contains("# TYPE istio_requests_total"));
            let (head, body) = accepting(address, "*/*").await;
            assert!(head.contains("content-type: text/plain; version=0.0.4;"), "{head}");
            let plain = String::from_utf8(body).unwrap();
            assert_eq!(plain.lines().count() + 1, text.lines().count());
            let (head, body) = accepting(address, PROTOBUF).await;
            assert!(head.contains("content-type: application/vnd.google.protobuf;"), "{head}");
            let all = messages(&body);
            assert!(all.iter().all(|message| message.len() < 64 * 1024), "none is large");
            let named = |message: &&&[u8]| message.starts_with(b"\x0a\x14istio_requests_total");
            assert!(all.iter().filter(named).count() > 1, "a large family comes in several");
        }
    })
    .unwrap();
}

/// A Prometheus that scrapes one address each second.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(dir: &Folder, scraped: SocketAddr, more: &[&str]) -> Option<Self> {
        let free = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let name = address.port();
        let config = dir.path().join(format!("{name}.yml"));
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: sidecar\n  metrics_path: /stats/prometheus\n  static_configs: [{{targets: ['{scraped}']}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join(format!("{name}")).display()))
            .arg(format!("--web.listen-address={address}"))
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Some(Self { process: started.ok()?, address })
    }

    /// The first value that a query comes to, once it comes to one.
    async fn asks(&self, query: &str) -> f64 {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let begun = clock::now();
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await {
                drop(stream);
                let answer = get(self.address, &format!("/api/v1/query?query={encoded}")).await;
                let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let told = serde_json::from_str::<serde_json::Value>(body).unwrap_or_default();
                let value = told["data"]["result"][0]["value"][1].as_str();
                if let Some(value) = value.and_then(|value| value.parse::<f64>().ok())
                    && value.is_finite()
                {
                    return value;
                }
            }
            assert!(clock::now() < begun + Duration::from_secs(90), "no answer to {query}");
            clock::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Calls that take 1 to 200 ms, each as likely, until dropped.
async fn called_again_and_again(shared: Arc<Shared>) {
    let service = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    let set = SeriesSet::new(Edge { reporter: Reporter::Source, peer: None, service }, 0);
    loop {
        for ms in 1..=200 {
            set.http(&shared.metrics, (200, Grpc::No, Flags::default()), |series| {
                series.record(Duration::from_millis(ms), 100, 20_000);
            });
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn prometheus_reads_open_metrics_and_native_histograms() {
    run_local(async {
        let dir = Folder::new("formats");
        let shared = shared(&dir);
        let address = served(&shared, Face::Metrics);
        spawn_contained("calls", called_again_and_again(Arc::clone(&shared)));
        let native = ["--enable-feature=native-histograms"];
        let all =
            (Prometheus::start(&dir, address, &[]), Prometheus::start(&dir, address, &native));
        let (Some(classic), Some(native)) = all else {
            eprintln!("SKIPPED: prometheus is not installed");
            return;
        };
        let name = "istio_request_duration_milliseconds";
        let by_bounds = format!("histogram_quantile(0.9, sum by (le) (rate({name}_bucket[1m])))");
        let by_native = format!("histogram_quantile(0.9, rate({name}[1m]))");
        let (by_bounds, by_native) =
            (classic.asks(&by_bounds).await, native.asks(&by_native).await);
        // 180 ms in truth: Istio's bounds know no more than that it is between 100 and 250.
        assert!((100.0..250.0).contains(&by_bounds), "{by_bounds}");
        assert!((160.0..=200.0).contains(&by_native), "{by_native}");
        for scraper in [&classic, &native] {
            assert_eq!(scraper.asks("up").await, 1.0);
            assert!(scraper.asks("rate(istio_requests_total[1m])").await > 0.0);
            assert_eq!(scraper.asks("istio_build").await, 1.0);
        }
    })
    .unwrap();
}
