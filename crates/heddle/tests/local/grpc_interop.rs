//! gRPC's own interop client and server (the Go ones) through the mesh: every case that holds between the
//! two of them holds with sidecars between.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use crate::{
    host::{Machine, User, skip},
    tools::installed,
};

/// Every case that the Go programs offer without a cloud around them. `pick_first_unary` and those of ORCA
/// fail between the two alone, since this server does not offer what they ask for.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
];

/// Runs the cases in turn and prints how each went.
const SCRIPT: &str = "
for case in \"$@\"; do
  if timeout 60 $CLIENT --server_host interop --server_port 10000 --test_case $case >$CLIENT.log 2>&1
  then echo ok $case
  else echo failed $case: $(tail -n 1 $CLIENT.log)
  fi
done
";

/// Builds one of the programs, once for all runs; `None` where that cannot be done.
fn build(name: &str, machine: &Machine) -> Option<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(target.join(format!("interop-{name}")));
    build.arg(format!("google.golang.org/grpc/interop/{name}"));
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/local/grpc_interop"));
    build.env("GOCACHE", target.join("go")).env("GOMODCACHE", target.join("go-modules"));
    build
        .env("GOFLAGS", "-mod=mod -modcacherw")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0");
    let built = build.output().unwrap();
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr);
        // An older Go, or no way to the modules: the programs are missing as any other may be.
        skip(&format!("gRPC's interop programs cannot be built: {why}"));
        return None;
    }
    let copy = machine.dir.join(name);
    fs::copy(target.join(format!("interop-{name}")), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    Some(copy)
}

#[test]
fn every_case_that_holds_between_the_two_holds_through_the_mesh_declared_or_not() {
    if !User::Root.is_possible() || !installed("go") {
        return;
    }
    let machine = Machine::new(User::Root);
    let (Some(client), Some(server)) = (build("client", &machine), build("server", &machine))
    else {
        return;
    };
    let server = server.to_str().unwrap();
    for (name, port) in [("interopdeclared", "grpc:10000"), ("interopfound", "10000")] {
        let mesh = machine.up(name);
        let words = ["--port", port, "--", server, "--port", "10000"];
        let _server = mesh.start_ready("interop", &words);
        let script = format!("CLIENT={}\n{SCRIPT}", client.display());
        let words = [&["sh", "-c", &script, "sh"][..], &CASES].concat();
        let tried = mesh.client(&words);
        let wanted: String = CASES.iter().map(|case| format!("ok {case}\n")).collect();
        assert_eq!(tried.stdout, wanted, "{port}: {}", tried.stderr);
    }
}
