//! What request and response heads have in common: finding lines, splitting fields, and the rules
//! about connection options and body length.
//!
//! Every byte is looked at once, eight at a time: one pass finds the end of a line and proves that
//! there is no control character in it. A separate search for the line end (memchr) would need a
//! second pass for that proof. When the bytes run out, the scan remembers where it stopped, so a
//! head that arrives byte by byte costs the same.

use super::{
    ADDED_BYTES_MAX, EMPTY_LINES_MAX, Framing, HEAD_BYTES_MAX, HeadError, KnownHeader, Version,
    fields::{Field, FieldTable, elements, is_blank, is_word, recognise},
};

/// Room for this many fields is kept between messages; a larger head's table is given back.
const FIELDS_KEPT: usize = 32;

/// Options of the Connection fields, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options(u8);

impl Options {
    pub(super) const CLOSE: Self = Self(1);
    pub(super) const KEEP_ALIVE: Self = Self(2);
    pub(super) const UPGRADE: Self = Self(4);
    pub(super) const TE: Self = Self(8);
    /// Said by one hop of the mesh to the next: this connection stays, but the client's own ends.
    pub(super) const CLIENT_LEAVES: Self = Self(16);
    /// Some other field is nominated.
    pub(super) const NOMINATED: Self = Self(32);

    pub(super) fn has(self, option: Self) -> bool {
        self.0 & option.0 != 0
    }

    pub(super) fn with(self, option: Self) -> Self {
        Self(self.0 | option.0)
    }

    /// The options to write in place of these, if `wanted` are to be there; `None` if these can
    /// stay: they are the same, or say `keep-alive` besides, which is so anyway on HTTP/1.1.
    pub(super) fn edit_to(self, wanted: Self) -> Option<Self> {
        let keep_alive = wanted.with(Self::KEEP_ALIVE);
        let says_so = wanted.has(Self::CLOSE) || wanted.has(Self::CLIENT_LEAVES);
        let stays = self == wanted || (self == keep_alive && !says_so);
        (!stays).then_some(wanted)
    }

    /// The field value; empty where there is no option.
    pub(super) fn text(self) -> &'static str {
        let known = self.0 & (Self::NOMINATED.0 - 1);
        const TEXTS: [&str; 32] = [
            "",
            "close",
            "keep-alive",
            "close",
            "upgrade",
            "upgrade, close",
            "upgrade, keep-alive",
            "upgrade, close",
            "te",
            "te, close",
            "te, keep-alive",
            "te, close",
            "te, upgrade",
            "te, upgrade, close",
            "te, upgrade, keep-alive",
            "te, upgrade, close",
            "heddle-leaves",
            "close",
            "heddle-leaves",
            "close",
            "upgrade, heddle-leaves",
            "upgrade, close",
            "upgrade, heddle-leaves",
            "upgrade, close",
            "te, heddle-leaves",
            "te, close",
            "te, heddle-leaves",
            "te, close",
            "te, upgrade, heddle-leaves",
            "te, upgrade, close",
            "te, upgrade, heddle-leaves",
            "te, upgrade, close",
        ];
        TEXTS[usize::from(known)]
    }

    /// The options of one field.
    fn of(value: &[u8]) -> Self {
        match Self::of_word(value) {
            // Most often there is one word, and then there is no list to take apart.
            Self::NOMINATED => elements(value)
                .map(Self::of_word)
                .fold(Self::default(), |options, option| options.with(option)),
            option => option,
        }
    }

    fn of_word(option: &[u8]) -> Self {
        match option.len() {
            10 if is_word(option, b"keep-alive") => Self::KEEP_ALIVE,
            5 if is_word(option, b"close") => Self::CLOSE,
            7 if is_word(option, b"upgrade") => Self::UPGRADE,
            2 if is_word(option, b"te") => Self::TE,
            13 if is_word(option, b"heddle-leaves") => Self::CLIENT_LEAVES,
            _ => Self::NOMINATED,
        }
    }
}

