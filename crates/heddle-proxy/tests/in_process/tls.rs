//! TLS that the caller's sidecar begins: whatever is spoken over it comes through, and what keeps it from coming
//! about is said in so many words.

use std::{cell::RefCell, fs, net::SocketAddr, rc::Rc, time::Duration};

use heddle_model::{
    Protocol, ServiceName,
    discovery::{ClientTls, ClusterKey, ClusterPolicy, ConnectionPool, Provenance, Resolution},
};
use heddle_proxy::limits::CONNECT_TIMEOUT;
use heddle_runtime::clock;
use heddle_testkit::{
    folder::Folder,
    resources::{self, PORT, service},
    tls::{Authority, Server, asked_for},
};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    http2::{connect, post, send, whole},
    mesh::{End, GET, Mesh, OK, seconds_since, since, with_standing_clock},
};

const NAME: &str = "reviews.example.com";

/// An authority with its file, and a server that it vouches for.
pub(crate) struct Files {
    folder: Folder,
    pub(crate) authority: Authority,
}

impl Files {
    pub(crate) fn new() -> Self {
        let (folder, authority) = (Folder::new("mesh-tls"), Authority::new("shop"));
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    pub(crate) fn settings(&self, name: &str) -> ClientTls {
        ClientTls {
            authorities: Some(self.folder.join("ca.pem").to_str().unwrap().to_owned()),
            server_name: name.to_owned(),
            ..ClientTls::default()
        }
    }

    pub(crate) fn server(&self, protocols: &[&str]) -> Server {
        Server::with(&self.authority.vouch(&[NAME, "*.example.org"]), None, protocols)
    }

    fn policy(&self) -> ClusterPolicy {
        policy(self.settings(NAME))
    }
}

fn policy(tls: ClientTls) -> ClusterPolicy {
    ClusterPolicy {
        cluster: ClusterKey { service: service("reviews"), subset: None, port: PORT },
        provenance: Provenance("DestinationRule/default/reviews".into()),
        outlier: None,
        pool: None,
        tls: Some(tls),
        balancing: None,
        retry_budget: None,
    }
}

/// Answers requests of HTTP/1 over TLS, with what the client asked for in a field.
async fn answers(server: Server, end: End) {
    let Ok(mut stream) = server.accept(end.transport).await else { return };
    let name = asked_for(&stream).unwrap_or_default();
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer =
                format!("HTTP/1.1 200 OK\r\nx-name: {name}\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

fn speaking_tls(policies: &[ClusterPolicy], server: &Server, protocol: Protocol) -> Mesh {
    let server = server.clone();
    Mesh::under(policies, protocol, &[20], move |end| answers(server.clone(), end))
}

#[test]
fn requests_go_over_one_connection_of_tls() {
    with_standing_clock(|| async {
        let files = Files::new();
        for protocol in [Protocol::Http, Protocol::Undeclared] {
            let mesh = speaking_tls(&[files.policy()], &files.server(&[]), protocol);
            let mut client = mesh.call();
            for _ in 0..3 {
                let (head, body) = client.ask(GET).await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                assert!(head.contains(&format!("x-name: {NAME}\r\n")), "{head}");
                assert!(!head.contains("heddle"), "no sidecar reads what is within: {head}");
                assert_eq!(body, "ok");
            }
            assert_eq!(mesh.connects(), 1, "{protocol:?}");
            let mtls = "connection_security_policy=\"none\"";
            let sent = ["response_code=\"200\"", "response_flags=\"-\"", mtls];
            assert_eq!(mesh.client.requests(&sent), 3.0);
        }
    });
}

#[test]
fn a_server_that_is_not_believed_is_refused_with_the_reason() {
    with_standing_clock(|| async {
        let files = Files::new();
        let stranger = Server::new(&Authority::new("other").vouch(&[NAME]));
        let mesh = speaking_tls(&[files.policy()], &stranger, Protocol::Http);
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains("x-heddle-refusal: tls-failed; hop=outbound@client-1"), "{head}");
        assert!(body.contains("unknown issuer"), "{body}");
        let failed = ["response_code=\"503\"", "response_flags=\"UF"];
        assert_eq!(mesh.client.requests(&failed), 1.0);
        let reason = ["reason=\"unknown-issuer\""];
        assert!(mesh.client.sum("heddle_tls_failures_total", &reason) >= 1.0);
        assert_eq!(mesh.client.sum("heddle_tls_failures_total", &["reason=\"expired\""]), 0.0);
    });
}

#[test]
fn a_file_that_is_not_there_is_named_and_nothing_is_sent_without_tls() {
    with_standing_clock(|| async {
        let files = Files::new();
        let settings =
            ClientTls { authorities: Some("/nowhere/ca.pem".to_owned()), ..files.settings(NAME) };
        let mesh = Mesh::under(&[policy(settings)], Protocol::Http, &[20], |mut end| async move {
            assert_eq!(end.head().await, None, "nothing in the clear");
        });
        let (head, body) = mesh.call().ask(GET).await;
        assert!(head.contains("x-heddle-refusal: tls-failed"), "{head}");
        assert!(body.contains("`caCertificates` /nowhere/ca.pem: No such file"), "{body}");
    });
}

#[test]
fn a_server_that_never_agrees_is_given_up_within_the_time_for_connecting() {
    with_standing_clock(|| async {
        let files = Files::new();
        let silent = |end: End| async move {
            let _open = end;
            std::future::pending::<()>().await;
        };
        let mesh = Mesh::under(&[files.policy()], Protocol::Http, &[20], silent);
        let begun = clock::now();
        let (head, _) = mesh.call().ask(GET).await;
        assert!(head.contains("x-heddle-refusal: tls-failed"), "{head}");
        let waited = seconds_since(begun);
        assert!(waited >= CONNECT_TIMEOUT.as_secs(), "{:?}", since(begun));
        assert_eq!(waited % CONNECT_TIMEOUT.as_secs(), 0, "one time for all of an attempt");
        let limit = Some(Duration::from_secs(1));
        let pool = Some(ConnectionPool { connect_timeout: limit, ..ConnectionPool::default() });
        let policy = ClusterPolicy { pool, ..files.policy() };
        let mesh = Mesh::under(&[policy], Protocol::Http, &[20], silent);
        let begun = clock::now();
        mesh.call().ask(GET).await;
        assert!(seconds_since(begun) < CONNECT_TIMEOUT.as_secs(), "{:?}", since(begun));
        assert!(mesh.client.sum("heddle_tls_failures_total", &["reason=\"timeout\""]) >= 1.0);
    });
}

#[test]
fn a_connection_of_another_tls_is_never_used_again() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mesh = speaking_tls(&[files.policy()], &files.server(&[]), Protocol::Http);
        let mut client = mesh.call();
        client.ask(GET).await;
        mesh.tell(&[policy(files.settings("other.example.org"))]);
        let (head, _) = client.ask(GET).await;
        assert!(head.contains("x-name: other.example.org\r\n"), "{head}");
        assert_eq!(mesh.connects(), 2);
        mesh.tell(&[policy(files.settings("elsewhere.example.net"))]);
        let (head, _) = client.ask(GET).await;
        assert!(
            head.starts_with("HTTP/1.1 503 "),
            "what was believed before does not count: {head}"
        );
    });
}

