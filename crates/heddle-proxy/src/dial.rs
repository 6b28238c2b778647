//! Opening connections: to peers, to the own application, to the outside, and to oneself.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use heddle_model::discovery::{DefaultEndpoint, TcpKeepalive};
use heddle_runtime::{
    clock,
    net::{
        Keepalive, connect_tcp, connect_tcp_as_caller, connect_tcp_for, connect_unix,
        lacks_descriptors,
    },
    tls::{Asks, Origin, TlsError},
    transport::Transport,
};
use heddle_wire::local::proxy_config::is_private_port;
use tokio::sync::mpsc;

use crate::{
    Shared,
    broker::BrokerError,
    limits::{CONNECT_ELSEWHERE, CONNECT_TIMEOUT, OUTSIDE_ATTEMPTS, TCP_KEEPALIVE},
    listening::LOOPBACK,
    refusal::Refusal,
    upstream::{Attempt, DialTarget, Upstream},
};

/// A connection opened before the protocol was known.
#[derive(Debug)]
pub(crate) struct Early {
    pub(crate) attempt: Attempt,
    pub(crate) transport: Transport,
}

/// What connections run over.
pub enum Network {
    /// The kernel's TCP: marked, so that they escape the redirection, or opened by the holder.
    Kernel,
    /// Whatever the function connects to within this process.
    InProcess(Rc<dyn Fn(SocketAddr) -> Connecting>),
}

/// Whom the other end takes for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// This sidecar.
    Here,
    /// Nobody: an address of the loopback that is no one's own.
    Loopback,
    /// Who calls this workload.
    Caller(IpAddr),
}

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Transport>>>>;

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "Kernel",
            Self::InProcess(_) => "InProcess",
        })
    }
}

/// A call of the workload to itself, which never leaves this process: the end to be served, and where
/// it was meant to go.
pub(crate) type OwnCall = (Transport, SocketAddr);

/// Opens one worker's connections.
#[derive(Debug)]
pub(crate) struct Dialer {
    shared: Arc<Shared>,
    network: Network,
    own_calls: mpsc::UnboundedSender<OwnCall>,
}

impl Dialer {
    /// A dialer, and the calls to oneself that somebody must serve as if they had been accepted. Each
    /// waits for a connection or request that this worker admitted, so they are bounded as those are.
    pub(crate) fn new(
        shared: Arc<Shared>,
        network: Network,
    ) -> (Self, mpsc::UnboundedReceiver<OwnCall>) {
        let (own_calls, served) = mpsc::unbounded_channel();
        (Self { shared, network, own_calls }, served)
    }

    /// Opens a connection to an upstream.
    ///
    /// # Errors
    /// The refusal to answer with, if no other upstream is left to try.
    async fn dial(&self, upstream: &Upstream, asks: Asks) -> Result<Transport, Refusal> {
        let limit = upstream.connect_timeout().unwrap_or(CONNECT_TIMEOUT);
        let until = upstream.tls.as_ref().map(|tls| (tls, clock::now() + limit));
        let failed =
            |address| move |error| refused(&error, Refusal::ConnectFailed(said(address, &error)));
        let transport = match &upstream.target {
            &DialTarget::Workload(address) => {
                self.connect(address, limit).await.map_err(failed(address))?
            }
            &DialTarget::Own(address) => self.call_oneself(address).map_err(failed(address))?,
            DialTarget::Application { port, caller, at } => {
                self.application(*port, *caller, at.as_ref()).await?
            }
            &DialTarget::Outside(address) => self.outside(address).await?,
        };
        tune(&transport, upstream.tcp_keepalive());
        match until {
            None => Ok(transport),
            // Much larger than the rest, and rare.
            Some((tls, until)) => Box::pin(self.secure((tls, asks), transport, until))
                .await
                .map_err(|error| Refusal::TlsFailed(format!("{}: {error}", upstream.target))),
        }
    }

