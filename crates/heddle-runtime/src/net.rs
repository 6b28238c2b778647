//! TCP and UDP sockets as the data path needs them: marked, v6-only, without Nagle, asked for their
//! original destination. Nothing here allocates per call beyond the socket itself.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::fd::{AsFd, OwnedFd, RawFd},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::sys;

/// Where callers from elsewhere come from on the loopback: not 127.0.0.1, which many a program trusts
/// (`pg_hba.conf`, admin pages). The same as in Istio.
pub const LOOPBACK_CALLER_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for `::1`. Unlike 127.0.0.0/8, it is nobody's until the loopback link is given it.
pub const LOOPBACK_CALLER_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Stands for the workload's own address in calls that the sidecar makes in a caller's name.
pub const DOOR_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
/// The same. Like [`LOOPBACK_CALLER_V6`], it is nobody's until the loopback link is given it.
pub const DOOR_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 7);

/// The one of them for `family`.
#[must_use]
pub const fn door(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(DOOR_V4),
        IpAddr::V6(_) => IpAddr::V6(DOOR_V6),
    }
}

/// Connections the kernel holds for a listener that has not accepted them yet.
const LISTEN_BACKLOG: i32 = 4096;

/// What a silent look at a connection shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Open, nothing to read: fit for reuse.
    Idle,
    /// Open, and bytes wait to be read.
    Readable,
    /// The peer has closed or reset it.
    Closed,
}

/// When an idle connection is probed by the kernel and given up; what is absent, the kernel decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes that end the connection.
    pub probes: Option<u32>,
}

impl Keepalive {
    /// Most seconds and most probes that a socket takes (tcp(7), `MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPCNT`).
    const MOST: (u64, u32) = (32_767, 127);

    /// As a socket takes it: whole seconds, at least one, and no more than it knows.
    fn of_socket(self) -> TcpKeepalive {
        let (seconds, probes) = Self::MOST;
        let whole = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, seconds));
        let mut options = TcpKeepalive::new();
        if let Some(idle) = self.idle {
            options = options.with_time(whole(idle));
        }
        if let Some(interval) = self.interval {
            options = options.with_interval(whole(interval));
        }
        if let Some(count) = self.probes {
            options = options.with_retries(count.clamp(1, probes));
        }
        options
    }
}

/// Listens on `address` with SO_REUSEADDR; an IPv6 listener takes IPv6 only, so that an accepted
/// connection's address family is the one the client used. `mark` is inherited by what it accepts.
/// With `reuse_port`, workers of one process may each have a listener on the same address.
///
/// # Errors
/// Address in use or not local, a privileged port, or `mark` without CAP_NET_ADMIN. Must be called
/// inside a tokio runtime with IO.
pub fn listen_tcp(
    address: SocketAddr,
    mark: Option<u32>,
    reuse_port: bool,
) -> io::Result<TcpListener> {
    TcpListener::from_std(listen_tcp_detached(address, mark, reuse_port)?)
}

/// As [`listen_tcp`], outside of a runtime: non-blocking, to be handed to another thread or process.
///
/// # Errors
/// As [`listen_tcp`].
pub fn listen_tcp_detached(
    address: SocketAddr,
    mark: Option<u32>,
    reuse_port: bool,
) -> io::Result<std::net::TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP, mark)?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Bounds what the kernel holds of bytes to be sent, for a socket and what it accepts; else it grows to
/// megabytes for a peer that does not read. The kernel takes twice `bytes`, for its own use too.
///
/// # Errors
/// As setsockopt(2).
pub fn bound_send_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    SockRef::from(socket).set_send_buffer_size(bytes)
}

/// Connects to `address`, marked before the first packet, without Nagle's delay.
///
/// # Errors
/// As connect(2); `mark` needs CAP_NET_ADMIN (EPERM).
pub async fn connect_tcp(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    connecting_socket(address, mark)?.connect(address).await
}

