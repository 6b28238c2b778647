//! Sidecars that ask for what they call and listen from then on. They note when they are told, and do nothing
//! else.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Instant};

use heddle_model::Endpoints;
use heddle_runtime::clock;
use heddle_wire::discovery::{
    Resource, ResourceType, decode,
    proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    transport::{DiscoveryClient, tokio_stream::wrappers::ReceiverStream},
};
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_local,
};

use crate::{client::Client, cluster::Cluster, figures::Figures};

/// Requests of a sidecar that wait to be sent.
const QUEUE: usize = 64;

/// All of them.
#[derive(Debug)]
pub(crate) struct Sidecars {
    count: usize,
    seen: Rc<Seen>,
}

/// What they have been told.
#[derive(Debug, Default)]
struct Seen {
    /// Services that change in turn.
    called: u32,
    /// When each change was made, by its number.
    begun: RefCell<BTreeMap<u32, Instant>>,
    /// The newest change that each sidecar knows of, by sidecar and service.
    newest: RefCell<BTreeMap<(usize, String), u32>>,
    times: RefCell<Figures>,
    /// Sidecars that have been told of the rule since it was edited last.
    rule: RefCell<usize>,
    told: Notify,
}

impl Sidecars {
    /// Connects so many, each as a pod of its own with its certificate; all of them call the first `called`
    /// services, and are none of their pods, which are replaced.
    pub(crate) async fn connect(
        cluster: &Cluster,
        count: usize,
        called: usize,
        client: &Arc<Client>,
    ) -> Self {
        let seen = Seen { called: u32::try_from(called).unwrap(), ..Seen::default() };
        let seen = Rc::new(seen);
        for number in 0..count {
            let (namespace, pod) = cluster.pod_behind(called, number);
            let certificate = client.certificate(&format!("{namespace}/{pod}")).await;
            let channel = client.channel(Some(&certificate)).await;
            let (requests, outgoing) = mpsc::channel(QUEUE);
            let mut discovery = DiscoveryClient::new(channel);
            let opened = spawn_local(async move {
                let stream = discovery.stream(ReceiverStream::new(outgoing)).await;
                (discovery, stream)
            });
            let id = format!("{namespace}.{pod}");
            for request in asked(&id, called) {
                requests.send(request).await.unwrap();
            }
            let (discovery, stream) = opened.await.unwrap();
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            spawn_local(async move {
                // The channel lives as long as its client.
                let _discovery = discovery;
                while let Some(response) = stream.message().await.unwrap() {
                    let response_nonce = response.nonce.clone();
                    let type_url = response.type_url.clone();
                    seen.note(number, response);
                    let answer =
                        DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() };
                    requests.send(answer).await.unwrap();
                }
            });
        }
        Self { count, seen }
    }

    /// A change is about to be made.
    pub(crate) fn expect_change(&self, number: u32) {
        self.seen.begun.borrow_mut().insert(number, clock::now());
    }

    /// Waits until every sidecar knows of all changes.
    pub(crate) async fn all_changes_told(&mut self) -> Figures {
        loop {
            let told = self.seen.told.notified();
            if self.know_all() {
                return self.seen.times.take();
            }
            told.await;
        }
    }

    fn know_all(&self) -> bool {
        let newest = self.seen.newest.borrow();
        let last = self.seen.begun.borrow().last_key_value().map_or(0, |(number, _)| *number);
        // The last of each service is among as many as there are services.
        let oldest = last.saturating_sub(self.seen.called);
        newest.len() == self.count * self.seen.called as usize
            && newest.values().all(|newest| *newest > oldest)
    }

    /// Ends when every sidecar has been told of the rule once more.
    pub(crate) fn expect_rule(&self) -> impl Future<Output = ()> + use<> {
        *self.seen.rule.borrow_mut() = 0;
        let (seen, count) = (self.seen.clone(), self.count);
        async move {
            loop {
                let told = seen.told.notified();
                if *seen.rule.borrow() >= count {
                    return;
                }
                told.await;
            }
        }
    }
}

fn asked(id: &str, called: usize) -> [DeltaDiscoveryRequest; 2] {
    let hosts: Vec<String> = (0..called).map(Cluster::host).collect();
    [ResourceType::Endpoints, ResourceType::Destination].map(|kind| DeltaDiscoveryRequest {
        node: Some(Node { id: id.to_owned(), ..Node::default() }),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: hosts.clone(),
        ..Default::default()
    })
}

impl Seen {
    fn note(&self, sidecar: usize, response: DeltaDiscoveryResponse) {
        for told in response.resources {
            let resource = told.resource.unwrap();
            match decode(&resource.type_url, &told.name, &resource.value).unwrap() {
                Resource::Endpoints(endpoints) => self.changed(sidecar, told.name, &endpoints),
                Resource::Destination(_) if told.name == Cluster::host(0) => {
                    *self.rule.borrow_mut() += 1;
                }
                _ => {}
            }
        }
        self.told.notify_waiters();
    }

    /// What is newer than the newest it knew of has been told it now: changes of a service come one after another.
    fn changed(&self, sidecar: usize, service: String, endpoints: &Endpoints) {
        let addresses = endpoints.endpoints.iter().flat_map(|one| one.addresses.iter());
        let changes = addresses.filter_map(|ip| match ip {
            std::net::IpAddr::V4(ip) => Cluster::change_of(ip),
            std::net::IpAddr::V6(_) => None,
        });
        let Some(newest) = changes.max() else { return };
        let mut known = self.newest.borrow_mut();
        let before = known.insert((sidecar, service), newest).unwrap_or(0);
        let now = clock::now();
        let begun = self.begun.borrow();
        let between = begun.range(before + 1..=newest);
        let of_service = between.filter(|(n, _)| (newest - **n).is_multiple_of(self.called));
        let mut times = self.times.borrow_mut();
        of_service.for_each(|(_, at)| times.add(now - *at));
    }
}
