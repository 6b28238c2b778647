//! A server on loopback, spoken to as sidecars do.

use std::{net::SocketAddr, sync::Mutex};

use heddle_testkit::wait::PATIENCE;
use heddle_wire::discovery::{
    certificates::{CertificateClient, IssueRequest, IssueResponse},
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, ReportRequest, ReportResponse},
    transport::{DiscoveryClient, endpoint},
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Uri},
};

use super::*;
use crate::ca::{Authority, PodIdentity};

const NAME: &str = "heddle-control.heddle-system.svc";

/// Answers a stream with who its proxy is, as the server of discovery would tell it.
#[derive(Debug, Default)]
struct Echo;

impl Discovery for Echo {
    type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Self::Responses, Status> {
        let caller = Caller::of(&requests);
        caller.check()?;
        let mut requests = requests.into_inner();
        let (responses, outgoing) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let claimed = request.node.map(|node| node.id).unwrap_or_default();
                let told = caller.workload(&claimed, "node.id").map(|workload| {
                    DeltaDiscoveryResponse { type_url: workload.0, ..Default::default() }
                });
                if responses.send(told).await.is_err() {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(outgoing))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<ReportResponse, Status> {
        let caller = Caller::of(&request);
        caller.workload(&request.into_inner().workload, "the report")?;
        Ok(ReportResponse {})
    }
}

/// Knows the tokens `of:NAMESPACE/POD`.
#[derive(Debug, Default)]
struct Cluster {
    down: Mutex<bool>,
}

impl TokenReviewer for Cluster {
    async fn review(&self, token: &str, audience: &str) -> Result<PodIdentity, ReviewError> {
        assert_eq!(audience, "heddle-ca");
        if *self.down.lock().unwrap() {
            return Err(ReviewError::Unavailable("the API server does not answer".to_owned()));
        }
        let named = token.strip_prefix("of:").and_then(|name| name.split_once('/'));
        let (namespace, pod) =
            named.ok_or_else(|| ReviewError::Refused("it is not of this cluster".to_owned()))?;
        Ok(PodIdentity {
            namespace: namespace.to_owned(),
            service_account: "default".to_owned(),
            pod_name: pod.to_owned(),
            pod_uid: String::new(),
        })
    }
}

struct Server {
    address: SocketAddr,
    trust: Arc<Trust>,
    cluster: Arc<Cluster>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let trust = Trust::new(Authority::generate("cluster.local", clock::unix_now()).unwrap());
        Self::start_with("127.0.0.1:0".parse().unwrap(), trust).await
    }

    async fn start_with(address: SocketAddr, trust: Arc<Trust>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cluster = Arc::<Cluster>::default();
        let (serve_trust, reviewer) = (trust.clone(), cluster.clone());
        let serving = tokio::spawn(async move {
            let names = [NAME.to_owned()];
            let ended = serve(listener, Arc::new(Echo), serve_trust, reviewer, &names).await;
            panic!("{ended:?}");
        });
        Self { address, trust, cluster, serving }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.trust.authority().roots().to_vec()
    }

