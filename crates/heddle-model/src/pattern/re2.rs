//! RE2's syntax, written so that our compiler reads it the same way. One pass over the pattern: what RE2
//! does not take is refused, what the two read differently is written out.
//!
//! Classes of characters are in `class`; what is wrong in both syntaxes is left for the
//! compiler to say.

use super::{class, escape};

/// Most repetitions, of one operator and of those around it together.
const REPEAT_MAX: u32 = 1_000;

/// Rewrites a pattern.
///
/// # Errors
/// The reason why RE2 does not take it.
pub(super) fn rewrite(pattern: &str) -> Result<String, String> {
    let mut scan =
        Scan { written: String::with_capacity(pattern.len() + 8), groups: Vec::new(), last: None };
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '(' => scan.open(rest)?,
            ')' => scan.close(rest),
            '|' => scan.plain(rest, None),
            '*' | '+' | '?' => scan.repeat(rest, 1, 1)?,
            '{' => match counted(rest) {
                Some((len, times)) => scan.repeat(rest, len, times?)?,
                None => scan.literal('{', &rest[1..]),
            },
            '[' => {
                scan.last = Some(1);
                class::class(&rest[1..], &mut scan.written)?
            }
            '\\' => scan.escaped(rest)?,
            _ => scan.plain(rest, Some(1)),
        };
    }
    Ok(scan.written)
}

/// Flags of a group, each once: a later one counts. `None` if RE2 does not take them.
fn flags(text: &str) -> Option<String> {
    let (on, off) = text.split_once('-').map_or((text, None), |(on, off)| (on, Some(off)));
    let known = |flags: &str| flags.bytes().all(|flag| b"imsU".contains(&flag));
    if !known(on) || off.is_some_and(|off| off.is_empty() || !known(off)) {
        return None;
    }
    let off = off.unwrap_or_default();
    let once = |flags: &str| -> String { "imsU".chars().filter(|f| flags.contains(*f)).collect() };
    let on: String = once(on).chars().filter(|flag| !off.contains(*flag)).collect();
    Some(if off.is_empty() { on } else { format!("{on}-{}", once(off)) })
}

struct Scan {
    written: String,
    /// For each open group the most repetitions of what is in it so far.
    groups: Vec<u32>,
    /// Repetitions within what was read last, if an operator may repeat that.
    last: Option<u32>,
}

impl Scan {
    /// Takes one character as it is.
    fn plain<'a>(&mut self, rest: &'a str, repeatable: Option<u32>) -> &'a str {
        let end = rest.chars().next().map_or(0, char::len_utf8);
        self.written.push_str(&rest[..end]);
        self.last = repeatable;
        &rest[end..]
    }

    /// Takes a character that means only itself.
    fn literal<'a>(&mut self, character: char, behind: &'a str) -> &'a str {
        escape::push_literal(character, &mut self.written);
        self.last = Some(1);
        behind
    }

    fn open<'a>(&mut self, rest: &'a str) -> Result<&'a str, String> {
        let Some(special) = rest.strip_prefix("(?") else {
            self.groups.push(1);
            return Ok(self.plain(rest, None));
        };
        if let Some(named) = special.strip_prefix("P<").or_else(|| special.strip_prefix('<')) {
            let name = named.split('>').next().unwrap_or_default();
            let valid = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !valid {
                return Err("a group begins with `(?` and is none that RE2 knows".to_owned());
            }
            let Some(behind) = named[name.len()..].strip_prefix('>') else {
                return Err("the name of a group does not end".to_owned());
            };
            // Rules know groups by their numbers. Names that repeat, or begin with a digit, are fine.
            self.groups.push(1);
            self.last = None;
            self.written.push('(');
            return Ok(behind);
        }
        let end = special.find([':', ')']).unwrap_or(special.len());
        let Some(flags) = flags(&special[..end]) else {
            let shown: String = rest.chars().take(4).collect();
            return Err(format!("RE2 does not know `{shown}`: its flags are i, m, s and U"));
        };
        self.last = None;
        match special[end..].chars().next() {
            Some(')') if flags.is_empty() => {}
            Some(last) => {
                if last == ':' {
                    self.groups.push(1);
                }
                self.written.push_str("(?");
                self.written.push_str(&flags);
                self.written.push(last);
            }
            None => return Err("a group begins with `(?` and does not end".to_owned()),
        }
        Ok(special.get(end + 1..).unwrap_or_default())
    }

    fn close<'a>(&mut self, rest: &'a str) -> &'a str {
        let inner = self.groups.pop().unwrap_or(1);
        self.note(inner);
        self.plain(rest, Some(inner))
    }

    /// An operator of `len` bytes that repeats what was read last, and what makes it lazy.
    fn repeat<'a>(&mut self, rest: &'a str, len: usize, times: u32) -> Result<&'a str, String> {
        let operator = &rest[..len];
        let Some(inner) = self.last else {
            let before = self.written.chars().next_back();
            return Err(match before {
                Some('*' | '+' | '?' | '}') => {
                    format!("`{operator}` repeats a repetition: use a group, `(?:…){operator}`")
                }
                _ => format!("`{operator}` repeats nothing"),
            });
        };
        // Nothing at all is repeated no further.
        let all = if times == 0 { 1 } else { inner.saturating_mul(times) };
        if all > REPEAT_MAX {
            return Err(format!("it repeats more than {REPEAT_MAX} times, groups included"));
        }
        self.note(all);
        let len = if rest[len..].starts_with('?') { len + 1 } else { len };
        self.written.push_str(&rest[..len]);
        self.last = None;
        Ok(&rest[len..])
    }

    /// Something in the innermost open group repeats so often.
    fn note(&mut self, times: u32) {
        if let Some(most) = self.groups.last_mut() {
            *most = (*most).max(times);
        }
    }

    fn escaped<'a>(&mut self, rest: &'a str) -> Result<&'a str, String> {
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let end = quoted.find("\\E");
            for character in quoted[..end.unwrap_or(quoted.len())].chars() {
                self.literal(character, "");
            }
            return Ok(end.map_or("", |end| &quoted[end + 2..]));
        }
        let (meaning, behind) = escape::read(rest)?;
        meaning.push_outside(&mut self.written);
        self.last = Some(1);
        Ok(behind)
    }
}

