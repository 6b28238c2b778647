//! Health, metrics, the application's probes and the admin page, live calls among it.
//!
//! GET and HEAD are answered and nothing else but the one order there is, POST of `/drain`, and a
//! call that is described to be explained, from bounded buffers and in bounded time. Health is
//! answered by thread 0, whose life it tells of; all that may be long has a thread of its own, so
//! that no name waits for a scrape. The HTTP is hyper's, not the data path's codec: what comes here
//! is a probe or a scraper.

mod app_metrics;
mod app_probes;
mod asked;
mod dump;
mod page;
mod taken;
mod tapped;

use std::{
    convert::Infallible,
    future, io,
    net::SocketAddr,
    os::unix::net::UnixListener as StdUnixListener,
    path::Path,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use heddle_runtime::{
    clock, net,
    path_socket::{self, Peers},
    task::{self, spawn_contained},
};
use heddle_wire::local::{
    app_probes::APP_PROBES_PREFIX,
    tap_api::{self, TapFilter},
};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header::ACCEPT,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use self::{
    page::{JSON, Page, TEXT, lines, pieces, whole},
    taken::TakenInTime,
    tapped::Lines,
};
use crate::{
    Shared,
    direction::Direction,
    metrics::{
        exposition::{Exposition, Format},
        scrape::Scrape,
    },
    tap::TapError,
};

/// Connections per listener at one time; further ones wait in the backlog. Each may hold an answer's
/// pieces, about 100 KiB, and as much again in the kernel.
const CONNECTIONS_MAX: usize = 16;
/// A connection that has not sent a whole request, or not taken an answer, for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A connection is closed behind the answer of this time, however busy it is.
const AGE_MAX: Duration = Duration::from_secs(600);
/// What the kernel holds of an answer, bytes: a peer that does not read must not cost megabytes.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Longest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Pause after a failed accept.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// What a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Readiness only (15021).
    Health,
    /// Metrics only (15090).
    Metrics,
    /// Metrics, readiness and the application's probes (15020).
    Merged,
    /// All of it, on the loopback (15000) or at a path socket only.
    Admin,
}

/// Bound and not yet served, to be handed to the thread that serves it.
#[derive(Debug)]
pub struct AdminListener {
    listener: std::net::TcpListener,
    face: Face,
}

impl AdminListener {
    /// Binds `address`.
    ///
    /// # Errors
    /// Why it could not be bound.
    pub fn bind(shared: &Shared, address: SocketAddr, face: Face) -> io::Result<Self> {
        let listener = net::listen_tcp_detached(address, shared.mark(), false)?;
        // What it accepts inherits the size.
        net::bound_send_buffer(&listener, SEND_BUFFER_BYTES)?;
        Ok(Self { listener, face })
    }

    /// Serves on this thread's runtime for ever; returns the bound address at once.
    ///
    /// # Errors
    /// If the runtime can take no more descriptors.
    pub fn serve(self, shared: &Arc<Shared>) -> io::Result<SocketAddr> {
        let listener = TcpListener::from_std(self.listener)?;
        let bound = listener.local_addr()?;
        spawn_contained("admin", accept(Arc::clone(shared), Listener::Tcp(listener), self.face));
        Ok(bound)
    }
}

/// The admin page at a path socket, for the user whose mesh it is.
#[derive(Debug)]
pub struct AdminSocket(StdUnixListener);

impl AdminSocket {
    /// Binds `path`; what a dead process left there goes.
    ///
    /// # Errors
    /// Why it could not be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        path_socket::bind_detached(path).map(Self)
    }

    /// Serves on this thread's runtime for ever.
    ///
    /// # Errors
    /// If the runtime can take no more descriptors.
    pub fn serve(self, shared: &Arc<Shared>) -> io::Result<()> {
        let listener = Listener::Path(UnixListener::from_std(self.0)?, Peers::new()?);
        spawn_contained("admin", accept(Arc::clone(shared), listener, Face::Admin));
        Ok(())
    }
}

/// Serves `listeners` for ever on this thread, which is theirs.
///
/// # Errors
/// If a runtime cannot be made, or can take no more descriptors.
pub(crate) fn run(
    shared: &Arc<Shared>,
    listeners: Vec<AdminListener>,
    socket: Option<AdminSocket>,
) -> io::Result<()> {
    task::run_local(async {
        for listener in listeners {
            listener.serve(shared)?;
        }
        if let Some(socket) = socket {
            socket.serve(shared)?;
        }
        future::pending().await
    })?
}

/// What connections come from.
enum Listener {
    Tcp(TcpListener),
    Path(UnixListener, Peers),
}

async fn accept(shared: Arc<Shared>, listener: Listener, face: Face) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // That it is not set costs a delay, no answer.
                let _delayed = stream.set_nodelay(true);
                begin(&shared, stream, face, slot);
            }),
            Listener::Path(listener, peers) => listener.accept().await.map(|(stream, _)| {
                if peers.allow(&stream) {
                    begin(&shared, stream, face, slot);
                }
            }),
        };
        if let Err(error) = accepted {
            tracing::debug!(%error, "accepting an admin connection failed");
            clock::sleep(FAILURE_PAUSE).await;
        }
    }
}

fn begin<S>(shared: &Arc<Shared>, stream: S, face: Face, slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let shared = Arc::clone(shared);
    spawn_contained("admin connection", async move {
        let _slot = slot;
        if let Err(error) = converse(shared, stream, face).await {
            tracing::debug!(%error, "an admin connection ended early");
        }
    });
}

