//! How far one exchange of HTTP/1 has come: what its two directions must know of each other, and how
//! each of them ends. Nothing is read or written here.

use std::cell::Cell;

use crate::{
    buffers::{Buffer, Lent},
    one_hop::Mark,
    refusal::{Cut, Refusal},
};

/// A final head, before anything of it goes to the client.
pub(crate) struct AnswerHead<'a> {
    pub(crate) status: u16,
    /// A field by its name in lower case.
    pub(crate) field: &'a dyn Fn(&str) -> Option<String>,
    /// It is the next hop's own, and says that no application was reached.
    pub(crate) undelivered: bool,
    /// Is all that was sent of the request still at hand?
    pub(crate) kept: bool,
}

/// What is made of a final head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is not the one to pass on: the request is sent again.
    Again,
    /// It is passed on.
    Passes,
    /// The same, without the mark of the sidecar that gave it, which says this.
    Obeyed(Mark),
    /// The same, without a mark that no sidecar has made.
    Cleaned,
    /// The same, marked for the sidecar that gets it.
    Marked(Mark),
}

impl Judged {
    /// What changes about its field [`MARK`](crate::one_hop::MARK): what it says from now on.
    pub(super) fn mark(self) -> Option<Option<Mark>> {
        match self {
            Self::Again | Self::Passes => None,
            Self::Obeyed(_) | Self::Cleaned => Some(None),
            Self::Marked(mark) => Some(Some(mark)),
        }
    }
}

/// What either direction notes for the other.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// All of the request was sent.
    pub(super) sent: Cell<bool>,
    /// The upstream takes no more of the request, or there is no use in sending it more.
    pub(super) stopped: Cell<bool>,
    /// Part of what was sent is not at hand any more.
    pub(super) forgot: Cell<bool>,
    /// The client ended its side: behind its request, or within it.
    pub(super) half_closed: Cell<bool>,
    /// The final response's head is on its way to the client: no other answer is possible.
    pub(super) answering: Cell<bool>,
    /// All of the response went to the client.
    pub(super) answered: Cell<bool>,
    /// A 100 went to the client, so that one that waited for it goes on.
    pub(super) continued: Cell<bool>,
}

impl Course {
    /// Will nothing more of the request be sent?
    pub(super) fn upload_ended(&self) -> bool {
        self.sent.get() || self.stopped.get() || self.half_closed.get()
    }
}

/// Why sending ended before the response did. A request that was sent in full goes on watching.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The upstream takes nothing more; it may have answered before.
    UpstreamGone,
    /// The client reset its connection.
    ClientGone,
    /// The client's body breaks the chunked coding.
    BadBody(Refusal),
}

/// What ended an exchange without a whole answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The upstream ended without a byte of a response.
    Unanswered,
    /// The upstream's response is unusable; nothing of it was passed on.
    BadResponse(Refusal),
    /// The upstream ended within the response.
    Cut(Cut),
    /// The answer is not the one to pass on: nothing of it was.
    Again,
    ClientGone,
    /// The client's body is malformed.
    BadBody(Refusal),
}

/// A response that was passed on in full.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) answer: Answer,
    /// Was the client told that its connection stays open?
    pub(super) client_persists: bool,
    /// Seconds of idleness that the server announced.
    pub(super) announced_idle: Option<u32>,
    /// Does the server authenticate connections, not requests?
    pub(super) binds: bool,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// The body has ended.
    Complete {
        upstream_persists: bool,
        /// Was it without a body by method or status, so that a server may send one all the same?
        bodiless: bool,
    },
    /// What follows is no HTTP; what was read of it already.
    Tunnel(Option<Lent<Buffer>>),
}
