//! The Gateway API's conformance suite against an installed Heddle: `cargo xtask conformance`.
//!
//! Suite and applications are built from their Go modules (`tests/conformance`); which features are claimed stands
//! in its `options.yaml`, and what the suite reports goes to `docs/conformance`.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    certificates,
    cluster::{self, with_tools},
    end_to_end::Build,
    folder::{Folder, make},
    images::{self, HEDDLE_IMAGE},
    kubectl::kubectl,
    module::{Manner, Module, Program},
    namespaces::Namespaces,
    node::Families,
};
use crate::command::{output, program, root, run};

/// What `cargo xtask conformance --help` prints.
const USAGE: &str = "\
cargo xtask conformance [--dev] [--name CLUSTER] [--test NAME] [--report FILE]

Runs the Gateway API's conformance suite for meshes (MESH-HTTP, MESH-GRPC) in a cluster of `cargo xtask kube`, against
the Heddle built here. The cluster is started, and ended afterwards, unless it runs; in one that runs the mesh stays
installed. Needs root, Go and what `cargo xtask kube up` needs; nothing is pulled from a registry of images.

  --dev            of the build that is made quickly
  --name CLUSTER   which of several clusters [default: heddle]
  --test NAME      one test of the suite only, as `MeshTrafficSplit`; no report is written
  --report FILE    where the suite writes its report [default: docs/conformance/report.yaml]

What is claimed stands in tests/conformance/options.yaml.";
/// The folder of suite and applications.
const FOLDER: &str = "tests/conformance";
/// What is claimed, in the suite's own words.
const OPTIONS: &str = "tests/conformance/options.yaml";
/// Where the report goes.
const REPORT: &str = "docs/conformance/report.yaml";
/// The suite.
const SUITE: Program = Program {
    name: "suite",
    made_by: &["test", "-c"],
    package: ".",
    what: "the conformance suite",
    takes: "once; 5 minutes on two cores",
};
/// The application that is called.
const SERVER: Program = Program {
    name: "server",
    made_by: &["build"],
    package: "istio.io/istio/pkg/test/echo/cmd/server",
    what: "the suite's server",
    takes: "once; 5 minutes on two cores",
};
/// The program in the same image that calls.
const CLIENT: Program = Program {
    name: "client",
    made_by: &["build"],
    package: "istio.io/istio/pkg/test/echo/cmd/client",
    what: "the suite's client",
    takes: "once; seconds after the server",
};
/// Whose definitions of kinds are installed, and whose manifests name the images.
const API: &str = "sigs.k8s.io/gateway-api";
/// The suite's module.
const SUITE_MODULE: &str = "sigs.k8s.io/gateway-api/conformance";
/// The image of the applications without its tag.
const ECHO: &str = "registry.k8s.io/gateway-api/echo-advanced:";
/// What of the installed mesh decides.
const CONTROL_PLANE: [&str; 2] = ["deployment/heddle-control", "--namespace=heddle-system"];
/// Takes away the suite's namespaces, and waits until they have gone.
const LEFT_OVER: [&str; 6] = [
    "delete",
    "namespace",
    "--selector=gateway-conformance",
    "--wait",
    "--timeout=3m",
    "--ignore-not-found",
];
/// What a container of it starts.
const ECHO_ENTRYPOINT: &[&str] = &["/usr/local/bin/server"];
/// What the suite says, which is a lot.
const LOG: &str = "target/conformance.log";
/// Longest run of the suite.
const LONGEST: &str = "30m";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    build: Build,
    cluster: &'a str,
    test: Option<&'a str>,
    report: &'a str,
}

