//! Processes: told apart beyond the reuse of their numbers, found by network namespace, ended, and
//! their exit status in a shell's terms.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::ExitStatus,
    time::Duration,
};

use crate::{clock, ns::NsId, signal::Signal, sys};

/// Passes over /proc before a namespace whose processes multiply faster than they die is given up.
const KILL_PASSES_MAX: u32 = 50;
/// Time one process gets to end after SIGKILL before the next pass.
const KILL_TIME_MAX: Duration = Duration::from_secs(2);

/// A process that may have ended: names it even if its number is another's by now.
#[derive(Debug)]
pub struct Pidfd {
    pid: i32,
    fd: OwnedFd,
}

impl Pidfd {
    /// The process that has this number now.
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, fd: sys::process::pidfd_open(pid)? })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// ESRCH once it has ended, EPERM if it is another user's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        sys::process::pidfd_signal(self.fd.as_fd(), signal.number())
    }

    /// Blocks until it has ended or `limit` is over; true if it has ended. Only its parent may reap it.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait_ended(&self, limit: Duration) -> io::Result<bool> {
        let milliseconds = limit.as_millis().try_into().unwrap_or(i32::MAX);
        sys::process::wait_readable(self.fd.as_fd(), milliseconds)
    }

    /// Waits until it has ended. Only its parent may reap it.
    ///
    /// # Errors
    /// If the runtime cannot watch another descriptor.
    pub async fn ended(&self) -> io::Result<()> {
        let fd = sys::fd::watch_readable(self.fd.as_fd())?;
        fd.readable().await.map(drop)
    }
}

/// When a process started, in clock ticks since boot: with its number it names the process for as
/// long as the machine is up.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn start_time(pid: u32) -> io::Result<u64> {
    stat_field(pid, 22)?.parse().map_err(|_| malformed(pid))
}

/// A field of /proc/PID/stat, numbered from 1 as proc(5) does; from 3 on, since the second may hold
/// blanks and parentheses.
fn stat_field(pid: u32, number: usize) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = text.rsplit_once(')').ok_or_else(|| malformed(pid))?;
    let field = after_name.split_ascii_whitespace().nth(number - 3);
    field.map(str::to_owned).ok_or_else(|| malformed(pid))
}

fn malformed(pid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as expected"))
}

/// Processes whose main thread is in a network namespace, but for `except`. Those of other users are
/// not seen by who is not root.
///
/// # Errors
/// If /proc cannot be read.
pub fn in_netns(net: NsId, except: &[u32]) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if !except.contains(&pid) && is_in(pid, net) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// False too for a process that has just ended, and for another user's.
fn is_in(pid: u32, net: NsId) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|metadata| NsId::of_metadata(&metadata) == net)
}

/// Signals every process in a network namespace once, but for this one and `except`; returns those
/// that were signalled.
///
/// # Errors
/// If /proc cannot be read.
pub fn kill_netns(net: NsId, signal: Signal, except: &[u32]) -> io::Result<Vec<Pidfd>> {
    let own = std::process::id();
    let mut signalled = Vec::new();
    for pid in in_netns(net, except)? {
        let Ok(process) = Pidfd::open(pid) else { continue };
        // Looked up again now that the number cannot go to another process unnoticed.
        if pid != own && is_in(pid, net) && process.signal(signal).is_ok() {
            signalled.push(process);
        }
    }
    Ok(signalled)
}

/// Kills (SIGKILL) every process in a network namespace, those started meanwhile included, and waits
/// until they have ended; returns how many there were.
///
/// # Errors
/// `TimedOut` if processes are still there after 50 passes (they multiply, or hang in the kernel);
/// else as [`kill_netns`].
pub async fn end_netns(net: NsId, except: &[u32]) -> io::Result<usize> {
    let mut ended = 0;
    for _ in 0..KILL_PASSES_MAX {
        let signalled = kill_netns(net, Signal::KILL, except)?;
        if signalled.is_empty() {
            return Ok(ended);
        }
        let deadline = clock::now() + KILL_TIME_MAX;
        for process in &signalled {
            let left = deadline.saturating_duration_since(clock::now());
            if let Some(result) = clock::within(left, process.ended()).await {
                result?;
                ended += 1;
            }
        }
    }
    Err(still_there(net))
}

/// As [`end_netns`], for who has no runtime.
///
/// # Errors
/// As there.
pub fn end_netns_blocking(net: NsId, except: &[u32]) -> io::Result<usize> {
    let mut ended = 0;
    for _ in 0..KILL_PASSES_MAX {
        let signalled = kill_netns(net, Signal::KILL, except)?;
        if signalled.is_empty() {
            return Ok(ended);
        }
        let deadline = clock::now() + KILL_TIME_MAX;
        for process in &signalled {
            let left = deadline.saturating_duration_since(clock::now());
            ended += usize::from(process.wait_ended(left)?);
        }
    }
    Err(still_there(net))
}

fn still_there(net: NsId) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("processes in network namespace {} do not end", net.inode),
    )
}

/// The exit code a shell gives: the program's own, or 128 + n for death by signal n.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Makes orphaned descendants this process's children, so that they can be found and reaped.
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    sys::process::become_subreaper()
}

/// Collects children that have ended, but for `except` (those that somebody waits for); returns how
/// many. For a subreaper, whose adopted children nobody waits for.
///
/// # Errors
/// If /proc cannot be read.
pub fn reap_orphans(except: &[u32]) -> io::Result<usize> {
    let own = std::process::id().to_string();
    let mut reaped = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let ended = stat_field(pid, 3).is_ok_and(|state| state == "Z");
        if except.contains(&pid) || !ended || stat_field(pid, 4).ok().as_ref() != Some(&own) {
            continue;
        }
        let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
        reaped += usize::from(sys::process::reap_if_ended(pid).unwrap_or(false));
    }
    Ok(reaped)
}

/// Has this process get `signal` when the thread that started it ends.
///
/// # Errors
/// ESRCH if `parent` is not the parent any more.
pub fn die_with_parent(signal: Signal, parent: u32) -> io::Result<()> {
    sys::process::die_with_parent(signal.number(), parent)
}

/// Raises the limit of open files to what this process may have, and returns it. A sidecar needs two
/// per call in flight; the usual soft limit is 1024.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    sys::process::raise_open_files()
}

/// This very program, also if its file was replaced or lies where the user may not look.
pub fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Effective user and group id of this process.
pub fn effective_ids() -> (u32, u32) {
    sys::process::effective_ids()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_is_not_there_has_no_start_time() {
        assert!(start_time(std::process::id()).is_ok());
        assert_eq!(start_time(u32::MAX - 1).expect_err("none").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("starts");
        let process = Pidfd::open(child.id()).expect("opens");
        assert!(!process.wait_ended(Duration::ZERO).expect("polls"));
        process.signal(Signal::KILL).expect("signals");
        assert!(process.wait_ended(Duration::from_secs(60)).expect("polls"));
        child.wait().expect("reaps");
        let error = process.signal(Signal::KILL).expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn exit_codes_are_a_shells() {
        let run = |script| {
            let status = Command::new("sh").args(["-c", script]).status().expect("runs");
            exit_code(status)
        };
        assert_eq!(run("exit 7"), 7);
        assert_eq!(run("kill -TERM $$"), 128 + 15);
    }
}
