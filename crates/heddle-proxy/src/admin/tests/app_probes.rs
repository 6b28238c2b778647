//! Real servers behind the probes' paths.

use heddle_model::Addresses;
use heddle_testkit::tls::{Server, self_signed};
use heddle_wire::local::{
    app_probes::{AppProbe, AppProbes, Ask, Grpc, Header, HttpGet, Scheme, TcpSocket},
    proxy_config::ProxyConfig,
};
use tokio::sync::mpsc;

use super::*;

fn probing(dir: &Folder, probes: &[(&str, Ask)]) -> Arc<Shared> {
    let probe = |(path, ask): &(&str, Ask)| {
        let ask = ask.clone();
        ((*path).to_owned(), AppProbe { ask, timeout_seconds: 1 })
    };
    let app_probes: AppProbes = probes.iter().map(probe).collect();
    let config = ProxyConfig {
        app_probes,
        addresses: Addresses::V4(Ipv4Addr::LOCALHOST),
        ..proxy_config(dir.path())
    };
    let metrics = Arc::new(Metrics::new(&config));
    Arc::new(Shared::new(config, metrics).0)
}

fn get_of(port: u16, path: &str) -> HttpGet {
    HttpGet { path: path.into(), port, scheme: Scheme::Http, http_headers: Vec::new() }
}

/// Answers every request with the same bytes, and tells what it was asked.
async fn server(answer: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, asked) = mpsc::channel(8);
    spawn_contained("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap_or(0);
            request.truncate(count);
            drop(heard.send(String::from_utf8_lossy(&request).into_owned()).await);
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    (port, asked)
}

fn code(text: &str) -> &str {
    text.get(9..12).unwrap_or_default()
}

#[test]
fn an_http_probe_passes_the_applications_status_on() {
    run_local(async {
        let (port, mut asked) = server("HTTP/1.1 418 I am\r\ncontent-length: 2\r\n\r\nno").await;
        let header = Header { name: "Host".into(), value: "app.example".into() };
        let asks = HttpGet { http_headers: vec![header], ..get_of(port, "/ok?deep=1") };
        let dir = Folder::new("probes");
        let shared = probing(&dir, &[("/app-health/web/livez", Ask::HttpGet(asks))]);
        let address = served(&shared, Face::Merged);
        assert_eq!(code(&get(address, "/app-health/web/livez").await), "418");
        let request = asked.recv().await.unwrap();
        assert!(request.starts_with("GET /ok?deep=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: app.example\r\n"), "{request}");
        assert_eq!(code(&get(address, "/app-health/web/readyz").await), "404");
        // On no other port.
        let metrics = served(&shared, Face::Metrics);
        assert_eq!(code(&get(metrics, "/app-health/web/livez").await), "404");
    })
    .unwrap();
}

#[test]
fn what_does_not_answer_fails_in_its_time_and_says_why() {
    run_local(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = closed.local_addr().unwrap().port();
        drop(closed);
        let dir = Folder::new("probes-silent");
        let shared = probing(
            &dir,
            &[
                ("/app-health/a/livez", Ask::HttpGet(get_of(port, "/"))),
                ("/app-health/a/readyz", Ask::TcpSocket(TcpSocket { port })),
                ("/app-health/b/livez", Ask::TcpSocket(TcpSocket { port: nobody })),
                ("/app-health/b/readyz", Ask::HttpGet(get_of(port, "no path"))),
            ],
        );
        let address = served(&shared, Face::Merged);
        let text = get(address, "/app-health/a/livez").await;
        assert!(code(&text) == "504" && text.contains("no answer within 1 s"), "{text}");
        assert_eq!(code(&get(address, "/app-health/a/readyz").await), "200");
        let text = get(address, "/app-health/b/livez").await;
        assert!(code(&text) == "503" && text.contains(&format!("port {nobody}")), "{text}");
        let text = get(address, "/app-health/b/readyz").await;
        assert!(code(&text) == "503" && text.contains("no path"), "{text}");
    })
    .unwrap();
}

#[test]
fn a_probe_over_tls_takes_any_certificate() {
    run_local(async {
        let port = tls_server().await;
        let asks = HttpGet { scheme: Scheme::Https, ..get_of(port, "/") };
        let dir = Folder::new("probes-tls");
        let shared = probing(&dir, &[("/app-health/a/livez", Ask::HttpGet(asks))]);
        let address = served(&shared, Face::Merged);
        assert_eq!(code(&get(address, "/app-health/a/livez").await), "204");
    })
    .unwrap();
}

#[test]
fn grpcs_health_service_is_asked() {
    run_local(async {
        let port = health_server().await;
        let ask = |service: &str| Ask::Grpc(Grpc { port, service: service.into() });
        let dir = Folder::new("probes-grpc");
        let shared = probing(
            &dir,
            &[
                ("/app-health/a/livez", ask("good")),
                ("/app-health/a/readyz", ask("bad")),
                ("/app-health/a/startupz", ask("unknown")),
            ],
        );
        let address = served(&shared, Face::Merged);
        assert_eq!(code(&get(address, "/app-health/a/livez").await), "200");
        let text = get(address, "/app-health/a/readyz").await;
        assert!(code(&text) == "503" && text.contains("says 2"), "{text}");
        let text = get(address, "/app-health/a/startupz").await;
        assert!(code(&text) == "503" && text.contains("gRPC status 5"), "{text}");
    })
    .unwrap();
}

/// Knows `good`, which serves, and `bad`, which does not.
async fn health_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_contained("health", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let mut body = request.into_body();
                let question = body.data().await.unwrap().unwrap();
                let (status, code) = match &question[7..] {
                    b"good" => (1, "0"),
                    b"bad" => (2, "0"),
                    _ => (0, "5"),
                };
                let head = Response::builder().header("content-type", "application/grpc");
                let mut answer = respond.send_response(head.body(()).unwrap(), false).unwrap();
                if code == "0" {
                    let message = vec![0, 0, 0, 0, 2, 8, status];
                    answer.send_data(message.into(), false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                answer.send_trailers(trailers).unwrap();
            }
        }
    });
    port
}

/// Answers every request, with a certificate that nobody vouches for.
async fn tls_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Server::new(&self_signed(&["app.example"]));
    spawn_contained("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = tls.accept(stream).await.unwrap();
            let mut request = [0; 4096];
            let _count = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    port
}
