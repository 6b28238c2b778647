//! Memory for requests on their way, lent by the thread: nothing is allocated per request once
//! warm, and a connection that waits for its next request holds none of it.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll, ready},
    thread::LocalKey,
};

use heddle_runtime::transport::Source;
use heddle_wire::http1::{ADDED_BYTES_MAX, HEAD_BYTES_MAX, HeadBytes, RequestHead, ResponseHead};
use tokio::io::{AsyncRead, ReadBuf};

use crate::limits::{BUFFER_BYTES, BUFFERS_KEPT, COPY_BYTES};

/// Largest a buffer grows to: a head or trailer line at its limit, and room to see that it is.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX + ADDED_BYTES_MAX + 4 * 1024;

/// Free ones of a thread. Boxed, so that lending moves a pointer and a task holds no more.
pub(crate) struct Free<T>(RefCell<Vec<Box<T>>>);

impl<T> Free<T> {
    const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

/// Something a thread lends again and again.
pub(crate) trait Reuse: Default + 'static {
    /// Where this thread keeps free ones.
    fn pool() -> &'static LocalKey<Free<Self>>;
    /// Makes it as good as new; false if it is not worth keeping.
    fn reset(&mut self) -> bool;
}

/// A [`Reuse`] on loan; goes back when dropped.
pub(crate) struct Lent<T: Reuse>(Option<Box<T>>);

impl<T: Reuse> Lent<T> {
    pub(crate) fn take() -> Self {
        let pooled = T::pool().with(|free| free.0.borrow_mut().pop());
        Self(Some(pooled.unwrap_or_default()))
    }
}

impl<T: Reuse> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("invariant: it is there until drop")
    }
}

impl<T: Reuse> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("invariant: it is there until drop")
    }
}

impl<T: Reuse> Drop for Lent<T> {
    fn drop(&mut self) {
        let Some(mut one) = self.0.take() else { return };
        if !one.reset() {
            return;
        }
        // A thread that is ending has no pool any more; it is freed then.
        let _freed = T::pool().try_with(|pool| {
            let mut pool = pool.0.borrow_mut();
            if pool.len() < BUFFERS_KEPT {
                pool.push(one);
            }
        });
    }
}

/// Frees what this thread has free, of every kind.
pub(crate) fn free_all() {
    fn free<T: Reuse>() {
        T::pool().with(|pool| pool.0.take());
    }
    free::<Buffer>();
    free::<Output>();
    free::<RequestHead>();
    free::<ResponseHead>();
}

impl<T: Reuse> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

/// Bytes read and not yet consumed, at the front of a fixed piece of memory that grows only for
/// large heads.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Reuse for Buffer {
    fn pool() -> &'static LocalKey<Free<Self>> {
        thread_local! { static POOL: Free<Buffer> = const { Free::new() } }
        &POOL
    }

    fn reset(&mut self) -> bool {
        (self.start, self.end) = (0, 0);
        self.bytes.len() == BUFFER_BYTES
    }
}

impl Buffer {
    /// What was read and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` filled bytes are done with.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once, behind what is filled. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// As read(2); `OutOfMemory` if the buffer is full at its largest, which the codec's limits
    /// prevent.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.make_room()?;
        let mut space = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(from).poll_read(context, &mut space))?;
        let n = space.filled().len();
        self.end += n;
        Poll::Ready(Ok(n))
    }

    /// As [`Self::poll_read`], waiting.
    pub(crate) async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, from)).await
    }

    /// Is the buffer as full as one read can make it?
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.end < self.bytes.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            return Ok(());
        }
        if self.bytes.len() >= BUFFER_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let mut larger = vec![0; (self.bytes.len() * 2).min(BUFFER_BYTES_MAX)];
        larger[..self.end].copy_from_slice(&self.bytes[..self.end]);
        self.bytes = larger.into_boxed_slice();
        Ok(())
    }
}

impl HeadBytes for Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn replace_front(&mut self, len: usize, by: &[u8]) {
        let rest = &self.filled()[len..];
        let mut bytes = vec![0; self.bytes.len().max(by.len() + rest.len())].into_boxed_slice();
        let end = by.len() + rest.len();
        bytes[..by.len()].copy_from_slice(by);
        bytes[by.len()..end].copy_from_slice(rest);
        *self = Self { bytes, start: 0, end };
    }
}

/// Reads once into `input`, which has a buffer only while there are bytes in it: who waits holds no
/// memory. `Ok(0)` is the end of the stream.
///
/// # Errors
/// As [`Buffer::poll_read`].
pub(crate) fn poll_input(
    context: &mut Context<'_>,
    from: &mut impl Source,
    input: &mut Option<Lent<Buffer>>,
) -> Poll<io::Result<usize>> {
    if input.is_none() {
        ready!(from.poll_read_ready(context))?;
    }
    let buffer = input.get_or_insert_with(Lent::take);
    let read = buffer.poll_read(context, from);
    if buffer.is_empty() {
        *input = None;
    }
    read
}

/// As [`poll_input`], waiting.
pub(crate) async fn read_input(
    from: &mut impl Source,
    input: &mut Option<Lent<Buffer>>,
) -> io::Result<usize> {
    poll_fn(|context| poll_input(context, from, input)).await
}

/// Bytes to be written: an edited head with what follows it.
#[derive(Default)]
pub(crate) struct Output(pub(crate) Vec<u8>);

impl Reuse for Output {
    fn pool() -> &'static LocalKey<Free<Self>> {
        thread_local! { static POOL: Free<Output> = const { Free::new() } }
        &POOL
    }

    fn reset(&mut self) -> bool {
        self.0.clear();
        self.0.capacity() <= 4 * COPY_BYTES
    }
}

impl Reuse for RequestHead {
    fn pool() -> &'static LocalKey<Free<Self>> {
        thread_local! { static POOL: Free<RequestHead> = const { Free::new() } }
        &POOL
    }

    fn reset(&mut self) -> bool {
        self.clear();
        true
    }
}

impl Reuse for ResponseHead {
    fn pool() -> &'static LocalKey<Free<Self>> {
        thread_local! { static POOL: Free<ResponseHead> = const { Free::new() } }
        &POOL
    }

    fn reset(&mut self) -> bool {
        self.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_consumed_stays_when_more_is_read() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.read(&mut &b"GET / HT"[..]).await.unwrap(), 8);
        buffer.consume(4);
        buffer.read(&mut &b"TP/1.1"[..]).await.unwrap();
        assert_eq!(buffer.filled(), b"/ HTTP/1.1");
        buffer.consume(100);
        assert!(buffer.is_empty());
    }

    #[tokio::test]
    async fn a_buffer_grows_for_a_large_head_and_no_further() {
        let endless = vec![b'x'; 10 * BUFFER_BYTES_MAX];
        let mut from = &endless[..];
        let mut buffer = Buffer::default();
        let error = loop {
            if let Err(error) = buffer.read(&mut from).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(buffer.filled().len(), BUFFER_BYTES_MAX);
        assert!(!buffer.reset(), "a grown buffer is given back to the allocator");
    }
}
