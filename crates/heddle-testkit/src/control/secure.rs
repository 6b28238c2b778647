//! The same over TLS, with a certificate service that a test tells what to say.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use heddle_runtime::clock;
use heddle_wire::discovery::{
    certificates::{self, Certificates, IssueRequest, IssueResponse, token},
    transport::tokio_stream::wrappers::ReceiverStream,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::server::TlsStream;
use tonic::{Request, Status, transport::server::Connected};

use super::{FakeControl, QUEUE, Service, shown::Shown};
use crate::tls::{Authority, Server};

/// The name that a control plane over TLS shows.
pub const CONTROL_NAME: &str = "localhost";

/// What the certificate service answers with.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Whose certificate it gives.
    pub workload: String,
    /// From and until when that is good, as told, seconds of Unix time.
    pub span: (u64, u64),
    /// Why it gives none, if it does not.
    pub refusal: Option<Status>,
}

impl Answers {
    /// Certificates of `workload` for a day from now.
    #[must_use]
    pub fn of(workload: &str) -> Arc<Mutex<Self>> {
        let now = clock::unix_now().as_secs();
        let span = (now - 120, now + 24 * 3600);
        Arc::new(Mutex::new(Self { workload: workload.to_owned(), span, refusal: None }))
    }
}

/// A control plane over TLS.
#[derive(Debug)]
pub struct FakeSecureControl {
    /// Its streams.
    pub discovery: FakeControl,
    /// The tokens that certificates were asked for with.
    pub tokens: mpsc::Receiver<String>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl FakeSecureControl {
    /// Serves as somebody whom the first of `authorities` vouches for, as it does for its sidecars; those of the others
    /// are believed too.
    pub async fn start(
        address: SocketAddr,
        authorities: &[Arc<Authority>],
        answers: &Arc<Mutex<Answers>>,
    ) -> Self {
        let authority = &authorities[0];
        let believed: Vec<&Authority> = authorities.iter().map(|one| &**one).collect();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::asking(&authority.vouch(&[CONTROL_NAME]), &believed, &["h2"]);
        let (connections, incoming) = mpsc::channel(QUEUE);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, connections) = (server.clone(), connections.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = server.accept(stream).await {
                        let _test_may_be_over =
                            connections.send(Ok::<_, io::Error>(Secured(stream))).await;
                    }
                });
            }
        });
        let (service, sessions, reports) = Service::new();
        let (asked, tokens) = mpsc::channel(QUEUE);
        let issuing = Issuing { authority: authority.clone(), answers: answers.clone(), asked };
        let router = certificates::router(service, Arc::new(issuing));
        let serving = tokio::spawn(async move {
            let _ended = router.serve_with_incoming(ReceiverStream::new(incoming)).await;
        });
        let discovery = FakeControl { sessions, reports, serving, accepting };
        Self { discovery, tokens, address }
    }
}

struct Issuing {
    authority: Arc<Authority>,
    answers: Arc<Mutex<Answers>>,
    asked: mpsc::Sender<String>,
}

impl Certificates for Issuing {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<IssueResponse, Status> {
        let token = token(&request)?.to_owned();
        let _test_may_be_over = self.asked.send(token).await;
        let Answers { workload, span, refusal } = self.answers.lock().unwrap().clone();
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let csr = request.into_inner().csr;
        let chain =
            vec![self.authority.vouch_for(&csr, &["spiffe://cluster.local/ns/shop/sa/web"])];
        let issued_at = clock::unix_now().as_secs();
        let (not_before, not_after) = span;
        Ok(IssueResponse { chain, roots: Vec::new(), not_before, not_after, issued_at, workload })
    }
}

/// A connection, and the certificate that was shown on it.
struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        let certificates = self.0.get_ref().1.peer_certificates();
        Shown(certificates.and_then(|all| all.first()).map(|one| one.to_vec()))
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
