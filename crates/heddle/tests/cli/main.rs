//! What can be typed wrongly, and what is said then: no mesh is needed or touched.
#![expect(
    clippy::unwrap_used,
    reason = "a test says best what it expected by failing there; skips are told"
)]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// A folder of meshes that is empty, so that no mesh of the machine's user is seen.
struct NoMeshes(PathBuf);

impl NoMeshes {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("heddle-cli-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn heddle(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heddle"))
            .args(words)
            .env("HEDDLE_RUNTIME_DIR", self.0.join("run"))
            .output()
            .unwrap()
    }

    /// Exit code and standard error of a command that must not print to standard output.
    fn refused(&self, line: &str) -> (i32, String) {
        let output = self.heddle(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{line}: {said}");
        (output.status.code().unwrap(), said)
    }
}

impl Drop for NoMeshes {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn wrong_flags_exit_with_2_and_name_what_would_be_right() {
    let machine = NoMeshes::new("flags");
    for (line, says) in [
        ("run --servce web -- true", "--service"),
        ("run --service web", "<CMD>"),
        ("run --service web curl x", "-- <CMD>"),
        ("run --service Web -- true", "a-z, 0-9"),
        ("run --service web_1 -- true", "a-z, 0-9"),
        ("run --service web --namespace a.b -- true", "--namespace"),
        ("run --service web --port 0 -- true", "1 to 65535"),
        ("run --service web --port 70000 -- true", "1 to 65535"),
        ("run --service web --port 15006 -- true", "15000 to 15090"),
        ("run --service web --host-port 15000 -- true", "15000 to 15090"),
        ("run --service web --port a_b:80 -- true", "[NAME:]NUMBER"),
        ("run --service web --port 80 --protocol htp -- true", "http, http2"),
        ("run --service web --protocol http -- true", "--port"),
        ("run --service web --port 80 --port 80 -- true", "--port 80 is given twice"),
        ("run --service web --port redis:80 --protocol http -- true", "--protocol says http"),
        ("run --service web --publish 8080 -- true", "[ADDR:]HOSTPORT:PORT"),
        ("run --service web --publish 8080:80 -- true", "add --port 80"),
        ("run --service web --label tier -- true", "KEY=VALUE"),
        ("run --service web --label app=x -- true", "--service"),
        ("run --service web --version a/b -- true", "label value"),
        ("up --mesh My_Mesh", "a-z, 0-9"),
        ("up --dashboard 8080", "ADDR:PORT"),
        ("up --colour blue", "--colour"),
        ("apply", "--filename"),
        ("apply -f x.yaml --timeout soon", "500ms"),
        ("get elephants", "virtualservice"),
        ("get all x", "get KIND NAME"),
        ("delete", "-f FILE"),
        ("delete vs", "<NAME>"),
        ("delete deployments x", "no kind of rule"),
        ("top --output yaml", "text, json"),
        ("top --interval 0", "100 ms or more"),
        ("demo --rate nan", "0.1 to 2000"),
        ("wait --generation minus", "--generation"),
        ("unknown", "unrecognized subcommand"),
    ] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(says), "{line} should say `{says}`:\n{said}");
    }
}

#[test]
fn without_a_mesh_every_command_says_how_to_start_one() {
    let machine = NoMeshes::new("none");
    for line in [
        "run --service web -- true",
        "get",
        "delete vs reviews",
        "wait",
        "status",
        "proxy-status",
        "dashboard",
        "down",
        "top --once",
        "graph",
    ] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 1, "{line}: {said}");
        assert!(said.contains("heddle up"), "{line}: {said}");
        let (code, said) = machine.refused(&line.replacen(' ', " --mesh shop ", 1));
        if line.contains(' ') {
            assert_eq!(code, 1, "{line}: {said}");
            assert!(said.contains("heddle up --mesh shop"), "{line}: {said}");
        }
    }
}

#[test]
fn a_command_that_cannot_be_run_is_refused_as_a_shell_does() {
    let machine = NoMeshes::new("program");
    let (code, said) = machine.refused("run --service web -- no-such-program --flag");
    assert_eq!(code, 127, "{said}");
    assert!(said.contains("no-such-program"), "{said}");
    let (code, said) = machine.refused("run --service web -- /etc/passwd");
    assert_eq!(code, 126, "{said}");
    assert!(said.contains("not executable"), "{said}");
}

#[test]
fn files_that_cannot_be_applied_are_named() {
    let machine = NoMeshes::new("files");
    let (code, said) = machine.refused("apply -f /nonexistent.yaml");
    assert_eq!((code, said.contains("/nonexistent.yaml")), (1, true), "{said}");
    let empty = machine.0.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    let (code, said) = machine.refused(&format!("apply -f {}", empty.display()));
    assert_eq!((code, said.contains("holds no .yaml")), (1, true), "{said}");
    let binary = machine.0.join("binary.yaml");
    std::fs::write(&binary, [0x61, 0xff]).unwrap();
    let (code, said) = machine.refused(&format!("apply -f {}", binary.display()));
    assert_eq!((code, said.contains("no UTF-8 text (at byte 1)")), (1, true), "{said}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let machine = NoMeshes::new("help");
    for (line, says) in [
        ("--help", "heddle <COMMAND>"),
        ("run --help", "--publish"),
        ("help apply", "--dry-run"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("version -o json", "\"version\""),
    ] {
        let output = machine.heddle(&line.split_whitespace().collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}");
        assert!(said.contains(says), "{line}: {said}");
    }
    let help = String::from_utf8(machine.heddle(&["--help"]).stdout).unwrap();
    for hidden in ["holder", "netns-op", "  proxy ", "  app "] {
        assert!(!help.contains(hidden), "{hidden} is nobody's to type:\n{help}");
    }
}

#[test]
fn the_parts_of_a_mesh_refuse_to_be_started_by_hand() {
    let machine = NoMeshes::new("parts");
    for line in [
        "netns-op",
        "proxy --config /nonexistent.json",
        "holder --mesh x --state-dir /nonexistent --dashboard 127.0.0.1:0",
    ] {
        let (code, said) = machine.refused(line);
        assert_eq!(code, 1, "{line}: {said}");
    }
}

#[test]
fn a_folder_of_meshes_that_is_not_ours_is_refused() {
    let machine = NoMeshes::new("owner");
    std::fs::write(machine.0.join("run"), "a file").unwrap();
    let (code, said) = machine.refused("status");
    assert_eq!((code, said.contains("must be a folder")), (1, true), "{said}");
}
