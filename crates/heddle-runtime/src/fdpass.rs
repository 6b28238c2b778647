//! Frames with file descriptors over a path socket: a 4-byte big-endian length, then that many
//! bytes; descriptors travel beside the frame's first byte (SCM_RIGHTS). What the bytes mean is the
//! caller's business.
//!
//! What a peer sends takes up descriptors of this process until the frame is whole. So they are
//! counted over the frame, however many messages it comes in, and who expects none takes none.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::Path,
    sync::Arc,
};

use tokio::{io::Interest, net::UnixStream};

use crate::sys;
pub use crate::sys::message::FDS_MAX;

/// Largest frame, bytes; a peer that announces more is cut off.
pub const FRAME_MAX: usize = 256 * 1024;

const LENGTH_BYTES: usize = 4;

/// A received frame: its bytes and the descriptors that came with it.
pub type Frame = (Vec<u8>, Vec<OwnedFd>);

/// Who is at the other end of a path socket, told by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, if it is in our process namespace.
    pub pid: Option<i32>,
}

/// A framed connection.
#[derive(Debug)]
pub struct FdStream {
    reader: FdReader,
    writer: FdWriter,
}

/// The receiving half of an [`FdStream`].
#[derive(Debug)]
pub struct FdReader {
    stream: Arc<UnixStream>,
    partial: Partial,
    /// Descriptors taken with one frame.
    fds_max: usize,
}

/// The sending half of an [`FdStream`].
#[derive(Debug, Clone)]
pub struct FdWriter {
    stream: Arc<UnixStream>,
}

/// What has arrived of the next frame.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; LENGTH_BYTES],
    header_filled: usize,
    body: Vec<u8>,
    body_filled: usize,
    fds: Vec<OwnedFd>,
}

impl FdStream {
    /// Frames over an existing connection.
    pub fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        let writer = FdWriter { stream: Arc::clone(&stream) };
        Self { reader: FdReader { stream, partial: Partial::default(), fds_max: FDS_MAX }, writer }
    }

    /// Connects to a path socket.
    ///
    /// # Errors
    /// As connect(2): ENOENT or ECONNREFUSED if nobody listens.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        peer_credentials(&self.writer.stream)
    }

    /// See [`FdWriter::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.writer.send(bytes, fds).await
    }

    /// See [`FdReader::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> io::Result<Option<Frame>> {
        self.reader.recv().await
    }

    /// Two halves, for two tasks.
    pub fn into_split(self) -> (FdReader, FdWriter) {
        (self.reader, self.writer)
    }
}

impl FdReader {
    /// From now on a peer that sends a descriptor is cut off: for who is only asked questions.
    #[must_use]
    pub fn without_fds(mut self) -> Self {
        self.fds_max = 0;
        self
    }

    /// The next frame; `None` when the peer has closed between two frames. Dropping the future
    /// loses nothing: the next call goes on where it stopped.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer closed within a frame, `InvalidData` for a frame over
    /// [`FRAME_MAX`] or more than [`FDS_MAX`] descriptors (none after [`Self::without_fds`]); the
    /// connection is of no use after either, and holds no descriptor.
    pub async fn recv(&mut self) -> io::Result<Option<Frame>> {
        let Self { stream, partial, fds_max } = self;
        loop {
            let receive = || partial.receive(stream.as_fd(), *fds_max);
            let step = stream.async_io(Interest::READABLE, receive).await;
            let step = step.inspect_err(|_| partial.fds.clear())?;
            match step {
                Step::More => {}
                Step::Frame(frame) => return Ok(Some(frame)),
                Step::End => return Ok(None),
            }
        }
    }
}

impl FdWriter {
    /// Sends one frame with its descriptors. Frames of several tasks must not be sent at once
    /// (they would mix), and a dropped future may have sent half a frame: close the connection then.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`FRAME_MAX`] bytes or [`FDS_MAX`] descriptors; else as sendmsg(2).
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let header = header_of(bytes, fds)?;
        let mut sent = 0;
        while sent < LENGTH_BYTES + bytes.len() {
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    send_from(self.stream.as_fd(), &header, bytes, sent, fds)
                })
                .await?;
        }
        Ok(())
    }
}

/// One system call's worth of progress.
enum Step {
    More,
    Frame(Frame),
    End,
}

