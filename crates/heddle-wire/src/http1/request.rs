//! Request heads: the first line, the target's four forms, and what the head says about the
//! body and the connection.

use std::borrow::Cow;

use super::{
    Framing, HeadError, KnownHeader, METHOD_BYTES_MAX, Scan, Version,
    fields::{Fields, elements, slice},
    head::{Head, Options, parse_version, token_len},
};

/// Methods by what the proxy has to know about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`: its response has no body.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
    /// `CONNECT`: a 2xx response turns the connection into a tunnel.
    Connect,
    /// `OPTIONS`.
    Options,
    /// `TRACE`.
    Trace,
    /// `PATCH`.
    Patch,
    /// Anything else.
    Other,
}

impl Method {
    /// By its name; case matters.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// The form of a request target (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`; forwarded as it is, matched as if it were in origin form.
    Absolute,
    /// `host:port`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// A request head: state of the scan, then its result. Reusable, so that a connection's messages
/// share one table of fields. It holds offsets only; [`RequestHead::view`] joins them with the bytes.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    pub(super) head: Head,
    pub(super) line: RequestLine,
    framing: Framing,
}

/// Offsets of the first line's parts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestLine {
    method: Method,
    form: TargetForm,
    /// Version; its text is the 8 bytes before the first line's CR LF.
    pub(super) version: Version,
    method_end: u32,
    target: u32,
    target_end: u32,
    /// Absolute and authority form: the authority. Else empty.
    authority: u32,
    /// Absolute form: end of the authority, where path or query begin.
    authority_end: u32,
}

impl RequestHead {
    /// A head to scan into. Allocates with the first field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it ready for the next message; keeps room for a usual number of fields.
    pub fn clear(&mut self) {
        self.head.clear();
        self.line = RequestLine::default();
        self.framing = Framing::None;
    }

    /// Scans the head at the beginning of `buf`. After [`Scan::Partial`] call it again with the same
    /// bytes and more behind them; it goes on where it stopped.
    ///
    /// # Errors
    /// [`HeadError`]: answer [`HeadError::status`] and close.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, HeadError> {
        if self.head.len != 0 {
            return Ok(Scan::Complete);
        }
        let line = &mut self.line;
        let complete = self.head.scan(buf, |window, start, end| {
            *line = RequestLine::parse(window, start, end)?;
            Ok(())
        })?;
        if !complete {
            return Ok(Scan::Partial);
        }
        self.finish(buf)?;
        Ok(Scan::Complete)
    }

    /// Lets the head hold what another hop of the mesh added to one that was at its limits
    /// ([`super::ADDED_FIELDS_MAX`], [`super::ADDED_BYTES_MAX`]). Until it is cleared.
    pub fn allow_additions(&mut self) {
        self.head.allow_additions();
    }

    /// Bytes the head takes in the scanned buffer, empty lines before it included: the body starts
    /// there. 0 until complete.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len as usize
    }

    /// Is there no complete head yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.len == 0
    }

    /// Has any byte of a message been seen (empty lines apart)? Tells an idle connection that
    /// closes from one that closes in the middle of a head.
    #[must_use]
    pub fn has_begun(&self, buf: &[u8]) -> bool {
        buf.len() > self.head.start as usize
    }

    /// The head joined with the bytes it was scanned from, starting at the same byte.
    #[must_use]
    pub fn view<'a>(&'a self, raw: &'a [u8]) -> Request<'a> {
        Request { head: self, raw }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.line.method
    }

    /// The client's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// How the body is delimited; never [`Framing::UntilClose`].
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The target's form.
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.line.form
    }

    /// Does the client want the connection to stay open after the response?
    #[must_use]
    pub fn persistent(&self) -> bool {
        self.head.persistent(self.line.version)
    }

    /// Does the hop of the mesh that sent it say that its client's connection ends behind it
    /// ([`super::Connection::ClientLeaves`])?
    #[must_use]
    pub fn client_leaves(&self) -> bool {
        self.head.options.has(Options::CLIENT_LEAVES)
    }

    fn finish(&mut self, raw: &[u8]) -> Result<(), HeadError> {
        if let Some(host) = self.head.table.known(KnownHeader::Host) {
            if self.head.table.every(KnownHeader::Host).nth(1).is_some() {
                return Err(HeadError::SeveralHosts);
            }
            if !is_authority(host.value(raw)) {
                return Err(HeadError::BadHost);
            }
        }
        let chunked_is_known = self.line.version == Version::Http11;
        let declared = self.head.declared_framing(raw, chunked_is_known)?;
        self.framing = declared.unwrap_or(Framing::None);
        self.head.read_options(raw);
        Ok(())
    }
}

