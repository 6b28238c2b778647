//! A mesh that was started: the machine is checked, the holder is started, and the starter stays with it. The demo
//! gets its mesh so as well. The starter and the holder share one socket pair: lines of [`StartMessage`] come over it,
//! and each side notices by it that the other is gone.

use std::{
    fs,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdUnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use heddle_runtime::{clock, preflight, spawn::SpawnOptions};
use heddle_wire::local::holder_api::Info;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::UnixStream,
    process::Child,
};

use super::overlap;
use crate::{
    cli::{TraceArgs, figures::FiguresArgs},
    failure::{Doing as _, Failure},
    holder::part,
    holder_client::HolderClient,
    mesh::{MeshLock, MeshPaths, RUNTIME_DIR_VARIABLE, leftovers},
};

/// Exit code of a command that Ctrl-C ended before it had begun, as in a shell.
pub(crate) const INTERRUPTED: u8 = 130;
/// Lines of the holder's log shown when it fails to start.
const LOG_TAIL_LINES: usize = 10;

/// What the holder tells its starter, one JSON text per line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartMessage {
    /// One line for the user.
    Progress {
        /// The line.
        text: String,
    },
    /// The mesh is up.
    Ready {
        /// What runs.
        info: Box<Info>,
    },
    /// It was up, and is ending.
    Ended {
        /// Why, for the user.
        reason: String,
    },
    /// It cannot be; the holder has cleaned up and ends.
    Failed {
        /// Why, for the user.
        reason: String,
    },
}

/// What a mesh is started with.
#[derive(Debug)]
pub(crate) struct MeshOptions {
    /// Where it keeps what, its name included.
    pub paths: MeshPaths,
    /// The right to that name.
    pub lock: MeshLock,
    /// Folder of rules to watch.
    pub config: Option<PathBuf>,
    /// Folder of the store; `None`: inside the run-time folder, so it ends with the mesh.
    pub state_dir: Option<PathBuf>,
    /// Where the dashboard listens: the first of these that is free; port 0 takes any.
    pub dashboard: Vec<SocketAddr>,
    /// Where spans go.
    pub tracing: TraceArgs,
    /// Who keeps what was measured.
    pub figures: FiguresArgs,
}

/// A mesh this process started. Dropping it closes the socket pair: the holder then ends as soon
/// as no workload is left.
#[derive(Debug)]
pub(crate) struct StartedMesh {
    /// What runs, as of the start.
    pub info: Info,
    /// Where it keeps what.
    pub paths: MeshPaths,
    holder: Child,
    messages: Lines<BufReader<UnixStream>>,
}

/// A holder that is starting says what it does at least this often: its own limits are shorter.
const START_SILENCE: Duration = Duration::from_secs(60);

impl StartedMesh {
    /// Checks the machine, clears what killed meshes left, starts the holder and waits until
    /// control plane and dashboard run, or until `stop` says that nobody wants them any more.
    ///
    /// # Errors
    /// A refusal saying what is missing and what to do, or a silent one after `stop`; nothing is
    /// left behind then.
    pub(crate) async fn start(
        options: MeshOptions,
        progress: &mut dyn FnMut(&str),
        stop: impl Future<Output = ()>,
    ) -> Result<Self, Failure> {
        check_config_dir(options.config.as_deref())?;
        options.tracing.check()?;
        overlap::check()?;
        leftovers::clear_all(&options.paths, progress)?;
        preflight::check().map_err(|missing| Failure::refused(missing.to_string()))?;
        let mut command = holder_command(&options)?;
        let run_dir = options.paths.run_dir();
        fs::create_dir(&run_dir).doing(|| format!("make the folder {}", run_dir.display()))?;
        let (ours, theirs) = StdUnixStream::pair().doing(|| "make a socket pair".to_owned())?;
        let log_path = run_dir.join("holder.log");
        let log = fs::File::create(&log_path).doing(|| format!("make {}", log_path.display()))?;
        command
            .stdin(options.lock.hand_on().map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::from(log));
        // Spawned so, it does not inherit that this process blocks the signals it waits for.
        let holder = SpawnOptions::new()
            .spawn_tokio(command, false)
            .doing(|| "start the holder".to_owned())?;
        ours.set_nonblocking(true).doing(|| "set up the socket pair".to_owned())?;
        let ours = UnixStream::from_std(ours).doing(|| "set up the socket pair".to_owned())?;
        let mut messages = BufReader::new(ours).lines();
        let begun = tokio::select! {
            begun = wait_until_ready(&mut messages, &log_path, progress) => begun,
            () = stop => Err(Failure::silent(INTERRUPTED)),
        };
        match begun {
            Ok(info) => Ok(Self { info, paths: options.paths, holder, messages }),
            Err(failure) => {
                // By this the holder knows: it undoes what it has done, and ends.
                drop(messages);
                leftovers::after_failed_start(holder, &options.paths).await;
                Err(failure)
            }
        }
    }

