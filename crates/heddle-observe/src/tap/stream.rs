//! The stream of one sidecar, from asking for it to its end. What comes is bounded in length and in time.

use std::{rc::Rc, time::Duration};

use heddle_runtime::{clock, local_http::Opened};
use heddle_wire::local::{
    control_api::WorkloadView,
    tap_api::{self, LINE_BYTES_MAX, TapFilter, TapLine},
};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use tokio::sync::mpsc;

use super::ways::Ways;

/// Longest wait for the head of the answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// A sidecar that has no calls to tell of writes an empty line every second; one that is silent for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Bytes that are read of a refusal.
const REFUSAL_BYTES_MAX: usize = 1024;

/// What a stream tells.
#[derive(Debug)]
pub(super) enum Event {
    /// The sidecar of this workload sends lines from now on.
    Listens(String),
    /// A line.
    Line(TapLine),
    /// It ended.
    Ended(String, End),
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The sidecar ended it in order.
    Over,
    /// It gave nothing, or broke off.
    Failed(String),
}

/// Listens to one sidecar.
pub(super) async fn listen<W: Ways>(
    ways: Rc<W>,
    workload: WorkloadView,
    filter: TapFilter,
    events: mpsc::Sender<Event>,
) {
    let id = workload.workload.id.0.clone();
    let end = match open(&*ways, &workload, &filter).await {
        Ok(response) => {
            if events.send(Event::Listens(id.clone())).await.is_err() {
                return;
            }
            read(response, &events).await
        }
        Err(reason) => End::Failed(reason),
    };
    // Where nobody hears it, nobody listens.
    drop(events.send(Event::Ended(id, end)).await);
}

async fn open<W: Ways>(
    ways: &W,
    workload: &WorkloadView,
    filter: &TapFilter,
) -> Result<Opened, String> {
    let path = format!("{}?{}", tap_api::PATH, filter.query());
    let late = || Err(format!("its sidecar has not answered within {} s", ANSWER_WAIT.as_secs()));
    let opened = clock::within(ANSWER_WAIT, ways.open(workload, &path)).await;
    let response = opened.unwrap_or_else(late)?;
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::NOT_FOUND => {
            Err("its sidecar is of a version that tells of no live calls".to_owned())
        }
        status => {
            let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect();
            let body = clock::within(ANSWER_WAIT, body).await.and_then(Result::ok);
            let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
            Err(text.unwrap_or_else(|| format!("its sidecar answered with status {status}")))
        }
    }
}

async fn read(response: Opened, events: &mpsc::Sender<Event>) -> End {
    let mut body = response.into_body();
    let mut lines = Lines::default();
    loop {
        let frame = match clock::within(SILENCE_MAX, body.frame()).await {
            Some(Some(Ok(frame))) => frame,
            Some(Some(Err(error))) => {
                return End::Failed(format!("its sidecar broke off: {error}"));
            }
            Some(None) => return End::Over,
            None => return End::Failed("its sidecar is silent".to_owned()),
        };
        let Ok(data) = frame.into_data() else { continue };
        let read = match lines.take(&data) {
            Ok(read) => read,
            Err(reason) => return End::Failed(reason.to_owned()),
        };
        for line in read {
            if events.send(Event::Line(line)).await.is_err() {
                return End::Over;
            }
        }
    }
}

/// Cuts what comes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    carried: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Result<Vec<TapLine>, &'static str> {
        let mut read = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.carried.len() + piece.len() > LINE_BYTES_MAX {
                return Err("its sidecar writes lines that are too long");
            }
            self.carried.extend_from_slice(piece);
            if piece.last() != Some(&b'\n') {
                break;
            }
            let line = std::mem::take(&mut self.carried);
            if line.len() > 1 {
                let line = serde_json::from_slice(&line);
                read.push(line.map_err(|_| "its sidecar writes what is no line of a live call")?);
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive_and_empty_ones_are_none() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"\n{\"notice\":").unwrap(), []);
        assert_eq!(
            lines.take(b"\"a\"}\n\n{\"notice\":\"b\"").unwrap(),
            [TapLine::Notice("a".into())]
        );
        assert_eq!(lines.take(b"}\n").unwrap(), [TapLine::Notice("b".into())]);
    }

    #[test]
    fn what_is_no_line_or_has_no_end_is_refused() {
        assert!(Lines::default().take(b"hello\n").is_err());
        let mut lines = Lines::default();
        assert!(lines.take(&vec![b'a'; LINE_BYTES_MAX]).is_ok());
        assert!(lines.take(b"a").is_err());
    }
}
