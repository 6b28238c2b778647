//! The workload's resolver: every port-53 packet of the application ends here, whatever resolver it
//! names. Mesh names are answered, all others go to the host's resolvers through the holder.
//!
//! It keeps no cache of its own: what the mesh answers is in the snapshot, what the host's
//! resolvers answer they cache.

mod forward;
mod message;
mod refresh;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, kept::KeptSockets, task::spawn_contained};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};

use self::{
    forward::{DnsTransport, Forwarder, MESSAGE_MAX, framed},
    message::Read,
    resolve::Resolution,
};
use crate::Shared;

/// The addresses of a name outside, as the resolvers there know it.
///
/// # Errors
/// Why there is none, for people.
pub(crate) async fn addresses(shared: &Shared, host: &str) -> Result<Vec<IpAddr>, String> {
    refresh::addresses(shared, &Forwarder::new(shared.broker.clone()), host).await
}

/// Datagrams being answered at one time; while there are more, the kernel's buffer holds the rest.
const QUERIES_MAX: usize = 512;
/// DNS connections at one time; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// A DNS connection without a query for this long is closed (RFC 7766 asks for seconds).
const CONNECTION_IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed accept or receive, so that a lasting failure (no descriptors) does not spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Bound sockets of the resolver.
#[derive(Debug)]
pub struct DnsSockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl DnsSockets {
    /// Binds UDP and TCP on 127.0.0.1 and, where the kernel has IPv6, on `::1`, unless they are
    /// `kept`. Port 0 takes free ones.
    ///
    /// # Errors
    /// The address that could not be bound.
    pub fn bind(port: u16, mark: Option<u32>, kept: &mut KeptSockets) -> io::Result<Self> {
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(ip, port);
            let bound = kept.bind_udp(address, mark).and_then(|udp| {
                Ok((udp, TcpListener::from_std(kept.listen_tcp(address, mark, false)?)?))
            });
            match bound {
                Ok((udp, tcp)) => {
                    sockets.udp.push(udp);
                    sockets.tcp.push(tcp);
                }
                Err(error) if ip.is_ipv6() && heddle_runtime::net::lacks_ipv6(&error) => {
                    tracing::info!("no IPv6 here: DNS is served on 127.0.0.1 only");
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{address}: {error}")));
                }
            }
        }
        Ok(sockets)
    }

    /// Them all, for a keeper.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.udp.iter().map(AsFd::as_fd).chain(self.tcp.iter().map(AsFd::as_fd))
    }

    /// Bound addresses: UDP, then TCP.
    ///
    /// # Errors
    /// The kernel's, for a socket that is gone.
    pub fn addresses(&self) -> io::Result<(Vec<SocketAddr>, Vec<SocketAddr>)> {
        let udp = self.udp.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
        let tcp = self.tcp.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        Ok((udp, tcp))
    }

    /// Answers queries on this thread's runtime for ever; returns at once.
    pub fn serve(self, shared: &Arc<Shared>) {
        let server = Rc::new(Server {
            shared: Arc::clone(shared),
            forwarder: Forwarder::new(shared.broker.clone()),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        });
        spawn_contained("names outside", refresh::run(Arc::clone(shared)));
        for socket in self.udp {
            spawn_contained("dns udp", serve_udp(Rc::clone(&server), Rc::new(socket)));
        }
        for listener in self.tcp {
            spawn_contained("dns tcp", serve_tcp(Rc::clone(&server), listener));
        }
    }
}

#[derive(Debug)]
struct Server {
    shared: Arc<Shared>,
    forwarder: Forwarder,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Server {
    /// The reply to one query; `None` for bytes that deserve none.
    async fn reply(&self, query: &[u8], transport: DnsTransport) -> Option<Vec<u8>> {
        let asked = match message::read(query) {
            Read::MeshQuery(asked) => asked,
            Read::Reject(reply) => return Some(reply),
            Read::Drop => return None,
        };
        let reply = match resolve::resolve(&self.shared, &asked).await {
            Resolution::Answer(reply) => reply,
            Resolution::Forward => match self.forwarder.ask(query, transport).await {
                Some(reply) => {
                    self.shared.outside_names.note(&asked.host(), &reply);
                    reply
                }
                None => asked.server_failure(),
            },
        };
        if asked.is_about_addresses() {
            let names = &self.shared.metrics.failed_names;
            names.answered(&asked.host(), &reply, clock::unix_now());
        }
        Some(reply)
    }
}

async fn serve_udp(server: Rc<Server>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let Ok(permit) = Arc::clone(&server.queries).acquire_owned().await else { return };
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Also what an ICMP error of an earlier reply looks like.
                tracing::debug!(%error, "receiving a DNS query failed");
                clock::sleep(FAILURE_PAUSE).await;
                continue;
            }
        };
        let query: Box<[u8]> = buffer[..length].into();
        let (server, socket) = (Rc::clone(&server), Rc::clone(&socket));
        spawn_contained("dns query", async move {
            let _permit = permit;
            if let Some(reply) = server.reply(&query, DnsTransport::Udp).await
                && let Err(error) = socket.send_to(&reply, peer).await
            {
                tracing::debug!(%peer, %error, "a DNS answer could not be sent");
            }
        });
    }
}

async fn serve_tcp(server: Rc<Server>, listener: TcpListener) {
    loop {
        let Ok(permit) = Arc::clone(&server.connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Rc::clone(&server);
                spawn_contained("dns connection", async move {
                    let _permit = permit;
                    if let Err(error) = serve_connection(&server, stream).await {
                        tracing::debug!(%error, "a DNS connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS connection failed");
                clock::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// Queries of one connection, answered in order.
async fn serve_connection(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(query) = clock::within(CONNECTION_IDLE, read_message(&mut stream)).await else {
            return Ok(());
        };
        let Some(query) = query? else { return Ok(()) };
        let Some(reply) = server.reply(&query, DnsTransport::Tcp).await else { return Ok(()) };
        let sent = clock::within(CONNECTION_IDLE, stream.write_all(&framed(&reply))).await;
        let Some(sent) = sent else { return Ok(()) };
        sent?;
    }
}

/// One message; `None` at the end of the stream between messages.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = Vec::new();
    // Grows with what really comes, not with what was announced.
    let taken = (&mut *stream).take(length as u64).read_to_end(&mut message).await?;
    Ok((taken == length).then_some(message))
}
