//! Ctrl-C, SIGTERM and a closed terminal, as one event: the user wants this command to end.

use std::{fs, io};

use heddle_runtime::signal::{Signal, Signals};

/// Signals this process was started to ignore, by `nohup` or, as the background job of a script, by
/// its shell. A signal that is taken over comes even if it was to be ignored, so that wish is
/// looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ignored(u64);

impl Ignored {
    /// Those of this process.
    pub(crate) fn by_this_process() -> Self {
        Self::of_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn of_status(text: &str) -> Self {
        let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    /// Is it among them?
    pub(crate) fn has(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.number() - 1)) != 0
    }

    /// The rest of `signals`.
    pub(crate) fn but_for(self, signals: &[Signal]) -> Vec<Signal> {
        signals.iter().copied().filter(|signal| !self.has(*signal)).collect()
    }
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
        // An interrupt that is sent to one of these commands by name is meant, even in the
        // background; a terminal that goes away is not.
        if !Ignored::by_this_process().has(Signal::HANGUP) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_ignored_at_the_start_is_left_alone() {
        // As a script's shell starts a job with `&`: SIGINT and SIGQUIT.
        let job = Ignored::of_status("Name:\theddle\nSigIgn:\t0000000000000006\nSigCgt:\t0\n");
        let all = [Signal::HANGUP, Signal::INTERRUPT, Signal::QUIT, Signal::TERMINATE];
        assert_eq!(job.but_for(&all), [Signal::HANGUP, Signal::TERMINATE]);
        assert_eq!(Ignored::of_status("").but_for(&all), all);
    }
}
