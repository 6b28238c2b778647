//! Regular expressions as rules use them: RE2 syntax, the whole value must match, linear time.
//!
//! The one place that compiles them: what `apply` accepts here is what a proxy builds, so an
//! accepted rule always loads. Not a general regex wrapper: only yes-or-no on one value, and
//! [`Replacement`] for the one place where rules rewrite by pattern.

use regex::bytes::{Regex, RegexBuilder};

mod class;
mod escape;
mod re2;
mod replace;

pub use replace::Replacement;

/// Longest pattern in bytes, as in Istio.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Largest compiled program in bytes. RE2 bounds repetition in a similar way.
const PROGRAM_BYTES_MAX: usize = 2 << 20;
/// Cache of the lazily built automaton, per pattern and thread, in bytes. Small, because a sidecar
/// holds many patterns; overflowing it costs speed, never correctness.
const CACHE_BYTES_MAX: usize = 256 << 10;
/// Deepest nesting of groups.
const NESTING_MAX: u32 = 100;

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An empty pattern would match only the empty value, which nobody means.
    #[error("the regex is empty: leave the condition out, or write `.*` for any value")]
    Empty,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("the regex has {0} bytes, more than the {PATTERN_BYTES_MAX} allowed")]
    TooLong(usize),
    /// Not RE2 syntax, or too large a program.
    #[error("`{pattern}` is no valid regex (RE2 syntax): {reason}")]
    Invalid {
        /// The pattern as written.
        pattern: String,
        /// What the compiler says, in one line.
        reason: String,
    },
    /// What is to stand in the place of matches cannot be read.
    #[error("`{substitution}` is no text to put in place of a match: {reason}")]
    Substitution {
        /// As written.
        substitution: String,
        /// What is wrong.
        reason: String,
    },
}

/// Is upper case different from lower case?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// `A` is not `a`.
    #[default]
    Sensitive,
    /// `A` is `a`.
    Ignored,
}

/// A compiled pattern that must match a whole value.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles `pattern`.
    ///
    /// `\d`, `\w`, `\s` and `\b` are ASCII, as in RE2; everything else is of whole characters.
    ///
    /// # Errors
    /// [`PatternError`] if the pattern is empty, too long, not RE2 syntax or too large.
    pub fn new(pattern: &str, case: Case) -> Result<Self, PatternError> {
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(pattern.len()));
        }
        let invalid = |reason| PatternError::Invalid { pattern: pattern.to_owned(), reason };
        let read = re2::rewrite(pattern).map_err(invalid)?;
        // Alone first: `a)|(b` must not become valid by the group around it.
        compile(&read, case).map_err(invalid)?;
        compile(&format!(r"\A(?:{read})\z"), case).map(Self).map_err(invalid)
    }

    /// As it is matched: in the syntax that RE2's was read into.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let whole = self.0.as_str();
        let inner = whole.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z"));
        inner.unwrap_or(whole)
    }

    /// Does the whole value match?
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        self.0.is_match(value.as_bytes())
    }
}

/// The error is the reason.
fn compile(pattern: &str, case: Case) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(case == Case::Ignored)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| one_line(&error))
}

/// The last line of the compiler's message says what is wrong; the lines before it are a drawing.
fn one_line(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            "it repeats too much and would need too much memory".to_owned()
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or("not understood").trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern, Case::Sensitive).unwrap().matches(value)
    }

    #[test]
    fn a_pattern_matches_the_whole_value_or_not_at_all() {
        assert!(matches("a|bc", "bc"));
        assert!(!matches("a|bc", "abc"));
        assert!(!matches("/reviews", "/reviews/7"));
        assert!(matches(r"/reviews/\d+", "/reviews/7"));
        assert!(!matches(r"a", "a\n"));
        assert!(matches(r"^(.*?;)?(user=jason)(;.*)?$", "a=b;user=jason;c=d"));
    }

    #[test]
    fn character_classes_are_ascii_unless_the_pattern_needs_unicode() {
        assert!(!matches(r"\d", "٣"));
        assert!(matches(r"[é]", "é"));
        assert!(matches("caf.", "café") && !matches("caf..", "café"), "a character is one");
        assert!(!matches(r"\w+é", "éé") && matches(r"\w+é", "eé"));
        assert!(matches(r"/\p{L}+", "/größe") && !matches(r"/\p{L}+", "/a1"));
        assert!(matches(r"[\p{Greek}]+", "λόγος") && !matches(r"[\p{Greek}]+", "logos"));
        assert!(matches(r"\p{^L}\PL\pN", "1!2"));
    }

    #[test]
    fn braces_quotes_and_octal_numbers_are_those_of_re2() {
        assert!(matches("/items/{id}", "/items/{id}"));
        assert!(matches(r"/\Qa.b\E", "/a.b") && !matches(r"/\Qa.b\E", "/axb"));
        assert!(matches(r"/a\07", "/a\x07"));
        assert!(matches(r"\<a\>", "<a>"));
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["a{1001}", "a**", "a?+", "(?x)/a b", r"(a)\1", r"\p{Alphabetic}"] {
            assert!(Pattern::new(pattern, Case::Sensitive).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_class_has_no_classes_and_no_set_operations_in_it() {
        assert!(matches(r"a[^[]*", "abc") && !matches(r"a[^[]*", "a["));
        assert!(matches("[a-z&&c]+", "a&z"), "both and the sign itself");
        assert!(matches("[a-z--c]+", "zc") && matches("[a-z~~c]+", "~c"));
        assert!(matches("[[:digit:]]+", "12") && matches(r"[\w-]+", "a-b"));
    }

    #[test]
    fn case_is_ignored_only_when_asked() {
        assert!(!matches("abc", "ABC"));
        assert!(Pattern::new("abc", Case::Ignored).unwrap().matches("aBc"));
    }

    #[test]
    fn bad_patterns_are_refused_with_a_reason_in_one_line() {
        for pattern in [
            "(",
            "a)|(b",
            "*",
            "(?x)a #",
            "((a{1000}){1000}){1000}",
            r"(?=a)",
            "[[:x:]]",
            "[a",
            r"a\",
        ] {
            let error = Pattern::new(pattern, Case::Sensitive).unwrap_err();
            let PatternError::Invalid { pattern: named, reason } = error else {
                panic!("{pattern}: {error}");
            };
            assert_eq!(named, pattern);
            assert!(!reason.contains('\n') && !reason.is_empty(), "{reason}");
        }
        assert_eq!(Pattern::new("", Case::Sensitive).unwrap_err(), PatternError::Empty);
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        assert_eq!(Pattern::new(&long, Case::Sensitive).unwrap_err(), PatternError::TooLong(1025));
    }
}
