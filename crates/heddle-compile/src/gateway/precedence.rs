//! Which of several matches decides where a request meets more than one, as the Gateway API has it: the
//! more specific one, then the older route, then the earlier rule. Expressions are the API's blank; here
//! they go between exact paths and prefixes, the longer before the shorter.

use heddle_model::{
    discovery::{HttpMatch, StringMatch},
    resource::{MeshMatch, PathMatch},
};

/// How specific a match is; the greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Of a path: exact, by expression, by prefix.
    form: u8,
    /// Characters of it; of a gRPC call those of the service.
    length: usize,
    /// Characters of a gRPC call's method, or whether a method is asked for.
    method: usize,
    headers: usize,
    query: usize,
}

impl Rank {
    pub(super) fn of(one: &MeshMatch) -> Self {
        let chars = |text: &Option<StringMatch>| {
            text.as_ref().map_or(0, |text| match text {
                StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Regex(text) => {
                    text.chars().count()
                }
            })
        };
        let (form, length, method) = match &one.path {
            PathMatch::Exact(path) => (2, path.chars().count(), 0),
            PathMatch::Regex(pattern) => (1, pattern.chars().count(), 0),
            PathMatch::Elements(path) => (0, path.chars().count(), 0),
            PathMatch::Call { service, method } => (0, chars(service), chars(method)),
        };
        Self {
            form,
            length,
            method: method + usize::from(one.method.is_some()),
            headers: one.headers.len(),
            query: one.query_params.len(),
        }
    }
}

/// The paths that a condition takes, each with how it ends: one, or two where it is by elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All of the path.
    Whole,
    /// Its beginning, up to a slash and with it.
    UpToSlash,
}

/// A match as conditions on requests; several are alternatives.
pub(super) fn conditions(one: &MeshMatch) -> Vec<(HttpMatch, Taken)> {
    use heddle_model::discovery::HeaderMatch;
    let header =
        |(name, value): (&String, &StringMatch)| (name.clone(), HeaderMatch::Value(value.clone()));
    let base = HttpMatch {
        method: one.method.clone().map(StringMatch::Exact),
        headers: one.headers.iter().map(header).collect(),
        query_params: one.query_params.clone(),
        ..HttpMatch::default()
    };
    let with = |uri: StringMatch| HttpMatch { uri: Some(uri), ..base.clone() };
    match &one.path {
        PathMatch::Exact(path) => vec![(with(StringMatch::Exact(path.clone())), Taken::Whole)],
        PathMatch::Regex(pattern) => {
            vec![(with(StringMatch::Regex(pattern.clone())), Taken::Whole)]
        }
        // Every path begins with a slash.
        PathMatch::Elements(none) if none.is_empty() => vec![(base, Taken::UpToSlash)],
        PathMatch::Elements(path) => vec![
            (with(StringMatch::Exact(path.clone())), Taken::Whole),
            (with(StringMatch::Prefix(format!("{path}/"))), Taken::UpToSlash),
        ],
        PathMatch::Call { service, method } => {
            vec![(with(call(service.as_ref(), method.as_ref())), Taken::Whole)]
        }
    }
}

/// The path of a gRPC call: `/package.Service/Method`.
fn call(service: Option<&StringMatch>, method: Option<&StringMatch>) -> StringMatch {
    let plain = |text: &StringMatch| match text {
        StringMatch::Exact(text) => Some(text.trim_start_matches('.').to_owned()),
        _ => None,
    };
    match (service.map(plain), method.map(plain)) {
        (Some(Some(service)), Some(Some(method))) => {
            return StringMatch::Exact(format!("/{service}/{method}"));
        }
        (Some(Some(service)), None) => return StringMatch::Prefix(format!("/{service}/")),
        _ => {}
    }
    let pattern = |text: Option<&StringMatch>| match text {
        None => "[^/]+".to_owned(),
        Some(StringMatch::Regex(pattern)) => format!("(?:{pattern})"),
        Some(StringMatch::Exact(text) | StringMatch::Prefix(text)) => {
            text.trim_start_matches('.').replace('.', "\\.")
        }
    };
    StringMatch::Regex(format!("/{}/{}", pattern(service), pattern(method)))
}
