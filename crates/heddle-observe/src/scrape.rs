//! Reading one sidecar's `:15090` over HTTP/1, line by line, within a time and a size.

use std::net::SocketAddr;

use heddle_runtime::{
    clock,
    local_http::{self, CallError},
};
use http_body_util::BodyExt;
use hyper::{Response, StatusCode, body::Incoming};

use crate::{exposition::LineError, limits};

/// The port and path every sidecar answers metrics on, as Istio's do.
pub(crate) const PORT: u16 = 15090;
/// The same with the metrics of the sidecar's program behind, where it is known where those are.
pub(crate) const MERGED_PORT: u16 = 15020;
/// What the ledger reads.
const TEXT: &str = "text/plain;version=0.0.4";
pub(crate) const PATH: &str = "/stats/prometheus";

/// Why a scrape gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the conversation broke off: {0}")]
    Broken(String),
    #[error("HTTP {0}")]
    Status(StatusCode),
    #[error("line {line} of its metrics: {reason}")]
    Line { line: usize, reason: LineError },
    #[error("more than {} bytes of metrics", limits::SCRAPE_BYTES_MAX)]
    TooLong,
    #[error("not complete within {} s", limits::SCRAPE_TIMEOUT.as_secs())]
    Late,
}

/// Asks a sidecar for its metrics in a format of `accept`; the body is still to be read.
pub(crate) async fn open(
    address: SocketAddr,
    accept: &str,
) -> Result<Response<Incoming>, ScrapeError> {
    let opened = local_http::open_tcp(address, PATH, accept).await;
    let response = opened.map_err(|error| match error {
        CallError::NotRunning { source, .. } => ScrapeError::Connect(source),
        CallError::Broken { reason, .. } => ScrapeError::Broken(reason),
        other => ScrapeError::Broken(other.to_string()),
    })?;
    if response.status() == StatusCode::OK {
        Ok(response)
    } else {
        Err(ScrapeError::Status(response.status()))
    }
}

/// Reads all lines of a sidecar's metrics.
pub(crate) async fn read_lines(
    address: SocketAddr,
    read: impl FnMut(&[u8]) -> Result<(), LineError>,
) -> Result<(), ScrapeError> {
    let whole = async {
        let mut body = open(address, TEXT).await?.into_body();
        let mut lines = Lines { read, carried: Vec::new(), line: 0, bytes: 0 };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ScrapeError::Broken(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                lines.take(&data)?;
            }
        }
        lines.end()
    };
    clock::within(limits::SCRAPE_TIMEOUT, whole).await.unwrap_or(Err(ScrapeError::Late))
}

/// Cuts chunks into lines.
struct Lines<F> {
    read: F,
    /// The beginning of a line whose end has not come yet.
    carried: Vec<u8>,
    line: usize,
    bytes: usize,
}

impl<F: FnMut(&[u8]) -> Result<(), LineError>> Lines<F> {
    fn take(&mut self, mut chunk: &[u8]) -> Result<(), ScrapeError> {
        self.bytes += chunk.len();
        if self.bytes > limits::SCRAPE_BYTES_MAX {
            return Err(ScrapeError::TooLong);
        }
        while let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            let (head, rest) = chunk.split_at(end);
            chunk = &rest[1..];
            if self.carried.is_empty() {
                self.one(head)?;
            } else {
                let mut line = std::mem::take(&mut self.carried);
                line.extend_from_slice(head);
                self.one(&line)?;
                line.clear();
                self.carried = line;
            }
        }
        if self.carried.len() + chunk.len() > limits::LINE_BYTES_MAX {
            return Err(ScrapeError::Line { line: self.line + 1, reason: LineError::TooLong });
        }
        self.carried.extend_from_slice(chunk);
        Ok(())
    }

    fn end(mut self) -> Result<(), ScrapeError> {
        let last = std::mem::take(&mut self.carried);
        if last.is_empty() { Ok(()) } else { self.one(&last) }
    }

    fn one(&mut self, line: &[u8]) -> Result<(), ScrapeError> {
        self.line += 1;
        (self.read)(line).map_err(|reason| ScrapeError::Line { line: self.line, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Result<Vec<String>, ScrapeError> {
        let mut seen = Vec::new();
        let read = |line: &[u8]| {
            seen.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        let mut lines = Lines { read, carried: Vec::new(), line: 0, bytes: 0 };
        for chunk in chunks {
            lines.take(chunk)?;
        }
        lines.end()?;
        Ok(seen)
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(cut(&[b"ab\ncd", b"e\n", b"\nf"]).unwrap(), ["ab", "cde", "", "f"]);
        assert_eq!(cut(&[b"a", b"b", b"c\n"]).unwrap(), ["abc"]);
        assert!(cut(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let chunk = vec![b'a'; limits::LINE_BYTES_MAX];
        assert!(matches!(cut(&[&chunk, b"a"]), Err(ScrapeError::Line { line: 1, .. })));
    }
}