impl RequestLine {
    #[inline]
    fn parse(window: &[u8], start: u32, end: u32) -> Result<Self, HeadError> {
        let line = &window[start as usize..end as usize];
        let method_len = token_len(line);
        match line.get(method_len) {
            _ if method_len == 0 || method_len > METHOD_BYTES_MAX => {
                return Err(HeadError::BadMethod);
            }
            Some(b' ') => {}
            Some(_) => return Err(HeadError::BadMethod),
            None => return Err(HeadError::BadStartLine),
        }
        let target = method_len + 1;
        let (target_len, version) = split_line(&line[target..])?;
        let method = Method::of(&line[..method_len]);
        let mut parsed = Self {
            method,
            form: TargetForm::Origin,
            version,
            method_end: start + method_len as u32,
            target: start + target as u32,
            target_end: start + (target + target_len) as u32,
            authority: 0,
            authority_end: 0,
        };
        parsed.find_form(&line[target..target + target_len])?;
        Ok(parsed)
    }

    fn find_form(&mut self, target: &[u8]) -> Result<(), HeadError> {
        match target {
            [b'/', ..] if self.method != Method::Connect => {}
            b"*" if self.method == Method::Options => self.form = TargetForm::Asterisk,
            _ if self.method == Method::Connect => {
                let port = memchr::memrchr(b':', target).map(|colon| &target[colon + 1..]);
                let numeric =
                    port.is_some_and(|p| !p.is_empty() && p.iter().all(u8::is_ascii_digit));
                if !numeric || !is_authority(target) {
                    return Err(HeadError::BadTarget);
                }
                self.form = TargetForm::Authority;
                (self.authority, self.authority_end) = (self.target, self.target_end);
            }
            _ => {
                let authority = scheme_len(target).ok_or(HeadError::BadTarget)? + 3;
                let rest = &target[authority..];
                let len = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
                if len == 0 || !is_authority(&rest[..len]) {
                    return Err(HeadError::BadTarget);
                }
                self.form = TargetForm::Absolute;
                self.authority = self.target + authority as u32;
                self.authority_end = self.authority + len as u32;
            }
        }
        Ok(())
    }
}

/// Length of the target and the version, from what follows the method.
#[inline]
fn split_line(rest: &[u8]) -> Result<(usize, Version), HeadError> {
    if let Some((target, version)) = rest.split_last_chunk::<9>() {
        let version = match version {
            b" HTTP/1.1" => Some(Version::Http11),
            b" HTTP/1.0" => Some(Version::Http10),
            _ => None,
        };
        // Without an early exit this is a few wide instructions.
        let blanks = target.iter().fold(false, |blanks, &byte| blanks | (byte <= b' '));
        if let (Some(version), false) = (version, blanks || target.is_empty()) {
            return Ok((target.len(), version));
        }
    }
    Err(bad_line(rest))
}

/// What is wrong with a line that is not a target without blanks, one blank and a version.
#[cold]
fn bad_line(rest: &[u8]) -> HeadError {
    match memchr::memchr(b' ', rest) {
        None => HeadError::BadStartLine,
        // Up to the blank all is well but for the target: it is empty or holds a tab.
        Some(blank) => parse_version(&rest[blank + 1..]).err().unwrap_or(HeadError::BadTarget),
    }
}

/// Is `line` (without CR LF, without control characters but tab) a request line?
pub(crate) fn is_request_line(line: &[u8]) -> bool {
    u32::try_from(line.len()).is_ok_and(|end| RequestLine::parse(line, 0, end).is_ok())
}

/// Length of the scheme before `://`, if there is one.
fn scheme_len(target: &[u8]) -> Option<usize> {
    let len = target.iter().position(|&byte| byte == b':')?;
    let scheme = &target[..len];
    let inner = scheme.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    (scheme.first()?.is_ascii_alphabetic() && inner && target[len..].starts_with(b"://"))
        .then_some(len)
}

/// Can this be `host[:port]`? Refuses what would end an authority in a URI or make two of one
/// (`/ ? # @ \ ,`), blanks, and bytes outside ASCII; no check of the host's own grammar. May be empty.
fn is_authority(text: &[u8]) -> bool {
    text.iter().all(|&byte| AUTHORITY[usize::from(byte)])
}

/// Bytes [`is_authority`] takes.
static AUTHORITY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte as usize] = !matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\' | b',');
        byte += 1;
    }
    table
};

/// A complete request head together with its bytes. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    head: &'a RequestHead,
    raw: &'a [u8],
}

