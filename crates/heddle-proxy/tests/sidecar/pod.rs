//! A pod made by hand: redirection by user, a control plane over TLS, a token, and a way outside of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use heddle_model::{Addresses, WorkloadId};
use heddle_runtime::{
    clock,
    netlink::{Netlink, Network},
    redirect::Escape,
    signal::Signal,
    task::{run_local, spawn_contained},
};
use heddle_testkit::{
    control::secure::{Answers, FakeSecureControl},
    fixture::pod_config,
    resources::{PORT, inbound_of, vip},
    tls::Authority,
    wait::PATIENCE,
};
use heddle_wire::local::proxy_config::{PORT_HEALTH, ProxyConfig, Surroundings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    again,
    world::{OWN, OWN_V6, get, network, resolve, serve, teach},
};

/// The sidecar's user and group, as in every pod.
pub(crate) const SIDECAR: u32 = 1337;
/// Somebody whom the mesh does not know.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const WORKLOAD: &str = "reviews-10";

pub(crate) fn run(folder: &Path) {
    network(escape());
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link_index("eth0").unwrap();
    netlink.add_address(link, Network::new(OUTSIDE.into(), 32)).unwrap();
    run_local(scenario(folder)).unwrap();
}

async fn scenario(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let authorities = [Arc::new(Authority::new("mesh"))];
    fs::write(folder.join("root-cert.pem"), authorities[0].pem()).unwrap();
    fs::write(folder.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    let answers = Answers::of(WORKLOAD);
    let mut control =
        FakeSecureControl::start("127.0.0.1:0".parse().unwrap(), &authorities, &answers).await;
    let application = TcpListener::bind((OWN, PORT)).await.unwrap();
    let application = spawn_contained("application", serve(application));
    let outside = TcpListener::bind((OUTSIDE, 7000)).await.unwrap();
    spawn_contained("outside", serve(outside));
    let mut sidecar = start(folder, control.address);

    // Neither a token nor rules: the port answers, and says no.
    until(async || health().await == Some(503)).await;
    fs::write(folder.join("token"), "a token").unwrap();
    let mut session = control.discovery.session().await;
    assert_eq!(control.tokens.recv().await.unwrap(), "a token");
    assert_eq!(health().await, Some(503), "there is a certificate, but no rule yet");
    session.subscription(heddle_wire::discovery::ResourceType::Inbound).await;
    session.send(1, &[&inbound_of(WORKLOAD, "reviews", PORT)], true).await;
    session.acknowledged().await;
    until(async || health().await == Some(200)).await;

    // A name of the mesh, and a call through the sidecar to the pod itself.
    let asked = tokio::task::spawn_local(resolve("reviews"));
    teach(&mut session).await;
    assert_eq!(asked.await.unwrap(), vip(10));
    assert_eq!(get(SocketAddr::new(vip(10), PORT)).await, "hello");
    // Whom nobody knows is reached from here.
    let address = "198.51.100.7".parse().unwrap();
    let call = tokio::task::spawn_local(get(SocketAddr::new(address, 7000)));
    session.subscription(heddle_wire::discovery::ResourceType::Address).await;
    session.remove(4, heddle_wire::discovery::ResourceType::Address, "198.51.100.7").await;
    assert_eq!(call.await.unwrap(), "hello");
    let saved = fs::metadata(folder.join("state/certificate")).unwrap();
    assert_eq!(saved.permissions().mode() & 0o777, 0o600);

    // Told to end, it serves for as long as the application does.
    Signal::TERMINATE.send(sidecar.id()).unwrap();
    clock::sleep(Duration::from_millis(200)).await;
    assert_eq!(get(SocketAddr::new(vip(10), PORT)).await, "hello");
    assert!(sidecar.try_wait().unwrap().is_none());
    application.abort();
    drop(application.await);
    // It listens on this pod's loopback. What stands for the outside does so too, at an address of its own.
    drop((session, control));
    let mut status = None;
    until(async || {
        status = sidecar.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
}

/// How a sidecar in a pod is told.
pub(crate) fn escape() -> Escape {
    Escape::Owner { uid: SIDECAR, gid: SIDECAR }
}

fn start(folder: &Path, control: SocketAddr) -> Child {
    command(folder, &config(folder, control)).uid(SIDECAR).gid(SIDECAR).spawn().unwrap()
}

pub(crate) fn config(folder: &Path, control: SocketAddr) -> ProxyConfig {
    let mut config = ProxyConfig {
        workload: WorkloadId(WORKLOAD.into()),
        namespace: "default".into(),
        addresses: Addresses::Both(OWN, OWN_V6),
        ..pod_config(folder, control)
    };
    let Surroundings::Pod(pod) = &mut config.surroundings else { panic!() };
    pod.drain_seconds = 0;
    config
}

/// A sidecar's process, which writes what it says into a file.
pub(crate) fn command(folder: &Path, config: &ProxyConfig) -> Command {
    fs::write(folder.join("proxy.json"), serde_json::to_vec(config).unwrap()).unwrap();
    let log = fs::File::create(folder.join("proxy.log")).unwrap();
    let mut command = again("sidecar", folder);
    command.stderr(log);
    command
}

pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            clock::sleep(Duration::from_millis(10)).await;
        }
    };
    clock::within(PATIENCE, waited).await.expect("in time");
}

/// The status that the kubelet would see; loopback is not redirected.
pub(crate) async fn health() -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT_HEALTH)).await.ok()?;
    let request = b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.get(9..12)?.parse().ok()
}
