//! Character classes as RE2 reads them, written so that our compiler reads them the same way.
//!
//! RE2 takes a bare `[` in a class for that character and knows no set operations; to our compiler
//! `[` begins a class in the class, and `&&`, `--` and `~~` mean and, without and either-or.

use super::escape::{self, Escape};

/// Classes with a name, as in `[[:alpha:]]`.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Rewrites one class, of which the bracket has been read. Returns what follows it. What is wrong with
/// it is left for the compiler to say, except where that would find it right.
///
/// # Errors
/// The reason.
pub(super) fn class<'a>(inside: &'a str, written: &mut String) -> Result<&'a str, String> {
    let mut rest = inside;
    written.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        written.push('^');
        rest = after;
    }
    // A bracket that comes first is a character.
    let mut is_first = true;
    loop {
        if rest.is_empty() {
            return Ok(rest);
        }
        if let Some(after) = rest.strip_prefix(']').filter(|_| !is_first) {
            written.push(']');
            return Ok(after);
        }
        is_first = false;
        if let Some(end) = named_end(rest)? {
            written.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let is_set = one(&mut rest, written)?;
        let is_range = rest.starts_with('-') && rest.len() > 1 && !rest.starts_with("-]");
        if is_range && !is_set {
            written.push('-');
            rest = &rest[1..];
            one(&mut rest, written)?;
        }
    }
}

/// Where `[:name:]` ends, if the class goes on with one.
fn named_end(rest: &str) -> Result<Option<usize>, String> {
    let Some(after) = rest.strip_prefix("[:") else { return Ok(None) };
    let Some(length) = after.find(":]") else { return Ok(None) };
    let name = &after[..length];
    if NAMED.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Ok(Some("[:".len() + length + ":]".len()));
    }
    Err(format!("`[:{name}:]` is no class of characters: use e.g. `[:alpha:]`"))
}

/// Writes one character of a class, so that it means only itself, or one set. Returns whether it was a
/// set.
fn one(rest: &mut &str, written: &mut String) -> Result<bool, String> {
    let Some(first) = rest.chars().next() else { return Ok(false) };
    if first == '\\' {
        let (escape, behind) = escape::read(rest)?;
        if matches!(escape, Escape::Place(_)) {
            return Err(format!("a place such as `{}` is no character of a class", &rest[..2]));
        }
        escape.push_in_class(written);
        *rest = behind;
        return Ok(matches!(escape, Escape::Set(_) | Escape::Unicode { .. }));
    }
    if matches!(first, '[' | ']' | '&' | '~' | '-' | '^') {
        written.push('\\');
    }
    written.push(first);
    *rest = &rest[first.len_utf8()..];
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(pattern: &str) -> Result<String, String> {
        let mut written = String::new();
        let rest = class(pattern.strip_prefix('[').unwrap(), &mut written)?;
        Ok(written + rest)
    }

    #[test]
    fn a_class_is_written_so_that_each_character_means_itself() {
        for (pattern, expected) in [
            ("[b]c", "[b]c"),
            (r"[^[]*", r"[^\[]*"),
            ("[]a]", r"[\]a]"),
            ("[^]a]", r"[^\]a]"),
            ("[a&&b]", r"[a\&\&b]"),
            ("[a~~b]", r"[a\~\~b]"),
            ("[a--]", r"[a-\-]"),
            ("[a-c--/]", r"[a-c\--/]"),
            ("[+--]", r"[+-\-]"),
            ("[a-]", r"[a\-]"),
            (r"[\w-z]", r"[0-9A-Za-z_\-z]"),
            (r"[\W]", r"[[^0-9A-Za-z_]]"),
            (r"[\p{Greek}-z]", r"[\p{sc=Greek}\-z]"),
            (r"[\]-a\x{41}]", r"[\]-aA]"),
            (r"[\07-\017]", r"[\x{7}-\x{f}]"),
            ("[[:alpha:][]", r"[[:alpha:]\[]"),
            ("[[:^digit:]]", "[[:^digit:]]"),
            ("[[:]", r"[\[:]"),
            ("[é-ü]", "[é-ü]"),
            ("[a", "[a"),
        ] {
            assert_eq!(rewrite(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        assert!(rewrite("[[:letters:]]").unwrap_err().contains("[:letters:]"));
        assert!(rewrite(r"[\b]").is_err());
    }
}
