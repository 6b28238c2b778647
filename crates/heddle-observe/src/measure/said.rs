//! What a sidecar itself said of a place: the labels that the other fields of a [`super::Cell`] cannot give back, so
//! that readers of Prometheus' interface find Istio's labels as they were.
//!
//! Only labels known by name are kept, so their number is bounded; values are cut like all names.

use crate::{exposition::Sample, limits};

/// Labels that are kept, in ascending order. Those by which one place has many series are not among them: an answer's
/// code is a number of its own ([`super::Answers`]), as its flags are, and so are bounds of buckets.
const KNOWN: [&str; 26] = [
    "connection_security_policy",
    "destination_app",
    "destination_canonical_revision",
    "destination_canonical_service",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_version",
    "destination_workload",
    "destination_workload_namespace",
    "direction",
    "fault",
    "reason",
    "reporter",
    "request_protocol",
    FLAGS,
    "source_app",
    "source_canonical_revision",
    "source_canonical_service",
    "source_cluster",
    "source_principal",
    "source_version",
    "source_workload",
    "source_workload_namespace",
];

/// Of connections they belong to the place, because a connection has no answer.
const FLAGS: &str = "response_flags";

/// Labels with their values, ascending by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Said(Box<[(&'static str, Box<str>)]>);

impl Said {
    /// What a sample of calls says.
    pub(super) fn of_calls(sample: &Sample<'_>) -> Self {
        let own = sample.labels.iter().filter(|(name, _)| *name != FLAGS);
        Self::from_pairs(own.map(|(name, value)| (*name, value.as_ref())))
    }

    /// What any other sample says.
    pub(super) fn of(sample: &Sample<'_>) -> Self {
        Self::from_pairs(sample.labels.iter().map(|(name, value)| (*name, value.as_ref())))
    }

    /// The labels among these that are known.
    pub(crate) fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let known = pairs.filter_map(|(name, value)| {
            let at = KNOWN.binary_search(&name).ok()?;
            Some((KNOWN[at], cut(value).into()))
        });
        let mut known: Vec<(&'static str, Box<str>)> = known.collect();
        known.sort();
        known.dedup_by_key(|(name, _)| *name);
        Self(known.into())
    }

    /// All of them, ascending by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }

    /// Is nothing known?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The text within [`limits::NAME_BYTES_MAX`].
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_labels_are_kept_and_in_order() {
        assert!(KNOWN.is_sorted());
        let pairs = [("source_app", "a"), ("pod", "x"), ("reporter", "source")];
        let said = Said::from_pairs(pairs.into_iter());
        let all: Vec<_> = said.iter().collect();
        assert_eq!(all, [("reporter", "source"), ("source_app", "a")]);
    }
}
