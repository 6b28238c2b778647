//! A request on its way to an upstream of HTTP/1: its edited head with what is there of its body, how
//! much of it was sent, and whether it may be sent again. It knows no connection.

use std::{cell::Cell, ops::Range, rc::Rc, time::Duration};

use heddle_logic::{
    HeaderEdit, Replayable,
    retry::{self, RetryPolicy},
    rule::Changes,
};
use heddle_wire::http1::{
    Body, Connection, Edit, Framing, KnownHeader, Method, Progress, Request as RequestView,
    RequestHead, RequestRewrite, Version, write_request,
};

use crate::{
    buffers::{Buffer, Lent, Output},
    deadline::{self, EXPECTED, GRPC_TIMEOUT},
    record::RequestOutcome,
    refusal::Refusal,
    request_id::RequestId,
    trace::TraceEdits,
    worker::Worker,
};

/// Says how often a request was sent so far, where a rule may have it sent again (Envoy's).
pub(crate) const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";

/// What changes about a request on its way, whatever its version.
pub(crate) struct RequestEdits<'a> {
    /// Goes on in place of the path that came.
    pub(crate) path: Option<&'a str>,
    /// What else a rule changes about it.
    pub(crate) changes: Option<&'a Changes>,
    /// What a rule says about sending it again.
    pub(crate) retries: Option<&'a RetryPolicy>,
    /// Most time for all of it, which goes with it.
    pub(crate) limit: Option<Duration>,
    /// Names the host of a request that came without one.
    pub(crate) default_host: &'a dyn Fn() -> String,
    /// Is whoever gets it a hop of the mesh, and not the application itself?
    pub(crate) to_a_hop: bool,
    /// What goes on about its trace.
    pub(crate) trace: Option<&'a TraceEdits>,
}

impl RequestEdits<'_> {
    /// Most time for one attempt.
    pub(crate) fn attempt_limit(&self) -> Option<Duration> {
        let per_try = self.retries.and_then(|policy| policy.per_try_timeout);
        per_try.into_iter().chain(self.limit).min()
    }

    /// The id of a request that came without one.
    pub(crate) fn new_id(&self, worker: &Worker) -> RequestId {
        let given = self.trace.and_then(|trace| trace.id.clone());
        given.unwrap_or_else(|| worker.request_id())
    }

    /// A deadline of gRPC that goes on in place of the one that came, which is later than the limit allows.
    pub(crate) fn grpc_timeout<'v>(
        &self,
        came: impl FnOnce() -> Option<&'v [u8]>,
    ) -> Option<String> {
        let limit = self.limit?;
        let came = deadline::grpc_timeout(str::from_utf8(came()?).ok()?)?;
        (came > limit).then(|| deadline::as_grpc_timeout(limit))
    }
}

/// What a response must be seen with of its request.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a head's answers, none of which bears on another"
)]
pub(crate) struct RequestFacts {
    pub(crate) method: Method,
    pub(crate) client_version: Version,
    /// Does the client want its connection to stay open?
    pub(crate) persistent: bool,
    /// Does the connection of whoever made the request end behind it, here or at the hop before?
    pub(crate) client_leaves: bool,
    /// Is an Upgrade passed on, so that 101 is an answer?
    pub(crate) upgrade: bool,
    /// Does the client wait for a 100 before it sends the body?
    pub(crate) expects_continue: bool,
    /// Does it authenticate its connection, and with it the upstream's?
    pub(crate) binds: bool,
}

/// A request as it goes to an upstream: its edited head with what is there of its body, and how to
/// go on.
#[derive(Debug)]
pub(crate) struct OutgoingRequest {
    /// The head, and behind it the body so far: all of it while [`Self::is_kept`], else what is not
    /// yet sent. The head stays, so that a refusal can name the id that went out with it.
    pub(crate) out: Lent<Output>,
    /// Bytes of the head in `out`.
    head_bytes: usize,
    /// Bytes of `out` that the kernel took.
    pub(crate) written: usize,
    /// Bytes of the request that the kernel took on this attempt.
    pub(crate) sent: u64,
    pub(crate) body: Body,
    framing: Framing,
    /// Where its body goes out in frames, of which nothing is moved past this process: is all of it that
    /// was sent still at hand?
    kept: Option<Rc<Cell<bool>>>,
    pub(crate) replayable: Replayable,
    pub(crate) facts: RequestFacts,
    /// Was the upstream told that its connection ends?
    pub(crate) closes: bool,
    /// Did the client end in the middle of the body?
    pub(crate) truncated: bool,
    /// What a rule changes about the fields of whatever answers it.
    pub(crate) answer_edits: Option<Rc<[HeaderEdit]>>,
}

