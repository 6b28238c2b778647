//! Live calls: nobody is told anything before somebody looks, what a reader does not take is lost and counted, and
//! no call waits for it.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use heddle_model::{
    Protocol,
    discovery::{AbortWith, Injection, PortFault, Provenance},
};
use heddle_proxy::{
    limits::{TAP_BYTES_WAITING, TAPS},
    tap::{TapError, TapReader},
};
use heddle_runtime::clock;
use heddle_wire::local::tap_api::{LINE_BYTES_MAX, Side, TapFilter, TapLine, TappedCall};
use http::{Request, Response};

use crate::{
    http2::{connect, send, serve, whole},
    mesh::{End, GET, Mesh, Sidecar, answers, with_standing_clock},
};

fn looks(sidecar: &Sidecar, query: &str) -> TapReader {
    sidecar.shared.taps.attach(TapFilter::parse(query).unwrap()).unwrap()
}

/// A line that is there now.
fn now(reader: &mut TapReader) -> Option<TappedCall> {
    match reader.poll_line(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(line)) => match serde_json::from_slice(&line).unwrap() {
            TapLine::Call(call) => Some(*call),
            other => panic!("{other:?}"),
        },
        _ => None,
    }
}

/// The next one.
async fn next(reader: &mut TapReader) -> TappedCall {
    let line = poll_fn(|context| reader.poll_line(context)).await.unwrap();
    match serde_json::from_slice(&line).unwrap() {
        TapLine::Call(call) => *call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_sees_calls_from_when_it_is_there_until_it_goes() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        mesh.call().ask(GET).await;
        assert_eq!(mesh.client.shared.taps.count(), 0);
        let (mut client, mut server) = (looks(&mesh.client, ""), looks(&mesh.servers[0], ""));
        let mut end = mesh.call();
        end.ask("POST /a?token=t&b=c HTTP/1.1\r\nHost: reviews\r\nContent-Length: 0\r\n\r\n").await;
        for (reader, side) in [(&mut client, Side::Client), (&mut server, Side::Server)] {
            let call = next(reader).await;
            assert_eq!((call.side, call.status, call.retries), (side, 200, 0));
            assert_eq!((&*call.method, &*call.path), ("POST", "/a?token=(hidden)&b=c"));
            assert_eq!(call.to.service.as_deref(), Some("reviews.default.svc.cluster.local"));
            assert!(now(reader).is_none(), "what was before is not told");
        }
        // On a connection that is open already, too.
        end.ask(GET).await;
        assert!(next(&mut client).await.seen_by_callee);
        drop((client, server));
        assert_eq!(mesh.servers[0].shared.taps.count(), 0);
        end.ask(GET).await;
        let mut later = looks(&mesh.client, "");
        assert!(now(&mut later).is_none());
    });
}

#[test]
fn a_reader_that_takes_nothing_holds_up_no_call_and_costs_no_more_than_its_share() {
    const CALLS: usize = 800;
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let mut reader = looks(&mesh.client, "");
        let mut end = mesh.call();
        for _ in 0..CALLS {
            let (head, _) = end.ask(GET).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        // The last one is told once all of it is over.
        clock::sleep(Duration::from_secs(1)).await;
        let lost = usize::try_from(reader.lost()).unwrap();
        assert!(lost > 0 && lost < CALLS, "{lost}");
        let mut bytes = 0;
        for _ in lost..CALLS {
            bytes += poll_fn(|context| reader.poll_line(context)).await.unwrap().len();
        }
        assert!(now(&mut reader).is_none(), "what was not lost was there");
        assert!(bytes <= TAP_BYTES_WAITING + LINE_BYTES_MAX, "{bytes}");
        end.ask(GET).await;
        next(&mut reader).await;
        assert_eq!(reader.lost(), 0, "once it reads again nothing is lost");
    });
}

#[test]
fn faults_and_refusals_are_told_with_their_rule_and_each_reader_has_its_own_filter() {
    with_standing_clock(|| async {
        let fault = PortFault {
            provenance: Provenance("Fault/default/f".to_owned()),
            matches: Vec::new(),
            percent: 100.0,
            does: Injection::Abort(AbortWith { status: 418, grpc: None }),
            expires: None,
        };
        let faults = (vec![fault], Vec::new());
        let mesh = Mesh::faulty(Protocol::Http, faults, |_| {}, answers);
        let mut all = looks(&mesh.client, "header=x-user");
        let mut failed = looks(&mesh.client, "status=5xx");
        mesh.call().ask("GET / HTTP/1.1\r\nHost: reviews\r\nX-User: me\r\n\r\n").await;
        let call = next(&mut all).await;
        assert_eq!((call.status, &*call.flags), (418, "FI"));
        assert_eq!((&*call.faults[0].what, &*call.faults[0].rule), ("abort", "Fault/default/f"));
        assert_eq!(call.request_headers["x-user"], "me");
        assert!(now(&mut failed).is_none());

        let mesh = Mesh::new(answers);
        mesh.desert(20);
        let mut unseen = looks(&mesh.client, "unseen=1&status=failed");
        mesh.call().ask(GET).await;
        let call = next(&mut unseen).await;
        assert_eq!((call.status, call.side), (503, Side::Client));
        assert_eq!(call.refusal.unwrap().code, "connect-failed");
    });
}

#[test]
fn requests_of_http2_and_connections_are_calls_like_others() {
    with_standing_clock(|| async {
        let mesh = Mesh::speaking(Protocol::Http2, &[20], |end| {
            serve(end, |_, mut respond| async move {
                respond.send_response(Response::new(()), true).unwrap();
            })
        });
        let mut reader = looks(&mesh.client, "");
        let mut sender = connect(mesh.call()).await;
        let request = Request::get("http://reviews/7?x=1").body(()).unwrap();
        let (response, _stream) = send(&mut sender, request, true).await;
        drop(whole(response).await);
        let call = next(&mut reader).await;
        assert_eq!(
            (&*call.protocol, &*call.path, &*call.authority),
            ("HTTP/2", "/7?x=1", "reviews")
        );

        let takes = |mut end: End| async move { assert_eq!(end.body(5).await, 5) };
        let mesh = Mesh::speaking(Protocol::Tcp, &[20], takes);
        let mut reader = looks(&mesh.servers[0], "");
        let mut end = mesh.call();
        end.send("hello").await;
        drop(end);
        let call = next(&mut reader).await;
        assert_eq!((&*call.protocol, call.received_bytes, call.status), ("tcp", 5, 0));
    });
}

#[test]
fn there_are_so_many_readers_and_no_more() {
    with_standing_clock(|| async {
        let mesh = Mesh::new(answers);
        let all: Vec<_> = (0..TAPS).map(|_| looks(&mesh.client, "")).collect();
        let taps = Arc::clone(&mesh.client.shared.taps);
        assert_eq!(taps.attach(TapFilter::default()).unwrap_err(), TapError::TooMany);
        drop(all);
        assert!(taps.attach(TapFilter::default()).is_ok());
    });
}
