//! The mesh that the tests here look at: `client-1` calls `reviews`, each with its sidecar, all
//! connections pairs of ends.

pub(crate) mod chain;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_model::{
    Destination, Endpoints, Inbound, Locality, Owner, Protocol, ServiceName, WorkloadId,
    discovery::{ClusterPolicy, HttpRule, PortFault, WorkloadTelemetry},
};
use heddle_proxy::{
    Shared,
    accept::{serve_inbound, serve_outbound, start_worker},
    dial::Network,
    metrics::{Metrics, scrape::Scrape},
    snapshot::{CompiledDestination, ResourceSet, SnapshotBuilder},
    spans::Finished,
    worker::{Worker, WorkerOptions},
};
use heddle_runtime::{
    clock,
    task::{self, spawn_contained},
    transport::Transport,
};
use heddle_testkit::{
    fixture::proxy_config,
    resources::{self, PORT},
};
use heddle_wire::trace::span::Span;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

/// Runs a test with the clock standing: it moves on only when every task waits for it.
pub(crate) fn with_standing_clock<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    task::run_local(async {
        tokio::time::pause();
        test().await;
    })
    .unwrap();
}

/// The workload that calls.
pub(crate) const CLIENT: u8 = 10;
/// The virtual address of `reviews`.
pub(crate) const REVIEWS: u8 = 10;

/// What an application does with each of its connections.
type Application = Rc<dyn Fn(End) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A mesh within this thread.
pub(crate) struct Mesh {
    pub(crate) client: Sidecar,
    pub(crate) servers: Vec<Sidecar>,
    network: Rc<Wires>,
    application: Application,
}

/// One sidecar with its application.
pub(crate) struct Sidecar {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Rc<Worker>,
    builder: RefCell<SnapshotBuilder>,
    set: ResourceSet,
    spans: RefCell<mpsc::Receiver<Finished>>,
}

/// Who is reached at which address.
#[derive(Default)]
struct Wires {
    sidecars: RefCell<Vec<(IpAddr, Rc<Worker>)>>,
    /// Addresses from which nothing ever comes back.
    silent: RefCell<BTreeSet<IpAddr>>,
    /// Workloads whose application has ended.
    stopped: RefCell<BTreeSet<IpAddr>>,
    connects: Cell<usize>,
    /// Who answers at addresses outside.
    outside: RefCell<BTreeMap<SocketAddr, Application>>,
}

