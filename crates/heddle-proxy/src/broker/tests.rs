//! The broker against a fake holder that passes real descriptors.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use heddle_runtime::{
    fdpass::FdStream,
    task::{run_local, spawn_contained},
};
use heddle_wire::local::{
    holder_api::{HolderReply, HolderRequest},
    proxy_config::Outside,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::*;
use crate::testing::{Folder, proxy_config};

struct Bench {
    _dir: Folder,
    holder: UnixListener,
    broker: Broker,
}

fn bench() -> Bench {
    let dir = Folder::new("broker");
    let socket: PathBuf = dir.path().join("mesh.sock");
    let holder = UnixListener::bind(&socket).unwrap();
    let (broker, requests) = Broker::new(
        Ranges::of(&proxy_config(dir.path())),
        Outside::ThroughHolder(Path::new("mesh.sock")),
    );
    spawn_contained("broker", holder::serve(socket, requests));
    Bench { _dir: dir, holder, broker }
}

impl Bench {
    async fn accept(&self) -> FdStream {
        FdStream::new(self.holder.accept().await.unwrap().0)
    }
}

async fn request(holder: &mut FdStream) -> HolderRequest {
    let (bytes, _) = holder.recv().await.unwrap().unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn reply(
    holder: &FdStream,
    reply: &HolderReply,
    descriptors: &[std::os::fd::BorrowedFd<'_>],
) {
    holder.send(&serde_json::to_vec(reply).unwrap(), descriptors).await.unwrap();
}

#[test]
fn answers_go_to_who_asked_in_whatever_order_they_come() {
    run_local(async {
        let bench = bench();
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = outside.local_addr().unwrap();
        let ask =
            |broker: Broker| tokio::task::spawn_local(async move { broker.connect(to).await });
        let (first, second) = (ask(bench.broker.clone()), ask(bench.broker.clone()));
        let mut holder = bench.accept().await;
        let HolderRequest::Connect { id: one, to: asked } = request(&mut holder).await else {
            panic!()
        };
        assert_eq!(asked, to);
        let HolderRequest::Connect { id: two, .. } = request(&mut holder).await else { panic!() };
        let refused = HolderReply::Refused { id: two, reason: "no route".into(), errno: 113 };
        reply(&holder, &refused, &[]).await;
        let host_side = std::net::TcpStream::connect(to).unwrap();
        reply(&holder, &HolderReply::Connected { id: one }, &[host_side.as_fd()]).await;
        drop(host_side);

        let error = second.await.unwrap().unwrap_err();
        assert!(matches!(error, BrokerError::Refused { errno: 113, .. }), "{error}");
        let mut stream = first.await.unwrap().unwrap();
        let (mut peer, _) = outside.accept().await.unwrap();
        stream.write_all(b"through").await.unwrap();
        drop(stream);
        let mut text = String::new();
        peer.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "through");
    })
    .unwrap();
}

#[test]
fn a_lost_connection_fails_who_waits_and_is_made_again() {
    run_local(async {
        let bench = bench();
        let to = SocketAddr::from(([192, 0, 2, 1], 80));
        let broker = bench.broker.clone();
        let waiting = tokio::task::spawn_local(async move { broker.connect(to).await });
        let mut holder = bench.accept().await;
        request(&mut holder).await;
        drop(holder);
        assert!(matches!(waiting.await.unwrap(), Err(BrokerError::Unreachable)));

        let broker = bench.broker.clone();
        let again = tokio::task::spawn_local(async move { broker.connect(to).await });
        let mut holder = bench.accept().await;
        let HolderRequest::Connect { id, .. } = request(&mut holder).await else { panic!() };
        reply(&holder, &HolderReply::Refused { id, reason: "refused".into(), errno: 111 }, &[])
            .await;
        assert!(matches!(again.await.unwrap(), Err(BrokerError::Refused { errno: 111, .. })));
    })
    .unwrap();
}

#[test]
fn a_holder_that_is_gone_fails_at_once() {
    run_local(async {
        let Bench { _dir, holder, broker } = bench();
        drop(holder);
        let error = broker.connect(SocketAddr::from(([192, 0, 2, 1], 80))).await.unwrap_err();
        assert!(matches!(error, BrokerError::Unreachable), "{error}");
    })
    .unwrap();
}

#[test]
fn the_host_gateway_is_the_hosts_loopback_in_either_family() {
    run_local(async {
        let bench = bench();
        let to = SocketAddr::from((Ipv6Addr::new(0xfd68, 0x6564, 0x646c, 0, 0, 0, 0, 1), 5432));
        let broker = bench.broker.clone();
        let asked = tokio::task::spawn_local(async move { broker.connect(to).await });
        let mut holder = bench.accept().await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            let HolderRequest::Connect { id, to } = request(&mut holder).await else { panic!() };
            seen.push(to);
            reply(&holder, &HolderReply::Refused { id, reason: "refused".into(), errno: 111 }, &[])
                .await;
        }
        assert_eq!(
            seen,
            [
                SocketAddr::from((Ipv6Addr::LOCALHOST, 5432)),
                SocketAddr::from((Ipv4Addr::LOCALHOST, 5432))
            ]
        );
        assert!(asked.await.unwrap().is_err());
    })
    .unwrap();
}

#[test]
fn garbage_from_the_holder_ends_the_connection_not_the_sidecar() {
    run_local(async {
        let bench = bench();
        let to = SocketAddr::from(([192, 0, 2, 1], 80));
        for frame in [&b"not json"[..], br#"{"connected":{"id":1}}"#] {
            let broker = bench.broker.clone();
            let waiting = tokio::task::spawn_local(async move { broker.connect(to).await });
            let mut holder = bench.accept().await;
            request(&mut holder).await;
            holder.send(frame, &[]).await.unwrap();
            assert!(matches!(waiting.await.unwrap(), Err(BrokerError::Unreachable)));
        }
    })
    .unwrap();
}

#[test]
fn a_sidecar_without_a_holder_says_so() {
    run_local(async {
        let dir = Folder::new("no-holder");
        let (broker, _requests) = Broker::new(Ranges::of(&proxy_config(dir.path())), Outside::None);
        let error = broker.connect(SocketAddr::from(([192, 0, 2, 1], 80))).await.unwrap_err();
        assert!(matches!(error, BrokerError::NoOutside), "{error}");
    })
    .unwrap();
}
