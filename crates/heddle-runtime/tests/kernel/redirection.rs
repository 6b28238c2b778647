//! Packets of a workload land at its sidecar, the sidecar's own go their way, and the rules can be
//! replaced under traffic.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use heddle_runtime::{net, nft, sock_diag, task};
use socket2::SockRef;

use crate::world::{
    Channel, DNS, EXCLUDED, INBOUND, MARK, OUTBOUND, SIDECAR, VIP_V4, VIP_V6, World, address_v4,
    address_v6, as_both_users, rules, workload_net,
};

/// Long enough for a packet that is not lost.
const PATIENCE: Duration = Duration::from_secs(10);

as_both_users!(outgoing_tcp_lands_at_15001, one_workload, "workload" => outgoing_tcp);
as_both_users!(marked_sockets_escape, one_workload, "workload" => marked);
as_both_users!(port_53_lands_at_15053, one_workload, "workload" => dns);
as_both_users!(loopback_tcp_is_left_alone, one_workload, "workload" => loopback);
as_both_users!(listeners_are_seen_on_each_address, one_workload, "workload" => listeners);
as_both_users!(rules_are_replaced_without_a_gap, one_workload, "workload" => replacing);
as_both_users!(
    incoming_tcp_lands_at_15006,
    two_workloads,
    "server" => incoming_server,
    "client" => incoming_client,
);

as_both_users!(
    who_takes_over_an_address_takes_over_its_hardware_address,
    successor,
    "server" => incoming_server,
    "client" => neighbour,
);

/// The role does it all.
fn one_workload(world: &World) {
    let workload = world.workload(10);
    world.inside(&workload, SIDECAR, "workload").succeed();
}

fn wildcard(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn loopback_of(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn connect_marked(to: SocketAddr) -> TcpStream {
    let stream = task::run_local(async { net::connect_tcp(to, Some(MARK)).await?.into_std() });
    let stream = stream.expect("a runtime").expect("connects");
    stream.set_nonblocking(false).expect("sets");
    stream
}

fn outgoing_tcp(_channel: Channel) {
    for vip in [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)] {
        let to = SocketAddr::new(vip, 80);
        let landed = task::run_local(async {
            let at = SocketAddr::new(loopback_of(vip), OUTBOUND);
            let listener = net::listen_tcp(at, Some(MARK), false).expect("listens");
            let client = TcpStream::connect_timeout(&to, PATIENCE).expect("is captured");
            let (accepted, peer) = listener.accept().await.expect("accepts");
            assert_eq!(client.local_addr().expect("connected"), peer);
            net::original_dst(&accepted).expect("is known")
        });
        assert_eq!(landed.expect("a runtime"), to);
    }
}

fn marked(_channel: Channel) {
    for own in [IpAddr::V4(address_v4(10)), IpAddr::V6(address_v6(10))] {
        let at = SocketAddr::new(own, 8080);
        let outbound = SocketAddr::new(loopback_of(own), OUTBOUND);
        let inbound = SocketAddr::new(wildcard(own), INBOUND);
        let traps = [outbound, inbound].map(|trap| {
            let trap = net::listen_tcp_detached(trap, None, false).expect("listens");
            trap.set_nonblocking(true).expect("sets");
            trap
        });
        let listener = std::net::TcpListener::bind(at).expect("binds");
        let client = connect_marked(at);
        let (_, peer) = listener.accept().expect("accepts");
        assert_eq!(client.local_addr().expect("connected"), peer);
        for trap in traps {
            trap.accept().expect_err("nothing was captured");
        }

        let server = UdpSocket::bind(SocketAddr::new(own, 53)).expect("binds a low port");
        let client = UdpSocket::bind(SocketAddr::new(own, 0)).expect("binds");
        net::set_mark(&client, MARK).expect("may");
        client.send_to(b"marked", SocketAddr::new(own, 53)).expect("sends");
        server.set_read_timeout(Some(PATIENCE)).expect("sets");
        let mut buffer = [0; 16];
        let (count, _) = server.recv_from(&mut buffer).expect("the marked packet came here");
        assert_eq!(&buffer[..count], b"marked");
    }
}

fn dns(_channel: Channel) {
    let resolvers_v4 =
        [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::LOCALHOST, Ipv4Addr::new(9, 9, 9, 9)];
    let resolvers_v6 = [Ipv6Addr::LOCALHOST, VIP_V6];
    let all = resolvers_v4.map(IpAddr::V4).into_iter().chain(resolvers_v6.map(IpAddr::V6));
    for resolver in all {
        let to = SocketAddr::new(resolver, 53);
        let at = SocketAddr::new(loopback_of(resolver), DNS);
        let server = UdpSocket::bind(at).expect("binds");
        let client = UdpSocket::bind(SocketAddr::new(wildcard(resolver), 0)).expect("binds");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE)).expect("sets");
        }
        client.connect(to).expect("connects");
        client.send(b"question").expect("sends");
        let mut buffer = [0; 16];
        let (count, peer) = server.recv_from(&mut buffer).expect("is captured");
        assert_eq!(&buffer[..count], b"question");
        server.send_to(b"answer", peer).expect("sends");
        // A connected socket takes packets from the resolver's address only.
        let count = client.recv(&mut buffer).expect("the answer comes from the resolver");
        assert_eq!(&buffer[..count], b"answer");

        let listener = std::net::TcpListener::bind(at).expect("binds");
        let client = TcpStream::connect_timeout(&to, PATIENCE).expect("is captured");
        let (_, peer) = listener.accept().expect("accepts");
        assert_eq!(client.local_addr().expect("connected"), peer);
    }
}

