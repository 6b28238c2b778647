//! Programs built from Go modules of the work tree, once per sources, and kept outside of it.

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
use crate::command::{output, program, root, run};

/// For every call of go: what is built is what `go.sum` says, also where the work tree has no history.
const FLAGS: &str = "-mod=readonly -buildvcs=false";

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

/// A Go module of the work tree.
#[derive(Debug)]
pub(super) struct Module {
    /// Its folder in the work tree.
    pub(super) folder: &'static str,
    /// The files that its programs are built of, besides what `go.sum` pins.
    pub(super) sources: &'static [&'static str],
    /// What the linker is told.
    pub(super) linked: String,
}

/// A program of a module.
#[derive(Debug)]
pub(super) struct Program {
    /// The file it is kept as.
    pub(super) name: &'static str,
    /// How go makes it: `build`, or `test -c` for a program of tests.
    pub(super) made_by: &'static [&'static str],
    /// Its package, as seen from the module's folder.
    pub(super) package: &'static str,
    /// What it is, for whoever waits.
    pub(super) what: &'static str,
    /// How long it takes to build.
    pub(super) takes: &'static str,
}

impl Module {
    /// A built program; it is built first where no earlier build was of the same sources.
    ///
    /// # Errors
    /// Go is missing, its modules cannot be fetched, or the build failed.
    pub(super) fn build(&self, wanted: &Program, manner: &Manner) -> Result<PathBuf, Unbuilt> {
        let module = root().join(self.folder);
        let folder = cache()
            .and_then(|cache| Ok(cache.join(self.key(&module)?)))
            .map_err(Unbuilt::Failed)?;
        let built = folder.join(wanted.name);
        if built.is_file() {
            return Ok(built);
        }
        let go = go::find().map_err(Unbuilt::Lacking)?;
        make(&folder).map_err(Unbuilt::Failed)?;
        if matches!(manner, Manner::Awaited) {
            println!("building {} into {} ({})", wanted.what, folder.display(), wanted.takes);
        }
        let modules = manner.run(self.go(&go, &["mod", "download"]));
        modules.map_err(|e| Unbuilt::Lacking(format!("its modules could not be fetched: {e}")))?;
        // Two builds at a time each make their own file; whoever is last takes the place.
        let being_built = folder.join(format!("{}.{}", wanted.name, std::process::id()));
        let mut build = self.go(&go, wanted.made_by);
        build.args(["-trimpath", "-ldflags", &self.linked, "-o"]).arg(&being_built);
        build.arg(wanted.package);
        manner.run(build).map_err(Unbuilt::Failed)?;
        let placed = fs::rename(&being_built, &built);
        placed.map_err(|e| Unbuilt::Failed(format!("{}: {e}", built.display())))?;
        Ok(built)
    }

    /// The folder of a module that this one is built with, in Go's cache of modules.
    ///
    /// # Errors
    /// Go is missing, or the module cannot be had.
    pub(super) fn dependency(&self, name: &str) -> Result<PathBuf, String> {
        let go = go::find()?;
        run(&mut self.go(&go, &["mod", "download", name]))?;
        let told = output(&mut self.go(&go, &["list", "-m", "-f", "{{.Dir}}", name]))?;
        Ok(PathBuf::from(told.trim()))
    }

    /// A call of go within the module. Without cgo a program needs no library, so that it runs in a container too.
    fn go(&self, go: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(go);
        command.args(arguments).current_dir(root().join(self.folder));
        command.env("CGO_ENABLED", "0").env("GOFLAGS", FLAGS);
        command
    }

    /// Changes with whatever the programs are built of. It names a folder of this machine only, so it need not
    /// be the same for every version of Rust.
    fn key(&self, module: &Path) -> Result<String, String> {
        let mut hasher = DefaultHasher::new();
        for file in ["go.mod", "go.sum"].iter().chain(self.sources) {
            let path = module.join(file);
            fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?.hash(&mut hasher);
        }
        (&self.linked, std::env::consts::ARCH).hash(&mut hasher);
        Ok(format!("{:016x}", hasher.finish()))
    }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Module;

    #[test]
    fn what_is_built_of_other_sources_is_another_program() {
        let folder = std::env::temp_dir().join(format!("xtask-go-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
        for file in ["go.mod", "go.sum", "main.go"] {
            write(file, "first");
        }
        let module =
            |linked: &str| Module { folder: "", sources: &["main.go"], linked: linked.to_owned() };
        let first = module("-s").key(&folder).unwrap();
        assert_eq!(module("-s").key(&folder).unwrap(), first, "nothing changed");
        assert_ne!(module("-w").key(&folder).unwrap(), first, "linked otherwise");
        write("main.go", "second");
        let second = module("-s").key(&folder).unwrap();
        assert_ne!(second, first, "another source");
        write("go.sum", "second");
        assert_ne!(module("-s").key(&folder).unwrap(), second, "other modules");
        fs::remove_file(folder.join("main.go")).unwrap();
        assert!(module("-s").key(&folder).unwrap_err().contains("main.go"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
