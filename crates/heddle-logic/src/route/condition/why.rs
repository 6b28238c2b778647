//! Conditions in words for people, and the one that a request does not meet. It asks the same conditions that
//! requests meet, and decides nothing.

use heddle_model::pattern::Case;

use super::{Alternative, Condition, MatchInput, Source, Text, cookies, query_value, scheme};
use heddle_model::secret::{HIDDEN, is_secret};

/// Longest text of a rule or a request that is repeated, characters.
const TEXT_MAX: usize = 80;

impl Alternative {
    /// Its conditions, each in a few words; none where it matches everything.
    pub(in crate::route) fn words(&self) -> Vec<String> {
        self.0.iter().map(Condition::words).collect()
    }

    /// The first of its conditions that the request does not meet; `None` where it meets all.
    pub(in crate::route) fn miss(&self, input: &MatchInput<'_>) -> Option<String> {
        let missed = self.0.iter().find(|condition| !condition.holds(input))?;
        Some(missed.missed(input))
    }
}

impl Condition {
    fn words(&self) -> String {
        match self {
            Self::Method(text) => format!("method {}", is(text)),
            Self::Path(text) => format!("path {}", is(text)),
            Self::Scheme(text) => format!("scheme {}", is(text)),
            Self::Authority(text) => format!("authority {}", is(text)),
            Self::Header(source, None) => format!("{} is there", source.words()),
            Self::Header(source, Some(text)) => source.is(text),
            Self::NotHeader(source, None) => format!("{} is not there", source.words()),
            Self::NotHeader(source, Some(text)) => format!("not: {}", source.is(text)),
            Self::Query(name, text) => {
                let wanted = if is_secret(name) { hidden() } else { is(text) };
                format!("query parameter {} {wanted}", cut(name))
            }
        }
    }

    fn missed(&self, input: &MatchInput<'_>) -> String {
        let request = input.request;
        let differs = |what: &str, value: &str, text: &Text| {
            format!("{what} is {}; the rule asks that it {}", quoted(value), is(text))
        };
        match self {
            Self::Method(text) => differs("the method", request.method(), text),
            Self::Path(text) => differs("the path", input.path, text),
            Self::Scheme(text) => differs("the scheme", scheme(request), text),
            Self::Authority(text) => differs("the authority", request.authority(), text),
            Self::Header(source, wanted) => source.missed(input, wanted.as_ref()),
            Self::NotHeader(source, wanted) => {
                let held = source.held(input);
                let wanted = wanted.as_ref().map_or_else(
                    || "the rule asks that it is not there".to_owned(),
                    |text| {
                        format!("the rule is for requests where it does not: {}", source.is(text))
                    },
                );
                match held {
                    Some(value) => format!("{} is {value}; {wanted}", source.words()),
                    None => {
                        format!("{} is not there, which counts as empty; {wanted}", source.words())
                    }
                }
            }
            Self::Query(name, text) => {
                let what = format!("query parameter {}", cut(name));
                match query_value(request.target(), name) {
                    None => format!("{what} is not there"),
                    Some(_) if is_secret(name) => {
                        format!("{what} has another value than asked for")
                    }
                    Some(value) => differs(&what, value, text),
                }
            }
        }
    }
}

impl Source {
    /// Its name; a header's as rules and requests spell it.
    fn name(&self) -> &str {
        match self {
            Self::Method => "the method",
            Self::Target => "path and query",
            Self::Scheme => "the scheme",
            Self::Authority => "the authority",
            Self::Cookie => "cookie",
            Self::Header(name) => name,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Cookie | Self::Header(_) => format!("header {}", cut(self.name())),
            Self::Method | Self::Target | Self::Scheme | Self::Authority => self.name().to_owned(),
        }
    }

    fn is_secret(&self) -> bool {
        matches!(self, Self::Cookie | Self::Header(_)) && is_secret(self.name())
    }

    fn is(&self, text: &Text) -> String {
        let wanted = if self.is_secret() { hidden() } else { is(text) };
        format!("{} {wanted}", self.words())
    }

    /// Its value in the request, as it may be shown.
    fn held(&self, input: &MatchInput<'_>) -> Option<String> {
        let mut first = None;
        let _all = self.any(input, &mut |value| {
            first = Some(if self.is_secret() { HIDDEN.to_owned() } else { quoted(value) });
            true
        });
        first
    }