impl Mesh {
    /// `reviews` is one workload whose application is `application`.
    pub(crate) fn new<F: Future<Output = ()> + 'static>(
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        Self::with_servers(&[20], application)
    }

    /// `reviews` has a workload for each last byte of an address.
    pub(crate) fn with_servers<F: Future<Output = ()> + 'static>(
        lasts: &[u8],
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        Self::speaking(Protocol::Http, lasts, application)
    }

    /// The same with another protocol declared, or none.
    pub(crate) fn speaking<F: Future<Output = ()> + 'static>(
        protocol: Protocol,
        lasts: &[u8],
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        Self::under(&[], protocol, lasts, application)
    }

    /// The same under policies for `reviews`.
    pub(crate) fn under<F: Future<Output = ()> + 'static>(
        policies: &[ClusterPolicy],
        protocol: Protocol,
        lasts: &[u8],
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        let mut destination = resources::destination("reviews", Vec::new());
        destination.ports.iter_mut().for_each(|port| port.protocol = protocol);
        destination.policies = policies.to_vec();
        Self::told(destination, lasts, application)
    }

    /// The same where requests of the client's to `reviews` are under one rule: `change`d from one that
    /// sends all to all workloads.
    pub(crate) fn ruled<F: Future<Output = ()> + 'static>(
        lasts: &[u8],
        change: impl FnOnce(&mut HttpRule),
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        let all = vec![resources::target("reviews", None)];
        let mut destination = resources::destination("reviews", all);
        change(&mut destination.ports[0].http[0]);
        Self::told(destination, lasts, application)
    }

    /// The same where the client is told this of `reviews`. Each workload has its last byte for a label.
    pub(crate) fn told<F: Future<Output = ()> + 'static>(
        destination: Destination,
        lasts: &[u8],
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        let protocol = destination.ports[0].protocol;
        let application: Application = Rc::new(move |end| Box::pin(application(end)));
        let network = Rc::new(Wires::default());
        let mut set = ResourceSet::default();
        set.insert_address(resources::address(
            resources::vip(REVIEWS),
            Owner::Service(resources::service("reviews")),
        ));
        let mut endpoints = resources::endpoints("reviews", lasts);
        for (one, last) in endpoints.endpoints.iter_mut().zip(lasts) {
            one.workload.labels.insert("last".into(), last.to_string());
        }
        let declared =
            endpoints.endpoints.iter_mut().flat_map(|one| one.workload.ports.values_mut());
        declared.for_each(|port| *port = protocol);
        set.insert_endpoints(endpoints);
        set.insert_destination(CompiledDestination::new(destination).unwrap());
        let owner = |id: &str, name| Owner::Workload(Box::new(resources::workload(id, name, "v1")));
        set.insert_address(resources::address(address(CLIENT), owner("client-1", "client")));
        let mut start = |last, id: &str, service| {
            let mut inbound = resources::inbound_of(id, service, PORT);
            inbound.ports.iter_mut().for_each(|port| port.protocol = protocol);
            set.inbound = Some(Arc::new(inbound));
            Sidecar::start(last, (id, service), &set, &network, &application)
        };
        let client = start(CLIENT, "client-1", "client");
        let server = |last: &u8| {
            let id = format!("reviews-{last}");
            start(*last, &id, "reviews")
        };
        let servers = lasts.iter().map(server).collect();
        Self { client, servers, network, application }
    }

    /// A connection of the client's application to `reviews`.
    pub(crate) fn call(&self) -> End {
        self.client.call(SocketAddr::new(resources::vip(REVIEWS), PORT))
    }

    /// Another worker of the client's sidecar.
    pub(crate) fn add_client_worker(&self) -> Rc<Worker> {
        start_worker_at(CLIENT, &self.client.shared, 1, &self.network, &self.application)
    }

    /// A connection of the client's application to `reviews`, accepted by this worker.
    pub(crate) fn call_on(&self, worker: &Rc<Worker>) -> End {
        self.client.call_on(worker, SocketAddr::new(resources::vip(REVIEWS), PORT))
    }

    /// From now on somebody outside answers there.
    pub(crate) fn outside<F: Future<Output = ()> + 'static>(
        &self,
        at: SocketAddr,
        application: impl Fn(End) -> F + 'static,
    ) {
        let application: Application = Rc::new(move |end| Box::pin(application(end)));
        self.network.outside.borrow_mut().insert(at, application);
    }

    /// From now on the client is told that this name is that of a service outside, called so.
    pub(crate) fn tell_name(&self, host: &str, destination: Destination) {
        self.tell_host(host, destination, |_| ());
    }

    /// The same of one whose endpoints are found otherwise.
    pub(crate) fn tell_host(
        &self,
        host: &str,
        destination: Destination,
        change: impl FnOnce(&mut Endpoints),
    ) {
        let service = ServiceName::of_host(host, "default").unwrap();
        let mut set = self.client.set.clone();
        let mut answer = resources::name_answer(host, Some("reviews"));
        answer.service.as_mut().unwrap().name = service.clone();
        set.insert_name(answer);
        let mut endpoints = Endpoints::inside(service.clone(), Vec::new());
        change(&mut endpoints);
        set.insert_endpoints(endpoints);
        let destination = Destination { service, ..destination };
        set.insert_destination(CompiledDestination::new(destination).unwrap());
        let mut inbound = Inbound::clone(set.inbound.as_ref().expect("its own ports"));
        inbound.outbound.names_outside = true;
        set.inbound = Some(Arc::new(inbound));
        let built = self.client.builder.borrow_mut().build(&set, 2);
        self.client.shared.snapshot.store(Arc::new(built.snapshot));
    }

    /// From now on the client is told these policies for `reviews`.
    pub(crate) fn tell(&self, policies: &[ClusterPolicy]) {
        let mut destination = resources::destination("reviews", Vec::new());
        destination.ports.iter_mut().for_each(|port| port.protocol = Protocol::Http);
        destination.policies = policies.to_vec();
        let mut set = self.client.set.clone();
        set.insert_destination(CompiledDestination::new(destination).unwrap());
        let built = self.client.builder.borrow_mut().build(&set, 2);
        self.client.shared.snapshot.store(Arc::new(built.snapshot));
    }

    /// From now on the client, at the locality `here`, is told of these workloads of `reviews`, each at its
    /// own, and of these policies.
    pub(crate) fn tell_of(&self, here: &str, servers: &[(u8, &str)], policies: &[ClusterPolicy]) {
        self.tell_of_many((here, &[]), servers, policies);
    }

    /// The same where so many workloads like the client are at these places.
    pub(crate) fn tell_of_many(
        &self,
        (here, callers): (&str, &[(&str, u32)]),
        servers: &[(u8, &str)],
        policies: &[ClusterPolicy],
    ) {
        let place = |text: &str| Locality::parse(text).unwrap_or_default();
        let mut set = self.client.set.clone();
        let mut inbound = Inbound::clone(set.inbound.as_ref().expect("its own ports"));
        inbound.locality = Box::new(place(here));
        inbound.callers = callers.iter().map(|(at, count)| (place(at).place(), *count)).collect();
        set.inbound = Some(Arc::new(inbound));
        let lasts: Vec<u8> = servers.iter().map(|(last, _)| *last).collect();
        let mut endpoints = resources::endpoints("reviews", &lasts);
        for (endpoint, (_, at)) in endpoints.endpoints.iter_mut().zip(servers) {
            endpoint.locality = place(at);
        }
        set.insert_endpoints(endpoints);
        let mut destination = resources::destination("reviews", Vec::new());
        destination.ports.iter_mut().for_each(|port| port.protocol = Protocol::Http);
        destination.policies = policies.to_vec();
        set.insert_destination(CompiledDestination::new(destination).unwrap());
        let built = self.client.builder.borrow_mut().build(&set, 2);
        self.client.shared.snapshot.store(Arc::new(built.snapshot));
    }

    /// `reviews` is called under these faults of the client's sidecar, and has these of its own.
    pub(crate) fn faulty<F: Future<Output = ()> + 'static>(
        protocol: Protocol,
        (of_client, of_server): (Vec<PortFault>, Vec<PortFault>),
        change: impl FnOnce(&mut Destination),
        application: impl Fn(End) -> F + 'static,
    ) -> Self {
        let mut destination = resources::destination("reviews", Vec::new());
        destination.ports[0].protocol = protocol;
        destination.ports[0].faults = of_client;
        change(&mut destination);
        let mesh = Self::told(destination, &[20], application);
        for server in &mesh.servers {
            let mut set = server.set.clone();
            let mut inbound = Inbound::clone(set.inbound.as_deref().expect("its own ports"));
            inbound.ports[0].faults = of_server.clone();
            set.inbound = Some(Arc::new(inbound));
            let built = server.builder.borrow_mut().build(&set, 2);
            server.shared.snapshot.store(Arc::new(built.snapshot));
        }
        mesh
    }

    /// From now on the sidecars of the client and of every server tell this of their calls.
    pub(crate) fn telling(&mut self, telemetry: &WorkloadTelemetry) {
        for sidecar in self.servers.iter_mut().chain([&mut self.client]) {
            let mut inbound =
                Inbound::clone(sidecar.set.inbound.as_deref().expect("its own ports"));
            // Faults of its own are in force already, and not in the set.
            if let Some(plan) = &sidecar.shared.snapshot.load().inbound {
                inbound.ports.clone_from(&plan.inbound.ports);
            }
            inbound.telemetry = Some(Box::new(telemetry.clone()));
            sidecar.set.inbound = Some(Arc::new(inbound));
            let built = sidecar.builder.borrow_mut().build(&sidecar.set, 3);
            sidecar.shared.snapshot.store(Arc::new(built.snapshot));
            sidecar.shared.metrics.tell_only(Some(telemetry));
        }
    }

    /// Another worker of the sidecar at this address: connections to it go to each in turn.
    pub(crate) fn add_worker(&self, last: u8) {
        let has = |sidecar: &&Sidecar| sidecar.shared.config.addresses.contains(address(last));
        let shared = &self.servers.iter().find(has).expect("a sidecar").shared;
        start_worker_at(last, shared, 1, &self.network, &self.application);
    }

    /// From now on nothing comes back from this address: it is neither reached nor refused.
    pub(crate) fn silence(&self, last: u8) {
        self.network.silent.borrow_mut().insert(address(last));
    }

    /// The application of this workload ends; its sidecar stays.
    pub(crate) fn stop_application(&self, last: u8) {
        self.network.stopped.borrow_mut().insert(address(last));
    }

    /// From now on this address refuses every connection.
    pub(crate) fn desert(&self, last: u8) {
        self.network.sidecars.borrow_mut().retain(|(ip, _)| *ip != address(last));
    }

    /// From now on of so many in a hundred requests the trace is recorded.
    pub(crate) fn trace(&self, percent: f64) {
        let sidecars = self.servers.iter().chain([&self.client]);
        sidecars.for_each(|sidecar| sidecar.trace(resources::tracing(percent)));
    }

    /// Connections that sidecars have opened to each other so far.
    pub(crate) fn connects(&self) -> usize {
        self.network.connects.get()
    }
}

