//! The components built beside other work, so that a run of everything does not wait for them.

use std::{
    fs::{self, File},
    path::PathBuf,
    thread::{self, JoinHandle},
};

use super::{
    end_to_end::{self, Build},
    folder::{Folder, cache, make},
    go,
    module::{Manner, Unbuilt},
    needs, program,
};

/// Lines of a failed build's log that are shown.
const LAST_LINES: usize = 40;

/// A cluster's components on their way.
#[derive(Debug)]
pub(crate) struct Ahead {
    building: JoinHandle<Result<PathBuf, Unbuilt>>,
}

impl Ahead {
    /// Debian's packages that a cluster needs and the machine lacks.
    pub(crate) fn packages() -> Vec<&'static str> {
        needs::packages()
    }

    /// Begins the build, unless the machine cannot run a cluster anyway.
    pub(crate) fn begin() -> Self {
        Self { building: thread::spawn(build) }
    }

    /// Waits for the build, then tests in a cluster. What the machine lacks is said, and is no failure.
    ///
    /// # Errors
    /// The build or a test failed.
    pub(crate) fn test(self) -> Result<(), String> {
        let built = self.building.join().map_err(|_| "the build of the components panicked")?;
        match built {
            Ok(_) => end_to_end::run(&Folder::of("ci")?, Build::Release, &[]),
            Err(Unbuilt::Lacking(what)) => {
                println!("SKIPPED: the tests in a real Kubernetes: {what}");
                Ok(())
            }
            Err(Unbuilt::Failed(why)) => Err(format!("{why}\n{}", last_lines())),
        }
    }
}

fn build() -> Result<PathBuf, Unbuilt> {
    needs::check().map_err(Unbuilt::Lacking)?;
    go::get().map_err(Unbuilt::Lacking)?;
    let log =
        log().and_then(|path| File::create(&path).map_err(|e| format!("{}: {e}", path.display())));
    program::build(&Manner::Beside(log.map_err(Unbuilt::Failed)?))
}

fn log() -> Result<PathBuf, String> {
    let cache = cache()?;
    make(&cache)?;
    Ok(cache.join("build.log"))
}

fn last_lines() -> String {
    let text = log().ok().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
