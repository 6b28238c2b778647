//! The webhook over HTTPS, by clients as the API server is one and as it is not.
#![expect(clippy::unwrap_used, reason = "a test says best what it expected by failing there")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use heddle_control::{
    injection::InjectionSettings,
    webhook::{REVIEW_BYTES_MAX, UnknownNamespaces, Webhook, serve},
};
use heddle_model::discovery::ClientTls;
use heddle_runtime::{
    task::{run_local, spawn_contained},
    tls::{Asks, Origin},
    transport::Transport,
};
use heddle_testkit::tls::self_signed;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const REVIEW: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","kind":{"kind":"Pod"},"operation":"CREATE","namespace":"shop","object":{"spec":{"containers":[{"name":"web"}]}}}}"#;

/// One whose TLS offers HTTP/2 only, as that of a server of gRPC does.
async fn server() -> SocketAddr {
    let own = self_signed(&["heddle-control.heddle-system.svc"]);
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = Webhook::new(InjectionSettings::default(), Arc::new(UnknownNamespaces));
    spawn_contained("webhook", serve(listener, Arc::new(tls), Arc::new(webhook)));
    address
}

async fn connected(address: SocketAddr) -> Transport {
    let server_name = "heddle-control.heddle-system.svc".to_owned();
    let tls = Origin::new(ClientTls { unverified: true, server_name, ..ClientTls::default() });
    let stream = TcpStream::connect(address).await.unwrap();
    let transport = tls.begin(stream.into(), Asks::Http2, Duration::from_secs(10)).await.unwrap();
    assert!(transport.chose_http1());
    transport
}

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

/// What is answered, as far as it came with the first bytes.
async fn answer(transport: &mut Transport) -> String {
    let mut bytes = vec![0; 64 * 1024];
    let count = transport.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn reviews_of_one_connection_are_answered_one_after_the_other() {
    run_local(async {
        let address = server().await;
        // Somebody who says nothing is in nobody's way.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut transport = connected(address).await;
        for _ in 0..3 {
            let request = post("/inject", REVIEW.len()) + REVIEW;
            transport.write_all(request.as_bytes()).await.unwrap();
            let text = answer(&mut transport).await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(text.contains("content-type: application/json\r\n"), "{text}");
            assert!(
                text.contains(r#""uid":"u1","allowed":true,"patchType":"JSONPatch""#),
                "{text}"
            );
        }
        transport.write_all((post("/inject", 2) + "{}").as_bytes()).await.unwrap();
        let text = answer(&mut transport).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(
            text.ends_with("no AdmissionReview: kind is absent, not \"AdmissionReview\"\n"),
            "{text}"
        );
    })
    .unwrap();
}

#[test]
fn a_review_that_is_too_large_is_not_read() {
    run_local(async {
        let mut transport = connected(server().await).await;
        let request = post("/validate", REVIEW_BYTES_MAX + 1);
        transport.write_all(request.as_bytes()).await.unwrap();
        transport.write_all(&vec![b' '; 64 * 1024]).await.unwrap();
        let text = answer(&mut transport).await;
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    })
    .unwrap();
}
