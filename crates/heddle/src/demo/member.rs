//! One running workload of the demo: a `heddle run` child with its log.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use heddle_runtime::{signal::Signal, spawn::SpawnOptions};
use heddle_wire::local::holder_api::Publish;

use super::{
    plan::{Load, Member},
    tell::{self, Told},
};
use crate::{
    failure::{Doing as _, Failure},
    holder::part,
    up::log_tail,
};

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
        options.die_with_parent(Signal::KILL);
        let child = options.spawn(command).doing(|| format!("start {name}"))?;
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
    pub(super) async fn told(&self, dir: &Path) -> Option<Told> {
        tell::counts(&self.member.counts(dir)?).await.ok()
    }

    /// Waits for its end, after the mesh has ended.
    pub(super) async fn wait(mut self) {
        // The holder has ended its command already; what is left is to collect it.
        drop(tokio::task::spawn_blocking(move || self.child.wait()).await);
    }
}
