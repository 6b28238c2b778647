//! The program of `heddle run`: its exit code, signals, streams, rights, and who refuses it.

use std::{io::Write as _, process::Stdio};

use heddle_runtime::{process, signal::Signal};

use crate::{
    as_both_users,
    host::{Machine, User, skip, wait_until},
};

as_both_users!(
    status_tells_which_declared_ports_nothing_listens_on,
    exit_codes_pass_through,
    signals_pass_through_after_the_endpoint_is_withdrawn,
    streams_pass_untouched,
    the_program_has_the_users_id_and_no_right_to_change_rules,
    a_setuid_program_is_warned_about_where_it_cannot_work,
    descendants_end_with_run,
    a_terminal_stops_continues_and_interrupts_run_and_program_together,
    the_control_plane_refuses_what_contradicts,
);

fn exit_codes_pass_through(machine: &Machine) {
    let mesh = machine.up("codes");
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        let ended = mesh.client(&["sh", "-c", script]);
        assert_eq!((ended.code, ended.stderr.as_str()), (code, ""), "{script}");
    }
    let script = machine.dir.join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = mesh.client(&[script.to_str().unwrap()]);
    assert_eq!(ended.code, 127, "{}", ended.stderr);
    assert!(mesh.workloads("client").is_empty(), "nothing stays behind");
}

fn signals_pass_through_after_the_endpoint_is_withdrawn(machine: &Machine) {
    let mesh = machine.up("signals");
    // Says which signal came, and ends by TERM with a code of its own.
    let script = "import signal,sys,socket\n\
        s=socket.socket();s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1);s.bind(('',80));s.listen()\n\
        say=lambda n,_:print(signal.Signals(n).name,flush=True)\n\
        for n in (signal.SIGHUP,signal.SIGUSR1,signal.SIGUSR2,signal.SIGINT):signal.signal(n,say)\n\
        signal.signal(signal.SIGTERM,lambda n,_:sys.exit(3))\n\
        print('ready',flush=True)\n\
        while True:signal.pause()\n";
    let running = mesh.start("web", &["--port", "80", "--", "python3", "-c", script]);
    wait_until("the program runs", || running.printed().contains("ready").then_some(()));
    let ready = |state: &str| {
        let views = mesh.workloads("web");
        let port = &views.first()?["workload"]["ports"]["80"]["state"];
        (port == state).then_some(())
    };
    wait_until("its port is ready", || ready("ready"));
    for (signal, name) in [(Signal::HANGUP, "SIGHUP"), (Signal::USER_1, "SIGUSR1")] {
        running.signal(signal);
        wait_until(name, || running.printed().contains(name).then_some(()));
    }
    ready("ready").expect("only INT and TERM withdraw it");
    running.signal(Signal::INTERRUPT);
    wait_until("SIGINT", || running.printed().contains("SIGINT").then_some(()));
    ready("terminating").expect("it was withdrawn before the program heard of the signal");
    let ended = running.end(Signal::TERMINATE);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
}

fn streams_pass_untouched(machine: &Machine) {
    let mesh = machine.up("streams");
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    let words =
        ["run", "--mesh", "streams", "--service", "c", "--", "sh", "-c", "echo aside >&2; cat"];
    let mut command = machine.heddle(&words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "aside\n");
    drop(mesh);
}

fn the_program_has_the_users_id_and_no_right_to_change_rules(machine: &Machine) {
    const NET_ADMIN: u64 = 1 << 12;
    let mesh = machine.up("rights");
    let told = mesh.client(&[
        "sh",
        "-c",
        "id -u; id -g; grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status",
    ]);
    let line = |name: &str| {
        let line = told.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap_or_default(), 16).unwrap()
    };
    let ids: Vec<&str> = told.stdout.lines().take(2).collect();
    let (effective, bounding, no_new) = (line("CapEff:"), line("CapBnd:"), line("NoNewPrivs:"));
    match machine.user {
        User::Root => {
            assert_eq!(ids, ["0", "0"]);
            assert_eq!((effective & NET_ADMIN, bounding & NET_ADMIN, no_new), (0, 0, 0));
            assert_ne!(effective, 0, "root keeps its other rights");
        }
        User::Ordinary => {
            let (uid, gid) = process::effective_ids();
            let own = if uid == 0 { (65534, 65534) } else { (uid, gid) };
            assert_eq!(ids, [own.0.to_string(), own.1.to_string()]);
            assert_eq!((effective, bounding, no_new), (0, 0, 1));
        }
    }
    // Neither by a mark nor by a namespace of its own does it get past its sidecar.
    let mark = "import socket;socket.socket().setsockopt(socket.SOL_SOCKET,36,0x539)";
    let marked = mesh.client(&["python3", "-c", mark]);
    if machine.user == User::Ordinary {
        assert!(marked.stderr.contains("PermissionError"), "{}", marked.stderr);
    }
}