    /// Connects as somebody who believes `roots`.
    async fn connect(
        &self,
        roots: &[CertificateDer<'static>],
        shown: Option<&Pod>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).unwrap();
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(heddle_runtime::tls::provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(store);
        let mut config = match shown {
            Some(pod) => builder.with_client_auth_cert(pod.chain(), pod.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let address = self.address;
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(NAME).unwrap();
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        endpoint().connect_with_connector(connect).await
    }

    async fn issue(&self, token: &str) -> Result<Pod, Status> {
        let channel = self.connect(&self.roots(), None).await.unwrap();
        ask(channel, token).await
    }

    /// Who the server says a proxy is that shows this certificate and claims this id.
    async fn told(&self, shown: Option<&Pod>, claimed: &str) -> Result<String, Status> {
        let channel = self.connect(&self.roots(), shown).await.unwrap();
        told(channel, claimed).await
    }
}

async fn told(channel: Channel, claimed: &str) -> Result<String, Status> {
    let (requests, outgoing) = mpsc::channel(1);
    let mut client = DiscoveryClient::new(channel);
    let mut responses = client.stream(ReceiverStream::new(outgoing)).await?;
    let node = Some(Node { id: claimed.to_owned(), ..Node::default() });
    requests.send(DeltaDiscoveryRequest { node, ..Default::default() }).await.unwrap();
    let response = clock::within(PATIENCE, responses.message()).await.unwrap()?;
    Ok(response.unwrap().type_url)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Pod {
    key: KeyPair,
    answer: IssueResponse,
}

impl Pod {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.answer.chain.iter().map(|der| der.clone().into()).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

async fn ask(channel: Channel, token: &str) -> Result<Pod, Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let answer = CertificateClient::new(channel).issue(IssueRequest { csr }, token).await?;
    Ok(Pod { key, answer })
}

#[tokio::test]
async fn a_pod_gets_a_certificate_by_its_token_and_is_who_that_says() {
    let server = Server::start().await;
    let pod = server.issue("of:shop/web-1").await.unwrap();
    assert_eq!(pod.answer.workload, "shop.web-1");
    assert_eq!(pod.answer.not_after - pod.answer.issued_at, 24 * 3600);
    assert_eq!(pod.answer.roots.len(), 1);
    assert_eq!(server.told(Some(&pod), "shop.web-1").await.unwrap(), "shop.web-1");
    assert_eq!(server.told(Some(&pod), "").await.unwrap(), "shop.web-1");
}

#[tokio::test]
async fn a_proxy_that_claims_to_be_another_is_refused_by_both_names() {
    let server = Server::start().await;
    let pod = server.issue("of:shop/web-1").await.unwrap();
    let refused = server.told(Some(&pod), "bank.vault-0").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`bank.vault-0`"), "{refused}");
    assert!(refused.message().contains("`shop.web-1`"), "{refused}");
}

#[tokio::test]
async fn without_a_certificate_there_is_no_discovery() {
    let server = Server::start().await;
    let refused = server.told(None, "shop.web-1").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let channel = server.connect(&server.roots(), None).await.unwrap();
    let report = ReportRequest { workload: "shop.web-1".to_owned(), listening: Vec::new() };
    let refused = DiscoveryClient::new(channel).report(report).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_wrong_token_gets_nothing_and_a_cluster_that_does_not_answer_says_so() {
    let server = Server::start().await;
    let refused = server.issue("forged").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("not of this cluster"), "{refused}");
    let refused = server.issue("").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    *server.cluster.down.lock().unwrap() = true;
    let refused = server.issue("of:shop/web-1").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_pod_cannot_renew_with_the_token_of_another() {
    let server = Server::start().await;
    let pod = server.issue("of:shop/web-1").await.unwrap();
    let channel = server.connect(&server.roots(), Some(&pod)).await.unwrap();
    let refused = ask(channel, "of:bank/vault-0").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`bank.vault-0`"), "{refused}");
    // With its own it can, and both certificates hold.
    let channel = server.connect(&server.roots(), Some(&pod)).await.unwrap();
    let renewed = ask(channel, "of:shop/web-1").await.unwrap();
    assert_ne!(renewed.answer.chain, pod.answer.chain);
    for shown in [&pod, &renewed] {
        assert_eq!(server.told(Some(shown), "").await.unwrap(), "shop.web-1");
    }
}

#[tokio::test]
async fn an_expired_certificate_and_a_foreign_one_are_told_why_and_can_be_replaced() {
    let server = Server::start().await;
    let hour = std::time::Duration::from_secs(3600);
    let past = clock::unix_now() - 48 * hour;
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let csr =
        |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().der().to_vec();
    let web = PodIdentity {
        namespace: "shop".to_owned(),
        service_account: "default".to_owned(),
        pod_name: "web-1".to_owned(),
        pod_uid: String::new(),
    };
    // Made with a clock that is two days behind: the authority must have been there by then.
    let old = Authority::generate("cluster.local", past).unwrap();
    let answer = |issued: crate::ca::Issued| IssueResponse {
        chain: issued.chain.iter().map(|one| one.to_vec()).collect(),
        ..IssueResponse::default()
    };
    let expired = Pod { answer: answer(old.sign(&csr(&key), &web, past).unwrap()), key };
    let foreign = Authority::generate("cluster.local", clock::unix_now()).unwrap();
    let foreign = foreign.sign(&csr(&other), &web, clock::unix_now()).unwrap();
    let foreign = Pod { answer: answer(foreign), key: other };
    let refused = server.told(Some(&foreign), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("no root of this mesh"), "{refused}");
    server.trust.replace(old);
    let refused = server.told(Some(&expired), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("expired at"), "{refused}");
    let channel = server.connect(&server.roots(), Some(&expired)).await.unwrap();
    let renewed = ask(channel, "of:shop/web-1").await.unwrap();
    assert_eq!(server.told(Some(&renewed), "").await.unwrap(), "shop.web-1");
}

#[tokio::test]
async fn another_root_takes_over_without_a_restart() {
    let server = Server::start().await;
    let old_roots = server.roots();
    let pod = server.issue("of:shop/web-1").await.unwrap();
    let new = Authority::generate("cluster.local", clock::unix_now()).unwrap();
    let mut both = new.to_pem().clone();
    both.root_crt.push_str(server.trust.authority().roots_pem());
    let both = Authority::from_pem("cluster.local", both, clock::unix_now()).unwrap();
    server.trust.replace(both);
    // The server shows a certificate of the new root, and still believes those of the old one.
    assert!(server.connect(&old_roots, Some(&pod)).await.is_err());
    assert_eq!(server.told(Some(&pod), "").await.unwrap(), "shop.web-1");
    server.trust.replace(new);
    let refused = server.told(Some(&pod), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_server_that_is_started_again_knows_everybody_by_their_certificates() {
    let server = Server::start().await;
    let pod = server.issue("of:shop/web-1").await.unwrap();
    let (address, pem) = (server.address, server.trust.authority().to_pem().clone());
    server.serving.abort();
    drop(server);
    let again = Authority::from_pem("cluster.local", pem, clock::unix_now()).unwrap();
    let bound = async {
        loop {
            // The old listener goes with its task.
            if TcpListener::bind(address).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    clock::within(PATIENCE, bound).await.expect("the address is free again");
    let server = Server::start_with(address, Trust::new(again)).await;
    assert_eq!(server.told(Some(&pod), "").await.unwrap(), "shop.web-1");
}

#[tokio::test]
async fn what_is_no_tls_and_what_is_no_http2_leaves_the_server_serving() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let server = Server::start().await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, then the end.
    let ended = clock::within(PATIENCE, plain.read_to_end(&mut answer)).await;
    assert!(ended.is_some());
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert!(server.issue("of:shop/web-1").await.is_ok());
    drop(silent);
}
