//! One alternative of a rule: conditions on a request, all of which must hold.

use std::borrow::Cow;

use heddle_model::{
    discovery::{HeaderMatch, HttpMatch, StringMatch},
    pattern::{Case, Pattern, PatternError},
};

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

/// Where a header condition reads: pseudo-headers mean the request line.
#[derive(Debug, Clone)]
enum Source {
    Method,
    Target,
    Scheme,
    Authority,
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
        if let Some(authority) = &rule.authority {
            all.push(Condition::Authority(Text::build(authority, Case::Ignored)?));
        }
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
            Self::Scheme(text) => text.matches(request.scheme()),
            Self::Authority(text) => authority_matches(text, request.authority()),
            Self::Header(source, text) => match (source.read(input), text) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(value), Some(text)) => text.matches(&value),
            },
            Self::NotHeader(source, text) => match (source.read(input), text) {
                (present, None) => present.is_none(),
                (value, Some(text)) => !text.matches(value.as_deref().unwrap_or("")),
            },
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
            name => Self::Header(name.to_ascii_lowercase()),
        }
    }

    fn read<'a>(&self, input: &'a MatchInput<'_>) -> Option<Cow<'a, str>> {
        let request = input.request;
        match self {
            Self::Method => Some(request.method().into()),
            Self::Target => Some(canonical_target(input)),
            Self::Scheme => Some(request.scheme().into()),
            Self::Authority => Some(request.authority().into()),
            Self::Header(name) => request.header(name),
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

/// As sent, and, if that does not match, without its port.
fn authority_matches(text: &Text, authority: &str) -> bool {
    text.matches(authority) || without_port(authority).is_some_and(|host| text.matches(host))
}

/// The host of `host:port` or `[v6]:port`; `None` if there is no port.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    let numeric = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let whole = !host.contains(':') || host.ends_with(']');
    (numeric && whole).then_some(host)
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