impl<'a> Request<'a> {
    /// The head's offsets and verdicts.
    #[must_use]
    pub fn head(&self) -> &'a RequestHead {
        self.head
    }

    /// The method's text; a token, so always ASCII.
    #[must_use]
    pub fn method(&self) -> &'a str {
        let name = slice(self.raw, self.head.head.start, self.head.line.method_end);
        str::from_utf8(name).unwrap_or_default()
    }

    /// The target exactly as sent, whatever its form.
    #[must_use]
    pub fn target_as_sent(&self) -> &'a [u8] {
        slice(self.raw, self.head.line.target, self.head.line.target_end)
    }

    /// The target as rules see it: path and query as sent, absolute form reduced to origin form
    /// (an empty path is `/`). Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn target(&self) -> Cow<'a, str> {
        let line = &self.head.line;
        if line.form != TargetForm::Absolute {
            return String::from_utf8_lossy(self.target_as_sent());
        }
        let rest = slice(self.raw, line.authority_end, line.target_end);
        match rest {
            [b'/', ..] => String::from_utf8_lossy(rest),
            [] => Cow::Borrowed("/"),
            _ => Cow::Owned(format!("/{}", String::from_utf8_lossy(rest))),
        }
    }

    /// The path as sent: [`Self::target`] up to `?` or `#`, but with bytes that are not UTF-8.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        let (start, end) = self.path_range();
        match slice(self.raw, start, end) {
            [] if self.head.line.form == TargetForm::Absolute => b"/",
            path => path,
        }
    }

    /// Where the path stands. An absolute target may have none.
    pub(super) fn path_range(&self) -> (u32, u32) {
        let line = &self.head.line;
        let start =
            if line.form == TargetForm::Absolute { line.authority_end } else { line.target };
        let rest = slice(self.raw, start, line.target_end);
        let len = rest.iter().position(|&byte| byte == b'?' || byte == b'#').unwrap_or(rest.len());
        (start, start + len as u32)
    }

    /// Where an absolute target names its authority.
    pub(super) fn authority_range(&self) -> (u32, u32) {
        (self.head.line.authority, self.head.line.authority_end)
    }

    /// Where a fragment begins, and where the target ends.
    pub(super) fn fragment_range(&self) -> Option<(u32, u32)> {
        let line = &self.head.line;
        let at = memchr::memchr(b'#', self.target_as_sent())?;
        Some((line.target + at as u32, line.target_end))
    }

    /// Host and port the client means: the target's authority where it has one, else Host; empty
    /// where there is neither.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        let line = &self.head.line;
        let text = if line.authority == line.authority_end {
            self.fields().known(KnownHeader::Host).unwrap_or_default()
        } else {
            slice(self.raw, line.authority, line.authority_end)
        };
        str::from_utf8(text).unwrap_or_default()
    }

    /// `http`, or the scheme of an absolute target (as sent).
    #[must_use]
    pub fn scheme(&self) -> &'a str {
        let line = &self.head.line;
        if line.form != TargetForm::Absolute {
            return "http";
        }
        str::from_utf8(slice(self.raw, line.target, line.authority - 3)).unwrap_or_default()
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields { table: &self.head.head.table, raw: self.raw }
    }

    /// The protocols of an Upgrade that is to be forwarded: offered on HTTP/1.1, nominated by
    /// Connection, and not `h2c` alone. An `h2c` offer (which some clients attach to every first
    /// request) may be ignored by any recipient, and is: taking it would hide the connection's
    /// requests. `None` means that no Upgrade field is forwarded.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let head = &self.head.head;
        if self.head.line.version != Version::Http11 || !head.options.has(Options::UPGRADE) {
            return None;
        }
        let protocols = self.fields().known(KnownHeader::Upgrade)?;
        // Offered among others, h2c could still be what the server takes.
        let mut offered = head
            .table
            .every(KnownHeader::Upgrade)
            .flat_map(|field| elements(field.value(self.raw)));
        offered.all(|protocol| !protocol.eq_ignore_ascii_case(b"h2c")).then_some(protocols)
    }

    /// May the request be sent twice for the sake of an Idempotency-Key?
    #[must_use]
    pub fn has_idempotency_key(&self) -> bool {
        self.head.head.table.has(KnownHeader::IdempotencyKey)
    }

    /// Does it authenticate its connection, so that what follows on it counts as authenticated too
    /// (NTLM, and Negotiate: RFC 4559 §6)?
    #[must_use]
    pub fn binds_connection(&self) -> bool {
        let names = [KnownHeader::Authorization, KnownHeader::ProxyAuthorization];
        names.into_iter().any(|name| self.fields().names_connection_scheme(name))
    }

    /// The bytes themselves, from the first line to the blank line.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        slice(self.raw, self.head.head.start, self.head.head.len)
    }
}
