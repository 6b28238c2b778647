//! A worker with hand-made rules, raw clients, and backends made of closures.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use heddle_model::{
    Address, Destination, DestinationPort, Endpoint, EndpointState, Endpoints, Owner, Protocol,
    ServiceName, WorkloadId,
    discovery::{HttpRule, Inbound, InboundPort, Provenance, Subset, WeightedTarget, WorkloadInfo},
};
use heddle_proxy::{
    Shared,
    inbound::serve_inbound,
    metrics::Metrics,
    outbound::serve_outbound,
    shared::Ends,
    snapshot::{ResourceSet, SnapshotBuilder},
    worker::Worker,
};
use heddle_runtime::task;
use heddle_wire::local::proxy_config::ProxyConfig;
use tokio::sync::mpsc;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The virtual address of service number 0; others follow.
const VIP: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 10);

/// A sidecar of workload `client-1` on 127.0.0.1, and the rules it is told.
pub(crate) struct Sidecar {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ends: Option<Ends>,
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
        let vip_range_v4 = (Ipv4Addr::new(127, 0, 0, 0), 8);
        Self::configured(7, ProxyConfig { vip_range_v4, ..config() })
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
        let services = services.iter().map(|name| name_of(name)).collect();
        self.told(|set| {
            let workload = workload("client-1", "client", "", number);
            let port = InboundPort { number, protocol, services };
            set.inbound = Some(Arc::new(Inbound { workload, ports: vec![port] }));
        });
    }

    /// The sum of all samples of a metric whose labels contain every one of `labels`.
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        sum_in(&self.shared.metrics.render(), metric, labels)
    }

    /// Waits until every request has been recorded and every connection closed.
    pub(crate) fn settled(&self) {
        wait_until("every request is recorded", || self.shared.metrics.requests_in_flight() == 0);
    }
}

async fn run(shared: Arc<Shared>, mut served: mpsc::Receiver<Serve>, seed: u64) {
    let worker = Worker::with_random(shared, 0, fastrand::Rng::with_seed(seed));
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
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let worker = worker.clone();
                if outbound {
                    drop(task::spawn_contained("test", serve_outbound(worker, stream, to)));
                } else {
                    drop(task::spawn_contained("test", serve_inbound(worker, stream, to)));
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

/// Waits, bounded, for something another thread does.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn config() -> ProxyConfig {
    ProxyConfig {
        mesh: "test".into(),
        workload: WorkloadId("client-1".into()),
        name: "client".into(),
        namespace: "default".into(),
        service: "client".into(),
        version: String::new(),
        labels: BTreeMap::new(),
        ipv4: Ipv4Addr::LOCALHOST,
        ipv6: Ipv6Addr::LOCALHOST,
        ports: BTreeMap::new(),
        workers: 1,
        discovery_socket: "/nowhere/discovery.sock".into(),
        holder_socket: None,
        state_dir: "/nowhere".into(),
        mark: 0,
        published: BTreeMap::new(),
        host_ports: Vec::new(),
        ready_fd: None,
        vip_range_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
        vip_range_v6: ("fd68:6564:646c::".parse().unwrap(), 64),
        host_gateway: (Ipv4Addr::new(240, 240, 0, 1), "fd68:6564:646c::1".parse().unwrap()),
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
        service: name_of(service),
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
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) http: Vec<HttpRule>,
    pub(crate) tcp: Vec<WeightedTarget>,
    /// Address, version and state of each endpoint.
    pub(crate) endpoints: Vec<(Ipv4Addr, &'static str, EndpointState)>,
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
            Endpoint {
                workload: workload(&id, self.name, version, self.port),
                ipv4: *ipv4,
                ipv6: Ipv6Addr::LOCALHOST,
                ports: BTreeMap::from([(self.port, *state)]),
                weight: 1,
            }
        });
        set.insert_endpoints(Endpoints {
            service: service.clone(),
            endpoints: endpoints.collect(),
        });
        let port = DestinationPort {
            number: self.port,
            name: String::new(),
            protocol: self.protocol,
            http: self.http.clone(),
            tcp: self.tcp.clone(),
        };
        let destination = Destination {
            service,
            vips: vec![self.vip().ip()],
            ports: vec![port],
            subsets: BTreeMap::new(),
        };
        set.insert_destination(destination).unwrap();
    }

    /// A target of this service: all endpoints, or those of one version.
    pub(crate) fn target(&self, version: Option<&str>, weight: u32) -> WeightedTarget {
        WeightedTarget {
            service: name_of(self.name),
            subset: version.map(|version| Subset {
                name: version.to_owned(),
                labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
            }),
            port: self.port,
            weight,
            dangling: None,
        }
    }

    /// A rule that sends everything to `targets`.
    pub(crate) fn rule(&self, targets: Vec<WeightedTarget>) -> HttpRule {
        HttpRule {
            provenance: Provenance(format!("VirtualService/default/{}#http[0]", self.name)),
            matches: Vec::new(),
            fault: None,
            targets,
        }
    }
}

