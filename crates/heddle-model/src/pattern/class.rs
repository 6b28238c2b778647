//! Character classes as RE2 reads them, written so that our compiler reads them the same way.
//!
//! RE2 takes a bare `[` in a class for that character and knows no set operations; to our compiler
//! `[` begins a class in the class, and `&&`, `--` and `~~` mean and, without and either-or.

/// Classes with a name, as in `[[:alpha:]]`.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Rewrites the classes of a pattern. What is wrong with it is left for the compiler to say, except
/// where that would find it right.
///
/// # Errors
/// The reason.
pub(super) fn rewrite(pattern: &str) -> Result<String, String> {
    let mut rest = pattern;
    let mut written = String::with_capacity(pattern.len() + 8);
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '\\' => escape_end(rest),
            '[' => {
                rest = class(&rest[1..], &mut written)?;
                continue;
            }
            other => other.len_utf8(),
        };
        written.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(written)
}

/// Rewrites one class, of which the bracket has been read. Returns what follows it.
fn class<'a>(inside: &'a str, written: &mut String) -> Result<&'a str, String> {
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
        let is_set = ["\\d", "\\D", "\\s", "\\S", "\\w", "\\W", "\\p", "\\P"]
            .iter()
            .any(|set| rest.starts_with(set));
        rest = one(rest, written);
        let is_range = rest.starts_with('-') && rest.len() > 1 && !rest.starts_with("-]");
        if is_range && !is_set {
            written.push('-');
            rest = one(&rest[1..], written);
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

/// Writes one character of a class, so that it means only itself. Returns what follows it.
fn one<'a>(rest: &'a str, written: &mut String) -> &'a str {
    let Some(first) = rest.chars().next() else { return rest };
    let end = if first == '\\' { escape_end(rest) } else { first.len_utf8() };
    if matches!(first, '[' | ']' | '&' | '~' | '-' | '^') {
        written.push('\\');
    }
    written.push_str(&rest[..end]);
    &rest[end..]
}

/// Where the escape that a text begins with ends.
fn escape_end(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    let Some((at, letter)) = characters.next() else { return rest.len() };
    let end = at + letter.len_utf8();
    let braced = matches!(letter, 'p' | 'P' | 'x') && rest[end..].starts_with('{');
    match rest.find('}').filter(|_| braced) {
        Some(close) => close + 1,
        None => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_written_so_that_each_character_means_itself() {
        for (pattern, expected) in [
            ("a[b]c", "a[b]c"),
            (r"\[[^[]*", r"\[[^\[]*"),
            ("[]a]", r"[\]a]"),
            ("[^]a]", r"[^\]a]"),
            ("[a&&b]", r"[a\&\&b]"),
            ("[a~~b]", r"[a\~\~b]"),
            ("[a--]", r"[a-\-]"),
            ("[a-c--/]", r"[a-c\--/]"),
            ("[+--]", r"[+-\-]"),
            ("[a-]", r"[a\-]"),
            (r"[\w-z]", r"[\w\-z]"),
            (r"[\p{Greek}-z]", r"[\p{Greek}\-z]"),
            (r"[\]-a\x{41}]", r"[\]-a\x{41}]"),
            ("[[:alpha:][]", r"[[:alpha:]\[]"),
            ("[[:^digit:]]", "[[:^digit:]]"),
            ("[[:]", r"[\[:]"),
            ("[é-ü]", "[é-ü]"),
            ("[a", "[a"),
            (r"[a\", r"[a\"),
            ("a&&b--c", "a&&b--c"),
        ] {
            assert_eq!(rewrite(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        assert!(rewrite("[[:letters:]]").unwrap_err().contains("[:letters:]"));
    }
}
