//! Whether a peer acknowledges what it is sent: one that vanished is told from one that only takes no more.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use heddle_runtime::{clock, net, task, transport::Transport};
use tokio::io::AsyncWriteExt;

use crate::world::{
    Channel, EXCLUDED, MARK, SIDECAR, World, address_v4, as_both_users, workload_net,
};

/// How often a test looks.
const LOOK: Duration = Duration::from_millis(20);

as_both_users!(
    a_peer_that_vanishes_acknowledges_nothing,
    vanishing,
    "server" => server,
    "client" => client,
);

/// A workload's link goes away under its connection.
fn vanishing(world: &World) {
    let (first, second) = (world.workload(10), world.workload(11));
    let mut server = world.inside(&first, SIDECAR, "server");
    assert_eq!(server.channel.hear(), "ready");
    let mut client = world.inside(&second, SIDECAR, "client");
    assert_eq!(client.channel.hear(), "connected");
    let gone = task::run_local(world.hub.delete_workload(workload_net(10).link));
    gone.expect("a runtime").expect("is removed");
    client.channel.say("gone");
    client.succeed();
    server.channel.say("enough");
    server.succeed();
}

fn server(mut channel: Channel) {
    task::run_local(async {
        let at = SocketAddr::from((address_v4(10), EXCLUDED));
        let listener = net::listen_tcp(at, Some(MARK), false).expect("listens");
        channel.say("ready");
        let _held = listener.accept().await.expect("accepts");
        assert_eq!(channel.hear(), "enough");
    })
    .expect("a runtime");
}

fn client(mut channel: Channel) {
    task::run_local(async {
        let to = SocketAddr::from((IpAddr::V4(address_v4(10)), EXCLUDED));
        let stream = net::connect_tcp(to, Some(MARK)).await.expect("connects");
        let mut transport = Transport::from(stream);
        transport.write_all(b"heard").await.expect("writes");
        until(&transport, |silence| silence.is_none()).await;
        channel.say("connected");
        assert_eq!(channel.hear(), "gone");
        transport.write_all(b"unheard").await.expect("the kernel takes it");
        let grown = Duration::from_millis(300);
        until(&transport, |silence| silence.is_some_and(|silence| silence >= grown)).await;
    })
    .expect("a runtime");
}

/// Waits for what is looked for; the harness has its patience.
async fn until(transport: &Transport, wanted: impl Fn(Option<Duration>) -> bool) {
    while !wanted(transport.unacknowledged()) {
        clock::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn a_peer_that_takes_no_more_acknowledges_all_the_same() {
    let listener = net::listen_tcp("127.0.0.1:0".parse().expect("an address"), None, false);
    let listener = listener.expect("listens");
    let address = listener.local_addr().expect("bound");
    let (client, server) = tokio::join!(net::connect_tcp(address, None), listener.accept());
    let (mut client, _server) =
        (Transport::from(client.expect("connects")), server.expect("accepts"));
    // Until its window is closed and the buffer here is full.
    let piece = [0; 64 * 1024];
    let fills = async { while client.write_all(&piece).await.is_ok() {} };
    let full = clock::within(Duration::from_secs(1), fills).await.is_none();
    assert!(full, "the peer's end stays open");
    let long = Duration::from_secs(3);
    for _ in 0..100 {
        clock::sleep(LOOK).await;
        let silence = client.unacknowledged();
        assert!(silence.is_none_or(|silence| silence < long), "{silence:?}");
    }
}
