//! Does a process still do its work? A process id only says that it has not ended.
//!
//! Whoever keeps a process running asks over a socket it was started with, and the answer comes from
//! the runtime that does the process's work: one that is stopped, or stuck, gives none. Nobody else
//! can ask, and no load on the process's own sockets stands in the way.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    process::Command,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{clock, net, spawn::SpawnOptions, task};

/// Names the descriptor on which a process is asked.
const SOCKET_VARIABLE: &str = "HEDDLE_PULSE_FD";
/// A process that has answered before and does not for so long hangs.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A process that has just been started reads what it needs first.
pub const START_MAX: Duration = Duration::from_secs(30);
/// A silence is waited for in parts: whoever asks may itself not have run for a while, and that
/// counts as one part at most.
const PART: Duration = Duration::from_secs(2);
/// Pause between an answer and the next question.
const PAUSE: Duration = Duration::from_secs(1);

/// The asking end.
#[derive(Debug)]
pub struct Pulse(StdUnixStream);

impl Pulse {
    /// Has `command` be asked, once it is started with `options`.
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn of(options: &mut SpawnOptions, command: &mut Command) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let number = options.inherit(OwnedFd::from(theirs));
        command.env(SOCKET_VARIABLE, number.to_string());
        Ok(Self(ours))
    }

    /// Returns once the process does not answer: not within [`START_MAX`] of its start, or not for
    /// [`SILENCE_MAX`] later, also because it has closed its end.
    pub async fn stopped(self) {
        let Ok(mut stream) = UnixStream::from_std(self.0) else {
            // Without a descriptor for it nothing is known, and so nothing is claimed.
            return std::future::pending().await;
        };
        let mut limit = START_MAX;
        while answers(&mut stream, limit).await {
            limit = SILENCE_MAX;
            clock::sleep(PAUSE).await;
        }
    }
}

/// Asks once; `false` if nothing comes within `limit`.
async fn answers(stream: &mut UnixStream, limit: Duration) -> bool {
    // Only one question is ever under way, so there is room for it.
    let mut closed = stream.write_all(&[0]).await.is_err();
    let mut waited = Duration::ZERO;
    let mut answer = [0];
    while waited < limit {
        if closed {
            clock::sleep(PART).await;
        } else {
            match clock::within(PART, stream.read_exact(&mut answer)).await {
                Some(Ok(_)) => return true,
                // It has ended, as whoever waits for that will hear; or it has lost the socket.
                Some(Err(_)) => closed = true,
                None => {}
            }
        }
        waited += PART;
    }
    false
}

/// Answers whoever started this process, if that asks; on this thread's runtime (see
/// [`task::run_local`]), for ever. Call it before anything else opens descriptors.
pub fn answer() {
    answer_when(async || ());
}

/// As [`answer`], each time when `well` has returned: a process of several threads is well when all are.
pub fn answer_when(well: impl AsyncFnMut() + 'static) {
    let number = std::env::var(SOCKET_VARIABLE).ok().and_then(|text| text.parse().ok());
    let Some(number) = number else { return };
    let taken = net::inherited_fd(number).and_then(|fd| {
        let socket = StdUnixStream::from(fd);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    });
    match taken {
        Ok(stream) => drop(task::spawn_contained("pulse", answer_on(stream, well))),
        Err(error) => tracing::warn!(%error, number, "nobody can ask whether this process runs"),
    }
}

async fn answer_on(mut stream: UnixStream, mut well: impl AsyncFnMut()) {
    let mut question = [0];
    while stream.read_exact(&mut question).await.is_ok() {
        well().await;
        if stream.write_all(&question).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Pulse, UnixStream) {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("sets");
        theirs.set_nonblocking(true).expect("sets");
        (Pulse(ours), UnixStream::from_std(theirs).expect("registers"))
    }

    /// How long until the process counts as stopped.
    async fn silence(pulse: Pulse) -> Duration {
        let start = clock::now();
        pulse.stopped().await;
        clock::now() - start
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_never_answers_is_given_time_to_start() {
        let (pulse, _theirs) = pair();
        assert_eq!(silence(pulse).await, START_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answered_and_stops_is_noticed_after_ten_seconds() {
        let (pulse, mut theirs) = pair();
        let process = async {
            let mut question = [0];
            for _ in 0..3 {
                theirs.read_exact(&mut question).await.expect("is asked");
                clock::sleep(Duration::from_secs(9)).await;
                theirs.write_all(&question).await.expect("answers");
            }
            std::future::pending::<()>().await;
        };
        let took = tokio::select! {
            took = silence(pulse) => took,
            () = process => unreachable!("it hangs"),
        };
        assert_eq!(took, 3 * (Duration::from_secs(9) + PAUSE) + SILENCE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_closed_its_end_counts_as_stopped_and_one_that_answers_does_not() {
        let (pulse, theirs) = pair();
        drop(theirs);
        assert_eq!(silence(pulse).await, START_MAX);
        let (pulse, theirs) = pair();
        tokio::select! {
            () = pulse.stopped() => unreachable!("it answers"),
            () = answer_on(theirs, async || ()) => unreachable!("it is asked"),
            () = clock::sleep(Duration::from_secs(3600)) => {}
        }
    }
}
