//! TLS over another carrier, with the manners that a [`super::Transport`] asks for: a look that takes nothing, an
//! end that is sent without waiting, a reset. Who is believed and what is shown, `crate::tls` decides.
//!
//! Everything goes by `&self`, since both halves are in use at once. What is written is on its way
//! before a write says so, because nobody flushes a connection of TCP.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read, Write},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use rustls::ClientConnection;
use socket2::SockRef;
use tokio::{io::ReadBuf, net::TcpStream};

use super::memory;
use crate::net::{self, Keepalive, Liveness};

/// What TLS is spoken over.
#[derive(Debug)]
pub(super) enum Under {
    Tcp(TcpStream),
    Memory(memory::End),
}

/// One end of a connection that speaks TLS.
#[derive(Debug)]
pub(super) struct End {
    pub(super) under: Under,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    connection: ClientConnection,
    /// Bytes taken over by a write that has not said so yet, because they are not on their way.
    unsaid: usize,
    /// An end is to be sent behind what is on its way.
    ending: Ending,
    resets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Wanted,
    Sent,
}

impl End {
    pub(super) fn new(under: Under, connection: ClientConnection) -> Self {
        let (unsaid, ending, resets) = (0, Ending::No, false);
        Self { under, state: RefCell::new(State { connection, unsaid, ending, resets }) }
    }

    /// Ready when both sides agree.
    pub(super) fn poll_handshake(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            let flushed = self.poll_flush(state, context).map_err(HandshakeError::Io)?;
            if !state.connection.is_handshaking() {
                return flushed.map(Ok);
            }
            match state.connection.read_tls(&mut self.by(Some(&mut *context))) {
                Ok(0) => return Poll::Ready(Err(HandshakeError::Ended)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(HandshakeError::Io(error))),
            }
            if let Err(error) = state.connection.process_new_packets() {
                // The other side is to hear why.
                let _gone = self.poll_flush(state, context);
                return Poll::Ready(Err(HandshakeError::Tls(error)));
            }
        }
    }

    /// Was HTTP/1 chosen where there was a choice?
    pub(super) fn chose_http1(&self) -> bool {
        self.state.borrow().connection.alpn_protocol() == Some(b"http/1.1")
    }

    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        ready!(self.poll_fill(state, context))?;
        match state.connection.reader().read(buffer.initialize_unfilled()) {
            Ok(count) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        if state.ending != Ending::No {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.unsaid == 0 {
            ready!(self.poll_flush(state, context))?;
            state.unsaid = state.connection.writer().write_vectored(pieces)?;
        }
        ready!(self.poll_flush(state, context))?;
        Poll::Ready(Ok(std::mem::take(&mut state.unsaid)))
    }

    /// Ready when there are bytes, an end or an error.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(&mut self.state.borrow_mut(), context)
    }

    /// Ready with the first bytes that are there, and how many, or with 0 at the end; takes nothing.
    pub(super) fn poll_peek_at(
        &self,
        context: &mut Context<'_>,
        first: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        ready!(self.poll_fill(state, context))?;
        let chunk = state.connection.reader().into_first_chunk()?;
        let count = chunk.len().min(first.len());
        first[..count].copy_from_slice(&chunk[..count]);
        Poll::Ready(Ok(count))
    }

    /// As far as the runtime was told. Session tickets and the like come unasked and mean nothing.
    pub(super) fn is_quiet(&self) -> bool {
        self.absorb(How::Told) == Liveness::Idle
    }

    pub(super) fn liveness(&self) -> Liveness {
        self.absorb(How::Asked)
    }

    pub(super) fn unacknowledged(&self) -> Option<Duration> {
        match &self.under {
            Under::Tcp(stream) => net::unacknowledged(stream),
            Under::Memory(_) => None,
        }
    }

    pub(super) fn shutdown_write(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.ending == Ending::No {
            state.connection.send_close_notify();
            state.ending = Ending::Wanted;
            // What does not go out now goes with whoever reads.
            let _later = self.flush_at_once(state);
        }
    }

    pub(super) fn reset_on_close(&self) {
        self.state.borrow_mut().resets = true;
        match &self.under {
            Under::Tcp(stream) => {
                let _gone = net::reset_on_close(stream);
            }
            Under::Memory(end) => end.reset_on_close(),
        }
    }

    /// The socket below it.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match &self.under {
            Under::Tcp(stream) => Some(stream),
            Under::Memory(_) => None,
        }
    }

    pub(super) fn tune(&self, keepalive: Keepalive) {
        if let Under::Tcp(stream) = &self.under {
            let _closing = net::set_nodelay(stream);
            let _closing = net::set_keepalive(stream, keepalive);
        }
    }

    /// Reads until there is something for whoever reads.
    fn poll_fill(&self, state: &mut State, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What waits to go out must not wait for what comes in.
        let _sent_or_waiting = self.poll_flush(state, context);
        loop {
            match state.connection.reader().into_first_chunk() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                there => return Poll::Ready(there.map(|_| ())),
            }
            match state.connection.read_tls(&mut self.by(Some(&mut *context))) {
                Ok(_) => self.process(state)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            let _sent_or_waiting = self.poll_flush(state, context);
        }
    }

    fn process(&self, state: &mut State) -> io::Result<()> {
        let processed = state.connection.process_new_packets();
        let Err(error) = processed else { return Ok(()) };
        let _gone = self.flush_at_once(state);
        tracing::debug!(%error, "a connection of TLS broke");
        Err(io::Error::new(io::ErrorKind::ConnectionReset, error))
    }

    /// Takes in what came unasked, and tells what is left.
    fn absorb(&self, how: How) -> Liveness {
        let state = &mut *self.state.borrow_mut();
        loop {
            match state.connection.reader().into_first_chunk() {
                Ok([]) => return Liveness::Closed,
                Ok(_) => return Liveness::Readable,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Liveness::Closed,
            }
            let mut unwaited = Io { under: &self.under, context: None, how };
            match state.connection.read_tls(&mut unwaited) {
                Ok(_) if self.process(state).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Liveness::Idle,
                Ok(_) | Err(_) => return Liveness::Closed,
            }
        }
    }

    fn poll_flush(&self, state: &mut State, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(state, &mut self.by(Some(&mut *context)))
    }

    fn flush_at_once(&self, state: &mut State) -> Poll<io::Result<()>> {
        self.flush(state, &mut self.by(None))
    }

    fn flush(&self, state: &mut State, io: &mut Io<'_, '_, '_>) -> Poll<io::Result<()>> {
        while state.connection.wants_write() {
            match state.connection.write_tls(io) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if state.ending == Ending::Wanted {
            state.ending = Ending::Sent;
            match &self.under {
                Under::Tcp(stream) => {
                    let _gone = net::shutdown_write(stream);
                }
                Under::Memory(end) => end.shutdown_write(),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn by<'a, 'c, 'w>(&'a self, context: Option<&'c mut Context<'w>>) -> Io<'a, 'c, 'w> {
        Io { under: &self.under, context, how: How::Told }
    }
}

impl Drop for End {
    /// An end is told from a connection that broke by what is said before it.
    fn drop(&mut self) {
        let resets = self.state.borrow().resets;
        if !resets {
            self.shutdown_write();
        }
    }
}

/// Why there was no agreement.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Tls(rustls::Error),
    Io(io::Error),
    /// The other side closed in the middle of it.
    Ended,
}

