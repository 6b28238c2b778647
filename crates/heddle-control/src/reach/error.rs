//! Why something did not come about with a cluster.

use std::time::Duration;

/// Longest wait for one answer of the API server.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why the mesh of a cluster was not reached, or a rule not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ReachError {
    /// For people: what is wrong, and what to do.
    pub text: String,
    /// Another pod would not answer otherwise: it is the person, or the API server.
    pub is_final: bool,
}

impl ReachError {
    pub(super) fn last(text: String) -> Self {
        Self { text, is_final: true }
    }

    pub(super) fn passing(text: String) -> Self {
        Self { text, is_final: false }
    }
}
