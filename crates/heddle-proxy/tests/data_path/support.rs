//! A worker with hand-made rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use heddle_model::{
    Address, Addresses, Destination, DestinationPort, Endpoint, EndpointPort, EndpointState,
    Endpoints, Identity, Locality, Owner, Protocol, ServiceName, ServicePortRef, WorkloadId,
    discovery::{
        ClusterKey, DefaultEndpoint, HttpRule, Inbound, InboundPort, Provenance, RuleAction,
        Subset, Target, Traffic, WeightedTarget, WorkloadInfo,
    },
};
use heddle_proxy::{
    Shared,
    accept::{serve_inbound, serve_outbound, start_worker},
    metrics::{Metrics, scrape::Scrape},
    shared::Receivers,
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
    worker::WorkerOptions,
};
use heddle_runtime::task;
use heddle_testkit::fixture::{local, proxy_config};
pub(crate) use heddle_testkit::{
    backend::{Backend, Peer, echo_server, field, http_server, nobody},
    wait::{PATIENCE, wait_until},
};
use heddle_wire::local::proxy_config::{ProxyConfig, Surroundings};
use tokio::sync::mpsc;

/// The virtual address of service number 0; others follow.
const VIP: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 10);

/// A sidecar of workload `client-1` on 127.0.0.1, and the rules it is told.
pub(crate) struct Sidecar {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ends: Option<Receivers>,
    rules: Mutex<Rules>,
    serve: mpsc::Sender<Serve>,
}

struct Rules {
    set: ResourceSet,
    builder: SnapshotBuilder,
    generation: u64,
}

enum Serve {
    Outbound(TcpListener, SocketAddr),
    Inbound(TcpListener, SocketAddr),
}

impl Sidecar {
    pub(crate) fn start() -> Self {
        Self::with_seed(7)
    }

    /// With randomness that is the same in every run.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self::configured(seed, config())
    }

    /// One that asks the control plane even about loopback addresses.
    pub(crate) fn that_asks_about_callers() -> Self {
        let mut local = local(Path::new("/nowhere"));
        local.ranges.v4 = (Ipv4Addr::new(127, 0, 0, 0), 8);
        Self::configured(7, ProxyConfig { surroundings: Surroundings::Local(local), ..config() })
    }

    fn configured(seed: u64, config: ProxyConfig) -> Self {
        let metrics = Arc::new(Metrics::new(&config));
        let (shared, ends) = Shared::new(config, metrics);
        let shared = Arc::new(shared);
        let (serve, served) = mpsc::channel(16);
        let worker = Arc::clone(&shared);
        thread::spawn(move || {
            task::run_local(run(worker, served, seed)).expect("a runtime");
        });
        let builder = SnapshotBuilder::new(WorkloadId("client-1".into()));
        let rules = Rules { set: ResourceSet::default(), builder, generation: 0 };
        Self { shared, ends: Some(ends), rules: Mutex::new(rules), serve }
    }

    /// The control plane is gone: questions fail at once.
    pub(crate) fn without_control(mut self) -> Self {
        self.ends = None;
        self
    }

    /// Changes the rules and puts them in force.
    pub(crate) fn told(&self, change: impl FnOnce(&mut ResourceSet)) {
        let mut rules = self.rules.lock().unwrap();
        change(&mut rules.set);
        rules.generation += 1;
        let Rules { set, builder, generation } = &mut *rules;
        let built = builder.build(set, *generation);
        assert!(built.held_back.is_empty(), "{:?}", built.held_back);
        self.shared.snapshot.store(Arc::new(built.snapshot));
    }

    /// A listener that stands for the outbound capture of connections to `to`.
    pub(crate) fn outbound(&self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.serve.blocking_send(Serve::Outbound(listener, to)).unwrap();
        address
    }

    /// A listener that stands for the inbound capture of connections to `port`.
    pub(crate) fn inbound(&self, port: u16) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        self.serve.blocking_send(Serve::Inbound(listener, to)).unwrap();
        address
    }

    /// Tells of one service with these endpoints and listens for it: the usual case.
    pub(crate) fn service(&self, service: &TestService) -> SocketAddr {
        self.told(|set| service.tell(set));
        self.outbound(service.vip())
    }

    /// Declares a port of this workload itself.
    pub(crate) fn own_port(&self, number: u16, protocol: Protocol, services: &[&str]) {
        let leading: Vec<_> = services.iter().map(|name| (*name, number)).collect();
        self.own_port_behind(number, protocol, &leading);
    }

    /// The same where the ports of the services are others.
    pub(crate) fn own_port_behind(&self, number: u16, protocol: Protocol, leading: &[(&str, u16)]) {
        self.own_port_at(number, protocol, leading, None);
    }

    /// The same where its program takes calls elsewhere.
    pub(crate) fn own_port_at(
        &self,
        number: u16,
        protocol: Protocol,
        leading: &[(&str, u16)],
        endpoint: Option<DefaultEndpoint>,
    ) {
        let leading = leading
            .iter()
            .map(|(name, port)| ServicePortRef { service: name_of(name), port: *port })
            .collect();
        self.told(|set| {
            let workload = workload("client-1", "client", "", number);
            let faults = Vec::new();
            let port = InboundPort { number, protocol, services: leading, faults, endpoint };
            set.inbound = Some(Arc::new(Inbound {
                workload,
                ports: vec![port],
                outbound: Default::default(),
                locality: Box::default(),
                telemetry: None,
                callers: Default::default(),
            }));
        });
    }

    /// The sum of all samples of a metric whose labels contain every one of `labels`.
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        sum_in(&Scrape::new(Arc::clone(&self.shared.metrics)).collect::<String>(), metric, labels)
    }

    /// Waits until every request has been recorded and every connection closed.
    pub(crate) fn settled(&self) {
        wait_until("every request is recorded", || self.shared.metrics.requests_in_flight() == 0);
    }
}

