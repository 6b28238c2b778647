//! The one entry of continuous integration, the same on a laptop: each step in turn, the first that
//! fails ends the run.

use std::process::Stdio;

use crate::{
    command::{exists, program, run},
    deny,
    kube::Ahead,
    python, tidy,
    time::now,
};

/// Programs the tests use, with the Debian package that brings each.
const PROGRAMS: [(&str, &str); 12] = [
    ("curl", "curl"),
    ("nginx", "nginx"),
    ("node", "nodejs"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("prometheus", "prometheus"),
    ("chromium", "chromium"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("perl", "perl-base"),
    ("varnishd", "varnish"),
    // Debian's own interpreter, which need not be the first of the path, has grpcio there.
    ("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio"),
];

/// The same for what is no program but a module of Perl.
const PERL_MODULES: [(&str, &str); 1] = [("HTTP::Daemon", "libhttp-daemon-perl")];

/// A step's name and what it does.
type Step = (&'static str, fn() -> Result<(), String>);

/// Everything a change must pass, in this order. Before them comes what they need; after them what needs a
/// cluster, whose components are built meanwhile: that takes a quarter of an hour where they are not cached.
const STEPS: [Step; 7] = [
    ("fmt", || run(&mut program("cargo", &["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("deny", deny::run),
    ("clippy", clippy),
    ("docs", docs),
    ("tests", tests),
    ("ui", ui),
];

/// `cargo xtask ci`.
pub(crate) fn check_all() -> Result<(), String> {
    let mut times = Vec::new();
    timed("packages", &mut times, || packages().map(|()| python::fetch()))?;
    let cluster = Ahead::begin();
    for (name, step) in STEPS {
        timed(name, &mut times, step)?;
    }
    timed("kube", &mut times, || cluster.test())?;
    println!("\nci: all steps passed ({})", times.join(", "));
    Ok(())
}

fn timed(
    name: &str,
    times: &mut Vec<String>,
    step: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    println!("\n==> {name}");
    let start = now();
    step().map_err(|error| format!("step `{name}` failed: {error}"))?;
    times.push(format!("{name} {} s", (now() - start).as_secs()));
    Ok(())
}

/// Installs what the tests use and the machine lacks, where that is possible without asking.
fn packages() -> Result<(), String> {
    let programs = PROGRAMS.iter().filter(|(name, _)| !exists(name));
    let modules = PERL_MODULES.iter().filter(|(name, _)| !perl_has(name));
    let own = programs.chain(modules).map(|(_, package)| *package);
    let names: Vec<&str> = own.chain(Ahead::packages()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root || !exists("apt-get") {
        println!("missing: {}; the tests that use them will be skipped", names.join(", "));
        return Ok(());
    }
    run(program("apt-get", &["update", "-qq"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let arguments =
        [&["install", "-y", "-qq", "--no-install-recommends"], names.as_slice()].concat();
    run(program("apt-get", &arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null()))
}

fn perl_has(module: &str) -> bool {
    let tried =
        program("perl", &[&format!("-M{module}"), "-e", "1"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn clippy() -> Result<(), String> {
    let arguments =
        ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
    run(&mut program("cargo", &arguments))
}

fn docs() -> Result<(), String> {
    let arguments =
        ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"];
    run(program("cargo", &arguments)
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))
}

/// Unit, crate and end-to-end tests on one profile: the one users run.
fn tests() -> Result<(), String> {
    let mut tests = program("cargo", &["test", "--workspace", "--release", "--locked"]);
    if let Some(packages) = python::packages() {
        tests.env("PYTHONPATH", packages);
    }
    run(&mut tests)
}

fn ui() -> Result<(), String> {
    if !exists("npm") {
        println!("SKIPPED: the dashboard's tests need npm");
        return Ok(());
    }
    let npm = |arguments: &[&str]| {
        run(program("npm", arguments).current_dir(crate::command::root().join("ui")))
    };
    npm(&["ci", "--no-audit", "--no-fund"])?;
    npm(&["run", "typecheck"])?;
    npm(&["test"])
}