impl Sidecar {
    fn start(
        last: u8,
        (id, service): (&str, &str),
        set: &ResourceSet,
        network: &Rc<Wires>,
        application: &Application,
    ) -> Self {
        let mut config = proxy_config(Path::new("/nowhere"));
        config.workload = WorkloadId(id.into());
        config.name = format!("{service}-v1");
        config.service = service.into();
        config.addresses = address(last).into();
        config.workers = 2;
        let metrics = Arc::new(Metrics::new(&config));
        // Nobody answers look-ups: what is not in the snapshot is not known.
        let (shared, receivers) = Shared::new(config, metrics);
        let shared = Arc::new(shared);
        let builder = SnapshotBuilder::new(WorkloadId(id.into()));
        let builder = builder.with_retries(shared.state.retries.clone());
        let mut builder = builder.with_breakers(shared.state.breakers.clone());
        shared.snapshot.store(Arc::new(builder.build(set, 1).snapshot));
        let worker = start_worker_at(last, &shared, 0, network, application);
        let spans = RefCell::new(receivers.spans);
        Self { shared, worker, builder: RefCell::new(builder), set: set.clone(), spans }
    }

    /// From now on it is told how its requests are traced.
    pub(crate) fn trace(&self, tracing: WorkloadTelemetry) {
        let mut set = self.set.clone();
        let mut inbound = Inbound::clone(set.inbound.as_deref().expect("its own ports"));
        inbound.telemetry = Some(Box::new(tracing));
        set.inbound = Some(Arc::new(inbound));
        let built = self.builder.borrow_mut().build(&set, 2);
        self.shared.snapshot.store(Arc::new(built.snapshot));
    }

