//! One program's life: it waits for others, starts, is ready, ends, is started again or not, and is ended.

use std::{
    io,
    process::{ExitStatus, Stdio},
    rc::Rc,
    time::Duration,
};

use heddle_runtime::{clock, signal::Signal, spawn::SpawnOptions, task};
use tokio::{
    process::Child,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    log::Log,
    plan::{Plan, Planned, Ready, Restart},
    views::Views,
};
use crate::{
    failure::{Doing as _, Failure},
    holder::part,
    mesh::{MeshPaths, RUNTIME_DIR_VARIABLE},
    output,
    run::descendants,
    up::started::log_tail,
};

/// Starts of a program that has never been ready, after which it is given up.
const STARTS_MAX: u32 = 3;
/// Longest wait for the last lines of a program whose process has ended: a child of its may still write.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for a `run` whose program was killed.
const AFTER_KILL_WAIT: Duration = Duration::from_secs(5);

/// How far a program has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing runs, and nothing will.
    Declared,
    /// It waits for others, or is starting.
    Waiting,
    /// Others may use it.
    Ready,
    /// It has ended, well or not, and is not started again.
    Over { well: bool },
    /// It could not be started.
    Failed,
    /// It has been ended, or has nothing left to end.
    Gone,
}

impl State {
    /// Need nobody wait for it any more?
    pub(super) fn is_settled(self) -> bool {
        self != Self::Waiting
    }

    /// May those that depend on it start?
    fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Over { well: true } | Self::Declared)
    }
}

/// What came of one process.
enum Came {
    /// It was asked to end, and has.
    Stopped,
    /// It has ended by itself.
    Ended(ExitStatus),
    /// It was not ready in time, and has been ended.
    Late,
}

/// A program.
pub(super) struct Program {
    pub(super) plan: Rc<Plan>,
    /// Its place in the plan.
    pub(super) at: usize,
    pub(super) paths: MeshPaths,
    pub(super) log: Rc<Log>,
    pub(super) views: Rc<Views>,
    pub(super) state: watch::Sender<State>,
    /// States of those it depends on, in their order.
    pub(super) needs: Vec<watch::Receiver<State>>,
    /// States of those that depend on it.
    pub(super) dependents: Vec<watch::Receiver<State>>,
    /// Is everything to end?
    pub(super) stop: watch::Receiver<bool>,
    /// At once?
    pub(super) kill: watch::Receiver<bool>,
    pub(super) failed: mpsc::Sender<Failure>,
}

impl Program {
    fn own(&self) -> &Planned {
        &self.plan.programs[self.at]
    }

    /// From its waiting to its end.
    pub(super) async fn live(self) {
        if self.needs_are_ready().await {
            self.keep().await;
        }
        // What it leaves behind is told to those it depends on only when it is to end.
        wait(&self.stop).await;
        self.state.send_replace(State::Gone);
    }

    /// Waits for those it depends on; `false`: it is not to be started.
    async fn needs_are_ready(&self) -> bool {
        for (need, at) in self.needs.iter().zip(&self.own().depends_on) {
            let mut need = need.clone();
            let state = tokio::select! {
                state = need.wait_for(|state| state.is_settled()) => state.map(|state| *state),
                () = wait(&self.stop) => return false,
            };
            if !state.is_ok_and(State::serves) {
                let name = &self.plan.programs[*at].name;
                self.give_up(format!("`{name}`, which it depends on, is not ready"));
                return false;
            }
        }
        true
    }

    async fn keep(&self) {
        let (mut pause, mut starts, mut was_ready) = (Duration::ZERO, 0_u32, false);
        loop {
            starts = starts.saturating_add(1);
            let (mut child, mut written) = match self.start() {
                Ok(started) => started,
                Err(failure) => return self.give_up(failure.message),
            };
            let began = clock::now();
            let came = self.watch(&mut child, &mut was_ready).await;
            // Its last words come before what is said of it.
            drop(clock::within(LAST_LINES_WAIT, &mut written).await);
            match came {
                Came::Stopped => return,
                Came::Late => {
                    let seconds = self.own().ready_timeout.as_secs_f64();
                    return self
                        .give_up(format!("it is not ready after {seconds} s{}", self.hint()));
                }
                Came::Ended(status) => {
                    if !self.goes_on(status, starts, was_ready) {
                        return;
                    }
                    pause = next_pause(pause, clock::now().duration_since(began));
                    let (name, seconds) = (&self.own().name, pause.as_secs_f64());
                    output::notice(format!(
                        "{name} has ended ({status}); it is started again in {seconds} s"
                    ));
                    tokio::select! {
                        () = clock::sleep(pause) => {}
                        () = wait(&self.stop) => return,
                    }
                }
            }
        }
    }

    /// Is it to be started again? If not, says what has become of it.
    fn goes_on(&self, status: ExitStatus, starts: u32, was_ready: bool) -> bool {
        let own = self.own();
        let well = status.success();
        let again = match own.restart {
            Restart::Never => false,
            Restart::OnFailure => !well,
            Restart::Always => true,
        };
        // What needs to run only has run.
        let done = well && matches!(own.ready, Ready::Ended | Ready::Started);
        if !again && (was_ready || done) {
            self.state.send_replace(State::Over { well });
            output::notice(format!("{} has ended ({status})", own.name));
            return false;
        }
        if !was_ready && (!again || starts >= STARTS_MAX) {
            let times = if starts > 1 { format!(", {starts} times") } else { String::new() };
            self.give_up(format!("it ended before it was ready ({status}{times})"));
            return false;
        }
        true
    }

