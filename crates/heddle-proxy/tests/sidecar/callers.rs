//! A pod whose application sees its callers' addresses, called from another network namespace by several callers in
//! turn, of both families. Its sidecar is root without a right but the one that it takes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Child,
    sync::Arc,
};

use heddle_model::Owner;
use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    clock,
    netlink::{Netlink, Network},
    nft,
    ns::{Mode, Namespaces},
    proof,
    redirect::RedirectRules,
    signal::Signal,
    spawn::SpawnOptions,
    task::{run_local, spawn_contained},
};
use heddle_testkit::{
    control::secure::{Answers, FakeSecureControl},
    resources::{PORT, address, inbound_of, workload},
    tls::Authority,
    wait::PATIENCE,
};
use heddle_wire::{
    discovery::ResourceType,
    local::proxy_config::{PORT_METRICS, ProxyConfig, Surroundings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    pod::{self, SIDECAR, WORKLOAD, health, until},
    world::{OWN, OWN_V6, network, rules},
};

/// Callers' addresses; the last has none of its family beside it.
const CALLERS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(240, 241, 0, 77)),
    IpAddr::V4(Ipv4Addr::new(240, 241, 0, 78)),
    IpAddr::V6(Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 1, 0, 0, 0, 77)),
];
/// Requests that each caller sends.
const ROUNDS: usize = 20;

pub(crate) fn run(folder: &Path) {
    network(pod::escape());
    let rules =
        RedirectRules { callers_kept_at: vec![OWN.into(), OWN_V6.into()], ..rules(pod::escape()) };
    let mut netlink = Netlink::open().unwrap();
    nft::install_redirect(&rules).unwrap();
    rules.route_callers(&mut netlink).unwrap();
    assert_eq!(proof::prove(&rules).unwrap().callers_kept, rules.callers_kept_at);
    let callers = Namespaces::create(Mode::Root).unwrap();
    let bridge = netlink.link_index("eth0").unwrap();
    netlink.create_veth("callers", bridge, ("eth0", None), callers.net()).unwrap();
    refused_without_the_right(folder);
    run_local(scenario(folder, &callers)).unwrap();
}

/// It ends at once, and says what it lacks.
fn refused_without_the_right(folder: &Path) {
    fs::write(folder.join("root-cert.pem"), Authority::new("mesh").pem()).unwrap();
    let mut sidecar = start(folder, "127.0.0.1:1".parse().unwrap(), CapabilitySet::NONE);
    assert!(!sidecar.wait().unwrap().success());
    let said = fs::read_to_string(folder.join("proxy.log")).unwrap();
    assert!(said.contains("needs the capability NET_RAW or NET_ADMIN"), "{said}");
}

