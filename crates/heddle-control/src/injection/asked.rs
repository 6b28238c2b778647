//! What is asked about a pod beside the pod itself, and the answer that it cannot be.

use std::collections::BTreeMap;

/// Where a pod is to run.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The namespace's labels; `None` where they are not known: then whoever asks has chosen by them.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// The workload it belongs to, where that is known better than from the pod itself.
    pub workload: Option<&'a str>,
}

/// A pod that cannot be injected: what is wrong with it and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(String);

impl Rejected {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
