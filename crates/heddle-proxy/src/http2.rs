//! HTTP/2 as clients speak it to a sidecar: the connection with its limits, and frames written to a
//! stream. Requests on it are `call`'s; connections to upstreams are `streams`'.

pub(crate) mod upgrade;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream, server};
use heddle_runtime::transport::Transport;
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::{
    buffers::{Buffer, Lent},
    frames::{Frame, Frames, Reset, clean_trailers},
    http2::upgrade::Joined,
    limits::{
        HTTP2_CONNECTION_WINDOW, HTTP2_HEADER_LIST_BYTES, HTTP2_RESET_STREAMS,
        HTTP2_SEND_BUFFER_BYTES, HTTP2_SMALL_FRAMES_BYTES, HTTP2_STREAM_WINDOW, HTTP2_STREAMS,
    },
    read_through::{ReadThrough, Reading},
};

/// A client's connection.
pub(crate) type Connection = server::Connection<ReadThrough<Rewound>, Bytes>;

/// Begins a connection of which `held` was read already; `joined` is a request that asked for it.
///
/// # Errors
/// The client's beginning is none of HTTP/2, or it is gone.
pub(crate) async fn accept(
    transport: Transport,
    held: Option<Lent<Buffer>>,
    joined: Option<Joined>,
) -> Result<Connection, h2::Error> {
    server::Builder::new()
        .initial_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES)
        .max_concurrent_reset_streams(HTTP2_RESET_STREAMS)
        .max_pending_accept_reset_streams(HTTP2_RESET_STREAMS)
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES)
        .data_frame_budget(HTTP2_SMALL_FRAMES_BYTES)
        .enable_connect_protocol()
        .handshake(ReadThrough::new(transport, Rewound { held, joined: joined.map(Box::new) }))
        .await
}

/// Of a transport some was read already.
#[derive(Debug)]
pub(crate) struct Rewound {
    held: Option<Lent<Buffer>>,
    /// What is put into the client's beginning.
    joined: Option<Box<Joined>>,
}

impl Rewound {
    /// Reads what there is of the client, whatever is put into it.
    fn poll_received(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(held) = &mut self.held {
            let n = held.filled().len().min(buffer.remaining());
            buffer.put_slice(&held.filled()[..n]);
            held.consume(n);
            self.held.take_if(|held| held.is_empty());
            return Poll::Ready(Ok(()));
        }
        Pin::new(transport).poll_read(context, buffer)
    }

    /// The same where a request is put into it.
    fn poll_joined(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; 1024];
        loop {
            let Some(joined) = &mut self.joined else {
                return self.poll_received(transport, context, buffer);
            };
            if let Some(bytes) = joined.take(buffer.remaining()) {
                buffer.put_slice(bytes);
                self.joined.take_if(|joined| joined.is_over());
                return Poll::Ready(Ok(()));
            }
            let mut piece = ReadBuf::new(&mut piece);
            ready!(self.poll_received(transport, context, &mut piece))?;
            match (piece.filled(), &mut self.joined) {
                ([], _) | (_, None) => return Poll::Ready(Ok(())),
                (bytes, Some(joined)) => joined.add(bytes),
            }
        }
    }
}

impl Reading for Rewound {
    fn poll_read(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.joined {
            None => self.poll_received(transport, context, buffer),
            Some(_) => self.poll_joined(transport, context, buffer),
        }
    }
}

/// Why frames did not all go out.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Their source gave up.
    Source(Reset),
    /// Whoever they were for takes no more.
    Sink,
}

/// Writes frames to a stream to their end, no faster than its receiver lets it; `moved` counts.
///
/// # Errors
/// [`Stopped`]; the stream is not ended then.
pub(crate) async fn pump(
    frames: &mut impl Frames,
    to: &mut SendStream<Bytes>,
    moved: impl Fn(u64),
) -> Result<(), Stopped> {
    loop {
        match next(frames, to).await? {
            Some(Frame::Data(mut data)) => {
                while data.has_remaining() {
                    let room = room_for(to, data.len(), frames).await?;
                    let piece = data.split_to(room.min(data.len()));
                    moved(piece.len() as u64);
                    let last = data.is_empty() && frames.is_over();
                    sent(to.send_data(piece, last), to)?;
                    if last {
                        return Ok(());
                    }
                }
            }
            Some(Frame::Trailers(mut fields)) => {
                clean_trailers(&mut fields);
                return sent(to.send_trailers(fields), to);
            }
            None => return sent(to.send_data(Bytes::new(), true), to),
        }
    }
}

/// What cannot be sent leaves nobody waiting for it.
fn sent(result: Result<(), h2::Error>, to: &mut SendStream<Bytes>) -> Result<(), Stopped> {
    result.map_err(|_| {
        to.send_reset(Reason::INTERNAL_ERROR);
        Stopped::Sink
    })
}

/// The next frame, unless the receiver resets the stream before it comes.
async fn next(
    frames: &mut impl Frames,
    to: &mut SendStream<Bytes>,
) -> Result<Option<Frame>, Stopped> {
    poll_fn(|context| {
        if let Poll::Ready(frame) = frames.poll_frame(context) {
            return Poll::Ready(frame.transpose().map_err(Stopped::Source));
        }
        to.poll_reset(context).map(|_| Err(Stopped::Sink))
    })
    .await
}

/// Waits until the receiver takes some of `bytes`; nobody waits for the sake of a source that is gone.
async fn room_for(
    to: &mut SendStream<Bytes>,
    bytes: usize,
    frames: &mut impl Frames,
) -> Result<usize, Stopped> {
    to.reserve_capacity(bytes);
    loop {
        let room = to.capacity();
        if room > 0 {
            return Ok(room);
        }
        let changed = poll_fn(|context| to.poll_capacity(context));
        tokio::select! {
            biased;
            changed = changed => {
                if !matches!(changed, Some(Ok(_))) {
                    return Err(Stopped::Sink);
                }
            }
            () = frames.gone() => return Err(Stopped::Source(Reset(Reason::CANCEL))),
        }
    }
}

/// The code to end a stream with for the sake of `error` on another.
pub(crate) fn reason_of(error: &h2::Error) -> Reason {
    match error.reason() {
        Some(reason) => reason,
        None => Reason::INTERNAL_ERROR,
    }
}

/// The next frame of a stream; `trailed` once its trailers were given.
pub(crate) fn poll_received(
    stream: &mut RecvStream,
    trailed: &mut bool,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame, Reset>>> {
    let failed = |error: h2::Error| Some(Err(Reset(reason_of(&error))));
    loop {
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) if data.is_empty() => {}
            Some(Ok(data)) => return Poll::Ready(received(stream, data)),
            Some(Err(error)) => return Poll::Ready(failed(error)),
            None => break,
        }
    }
    if *trailed {
        return Poll::Ready(None);
    }
    let trailers = ready!(stream.poll_trailers(context));
    *trailed = true;
    Poll::Ready(match trailers {
        Ok(trailers) => trailers.map(|fields| Ok(Frame::Trailers(fields))),
        Err(error) => failed(error),
    })
}

/// Taken, it makes room for more: what goes on waits in one frame at most.
fn received(stream: &mut RecvStream, data: Bytes) -> Option<Result<Frame, Reset>> {
    // A stream that has ended needs no room.
    let _ended = stream.flow_control().release_capacity(data.len());
    Some(Ok(Frame::Data(data)))
}
