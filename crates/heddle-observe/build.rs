//! Builds the dashboard (`ui/`) with npm into `OUT_DIR/ui`, where `src/assets.rs` embeds it from.
//!
//! The sources are copied first: nothing is ever written into the source tree. Where the dashboard
//! cannot be built – no npm, no network on the first build, an old Node – the crate is built all the
//! same, with a page that says what is missing; the JSON API does not depend on any of this.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// What the dashboard is built from, relative to `ui/`. Tests and what npm installs are not in it.
const SOURCES: [&str; 7] = [
    "package.json",
    "package-lock.json",
    ".npmrc",
    "tsconfig.json",
    "vite.config.js",
    "index.html",
    "src",
];
/// Lines of a failed command that are shown.
const REASON_LINES: usize = 12;

fn main() {
    let ui = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../ui");
    let out = PathBuf::from(variable("OUT_DIR"));
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", ui.join(source).display());
    }
    let pages = out.join("ui");
    if let Err(reason) = build(&ui, &out.join("ui-build"), &pages) {
        // Tried again when programs appear; a finished one does not depend on the path.
        println!("cargo::rerun-if-env-changed=PATH");
        let first = reason.lines().next().unwrap_or_default();
        println!("cargo::warning=the dashboard is not in this build: {first}");
        println!(
            "cargo::warning=install Node 20.19 or newer with npm, then: touch ui/package.json"
        );
        placeholder(&pages, &reason).expect("OUT_DIR can be written");
    }
}

fn variable(name: &str) -> String {
    env::var(name).expect("cargo sets it for build scripts")
}

/// Copies, installs, builds; the reason in words where one of these fails.
fn build(ui: &Path, work: &Path, pages: &Path) -> Result<(), String> {
    let copied = SOURCES.iter().try_for_each(|name| replace(&ui.join(name), &work.join(name)));
    copied
        .map_err(|error| format!("cannot copy {} to {}: {error}", ui.display(), work.display()))?;
    install(work)?;
    let vite = work.join("node_modules/vite/bin/vite.js");
    let mut node = Command::new("node");
    node.arg(vite).args(["build", "--logLevel", "warn", "--emptyOutDir", "--outDir"]).arg(pages);
    run(node.current_dir(work), "node")
}

/// Installs exactly what the lockfile says, unless that is done already.
fn install(work: &Path) -> Result<(), String> {
    let lock = work.join("package-lock.json");
    let done = work.join("installed.json");
    let wanted = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    if fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    // No package's own scripts run; a machine without network is told so soon.
    npm.args(["ci", "--omit=dev", "--ignore-scripts", "--prefer-offline", "--no-audit"]);
    npm.args(["--no-fund", "--loglevel=error", "--fetch-retries=1"]);
    npm.args(["--fetch-retry-mintimeout=500", "--fetch-timeout=60000"]);
    run(npm.current_dir(work), "npm")?;
    fs::write(&done, wanted).map_err(|error| format!("{}: {error}", done.display()))
}

fn run(command: &mut Command, program: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("cannot start {program}: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = said.iter().take(REASON_LINES).copied().collect::<Vec<_>>().join("\n");
    Err(format!("{program} ended with {}\n{shown}", output.status))
}

/// Makes `to` a copy of `from`, a file or a folder; what is gone from a folder goes from its copy.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        return fs::copy(from, to).map(drop);
    }
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        replace(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The page of a build without the dashboard.
fn placeholder(pages: &Path, reason: &str) -> io::Result<()> {
    if pages.exists() {
        fs::remove_dir_all(pages)?;
    }
    fs::create_dir_all(pages)?;
    let reason = reason.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Heddle</title>\n\
         <h1>The dashboard is not in this build</h1>\n\
         <p>Heddle was built without its web page:</p>\n<pre>{reason}</pre>\n\
         <p>Install Node 20.19 or newer with npm and build again \
         (<code>touch ui/package.json; cargo build --release</code>); the first build needs the network.</p>\n\
         <p>Everything else works. The same numbers: <code>heddle top</code>, <code>heddle graph</code>, \
         <a href=\"/api/v1/graph\">/api/v1/graph</a>, <a href=\"/api/v1/services\">/api/v1/services</a>.</p>\n\
         </html>\n"
    );
    fs::write(pages.join("index.html"), page)
}
