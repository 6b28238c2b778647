//! Proves that connections are captured before anything depends on it: listeners in the sidecar's place, and
//! connections like an application's.
//!
//! What comes from outside cannot be tried from within; its rules are in the same transaction as those that can.
//! That the sidecar's own sockets escape is for the sidecar to prove, which has what they are told by.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use crate::{
    net,
    netlink::{Netlink, NetlinkError},
    redirect::RedirectRules,
};

/// Limit of one attempt: nothing leaves this machine.
const ATTEMPT_WAIT: Duration = Duration::from_secs(2);
/// A port nobody has a reason to exclude.
const PORT: u16 = 9;
const DNS_PORT: u16 = 53;
const MESSAGE: &[u8] = b"heddle";
/// Addresses that are nobody's (RFC 5737, RFC 3849): a caller's, to try how its connections would fare.
const CALLERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What was shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// Addresses to which a connection was captured.
    pub captured: Vec<SocketAddr>,
    /// Addresses of the workload at which the application was called from a caller's address, and answered.
    pub callers_kept: Vec<IpAddr>,
    /// Why nothing was tried, where that is so: one reason each.
    pub untried: Vec<String>,
}

/// What is wrong with the redirection.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// A connection went past the sidecar.
    #[error("{what} to {target} was not captured{}: are there other rules in this network namespace?", because(why.as_ref()))]
    NotCaptured {
        /// What was tried.
        what: &'static str,
        /// Where to.
        target: SocketAddr,
        /// What came of it.
        why: Option<io::Error>,
    },
    /// An application would not see its caller's address, or its answer would get lost.
    #[error("a call to {own} from a caller's address {came}{}: are there other rules or routes in this network namespace?", because(why.as_ref()))]
    CallerLost {
        /// The workload's address.
        own: IpAddr,
        /// How it fared.
        came: &'static str,
        /// What came of it.
        why: Option<io::Error>,
    },
    /// The sidecar's place cannot be taken.
    #[error("cannot listen on {address}, where the sidecar will: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The own addresses are unknown.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

fn because(why: Option<&io::Error>) -> String {
    why.map(|error| format!(" ({error})")).unwrap_or_default()
}

/// Tries the rules of the current network namespace, in each address family that it has an address of.
///
/// # Errors
/// [`ProofError`]. Where the sidecar listens already nothing is tried: it proves the same itself.
pub fn prove(rules: &RedirectRules) -> Result<Proof, ProofError> {
    let own = Netlink::open()?.local_addresses()?;
    let mut proof = Proof::default();
    let families = one_of_each_family(&own);
    if families.is_empty() {
        proof.untried.push("this network namespace has no address but the loopback's".to_owned());
    }
    for own in families {
        tcp(rules, own, &mut proof)?;
        if rules.dns_port.is_some() {
            dns(rules, own, &mut proof)?;
        }
    }
    for own in &rules.callers_kept_at {
        called_in_anothers_name(*own, &mut proof)?;
    }
    Ok(proof)
}

/// The first address of each family by which others may know this machine.
#[must_use]
pub fn one_of_each_family(own: &[IpAddr]) -> Vec<IpAddr> {
    let is_useful = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => {
            !ip.is_loopback() && !ip.is_unicast_link_local() && ip.segments()[..7] != [0; 7]
        }
    };
    let first = |is_v4: bool| own.iter().filter(is_useful).find(|ip| ip.is_ipv4() == is_v4);
    [true, false].into_iter().filter_map(first).copied().collect()
}

