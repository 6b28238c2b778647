//! A whole sidecar process in a network namespace of its own, behind real redirection, with a
//! control plane driven by hand: ready, DNS, a call through itself, metrics, an outage, a restart
//! from the saved set, the end. And the same in a pod: by user, over TLS.
//!
//! A test without a harness, because a sidecar takes its signals over before it has a second
//! thread. The binary starts itself in further roles: `world`, `pod` and `kept callers` (inside the namespace:
//! network, control plane, application, client), `callers` (in another one) and `sidecar`.

#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]
#![expect(clippy::print_stdout, reason = "without a harness this is how a test says what it did")]

mod callers;
mod pod;
mod world;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use heddle_runtime::{
    capability::Privileges,
    ns::{Mode, Namespaces},
    spawn::SpawnOptions,
};
use heddle_testkit::folder::Folder;

/// Names the role of a process started by this test.
const ROLE: &str = "HEDDLE_TEST_ROLE";
/// Names its folder.
const FOLDER: &str = "HEDDLE_TEST_FOLDER";

fn main() {
    match env::var(ROLE).as_deref() {
        Ok("world") => world::run(&folder()),
        Ok("pod") => pod::run(&folder()),
        Ok("kept callers") => callers::run(&folder()),
        Ok("callers") => callers::callers(),
        Ok("sidecar") => sidecar(),
        _ => {
            test("world");
            // Its sidecar has another user, and in a user namespace there is one only.
            match matches!(Mode::of_caller(), Mode::Root) {
                true => ["pod", "kept callers"].into_iter().for_each(test),
                false => {
                    println!("SKIPPED: the sidecar of a pod needs another user: run it as root")
                }
            }
        }
    }
}

fn folder() -> PathBuf {
    env::var_os(FOLDER).expect("a folder").into()
}

fn test(role: &str) {
    let namespaces = match Namespaces::create(Mode::of_caller()) {
        Ok(namespaces) => namespaces,
        Err(error) => {
            println!("SKIPPED: no network namespace can be made here: {error}");
            return;
        }
    };
    let folder = Folder::new("sidecar");
    let command = again(role, folder.path());
    let mut options = SpawnOptions::new();
    options.namespaces(&namespaces).unwrap();
    options.privileges(Privileges::All);
    let status = options.spawn(command).unwrap().wait().unwrap();
    if !status.success() {
        let log = fs::read_to_string(folder.join("proxy.log")).unwrap_or_default();
        println!("the sidecar's log:\n{log}");
    }
    assert!(status.success(), "{status}");
}

/// This binary in another role.
fn again(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(ROLE, role).env(FOLDER, folder);
    command
}

fn sidecar() {
    let text = fs::read_to_string(folder().join("proxy.json")).unwrap();
    let config = serde_json::from_str(&text).unwrap();
    if let Err(error) = heddle_proxy::run(config) {
        panic!("{error}");
    }
}
