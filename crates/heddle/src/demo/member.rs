//! One running workload of the demo: a `heddle run` child with its log.

use std::{fmt::Write as _, fs, path::Path, process::Stdio, time::Duration};

use heddle_runtime::{clock, signal::Signal, spawn::SpawnOptions};
use heddle_wire::local::holder_api::Publish;
use tokio::process::Child;

use super::{
    plan::{Load, Member},
    tell::{self, AppCounts},
};
use crate::{
    failure::{Doing as _, Failure},
    holder::part,
    mesh::END_GRACE,
    up::log_tail,
};

/// Longest wait for the ends of all members once their mesh has ended: what their programs are
/// given, and time to see it.
const END_WAIT: Duration = END_GRACE.saturating_add(Duration::from_secs(1));

/// A started member. It ends with the mesh, and with this process.
#[derive(Debug)]
pub(super) struct RunningMember {
    /// Who.
    pub(super) member: Member,
    child: Child,
}

impl RunningMember {
    /// Starts `heddle run` for a member.
    pub(super) fn start(
        member: Member,
        mesh: &str,
        dir: &Path,
        load: &Load,
        publish: Option<&Publish>,
    ) -> Result<Self, Failure> {
        let name = member.name();
        let log_path = dir.join(format!("{name}.log"));
        let log = fs::File::create(&log_path).doing(|| format!("make {}", log_path.display()))?;
        let also = log.try_clone().doing(|| format!("open {}", log_path.display()))?;
        let mut command = part::own_binary();
        command.args([
            "run",
            "--mesh",
            mesh,
            "--service",
            member.service,
            "--version",
            member.version,
        ]);
        if let Some(port) = member.port {
            command.args(["--port", port]);
        }
        if let Some(publish) = publish {
            command.arg("--publish").arg(publish.to_string());
        }
        let heddle = command.get_program().to_owned();
        command.arg("--").args(member.command(dir, Path::new(&heddle), load));
        // Terminal signals are for the demo, which ends its members in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log).stderr(also);
        let mut options = SpawnOptions::new();
        // Should the demo be killed, `run` still ends its program: killed too, it would leave that
        // to the holder, which may be just as dead.
        options.die_with_parent(Signal::TERMINATE);
        let child = options.spawn_tokio(command, false).doing(|| format!("start {name}"))?;
        Ok(Self { member, child })
    }

    /// Is it still running?
    ///
    /// # Errors
    /// A refusal with the last lines of its log where it is not.
    pub(super) fn check(&mut self, dir: &Path) -> Result<(), Failure> {
        let name = self.member.name();
        let status = self.child.try_wait().doing(|| format!("look after {name}"))?;
        let Some(status) = status else { return Ok(()) };
        let tail = log_tail(&dir.join(format!("{name}.log")));
        Err(Failure::refused(format!("workload {name} has ended ({status}):\n{tail}")))
    }

    /// What it counted itself; `None` where the program cannot tell.
    pub(super) async fn told(&self, dir: &Path) -> Option<AppCounts> {
        tell::counts(&self.member.counts(dir)?).await.ok()
    }
}

/// Waits for the ends of all, after the mesh has ended; within bounds.
pub(super) async fn all_ended(members: Vec<RunningMember>) {
    let give_up = clock::now() + END_WAIT;
    for mut running in members {
        let left = give_up.saturating_duration_since(clock::now());
        if clock::within(left, running.child.wait()).await.is_none() {
            tracing::warn!(member = running.member.name(), "does not end");
        }
    }
}

/// The last lines of these members' logs, each on lines of its own: their folder ends with the mesh.
pub(super) fn log_tails<'m>(
    members: impl IntoIterator<Item = &'m RunningMember>,
    dir: &Path,
) -> String {
    let mut text = String::new();
    for name in members.into_iter().map(|running| running.member.name()) {
        let tail = log_tail(&dir.join(format!("{name}.log")));
        let tail = if tail.is_empty() { "it has said nothing" } else { &tail };
        // Writing to a string cannot fail.
        let _ok = write!(text, "\n{name}: {tail}");
    }
    text
}

#[cfg(test)]
mod tests {
    use heddle_testkit::folder::Folder;

    use super::*;
    use crate::demo::plan::Program;

    #[tokio::test]
    async fn a_failed_start_shows_what_the_members_said_last() {
        let folder = Folder::new("member");
        let running = |service: &'static str| RunningMember {
            member: Member { service, version: "v1", port: None, program: Program::Example },
            child: tokio::process::Command::new("true").spawn().unwrap(),
        };
        fs::write(folder.join("ratings-v1.log"), "first\nno such module\n").unwrap();
        let members = [running("ratings"), running("photos")];
        assert_eq!(
            log_tails(&members, folder.path()),
            "\nratings-v1: first\nno such module\nphotos-v1: it has said nothing"
        );
        all_ended(members.into()).await;
    }
}
