//! The components as one program, built once per `go.sum` and kept outside the work tree.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    folder::{cache, make},
    go,
};
use crate::command::{program, root, run};

/// The module whose program it is.
const MODULE: &str = "tests/kube/cluster";
/// The release the components are of: they tell it, and clients decide by it.
const VERSION: (&str, &str, &str) = ("v1.37.2", "1", "37");

/// Who waits for a build.
#[derive(Debug)]
pub(super) enum Manner {
    /// Somebody: what it says goes to the terminal.
    Awaited,
    /// Nobody yet: it takes what time others leave, and says it into a file.
    Beside(File),
}

/// Why there is no program.
#[derive(Debug)]
pub(super) enum Unbuilt {
    /// What the machine lacks, or the network.
    Lacking(String),
    /// All was there.
    Failed(String),
}

impl From<Unbuilt> for String {
    fn from(unbuilt: Unbuilt) -> Self {
        let (Unbuilt::Lacking(why) | Unbuilt::Failed(why)) = unbuilt;
        why
    }
}

/// The built program; it is built first where no earlier build was of the same sources.
///
/// # Errors
/// Go is missing, its modules cannot be fetched, or the build failed.
pub(super) fn build(manner: &Manner) -> Result<PathBuf, Unbuilt> {
    let module = root().join(MODULE);
    let folder =
        cache().and_then(|cache| Ok(cache.join(key(&module)?))).map_err(Unbuilt::Failed)?;
    let built = folder.join("kube");
    if built.is_file() {
        return Ok(built);
    }
    let go = go::find().map_err(Unbuilt::Lacking)?;
    make(&folder).map_err(Unbuilt::Failed)?;
    if matches!(manner, Manner::Awaited) {
        println!(
            "building Kubernetes {} into {} (once; 15 to 30 minutes on two cores)",
            VERSION.0,
            folder.display()
        );
    }
    let modules = manner.run(go_in(&go, &module, &["mod", "download"]));
    modules.map_err(|e| Unbuilt::Lacking(format!("its modules could not be fetched: {e}")))?;
    // Two builds at a time each make their own file; whoever is last takes the place.
    let being_built = folder.join(format!("kube.{}", std::process::id()));
    let mut build = go_in(&go, &module, &["build", "-trimpath", "-ldflags", &linked(), "-o"]);
    build.arg(&being_built).arg(".");
    manner.run(build).map_err(Unbuilt::Failed)?;
    let placed = fs::rename(&being_built, &built);
    placed.map_err(|e| Unbuilt::Failed(format!("{}: {e}", built.display())))?;
    Ok(built)
}

fn go_in(go: &Path, module: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(go);
    command.args(arguments).current_dir(module);
    // Without cgo the program needs no library, so that it runs in a container too.
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

impl Manner {
    fn run(&self, mut command: Command) -> Result<(), String> {
        let Self::Beside(log) = self else { return run(&mut command) };
        // It ends with whoever began it, whose other steps come first while it lasts.
        let mut beside = program("setpriv", &["--pdeathsig", "TERM", "nice", "-n", "19"]);
        beside.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            beside.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            beside.env(name, value.unwrap_or_default());
        }
        for stream in [Command::stdout, Command::stderr] {
            stream(&mut beside, log.try_clone().map_err(|e| format!("the build's log: {e}"))?);
        }
        run(beside.stdin(Stdio::null()))
    }
}

/// What the linker is told: no symbols, and the version.
fn linked() -> String {
    let package = "k8s.io/component-base/version";
    let (version, major, minor) = VERSION;
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )
}

/// Changes with whatever the program is built of. It names a folder of this machine only, so it need not
/// be the same for every version of Rust.
fn key(module: &Path) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        let path = module.join(file);
        fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?.hash(&mut hasher);
    }
    (linked(), std::env::consts::ARCH).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
