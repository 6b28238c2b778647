//! Forwarding a head: its raw bytes with a few edits.
//!
//! What goes: the fields that belong to one hop (Connection and what it nominates, Keep-Alive,
//! Proxy-Connection, Upgrade unless it is being forwarded, TE but for `trailers`). What changes: the
//! version, which is our own (HTTP/1.1) on both sides. What the caller adds: [`Edit`]s, a path, and
//! its decision about the connection. Everything else is copied in runs as long as possible, with its
//! order, its case and its blanks; only around values that frame or route the message blanks are put in
//! order.

use super::{
    BodyRewrite, Fields, KnownHeader, Request, Response, TargetForm, Version,
    fields::{Field, elements, slice},
    head::{Head, Options},
};

/// Most edits a head takes; more are the caller's mistake.
const EDITS_MAX: usize = 256;

/// A change to the fields of a head. Names are compared without case. A control character in a
/// value becomes a blank, so that no edit can split a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Replaces the value of the first such field, drops the others, adds it where there is none.
    Set(&'a str, &'a str),
    /// Adds the field where there is none.
    Default(&'a str, &'a str),
    /// Adds the field behind all others.
    Add(&'a str, &'a str),
    /// Drops every such field.
    Remove(&'a str),
}

impl<'a> Edit<'a> {
    /// The name of the fields that it changes.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Set(name, _) | Self::Default(name, _) | Self::Add(name, _) => name,
            Self::Remove(name) => name,
        }
    }
}

/// What becomes of the connection towards the recipient after this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// It stays open (said in words only to an HTTP/1.0 client).
    #[default]
    KeepAlive,
    /// It is closed: `connection: close`.
    Close,
    /// It stays open, and the next hop of the mesh is told that the client's own connection does not,
    /// which is the application's to know.
    ClientLeaves,
}

/// How a request is forwarded.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestRewrite<'a> {
    /// Changes to its fields.
    pub edits: &'a [Edit<'a>],
    /// What becomes of the connection to the server.
    pub connection: Connection,
    /// Host for a request of HTTP/1.0 without one, which as HTTP/1.1 must have it: the name and
    /// port the client dialled. Empty: none is added.
    pub default_host: &'a str,
    /// Path to send in place of the target's; the query stays, a fragment goes. Only for a target
    /// that has a path.
    pub path: Option<&'a str>,
    /// Whom the request is for, in place of what its target and Host say. Not for CONNECT, which names
    /// what it connects to.
    pub authority: Option<&'a str>,
}

/// How a response is forwarded.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseRewrite<'a> {
    /// Changes to its fields.
    pub edits: &'a [Edit<'a>],
    /// What becomes of the connection to the client.
    pub connection: Connection,
    /// The client's version, from its request.
    pub client: Version,
    /// What becomes of the body.
    pub body: BodyRewrite,
}

/// Appends the request head to `out` as it goes to the server: HTTP/1.1, Upgrade only where
/// [`Request::upgrade`] names it, the target's form as sent (a proxy behind us needs an absolute one). Where
/// an absolute target and Host disagree, Host is made to agree, as RFC 9112 §3.2.2 asks.
pub fn write_request(request: Request<'_>, rewrite: &RequestRewrite<'_>, out: &mut Vec<u8>) {
    let head = request.head();
    let upgrade = request.upgrade().is_some();
    let mut connection = Options::default();
    match rewrite.connection {
        Connection::KeepAlive => {}
        Connection::Close => connection = connection.with(Options::CLOSE),
        Connection::ClientLeaves => connection = connection.with(Options::CLIENT_LEAVES),
    }
    if upgrade {
        connection = connection.with(Options::UPGRADE);
    }
    let trailers = accepts_trailers(request.fields());
    if trailers && head.head.options.has(Options::TE) {
        connection = connection.with(Options::TE);
    }
    let authority = rewrite.authority.filter(|_| head.target_form() != TargetForm::Authority);
    let host = match head.target_form() {
        _ if authority.is_some() => authority,
        TargetForm::Absolute => Some(request.authority()),
        _ if head.version() == Version::Http10 && !head.head.table.has(KnownHeader::Host) => {
            Some(rewrite.default_host).filter(|host| !host.is_empty())
        }
        _ => None,
    };
    let rules = Rules {
        edits: rewrite.edits,
        connection: head.head.options.edit_to(connection),
        upgrade,
        te: if trailers { Te::Trailers { written: false } } else { Te::Drop },
        host,
        transfer_encoding: TransferEncoding::Keep,
        drop_lengths: false,
    };
    let digit = (head.version() == Version::Http10).then(|| head.head.fields_start - 3);
    let mut writer = Writer::new(&head.head, request.fields(), out);
    if let (Some(authority), TargetForm::Absolute) = (authority, head.target_form()) {
        let (start, end) = request.authority_range();
        writer.replace(start, end, authority.as_bytes());
    }
    if let Some(path) = rewrite.path {
        writer.replace_path(request, path);
    }
    writer.write(rules, digit);
}