impl Partial {
    /// Reads once; never past the end of the frame, so that the next one's descriptors stay with it.
    fn receive(&mut self, socket: BorrowedFd<'_>, fds_max: usize) -> io::Result<Step> {
        if self.header_filled < LENGTH_BYTES {
            let rest = &mut self.header[self.header_filled..];
            let count = sys::message::receive(socket, rest, &mut self.fds, fds_max)?;
            if count == 0 {
                return if self.header_filled == 0 { Ok(Step::End) } else { Err(cut_off()) };
            }
            self.header_filled += count;
            if self.header_filled < LENGTH_BYTES {
                return Ok(Step::More);
            }
            let length = u32::from_be_bytes(self.header) as usize;
            if length > FRAME_MAX {
                return Err(too_long(io::ErrorKind::InvalidData, length));
            }
            self.body = vec![0; length];
        } else {
            let rest = &mut self.body[self.body_filled..];
            let count = sys::message::receive(socket, rest, &mut self.fds, fds_max)?;
            if count == 0 {
                return Err(cut_off());
            }
            self.body_filled += count;
        }
        if self.body_filled < self.body.len() {
            return Ok(Step::More);
        }
        let Self { body, fds, .. } = std::mem::take(self);
        Ok(Step::Frame((body, fds)))
    }
}