/// A change to a head, for a head of HTTP/1.
pub(crate) fn as_edit(edit: &HeaderEdit) -> Edit<'_> {
    match edit {
        HeaderEdit::Set(name, value) => Edit::Set(name, value),
        HeaderEdit::Add(name, value) => Edit::Add(name, value),
        HeaderEdit::Remove(name) => Edit::Remove(name),
    }
}

impl OutgoingRequest {
    /// The head with its edits; the body is still to be taken.
    pub(crate) fn prepare(
        head: &RequestHead,
        view: RequestView<'_>,
        edits: &RequestEdits<'_>,
        new_id: impl FnOnce() -> RequestId,
    ) -> Self {
        let any_method = edits.retries.is_some_and(|policy| policy.any_method);
        let mut outgoing = Self::of_head(view, head, any_method);
        let id = match view.fields().known(KnownHeader::XRequestId) {
            Some(_) => None,
            None => Some(new_id()),
        };
        // HTTP/1.0 goes on as HTTP/1.1, which must name a host.
        let nameless = outgoing.facts.client_version == Version::Http10
            && view.fields().known(KnownHeader::Host).is_none();
        let default_host = if nameless { (edits.default_host)() } else { String::new() };
        outgoing.closes = outgoing.facts.client_leaves && !edits.to_a_hop;
        let fields = edits.changes.map_or(&[][..], |changes| &changes.request);
        let decided = |name| fields.iter().any(|one| one.replaces() && one.name() == name);
        let id = id.as_ref().filter(|_| !decided("x-request-id"));
        let id = id.map(|id| Edit::Default("x-request-id", id.as_str()));
        let count = edits.retries.filter(|_| !decided(ATTEMPT_COUNT));
        let count = count.map(|_| Edit::Set(ATTEMPT_COUNT, "1"));
        let left = edits.attempt_limit().filter(|_| !decided(EXPECTED));
        let left = left.map(|left| deadline::as_expected(left).to_string());
        let left = left.as_ref().map(|left| Edit::Set(EXPECTED, left));
        let grpc = edits.grpc_timeout(|| view.fields().get(GRPC_TIMEOUT));
        let grpc = grpc.as_ref().map(|grpc| Edit::Set(GRPC_TIMEOUT, grpc));
        let all: Vec<_>;
        let rewrite = RequestRewrite {
            edits: match (fields, count, left, edits.trace) {
                ([], None, None, None) => id.as_slice(),
                (fields, count, left, trace) => {
                    let trace = trace.into_iter().flat_map(TraceEdits::edits);
                    let trace = trace.filter(|edit| !decided(edit.name()));
                    let fields = fields.iter().map(as_edit).chain(trace);
                    all = fields.chain(id).chain(count).chain(left).chain(grpc).collect::<Vec<_>>();
                    &all
                }
            },
            // A server with one thread is free for others only when this connection ends.
            connection: match (outgoing.facts.client_leaves, edits.to_a_hop) {
                (false, _) => Connection::KeepAlive,
                (true, true) => Connection::ClientLeaves,
                (true, false) => Connection::Close,
            },
            default_host: &default_host,
            path: edits.path,
            authority: edits.changes.and_then(|changes| changes.authority.as_deref()),
        };
        write_request(view, &rewrite, &mut outgoing.out.0);
        outgoing.head_bytes = outgoing.out.0.len();
        let answer = edits.changes.map(|changes| &changes.answer[..]).filter(|all| !all.is_empty());
        outgoing.answer_edits = answer.map(Rc::from);
        outgoing
    }

