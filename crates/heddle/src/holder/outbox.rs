//! Answers on a holder connection: one frame at a time, from any number of tasks.

use std::{os::fd::BorrowedFd, time::Duration};

use heddle_runtime::{clock, fdpass::FdWriter};
use heddle_wire::local::holder_api::HolderReply;
use tokio::sync::{Mutex, Notify};

/// Longest time a peer may take to read one answer; a slower one is cut off.
const SEND_WAIT: Duration = Duration::from_secs(10);

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// `None` once a frame could not be sent whole.
    writer: Mutex<Option<FdWriter>>,
    broken: Notify,
}

impl Outbox {
    /// An outbox over `writer`.
    pub(crate) fn new(writer: FdWriter) -> Self {
        Self { writer: Mutex::new(Some(writer)), broken: Notify::new() }
    }

    /// Sends an answer with its descriptors. A peer that has gone or does not read breaks the
    /// connection; the session then ends, so there is nothing for the caller to do about it.
    pub(crate) async fn send(&self, reply: &HolderReply, fds: &[BorrowedFd<'_>]) {
        let text = match serde_json::to_vec(reply) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                return;
            }
        };
        let mut writer = self.writer.lock().await;
        let Some(open) = writer.as_ref() else { return };
        match clock::within(SEND_WAIT, open.send(&text, fds)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a peer has gone");
                *writer = None;
                self.broken.notify_one();
            }
            None => {
                tracing::warn!("a peer does not read its answers: its connection is closed");
                *writer = None;
                self.broken.notify_one();
            }
        }
    }

    /// A refusal of a request that has no id.
    pub(crate) async fn refuse(&self, reason: impl Into<String>) {
        self.send(&HolderReply::Refused { id: 0, reason: reason.into(), errno: 0 }, &[]).await;
    }

    /// A line for the user.
    pub(crate) async fn progress(&self, text: impl Into<String>) {
        self.send(&HolderReply::Progress { text: text.into() }, &[]).await;
    }

    /// Returns once an answer could not be sent.
    pub(crate) async fn broken(&self) {
        self.broken.notified().await;
    }
}
