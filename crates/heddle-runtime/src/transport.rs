//! The bytes of one connection, whatever carries them: plain TCP, a pair of ends in this process, or TLS over
//! either.
//!
//! A [`Transport`] is read and written through its halves, at the same time if need be. It knows what
//! a connection knows that is no byte: an end, a reset, whether anything happened since it was last
//! looked at. Large bodies move past this process where both ends are plain TCP
//! ([`move_bytes`]); nothing else may ask what carries them. It knows no protocol.

mod memory;
mod tls;

use std::{
    any::Any,
    cell::OnceCell,
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, tcp},
};

pub(crate) use self::tls::HandshakeError;
use crate::{
    net::{self, Keepalive, Liveness},
    splice::{self, BrokenEnd, SpliceError},
};

/// Bytes read at once where they cannot be spliced.
const MOVE_BYTES: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Transport {
    carrier: Carrier,
    kept: Option<Box<dyn Any>>,
    /// As they were found once: on a connection that is used again and again they are asked for with each request.
    ends: OnceCell<Ends>,
}

/// Addresses of this end and of the other.
pub type Ends = (Option<SocketAddr>, Option<SocketAddr>);

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Memory(memory::End),
    Tls(Box<tls::End>),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self { carrier: Carrier::Tcp(stream), kept: None, ends: OnceCell::new() }
    }
}

impl Transport {
    /// Two ends of one connection within this thread: no socket, no port, and, since nothing but
    /// tasks wake each other, the same course in every run. Each direction holds 64 KiB.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (one, other) = memory::pair();
        let end = |end| Self { carrier: Carrier::Memory(end), kept: None, ends: OnceCell::new() };
        (end(one), end(other))
    }

    /// The same connection once both sides have agreed on TLS, as `client` asks for it.
    ///
    /// # Errors
    /// Why they did not. The connection is gone then.
    pub(crate) async fn with_tls(
        self,
        client: rustls::ClientConnection,
    ) -> Result<Self, HandshakeError> {
        let under = match self.carrier {
            Carrier::Tcp(stream) => tls::Under::Tcp(stream),
            Carrier::Memory(end) => tls::Under::Memory(end),
            Carrier::Tls(_) => {
                let reason = "TLS within TLS is not spoken";
                return Err(HandshakeError::Io(io::Error::other(reason)));
            }
        };
        let end = Box::new(tls::End::new(under, client));
        poll_fn(|context| end.poll_handshake(context)).await?;
        Ok(Self { carrier: Carrier::Tls(end), kept: self.kept, ends: self.ends })
    }

    /// Is it TLS that carries the bytes?
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.carrier, Carrier::Tls(_))
    }

    /// Did the server choose HTTP/1 where it could have chosen HTTP/2 (ALPN, RFC 7301)?
    #[must_use]
    pub fn chose_http1(&self) -> bool {
        matches!(&self.carrier, Carrier::Tls(end) if end.chose_http1())
    }

    /// Keeps something as long as the connection, wherever that goes.
    pub fn keep(&mut self, thing: impl Any) {
        self.kept = Some(Box::new(thing));
    }

    /// What is kept with it, if it is a `T`.
    #[must_use]
    pub fn kept<T: Any>(&self) -> Option<&T> {
        self.kept.as_ref()?.downcast_ref()
    }

    /// Addresses of this end and of the other; `None` for what has none within this process.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let of = |stream: &TcpStream| (stream.local_addr().ok(), stream.peer_addr().ok());
        *self.ends.get_or_init(|| match &self.carrier {
            Carrier::Tcp(stream) => of(stream),
            Carrier::Memory(_) => (None, None),
            Carrier::Tls(end) => end.tcp().map_or((None, None), of),
        })
    }

    /// Both halves, each usable while the other waits.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match &mut self.carrier {
            Carrier::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf(Half::Tcp(read)), WriteHalf(Half::Tcp(write)))
            }
            Carrier::Memory(end) => (ReadHalf(Half::Memory(end)), WriteHalf(Half::Memory(end))),
            Carrier::Tls(end) => (ReadHalf(Half::Tls(end)), WriteHalf(Half::Tls(end))),
        }
    }

    /// Options every connection of the data path has. A socket that refuses them is closing already.
    pub fn tune(&self, keepalive: Keepalive) {
        match &self.carrier {
            Carrier::Tcp(stream) => {
                let _closing = net::set_nodelay(stream);
                let _closing = net::set_keepalive(stream, keepalive);
            }
            Carrier::Memory(_) => {}
            Carrier::Tls(end) => end.tune(keepalive),
        }
    }

    /// Did nothing happen on an idle connection, as far as the runtime was told? No system call unless
    /// something did. Takes a byte that nobody asked for: the connection is unfit then.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => matches!(
                stream.try_read(&mut [0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            ),
            Carrier::Memory(end) => end.liveness() == Liveness::Idle,
            Carrier::Tls(end) => end.is_quiet(),
        }
    }

    /// Looks at the connection without taking a byte and without waiting; one system call.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        match &self.carrier {
            Carrier::Tcp(stream) => net::probe(stream),
            Carrier::Memory(end) => end.liveness(),
            Carrier::Tls(end) => end.liveness(),
        }
    }

    /// How long the peer has acknowledged nothing, while there is something that it is to acknowledge.
    /// `None` where there is nothing, and where that is not known, as of two ends within this process.
    /// One system call.
    #[must_use]
    pub fn unacknowledged(&self) -> Option<Duration> {
        match &self.carrier {
            Carrier::Tcp(stream) => net::unacknowledged(stream),
            Carrier::Memory(_) => None,
            Carrier::Tls(end) => end.unacknowledged(),
        }
    }

    /// Waits until the peer has sent something (1) or ended (0), and takes nothing.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn peek(&self) -> io::Result<usize> {
        self.peek_at(&mut [0]).await
    }

    /// The same, with a look at as much as is there of the first bytes.
    ///
    /// # Errors
    /// As [`Self::peek`].
    pub async fn peek_at(&self, first: &mut [u8]) -> io::Result<usize> {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.peek(first).await,
            Carrier::Memory(end) => poll_fn(|context| end.poll_peek_at(context, first)).await,
            Carrier::Tls(end) => poll_fn(|context| end.poll_peek_at(context, first)).await,
        }
    }

    /// Waits until the peer has reset the connection. One that merely vanished is found out by
    /// keepalive.
    pub async fn reset_by_peer(&self) {
        match &self.carrier {
            Carrier::Tcp(stream) => tcp_reset(stream).await,
            Carrier::Memory(end) => poll_fn(|context| end.poll_reset(context)).await,
            Carrier::Tls(end) => tls_reset(end).await,
        }
    }

    /// Sends an end and goes on reading. On one that is gone already reading says so.
    pub fn shutdown_write(&self) {
        match &self.carrier {
            Carrier::Tcp(stream) => {
                let _gone = net::shutdown_write(stream);
            }
            Carrier::Memory(end) => end.shutdown_write(),
            Carrier::Tls(end) => end.shutdown_write(),
        }
    }

    /// Makes closing this connection a reset, so that the peer sees a failure and not an end.
    pub fn reset_on_close(&self) {
        match &self.carrier {
            Carrier::Tcp(stream) => {
                let _gone = net::reset_on_close(stream);
            }
            Carrier::Memory(end) => end.reset_on_close(),
            Carrier::Tls(end) => end.reset_on_close(),
        }
    }

    /// Closes it so that the peer sees a failure and not an end.
    pub fn reset(self) {
        self.reset_on_close();
    }
}

