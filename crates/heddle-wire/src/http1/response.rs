//! Response heads: status line, and how the body is delimited given the request's method.

use super::{
    BodyRewrite, Framing, HEAD_BYTES_MAX, HeadError, KnownHeader, Method, Scan, Version,
    fields::{Fields, slice},
    head::{Head, Options, parse_version},
    lenient,
};

/// Bytes that begin with a head, which may have to be put in order.
pub trait HeadBytes {
    /// All there are.
    fn bytes(&mut self) -> &mut [u8];

    /// Puts `by` in place of the first `len` bytes.
    fn replace_front(&mut self, len: usize, by: &[u8]);
}

impl HeadBytes for Vec<u8> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn replace_front(&mut self, len: usize, by: &[u8]) {
        self.splice(..len, by.iter().copied());
    }
}

/// A response head: state of the scan, then its result. See [`super::RequestHead`] for use.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    pub(super) head: Head,
    version: Version,
    status: u16,
    declared: Option<Framing>,
    /// Looked at so far for the end of a head that is to be put in order first; 0: it is scanned as it
    /// comes.
    awaiting_end: usize,
}

impl ResponseHead {
    /// A head to scan into. Allocates with the first field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it ready for the next message; keeps room for a usual number of fields.
    pub fn clear(&mut self) {
        self.head.clear();
        self.version = Version::default();
        self.status = 0;
        self.declared = None;
        self.awaiting_end = 0;
    }

    /// Scans the head at the beginning of `buf`. After [`Scan::Partial`] call it again with the same
    /// bytes and more behind them; it goes on where it stopped.
    ///
    /// # Errors
    /// [`HeadError`]: answer the client with 502 and discard the connection.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, HeadError> {
        if self.head.len != 0 {
            return Ok(Scan::Complete);
        }
        let (version, status) = (&mut self.version, &mut self.status);
        let complete = self.head.scan(buf, |window, start, end| {
            // Empty lines are tolerated before requests only.
            if start != 0 {
                return Err(HeadError::BadStartLine);
            }
            (*version, *status) = parse_status_line(slice(window, start, end))?;
            Ok(())
        })?;
        if !complete {
            return Ok(Scan::Partial);
        }
        // A server of HTTP/1.0 that sends chunks means them; its connection is not used again.
        self.declared = self.head.declared_framing(buf, true)?;
        self.head.read_options(buf);
        Ok(Scan::Complete)
    }

    /// As [`Self::scan`]; what of a head breaks the grammar and yet has one reading only is put in order
    /// first, as clients read it (see `lenient`). That is done once the head is there in full.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn scan_normalising(&mut self, buf: &mut impl HeadBytes) -> Result<Scan, HeadError> {
        if self.awaiting_end == 0 {
            let bytes = buf.bytes();
            match self.scan(bytes) {
                Err(error) if lenient::may_normalise(error, bytes) => {}
                result => return result,
            }
        }
        self.scan_whole(buf)
    }

    #[cold]
    fn scan_whole(&mut self, buf: &mut impl HeadBytes) -> Result<Scan, HeadError> {
        let bytes = buf.bytes();
        let window = bytes.len().min(HEAD_BYTES_MAX);
        // The end is of three bytes at most, of which two may have been there.
        let from = self.awaiting_end.saturating_sub(2);
        self.clear();
        let Some(mut end) = lenient::whole(&bytes[..window], from) else {
            self.awaiting_end = window.max(1);
            let full = window == HEAD_BYTES_MAX;
            return if full { Err(HeadError::TooLarge) } else { Ok(Scan::Partial) };
        };
        if let Some(longer) = lenient::with_line_ends(&bytes[..end]) {
            if longer.len() > HEAD_BYTES_MAX {
                return Err(HeadError::TooLarge);
            }
            buf.replace_front(end, &longer);
            end = longer.len();
        }
        lenient::normalise(&mut buf.bytes()[..end - 2]);
        self.scan(buf.bytes())
    }

    /// First byte of the line at which a scan stopped: after an error, of the line at fault.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.head.line()
    }

    /// Bytes the head takes; the body starts there. 0 until complete.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len as usize
    }

    /// Is there no complete head yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.len == 0
    }

    /// The head joined with the bytes it was scanned from, starting at the same byte.
    #[must_use]
    pub fn view<'a>(&'a self, raw: &'a [u8]) -> Response<'a> {
        Response { head: self, raw }
    }

    /// Status, 100 to 999.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// 1xx other than 101: forward it (but not to an HTTP/1.0 client) and go on reading; the final
    /// response comes later.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Does the connection stop being HTTP after this head (101, or 2xx to CONNECT)? Then both
    /// sides are relayed as they are. A 101 that nobody asked for is the caller's to refuse.
    #[must_use]
    pub fn is_tunnel(&self, request: Method) -> bool {
        self.status == 101 || (request == Method::Connect && (200..300).contains(&self.status))
    }

    /// How the body is delimited in the answer to a request with this method. None for HEAD, 1xx,
    /// 204, 304 and tunnels, whatever the fields say.
    #[must_use]
    pub fn framing(&self, request: Method) -> Framing {
        if self.is_bodiless(request) {
            Framing::None
        } else {
            self.declared.unwrap_or(Framing::UntilClose)
        }
    }

    /// Is there no body by the request's method or by the status, whatever the fields say? Some servers
    /// send one all the same.
    #[must_use]
    pub fn is_bodiless(&self, request: Method) -> bool {
        request == Method::Head
            || matches!(self.status, 100..=199 | 204 | 304)
            || self.is_tunnel(request)
    }

    /// What has to become of the body for a client of this version: HTTP/1.0 clients get no chunks.
    #[must_use]
    pub fn body_rewrite(&self, request: Method, client: Version) -> BodyRewrite {
        match (self.framing(request), client) {
            (Framing::Chunked, Version::Http10) => BodyRewrite::UntilClose,
            _ => BodyRewrite::AsIs,
        }
    }

    /// Does the server keep the connection open, so that it can be used again once the body has
    /// been read to its end?
    #[must_use]
    pub fn persistent(&self, request: Method) -> bool {
        self.head.persistent(self.version)
            && self.framing(request) != Framing::UntilClose
            && !self.is_tunnel(request)
            && !(self.version == Version::Http10 && self.declared == Some(Framing::Chunked))
    }
}

