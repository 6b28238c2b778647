//! Every match of a pattern replaced, as RE2's `GlobalReplace` does it: `\0` to `\9` stand for groups
//! and `\\` for a backslash.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};

use super::{Case, PATTERN_BYTES_MAX, PatternError, compile, re2};

/// A pattern that is found anywhere, and what to put in its place.
#[derive(Debug, Clone)]
pub struct Replacement {
    regex: Regex,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Compiles `pattern`, and reads `substitution`.
    ///
    /// # Errors
    /// [`PatternError`] for a pattern that [`super::Pattern`] would refuse, and for a substitution with
    /// a backslash before anything but a backslash or the number of a group that is there.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, PatternError> {
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(pattern.len()));
        }
        let invalid = |reason| PatternError::Invalid { pattern: pattern.to_owned(), reason };
        let read = re2::rewrite(pattern).map_err(invalid)?;
        let regex = compile(&read, Case::Sensitive).map_err(invalid)?;
        let parts = parts(substitution, regex.captures_len()).map_err(|reason| {
            PatternError::Substitution { substitution: substitution.to_owned(), reason }
        })?;
        Ok(Self { regex, parts })
    }

    /// The text with every match replaced.
    #[must_use]
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let filled = |found: &Captures<'_>| {
            let mut filled = Vec::new();
            for part in &self.parts {
                match part {
                    Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                    // A group that took no part is empty.
                    Part::Group(group) => {
                        filled.extend_from_slice(
                            found.get(*group).map_or(&b""[..], |one| one.as_bytes()),
                        );
                    }
                }
            }
            filled
        };
        match self.regex.replace_all(text.as_bytes(), filled) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }
}

/// The error is the reason.
fn parts(substitution: &str, groups: usize) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut characters = substitution.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('\\') => text.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit as usize - '0' as usize;
                if group >= groups {
                    let there = groups - 1;
                    return Err(format!("it names group {group}, and the pattern has {there}"));
                }
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Group(group));
            }
            _ => return Err("behind a backslash comes a group's digit or a backslash".to_owned()),
        }
    }
    parts.push(Part::Text(text));
    parts.retain(|part| *part != Part::Text(String::new()));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, substitution: &str, text: &str) -> String {
        Replacement::new(pattern, substitution).unwrap().apply(text).into_owned()
    }

    #[test]
    fn every_match_is_replaced_and_groups_are_filled_in() {
        assert_eq!(
            replaced("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api"),
            "/v1/api/instance/foo"
        );
        assert_eq!(replaced("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(
            replaced("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz"),
            "/xxx/two/yyy/one/zzz"
        );
        assert_eq!(replaced("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
        assert_eq!(replaced("b", r"\\$1${1}\0", "abc"), r"a\$1${1}bc");
        assert_eq!(replaced("(x)|(y)", r"[\1\2]", "xyz"), "[x][y]z");
        assert_eq!(replaced("nothing", "x", "/a"), "/a");
    }

    #[test]
    fn a_substitution_that_names_no_group_is_refused() {
        for (pattern, substitution) in [("(a)", r"\2"), ("a", r"\1"), ("a", r"\x"), ("a", "\\")] {
            let error = Replacement::new(pattern, substitution).unwrap_err();
            assert!(matches!(error, PatternError::Substitution { .. }), "{error}");
        }
        assert_eq!(Replacement::new("", "x").unwrap_err(), PatternError::Empty);
    }
}
