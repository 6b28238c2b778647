//! Response heads that break the grammar and yet have one reading only, put in order. Of requests nothing
//! is read so: their sender may want two readings.
//!
//! - a line that ends with LF alone: CR LF (RFC 9112 §2.2); the only one that makes a head longer;
//! - several blanks behind the version: one;
//! - blanks before the colon of a field: none (RFC 9112 §5.1);
//! - a field continued on the next line: on one line (RFC 9112 §5.2).

use super::{
    HeadError,
    fields::is_blank,
    head::{parse_version, token_len},
};

/// Can [`normalise`] help a head that begins with `buf` and was refused for `error`?
pub(super) fn may_normalise(error: HeadError, buf: &[u8]) -> bool {
    match error {
        HeadError::LineFolding | HeadError::SpaceBeforeColon => true,
        HeadError::BadStartLine | HeadError::BadStatus => blanks_behind_version(buf) > 1,
        // Whatever else speaks in lines is told at once, since its head would never end.
        HeadError::LoneLf(_) => buf.get(..8).is_some_and(|version| parse_version(version).is_ok()),
        _ => false,
    }
}

/// Bytes up to the end of the empty line behind a head, whichever way its lines end; `from` is a place
/// before which there is none.
pub(super) fn whole(buf: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &buf[from..]).find_map(|at| match &buf[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// The same head with every line ended by CR LF; `None` if that is so.
pub(super) fn with_line_ends(head: &[u8]) -> Option<Vec<u8>> {
    let lone = |at: &usize| *at == 0 || head[at - 1] != b'\r';
    let mut from = 0;
    let mut out = Vec::new();
    for at in memchr::memchr_iter(b'\n', head).filter(lone) {
        out.extend_from_slice(&head[from..at]);
        out.push(b'\r');
        from = at;
    }
    (from > 0).then(|| {
        out.extend_from_slice(&head[from..]);
        out
    })
}

/// Puts in order a status line and its fields, each line with its CR LF. Nothing of them moves.
pub(super) fn normalise(head: &mut [u8]) {
    let mut start = 0;
    let mut before: Option<usize> = None;
    while let Some(end) = memchr::memmem::find(&head[start..], b"\r\n").map(|at| start + at) {
        match before {
            None => one_blank_behind_version(&mut head[start..end]),
            // The status line is nothing that could go on.
            Some(line_end) if line_end > 0 && head.get(start).copied().is_some_and(is_blank) => {
                head[line_end..start].fill(b' ');
            }
            Some(_) => colon_behind_name(&mut head[start..end]),
        }
        before = Some(if before.is_none() { 0 } else { end });
        start = end + 2;
    }
}

fn blanks_behind_version(line: &[u8]) -> usize {
    match line.split_at_checked(8) {
        Some((version, rest)) if parse_version(version).is_ok() => {
            rest.iter().take_while(|byte| **byte == b' ').count()
        }
        _ => 0,
    }
}

/// The others go behind the reason, where blanks are part of it.
fn one_blank_behind_version(line: &mut [u8]) {
    let blanks = blanks_behind_version(line);
    if blanks > 1 {
        line[9..].rotate_left(blanks - 1);
    }
}

/// The blanks go behind the colon, where they mean nothing.
fn colon_behind_name(line: &mut [u8]) {
    let name = token_len(line);
    let blanks = line[name..].iter().take_while(|byte| is_blank(**byte)).count();
    if name > 0 && line.get(name + blanks) == Some(&b':') {
        line[name..=name + blanks].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends_as_the_grammar_has_it() {
        for (from, to) in [
            ("HTTP/1.1 200\nA: b\n\n", Some("HTTP/1.1 200\r\nA: b\r\n\r\n")),
            ("HTTP/1.1 200\r\nA: b\n\r\n", Some("HTTP/1.1 200\r\nA: b\r\n\r\n")),
            ("HTTP/1.1 200\r\nA: b\r\n\n", Some("HTTP/1.1 200\r\nA: b\r\n\r\n")),
            ("HTTP/1.1 200\nA: \rb\n\n", Some("HTTP/1.1 200\r\nA: \rb\r\n\r\n")),
            ("HTTP/1.1 200\r\nA: b\r\n\r\n", None),
        ] {
            let head = format!("{from}body\n\n");
            assert_eq!(whole(head.as_bytes(), 0), Some(from.len()));
            let ends = with_line_ends(from.as_bytes());
            assert_eq!(
                ends.map(|head| String::from_utf8(head).unwrap()).as_deref(),
                to,
                "{from:?}"
            );
        }
        assert_eq!(whole(b"HTTP/1.1 200\r\nA: b\r\n\r", 0), None);
    }

    #[test]
    fn what_is_put_in_order_keeps_its_length_and_its_values() {
        for (from, to) in [
            ("HTTP/1.1   200 OK\r\nA: b\r\n", "HTTP/1.1 200 OK  \r\nA: b\r\n"),
            ("HTTP/1.1  204\r\n", "HTTP/1.1 204 \r\n"),
            ("HTTP/1.0 200\r\nA \t: b\r\nC :d\r\n", "HTTP/1.0 200\r\nA: \t b\r\nC: d\r\n"),
            ("HTTP/1.1 200\r\nA: b,\r\n\tc,\r\n  d\r\n", "HTTP/1.1 200\r\nA: b,  \tc,    d\r\n"),
            ("HTTP/1.1 200\r\n folded\r\n", "HTTP/1.1 200\r\n folded\r\n"),
            ("HTTP/1.1 200\r\n: x\r\nno colon\r\n", "HTTP/1.1 200\r\n: x\r\nno colon\r\n"),
        ] {
            let mut head = from.as_bytes().to_vec();
            normalise(&mut head);
            assert_eq!(head.escape_ascii().to_string(), to.as_bytes().escape_ascii().to_string());
        }
    }
}
