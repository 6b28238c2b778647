//! Connections: accepted within bounds, shaken hands with in time, and each with an end.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use heddle_runtime::{
    clock::{self, Timer},
    net, task,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{ca::Trust, caller::Caller, limits::SESSIONS_MAX};

/// Connections at a time: each proxy's, and as many again while they renew or come back.
const CONNECTIONS_MAX: usize = 2 * SESSIONS_MAX;
/// Handshakes at a time; who comes then waits in the backlog.
const HANDSHAKES_MAX: usize = 256;
/// The same from one address: a pod has one of its own, the pods of a node's network share that node's.
const HANDSHAKES_PER_SOURCE: usize = 32;
/// A handshake is over by then.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Connections at a time of those who have shown no certificate that is believed.
const STRANGERS_MAX: usize = 1024;
/// How long such a one may stay: long enough to ask for a certificate while tokens are reviewed slowly.
const STRANGER_STAY: Duration = Duration::from_secs(30);
/// Pause after a failed accept: descriptors run short, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An accepted connection of TLS. It ends when its certificate does, or for want of one.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    end: Timer,
    _places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Connection {
    /// Fails once the connection's time is over, and wakes its task then.
    fn check_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.poll_ended(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                let text = "the certificate has expired, or none was shown in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts for ever, or until nobody takes what was accepted.
pub(super) async fn accept(
    listener: &TcpListener,
    config: Arc<ServerConfig>,
    trust: Arc<Trust>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let door = Arc::new(Door {
        acceptor: TlsAcceptor::from(config),
        trust,
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        sources: Sources::default(),
        accepted,
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    // Dropped with this future, so that nothing is accepted any more once nobody serves.
    let mut shaking = JoinSet::new();
    while !door.accepted.is_closed() {
        while shaking.try_join_next().is_some() {}
        let place = Arc::clone(&connections).acquire_owned().await;
        let turn = Arc::clone(&handshakes).acquire_owned().await;
        let (Ok(place), Ok(turn)) = (place, turn) else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let door = Arc::clone(&door);
                shaking.spawn(task::contained("handshake", async move {
                    let _turn = turn;
                    door.enter(stream, peer.ip(), place).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What every handshake needs.
struct Door {
    acceptor: TlsAcceptor,
    trust: Arc<Trust>,
    strangers: Arc<Semaphore>,
    sources: Sources,
    accepted: mpsc::Sender<io::Result<Connection>>,
}

impl Door {
    async fn enter(&self, stream: TcpStream, from: IpAddr, place: OwnedSemaphorePermit) {
        let Some(_source) = self.sources.enter(from) else {
            tracing::debug!(%from, "too many handshakes of one address");
            return;
        };
        if let Err(error) = net::set_nodelay(&stream) {
            tracing::debug!(%from, %error, "a connection was gone before its handshake");
            return;
        }
        let stream = match clock::within(HANDSHAKE_MAX, self.acceptor.accept(stream)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%from, %error, "a handshake failed");
                return;
            }
            None => {
                tracing::debug!(%from, "a handshake took too long");
                return;
            }
        };
        let (caller, stay) = self.tell(&stream, from);
        let stranger = match &caller {
            Caller::Stranger(_) => match Arc::clone(&self.strangers).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    tracing::warn!(%from, "too many connections without a certificate");
                    return;
                }
            },
            _ => None,
        };
        let end = Timer::after(stay);
        let connection = Connection { stream, caller, end, _places: (place, stranger) };
        // Nobody may serve any more.
        self.accepted.send(Ok(connection)).await.ok();
    }

    /// Who it is, and how long that holds.
    fn tell(&self, stream: &TlsStream<TcpStream>, from: IpAddr) -> (Caller, Duration) {
        let (_, session) = stream.get_ref();
        let Some(chain) = session.peer_certificates() else {
            let reason = "this needs a certificate of the mesh, and the connection shows none";
            return (Caller::Stranger(reason.into()), STRANGER_STAY);
        };
        let now = clock::unix_now();
        match self.trust.authority().verify(chain, now) {
            Ok(certified) => {
                let stay = Duration::from_secs(certified.not_after).saturating_sub(now);
                (Caller::Certified(Arc::new(certified)), stay)
            }
            Err(error) => {
                tracing::info!(%from, %error, "a client's certificate is not believed");
                (Caller::Stranger(error.to_string().into()), STRANGER_STAY)
            }
        }
    }
}

/// Handshakes under way, by address.
#[derive(Debug, Default)]
struct Sources(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them; it is counted while this lives.
struct Source<'a> {
    of: &'a Sources,
    ip: IpAddr,
}

impl Sources {
    fn enter(&self, ip: IpAddr) -> Option<Source<'_>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= HANDSHAKES_PER_SOURCE {
            return None;
        }
        *count += 1;
        Some(Source { of: self, ip })
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_handshakes_and_gets_its_places_back() {
        let sources = Sources::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = (0..HANDSHAKES_PER_SOURCE).map(|_| sources.enter(one)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        held.pop();
        assert!(sources.enter(one).is_some());
        drop(held);
        assert!(sources.0.lock().unwrap().is_empty());
    }
}
