//! The small server over real connections.

use std::net::{Ipv4Addr, SocketAddr};

use heddle_model::{ServiceName, WorkloadId};
use heddle_runtime::{memory, task::run_local};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    limits::LABEL_SETS,
    metrics::{Edge, Grpc, Metrics, Reporter, ServiceLabels},
    refusal::Flags,
    series::SeriesSet,
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
    testing::{
        Folder, proxy_config,
        resources::{dangling, destination, endpoints, inbound, target},
    },
};

mod app_metrics;
mod app_probes;
mod formats;
mod tapped;

fn shared(dir: &Folder) -> Arc<Shared> {
    let config = proxy_config(dir.path());
    let metrics = Arc::new(Metrics::new(&config));
    Arc::new(Shared::new(config, metrics).0)
}

fn served(shared: &Arc<Shared>, face: Face) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    AdminListener::bind(shared, address, face).unwrap().serve(shared).unwrap()
}

/// Sends bytes and reads to the end.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

#[test]
fn every_face_shows_its_own_pages() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        for (face, metrics, health, admin) in [
            (Face::Health, false, true, false),
            (Face::Metrics, true, false, false),
            (Face::Merged, true, true, false),
            (Face::Admin, true, true, true),
        ] {
            let address = served(&shared, face);
            let is_page = |text: String| !text.starts_with("HTTP/1.1 404");
            assert_eq!(is_page(get(address, "/stats/prometheus").await), metrics, "{face:?}");
            assert_eq!(is_page(get(address, "/healthz/ready?x").await), health, "{face:?}");
            assert_eq!(is_page(get(address, "/config_dump").await), admin, "{face:?}");
        }
    })
    .unwrap();
}

#[test]
fn questions_of_a_person_are_answered_on_the_admin_face_only() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let post = |body: &str| {
            let length = body.len();
            format!("POST /explain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let call = r#"{"host": "10.0.0.9", "port": 80, "headers": [["cookie", "hunter2"]]}"#;
        for face in [Face::Health, Face::Metrics, Face::Merged] {
            let address = served(&shared, face);
            let text = exchange(address, post(call).as_bytes()).await;
            assert!(text.starts_with("HTTP/1.1 405"), "{face:?}: {text}");
            assert!(get(address, "/refusals").await.starts_with("HTTP/1.1 404"), "{face:?}");
        }
        let address = served(&shared, Face::Admin);
        let text = exchange(address, post(call).as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"outside\""), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        for (body, status) in [
            ("{", "400"),
            (r#"{"host": "a b", "port": 80}"#, "400"),
            (&"x".repeat(100_000), "413"),
        ] {
            let text = exchange(address, post(body).as_bytes()).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        }
        assert!(get(address, "/explain").await.starts_with("HTTP/1.1 405"));
        let text = get(address, "/refusals").await;
        assert!(text.contains("\"refusals\":[]"), "{text}");
    })
    .unwrap();
}

#[test]
fn draining_is_begun_by_a_post_to_the_loopback_only_and_is_of_inbound_callers() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let begun = |direction| shared.state.draining.is_begun(direction);
        let post = b"POST /drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for face in [Face::Health, Face::Metrics, Face::Merged] {
            let text = exchange(served(&shared, face), post).await;
            assert!(text.starts_with("HTTP/1.1 405"), "{face:?}: {text}");
        }
        let address = served(&shared, Face::Admin);
        assert!(get(address, "/drain").await.starts_with("HTTP/1.1 405"));
        assert!(!begun(Direction::Inbound));
        assert!(exchange(address, post).await.starts_with("HTTP/1.1 200"));
        assert!(begun(Direction::Inbound) && !begun(Direction::Outbound));
    })
    .unwrap();
}

#[test]
fn readiness_says_what_is_missing() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let address = served(&shared, Face::Health);
        let text = get(address, "/healthz/ready").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("control plane"), "{text}");
        shared.ready.store(true, Ordering::Relaxed);
        assert!(get(address, "/healthz/ready").await.starts_with("HTTP/1.1 200"));
    })
    .unwrap();
}

#[test]
fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    run_local(async {
        let dir = Folder::new("admin");
        let address = served(&shared(&dir), Face::Admin);
        let text = exchange(
            address,
            b"HEAD /stats/prometheus HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        )
        .await;
        let codes: Vec<_> = text.lines().filter(|line| line.starts_with("HTTP/1.")).collect();
        // An answer is of the request's version.
        assert_eq!(codes, ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK"]);
        assert!(text.contains("version=0.0.4"));
    })
    .unwrap();
}

#[test]
fn what_is_no_plain_request_is_refused_by_name() {
    run_local(async {
        let dir = Folder::new("admin");
        let address = served(&shared(&dir), Face::Admin);
        let long = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 9000]].concat();
        for (request, code) in [
            (&b"POST / HTTP/1.1\r\n\r\n"[..], "405"),
            (b"\x16\x03\x01\x02\x00\r\n\r\n", "400"),
            (b"GET / HTTP/2.0\r\n\r\n", "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
            (&long, "431"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer[9..], code.as_bytes());
        }
    })
    .unwrap();
}

