//! One alternative of a rule: conditions on a request, all of which must hold.

use std::borrow::Cow;

use heddle_model::{
    discovery::{HeaderMatch, HttpMatch, StringMatch},
    pattern::{Case, Pattern, PatternError},
};

mod why;

use super::view::RequestView;
use crate::path;

/// How much of a path a rule's condition took: what a rewrite replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// So many bytes of its beginning.
    Prefix(usize),
    /// All of it.
    Whole,
}

/// A request as conditions see it.
pub(super) struct MatchInput<'a> {
    pub(super) request: &'a dyn RequestView,
    /// The canonical path; empty where no condition reads it.
    pub(super) path: &'a str,
}

/// Conditions of one alternative; an empty list matches everything. Cheap ones come first.
#[derive(Debug, Clone)]
pub(super) struct Alternative(Vec<Condition>);

#[derive(Debug, Clone)]
enum Condition {
    Method(Text),
    Path(Text),
    Scheme(Text),
    Authority(Text),
    Header(Source, Option<Text>),
    /// Must not hold. An absent header counts as empty for a value condition, as in Istio.
    NotHeader(Source, Option<Text>),
    Query(String, Text),
}

/// By what an alternative is found among many: one of its conditions, so that a request which does not meet
/// that one does not meet the alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// The canonical path.
    Path(&'a str),
    /// The beginning of the canonical path.
    PathPrefix(&'a str),
    /// A line of this header.
    Header(&'a str, &'a str),
    /// It has to be looked at.
    None,
}

/// Where a header condition reads: pseudo-headers mean the request line.
#[derive(Debug, Clone)]
enum Source {
    Method,
    Target,
    Scheme,
    Authority,
    /// The one header whose lines are one value: a client may send each cookie on its own.
    Cookie,
    Header(String),
}

/// A condition on a text, built.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Exact(String, Case),
    Prefix(String, Case),
    Pattern(Pattern),
}

impl Alternative {
    pub(super) fn build(rule: &HttpMatch) -> Result<Self, PatternError> {
        let mut all = Vec::new();
        let plain =
            |text: &Option<StringMatch>| text.as_ref().map(|t| Text::build(t, Case::Sensitive));
        all.extend(plain(&rule.method).transpose()?.map(Condition::Method));
        if let Some(uri) = &rule.uri {
            // As in Istio: without case only for exact and prefix.
            let ignored = rule.ignore_uri_case && !matches!(uri, StringMatch::Regex(_));
            let case = if ignored { Case::Ignored } else { Case::Sensitive };
            all.push(Condition::Path(Text::build(&canonical(uri), case)?));
        }
        all.extend(plain(&rule.scheme).transpose()?.map(Condition::Scheme));
        all.extend(plain(&rule.authority).transpose()?.map(Condition::Authority));
        for (name, condition) in &rule.headers {
            all.push(Condition::Header(Source::of(name), value(condition)?));
        }
        for (name, condition) in &rule.without_headers {
            all.push(Condition::NotHeader(Source::of(name), value(condition)?));
        }
        for (name, condition) in &rule.query_params {
            all.push(Condition::Query(name.clone(), Text::build(condition, Case::Sensitive)?));
        }
        Ok(Self(all))
    }

    pub(super) fn matches(&self, input: &MatchInput<'_>) -> bool {
        self.0.iter().all(|condition| condition.holds(input))
    }

    /// What finds it. A path tells more than a header's value.
    pub(super) fn key(&self) -> Key<'_> {
        let by_path = self.0.iter().find_map(|condition| match condition {
            Condition::Path(Text::Exact(path, Case::Sensitive)) => Some(Key::Path(path)),
            Condition::Path(Text::Prefix(path, Case::Sensitive)) => Some(Key::PathPrefix(path)),
            _ => None,
        });
        let by_header = || {
            self.0.iter().find_map(|condition| match condition {
                Condition::Header(
                    Source::Header(name),
                    Some(Text::Exact(value, Case::Sensitive)),
                ) => Some(Key::Header(name, value)),
                _ => None,
            })
        };
        by_path.or_else(by_header).unwrap_or(Key::None)
    }

    /// How much of a path it takes.
    pub(super) fn reach(&self) -> Reach {
        let path = self.0.iter().find_map(|condition| match condition {
            Condition::Path(text) => Some(text),
            _ => None,
        });
        match path {
            Some(Text::Prefix(prefix, _)) => Reach::Prefix(prefix.len()),
            Some(Text::Exact(..) | Text::Pattern(_)) => Reach::Whole,
            None => Reach::Prefix(1),
        }
    }

    /// Does a condition look at the path?
    pub(super) fn reads_path(&self) -> bool {
        self.0.iter().any(|condition| match condition {
            Condition::Path(_) => true,
            Condition::Header(source, _) | Condition::NotHeader(source, _) => {
                matches!(source, Source::Target)
            }
            _ => false,
        })
    }
}

