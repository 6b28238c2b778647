//! Replies of the mesh's own: what a refused client gets.

use std::{fmt::Write as _, io::Write as _};

use heddle_wire::http1::{Method, Version, reason};
use tracing::Level;

use super::{After, Client, RequestId, Sending};
use crate::{
    outcome::RequestOutcome,
    refusal::{AfterRefusal, RefusalRow, Refused},
    tcp::write_all,
    worker::{
        Worker,
        buffers::{Lent, Output},
    },
};

/// Longest request id that is repeated in a refusal, bytes.
const ID_BYTES_MAX: usize = 128;

impl Client {
    /// Answers a request that is refused. `sending` is `None` if there was no readable head.
    pub(crate) async fn refuse(
        &mut self,
        worker: &Worker,
        refused: &Refused,
        sending: Option<&Sending>,
        outcome: &RequestOutcome,
    ) -> After {
        let row = outcome.refuse(&refused.refusal);
        let id = sending.and_then(request_id);
        let id = id.unwrap_or_else(|| RequestId::new(worker).as_str().to_owned());
        let rule = refused.rule.as_ref().map(|rule| rule.0.as_str());
        // A name from a file never ends a header line.
        let rule = rule.filter(|rule| !rule.chars().any(char::is_control)).unwrap_or("-");
        let hop = format!("{}@{}", outcome.direction().as_str(), worker.shared.config.workload);
        log(worker, &row, &hop, rule, &id);
        let goes_on = row.connection == AfterRefusal::Stays
            && sending.is_some_and(|sending| sending.is_complete() && sending.persistent);
        let after = if goes_on { After::Next } else { After::Linger };
        let mut out = Lent::<Output>::take();
        write_refusal(&mut out.0, &row, &Context { hop: &hop, rule, id: &id, sending, after });
        let (_, mut to) = self.stream.split();
        if write_all(&mut to, &out.0).await.is_err() {
            return After::Close;
        }
        outcome.sent(out.0.len() as u64);
        after
    }
}

struct Context<'a> {
    hop: &'a str,
    rule: &'a str,
    id: &'a str,
    sending: Option<&'a Sending>,
    after: After,
}

fn write_refusal(out: &mut Vec<u8>, row: &RefusalRow, context: &Context<'_>) {
    let status = row.status;
    let mut body = String::new();
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    if !bodiless {
        let _ = writeln!(body, "heddle: {} ({}, {})", row.text, row.code, row.flag.name());
    }
    let Context { hop, rule, id, .. } = context;
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nx-heddle-refusal: {}; hop={hop}; rule={rule}; id={id}\r\n\
         x-request-id: {id}\r\n",
        reason(status),
        row.code,
    );
    if !bodiless {
        let length = body.len();
        let _ =
            write!(out, "content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n");
    }
    let old = context.sending.is_some_and(|one| one.client_version == Version::Http10);
    out.extend_from_slice(match (context.after, old) {
        (After::Next, true) => b"connection: keep-alive\r\n\r\n",
        (After::Next, false) => b"\r\n",
        _ => b"connection: close\r\n\r\n",
    });
    if context.sending.is_none_or(|sending| sending.method != Method::Head) {
        out.extend_from_slice(body.as_bytes());
    }
}

/// The id under which the request went, or would have gone, on.
///
/// Looked for line by line, since an edited head may be larger than one that is scanned: ours is
/// behind the client's two hundred fields.
fn request_id(sending: &Sending) -> Option<String> {
    let mut lines = sending.head().split(|byte| *byte == b'\n').skip(1);
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
    let (code, text) = (row.code, &*row.text);
    // A macro's level is fixed where it stands.
    if row.level == Level::WARN && worker.may_warn() {
        tracing::warn!(code, hop, rule, id, text, "refused");
    } else {
        tracing::debug!(code, hop, rule, id, text, "refused");
    }
}
