//! The end-to-end tests of Kubernetes mode, in a cluster's network.

use super::{
    cluster::{self, with_tools},
    folder::Folder,
    images,
    namespaces::Namespaces,
};
use crate::command::{self, program};

/// What is built, and then run: without a network nothing can be fetched. Of the whole workspace, as all tests are,
/// so that its libraries are built once and not with the features of some.
const TESTS: [&str; 5] = ["test", "--locked", "--workspace", "--test", "kube"];
/// The module of tests that run after all others: it takes away what they need.
const LAST: &str = "uninstall::";
/// Tests share one node of two cores.
const THREADS: &str = "--test-threads=2";

/// Which build is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    /// The one users run.
    Release,
    /// The one that is made quickly.
    Dev,
}

impl Build {
    /// The arguments of cargo that name it.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Dev => &[],
        }
    }

    /// Where its command is.
    pub(super) fn binary(self) -> &'static str {
        match self {
            Self::Release => "target/release/heddle",
            Self::Dev => "target/debug/heddle",
        }
    }
}

/// Builds Heddle and its tests, and runs those that `filters` name, or all.
///
/// # Errors
/// No cluster could be had, or a test failed.
pub(super) fn run(folder: &Folder, build: Build, filters: &[&str]) -> Result<(), String> {
    command::run(&mut program("cargo", &[&TESTS, build.arguments(), &["--no-run"]].concat()))?;
    let was_up = Namespaces::of(folder).is_some();
    cluster::up(folder)?;
    let tested = test(folder, build, filters);
    let ended = if was_up { Ok(()) } else { cluster::down(folder) };
    // What a test says comes before what the end of the cluster may say.
    tested.and(ended)
}

fn test(folder: &Folder, build: Build, filters: &[&str]) -> Result<(), String> {
    images::load_heddle(folder, build.binary())?;
    let namespaces = Namespaces::running(folder)?;
    let cargo = |filters: &[&str]| {
        let own = [&TESTS[..], build.arguments(), &["--"], filters, &[THREADS]].concat();
        command::run(with_tools(folder, &mut namespaces.in_network("cargo", &own)))
    };
    if !filters.is_empty() {
        return cargo(filters);
    }
    cargo(&["--skip", LAST])?;
    cargo(&[LAST])
}