fn a_setuid_program_is_warned_about_where_it_cannot_work(machine: &Machine) {
    if !std::path::Path::new("/usr/bin/su").exists() {
        skip("this machine has no /usr/bin/su");
        return;
    }
    let mesh = machine.up("setuid");
    let ran = mesh.client(&["/usr/bin/su", "--version"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.contains("setuid"), machine.user == User::Ordinary, "{}", ran.stderr);
}

fn descendants_end_with_run(machine: &Machine) {
    let mesh = machine.up("descendants");
    let seconds = machine.unlike_any_other();
    let script =
        format!("setsid sleep {seconds} & (nohup sleep {seconds} >/dev/null 2>&1 &) ; exit 5");
    let ended = mesh.client(&["sh", "-c", &script]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert_eq!(crate::host::processes_with(&format!("sleep {seconds}")), [0; 0]);
}

/// A terminal with a small job-control shell on it, of Python's making: types keys, and prints what
/// comes of them. Without a shell in the same session the kernel would not stop anything.
const TERMINAL: &str = r#"
import os, pty, signal, subprocess, sys, time
PROGRAM = """
import signal
signal.signal(signal.SIGINT, lambda n, f: print('interrupted', flush=True))
signal.signal(signal.SIGCONT, lambda n, f: print('continued', flush=True))
print('ready', flush=True)
while True: signal.pause()
"""
def shell():
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execv(sys.argv[1], sys.argv[1:] + ['--', 'python3', '-c', PROGRAM])
    print('job', job, flush=True)
    while True:
        _, status = os.waitpid(job, os.WUNTRACED | os.WCONTINUED)
        if os.WIFSTOPPED(status):
            print('stopped', flush=True)
        elif not os.WIFCONTINUED(status):
            print('code', os.waitstatus_to_exitcode(status), flush=True)
            time.sleep(60)
pid, terminal = pty.fork()
if pid == 0:
    shell()
os.set_blocking(terminal, False)
seen = ''
def read():
    global seen
    try: seen += os.read(terminal, 4096).decode()
    except BlockingIOError: pass
    return seen
def until(what, look):
    end = time.monotonic() + 30
    while not look():
        if time.monotonic() > end: sys.exit(f'gave up: {what}: {seen!r}')
        time.sleep(0.02)
until('ready', lambda: 'ready' in read())
job = int(seen.split('job ')[1].split()[0])
def states():
    out = subprocess.run(['ps', '-A', '-o', 'pgid=,stat='], capture_output=True, text=True).stdout
    rows = [line.split() for line in out.splitlines()]
    return [stat[0] for pgid, stat in rows if int(pgid) == job]
os.write(terminal, b'\x1a')
until('both stop', lambda: set(states()) == {'T'} and 'stopped' in read())
os.killpg(job, signal.SIGCONT)
until('both go on', lambda: 'T' not in states() and 'continued' in read())
os.write(terminal, b'\x03')
until('interrupted', lambda: 'interrupted' in read())
os.kill(job, signal.SIGTERM)
until('ended', lambda: 'code ' in read())
print('processes', len(states()))
print('interrupts', seen.count('interrupted'))
print('code', seen.split('code ')[1].split()[0])
os.kill(pid, signal.SIGKILL)
"#;

fn a_terminal_stops_continues_and_interrupts_run_and_program_together(machine: &Machine) {
    let mesh = machine.up("terminal");
    let script = machine.dir.join("terminal.py");
    std::fs::write(&script, TERMINAL).unwrap();
    let run = machine.heddle(&["run", "--mesh", "terminal", "--service", "t"]);
    let mut command = std::process::Command::new("python3");
    let find = std::process::Command::new("which").arg(run.get_program()).output().unwrap();
    let program = String::from_utf8(find.stdout).unwrap();
    command.arg(&script).arg(program.trim()).args(run.get_args()).current_dir(&machine.dir);
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = machine.start(command).finish();
    assert_eq!(ended.stdout, "processes 0\ninterrupts 1\ncode 143\n", "{}", ended.stderr);
    drop(mesh);
}

fn the_control_plane_refuses_what_contradicts(machine: &Machine) {
    let mesh = machine.up("refusals");
    let _server = mesh.serve("web", &["--protocol", "http"]);
    let words = ["--service", "web", "--port", "80", "--protocol", "tcp", "--", "true"];
    let refused = mesh.run("run", &words);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("80") && refused.stderr.contains("http"), "{}", refused.stderr);
    assert_eq!(mesh.workloads("web").len(), 1);
}

fn status_tells_which_declared_ports_nothing_listens_on(machine: &Machine) {
    let mesh = machine.up("silent");
    let _web = mesh.serve("web", &[]);
    let _wrong = mesh.start("wrong", &["--port", "8081", "--", "sleep", "600"]);
    wait_until("it has joined", || (mesh.workloads("wrong").len() == 1).then_some(()));
    let status = wait_until("only the port without a listener is named", || {
        let status = mesh.run("status", &[]).stdout;
        (status.matches("nothing listens on port").count() == 1).then_some(status)
    });
    assert!(status.contains("problem: nothing listens on port 8081 of wrong-"), "{status}");
    let json = mesh.run("status", &["-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let state = |service: &str, port: &str| {
        let workloads = json["info"]["workloads"].as_array().unwrap();
        let workloads = workloads.iter().map(|workload| &workload["joined"]["workload"]);
        let mut of_it = workloads.filter(|workload| workload["service"]["name"] == service);
        of_it.next().unwrap()["ports"][port]["state"].clone()
    };
    assert_eq!((state("web", "80"), state("wrong", "8081")), ("ready".into(), "pending".into()));
}
