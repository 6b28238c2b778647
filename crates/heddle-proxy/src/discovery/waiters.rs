//! Look-ups that wait for the control plane, by what they ask.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    lookup::{LookupError, Question},
    snapshot::Snapshot,
};

/// Look-ups waiting for an answer; more are told at once that the control plane did not answer.
pub const WAITERS_MAX: usize = 8192;

/// What a look-up is told.
pub(super) type Told = Result<Arc<Snapshot>, LookupError>;
/// The way back to one look-up.
pub(super) type Answer = oneshot::Sender<Told>;

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Waiters(BTreeMap<Question, Vec<Answer>>);

impl Waiters {
    /// Is there no room for another?
    pub(super) fn is_full(&self) -> bool {
        self.0.values().map(Vec::len).sum::<usize>() >= WAITERS_MAX
    }

    pub(super) fn add(&mut self, question: Question, answer: Answer) {
        self.0.entry(question).or_default().push(answer);
    }

    /// Tells each what `tell` says about its question; keeps those it says nothing about.
    pub(super) fn tell(&mut self, mut tell: impl FnMut(&Question) -> Option<Told>) {
        for (question, answers) in std::mem::take(&mut self.0) {
            match tell(&question) {
                None => {
                    self.0.insert(question, answers);
                }
                Some(told) => {
                    for answer in answers {
                        let _asker_may_be_gone = answer.send(told.clone());
                    }
                }
            }
        }
    }

    /// Forgets who gave up.
    pub(super) fn prune(&mut self) {
        self.0.retain(|_, answers| {
            answers.retain(|answer| !answer.is_closed());
            !answers.is_empty()
        });
    }
}