/// As the sidecar will call the application for somebody: whom it sees, and whether both hear each other.
fn called_in_anothers_name(own: IpAddr, proof: &mut Proof) -> Result<(), ProofError> {
    let lost = |came| move |why| ProofError::CallerLost { own, came, why: Some(why) };
    let Some(caller) = CALLERS.into_iter().find(|ip| ip.is_ipv4() == own.is_ipv4()) else {
        return Ok(());
    };
    let routed = UdpSocket::bind(SocketAddr::new(own, 0))
        .and_then(|socket| socket.connect(SocketAddr::new(caller, PORT)));
    if let Err(error) = routed {
        let reason = format!("a call from elsewhere to {own}, which has no way there ({error})");
        proof.untried.push(reason);
        return Ok(());
    }
    let listening = TcpListener::bind(SocketAddr::new(own, 0));
    let listener = listening.map_err(lost("could not be tried"))?;
    let port = listener.local_addr().map_err(lost("could not be tried"))?.port();
    let mut client =
        net::connect_for(caller, port, ATTEMPT_WAIT).map_err(lost("did not get through"))?;
    let (mut application, seen) = listener.accept().map_err(lost("did not get through"))?;
    if seen.ip() != caller {
        return Err(ProofError::CallerLost { own, came: "came from elsewhere", why: None });
    }
    let mut heard = [0; MESSAGE.len()];
    client.set_read_timeout(Some(ATTEMPT_WAIT)).map_err(lost("could not be tried"))?;
    application.set_read_timeout(Some(ATTEMPT_WAIT)).map_err(lost("could not be tried"))?;
    let spoken = client
        .write_all(MESSAGE)
        .and_then(|()| application.read_exact(&mut heard))
        .and_then(|()| application.write_all(&heard))
        .and_then(|()| client.read_exact(&mut heard));
    spoken.map_err(lost("was not answered"))?;
    proof.callers_kept.push(own);
    Ok(())
}

fn tcp(rules: &RedirectRules, own: IpAddr, proof: &mut Proof) -> Result<(), ProofError> {
    let to_own = std::iter::once(PORT).chain(rules.outbound_ports_included.iter().copied());
    let of_networks = rules.outbound_included.iter().flatten();
    let mut candidates = to_own.map(|port| SocketAddr::new(own, port)).chain(
        of_networks
            .filter(|network| network.address.is_ipv4() == own.is_ipv4())
            .map(|network| SocketAddr::new(network.address, PORT)),
    );
    let Some(target) =
        candidates.find(|address| rules.captured(*address) == Some(rules.outbound_port))
    else {
        proof.untried.push(format!("nothing that {own} could call is captured"));
        return Ok(());
    };
    let Some(listener) = listen(SocketAddr::new(loopback(own), rules.outbound_port), proof)? else {
        return Ok(());
    };
    let failed = |why| ProofError::NotCaptured { what: "a connection", target, why };
    let client =
        TcpStream::connect_timeout(&target, ATTEMPT_WAIT).map_err(|error| failed(Some(error)))?;
    let accepted = listener.accept().map_err(|_| failed(None))?;
    if client.local_addr().ok() != Some(accepted.1) {
        return Err(failed(None));
    }
    proof.captured.push(target);
    Ok(())
}

/// A listener that does not wait: what was captured has been accepted by the kernel already.
fn listen(address: SocketAddr, proof: &mut Proof) -> Result<Option<TcpListener>, ProofError> {
    let failed = |source| ProofError::Listen { address, source };
    match TcpListener::bind(address) {
        Ok(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(Some(listener))
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            proof.untried.push(served(address));
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

fn dns(rules: &RedirectRules, own: IpAddr, proof: &mut Proof) -> Result<(), ProofError> {
    let target = SocketAddr::new(own, DNS_PORT);
    let Some(port) = rules.dns_port.filter(|_| rules.captured(target) == rules.dns_port) else {
        return Ok(());
    };
    let address = SocketAddr::new(loopback(own), port);
    let listen = |source| ProofError::Listen { address, source };
    let server = match UdpSocket::bind(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            proof.untried.push(served(address));
            return Ok(());
        }
        bound => bound.map_err(listen)?,
    };
    server.set_read_timeout(Some(ATTEMPT_WAIT)).map_err(listen)?;
    let failed = |why| ProofError::NotCaptured { what: "a DNS question", target, why };
    let asked = || {
        let client = UdpSocket::bind(SocketAddr::new(own, 0))?;
        client.send_to(MESSAGE, target)?;
        let mut buffer = [0; 16];
        let (count, _) = server.recv_from(&mut buffer)?;
        Ok(buffer.get(..count) == Some(MESSAGE))
    };
    match asked() {
        Ok(true) => {
            proof.captured.push(target);
            Ok(())
        }
        Ok(false) => Err(failed(None)),
        Err(error) => Err(failed(Some(error))),
    }
}

fn served(address: SocketAddr) -> String {
    format!("{address} is served already, by a sidecar that proves its capture itself")
}

fn loopback(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}
