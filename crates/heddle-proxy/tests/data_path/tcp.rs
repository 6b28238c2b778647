//! Relayed bytes: all of them, in order, with each side's end as it was.

use std::{
    io,
    sync::{Mutex, mpsc},
    thread,
};

use heddle_model::Protocol;

use crate::support::{Backend, Peer, Sidecar, TestService, echo_server, wait_until};

fn tcp(serve: impl Fn(Peer) + Send + Sync + 'static) -> (Sidecar, Backend, Peer) {
    let backend = Backend::start(serve);
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Tcp, &[backend.address]);
    let address = sidecar.service(&service);
    (sidecar, backend, Peer::connect(address))
}

#[test]
fn each_sides_end_is_passed_on_while_the_other_goes_on() {
    let (_sidecar, _backend, mut client) = tcp(|mut peer| {
        assert_eq!(peer.rest().unwrap(), "question");
        peer.write("answer");
    });
    client.write("question");
    client.finish();
    assert_eq!(client.rest().unwrap(), "answer");

    let (_sidecar, _backend, mut client) = tcp(|mut peer| {
        peer.write("greeting");
        peer.finish();
        assert_eq!(peer.rest().unwrap(), "late");
    });
    assert_eq!(client.rest().unwrap(), "greeting");
    client.write("late");
}

#[test]
fn resets_are_passed_on_as_resets() {
    let (_sidecar, _backend, mut client) = tcp(|mut peer| {
        peer.exactly(1).unwrap();
        peer.reset();
    });
    client.write("x");
    let error = client.rest().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let (seen, kind) = mpsc::channel();
    let seen = Mutex::new(seen);
    let (sidecar, _backend, mut client) = tcp(move |mut peer| {
        peer.exactly(1).unwrap();
        let error = peer.rest().unwrap_err();
        seen.lock().unwrap().send(error.kind()).unwrap();
    });
    client.write("x");
    wait_until("it is relayed", || sidecar.sum("istio_tcp_received_bytes_total", &[]) == 1.0);
    client.reset();
    let kind = kind.recv_timeout(crate::support::PATIENCE).unwrap();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    wait_until("it is counted", || {
        sidecar.sum("istio_tcp_connections_closed_total", &["response_flags=\"DC\""]) == 1.0
    });
}

#[test]
fn bulk_goes_through_whole_both_ways_at_once() {
    const SIZE: usize = 8 * 1024 * 1024 + 3;
    let pattern: Vec<u8> = (0..SIZE).map(|n| (n % 253) as u8).collect();
    let expected = pattern.clone();
    let (sidecar, _backend, mut client) = tcp(move |mut peer| {
        let mut writer = peer.stream.try_clone().unwrap();
        let copy = expected.clone();
        let sender = thread::spawn(move || io::Write::write_all(&mut writer, &copy).unwrap());
        assert!(peer.exactly(SIZE).unwrap() == expected);
        sender.join().unwrap();
    });
    let mut writer = client.stream.try_clone().unwrap();
    let copy = pattern.clone();
    let sender = thread::spawn(move || io::Write::write_all(&mut writer, &copy).unwrap());
    assert!(client.exactly(SIZE).unwrap() == pattern);
    sender.join().unwrap();
    drop(client);
    wait_until("the connection is closed", || {
        sidecar.sum("istio_tcp_connections_closed_total", &[]) == 1.0
    });
    assert_eq!(sidecar.sum("istio_tcp_sent_bytes_total", &[]), SIZE as f64);
    assert_eq!(sidecar.sum("istio_tcp_received_bytes_total", &[]), SIZE as f64);
}

#[test]
fn bytes_are_counted_while_the_connection_is_open() {
    let (sidecar, _backend, mut client) = tcp(echo_server(4));
    client.write("ping");
    client.exactly(4).unwrap();
    wait_until("open bytes are counted", || {
        sidecar.sum("istio_tcp_sent_bytes_total", &["destination_workload=\"reviews\""]) == 4.0
    });
    assert_eq!(sidecar.sum("istio_tcp_connections_opened_total", &[]), 1.0);
    assert_eq!(sidecar.sum("istio_tcp_connections_closed_total", &[]), 0.0);
}

#[test]
fn tcp_rules_choose_the_target() {
    let one = Backend::start(|mut peer| peer.write("one"));
    let two = Backend::at(
        std::net::SocketAddr::from(([127, 0, 0, 2], one.address.port())),
        |mut peer| peer.write("two"),
    );
    let sidecar = Sidecar::start();
    let mut service = TestService::speaking(Protocol::Tcp, &[one.address, two.address]);
    service.endpoints[0].1 = "v1";
    service.endpoints[1].1 = "v2";
    service.tcp = vec![service.target(Some("v2"), 1)];
    let address = sidecar.service(&service);
    for _ in 0..10 {
        assert_eq!(Peer::connect(address).rest().unwrap(), "two");
    }
}

#[test]
fn a_connection_outlives_every_change_of_rules_and_endpoints() {
    let (sidecar, _backend, mut client) = tcp(echo_server(1));
    client.write("a");
    assert_eq!(client.exactly(1).unwrap(), b"a");
    sidecar.told(|set| {
        set.destinations.clear();
        set.endpoints.clear();
        set.addresses.clear();
    });
    client.write("b");
    assert_eq!(client.exactly(1).unwrap(), b"b");
}

#[test]
fn one_of_two_endpoints_that_is_gone_is_not_noticed() {
    let good = Backend::start(|mut peer| peer.write("ok"));
    let dead = std::net::SocketAddr::from(([127, 0, 0, 2], good.address.port()));
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Tcp, &[good.address, dead]);
    let address = sidecar.service(&service);
    for _ in 0..20 {
        assert_eq!(Peer::connect(address).rest().unwrap(), "ok");
    }
}

#[test]
fn a_connection_without_a_byte_is_no_call() {
    let backend = Backend::start(|mut peer| drop(peer.rest()));
    let sidecar = Sidecar::start();
    let service = TestService::speaking(Protocol::Undeclared, &[backend.address]);
    let mut client = Peer::connect(sidecar.service(&service));
    client.finish();
    assert_eq!(client.rest().unwrap(), "");
    wait_until("it is decided", || sidecar.sum("heddle_protocol_verdicts_total", &[]) == 1.0);
    sidecar.settled();
    assert_eq!(sidecar.sum("istio_tcp_connections_opened_total", &[]), 0.0);
    assert_eq!(sidecar.sum("istio_tcp_connections_closed_total", &[]), 0.0);
}
