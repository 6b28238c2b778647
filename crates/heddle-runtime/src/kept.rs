//! Sockets that outlive the process that serves them.
//!
//! A keeper holds copies and starts the next process with them: what comes meanwhile waits in the
//! kernel's queue instead of being refused.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use socket2::{Socket, Type};
use tokio::net::UdpSocket;

use crate::{
    fdpass::{self, FDS_MAX, FdStream},
    net,
};

/// Sockets taken over from one process: four for each of a handful of workers, and those of DNS.
pub const KEPT_MAX: usize = 64;

/// Sockets of an earlier process, and the way to make those that are missing.
#[derive(Debug, Default)]
pub struct KeptSockets(Vec<Socket>);

impl KeptSockets {
    /// Adds one this process was started with.
    ///
    /// # Errors
    /// As [`net::inherited_fd`].
    pub fn inherit(&mut self, number: RawFd) -> io::Result<()> {
        self.0.push(net::inherited_fd(number)?.into());
        Ok(())
    }

    /// A listener: one that was kept, else a new one as of [`net::listen_tcp_detached`].
    ///
    /// # Errors
    /// As there.
    pub fn listen_tcp(
        &mut self,
        address: SocketAddr,
        mark: Option<u32>,
        reuse_port: bool,
    ) -> io::Result<TcpListener> {
        match self.take(address, Type::STREAM) {
            Some(kept) => Ok(kept.into()),
            None => net::listen_tcp_detached(address, mark, reuse_port),
        }
    }

    /// A UDP socket: one that was kept, else a new one as of [`net::bind_udp`].
    ///
    /// # Errors
    /// As there.
    pub fn bind_udp(&mut self, address: SocketAddr, mark: Option<u32>) -> io::Result<UdpSocket> {
        match self.take(address, Type::DGRAM) {
            Some(kept) => net::udp_socket_from(kept.into()),
            None => net::bind_udp(address, mark),
        }
    }

    fn take(&mut self, address: SocketAddr, kind: Type) -> Option<Socket> {
        let index = self.0.iter().position(|kept| {
            kept.local_addr().is_ok_and(|own| own.as_socket() == Some(address))
                && kept.r#type().is_ok_and(|own| own == kind)
        })?;
        Some(self.0.swap_remove(index))
    }
}

/// Gives the keeper at the other end of `keeper` copies of these sockets.
///
/// # Errors
/// As sendmsg(2).
pub fn hand_over(keeper: &UnixStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    sockets.chunks(FDS_MAX).try_for_each(|some| fdpass::send_blocking(keeper, b"keep", some))
}

/// The sockets a process hands over: returns when it has closed its end, which it does too by ending.
///
/// # Errors
/// As [`fdpass::FdReader::recv`]; `InvalidData` for more than [`KEPT_MAX`]. None is kept then.
pub async fn take_over(process: UnixStream) -> io::Result<Vec<OwnedFd>> {
    process.set_nonblocking(true)?;
    let mut stream = FdStream::new(tokio::net::UnixStream::from_std(process)?);
    let mut sockets = Vec::new();
    while let Some((_, fds)) = stream.recv().await? {
        sockets.extend(fds);
        if sockets.len() > KEPT_MAX {
            let reason = format!("a process hands over more than {KEPT_MAX} sockets");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpStream,
        os::fd::{AsFd, IntoRawFd},
    };

    use super::*;

    #[tokio::test]
    async fn a_process_that_hands_over_without_end_is_not_listened_to() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let sockets = vec![theirs.as_fd(); KEPT_MAX + 1];
        hand_over(&theirs, &sockets).expect("sends");
        // It has not closed its end, and need not.
        let error = take_over(ours).await.expect_err("too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (ours, theirs) = UnixStream::pair().expect("pair");
        hand_over(&theirs, &sockets[..KEPT_MAX]).expect("sends");
        drop(theirs);
        assert_eq!(take_over(ours).await.expect("receives").len(), KEPT_MAX);
    }

    #[tokio::test]
    async fn a_connection_made_while_nobody_serves_is_accepted_by_the_next() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut kept = KeptSockets::default();
        let listener = kept.listen_tcp(any, None, true).expect("listens");
        let udp = kept.bind_udp(any, None).expect("binds");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = UnixStream::pair().expect("pair");
        hand_over(&theirs, &[listener.as_fd(), udp.as_fd()]).expect("sends");
        let udp_address = udp.local_addr().expect("bound");
        drop((listener, udp, theirs));

        let sockets = take_over(ours).await.expect("receives");
        let client = TcpStream::connect(address).expect("waits in the queue");
        for socket in sockets {
            kept.inherit(socket.into_raw_fd()).expect("inherited");
        }
        let listener = kept.listen_tcp(address, None, true).expect("was kept");
        let udp = kept.bind_udp(udp_address, None).expect("was kept");
        listener.set_nonblocking(false).expect("blocks");
        let (_, peer) = listener.accept().expect("accepts");
        assert_eq!(Some(peer), client.local_addr().ok());
        assert_eq!(udp.local_addr().ok(), Some(udp_address));
        assert!(kept.0.is_empty(), "each is taken once");
    }
}
