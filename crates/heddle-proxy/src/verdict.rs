//! What a connection was taken for, and why: labels of a metric. Deciding is `protocol`'s.

/// What a connection is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// TLS, relayed as TCP.
    Tls,
    /// Anything else, relayed as TCP.
    Tcp,
    /// A beginning that never became a request line in time; relayed as TCP.
    Undecided,
}

impl Verdict {
    /// All, in the order of their indexes.
    pub const ALL: [Self; 5] = [Self::Http, Self::Http2, Self::Tls, Self::Tcp, Self::Undecided];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Undecided => "undecided",
        }
    }
}

/// Why it is taken for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The port's protocol was declared.
    Declared,
    /// The client's first bytes.
    ClientBytes,
    /// The server spoke (or closed) first.
    ServerFirst,
    /// The client closed before it had said what it speaks.
    ClientClosed,
    /// The head limit ended the waiting.
    HeadLimit,
}

impl Reason {
    /// All, in the order of their indexes.
    pub const ALL: [Self; 5] =
        [Self::Declared, Self::ClientBytes, Self::ServerFirst, Self::ClientClosed, Self::HeadLimit];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::ClientBytes => "client-bytes",
            Self::ServerFirst => "server-first",
            Self::ClientClosed => "client-closed",
            Self::HeadLimit => "head-limit",
        }
    }
}
