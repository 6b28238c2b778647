//! From the text of a query to its words.

use super::QueryError;

/// One word, with where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) word: Word,
    /// Byte in the text.
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    /// A name of anything, or a word of the language.
    Name(String),
    Number(f64),
    Text(String),
    /// Seconds.
    Duration(f64),
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 23] = [
    "=~", "!~", "!=", "==", "<=", ">=", "{", "}", "(", ")", "[", "]", ",", "=", "<", ">", "+", "-",
    "*", "/", "%", "^", ":",
];

/// Units of time with their seconds; `ms` before `m`.
const UNITS: [(&str, f64); 7] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
    ("y", 31_536_000.0),
];

/// Longest duration, seconds: what Prometheus counts in 63 bits of nanoseconds.
const DURATION_MAX: f64 = 9_223_372_036.0;

/// All words, the last of which is the end.
pub(super) fn words(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = skipped(rest);
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { word: Word::End, at });
            return Ok(tokens);
        };
        let second = rest[first.len_utf8()..].chars().next();
        let is_fraction = first == '.' && second.is_some_and(|next| next.is_ascii_digit());
        let (word, after) = match first {
            '"' | '\'' | '`' => quoted(rest, first, at)?,
            '0'..='9' => number(rest, at)?,
            '.' if is_fraction => number(rest, at)?,
            'a'..='z' | 'A'..='Z' | '_' => name(rest),
            // A metric may begin with a colon, as recording rules do; nothing else does here.
            ':' if second.is_some_and(|next| next.is_ascii_alphanumeric() || next == '_') => {
                name(rest)
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Word::Symbol(symbol), &rest[symbol.len()..]),
                None => return Err(bad(at, &format!("unexpected character `{first}`"))),
            },
        };
        tokens.push(Token { word, at });
        rest = after;
    }
}

/// A parse error at this byte.
pub(super) fn bad(at: usize, reason: &str) -> QueryError {
    QueryError::BadData(format!("parse error at char {}: {reason}", at + 1))
}

/// A duration such as `5m` or `1h30m`, seconds; `None` where it is none, or too long to be counted.
pub(crate) fn duration(text: &str) -> Option<f64> {
    let (seconds, rest) = duration_of(text)?;
    (rest.is_empty() && seconds <= DURATION_MAX).then_some(seconds)
}

fn skipped(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.find('\n').map_or("", |end| &comment[end..]),
            None => return rest,
        }
    }
}

fn name(rest: &str) -> (Word, &str) {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let end = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    (Word::Name(rest[..end].to_owned()), &rest[end..])
}

fn number(rest: &str, at: usize) -> Result<(Word, &str), QueryError> {
    if let Some((seconds, after)) = duration_of(rest) {
        if seconds > DURATION_MAX {
            return Err(bad(at, "duration out of range"));
        }
        return Ok((Word::Duration(seconds), after));
    }
    let bytes = rest.as_bytes();
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let digits = rest[2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        let value = u64::from_str_radix(&rest[2..2 + digits], 16);
        let value = value.map_err(|_| bad(at, "no number"))?;
        return Ok((Word::Number(value as f64), &rest[2 + digits..]));
    }
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        let exponent = matches!(byte, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
        if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || (end > 0 && exponent)) {
            break;
        }
        end += 1;
    }
    let value = rest[..end].parse().map_err(|_| bad(at, "no number"))?;
    Ok((Word::Number(value), &rest[end..]))
}

/// A duration at the beginning of a text, and what follows.
fn duration_of(text: &str) -> Option<(f64, &str)> {
    let (mut seconds, mut rest) = (0.0, text);
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            break;
        }
        let count: f64 = rest[..digits].parse().ok()?;
        let (unit, scale) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        seconds += count * scale;
        rest = &rest[digits + unit.len()..];
    }
    let ends = !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    (rest.len() < text.len() && ends).then_some((seconds, rest))
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Word, &str), QueryError> {
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((here, character)) = characters.next() {
        if character == quote {
            return Ok((Word::Text(value), &rest[here + 1..]));
        }
        if character != '\\' || quote == '`' {
            value.push(character);
            continue;
        }
        let unescaped = match characters.next().map(|(_, escaped)| escaped) {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(same @ ('\\' | '"' | '\'')) => same,
            _ => return Err(bad(at + here, "unknown escape in a string; write a `\\` as `\\\\`")),
        };
        value.push(unescaped);
    }
    Err(bad(at, "unterminated quoted string"))
}
