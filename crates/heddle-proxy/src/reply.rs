//! A reply of the mesh's own: a refusal's, and whatever else is answered without an upstream (a
//! redirect, a direct response, a preflight). It is made of values; `frames` writes it.

use std::task::{Context, Poll};

use tracing::Level;

use crate::{
    frames::{Frame, Frames, Head, Reset},
    outgoing::OutgoingRequest,
    record::RequestOutcome,
    refusal::{AfterRefusal, REFUSAL_HEADER, RefusalRow, Refused},
    worker::Worker,
};

/// Longest request id that is repeated in a refusal, bytes.
const ID_BYTES_MAX: usize = 128;

/// What a client is answered by the mesh itself.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    /// `None` once it was taken.
    body: Option<Vec<u8>>,
    /// What becomes of the client's connection, if its request was read to the end.
    pub(crate) connection: AfterRefusal,
}

impl Reply {
    /// Says why a request is refused, and notes it in its outcome and in the log.
    pub(crate) fn refusing(
        worker: &Worker,
        refused: &Refused,
        outgoing: Option<&OutgoingRequest>,
        outcome: &RequestOutcome,
    ) -> Self {
        let row = outcome.refuse(&refused.refusal);
        let id = outgoing.and_then(request_id);
        let id = id.unwrap_or_else(|| worker.request_id().as_str().to_owned());
        let rule = refused.rule.as_ref().map(|rule| rule.0.as_str());
        // A name from a file never ends a header line.
        let rule = rule.filter(|rule| !rule.chars().any(char::is_control)).unwrap_or("-");
        let hop = format!("{}@{}", outcome.direction().as_str(), worker.shared.config.workload);
        log(worker, &row, &hop, rule, &id);
        let why = format!("{}; hop={hop}; rule={rule}; id={id}", row.code);
        let text = format!("heddle: {} ({}, {})\n", row.text, row.code, row.flag.name());
        let mut fields = vec![(REFUSAL_HEADER.into(), why), ("x-request-id".into(), id)];
        if !matches!(row.status, 100..=199 | 204 | 304) {
            fields.push(("content-type".into(), "text/plain; charset=utf-8".to_owned()));
        }
        Self {
            head: Head { status: row.status, fields, length: Some(text.len() as u64) },
            body: Some(text.into_bytes()),
            connection: row.connection,
        }
    }
}

impl Frames for Reply {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        Poll::Ready(self.body.take().map(|body| Ok(Frame::Data(body))))
    }
}

/// The id under which the request went, or would have gone, on.
///
/// Looked for line by line, since an edited head may be larger than one that is scanned: ours is
/// behind the client's two hundred fields.
fn request_id(outgoing: &OutgoingRequest) -> Option<String> {
    let mut lines = outgoing.head().split(|byte| *byte == b'\n').skip(1);
    let id = lines.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(b"x-request-id").then(|| value[1..].trim_ascii())
    })?;
    let safe = (1..=ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_graphic() && *b != b';');
    safe.then(|| String::from_utf8_lossy(id).into_owned())
}

/// One warning a second is enough to look closer; metrics count the rest.
fn log(worker: &Worker, row: &RefusalRow, hop: &str, rule: &str, id: &str) {
    let (code, text) = (row.code.as_str(), &*row.text);
    // A macro's level is fixed where it stands.
    if row.level == Level::WARN && worker.may_warn() {
        tracing::warn!(code, hop, rule, id, text, "refused");
    } else {
        tracing::debug!(code, hop, rule, id, text, "refused");
    }
}
