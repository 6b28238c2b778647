//! Several programs from one file: `heddle up -f`. They start by readiness, are kept as the file says, and end in the
//! other order; a start that fails leaves nothing behind.

use std::{fs, path::PathBuf};

use heddle_runtime::signal::Signal;

use crate::{
    as_both_users,
    host::{Machine, Mesh, Running, processes_with, skip, wait_until},
};

as_both_users!(
    programs_start_by_readiness_and_end_in_the_other_order,
    down_ends_programs_in_the_other_order_too,
    a_failed_start_stops_what_was_started,
    a_program_that_ends_is_started_again_as_the_file_says,
    a_program_that_does_not_end_is_killed_after_its_time,
    a_service_is_declared_before_its_program_runs,
    nginx_finds_an_upstream_that_starts_after_it,
    a_file_that_is_wrong_starts_nothing,
);

/// A server that tells in a common file when it starts and ends.
const SERVER: &str = "\
import http.server, os, signal, sys, time
name, port, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def tell(what):
    with open(log, 'a') as f: f.write(name + ' ' + what + '\\n')
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path != '/health' or time.monotonic() > began + 1
        body = (name + ' ' + os.environ.get('GREETING', '') + ' ' + os.getcwd()).encode()
        self.send_response(200 if ok else 503); self.send_header('content-length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
def end(*a):
    tell('ends'); sys.exit(0)
signal.signal(signal.SIGTERM, end)
began = time.monotonic()
tell('starts')
print(name, 'says hello', flush=True)
server = http.server.ThreadingHTTPServer(('', port), H)
tell('listens')
server.serve_forever()
";

/// A folder with a file of programs, and `heddle up` on it.
struct Together<'m> {
    machine: &'m Machine,
    folder: PathBuf,
    name: String,
}

impl<'m> Together<'m> {
    fn new(machine: &'m Machine, name: &str, services: &str) -> Self {
        let folder = machine.dir.join(format!("together-{name}"));
        fs::create_dir_all(folder.join("sub")).unwrap();
        // The ordinary user writes into it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&folder, open).unwrap();
        fs::write(folder.join("server.py"), SERVER).unwrap();
        let log = folder.join("told");
        let services = services
            .replace("SERVER", folder.join("server.py").to_str().unwrap())
            .replace("LOG", log.to_str().unwrap());
        fs::write(folder.join("mesh.yaml"), format!("mesh: {name}\nservices:\n{services}"))
            .unwrap();
        Self { machine, folder, name: name.to_owned() }
    }