async fn scenario(folder: &Path, callers: &Namespaces) {
    let authorities = [Arc::new(Authority::new("mesh"))];
    fs::write(folder.join("root-cert.pem"), authorities[0].pem()).unwrap();
    fs::write(folder.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    fs::write(folder.join("token"), "a token").unwrap();
    let answers = Answers::of(WORKLOAD);
    let mut control =
        FakeSecureControl::start("127.0.0.1:0".parse().unwrap(), &authorities, &answers).await;
    for own in [IpAddr::V4(OWN), IpAddr::V6(OWN_V6)] {
        spawn_contained("application", tell(TcpListener::bind((own, PORT)).await.unwrap()));
    }
    let right = CapabilitySet::of(&[Capability::NetRaw]);
    let mut sidecar = start(folder, control.address, right);
    let mut session = control.discovery.session().await;
    session.subscription(ResourceType::Inbound).await;
    session.send(1, &[&inbound_of(WORKLOAD, "reviews", PORT)], true).await;
    session.acknowledged().await;
    until(async || health().await == Some(200)).await;

    let mut calling = call(folder, callers);
    // The control plane is asked about who really calls.
    let mut asked = Vec::new();
    while asked.len() < CALLERS.len() {
        let request = session.subscription(ResourceType::Address).await;
        asked.extend(request.resource_names_subscribe);
    }
    let expected = CALLERS.map(|ip| ip.to_string());
    assert!(expected.iter().all(|caller| asked.contains(caller)), "{asked:?}");
    let known = CALLERS.map(|ip| {
        address(ip, Owner::Workload(Box::new(workload("frontend-77", "frontend", "v1"))))
    });
    session.send(2, &[&known[0], &known[1], &known[2]], true).await;
    let mut status = None;
    until(async || {
        status = calling.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success(), "an application saw somebody else");
    until(async || requests_of("frontend-v1").await == (CALLERS.len() * ROUNDS) as f64).await;
    Signal::KILL.send(sidecar.id()).unwrap();
    sidecar.wait().unwrap();
}

fn start(folder: &Path, control: SocketAddr, right: CapabilitySet) -> Child {
    let mut config = pod::config(folder, control);
    let Surroundings::Pod(pod) = &mut config.surroundings else { panic!() };
    pod.keeps_callers = true;
    let mut command = pod::command(folder, &ProxyConfig { workers: 2, ..config });
    // As the injection has it: root, by whose exec the capability comes, in the sidecar's group.
    command.gid(SIDECAR);
    let mut options = SpawnOptions::new();
    options.privileges(Privileges::Only(right)).die_with_parent(Signal::KILL);
    options.spawn(command).unwrap()
}

/// Answers requests with the address that they come from.
async fn tell(listener: TcpListener) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        spawn_contained("application connection", async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                assert!(buffer[..count].ends_with(b"\r\n\r\n"), "one request at a time");
                let body = peer.ip().to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
    }
}

/// Requests counted on the server's side of a workload.
async fn requests_of(caller: &str) -> f64 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT_METRICS)).await.unwrap();
    let request = b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let caller = format!("source_workload=\"{caller}\"");
    let lines = text.lines().filter(|line| {
        line.starts_with("istio_requests_total{reporter=\"destination\"") && line.contains(&caller)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Starts the callers in their namespace.
fn call(folder: &Path, callers: &Namespaces) -> Child {
    let mut options = SpawnOptions::new();
    options.namespaces(callers).unwrap().die_with_parent(Signal::KILL);
    options.spawn(crate::again("callers", folder)).unwrap()
}

/// All callers in turn, on connections that stay and on connections of one request.
pub(crate) fn callers() {
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link_index("eth0").unwrap();
    netlink.set_up(link).unwrap();
    for caller in CALLERS {
        let prefix = if caller.is_ipv4() { 16 } else { 64 };
        netlink.add_address(link, Network::new(caller, prefix)).unwrap();
    }
    run_local(async {
        let mut staying = Vec::new();
        for caller in CALLERS {
            staying.push(connect(caller).await);
        }
        for round in 0..ROUNDS {
            for (caller, staying) in CALLERS.into_iter().zip(&mut staying) {
                let seen = match round % 2 {
                    0 => ask(staying).await,
                    _ => ask(&mut connect(caller).await).await,
                };
                assert_eq!(seen, caller.to_string(), "in round {round}");
            }
        }
    })
    .unwrap();
}

async fn connect(caller: IpAddr) -> TcpStream {
    let (socket, own) = match caller {
        IpAddr::V4(_) => (TcpSocket::new_v4(), IpAddr::V4(OWN)),
        IpAddr::V6(_) => (TcpSocket::new_v6(), IpAddr::V6(OWN_V6)),
    };
    let socket = socket.unwrap();
    socket.bind(SocketAddr::new(caller, 0)).unwrap();
    let connecting = socket.connect(SocketAddr::new(own, PORT));
    clock::within(PATIENCE, connecting).await.expect("in time").unwrap()
}

/// The body of one request's answer.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    loop {
        let reading = stream.read(&mut buffer);
        let count = clock::within(PATIENCE, reading).await.expect("in time").unwrap();
        assert!(count > 0, "cut off after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            return body.to_owned();
        }
    }
}
