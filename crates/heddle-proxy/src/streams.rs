//! Connections of HTTP/2 to one upstream, on one worker, and the streams that requests get of them.
//!
//! Any request may share any of these connections: what a server of HTTP/2 remembers, it remembers per
//! request. One is opened when there is none with room, and those who want one meanwhile wait for it; it
//! is closed when it has carried nothing for as long as one of HTTP/1 may idle (`pool`), and cut when its
//! server has vanished without a word. That is told by what the kernel waits for, since a PING that nobody asked
//! for is an offence to some servers.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Ping,
    client::{self, ResponseFuture, SendRequest},
};
use heddle_logic::retry::POOL_IDLE_MAX;
use heddle_model::discovery::Http2Keepalive;
use heddle_runtime::{clock, task, transport::Transport};
use http::request;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    task::AbortHandle,
};

use crate::{
    limits::{
        HTTP2_CONNECTION_WINDOW, HTTP2_HEADER_LIST_BYTES, HTTP2_RESET_STREAMS,
        HTTP2_SEND_BUFFER_BYTES, HTTP2_SMALL_FRAMES_BYTES, HTTP2_STREAM_WINDOW, SERVER_SILENCE,
    },
    read_through::{ReadThrough, Reading},
    refusal::Refusal,
};

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// 1.0 and 1.1.
    Http1,
    /// With prior knowledge, where there is no TLS.
    Http2,
}

/// Connections to one upstream.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    connections: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    by_rule: Cell<StreamLimits>,
}

/// What a rule says of connections.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamLimits {
    /// Requests that one carries.
    pub(crate) requests: Option<u32>,
    /// Of those, how many at once.
    pub(crate) at_once: Option<u32>,
    /// How long one may carry nothing; zero: any time.
    pub(crate) idle: Option<Duration>,
    /// How old one may get before it takes no more requests.
    pub(crate) lasts: Option<Duration>,
    /// When its server is asked whether it is there.
    pub(crate) pings: Option<Http2Keepalive>,
}

#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    /// Streams in use.
    open: Cell<usize>,
    /// Streams so far.
    carried: Cell<u32>,
    opened: Instant,
    idle_since: Cell<Instant>,
    fate: Rc<Fate>,
    /// What it runs over, to be looked at.
    transport: Rc<RefCell<Transport>>,
    silence: Cell<Silence>,
    /// Drives it.
    driver: AbortHandle,
}

impl Connection {
    /// Has it carried all that a rule has it carry?
    fn is_used_up(&self, rule: &StreamLimits) -> bool {
        let age = || clock::now().saturating_duration_since(self.opened);
        rule.requests.is_some_and(|most| self.carried.get() >= most)
            || rule.lasts.is_some_and(|lasts| age() >= lasts)
    }

    fn has_room(&self, rule: &StreamLimits) -> bool {
        let at_once = rule.at_once.map_or(usize::MAX, |most| most as usize);
        self.open.get() < self.send.current_max_send_streams().min(at_once)
            && !self.is_used_up(rule)
    }

    /// Nobody is at its other end any more: whoever has a stream on it is told by that.
    fn cut(&self) {
        // Else the kernel would go on asking for an answer.
        self.transport.borrow().reset_on_close();
        self.fate.ended.set(true);
        self.fate.hear();
        self.driver.abort();
    }
}

/// For how long the other end has been silent that is to acknowledge something.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// Is nobody there any more, by what is found `now`: for how long nothing was acknowledged, where
    /// something is to be? What was silent for long because there was nothing to say begins its silence
    /// with the first look that finds something.
    fn is_too_long(&mut self, now: Instant, unacknowledged: Option<Duration>) -> bool {
        let heard = |silence| now.checked_sub(silence).unwrap_or(now);
        self.since = unacknowledged.map(|silence| self.since.unwrap_or(now).max(heard(silence)));
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= SERVER_SILENCE)
    }
}

/// What became of a connection.
#[derive(Debug, Default)]
struct Fate {
    ended: Cell<bool>,
    /// Its first bytes were none of HTTP/2: so servers of HTTP/1 answer what they cannot read.
    speaks_http1: Cell<bool>,
    /// Its first bytes have come, or never will.
    heard: Cell<bool>,
    /// Told of that.
    hears: Notify,
}

impl Fate {
    fn hear(&self) {
        self.heard.set(true);
        self.hears.notify_waiters();
    }
}

/// A connection on its way, for which others wait.
#[derive(Debug, Default)]
struct Opening {
    over: Notify,
    failed: OnceCell<Refusal>,
}

/// Room for one request on a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Rc<Connection>,
    /// Did the connection carry requests before?
    pub(crate) reused: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get() - 1);
        self.connection.idle_since.set(clock::now());
    }
}