/// How to find out whether there are bytes, without waiting for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// By what the runtime was told: no system call unless there are some.
    Told,
    /// By asking the kernel.
    Asked,
}

/// The carrier below as what rustls reads and writes: whoever would have to wait gets `WouldBlock`, and is woken
/// if there is somebody to wake.
struct Io<'a, 'c, 'w> {
    under: &'a Under,
    context: Option<&'c mut Context<'w>>,
    how: How,
}

fn settled<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Io<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.under, &mut self.context) {
            (Under::Tcp(stream), Some(context)) => settled(poll_tcp_read(stream, context, buffer)),
            (Under::Tcp(stream), None) if self.how == How::Told => stream.try_read(buffer),
            (Under::Tcp(stream), None) => receive(stream, buffer),
            (Under::Memory(end), Some(context)) => settled(poll_memory_read(end, context, buffer)),
            (Under::Memory(end), None) => match end.liveness() {
                Liveness::Idle => Err(io::ErrorKind::WouldBlock.into()),
                _ => settled(poll_memory_read(end, &nobody(), buffer)),
            },
        }
    }
}

impl Write for Io<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (self.under, &mut self.context) {
            (Under::Tcp(stream), Some(context)) => {
                settled(poll_tcp_write(stream, context, &[IoSlice::new(bytes)]))
            }
            (Under::Tcp(stream), None) => stream.try_write(bytes),
            (Under::Memory(end), Some(context)) => settled(end.poll_write(context, bytes)),
            (Under::Memory(end), None) => settled(end.poll_write(&nobody(), bytes)),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.under, &mut self.context) {
            (Under::Tcp(stream), Some(context)) => settled(poll_tcp_write(stream, context, pieces)),
            (Under::Tcp(stream), None) => stream.try_write_vectored(pieces),
            (Under::Memory(_), _) => {
                let first = pieces.iter().find(|piece| !piece.is_empty());
                self.write(first.map_or(&[], |piece| piece))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A context of nobody who would want to be woken.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn poll_memory_read(
    end: &memory::End,
    context: &Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut space = ReadBuf::new(buffer);
    ready!(end.poll_read(context, &mut space))?;
    Poll::Ready(Ok(space.filled().len()))
}

fn poll_tcp_read(
    stream: &TcpStream,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(context))?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

fn poll_tcp_write(
    stream: &TcpStream,
    context: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_write_vectored(pieces) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// What the kernel has, whether the runtime was told of it or not.
fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let socket = SockRef::from(stream);
    (&*socket).read(buffer)
}