    /// Returns when the holder has ended, by `heddle down` or because it died: why.
    pub(crate) async fn ended(&mut self) -> String {
        let mut told = None;
        while let Ok(Some(line)) = self.messages.next_line().await {
            if let Ok(StartMessage::Ended { reason }) = serde_json::from_str(&line) {
                told = Some(reason);
            }
        }
        // An error means that it is gone already.
        let status = self.holder.wait().await;
        told.unwrap_or_else(|| match status {
            Ok(status) => format!("its holder died ({status})"),
            Err(_) => "its holder has gone".to_owned(),
        })
    }

    /// Ends the mesh and everything in it; returns when all is gone.
    ///
    /// # Errors
    /// A refusal where the holder died on the way; what it left is cleared by the next start.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        let reason = "whoever started it has ended it";
        HolderClient::connect(&self.paths).await?.shut_down(reason).await?;
        self.ended().await;
        Ok(())
    }
}

/// The holder's command line. Paths in it are absolute: the holder runs elsewhere.
fn holder_command(options: &MeshOptions) -> Result<Command, Failure> {
    let state_dir = match &options.state_dir {
        Some(dir) => absolute(dir)?,
        None => options.paths.run_dir().join("state"),
    };
    let mut command = part::own_binary();
    command
        .arg("holder")
        .args(["--mesh", options.paths.name()])
        .env(RUNTIME_DIR_VARIABLE, options.paths.root())
        // Wherever it was started, that folder can be unmounted or removed.
        .current_dir("/")
        .args(options.dashboard.iter().map(|address| format!("--dashboard={address}")))
        .arg("--state-dir")
        .arg(state_dir)
        .args(options.tracing.words())
        .args(options.figures.words())
        // Terminal signals are for this process; it ends the mesh in order.
        .process_group(0);
    if let Some(config) = &options.config {
        command.arg("--config").arg(absolute(config)?);
    }
    Ok(command)
}

async fn wait_until_ready(
    messages: &mut Lines<BufReader<UnixStream>>,
    log: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Info, Failure> {
    loop {
        let Some(line) = clock::within(START_SILENCE, messages.next_line()).await else {
            return Err(Failure::refused(format!(
                "the holder has said nothing for {} s while starting: it hangs, and is killed; its log:\n{}",
                START_SILENCE.as_secs(),
                log_tail(log)
            )));
        };
        let Some(line) = line.ok().flatten() else { break };
        match serde_json::from_str(&line) {
            Ok(StartMessage::Progress { text }) => progress(&text),
            Ok(StartMessage::Ready { info }) => return Ok(*info),
            Ok(StartMessage::Failed { reason } | StartMessage::Ended { reason }) => {
                return Err(Failure::refused(reason));
            }
            Err(error) => {
                return Err(Failure::refused(format!("the holder said `{line}`: {error}")));
            }
        }
    }
    let tail = log_tail(log);
    Err(Failure::refused(format!("the holder ended while starting:\n{tail}")))
}

/// The last lines of a log, for an error message; empty if there is none.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().collect();
    // A process that was started again said the same again.
    lines.dedup();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn check_config_dir(config: Option<&Path>) -> Result<(), Failure> {
    let Some(config) = config else { return Ok(()) };
    let listing = fs::read_dir(config);
    listing.doing(|| format!("read the folder {} (--config)", config.display())).map(drop)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).doing(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;
    use crate::mesh::RunRoot;

    #[tokio::test]
    async fn the_holder_is_told_absolute_folders_only() {
        let folder = Folder::new("up");
        let paths = RunRoot::at(folder.path()).mesh("m").unwrap();
        let options = MeshOptions {
            lock: paths.take_lock().await.unwrap(),
            paths,
            config: Some("rules".into()),
            state_dir: Some("state".into()),
            dashboard: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            tracing: TraceArgs::default(),
            figures: FiguresArgs::default(),
        };
        let command = holder_command(&options).unwrap();
        let words: Vec<_> = command.get_args().collect();
        for flag in ["--config", "--state-dir"] {
            let at = words.iter().position(|word| *word == flag).unwrap();
            assert!(Path::new(words[at + 1]).is_absolute(), "{flag} {:?}", words[at + 1]);
        }
    }
}
