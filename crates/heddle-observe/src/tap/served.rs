//! `GET /api/v1/tap`: live calls for a browser, line by line. Readers are few and bounded.

use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use heddle_runtime::clock::Timer;
use heddle_wire::local::tap_api::{CONTENT_TYPE, TapFilter, TapLine};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame},
    header::{self, HeaderValue},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    follow::{Tapped, follow},
    local::LocalWays,
    ways::{Asked, Sides},
};
use crate::limits::TAP_READERS_MAX;

/// After so long without a line an empty one is written.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes of lines that are written at once, about.
const CHUNK_BYTES: usize = 16 * 1024;

/// Places for those who look.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TAP_READERS_MAX)))
    }
}

/// Why nobody looks: a status, and what is to be done.
pub(crate) type NotBegun = (StatusCode, String);

/// Begins to listen to the sidecars of the mesh whose run-time folder this is.
///
/// # Errors
/// [`NotBegun`]: there is no way to sidecars, the query cannot be, or there are readers enough.
pub(crate) fn begin(
    run_dir: Option<&Path>,
    readers: &Readers,
    query: &str,
) -> Result<Response<Lines>, NotBegun> {
    let run_dir = run_dir.ok_or_else(|| {
        let text = "in a cluster the dashboard has no way to the sidecars, which tell of live calls to those only who may forward ports of their pods: use `heddle tap`";
        (StatusCode::NOT_IMPLEMENTED, text.to_owned())
    })?;
    let filter = TapFilter::parse(query);
    let filter = filter.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let place = Arc::clone(&readers.0).try_acquire_owned().map_err(|_| {
        let text = format!(
            "{TAP_READERS_MAX} pages look at live calls already: close one, or use `heddle tap`"
        );
        (StatusCode::TOO_MANY_REQUESTS, text)
    })?;
    let sides = match filter.side {
        None => Sides::Once,
        Some(heddle_wire::local::tap_api::Side::Client) => Sides::Client,
        Some(heddle_wire::local::tap_api::Side::Server) => Sides::Server,
    };
    let tapped = follow(LocalWays(run_dir.to_owned()), Asked { filter, sides });
    let lines = Lines { tapped, silence: Timer::after(SILENCE), _place: place };
    let mut response = Response::new(lines);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Lines as they come, until the browser has gone.
#[derive(Debug)]
pub(crate) struct Lines {
    tapped: Tapped,
    silence: Timer,
    _place: OwnedSemaphorePermit,
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            match self.tapped.lines.poll_recv(context) {
                Poll::Ready(Some(line)) => write(&line, &mut chunk),
                Poll::Ready(None) if chunk.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if chunk.is_empty() && self.silence.poll_ended(context).is_ready() {
            chunk.push(b'\n');
        }
        if chunk.is_empty() {
            return Poll::Pending;
        }
        self.silence.restart(SILENCE);
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }
}

fn write(line: &TapLine, chunk: &mut Vec<u8>) {
    match serde_json::to_writer(&mut *chunk, line) {
        Ok(()) => chunk.push(b'\n'),
        Err(error) => tracing::error!(%error, "a live call is no JSON"),
    }
}
