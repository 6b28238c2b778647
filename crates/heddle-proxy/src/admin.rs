//! Health, metrics and the admin page: a very small HTTP/1 server on thread 0.
//!
//! It answers GET and HEAD without bodies and nothing else, from bounded buffers and in bounded
//! time. It is not the data path's codec: what comes here is a probe or a scraper.

mod dump;
mod http;

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use heddle_runtime::{clock, net, task::spawn_contained};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use self::http::{Page, Request};
use crate::Shared;

/// Connections per listener at one time; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// A connection that has not sent a whole request, or not taken an answer, for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

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
                    if let Err(error) = converse(&shared, stream, face).await {
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

/// Requests of one connection, one after the other.
async fn converse(shared: &Shared, mut stream: TcpStream, face: Face) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let read = clock::within(IDLE_MAX, http::read_request(&mut stream, &mut buffer)).await;
        let Some(read) = read else { return Ok(()) };
        let (page, request) = match read? {
            http::Read::Request(request) => (page(shared, face, &request.path), request),
            http::Read::Refused(page) => (page, Request::last()),
            http::Read::End => return Ok(()),
        };
        let bytes = http::encode(&page, &request);
        let sent = clock::within(IDLE_MAX, http::send(&mut stream, &bytes)).await;
        match sent {
            Some(sent) => sent?,
            None => return Ok(()),
        }
        if !request.keep_alive {
            return Ok(());
        }
    }
}

fn page(shared: &Shared, face: Face, path: &str) -> Page {
    let metrics = face != Face::Health;
    let health = face != Face::Metrics;
    match path {
        "/stats/prometheus" | "/metrics" if metrics => Page::metrics(shared.metrics.render()),
        "/healthz/ready" if health => readiness(shared),
        "/config_dump" if face == Face::Admin => Page::json(dump::of(shared)),
        "/" if face == Face::Admin => {
            Page::text(200, "/config_dump\n/healthz/ready\n/stats/prometheus\n")
        }
        _ => Page::text(404, "no such page\n"),
    }
}

fn readiness(shared: &Shared) -> Page {
    if shared.ready.load(Ordering::Relaxed) {
        Page::text(200, "ready\n")
    } else if shared.snapshot.load().inbound.is_none() {
        Page::text(503, "not ready: the control plane has not told yet what this workload is\n")
    } else {
        Page::text(503, "not ready: the redirection is not proven yet\n")
    }
}

#[cfg(test)]
mod tests;