/// `{n}`, `{n,}` or `{n,m}`: its length and how often that is at most. Anything else in braces means
/// itself.
fn counted(rest: &str) -> Option<(usize, Result<u32, String>)> {
    let inner = &rest[1..rest.find('}')?];
    let (least, most) = match inner.split_once(',') {
        None => (inner, Some(inner)),
        Some((least, "")) => (least, None),
        Some((least, most)) => (least, Some(most)),
    };
    let number = |text: &str| {
        let plain = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        plain.then(|| text.parse::<u32>().unwrap_or(u32::MAX))
    };
    let least = number(least)?;
    let times = match most {
        None => least,
        Some(most) => number(most)?,
    };
    let checked = if least.max(times) > REPEAT_MAX {
        Err(format!("`{{{inner}}}` repeats more than {REPEAT_MAX} times"))
    } else if times < least {
        Err(format!("`{{{inner}}}` ends before it begins"))
    } else {
        Ok(times)
    };
    Some((inner.len() + 2, checked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_read_differently_is_written_out() {
        for (pattern, expected) in [
            ("/items/{id}", r"/items/\{id}"),
            ("a{2}b{2,}c{2,3}?", "a{2}b{2,}c{2,3}?"),
            ("a{,3}", r"a\{,3}"),
            ("a{02}", r"a\{02}"),
            ("a{ 2 }", r"a\{ 2 }"),
            (r"\07", r"\x{7}"),
            (r"\0", r"\x{0}"),
            (r"\123", "S"),
            (r"\Qa.b*\E+", r"a\.b\*+"),
            (r"\Qa.b", r"a\.b"),
            (r"\<a\>", "<a>"),
            (r"\d\W", "[0-9][^0-9A-Za-z_]"),
            (r"\s", r"[\t\n\x0C\r ]"),
            (r"\ba\B", r"(?-u:\b)a(?-u:\B)"),
            (r"\pN\PL\p{Greek}\p{^Lu}", r"\p{gc=N}\P{gc=L}\p{sc=Greek}\P{gc=Lu}"),
            (r"(?i)a(?:b)(?P<n>c)(?<m>d)", r"(?i)a(?:b)(c)(d)"),
            (r"(?P<n>a)(?P<n>b)(?P<1a>c)", "(a)(b)(c)"),
            (r"(?)a(?ii)b(?si-mi:c)(?-ss)d", "a(?i)b(?s-im:c)(?-s)d"),
            (r"[\d\]x-z]", r"[0-9\]x-z]"),
            ("a|b*", "a|b*"),
        ] {
            assert_eq!(rewrite(pattern).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn what_re2_does_not_take_is_refused() {
        for pattern in [
            "a{1001}",
            "a{1,1001}",
            "a{3,2}",
            "(a{100}){11}",
            "((a{10}){10}){11}",
            "a**",
            "a?+",
            "a*{2}",
            "a{2}{3}",
            "a+?*",
            "*a",
            "(*a)",
            "a|*",
            "{2}",
            "(?x)a",
            "(?u:a)",
            "(?i-)a",
            "(?i-s-m)a",
            "(?P<n",
            "(?i",
            "(?R)",
            "(?=a)",
            "(?#a)",
            r"\1",
            r"\8",
            r"\Z",
            r"\u1234",
            r"\pX",
            r"\p{letter}",
            r"\C",
        ] {
            assert!(rewrite(pattern).is_err(), "{pattern}");
        }
        for pattern in ["(a{100}){10}", "a{1000}", "(a{0}){1000}", "(a*)*", "^*", "(?:a?)+"] {
            assert!(rewrite(pattern).is_ok(), "{pattern}");
        }
    }
}