    /// The connection once it is of TLS. That is part of connecting, and within its time.
    async fn secure(
        &self,
        (tls, asks): (&Origin, Asks),
        transport: Transport,
        until: Instant,
    ) -> Result<Transport, TlsError> {
        let left = until.saturating_duration_since(clock::now());
        let begun = tls.begin(transport, asks, left).await;
        begun.inspect_err(|error| self.shared.metrics.tls_failed(error.fault))
    }

    /// As [`Self::dial`]. While there are `others` to go to, one that says nothing at all is not waited
    /// for as long: an address that nobody has any more refuses nothing.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub(crate) async fn dial_before(
        &self,
        upstream: &Upstream,
        asks: Asks,
        others: bool,
    ) -> Result<Transport, Refusal> {
        // Where a rule says how long a connect may take, that is how long.
        if !others || upstream.connect_timeout().is_some() {
            return self.dial(upstream, asks).await;
        }
        let in_time = clock::within(CONNECT_ELSEWHERE, self.dial(upstream, asks)).await;
        in_time.unwrap_or_else(|| {
            let limit = CONNECT_ELSEWHERE.as_secs();
            let target = &upstream.target;
            Err(Refusal::ConnectFailed(format!("{target}: nothing came back within {limit} s")))
        })
    }

    async fn connect(&self, address: SocketAddr, limit: Duration) -> io::Result<Transport> {
        self.connect_from(address, From::Here, limit).await
    }

    async fn connect_from(
        &self,
        address: SocketAddr,
        from: From,
        limit: Duration,
    ) -> io::Result<Transport> {
        let mark = self.shared.mark();
        let connecting = async {
            if let Network::InProcess(connect) = &self.network {
                return connect(address).await;
            }
            let connected = match from {
                From::Here => connect_tcp(address, mark).await,
                From::Loopback => connect_tcp_as_caller(address, mark).await,
                From::Caller(caller) => connect_tcp_for(caller, address.port(), mark).await,
            };
            connected.map(Transport::from)
        };
        match clock::within(limit, connecting).await {
            Some(result) => result,
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Wherever the application listens: it may have bound the workload's address, or loopback only.
    async fn application(
        &self,
        port: u16,
        caller: Option<IpAddr>,
        at: Option<&DefaultEndpoint>,
    ) -> Result<Transport, Refusal> {
        // Whoever asked got past the check at accept, or is the workload itself.
        if is_private_port(port) {
            return Err(Refusal::OwnListener);
        }
        let unreachable = |error: io::Error| {
            refused(&error, Refusal::ApplicationUnreachable(port, error.to_string()))
        };
        let own = self.shared.config.addresses;
        let candidates: Vec<SocketAddr> = match at {
            None => {
                let loopback = self.shared.is_declared(port)
                    && !self.shared.config.host_ports().contains(&port);
                self.shared.listening.load().candidates(port, loopback, caller).collect()
            }
            Some(DefaultEndpoint::Loopback(port)) => {
                LOOPBACK.map(|ip| SocketAddr::new(ip, *port)).to_vec()
            }
            Some(DefaultEndpoint::Own(port)) => {
                let kept = caller.and_then(|caller| own.of_family(caller));
                let others = own.iter().filter(|ip| Some(*ip) != kept);
                kept.into_iter().chain(others).map(|ip| SocketAddr::new(ip, *port)).collect()
            }
            Some(DefaultEndpoint::Socket(path)) => {
                let failed = |error: io::Error| {
                    let said = format!("unix://{path}: {error}");
                    refused(&error, Refusal::ApplicationUnreachable(port, said))
                };
                return connect_unix(path).map(Transport::from).map_err(failed);
            }
        };
        let mut first_error = None;
        for address in candidates {
            match self.connect_from(address, from(caller, address), CONNECT_TIMEOUT).await {
                Ok(transport) => return Ok(transport),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        let error = first_error.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into());
        Err(unreachable(error))
    }

    /// Somebody outside. Where an address refuses, the others of its name are tried, as the program
    /// would have done had it seen the refusal.
    async fn outside(&self, address: SocketAddr) -> Result<Transport, Refusal> {
        let error = match self.outside_at(address).await {
            Ok(transport) => return Ok(transport),
            Err(error) => error,
        };
        if error.lacks_descriptors() {
            return Err(Refusal::DescriptorLimit(error.to_string()));
        }
        if matches!(error, BrokerError::Refused { .. }) {
            let others = self.shared.outside_names.others(address.ip());
            for ip in others.into_iter().take(OUTSIDE_ATTEMPTS - 1) {
                if let Ok(transport) = self.outside_at(SocketAddr::new(ip, address.port())).await {
                    tracing::debug!(%address, %error, %ip, "another address of the name accepts");
                    return Ok(transport);
                }
            }
        }
        Err(Refusal::OutsideUnreachable(format!("{address}: {error}")))
    }

    async fn outside_at(&self, address: SocketAddr) -> Result<Transport, BrokerError> {
        match &self.network {
            Network::Kernel => self.shared.broker.connect(address).await.map(Transport::from),
            Network::InProcess(_) => {
                self.connect(address, CONNECT_TIMEOUT).await.map_err(|error| {
                    let errno = error.raw_os_error().unwrap_or(0);
                    BrokerError::Refused { reason: error.to_string(), errno }
                })
            }
        }
    }

    /// A connection whose other end is this process's own inbound path, so that what holds for calls
    /// from others holds for a call to oneself.
    fn call_oneself(&self, to: SocketAddr) -> io::Result<Transport> {
        let (near, far) = Transport::pair();
        // A worker that does not serve is ending.
        let sent = self.own_calls.send((far, to));
        sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}

/// As whom the application is called at `to`, one of the addresses it may listen on.
fn from(caller: Option<IpAddr>, to: SocketAddr) -> From {
    // On the loopback, where a program trusts itself, others may not pass for it; nor is there a way back from
    // there to anybody else.
    if to.ip().is_loopback() {
        return From::Loopback;
    }
    match caller {
        Some(caller) if caller.is_ipv4() == to.is_ipv4() && may_be_taken(caller) => {
            From::Caller(caller)
        }
        _ => From::Here,
    }
}

/// One of a single link is an address only together with that link, which nobody else's call would go by.
fn may_be_taken(caller: IpAddr) -> bool {
    let of_a_link = matches!(caller, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !caller.is_loopback() && !caller.is_unspecified() && !of_a_link
}

fn said(address: SocketAddr, error: &io::Error) -> String {
    format!("{address}: {error}")
}

/// The refusal after `error`: `other`, unless it says nothing about who was dialled.
fn refused(error: &io::Error, other: Refusal) -> Refusal {
    if lacks_descriptors(error) { Refusal::DescriptorLimit(error.to_string()) } else { other }
}

/// Options every connection of the data path has; when the kernel probes it, a rule may say.
pub(crate) fn tune(transport: &Transport, by_rule: Option<TcpKeepalive>) {
    transport.tune(match by_rule {
        None => Keepalive {
            idle: Some(TCP_KEEPALIVE),
            interval: Some(TCP_KEEPALIVE / 4),
            probes: Some(4),
        },
        // What it leaves out is the kernel's, as in Istio.
        Some(TcpKeepalive { probes, time: idle, interval }) => Keepalive { idle, interval, probes },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_is_called_in_its_callers_name_where_answers_find_back() {
        let as_whom = |caller: Option<&str>, to: &str| {
            from(caller.map(|ip| ip.parse().unwrap()), SocketAddr::new(to.parse().unwrap(), 80))
        };
        let kept = |ip: &str| From::Caller(ip.parse().unwrap());
        assert_eq!(as_whom(Some("10.9.0.1"), "10.9.0.2"), kept("10.9.0.1"));
        assert_eq!(as_whom(Some("fd09::1"), "fd09::2"), kept("fd09::1"));
        for (caller, to, expected) in [
            (None, "10.9.0.2", From::Here),
            (Some("10.9.0.1"), "fd09::2", From::Here),
            (Some("fe80::1"), "fd09::2", From::Here),
            (Some("10.9.0.1"), "127.0.0.1", From::Loopback),
            (None, "::1", From::Loopback),
        ] {
            assert_eq!(as_whom(caller, to), expected, "{caller:?} {to}");
        }
    }
}
