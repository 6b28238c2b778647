//! The HTTP/1 codec, without I/O: bytes in, ranges and edited bytes out.
//!
//! A head is scanned once, in place: [`RequestHead`] and [`ResponseHead`] keep offsets into the raw
//! bytes, never copies, and go on where they stopped when more bytes arrive. Forwarding means
//! copying the raw head with a few edits ([`write_request`], [`write_response`]): order and case of
//! every other field stay as they were. Bodies are streamed by [`Body`], which says which ranges of
//! the input may go to the other side as they are.
//!
//! The rules are strict where leniency lets two parsers disagree about where a message ends:
//! see [`HeadError`]. In particular a line must end with CR LF; a request with a lone LF is refused,
//! because a recipient may ignore it or not, and what two recipients read differently can smuggle. What of a
//! response's head has one reading only is put in order (`lenient`).
//!
//! What this is not: it opens no socket, measures no time and decides no route. A connection that
//! has had a [`HeadError`] or [`ChunkError`] cannot be used further: answer (400, 431, 502) and close.

mod body;
mod chunked;
mod error;
mod fields;
mod head;
mod lenient;
mod request;
mod response;
mod write;

pub use body::{Body, BodyEnd, BodyRewrite};
pub use chunked::{CHUNK_END, ChunkedDecoder, LAST_CHUNK, Part, Progress, Run, chunk_head};
pub use error::{ChunkError, HeadError};
pub use fields::{Fields, KnownHeader};
pub(crate) use request::is_request_line;
pub use request::{Method, Request, RequestHead, TargetForm};
pub use response::{HeadBytes, Response, ResponseHead, reason};
pub use write::{Connection, Edit, RequestRewrite, ResponseRewrite, write_request, write_response};

/// Largest head, bytes: start line, fields, blank line and empty lines before it. Both directions;
/// also the bound of a trailer section.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a head, both directions; also in a trailer section.
pub const FIELDS_MAX: usize = 200;
/// Longest method, bytes; the longest registered one has 17.
pub const METHOD_BYTES_MAX: usize = 32;
/// Empty lines tolerated before a request line: RFC 9112 §2.2 asks for one, and real clients send
/// one after a POST body. They are never forwarded.
pub const EMPTY_LINES_MAX: usize = 2;
/// Longest chunk-size line with its extensions, bytes, CR LF included.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// Most bytes that carry nothing (chunk extensions and padding) beyond what chunks may have of them:
/// [`CHUNK_OVERHEAD_FREE`] and twice its data each. So a long body of usual chunks never comes near it,
/// and one of little but extensions does.
pub const CHUNK_OVERHEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes that carry nothing which any chunk may have.
pub const CHUNK_OVERHEAD_FREE: u64 = 16;
/// Fields by which a request may exceed [`FIELDS_MAX`] after a hop of the mesh has added its own, and
/// [`ADDED_BYTES_MAX`] the same for [`HEAD_BYTES_MAX`]: who sent what is just within them is not refused
/// for what the mesh itself added, by its own account or by a rule's.
pub const ADDED_FIELDS_MAX: usize = 48;
/// See [`ADDED_FIELDS_MAX`].
pub const ADDED_BYTES_MAX: usize = 16 * 1024;

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Scan {
    /// The head is complete; the message's body starts at its `len()`.
    Complete,
    /// Valid so far; scan again, with the same bytes and more behind them.
    Partial,
}

/// The version in a first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// `HTTP/1.0`.
    Http10,
    /// `HTTP/1.1`.
    #[default]
    Http11,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// There is none, whatever `content-length` says.
    #[default]
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// Until the connection closes. Responses only.
    UntilClose,
}
