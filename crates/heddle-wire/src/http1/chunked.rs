//! The chunked transfer coding: which ranges of the input may go on as they are.
//!
//! A relay forwards canonical chunk framing verbatim, so a buffer full of chunks without extensions
//! is one range. Only extensions, padding and forbidden trailer fields interrupt it. Chunks need not
//! be complete: what has been forwarded of a cut body is cut at the other side too, and so is
//! recognised there as truncated.

use std::ops::Range;

use super::{
    CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, CHUNK_OVERHEAD_FREE, ChunkError, FIELDS_MAX,
    HEAD_BYTES_MAX, HeadError,
    fields::is_blank,
    head::{LineEnd, line_end, split_field},
};

/// What follows a chunk's data when chunks are made by us.
pub const CHUNK_END: &[u8; 2] = b"\r\n";
/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";

/// The size line of a chunk of `len` bytes (not 0: that would end the body), written to the end of
/// `buffer`.
#[must_use]
pub fn chunk_head(len: usize, buffer: &mut [u8; 18]) -> &[u8] {
    debug_assert!(len > 0, "a chunk of no bytes ends the body");
    let mut at = buffer.len() - 2;
    buffer[at..].copy_from_slice(b"\r\n");
    let mut rest = len;
    loop {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

/// A part of the input that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// This range of the input may be sent to the other side as it is. May be empty.
    pub forward: Range<usize>,
    /// So many bytes of the input are done with; always at least `forward.end`.
    pub consumed: usize,
    /// What to do next.
    pub progress: Progress,
}

/// What the bytes of a [`Run`] are, where a body is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Payload.
    Data,
    /// One line of the trailers, without CR LF.
    Trailer,
}

/// What to do after a [`Run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Call again with the input behind `consumed`.
    More,
    /// Keep the input behind `consumed` (a partial line at most; usually nothing), read more behind it.
    NeedInput,
    /// The body is complete; the input behind `consumed` is the next message's.
    Done,
}

/// An incremental decoder of one chunked body.
#[derive(Debug, Clone, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// Data bytes left in the current chunk.
    remaining: u64,
    /// Bytes seen that carry nothing, less what their chunks may have of them.
    overhead: u64,
    /// Of a partial line at the input's beginning: bytes looked at already.
    searched: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// At a chunk-size line.
    #[default]
    Size,
    /// Behind the digits of a size line whose extension of so many bytes is to be dropped.
    Extension(usize),
    /// At the CR LF of a size line.
    SizeEnd,
    /// In data.
    Data,
    /// At the CR LF behind data.
    DataEnd,
    /// At a trailer line.
    Trailer,
    /// Complete.
    Done,
}

/// The next thing in the input, by its length.
enum Step {
    Data(usize),
    /// Framing that may be forwarded as it is.
    Framing(usize),
    Drop(usize),
    NeedInput,
    Done,
}

