//! A span that somebody sent, whatever it was written in: what is kept of it, cut to limits, since senders are
//! programs that nobody here wrote. How it is read is in `read_otlp` and `read_zipkin`.

use minicbor::{Decode, Encode};

/// Longest name of a service or a workload, bytes.
pub const WHO_BYTES_MAX: usize = 253;
/// Longest name of a span or of a tag, bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest value of a tag, or text of an event, bytes.
pub const VALUE_BYTES_MAX: usize = 1_024;
/// Tags of a span; further ones are left out.
pub const TAGS_MAX: usize = 96;
/// Events of a span; further ones are left out.
pub const EVENTS_MAX: usize = 48;

/// Which end of a call a span is, if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum ReceivedKind {
    /// Work within a program.
    #[default]
    #[n(1)]
    Internal,
    /// Who is called.
    #[n(2)]
    Server,
    /// Who calls.
    #[n(3)]
    Client,
    /// Who puts something into a queue.
    #[n(4)]
    Producer,
    /// Who takes something out of a queue.
    #[n(5)]
    Consumer,
}

impl ReceivedKind {
    /// Its word in JSON and on pages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// One span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Received {
    /// Its trace; 64-bit ids have zeros before them. Never 0.
    pub trace: u128,
    /// Its id, never 0. In Zipkin's model both ends of a call may have the same.
    pub id: u64,
    /// The span that it is part of.
    pub parent: Option<u64>,
    /// Who made it: `service.name` or `serviceName`.
    pub service: String,
    /// Which workload of that, or empty.
    pub workload: String,
    /// What was called, or done.
    pub name: String,
    /// Which end.
    pub kind: ReceivedKind,
    /// When it began, microseconds since 1970.
    pub start: u64,
    /// How long it took, microseconds.
    pub duration: u64,
    /// Its sender says that it failed.
    pub failed: bool,
    /// What is known of it, by tag.
    pub tags: Vec<(String, String)>,
    /// What happened on the way, and when, microseconds since 1970.
    pub events: Vec<(u64, String)>,
}

impl Received {
    /// The value of the first of these tags that it has.
    #[must_use]
    pub fn tag(&self, names: &[&str]) -> Option<&str> {
        let value = |name: &&str| self.tags.iter().find(|(one, _)| one == name);
        names.iter().find_map(value).map(|(_, value)| value.as_str())
    }

    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| name.len() + value.len() + 48);
        let events = self.events.iter().map(|(_, what)| what.len() + 32);
        let own = self.service.len() + self.workload.len() + self.name.len();
        size_of::<Self>() + own + tags.chain(events).sum::<usize>()
    }

    pub(super) fn add_tag(&mut self, name: &str, value: String) {
        if self.tags.len() < TAGS_MAX && !name.is_empty() {
            self.tags.push((cut(name.to_owned(), NAME_BYTES_MAX), cut(value, VALUE_BYTES_MAX)));
        }
    }

    pub(super) fn add_event(&mut self, at: u64, what: String) {
        if self.events.len() < EVENTS_MAX {
            self.events.push((at, cut(what, VALUE_BYTES_MAX)));
        }
    }

    /// Cut to its limits; `None`: it does not say what a span has to say.
    fn whole(mut self) -> Option<Self> {
        self.service = cut(self.service, WHO_BYTES_MAX);
        self.workload = cut(self.workload, WHO_BYTES_MAX);
        self.name = cut(self.name, NAME_BYTES_MAX);
        if self.service.is_empty() {
            "unknown".clone_into(&mut self.service);
        }
        // A span that is its own parent has none.
        self.parent = self.parent.filter(|parent| *parent != 0 && *parent != self.id);
        (self.trace != 0 && self.id != 0 && self.start != 0).then_some(self)
    }
}

/// What a body held.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Spans, as many as were asked for at most.
    pub spans: Vec<Received>,
    /// How many others there were: too many, too large, or not whole.
    pub rejected: usize,
}

impl Batch {
    pub(super) fn add(&mut self, span: Option<Received>, most: usize) {
        match span.and_then(Received::whole).filter(|_| self.spans.len() < most) {
            Some(span) => self.spans.push(span),
            None => self.rejected += 1,
        }
    }
}

/// Why a body holds no spans at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// At most so many bytes of it.
pub(super) fn cut(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// An id of 1 to `most` hexadecimal digits.
pub(super) fn hex(text: &str, most: usize) -> Option<u128> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|one| one.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}