    /// Spans that it has made since somebody asked last.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.borrow_mut();
        std::iter::from_fn(|| spans.try_recv().ok()).map(|finished| finished.what).collect()
    }

    /// A connection of this workload's application to `to`.
    pub(crate) fn call(&self, to: SocketAddr) -> End {
        self.call_on(&self.worker, to)
    }

    fn call_on(&self, worker: &Rc<Worker>, to: SocketAddr) -> End {
        let (near, far) = Transport::pair();
        let (worker, open) = (Rc::clone(worker), self.shared.state.connections.enter());
        drop(spawn_contained("outbound", async move {
            let _open = open;
            serve_outbound(worker, far, to).await;
        }));
        End::new(near, to.ip())
    }

    /// The sum of a metric's samples whose labels contain every one of `labels`.
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = Scrape::new(Arc::clone(&self.shared.metrics)).collect::<String>();
        text.lines()
            .filter(|line| line.starts_with(&format!("{metric}{{")))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    }

    /// Requests counted with these labels.
    pub(crate) fn requests(&self, labels: &[&str]) -> f64 {
        self.sum("istio_requests_total", labels)
    }
}

/// A worker of the sidecar at this address.
fn start_worker_at(
    last: u8,
    shared: &Arc<Shared>,
    index: usize,
    network: &Rc<Wires>,
    application: &Application,
) -> Rc<Worker> {
    let (wires, own, application) = (Rc::clone(network), address(last), Rc::clone(application));
    let connect = move |to: SocketAddr| -> heddle_proxy::dial::Connecting {
        Box::pin(Rc::clone(&wires).connect(own, to, Rc::clone(&application)))
    };
    let options = WorkerOptions {
        network: Network::InProcess(Rc::new(connect)),
        // Ids that sidecars give are to be different.
        random: fastrand::Rng::with_seed(u64::from(last) << 8 | 7),
    };
    let worker = start_worker(Arc::clone(shared), index, options);
    network.sidecars.borrow_mut().push((own, Rc::clone(&worker)));
    worker
}