async fn tcp_reset(stream: &TcpStream) {
    // An error of the wait itself says the same.
    let _reset = stream.ready(Interest::ERROR).await;
}

async fn tls_reset(end: &tls::End) {
    match &end.under {
        tls::Under::Tcp(stream) => tcp_reset(stream).await,
        tls::Under::Memory(end) => poll_fn(|context| end.poll_reset(context)).await,
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Carrier::Memory(end) => end.poll_read(context, buffer),
            Carrier::Tls(end) => end.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Carrier::Memory(end) => end.poll_write(context, bytes),
            Carrier::Tls(end) => end.poll_write(context, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Carrier::Memory(end) => {
                let first = pieces.iter().find(|piece| !piece.is_empty());
                end.poll_write(context, first.map_or(&[], |piece| piece))
            }
            Carrier::Tls(end) => end.poll_write(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

/// A stream that knows whether reading would find something.
pub trait Source: AsyncRead + Unpin {
    /// Ready when there are bytes, an end or an error, as far as the runtime was told.
    ///
    /// # Errors
    /// As the runtime's own look at its readiness.
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Source for Transport {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.poll_read_ready(context),
            Carrier::Memory(end) => end.poll_peek(context).map(|_| Ok(())),
            Carrier::Tls(end) => end.poll_read_ready(context),
        }
    }
}

#[derive(Debug)]
enum Half<'a, T> {
    Tcp(T),
    Memory(&'a memory::End),
    Tls(&'a tls::End),
}

/// What comes from the peer.
#[derive(Debug)]
pub struct ReadHalf<'a>(Half<'a, tcp::ReadHalf<'a>>);

impl ReadHalf<'_> {
    /// As [`Transport::peek`].
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn peek(&mut self) -> io::Result<usize> {
        match &mut self.0 {
            Half::Tcp(read) => read.peek(&mut [0]).await,
            Half::Memory(end) => poll_fn(|context| end.poll_peek(context)).await,
            Half::Tls(end) => poll_fn(|context| end.poll_peek_at(context, &mut [0])).await,
        }
    }

    /// As [`Transport::reset_by_peer`].
    pub async fn reset_by_peer(&self) {
        match &self.0 {
            Half::Tcp(read) => tcp_reset(read.as_ref()).await,
            Half::Memory(end) => poll_fn(|context| end.poll_reset(context)).await,
            Half::Tls(end) => tls_reset(end).await,
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Half::Tcp(read) => Pin::new(read).poll_read(context, buffer),
            Half::Memory(end) => end.poll_read(context, buffer),
            Half::Tls(end) => end.poll_read(context, buffer),
        }
    }
}

impl Source for ReadHalf<'_> {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Half::Tcp(read) => read.as_ref().poll_read_ready(context),
            Half::Memory(end) => end.poll_peek(context).map(|_| Ok(())),
            Half::Tls(end) => end.poll_read_ready(context),
        }
    }
}