/// Appends the response head to `out` as it goes to the client: HTTP/1.1, with Upgrade only on 101
/// and 426.
pub fn write_response(response: Response<'_>, rewrite: &ResponseRewrite<'_>, out: &mut Vec<u8>) {
    let head = response.head();
    let upgrade = matches!(head.status(), 101 | 426) && head.head.options.has(Options::UPGRADE);
    let mut connection = match (rewrite.connection, rewrite.client) {
        (Connection::Close, _) if head.is_interim() => Options::default(),
        (Connection::Close, _) => Options::CLOSE,
        (_, Version::Http10) => Options::KEEP_ALIVE,
        (_, Version::Http11) => Options::default(),
    };
    if upgrade {
        connection = connection.with(Options::UPGRADE);
    }
    let bodiless_by_status = matches!(head.status(), 100..=199 | 204);
    let rules = Rules {
        edits: rewrite.edits,
        connection: head.head.options.edit_to(connection),
        upgrade,
        te: Te::Keep,
        host: None,
        transfer_encoding: match rewrite.body {
            BodyRewrite::UntilClose => TransferEncoding::Drop,
            BodyRewrite::AsIs if bodiless_by_status || rewrite.client == Version::Http10 => {
                TransferEncoding::Drop
            }
            BodyRewrite::AsIs => TransferEncoding::Keep,
        },
        drop_lengths: rewrite.body != BodyRewrite::AsIs,
    };
    let digit = (head.version() == Version::Http10).then_some(7);
    Writer::new(&head.head, response.fields(), out).write(rules, digit);
}

/// Does a TE field accept trailers?
fn accepts_trailers(fields: Fields<'_>) -> bool {
    fields.table.every(KnownHeader::Te).any(|field| has_trailers(field.value(fields.raw)))
}

fn has_trailers(te: &[u8]) -> bool {
    elements(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// What is to be done with the fields that belong to one hop.
struct Rules<'a> {
    edits: &'a [Edit<'a>],
    /// The Connection value to write in place of all there are; `None` leaves them.
    connection: Option<Options>,
    upgrade: bool,
    te: Te,
    /// The Host to have.
    host: Option<&'a str>,
    transfer_encoding: TransferEncoding,
    drop_lengths: bool,
}

enum Te {
    Keep,
    Drop,
    Trailers { written: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    Keep,
    Drop,
}

/// What to do with one field.
enum Action<'a> {
    Keep,
    Drop,
    Value(&'a str),
}

/// Copies a head in runs.
struct Writer<'a, 'o> {
    head: &'a Head,
    raw: &'a [u8],
    out: &'o mut Vec<u8>,
    /// First byte of the head not written or dropped yet.
    from: u32,
    /// Bit i: edit i met a field.
    met: [u64; EDITS_MAX / 64],
    wrote_connection: bool,
    wrote_length: bool,
}

impl<'a, 'o> Writer<'a, 'o> {
    fn new(head: &'a Head, fields: Fields<'a>, out: &'o mut Vec<u8>) -> Self {
        let raw = fields.raw;
        Self {
            head,
            raw,
            out,
            from: head.start,
            met: [0; EDITS_MAX / 64],
            wrote_connection: false,
            wrote_length: false,
        }
    }

