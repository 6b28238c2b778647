//! A transport whose bytes pass somebody on their way in, as codecs take one: what is read goes by a
//! [`Reading`], what is written goes out as it is. Whoever made it may look at the transport, which the
//! codec never gives back.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use heddle_runtime::transport::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who has a say in what is read.
pub(crate) trait Reading {
    /// Reads as `AsyncRead` does, of the transport or of what is at hand.
    fn poll_read(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

/// A transport that is read so.
#[derive(Debug)]
pub(crate) struct ReadThrough<R> {
    transport: Rc<RefCell<Transport>>,
    reading: R,
}

impl<R> ReadThrough<R> {
    pub(crate) fn new(transport: Transport, reading: R) -> Self {
        Self { transport: Rc::new(RefCell::new(transport)), reading }
    }

    /// What it reads from, to be looked at.
    pub(crate) fn transport(&self) -> Rc<RefCell<Transport>> {
        Rc::clone(&self.transport)
    }
}

impl<R: Reading + Unpin> AsyncRead for ReadThrough<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { transport, reading } = self.get_mut();
        reading.poll_read(&mut transport.borrow_mut(), context, buffer)
    }
}

impl<R: Unpin> AsyncWrite for ReadThrough<R> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport.borrow_mut()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.transport.borrow_mut()).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.transport.borrow_mut()).poll_shutdown(context)
    }
}