/// `cargo xtask conformance`.
///
/// # Errors
/// What is missing on this machine and how to get it, or that tests of the suite failed.
pub(crate) fn run_suite(words: &[&str]) -> Result<(), String> {
    if matches!(words, ["help" | "--help" | "-h"]) {
        println!("{USAGE}");
        return Ok(());
    }
    let asked = Asked::read(words)?;
    let folder = Folder::of(asked.cluster)?;
    // Of the whole workspace, as its tests are, so that libraries are not built again with the features of some.
    let build = ["build", "--locked", "--workspace", "--bin", "heddle"];
    run(&mut program("cargo", &[&build, asked.build.arguments()].concat()))?;
    let module = module();
    let programs = Programs {
        suite: module.build(&SUITE, &Manner::Awaited)?,
        server: module.build(&SERVER, &Manner::Awaited)?,
        client: module.build(&CLIENT, &Manner::Awaited)?,
    };
    let was_up = Namespaces::of(&folder).is_some();
    cluster::up(&folder, Families::Ipv4)?;
    let tested = prepare(&folder, &asked, &module, &programs)
        .and_then(|()| if was_up { restart(&folder) } else { Ok(()) })
        .and_then(|()| test(&folder, &asked, &programs.suite));
    let ended = if was_up { Ok(()) } else { cluster::down(&folder) };
    // What the suite says comes before what the end of the cluster may say.
    tested.and(ended)
}

/// The programs that were built.
#[derive(Debug)]
struct Programs {
    suite: PathBuf,
    server: PathBuf,
    client: PathBuf,
}

/// The module of suite and applications.
fn module() -> Module {
    Module { folder: FOLDER, sources: &["conformance_test.go"], linked: "-s -w".to_owned() }
}

/// Images, kinds and the mesh, in a cluster that runs.
fn prepare(
    folder: &Folder,
    asked: &Asked<'_>,
    module: &Module,
    programs: &Programs,
) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    images::load_heddle(folder, asked.build.binary())?;
    let manifest = module.dependency(SUITE_MODULE)?.join("mesh/manifests.yaml");
    load_echo(folder, &echo_image(&manifest)?, programs)?;
    // Before the mesh is installed, which defines those that are missing in its own, looser way.
    let kinds = module.dependency(API)?.join("config/crd/standard");
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename"];
    run(kubectl(folder, &namespaces, &apply).arg(&kinds))?;
    // An earlier run takes its namespaces away without waiting, and one that was killed leaves them.
    run(&mut kubectl(folder, &namespaces, &LEFT_OVER))?;
    let heddle = root().join(asked.build.binary()).to_string_lossy().into_owned();
    let install = ["install", "--image", HEDDLE_IMAGE, "--image-pull-policy", "Never"];
    run(with_tools(folder, &mut namespaces.in_network(&heddle, &install)))
}

/// A control plane that ran before is of an earlier image of the same name.
fn restart(folder: &Folder) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    for what in [&["restart"][..], &["status", "--timeout=3m"]] {
        let rollout = [&["rollout"], what, &CONTROL_PLANE].concat();
        run(&mut kubectl(folder, &namespaces, &rollout))?;
    }
    Ok(())
}

/// Makes and loads the image of the applications.
fn load_echo(folder: &Folder, image: &str, programs: &Programs) -> Result<(), String> {
    let own = folder.at("echo");
    make(&own)?;
    certificates::make_for_itself(&own, "echo", "echo.key", "echo.crt")?;
    let (certificate, key) = (own.join("echo.crt"), own.join("echo.key"));
    // Whoever the container runs as reads it.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))
        .map_err(|e| format!("{}: {e}", key.display()))?;
    let files = [
        (programs.server.as_path(), "usr/local/bin/server"),
        (programs.client.as_path(), "usr/local/bin/client"),
        (certificate.as_path(), "cert.crt"),
        (key.as_path(), "cert.key"),
    ];
    images::load_application(folder, image, ECHO_ENTRYPOINT, &files)
}

/// The one image that the suite's manifest of a mesh names.
fn echo_image(manifest: &Path) -> Result<String, String> {
    let text = fs::read_to_string(manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    let images = images_of(&text);
    match images.iter().collect::<Vec<_>>().as_slice() {
        [one] if one.starts_with(ECHO) => Ok((*one).to_string()),
        other => Err(format!(
            "{}: names the images {other:?}, where one `{ECHO}…` was expected: what else it needs has to be made here",
            manifest.display()
        )),
    }
}

/// The images that containers of a manifest are made of.
fn images_of(manifest: &str) -> BTreeSet<&str> {
    let lines = manifest.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix("image:")).map(str::trim).collect()
}