async fn run(shared: Arc<Shared>, mut served: mpsc::Receiver<Serve>, seed: u64) {
    let random = fastrand::Rng::with_seed(seed);
    let worker = start_worker(shared, 0, WorkerOptions { random, ..WorkerOptions::default() });
    while let Some(serve) = served.recv().await {
        let worker = worker.clone();
        let accepting = async move {
            let (listener, to, outbound) = match serve {
                Serve::Outbound(listener, to) => (listener, to, true),
                Serve::Inbound(listener, to) => (listener, to, false),
            };
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (client, worker) = (stream.into(), worker.clone());
                if outbound {
                    drop(task::spawn_contained("test", serve_outbound(worker, client, to)));
                } else {
                    drop(task::spawn_contained(
                        "test",
                        serve_inbound(worker, client, peer.ip(), to),
                    ));
                }
            }
        };
        drop(task::spawn_contained("accept", accepting));
    }
}

pub(crate) fn sum_in(text: &str, metric: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// A sidecar of 127.0.0.1 that keeps no files.
fn config() -> ProxyConfig {
    ProxyConfig {
        addresses: Addresses::Both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        ports: BTreeMap::new(),
        ..proxy_config(Path::new("/nowhere"))
    }
}

pub(crate) fn name_of(name: &str) -> ServiceName {
    ServiceName::new(name, "default").unwrap()
}

pub(crate) fn workload(id: &str, service: &str, version: &str, port: u16) -> WorkloadInfo {
    let mut labels = BTreeMap::from([("app".to_owned(), service.to_owned())]);
    if !version.is_empty() {
        labels.insert("version".to_owned(), version.to_owned());
    }
    WorkloadInfo {
        id: WorkloadId(id.to_owned()),
        name: id.rsplit_once('-').map_or(id, |(name, _)| name).to_owned(),
        namespace: "default".into(),
        identity: Identity::local("default", service),
        services: BTreeSet::from([name_of(service)]),
        version: version.to_owned(),
        labels,
        ports: BTreeMap::from([(port, Protocol::Undeclared)]),
    }
}

/// A service with one port, to be told to a sidecar.
#[derive(Clone)]
pub(crate) struct TestService {
    pub(crate) name: &'static str,
    pub(crate) number: u8,
    /// What clients call.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) http: Vec<HttpRule>,
    pub(crate) tcp: Vec<WeightedTarget>,
    /// Address, version and state of each endpoint.
    pub(crate) endpoints: Vec<(Ipv4Addr, &'static str, EndpointState)>,
    /// What each endpoint listens on; those beyond the list on the service's port.
    pub(crate) targets: Vec<u16>,
}

impl TestService {
    /// `reviews` with declared HTTP behind `backend`.
    pub(crate) fn http(backend: SocketAddr) -> Self {
        Self::speaking(Protocol::Http, &[backend])
    }

    pub(crate) fn speaking(protocol: Protocol, backends: &[SocketAddr]) -> Self {
        let port = backends.first().map_or(9, SocketAddr::port);
        let endpoints = backends.iter().map(|backend| match backend.ip() {
            IpAddr::V4(ip) => (ip, "", EndpointState::Ready),
            IpAddr::V6(_) => panic!("backends are on 127/8"),
        });
        Self {
            name: "reviews",
            number: 0,
            port,
            protocol,
            http: Vec::new(),
            tcp: Vec::new(),
            endpoints: endpoints.collect(),
            targets: backends.iter().map(SocketAddr::port).collect(),
        }
    }

    pub(crate) fn vip(&self) -> SocketAddr {
        let [a, b, c, d] = VIP.octets();
        SocketAddr::from(([a, b, c, d + self.number], self.port))
    }

    pub(crate) fn tell(&self, set: &mut ResourceSet) {
        let service = name_of(self.name);
        set.insert_address(Address { ip: self.vip().ip(), owner: Owner::Service(service.clone()) });
        let endpoints = self.endpoints.iter().enumerate().map(|(index, (ipv4, version, state))| {
            let id = format!("{}-{index}", self.name);
            let number = self.targets.get(index).copied().unwrap_or(self.port);
            Endpoint {
                workload: workload(&id, self.name, version, number),
                addresses: Addresses::Both(*ipv4, Ipv6Addr::LOCALHOST),
                ports: BTreeMap::from([(self.port, EndpointPort { number, state: *state })]),
                weight: 1,
                locality: Locality::default(),
            }
        });
        set.insert_endpoints(Endpoints::inside(service.clone(), endpoints.collect()));
        let port = DestinationPort {
            number: self.port,
            name: String::new(),
            protocol: self.protocol,
            http: self.http.clone(),
            tcp: self.tcp.clone(),
            sni: Vec::new(),
            faults: Vec::new(),
        };
        let destination = Destination {
            service,
            vips: vec![self.vip().ip()],
            ports: vec![port],
            subsets: BTreeMap::new(),
            policies: Vec::new(),
            refused: None,
            others: None,
        };
        set.insert_destination(CompiledDestination::new(destination).unwrap());
    }

    /// A target of this service: all endpoints, or those of one version.
    pub(crate) fn target(&self, version: Option<&str>, weight: u32) -> WeightedTarget {
        let key = ClusterKey {
            service: name_of(self.name),
            subset: version.map(|version| Subset {
                name: version.to_owned(),
                labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
            }),
            port: self.port,
        };
        WeightedTarget { weight, to: Target::Cluster(key), headers: None }
    }

    /// A rule that sends everything to `targets`.
    pub(crate) fn rule(&self, targets: Vec<WeightedTarget>) -> HttpRule {
        HttpRule {
            provenance: Provenance(format!("VirtualService/default/{}#http[0]", self.name)),
            matches: Vec::new(),
            fault: None,
            action: RuleAction::Forward(targets),
            traffic: Traffic::default(),
        }
    }
}

/// The request most tests send.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: reviews\r\n\r\n")
}