#[test]
fn a_connection_that_the_server_has_closed_is_not_used_again() {
    with_standing_clock(|| async {
        let files = Files::new();
        let server = files.server(&[]);
        let one_each = move |end: End| {
            let server = server.clone();
            async move {
                let mut stream = server.accept(end.transport).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let mesh = Mesh::under(&[files.policy()], Protocol::Http, &[20], one_each);
        let mut client = mesh.call();
        for _ in 0..4 {
            let (head, _) = client.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
    });
}

/// Answers requests of HTTP/2 over TLS with what they came by.
async fn answers_http2(server: Server, end: End) {
    let Ok(stream) = server.accept(end.transport).await else { return };
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
        let response = Response::builder().header("x-scheme", scheme).body(()).unwrap();
        respond.send_response(response, true).unwrap();
    }
}

#[test]
fn http2_is_asked_for_by_name_where_it_is_spoken() {
    with_standing_clock(|| async {
        let files = Files::new();
        for protocol in [Protocol::Http2, Protocol::Grpc, Protocol::Http, Protocol::Undeclared] {
            let server = files.server(&["h2"]);
            let application = move |end| answers_http2(server.clone(), end);
            let mesh = Mesh::under(&[files.policy()], protocol, &[20], application);
            let mut client = connect(mesh.call()).await;
            for _ in 0..2 {
                let (response, _to) = send(&mut client, post("/"), true).await;
                let (head, _, _) = whole(response).await.unwrap();
                assert_eq!(head.headers()["x-scheme"], "https", "{protocol:?}");
            }
            if protocol == Protocol::Http2 {
                let (head, _) = mesh.call().ask(GET).await;
                assert!(head.contains("x-scheme: https"), "from HTTP/1 too: {head}");
            }
        }
    });
}

#[test]
fn a_server_that_chooses_http1_is_asked_in_it() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mesh =
            speaking_tls(&[files.policy()], &files.server(&["http/1.1"]), Protocol::Undeclared);
        let mut client = connect(mesh.call()).await;
        for _ in 0..2 {
            let (response, _to) = send(&mut client, post("/"), true).await;
            let (head, body, _) = whole(response).await.unwrap();
            assert_eq!((head.status().as_u16(), body.as_str()), (200, "ok"));
        }
    });
}

