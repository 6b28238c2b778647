//! Health, metrics and the admin page, on thread 0.
//!
//! GET and HEAD are answered and nothing else, from bounded buffers and in bounded time. The HTTP is
//! hyper's, not the data path's codec: what comes here is a probe or a scraper.

mod dump;
mod taken;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use heddle_runtime::{clock, net, task::spawn_contained};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use self::taken::TakenInTime;
use crate::Shared;

/// Connections per listener at one time; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// A connection that has not sent a whole request, or not taken an answer, for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Longest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Pause after a failed accept.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// What a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Readiness only (15021).
    Health,
    /// Metrics only (15090).
    Metrics,
    /// Metrics and readiness (15020).
    Merged,
    /// All of it, loopback only (15000).
    Admin,
}

/// Binds `address` and serves `face` on this thread's runtime for ever. Returns the bound address.
///
/// # Errors
/// Why it could not be bound.
pub fn serve(shared: &Arc<Shared>, address: SocketAddr, face: Face) -> io::Result<SocketAddr> {
    let listener = net::listen_tcp(address, shared.mark(), false)?;
    let bound = listener.local_addr()?;
    spawn_contained("admin", accept(Arc::clone(shared), listener, face));
    Ok(bound)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, face: Face) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                spawn_contained("admin connection", async move {
                    let _slot = slot;
                    if let Err(error) = converse(shared, stream, face).await {
                        tracing::debug!(%error, "an admin connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting an admin connection failed");
                clock::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// One connection to its end: the peer's, or a limit's.
async fn converse(shared: Arc<Shared>, stream: TcpStream, face: Face) -> Result<(), hyper::Error> {
    // That it is not set costs a delay, no answer.
    let _delayed = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        std::future::ready(Ok::<_, Infallible>(answer(&shared, face, &request)))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // A probe that ends its side behind its request waits for the answer all the same.
        .half_close(true)
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(TakenInTime::new(stream, IDLE_MAX)), service)
        .await
}

fn answer(shared: &Shared, face: Face, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are served here\n");
    }
    let metrics = face != Face::Health;
    let health = face != Face::Metrics;
    match request.uri().path() {
        "/stats/prometheus" | "/metrics" if metrics => {
            page(StatusCode::OK, METRICS, shared.metrics.render())
        }
        "/healthz/ready" if health => readiness(shared),
        "/config_dump" if face == Face::Admin => page(StatusCode::OK, JSON, dump::of(shared)),
        "/" if face == Face::Admin => {
            page(StatusCode::OK, TEXT, "/config_dump\n/healthz/ready\n/stats/prometheus\n")
        }
        _ => page(StatusCode::NOT_FOUND, TEXT, "no such page\n"),
    }
}

fn readiness(shared: &Shared) -> Response<Full<Bytes>> {
    let missing = if shared.ready.load(Ordering::Relaxed) {
        return page(StatusCode::OK, TEXT, "ready\n");
    } else if shared.snapshot.load().inbound.is_none() {
        "not ready: the control plane has not told yet what this workload is\n"
    } else {
        "not ready: the redirection is not proven yet\n"
    };
    page(StatusCode::SERVICE_UNAVAILABLE, TEXT, missing)
}

fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
