//! A process the holder keeps running: control plane, dashboard, sidecars.
//!
//! It is started again when it ends, sooner or later depending on how often that happens, unless it
//! was told not to. One that does not answer any more is killed, which ends it. It is ended, and its
//! end awaited, when whatever it serves ends.

use std::{
    cell::{Cell, RefCell},
    fs::{File, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use heddle_runtime::{clock, process, pulse::Pulse, signal::Signal};
use heddle_wire::local::holder_api::Restarts;
use tokio::{
    process::Child,
    sync::{Notify, watch},
};

use crate::mesh::ProcessRecord;

/// Shortest pause before the restart of a process that ended soon.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Starts after which whoever waits for the first success gives up.
const STARTS_MAX: u64 = 3;
/// Pause between two looks at the number of starts.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A process that ran this long is started again at once: connections to a sidecar are refused
/// meanwhile.
const RAN_WELL: Duration = Duration::from_secs(10);

/// A command that runs this very binary, also when its file has been replaced since.
pub(crate) fn own_binary() -> Command {
    let mut command = Command::new(process::own_program());
    command.arg0("heddle");
    command
}

/// Sends the command's output to the end of the file at `log`.
///
/// # Errors
/// Where the file cannot be made.
pub(crate) fn log_to(command: &mut Command, log: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    command.stdin(Stdio::null()).stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file));
    Ok(())
}

/// A supervised process.
#[derive(Debug)]
pub(crate) struct Part {
    name: String,
    pid: Cell<u32>,
    restart: Cell<bool>,
    starts: Cell<u64>,
    unanswered: Cell<u64>,
    ends: RefCell<Option<Ends>>,
    wake: Notify,
}

/// Ends of its processes that nobody wished.
#[derive(Debug, Clone)]
struct Ends {
    /// When the first was, Unix time in seconds.
    since: u64,
    /// When the last was.
    last: u64,
    /// Why.
    reason: String,
}