/// As [`connect_tcp`], to a loopback address from [`LOOPBACK_CALLER_V4`] or [`LOOPBACK_CALLER_V6`]; from
/// the address itself where this network namespace does not have the latter.
///
/// # Errors
/// As there.
pub async fn connect_tcp_as_caller(
    address: SocketAddr,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = connecting_socket(address, mark)?;
    let caller: IpAddr = match address {
        SocketAddr::V4(_) => LOOPBACK_CALLER_V4.into(),
        SocketAddr::V6(_) => LOOPBACK_CALLER_V6.into(),
    };
    sys::fd::choose_port_late(socket.as_fd())?;
    match socket.bind(SocketAddr::new(caller, 0)) {
        Err(error) if caller.is_ipv6() && lacks_ipv6(&error) => {}
        bound => bound?,
    }
    socket.connect(address).await
}

/// Connects to the application at the workload's own address of `caller`'s family, from `caller`'s address: the
/// application sees who calls. Where the redirection keeps callers' addresses
/// (`RedirectRules::callers_kept_at`), which brings the answers back.
///
/// # Errors
/// As connect(2); EPERM where [`may_call_for_others`] says so.
pub async fn connect_tcp_for(
    caller: IpAddr,
    port: u16,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    let door = SocketAddr::new(door(caller), port);
    let socket = connecting_socket(door, mark)?;
    sys::fd::take_any_address(socket.as_fd(), caller)?;
    sys::fd::choose_port_late(socket.as_fd())?;
    socket.bind(SocketAddr::new(caller, 0))?;
    socket.connect(door).await
}

/// Connects to a socket in the file system, or by its name (`@name`) to one of this network namespace. What comes of it
/// is a stream like one of TCP, which it is used as: it has no addresses, and options of TCP are refused.
///
/// # Errors
/// ENOENT or ECONNREFUSED if nobody listens there, EACCES if it may not be written to, EAGAIN if its queue is full.
pub fn connect_unix(path: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&match path.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(path)?,
    })?;
    TcpStream::from_std(socket.into())
}

/// As [`connect_tcp_for`] while proving the redirection: waits, at most for `limit`.
pub(crate) fn connect_for(
    caller: IpAddr,
    port: u16,
    limit: Duration,
) -> io::Result<std::net::TcpStream> {
    let door = SocketAddr::new(door(caller), port);
    let socket = Socket::new(Domain::for_address(door), Type::STREAM, Some(Protocol::TCP))?;
    sys::fd::take_any_address(socket.as_fd(), caller)?;
    socket.bind(&SockAddr::from(SocketAddr::new(caller, 0)))?;
    socket.connect_timeout(&SockAddr::from(door), limit)?;
    Ok(socket.into())
}

/// May this process open connections from addresses that are not this machine's?
///
/// # Errors
/// EPERM without CAP_NET_RAW or CAP_NET_ADMIN.
pub fn may_call_for_others() -> io::Result<()> {
    let caller = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    sys::fd::take_any_address(socket.as_fd(), caller)
}

fn connecting_socket(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Binds a UDP socket; IPv6 takes IPv6 only.
///
/// # Errors
/// As [`listen_tcp`].
pub fn bind_udp(address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP, mark)?;
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

/// A UDP socket that speaks to `address` only.
///
/// # Errors
/// As socket(2) and connect(2); `mark` needs CAP_NET_ADMIN (EPERM).
pub async fn connect_udp(address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
    let own = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = bind_udp(own, mark)?;
    socket.connect(address).await?;
    Ok(socket)
}

fn new_socket(
    address: SocketAddr,
    kind: Type,
    protocol: Protocol,
    mark: Option<u32>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

/// Where the client meant to connect before redirection. Without redirection this is the
/// connection's own local address.
///
/// # Errors
/// ENOENT if the kernel does not track the connection (no redirection rules in this namespace).
pub fn original_dst(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = if stream.local_addr()?.is_ipv4() {
        socket.original_dst_v4()?
    } else {
        socket.original_dst_v6()?
    };
    address.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the original destination is no IP address")
    })
}

