//! `heddle run`: joins a mesh, runs the program as a member of it, and ends like the program did.
//!
//! The program shares this process's group, so the terminal treats the two as one: job control
//! works and a Ctrl-C reaches both. Signals sent to this process alone are passed on. The
//! connection to the holder stands for the workload; should this process be killed, the holder
//! ends what is left.

use std::{os::fd::OwnedFd, path::Path, process::ExitStatus, time::Duration};

use heddle_runtime::{
    capability::{Capability, CapabilitySet, Privileges},
    clock,
    mount::MountPlan,
    ns::Namespaces,
    process,
    signal::{Received, Signal, Signals},
    spawn::{SpawnError, SpawnOptions},
};
use heddle_wire::local::holder_api::Joined;
use tokio::{process::Child, signal::unix::SignalKind};

use crate::{
    cli::RunArgs,
    failure::{Doing as _, Failure},
    holder_client::HolderClient,
    mesh::{END_GRACE, RunningMesh},
    output,
    termination::Ignored,
};

pub(crate) mod descendants;
pub(crate) mod program;
pub(crate) mod request;

/// Signals that are passed on to the program. SIGTSTP is not among them: the terminal sends it to
/// the whole group, and both stop by its default action.
const PASSED_ON: [Signal; 8] = [
    Signal::HANGUP,
    Signal::INTERRUPT,
    Signal::QUIT,
    Signal::USER_1,
    Signal::USER_2,
    Signal::TERMINATE,
    Signal::WINDOW,
    Signal::CONTINUE,
];
/// Longest wait for a holder that is ending the program: it withdraws it, and gives it its grace.
const HOLDER_WAIT: Duration = END_GRACE.saturating_mul(2);
/// Exit code of a process ended by a signal: this plus the signal's number, as in a shell.
const SIGNAL_CODE: i32 = 128;

/// `heddle run`. Returns the program's exit code, or 128 plus the number of the signal it died by.
///
/// # Errors
/// A usage failure for flags that contradict each other, 127 or 126 for a program that cannot be
/// run, else the refusal of holder or control plane.
pub(crate) async fn run(args: RunArgs) -> Result<u8, Failure> {
    let spec = request::resolve(&args)?;
    let (name, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::usage("there is no program to run: name it after `--`"))?;
    let (program, found) = program::find(name)?;
    let mesh = RunningMesh::select(args.mesh.mesh.as_deref())?;
    let passed_on = Ignored::by_this_process().but_for(&PASSED_ON);
    let mut signals = Signals::redirect(&passed_on).doing(|| "watch for signals".to_owned())?;
    let mut holder = HolderClient::connect(&mesh.paths).await?;
    let mut progress = |text: &str| output::notice(text);
    let (joined, fds) = tokio::select! {
        joined = holder.join(spec, &mut progress) => joined?,
        // Closing the connection undoes what the join has done so far.
        number = ending_signal(&mut signals) => return Ok(exit_code(SIGNAL_CODE + number)),
    };
    if joined.user_namespace
        && let Some(warning) = program::rootless_warning(&program, &found)
    {
        output::notice(format!("warning: {warning}"));
    }
    let mut command = std::process::Command::new(name);
    command.args(arguments);
    let child = match spawn(command, &joined, fds) {
        Ok(child) => child,
        Err(failure) => {
            // Whoever sees this command end finds nothing of its workload left.
            if let Err(left) = holder.leave().await {
                output::failure(&left);
            }
            return Err(failure);
        }
    };
    announce(&joined, mesh.paths.name());
    let run = Run { mesh, holder, signals, child, withdrawn: false, mesh_ended: false };
    let status = run.watch().await?;
    Ok(exit_code(process::exit_code(status)))
}

/// Waits for a signal whose default is to end this process.
async fn ending_signal(signals: &mut Signals) -> i32 {
    loop {
        match signals.next().await {
            Ok(Received { signal: Signal::CONTINUE | Signal::WINDOW, .. }) => {}
            Ok(received) => return received.signal.number(),
            Err(_) => return Signal::TERMINATE.number(),
        }
    }
}

