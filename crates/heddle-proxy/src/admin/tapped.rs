//! `/tap`: live calls, line by line, for as long as somebody reads.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use heddle_runtime::clock::{self, Timer};
use heddle_wire::local::tap_api::{Lost, TapLine};
use hyper::body::{Body, Bytes, Frame};

use crate::{Shared, tap::TapReader};

/// After so long without a line an empty one is written: only what is written shows that a reader has gone.
const SILENCE: Duration = Duration::from_secs(1);
/// A stream ends after this time; who wants more asks again.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Bytes of lines that are written at once, about.
const CHUNK_BYTES: usize = 16 * 1024;

/// Lines as they come.
#[derive(Debug)]
pub(super) struct Lines {
    reader: TapReader,
    sidecar: String,
    silence: Timer,
    until: Instant,
}

impl Lines {
    pub(super) fn new(shared: &Shared, reader: TapReader) -> Self {
        Self {
            reader,
            sidecar: shared.config.workload.to_string(),
            silence: Timer::after(SILENCE),
            until: clock::now() + AGE_MAX,
        }
    }

    /// What was lost so far, as a line.
    fn lost(&self, chunk: &mut Vec<u8>) {
        let calls = self.reader.lost();
        if calls == 0 {
            return;
        }
        let line = TapLine::Lost(Lost { calls, sidecar: self.sidecar.clone() });
        if let Ok(line) = serde_json::to_vec(&line) {
            chunk.extend_from_slice(&line);
            chunk.push(b'\n');
        }
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if clock::now() >= self.until {
            return Poll::Ready(None);
        }
        let mut chunk = Vec::new();
        self.lost(&mut chunk);
        while chunk.len() < CHUNK_BYTES {
            match self.reader.poll_line(context) {
                Poll::Ready(Some(line)) => chunk.extend_from_slice(&line),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
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