    fn replace_path(&mut self, request: Request<'_>, path: &str) {
        let has_path =
            matches!(request.head().target_form(), TargetForm::Origin | TargetForm::Absolute);
        if self.head.len == 0 || !has_path {
            return;
        }
        let (start, end) = request.path_range();
        // A blank or a line's end would make another head of this one.
        debug_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "no path: {path:?}");
        self.replace(start, end, path.as_bytes());
        if let Some((start, end)) = request.fragment_range() {
            self.replace(start, end, b"");
        }
    }

    fn write(mut self, mut rules: Rules<'_>, version_digit: Option<u32>) {
        debug_assert!(rules.edits.len() <= EDITS_MAX, "more edits than a head takes");
        if self.head.len == 0 {
            return;
        }
        self.out.reserve((self.head.len - self.head.start) as usize + 128);
        if let Some(digit) = version_digit {
            self.replace(digit, digit + 1, b"1");
        }
        let lengths = rules.edits.iter().fold(0, |mask, edit| mask | length_bit(edit.name().len()));
        let fields = self.head.table.all();
        let blank_line = self.head.len - 2;
        for (index, field) in fields.iter().enumerate() {
            let end = fields.get(index + 1).map_or(blank_line, |next| next.start);
            let edited = lengths & length_bit(usize::from(field.name_len)) != 0;
            let mut action = if edited { self.edit(*field, rules.edits) } else { None };
            if action.is_none() && (field.known != KnownHeader::Other || self.has_nominations()) {
                action = self.hop_by_hop(*field, &mut rules);
            }
            match action.unwrap_or(Action::Keep) {
                Action::Keep if delimits(field.known) => self.tidy_blanks(*field, end),
                Action::Keep => {}
                Action::Drop => self.replace(field.start, end, b""),
                Action::Value(value) => self.replace_value(*field, end, value),
            }
        }
        self.copy_to(blank_line);
        self.append(&rules);
        self.copy_to(self.head.len);
    }

    fn has_nominations(&self) -> bool {
        self.head.options.has(Options::NOMINATED)
    }