impl Wires {
    async fn connect(
        self: Rc<Self>,
        from: IpAddr,
        to: SocketAddr,
        application: Application,
    ) -> io::Result<Transport> {
        if self.silent.borrow().contains(&to.ip()) {
            std::future::pending::<()>().await;
        }
        if to.ip() == from && self.stopped.borrow().contains(&from) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = Transport::pair();
        if to.ip() == from {
            drop(spawn_contained("application", application(End::new(far, from))));
            return Ok(near);
        }
        if let Some(application) = self.outside.borrow().get(&to) {
            drop(spawn_contained("outside", application(End::new(far, to.ip()))));
            return Ok(near);
        }
        let sidecars = self.sidecars.borrow();
        let workers: Vec<_> = sidecars.iter().filter(|(ip, _)| *ip == to.ip()).collect();
        let turn = self.connects.get().checked_rem(workers.len());
        let (_, worker) = workers[turn.ok_or(io::ErrorKind::ConnectionRefused)?];
        self.connects.set(self.connects.get() + 1);
        let serving = serve_inbound(Rc::clone(worker), far, from, to);
        drop(spawn_contained("inbound", serving));
        Ok(near)
    }
}

/// The address of a workload by its last byte.
pub(crate) fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(240, 241, 0, last).into()
}

/// An application's end of a connection.
pub(crate) struct End {
    pub(crate) transport: Transport,
    /// Whose application it is at the end of.
    pub(crate) at: IpAddr,
    read: Vec<u8>,
}

impl End {
    fn new(transport: Transport, at: IpAddr) -> Self {
        Self { transport, at, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        let _gone = self.transport.write_all(text.as_bytes()).await;
    }

    /// Up to the end of a head; `None` if the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.read.split_off(at + 4);
                let head = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(head).unwrap());
            }
            if self.transport.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// A response, or a request, with the body that `content-length` announces.
    pub(crate) async fn message(&mut self) -> Option<(String, String)> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
        while self.read.len() < length {
            if self.transport.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// What was read and belongs to no message so far.
    pub(crate) fn rest(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads `bytes` of a body, or to the end, and says how many there were.
    pub(crate) async fn body(&mut self, bytes: usize) -> usize {
        let mut seen = std::mem::take(&mut self.read).len();
        while seen < bytes {
            match self.transport.read_buf(&mut self.read).await {
                Ok(n @ 1..) => seen += n,
                _ => break,
            }
            self.read.clear();
        }
        seen
    }

    pub(crate) async fn ask(&mut self, request: &str) -> (String, String) {
        self.send(request).await;
        self.message().await.expect("an answer")
    }

    /// Waits for the end of the connection and says how long that took and whether it was orderly.
    pub(crate) async fn ended(&mut self) -> (Duration, io::Result<()>) {
        let begun = clock::now();
        let result = self.transport.read_to_end(&mut self.read).await.map(drop);
        (since(begun), result)
    }
}

/// Whole seconds since then: each timer on the way ends at the next millisecond.
pub(crate) fn seconds_since(begun: Instant) -> u64 {
    since(begun).as_secs()
}

pub(crate) fn since(begun: Instant) -> Duration {
    clock::now().saturating_duration_since(begun)
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: reviews\r\n\r\n";
pub(crate) const POST: &str = "POST / HTTP/1.1\r\nHost: reviews\r\nContent-Length: 2\r\n\r\nhi";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An application that answers every request.
pub(crate) async fn answers(mut end: End) {
    while end.message().await.is_some() {
        end.send(OK).await;
    }
}