    fn of_head(view: RequestView<'_>, head: &RequestHead, any_method: bool) -> Self {
        let length = match head.framing() {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let kept = retry::Body::of_length(length);
        Self {
            out: Lent::take(),
            head_bytes: 0,
            written: 0,
            sent: 0,
            body: Body::new(head.framing()),
            framing: head.framing(),
            kept: None,
            replayable: Replayable::of(
                view.method(),
                any_method || view.has_idempotency_key(),
                kept,
            ),
            facts: RequestFacts {
                method: head.method(),
                client_version: head.version(),
                persistent: head.persistent(),
                client_leaves: !head.persistent() || head.client_leaves(),
                upgrade: view.upgrade().is_some(),
                expects_continue: view.fields().known(KnownHeader::Expect).is_some(),
                binds: view.binds_connection(),
            },
            closes: false,
            truncated: false,
            answer_edits: None,
        }
    }

    /// Moves what `input` holds of the body behind `out`.
    ///
    /// # Errors
    /// A body that breaks the chunked coding.
    pub(crate) fn absorb(
        &mut self,
        input: &mut Buffer,
        outcome: &RequestOutcome,
    ) -> Result<(), Refusal> {
        loop {
            let run = self
                .body
                .relay(input.filled())
                .map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
            self.out.0.extend_from_slice(&input.filled()[run.forward]);
            input.consume(run.consumed);
            outcome.received(run.consumed as u64);
            if run.progress != Progress::More {
                if self.body.is_done() {
                    outcome.arrived();
                }
                return Ok(());
            }
        }
    }

    /// Does a body belong to it?
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Has all of the request been taken from the client?
    pub(crate) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// Is everything that was sent still in `out`?
    pub(crate) fn is_kept(&self) -> bool {
        self.replayable == Replayable::Yes
            || self.bytes_sent() == 0
            || self.kept.as_ref().is_some_and(|kept| kept.get())
    }

    /// Bytes of the request that the kernel took on this attempt, those of a write that was given up
    /// half-way among them.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.max(self.written as u64)
    }

    /// The head as it goes, or went, to the upstream.
    pub(crate) fn head(&self) -> &[u8] {
        &self.out.0[..self.head_bytes]
    }

    /// Everything in `out` was sent and will not be sent again: makes room for more of the body.
    pub(crate) fn forget_sent_body(&mut self) {
        if let Some(kept) = &self.kept {
            kept.set(kept.get() && self.out.0.len() == self.head_bytes);
        }
        self.out.0.truncate(self.head_bytes);
        self.written = self.head_bytes;
    }

    /// What is at hand and was not written on this attempt.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.out.0[self.written..]
    }

    /// So many bytes of that went out in another form.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        self.sent += bytes as u64;
    }

    /// The body as one that is taken apart from its beginning; the head counts as sent.
    pub(crate) fn body_from_its_beginning(&mut self) -> Body {
        (self.written, self.sent) = (self.head_bytes, self.head_bytes as u64);
        Body::new(self.framing)
    }

    /// Is all that was sent of it in frames still at hand? Told to the other direction.
    pub(crate) fn kept_in_frames(&mut self) -> Rc<Cell<bool>> {
        let kept = self.kept.get_or_insert_with(|| Rc::new(Cell::new(true)));
        Rc::clone(kept)
    }

    /// Starts over for attempt so and so, which has so many milliseconds left.
    pub(crate) fn rewind(&mut self, attempt: u32, left: Option<u64>) {
        self.written = 0;
        self.sent = 0;
        self.renumber(ATTEMPT_COUNT, u64::from(attempt));
        if let Some(left) = left {
            self.renumber(EXPECTED, left);
        }
    }

    /// Puts another number into the head's field `name`, if it has it.
    fn renumber(&mut self, name: &str, number: u64) {
        if let Some(at) = self.number(name) {
            let before = self.out.0.len();
            self.out.0.splice(at, number.to_string().into_bytes());
            self.head_bytes = self.head_bytes + self.out.0.len() - before;
        }
    }

    /// Where the head has the number of its field `name`.
    fn number(&self, name: &str) -> Option<Range<usize>> {
        let mut at = 0;
        for line in self.head().split_inclusive(|byte| *byte == b'\n') {
            let field = line.get(..name.len()).unwrap_or_default();
            if field.eq_ignore_ascii_case(name.as_bytes()) && line.get(name.len()) == Some(&b':') {
                let digit = |byte: &u8| byte.is_ascii_digit();
                let from = line.iter().rposition(digit).map(|last| {
                    let first = line[..last].iter().rposition(|byte| !digit(byte));
                    (first.map_or(0, |at| at + 1), last + 1)
                });
                return from.map(|(from, to)| at + from..at + to);
            }
            at += line.len();
        }
        None
    }
}