    /// What the caller's edits say about a field; `None` if nothing.
    fn edit<'e>(&mut self, field: Field, edits: &[Edit<'e>]) -> Option<Action<'e>> {
        let name = field.name(self.raw);
        let mut action = None;
        for (index, edit) in edits.iter().enumerate() {
            if !name.eq_ignore_ascii_case(edit.name().as_bytes()) {
                continue;
            }
            let again = self.met(index);
            self.met[index % EDITS_MAX / 64] |= 1 << (index % 64);
            match *edit {
                Edit::Set(_, value) if !again => action = Some(Action::Value(value)),
                Edit::Set(..) | Edit::Remove(_) => action = Some(Action::Drop),
                // What is to be there is not dropped for being nominated.
                Edit::Default(..) => action = action.or(Some(Action::Keep)),
                Edit::Add(..) => {}
            }
        }
        action
    }

    /// Has the edit at `index` met a field?
    fn met(&self, index: usize) -> bool {
        self.met[index % EDITS_MAX / 64] & 1 << (index % 64) != 0
    }

    /// What the rules of a proxy say about a field; `None` if nothing.
    fn hop_by_hop<'e>(&mut self, field: Field, rules: &mut Rules<'e>) -> Option<Action<'e>> {
        match field.known {
            KnownHeader::Connection => {
                let options = rules.connection?;
                let first = !std::mem::replace(&mut self.wrote_connection, true);
                let text = options.text();
                Some(if first && !text.is_empty() { Action::Value(text) } else { Action::Drop })
            }
            KnownHeader::KeepAlive | KnownHeader::ProxyConnection => Some(Action::Drop),
            KnownHeader::Upgrade => (!rules.upgrade).then_some(Action::Drop),
            KnownHeader::Te => match &mut rules.te {
                Te::Keep => None,
                Te::Trailers { written } if !*written && has_trailers(field.value(self.raw)) => {
                    *written = true;
                    let plain = field.value(self.raw).eq_ignore_ascii_case(b"trailers");
                    (!plain).then_some(Action::Value("trailers"))
                }
                Te::Drop | Te::Trailers { .. } => Some(Action::Drop),
            },
            KnownHeader::TransferEncoding => {
                (rules.transfer_encoding != TransferEncoding::Keep).then_some(Action::Drop)
            }
            KnownHeader::ContentLength => {
                let again = std::mem::replace(&mut self.wrote_length, true);
                (again || rules.drop_lengths).then_some(Action::Drop)
            }
            KnownHeader::Host => {
                let host = rules.host.take()?;
                (field.value(self.raw) != host.as_bytes()).then_some(Action::Value(host))
            }
            _ => self.is_nominated(field).then_some(Action::Drop),
        }
    }

    /// Does Connection name this field? Those that delimit or route the message are never reached:
    /// nominating them must not remove them.
    fn is_nominated(&self, field: Field) -> bool {
        let name = field.name(self.raw);
        self.has_nominations()
            && self.head.table.every(KnownHeader::Connection).any(|connection| {
                elements(connection.value(self.raw))
                    .any(|nominated| nominated.eq_ignore_ascii_case(name))
            })
    }

    /// Fields that were not there to be replaced.
    fn append(&mut self, rules: &Rules<'_>) {
        if let Some(host) = rules.host {
            self.put_field("host", host);
        }
        for (index, edit) in rules.edits.iter().enumerate() {
            let met = self.met(index);
            match *edit {
                Edit::Set(name, value) | Edit::Default(name, value) if !met => {
                    self.put_field(name, value);
                }
                Edit::Add(name, value) => self.put_field(name, value),
                _ => {}
            }
        }
        if let Some(options) = rules.connection {
            let text = options.text();
            if !self.wrote_connection && !text.is_empty() {
                self.put_field("connection", text);
            }
        }
    }

    fn copy_to(&mut self, to: u32) {
        self.out.extend_from_slice(slice(self.raw, self.from, to));
        self.from = self.from.max(to);
    }

    fn replace(&mut self, start: u32, end: u32, with: &[u8]) {
        self.copy_to(start);
        self.out.extend_from_slice(with);
        self.from = end;
    }

    /// Around a value that frames or routes the message only what no parser reads in another way: one
    /// blank or none before it, and none behind.
    fn tidy_blanks(&mut self, field: Field, end: u32) {
        let colon = field.start + u32::from(field.name_len) + 1;
        if !matches!(slice(self.raw, colon, field.value), b"" | b" ") {
            self.replace(colon, field.value, b" ");
        }
        if field.value_end + 2 != end {
            self.replace(field.value_end, end - 2, b"");
        }
    }

    fn replace_value(&mut self, field: Field, end: u32, value: &str) {
        self.copy_to(field.start + u32::from(field.name_len) + 1);
        self.out.push(b' ');
        self.put_value(value);
        self.from = end - 2;
    }

    fn put_field(&mut self, name: &str, value: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.put_value(value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn put_value(&mut self, value: &str) {
        let safe = |byte: u8| if byte.is_ascii_control() && byte != b'\t' { b' ' } else { byte };
        self.out.extend(value.bytes().map(safe));
    }
}

/// Do recipients find by this field where the message ends, or for whom it is?
fn delimits(known: KnownHeader) -> bool {
    use KnownHeader::{Connection, ContentLength, Host, TransferEncoding};
    matches!(known, ContentLength | TransferEncoding | Host | Connection)
}

fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}
