//! Starts a program inside given namespaces, with given descriptors, mounts and privileges, and
//! says at which step it failed if it did.
//!
//! The steps run in the forked child, single-threaded, right before exec; the caller may have
//! threads and stays where it is.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    process::{Child, Command},
};

use crate::{
    capability::{self, Privileges},
    mount::MountPlan,
    ns::{Namespaces, Step},
    signal::Signal,
    sys,
};

/// What a child gets beside its command line. All optional; the order of the setters has no meaning.
#[derive(Debug, Default)]
pub struct SpawnOptions {
    namespaces: Option<Namespaces>,
    mounts: Option<MountPlan>,
    privileges: Privileges,
    no_new_privs: bool,
    die_with_parent: Option<Signal>,
    inherited: Vec<OwnedFd>,
}

/// A child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A step between fork and exec failed.
    #[error("cannot {}: {source}", step.text())]
    Setup {
        /// Which.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program cannot be run: absent, not executable, of another architecture.
    #[error("cannot run {program}: {source}")]
    Exec {
        /// The program as named in the command.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SpawnError {
    /// The exit code a shell would give: 127 for a program that is not there, else 126.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

impl SpawnOptions {
    /// None of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs the child inside these namespaces (its user namespace is left out if the caller is in it).
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn namespaces(&mut self, namespaces: &Namespaces) -> io::Result<&mut Self> {
        self.namespaces = Some(namespaces.to_enter()?);
        Ok(self)
    }

    /// Gives the child a mount namespace of its own, changed as planned.
    pub fn mounts(&mut self, plan: MountPlan) -> &mut Self {
        self.mounts = Some(plan);
        self
    }

    /// What the child may do.
    pub fn privileges(&mut self, privileges: Privileges) -> &mut Self {
        self.privileges = privileges;
        self
    }

    /// Sets no_new_privs: setuid files and file capabilities give the child nothing.
    pub fn no_new_privs(&mut self) -> &mut Self {
        self.no_new_privs = true;
        self
    }

    /// The child gets `signal` when the *thread* that spawned it ends, however it ends. Spawn from a
    /// thread that lives as long as the process.
    pub fn die_with_parent(&mut self, signal: Signal) -> &mut Self {
        self.die_with_parent = Some(signal);
        self
    }

    /// Passes a descriptor on; the child sees it under the number returned.
    pub fn inherit(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    /// Passes a copy of a descriptor on; the child sees it under the number returned.
    ///
    /// # Errors
    /// If no more descriptors can be opened.
    pub fn inherit_copy(&mut self, fd: BorrowedFd<'_>) -> io::Result<RawFd> {
        Ok(self.inherit(fd.try_clone_to_owned()?))
    }

    /// Starts the command.
    ///
    /// # Errors
    /// [`SpawnError`] tells a step that failed from a program that cannot be run.
    pub fn spawn(self, mut command: Command) -> Result<Child, SpawnError> {
        let failed_step = self.attach(&mut command)?;
        command.spawn().map_err(|source| explain(&command, failed_step, source))
    }

    /// Starts the command for a tokio runtime, which reaps it.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_tokio(
        self,
        mut command: Command,
        kill_on_drop: bool,
    ) -> Result<tokio::process::Child, SpawnError> {
        let failed_step = self.attach(&mut command)?;
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(kill_on_drop);
        command.spawn().map_err(|source| explain(command.as_std(), failed_step, source))
    }

    /// Hooks the steps into the command; returns where the child tells which step failed.
    fn attach(self, command: &mut Command) -> Result<OwnedFd, SpawnError> {
        let (reader, writer) = sys::pipe::pipe(libc::O_NONBLOCK)
            .map_err(|source| SpawnError::Setup { step: Step::Fork, source })?;
        let parent = std::process::id();
        sys::process::before_exec(command, move || {
            self.prepare_child(parent).map_err(|(step, error)| {
                let _untold = sys::namespace::write_once(writer.as_raw_fd(), &[step as u8]);
                error
            })
        });
        Ok(reader)
    }

    /// *After fork.*
    fn prepare_child(&self, parent: u32) -> Result<(), (Step, io::Error)> {
        let at = |step| move |error| (step, error);
        sys::signal::restore_mask().map_err(at(Step::SignalMask))?;
        if let Some(namespaces) = &self.namespaces {
            namespaces.enter_after_fork()?;
        }
        if let Some(mounts) = &self.mounts {
            mounts.apply_after_fork()?;
        }
        for fd in &self.inherited {
            sys::fd::keep_on_exec(fd.as_fd()).map_err(at(Step::Inherit))?;
        }
        let root = sys::process::effective_ids().0 == 0;
        capability::apply(self.privileges, root).map_err(at(Step::Privileges))?;
        if self.no_new_privs {
            sys::capability::set_no_new_privs().map_err(at(Step::Privileges))?;
        }
        // Last: a change of credentials clears it.
        if let Some(signal) = self.die_with_parent {
            sys::process::die_with_parent(signal.number(), parent)
                .map_err(at(Step::DieWithParent))?;
        }
        Ok(())
    }
}

fn explain(command: &Command, failed_step: OwnedFd, source: io::Error) -> SpawnError {
    let mut number = [0];
    match File::from(failed_step).read(&mut number) {
        Ok(1) => {
            let step = Step::of_number(number[0]).unwrap_or(Step::Fork);
            SpawnError::Setup { step, source }
        }
        _ => SpawnError::Exec {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        },
    }
}
