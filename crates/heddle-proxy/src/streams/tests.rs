//! When a server is taken for gone, and what becomes of what its connection carried.

use std::future::pending;

use h2::server;
use heddle_runtime::task::{run_local, spawn_contained};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Looks once a second at what `found` says, and tells after how many seconds it was too long.
fn too_long_after(found: impl Fn(u32) -> Option<Duration>) -> Option<u32> {
    let begun = clock::now();
    let mut silence = Silence::default();
    (0..100).find(|second| silence.is_too_long(begun + SECOND * *second, found(*second)))
}

#[test]
fn who_acknowledges_nothing_of_what_was_sent_is_gone_after_ten_seconds() {
    assert_eq!(too_long_after(|second| Some(SECOND * second)), Some(10));
}

#[test]
fn the_silence_before_something_was_sent_does_not_count() {
    let idle = Duration::from_secs(3_600);
    assert_eq!(too_long_after(|second| (second >= 20).then(|| idle + SECOND * second)), Some(30));
}

#[test]
fn who_acknowledges_something_now_and_then_is_there() {
    assert_eq!(too_long_after(|second| Some(SECOND * (second % 10))), None);
    assert_eq!(too_long_after(|second| (second % 10 > 0).then_some(SECOND * second)), None);
}

#[test]
fn whoever_waits_on_a_connection_to_a_server_that_is_gone_is_told_and_others_get_another() {
    run_local(async {
        let dialled = Rc::new(Cell::new(0));
        let dial = async || {
            let (near, far) = Transport::pair();
            dialled.set(dialled.get() + 1);
            drop(spawn_contained("server", async move {
                let mut connection = server::handshake(far).await.unwrap();
                // It takes requests and answers none.
                let mut requests = Vec::new();
                while let Some(Ok(request)) = connection.accept().await {
                    requests.push(request);
                }
                pending::<()>().await;
            }));
            Ok(near)
        };
        let streams = Streams::default();
        let begun = clock::now();
        let head = || {
            let request = http::Request::get("http://reviews/").body(()).unwrap();
            request.into_parts().0
        };
        let (first, second) = (streams.take(false, dial).await, streams.take(false, dial).await);
        let (first, second) = (first.unwrap(), second.unwrap());
        let (answer, _body) = first.send(head(), true).await.unwrap();
        let (other, _body) = second.send(head(), true).await.unwrap();
        assert_eq!(dialled.get(), 1);
        for seconds in 0..=10 {
            assert!(!first.has_ended(), "after {seconds} s");
            streams.cut_silent(begun + SECOND * seconds, |_| Some(SECOND * seconds));
        }
        assert!(first.has_ended());
        assert!(answer.await.unwrap_err().is_io());
        assert!(other.await.unwrap_err().is_io());
        let third = streams.take(false, dial).await.unwrap();
        assert_eq!((dialled.get(), third.reused), (2, false));
    })
    .unwrap();
}

/// After how many seconds a request ends to a server that is `there`, or has hung up on everything, where a rule
/// has it asked every 30 s and gives it 2 s; `None`: not within an hour.
fn ends_after(there: bool) -> Option<u64> {
    run_local(async {
        tokio::time::pause();
        let dial = async || {
            let (near, far) = Transport::pair();
            drop(spawn_contained("server", async move {
                let mut connection = server::handshake(far).await.unwrap();
                let _request = connection.accept().await;
                match there {
                    true => drop(connection.accept().await),
                    false => pending::<()>().await,
                }
            }));
            Ok(near)
        };
        let streams = Streams::default();
        let pings = Http2Keepalive { interval: SECOND * 30, timeout: SECOND * 2 };
        streams.limited(StreamLimits { pings: Some(pings), ..StreamLimits::default() });
        let stream = streams.take(false, dial).await.unwrap();
        let request = http::Request::get("http://reviews/").body(()).unwrap();
        let begun = clock::now();
        let (answer, _body) = stream.send(request.into_parts().0, true).await.unwrap();
        let ended = clock::within(SECOND * 3_600, answer).await?;
        assert!(ended.unwrap_err().is_io());
        assert!(streams.take(false, dial).await.is_ok_and(|stream| !stream.reused));
        Some(clock::now().saturating_duration_since(begun).as_secs())
    })
    .unwrap()
}

#[test]
fn a_server_that_answers_no_ping_in_time_is_gone_where_a_rule_has_it_asked() {
    assert_eq!(ends_after(true), None);
    assert_eq!(ends_after(false), Some(32));
}
