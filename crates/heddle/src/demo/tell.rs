//! Asks the demo's applications what they counted themselves, on path sockets outside the mesh.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use heddle_runtime::clock;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// Longest wait for an answer to `counts`; the application only reads its counters.
const COUNTS_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to `stop`: calls in flight end first, delayed ones included.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// What one application counted, by peer service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct AppCounts {
    /// Calls it sent (connections where the protocol is not HTTP).
    pub(super) sent: BTreeMap<String, u64>,
    /// Calls it received, by the name the caller gave.
    pub(super) received: BTreeMap<String, u64>,
    /// Calls it sent that were answered with 5xx or not at all.
    pub(super) failed: BTreeMap<String, u64>,
}

/// What the application counted so far.
///
/// # Errors
/// The socket's error, or that it answered something else or nothing in time.
pub(super) async fn counts(socket: &Path) -> io::Result<AppCounts> {
    ask(socket, "counts\n", COUNTS_WAIT).await
}

/// Ends the load, waits for the calls in flight, and tells what was counted.
///
/// # Errors
/// As for [`counts`].
pub(super) async fn stop(socket: &Path) -> io::Result<AppCounts> {
    ask(socket, "stop\n", STOP_WAIT).await
}

async fn ask(socket: &Path, line: &str, limit: Duration) -> io::Result<AppCounts> {
    let answer = clock::within(limit, async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(line.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        io::Result::Ok(text)
    });
    let text = answer.await.ok_or(io::ErrorKind::TimedOut)??;
    serde_json::from_str(&text).map_err(io::Error::from)
}
