//! The one canonical form of a request's path, for everything that decides by it.
//!
//! A path can be spelled in many ways (`/admin`, `/%61dmin`, `/x/../admin`, `/x\..\admin`). Whoever
//! decides by the path must see one spelling, and the upstream must see the one that was decided on:
//! else a request passes under one name and is served under another. The rules are those of Istio's
//! default (`pathNormalization: BASE`), which are RFC 3986's and a backslash taken as a slash:
//!
//! - escapes of unreserved characters (letters, digits, `-._~`) are decoded, once;
//! - `\` becomes `/`, and dot segments are resolved, also those that were escaped;
//! - escapes that stay (`%2F` and `%5C` among them) are in capitals, which Istio leaves as sent;
//! - a `%` that begins no escape stays, unless decoding what follows it would make it begin one;
//! - other bytes that no path may hold unescaped are escaped.
//!
//! Slashes in a row stay, as in Istio's default. A path with a zero byte or a fragment has no form.

use std::borrow::Cow;

/// The canonical form of a path without query and fragment. A path that is in it already, as nearly
/// every one is, costs one look at each byte and no copy. What does not begin with a slash is no path
/// (`*`, the `host:port` of CONNECT) and stays.
#[inline]
#[must_use]
pub fn canonical(path: &[u8]) -> Cow<'_, str> {
    if is_canonical(path)
        && let Ok(text) = str::from_utf8(path)
    {
        return Cow::Borrowed(text);
    }
    match path {
        [b'/', inner @ ..] => Cow::Owned(without_dot_segments(&escapes(inner))),
        _ => String::from_utf8_lossy(path),
    }
}

/// Why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It holds `%00`.
    ZeroByte,
    /// It has a `#`, which no client sends.
    Fragment,
}

impl Fault {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ZeroByte => "the path holds a zero byte (%00)",
            Self::Fragment => "the target has a fragment (#)",
        }
    }
}

/// What keeps a target's path from having a canonical form.
#[must_use]
pub fn fault(target: &str) -> Option<Fault> {
    if target.contains('#') {
        return Some(Fault::Fragment);
    }
    let path = target.split('?').next().unwrap_or_default();
    path.contains("%00").then_some(Fault::ZeroByte)
}

/// Text of a rule that paths are compared with: as written, but with its escapes in capitals and
/// escaped where no path may hold it bare. What canonical paths never hold, such as `/%61` and `/..`,
/// stays and is never met.
#[must_use]
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match escaped_byte(behind).filter(|_| byte == b'%') {
            Some((value, behind)) => {
                push_escape(&mut out, value);
                rest = behind;
            }
            None if byte == b'%' || byte == b'\\' => out.push(char::from(byte)),
            None if CLASS[usize::from(byte)].is_plain() => out.push(char::from(byte)),
            None => push_escape(&mut out, byte),
        }
    }
    out
}

/// A path that a rule made, as it can be sent: it begins with a slash, and what would end a request's
/// first line or the path in it is escaped. Otherwise it is as the rule wants it.
#[must_use]
pub fn sendable(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'#' => push_escape(&mut out, byte),
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => push_escape(&mut out, byte),
        }
    }
    out
}

/// A canonical path with its escapes in small letters; `None` if that is the same. Equivalent, and
/// what a regular expression was written for that spells them so.
#[must_use]
pub fn in_small_escapes(path: &str) -> Option<String> {
    let has_letters = |escape: &str| escape.bytes().take(2).any(|byte| byte.is_ascii_uppercase());
    if !path.split('%').skip(1).any(has_letters) {
        return None;
    }
    let mut small = path.to_owned();
    for (at, _) in path.match_indices('%') {
        if let Some(escape) = small.get_mut(at + 1..at + 3) {
            escape.make_ascii_lowercase();
        }
    }
    Some(small)
}

