//! Rules as a pod has them: the sidecar is told by its user, lists include and exclude, and what was written is
//! proven before anything depends on it.
//!
//! In a user namespace only one user exists. So each test takes once that one for the sidecar's, and once another.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use heddle_runtime::{
    iptables, nft, process,
    proof::{self, ProofError},
    redirect::{Escape, RedirectRules},
};

use crate::world::{
    Channel, DNS, INBOUND, OUTBOUND, SIDECAR, World, address_v4, address_v6, as_both_users,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// A user that nobody is here.
const NOBODY_HERE: u32 = 1337;

as_both_users!(the_sidecars_user_escapes_and_others_are_captured, one_pod, "pod" => users);
as_both_users!(lists_include_and_exclude, one_pod, "pod" => lists);
as_both_users!(a_capture_is_proven, one_pod, "pod" => proven);
as_both_users!(rules_that_do_not_capture_are_found_out, one_pod, "pod" => not_captured);
as_both_users!(iptables_captures_the_same, one_pod, "pod" => by_iptables);
as_both_users!(the_text_is_taken_by_nft, one_pod, "pod" => text);

fn one_pod(world: &World) {
    let pod = world.workload(10);
    world.inside(&pod, SIDECAR, "pod").succeed();
}

fn rules(escape: Escape) -> RedirectRules {
    RedirectRules::all(escape, [OUTBOUND, INBOUND, DNS])
}

fn others() -> Escape {
    Escape::Owner { uid: NOBODY_HERE, gid: NOBODY_HERE }
}

fn own_addresses() -> [IpAddr; 2] {
    [address_v4(10).into(), address_v6(10).into()]
}

fn loopback_of(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Where a connection to `to` lands: among listeners there and in the sidecar's place.
fn lands(to: SocketAddr) -> u16 {
    let sidecar = TcpListener::bind(SocketAddr::new(loopback_of(to.ip()), OUTBOUND));
    let listeners = [TcpListener::bind(to), sidecar].map(|listener| {
        let listener = listener.expect("binds");
        listener.set_nonblocking(true).expect("sets");
        listener
    });
    let client = TcpStream::connect_timeout(&to, PATIENCE).expect("somebody listens");
    let own = client.local_addr().expect("connected");
    let landed = listeners.iter().find(|one| one.accept().is_ok_and(|(_, peer)| peer == own));
    landed.expect("one of them").local_addr().expect("bound").port()
}

fn users(_channel: Channel) {
    let (uid, gid) = process::effective_ids();
    let by_user = Escape::Owner { uid, gid: NOBODY_HERE };
    let by_group = Escape::Owner { uid: NOBODY_HERE, gid };
    for (escape, expected) in [(others(), OUTBOUND), (by_user, 8080), (by_group, 8080)] {
        nft::install_redirect(&rules(escape)).expect("installs");
        for own in own_addresses() {
            assert_eq!(lands(SocketAddr::new(own, 8080)), expected, "{escape:?} {own}");
        }
    }
    nft::install_redirect(&rules(by_user)).expect("installs");
    let server = UdpSocket::bind(SocketAddr::new(address_v4(10).into(), 53)).expect("binds");
    let client = UdpSocket::bind(SocketAddr::new(address_v4(10).into(), 0)).expect("binds");
    server.set_read_timeout(Some(PATIENCE)).expect("sets");
    client.send_to(b"own", (address_v4(10), 53)).expect("sends");
    let (count, _) = server.recv_from(&mut [0; 8]).expect("the sidecar's own question came here");
    assert_eq!(count, 3);
}

fn lists(_channel: Channel) {
    let (v4, v6) = (IpAddr::V4(address_v4(10)), IpAddr::V6(address_v6(10)));
    let network = |text: &str| text.parse().expect("a network");
    let mut included = rules(others());
    included.outbound_included = Some(vec![network("240.241.0.0/17"), network("fd68::/15")]);
    included.outbound_ports_excluded = vec![8081];
    let mut excluded = rules(others());
    excluded.outbound_excluded = vec![network("240.241.0.8/30"), network("fd68:6564:646c:1::a")];
    let mut elsewhere = rules(others());
    elsewhere.outbound_included = Some(vec![network("240.241.128.0/17"), network("fd6a::/15")]);
    elsewhere.outbound_ports_included = vec![8082];
    let mut by_interface = rules(others());
    by_interface.interfaces_excluded = vec!["lo".to_owned()];
    for (name, rules, port, captured) in [
        ("included", &included, 8080, true),
        ("included", &included, 8081, false),
        ("excluded", &excluded, 8080, false),
        ("elsewhere", &elsewhere, 8080, false),
        ("elsewhere", &elsewhere, 8082, true),
        ("by interface", &by_interface, 8080, false),
    ] {
        nft::install_redirect(rules).expect("installs");
        for own in [v4, v6] {
            let to = SocketAddr::new(own, port);
            let expected = if captured { OUTBOUND } else { port };
            assert_eq!(lands(to), expected, "{name} {to}");
            if name != "by interface" {
                assert_eq!(rules.captured(to), captured.then_some(OUTBOUND), "{name} {to}");
            }
        }
    }
}

fn proven(_channel: Channel) {
    // Twice, as when a container is started again.
    for _ in 0..2 {
        nft::install_redirect(&rules(others())).expect("installs");
        let proof = proof::prove(&rules(others())).expect("is captured");
        assert_eq!(proof.untried, Vec::<String>::new());
        let expected = own_addresses().map(|own| [9, 53].map(|port| SocketAddr::new(own, port)));
        assert_eq!(proof.captured, expected.concat());
    }
    let _sidecar = TcpListener::bind((Ipv4Addr::LOCALHOST, OUTBOUND)).expect("binds");
    let proof = proof::prove(&rules(others())).expect("is captured");
    assert!(proof.untried[0].starts_with("127.0.0.1:15001 is served already"), "{proof:?}");
    let mut nothing = rules(others());
    nothing.outbound_included = Some(Vec::new());
    nothing.dns_port = None;
    nft::install_redirect(&nothing).expect("installs");
    let proof = proof::prove(&nothing).expect("there is nothing to prove");
    assert_eq!((proof.captured.len(), proof.untried.len()), (0, 2), "{proof:?}");
}

/// Where the machine's iptables can be used: it needs kernel modules and, some of it, root.
fn by_iptables(_channel: Channel) {
    let mut rules = rules(others());
    rules.outbound_ports_excluded = vec![8081];
    for _ in 0..2 {
        match iptables::install_redirect(&rules) {
            Ok(programs) => assert_eq!(programs.len(), 2, "{programs:?}"),
            Err(error) => return skip(&format!("iptables: {error}")),
        }
        // What the world had written by nftables captures more than this: it goes.
        let nothing = RedirectRules {
            outbound_included: Some(Vec::new()),
            dns_port: None,
            ..self::rules(others())
        };
        nft::install_redirect(&nothing).expect("installs");
        for own in own_addresses() {
            assert_eq!(lands(SocketAddr::new(own, 8080)), OUTBOUND);
            assert_eq!(lands(SocketAddr::new(own, 8081)), 8081);
        }
        proof::prove(&rules).expect("is captured");
    }
}

/// Says so where the harness does not swallow it.
fn skip(why: &str) {
    let line = format!("SKIPPED {why}\n");
    io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
}

fn not_captured(_channel: Channel) {
    let (uid, gid) = process::effective_ids();
    nft::install_redirect(&rules(Escape::Owner { uid, gid })).expect("installs");
    let error = proof::prove(&rules(others())).expect_err("its own connection escaped");
    let ProofError::NotCaptured { target, .. } = &error else { panic!("{error}") };
    assert_eq!(*target, SocketAddr::new(address_v4(10).into(), 9));
    assert!(error.to_string().contains("was not captured"), "{error}");
}

fn text(_channel: Channel) {
    let mut rules = rules(others());
    rules.inbound_excluded = vec![15020, 15021];
    rules.outbound_excluded = vec!["10.0.0.0/9".parse().expect("a network")];
    rules.interfaces_excluded = vec!["net1".to_owned()];
    let file = std::env::temp_dir().join(format!("heddle-rules-{}", std::process::id()));
    std::fs::write(&file, rules.text()).expect("writes");
    let checked = Command::new("nft").arg("--check").arg("--file").arg(&file).output();
    drop(std::fs::remove_file(&file));
    match checked {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
        }
        // A machine without the program: nothing of ours needs it.
        Err(error) => skip(&format!("nft --check: {error}")),
    }
}