/// Runs the suite in the cluster's network, and says what became of each test.
fn test(folder: &Folder, asked: &Asked<'_>, suite: &Path) -> Result<(), String> {
    let namespaces = Namespaces::running(folder)?;
    let heddle = root().join(asked.build.binary()).to_string_lossy().into_owned();
    let told = output(&mut program(&heddle, &["version"]))?;
    let version = told.split_whitespace().last().unwrap_or_default();
    let mut command = namespaces.in_network(&suite.to_string_lossy(), &[]);
    command.args(["-test.v", "-test.run=TestConformance", &format!("-test.timeout={LONGEST}")]);
    command.arg(format!("--conformance-options-file={}", root().join(OPTIONS).display()));
    command.arg(format!("--version=v{version}"));
    match asked.test {
        Some(test) => command.arg(format!("--run-test={test}")),
        None => command.arg(format!("--report-output={}", root().join(asked.report).display())),
    };
    let log = root().join(LOG);
    let said = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let errors = said.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
    println!("the suite runs; what it says goes to {LOG}");
    let ended = run(with_tools(folder, command.stdout(said).stderr(errors)));
    let said = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let outcome = Outcome::of(&String::from_utf8_lossy(&said));
    print!("{outcome}");
    outcome.verdict(ended)?;
    if asked.test.is_none() {
        println!("the report is {}", asked.report);
    }
    Ok(())
}

/// What became of the suite's tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: Vec<String>,
    failed: Vec<String>,
    /// Tests of features that are not claimed, and all others where one was asked for.
    skipped: usize,
}

impl Outcome {
    /// Reads what the suite said; parts of tests are told with the tests themselves.
    fn of(log: &str) -> Self {
        let mut outcome = Self::default();
        for line in log.lines() {
            let Some((verdict, rest)) =
                line.trim_start().strip_prefix("--- ").and_then(|line| line.split_once(": "))
            else {
                continue;
            };
            let path = rest.split(' ').next().unwrap_or_default();
            let Some(name) = path.split_once('/').map(|(_, name)| name) else { continue };
            match verdict {
                _ if name.contains('/') => {}
                "PASS" => outcome.passed.push(name.to_owned()),
                "FAIL" => outcome.failed.push(name.to_owned()),
                _ => outcome.skipped += 1,
            }
        }
        outcome
    }

