//! A reply of the mesh's own: a refusal's, and whatever else is answered without an upstream (a
//! redirect, a direct response, a preflight). It is made of values; `frames` writes it.

use std::{
    fmt::Write as _,
    task::{Context, Poll},
};

use bytes::Bytes;
use heddle_logic::rule::{self, OwnAnswer};
use heddle_runtime::clock;
use heddle_wire::local::sidecar_api;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tracing::Level;

use crate::{
    direction::Direction,
    frames::{Frame, Frames, Head, Reset},
    one_hop::{MARK, Mark},
    record::RequestOutcome,
    refusal::{AfterRefusal, REFUSAL_HEADER, RefusalCode, RefusalRow, Refused},
    worker::Worker,
};

/// Under which an id goes with its request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is repeated in a refusal, bytes.
const ID_BYTES_MAX: usize = 128;

/// Bytes of each of a refused request's texts that are looked at: more than is told of any.
const TOLD_BYTES: usize = 2_048;

/// What of a request is told where it is refused; empty where it could not be read.
#[derive(Debug, Default)]
pub(crate) struct AskedFor {
    /// Its id, if it has one that may be repeated.
    pub(crate) id: Option<String>,
    pub(crate) method: String,
    pub(crate) authority: String,
    /// Path and query as they came.
    pub(crate) path: String,
    pub(crate) grpc: bool,
}

impl AskedFor {
    /// Of a request of HTTP/1, by the head under which it goes on.
    pub(crate) fn of_head(head: &[u8]) -> Self {
        let text = |bytes: &[u8]| {
            // No more is told of it anywhere; a refusal is not to copy what may be 64 KiB.
            let most = bytes.len().min(TOLD_BYTES);
            String::from_utf8_lossy(&bytes[..most]).into_owned()
        };
        let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let came =
            |original: &str, now: &[u8]| text(raw_field(head, original.as_bytes()).unwrap_or(now));
        let host = raw_field(head, b"host").unwrap_or_default();
        Self {
            id: sent_id(head),
            method: text(method),
            authority: came(rule::ORIGINAL_HOST, host),
            path: came(rule::ORIGINAL_PATH, target),
            grpc: calls_grpc(head),
        }
    }
}

/// What a client is answered by the mesh itself.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    /// `None` once it was taken.
    body: Option<Bytes>,
    /// What becomes of the client's connection, if its request was read to the end.
    pub(crate) connection: AfterRefusal,
    /// The same in gRPC's terms.
    grpc: u8,
}

impl Reply {
    /// An answer that a rule gives.
    pub(crate) fn given(answer: OwnAnswer) -> Self {
        let OwnAnswer { status, fields, body } = answer;
        let field = |(name, value): (&'static str, String)| {
            (HeaderName::from_static(name), printable(&value))
        };
        let fields = fields.into_iter().map(field).collect();
        Self {
            head: Head { status, fields, length: Some(body.len() as u64) },
            body: Some(body.into()),
            connection: AfterRefusal::Stays,
            grpc: 2,
        }
    }

    /// Says why a request is refused, and notes it in its outcome, in the log and among the recent ones.
    pub(crate) fn refusing(
        worker: &Worker,
        refused: &Refused,
        asked: AskedFor,
        outcome: &RequestOutcome,
    ) -> Self {
        let row = outcome.refuse(&refused.refusal);
        let id = asked.id.clone().unwrap_or_else(|| worker.request_id().as_str().to_owned());
        let rule = refused.rule.as_ref().map(|rule| rule.0.as_str());
        outcome.noting(|facts| {
            facts.id(Some(id.as_bytes()));
            if let Some(rule) = rule {
                facts.rule = Some(rule.to_owned());
            }
        });
        // A name from a file never ends a header line.
        let rule = rule.filter(|rule| !rule.chars().any(char::is_control)).unwrap_or("-");
        let hop = format!("{}@{}", outcome.direction().as_str(), worker.shared.config.workload);
        log(worker, &row, &hop, rule, &id);
        remember(worker, (&row, refused), (&id, asked), outcome);
        let why = format!("{}; hop={hop}; rule={rule}; id={id}", row.code);
        // The id also for those who see no fields of an answer: callers of gRPC.
        let text = format!("heddle: {} ({}, {}; id {id})\n", row.text, row.code, row.flag.name());
        let mut fields = HeaderMap::with_capacity(5);
        // A fault at the side that is called: the caller's sidecar takes it for no failure, and this out.
        if row.code == RefusalCode::FaultAbort && outcome.direction() == Direction::Inbound {
            let mark = HeaderValue::from_static(Mark::Injected.as_str());
            fields.insert(HeaderName::from_static(MARK), mark);
        }
        fields.insert(HeaderName::from_static(REFUSAL_HEADER), printable(&why));
        fields.insert(REQUEST_ID, printable(&id));
        if !matches!(row.status, 100..=199 | 204 | 304) {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            fields.insert(header::CONTENT_TYPE, plain);
        }
        Self {
            head: Head { status: row.status, fields, length: Some(text.len() as u64) },
            body: Some(text.into()),
            connection: row.connection,
            grpc: row.grpc,
        }
    }
}

