//! Processes under measurement: CPU time and resident memory from `/proc`, an end in any case.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::time::{now, pause};

/// Clock ticks per second of `/proc/PID/stat`: 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of all of a process's threads so far, seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuTime {
    /// In its own code; to a hundredth of a second.
    pub(super) user: f64,
    /// In its own code and in the kernel on its behalf, to the nanosecond where the kernel counts so.
    pub(super) total: f64,
}

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Guarded(pub(super) Child);

impl Guarded {
    /// Starts a command whose output is thrown away, its errors kept on the terminal.
    pub(super) fn start(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child.map(Self).map_err(|e| format!("{}: {e}", command.get_program().display()))
    }

    /// CPU time of all its threads so far. `ip netns exec` and `setpriv` become the program they
    /// start, so the child's own numbers are the program's.
    pub(super) fn cpu_time(&self) -> Result<CpuTime, String> {
        let path = format!("/proc/{}/stat", self.0.id());
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        // The name in parentheses may hold blanks: fields are counted after it.
        let rest = text.rsplit(')').next().unwrap_or("");
        let seconds = |n: usize| {
            let ticks = rest.split_whitespace().nth(n).and_then(|f| f.parse::<f64>().ok());
            ticks.map(|ticks| ticks / TICKS_PER_SECOND)
        };
        let (user, system) =
            seconds(11).zip(seconds(12)).ok_or_else(|| format!("{path}: no CPU times"))?;
        Ok(CpuTime { user, total: self.scheduled().unwrap_or(user + system) })
    }

    /// Seconds on a CPU of all threads as the scheduler counts them; `None` where it does not. A proxy
    /// under load ends no thread, so none is lost.
    fn scheduled(&self) -> Option<f64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).ok()?;
        let nanoseconds = threads.map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        });
        nanoseconds.sum::<Option<f64>>().map(|sum| sum / 1e9)
    }

    /// Resident memory, MB.
    pub(super) fn rss_mb(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.0.id());
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
        kb.map(|kb| kb / 1024.0).ok_or_else(|| format!("{path}: no VmRSS"))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Looks every 20 ms until `condition` holds.
///
/// # Errors
/// `what` did not come to pass within `limit`.
pub(super) fn wait_for(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), String> {
    let deadline = now() + limit;
    while !condition() {
        if now() > deadline {
            return Err(format!("{what}: not within {} s", limit.as_secs()));
        }
        pause(Duration::from_millis(20));
    }
    Ok(())
}