impl ChunkedDecoder {
    /// At the beginning of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next run to forward with its chunk framing: to a peer that gets a chunked body.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn relay(&mut self, input: &[u8]) -> Result<Run, ChunkError> {
        let (mut start, mut at) = (0, 0);
        loop {
            let progress = match self.step(&input[at..])? {
                Step::Data(n) | Step::Framing(n) => {
                    at += n;
                    continue;
                }
                Step::Drop(n) if start == at => {
                    at += n;
                    start = at;
                    continue;
                }
                Step::Drop(n) => {
                    return Ok(Run {
                        forward: start..at,
                        consumed: at + n,
                        progress: Progress::More,
                    });
                }
                Step::NeedInput => Progress::NeedInput,
                Step::Done => Progress::Done,
            };
            return Ok(Run { forward: start..at, consumed: at, progress });
        }
    }

    /// The next run of data alone, without framing and trailers: to a peer that gets the body
    /// delimited otherwise.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn data(&mut self, input: &[u8]) -> Result<Run, ChunkError> {
        let mut at = 0;
        loop {
            let progress = match self.step(&input[at..])? {
                Step::Data(n) => {
                    return Ok(Run {
                        forward: at..at + n,
                        consumed: at + n,
                        progress: Progress::More,
                    });
                }
                Step::Framing(n) | Step::Drop(n) => {
                    at += n;
                    continue;
                }
                Step::NeedInput => Progress::NeedInput,
                Step::Done => Progress::Done,
            };
            return Ok(Run { forward: at..at, consumed: at, progress });
        }
    }

    /// The next part by itself: a run of data, or one line of the trailers without its end. What may not
    /// be a trailer is left out.
    ///
    /// # Errors
    /// [`ChunkError`]: forward nothing more, cut both connections.
    pub fn part(&mut self, input: &[u8]) -> Result<(Run, Part), ChunkError> {
        let mut at = 0;
        loop {
            let in_trailers = self.state == State::Trailer;
            let progress = match self.step(&input[at..])? {
                Step::Data(n) => {
                    let forward = at..at + n;
                    return Ok((
                        Run { forward, consumed: at + n, progress: Progress::More },
                        Part::Data,
                    ));
                }
                // The empty line that ends them is none of them.
                Step::Framing(n) if in_trailers && n > 2 => {
                    let forward = at..at + n - 2;
                    return Ok((
                        Run { forward, consumed: at + n, progress: Progress::More },
                        Part::Trailer,
                    ));
                }
                Step::Framing(n) | Step::Drop(n) => {
                    at += n;
                    continue;
                }
                Step::NeedInput => Progress::NeedInput,
                Step::Done => Progress::Done,
            };
            return Ok((Run { forward: at..at, consumed: at, progress }, Part::Data));
        }
    }

    /// Is the body complete? If the connection ends before, it is truncated.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Data bytes left in the current chunk: they may be moved without being looked at, followed by
    /// [`Self::advance`].
    #[must_use]
    pub fn chunk_remaining(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// `bytes` of the current chunk were moved past the decoder; at most [`Self::chunk_remaining`].
    pub fn advance(&mut self, bytes: u64) {
        let bytes = bytes.min(self.chunk_remaining());
        self.take_data(bytes);
    }

    fn take_data(&mut self, bytes: u64) {
        self.remaining -= bytes;
        if self.state == State::Data && self.remaining == 0 {
            self.state = State::DataEnd;
        }
    }

    #[inline]
    fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        match self.state {
            State::Done => Ok(Step::Done),
            _ if input.is_empty() => Ok(Step::NeedInput),
            State::Data => {
                let n = self.remaining.min(input.len() as u64);
                self.take_data(n);
                Ok(Step::Data(n as usize))
            }
            State::DataEnd => self.line_end(input, State::Size),
            State::Size => self.size(input),
            State::Extension(len) => {
                let n = len.min(input.len());
                self.state = if n < len { State::Extension(len - n) } else { State::SizeEnd };
                Ok(Step::Drop(n))
            }
            State::SizeEnd => {
                let next = if self.remaining == 0 { State::Trailer } else { State::Data };
                self.line_end(input, next)
            }
            State::Trailer => self.trailer(input),
        }
    }

    fn line_end(&mut self, input: &[u8], next: State) -> Result<Step, ChunkError> {
        match input {
            [b'\r', b'\n', ..] => {
                self.state = next;
                Ok(Step::Framing(2))
            }
            [b'\r'] => Ok(Step::NeedInput),
            _ => Err(ChunkError::BadFraming),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let (size, digits) = parse_size(input)?;
        match &input[digits..] {
            [] | [b'\r'] => Ok(Step::NeedInput),
            [b'\r', b'\n', ..] => {
                self.remaining = size;
                self.state = if size == 0 { State::Trailer } else { State::Data };
                Ok(Step::Framing(digits + 2))
            }
            [b';' | b' ' | b'\t', ..] => self.extension(input, digits, size),
            [b'\r' | b'\n', ..] => Err(ChunkError::BadFraming),
            _ => Err(ChunkError::BadSize),
        }
    }

    /// A size line that goes on behind its digits.
    fn extension(&mut self, input: &[u8], digits: usize, size: u64) -> Result<Step, ChunkError> {
        let from = self.searched.clamp(digits, input.len());
        let Some(line_feed) = memchr::memchr(b'\n', &input[from..]).map(|at| from + at) else {
            if input.len() >= CHUNK_LINE_BYTES_MAX {
                return Err(ChunkError::LineTooLong);
            }
            self.searched = input.len();
            return Ok(Step::NeedInput);
        };
        if line_feed >= CHUNK_LINE_BYTES_MAX {
            return Err(ChunkError::LineTooLong);
        }
        let extension =
            input[digits..line_feed].strip_suffix(b"\r").ok_or(ChunkError::BadFraming)?;
        if extension.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(ChunkError::BadExtension);
        }
        // Blanks behind the size are padding that old servers send; anything else needs its `;`.
        match extension.iter().find(|&&byte| !is_blank(byte)) {
            None | Some(b';') => {}
            Some(_) => return Err(ChunkError::BadSize),
        }
        self.waste(extension.len(), size)?;
        self.searched = 0;
        self.remaining = size;
        self.state = State::Extension(extension.len());
        Ok(Step::Framing(digits))
    }

    /// A chunk of `size` bytes came with `bytes` that carry nothing. Each may have some, and more the
    /// larger it is: a signature on every chunk is no harm however long the body lasts.
    fn waste(&mut self, bytes: usize, size: u64) -> Result<(), ChunkError> {
        let allowed = CHUNK_OVERHEAD_FREE + size.saturating_mul(2);
        self.overhead = (self.overhead + bytes as u64).saturating_sub(allowed);
        if self.overhead > CHUNK_OVERHEAD_BYTES_MAX {
            return Err(ChunkError::TooMuchOverhead);
        }
        Ok(())
    }

    fn trailer(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let room = HEAD_BYTES_MAX - self.trailer_bytes;
        let window = &input[..input.len().min(room)];
        let end = match line_end(window, self.searched.min(window.len()))? {
            LineEnd::At(end) => end,
            LineEnd::Open(_) if window.len() == room => return Err(HeadError::TooLarge.into()),
            LineEnd::Open(at) => {
                self.searched = at;
                return Ok(Step::NeedInput);
            }
        };
        self.searched = 0;
        let line_bytes = end + 2;
        if end == 0 {
            self.state = State::Done;
            return Ok(Step::Framing(line_bytes));
        }
        let field = split_field(window, 0, end as u32)?;
        self.trailer_fields += 1;
        if self.trailer_fields > FIELDS_MAX {
            return Err(HeadError::TooManyFields.into());
        }
        self.trailer_bytes += line_bytes;
        let dropped = is_forbidden_trailer(field.name(window));
        Ok(if dropped { Step::Drop(line_bytes) } else { Step::Framing(line_bytes) })
    }
}

/// Value and number of the hexadecimal digits `input` begins with.
fn parse_size(input: &[u8]) -> Result<(u64, usize), ChunkError> {
    const DIGITS_MAX: usize = 16;
    const SIZE_LIMIT: u64 = 1 << 60;
    let mut size: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = input.get(digits).and_then(|&byte| char::from(byte).to_digit(16)) {
        if digits == DIGITS_MAX || size >= SIZE_LIMIT >> 4 {
            return Err(ChunkError::BadSize);
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    if digits == 0 { Err(ChunkError::BadSize) } else { Ok((size, digits)) }
}

/// Fields that must not come after the body (RFC 9110 §6.5.1): a recipient that merged them into
/// the head would change framing, routing, authentication or caching after the fact.
fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 33] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    ];
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
}