fn spawn(
    command: std::process::Command,
    joined: &Joined,
    fds: Vec<OwnedFd>,
) -> Result<Child, Failure> {
    let (mounts, missing) = MountPlan::for_workload(Path::new(&joined.etc_dir))
        .doing(|| format!("use {}", joined.etc_dir))?;
    for file in missing {
        // libc's own default for a missing file asks DNS too.
        tracing::debug!(file = %file.display(), "absent on this host, so not replaced");
    }
    let namespaces =
        Namespaces::from_fds(fds).doing(|| "use the workload's namespaces".to_owned())?;
    let mut options = SpawnOptions::new();
    options
        .namespaces(&namespaces)
        .doing(|| "use the workload's namespaces".to_owned())?
        .mounts(mounts);
    if namespaces.user().is_some() {
        // An ordinary user's program has no rights to gain here; without this a program with file
        // capabilities (ping) would not even start.
        options.privileges(Privileges::Only(CapabilitySet::NONE)).no_new_privs();
    } else {
        // Neither the escape mark nor the redirection rules are the program's to use.
        let withheld = CapabilitySet::of(&[Capability::NetAdmin]);
        options.privileges(Privileges::AllBut(withheld));
    }
    process::become_subreaper().doing(|| "adopt the program's orphans".to_owned())?;
    options.spawn_tokio(command, true).map_err(|error| cannot_start(&error))
}

fn cannot_start(error: &SpawnError) -> Failure {
    Failure::exiting(exit_code(error.exit_code()), error.to_string())
}

/// Servers get one line on stderr that says where they are; clients run silently. The last `unsaid` of the addresses
/// are for nobody but `up`.
fn announce(joined: &Joined, mesh: &str) {
    let workload = &joined.joined.workload;
    let Some(service) = &joined.joined.service else { return };
    if workload.ports.is_empty() {
        return;
    }
    let published: Vec<String> =
        joined.published.iter().map(|address| format!(", published on {address}")).collect();
    output::notice(format!(
        "{} serves {} in mesh `{mesh}`{}",
        workload.id,
        service.name,
        published.concat()
    ));
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// A program being run.
struct Run {
    mesh: RunningMesh,
    holder: HolderClient,
    signals: Signals,
    child: Child,
    withdrawn: bool,
    mesh_ended: bool,
}

impl Run {
    async fn watch(mut self) -> Result<ExitStatus, Failure> {
        let mut orphans = tokio::signal::unix::signal(SignalKind::child())
            .doing(|| "watch for ended processes".to_owned())?;
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                received = self.signals.next() => match received {
                    Ok(received) => self.pass_on(received).await,
                    Err(error) => tracing::warn!(%error, "signals are not passed on any more"),
                },
                _ = orphans.recv() => self.reap_orphans(),
                why = self.holder.closed(), if !self.mesh_ended => {
                    self.mesh_ended = true;
                    break self.end_with_mesh(&why).await;
                }
            }
        };
        if !self.mesh_ended
            && let Err(failure) = self.holder.leave().await
        {
            output::failure(&failure);
        }
        if let Err(error) = descendants::kill_all() {
            tracing::warn!(%error, "cannot look for descendants");
        }
        status.doing(|| "wait for the program".to_owned())
    }

    /// Nobody is sent here any more before the program is told to end.
    async fn pass_on(&mut self, received: Received) {
        let ends = matches!(received.signal, Signal::INTERRUPT | Signal::TERMINATE);
        if ends
            && !std::mem::replace(&mut self.withdrawn, true)
            && let Err(failure) = self.holder.withdraw().await
        {
            tracing::warn!(%failure, "not withdrawn");
        }
        // The terminal has sent it to the program too.
        if !received.from_terminal {
            self.signal(received.signal);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id()
            && let Err(error) = signal.send(pid)
        {
            tracing::debug!(%error, "the program has ended");
        }
    }

    fn reap_orphans(&self) {
        let waited_for: Vec<u32> = self.child.id().into_iter().collect();
        if let Err(error) = process::reap_orphans(&waited_for) {
            tracing::debug!(%error, "cannot look for ended orphans");
        }
    }

    async fn end_with_mesh(&mut self, why: &str) -> std::io::Result<ExitStatus> {
        output::notice(format!("{why}; ending the program"));
        // A holder that lives ends the program itself, when nobody is sent there any more. Told
        // twice, many a program would take it for "now".
        tokio::select! {
            status = self.child.wait() => return status,
            _ = clock::within(HOLDER_WAIT, self.mesh.holder_gone()) => {}
        }
        self.signal(Signal::TERMINATE);
        match clock::within(END_GRACE, self.child.wait()).await {
            Some(status) => status,
            None => {
                self.signal(Signal::KILL);
                self.child.wait().await
            }
        }
    }
}