impl Reply {
    /// Says the same to a client of gRPC, which reads no status but its own: a head that is all there is
    /// ("trailers only").
    pub(crate) fn for_grpc(mut self) -> Self {
        let text = self.body.take().unwrap_or_default();
        let fields = &mut self.head.fields;
        let grpc = HeaderValue::from_static("application/grpc");
        fields.insert(header::CONTENT_TYPE, grpc);
        fields.insert(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from(u16::from(self.grpc)),
        );
        let text = percent_encoded(text.trim_ascii());
        fields.insert(HeaderName::from_static("grpc-message"), printable(&text));
        self.head.status = 200;
        self.head.length = None;
        self
    }
}

/// A field's value; what may not stand there becomes a blank.
fn printable(text: &str) -> HeaderValue {
    let allowed =
        |byte: u8| if byte == b'\t' || byte >= b' ' && byte != 0x7f { byte } else { b' ' };
    let bytes: Vec<u8> = text.bytes().map(allowed).collect();
    HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("-"))
}

/// As `grpc-message` has it: what is not printable ASCII, and `%`, is escaped.
fn percent_encoded(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

impl Frames for Reply {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Reset>>> {
        Poll::Ready(self.body.take().map(|body| Ok(Frame::Data(body))))
    }

    fn is_over(&self) -> bool {
        self.body.is_none()
    }
}

/// The id under which the request went, or would have gone, on.
///
/// Looked for line by line, since an edited head may be larger than one that is scanned: ours is
/// behind the client's two hundred fields.
pub(crate) fn sent_id(head: &[u8]) -> Option<String> {
    safe_id(raw_id(head)?)
}

/// The same, whatever it is.
pub(crate) fn raw_id(head: &[u8]) -> Option<&[u8]> {
    raw_field(head, b"x-request-id")
}

/// Is a request of HTTP/1 with this head a call of gRPC?
pub(crate) fn calls_grpc(head: &[u8]) -> bool {
    raw_field(head, b"content-type").is_some_and(is_grpc)
}

/// Is this media type gRPC's own? gRPC-Web's answers are put together otherwise.
pub(crate) fn is_grpc(media_type: &[u8]) -> bool {
    matches!(media_type.strip_prefix(b"application/grpc"), Some([] | [b'+' | b';', ..]))
}

fn raw_field<'h>(head: &'h [u8], wanted: &[u8]) -> Option<&'h [u8]> {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(wanted).then(|| value[1..].trim_ascii())
    })
}

/// An id of somebody else's, if it may be repeated.
pub(crate) fn safe_id(id: &[u8]) -> Option<String> {
    let safe = (1..=ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_graphic() && *b != b';');
    safe.then(|| String::from_utf8_lossy(id).into_owned())
}

/// Keeps it for whoever asks why.
#[cold]
fn remember(
    worker: &Worker,
    (row, refused): (&RefusalRow, &Refused),
    (id, asked): (&str, AskedFor),
    outcome: &RequestOutcome,
) {
    let (service, peer) = outcome.called();
    worker.shared.state.recent.note(sidecar_api::Refused {
        id: id.to_owned(),
        at_ms: u64::try_from(clock::unix_now().as_millis()).unwrap_or(u64::MAX),
        direction: outcome.direction().as_str().to_owned(),
        service,
        peer,
        method: asked.method,
        authority: asked.authority,
        path: asked.path,
        status: row.status,
        grpc_status: asked.grpc.then_some(row.grpc),
        flag: row.flag.name().to_owned(),
        code: row.code.to_string(),
        rule: refused.rule.as_ref().map(|rule| rule.0.clone()),
        text: row.text.clone().into_owned(),
    });
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