    /// It cannot be started: everybody is told why, with the end of its log.
    fn give_up(&self, reason: String) {
        let name = &self.own().name;
        let tail = log_tail(self.log.path());
        let log =
            if tail.is_empty() { String::new() } else { format!("; the end of its log:\n{tail}") };
        // One for each program has room.
        drop(
            self.failed.try_send(Failure::refused(format!("cannot start `{name}`: {reason}{log}"))),
        );
        self.state.send_replace(State::Failed);
    }

    /// Why it may not be ready.
    fn hint(&self) -> String {
        let ports: Vec<String> =
            self.own().args.port.iter().map(|port| port.number.to_string()).collect();
        match &self.own().ready {
            Ready::Listening => format!(": not all of its ports listen ({})", ports.join(", ")),
            Ready::Http { port, path } => {
                format!(": a GET of {path} on port {port} is not answered with 2xx or 3xx")
            }
            Ready::Started => ": it has not joined the mesh".to_owned(),
            Ready::Ended => ": it has not ended".to_owned(),
        }
    }

    /// Starts it; the task ends when all that it has written is in its log.
    fn start(&self) -> Result<(Child, JoinHandle<()>), Failure> {
        let own = self.own();
        let (reader, writer) = io::pipe().doing(|| "make a pipe".to_owned())?;
        let also = writer.try_clone().doing(|| "make a pipe".to_owned())?;
        let mut command = part::own_binary();
        command.arg("run").arg(format!("--mesh={}", self.paths.name())).args(&own.flags);
        if let Ready::Http { port, .. } = &own.ready {
            command.arg(format!("--ready-port={port}"));
        }
        command.arg("--").args(&own.args.command).current_dir(&own.directory);
        // A path there that is relative would lead elsewhere from the program's own folder.
        command.env(RUNTIME_DIR_VARIABLE, self.paths.root()).envs(&own.environment);
        command.stdin(Stdio::null()).stdout(writer).stderr(also);
        // Terminal signals are for `up`, which ends its programs in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut options = SpawnOptions::new();
        // Should `up` be killed, `run` still ends its program.
        options.die_with_parent(Signal::TERMINATE);
        let child = options.spawn_tokio(command, false).doing(|| format!("start {}", own.name))?;
        let log = Rc::clone(&self.log);
        let written = task::spawn_contained("program log", async move {
            if let Err(error) = log.fill(reader).await {
                tracing::warn!(%error, "what a program writes cannot be read");
            }
        });
        Ok((child, written))
    }

    async fn watch(&self, child: &mut Child, was_ready: &mut bool) -> Came {
        let began = clock::now();
        let mut is_ready = false;
        loop {
            let waits = !is_ready && !*was_ready;
            tokio::select! {
                status = child.wait() => return match status {
                    Ok(status) => Came::Ended(status),
                    Err(error) => {
                        let name = &self.own().name;
                        output::notice(format!("{name} cannot be waited for: {error}"));
                        Came::Stopped
                    }
                },
                () = self.views.ready(self.own()), if !is_ready => {
                    is_ready = true;
                    if !std::mem::replace(was_ready, true) {
                        let seconds = clock::now().duration_since(began).as_secs_f64();
                        output::notice(format!("{} is ready ({seconds:.1} s)", self.own().name));
                    }
                    self.state.send_replace(State::Ready);
                }
                () = clock::sleep(self.own().ready_timeout), if waits => {
                    self.end(child).await;
                    return Came::Late;
                }
                () = wait(&self.stop) => {
                    self.end_in_turn(child).await;
                    return Came::Stopped;
                }
            }
        }
    }

    /// Ends it once nobody that depends on it runs any more.
    async fn end_in_turn(&self, child: &mut Child) {
        let dependents = async {
            for state in &self.dependents {
                drop(state.clone().wait_for(|state| *state == State::Gone).await);
            }
        };
        tokio::select! {
            // It has ended by itself meanwhile.
            _ = child.wait() => return,
            () = dependents => {}
            () = wait(&self.kill) => {}
        }
        self.end(child).await;
    }

    /// Asks it to end, and kills it where it does not within its time.
    async fn end(&self, child: &mut Child) {
        let Some(pid) = child.id() else { return };
        // It may have ended by itself just now.
        drop(Signal::TERMINATE.send(pid));
        let own = self.own();
        let in_time = tokio::select! {
            ended = clock::within(own.stop_timeout, child.wait()) => ended.is_some(),
            () = wait(&self.kill) => false,
        };
        if !in_time {
            output::notice(format!("{} does not end: it is killed", own.name));
            kill(child).await;
        }
    }
}

/// Kills the program, so that the `run` that waits for it ends in order; where it does not, kills that too: what is
/// left then, the holder ends.
async fn kill(child: &mut Child) {
    if let Some(pid) = child.id()
        && let Err(error) = descendants::kill_below(pid)
    {
        tracing::warn!(%error, "cannot look for descendants");
    }
    if clock::within(AFTER_KILL_WAIT, child.wait()).await.is_none() {
        drop(child.kill().await);
    }
}

/// Returns once it is so, or whoever could say so has gone.
async fn wait(is_so: &watch::Receiver<bool>) {
    drop(is_so.clone().wait_for(|is_so| *is_so).await);
}

/// The pause before the next start of a program that ran so long, the one before being `last`.
fn next_pause(last: Duration, ran: Duration) -> Duration {
    /// Shortest pause.
    const LEAST: Duration = Duration::from_millis(500);
    /// Longest pause.
    const MOST: Duration = Duration::from_secs(30);
    /// What ran so long is started again without much ado.
    const WELL: Duration = Duration::from_secs(60);
    if ran >= WELL { LEAST } else { (last * 2).clamp(LEAST, MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_ending_is_started_later_and_later() {
        let mut pause = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pause = next_pause(pause, Duration::from_secs(1));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(next_pause(pause, Duration::from_secs(60)).as_millis(), 500);
    }
}