    /// Is all well? `ended` is how the suite's process ended.
    fn verdict(&self, ended: Result<(), String>) -> Result<(), String> {
        match (self.failed.len(), self.passed.len(), ended) {
            (0, 0, _) => Err(format!("no test of the suite ran: the end of {LOG} says why")),
            (0, _, Ok(())) => Ok(()),
            // A time that is over, or a report that cannot be written.
            (0, _, Err(error)) => Err(format!("{error}: the end of {LOG} says why")),
            (failed, _, _) => Err(format!("{failed} of the suite's tests failed: {LOG} says why")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed.iter().map(|name| ("passed", name));
        for (verdict, name) in passed.chain(self.failed.iter().map(|name| ("FAILED", name))) {
            writeln!(out, "{verdict}  {name}")?;
        }
        let (passed, failed) = (self.passed.len(), self.failed.len());
        let skipped = self.skipped;
        writeln!(out, "{passed} passed, {failed} failed, {skipped} not claimed or not asked for")
    }
}

impl<'a> Asked<'a> {
    fn read(words: &[&'a str]) -> Result<Self, String> {
        let mut asked =
            Self { build: Build::Release, cluster: "heddle", test: None, report: REPORT };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || match words.next() {
                Some(value) if !value.starts_with('-') => Ok(*value),
                _ => Err(format!("`{word}` needs a value\n\n{USAGE}")),
            };
            match *word {
                "--dev" => asked.build = Build::Dev,
                "--name" => asked.cluster = value()?,
                "--test" => asked.test = Some(value()?),
                "--report" => asked.report = value()?,
                other => return Err(format!("`conformance {other}` is no option\n\n{USAGE}")),
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Asked, Build, OPTIONS, Outcome, echo_image, images_of, root};

    #[test]
    fn options_are_read_in_any_order_and_an_unknown_one_is_named() {
        let asked = Asked::read(&["--test", "MeshBasic", "--dev", "--name", "two"]).unwrap();
        assert_eq!(
            (asked.build, asked.cluster, asked.test),
            (Build::Dev, "two", Some("MeshBasic"))
        );
        assert_eq!(Asked::read(&[]).unwrap().build, Build::Release);
        assert!(Asked::read(&["--fast"]).unwrap_err().contains("`conformance --fast`"));
        assert!(Asked::read(&["--test"]).unwrap_err().contains("`--test` needs a value"));
        assert!(Asked::read(&["--name", "--dev"]).unwrap_err().contains("`--name` needs a value"));
    }

    #[test]
    fn the_images_of_a_manifest_are_found_whatever_comes_first() {
        let manifest = "containers:\n  - image: a:1\n    name: x\n  - name: y\n    image: b:2\n  - image: a:1\n";
        assert_eq!(images_of(manifest).into_iter().collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn an_image_that_nobody_makes_is_an_error_that_names_it() {
        let file =
            std::env::temp_dir().join(format!("xtask-conformance-{}.yaml", std::process::id()));
        fs::write(&file, "image: registry.k8s.io/gateway-api/echo-advanced:v9\n").unwrap();
        assert_eq!(echo_image(&file).unwrap(), "registry.k8s.io/gateway-api/echo-advanced:v9");
        fs::write(&file, "image: other.example/x:1\n").unwrap();
        assert!(echo_image(&file).unwrap_err().contains("other.example/x:1"));
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_became_of_tests_is_read_without_their_parts() {
        let log = "=== RUN   TestConformance\n--- FAIL: TestConformance (2.00s)\n    \
                   --- PASS: TestConformance/MeshBasic (0.26s)\n        \
                   --- PASS: TestConformance/MeshBasic/0_request (0.26s)\n    \
                   --- FAIL: TestConformance/MeshPorts (1.07s)\n    \
                   --- SKIP: TestConformance/UDPRoute (0.00s)\nFAIL\n";
        let outcome = Outcome::of(log);
        assert_eq!(
            (&outcome.passed[..], &outcome.failed[..]),
            (&["MeshBasic".to_owned()][..], &["MeshPorts".to_owned()][..])
        );
        let told = outcome.to_string();
        assert!(told.ends_with("1 passed, 1 failed, 1 not claimed or not asked for\n"), "{told}");
    }

    #[test]
    fn all_is_well_only_if_tests_ran_and_none_failed_and_the_suite_ended_well() {
        let of = |log: &str, ended: Result<(), String>| Outcome::of(log).verdict(ended);
        let (passed, failed) = ("--- PASS: T/A (0.1s)\n", "--- FAIL: T/B (0.1s)\n");
        assert_eq!(of(passed, Ok(())), Ok(()));
        let over = of(passed, Err("exit status: 2".to_owned())).unwrap_err();
        assert!(over.starts_with("exit status: 2"), "{over}");
        for ended in [Ok(()), Err("exit status: 1".to_owned())] {
            let told = of(&[passed, failed].concat(), ended).unwrap_err();
            assert!(told.starts_with("1 of the suite's tests failed"), "{told}");
        }
        let nothing = of("--- SKIP: T/A (0.0s)\nPASS\n", Ok(())).unwrap_err();
        assert!(nothing.starts_with("no test of the suite ran"), "{nothing}");
    }

    #[test]
    fn no_feature_is_claimed_twice() {
        let text = fs::read_to_string(root().join(OPTIONS)).unwrap();
        let claimed: Vec<_> = text
            .lines()
            .skip_while(|line| *line != "supportedFeatures:")
            .filter_map(|line| line.strip_prefix("  - "))
            .collect();
        let mut once = claimed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), claimed.len());
    }
}
