//! A mesh of a bench's own: `heddle up` in a folder that also holds what its programs print, ended and
//! removed when dropped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::process::wait_for;
use crate::command::program;

/// Longest wait for anything to start or end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A mesh, and what is run in it.
#[derive(Debug)]
pub(super) struct Mesh {
    name: &'static str,
    binary: PathBuf,
    /// Its folder.
    pub(super) dir: PathBuf,
    up: Child,
}

impl Mesh {
    /// Starts it; returns when it is up.
    pub(super) fn start(binary: &Path, name: &'static str) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("heddle-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut up = heddle(binary, &dir, &["up", "--mesh", name, "--trace-to", "none"]);
        up.arg("--state-dir").arg(dir.join("state"));
        let up = start(up, &dir, "up")?;
        let mesh = Self { name, binary: binary.to_owned(), dir, up };
        wait_for("the mesh", PATIENCE, || mesh.call(&["get", "services"]).is_ok())?;
        Ok(mesh)
    }

    /// `heddle WORDS --mesh …`, for the caller to run.
    pub(super) fn heddle(&self, words: &[&str]) -> Command {
        let mut command = heddle(&self.binary, &self.dir, &words[..1]);
        command.args(["--mesh", self.name]).args(&words[1..]);
        command
    }

    /// Runs `heddle WORDS` and returns what it printed.
    ///
    /// # Errors
    /// What it said where it did not succeed.
    pub(super) fn call(&self, words: &[&str]) -> Result<String, String> {
        let output = self.heddle(words).output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts a command whose output goes to the files `NAME.out` and `NAME.err`.
    pub(super) fn start_as(&self, name: &str, command: Command) -> Result<Child, String> {
        start(command, &self.dir, name)
    }

    /// What was printed so far to the file of this name.
    pub(super) fn output(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Where a file of this name is.
    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Writes a file of this name.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.dir.join(name), text).map_err(|e| format!("{name}: {e}"))
    }

    /// Ends it, and what runs in it.
    pub(super) fn end(&mut self) {
        drop(self.call(&["down"]));
        drop(self.up.wait());
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            self.end();
        }
        if std::env::var_os("HEDDLE_BENCH_KEEP").is_none() {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn heddle(binary: &Path, dir: &Path, words: &[&str]) -> Command {
    let mut command = program(&binary.to_string_lossy(), words);
    command.env("HEDDLE_RUNTIME_DIR", dir.join("run")).current_dir(dir).stdin(Stdio::null());
    command
}

fn start(mut command: Command, dir: &Path, name: &str) -> Result<Child, String> {
    let file = |end: &str| {
        File::create(dir.join(format!("{name}.{end}"))).map_err(|e| format!("{name}: {e}"))
    };
    command.stdout(file("out")?).stderr(file("err")?);
    command.spawn().map_err(|e| format!("{name}: {e}"))
}
