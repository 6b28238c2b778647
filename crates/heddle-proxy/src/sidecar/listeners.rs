//! Every port of a sidecar, bound at once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use heddle_runtime::{
    kept::{self, KeptSockets},
    net,
};
use heddle_wire::local::proxy_config::{
    InheritedSockets, PORT_ADMIN, PORT_DNS, PORT_HEALTH, PORT_INBOUND, PORT_MERGED_METRICS,
    PORT_METRICS, PORT_OUTBOUND,
};

use super::error::ProxyError;
use crate::{
    Shared, accept,
    admin::{AdminListener, AdminSocket, Face},
    dns::DnsSockets,
    host_ports::HostPorts,
};

const WILDCARD: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Bound, not yet served; but the health port is served already, so that probes see "not ready".
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) workers: Vec<accept::Listeners>,
    pub(super) dns: DnsSockets,
    pub(super) host_ports: HostPorts,
    /// Metrics and the admin page, for a thread of their own.
    pub(super) admin: Vec<AdminListener>,
    /// The admin page at a path.
    pub(super) admin_socket: Option<AdminSocket>,
}

impl Listeners {
    pub(super) fn bind(shared: &Arc<Shared>) -> Result<Self, ProxyError> {
        let config = &shared.config;
        let mark = shared.mark();
        let InheritedSockets { published, kept: kept_numbers, keeper } = config.inherited();
        let inherited = |number| move |source| ProxyError::Inherited { number, source };
        let mut kept = KeptSockets::default();
        for number in kept_numbers {
            kept.inherit(*number).map_err(inherited(*number))?;
        }
        let mut workers = Vec::with_capacity(config.workers);
        for _ in 0..config.workers {
            workers.push(accept::Listeners {
                outbound: bind_both("outbound listener", LOOPBACK, PORT_OUTBOUND, mark, &mut kept)?,
                inbound: bind_both("inbound listener", WILDCARD, PORT_INBOUND, mark, &mut kept)?,
                published: Vec::new(),
            });
        }
        for (number, port) in published {
            let listener = net::inherited_fd(*number).map_err(inherited(*number))?;
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(true).map_err(inherited(*number))?;
            share(&mut workers, &listener, *port).map_err(inherited(*number))?;
        }
        let dns = DnsSockets::bind(PORT_DNS, mark, &mut kept)
            .map_err(|source| ProxyError::Bind { what: "DNS server", source })?;
        let host_ports = HostPorts::bind(config.host_ports(), mark)
            .map_err(|source| ProxyError::Bind { what: "host port", source })?;
        serve_health(shared)?;
        let admin = bind_admin(shared)?;
        let admin_socket = config.admin_socket().map(AdminSocket::bind).transpose();
        let admin_socket =
            admin_socket.map_err(|source| ProxyError::Bind { what: "admin socket", source })?;
        let listeners = Self { workers, dns, host_ports, admin, admin_socket };
        if let Some(number) = keeper {
            let keeper = UnixStream::from(net::inherited_fd(number).map_err(inherited(number))?);
            if let Err(error) = kept::hand_over(&keeper, &listeners.to_keep()) {
                tracing::warn!(%error, "should this sidecar die, connections are refused meanwhile");
            }
        }
        Ok(listeners)
    }

    /// What redirected traffic arrives on: it must not be refused while there is no process.
    fn to_keep(&self) -> Vec<BorrowedFd<'_>> {
        let workers = self.workers.iter();
        let tcp = workers.flat_map(|worker| worker.outbound.iter().chain(&worker.inbound));
        tcp.map(AsFd::as_fd).chain(self.dns.fds()).collect()
    }
}

/// Lets every worker accept from a published port's queue: it was bound once, on the host.
fn share(workers: &mut [accept::Listeners], listener: &TcpListener, port: u16) -> io::Result<()> {
    for worker in workers {
        worker.published.push((listener.try_clone()?, port));
    }
    Ok(())
}

fn serve_health(shared: &Arc<Shared>) -> Result<(), ProxyError> {
    for listener in bind_face(shared, "health port", WILDCARD, PORT_HEALTH, Face::Health)? {
        listener.serve(shared)?;
    }
    Ok(())
}

fn bind_admin(shared: &Shared) -> Result<Vec<AdminListener>, ProxyError> {
    let faces = [
        ("metrics port", WILDCARD, PORT_METRICS, Face::Metrics),
        ("merged metrics port", WILDCARD, PORT_MERGED_METRICS, Face::Merged),
        ("admin port", LOOPBACK, PORT_ADMIN, Face::Admin),
    ];
    let mut listeners = Vec::with_capacity(2 * faces.len());
    for (what, addresses, port, face) in faces {
        listeners.extend(bind_face(shared, what, addresses, port, face)?);
    }
    Ok(listeners)
}

fn bind_face(
    shared: &Shared,
    what: &'static str,
    addresses: [IpAddr; 2],
    port: u16,
    face: Face,
) -> Result<Vec<AdminListener>, ProxyError> {
    let mut bound = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        match AdminListener::bind(shared, address, face) {
            Err(error) if ip.is_ipv6() && net::lacks_ipv6(&error) => {}
            Err(error) => return Err(bind_error(what, address, &error)),
            Ok(listener) => bound.push(listener),
        }
    }
    Ok(bound)
}

/// IPv4 and, where the kernel has it, IPv6; those that are kept need no binding.
fn bind_both(
    what: &'static str,
    addresses: [IpAddr; 2],
    port: u16,
    mark: Option<u32>,
    kept: &mut KeptSockets,
) -> Result<Vec<TcpListener>, ProxyError> {
    let mut bound = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        match kept.listen_tcp(address, mark, true) {
            Ok(listener) => bound.push(listener),
            Err(error) if ip.is_ipv6() && net::lacks_ipv6(&error) => {}
            Err(error) => return Err(bind_error(what, address, &error)),
        }
    }
    Ok(bound)
}

fn bind_error(what: &'static str, address: SocketAddr, error: &io::Error) -> ProxyError {
    let source = io::Error::new(error.kind(), format!("{address}: {error}"));
    ProxyError::Bind { what, source }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn every_worker_accepts_from_a_published_port() {
        let mut workers: Vec<_> = (0..3).map(|_| accept::Listeners::default()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        share(&mut workers, &listener, 80).unwrap();
        drop(listener);
        for worker in &workers {
            let [(listener, 80)] = &worker.published[..] else { panic!("{worker:?}") };
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        }
    }
}
