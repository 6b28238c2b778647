//! Which protocol a client speaks, by its first bytes alone. No timer takes part: bytes that are a
//! proper prefix of a request line with a registered method, of the HTTP/2 preface or of a TLS record
//! stay undecided for as long as nothing more comes.
//!
//! Nothing else is waited for. Words in capitals begin many protocols whose client waits for an
//! answer to them (`PING`, Hazelcast's `HZC`), so a request line with any other method (`PURGE`) is
//! HTTP only if it is all there when its first bytes are looked at, as clients send it; in pieces it
//! is TCP with the first of them. That is a matter of measuring: as TCP it is served the same.
//!
//! HTTP/1 is claimed only for a request line that a strict server would take: a method in capitals,
//! a target in one of its four forms, `HTTP/1.0` or `HTTP/1.1`, CR LF. Whatever differs is TCP, so
//! that a port nobody declared carries it as it would without a mesh.

use crate::http1::{self, HEAD_BYTES_MAX, METHOD_BYTES_MAX};

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// A complete HTTP/1 request line.
    Http1,
    /// The complete HTTP/2 connection preface.
    Http2Preface,
    /// The head of a TLS record with a ClientHello.
    Tls,
    /// None of these, whatever follows.
    Tcp,
    /// A proper prefix of one of these.
    NeedMore,
}

/// Methods a beginning of which is waited for: those of HTTP itself (RFC 9110 §9.3, RFC 5789) and the
/// HTTP/2 preface's. Of the others the whole name has to be there, since a single letter is a
/// beginning of one of them more often than not.
const WAITED_FOR: [&[u8]; 10] = [
    b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PRI", b"PUT", b"TRACE",
];

/// The IANA HTTP Method Registry but for [`WAITED_FOR`] and `*`, which is no method to be sent.
#[rustfmt::skip]
const ALSO_REGISTERED: [&[u8]; 30] = [
    b"ACL", b"BASELINE-CONTROL", b"BIND", b"CHECKIN", b"CHECKOUT", b"COPY", b"LABEL", b"LINK", b"LOCK",
    b"MERGE", b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MKREDIRECTREF", b"MKWORKSPACE", b"MOVE",
    b"ORDERPATCH", b"PROPFIND", b"PROPPATCH", b"QUERY", b"REBIND", b"REPORT", b"SEARCH", b"UNBIND",
    b"UNCHECKOUT", b"UNLINK", b"UNLOCK", b"UPDATE", b"UPDATEREDIRECTREF", b"VERSION-CONTROL",
];

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at all bytes at once.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detected {
    Detector::new().look(bytes)
}

/// Looks at a connection's first bytes as they arrive, each once.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    /// Bytes looked at.
    at: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    First,
    Tls,
    Preface,
    Method,
    /// At the target's first byte.
    Target,
    /// In a path with query.
    Path,
    /// In CONNECT's `host:port`.
    Authority,
    /// In what must turn out to be a scheme.
    Scheme,
    /// Behind a scheme: so many bytes of `://` seen.
    SchemeEnd(u8),
    /// Behind the target: so many bytes of [`VERSION`] seen.
    Version(u8),
    Decided(Detected),
}

/// What a request line ends with; `x` stands for 0 or 1.
const VERSION: &[u8; 11] = b" HTTP/1.x\r\n";
const TCP: State = State::Decided(Detected::Tcp);

impl Detector {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The verdict about `bytes`: all of the connection's bytes so far, from the first one. What it
    /// was [`Detected::NeedMore`] about before begins a request with a registered method.
    pub fn look(&mut self, bytes: &[u8]) -> Detected {
        while let Some(&byte) = bytes.get(self.at) {
            if let State::Decided(verdict) = self.state {
                return verdict;
            }
            let seen = &bytes[..=self.at];
            self.state = self.next(byte, seen);
            // `PRI * HTTP/2.0` goes wrong as HTTP/1 only at its `2`.
            if self.state == TCP && PREFACE.starts_with(seen) {
                self.state = State::Preface;
            }
            self.at += 1;
            if self.at == HEAD_BYTES_MAX && !matches!(self.state, State::Decided(_)) {
                self.state = TCP;
            }
        }
        if !self.is_worth_waiting(bytes) {
            self.state = TCP;
        }
        match self.state {
            State::Decided(verdict) => verdict,
            _ => Detected::NeedMore,
        }
    }

    /// Can `bytes`, all looked at and undecided, be a beginning that somebody sends in pieces?
    fn is_worth_waiting(&self, bytes: &[u8]) -> bool {
        match self.state {
            State::Decided(_) | State::First | State::Tls | State::Preface => true,
            State::Method => WAITED_FOR.iter().any(|method| method.starts_with(bytes)),
            _ => {
                let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
                WAITED_FOR.contains(&method) || ALSO_REGISTERED.contains(&method)
            }
        }
    }

    /// The state behind `byte`, the last of `seen`.
    fn next(&self, byte: u8, seen: &[u8]) -> State {
        match (self.state, byte) {
            (State::First, 0x16) => State::Tls,
            (State::First, b'A'..=b'Z') => State::Method,
            (State::Tls, _) => tls(self.at, byte),
            (State::Preface, _) => preface(seen),
            (State::Method, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_')
                if self.at < METHOD_BYTES_MAX =>
            {
                State::Method
            }
            (State::Method, b' ') => State::Target,
            (State::Target, b'/') => State::Path,
            (State::Target, b'*') => State::Version(0),
            (State::Target, b'[' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
                if seen.starts_with(b"CONNECT ") =>
            {
                State::Authority
            }
            (State::Target, b'a'..=b'z' | b'A'..=b'Z') => State::Scheme,
            (State::Scheme, b':') => State::SchemeEnd(1),
            (State::Scheme, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') => {
                State::Scheme
            }
            (State::SchemeEnd(1), b'/') => State::SchemeEnd(2),
            (State::SchemeEnd(2), b'/') => State::Path,
            (State::Path | State::Authority, b' ') => State::Version(1),
            (State::Path, _) if !byte.is_ascii_control() => State::Path,
            (State::Authority, _) if byte.is_ascii_graphic() => State::Authority,
            (State::Version(matched), _) => version(matched, byte, seen),
            (State::Decided(_), _) => self.state,
            _ => TCP,
        }
    }
}

/// A handshake record (0x16) of SSL 3.0 or TLS (0x03 and a minor version) of at most 2^14 bytes that
/// begins with a ClientHello (0x01).
fn tls(at: usize, byte: u8) -> State {
    match (at, byte) {
        (1, 0x03) | (2, 0x00..=0x04) | (3, 0x00..=0x40) | (4, _) => State::Tls,
        (5, 0x01) => State::Decided(Detected::Tls),
        _ => TCP,
    }
}

fn preface(seen: &[u8]) -> State {
    if seen == PREFACE {
        State::Decided(Detected::Http2Preface)
    } else if PREFACE.starts_with(seen) {
        State::Preface
    } else {
        TCP
    }
}

fn version(matched: u8, byte: u8, seen: &[u8]) -> State {
    match (VERSION[usize::from(matched)], byte) {
        (b'x', b'0' | b'1') => State::Version(matched + 1),
        // The scanner has the last word, so that what is claimed here is not refused there.
        (b'\n', b'\n') if http1::is_request_line(&seen[..seen.len() - 2]) => {
            State::Decided(Detected::Http1)
        }
        (b'\n', _) => TCP,
        (expected, _) if expected == byte => State::Version(matched + 1),
        _ => TCP,
    }
}