/// What goes to the peer.
#[derive(Debug)]
pub struct WriteHalf<'a>(Half<'a, tcp::WriteHalf<'a>>);

impl WriteHalf<'_> {
    /// As [`Transport::shutdown_write`].
    pub fn shutdown(&self) {
        match &self.0 {
            Half::Tcp(write) => {
                let _gone = net::shutdown_write(write.as_ref());
            }
            Half::Memory(end) => end.shutdown_write(),
            Half::Tls(end) => end.shutdown_write(),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        self.write_from(bytes, &mut written).await
    }

    /// Writes `bytes` from `written` on, telling there how far it came, also when it fails.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_from(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        poll_fn(|context| self.poll_from(context, bytes, written)).await
    }

    fn poll_from(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *written < bytes.len() {
            *written += ready!(self.poll_piece(context, &bytes[*written..], &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `bytes` from `written` on as they came from `source`: whose peer is gone has nobody left
    /// for whom to wait until this side takes them.
    ///
    /// # Errors
    /// Which end broke, and how.
    pub async fn write_for(
        &mut self,
        source: &ReadHalf<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Result<(), (BrokenEnd, io::Error)> {
        let failed = |error| (BrokenEnd::Write, error);
        let at_once = poll_fn(|context| Poll::Ready(self.poll_from(context, bytes, written))).await;
        if let Poll::Ready(result) = at_once {
            return result.map_err(failed);
        }
        // Rare, and not worth room in every task.
        Box::pin(async {
            tokio::select! {
                biased;
                result = self.write_from(bytes, written) => result.map_err(failed),
                () = source.reset_by_peer() => {
                    Err((BrokenEnd::Read, io::ErrorKind::ConnectionReset.into()))
                }
            }
        })
        .await
    }

    /// Writes a head and what follows it, in one system call if the socket takes it.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_both(&mut self, head: &[u8], rest: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|context| {
            while written < head.len() {
                written += ready!(self.poll_piece(context, &head[written..], rest))?;
            }
            Poll::Ready(io::Result::Ok(()))
        })
        .await?;
        self.write_all(&rest[written - head.len()..]).await
    }

    /// Writes once, of `first` and then of `second`: at least a byte.
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.0 {
            Half::Tcp(write) if second.is_empty() => {
                ready!(Pin::new(write).poll_write(context, first))?
            }
            Half::Tcp(write) => {
                let pieces = [IoSlice::new(first), IoSlice::new(second)];
                ready!(Pin::new(write).poll_write_vectored(context, &pieces))?
            }
            Half::Memory(end) => ready!(end.poll_write(context, first))?,
            Half::Tls(end) => {
                let pieces = [IoSlice::new(first), IoSlice::new(second)];
                ready!(end.poll_write(context, &pieces))?
            }
        };
        match written {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }
}

/// Moves bytes until the source ends or `limit` of them have moved, and returns their number (less
/// than `limit` only if the source ended): past this process where both ends are plain TCP, else
/// through a buffer. `progress` is told of each delivered piece. Does not pass on the end of the
/// source. A dropped future may lose what was on its way; close both then.
///
/// # Errors
/// [`SpliceError`] says on which side, and how much had been delivered.
pub async fn move_bytes(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    limit: Option<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SpliceError> {
    match (&from.0, &to.0) {
        (Half::Tcp(from), Half::Tcp(to)) => {
            splice::splice_all(from.as_ref(), to.as_ref(), limit, progress).await
        }
        _ => copy(from, to, limit, progress).await,
    }
}

async fn copy(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    limit: Option<u64>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, SpliceError> {
    let mut moved = 0;
    let mut buffer = vec![0; MOVE_BYTES];
    loop {
        let left = limit.map_or(u64::MAX, |limit| limit - moved);
        if left == 0 {
            return Ok(moved);
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let mut space = ReadBuf::new(&mut buffer[..room]);
        let failed = |side| move |source| SpliceError { side, moved, source };
        poll_fn(|context| Pin::new(&mut *from).poll_read(context, &mut space))
            .await
            .map_err(failed(BrokenEnd::Read))?;
        let piece = space.filled();
        if piece.is_empty() {
            return Ok(moved);
        }
        let written = to.write_for(from, piece, &mut 0).await;
        written.map_err(|(side, source)| SpliceError { side, moved, source })?;
        moved += piece.len() as u64;
        progress(piece.len() as u64);
    }
}

#[cfg(test)]
mod tests;