    fn missed(&self, input: &MatchInput<'_>, wanted: Option<&Text>) -> String {
        let there = match self {
            Self::Cookie => cookies(input.request).is_some(),
            _ => self.any(input, &mut |_| true),
        };
        match (there, wanted) {
            (false, None) => format!("{} is not there", self.words()),
            (false, Some(text)) => format!(
                "{} is not there; the rule asks that it {}",
                self.words(),
                if self.is_secret() { hidden() } else { is(text) }
            ),
            (true, _) if self.is_secret() => {
                format!("{} has another value than the rule asks for", self.words())
            }
            (true, text) => format!(
                "{} is {}; the rule asks that it {}",
                self.words(),
                self.held(input).unwrap_or_default(),
                text.map(is).unwrap_or_default()
            ),
        }
    }
}

/// What a text has to be.
fn is(text: &Text) -> String {
    let without = |case: &Case| match case {
        Case::Sensitive => "",
        Case::Ignored => " (without case)",
    };
    match text {
        Text::Exact(text, case) => format!("is {}{}", quoted(text), without(case)),
        Text::Prefix(text, _) if text.is_empty() => "is there".to_owned(),
        Text::Prefix(text, case) => format!("begins with {}{}", quoted(text), without(case)),
        Text::Pattern(pattern) => format!("matches the pattern {}", cut(pattern.as_str())),
    }
}

fn hidden() -> String {
    "has a value that is not shown".to_owned()
}

/// In quotation marks, with what is no printable character escaped.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

/// The same without the marks.
fn cut(text: &str) -> String {
    shortened(text).escape_debug().to_string()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heddle_model::discovery::{HeaderMatch, HttpMatch, Provenance, StringMatch};

    use crate::route::{Matcher, testing::Asked};

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    fn header(name: &str, wanted: HeaderMatch) -> HttpMatch {
        HttpMatch { headers: BTreeMap::from([(name.into(), wanted)]), ..HttpMatch::default() }
    }

    fn matcher(matches: &[HttpMatch]) -> Matcher {
        Matcher::of(matches, &Provenance::default()).unwrap()
    }

    #[test]
    fn the_first_condition_that_is_not_met_is_named_with_both_values() {
        let rule = matcher(&[HttpMatch {
            method: Some(exact("GET")),
            uri: Some(StringMatch::Prefix("/api".into())),
            ..HttpMatch::default()
        }]);
        assert_eq!(rule.words(), [vec!["method is \"GET\"", "path begins with \"/api\""]]);
        let told = rule.misses(&Asked::of("POST", "/other"));
        assert_eq!(told, ["the method is \"POST\"; the rule asks that it is \"GET\""]);
        let told = rule.misses(&Asked::get("/other?x=1"));
        assert_eq!(told, ["the path is \"/other\"; the rule asks that it begins with \"/api\""]);
        assert!(rule.misses(&Asked::get("/api/7")).is_empty());
    }

    #[test]
    fn every_alternative_has_a_miss_of_its_own() {
        let rule = matcher(&[
            header("end-user", HeaderMatch::Value(exact("jason"))),
            header("x-beta", HeaderMatch::Present),
        ]);
        let told = rule.misses(&Asked::get("/").with("end-user", "anna"));
        assert_eq!(
            told,
            [
                "header end-user is \"anna\"; the rule asks that it is \"jason\"",
                "header x-beta is not there"
            ]
        );
        assert!(rule.misses(&Asked::get("/").with("x-beta", "")).is_empty());
    }

    #[test]
    fn a_secret_is_told_neither_of_the_rule_nor_of_the_request() {
        let names = ["authorization", "cookie", "x-api-key", "x-user-token"];
        for name in names {
            let rule = matcher(&[header(name, HeaderMatch::Value(exact("of-the-rule")))]);
            for request in [Asked::get("/"), Asked::get("/").with(name, "of-the-request")] {
                let told = format!("{:?} {:?}", rule.words(), rule.misses(&request));
                assert!(!told.contains("of-the-"), "{told}");
                assert!(told.contains(name), "{told}");
            }
        }
    }

    #[test]
    fn what_a_client_sends_is_escaped_and_cut() {
        let rule = matcher(&[header("x-a", HeaderMatch::Value(exact("b")))]);
        let long = format!("\u{1b}[31m\n{}", "x".repeat(500));
        let told = rule.misses(&Asked::get("/").with("x-a", &long)).remove(0);
        assert!(told.starts_with("header x-a is \"\\u{1b}[31m\\n"), "{told}");
        assert!(told.len() < 200 && told.contains('…'), "{told}");
    }
}