impl Streams {
    /// Room for a request: on a connection that is there, unless it must be `fresh`, or on one that
    /// `dial` opens.
    ///
    /// # Errors
    /// The refusal of dialling.
    pub(crate) async fn take(
        &self,
        fresh: bool,
        dial: impl AsyncFn() -> Result<Transport, Refusal>,
    ) -> Result<Stream, Refusal> {
        loop {
            if !fresh && let Some(stream) = self.with_room() {
                return Ok(stream);
            }
            let waited_for = self.opening.borrow().clone().filter(|_| !fresh);
            if let Some(opening) = waited_for {
                opening.over.notified().await;
                match opening.failed.get() {
                    Some(refusal) => return Err(refusal.clone()),
                    // Its room may be gone again, or whoever opened it has given up.
                    None => continue,
                }
            }
            return self.open(dial()).await;
        }
    }

    async fn open(
        &self,
        dialling: impl Future<Output = Result<Transport, Refusal>>,
    ) -> Result<Stream, Refusal> {
        let opening = Announced::by(self);
        let opened = async { connect(dialling.await?, self.by_rule.get().pings).await }.await;
        match opened {
            Ok(connection) => {
                let connection = Rc::new(connection);
                self.connections.borrow_mut().push(Rc::clone(&connection));
                drop(opening);
                Ok(take_room(&connection, false))
            }
            Err(refusal) => {
                let _first = opening.opening.failed.set(refusal.clone());
                Err(refusal)
            }
        }
    }

    fn with_room(&self) -> Option<Stream> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|one| !one.fate.ended.get());
        let rule = self.by_rule.get();
        let fit = connections.iter().find(|one| one.has_room(&rule));
        fit.map(|connection| take_room(connection, true))
    }

    /// Closes what was idle for too long; true while some are left.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        self.cut_silent(now, Transport::unacknowledged);
        let rule = self.by_rule.get();
        let limit = rule.idle.unwrap_or(POOL_IDLE_MAX);
        self.keep(|one| {
            let idled = now.saturating_duration_since(one.idle_since.get());
            !one.is_used_up(&rule) && (limit.is_zero() || idled < limit)
        })
    }

    /// Cuts those in use at whose other end nobody is any more.
    fn cut_silent(&self, now: Instant, unacknowledged: impl Fn(&Transport) -> Option<Duration>) {
        for one in self.connections.borrow().iter().filter(|one| one.open.get() > 0) {
            let mut silence = one.silence.get();
            if silence.is_too_long(now, unacknowledged(&one.transport.borrow())) {
                one.cut();
            }
            one.silence.set(silence);
        }
    }

    /// A rule limits connections.
    pub(crate) fn limited(&self, by_rule: StreamLimits) {
        self.by_rule.set(by_rule);
    }

    /// Closes all that carry nothing; true while some are left.
    pub(crate) fn clear(&self) -> bool {
        self.keep(|_| false)
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Keeps what is in use, and of the rest what is `wanted`.
    fn keep(&self, wanted: impl Fn(&Connection) -> bool) -> bool {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|one| !one.fate.ended.get() && (one.open.get() > 0 || wanted(one)));
        !connections.is_empty()
    }

    /// Nothing more goes over connections of this kind: those that carry something end with it.
    pub(crate) fn abandon(&self) {
        self.connections.borrow_mut().clear();
    }
}

/// Says to others that a connection is on its way, until it is dropped.
struct Announced<'a> {
    streams: &'a Streams,
    opening: Rc<Opening>,
}

impl<'a> Announced<'a> {
    fn by(streams: &'a Streams) -> Self {
        let opening = Rc::<Opening>::default();
        *streams.opening.borrow_mut() = Some(Rc::clone(&opening));
        Self { streams, opening }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.streams.opening.borrow_mut().take_if(|one| Rc::ptr_eq(one, &self.opening));
        self.opening.over.notify_waiters();
    }
}

fn take_room(connection: &Rc<Connection>, reused: bool) -> Stream {
    connection.open.set(connection.open.get() + 1);
    connection.carried.set(connection.carried.get().saturating_add(1));
    Stream { connection: Rc::clone(connection), reused }
}

