//! A real server's metrics behind the sidecar's.

use heddle_model::Addresses;
use heddle_wire::local::{
    app_probes::{HttpGet, Scheme},
    proxy_config::ProxyConfig,
};

use super::*;

/// Answers with these bytes, and then keeps the connection, or ends it.
async fn application(answer: &'static str, ends: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_contained("application", async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let _count = stream.read(&mut request).await;
            drop(stream.write_all(answer.as_bytes()).await);
            if !ends {
                open.push(stream);
            }
        }
    });
    port
}

fn merging(dir: &Folder, port: u16) -> Arc<Shared> {
    let path = "/metrics".to_owned();
    let get = HttpGet { path, port, scheme: Scheme::Http, http_headers: Vec::new() };
    let config = ProxyConfig {
        app_metrics: Some(get),
        addresses: Addresses::V4(Ipv4Addr::LOCALHOST),
        ..proxy_config(dir.path())
    };
    let metrics = Arc::new(Metrics::new(&config));
    Arc::new(Shared::new(config, metrics).0)
}

const START: &str = "process_start_time_seconds ";

#[test]
fn the_applications_metrics_stand_behind_the_sidecars_on_15020_only() {
    run_local(async {
        let answer = "HTTP/1.1 200 OK\r\n\r\n# TYPE mine counter\nmine{a=\"b\"} 7\nprocess_start_time_seconds 1";
        let port = application(answer, true).await;
        let dir = Folder::new("merged");
        let shared = merging(&dir, port);
        let page = get(served(&shared, Face::Merged), "/stats/prometheus").await;
        let own = page.find("istio_build{").unwrap();
        assert!(own < page.find("mine{a=\"b\"} 7\n").unwrap(), "{page}");
        assert_eq!(page.matches(START).count(), 1, "{page}");
        let page = get(served(&shared, Face::Metrics), "/stats/prometheus").await;
        assert!(page.contains(START) && !page.contains("mine"), "{page}");
        assert!(page.contains("heddle_app_scrapes_total{result=\"merged\"} 1"), "{page}");
    })
    .unwrap();
}

#[test]
fn whatever_the_application_does_the_sidecars_own_are_whole_and_it_is_counted() {
    run_local(async {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = closed.local_addr().unwrap().port();
        drop(closed);
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nmine 1\nthe";
        for (port, shown, result) in [
            (nobody, false, "unreachable"),
            (application("HTTP/1.1 404 No\r\n\r\nmine 1\n", true).await, false, "status"),
            (application("HTTP/1.1 200 OK\r\n\r\nmine 1\n<html>\n", true).await, true, "malformed"),
            (application(cut, true).await, true, "unreachable"),
            (application(cut, false).await, true, "timeout"),
            (application("", false).await, false, "timeout"),
        ] {
            let dir = Folder::new("merged");
            let shared = merging(&dir, port);
            let address = served(&shared, Face::Merged);
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.5\r\n\r\n";
            let page = exchange(address, request.as_bytes()).await;
            assert!(page.contains("istio_build{"), "{result}: {page}");
            // The last piece of a page that is whole.
            assert!(page.ends_with("\r\n0\r\n\r\n"), "{result}: {page}");
            assert_eq!(page.contains("mine 1\n"), shown, "{result}: {page}");
            assert!(!page.contains("\nthe") && !page.contains("<html>"), "{result}: {page}");
            let counted = format!("heddle_app_scrapes_total{{result=\"{result}\"}} 1");
            let page = get(served(&shared, Face::Metrics), "/metrics").await;
            assert!(page.contains(&counted), "{result}: {page}");
        }
    })
    .unwrap();
}