/// One connection to its end: the peer's, or a limit's.
async fn converse<S>(shared: Arc<Shared>, stream: S, face: Face) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            Ok::<_, Infallible>(match face == Face::Admin && asked::is_explain(&request) {
                true => Box::pin(asked::explained(&shared, request)).await,
                false => answer(&shared, face, &request).await,
            })
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        // A probe that ends its side behind its request waits for the answer all the same.
        .half_close(true)
        .header_read_timeout(IDLE_MAX)
        // Also what hyper holds of an answer before it asks for the next piece.
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(TakenInTime::new(stream, IDLE_MAX)), service);
    let mut conversation = pin!(conversation);
    if let Some(ended) = clock::within(AGE_MAX, conversation.as_mut()).await {
        return ended;
    }
    conversation.as_mut().graceful_shutdown();
    // Its last answer may take as long as any.
    clock::within(IDLE_MAX, conversation).await.unwrap_or(Ok(()))
}

/// The sidecar's metrics; on 15020 with the application's, where injection says where those are.
fn scraped(shared: &Arc<Shared>, face: Face, asked: &HeaderMap) -> Response<Page> {
    let scrape = Scrape::new(Arc::clone(&shared.metrics));
    let accept: Vec<_> = asked.get_all(ACCEPT).iter().filter_map(|one| one.to_str().ok()).collect();
    let liked = Format::negotiated(&accept.join(","));
    let told = match shared.config.app_metrics.as_ref().filter(|_| face == Face::Merged) {
        // The process that a scraper of the application means is the application.
        Some(get) => (scrape.without_process(), Some(app_metrics::begin(shared, get, asked))),
        None => (scrape, None),
    };
    // What the application says is text, whatever it would say to another.
    let format = if told.1.is_some() { Format::Text } else { liked };
    let told = (Exposition::new(told.0, format), told.1);
    pieces(format.content_type(), told, clock::now() + IDLE_MAX)
}

async fn answer(shared: &Arc<Shared>, face: Face, request: &Request<Incoming>) -> Response<Page> {
    if face == Face::Admin && request.uri().path() == "/drain" {
        return drain(shared, request.method());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are served here\n");
    }
    let metrics = face != Face::Health;
    let health = face != Face::Metrics;
    match request.uri().path() {
        "/stats/prometheus" | "/metrics" if metrics => scraped(shared, face, request.headers()),
        "/healthz/ready" if health => readiness(shared),
        path if face == Face::Merged && path.starts_with(APP_PROBES_PREFIX) => {
            match shared.config.app_probes.get(path) {
                Some(probe) => app_probes::answer(shared, probe).await,
                None => whole(StatusCode::NOT_FOUND, TEXT, "no such probe\n"),
            }
        }
        "/config_dump" if face == Face::Admin => whole(StatusCode::OK, JSON, dump::of(shared)),
        tap_api::PATH if face == Face::Admin => tapped(shared, request),
        "/refusals" if face == Face::Admin => asked::refusals(shared),
        "/" if face == Face::Admin => whole(
            StatusCode::OK,
            TEXT,
            "/config_dump\n/healthz/ready\n/refusals\n/stats/prometheus\n/tap\n",
        ),
        _ => whole(StatusCode::NOT_FOUND, TEXT, "no such page\n"),
    }
}

/// Live calls that the query asks for.
fn tapped<B>(shared: &Arc<Shared>, request: &Request<B>) -> Response<Page> {
    if !request.headers().contains_key(tap_api::ASKED_BY) {
        let text =
            format!("who looks at live calls says so with a field `{}: 1`\n", tap_api::ASKED_BY);
        return whole(StatusCode::FORBIDDEN, TEXT, text);
    }
    let filter = match TapFilter::parse(request.uri().query().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return whole(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
    };
    match shared.taps.attach(filter) {
        Ok(reader) => lines(tap_api::CONTENT_TYPE, Lines::new(shared, reader)),
        Err(TapError::Filter(error)) => whole(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
        Err(TapError::TooMany) => whole(
            StatusCode::TOO_MANY_REQUESTS,
            TEXT,
            "as many look at the calls of this sidecar as may at one time: end one of them\n",
        ),
    }
}

/// The pod is to end, and its application is still there: callers are told to ask elsewhere, as they are when the
/// sidecar ends. There is no way back.
fn drain(shared: &Shared, method: &Method) -> Response<Page> {
    if method != Method::POST {
        return whole(StatusCode::METHOD_NOT_ALLOWED, TEXT, "draining is begun by POST\n");
    }
    if !shared.state.draining.is_begun(Direction::Inbound) {
        tracing::info!("the pod is to end: its callers are told to ask elsewhere");
    }
    shared.state.draining.begin_inbound();
    whole(StatusCode::OK, TEXT, "draining\n")
}

fn readiness(shared: &Shared) -> Response<Page> {
    let missing = if shared.ready.load(Ordering::Relaxed) {
        return whole(StatusCode::OK, TEXT, "ready\n");
    } else if shared.snapshot.load().inbound.is_none() {
        "not ready: the control plane has not told yet what this workload is\n"
    } else {
        "not ready: the redirection is not proven yet\n"
    };
    whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, missing)
}

#[cfg(test)]
mod tests;