async fn connect(
    transport: Transport,
    pings: Option<Http2Keepalive>,
) -> Result<Connection, Refusal> {
    let fate = Rc::<Fate>::default();
    // It says so before a byte of either.
    fate.speaks_http1.set(transport.chose_http1());
    fate.ended.set(transport.chose_http1());
    let reading = FirstBytes { fate: Rc::clone(&fate), first: Some(Vec::new()) };
    let io = ReadThrough::new(transport, reading);
    let transport = io.transport();
    let handshake = client::Builder::new()
        .initial_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(HTTP2_HEADER_LIST_BYTES)
        .max_concurrent_reset_streams(HTTP2_RESET_STREAMS)
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES)
        .data_frame_budget(HTTP2_SMALL_FRAMES_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(io);
    let failed = |error: h2::Error| Refusal::ConnectFailed(error.to_string());
    let (send, connection) = handshake.await.map_err(failed)?;
    let (driven, looked_at) = (Rc::clone(&fate), Rc::clone(&transport));
    let driver = task::spawn_contained("http2 upstream", async move {
        // Whoever has a stream on it is told by the stream.
        match pings {
            None => drop(connection.await),
            Some(pings) => Box::pin(drive_asking(connection, pings, &looked_at)).await,
        }
        driven.ended.set(true);
        driven.hear();
    });
    Ok(Connection {
        send,
        open: Cell::new(0),
        carried: Cell::new(0),
        opened: clock::now(),
        idle_since: Cell::new(clock::now()),
        fate,
        transport,
        silence: Cell::default(),
        driver: driver.abort_handle(),
    })
}

/// Drives a connection whose server has to answer a PING now and then; one that does not is gone.
async fn drive_asking<T: AsyncRead + AsyncWrite + Unpin>(
    mut connection: client::Connection<T>,
    rule: Http2Keepalive,
    transport: &RefCell<Transport>,
) {
    let Some(mut pings) = connection.ping_pong() else { return drop(connection.await) };
    let unanswered = async {
        loop {
            clock::sleep(rule.interval).await;
            let answer = clock::within(rule.timeout, pings.ping(Ping::opaque())).await;
            if !matches!(answer, Some(Ok(_))) {
                return;
            }
        }
    };
    tokio::select! {
        _ended = connection => {}
        () = unanswered => transport.borrow().reset_on_close(),
    }
}

impl Stream {
    /// Sends a head, when the connection has room for it.
    ///
    /// # Errors
    /// The connection has ended; nothing was sent.
    pub(crate) async fn send(
        &self,
        head: request::Parts,
        over: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let mut send = self.connection.send.clone();
        poll_fn(|context| send.poll_ready(context)).await?;
        send.send_request(http::Request::from_parts(head, ()), over)
    }

    /// Does the server take requests that become another protocol (RFC 8441 §3)? Its SETTINGS say so, with
    /// which it begins.
    pub(crate) async fn takes_protocols(&self) -> bool {
        let Connection { send, fate, .. } = &*self.connection;
        let mut hears = pin!(fate.hears.notified());
        hears.as_mut().enable();
        if !fate.heard.get() {
            hears.await;
        }
        // What was read is looked at when its task has run.
        tokio::task::yield_now().await;
        send.is_extended_connect_protocol_enabled()
    }

    /// The connection takes no more requests.
    pub(crate) fn end(&self) {
        self.connection.fate.ended.set(true);
    }

    /// Does the connection take no more requests?
    pub(crate) fn has_ended(&self) -> bool {
        self.connection.fate.ended.get()
    }

    /// Has the server said that it speaks HTTP/2, and is it there?
    pub(crate) fn speaks_http2(&self) -> bool {
        let fate = &self.connection.fate;
        fate.heard.get() && !fate.ended.get() && !fate.speaks_http1.get()
    }

    /// Was it found out that the server speaks HTTP/1 only?
    pub(crate) fn speaks_http1(&self) -> bool {
        self.connection.fate.speaks_http1.get()
    }
}

/// Of a connection the first bytes are looked at: what is no SETTINGS is a server that speaks less.
#[derive(Debug)]
struct FirstBytes {
    fate: Rc<Fate>,
    first: Option<Vec<u8>>,
}

impl FirstBytes {
    /// A server of HTTP/2 begins with SETTINGS (RFC 9113 §3.4), of which the type is the fourth byte.
    fn look(&mut self, bytes: &[u8]) {
        const TYPE: usize = 3;
        const SETTINGS: u8 = 4;
        let Some(first) = &mut self.first else { return };
        first.extend_from_slice(&bytes[..bytes.len().min(TYPE + 1 - first.len())]);
        let ended = bytes.is_empty() && !first.is_empty();
        if ended || first.len() > TYPE {
            self.fate.speaks_http1.set(first.get(TYPE) != Some(&SETTINGS));
            self.first = None;
            self.fate.hear();
        }
    }
}

impl Reading for FirstBytes {
    fn poll_read(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(transport).poll_read(context, buffer);
        if self.first.is_some() && matches!(read, Poll::Ready(Ok(()))) {
            self.look(&buffer.filled()[before..]);
        }
        read
    }
}

#[cfg(test)]
mod tests;