/// Who is at the other end of `stream`.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_credentials(stream: &UnixStream) -> io::Result<PeerCredentials> {
    let credentials = stream.peer_cred()?;
    Ok(PeerCredentials { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
}

/// As [`FdWriter::send`], on a blocking socket.
///
/// # Errors
/// As there.
pub fn send_blocking(
    stream: &StdUnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let header = header_of(bytes, fds)?;
    let mut sent = 0;
    while sent < LENGTH_BYTES + bytes.len() {
        match send_from(stream.as_fd(), &header, bytes, sent, fds) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As [`FdReader::recv`], on a blocking socket; a time limit set on the socket holds per read.
///
/// # Errors
/// As there.
pub fn recv_blocking(stream: &StdUnixStream) -> io::Result<Option<Frame>> {
    let mut partial = Partial::default();
    loop {
        match partial.receive(stream.as_fd(), FDS_MAX) {
            Ok(Step::More) => {}
            Ok(Step::Frame(frame)) => return Ok(Some(frame)),
            Ok(Step::End) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn header_of(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<[u8; LENGTH_BYTES]> {
    if bytes.len() > FRAME_MAX {
        return Err(too_long(io::ErrorKind::InvalidInput, bytes.len()));
    }
    if fds.len() > FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors in one frame, at most {FDS_MAX} fit", fds.len()),
        ));
    }
    Ok((bytes.len() as u32).to_be_bytes())
}

/// Sends what follows the first `sent` bytes; the descriptors go with byte 0.
fn send_from(
    socket: BorrowedFd<'_>,
    header: &[u8; LENGTH_BYTES],
    bytes: &[u8],
    sent: usize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let header = &header[sent.min(LENGTH_BYTES)..];
    let bytes = &bytes[sent.saturating_sub(LENGTH_BYTES)..];
    let fds = if sent == 0 { fds } else { &[] };
    sys::message::send(socket, &[IoSlice::new(header), IoSlice::new(bytes)], fds)
}

fn too_long(kind: io::ErrorKind, length: usize) -> io::Error {
    io::Error::new(kind, format!("a frame of {length} bytes, at most {FRAME_MAX} are allowed"))
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed within a frame")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::clock;

    fn streams() -> (FdStream, FdStream) {
        let (left, right) = UnixStream::pair().expect("a pair");
        (FdStream::new(left), FdStream::new(right))
    }

    #[tokio::test]
    async fn a_descriptor_arrives_with_the_frame_that_names_it() {
        let (sender, mut receiver) = streams();
        let (mut kept, given) = StdUnixStream::pair().expect("a pair");
        sender.send(b"none", &[]).await.expect("sends");
        sender.send(b"one", &[given.as_fd()]).await.expect("sends");
        sender.send(b"", &[]).await.expect("sends");
        drop((sender, given));

        let (bytes, fds) = receiver.recv().await.expect("receives").expect("a frame");
        assert_eq!((&*bytes, fds.len()), (&b"none"[..], 0));
        let (bytes, mut fds) = receiver.recv().await.expect("receives").expect("a frame");
        assert_eq!((&*bytes, fds.len()), (&b"one"[..], 1));
        let mut got = StdUnixStream::from(fds.remove(0));
        got.write_all(b"through").expect("the descriptor works");
        drop(got);
        let mut text = String::new();
        kept.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "through");
        let (bytes, fds) = receiver.recv().await.expect("receives").expect("a frame");
        assert_eq!((bytes.len(), fds.len()), (0, 0));
        assert!(receiver.recv().await.expect("receives").is_none());
    }

    #[tokio::test]
    async fn the_largest_frame_passes_and_a_larger_one_does_not() {
        let (sender, mut receiver) = streams();
        let bytes: Vec<u8> = (0..FRAME_MAX).map(|index| index as u8).collect();
        let (sent, received) = tokio::join!(sender.send(&bytes, &[]), receiver.recv());
        sent.expect("sends");
        assert_eq!(received.expect("receives").expect("a frame").0, bytes);
        let error = sender.send(&vec![0; FRAME_MAX + 1], &[]).await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_dropped_receive_loses_nothing() {
        let (left, right) = UnixStream::pair().expect("a pair");
        let mut receiver = FdStream::new(right);
        left.try_write(&[0, 0]).expect("half a header");
        let pause = std::time::Duration::from_millis(1);
        assert!(clock::within(pause, receiver.recv()).await.is_none());
        left.try_write(&[0, 3, b'a']).expect("more");
        assert!(clock::within(pause, receiver.recv()).await.is_none());
        left.try_write(b"bc").expect("the rest");
        let (bytes, _) = receiver.recv().await.expect("receives").expect("a frame");
        assert_eq!(bytes, b"abc");
    }

    #[tokio::test]
    async fn a_peer_that_lies_about_the_length_is_an_error() {
        let (left, right) = UnixStream::pair().expect("a pair");
        left.try_write(&u32::MAX.to_be_bytes()).expect("a header");
        let error = FdStream::new(right).recv().await.expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let (left, right) = UnixStream::pair().expect("a pair");
        left.try_write(&[0, 0, 0, 9, b'x']).expect("a torn frame");
        drop(left);
        let error = FdStream::new(right).recv().await.expect_err("torn");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn blocking_and_async_speak_the_same() {
        let (left, right) = StdUnixStream::pair().expect("a pair");
        let fds: Vec<_> = (0..FDS_MAX).map(|_| left.as_fd()).collect();
        send_blocking(&left, b"hello", &fds).expect("sends");
        let (bytes, fds) = recv_blocking(&right).expect("receives").expect("a frame");
        assert_eq!((&*bytes, fds.len()), (&b"hello"[..], FDS_MAX));
        drop((left, fds));
        assert!(recv_blocking(&right).expect("receives").is_none());
    }

    /// Sends `message` with `count` copies of the socket itself.
    fn send_raw(socket: &StdUnixStream, message: &[u8], count: usize) {
        let fds = vec![socket.as_fd(); count];
        let sent = sys::message::send(socket.as_fd(), &[IoSlice::new(message)], &fds);
        assert_eq!(sent.expect("sends"), message.len());
    }

    #[tokio::test]
    async fn descriptors_are_counted_over_all_messages_of_a_frame() {
        for (counts, taken) in
            [(&[16, 0][..], Some(16)), (&[15, 1], Some(16)), (&[15, 2], None), (&[16, 1], None)]
        {
            let (left, right) = StdUnixStream::pair().expect("a pair");
            right.set_nonblocking(true).expect("sets");
            let mut receiver = FdStream::new(UnixStream::from_std(right).expect("registers"));
            send_raw(&left, &[0, 0, 0, 9], counts[0]);
            for count in &counts[1..] {
                send_raw(&left, b"x", *count);
            }
            let pause = std::time::Duration::from_millis(1);
            match (clock::within(pause, receiver.recv()).await, taken) {
                (None, Some(taken)) => assert_eq!(receiver.reader.partial.fds.len(), taken),
                (Some(Err(error)), None) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    assert_eq!(receiver.reader.partial.fds.len(), 0, "all are closed");
                }
                other => panic!("{counts:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn who_expects_no_descriptor_takes_none() {
        for message in [&b"\0"[..], b"\0\0\0\x01", b"\0\0\0\x01x"] {
            let (left, right) = StdUnixStream::pair().expect("a pair");
            right.set_nonblocking(true).expect("sets");
            let receiver = FdStream::new(UnixStream::from_std(right).expect("registers"));
            let mut reader = receiver.into_split().0.without_fds();
            send_raw(&left, message, 1);
            let error = reader.recv().await.expect_err("is cut off");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn the_peer_is_named_by_the_kernel() {
        let (left, _right) = streams();
        let peer = left.peer_credentials().expect("credentials");
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
    }
}
