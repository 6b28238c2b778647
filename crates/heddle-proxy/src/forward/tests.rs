//! What cannot be brought about from outside: a request that is written in part, a clock that stands.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use heddle_runtime::task;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::*;
use crate::{
    direction::Direction,
    exchange::Http1Exchange,
    http1::Client,
    limits::INBOUND_IDLE_TIMEOUT,
    metrics::{Edge, Reporter, ServiceLabels},
    outgoing::{OutgoingRequest, RequestEdits},
    pool::Tenancy,
    series::SeriesSet,
    testing::worker,
    upstream::DialTarget,
};

/// Far less than the request, so that one write cannot take it.
const SOCKET_BYTES: u32 = 4 * 1024;

/// A server's listener and a connection to it, between small buffers.
async fn narrow() -> (TcpListener, TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let near = TcpSocket::new_v4().unwrap();
    near.set_send_buffer_size(SOCKET_BYTES).unwrap();
    let near = near.connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (listener, near.unwrap(), far.unwrap().0)
}

/// A client's connection on which `request` has arrived.
async fn asked(request: &str) -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    let mut near = near.unwrap();
    near.write_all(request.as_bytes()).await.unwrap();
    (Client::new(far.unwrap().0.into(), None, INBOUND_IDLE_TIMEOUT, Direction::Inbound), near)
}

fn outcome(worker: &Rc<Worker>) -> RequestOutcome {
    let service = ServiceLabels::passthrough(None);
    let edge = Edge { reporter: Reporter::Source, peer: None, service };
    let series = MetricSeries::Edge(Rc::new(SeriesSet::new(edge, 0)));
    RequestOutcome::begin(worker, Direction::Outbound, series, clock::now())
}

/// The client's request, ready to be sent.
async fn prepared(
    worker: &Worker,
    client: &mut Client,
    outcome: &RequestOutcome,
) -> OutgoingRequest {
    let request = client.read_request().await.unwrap().expect("a request");
    let edits = RequestEdits {
        path: None,
        changes: None,
        retries: None,
        limit: None,
        default_host: &String::new,
        to_a_hop: false,
        trace: None,
    };
    let mut outgoing = client.prepare(worker, &request, &edits, outcome);
    client.take_body(&mut outgoing, outcome).unwrap();
    outgoing
}

async fn a_post_that_is_cut_off() {
    let worker = worker();
    let body = "x".repeat(20 * 1024);
    let head = "POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 20480\r\n\r\n";
    let (mut client, _application) = asked(&format!("{head}{body}")).await;
    let (listener, near, mut far) = narrow().await;
    let upstream =
        worker.upstreams.of_target(DialTarget::Workload(listener.local_addr().unwrap()), None);
    upstream.pool.put(near.into(), clock::now(), (Tenancy::Anybody, &client.tenant));

    let mut outcome = outcome(&worker);
    let mut outgoing = prepared(&worker, &mut client, &outcome).await;
    let prepared = outgoing.out.0.len();
    let backend = Backend::Upstream(upstream);
    let dies = async {
        // Some of it has come; the rest waits for room that there never will be.
        assert!(far.read(&mut [0; 16]).await.unwrap() > 0);
        drop(far);
        listener.accept().await.expect("a second connection")
    };
    let mut exchange =
        Http1Exchange { client: &mut client, outgoing: &mut outgoing, tee: None, declined: false };
    let result = tokio::select! {
        result = forward(&worker, &mut exchange, &backend, Terms::default(), &mut outcome) => result,
        _ = dies => panic!("it was sent again"),
    };
    assert!(
        matches!(&result, Err(Failure::Refused(refused)) if matches!(refused.refusal, Refusal::UpstreamReset)),
        "{result:?}"
    );
    let written = usize::try_from(outgoing.bytes_sent()).unwrap();
    assert!((1..prepared).contains(&written), "a part of it, not {written} of {prepared}");
}

#[test]
fn a_post_of_which_a_part_was_written_is_not_sent_again() {
    task::run_local(a_post_that_is_cut_off()).unwrap();
}

/// What an endpoint costs after a few requests that took their client `reading` to send.
async fn cost_after(worker: &Rc<Worker>, reading: Duration) -> Option<f64> {
    let (listener, _near, _far) = narrow().await;
    let upstream =
        worker.upstreams.of_target(DialTarget::Workload(listener.local_addr().unwrap()), None);
    for _ in 0..5 {
        let (mut client, _application) = asked("GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let mut far = far.unwrap().0;
        let mut outcome = outcome(worker);
        clock::sleep(reading).await;
        upstream.pool.put(near.unwrap().into(), clock::now(), (Tenancy::Anybody, &client.tenant));
        let mut outgoing = prepared(worker, &mut client, &outcome).await;
        let backend = Backend::Upstream(Rc::clone(&upstream));
        let answers = async {
            assert!(far.read(&mut [0; 1024]).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            far.write_all(answer.as_bytes()).await.unwrap();
        };
        let mut exchange = Http1Exchange {
            client: &mut client,
            outgoing: &mut outgoing,
            tee: None,
            declined: false,
        };
        let forwarded = forward(worker, &mut exchange, &backend, Terms::default(), &mut outcome);
        let (result, ()) = tokio::join!(forwarded, answers);
        result.expect("an answer");
    }
    upstream.cost(clock::now()).map(|cost| cost.total())
}

#[test]
fn the_time_a_client_takes_for_its_head_is_no_latency_of_the_endpoints() {
    let costs = async {
        tokio::time::pause();
        let worker = worker();
        let slow = cost_after(&worker, Duration::from_secs(9)).await;
        (slow, cost_after(&worker, Duration::ZERO).await)
    };
    let (slow, quick) = task::run_local(costs).unwrap();
    assert!(slow.is_some() && slow == quick, "{slow:?} and {quick:?}");
}

/// How often others had their turn while `heads` interim responses, all there at once, were read.
async fn turns_during(heads: usize) -> usize {
    let worker = worker();
    // A client of HTTP/1.0 gets none of them: no write makes this wait.
    let (mut client, _application) = asked("GET / HTTP/1.0\r\nHost: r\r\n\r\n").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    let mut far = far.unwrap().0;
    let upstream =
        worker.upstreams.of_target(DialTarget::Workload(listener.local_addr().unwrap()), None);
    upstream.pool.put(near.unwrap().into(), clock::now(), (Tenancy::Anybody, &client.tenant));
    let mut outcome = outcome(&worker);
    let mut outgoing = prepared(&worker, &mut client, &outcome).await;
    let backend = Backend::Upstream(upstream);
    let answers = async {
        assert!(far.read(&mut [0; 1024]).await.unwrap() > 0);
        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(heads);
        let answer = format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        far.write_all(answer.as_bytes()).await.unwrap();
    };
    let mut exchange =
        Http1Exchange { client: &mut client, outgoing: &mut outgoing, tee: None, declined: false };
    let mut forwarded =
        pin!(forward(&worker, &mut exchange, &backend, Terms::default(), &mut outcome));
    let mut turns = 0;
    let forwarded = poll_fn(|context| {
        turns += 1;
        forwarded.as_mut().poll(context)
    });
    let (result, ()) = tokio::join!(forwarded, answers);
    result.expect("an answer");
    turns
}

#[test]
fn others_have_their_turn_after_each_interim_response() {
    let turns = task::run_local(turns_during(500)).unwrap();
    assert!(turns > 500, "{turns}");
}