/// Looks at the connection without taking a byte and without waiting: one system call, since the
/// runtime's own idea of readiness is as old as its last turn.
pub fn probe(stream: &TcpStream) -> Liveness {
    let mut byte = [MaybeUninit::<u8>::uninit(); 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match SockRef::from(stream).recv_with_flags(&mut byte, flags) {
        Ok(0) => Liveness::Closed,
        Ok(_) => Liveness::Readable,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Liveness::Idle,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Liveness::Idle,
        Err(_) => Liveness::Closed,
    }
}

/// How long a peer has acknowledged nothing, of which the kernel waits for an acknowledgement: of bytes that were
/// sent, or of a probe. `None` where it waits for none, and where nobody knows. A peer that takes no more
/// bytes for now acknowledges probes, so that it is not silent.
pub fn unacknowledged(stream: &TcpStream) -> Option<Duration> {
    let info = sys::tcp::info(stream.as_fd()).ok()?;
    (info.unacknowledged > 0 || info.probes > 0).then_some(info.since_acknowledgement)
}

/// Makes closing this connection a reset (RST), so that the peer sees a failure and not an end.
///
/// # Errors
/// As setsockopt(2).
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Sends FIN and keeps reading.
///
/// # Errors
/// As shutdown(2): ENOTCONN if the peer has reset the connection.
pub fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Write)
}

/// Says an error that no descriptor is left, in this process or on this machine?
#[must_use]
pub fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Says an error on binding or connecting an IPv6 address that this machine has no IPv6?
#[must_use]
pub fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Has the kernel probe an idle connection.
///
/// # Errors
/// As setsockopt(2).
pub fn set_keepalive(stream: &TcpStream, keepalive: Keepalive) -> io::Result<()> {
    SockRef::from(stream).set_tcp_keepalive(&keepalive.of_socket())
}

/// Switches Nagle's delay off; what an accepted connection needs.
///
/// # Errors
/// As setsockopt(2).
pub fn set_nodelay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

/// Marks an existing socket.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN (or CAP_NET_RAW) in the user namespace that owns the network namespace.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
}

/// A descriptor this process was started with, named by number (as in `ProxyConfig.published`). It
/// becomes close-on-exec. Each number is given out once.
///
/// Call it at start-up, before anything else opens descriptors: what is open under the number then
/// is what was inherited.
///
/// # Errors
/// EBADF if nothing is open there, `AlreadyExists` if it was taken before, `InvalidInput` for 0, 1 and 2.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    sys::fd::take_inherited(number)
}