/// State and result of scanning a head.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// Field lines found so far.
    pub(super) table: FieldTable,
    /// Connection options; set when the head is complete.
    pub(super) options: Options,
    /// First byte of the first line: empty lines before it are no part of the message.
    pub(super) start: u32,
    /// First byte behind the first line's CR LF; 0 until that line is complete.
    pub(super) fields_start: u32,
    /// Behind the blank line; 0 until the head is complete.
    pub(super) len: u32,
    /// First byte of the line being scanned.
    line: u32,
    /// First byte not looked at yet.
    at: u32,
    /// Empty lines seen before the first line.
    empty_lines: u8,
    /// May it hold what a hop of the mesh added?
    additions: bool,
}

impl Head {
    pub(super) fn clear(&mut self) {
        let mut table = std::mem::take(&mut self.table);
        table.clear(FIELDS_KEPT);
        *self = Self { table, ..Self::default() };
    }

    /// Goes on scanning. `first_line` gets the window and the first line's range, once.
    /// True when the head is complete.
    #[inline]
    pub(super) fn scan(
        &mut self,
        buf: &[u8],
        mut first_line: impl FnMut(&[u8], u32, u32) -> Result<(), HeadError>,
    ) -> Result<bool, HeadError> {
        let most = HEAD_BYTES_MAX + if self.additions { ADDED_BYTES_MAX } else { 0 };
        let window = &buf[..buf.len().min(most)];
        while self.len == 0 {
            let end = match line_end(window, self.at as usize)? {
                LineEnd::At(end) => end as u32,
                LineEnd::Open(at) => {
                    self.at = at as u32;
                    return if window.len() == most { Err(HeadError::TooLarge) } else { Ok(false) };
                }
            };
            let line = self.line;
            if self.fields_start != 0 {
                if line == end {
                    self.len = end + 2;
                } else {
                    self.table.push(split_field(window, line, end)?)?;
                }
            } else if line == end {
                self.start = end + 2;
                self.empty_lines += 1;
                if usize::from(self.empty_lines) > EMPTY_LINES_MAX {
                    return Err(HeadError::BadStartLine);
                }
            } else {
                first_line(window, line, end)?;
                self.fields_start = end + 2;
            }
            self.line = end + 2;
            self.at = end + 2;
        }
        Ok(true)
    }

    pub(super) fn allow_additions(&mut self) {
        self.additions = true;
        self.table.allow_additions();
    }

    /// First byte of the line that is being scanned, or that was refused.
    pub(super) fn line(&self) -> usize {
        self.line as usize
    }

    /// Reads the Connection fields.
    pub(super) fn read_options(&mut self, raw: &[u8]) {
        if self.table.has(KnownHeader::Connection) {
            let fields = self.table.every(KnownHeader::Connection);
            self.options = fields
                .map(|field| Options::of(field.value(raw)))
                .fold(Options::default(), Options::with);
        }
    }

    /// Does the sender want the connection to stay open?
    pub(super) fn persistent(&self, version: Version) -> bool {
        !self.options.has(Options::CLOSE)
            && (version == Version::Http11 || self.options.has(Options::KEEP_ALIVE))
    }

    /// The body's length as the fields say it, before any rule about methods and statuses. May a message
    /// of its version be chunked?
    pub(super) fn declared_framing(
        &self,
        raw: &[u8],
        chunked_is_known: bool,
    ) -> Result<Option<Framing>, HeadError> {
        if self.table.has(KnownHeader::TransferEncoding) {
            return self.transfer_encoding(raw, chunked_is_known).map(Some);
        }
        let mut lengths =
            self.table.every(KnownHeader::ContentLength).map(|field| field.value(raw));
        let Some(first) = lengths.next() else { return Ok(None) };
        let length = parse_length(first)?;
        for other in lengths {
            if parse_length(other)? != length {
                return Err(HeadError::DifferentLengths);
            }
        }
        Ok(Some(Framing::Length(length)))
    }

