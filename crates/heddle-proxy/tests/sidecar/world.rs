//! Everything in the namespace but the sidecar.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command},
};

use heddle_model::{Addresses, Owner, Protocol, WorkloadId};
use heddle_runtime::{
    capability::Privileges,
    net,
    netlink::{Netlink, Network},
    nft,
    redirect::{Escape, RedirectRules},
    signal::Signal,
    spawn::SpawnOptions,
    task::{run_local, spawn_contained},
};
use heddle_testkit::{
    control::{FakeControl, Session},
    fixture::{local, proxy_config_in},
    resources::{
        PORT, address, destination, endpoints, inbound_of, name_answer, service, vip, vip_v6,
    },
};
use heddle_wire::{
    discovery::ResourceType,
    local::proxy_config::{
        ControlPlane, ESCAPE_MARK, Local, PORT_DNS, PORT_INBOUND, PORT_METRICS, PORT_OUTBOUND,
        ProxyConfig,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{FOLDER, ROLE};

pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(240, 241, 0, 10);
pub(crate) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, 10);
/// A resolver that does not exist: what is sent to it must not leave.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

pub(crate) fn run(folder: &Path) {
    network(Escape::Mark(ESCAPE_MARK));
    run_local(scenario(folder)).unwrap();
}

/// An interface with the workload's addresses, a route to everything, and the redirection.
pub(crate) fn network(escape: Escape) {
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge("eth0", None).unwrap();
    let link = netlink.link_index("eth0").unwrap();
    netlink.set_up(link).unwrap();
    netlink.add_address(link, Network::new(OWN.into(), 16)).unwrap();
    netlink.add_default_route(Ipv4Addr::new(240, 241, 0, 1).into()).unwrap();
    if netlink.add_address(link, Network::new(OWN_V6.into(), 64)).is_ok() {
        let gateway = Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, 1);
        netlink.add_default_route(gateway.into()).unwrap();
    }
    nft::install_redirect(&rules(escape)).unwrap();
}

pub(crate) fn rules(escape: Escape) -> RedirectRules {
    RedirectRules {
        inbound_excluded: vec![15020, 15021, 15090],
        ..RedirectRules::all(escape, [PORT_OUTBOUND, PORT_INBOUND, PORT_DNS])
    }
}

async fn scenario(folder: &Path) {
    let config = config(folder);
    let ControlPlane::PathSocket(socket) = config.control_plane() else { panic!() };
    let mut control = FakeControl::start(socket);
    let application = TcpListener::bind(("127.0.0.1", PORT)).await.unwrap();
    spawn_contained("application", serve(application));
    let mut sidecar = Sidecar::start(folder, &config);
    let mut session = control.introduced(1, &inbound_of("reviews-10", "reviews", PORT)).await;
    sidecar.until_ready().await;
    loop {
        let report = control.reports.recv().await.unwrap();
        if report.listening.iter().any(|one| one.port == u32::from(PORT)) {
            break;
        }
    }

    // The name is learnt through the resolver, and with it all that the call needs.
    let asked = tokio::task::spawn_local(resolve("reviews"));
    teach(&mut session).await;
    assert_eq!(asked.await.unwrap(), vip(10));
    assert_eq!(get(SocketAddr::new(vip(10), PORT)).await, "hello");
    assert_eq!(get(SocketAddr::new(vip_v6(10).into(), PORT)).await, "hello");
    assert_eq!(requests_counted().await, (2.0, 2.0), "at the source, at the destination");
    println!("{}", sidecar.memory());

    // Without the control plane it goes on, also after its own death.
    drop((session, control));
    assert_eq!(get(SocketAddr::new(vip(10), PORT)).await, "hello");
    sidecar.until_saved(&config.state_dir).await;
    sidecar.child.kill().unwrap();
    sidecar.child.wait().unwrap();
    let mut sidecar = Sidecar::start(folder, &config);
    sidecar.until_ready().await;
    assert_eq!(resolve("reviews").await, vip(10));
    assert_eq!(get(SocketAddr::new(vip(10), PORT)).await, "hello");

    // A client that rests between requests does not keep it from ending.
    let mut resting = TcpStream::connect(SocketAddr::new(vip(10), PORT)).await.unwrap();
    assert_eq!(exchange(&mut resting).await, "hello");
    Signal::TERMINATE.send(sidecar.child.id()).unwrap();
    assert!(sidecar.child.wait().unwrap().success());
    assert_eq!(resting.read(&mut [0]).await.unwrap_or(0), 0);
}

