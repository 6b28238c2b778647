//! Sockets on the host's side for sidecars: TCP connections to what is outside the mesh, and
//! sockets to the host's resolvers. Only the descriptor goes to the sidecar; no byte passes here.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use heddle_runtime::{
    clock, net,
    resolv::{self, ResolverConfig},
};
use heddle_wire::local::holder_api::HolderReply;

use super::outbox::Outbox;

/// Longest attempt to connect; below the sidecar's own limit, so that it hears the reason.
const CONNECT_WAIT: Duration = Duration::from_secs(25);
/// `ETIMEDOUT`: what the application sees when an address does not answer.
const ETIMEDOUT: i32 = 110;

/// What a sidecar asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HostSocket {
    /// A TCP connection.
    Connect(SocketAddr),
    /// A connected socket to one of the host's resolvers.
    Resolver {
        /// TCP instead of UDP.
        tcp: bool,
        /// Which, modulo their number.
        index: usize,
    },
}

/// Opens the socket and answers with it, or with the reason why not.
pub(crate) async fn answer(id: u64, socket: HostSocket, outbox: &Outbox) {
    match clock::within(CONNECT_WAIT, open(socket)).await.unwrap_or_else(|| Err(timed_out())) {
        Ok(fd) => outbox.send(&HolderReply::Connected { id }, &[fd.as_fd()]).await,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            outbox.send(&HolderReply::Refused { id, reason: error.to_string(), errno }, &[]).await;
        }
    }
}

async fn open(socket: HostSocket) -> io::Result<OwnedFd> {
    match socket {
        HostSocket::Connect(to) => connect(to).await,
        HostSocket::Resolver { tcp, index } => {
            // Read anew each time: networks come and go, and the file is short.
            let resolvers = ResolverConfig::read(Path::new(resolv::RESOLV_CONF)).nameservers;
            let to = resolvers
                .get(index.checked_rem(resolvers.len()).unwrap_or(0))
                .ok_or_else(|| io::Error::other("the host's resolv.conf names no resolver"))?;
            if tcp { connect(*to).await } else { connected_udp(*to) }
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    Ok(net::connect_tcp(to, None).await?.into_std()?.into())
}

fn connected_udp(to: SocketAddr) -> io::Result<OwnedFd> {
    let any: SocketAddr = if to.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(ETIMEDOUT)
}
