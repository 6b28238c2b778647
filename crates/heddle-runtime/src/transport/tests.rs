//! Both carriers have the same manners: every fact is tried on a TCP connection and on a pair.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::task::run_local;

async fn tcp_pair() -> (Transport, Transport) {
    let listener = net::listen_tcp("127.0.0.1:0".parse().unwrap(), None, false).unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(net::connect_tcp(address, None), listener.accept());
    (near.unwrap().into(), far.unwrap().0.into())
}

/// Runs a fact on both carriers.
fn on_both<F: Future<Output = ()>>(fact: impl Fn(Transport, Transport) -> F) {
    run_local(async {
        let (near, far) = Transport::pair();
        fact(near, far).await;
        let (near, far) = tcp_pair().await;
        fact(near, far).await;
    })
    .unwrap();
}

async fn rest(end: &mut Transport) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).await.map(|_| bytes)
}

#[test]
fn an_end_is_passed_on_and_the_other_direction_goes_on() {
    on_both(|mut near, mut far| async move {
        near.write_all(b"question").await.unwrap();
        near.shutdown_write();
        assert_eq!(rest(&mut far).await.unwrap(), b"question");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        assert_eq!(rest(&mut near).await.unwrap(), b"answer");
    });
}

#[test]
fn a_reset_is_seen_as_one_behind_the_bytes_that_came_before() {
    on_both(|mut near, mut far| async move {
        far.write_all(b"x").await.unwrap();
        near.peek().await.unwrap();
        far.reset();
        near.reset_by_peer().await;
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(near.liveness(), Liveness::Closed);
    });
}

#[test]
fn closing_without_having_read_is_a_reset() {
    on_both(|mut near, far| async move {
        near.write_all(b"unread").await.unwrap();
        far.peek().await.unwrap();
        drop(far);
        near.reset_by_peer().await;
        assert!(rest(&mut near).await.is_err());
    });
}

#[test]
fn writing_to_one_that_closed_brings_a_reset_back() {
    on_both(|mut near, far| async move {
        drop(far);
        assert_eq!(near.peek().await.unwrap(), 0);
        near.write_all(b"too late").await.unwrap();
        near.reset_by_peer().await;
        assert!(near.write_all(b"later still").await.is_err());
    });
}

#[test]
fn a_look_takes_nothing_and_tells_idle_from_readable_from_closed() {
    on_both(|mut near, mut far| async move {
        assert!(near.is_quiet());
        assert_eq!(near.liveness(), Liveness::Idle);
        far.write_all(b"x").await.unwrap();
        assert_eq!(near.peek().await.unwrap(), 1);
        assert_eq!(near.liveness(), Liveness::Readable);
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        far.shutdown_write();
        assert_eq!(near.peek().await.unwrap(), 0);
        assert_eq!(near.liveness(), Liveness::Closed);
        assert!(!near.is_quiet());
    });
}

#[test]
fn a_direction_that_is_full_waits_for_its_reader() {
    on_both(|mut near, mut far| async move {
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n as u8).collect();
        let writes = async {
            let (_, mut write) = near.split();
            write.write_both(&sent[..100], &sent[100..]).await.unwrap();
            write.shutdown();
        };
        let ((), received) = tokio::join!(writes, rest(&mut far));
        assert!(received.unwrap() == sent);
    });
}

#[test]
fn bytes_move_between_any_two_carriers_up_to_the_limit() {
    run_local(async {
        for (from_tcp, to_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            let make = async |tcp| if tcp { tcp_pair().await } else { Transport::pair() };
            let (mut source, mut from) = make(from_tcp).await;
            let (mut to, mut target) = make(to_tcp).await;
            let feeds = async {
                source.write_all(&[7; 300_000]).await.unwrap();
                source.shutdown_write();
            };
            let moves = async {
                let ((mut read, _), (_, mut write)) = (from.split(), to.split());
                let mut told = 0;
                let mut progress = |count| told += count;
                let first =
                    move_bytes(&mut read, &mut write, Some(100_000), &mut progress).await.unwrap();
                assert_eq!((first, told), (100_000, 100_000));
                let second = move_bytes(&mut read, &mut write, None, &mut |_| ()).await.unwrap();
                assert_eq!(second, 200_000, "less than the limit: the source ended");
                write.shutdown();
            };
            let ((), (), received) = tokio::join!(feeds, moves, rest(&mut target));
            assert_eq!(received.unwrap(), [7; 300_000]);
        }
    })
    .unwrap();
}

#[test]
fn a_move_ends_at_its_limit_though_the_source_goes_on() {
    run_local(async {
        for (from_tcp, to_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
            let make = async |tcp| if tcp { tcp_pair().await } else { Transport::pair() };
            let (mut source, mut from) = make(from_tcp).await;
            let (mut to, mut target) = make(to_tcp).await;
            source.write_all(b"all of it").await.unwrap();
            let ((mut read, _), (_, mut write)) = (from.split(), to.split());
            let moved = move_bytes(&mut read, &mut write, Some(9), &mut |_| ()).await.unwrap();
            assert_eq!(moved, 9, "and nothing waited for more");
            drop(to);
            assert_eq!(rest(&mut target).await.unwrap(), b"all of it");
        }
    })
    .unwrap();
}

#[test]
fn a_move_says_which_side_broke() {
    run_local(async {
        for tcp in [true, false] {
            let make = async || if tcp { tcp_pair().await } else { Transport::pair() };
            let (mut from, source) = make().await;
            let (mut to, _target) = make().await;
            source.reset();
            let ((mut read, _), (_, mut write)) = (from.split(), to.split());
            let error = move_bytes(&mut read, &mut write, None, &mut |_| ()).await.unwrap_err();
            assert_eq!((error.side, error.moved), (BrokenEnd::Read, 0));
        }
    })
    .unwrap();
}
