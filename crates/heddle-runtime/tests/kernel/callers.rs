//! Where callers keep their addresses: an application behind a sidecar sees who calls it, of both families, whoever
//! wrote the rules, and whatever ports callers call from.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use heddle_runtime::{
    iptables, net,
    netlink::Netlink,
    nft, proof,
    redirect::{Escape, RedirectRules},
    task,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::world::{
    Channel, DNS, INBOUND, MARK, OUTBOUND, SIDECAR, World, address_v4, address_v6, as_both_users,
};

const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
/// A user that nobody is here.
const NOBODY_HERE: u32 = 1337;

as_both_users!(by_nftables, two_workloads, "server" => with_nftables, "client" => client);
as_both_users!(by_iptables, two_workloads, "server" => with_iptables, "client" => client);
as_both_users!(the_text_is_taken_by_nft, one_workload, "workload" => text);

fn two_workloads(world: &World) {
    let (server, client) = (world.workload(10), world.workload(11));
    let mut server = world.inside(&server, SIDECAR, "server");
    if server.channel.hear() == "ready" {
        world.inside(&client, SIDECAR, "client").succeed();
        server.channel.say("enough");
    }
    server.succeed();
}

fn one_workload(world: &World) {
    let workload = world.workload(10);
    world.inside(&workload, SIDECAR, "workload").succeed();
}

fn rules(callers_kept_at: Vec<IpAddr>) -> RedirectRules {
    let escape = Escape::Owner { uid: NOBODY_HERE, gid: NOBODY_HERE };
    RedirectRules { callers_kept_at, ..RedirectRules::all(escape, [OUTBOUND, INBOUND, DNS]) }
}

fn own(number: u8) -> [IpAddr; 2] {
    [address_v4(number).into(), address_v6(number).into()]
}

fn wildcard(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn with_nftables(channel: Channel) {
    serve(channel, |rules| nft::install_redirect(rules).map_err(|error| error.to_string()));
}

/// Where the machine's iptables can be used: it needs kernel modules and, some of it, root.
fn with_iptables(channel: Channel) {
    serve(channel, |rules| {
        iptables::install_redirect(rules).map_err(|error| format!("iptables: {error}"))?;
        // What the world had written by nftables goes.
        let mut nothing = self::rules(Vec::new());
        nothing.outbound_included = Some(Vec::new());
        nothing.inbound_included = Some(Vec::new());
        nothing.dns_port = None;
        nft::install_redirect(&nothing).map_err(|error| error.to_string())
    });
}

/// A pod: the rules, proven; a sidecar that passes connections on; an application that says whom it sees.
fn serve(mut channel: Channel, install: impl Fn(&RedirectRules) -> Result<(), String>) {
    let kept = rules(own(10).to_vec());
    let mut netlink = Netlink::open().expect("opens");
    // Again and again, and back: as when containers start anew with other wishes.
    for rules in [&kept, &kept, &rules(Vec::new()), &rules(Vec::new()), &kept] {
        if let Err(why) = install(rules) {
            std::io::stderr().write_all(format!("SKIPPED {why}\n").as_bytes()).expect("prints");
            return channel.say("skipped");
        }
        rules.route_callers(&mut netlink).expect("routes");
        let proof = proof::prove(rules).expect("holds");
        assert_eq!(proof.callers_kept, rules.callers_kept_at);
        assert_eq!(proof.untried, Vec::<String>::new());
    }
    for family in own(10) {
        let at = SocketAddr::new(wildcard(family), PORT);
        let application = net::listen_tcp_detached(at, None, false).expect("listens");
        application.set_nonblocking(false).expect("sets");
        std::thread::spawn(move || {
            for stream in application.incoming() {
                let stream = stream.expect("accepts");
                std::thread::spawn(move || answer(&stream));
            }
        });
    }
    let served = task::run_local(async {
        for family in own(10) {
            let at = SocketAddr::new(wildcard(family), INBOUND);
            let listener = net::listen_tcp(at, None, false).expect("listens");
            drop(task::spawn_contained("sidecar", async move {
                loop {
                    let (mut stream, peer) = listener.accept().await.expect("accepts");
                    let meant = net::original_dst(&stream).expect("is known");
                    drop(task::spawn_contained("connection", async move {
                        let application = net::connect_tcp_for(peer.ip(), meant.port(), None);
                        let mut application = application.await.expect("connects");
                        let both = tokio::io::copy_bidirectional(&mut stream, &mut application);
                        let _ended = both.await;
                    }));
                }
            }));
        }
        channel.say("ready");
        let ended = tokio::task::spawn_blocking(move || channel.hear());
        assert_eq!(ended.await.expect("waits"), "enough");
        assert_eq!(task::panics(), 0);
    });
    served.expect("a runtime");
}

/// To each line: who sent it, to which address.
fn answer(mut stream: &TcpStream) {
    let (peer, local) = (stream.peer_addr().expect("is"), stream.local_addr().expect("is"));
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if stream.write_all(format!("{peer} {local} {line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// A connection to the server from a port of choice; 0: any.
fn call(from: SocketAddr, server: IpAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.expect("a socket");
    socket.set_mark(MARK).expect("may");
    socket.set_reuse_address(true).expect("sets");
    socket.bind(&SockAddr::from(from)).expect("binds");
    let to = SockAddr::from(SocketAddr::new(server, PORT));
    socket.connect_timeout(&to, PATIENCE).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    stream
}

/// Whom the application sees at the other end.
fn seen(mut stream: &TcpStream, server: IpAddr, word: &str) -> SocketAddr {
    stream.write_all(format!("{word}\n").as_bytes()).expect("writes");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("is answered");
    let words: Vec<&str> = line.split_whitespace().collect();
    let [peer, local, said] = words[..] else { panic!("{line}") };
    assert_eq!(said, word);
    assert_eq!(local.parse(), Ok(SocketAddr::new(server, PORT)), "as if called there");
    peer.parse().expect("an address")
}

fn client(_channel: Channel) {
    for (own, server) in own(11).into_iter().zip(own(10)) {
        let mut open = vec![call(SocketAddr::new(own, 0), server)];
        for _ in 0..8 {
            let last = open.last().expect("one");
            let peer = seen(last, server, "first");
            assert_eq!(peer.ip(), own);
            if last.local_addr().expect("connected").port() == peer.port() {
                break;
            }
            // From the very port that the sidecar has taken in this one's name: they are not mixed up.
            let next = call(peer, server);
            open.push(next);
        }
        for stream in &open {
            assert_eq!(seen(stream, server, "again").ip(), own);
        }
        assert!(open.len() > 1);
    }
}

fn text(_channel: Channel) {
    let file = std::env::temp_dir().join(format!("heddle-callers-{}", std::process::id()));
    std::fs::write(&file, rules(own(10).to_vec()).text()).expect("writes");
    let nft = std::process::Command::new("nft").arg("--check").arg("--file").arg(&file).output();
    drop(std::fs::remove_file(&file));
    match nft {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
        }
        Err(error) => {
            let line = format!("SKIPPED nft --check: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).expect("prints");
        }
    }
}