    fn up(&self, words: &[&str]) -> Running {
        let file = self.folder.join("mesh.yaml");
        let state = self.machine.state_of(&self.name);
        let own = ["up", "-f", file.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
        self.machine.start(self.machine.heddle(&[&own[..], words].concat()))
    }

    fn ready(&self, up: &mut Running) {
        wait_until("all programs are ready", || {
            assert!(up.is_running(), "{}{}", up.printed(), up.said());
            up.said().contains("ready (").then_some(())?;
            up.said().contains("Ctrl-C ends them").then_some(())
        });
    }

    fn heddle(&self, words: &[&str]) -> crate::host::Finished {
        self.machine.run(&[&["--mesh", self.name.as_str()], words].concat())
    }

    fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn at(lines: &[String], line: &str) -> usize {
    lines.iter().position(|one| one == line).unwrap_or_else(|| panic!("no `{line}`: {lines:?}"))
}

fn programs_start_by_readiness_and_end_in_the_other_order(machine: &Machine) {
    let together = Together::new(
        machine,
        "shop",
        "  front:\n    command: python3 SERVER front 8000 LOG\n    directory: sub\n    environment: {GREETING: good day}\n    ports: [http:8000]\n    publish: ['0:8000']\n    depends-on: [back]\n  back:\n    command: [python3, SERVER, back, 8000, LOG]\n    ports: [8000]\n    ready: /health\n    depends-on: [job]\n  job:\n    command: [sh, -c, 'sleep 0.2; echo job done >> LOG; echo the job is done']\n    ready: ended\n",
    );
    let mut up = together.up(&[]);
    together.ready(&mut up);
    let told = together.told();
    for (first, then) in [("job done", "back starts"), ("back listens", "front starts")] {
        assert!(at(&told, first) < at(&told, then), "{told:?}");
    }
    let printed = up.printed();
    assert!(printed.contains("front | front says hello"), "{printed}");
    assert!(printed.contains("job   | the job is done"), "{printed}");
    let answer =
        together.heddle(&["run", "--service", "me", "--", "curl", "-sS", "http://front:8000/"]);
    let folder = together.folder.join("sub");
    assert_eq!(answer.stdout, format!("front good day {}", folder.display()), "{}", answer.stderr);
    let log = together.heddle(&["logs", "back"]).stdout;
    assert!(log.contains("back says hello"), "{log}");
    let ended = up.end(Signal::INTERRUPT);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let told = together.told();
    assert!(at(&told, "front ends") < at(&told, "back ends"), "{told:?}");
    assert!(processes_with(together.folder.to_str().unwrap()).is_empty());
}

fn down_ends_programs_in_the_other_order_too(machine: &Machine) {
    let together = Together::new(
        machine,
        "downed",
        "  front:\n    command: python3 SERVER front 8000 LOG\n    ports: [http:8000]\n    depends-on: [back]\n  back:\n    command: python3 SERVER back 8000 LOG\n    ports: [8000]\n    ready: /health\n",
    );
    let mut up = together.up(&[]);
    together.ready(&mut up);
    let status = together.heddle(&["status"]).stdout;
    let back = status.lines().find(|line| line.contains("back-")).unwrap_or_default();
    assert!(!back.is_empty() && !back.contains("127.0.0.1:"), "nobody published it: {status}");
    let down = together.heddle(&["down"]);
    assert_eq!(down.code, 0, "{}", down.stderr);
    assert!(down.stdout.contains("has ended"), "{}", down.stdout);
    let ended = up.finish();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let told = together.told();
    assert!(at(&told, "front ends") < at(&told, "back ends"), "{told:?}");
    assert!(processes_with(together.folder.to_str().unwrap()).is_empty());
}

fn a_failed_start_stops_what_was_started(machine: &Machine) {
    let together = Together::new(
        machine,
        "fails",
        "  good:\n    command: python3 SERVER good 8000 LOG\n    ports: [8000]\n  bad:\n    command: [sh, -c, 'echo the reason; exit 3']\n    ports: [9000]\n    depends-on: [good]\n  waits:\n    command: python3 SERVER waits 8000 LOG\n    ports: [8000]\n    depends-on: [bad]\n",
    );
    let failed = together.up(&[]).finish();
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let said = &failed.stderr;
    assert!(
        said.contains("cannot start `bad`: it ended before it was ready (exit status: 3)"),
        "{said}"
    );
    assert!(said.contains("the reason"), "the end of its log is told: {said}");
    let told = together.told();
    assert!(at(&told, "good starts") < at(&told, "good ends"), "{told:?}");
    assert!(!told.iter().any(|line| line.starts_with("waits")), "{told:?}");
    assert!(!machine.dir.join("run/fails").exists(), "the mesh has ended too");
    // A port that nothing listens on is told by its number, in the time that the file gives.
    let late = Together::new(
        machine,
        "late",
        "  silent:\n    command: sleep 100\n    ports: [8000]\n    ready-timeout: 300ms\n",
    );
    let failed = late.up(&[]).finish();
    assert!(
        failed.code == 1 && failed.stderr.contains("not all of its ports listen (8000)"),
        "{}",
        failed.stderr
    );
}

fn a_program_that_ends_is_started_again_as_the_file_says(machine: &Machine) {
    let together = Together::new(
        machine,
        "again",
        "  kept:\n    command: python3 SERVER kept 8000 LOG\n    ports: [8000]\n    restart: on-failure\n  left:\n    command: python3 SERVER left 8000 LOG\n    ports: [8000]\n",
    );
    let mut up = together.up(&["--quiet"]);
    together.ready(&mut up);
    for name in ["kept", "left"] {
        for pid in processes_with(&format!("server.py {name} 8000 {}", together.folder.display())) {
            // Its `run` is told by its flags, and lives on.
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !command.starts_with(b"heddle") {
                drop(Signal::KILL.send(pid));
            }
        }
    }
    wait_until("one is started again, by name, and the other one is not", || {
        let said = up.said();
        let again = said.contains("kept has ended") && said.contains("started again in 0.5 s");
        (again && said.contains("left has ended")).then_some(())
    });
    wait_until("it serves again", || {
        let starts = together.told().iter().filter(|line| *line == "kept listens").count();
        (starts == 2).then_some(())
    });
    assert!(!up.printed().contains("says hello"), "`--quiet` leaves it to `heddle logs`");
    assert_eq!(up.end(Signal::INTERRUPT).code, 0);
    let told = together.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("left starts")).count(), 1, "{told:?}");
}