fn loopback(_channel: Channel) {
    for address in [IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3)), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        // No capability is needed for a low port.
        let at = SocketAddr::new(address, 80);
        let listener = std::net::TcpListener::bind(at).expect("binds");
        let client = TcpStream::connect_timeout(&at, PATIENCE).expect("connects");
        let (_, peer) = listener.accept().expect("accepts");
        assert_eq!(client.local_addr().expect("connected"), peer);
    }
}

fn listeners(_channel: Channel) {
    let mut diag = sock_diag::SockDiag::open().expect("opens");
    assert_eq!(diag.listening().expect("asks"), []);
    let v4 = [Ipv4Addr::LOCALHOST, address_v4(10)].map(IpAddr::V4);
    let v6 = [Ipv6Addr::LOCALHOST, address_v6(10)].map(IpAddr::V6);
    let addresses: Vec<_> =
        v4.into_iter().chain(v6).map(|address| SocketAddr::new(address, 8080)).collect();
    let sockets: Vec<_> = addresses
        .iter()
        .map(|address| std::net::TcpListener::bind(address).expect("binds"))
        .collect();
    assert_eq!(diag.listening().expect("asks"), addresses);
    drop(sockets);
    assert_eq!(diag.listening().expect("asks"), []);
}

fn replacing(_channel: Channel) {
    let other_port = OUTBOUND + 1;
    let listeners = [OUTBOUND, other_port].map(|port| {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        net::listen_tcp_detached(at, None, false).expect("listens")
    });
    let done = AtomicBool::new(false);
    let connections = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut count = 0_u32;
            while !done.load(Ordering::Relaxed) {
                // A packet that met no rule would go to the hub, which drops it.
                let to = SocketAddr::from((VIP_V4, 80));
                let client = TcpStream::connect_timeout(&to, PATIENCE).expect("is captured");
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("sets");
                count += 1;
                drop(client);
                while listeners.iter().any(|listener| listener.accept().is_ok()) {}
            }
            count
        });
        for round in 0..100 {
            let outbound_port = if round % 2 == 0 { other_port } else { OUTBOUND };
            let mut rules = rules();
            rules.outbound_port = outbound_port;
            nft::install_redirect(&rules).expect("replaces");
        }
        done.store(true, Ordering::Relaxed);
        connecting.join().expect("every connection was captured")
    });
    assert!(connections > 0);
}

fn two_workloads(world: &World) {
    let (server, client) = (world.workload(10), world.workload(11));
    let mut server = world.inside(&server, SIDECAR, "server");
    assert_eq!(server.channel.hear(), "ready");
    world.inside(&client, SIDECAR, "client").succeed();
    server.channel.say("enough");
    server.succeed();
}

/// Tells each connection where it landed and where it was meant to go.
fn incoming_server(mut channel: Channel) {
    let served = task::run_local(async {
        for family in [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)] {
            for port in [INBOUND, EXCLUDED] {
                let at = SocketAddr::new(wildcard(family), port);
                let listener = net::listen_tcp(at, Some(MARK), false).expect("listens");
                let _serving = task::spawn_contained("server", async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let meant = net::original_dst(&stream).expect("is known");
                        let line = format!("{port} {meant}");
                        stream.try_write(line.as_bytes()).expect("writes");
                    }
                });
            }
        }
        channel.say("ready");
        let ended = tokio::task::spawn_blocking(move || channel.hear());
        assert_eq!(ended.await.expect("waits"), "enough");
        assert_eq!(task::panics(), 0);
    });
    served.expect("a runtime");
}

fn incoming_client(_channel: Channel) {
    for server in [IpAddr::V4(address_v4(10)), IpAddr::V6(address_v6(10))] {
        for (port, lands_at) in [(80, INBOUND), (9999, INBOUND), (EXCLUDED, EXCLUDED)] {
            let to = SocketAddr::new(server, port);
            let mut stream = connect_marked(to);
            stream.flush().expect("flushes");
            let mut told = String::new();
            stream.read_to_string(&mut told).expect("reads");
            assert_eq!(told, format!("{lands_at} {to}"));
        }
    }
}

/// A workload ends and another one gets its address, while a neighbour remembers where that was.
fn successor(world: &World) {
    let (first, client) = (world.workload(10), world.workload(11));
    let mut server = world.inside(&first, SIDECAR, "server");
    assert_eq!(server.channel.hear(), "ready");
    let mut client = world.inside(&client, SIDECAR, "client");
    assert_eq!(client.channel.hear(), "called");
    drop((server, first));
    let gone = task::run_local(world.hub.delete_workload(workload_net(10).link));
    gone.expect("a runtime").expect("is removed");
    let second = world.workload(10);
    let mut server = world.inside(&second, SIDECAR, "server");
    assert_eq!(server.channel.hear(), "ready");
    client.channel.say("again");
    client.succeed();
    server.channel.say("enough");
    server.succeed();
}

fn neighbour(mut channel: Channel) {
    let to = SocketAddr::from((address_v4(10), EXCLUDED));
    // The hub refuses, and is remembered for that.
    let hub = task::run_local(net::connect_tcp((address_v4(1), 9).into(), Some(MARK)));
    assert!(hub.expect("a runtime").is_err());
    drop(connect_marked(to));
    let before = neighbours();
    assert_eq!(before[&address_v4(10)], "0a:58:f0:f1:00:0a");
    assert_eq!(before[&address_v4(1)], "0a:58:f0:f1:00:01");
    channel.say("called");
    assert_eq!(channel.hear(), "again");
    drop(connect_marked(to));
    assert_eq!(neighbours(), before);
}

/// What this namespace remembers of its neighbours: address and hardware address.
fn neighbours() -> BTreeMap<Ipv4Addr, String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/arp").expect("is there");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (row[0].parse().expect("an address"), row[3].to_owned())).collect()
}