impl Condition {
    fn holds(&self, input: &MatchInput<'_>) -> bool {
        let request = input.request;
        match self {
            Self::Method(text) => text.matches(request.method()),
            Self::Path(text) => path_matches(text, input.path),
            Self::Scheme(text) => text.matches(scheme(request)),
            Self::Authority(text) => text.matches(request.authority()),
            Self::Header(source, None) => source.any(input, &mut |_| true),
            Self::Header(source, Some(text)) => source.any(input, &mut |value| text.matches(value)),
            Self::NotHeader(source, None) => !source.any(input, &mut |_| true),
            Self::NotHeader(source, Some(text)) => {
                let mut is_absent = true;
                let met = source.any(input, &mut |value| {
                    is_absent = false;
                    text.matches(value)
                });
                !(met || is_absent && text.matches(""))
            }
            Self::Query(name, text) => {
                query_value(request.target(), name).is_some_and(|value| text.matches(value))
            }
        }
    }
}

impl Source {
    fn of(name: &str) -> Self {
        match name {
            ":method" => Self::Method,
            ":path" => Self::Target,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            "cookie" => Self::Cookie,
            name => Self::Header(name.to_ascii_lowercase()),
        }
    }

    /// Does a value of it meet `test`?
    fn any(&self, input: &MatchInput<'_>, test: &mut dyn FnMut(&str) -> bool) -> bool {
        let request = input.request;
        match self {
            Self::Method => test(request.method()),
            Self::Target => test(&canonical_target(input)),
            Self::Scheme => test(scheme(request)),
            Self::Authority => test(request.authority()),
            Self::Cookie => cookies(request).is_some_and(|cookies| test(&cookies)),
            Self::Header(name) => request.any_header(name, test),
        }
    }
}

impl Text {
    pub(crate) fn build(text: &StringMatch, case: Case) -> Result<Self, PatternError> {
        Ok(match text {
            StringMatch::Exact(value) => Self::Exact(value.clone(), case),
            StringMatch::Prefix(value) => Self::Prefix(value.clone(), case),
            StringMatch::Regex(pattern) => Self::Pattern(Pattern::new(pattern, case)?),
        })
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text, Case::Sensitive) => text == value,
            Self::Exact(text, Case::Ignored) => text.eq_ignore_ascii_case(value),
            Self::Prefix(text, Case::Sensitive) => value.starts_with(text.as_str()),
            Self::Prefix(text, Case::Ignored) => value
                .as_bytes()
                .get(..text.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes())),
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

fn value(condition: &HeaderMatch) -> Result<Option<Text>, PatternError> {
    match condition {
        HeaderMatch::Present => Ok(None),
        HeaderMatch::Value(text) => Text::build(text, Case::Sensitive).map(Some),
    }
}

/// A path condition with its text in the spelling of canonical paths.
fn canonical(uri: &StringMatch) -> StringMatch {
    match uri {
        StringMatch::Exact(text) => StringMatch::Exact(path::literal(text)),
        StringMatch::Prefix(text) => StringMatch::Prefix(path::literal(text)),
        StringMatch::Regex(_) => uri.clone(),
    }
}

/// A regular expression may spell escapes in small letters, which are the same.
fn path_matches(text: &Text, path: &str) -> bool {
    text.matches(path)
        || matches!(text, Text::Pattern(_))
            && path::in_small_escapes(path).is_some_and(|path| text.matches(&path))
}

/// The canonical path and the query as sent.
fn canonical_target<'a>(input: &'a MatchInput<'_>) -> Cow<'a, str> {
    let target = without_fragment(input.request.target());
    let query = target.find('?').unwrap_or(target.len());
    if &target[..query] == input.path {
        return target.into();
    }
    Cow::Owned(format!("{}{}", input.path, &target[query..]))
}

/// The scheme that the client's own proxy saw, where one says so, as in Envoy.
fn scheme(request: &dyn RequestView) -> &str {
    let mut forwarded = None;
    let mut lines = 0;
    request.any_header("x-forwarded-proto", &mut |value| {
        lines += 1;
        forwarded = ["http", "https"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(value));
        false
    });
    forwarded.filter(|_| lines == 1).unwrap_or_else(|| request.scheme())
}

/// All cookies as one value; `None` if there is none.
fn cookies(request: &dyn RequestView) -> Option<String> {
    let mut all: Option<String> = None;
    request.any_header("cookie", &mut |value| {
        match &mut all {
            None => all = Some(value.to_owned()),
            Some(all) => {
                all.push_str("; ");
                all.push_str(value);
            }
        }
        false
    });
    all
}

pub(crate) fn without_fragment(target: &str) -> &str {
    target.split('#').next().unwrap_or_default()
}

/// The first query parameter of that name, as sent; empty for `?name`.
fn query_value<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = without_fragment(target).split_once('?')?;
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, value)| (key == name).then_some(value))
}
