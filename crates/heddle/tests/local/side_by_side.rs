//! Programs without the mesh and within it: what a client prints, and what its server tells it of what it
//! saw, is the same both times. Without the mesh both run in one workload and meet on its loopback, which
//! is never redirected. The programs are in the files beside this one.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{
    as_both_users,
    host::{Finished, Machine, Mesh, skip, wait_until},
    tools::{installed, nginx_conf},
};

as_both_users!(
    clients_that_leave_without_a_word_hold_up_no_server_of_one_thread,
    gos_client_sees_the_same,
    javas_client_sees_the_same,
    varnish_passes_on_a_stream_of_any_number_of_chunks,
    a_peer_that_says_its_protocols_name_and_waits_is_answered_at_once,
);

/// Runs the commands its arguments name, which `--` divides: all but the last in the background, each once
/// the one before it listens on its port, which is its first word.
const ALONE: &str = r"
import os, socket, subprocess, sys, time
commands = [[]]
for word in sys.argv[1:]:
    commands.append([]) if word == '--' else commands[-1].append(word)
for port, *command in commands[:-1]:
    subprocess.Popen(command, stdout=sys.stderr)
    while True:
        try: socket.create_connection(('127.0.0.1', int(port))).close(); break
        except ConnectionRefusedError: time.sleep(0.02)
os.execvp(commands[-1][0], commands[-1])
";

/// What a client gets from servers (by port) beside it, with no sidecar in between.
fn alone(mesh: &Mesh<'_>, servers: &[(&str, &[&str])], client: &[&str]) -> Finished {
    let mut words = vec!["--", "python3", "-c", ALONE];
    for (port, server) in servers {
        words.push(port);
        words.extend_from_slice(server);
        words.push("--");
    }
    words.extend_from_slice(client);
    mesh.start("alone", &words).finish()
}

fn same(alone: &Finished, within: &Finished) {
    assert_eq!(alone.code, 0, "{}{}", alone.stdout, alone.stderr);
    assert_eq!(
        (within.code, within.stdout.as_str()),
        (alone.code, alone.stdout.as_str()),
        "{}",
        within.stderr
    );
}

