//! `--host-port N`: the host's 127.0.0.1:N appears on the workload's 127.0.0.1:N.
//!
//! Loopback is not redirected, so these are plain listeners on thread 0; each connection is joined
//! with one the holder opened, and their bytes are relayed as those of any other connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, net, task::spawn_contained, transport::Transport};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    Shared,
    broker::Broker,
    relay::{End, Preread, relay},
};

/// Connections per host port at one time; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 256;
/// Pause after a failed accept.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Listeners of all host ports.
#[derive(Debug)]
pub struct HostPorts(Vec<(u16, TcpListener)>);

impl HostPorts {
    /// Binds 127.0.0.1:N for each.
    ///
    /// # Errors
    /// The address that could not be bound.
    pub fn bind(ports: &[u16], mark: Option<u32>) -> io::Result<Self> {
        let bind = |port: u16| {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let listener = net::listen_tcp(address, mark, false)
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
            Ok((port, listener))
        };
        ports.iter().copied().map(bind).collect::<io::Result<_>>().map(Self)
    }

    /// Serves on this thread's runtime for ever; returns at once.
    pub fn serve(self, shared: &Arc<Shared>) {
        for (port, listener) in self.0 {
            spawn_contained("host port", accept(Arc::clone(shared), port, listener));
        }
    }
}

async fn accept(shared: Arc<Shared>, port: u16, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                spawn_contained("host port connection", async move {
                    let _slot = slot;
                    let _open = shared.state.connections.enter();
                    join(&shared.broker, stream, port).await;
                });
            }
            Err(error) => {
                tracing::debug!(port, %error, "accepting for a host port failed");
                clock::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

async fn join(broker: &Broker, client: TcpStream, port: u16) {
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let mut client = Transport::from(client);
    let mut host = match broker.connect(to).await {
        Ok(host) => Transport::from(host),
        Err(error) => {
            // The program sees what it would see on the host, as near as an accepted connection can.
            tracing::info!(port, %error, "the host's port cannot be reached");
            return client.reset();
        }
    };
    join_both(&mut client, &mut host, port).await;
}

async fn join_both(client: &mut Transport, host: &mut Transport, port: u16) {
    let ended = relay(client, host, Preread::default(), &|_| (), &|_| ()).await;
    if ended != End::Closed {
        tracing::debug!(port, ?ended, "a host port's connection broke");
    }
}

#[cfg(test)]
mod tests {
    use heddle_runtime::task::run_local;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        broker::{BrokerError, HostSocket},
        metrics::Metrics,
        testing::{Folder, fixture},
    };

    #[test]
    fn bytes_and_ends_pass_both_ways_and_a_refusal_is_a_reset() {
        run_local(async {
            let dir = Folder::new("host-ports");
            let mut local = fixture::local(dir.path());
            local.holder_socket = Some(dir.path().join("mesh.sock"));
            let config = fixture::proxy_config_in(dir.path(), local);
            let metrics = Arc::new(Metrics::new(&config));
            let (shared, mut ends) = Shared::new(config, metrics);
            let shared = Arc::new(shared);
            let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host_address = host.local_addr().unwrap();
            spawn_contained("holder", async move {
                let first = ends.broker.recv().await.unwrap();
                let HostSocket::Connect(to) = first.socket else { panic!() };
                assert!(to.ip().is_loopback());
                let stream = std::net::TcpStream::connect(host_address).unwrap();
                first.answer.send(Ok(stream.into())).unwrap();
                let second = ends.broker.recv().await.unwrap();
                let refused = BrokerError::Refused { reason: "refused".into(), errno: 111 };
                second.answer.send(Err(refused)).unwrap();
            });
            // Port 0: any free one stands in for the workload's.
            let ports = HostPorts::bind(&[0], None).unwrap();
            let workload_side = ports.0[0].1.local_addr().unwrap();
            ports.serve(&shared);

            let mut client = TcpStream::connect(workload_side).await.unwrap();
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let (mut served, _) = host.accept().await.unwrap();
            let mut text = String::new();
            served.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question");
            served.write_all(b"answer").await.unwrap();
            drop(served);
            text.clear();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "answer", "after its own end");

            let mut refused = TcpStream::connect(workload_side).await.unwrap();
            let error = refused.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        })
        .unwrap();
    }

    /// Joins two connections and lets `act` do something to their far ends, the program's and the host's;
    /// then what the one that is left reads.
    fn left_with(act: impl AsyncFnOnce(TcpStream, TcpStream) -> TcpStream) -> io::Result<usize> {
        run_local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let pair = async || {
                let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
                (near.unwrap(), far.unwrap().0)
            };
            let ((client, from), (to, host)) = (pair().await, pair().await);
            spawn_contained("join", async move {
                let (mut from, mut to) = (from.into(), to.into());
                join_both(&mut from, &mut to, 0).await;
            });
            let mut left = act(client, host).await;
            left.read_to_end(&mut Vec::new()).await
        })
        .unwrap()
    }

    fn reset(stream: TcpStream) {
        Transport::from(stream).reset();
    }

    #[test]
    fn a_reset_of_either_side_is_a_reset_to_the_other() {
        let idle = left_with(async |client, host| {
            reset(client);
            host
        });
        let after_bytes = left_with(async |mut client, mut host| {
            client.write_all(b"question").await.unwrap();
            host.read_exact(&mut [0; 8]).await.unwrap();
            reset(client);
            host
        });
        let with_bytes_on_their_way = left_with(async |mut client, host| {
            client.write_all(b"question").await.unwrap();
            reset(client);
            host
        });
        let while_the_host_sends = left_with(async |client, mut host| {
            reset(client);
            let _may_break = host.write_all(&[0; 1024]).await;
            host
        });
        let of_the_host = left_with(async |mut client, host| {
            reset(host);
            let _may_break = client.write_all(&[0; 1024]).await;
            client
        });
        let ends = [idle, after_bytes, with_bytes_on_their_way, while_the_host_sends, of_the_host];
        for (case, end) in ends.into_iter().enumerate() {
            let error = end.map_err(|error| error.kind());
            assert_eq!(error, Err(io::ErrorKind::ConnectionReset), "case {case}");
        }
    }
}
