//! Response heads that break the grammar and yet have one reading only, put in order in place: nothing of
//! them moves, so no length changes. Of requests nothing is read so: their sender may want two readings.
//!
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
        _ => false,
    }
}

/// Puts in order a status line and its fields, each line with its CR LF.
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
