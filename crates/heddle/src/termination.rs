//! Ctrl-C, SIGTERM and a closed terminal, as one event: the user wants this command to end.

use std::{fs, io};

use heddle_runtime::signal::{Signal, Signals};

/// Was this process started by `nohup` or the like? A signal that is taken over comes even if it was
/// to be ignored, so that wish is looked up.
pub(crate) fn hangup_is_ignored() -> bool {
    let bit = 1 << (Signal::HANGUP.number() - 1);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & bit != 0)
}

/// Signals that ask this process to end. They do nothing else any more once watched.
#[derive(Debug)]
pub(crate) struct Termination {
    signals: Signals,
}

impl Termination {
    /// Takes the signals over; call it once, inside the runtime, before anything is started.
    ///
    /// # Errors
    /// Where no more descriptors can be opened.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut signals = vec![Signal::INTERRUPT, Signal::TERMINATE];
        if !hangup_is_ignored() {
            signals.push(Signal::HANGUP);
        }
        Ok(Self { signals: Signals::redirect(&signals)? })
    }

    /// Returns when the process is asked to end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) {
        if let Err(error) = self.signals.next().await {
            // Without the signals there is still SIGKILL, which the holder notices.
            tracing::error!(%error, "signals cannot be read any more");
            std::future::pending::<()>().await;
        }
    }
}
