//! A proxy's side of discovery, by hand ([`Proxy`]) or by itself ([`Follower`]).

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use heddle_model::{Destination, Endpoints, WorkloadId};
use heddle_runtime::clock;
use heddle_wire::discovery::{
    Resource, ResourceType as Kind, decode,
    proto::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Listening, Node, ReportRequest, RpcStatus,
    },
    transport::{DiscoveryClient, endpoint, tokio_stream::wrappers::ReceiverStream},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::{
    Streaming,
    transport::{Channel, Uri},
};

use crate::plane::{PATIENCE, Plane};

/// What one group brought.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) generation: u64,
    /// Types in the order of the responses.
    pub(crate) order: Vec<Kind>,
    pub(crate) resources: BTreeMap<(Kind, String), Resource>,
    pub(crate) versions: BTreeMap<(Kind, String), String>,
    pub(crate) removed: Vec<(Kind, String)>,
    answers: Vec<(Kind, String)>,
}

impl Group {
    pub(crate) fn names(&self, kind: Kind) -> Vec<&str> {
        let of_kind = self.resources.keys().filter(|(k, _)| *k == kind);
        of_kind.map(|(_, name)| name.as_str()).collect()
    }

    pub(crate) fn destination(&self, name: &str) -> &Destination {
        match &self.resources[&(Kind::Destination, fqdn(name))] {
            Resource::Destination(destination) => destination,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn endpoints(&self, name: &str) -> &Endpoints {
        match &self.resources[&(Kind::Endpoints, fqdn(name))] {
            Resource::Endpoints(endpoints) => endpoints,
            other => panic!("{other:?}"),
        }
    }
}

/// A stream driven by the test.
#[derive(Debug)]
pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    node: Option<Node>,
}

pub(crate) fn fqdn(service: &str) -> String {
    format!("{service}.default.svc.cluster.local")
}

async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    endpoint().connect_with_connector(connect).await.unwrap()
}

impl Proxy {
    /// Opens a stream; nothing is said on it yet.
    pub(crate) async fn connect(plane: &Plane, workload: &WorkloadId) -> Self {
        let channel = channel(&plane.discovery).await;
        let (requests, outgoing) = mpsc::channel(64);
        let mut client = DiscoveryClient::new(channel);
        let responses = client.stream(ReceiverStream::new(outgoing)).await.unwrap();
        let node = Some(Node { id: workload.0.clone(), cluster: String::new() });
        Self { requests, responses, node }
    }

    pub(crate) async fn say(&mut self, kind: Kind, mut request: DeltaDiscoveryRequest) {
        request.type_url = kind.type_url().to_owned();
        request.node = self.node.take();
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
        self.say(kind, DeltaDiscoveryRequest { resource_names_subscribe, ..Default::default() })
            .await;
    }

    /// Subscribes to itself and to these services, as a sidecar in use would.
    pub(crate) async fn start(&mut self, workload: &WorkloadId, services: &[&str]) {
        self.subscribe(Kind::Inbound, &[&workload.0]).await;
        self.subscribe(Kind::Mesh, &["mesh"]).await;
        let names: Vec<String> = services.iter().map(|service| fqdn(service)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.subscribe(Kind::Destination, &names).await;
    }

    /// Asks anew for what it has, telling the versions.
    pub(crate) async fn resume(&mut self, held: &BTreeMap<(Kind, String), String>) {
        for kind in [
            Kind::Endpoints,
            Kind::Inbound,
            Kind::Mesh,
            Kind::Address,
            Kind::Name,
            Kind::Destination,
        ] {
            let of_kind = held.iter().filter(|((k, _), _)| *k == kind);
            let initial_resource_versions: BTreeMap<String, String> =
                of_kind.map(|((_, name), version)| (name.clone(), version.clone())).collect();
            let names = initial_resource_versions.keys().cloned().collect();
            let resource_names_subscribe = if kind == Kind::Endpoints { Vec::new() } else { names };
            let request = DeltaDiscoveryRequest {
                resource_names_subscribe,
                initial_resource_versions,
                ..Default::default()
            };
            self.say(kind, request).await;
        }
    }

    /// The next response.
    pub(crate) async fn response(&mut self) -> Option<DeltaDiscoveryResponse> {
        let next =
            clock::within(PATIENCE, self.responses.message()).await.expect("a response in time");
        next.ok().flatten()
    }

    /// The next whole group, decoded as a proxy decodes it.
    pub(crate) async fn group(&mut self) -> Group {
        let mut group = Group::default();
        loop {
            let response = self.response().await.expect("the stream goes on");
            let kind = Kind::from_type_url(&response.type_url).unwrap();
            let generation = response.system_version_info.parse().unwrap();
            assert!(group.order.is_empty() || group.generation == generation, "a torn generation");
            group.generation = generation;
            group.order.push(kind);
            group.answers.push((kind, response.nonce));
            for resource in response.resources {
                let body = resource.resource.unwrap().value;
                let decoded = decode(kind.type_url(), &resource.name, &body).unwrap();
                group.versions.insert((kind, resource.name.clone()), resource.version);
                group.resources.insert((kind, resource.name), decoded);
            }
            group.removed.extend(response.removed_resources.into_iter().map(|name| (kind, name)));
            if response.generation_end {
                return group;
            }
        }
    }

    pub(crate) async fn ack(&mut self, group: &Group) {
        for (kind, nonce) in &group.answers {
            let response_nonce = nonce.clone();
            self.say(*kind, DeltaDiscoveryRequest { response_nonce, ..Default::default() }).await;
        }
    }

    /// Refuses the group's last response.
    pub(crate) async fn refuse(&mut self, group: &Group, why: &str) {
        for (position, (kind, nonce)) in group.answers.iter().enumerate() {
            let is_last = position + 1 == group.answers.len();
            let status = RpcStatus { code: 3, message: why.to_owned() };
            let request = DeltaDiscoveryRequest {
                response_nonce: nonce.clone(),
                error_detail: is_last.then_some(status),
                ..Default::default()
            };
            self.say(*kind, request).await;
        }
    }

    /// The next group, acknowledged.
    pub(crate) async fn take(&mut self) -> Group {
        let group = self.group().await;
        self.ack(&group).await;
        group
    }
}

/// What a proxy holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyState {
    pub(crate) generation: u64,
    pub(crate) groups: usize,
    pub(crate) resources: BTreeMap<(Kind, String), Resource>,
    pub(crate) versions: BTreeMap<(Kind, String), String>,
    pub(crate) removed: Vec<(Kind, String)>,
}