impl Part {
    /// A part that is to run; `name` is for the log.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            pid: Cell::new(0),
            restart: Cell::new(true),
            starts: Cell::new(0),
            unanswered: Cell::new(0),
            ends: RefCell::new(None),
            wake: Notify::new(),
        }
    }

    /// Its process id; 0 while it does not run.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.get()
    }

    /// How often it was started again; `None` if never.
    pub(crate) fn restarts(&self) -> Option<Restarts> {
        let count = self.starts.get().saturating_sub(1);
        let (part, unanswered) = (self.name.clone(), self.unanswered.get());
        let ends = self.ends.borrow().clone();
        let (since, last, reason) =
            ends.map_or_else(Default::default, |ends| (ends.since, ends.last, ends.reason));
        let restarts = Restarts { part, count, unanswered, since, last, reason };
        (count > 0 || unanswered > 0).then_some(restarts)
    }

    /// Notes an end that nobody wished.
    fn ended(&self, reason: String) {
        let now = clock::unix_now().as_secs();
        let since = self.ends.borrow().as_ref().map_or(now, |ends| ends.since);
        self.ends.replace(Some(Ends { since, last: now, reason }));
    }

    /// Returns once it had to be started again too often to hope that it will ever stay.
    pub(crate) async fn keeps_ending(&self) {
        while self.starts.get() <= STARTS_MAX {
            clock::sleep(LOOK_PAUSE).await;
        }
    }

    /// Restart it when it ends, or not? Starts it at once if it is to run and does not.
    pub(crate) fn set_restart(&self, restart: bool) {
        self.restart.set(restart);
        self.wake.notify_one();
    }

    /// Keeps the process running until `ending` says otherwise (or its sender is gone), then ends
    /// it with SIGTERM, after `grace` with SIGKILL, and returns when it is gone. `started` runs
    /// beside each new process and is dropped when that ends; `record` receives its identity.
    pub(crate) async fn run(
        &self,
        mut ending: watch::Receiver<bool>,
        grace: Duration,
        record: &Path,
        mut start: impl FnMut() -> io::Result<(Child, Pulse)>,
        mut started: impl AsyncFnMut(),
    ) {
        let mut pause = Duration::ZERO;
        while !is_ending(&ending) {
            if !self.restart.get() {
                tokio::select! {
                    () = self.wake.notified() => continue,
                    _ = ending.changed() => continue,
                }
            }
            let began = clock::now();
            match start() {
                Ok((mut child, pulse)) => {
                    self.began(child.id().unwrap_or(0), record);
                    self.watch(&mut child, pulse, &mut ending, grace, &mut started).await;
                    self.pid.set(0);
                }
                Err(error) => {
                    tracing::error!(part = self.name, %error, "cannot be started");
                    self.ended(format!("it cannot be started: {error}"));
                }
            }
            if is_ending(&ending) {
                return;
            }
            pause = next_pause(pause, clock::now().duration_since(began));
            if self.restart.get() {
                tokio::select! {
                    () = clock::sleep(pause) => {}
                    () = self.wake.notified() => {}
                    _ = ending.changed() => {}
                }
            }
        }
    }

    fn began(&self, pid: u32, record: &Path) {
        self.pid.set(pid);
        self.starts.set(self.starts.get() + 1);
        tracing::info!(part = self.name, pid, "started");
        // Without the record a later start cannot end this process, should all of us be killed.
        let written = process::start_time(pid).and_then(|start_time| {
            let file = File::create(record)?;
            ProcessRecord { pid, start_time }.write(&file)
        });
        if let Err(error) = written {
            tracing::warn!(part = self.name, %error, "cannot record the process");
        }
    }

    async fn watch(
        &self,
        child: &mut Child,
        pulse: Pulse,
        ending: &mut watch::Receiver<bool>,
        grace: Duration,
        started: &mut impl AsyncFnMut(),
    ) {
        let mut killed = false;
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = self.stopped(pulse) => {
                tracing::error!(part = self.name, "does not answer any more: killed");
                self.unanswered.set(self.unanswered.get() + 1);
                killed = true;
                // Also one that is stopped or stuck ends by this.
                drop(child.start_kill());
                Some(child.wait().await)
            }
            () = async { started().await; std::future::pending().await } => None,
            _ = ending.wait_for(|ending| *ending) => None,
        };
        match ended {
            Some(Ok(status)) => {
                tracing::warn!(part = self.name, %status, "ended");
                self.ended(match killed {
                    true => "it did not answer any more and was killed".to_owned(),
                    false => format!("it ended ({status})"),
                });
            }
            Some(Err(error)) => {
                tracing::error!(part = self.name, %error, "cannot be waited for");
                self.ended(format!("it cannot be waited for: {error}"));
            }
            None => end(child, grace).await,
        }
    }

    /// Returns once the process does not answer and would be started again.
    async fn stopped(&self, pulse: Pulse) {
        pulse.stopped().await;
        while !self.restart.get() {
            clock::sleep(LOOK_PAUSE).await;
        }
    }
}

/// The pause before the next start of a process that `ran` so long, the one before being `last`.
fn next_pause(last: Duration, ran: Duration) -> Duration {
    if ran >= RAN_WELL { Duration::ZERO } else { (last * 2).clamp(PAUSE_MIN, PAUSE_MAX) }
}

async fn end(child: &mut Child, grace: Duration) {
    if let Some(pid) = child.id() {
        // It may have ended by itself just now.
        drop(Signal::TERMINATE.send(pid));
    }
    if clock::within(grace, child.wait()).await.is_none() {
        drop(child.kill().await);
    }
}

fn is_ending(ending: &watch::Receiver<bool>) -> bool {
    *ending.borrow() || ending.has_changed().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_well_is_started_at_once_and_what_keeps_ending_later_and_later() {
        let mut pause = next_pause(PAUSE_MAX, RAN_WELL);
        assert_eq!(pause, Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pause = next_pause(pause, Duration::from_millis(1));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