fn a_program_that_does_not_end_is_killed_after_its_time(machine: &Machine) {
    let together = Together::new(
        machine,
        "stubborn",
        "  stubborn:\n    command: [sh, -c, \"trap '' TERM; touch LOG; while :; do sleep 0.1; done\"]\n    ready: started\n    stop-timeout: 500ms\n",
    );
    let mut up = together.up(&[]);
    together.ready(&mut up);
    wait_until("it has set its trap", || together.folder.join("told").exists().then_some(()));
    let ended = up.end(Signal::INTERRUPT);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("stubborn does not end: it is killed"), "{}", ended.stderr);
    assert!(processes_with(together.folder.to_str().unwrap()).is_empty());
}

fn a_service_is_declared_before_its_program_runs(machine: &Machine) {
    let together = Together::new(
        machine,
        "declared",
        "  asks:\n    command: [python3, -c, 'import socket; print(\"found\", socket.gethostbyname(\"later\"), flush=True)']\n    ready: ended\n  later: {ports: [80]}\n",
    );
    let mut up = together.up(&[]);
    together.ready(&mut up);
    assert!(up.printed().contains("asks  | found 240.240."), "{}", up.printed());
    let mesh = || together.heddle(&["get", "services", "-o", "name"]).stdout;
    assert!(mesh().contains("service/later"), "{}", mesh());
    assert_eq!(up.end(Signal::INTERRUPT).code, 0);
    // What the file declared goes with it.
    let plain: Mesh<'_> = machine.up("declared");
    let left = plain.run("get", &["all", "-o", "name"]).stdout;
    assert_eq!(left, "", "{left}");
}

fn nginx_finds_an_upstream_that_starts_after_it(machine: &Machine) {
    if std::process::Command::new("nginx").arg("-v").output().is_err() {
        return skip("there is no nginx");
    }
    let together = Together::new(
        machine,
        "upstream",
        "  proxy:\n    command: nginx -p . -c nginx.conf\n    ports: [http:8080]\n  api:\n    command: python3 SERVER api 8000 LOG\n    ports: [http:8000]\n    depends-on: [proxy]\n",
    );
    let conf = "daemon off; error_log stderr; pid nginx.pid; worker_processes 1;\nevents {}\nhttp { access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;\n server { listen 8080; location / { proxy_pass http://api:8000; proxy_http_version 1.1; } } }\n";
    fs::write(together.folder.join("nginx.conf"), conf).unwrap();
    let mut up = together.up(&[]);
    together.ready(&mut up);
    let answer =
        together.heddle(&["run", "--service", "me", "--", "curl", "-sS", "http://proxy:8080/"]);
    assert!(answer.stdout.starts_with("api "), "{}{}", answer.stdout, answer.stderr);
    assert_eq!(up.end(Signal::INTERRUPT).code, 0);
}

fn a_file_that_is_wrong_starts_nothing(machine: &Machine) {
    let together = Together::new(
        machine,
        "wrong",
        "  a:\n    command: no-such-program-here\n    depends-on: [b]\n  b:\n    command: sleep 1\n    depnds-on: [a]\n",
    );
    let refused = together.up(&["-o", "json"]).finish();
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
    let line = refused.stderr.lines().last().unwrap();
    let told: serde_json::Value = serde_json::from_str(line).unwrap();
    let first = &told["errors"][0];
    assert_eq!(
        (first["line"].as_u64(), first["field"].as_str()),
        (Some(8), Some("services.b.depnds-on"))
    );
    assert!(first["reason"].as_str().unwrap().contains("did you mean `depends-on`"), "{first}");
    fs::write(together.folder.join("mesh.yaml"), "mesh: wrong\nservices:\n  a: {command: sleep 1, depends-on: [b]}\n  b: {command: sleep 1, depends-on: [a]}\n").unwrap();
    let refused = together.up(&[]).finish();
    assert!(
        refused.stderr.contains(
            "mesh.yaml:3: services.a.depends-on[0]: the programs wait for each other: a -> b -> a"
        ),
        "{}",
        refused.stderr
    );
    let both = together.up(&["--config", "/tmp"]);
    assert_eq!(both.finish().code, 1);
    assert!(!machine.dir.join("run/wrong.lock").exists(), "no mesh was started");
    let missing = machine.run(&["up", "-f", "/nonexistent/mesh.yaml"]);
    assert!(
        missing.code == 1 && missing.stderr.contains("/nonexistent/mesh.yaml"),
        "{}",
        missing.stderr
    );
}
