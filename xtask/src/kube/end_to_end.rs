//! The end-to-end tests of Kubernetes mode, in a cluster's network.

use super::{
    cluster::{self, with_tools},
    folder::Folder,
    images,
    namespaces::Namespaces,
    node::Families,
};
use crate::command::{self, program};

/// What is built, and then run: without a network nothing can be fetched. Of the whole workspace, as all tests are,
/// so that its libraries are built once and not with the features of some.
const TESTS: [&str; 5] = ["test", "--locked", "--workspace", "--test", "kube"];
/// Modules of tests that run after all others, one by one: the API server or the control plane goes away, without which
/// no other test can go on; a second mesh, beside which commands have to be told which one is meant; and the end of all,
/// which takes away what the others need.
const LAST: [&str; 3] = ["outages::", "revisions::", "uninstall::"];
/// The module of tests that need both address families.
const DUAL: &str = "dual_stack::";
/// Tests share one node of two cores.
const TOGETHER: &str = "--test-threads=2";
/// What a test does to the whole cluster is seen by all others.
const ALONE: &str = "--test-threads=1";

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
    let is_dual = |filter: &&str| DUAL.starts_with(*filter) || filter.starts_with(DUAL);
    let (dual, others): (Vec<&str>, Vec<&str>) = filters.iter().copied().partition(is_dual);
    if filters.is_empty() || !others.is_empty() {
        in_cluster(folder, Families::Ipv4, |folder| test(folder, build, &others))?;
    }
    if filters.is_empty() || !dual.is_empty() {
        let own = Folder::of(&format!("{}-dual", folder.name()))?;
        in_cluster(&own, Families::Both, |folder| test(folder, build, &[DUAL]))?;
    }
    Ok(())
}

/// In a cluster that is started, and ended afterwards, unless it runs.
fn in_cluster(
    folder: &Folder,
    families: Families,
    test: impl FnOnce(&Folder) -> Result<(), String>,
) -> Result<(), String> {
    let was_up = Namespaces::of(folder).is_some();
    cluster::up(folder, families)?;
    let tested = test(folder);
    let ended = if was_up { Ok(()) } else { cluster::down(folder) };
    // What a test says comes before what the end of the cluster may say.
    tested.and(ended)
}

fn test(folder: &Folder, build: Build, filters: &[&str]) -> Result<(), String> {
    images::load_heddle(folder, build.binary())?;
    let namespaces = Namespaces::running(folder)?;
    let cargo = |filters: &[&str], threads: &str| {
        let own = [&TESTS[..], build.arguments(), &["--"], filters, &[threads]].concat();
        command::run(with_tools(folder, &mut namespaces.in_network("cargo", &own)))
    };
    if !filters.is_empty() {
        let alone = filters.iter().any(|filter| LAST.iter().any(|last| filter.starts_with(last)));
        return cargo(filters, if alone { ALONE } else { TOGETHER });
    }
    let apart = LAST.into_iter().chain([DUAL]).flat_map(|module| ["--skip", module]);
    cargo(&apart.collect::<Vec<_>>(), TOGETHER)?;
    LAST.iter().try_for_each(|module| cargo(&[module], ALONE))
}