    fn transfer_encoding(&self, raw: &[u8], known: bool) -> Result<Framing, HeadError> {
        if self.table.has(KnownHeader::ContentLength) {
            return Err(HeadError::LengthAndTransferEncoding);
        }
        if !known {
            return Err(HeadError::TransferEncodingOnHttp10);
        }
        let mut values =
            self.table.every(KnownHeader::TransferEncoding).map(|field| field.value(raw));
        let exactly_chunked =
            values.next().is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        if !exactly_chunked || values.next().is_some() {
            return Err(HeadError::BadTransferEncoding);
        }
        Ok(Framing::Chunked)
    }
}

/// `version` of a first line.
pub(super) fn parse_version(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ if text.starts_with(b"HTTP/") => Err(HeadError::BadVersion),
        _ => Err(HeadError::BadStartLine),
    }
}

/// One decimal number; nothing else, not even a list of equal ones.
fn parse_length(text: &[u8]) -> Result<u64, HeadError> {
    // 18 digits stay below 2^63, so that no recipient's signed arithmetic overflows.
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::BadLength);
    }
    Ok(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Where a line ends.
pub(super) enum LineEnd {
    /// CR LF begins here.
    At(usize),
    /// Not within the bytes at hand; go on here.
    Open(usize),
}

/// Finds CR LF from `at` on, and refuses every control character before it but tab.
#[inline]
pub(super) fn line_end(window: &[u8], mut at: usize) -> Result<LineEnd, HeadError> {
    loop {
        at = next_control(window, at);
        match window.get(at) {
            None => return Ok(LineEnd::Open(at)),
            Some(b'\r') => {
                return match window.get(at + 1) {
                    None => Ok(LineEnd::Open(at)),
                    Some(b'\n') => Ok(LineEnd::At(at)),
                    Some(_) => Err(HeadError::LoneCr(at as u32)),
                };
            }
            Some(b'\t') => at += 1,
            Some(b'\n') => return Err(HeadError::LoneLf(at as u32)),
            Some(&byte) => return Err(HeadError::ControlByte { at: at as u32, byte }),
        }
    }
}

/// The next byte below 0x20 or equal to 0x7f, or the end.
#[inline]
fn next_control(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = ONES << 7;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
        let not_del = word ^ (ONES * 0x7f);
        let del = not_del.wrapping_sub(ONES) & !not_del;
        // A borrow can only mark bytes above a truly marked one, so the lowest mark is exact.
        let marks = (below_blank | del) & HIGH;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !byte.is_ascii_control()) {
        at += 1;
    }
    at
}

/// Characters of a token (RFC 9110 §5.6.2).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Number of token characters `bytes` begins with.
#[inline]
pub(super) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !TOKEN[usize::from(byte)]).unwrap_or(bytes.len())
}

/// Splits a line without control characters into name and value.
#[inline]
pub(super) fn split_field(window: &[u8], start: u32, end: u32) -> Result<Field, HeadError> {
    let line = &window[start as usize..end as usize];
    let name_len = token_len(line);
    if name_len == 0 || line.get(name_len) != Some(&b':') {
        return Err(bad_name(line, name_len));
    }
    let mut value = name_len + 1;
    let mut value_end = line.len();
    while value < value_end && is_blank(line[value]) {
        value += 1;
    }
    while value < value_end && is_blank(line[value_end - 1]) {
        value_end -= 1;
    }
    Ok(Field {
        start,
        value: start + value as u32,
        value_end: start + value_end as u32,
        name_len: u16::try_from(name_len).map_err(|_| HeadError::BadFieldName)?,
        known: recognise(&line[..name_len]),
    })
}

#[cold]
fn bad_name(line: &[u8], name_len: usize) -> HeadError {
    let rest = line[name_len..].iter().copied().find(|&byte| !is_blank(byte));
    match line.first() {
        Some(&byte) if is_blank(byte) => HeadError::LineFolding,
        _ if name_len > 0 && rest == Some(b':') => HeadError::SpaceBeforeColon,
        _ => HeadError::BadFieldName,
    }
}
