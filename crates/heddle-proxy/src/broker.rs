//! Sockets to the outside. Where this network leads there they are opened here; on one machine the holder is asked
//! to open them on the host's side, and their descriptors are taken.
//!
//! Workers hold a [`Broker`]; the connection to the holder is on thread 0. Nothing is copied: the
//! descriptor that comes back is the connection.

pub(crate) mod holder;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use heddle_runtime::{clock, net, resolv::ResolverConfig};
use heddle_wire::local::proxy_config::Outside;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use crate::{
    limits::CONNECT_TIMEOUT,
    ranges::{AddressKind, Ranges},
};

/// Longest wait for the holder: its own connect limit comes first, this is for a holder that hangs.
pub const BROKER_WAIT: Duration = Duration::from_secs(30);
/// Requests on their way to thread 0; more are refused as [`BrokerError::Busy`].
pub const BROKER_QUEUED_MAX: usize = 1024;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// This sidecar was started without a holder.
    #[error("this sidecar has no way to the outside: it was started without a holder")]
    NoOutside,
    /// The holder is not reachable; it ends the mesh when it ends, so this is short.
    #[error("the holder cannot be reached")]
    Unreachable,
    /// Too many requests wait for the holder.
    #[error("more than {BROKER_QUEUED_MAX} connections to the outside are being opened")]
    Busy,
    /// No answer in time.
    #[error("the holder did not answer within {} s", BROKER_WAIT.as_secs())]
    Timeout,
    /// It could not be opened: what a program without a mesh would have seen.
    #[error("{reason}")]
    Refused {
        /// One line.
        reason: String,
        /// `errno` of the failed connect; 0 if none.
        errno: i32,
    },
    /// Nothing can be opened or taken over here any more.
    #[error("this sidecar has no descriptor left: {0}")]
    NoDescriptor(String),
    /// The descriptor that came back cannot be used.
    #[error("the holder's descriptor cannot be used: {0}")]
    BadDescriptor(#[source] io::Error),
}

impl BrokerError {
    /// Is it for want of descriptors, here or at the holder, that there is none?
    #[must_use]
    pub fn lacks_descriptors(&self) -> bool {
        let of = |errno| net::lacks_descriptors(&io::Error::from_raw_os_error(errno));
        match self {
            Self::NoDescriptor(_) => true,
            Self::Refused { errno, .. } => of(*errno),
            Self::BadDescriptor(error) => net::lacks_descriptors(error),
            Self::NoOutside | Self::Unreachable | Self::Busy | Self::Timeout => false,
        }
    }
}

/// What the holder is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSocket {
    /// A TCP connection.
    Connect(SocketAddr),
    /// A connected socket to a resolver of the host.
    Resolver {
        /// TCP instead of UDP.
        tcp: bool,
        /// Which resolver, modulo their number.
        index: usize,
    },
}

/// A request with the way back.
#[derive(Debug)]
pub struct BrokerRequest {
    /// What.
    pub socket: HostSocket,
    /// Takes the answer once.
    pub answer: oneshot::Sender<Result<OwnedFd, BrokerError>>,
}

/// Handle to the connection to the holder. Cheap to clone, usable on every thread.
#[derive(Debug, Clone)]
pub struct Broker {
    requests: mpsc::Sender<BrokerRequest>,
    ranges: Ranges,
    way: Way,
}

/// How there is a way outside.
#[derive(Debug, Clone)]
enum Way {
    /// The holder's.
    Holder,
    /// This network's own; with the resolvers to ask, at least one.
    Direct(Arc<[SocketAddr]>),
    None,
}

impl Broker {
    /// A handle and the end that serves it.
    #[must_use]
    pub fn new(ranges: Ranges, outside: Outside<'_>) -> (Self, mpsc::Receiver<BrokerRequest>) {
        let way = match outside {
            Outside::ThroughHolder(_) => Way::Holder,
            Outside::Direct { resolv_conf } => {
                Way::Direct(ResolverConfig::read(resolv_conf).nameservers.into())
            }
            Outside::None => Way::None,
        };
        let (requests, receiver) = mpsc::channel(BROKER_QUEUED_MAX);
        (Self { requests, ranges, way }, receiver)
    }

    /// Connects to `to` from the host. `host.heddle.internal` means the host's own loopback, in the
    /// address family asked for first, then in the other.
    ///
    /// # Errors
    /// [`BrokerError`]; the stream belongs to the calling thread's runtime.
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, BrokerError> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.ranges.kind(to.ip()) != AddressKind::HostGateway {
            return self.open(to).await;
        }
        let mut loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if to.is_ipv6() {
            loopbacks.reverse();
        }
        match self.open(SocketAddr::new(loopbacks[0], to.port())).await {
            Err(BrokerError::Refused { .. }) => {
                self.open(SocketAddr::new(loopbacks[1], to.port())).await
            }
            other => other,
        }
    }

    async fn open(&self, to: SocketAddr) -> Result<TcpStream, BrokerError> {
        if let Way::Direct(_) = &self.way {
            return connect_here(to).await;
        }
        let descriptor = self.ask(HostSocket::Connect(to)).await?;
        net::tcp_stream_from(descriptor).map_err(BrokerError::BadDescriptor)
    }

    /// A connected socket to one of the resolvers outside.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn resolver(&self, tcp: bool, index: usize) -> Result<OwnedFd, BrokerError> {
        match &self.way {
            Way::Direct(resolvers) => resolver_here(resolvers, tcp, index).await,
            Way::Holder | Way::None => self.ask(HostSocket::Resolver { tcp, index }).await,
        }
    }

    async fn ask(&self, socket: HostSocket) -> Result<OwnedFd, BrokerError> {
        let Way::Holder = &self.way else { return Err(BrokerError::NoOutside) };
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(BrokerRequest { socket, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BrokerError::Busy,
            mpsc::error::TrySendError::Closed(_) => BrokerError::Unreachable,
        })?;
        match clock::within(BROKER_WAIT, answered).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(BrokerError::Unreachable),
            None => Err(BrokerError::Timeout),
        }
    }
}

/// Connects from this network, without a mark: where it leads outside, none is needed.
async fn connect_here(to: SocketAddr) -> Result<TcpStream, BrokerError> {
    match clock::within(CONNECT_TIMEOUT, net::connect_tcp(to, None)).await {
        Some(connected) => connected.map_err(|error| failed(&error)),
        None => Err(failed(&io::ErrorKind::TimedOut.into())),
    }
}

async fn resolver_here(
    resolvers: &[SocketAddr],
    tcp: bool,
    index: usize,
) -> Result<OwnedFd, BrokerError> {
    let Some(to) = resolvers.get(index % resolvers.len().max(1)).copied() else {
        return Err(BrokerError::NoOutside);
    };
    if tcp {
        let stream = connect_here(to).await?;
        return stream.into_std().map(Into::into).map_err(|error| failed(&error));
    }
    let socket = net::connect_udp(to, None).await.map_err(|error| failed(&error))?;
    socket.into_std().map(Into::into).map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> BrokerError {
    BrokerError::Refused { reason: error.to_string(), errno: error.raw_os_error().unwrap_or(0) }
}