fn parse_status_line(line: &[u8]) -> Result<(Version, u16), HeadError> {
    let (version, rest) = line.split_at_checked(8).ok_or(HeadError::BadStartLine)?;
    let version = parse_version(version)?;
    let [b' ', status @ ..] = rest else { return Err(HeadError::BadStartLine) };
    let (status, reason) = status.split_at_checked(3).ok_or(HeadError::BadStatus)?;
    if !matches!(status, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']) {
        return Err(HeadError::BadStatus);
    }
    // Servers leave out the blank before an empty reason; every client reads that.
    if !matches!(reason, [] | [b' ', ..]) {
        return Err(HeadError::BadStatus);
    }
    Ok((version, status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))))
}

/// A complete response head together with its bytes. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    head: &'a ResponseHead,
    raw: &'a [u8],
}

impl<'a> Response<'a> {
    /// The head's offsets and verdicts.
    #[must_use]
    pub fn head(&self) -> &'a ResponseHead {
        self.head
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields { table: &self.head.head.table, raw: self.raw }
    }

    /// The protocol a 101 switches to: Upgrade, nominated by Connection.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let accepted = self.head.status == 101 && self.head.head.options.has(Options::UPGRADE);
        accepted.then(|| self.fields().known(KnownHeader::Upgrade)).flatten()
    }

    /// The idle time the server announces (`keep-alive: timeout=N`), seconds.
    #[must_use]
    pub fn announced_idle_seconds(&self) -> Option<u32> {
        let value = self.fields().known(KnownHeader::KeepAlive)?;
        super::fields::elements(value).find_map(|element| {
            let (name, seconds) = element.split_at_checked(8)?;
            if !name.eq_ignore_ascii_case(b"timeout=") {
                return None;
            }
            str::from_utf8(seconds).ok()?.trim_matches('"').parse().ok()
        })
    }

    /// Does the server authenticate the connection, so that what follows on it counts as authenticated
    /// (NTLM, and Negotiate: RFC 4559 §6)?
    #[must_use]
    pub fn binds_connection(&self) -> bool {
        let names = [KnownHeader::WwwAuthenticate, KnownHeader::ProxyAuthenticate];
        names.into_iter().any(|name| self.fields().names_connection_scheme(name))
    }

    /// The bytes themselves, from the status line to the blank line.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        slice(self.raw, 0, self.head.head.len)
    }
}

/// The reason phrase of the statuses a mesh answers with itself; empty for others.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
