//! A control plane for tests: every message is sent and awaited by hand.

pub mod secure;
mod shown;

use std::{path::Path, sync::Arc};

use heddle_runtime::clock;
use heddle_wire::discovery::{
    ResourceType, WireResource,
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, ReportRequest, ReportResponse},
    transport::{self, tokio_stream::wrappers::ReceiverStream},
    wire_resource,
};
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};
use tonic::{Request, Status, Streaming};

use crate::wait::PATIENCE;

/// Messages waiting for a test to look at them.
const QUEUE: usize = 256;

/// Accepts streams on a path socket until dropped.
#[derive(Debug)]
pub struct FakeControl {
    sessions: mpsc::Receiver<Session>,
    /// What sidecars reported.
    pub reports: mpsc::Receiver<ReportRequest>,
    serving: JoinHandle<()>,
    accepting: JoinHandle<()>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonces: u64,
    /// The certificate that the proxy showed, DER.
    pub shown: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Service {
    sessions: mpsc::Sender<Session>,
    reports: mpsc::Sender<ReportRequest>,
}

impl Service {
    fn new() -> (Arc<Self>, mpsc::Receiver<Session>, mpsc::Receiver<ReportRequest>) {
        let (to_test, sessions) = mpsc::channel(QUEUE);
        let (report, reports) = mpsc::channel(QUEUE);
        (Arc::new(Self { sessions: to_test, reports: report }), sessions, reports)
    }
}

impl transport::Discovery for Service {
    type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Self::Responses, Status> {
        let (to_test, from_proxy) = mpsc::channel(QUEUE);
        let (responses, outgoing) = mpsc::channel(QUEUE);
        let shown = shown::shown(&requests)?;
        let mut requests = requests.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if to_test.send(request).await.is_err() {
                    return;
                }
            }
        });
        let session = Session { requests: from_proxy, responses, nonces: 0, shown };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("test over"))?;
        Ok(ReceiverStream::new(outgoing))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<ReportResponse, Status> {
        let _test_may_be_over = self.reports.send(request.into_inner()).await;
        Ok(ReportResponse {})
    }
}

impl FakeControl {
    /// Serves on `socket`, replacing a dead one.
    pub fn start(socket: &Path) -> Self {
        let _none_there = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a path socket");
        let (connections, incoming) = mpsc::channel(QUEUE);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if connections.send(Ok::<_, std::io::Error>(stream)).await.is_err() {
                    return;
                }
            }
        });
        let (service, sessions, reports) = Service::new();
        let router = transport::router(service);
        let serving = tokio::spawn(async move {
            let _ended = router.serve_with_incoming(ReceiverStream::new(incoming)).await;
        });
        Self { sessions, reports, serving, accepting }
    }

    /// The next stream a proxy opens.
    pub async fn session(&mut self) -> Session {
        clock::within(PATIENCE, self.sessions.recv()).await.flatten().expect("a stream")
    }

    /// Is there no stream that a test has not taken yet?
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The next stream, with its proxy's first subscriptions answered: it knows who it is.
    pub async fn introduced(&mut self, generation: u64, inbound: &impl WireResource) -> Session {
        let mut session = self.session().await;
        let asked = session.subscription(ResourceType::Inbound).await;
        assert_eq!(asked.resource_names_subscribe, [inbound.name()]);
        session.send(generation, &[inbound], true).await;
        session.acknowledged().await;
        session
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.serving.abort();
        self.accepting.abort();
    }
}

impl Session {
    /// The next message of the proxy.
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        clock::within(PATIENCE, self.requests.recv()).await.flatten().expect("a request")
    }

    /// The next message that subscribes to `kind` or tells held versions of it; others are passed
    /// over.
    pub async fn subscription(&mut self, kind: ResourceType) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == kind.type_url() && request.response_nonce.is_empty() {
                return request;
            }
        }
    }

    /// The next acknowledgement or refusal.
    pub async fn answer(&mut self) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if !request.response_nonce.is_empty() {
                return request;
            }
        }
    }

    /// Waits for the acknowledgement of everything sent.
    pub async fn acknowledged(&mut self) {
        loop {
            let answer = self.answer().await;
            assert_eq!(answer.error_detail, None);
            if answer.response_nonce == self.nonces.to_string() {
                return;
            }
        }
    }

    /// Sends resources of one kind.
    pub async fn send(
        &mut self,
        generation: u64,
        resources: &[&impl WireResource],
        generation_end: bool,
    ) {
        let kind = resources[0].kind();
        let resources = resources.iter().map(|one| wire_resource(*one)).collect();
        self.respond(DeltaDiscoveryResponse {
            system_version_info: generation.to_string(),
            resources,
            type_url: kind.type_url().into(),
            generation_end,
            ..DeltaDiscoveryResponse::default()
        })
        .await;
    }

    /// Says that there is no such resource.
    pub async fn remove(&mut self, generation: u64, kind: ResourceType, name: &str) {
        self.respond(DeltaDiscoveryResponse {
            system_version_info: generation.to_string(),
            removed_resources: vec![name.into()],
            type_url: kind.type_url().into(),
            generation_end: true,
            ..DeltaDiscoveryResponse::default()
        })
        .await;
    }

    /// Sends a response as it is, but for its nonce.
    pub async fn respond(&mut self, mut response: DeltaDiscoveryResponse) {
        self.nonces += 1;
        response.nonce = self.nonces.to_string();
        self.responses.send(Ok(response)).await.expect("the proxy listens");
    }

    /// Ends the stream with this status.
    pub async fn end(self, status: Status) {
        let _the_proxy_may_be_gone = self.responses.send(Err(status)).await;
    }

    /// Has the proxy said anything that was not looked at?
    pub fn is_silent(&self) -> bool {
        self.requests.is_empty()
    }
}