/// A server made of a closure that gets every connection, on a thread of its own.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Backend {
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), serve)
    }

    pub(crate) fn at(address: SocketAddr, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (Arc::clone(&connections), Arc::clone(&stop));
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                let peer = Peer::new(stream.unwrap(), number);
                thread::spawn(move || serve(peer));
            }
        });
        Self { address, connections, stop }
    }

    /// Answers every request with 200 and what `answer` makes of its head and body.
    pub(crate) fn http(answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static) -> Self {
        Self::start(http_server(answer))
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
    }
}

pub(crate) fn http_server(
    answer: impl Fn(&str, &[u8]) -> String + Send + Sync + 'static,
) -> impl Fn(Peer) + Send + Sync + 'static {
    move |mut peer| {
        while let Some((head, body)) = peer.request() {
            let text = answer(&head, &body);
            peer.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One end of a connection, raw, bounded in time.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) number: usize,
    read: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&address, PATIENCE).unwrap(), 0)
    }

    fn new(stream: TcpStream, number: usize) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, number, read: Vec::new() }
    }

    /// Writes; the other side may be gone, which reading will show.
    pub(crate) fn write(&mut self, text: &str) {
        let _gone = self.stream.write_all(text.as_bytes());
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        let socket = tokio_free_linger(&self.stream);
        socket.unwrap();
        drop(self.stream);
    }

    /// Reads until `end` has come and returns everything up to and with it; `None` at the end of
    /// the stream.
    pub(crate) fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = find(&self.read, end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                let text = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            if self.more().ok()? == 0 {
                return None;
            }
        }
    }

    /// Exactly `n` bytes.
    pub(crate) fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.read.len() < n {
            if self.more().ok()? == 0 {
                return None;
            }
        }
        let rest = self.read.split_off(n);
        Some(std::mem::replace(&mut self.read, rest))
    }

    /// Everything to the end of the stream, or the error that ended it.
    pub(crate) fn rest(&mut self) -> io::Result<String> {
        while self.more()? > 0 {}
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk)?;
        self.read.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// A request or response head.
    pub(crate) fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// A request with its body.
    pub(crate) fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some((head, body))
    }

    /// A response with its body, delimited as its head says; not for HEAD.
    pub(crate) fn response(&mut self) -> Option<(String, String)> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// Sends and receives.
    pub(crate) fn ask(&mut self, request: &str) -> (String, String) {
        self.write(request);
        self.response().expect("a response")
    }

    fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        let lower = head.to_ascii_lowercase();
        if let Some(length) = field(&lower, "content-length") {
            return self.exactly(length.parse().unwrap());
        }
        if field(&lower, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return self.chunked();
        }
        Some(Vec::new())
    }

    /// A chunked body, framing included, so that tests see it.
    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until("\r\n")?;
            body.extend_from_slice(line.as_bytes());
            let size = line.trim().split(';').next()?;
            let size = usize::from_str_radix(size, 16).unwrap();
            if size > 0 {
                body.extend(self.exactly(size + 2)?);
                continue;
            }
            loop {
                let trailer = self.until("\r\n")?;
                body.extend_from_slice(trailer.as_bytes());
                if trailer == "\r\n" {
                    return Some(body);
                }
            }
        }
    }
}

/// The value of a field, names in lower case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (one, value) = line.split_once(':')?;
        one.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// SO_LINGER 0 on a std socket, by way of a runtime that lives as long as the call.
fn tokio_free_linger(stream: &TcpStream) -> io::Result<()> {
    let copy = stream.try_clone()?;
    copy.set_nonblocking(true)?;
    task::run_local(async move {
        let copy = tokio::net::TcpStream::from_std(copy)?;
        heddle_runtime::net::reset_on_close(&copy)
    })?
}

/// The request most tests send.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: reviews\r\n\r\n")
}