#[test]
fn an_answer_that_is_not_taken_in_time_ends_the_connection() {
    run_local(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let _reads_nothing = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TakenInTime::new(stream, Duration::from_millis(1));
        // More than the buffers of both sockets take.
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 1 << 20]).await {
                break error;
            }
            stream.flush().await.unwrap();
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    })
    .unwrap();
}

#[test]
fn the_dump_shows_rules_with_their_provenance_and_endpoints() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let mut set = ResourceSet { inbound: Some(inbound().into()), ..ResourceSet::default() };
        set.insert_endpoints(endpoints("reviews", &[20]));
        let targets = vec![target("reviews", Some("v1")), dangling("no subset v9")];
        set.insert_destination(CompiledDestination::new(destination("reviews", targets)).unwrap());
        let mut builder = SnapshotBuilder::new(WorkloadId("client-1".into()));
        shared.snapshot.store(Arc::new(builder.build(&set, 42).snapshot));
        let text = get(served(&shared, Face::Admin), "/config_dump").await;
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let dump: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(dump["generation"], 42);
        assert_eq!(dump["control_plane"], "unreachable");
        assert_eq!(dump["inbound"][0]["number"], 8080);
        let port = &dump["destinations"]["reviews.default.svc.cluster.local"]["ports"]["9080"];
        assert_eq!(port["endpoints"][0]["address"], "240.241.0.20:9080");
        let rule = &port["rules"][0];
        assert_eq!(rule["provenance"], "VirtualService/default/reviews#0");
        assert_eq!(rule["targets"][0]["endpoints"][0], "reviews-20");
        assert_eq!(rule["targets"][1]["dangling"], "no subset v9");
    })
    .unwrap();
}

#[test]
fn a_client_that_ends_its_side_behind_its_request_is_answered() {
    run_local(async {
        let dir = Folder::new("admin");
        let address = served(&shared(&dir), Face::Health);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    })
    .unwrap();
}

/// As many label sets as a proxy has at most.
fn counted_a_lot(shared: &Shared) {
    let service = ServiceLabels::of(&ServiceName::new("reviews", "default").unwrap());
    let set = SeriesSet::new(Edge { reporter: Reporter::Source, peer: None, service }, 0);
    for status in 0..u16::try_from(LABEL_SETS).unwrap() {
        set.http(&shared.metrics, (status, Grpc::No, Flags::default()), |series| {
            series.record(Duration::from_millis(1), 100, 100);
        });
    }
}

#[test]
fn scrapers_that_do_not_read_cost_no_copies_of_the_text() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        counted_a_lot(&shared);
        let address = served(&shared, Face::Metrics);
        let before = memory::anonymous_bytes().unwrap();
        let mut silent = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            silent.push(stream);
        }
        // Another one is served meanwhile, and whole.
        let text = get(address, "/metrics").await;
        assert!(text.ends_with("\r\n0\r\n\r\n"), "the last chunk");
        let counts = text.matches("\nistio_requests_total{").count();
        // A line may be cut by a chunk's head.
        assert!((LABEL_SETS - 50..=LABEL_SETS).contains(&counts), "{counts}");
        let grown = memory::anonymous_bytes().unwrap().saturating_sub(before);
        // The text this test has read is twice in memory at most; each further copy were as much.
        assert!(grown < 3 * text.len() as u64, "{grown} for {}", text.len());
    })
    .unwrap();
}

#[test]
fn a_scrape_that_is_not_taken_in_time_breaks_off() {
    run_local(async {
        let dir = Folder::new("admin");
        let shared = shared(&dir);
        let format = Format::Text;
        let scrape = || Scrape::new(Arc::clone(&shared.metrics));
        let told = || (Exposition::new(scrape(), format), None);
        let late = pieces(format.content_type(), told(), clock::now());
        assert!(late.into_body().collect().await.is_err());
        let early = pieces(format.content_type(), told(), clock::now() + IDLE_MAX);
        assert!(early.into_body().collect().await.is_ok());
    })
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_behind_an_answer_once_it_is_old() {
    let dir = Folder::new("admin");
    let shared = shared(&dir);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut stream = TcpStream::connect(served(&shared, Face::Health)).await.unwrap();
            let began = clock::now();
            loop {
                clock::sleep(IDLE_MAX / 2).await;
                let asked = stream.write_all(b"GET /healthz/ready HTTP/1.1\r\n\r\n").await;
                let mut answer = [0; 1024];
                match (asked, stream.read(&mut answer).await) {
                    (Ok(()), Ok(length)) if length > 0 => {}
                    _ => break,
                }
                assert!(clock::now() < began + AGE_MAX + 2 * IDLE_MAX, "still open");
            }
            assert!(clock::now() >= began + AGE_MAX, "and not before");
        })
        .await;
}
