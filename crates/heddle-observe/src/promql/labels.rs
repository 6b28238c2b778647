//! Sets of labels, and what is asked of them.

use std::{borrow::Cow, sync::Arc};

use regex::{Regex, RegexBuilder};

use super::QueryError;

/// The label that holds a metric's name.
pub(crate) const NAME: &str = "__name__";
/// Bytes that a compiled regular expression may take, and again so many for what it remembers while it matches.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// A label with its value.
pub(crate) type Label = (Cow<'static, str>, Arc<str>);

/// Labels of one series, ascending by name; one with an empty value is as good as absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Labels(Vec<Label>);

impl Labels {
    /// These labels.
    pub(crate) fn new(mut labels: Vec<Label>) -> Self {
        labels.retain(|(_, value)| !value.is_empty());
        labels.sort();
        labels.dedup_by(|a, b| a.0 == b.0);
        Self(labels)
    }

    /// A label's value; empty where it is absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        match self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)) {
            Ok(at) => &self.0[at].1,
            Err(_) => "",
        }
    }

    /// Gives a label this value; an empty one takes it away.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.0.remove(at)),
            Ok(at) => self.0[at].1 = value.into(),
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (Cow::Owned(name.to_owned()), value.into())),
        }
    }

    /// Without the metric's name.
    pub(crate) fn nameless(&self) -> Self {
        self.filtered(|name| name != NAME)
    }

    /// Only these.
    pub(crate) fn only(&self, names: &[String]) -> Self {
        self.filtered(|name| names.iter().any(|one| one == name))
    }

    /// Without these and the metric's name.
    pub(crate) fn without(&self, names: &[String]) -> Self {
        self.filtered(|name| name != NAME && !names.iter().any(|one| one == name))
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// All of them, ascending by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// What a label is to be.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    pub(crate) name: String,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Is(String),
    IsNot(String),
    Like(Regex),
    Unlike(Regex),
}

impl Matcher {
    /// `operator` is `=`, `!=`, `=~` or `!~`.
    ///
    /// # Errors
    /// No regular expression.
    pub(crate) fn new(name: &str, operator: &str, value: &str) -> Result<Self, QueryError> {
        let how = match operator {
            "=" => How::Is(value.to_owned()),
            "!=" => How::IsNot(value.to_owned()),
            "=~" => How::Like(anchored(value)?),
            _ => How::Unlike(anchored(value)?),
        };
        Ok(Self { name: name.to_owned(), how })
    }

    /// The only value that matches, if there is one.
    pub(crate) fn equal(&self) -> Option<&str> {
        match &self.how {
            How::Is(value) => Some(value),
            _ => None,
        }
    }

    /// Does a label with this value match? An absent one is empty.
    pub(crate) fn matches(&self, value: &str) -> bool {
        match &self.how {
            How::Is(wanted) => value == wanted,
            How::IsNot(unwanted) => value != unwanted,
            How::Like(regex) => regex.is_match(value),
            How::Unlike(regex) => !regex.is_match(value),
        }
    }
}

/// A regular expression that is about the whole of a text.
pub(crate) fn anchored(text: &str) -> Result<Regex, QueryError> {
    let mut builder = RegexBuilder::new(&format!("^(?:{text})$"));
    let built = builder.size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| {
        let reason = match error {
            regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
            _ => "it is none of RE2's syntax".to_owned(),
        };
        QueryError::BadData(format!("parse error: regular expression `{text}`: {reason}"))
    })
}