/// Is nothing to be done?
#[inline]
fn is_canonical(path: &[u8]) -> bool {
    let mut before = 0;
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        match CLASS[usize::from(byte)] {
            Class::Special if byte != b'%' => return false,
            Class::Special if !begins_with_canonical_escape(behind) && !is_stray(behind) => {
                return false;
            }
            _ if byte == b'.' && before == b'/' && begins_with_dot_segment(rest) => return false,
            _ => {}
        }
        before = byte;
        rest = behind;
    }
    true
}

/// Are these, behind a `%`, the digits of an escape that stays as it is?
fn begins_with_canonical_escape(rest: &[u8]) -> bool {
    let small = |digits: &[u8]| digits.iter().any(u8::is_ascii_lowercase);
    escaped_byte(rest).is_some_and(|(value, _)| {
        CLASS[usize::from(value)] != Class::Unreserved && !small(&rest[..2])
    })
}

/// Does a `%` before this begin no escape, now or once what follows is decoded?
fn is_stray(rest: &[u8]) -> bool {
    escaped_byte(rest).is_none() && !would_be_digits(rest)
}

/// Would the next two characters, decoded, be the digits of an escape?
fn would_be_digits(mut rest: &[u8]) -> bool {
    for _ in 0..2 {
        let Some((&first, behind)) = rest.split_first() else { return false };
        let (digit, behind) = match escaped_byte(behind).filter(|_| first == b'%') {
            Some((value, behind)) => (value, behind),
            None => (first, behind),
        };
        if !digit.is_ascii_hexdigit() {
            return false;
        }
        rest = behind;
    }
    true
}

/// Is the segment that begins here `.` or `..`?
fn begins_with_dot_segment(rest: &[u8]) -> bool {
    matches!(rest, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

/// The path with canonical escapes; all of it is ASCII.
fn escapes(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len() + 16);
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%'
            && let Some((value, behind)) = escaped_byte(rest)
        {
            rest = behind;
            if CLASS[usize::from(value)] == Class::Unreserved {
                out.push(char::from(value));
            } else {
                push_escape(&mut out, value);
            }
        } else if byte == b'%' {
            // Decoded once more by the service, `%%30%30` would be a zero byte.
            out.push_str(if would_be_digits(rest) { "%25" } else { "%" });
        } else if byte == b'\\' || CLASS[usize::from(byte)].is_plain() {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    out
}

/// The byte that two hexadecimal digits stand for, and what is behind them.
fn escaped_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, behind) = text.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some(((high? * 16 + low?) as u8, behind))
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Resolves `.` and `..` in what follows a path's first slash, as RFC 3986 §5.2.4 does; one `..` too
/// many stays at the root. Backslashes become slashes.
fn without_dot_segments(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len() + 1);
    let mut segments = inner.split(['/', '\\']).peekable();
    out.push('/');
    // What is written always ends with a slash here.
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => {
                let parent = out[..out.len() - 1].rfind('/').unwrap_or(0);
                out.truncate(parent + 1);
            }
            _ => {
                out.push_str(segment);
                if segments.peek().is_some() {
                    out.push('/');
                }
            }
        }
    }
    out
}

/// What a byte is in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The same with and without escape.
    Unreserved,
    /// Stays as it is, escaped or not.
    Reserved,
    /// Is changed, or, as the `%` of an escape, looked at.
    Special,
}

impl Class {
    fn is_plain(self) -> bool {
        self != Self::Special
    }
}

/// Reserved is what may stand in a path (RFC 3986 §3.3) and, as in Istio, brackets. `?` and `#` are
/// never in a path; in a rule's text they stay, and match nothing.
static CLASS: [Class; 256] = {
    let mut table = [Class::Special; 256];
    let mut byte = 0;
    while byte < 256 {
        let one = byte as u8;
        table[byte] = match one {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                Class::Unreserved
            }
            b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
            | b';' | b'=' | b'[' | b']' | b'?' | b'#' => Class::Reserved,
            _ => Class::Special,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
