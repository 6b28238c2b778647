//! Why a message is refused. Every variant is a rule with a test; none is about taste: each one is
//! a limit, or a place where two parsers are known to disagree.

use super::{
    CHUNK_LINE_BYTES_MAX, CHUNK_OVERHEAD_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, METHOD_BYTES_MAX,
};

/// Why a request or response head is refused.
///
/// Towards a client: answer [`HeadError::status`] and close. From a server: 502 and discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    /// More than [`HEAD_BYTES_MAX`].
    #[error("the head is larger than {HEAD_BYTES_MAX} bytes: send fewer or shorter header fields")]
    TooLarge,
    /// More than [`FIELDS_MAX`].
    #[error("the head has more than {FIELDS_MAX} fields: send fewer")]
    TooManyFields,
    /// LF without CR before it.
    #[error("a line ends with LF alone at byte {0}: end every line with CR LF")]
    LoneLf(u32),
    /// CR without LF behind it.
    #[error("CR without LF at byte {0}: end every line with CR LF")]
    LoneCr(u32),
    /// NUL, another control character but tab, or DEL.
    #[error("control character 0x{byte:02x} at byte {at}: remove or encode it")]
    ControlByte {
        /// Offset from the first byte of the head.
        at: u32,
        /// The byte.
        byte: u8,
    },
    /// Not a token, or longer than [`METHOD_BYTES_MAX`].
    #[error("the method is no token of 1 to {METHOD_BYTES_MAX} characters")]
    BadMethod,
    /// Neither origin, absolute, authority (CONNECT) nor asterisk (OPTIONS) form.
    #[error(
        "the request target is neither a path, an absolute URI, host:port (CONNECT) nor * (OPTIONS)"
    )]
    BadTarget,
    /// Not `HTTP/1.0` or `HTTP/1.1`.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    BadVersion,
    /// A first line that has not the three parts, separated by single spaces.
    #[error("the first line is not `METHOD TARGET VERSION` or `VERSION STATUS REASON`")]
    BadStartLine,
    /// Not three digits from 100 to 999.
    #[error("the status is not a number from 100 to 999")]
    BadStatus,
    /// A field continued on the next line (obsolete line folding).
    #[error("a header line begins with a blank (line folding): send each field on one line")]
    LineFolding,
    /// Blank between name and colon.
    #[error("blank before the colon of a header field: remove it")]
    SpaceBeforeColon,
    /// Empty name, no colon, or a character that is not allowed in a name.
    #[error("a header line is not `name: value` with a token as name")]
    BadFieldName,
    /// More than one Host field.
    #[error("more than one Host field: send one")]
    SeveralHosts,
    /// A Host that cannot be `host[:port]`.
    #[error("Host is not host[:port]")]
    BadHost,
    /// Content-Length together with Transfer-Encoding.
    #[error("Content-Length and Transfer-Encoding together: send one of them")]
    LengthAndTransferEncoding,
    /// Content-Length that is not one decimal number below 2^63 (a list, a sign, a blank, nothing).
    #[error("Content-Length is not one decimal number")]
    BadLength,
    /// Content-Length fields that differ.
    #[error("Content-Length fields differ: send one")]
    DifferentLengths,
    /// Transfer-Encoding that is not exactly `chunked`, once.
    #[error("Transfer-Encoding is not exactly `chunked`")]
    BadTransferEncoding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("Transfer-Encoding in an HTTP/1.0 message: use HTTP/1.1 or Content-Length")]
    TransferEncodingOnHttp10,
}

impl HeadError {
    /// The status for a client that sent it: 431 for the two limits, 505 for the version, else 400.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::BadVersion => 505,
            _ => 400,
        }
    }

    /// A short, stable word for refusals, logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "head-bytes",
            Self::TooManyFields => "head-fields",
            Self::LoneLf(_) => "lone-lf",
            Self::LoneCr(_) => "lone-cr",
            Self::ControlByte { .. } => "control-byte",
            Self::BadMethod => "bad-method",
            Self::BadTarget => "bad-target",
            Self::BadVersion => "bad-version",
            Self::BadStartLine => "bad-start-line",
            Self::BadStatus => "bad-status",
            Self::LineFolding => "line-folding",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::BadFieldName => "bad-field-name",
            Self::SeveralHosts => "several-hosts",
            Self::BadHost => "bad-host",
            Self::LengthAndTransferEncoding => "length-and-transfer-encoding",
            Self::BadLength => "bad-content-length",
            Self::DifferentLengths => "different-content-lengths",
            Self::BadTransferEncoding => "bad-transfer-encoding",
            Self::TransferEncodingOnHttp10 => "transfer-encoding-on-http10",
        }
    }
}

/// Why a chunked body is refused. Nothing after the last forwarded byte may be sent on; cut both
/// connections, so that the recipient sees a truncated body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChunkError {
    /// The chunk size is no hexadecimal number below 2^60.
    #[error("the chunk size is no hexadecimal number")]
    BadSize,
    /// A chunk line longer than [`CHUNK_LINE_BYTES_MAX`].
    #[error("a chunk line is longer than {CHUNK_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A chunk line that is not `size[;extension]` CR LF, or data not followed by CR LF.
    #[error("a chunk is not framed by CR LF")]
    BadFraming,
    /// A control character in a chunk extension.
    #[error("a chunk extension holds a control character")]
    BadExtension,
    /// More than [`CHUNK_OVERHEAD_BYTES_MAX`].
    #[error(
        "chunk extensions and padding are {CHUNK_OVERHEAD_BYTES_MAX} bytes more than their chunks may have: send fewer"
    )]
    TooMuchOverhead,
    /// A trailer section that breaks a rule of heads.
    #[error("trailer: {0}")]
    Trailer(#[from] HeadError),
}

impl ChunkError {
    /// A short, stable word for refusals, logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadSize => "bad-chunk-size",
            Self::LineTooLong => "chunk-line-bytes",
            Self::BadFraming => "bad-chunk-framing",
            Self::BadExtension => "bad-chunk-extension",
            Self::TooMuchOverhead => "chunk-overhead",
            Self::Trailer(error) => error.code(),
        }
    }
}