/// A file of this machine with a program's text; says where it is.
fn program(machine: &Machine, name: &str, text: &str) -> String {
    let path = machine.dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Clients as many as a server of one thread has trouble with, all at once; each asks once with curl, which
/// leaves without `Connection: close`. Then how often the server waited for one that had left.
const FOUR_AT_ONCE: &str = r#"
for round in 1 2 3; do
  for data in '' '' '--data x' '--data x'; do
    curl -sS --max-time 60 $data "http://$0/" &
  done
  wait
done
curl -sS --max-time 60 "http://$0/waits"
"#;

fn clients_that_leave_without_a_word_hold_up_no_server_of_one_thread(machine: &Machine) {
    if !installed("curl") {
        return;
    }
    let python = program(machine, "one.py", include_str!("side_by_side/one_thread.py"));
    let perl = program(machine, "one.pl", include_str!("side_by_side/one_thread.pl"));
    let mesh = machine.up("onethread");
    for (service, server) in [("python", ["python3", &python]), ("perl", ["perl", &perl])] {
        if service == "perl" && !perl_has("HTTP::Daemon") {
            continue;
        }
        let client = ["sh", "-c", FOUR_AT_ONCE];
        let alone = alone(&mesh, &[("80", &server)], &[&client[..], &["127.0.0.1"]].concat());
        let words = [&["--port", "http:80", "--"], &server[..]].concat();
        let _server = mesh.start_ready(service, &words);
        let within = mesh.client(&[&client[..], &[service]].concat());
        assert_eq!(alone.stdout, format!("{}waits 0\n", "ok\n".repeat(12)), "{}", alone.stderr);
        same(&alone, &within);
    }
}

fn perl_has(module: &str) -> bool {
    if !installed("perl") {
        return false;
    }
    let has = Command::new("perl").arg(format!("-M{module}")).args(["-e", "1"]).output();
    let has = has.is_ok_and(|ran| ran.status.success());
    if !has {
        skip(&format!("perl has no {module}"));
    }
    has
}

/// A client's program, run against nginx with a small limit for uploads and a server that tells what it was
/// asked.
fn client_sees_the_same(machine: &Machine, name: &str, client: &[&str]) {
    if !installed("nginx") || !installed("node") {
        return;
    }
    let mesh = machine.up(name);
    let conf = nginx_conf(machine, "client_max_body_size 1m;", "proxy_pass http://127.0.0.1:1;");
    let nginx = ["/usr/sbin/nginx", "-c", &conf];
    let echo = program(machine, "echo.js", include_str!("side_by_side/echo.js"));
    let echo = |port| ["node".to_owned(), echo.clone(), port];
    let beside = echo("8080".to_owned());
    let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
    let alone = alone(
        &mesh,
        &[("80", &nginx), ("8080", &beside)],
        &[client, &["http://127.0.0.1/", "http://127.0.0.1:8080/"]].concat(),
    );
    let words = |command: &[&str]| {
        let words = ["--port", "http:80", "--"].iter().chain(command);
        words.map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let start = |service: &str, command: &[&str]| {
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        mesh.start_ready(service, &words)
    };
    let within_mesh = echo("80".to_owned());
    let within_mesh: Vec<&str> = within_mesh.iter().map(String::as_str).collect();
    let _servers = (start("small", &nginx), start("echo", &within_mesh));
    let within = mesh.client(&[client, &["http://small/", "http://echo/"]].concat());
    assert!(alone.stdout.starts_with("upload 413 closes\n"), "{}{}", alone.stdout, alone.stderr);
    same(&alone, &within);
}

fn gos_client_sees_the_same(machine: &Machine) {
    if !installed("go") {
        return;
    }
    let source = program(machine, "client.go", include_str!("side_by_side/client.go"));
    // Built once for all: the first build makes the standard library too.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let built = machine.dir.join("go-client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&built).arg(&source).current_dir(&machine.dir);
    build.env("GOCACHE", cache).env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    build.env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    let built_it = build.output().unwrap();
    assert!(built_it.status.success(), "{}", String::from_utf8_lossy(&built_it.stderr));
    fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).unwrap();
    client_sees_the_same(machine, "goclient", &[built.to_str().unwrap()]);
}

fn javas_client_sees_the_same(machine: &Machine) {
    // A program in one file is compiled as it is started.
    if !installed("java") || !installed("javac") {
        return;
    }
    let source = program(machine, "Client.java", include_str!("side_by_side/Client.java"));
    client_sees_the_same(machine, "javaclient", &["java", &source]);
}

/// Chunks of the stream, more than a limit on their padding ever allowed.
const CHUNKS: usize = 20_000;

fn varnish_passes_on_a_stream_of_any_number_of_chunks(machine: &Machine) {
    if !installed("varnishd") || !installed("node") || !installed("curl") {
        return;
    }
    let mesh = machine.up("varnish");
    let chunks = program(machine, "chunks.js", include_str!("side_by_side/chunks.js"));
    let count = CHUNKS.to_string();
    let varnish = |name: &str, host: &str, port: &str| {
        let text = include_str!("side_by_side/stream.vcl");
        let text = text.replace("HOST", host).replace("PORT", port);
        (program(machine, &format!("{name}.vcl"), &text), machine.dir.join(name))
    };
    let command = |(vcl, dir): &(String, std::path::PathBuf)| {
        let words = "varnishd -F -j none -a :80 -s malloc,16m -p thread_pool_min=5 -f";
        let words = words.split(' ').map(str::to_owned);
        let last = [vcl.clone(), "-n".to_owned(), dir.to_str().unwrap().to_owned()];
        words.chain(last).collect::<Vec<_>>()
    };
    // A sum tells whether it is whole without being shown whole.
    let client = |host: &str| format!("curl -sS --max-time 60 http://{host}/ | cksum");
    let alone_varnish = command(&varnish("alone", "127.0.0.1", "8080"));
    let alone_varnish: Vec<&str> = alone_varnish.iter().map(String::as_str).collect();
    let servers: [(&str, &[&str]); 2] =
        [("8080", &["node", &chunks, "8080", &count]), ("80", &alone_varnish)];
    let alone = alone(&mesh, &servers, &["sh", "-c", &client("127.0.0.1")]);

    let words = ["--port", "http:80", "--", "node", &chunks, "80", &count];
    let _chunks = mesh.start_ready("chunks", &words);
    let within_varnish = command(&varnish("within", "chunks", "80"));
    let within_varnish: Vec<&str> = within_varnish.iter().map(String::as_str).collect();
    let _varnish =
        mesh.start_ready("varnish", &[&["--port", "http:80", "--"], &within_varnish[..]].concat());
    let within = mesh.client(&["sh", "-c", &client("varnish")]);
    let whole = CHUNKS * "a chunk\n".len();
    assert!(alone.stdout.trim_end().ends_with(&format!(" {whole}")), "{}", alone.stdout);
    same(&alone, &within);
}

fn a_peer_that_says_its_protocols_name_and_waits_is_answered_at_once(machine: &Machine) {
    let mesh = machine.up("member");
    let member = program(machine, "member.py", include_str!("side_by_side/member.py"));
    let server = ["python3", &member, "serve"];
    let client = |host| ["python3", &member, "join", host];
    let alone = alone(&mesh, &[("5701", &server)], &client("127.0.0.1"));
    let words = [&["--port", "5701", "--"], &server[..]].concat();
    let _server = mesh.start_ready("member", &words);
    let within = mesh.client(&client("member"));
    assert!(alone.stdout.contains("joined"), "{}{}", alone.stdout, alone.stderr);
    same(&alone, &within);
    // Its bytes decided, on both sides: neither waited for a timer.
    let address = mesh.workloads("member")[0]["workload"]["ipv4"].as_str().unwrap().to_owned();
    let script = format!(
        "python3 {member} join member >/dev/null && for of in 127.0.0.1 {address}; do \
         curl -sS http://$of:15090/stats/prometheus | grep ^heddle_protocol_verdicts_total; done"
    );
    let verdicts = wait_until("both tell their verdicts", || {
        let told = mesh.client(&["sh", "-c", &script]);
        let of_it = told.stdout.lines().filter(|line| line.contains("port=\"5701\""));
        let of_it: Vec<String> = of_it.map(str::to_owned).collect();
        (of_it.len() >= 2).then_some(of_it)
    });
    for verdict in &verdicts {
        let by_bytes = verdict.contains("verdict=\"tcp\"") && verdict.contains("\"client-bytes\"");
        assert!(by_bytes, "{verdict}");
    }
}
