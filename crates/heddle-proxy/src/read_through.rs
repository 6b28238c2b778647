//! A transport whose bytes pass somebody on their way in, as codecs take one: what is read goes by a
//! [`Reading`], what is written goes out as it is.

use std::{
    io,
    pin::Pin,
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
    pub(crate) transport: Transport,
    pub(crate) reading: R,
}

impl<R: Reading + Unpin> AsyncRead for ReadThrough<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { transport, reading } = self.get_mut();
        reading.poll_read(transport, context, buffer)
    }
}

impl<R: Unpin> AsyncWrite for ReadThrough<R> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(context)
    }
}
