//! Discovery, on `discovery.sock` and over TLS alike: one task per stream moves messages between a proxy and
//! [`Control`]. Who the proxy is, the connection tells ([`Caller`]).
//!
//! A stream hands the transport one group of responses at a time. While the transport does not take
//! it, nothing more is prepared: what changes meanwhile is in the next group, as its newest state.

use std::{
    collections::VecDeque,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use heddle_runtime::{clock, path_socket::Peers, task};
use heddle_wire::discovery::{
    ResourceType,
    proto::{
        Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, ReportRequest, ReportResponse, Resource,
    },
    transport::{
        Discovery,
        tokio_stream::{Stream, wrappers::ReceiverStream},
    },
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tonic::{Request, Status, Streaming};

use crate::{
    caller::Caller,
    control::Control,
    mesh::Next,
    session::{Heard, Response},
    views::{parse_version, version_text},
};

/// Accepted connections waiting for the transport.
const ACCEPTED_MAX: usize = 64;
/// Pause after a failed accept: descriptors run short, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Group = Result<Vec<DeltaDiscoveryResponse>, Status>;

/// The service.
#[derive(Debug)]
pub(crate) struct DiscoveryServer {
    /// What it asks.
    pub(crate) control: Arc<Control>,
}

impl Discovery for DiscoveryServer {
    type Responses = Responses;

    async fn stream(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Responses, Status> {
        let caller = Caller::of(&requests);
        caller.check()?;
        let (groups, taken) = mpsc::channel(1);
        let serve = serve(self.control.clone(), caller, requests.into_inner(), groups);
        tokio::spawn(task::contained("discovery stream", serve));
        Ok(Responses { groups: taken, ready: VecDeque::new() })
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<ReportResponse, Status> {
        let caller = Caller::of(&request);
        let report = request.into_inner();
        let workload = caller.workload(&report.workload, "the report")?;
        let listening: Option<Vec<(IpAddr, u16)>> = report
            .listening
            .iter()
            .map(|listening| Some((ip(&listening.address)?, listening.port.try_into().ok()?)))
            .collect();
        let listening = listening.ok_or_else(|| {
            Status::invalid_argument("an address has 4 or 16 bytes, a port 16 bits")
        })?;
        if self.control.report(&workload, &listening) {
            Ok(ReportResponse {})
        } else {
            Err(Status::not_found(format!("no workload {workload} is in the mesh")))
        }
    }
}

/// Groups of responses, flattened for the transport.
#[derive(Debug)]
pub(crate) struct Responses {
    groups: mpsc::Receiver<Group>,
    ready: VecDeque<DeltaDiscoveryResponse>,
}

impl Stream for Responses {
    type Item = Result<DeltaDiscoveryResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            match ready!(self.groups.poll_recv(context)) {
                Some(Ok(group)) => self.ready.extend(group),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Serves one stream to its end.
async fn serve(
    control: Arc<Control>,
    caller: Caller,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    groups: mpsc::Sender<Group>,
) {
    let Ok(Some(first)) = requests.message().await else { return };
    let claimed = first.node.as_ref().map_or("", |node| node.id.as_str());
    let workload = match caller.workload(claimed, "node.id of the first request") {
        Ok(workload) => workload,
        Err(status) => {
            tracing::warn!(reason = status.message(), "a proxy was refused");
            groups.send(Err(status)).await.ok();
            return;
        }
    };
    let Some((stream, wake)) = control.open(workload.clone()) else {
        groups.send(Err(Status::resource_exhausted("too many proxies"))).await.ok();
        return;
    };
    tracing::info!(%workload, "proxy connected");
    let mut request = Some(first);
    let mut may_send = false;
    let reason = loop {
        if let Some(request) = request.take() {
            if let Err(status) = hear(&control, &stream, request) {
                groups.send(Err(status)).await.ok();
                break "protocol error";
            }
            may_send = true;
        }
        // Messages first: what a proxy says on reconnecting must be known before it is answered.
        tokio::select! {
            biased;
            message = requests.message() => match message {
                Ok(Some(message)) => request = Some(message),
                Ok(None) => break "ended by the proxy",
                Err(_) => break "connection lost",
            },
            () = wake.notified() => may_send = true,
            permit = groups.reserve(), if may_send => {
                let Ok(permit) = permit else { break "connection lost" };
                match control.next(&stream) {
                    Next::Send(group) => {
                        permit.send(Ok(group.into_iter().map(on_the_wire).collect()));
                    }
                    Next::Wait => may_send = false,
                    Next::End => break "replaced by a newer stream",
                }
            }
        }
    };
    control.close(&stream);
    tracing::info!(%workload, reason, "proxy disconnected");
}

fn hear(
    control: &Control,
    stream: &crate::mesh::StreamId,
    request: DeltaDiscoveryRequest,
) -> Result<(), Status> {
    let kind = ResourceType::from_type_url(&request.type_url).ok_or_else(|| {
        Status::invalid_argument(format!("`{}` is no resource type of this mesh", request.type_url))
    })?;
    let held = request.initial_resource_versions.into_iter();
    let heard = Heard {
        subscribe: request.resource_names_subscribe,
        unsubscribe: request.resource_names_unsubscribe,
        held: held.filter_map(|(name, text)| Some((name, parse_version(&text)?))).collect(),
        nonce: request.response_nonce.parse().ok(),
        error: request.error_detail.map(|detail| detail.message),
    };
    if control.hear(stream, kind, heard) {
        Ok(())
    } else {
        Err(Status::aborted("a newer stream of this workload has taken over"))
    }
}

fn on_the_wire(response: Response) -> DeltaDiscoveryResponse {
    let type_url = response.kind.type_url();
    let resources = response.resources.into_iter().map(|(name, resource)| Resource {
        version: version_text(resource.version),
        resource: Some(Any { type_url: type_url.to_owned(), value: resource.bytes.to_vec() }),
        name,
    });
    DeltaDiscoveryResponse {
        system_version_info: response.generation.to_string(),
        resources: resources.collect(),
        type_url: type_url.to_owned(),
        nonce: response.nonce.to_string(),
        removed_resources: response.removed,
        generation_end: response.generation_end,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Accepted connections of our own user and root, for the transport to serve.
pub(crate) fn accept(
    listener: UnixListener,
    peers: Peers,
) -> impl Stream<Item = std::io::Result<UnixStream>> {
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    task::spawn_contained("discovery accept", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if peers.allow(&stream) => {
                    if accepted.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a discovery connection was not accepted");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}
