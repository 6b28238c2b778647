//! What listens in the current network namespace, told by the kernel (sock_diag): no probe
//! connection, and nothing the listener could notice.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::netlink::{
    message::{Message, attributes},
    socket::NetlinkSocket,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// State number of a listening TCP socket.
const TCP_LISTEN: u32 = 10;
/// Attribute of IPv6 sockets: do they take IPv6 only?
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Length of a struct inet_diag_req_v2.
const REQUEST_BYTES: usize = 56;
/// Length of a struct inet_diag_msg.
const ANSWER_BYTES: usize = 72;

/// Asks again and again without opening a socket each time.
#[derive(Debug)]
pub struct SockDiag {
    socket: NetlinkSocket,
}

impl SockDiag {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT if the kernel has no sock_diag.
    pub fn open() -> io::Result<Self> {
        NetlinkSocket::open(libc::NETLINK_SOCK_DIAG).map(|socket| Self { socket })
    }

    /// Addresses and ports of all TCP sockets in LISTEN, sorted, each once. A `[::]` listener that
    /// takes IPv4 too is told a second time as `0.0.0.0`.
    ///
    /// # Errors
    /// ENOENT if the kernel has no inet_diag.
    pub fn listening(&mut self) -> io::Result<Vec<SocketAddr>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut request = [0; REQUEST_BYTES];
            request[0] = family as u8;
            request[1] = libc::IPPROTO_TCP as u8;
            request[4..8].copy_from_slice(&(1_u32 << TCP_LISTEN).to_ne_bytes());
            let message = Message::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request);
            self.socket.dump(message, &mut |answer| {
                found.extend(listener(answer).into_iter().flatten())
            })?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// As [`SockDiag::listening`], once.
///
/// # Errors
/// As [`SockDiag::open`] and [`SockDiag::listening`].
pub fn listening_sockets() -> io::Result<Vec<SocketAddr>> {
    SockDiag::open()?.listening()
}

/// One or two addresses of a struct inet_diag_msg.
fn listener(answer: &[u8]) -> Option<impl Iterator<Item = SocketAddr>> {
    let port = u16::from_be_bytes(answer.get(4..6)?.try_into().ok()?);
    let source: [u8; 16] = answer.get(8..24)?.try_into().ok()?;
    let (address, also) = if i32::from(*answer.first()?) == libc::AF_INET {
        let [a, b, c, d, ..] = source;
        (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), None)
    } else {
        let address = Ipv6Addr::from(source);
        let mut options = attributes(answer.get(ANSWER_BYTES..).unwrap_or_default());
        let v6_only = options.any(|(kind, value)| kind == INET_DIAG_SKV6ONLY && value == [1]);
        let dual = address.is_unspecified() && !v6_only;
        (IpAddr::V6(address), dual.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    };
    Some([Some(address), also].into_iter().flatten().map(move |ip| SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_seen_while_it_listens_and_not_after() {
        let mut diag = SockDiag::open().expect("opens");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("binds");
            let address = listener.local_addr().expect("bound");
            assert!(diag.listening().expect("asks").contains(&address));
            drop(listener);
            assert!(!diag.listening().expect("asks").contains(&address));
        }
    }

    #[test]
    fn a_listener_for_both_families_is_told_for_both() {
        let listener = TcpListener::bind("[::]:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let listening = listening_sockets().expect("asks");
        assert!(listening.contains(&SocketAddr::from(([0, 0, 0, 0], port))));
        assert!(listening.contains(&SocketAddr::from(([0_u16; 8], port))));
    }
}