fn config(folder: &Path) -> ProxyConfig {
    ProxyConfig {
        workload: WorkloadId("reviews-10".into()),
        name: "reviews-v1".into(),
        service: "reviews".into(),
        version: "v1".into(),
        addresses: Addresses::Both(OWN, OWN_V6),
        ports: BTreeMap::from([(PORT, Protocol::Http)]),
        workers: 2,
        ..proxy_config_in(folder, Local { mark: Some(ESCAPE_MARK), ..local(folder) })
    }
}

/// Answers what the sidecar asks about `reviews`, which is this very workload.
pub(crate) async fn teach(session: &mut Session) {
    session.subscription(ResourceType::Name).await;
    session.send(2, &[&name_answer("reviews", Some("reviews"))], true).await;
    session.subscription(ResourceType::Address).await;
    let owner = || Owner::Service(service("reviews"));
    let addresses = [address(vip(10), owner()), address(vip_v6(10).into(), owner())];
    session.send(3, &[&addresses[0], &addresses[1]], false).await;
    session.send(3, &[&endpoints("reviews", &[10])], false).await;
    session.send(3, &[&destination("reviews", vec![])], true).await;
    session.acknowledged().await;
}

struct Sidecar {
    child: Child,
    ready: Option<std::io::PipeReader>,
}

impl Sidecar {
    fn start(folder: &Path, config: &ProxyConfig) -> Self {
        let (ready, told) = std::io::pipe().unwrap();
        let mut options = SpawnOptions::new();
        let number = options.inherit_copy(told.as_fd()).unwrap();
        options.privileges(Privileges::All);
        options.die_with_parent(Signal::KILL);
        let config = ProxyConfig { ready_fd: Some(number), ..config.clone() };
        fs::write(folder.join("proxy.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let log = fs::File::create(folder.join("proxy.log")).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(ROLE, "sidecar").env(FOLDER, folder).stderr(log);
        Self { child: options.spawn(command).unwrap(), ready: Some(ready) }
    }

    /// Waits for the one byte; its end without it is a sidecar that ended.
    async fn until_ready(&mut self) {
        let mut ready = self.ready.take().expect("asked once");
        let read = tokio::task::spawn_blocking(move || {
            let mut byte = [0];
            ready.read(&mut byte).unwrap()
        });
        assert_eq!(read.await.unwrap(), 1, "the sidecar ended before it was ready");
    }

    /// Waits until what it was taught is in its saved set.
    async fn until_saved(&self, state: &Path) {
        let name = service("reviews").fqdn();
        for _ in 0..1000 {
            let saved = fs::read(state.join("last-good-set")).unwrap_or_default();
            if saved.windows(name.len()).any(|bytes| bytes == name.as_bytes()) {
                return;
            }
            heddle_runtime::clock::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("nothing was saved");
    }

    fn memory(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let lines =
            status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("Rss"));
        lines.collect::<Vec<_>>().join(", ")
    }
}

/// The application: answers every request.
pub(crate) async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        spawn_contained("application connection", async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count) = stream.read(&mut buffer).await {
                if count == 0 {
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                stream.write_all(answer).await.unwrap();
            }
        });
    }
}

pub(crate) async fn get(to: SocketAddr) -> String {
    exchange(&mut TcpStream::connect(to).await.unwrap()).await
}

/// One request on a connection; its answer's body.
async fn exchange(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.ends_with("hello") {
        let count = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        assert!(count > 0, "cut off after {text:?}");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    text.split_off(text.len() - 5)
}

/// Requests counted with reporter `source` and `destination`, once none is in flight: an answer may
/// arrive before it is counted.
async fn requests_counted() -> (f64, f64) {
    for _ in 0..1000 {
        let metrics = scrape().await;
        let mut gauges = metrics.lines().filter(|l| l.starts_with("heddle_requests_in_flight{"));
        if !gauges.all(|line| line.ends_with(" 0")) {
            continue;
        }
        let counted = |reporter: &str| {
            let of_reporter = format!("istio_requests_total{{reporter=\"{reporter}\"");
            let lines = metrics.lines().filter(|line| line.starts_with(&of_reporter));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        return (counted("source"), counted("destination"));
    }
    panic!("a request stays in flight");
}

async fn scrape() -> String {
    let to = SocketAddr::from((OWN, PORT_METRICS));
    let mut stream = net::connect_tcp(to, Some(ESCAPE_MARK)).await.unwrap();
    let request = b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The first address of a name, asked by UDP of a resolver that is not there.
pub(crate) async fn resolve(name: &str) -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect((RESOLVER, 53)).await.unwrap();
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&query).await.unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).await.unwrap();
    assert_eq!(reply[3] & 0xf, 0, "NOERROR");
    let address: [u8; 4] = reply[length - 4..length].try_into().unwrap();
    Ipv4Addr::from(address).into()
}