impl ProxyState {
    pub(crate) fn destination(&self, name: &str) -> Option<&Destination> {
        match self.resources.get(&(Kind::Destination, fqdn(name))) {
            Some(Resource::Destination(destination)) => Some(destination),
            _ => None,
        }
    }

    /// Weights of the first rule of a service's first port.
    pub(crate) fn weights(&self, name: &str) -> Vec<u32> {
        let destination = self.destination(name);
        let rule = destination.and_then(|d| d.ports.first()).and_then(|port| port.http.first());
        rule.map_or_else(Vec::new, |rule| {
            rule.targets().iter().map(|target| target.weight).collect()
        })
    }
}

/// A proxy that takes and acknowledges whatever comes.
#[derive(Debug)]
pub(crate) struct Follower {
    held: watch::Receiver<ProxyState>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Connects and subscribes to itself and `services`; returns when it has their first answer.
    pub(crate) async fn start(plane: &Plane, workload: &WorkloadId, services: &[&str]) -> Self {
        let mut proxy = Proxy::connect(plane, workload).await;
        proxy.start(workload, services).await;
        let wanted: Vec<String> = services.iter().map(|service| fqdn(service)).collect();
        let mut follower = Self::follow(proxy);
        follower
            .until(|held| {
                let answered = |name: &String| {
                    let key = (Kind::Destination, name.clone());
                    held.resources.contains_key(&key) || held.removed.contains(&key)
                };
                wanted.iter().all(answered)
            })
            .await;
        follower
    }

    pub(crate) fn follow(mut proxy: Proxy) -> Self {
        let (told, held) = watch::channel(ProxyState::default());
        let task = tokio::spawn(async move {
            loop {
                let Ok(Some(first)) = proxy.responses.message().await else { return };
                let mut responses = vec![first];
                while !responses.last().unwrap().generation_end {
                    let Ok(Some(next)) = proxy.responses.message().await else { return };
                    responses.push(next);
                }
                told.send_modify(|held| responses.iter().for_each(|response| note(held, response)));
                for response in responses {
                    let kind = Kind::from_type_url(&response.type_url).unwrap();
                    let response_nonce = response.nonce;
                    let ack = DeltaDiscoveryRequest { response_nonce, ..Default::default() };
                    proxy.say(kind, ack).await;
                }
            }
        });
        Self { held, task }
    }

    pub(crate) fn held(&self) -> ProxyState {
        self.held.borrow().clone()
    }

    /// Waits until it holds what is wanted.
    pub(crate) async fn until(&mut self, wanted: impl FnMut(&ProxyState) -> bool) -> ProxyState {
        let held = clock::within(PATIENCE, self.held.wait_for(wanted)).await;
        held.expect("as wanted in time").expect("the stream goes on").clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(held: &mut ProxyState, response: &DeltaDiscoveryResponse) {
    let kind = Kind::from_type_url(&response.type_url).unwrap();
    held.generation = response.system_version_info.parse().unwrap();
    held.groups += usize::from(response.generation_end);
    for resource in &response.resources {
        let body = &resource.resource.as_ref().unwrap().value;
        let decoded = decode(kind.type_url(), &resource.name, body).unwrap();
        let key = (kind, resource.name.clone());
        held.versions.insert(key.clone(), resource.version.clone());
        held.removed.retain(|removed| *removed != key);
        held.resources.insert(key, decoded);
    }
    for name in &response.removed_resources {
        let key = (kind, name.clone());
        held.resources.remove(&key);
        held.versions.remove(&key);
        held.removed.push(key);
    }
}

/// Reports where a workload's application listens.
pub(crate) async fn report(plane: &Plane, workload: &WorkloadId, listening: &[(&str, u16)]) {
    let listening = listening
        .iter()
        .map(|(ip, port)| {
            let address = match ip.parse().unwrap() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            Listening { address, port: u32::from(*port) }
        })
        .collect();
    let mut client = DiscoveryClient::new(channel(&plane.discovery).await);
    client.report(ReportRequest { workload: workload.0.clone(), listening }).await.unwrap();
}