/// A listener from a descriptor that another process bound and listened on.
///
/// # Errors
/// If the descriptor cannot be made non-blocking or registered with the runtime.
pub fn tcp_listener_from(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A connection from a descriptor that another process connected; without Nagle's delay.
///
/// # Errors
/// As [`tcp_listener_from`].
pub fn tcp_stream_from(fd: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

/// A UDP socket from a descriptor that another process opened.
///
/// # Errors
/// As [`tcp_listener_from`].
pub fn udp_socket_from(fd: OwnedFd) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(address: &str) -> (TcpStream, TcpStream) {
        let address = address.parse().expect("an address");
        let listener = listen_tcp(address, None, false).expect("listens");
        let address = listener.local_addr().expect("bound");
        let (client, server) = tokio::join!(connect_tcp(address, None), listener.accept());
        (client.expect("connects"), server.expect("accepts").0)
    }

    #[tokio::test]
    async fn a_probe_tells_idle_from_readable_from_closed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, mut server) = pair(address).await;
            assert_eq!(probe(&client), Liveness::Idle);
            server.write_all(b"x").await.expect("writes");
            client.readable().await.expect("readable");
            assert_eq!(probe(&client), Liveness::Readable);
            let mut client = client;
            assert_eq!(client.read_u8().await.expect("the byte is still there"), b'x');
            shutdown_write(&server).expect("shuts down");
            client.readable().await.expect("readable");
            assert_eq!(probe(&client), Liveness::Closed);
        }
    }

    #[tokio::test]
    async fn closing_after_reset_on_close_is_a_reset() {
        let (mut client, server) = pair("127.0.0.1:0").await;
        reset_on_close(&server).expect("sets");
        drop(server);
        let error = client.read_u8().await.expect_err("no end of stream");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn probes_are_as_asked_for_within_what_a_socket_takes_and_else_the_kernels() {
        let (client, _server) = pair("127.0.0.1:0").await;
        let socket = SockRef::from(&client);
        let seconds = |n| Some(Duration::from_secs(n));
        let by_default = (
            socket.tcp_keepalive_time().expect("is known"),
            socket.tcp_keepalive_retries().expect("is known"),
        );
        let asked = Keepalive { idle: None, interval: seconds(7), probes: None };
        set_keepalive(&client, asked).expect("sets");
        assert!(socket.keepalive().expect("is known"));
        assert_eq!(socket.tcp_keepalive_interval().expect("is known"), Duration::from_secs(7));
        let left = (
            socket.tcp_keepalive_time().expect("is known"),
            socket.tcp_keepalive_retries().expect("is known"),
        );
        assert_eq!(left, by_default);
        let asked = Keepalive {
            idle: Some(Duration::from_millis(1)),
            interval: seconds(100_000),
            probes: Some(u32::MAX),
        };
        set_keepalive(&client, asked).expect("sets");
        assert_eq!(socket.tcp_keepalive_time().expect("is known"), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_interval().expect("is known").as_secs(), 32_767);
        assert_eq!(socket.tcp_keepalive_retries().expect("is known"), 127);
    }

    #[tokio::test]
    async fn a_caller_on_the_loopback_is_told_from_the_machine_itself() {
        let listener = listen_tcp("127.0.0.1:0".parse().expect("address"), None, false);
        let listener = listener.expect("listens");
        let address = listener.local_addr().expect("bound");
        let (_client, accepted) =
            tokio::join!(connect_tcp_as_caller(address, None), listener.accept());
        assert_eq!(accepted.expect("accepts").1.ip(), IpAddr::V4(LOOPBACK_CALLER_V4));
        // Not every namespace has the other one.
        let listener = listen_tcp("[::1]:0".parse().expect("address"), None, false);
        let listener = listener.expect("listens");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) =
            tokio::join!(connect_tcp_as_caller(address, None), listener.accept());
        assert_eq!(
            client.expect("connects").local_addr().expect("bound"),
            accepted.expect("accepts").1
        );
    }

    #[tokio::test]
    async fn two_listeners_share_an_address_only_when_asked() {
        let first = listen_tcp("127.0.0.1:0".parse().expect("address"), None, true).expect("one");
        let address = first.local_addr().expect("bound");
        let _second = listen_tcp(address, None, true).expect("the second shares it");
        let third = listen_tcp(address, None, false).expect_err("the third did not ask");
        assert_eq!(third.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_ipv6_listener_leaves_the_ipv4_port_free() {
        let v6 = listen_tcp("[::]:0".parse().expect("address"), None, false).expect("v6");
        let port = v6.local_addr().expect("bound").port();
        let v4 = SocketAddr::from(([0, 0, 0, 0], port));
        assert!(listen_tcp(v4, None, false).is_ok());
    }

    #[test]
    fn an_inherited_descriptor_is_given_out_once() {
        // Another test of this process may have taken, and closed, a descriptor of the same number.
        let mut kept = Vec::new();
        let (number, first) = loop {
            let (other, given) = std::os::unix::net::UnixStream::pair().expect("pair");
            kept.push(other);
            let number = std::os::fd::IntoRawFd::into_raw_fd(given);
            match inherited_fd(number) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                taken => break (number, taken.expect("open")),
            }
        };
        let again = inherited_fd(number).expect_err("taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(inherited_fd(1).expect_err("stdout").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(inherited_fd(999_999).expect_err("closed").raw_os_error(), Some(libc::EBADF));
        drop((kept, first));
    }
}