#[test]
fn bytes_go_over_tls_whoever_speaks_first() {
    with_standing_clock(|| async {
        let files = Files::new();
        for protocol in [Protocol::Tcp, Protocol::Undeclared] {
            let server = files.server(&[]);
            let greets = move |end: End| {
                let server = server.clone();
                async move {
                    let mut stream = server.accept(end.transport).await.unwrap();
                    stream.write_all(b"220 hello\r\n\r\n").await.unwrap();
                    stream.flush().await.unwrap();
                    let mut said = [0; 4];
                    stream.read_exact(&mut said).await.unwrap();
                    stream.write_all(&said).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            };
            let mesh = Mesh::under(&[files.policy()], protocol, &[20], greets);
            let mut client = mesh.call();
            assert_eq!(client.head().await.as_deref(), Some("220 hello\r\n\r\n"), "{protocol:?}");
            client.send("QUIT").await;
            let (_, ended) = client.ended().await;
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(client.rest(), "QUIT");
        }
    });
}

#[test]
fn a_call_to_oneself_is_of_tls_too() {
    with_standing_clock(|| async {
        let files = Files::new();
        let seen = Rc::new(RefCell::new(0));
        let (server, count) = (files.server(&[]), Rc::clone(&seen));
        let application = move |end| {
            *count.borrow_mut() += 1;
            answers(server.clone(), end)
        };
        let mesh = Mesh::under(&[files.policy()], Protocol::Http, &[20], application);
        let to = SocketAddr::new(resources::vip(10), PORT);
        let (head, _) = mesh.servers[0].call(to).ask(GET).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!((*seen.borrow(), mesh.connects()), (1, 0));
    });
}

#[test]
fn where_a_call_goes_as_it_was_asked_it_goes_over_the_tls_of_its_rule_all_the_same() {
    with_standing_clock(|| async {
        let files = Files::new();
        let mesh = Mesh::new(crate::mesh::answers);
        let outside = SocketAddr::from(([203, 0, 113, 7], PORT));
        let server = files.server(&[]);
        mesh.outside(outside, move |end| answers(server.clone(), end));
        let host = ServiceName::of_host(NAME, "default").unwrap();
        let mut policy = files.policy();
        policy.cluster.service = host;
        let mut destination = resources::destination("reviews", Vec::new());
        destination.ports[0].protocol = Protocol::Http;
        destination.policies = vec![policy];
        mesh.tell_host(NAME, destination, |endpoints| endpoints.resolution = Resolution::None);
        let get = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
        let mut client = mesh.client.call(outside);
        for _ in 0..2 {
            let (head, body) = client.ask(&get).await;
            assert!(head.contains(&format!("x-name: {NAME}\r\n")), "{head}");
            assert_eq!(body, "ok");
        }
    });
}
